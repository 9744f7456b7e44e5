// NVM commands of several device requests: Dataset Management, Compare, Verify, Flush of all namespaces, and the fused
// compare-and-write. NVM command set 1.0 section 3. Control flow, so coroutines; none of them is on the fast path.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/fault.h"
#include "target/queue.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::StatusCode;

namespace {

nvme::Status status_of(const Result<void>& result) {
  return result ? nvme::kOk : nvme::status_from_error(result.error());
}

// Writes enter the gate as requests do; this is the way in for a coroutine: co_await GateEntry, then leave.
class GateEntry : private GatedWrite {
 public:
  GateEntry(Reactor& reactor, WriteGate& gate, const BlockRange& range)
      : GatedWrite([](GatedWrite& self) {
          auto& entry = static_cast<GateEntry&>(self);
          entry.reactor_.post(entry.resumption_);
        }),
        reactor_(reactor),
        gate_(gate) {
    offset = range.offset.value;
    length = range.length;
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> caller) {
    resumption_.handle = caller;
    gate_.enter(*this);
  }
  void await_resume() const noexcept {}
  void leave() { gate_.leave(*this); }

 private:
  Reactor& reactor_;
  WriteGate& gate_;
  Resumption resumption_;
};

}  // namespace

Task<void> Queue::flush_all(Request& request) {
  std::vector<uint32_t> ids;
  subsystem_->for_each_namespace([&](Namespace& nspace) { ids.push_back(nspace.identity().nsid); });
  nvme::Status status;
  for (const uint32_t nsid : ids) {
    Namespace* const nspace = subsystem_->find(nsid);
    if (nspace == nullptr) continue;
    if (!nspace->lets_through(association_->caller)) {
      status = nvme::permanent(StatusCode::kFenced);
      continue;
    }
    nspace->begin_command();
    const Result<void> flushed = co_await block_flush(shard_target_.reactor(), nspace->device());
    nspace->end_command();
    if (!flushed) status = status_of(flushed);
  }
  complete(request, status);
}

Task<void> Queue::deallocate(Request& request, uint32_t ranges) {
  Namespace& nspace = *request.nspace;
  // All or nothing as far as the command's own values go: they are checked before the first block is given up.
  for (uint32_t i = 0; i < ranges; ++i) {
    const auto range = nvme::decode_dsm_range(request.data_bytes(), i, nspace.blocks());
    if (!range) {
      complete(request, range.error());
      co_return;
    }
  }
  for (uint32_t i = 0; i < ranges; ++i) {
    const auto range = nvme::decode_dsm_range(request.data_bytes(), i, nspace.blocks());
    if (!range || range->blocks == 0) continue;
    const uint64_t block = nspace.block_bytes();
    const BlockRange bytes{ByteOffset(range->first.value * block), range->blocks * block};
    GateEntry entry(shard_target_.reactor(), nspace.gate(), bytes);
    co_await entry;
    const Result<void> done =
        co_await block_discard(shard_target_.reactor(), nspace.device(), bytes.offset, bytes.length);
    entry.leave();
    if (!done) {
      complete(request, status_of(done));
      co_return;
    }
  }
  complete(request, nvme::kOk);
}

// Whether the namespace holds the request's data at `range`; reads in pieces of the scratch room behind the data.
Task<Result<bool>> Queue::compare_blocks(Request& request, BlockRange range) {
  const std::span<std::byte> buffer = request.data.bytes(request.need.total());
  const std::span<std::byte> scratch = buffer.last(request.need.scratch);
  uint64_t at = 0;
  while (at < range.length) {
    const auto piece = static_cast<size_t>(std::min<uint64_t>(scratch.size(), range.length - at));
    const iovec into{scratch.data(), piece};
    FL_CO_TRY_VOID(co_await block_read(shard_target_.reactor(), request.nspace->device(),
                                       ByteOffset(range.offset.value + at), {&into, 1}));
    if (std::memcmp(scratch.data(), buffer.data() + at, piece) != 0) co_return false;
    at += piece;
  }
  co_return true;
}

Task<void> Queue::compare(Request& request, BlockRange range) {
  const Result<bool> same = co_await compare_blocks(request, range);
  if (!same) {
    complete(request, nvme::status_from_error(same.error()));
  } else {
    complete(request, *same ? nvme::kOk : nvme::permanent(StatusCode::kCompareFailure));
  }
}

