// What changes data, and flushes: to all slots in use, until all that are needed have it.
#include "base/check.h"
#include "base/fault.h"
#include "mirror/mutant.h"
#include "mirror/side_operation.h"

namespace fairlead::mirror {
namespace {

// The request itself cannot be done, or there is no room: a replica that says so may be in order.
bool is_refusal(Code code) {
  return code == Code::kNoSpace || code == Code::kInvalidArgument || code == Code::kOutOfRange ||
         code == Code::kReadOnly;
}

// Nobody else has it either: whoever asked is told.
bool is_of_only_medium(Code code, uint8_t needed) {
  return (code == Code::kIo || code == Code::kCorrupt) && std::has_single_bit(needed);
}

}  // namespace

// Whether one that waits already would be overtaken.
bool MirrorSide::is_behind_waiting(const Operation& operation) {
  if (waiting_for_others_ == 0) [[likely]]
    return false;
  for (const Operation& other : waiting_) {
    if (other.waits_for_others && other.is_locking() && other.range.overlaps(operation.range)) return true;
  }
  return false;
}

MirrorSide::Start MirrorSide::try_start_write(Operation& operation) {
  if (operation.is_locking()) {
    if (is_behind_waiting(operation) || waits_for_level(operation)) return Start::kWaitsForOthers;
    // Someone waits for all of what we want a part of.
    if (shared_->locks.is_claimed(operation.range)) [[unlikely]]
      return Start::kWaitsForOthers;
    const RangeTable::Outcome outcome = shared_->locks.try_lock(operation.range);
    if (outcome != RangeTable::Outcome::kLocked) [[unlikely]] {
      probe(Probe::kRangeConflict);
      if (outcome == RangeTable::Outcome::kRolledBack) tell_unlocked();
      return Start::kWaitsForOthers;
    }
    // Under the lock nobody makes it level, or needs it to be, but us.
    if (waits_for_level(operation)) [[unlikely]] {
      unlock(operation.range);
      return Start::kWaitsForOthers;
    }
    // Look first: the line stays shared among the shards' caches.
    if (!shared_->has_written.load(std::memory_order_relaxed)) [[unlikely]]
      shared_->has_written.store(true, std::memory_order_relaxed);
    if (shared_->returns.load(std::memory_order_relaxed) > 0) [[unlikely]]
      shared_->note_touched(operation.range);
  }
  operation.configuration = configurations_;
  operation.sent = operation.done = operation.refused = 0;
  operation.verdict.reset();
  begin(operation);
  send(operation, sendable_);
  return Start::kBegan;
}

// What the operation knows of a slot is of the slot's device as it is now.
bool MirrorSide::is_current(const Operation& operation, Slot slot) const {
  return operation.parts[slot].incarnation == configuration_.slots[slot].incarnation;
}

MirrorSide::SlotMask MirrorSide::current(const Operation& operation, SlotMask mask) const {
  if (operation.configuration == configurations_) [[likely]]
    return mask;
  SlotMask now = 0;
  for_each_slot(mask, [&](Slot slot) {
    if (is_current(operation, slot)) now |= bit(slot);
  });
  return now;
}

// The slots that are needed and have not done it.
MirrorSide::SlotMask MirrorSide::lacking(const Operation& operation) const {
  return needed_ & static_cast<SlotMask>(~current(operation, operation.done));
}

void MirrorSide::on_write_part(Operation& operation, Part& part) {
  if (part.result) [[likely]] {
    operation.done |= bit(part.slot);
  } else if (const Code code = part.result.error().code;
             operation.is_locking() && (is_refusal(code) || is_of_only_medium(code, needed_))) {
    operation.refused |= bit(part.slot);  // what that means depends on the others
  } else {
    observer_.slot_failed(shard_.id, part.slot, part.incarnation, part.result.error());
  }
}

// No part of it is under way.
void MirrorSide::decide_write(Operation& operation) {
  SlotMask missing = lacking(operation);
  if (is_mutant(Mutant::kAcknowledgesEarly) && operation.done != 0) missing = 0;
  if (missing == 0 && needed_ != 0) [[likely]] {
    if (!operation.verdict) return finish_write(operation, {});
    return finish_write(operation, std::unexpected(*operation.verdict));
  }
  if (failing_) return orphan(operation);
  decide_lacking(operation, missing);
}

void MirrorSide::decide_lacking(Operation& operation, SlotMask missing) {
  if (operation.verdict) {
    if (can_equalise(operation)) return scope_.spawn(equalise(operation));
    return parked_.push_back(operation);
  }
  const SlotMask tried = current(operation, operation.sent);
  const SlotMask again = missing & sendable_ & static_cast<SlotMask>(~tried);
  if (again != 0) return send(operation, again);
  const SlotMask refused = current(operation, operation.refused);
  if (needed_ != 0 && (needed_ & ~refused) == 0) {
    operation.verdict = operation.parts[static_cast<Slot>(std::countr_zero(needed_))].result.error();
    operation.sent = operation.done = operation.refused = 0;
    return scope_.spawn(equalise(operation));
  }
  if (missing != needed_) report_refusals(operation);
  parked_.push_back(operation);
}

// Some that are needed have done it, so these should have.
void MirrorSide::report_refusals(Operation& operation) {
  for_each_slot(current(operation, operation.refused), [&](Slot slot) {
    const Part& part = operation.parts[slot];
    observer_.slot_failed(shard_.id, slot, part.incarnation, part.result.error());
  });
  operation.refused = 0;
}

// It is answered without those that were asked and have not done it.
void MirrorSide::note_lacking(const Operation& operation) {
  const SlotMask without = current(operation, static_cast<SlotMask>(operation.sent & ~operation.done));
  for_each_slot(without, [&](Slot slot) { slots_[slot].lacking = operation.parts[slot].incarnation; });
  read_masks();
}

void MirrorSide::finish_write(Operation& operation, Result<void> result) {
  if (operation.sent != operation.done) [[unlikely]] {
    if (result) report_refusals(operation);
    note_lacking(operation);
  }
  if (operation.kind == Operation::Kind::kFlush) return answer(operation, result);
  const ByteRange range = operation.range;
  if (result && operation.kind == Operation::Kind::kZeroes && range.end < operation.end) {
    if (operation.left_behind == 0) {
      go_on_with_zeroes(operation);
      return unlock(range);
    }
    result = fail(Code::kBusy, "a disk does not answer: the rest is for whoever asks again");
  }
  if (!result) shared_->taken_back.fetch_add(1);
  // Unlocked first: what the owner submits next may want the range.
  unlock(range);
  answer(operation, result);
}

void MirrorSide::revisit_parked() {
  IntrusiveList<Operation> looking;
  while (!parked_.empty()) looking.push_back(parked_.pop_front());
  while (!looking.empty()) decide_write(looking.pop_front());
}

}  // namespace fairlead::mirror
