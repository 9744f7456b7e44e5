// The NVM commands that are one device request: Read, Write, Write Zeroes, Flush. NVM command set 1.0 section 3.
#include <bit>
#include <utility>

#include "base/check.h"
#include "target/queue.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::DataTransfer;
using nvme::NvmOpcode;
using nvme::StatusCode;

nvme::StatusOr<Namespace*> Queue::find_namespace(uint32_t nsid) const {
  Namespace* const nspace = subsystem_->find(nsid);
  if (nspace == nullptr) [[unlikely]]
    return nvme::reject(StatusCode::kInvalidNamespaceOrFormat);
  switch (subsystem_->ana_state(port_, nspace->identity().ana_group)) {
    case AnaState::kOptimized:
    case AnaState::kNonOptimized:
      return nspace;
    case AnaState::kInaccessible:
      return std::unexpected(nvme::transient(StatusCode::kAnaInaccessible));
    case AnaState::kPersistentLoss:
      return std::unexpected(nvme::transient(StatusCode::kAnaPersistentLoss));
    case AnaState::kChange:
      return std::unexpected(nvme::transient(StatusCode::kAnaTransition));
  }
  FL_UNREACHABLE("ANA states are checked when they are set");
}

nvme::NamespaceLimits Queue::limits_of(const Namespace& nspace) const {
  return {.blocks = nspace.blocks(),
          .block_shift = static_cast<uint8_t>(std::countr_zero(nspace.block_bytes())),
          .max_transfer_bytes = shard_target_.transfer_bytes_max(),
          .max_zero_blocks = 0};
}

Durability Queue::durability(bool forced) const {
  const bool cached = !forced && association_->write_cache.load(std::memory_order_relaxed);
  return cached ? Durability::kVolatile : Durability::kForced;
}

namespace {

BlockRange to_bytes(const nvme::NvmRange& range, const nvme::NamespaceLimits& limits) {
  return {ByteOffset(range.first.value << limits.block_shift), uint64_t{range.blocks} << limits.block_shift};
}

}  // namespace

// Read, Write, Compare.
nvme::Status Queue::plan_transfer(const nvme::NamespaceLimits& limits, Request& request) const {
  const nvme::SubmissionEntry& command = request.command;
  const auto decoded = nvme::decode_transfer(command, limits, request.pointer.length);
  if (!decoded) return decoded.error();
  if (command.fuse() != nvme::Fuse::kNone && decoded->bytes > kFusedBytesMax) {
    return nvme::permanent(StatusCode::kAtomicWriteUnitExceeded);
  }
  const auto opcode = static_cast<NvmOpcode>(command.opcode);
  IoPlan& plan = request.plan;
  plan.range = to_bytes(decoded->range, limits);
  plan.need.direction = opcode == NvmOpcode::kRead ? DataTransfer::kControllerToHost : DataTransfer::kHostToController;
  plan.need.length = static_cast<uint32_t>(decoded->bytes);
  plan.need.scratch = opcode == NvmOpcode::kCompare ? kScratchBytes : 0;
  plan.forced = decoded->fua;
  return nvme::kOk;
}

