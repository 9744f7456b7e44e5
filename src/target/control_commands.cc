// Replication Send and Replication Receive: vendor-specific admin commands (docs/internals/target.md). The calls
// themselves run on the home shard: see FencedNamespaces.
#include <algorithm>
#include <utility>

#include "target/controller.h"
#include "target/queue.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::AdminOpcode;
using nvme::DataTransfer;
using nvme::StatusCode;

// Whether any namespace takes these commands; without one they do not exist.
bool Controller::has_control() const {
  if (is_discovery()) return false;
  bool found = false;
  subsystem_->for_each_namespace([&](const Namespace& nspace) { found = found || nspace.is_fenced(); });
  return found;
}

nvme::StatusOr<DataNeed> Controller::prepare_control(const nvme::SubmissionEntry& command, uint32_t data_length) const {
  const Namespace* const nspace = is_discovery() ? nullptr : subsystem_->find(command.nsid);
  const bool has_handler = nspace == nullptr ? has_control() : nspace->is_fenced();
  if (!has_handler) return nvme::reject(StatusCode::kInvalidOpcode);
  if (nspace == nullptr) return nvme::reject(StatusCode::kInvalidNamespaceOrFormat);
  if (static_cast<AdminOpcode>(command.opcode) == AdminOpcode::kReplicationSend) {
    const auto decoded = nvme::decode_replication_send(command, data_length);
    if (!decoded) return std::unexpected(decoded.error());
    return DataNeed{DataTransfer::kHostToController, decoded->bytes};
  }
  const auto decoded = nvme::decode_replication_receive(command, data_length);
  if (!decoded) return std::unexpected(decoded.error());
  return DataNeed{DataTransfer::kControllerToHost, decoded->room};
}

void Controller::begin_send(Request& request) {
  const auto command = nvme::decode_replication_send(request.command, request.need.length);
  if (!command) return admin_queue_.complete(request, command.error());
  const std::span<const std::byte> bytes = request.data_bytes();
  const uint64_t number = ++last_send_;
  sends_.emplace(number, &request);
  ++sends_running_;
  scope_.spawn(send(number, *command, {bytes.begin(), bytes.end()}));
}

Task<void> Controller::send(uint64_t number, nvme::ReplicationSend command, std::vector<std::byte> bytes) {
  FencedNamespaces& fenced = shard_target_.directory().fenced();
  const CallerId caller = association_->caller;
  FencedNamespaces::Send call{caller, association_->subsystem_nqn, command.nsid, std::move(bytes)};
  const auto sent = co_await shard_target_.at_home(fenced.send(std::move(call)));
  if (const auto at = sends_.find(number); at != sends_.end()) {
    Request& request = *at->second;
    sends_.erase(at);
    admin_queue_.complete(request, sent ? nvme::kOk : sent.error(), sent ? nvme::encode_replication_sent(*sent) : 0);
  } else if (sent && sent->call != 0) {
    // Aborted: nobody knows of the answer, so nobody would fetch it.
    const FencedNamespaces::Receive unwanted{caller, command.nsid, sent->call, sent->bytes};
    (void)co_await shard_target_.at_home(fenced.receive(unwanted));
  }
  --sends_running_;
}

Task<void> Controller::receive(Request& request) {
  const auto decoded = nvme::decode_replication_receive(request.command, request.need.length);
  if (!decoded) {
    admin_queue_.complete(request, decoded.error());
    co_return;
  }
  const FencedNamespaces::Receive command{association_->caller, decoded->nsid, decoded->call, decoded->room};
  const auto answer = co_await shard_target_.at_home(shard_target_.directory().fenced().receive(command));
  if (!answer) {
    admin_queue_.complete(request, answer.error());
    co_return;
  }
  const std::span<std::byte> out = request.data_bytes();
  std::ranges::copy(*answer, out.begin());
  std::ranges::fill(out.subspan(answer->size()), std::byte{0});
  admin_queue_.complete(request, nvme::kOk, answer->size());
}

// The calls go on, but the queue need not wait for them. Requires: the requests were taken back.
Task<void> Controller::release_sends() {
  if (sends_running_ == 0) co_return;
  co_await shard_target_.at_home(shard_target_.directory().fenced().release(association_->caller));
}

}  // namespace fairlead::target
