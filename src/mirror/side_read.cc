// Reads: one slot is asked, then others.
#include <limits>

#include "base/check.h"
#include "mirror/mutant.h"
#include "mirror/side_operation.h"

namespace fairlead::mirror {
namespace {

// The replica is there, and cannot read these bytes.
bool is_of_medium(Code code) { return code == Code::kIo || code == Code::kCorrupt; }

}  // namespace

bool MirrorSide::has_lease() {
  const int64_t until = shared_->lease_until_ns.load(std::memory_order_acquire);
  // The clock itself, not the turn's reading: this thread may have stood still since.
  const bool has = until == std::numeric_limits<int64_t>::max() || shard_.clock.now().ns < until;
  if (has || is_mutant(Mutant::kReadsWithoutLease)) [[likely]] {
    lease_asked_ = false;
    return true;
  }
  if (!lease_asked_) {
    lease_asked_ = true;
    observer_.lease_wanted(shard_.id);
  }
  return false;
}

MirrorSide::Start MirrorSide::try_start_read(Operation& operation) {
  if (operation.configuration != configurations_) [[unlikely]] {
    operation.configuration = configurations_;
    operation.sent = operation.refused = 0;  // another chance for each
  }
  if (!has_lease()) return Start::kWaits;
  if (waits_for_level(operation)) return Start::kWaitsForOthers;
  const SlotMask candidates = readable_ & static_cast<SlotMask>(~operation.sent);
  if (candidates == 0) [[unlikely]] {
    if ((needed_ & ~operation.refused) != 0) return Start::kWaits;
    const auto first = static_cast<Slot>(std::countr_zero(operation.refused));
    answer(operation, operation.parts[first].result);
    return Start::kBegan;
  }
  begin(operation);
  operation.taken_back = shared_->taken_back.load();
  const SlotMask local = candidates & local_;
  auto chosen = static_cast<Slot>(std::countr_zero(local != 0 ? local : candidates));
  if (local == 0) {
    for_each_slot(candidates, [&](Slot slot) {
      if (slots_[slot].reads < slots_[chosen].reads) chosen = slot;
    });
  }
  operation.sent |= bit(chosen);
  ++slots_[chosen].reads;
  const IoRequest& original = *operation.original;
  Part& part = operation.parts[chosen];
  part.arguments() = original.arguments();
  part.may_say_zeroes = original.may_say_zeroes;
  part.says_zeroes = false;
  submit_part(part);
  return Start::kBegan;
}

void MirrorSide::on_read_part(Operation& operation, Part& part) {
  --slots_[part.slot].reads;
  if (part.result) [[likely]] {
    operation.original->says_zeroes = part.says_zeroes;
    if (operation.refused != 0 && operation.configuration == configurations_) [[unlikely]] {
      for_each_slot(operation.refused, [&](Slot slot) { observer_.repair_wanted(shard_.id, slot, operation.range); });
    }
    return settle_or_wait(operation);
  }
  if (is_of_medium(part.result.error().code)) {
    operation.refused |= bit(part.slot);
  } else {
    observer_.slot_failed(shard_.id, part.slot, part.incarnation, part.result.error());
  }
  start_or_wait(operation);
}

// What was read of a write that is under way may be on this slot alone.
void MirrorSide::settle_or_wait(Operation& operation) {
  if (!shared_->locks.is_locked(operation.range) || is_mutant(Mutant::kReadsInFlight)) [[likely]]
    return answer_read(operation);
  if (failing_) return leave(operation);
  operation.watch = {.left = operation.range};
  if (shared_->locks.was_free(operation.watch)) return answer_read(operation);
  settling_.push_back(operation);
  recount_waiters();
}

// No write that it may have seen is under way any more.
void MirrorSide::answer_read(Operation& operation) {
  if (shared_->taken_back.load() == operation.taken_back) [[likely]]
    return answer(operation, {});
  operation.sent = operation.refused = 0;
  start_or_wait(operation);
}

void MirrorSide::answer_settled() {
  IntrusiveList<Operation> looking;
  while (!settling_.empty()) looking.push_back(settling_.pop_front());
  while (!looking.empty()) {
    Operation& operation = looking.pop_front();
    if (shared_->locks.was_free(operation.watch)) {
      answer_read(operation);
    } else {
      settling_.push_back(operation);
    }
  }
}

}  // namespace fairlead::mirror
