#include "mirror/side.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/fault.h"
#include "mirror/side_operation.h"

namespace fairlead::mirror {
namespace {

// Longer zeroes go in pieces, so that nobody waits long for a range of theirs.
constexpr uint64_t kZeroesPieceBytes = 16 * kMiB;
constexpr uint64_t kDiscardUnit = 4 * kKiB;

uint64_t zeroes_piece_end(uint64_t begin, uint64_t end) {
  return std::min(align_down(begin, kZeroesPieceBytes) + kZeroesPieceBytes, end);
}

}  // namespace

MirrorSide::MirrorSide(Shard& shard, std::shared_ptr<MirrorShared> shared, SideObserver& observer, Duration stall_limit)
    : shard_(shard),
      reactor_(shard.reactor),
      shared_(std::move(shared)),
      observer_(observer),
      stall_limit_(stall_limit),
      draining_(reactor_),
      drained_(reactor_),
      part_ended_(reactor_),
      equalising_(reactor_),
      scope_(reactor_) {}

MirrorSide::~MirrorSide() {
  FL_CHECK(devices_open_ == 0 && waiting_.empty() && settling_.empty() && parked_.empty());
  for (const OnSlot& on : slots_) FL_CHECK(on.device == nullptr);
  while (!orphans_.empty()) {
    Operation& operation = orphans_.pop_front();
    shared_->locks.unlock(operation.range);
    operations_.give_back(operation);
  }
  FL_CHECK(!is_counted_);
  reactor_.unpost(look_);
  reactor_.disarm(stall_alarm_);
}

// Configuration.

void MirrorSide::attach(Slot slot, std::unique_ptr<BlockDevice> device) {
  OnSlot& on = slots_[slot];
  FL_CHECK((sendable_ & bit(slot)) == 0 && on.device == nullptr);
  on.device = std::move(device);
}

void MirrorSide::read_masks() {
  needed_ = sendable_ = readable_ = local_ = 0;
  for (Slot slot = 0; slot < kMembersMax; ++slot) {
    const SlotConfiguration& wanted = configuration_.slots[slot];
    if (wanted.use == SlotUse::kOff) continue;
    slots_[slot].is_local = wanted.is_local;
    if (wanted.use == SlotUse::kNeeded) needed_ |= bit(slot);
    if (wanted.is_broken || lacks(slot)) continue;
    FL_CHECK(slots_[slot].device != nullptr);
    sendable_ |= bit(slot);
    if (wanted.is_read) readable_ |= bit(slot);
    if (wanted.is_local) local_ |= bit(slot);
  }
}

void MirrorSide::configure(const SideConfiguration& configuration) {
  configuration_ = configuration;
  ++configurations_;
  read_masks();
  failing_.reset();
  unserved_ = nullptr;
  lease_asked_ = false;
  for (Operation& operation : waiting_) operation.asked_for_level = false;
  release_orphans();
  revisit_parked();
  leave_behind();
  look_again();
}

Task<void> MirrorSide::detach(Slot slot, Until until) {
  FL_CHECK((sendable_ & bit(slot)) == 0);
  OnSlot& on = slots_[slot];
  while (!on.under_way.empty()) co_await part_ended_.wait();
  if (until == Until::kAnswered && !on.left_behind.empty()) co_return;
  while (!on.left_behind.empty()) co_await part_ended_.wait();
  on.device.reset();
}

Task<bool> MirrorSide::drain(uint64_t era) {
  // One after the other, and first what one that was abandoned left over: so nothing of the parity that begins now is
  // older.
  const Mutex::Guard guard = co_await draining_.lock();
  for (int round = 0; round < 2; ++round) {
    while (begun_[parity_ ^ 1] > 0 && era > abandoned_era_) co_await drained_.wait();
    if (era <= abandoned_era_) co_return false;
    if (round == 0) parity_ ^= 1;
  }
  co_return true;
}
void MirrorSide::abandon_drains(uint64_t era) {
  abandoned_era_ = std::max(abandoned_era_, era);
  drained_.release_waiters();
}
void MirrorSide::fail_waiting(Error error, Unserved* unserved) {
  failing_ = error;
  unserved_ = unserved;
  IntrusiveList<Operation> ending;
  while (!waiting_.empty()) ending.push_back(waiting_.pop_front());
  while (!settling_.empty()) ending.push_back(settling_.pop_front());
  waiting_for_others_ = 0;
  recount_waiters();
  while (!ending.empty()) leave(ending.pop_front());
  while (!parked_.empty()) orphan(parked_.pop_front());
}

void MirrorSide::end_unserved(IoRequest& original) {
  if (unserved_ != nullptr) return unserved_->take(original);
  original.complete(std::unexpected(*failing_));
}

void MirrorSide::leave(Operation& operation) {
  end_begun(operation);
  IoRequest& original = *operation.original;
  operations_.give_back(operation);
  end_unserved(original);
}

// Of a write that not all have: nobody may read there until the members were made level.
void MirrorSide::orphan(Operation& operation) {
  end_begun(operation);
  if (operation.left_behind > 0) {
    operation.is_over = !operation.is_locking();
    if (operation.is_locking()) orphans_.push_back(operation);
    return tell(operation, std::unexpected(*failing_));
  }
  IoRequest& original = *std::exchange(operation.original, nullptr);
  if (operation.is_locking()) {
    orphans_.push_back(operation);
  } else {
    operations_.give_back(operation);
  }
  end_unserved(original);
}

void MirrorSide::release_orphans() {
  while (!orphans_.empty()) {
    Operation& operation = orphans_.pop_front();
    const ByteRange range = operation.range;
    operation.is_over = operation.left_behind > 0;
    if (!operation.is_over) operations_.give_back(operation);
    unlock(range);
  }
}

// Requests.

uint64_t MirrorSide::refresh_size() {
  for (const OnSlot& on : slots_) {
    if (on.device != nullptr) (void)on.device->refresh_size();  // one that is too small says so when it is used
  }
  return shared_->size_bytes.load();
}

void MirrorSide::submit(IoRequest& request) {
  const uint64_t begin = request.offset.value;
  ByteRange range{begin, begin + request.length};
  Operation::Kind kind = Operation::Kind::kRead;
  switch (request.op) {
    case IoOp::kRead:
      break;
    case IoOp::kWrite:
      kind = Operation::Kind::kWrite;
      if (request.length > RangeTable::kLockBytesMax) {
        return request.complete(fail(Code::kInvalidArgument, "a write that is too long"));
      }
      break;
    case IoOp::kFlush:
      kind = Operation::Kind::kFlush;
      break;
    case IoOp::kDiscard:
      range = {align_up(range.begin, kDiscardUnit), align_down(range.end, kDiscardUnit)};
      if (range.empty()) return request.complete({});
      [[fallthrough]];
    case IoOp::kWriteZeroes:
      kind = Operation::Kind::kZeroes;
      break;
  }
  // Look first: the line stays shared among the shards' caches.
  if (!shared_->has_io.load(std::memory_order_relaxed)) [[unlikely]]
    shared_->has_io.store(true, std::memory_order_relaxed);
  Operation& operation = operations_.take();
  operation.side = this;
  operation.original = &request;
  operation.kind = kind;
  operation.end = range.end;
  if (kind == Operation::Kind::kZeroes) range.end = zeroes_piece_end(range.begin, range.end);
  operation.range = range;
  operation.configuration = configurations_;
  operation.sent = operation.done = operation.refused = 0;
  operation.has_begun = operation.asked_for_level = operation.is_told = operation.is_over = false;
  start_or_wait(operation);
}

void MirrorSide::begin(Operation& operation) {
  if (operation.has_begun) return;
  operation.has_begun = true;
  operation.parity = parity_;
  ++begun_[parity_];
}

void MirrorSide::end_begun(Operation& operation) {
  if (!std::exchange(operation.has_begun, false)) return;
  if (--begun_[operation.parity] == 0) drained_.release_waiters();
}

void MirrorSide::answer(Operation& operation, Result<void> result) {
  end_begun(operation);
  if (operation.left_behind > 0) [[unlikely]] {
    operation.is_over = true;
    return tell(operation, result);
  }
  IoRequest& original = *operation.original;
  operations_.give_back(operation);
  original.complete(result);
}

// The next piece begins in a turn of its own: others come in between, and no stack grows.
void MirrorSide::go_on_with_zeroes(Operation& operation) {
  operation.range = {operation.range.end, zeroes_piece_end(operation.range.end, operation.end)};
  operation.asked_for_level = false;
  operation.waits_for_others = false;
  end_begun(operation);
  waiting_.push_front(operation);
  post_look();
}

// What waits.

void MirrorSide::start_or_wait(Operation& operation) {
  if (failing_) [[unlikely]]
    return leave(operation);
  const Start start = try_start(operation);
  if (start == Start::kBegan) [[likely]]
    return;
  end_begun(operation);
  operation.waits_for_others = start == Start::kWaitsForOthers;
  waiting_.push_back(operation);
  if (!operation.waits_for_others) return;
  ++waiting_for_others_;
  recount_waiters();
}

MirrorSide::Start MirrorSide::try_start(Operation& operation) {
  if (configuration_.is_held || needed_ == 0) [[unlikely]]
    return Start::kWaits;
  return operation.kind == Operation::Kind::kRead ? try_start_read(operation) : try_start_write(operation);
}

bool MirrorSide::waits_for_level(Operation& operation) {
  const ExtentBits& unlevel = shared_->unlevel;
  if (!unlevel.any(operation.range)) [[likely]]
    return false;
  if (std::exchange(operation.asked_for_level, true)) return true;
  ByteRange left = operation.range;
  while (!left.empty()) {
    const uint64_t extent = unlevel.next_in(left);
    if (extent == unlevel.extents()) break;
    observer_.level_wanted(shard_.id, extent);
    left.begin = (extent + 1) * kExtentBytes;
  }
  return true;
}

void MirrorSide::look_again() {
  answer_settled();
  start_waiting();
  recount_waiters();
}

void MirrorSide::start_waiting() {
  if (configuration_.is_held && !failing_) return;
  IntrusiveList<Operation> trying;
  while (!waiting_.empty()) trying.push_back(waiting_.pop_front());
  waiting_for_others_ = 0;
  while (!trying.empty()) start_or_wait(trying.pop_front());
}

// Whoever begins to wait looks once more after it was counted: see range_table.cc.
void MirrorSide::recount_waiters() {
  const bool waits = waiting_for_others_ > 0 || !settling_.empty();
  if (waits == is_counted_) return;
  is_counted_ = waits;
  if (!waits) return shared_->end_waiting();
  shared_->begin_waiting();
  post_look();
}

void MirrorSide::post_look() {
  if (!look_.is_linked()) reactor_.post(look_);
}

void MirrorSide::unlock(ByteRange range) {
  shared_->locks.unlock(range);
  tell_unlocked();
}

void MirrorSide::tell_unlocked() {
  if (!shared_->has_waiters()) [[likely]]
    return;
  if (is_counted_) {
    // Now, before the next one has the range.
    for (Operation& operation : settling_) (void)shared_->locks.was_free(operation.watch);
    post_look();
  }
  if (shared_->waiters.load() > (is_counted_ ? 1U : 0U)) observer_.ranges_changed(shard_.id);
}

// Parts.

void MirrorSide::send(Operation& operation, SlotMask to) {
  operation.sent |= to;
  operation.done &= static_cast<SlotMask>(~to);
  operation.refused &= static_cast<SlotMask>(~to);
  ++operation.under_way;  // ours: parts may end inside submit()
  for_each_slot(to, [&](Slot slot) {
    const IoRequest& original = *operation.original;
    Part& part = operation.parts[slot];
    part.op = operation.kind == Operation::Kind::kZeroes ? IoOp::kWriteZeroes : original.op;
    part.durability = original.durability;
    part.zero_mode = original.op == IoOp::kDiscard ? ZeroMode::kMayDeallocate : original.zero_mode;
    part.offset = ByteOffset(operation.range.begin);
    part.length = operation.range.end - operation.range.begin;
    part.buffers = original.buffers;
    submit_part(part);
  });
  if (--operation.under_way == 0) decide_write(operation);
}

void MirrorSide::submit_part(Part& part) {
  OnSlot& on = slots_[part.slot];
  part.incarnation = configuration_.slots[part.slot].incarnation;
  part.since = reactor_.now();
  on.under_way.push_back(part);
  ++part.operation->under_way;
  if (!stall_alarm_.is_armed()) [[unlikely]]
    reactor_.arm(stall_alarm_, stall_limit_);
  on.device->submit(part);
}

void MirrorSide::on_part(IoRequest& request) {
  auto& part = static_cast<Part&>(request);
  Operation& operation = *part.operation;
  MirrorSide& side = *operation.side;
  if (part.is_left_behind) [[unlikely]]
    return side.on_left_behind(operation, part);
  side.slots_[part.slot].under_way.remove(part);
  if ((side.sendable_ & bit(part.slot)) == 0) [[unlikely]]
    side.part_ended_.release_waiters();
  --operation.under_way;
  if (operation.resumption != nullptr) [[unlikely]]
    return side.reactor_.post(*operation.resumption);
  if (operation.kind == Operation::Kind::kRead) return side.on_read_part(operation, part);
  side.on_write_part(operation, part);
  if (operation.under_way == 0) side.decide_write(operation);
}

void MirrorSide::on_stall_alarm() {
  std::optional<Instant> next;
  for (OnSlot& on : slots_) {
    if (on.under_way.empty()) continue;
    const Part& oldest = on.under_way.front();
    if (on.stalled == oldest.incarnation) continue;
    const Instant due = oldest.since + stall_limit_;
    if (due > reactor_.now()) {
      next = next ? std::min(*next, due) : due;
      continue;
    }
    on.stalled = oldest.incarnation;
    observer_.slot_failed(shard_.id, oldest.slot, oldest.incarnation,
                          Error{Code::kTimedOut, 0, "the replica does not end what it was asked for"});
  }
  if (next) reactor_.arm(stall_alarm_, *next);
  leave_behind();
}

void MirrorSide::forget_stall(Slot slot) {
  slots_[slot].stalled.reset();
  on_stall_alarm();
}

// What is left behind: the part stays with its medium, the operation goes on as if it had never been sent there.

void MirrorSide::leave_behind() {
  for (Slot slot = 0; slot < kMembersMax; ++slot) {
    OnSlot& on = slots_[slot];
    const bool is_done_without = ((needed_ | sendable_) & bit(slot)) == 0;
    if (on.stalled && on.is_local && is_done_without && !on.under_way.empty()) leave_behind(on);
  }
}

void MirrorSide::leave_behind(OnSlot& on) {
  IntrusiveList<Operation> deciding;
  IntrusiveList<Part, Part> staying;
  while (!on.under_way.empty()) {
    Part& part = on.under_way.pop_front();
    Operation& operation = *part.operation;
    // One that a coroutine waits for has memory of its own, and stays what it is.
    if (operation.resumption != nullptr || part.incarnation != on.stalled) {
      staying.push_back(part);
      continue;
    }
    part.is_left_behind = true;
    on.left_behind.push_back(part);
    ++operation.left_behind;
    if (--operation.under_way == 0) deciding.push_back(operation);
  }
  while (!staying.empty()) on.under_way.push_back(staying.pop_front());
  part_ended_.release_waiters();
  while (!deciding.empty()) {
    Operation& operation = deciding.pop_front();
    probe(Probe::kLeftBehind);
    if (operation.kind == Operation::Kind::kRead) {
      answer(operation, fail(Code::kBusy, "the disk does not answer: the next read goes elsewhere"));
    } else {
      decide_write(operation);
    }
  }
}

// Answers the original but for its buffers.
void MirrorSide::tell(Operation& operation, Result<void> result) {
  IoRequest& original = *operation.original;
  operation.is_told = true;
  original.result = result;
  if (original.left_behind != nullptr) original.left_behind(original);
}

void MirrorSide::on_left_behind(Operation& operation, Part& part) {
  OnSlot& on = slots_[part.slot];
  part.is_left_behind = false;
  on.left_behind.remove(part);
  if (operation.kind == Operation::Kind::kRead) --on.reads;
  part_ended_.release_waiters();
  if (--operation.left_behind > 0 || !operation.is_told) return;
  IoRequest& original = *std::exchange(operation.original, nullptr);
  if (operation.is_over) operations_.give_back(operation);
  original.complete(original.result);
}

}  // namespace fairlead::mirror
