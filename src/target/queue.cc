#include "target/queue.h"

#include <utility>

#include "base/check.h"
#include "base/fault.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::StatusCode;

Request::Request(Queue& on_queue, uint16_t slot_index)
    : queue(on_queue), slot(slot_index), gate([](GatedWrite& write) {
        Request& request = *static_cast<RequestGate&>(write).owner;
        request.nspace->device().submit(request.io);
      }) {
  io.owner = this;
  gate.owner = this;
}

Queue::Queue(ShardTarget& shard_target, QueueTransport& transport, PortIndex port)
    : shard_target_(shard_target), transport_(transport), port_(port), scope_(shard_target.reactor()) {}

Queue::~Queue() = default;

nvme::Status Queue::prepare(Request& request) const {
  const bool is_fabrics = request.command.is_fabrics();
  if (!is_fabrics && !is_connected()) return nvme::permanent(StatusCode::kCommandSequenceError);
  if (!is_fabrics && !is_admin()) return prepare_io(request);
  const uint32_t data_length = request.pointer.length;
  const nvme::StatusOr<DataNeed> need =
      is_fabrics ? prepare_fabrics(request.command, data_length) : controller_->prepare(request.command, data_length);
  if (!need) return need.error();
  request.need = *need;
  return nvme::kOk;
}

void Queue::execute(Request& request) {
  request.stage = Stage::kExecuting;
  if (request.command.is_fabrics()) {
    execute_fabrics(request);
  } else if (is_admin()) {
    controller_->execute(request);
  } else {
    execute_io(request);
  }
}

void Queue::complete(Request& request, nvme::Status status, uint64_t result) {
  if (request.nspace != nullptr) {
    const bool medium_failed =
        status.code == StatusCode::kInternalError ||
        (status.type() == nvme::StatusCodeType::kMedia && status.code != StatusCode::kCompareFailure);
    if (medium_failed) ++request.nspace->counters().errors;
    std::exchange(request.nspace, nullptr)->end_command();
  }
  if (request.partner != nullptr || fused_first_ == &request) [[unlikely]]
    part(request);
  request.status = status;
  request.result = result;
  if (!status.ok() && is_admin() && controller_ != nullptr) controller_->note_error(request);
  request.stage = Stage::kResponding;
  transport_.respond(request);
}

bool Queue::try_abort(Request& request, StatusCode code) {
  if (controller_ != nullptr && controller_->try_abort(request, code)) return true;
  if (request.stage == Stage::kHeld) {
    complete(request, nvme::transient(code));
    return true;
  }
  if (request.stage == Stage::kExecuting && request.nspace != nullptr && request.gate.is_linked() &&
      request.nspace->gate().withdraw(request.gate)) {
    complete(request, nvme::transient(code));
    return true;
  }
  return false;
}

Task<void> Queue::close() {
  if (controller_ != nullptr) co_await controller_->close();
  co_await scope_.close();
  if (association_ == nullptr) co_return;
  const ControllerKey key = association_->key();
  Directory& directory = shard_target_.directory();
  if (is_owner_) {
    association_->ready.store(false);
    co_await shard_target_.at_home(directory.destroy(key, transport_.close_reason()));
  } else {
    co_await shard_target_.at_home(directory.detach(key, attached_qid_, {shard_target_.shard().id, transport_.id()}));
  }
}

}  // namespace fairlead::target