nvme::Status Queue::plan_for(const Namespace& nspace, Request& request) const {
  const nvme::SubmissionEntry& command = request.command;
  const nvme::NamespaceLimits limits = limits_of(nspace);
  const bool read_only = nspace.device().geometry().read_only;
  IoPlan& plan = request.plan;
  switch (static_cast<NvmOpcode>(command.opcode)) {
    case NvmOpcode::kWrite:
      if (read_only) return nvme::permanent(StatusCode::kNamespaceWriteProtected);
      [[fallthrough]];
    case NvmOpcode::kRead:
    case NvmOpcode::kCompare:
      return plan_transfer(limits, request);
    case NvmOpcode::kFlush:
      plan = {};
      return nvme::kOk;
    case NvmOpcode::kWriteZeroes: {
      if (read_only) return nvme::permanent(StatusCode::kNamespaceWriteProtected);
      const auto decoded = nvme::decode_write_zeroes(command, limits);
      if (!decoded) return decoded.error();
      plan = {};
      plan.range = to_bytes(decoded->range, limits);
      plan.forced = decoded->fua;
      plan.zero_mode = decoded->deallocate ? ZeroMode::kMayDeallocate : ZeroMode::kKeepAllocated;
      return nvme::kOk;
    }
    case NvmOpcode::kVerify: {
      const auto range = nvme::decode_verify(command, limits);
      if (!range) return range.error();
      plan = {};
      plan.range = to_bytes(*range, limits);
      plan.need.scratch = kScratchBytes;
      return nvme::kOk;
    }
    case NvmOpcode::kDatasetManagement: {
      if (read_only) return nvme::permanent(StatusCode::kNamespaceWriteProtected);
      const uint32_t data_length = request.pointer.length;
      const auto decoded = nvme::decode_dataset_management(command, data_length);
      if (!decoded) return decoded.error();
      // Hosts may send the whole list of 256 for fewer ranges; more than that none needs.
      const auto list_max = static_cast<uint32_t>(nvme::kDsmRangesMax * sizeof(nvme::DsmRange));
      if (data_length > list_max) return nvme::permanent(StatusCode::kDataSglLengthInvalid);
      plan = {};
      plan.need = {DataTransfer::kHostToController, data_length};
      plan.dsm_ranges = decoded->ranges;
      plan.deallocate = decoded->deallocate;
      return nvme::kOk;
    }
    default:
      return nvme::permanent(StatusCode::kInvalidOpcode);
  }
}

nvme::Status Queue::plan(Request& request) const {
  if (request.planned_version == subsystem_->version()) return nvme::kOk;
  request.planned_version = 0;
  const nvme::StatusOr<Namespace*> nspace = find_namespace(request.command.nsid);
  if (!nspace) return nspace.error();
  const nvme::Status status = plan_for(**nspace, request);
  if (!status.ok()) return status;
  request.planned_for = *nspace;
  request.planned_version = subsystem_->version();
  return nvme::kOk;
}

nvme::Status Queue::prepare_io(Request& request) const {
  // It was ready when this queue connected: its admin queue is gone or resets it, and this queue goes next. The host
  // may try again elsewhere.
  if (!association_->ready.load(std::memory_order_relaxed)) {
    return nvme::transient(StatusCode::kAbortedQueueDeleted);
  }
  const auto opcode = static_cast<NvmOpcode>(request.command.opcode);
  const bool may_fuse = opcode == NvmOpcode::kCompare || opcode == NvmOpcode::kWrite;
  if (request.command.fuse() != nvme::Fuse::kNone && !may_fuse) return nvme::permanent(StatusCode::kInvalidField);
  if (opcode == NvmOpcode::kFlush && request.command.nsid == nvme::kBroadcastNamespace) {
    request.need = {};
    return nvme::kOk;
  }
  const nvme::Status status = plan(request);
  if (status.ok()) request.need = request.plan.need;
  return status;
}

bool Queue::takes_in_place(const Request& request) const {
  return request.planned_version != 0 && request.command.opcode == static_cast<uint8_t>(NvmOpcode::kWrite) &&
         request.command.fuse() == nvme::Fuse::kNone && request.planned_for->device().takes_writes_at_once() &&
         !request.planned_for->gate().is_locked();
}

