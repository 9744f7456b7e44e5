// Connection: one NVMe/TCP connection of a host: PDUs in, PDUs out, requests in between (NVMe TCP Transport 1.0).
// Lives on one shard, owned by its ShardTarget, from accept to the end of run().
//
// Its memory is bounded: at most two requests for each entry of its queue, two accounts of the buffer pool, one receive
// buffer. A host that sends faster than it can be served, or does not read its answers, holds up itself alone.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "async/event.h"
#include "io/shard.h"
#include "io/stream_reader.h"
#include "io/stream_sender.h"
#include "nvme/pdu_builder.h"
#include "nvme/pdu_decoder.h"
#include "target/queue.h"
#include "target/request.h"

namespace fairlead::target {

class Connection final : public QueueTransport {
 public:
  Connection(ShardTarget& shard_target, std::unique_ptr<Stream> stream, uint64_t id, PortIndex port);
  ~Connection() override;

  // Serves the host until either side ends it; then takes everything back. Destroy it afterwards.
  Task<void> run();

  void respond(Request& request) override;
  void take_back(Request& request) override;
  void close(const char* reason) override;
  void close_gently(const char* reason) override;
  uint64_t id() const override { return id_; }
  SocketAddress local_address() const override { return stream_->local(); }
  const char* close_reason() const override { return close_reason_; }

  // Takes back a command that only waits. False: there is none, or it runs.
  bool abort(uint16_t cid);
  bool uses(const Subsystem& subsystem) const { return queue_.subsystem() == &subsystem; }
  // Null: it does not use it.
  const std::string* host_of(const Subsystem& subsystem) const {
    return uses(subsystem) && queue_.association() != nullptr ? &queue_.association()->host_nqn : nullptr;
  }

 private:
  struct Slot;
  // The data that follows a header.
  struct Incoming {
    Slot* slot = nullptr;      // whose data it is; null: nobody's
    uint32_t skip_before = 0;  // bytes to drop: padding, or capsule data in front of what the command uses
    uint32_t offset = 0;       // in the request's data
    uint32_t length = 0;
    uint32_t skip_after = 0;
    bool has_digest = false;
    bool in_capsule = false;
    bool checks_digest = false;  // the request uses all the data that the digest covers
    // Bytes that follow the header.
    size_t total() const { return size_t{skip_before} + length + skip_after + (has_digest ? nvme::kDigestSize : 0); }
  };
  // Why the receive loop cannot go on by itself.
  enum class Pause : uint8_t {
    kNeedsBytes,  // bytes_wanted_ of the next header
    kNeedsSlot,
    kNeedsData,  // of incoming_, or a buffer for it
    kYields,
    kViolation,  // violation_, in the header's first bytes_wanted_
    kEnds,
  };

  // Receiving: connection.cc
  Task<const char*> receive_loop();
  Pause take_pdus();
  static std::span<std::byte> received_data(const Incoming& incoming);
  bool take_data(const Incoming& incoming);
  void take_digest(const Incoming& incoming);
  Task<bool> receive_data(const Incoming& incoming);
  Task<bool> skip(uint32_t length);
  std::optional<nvme::PduViolation> begin_pdu(const nvme::DecodedPdu& pdu);
  std::optional<nvme::PduViolation> begin_command(const nvme::DecodedPdu& pdu);
  std::optional<nvme::PduViolation> begin_data(const nvme::DecodedPdu& pdu);
  void accept_connection(const nvme::IcReqPdu& request);
  void end_pdu(const Incoming& incoming);
  bool spend_budget();
  Pause note_violation(const nvme::PduViolation& violation);
  Task<void> refuse(nvme::PduViolation violation, std::vector<std::byte> header);

  // Requests: connection_requests.cc
  Slot* take_slot();
  void end_response(Slot& slot);
  void free_slot(Slot& slot);
  bool has_slot() const { return !free_.empty() || slots_.size() < slots_max(); }
  size_t slots_max() const { return size_t{2} * queue_.entries(); }
  nvme::Status prepare(Slot& slot, uint32_t capsule_data_length);
  void proceed(Slot& slot);
  void on_buffer(Slot& slot);
  void ask_for_data(Slot& slot);
  void reclaim();
  void finish_draining();
  static void on_response_sent(SendItem& item);
  void on_sender_idle();

  ShardTarget& shard_target_;
  Reactor& reactor_;
  std::unique_ptr<Stream> stream_;
  const uint64_t id_;
  StreamReader reader_;
  StreamSender sender_;
  nvme::PduDecoder decoder_;
  nvme::PduFormat format_;
  // Commands whose data comes in the capsule have an account of their own: the receive loop stands still until they
  // have a buffer, so it must not depend on data that is still to be received.
  BufferAccount account_;
  BufferAccount capsule_account_;
  Queue queue_;

  Incoming incoming_;
  size_t bytes_wanted_ = 0;
  uint32_t budget_ = 0;  // PDUs that may be handled before others have their turn
  nvme::PduViolation violation_;

  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
  size_t outstanding_ = 0;  // commands that were not answered yet
  uint64_t commands_ = 0;   // that ever arrived: the submission queue's head, before it wraps

  bool closing_ = false;
  bool draining_ = false;
  bool refusing_ = false;  // the host broke the protocol: it is told, then the connection closes
  const char* close_reason_ = "the host closed the connection";
  Event changed_;  // a slot became free, a buffer came, the sender became idle, the connection closes
  struct Deadline : Timer {
    explicit Deadline(Connection& c)
        : Timer([](Runnable& self) { static_cast<Deadline&>(self).connection.on_deadline(); }), connection(c) {}
    Connection& connection;
  } deadline_{*this};
  void on_deadline();

  struct Notice : SendItem {
    Notice() : SendItem([](SendItem&) {}) {}
    std::array<std::byte, nvme::kTermReqSizeMax> bytes;
  } notice_;  // ICResp, then perhaps a TermReq
};

}  // namespace fairlead::target
