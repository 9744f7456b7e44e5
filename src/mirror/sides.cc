#include "mirror/sides.h"

#include <algorithm>

#include "async/alarm.h"
#include "async/call.h"
#include "base/check.h"

namespace fairlead::mirror {

Sides::Sides(std::vector<Shard*> shards, std::shared_ptr<MirrorShared> shared, SidesObserver& observer,
             Duration stall_limit)
    : shared_(std::move(shared)),
      observer_(observer),
      stall_limit_(stall_limit),
      publishing_(shards.front()->reactor),
      scope_(shards.front()->reactor),
      ranges_changed_(shards.front()->reactor) {
  for (Shard* const shard : shards) on_shards_.push_back({.shard = shard, .reporter = nullptr, .side = nullptr});
}

Sides::~Sides() = default;

std::vector<MirrorSide*> Sides::all() const {
  std::vector<MirrorSide*> sides;
  for (const OnShard& here : on_shards_) sides.push_back(here.side.get());
  return sides;
}

Task<void> Sides::make_on(OnShard& here) {
  here.reporter = std::make_unique<Reporter>(*this, *here.shard);
  here.side = std::make_unique<MirrorSide>(*here.shard, shared_, *here.reporter, stall_limit_);
  co_return;
}

Task<void> Sides::close_reporter(OnShard& here) { return here.reporter->close(); }

Task<void> Sides::end_on(OnShard& here) {
  here.side.reset();
  here.reporter.reset();
  co_return;
}

Task<void> Sides::start() {
  for (OnShard& here : on_shards_) co_await call_on(home(), here.shard->reactor, make_on(here));
}

Task<void> Sides::stop() {
  for (Slot slot = 0; slot < kMembersMax; ++slot) {
    for (OnShard& here : on_shards_) {
      co_await call_on(home(), here.shard->reactor, detach_on(here, slot, MirrorSide::Until::kAllEnded));
    }
  }
  // What was met is still told, and what that begins ends, before the sides go.
  for (OnShard& here : on_shards_) co_await call_on(home(), here.shard->reactor, close_reporter(here));
  co_await scope_.close();
  for (OnShard& here : on_shards_) co_await call_on(home(), here.shard->reactor, end_on(here));
}

Task<void> Sides::configure_on(OnShard& here, SideConfiguration configuration) {
  here.side->configure(configuration);
  co_return;
}

Task<void> Sides::publish() {
  const Mutex::Guard guard = co_await publishing_.lock();
  const SideConfiguration wanted = configuration_;
  for (OnShard& here : on_shards_) co_await call_on(home(), here.shard->reactor, configure_on(here, wanted));
}

Task<Result<void>> Sides::attach_on(OnShard& here, Slot slot, ReplicaLink& link) {
  FL_CO_TRY(std::unique_ptr<BlockDevice> device, link.open(*here.shard));
  here.side->attach(slot, std::move(device));
  co_return Result<void>();
}

Task<void> Sides::detach_on(OnShard& here, Slot slot, MirrorSide::Until until) {
  return here.side->detach(slot, until);
}

Task<Result<void>> Sides::attach(Slot slot, ReplicaLink& link) {
  SlotConfiguration& wanted = configuration_.slots[slot];
  FL_CHECK(wanted.use == SlotUse::kOff);
  wanted.incarnation = ++incarnations_;
  Result<void> outcome;
  for (OnShard& here : on_shards_) {
    outcome = co_await call_on(home(), here.shard->reactor, attach_on(here, slot, link));
    if (!outcome) break;
  }
  if (!outcome) co_await detach(slot);
  co_return outcome;
}

Task<void> Sides::detach(Slot slot, MirrorSide::Until until) {
  const uint64_t incarnation = configuration_.slots[slot].incarnation;
  configuration_.slots[slot] = {};
  configuration_.slots[slot].incarnation = incarnation;
  co_await publish();
  for (OnShard& here : on_shards_) co_await call_on(home(), here.shard->reactor, detach_on(here, slot, until));
}

Task<bool> Sides::is_grown_on(OnShard& here, Slot slot, uint64_t size_bytes) {
  co_return here.side->is_grown(slot, size_bytes);
}
Task<bool> Sides::is_grown(Slot slot, uint64_t size_bytes) {
  for (OnShard& here : on_shards_) {
    if (!co_await call_on(home(), here.shard->reactor, is_grown_on(here, slot, size_bytes))) co_return false;
  }
  co_return true;
}

Task<bool> Sides::drain_on(OnShard& here, uint64_t era) { return here.side->drain(era); }
Task<bool> Sides::drain(uint64_t era) {
  for (OnShard& here : on_shards_) {
    if (era <= abandoned_era_) co_return false;
    if (!co_await call_on(home(), here.shard->reactor, drain_on(here, era))) co_return false;
  }
  co_return true;
}

Task<void> Sides::abandon_on(OnShard& here, uint64_t era) {
  here.side->abandon_drains(era);
  co_return;
}
Task<void> Sides::abandon_drains(uint64_t era) {
  abandoned_era_ = era;
  for (OnShard& here : on_shards_) co_await call_on(home(), here.shard->reactor, abandon_on(here, era));
}

bool Sides::try_lock(ByteRange range) {
  const RangeTable::Outcome outcome = shared_->locks.try_lock(range);
  if (outcome == RangeTable::Outcome::kRolledBack) tell_ranges_changed();
  return outcome == RangeTable::Outcome::kLocked;
}

Task<Result<void>> Sides::lock(ByteRange range, Duration patience, CancelSource& ending) {
  if (try_lock(range)) co_return Result<void>();
  const Instant until = home().now() + patience;
  const Alarm alarm(home(), ranges_changed_, until);
  shared_->locks.claim(range);
  shared_->begin_waiting();
  bool is_locked = try_lock(range);
  while (!is_locked && !ending.is_cancelled() && home().now() < until) {
    co_await ranges_changed_.wait();
    is_locked = try_lock(range);
  }
  shared_->end_waiting();
  shared_->locks.disclaim(range);
  if (is_locked) co_return Result<void>();
  // Who kept away from it may begin.
  tell_ranges_changed();
  co_return fail(ending.is_cancelled() ? Code::kCancelled : Code::kBusy, "the range is being written");
}

void Sides::unlock(ByteRange range) {
  shared_->locks.unlock(range);
  tell_ranges_changed();
}

void Sides::tell_ranges_changed() {
  if (!shared_->has_waiters()) return;
  ranges_changed_.release_waiters();
  if (is_looking_) return;
  is_looking_ = true;
  scope_.spawn(look_soon());
}

Task<void> Sides::look_soon() {
  // What changes from here on needs another look.
  is_looking_ = false;
  co_await look_again();
}

Task<bool> Sides::lacks_on(OnShard& here, Slot slot) { co_return here.side->lacks(slot); }
Task<bool> Sides::has_left_behind_on(OnShard& here) { co_return here.side->has_left_behind(); }
Task<bool> Sides::has_left_behind() {
  for (OnShard& here : on_shards_) {
    if (co_await call_on(home(), here.shard->reactor, has_left_behind_on(here))) co_return true;
  }
  co_return false;
}
Task<bool> Sides::lacks(Slot slot) {
  for (OnShard& here : on_shards_) {
    if (co_await call_on(home(), here.shard->reactor, lacks_on(here, slot))) co_return true;
  }
  co_return false;
}

Task<void> Sides::look_on(OnShard& here) {
  here.side->look_again();
  co_return;
}
Task<void> Sides::forget_stall_on(OnShard& here, Slot slot) {
  here.side->forget_stall(slot);
  co_return;
}
Task<void> Sides::forget_stall(Slot slot) {
  for (OnShard& here : on_shards_) co_await call_on(home(), here.shard->reactor, forget_stall_on(here, slot));
}

Task<void> Sides::look_again() {
  for (OnShard& here : on_shards_) co_await call_on(home(), here.shard->reactor, look_on(here));
}

Task<void> Sides::fail_on(OnShard& here, Error error, Unserved* unserved) {
  here.side->fail_waiting(error, unserved);
  co_return;
}
Task<void> Sides::fail_waiting(Error error, std::vector<Unserved*> unserved) {
  for (size_t i = 0; i < on_shards_.size(); ++i) {
    OnShard& here = on_shards_[i];
    Unserved* const to = unserved.empty() ? nullptr : unserved[i];
    co_await call_on(home(), here.shard->reactor, fail_on(here, error, to));
  }
}

void Sides::Reporter::slot_failed(ShardId, Slot slot, uint64_t incarnation, Error error) {
  scope_.spawn(take_home({Report::Kind::kSlotFailed, slot, incarnation, {}, error}));
}
void Sides::Reporter::lease_wanted(ShardId) { scope_.spawn(take_home({Report::Kind::kLeaseWanted, 0, 0, {}, {}})); }
void Sides::Reporter::level_wanted(ShardId, uint64_t extent) {
  scope_.spawn(take_home({Report::Kind::kLevelWanted, 0, extent, {}, {}}));
}
void Sides::Reporter::repair_wanted(ShardId, Slot slot, ByteRange range) {
  scope_.spawn(take_home({Report::Kind::kRepairWanted, slot, 0, range, {}}));
}
void Sides::Reporter::ranges_changed(ShardId) {
  if (is_telling_ranges_) return;
  is_telling_ranges_ = true;
  scope_.spawn(take_home({Report::Kind::kRangesChanged, 0, 0, {}, {}}));
}

Task<void> Sides::Reporter::take_home(Report report) {
  // What changes from here on needs another one.
  if (report.kind == Report::Kind::kRangesChanged) is_telling_ranges_ = false;
  co_await MoveTo(shard_.reactor, sides_.home());
  arrive(report);
  co_await MoveTo(sides_.home(), shard_.reactor);
}

void Sides::Reporter::arrive(const Report& report) {
  switch (report.kind) {
    case Report::Kind::kSlotFailed:
      sides_.observer_.slot_failed(report.slot, report.number, report.error);
      break;
    case Report::Kind::kLeaseWanted:
      sides_.observer_.lease_wanted();
      break;
    case Report::Kind::kLevelWanted:
      sides_.observer_.level_wanted(report.number);
      break;
    case Report::Kind::kRepairWanted:
      sides_.observer_.repair_wanted(report.slot, report.range);
      break;
    case Report::Kind::kRangesChanged:
      sides_.tell_ranges_changed();
      break;
  }
}

}  // namespace fairlead::mirror