Task<void> Queue::verify(Request& request, BlockRange range) {
  for (uint64_t at = 0; at < range.length; at += kScratchBytes) {
    const iovec into{request.data.data(), static_cast<size_t>(std::min<uint64_t>(kScratchBytes, range.length - at))};
    const Result<void> read = co_await block_read(shard_target_.reactor(), request.nspace->device(),
                                                  ByteOffset(range.offset.value + at), {&into, 1});
    if (!read) {
      complete(request, status_of(read));
      co_return;
    }
  }
  complete(request, nvme::kOk);
}

// The two commands of a pair come one right behind the other; each may wait for its data.
void Queue::pair_up(Request& request) {
  Request* const before = std::exchange(fused_first_, nullptr);
  request.partner_failed = std::exchange(fused_first_failed_, false);
  if (request.command.fuse() == nvme::Fuse::kSecond && before != nullptr) {
    before->partner = &request;
    request.partner = before;
    return;
  }
  if (request.command.fuse() == nvme::Fuse::kFirst) fused_first_ = &request;
  // A first whose second did not follow. If its data is still on the way, execute_fused() finds it alone.
  if (before != nullptr && before->stage == Stage::kHeld) {
    complete(*before, nvme::permanent(StatusCode::kAbortedMissingFused));
  }
}

void Queue::part(Request& request) {
  if (fused_first_ == &request) {
    fused_first_ = nullptr;
    fused_first_failed_ = true;
  }
  Request* const partner = std::exchange(request.partner, nullptr);
  if (partner == nullptr) return;
  partner->partner = nullptr;
  partner->partner_failed = true;
  if (partner->stage == Stage::kHeld) complete(*partner, nvme::permanent(StatusCode::kAbortedFailedFused));
}

void Queue::execute_fused(Request& request) {
  request.stage = Stage::kHeld;
  if (fused_first_ == &request) return;
  if (request.partner == nullptr) {
    // It failed before this one was here with its data, or there never was one.
    const StatusCode code = request.partner_failed ? StatusCode::kAbortedFailedFused : StatusCode::kAbortedMissingFused;
    return complete(request, nvme::permanent(code));
  }
  const bool is_first = request.command.fuse() == nvme::Fuse::kFirst;
  Request& first = is_first ? request : *request.partner;
  Request& second = is_first ? *request.partner : request;
  if (first.stage != Stage::kHeld || second.stage != Stage::kHeld) return;
  first.partner = second.partner = nullptr;
  first.stage = second.stage = Stage::kExecuting;
  nvme::Status status = nvme::check_fused_pair(first.command, second.command);
  if (status.ok()) status = plan(second);
  if (status.ok() && !second.planned_for->lets_through(association_->caller)) {
    status = nvme::permanent(StatusCode::kFenced);
  }
  if (!status.ok()) {
    complete(first, status);
    complete(second, nvme::permanent(StatusCode::kAbortedFailedFused));
    return;
  }
  for (Request* const each : {&first, &second}) {
    each->nspace = second.planned_for;
    each->nspace->begin_command();
  }
  scope_.spawn(compare_and_write(first, second, second.plan));
}

// Atomic against every other write, on every shard: they are kept out of the range while it runs.
Task<void> Queue::compare_and_write(Request& first, Request& second, IoPlan plan) {
  probe(Probe::kFusedPair);
  nvme::Status compared;
  nvme::Status written = nvme::permanent(StatusCode::kAbortedFailedFused);
  const std::string nqn = association_->subsystem_nqn;
  const uint32_t nsid = second.command.nsid;
  Directory& directory = shard_target_.directory();
  co_await shard_target_.at_home(directory.lock_range(nqn, nsid, plan.range.offset, plan.range.length));
  const Result<bool> same = co_await compare_blocks(first, plan.range);
  if (!same) {
    compared = nvme::status_from_error(same.error());
  } else if (!*same) {
    compared = nvme::permanent(StatusCode::kCompareFailure);
  } else {
    const iovec from{second.data.data(), plan.range.length};
    written = status_of(co_await block_write(shard_target_.reactor(), second.nspace->device(), plan.range.offset,
                                             {&from, 1}, durability(plan.forced)));
  }
  co_await shard_target_.at_home(directory.unlock_range(nqn, nsid));
  complete(first, compared);
  complete(second, written);
}

}  // namespace fairlead::target
