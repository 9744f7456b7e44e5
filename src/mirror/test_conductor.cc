#include "mirror/test_conductor.h"

#include <fmt/format.h>

namespace fairlead::mirror::test {

// ---- Devices.

void ModelDevice::execute(IoRequest& request) {
  ++under_way_;
  Job& job = *std::make_unique<Job>(*this, request).release();  // until end()
  if (random_.below(4) == 0) return advance(job);
  shard_.reactor.arm(job, draw_delay());
}

void ModelDevice::advance(Job& job) {
  if (replica_.session != session_) return end(job, fail(Code::kConnectionLost));
  if (replica_.faults.is_stalled) return shard_.reactor.arm(job, std::chrono::milliseconds(1));
  if (job.outcome) return end(job, *job.outcome);
  job.outcome = perform(job.request);
  if (random_.below(4) == 0) return end(job, *job.outcome);
  shard_.reactor.arm(job, draw_delay());
}

void ModelDevice::end(Job& job, Result<void> outcome) {
  IoRequest& request = job.request;
  std::unique_ptr<Job>(&job).reset();
  --under_way_;
  request.complete(outcome);
}

Result<void> ModelDevice::perform(const IoRequest& request) {
  const auto happens = [](uint32_t& count) { return count > 0 && count-- > 0; };
  Faults& faults = replica_.faults;
  if (happens(faults.lost)) return fail(Code::kConnectionLost);
  switch (request.op) {
    case IoOp::kRead:
      if (happens(faults.reads_failed)) return fail(Code::kCorrupt);
      copy_to_buffers(request.buffers, 0, std::span(replica_.content).subspan(request.offset.value, request.length));
      return {};
    case IoOp::kFlush:
      return {};
    default:
      break;
  }
  const bool is_refused = happens(faults.refusals);
  const bool is_failed = !is_refused && happens(faults.writes_failed);
  if (!is_refused && !is_failed) {
    change(request, request.length);
    return {};
  }
  change(request, random_.below(request.length / kModelBlock + 1) * kModelBlock);
  return fail(is_refused ? Code::kNoSpace : Code::kIo);
}

void ModelDevice::change(const IoRequest& request, uint64_t length) {
  const std::span<std::byte> range = std::span(replica_.content).subspan(request.offset.value, length);
  if (request.op == IoOp::kWrite) {
    copy_from_buffers(request.buffers, 0, range);
  } else {
    EXPECT_EQ(request.op, IoOp::kWriteZeroes);
    std::ranges::fill(range, std::byte{0});
  }
}

// ---- What shards tell.

Task<void> Conductor::Reporter::tell_failure(Slot slot, uint64_t incarnation) {
  co_await MoveTo(shard_.reactor, conductor_.home().reactor);
  ++conductor_.counts_.failures;
  conductor_.failures_.push_back({slot, incarnation});
  co_await MoveTo(conductor_.home().reactor, shard_.reactor);
}

Task<void> Conductor::Reporter::tell_lease() {
  co_await MoveTo(shard_.reactor, conductor_.home().reactor);
  conductor_.scope_.spawn(conductor_.lend());
  co_await MoveTo(conductor_.home().reactor, shard_.reactor);
}

Task<void> Conductor::Reporter::tell_ranges() {
  is_telling_ranges_ = false;
  co_await MoveTo(shard_.reactor, conductor_.home().reactor);
  conductor_.ranges_changed_.release_waiters();
  conductor_.scope_.spawn(conductor_.look_again());
  co_await MoveTo(conductor_.home().reactor, shard_.reactor);
}

// ---- The sides, as one.

Conductor::Conductor(sim::SimWorld& world, sim::SimNode& node, size_t replicas, uint64_t bytes)
    : node_(node),
      random_(world.random()),
      shared_(std::make_shared<MirrorShared>(bytes)),
      publishing_(node.shard(0).reactor),
      ranges_changed_(node.shard(0).reactor),
      scope_(node.shard(0).reactor) {
  for (size_t i = 0; i < replicas; ++i) replicas_.push_back(std::make_unique<ModelReplica>(bytes));
  reporters_.resize(node.shard_count());
  sides_.resize(node.shard_count());
}

Conductor::~Conductor() = default;

Task<void> Conductor::make_on(size_t shard) {
  reporters_[shard] = std::make_unique<Reporter>(*this, node_.shard(shard));
  sides_[shard] =
      std::make_unique<MirrorSide>(node_.shard(shard), shared_, *reporters_[shard], std::chrono::milliseconds(20));
  co_return;
}

Task<void> Conductor::end_on(size_t shard) {
  co_await reporters_[shard]->close();
  sides_[shard].reset();
  reporters_[shard].reset();
}

Task<void> Conductor::configure_on(size_t shard, SideConfiguration configuration) {
  sides_[shard]->configure(configuration);
  co_return;
}

Task<void> Conductor::attach_on(size_t shard, Slot slot, uint64_t session) {
  Shard& here = node_.shard(shard);
  sides_[shard]->attach(slot, std::make_unique<ModelDevice>(*replicas_[slot], session, here, random_));
  co_return;
}

Task<void> Conductor::fail_on(size_t shard) {
  sides_[shard]->fail_waiting(Error{Code::kUnreachable, 0, "suspended"});
  co_return;
}

Task<void> Conductor::look_on(size_t shard) {
  sides_[shard]->look_again();
  co_return;
}

Task<void> Conductor::note_lack_on(size_t shard, Slot slot, bool& lacks) {
  lacks = lacks || sides_[shard]->lacks(slot);
  co_return;
}

Task<void> Conductor::publish() {
  const Mutex::Guard guard = co_await publishing_.lock();
  if (is_failing_) co_return;
  const SideConfiguration wanted = configuration_;
  co_await on_all([&](size_t i) { return configure_on(i, wanted); });
  published_ = wanted;
}

Task<void> Conductor::attach(Slot slot) {
  const uint64_t session = ++incarnations_;
  configuration_.slots[slot].incarnation = session;
  replicas_[slot]->session = session;
  co_await on_all([&](size_t i) { return attach_on(i, slot, session); });
}

Task<void> Conductor::detach(Slot slot) {
  replicas_[slot]->drop();
  co_await on_all([&](size_t i) { return sides_[i]->detach(slot); });
}

Task<void> Conductor::drain() {
  co_await on_all([&](size_t i) { return sides_[i]->drain(); });
}

Task<void> Conductor::look_again() {
  co_await on_all([&](size_t i) { return look_on(i); });
}

// False: the volume is suspended.
Task<bool> Conductor::lock(ByteRange range) {
  shared_->begin_waiting();
  bool is_locked = false;
  while (!is_locked && !is_suspending_) {
    const RangeTable::Outcome outcome = shared_->locks.try_lock(range);
    is_locked = outcome == RangeTable::Outcome::kLocked;
    if (outcome == RangeTable::Outcome::kRolledBack) scope_.spawn(look_again());
    if (!is_locked) co_await ranges_changed_.wait();
  }
  shared_->end_waiting();
  co_return is_locked;
}

Task<void> Conductor::unlock(ByteRange range) {
  shared_->locks.unlock(range);
  if (!shared_->has_waiters()) co_return;
  ranges_changed_.release_waiters();
  co_await look_again();
}

std::string Conductor::report() const {
  std::string text = fmt::format("held={} healed={} levelling={} suspending={} conducting={} unlevel={} waiters={}\n",
                                 configuration_.is_held, is_healed_, is_levelling_, is_suspending_, is_conducting_,
                                 shared_->unlevel.count(), shared_->waiters.load());
  for (Slot slot = 0; slot < replicas_.size(); ++slot) {
    const SlotConfiguration& now = configuration_.slots[slot];
    text += fmt::format("slot {}: use={} read={} broken={} incarnation={} session={} stalled={} returning={}\n", slot,
                        static_cast<int>(now.use), now.is_read, now.is_broken, now.incarnation,
                        replicas_[slot]->session, replicas_[slot]->faults.is_stalled, is_returning_[slot]);
  }
  text += fmt::format("failures={} drops={} renewals={} returns={} suspensions={}\n", counts_.failures, counts_.drops,
                      counts_.renewals, counts_.returns, counts_.suspensions);
  return text;
}

// ---- The rules.

Task<void> Conductor::pause(uint64_t microseconds_max) {
  (void)co_await sleep(home().reactor, std::chrono::microseconds(random_.below(microseconds_max + 1)));
}

bool Conductor::is_as(Slot slot, uint64_t incarnation, SlotUse use) const {
  const SlotConfiguration& now = configuration_.slots[slot];
  return !is_suspending_ && now.incarnation == incarnation && now.use == use && !now.is_broken;
}

std::optional<Slot> Conductor::good_member(std::optional<Slot> but) const {
  for (Slot slot = 0; slot < replicas_.size(); ++slot) {
    const SlotConfiguration& now = configuration_.slots[slot];
    if (slot != but && is_member_[slot] && !now.is_broken) return slot;
  }
  return std::nullopt;
}

Task<void> Conductor::start() {
  co_await on_all([&](size_t i) { return make_on(i); });
  std::vector<MirrorSide*> all;
  for (const auto& side : sides_) all.push_back(side.get());
  source_ = make_mirror_source(all);
  for (Slot slot = 0; slot < replicas_.size(); ++slot) {
    co_await attach(slot);
    configuration_.slots[slot].use = SlotUse::kNeeded;
    configuration_.slots[slot].is_read = true;
    is_member_[slot] = true;
  }
  configuration_.slots[random_.below(replicas_.size())].is_local = true;
  configuration_.is_held = false;
  co_await publish();
  is_conducting_ = true;
  scope_.spawn(conduct());
  scope_.spawn(break_things());
}

Task<void> Conductor::heal() {
  is_healed_ = true;
  for (const auto& replica : replicas_) replica->faults = {};
  const auto is_whole = [&] {
    if (!failures_.empty() || is_levelling_ || is_suspending_) return false;
    for (Slot slot = 0; slot < replicas_.size(); ++slot) {
      if (!configuration_.slots[slot].is_read || is_returning_[slot] || !is_member_[slot]) return false;
    }
    return true;
  };
  while (!is_whole()) co_await pause(1000);
}

Task<void> Conductor::stop() {
  is_stopping_ = true;
  while (is_conducting_) co_await pause(1000);
  co_await drain();
  EXPECT_FALSE(shared_->locks.is_locked({0, shared_->size_bytes}));
  EXPECT_EQ(shared_->waiters.load(), 0U);
  configuration_ = {};
  co_await publish();
  for (Slot slot = 0; slot < replicas_.size(); ++slot) co_await detach(slot);
  co_await scope_.close();
  source_.reset();
  co_await on_all([&](size_t i) { return end_on(i); });
}

Task<void> Conductor::conduct() {
  while (!is_stopping_) {
    while (!failures_.empty()) {
      const Failure failure = failures_.front();
      failures_.pop_front();
      co_await on_failure(failure);
    }
    for (Slot slot = 0; slot < replicas_.size(); ++slot) {
      const bool is_away = configuration_.slots[slot].use == SlotUse::kOff && !is_returning_[slot] && !is_levelling_;
      if (!is_away || random_.below(10) != 0) continue;
      is_returning_[slot] = true;
      scope_.spawn(bring_back(slot));
    }
    if (!is_healed_ && !is_levelling_ && random_.below(1000) == 0) co_await suspend();
    if (random_.below(100) == 0) co_await publish();
    co_await pause(300);
  }
  is_conducting_ = false;
}

Task<void> Conductor::on_failure(Failure failure) {
  SlotConfiguration& now = configuration_.slots[failure.slot];
  if (now.incarnation != failure.incarnation || now.use == SlotUse::kOff || now.is_broken) co_return;
  now.is_broken = true;
  now.is_read = false;
  co_await publish();
  if (random_.below(2) == 0) replicas_[failure.slot]->drop();
  const bool is_member = is_member_[failure.slot];
  const bool can_do_without = good_member(failure.slot).has_value() && !is_levelling_;
  if (is_member && (!can_do_without || random_.below(3) == 0)) co_return co_await renew(failure.slot);
  co_await pause(1000);  // a record comes into force
  if (is_member && !good_member(failure.slot)) co_return co_await renew(failure.slot);
  now.use = SlotUse::kOff;
  is_member_[failure.slot] = false;
  co_await publish();
  co_await detach(failure.slot);
  if (is_member) ++counts_.drops;
}

// A member that no record can do without comes back, with all that it had.
Task<void> Conductor::renew(Slot slot) {
  co_await detach(slot);
  co_await attach(slot);
  configuration_.slots[slot].is_broken = false;
  co_await publish();
  ++counts_.renewals;
  scope_.spawn(read_again(slot, configuration_.slots[slot].incarnation));
}

Task<void> Conductor::read_again(Slot slot, uint64_t incarnation) {
  co_await drain();
  if (!is_as(slot, incarnation, SlotUse::kNeeded)) co_return;
  configuration_.slots[slot].is_read = true;
  co_await publish();
}

Task<void> Conductor::bring_back(Slot slot) {
  replicas_[slot]->faults = {};
  co_await attach(slot);
  if (is_suspending_) {
    is_returning_[slot] = false;
    co_return;
  }
  const uint64_t incarnation = configuration_.slots[slot].incarnation;
  configuration_.slots[slot].use = SlotUse::kCopied;
  configuration_.slots[slot].is_broken = false;
  co_await publish();
  co_await drain();
  bool is_copied = false;
  while (!is_copied && is_as(slot, incarnation, SlotUse::kCopied)) {
    is_copied = co_await copy_all(slot, incarnation);  // not while there is nobody to copy from
    co_await pause(1000);
  }
  if (is_copied) {
    co_await drain();
    if (is_as(slot, incarnation, SlotUse::kCopied)) {
      configuration_.slots[slot].use = SlotUse::kNeeded;
      co_await publish();
      bool lacks = false;
      co_await on_all([&](size_t i) { return note_lack_on(i, slot, lacks); });
      if (!lacks && is_as(slot, incarnation, SlotUse::kNeeded)) {
        is_member_[slot] = true;
        ++counts_.returns;
        co_await read_again(slot, incarnation);
      }
    }
  }
  is_returning_[slot] = false;
}

Task<bool> Conductor::copy_all(Slot slot, uint64_t incarnation) {
  for (uint64_t begin = 0; begin < shared_->size_bytes; begin += kExtentBytes) {
    const ByteRange range{begin, std::min(begin + kExtentBytes, shared_->size_bytes.load())};
    if (!co_await lock(range)) co_return false;
    co_await pause(200);
    const std::optional<Slot> from = good_member();
    const bool goes_on = from.has_value() && is_as(slot, incarnation, SlotUse::kCopied);
    if (goes_on) {
      std::copy_n(replicas_[*from]->content.begin() + static_cast<ptrdiff_t>(range.begin), range.end - range.begin,
                  replicas_[slot]->content.begin() + static_cast<ptrdiff_t>(range.begin));
    }
    co_await unlock(range);
    if (!goes_on) co_return false;
  }
  co_return true;
}

// All that waits fails, and the volume is taken over anew by the same target.
Task<void> Conductor::suspend() {
  ++counts_.suspensions;
  std::vector<Slot> members;
  for (Slot slot = 0; slot < replicas_.size(); ++slot) {
    if (is_member_[slot]) members.push_back(slot);
  }
  is_suspending_ = true;
  for (SlotConfiguration& slot : configuration_.slots) slot.is_broken = slot.use != SlotUse::kOff;
  configuration_.is_held = true;
  co_await publish();
  is_failing_ = true;  // until all is drained no side is configured
  co_await on_all([&](size_t i) { return fail_on(i); });
  ranges_changed_.release_waiters();
  for (const auto& replica : replicas_) replica->drop();
  co_await drain();
  for (Slot slot = 0; slot < replicas_.size(); ++slot) {
    while (is_returning_[slot]) {
      ranges_changed_.release_waiters();
      co_await pause(100);
    }
    co_await detach(slot);
    configuration_.slots[slot] = {};
  }
  is_failing_ = false;
  co_await publish();
  const Slot source = members[random_.below(members.size())];
  for (uint64_t extent = 0; extent < shared_->unlevel.extents(); ++extent) shared_->unlevel.set(extent);
  for (const Slot slot : members) {
    co_await attach(slot);
    configuration_.slots[slot].use = SlotUse::kNeeded;
    configuration_.slots[slot].is_read = true;
  }
  configuration_.is_held = false;
  is_suspending_ = false;
  is_levelling_ = true;
  co_await publish();
  scope_.spawn(level(source));
}

Task<void> Conductor::level(Slot source) {
  for (uint64_t extent = shared_->unlevel.extents(); extent-- > 0;) {
    const ByteRange range{extent * kExtentBytes, std::min((extent + 1) * kExtentBytes, shared_->size_bytes.load())};
    co_await pause(2000);
    const bool is_locked = co_await lock(range);
    EXPECT_TRUE(is_locked);
    for (Slot slot = 0; slot < replicas_.size(); ++slot) {
      if (!is_member_[slot] || slot == source) continue;
      std::copy_n(replicas_[source]->content.begin() + static_cast<ptrdiff_t>(range.begin), range.end - range.begin,
                  replicas_[slot]->content.begin() + static_cast<ptrdiff_t>(range.begin));
    }
    shared_->unlevel.clear(extent);
    co_await unlock(range);
  }
  is_levelling_ = false;
}

Task<void> Conductor::lend() {
  co_await pause(500);
  shared_->lease_until_ns.store(home().clock.now().ns + static_cast<int64_t>(random_.below(20'000'000)));
  co_await look_again();
}

Task<void> Conductor::break_things() {
  while (!is_healed_) {
    co_await pause(6000);
    if (is_healed_) co_return;
    Faults& faults = replicas_[random_.below(replicas_.size())]->faults;
    switch (random_.below(10)) {
      case 0:
      case 1:
        replicas_[random_.below(replicas_.size())]->drop();
        break;
      case 2:
        faults.is_stalled = true;
        break;
      case 3:
        faults.writes_failed += 1;
        break;
      case 4:
        faults.refusals += 1;
        break;
      case 5:
      case 6:
        for (const auto& replica : replicas_) replica->faults.refusals += 2;
        break;
      case 7:
        faults.reads_failed += 2;
        break;
      case 8:
        for (const auto& replica : replicas_) replica->faults.reads_failed += 1;
        break;
      default:
        faults.lost += 1;
        break;
    }
  }
}

}  // namespace fairlead::mirror::test
