// The requests of a connection: from the slot that a command takes to the response that leaves. See connection.h.
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "target/connection.h"
#include "target/connection_slot.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::DataTransfer;
using nvme::StatusCode;

Connection::Slot::Slot(Connection& c, uint16_t index) : connection(c), request(c.queue_, index) {
  // A queue of 1024 entries may have 2048 of them.
  static_assert(sizeof(Slot) <= 1280);
}

Connection::Slot* Connection::take_slot() {
  if (free_.empty()) {
    slots_.push_back(std::make_unique<Slot>(*this, static_cast<uint16_t>(slots_.size())));
    free_.push_back(slots_.back().get());
  }
  Slot* const slot = free_.back();
  free_.pop_back();
  slot->request.stage = Stage::kArrived;
  slot->request.status = nvme::kOk;
  slot->received = 0;
  slot->data_damaged = false;
  slot->request.in_place = {};
  slot->request.planned_version = 0;
  slot->request.io.says_zeroes = false;
  ++outstanding_;
  return slot;
}

// The answer is out, or nobody waits for it.
void Connection::end_response(Slot& slot) {
  if (slot.request.left_behind_in == nullptr) [[likely]]
    return free_slot(slot);
  slot.request.stage = Stage::kLeftBehind;
}

void Connection::take_back(Request& request) {
  if (request.stage == Stage::kLeftBehind) free_slot(*slots_[request.slot]);
}

void Connection::free_slot(Slot& slot) {
  slot.request.data.reset();
  slot.request.stage = Stage::kFree;
  slot.request.need = {};
  free_.push_back(&slot);
  if (closing_ || draining_ || free_.size() == 1) changed_.release_waiters();
  if (draining_) finish_draining();
}

// Whether the command can be served, and what it needs.
nvme::Status Connection::prepare(Slot& slot, uint32_t capsule_data_length) {
  Request& request = slot.request;
  request.pointer = {};
  if (const nvme::Status status = nvme::check_flags(request.command); !status.ok()) return status;
  const auto pointer = nvme::decode_data_pointer(request.command, capsule_data_length);
  if (!pointer) return pointer.error();
  request.pointer = *pointer;
  if (const nvme::Status status = queue_.prepare(request); !status.ok()) return status;
  // Data to the host can only go by the transport.
  if (request.need.direction == DataTransfer::kControllerToHost && pointer->place != nvme::DataPlace::kTransport) {
    return nvme::permanent(StatusCode::kSglTypeInvalid);
  }
  return nvme::kOk;
}

// Gets what is missing, one thing after the other: the buffer, the host's data; then executes.
void Connection::proceed(Slot& slot) {
  Request& request = slot.request;
  const uint32_t bytes = request.need.total();
  if (bytes > 0 && !request.data) {
    request.stage = Stage::kNeedsBuffer;
    BufferAccount& account = slot.in_capsule ? capsule_account_ : account_;
    request.data = shard_target_.shard().buffers.try_allocate(account, bytes);
    if (!request.data) return shard_target_.shard().buffers.wait(slot.buffer_wait, account, bytes);
  }
  if (slot.in_capsule) return;  // the receive loop has the data
  if (request.need.direction == DataTransfer::kHostToController) return ask_for_data(slot);
  queue_.execute(request);
}

void Connection::on_buffer(Slot& slot) {
  slot.request.data = std::move(slot.buffer_wait.buffer);
  if (closing_) {
    changed_.release_waiters();  // reclaim() frees it
  } else if (slot.in_capsule) {
    changed_.release_waiters();
  } else {
    proceed(slot);
  }
}

void Connection::ask_for_data(Slot& slot) {
  Request& request = slot.request;
  request.stage = Stage::kNeedsData;
  const uint32_t length =
      nvme::build_r2t(slot.second_header, format_,
                      {.cccid = request.command.cid, .ttag = request.slot, .offset = 0, .length = request.need.length});
  slot.ready_to_transfer.clear();
  slot.ready_to_transfer.add(std::span(slot.second_header).first(length));
  if (!sender_.has_failed()) sender_.enqueue(slot.ready_to_transfer);
}