void Queue::execute_io(Request& request) {
  association_->note_traffic();
  const nvme::SubmissionEntry& command = request.command;
  const auto opcode = static_cast<NvmOpcode>(command.opcode);
  if (command.fuse() != nvme::Fuse::kNone) return execute_fused(request);
  if (opcode == NvmOpcode::kFlush && command.nsid == nvme::kBroadcastNamespace) return scope_.spawn(flush_all(request));
  // Since prepare() the namespace may have gone, shrunk, or changed its ANA state.
  if (const nvme::Status status = plan(request); !status.ok()) return complete(request, status);
  if (!request.planned_for->lets_through(association_->caller)) [[unlikely]]
    return complete(request, nvme::permanent(StatusCode::kFenced));
  request.nspace = request.planned_for;
  request.nspace->begin_command();
  request.io.left_behind = on_left_behind;
  switch (opcode) {
    case NvmOpcode::kRead:
    case NvmOpcode::kWrite:
      return submit_transfer(request);
    case NvmOpcode::kWriteZeroes:
      return submit_write_zeroes(request);
    case NvmOpcode::kFlush:
      request.io.arguments() = {.op = IoOp::kFlush};
      request.io.done = on_io_done;
      return request.nspace->device().submit(request.io);
    case NvmOpcode::kCompare:
      return scope_.spawn(compare(request, request.plan.range));
    case NvmOpcode::kVerify:
      return scope_.spawn(verify(request, request.plan.range));
    case NvmOpcode::kDatasetManagement:
      // Only deallocation does anything; the other attributes are hints.
      if (!request.plan.deallocate) return complete(request, nvme::kOk);
      return scope_.spawn(deallocate(request, request.plan.dsm_ranges));
    default:
      FL_UNREACHABLE("plan() lets no other NVM command through");
  }
}

void Queue::submit_transfer(Request& request) {
  const IoPlan& plan = request.plan;
  const bool is_write = static_cast<NvmOpcode>(request.command.opcode) == NvmOpcode::kWrite;
  IoCounters& counters = request.nspace->counters();
  ++(is_write ? counters.writes : counters.reads);
  (is_write ? counters.bytes_written : counters.bytes_read) += plan.range.length;
  // The interface of writev(2), which is not const either: a device only reads what it writes.
  std::byte* const data =
      request.in_place.empty() ? request.data.data() : const_cast<std::byte*>(request.in_place.data());
  request.io_buffer = {data, plan.range.length};
  request.io.arguments() = {.op = is_write ? IoOp::kWrite : IoOp::kRead,
                            .offset = plan.range.offset,
                            .length = plan.range.length,
                            .buffers = {&request.io_buffer, 1},
                            .durability = durability(plan.forced)};
  if (is_write) return enter_gate(request);
  request.io.done = on_io_done;
  request.io.may_say_zeroes = plan.range.length <= kZeroesMax;
  request.nspace->device().submit(request.io);
}

void Queue::submit_write_zeroes(Request& request) {
  const IoPlan& plan = request.plan;
  request.io.arguments() = {.op = IoOp::kWriteZeroes,
                            .offset = plan.range.offset,
                            .length = plan.range.length,
                            .durability = durability(plan.forced),
                            .zero_mode = plan.zero_mode};
  enter_gate(request);
}

void Queue::enter_gate(Request& request) {
  request.io.done = [](IoRequest& io) {
    Request& finished = *static_cast<RequestIo&>(io).owner;
    finished.nspace->gate().leave(finished.gate);
    on_io_done(io);
  };
  request.gate.offset = request.io.offset.value;
  request.gate.length = request.io.length;
  request.nspace->gate().enter(request.gate);
}

// The host is answered at once; its buffers, and the namespace, wait for the medium.
void Queue::on_left_behind(IoRequest& io) {
  Request& request = *static_cast<RequestIo&>(io).owner;
  request.left_behind_in = request.nspace;
  request.left_behind_in->begin_command();
  if (io.done != on_io_done) request.nspace->gate().leave(request.gate);
  io.done = [](IoRequest& ended) {
    Request& left = *static_cast<RequestIo&>(ended).owner;
    std::exchange(left.left_behind_in, nullptr)->end_command();
    left.queue.transport_.take_back(left);
  };
  request.queue.complete(request, io.result ? nvme::kOk : nvme::status_from_error(io.result.error()));
}

void Queue::on_io_done(IoRequest& io) {
  Request& request = *static_cast<RequestIo&>(io).owner;
  request.queue.complete(request, io.result ? nvme::kOk : nvme::status_from_error(io.result.error()));
}

}  // namespace fairlead::target
