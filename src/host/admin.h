// Admin: what a host asks of a controller by its admin queue (base 2.0 sections 3.5, 5, 6). Each is one coroutine; a
// status other than success is an error. Lives on the queue's shard; the queue is borrowed.
#pragma once

#include <vector>

#include "host/execute.h"
#include "host/namespace_info.h"
#include "nvme/features.h"
#include "nvme/log_page.h"
#include "nvme/properties.h"

namespace fairlead::host {

class Admin {
 public:
  Admin(Reactor& reactor, Queue& queue) : reactor_(reactor), queue_(queue) {}

  // Errors of all: kConnectionLost, and what error_from_status() makes of the controller's answer.
  Task<Result<uint64_t>> get(nvme::Property property);
  Task<Result<void>> set(nvme::Property property, uint64_t value);
  // Sets CC.EN and waits for CSTS.RDY, as long as `capabilities` (CAP.TO) says. Errors: kTimedOut, kIo (CSTS.CFS).
  Task<Result<void>> enable(uint64_t capabilities);
  // Tells the controller that the host goes (CC.SHN) and waits a little for it.
  Task<void> shut_down();

  // `out` has nvme::kIdentifySize bytes.
  Task<Result<void>> identify(nvme::Cns cns, uint32_t nsid, std::span<std::byte> out);
  // Asks for `wanted` I/O queues; returns how many there may be.
  Task<Result<uint16_t>> set_queue_count(uint16_t wanted);
  Task<Result<void>> set_async_events(uint32_t mask);
  // In pieces that every controller takes. `keep_event`: leaves the asynchronous event of the page masked (RAE).
  struct LogRequest {
    nvme::LogPage page = nvme::LogPage::kErrorInformation;
    uint8_t specific = 0;
    uint64_t offset = 0;
    bool keep_event = false;
  };
  Task<Result<void>> read_log(LogRequest request, std::span<std::byte> out);
  // Returns when something happened, however long that takes.
  Task<Result<nvme::AsyncEvent>> next_event();
  Task<Result<void>> keep_alive();
  // Asks for the end of a command; whether it worked does not matter.
  Task<void> abort(uint16_t qid, uint16_t cid);

  // Replication control: Send, then Receive, unless the answer is empty. Error kProtocol: the controller says of its
  // answer what cannot be. Requires: 1 to nvme::kReplicationSendBytesMax bytes, borrowed until then.
  Task<Result<std::vector<std::byte>>> call(uint32_t nsid, std::span<const std::byte> request);

  // CAP, CC, CSTS, Identify Controller: what makes an admin queue a controller.
  Task<Result<ControllerInfo>> bring_up();
  // Every active namespace that a host like us can use; the others are logged. At most kNamespacesMax.
  static constexpr size_t kNamespacesMax = 4096;
  Task<Result<std::vector<NamespaceInfo>>> namespaces(const ControllerInfo& controller);
  Task<Result<AnaStates>> ana_states(const ControllerInfo& controller);

 private:
  Task<Result<Answer>> run(nvme::SubmissionEntry entry, CommandData data, const char* what);
  Task<Result<std::vector<uint32_t>>> active_namespaces();
  Task<Result<NamespaceInfo>> read_one(uint32_t nsid, const ControllerInfo& controller);

  Reactor& reactor_;
  Queue& queue_;
};

}  // namespace fairlead::host