void Connection::respond(Request& request) {
  Slot& slot = *slots_[request.slot];
  FL_CHECK(&slot.request == &request && outstanding_ > 0);
  --outstanding_;
  if (closing_ || refusing_ || sender_.has_failed()) return end_response(slot);
  SendItem& item = slot.response;
  item.clear();
  const bool sends_data =
      request.status.ok() && request.need.direction == DataTransfer::kControllerToHost && request.need.length > 0;
  const bool success_in_data = sends_data && queue_.flow_control_disabled() && request.result == 0;
  if (sends_data) {
    const nvme::DataParameters parameters{.cccid = request.command.cid,
                                          .offset = 0,
                                          .length = request.need.length,
                                          .last = true,
                                          .success = success_in_data};
    const uint32_t length = nvme::build_c2h_data(slot.header, format_, parameters);
    item.add(std::span(slot.header).first(length));
    item.add(request.answer());
    if (format_.data_digest) {
      nvme::put_digest(crc32c(request.answer()), slot.digest);
      item.add(slot.digest);
    }
  }
  if (!success_in_data) {
    nvme::CompletionEntry completion;
    completion.set_result(request.result);
    // All ones: the host need not look, and learns so from the answer to Connect (NVMe base 2.0 section 6.3).
    completion.sqhd =
        queue_.flow_control_disabled() ? uint16_t{0xffff} : static_cast<uint16_t>(commands_ % queue_.entries());
    completion.cid = request.command.cid;
    completion.status = nvme::to_status_field(request.status);
    auto& memory = sends_data ? slot.second_header : slot.header;
    const uint32_t length = nvme::build_capsule_resp(memory, format_, completion);
    item.add(std::span(memory).first(length));
  }
  sender_.enqueue(item);
}

void Connection::on_response_sent(SendItem& item) {
  Slot& slot = static_cast<Slot::Item&>(item).slot;
  slot.connection.end_response(slot);
}

bool Connection::abort(uint16_t cid) {
  for (const auto& slot : slots_) {
    Request& request = slot->request;
    if (request.command.cid != cid || request.stage == Stage::kFree || request.stage >= Stage::kResponding) continue;
    bool aborted = false;
    if (request.stage == Stage::kNeedsBuffer && !slot->in_capsule) {
      aborted = shard_target_.shard().buffers.cancel(slot->buffer_wait);
      if (aborted) queue_.complete(request, nvme::transient(StatusCode::kAbortRequested));
    } else if (request.stage != Stage::kNeedsData) {
      aborted = queue_.try_abort(request, StatusCode::kAbortRequested);
    }
    if (aborted) probe(Probe::kAbortedWaiting);
    return aborted;
  }
  return false;
}

// Gives back the requests that wait for something that will not come any more; those that execute come by themselves.
void Connection::reclaim() {
  for (const auto& each : slots_) {
    Slot& slot = *each;
    Request& request = slot.request;
    switch (request.stage) {
      case Stage::kFree:
        break;
      case Stage::kNeedsBuffer: {
        const bool waits = !request.data && !shard_target_.shard().buffers.cancel(slot.buffer_wait);
        // Served, and on its way through the ready queue: on_buffer() comes first.
        if (waits && slot.buffer_wait.is_linked()) break;
        slot.buffer_wait.buffer.reset();
        queue_.complete(request, nvme::transient(StatusCode::kAbortedQueueDeleted));
        break;
      }
      case Stage::kArrived:
      case Stage::kNeedsData:
        queue_.complete(request, nvme::transient(StatusCode::kAbortedQueueDeleted));
        break;
      case Stage::kHeld:
      case Stage::kExecuting:
        queue_.try_abort(request, StatusCode::kAbortedQueueDeleted);
        break;
      case Stage::kResponding:
        // The sender has dropped it, or it is under way still.
        if (sender_.is_idle()) end_response(slot);
        break;
      case Stage::kLeftBehind:
        break;
    }
  }
}

// While draining: once nothing runs and every answer is out, the connection may go.
void Connection::finish_draining() {
  if (closing_ || !sender_.is_idle()) return;
  for (const auto& slot : slots_) {
    const Stage stage = slot->request.stage;
    if (stage == Stage::kExecuting || stage == Stage::kResponding || stage == Stage::kNeedsBuffer) return;
  }
  close(close_reason_);
}

}  // namespace fairlead::target
