// Runs of one volume whose replicas are in memory: targets that come, go and steal from each other, replicas that fail
// in every way, a witness that is away, clients that check each block. Of the real system it has src/mirror alone, so a
// run takes milliseconds. See scenario.h.
#include <fmt/format.h>
#include <map>
#include <memory>

#include "async/call.h"
#include "async/cancel.h"
#include "mirror/volume_target.h"
#include "scenario.h"
#include "sim/prng.h"
#include "sim/world.h"
#include "tests/support/block_history.h"
#include "tests/support/memory_link.h"
#include "tests/support/memory_witness.h"

namespace fairlead::sim_test {
namespace {

using mirror::MirrorOptions;
using mirror::ReplicaId;
using mirror::TargetStatus;
using mirror::VolumeTarget;
using sim::Prng;
using sim::RunResult;
using std::chrono::milliseconds;
using std::chrono::seconds;
using test::BlockHistory;
using test::BlockRange;
using test::MemoryLink;
using test::MemoryReplica;
using test::MemoryWitness;

constexpr uint64_t kBlock = 4096;
constexpr Duration kHealMax = std::chrono::minutes(20);  // virtual; a replica that failed often is asked again late

struct MirrorPlan {
  sim::SimSettings settings;
  size_t shards = 1;
  size_t replicas = 1;
  uint64_t extents = 2;
  size_t workers = 1;
  uint64_t block_max = 16;  // of one request
  uint64_t requests = 0;    // of each worker
  Duration delay_max{};     // each way, on each link
  Duration trouble_every{};
  size_t troubles = 10;
  size_t snapshots = 0;  // at most
  size_t grows = 0;      // at most, by an extent each
  uint64_t kinds_of_trouble = 12;
  MirrorOptions options;
};

MirrorPlan draw_plan(uint64_t seed) {
  Prng random(sim::mix_hash(0x6d6972726f72U, seed));
  MirrorPlan plan;
  plan.settings = sim::SimSettings::drawn(seed);
  plan.shards = random.between(1, 3);
  plan.replicas = random.between(1, 4);
  plan.extents = random.skewed(1, 12);
  plan.workers = random.skewed(1, 8);
  plan.block_max = random.skewed(1, 300);
  plan.requests = random.skewed(8, 512);
  plan.delay_max = Duration(static_cast<int64_t>(random.skewed(1'000, 30'000'000)));
  plan.trouble_every = Duration(static_cast<int64_t>(random.skewed(1'000'000, 3'000'000'000)));
  plan.troubles = random.skewed(3, 40);
  MirrorOptions& options = plan.options;
  options.volume = uuid_from_random(seed, 1);
  options.size_bytes = plan.extents * mirror::kExtentBytes - (random.coin() ? 0 : 3 * kBlock);
  options.logical_block = kBlock;
  options.checkpoint_interval = Duration(static_cast<int64_t>(random.skewed(2'000'000, 10'000'000'000)));
  options.stall_limit = milliseconds(random.between(50, 5000));
  options.grace = milliseconds(random.below(300));
  options.retry_max = milliseconds(random.between(100, 10'000));
  options.renew_delay = milliseconds(random.between(10, 6000));
  options.copies_in_flight = random.between(1, 4);
  options.resync_share_percent = static_cast<uint32_t>(random.between(1, 100));
  // Every other seed has none: each bounds what a take-over compares, and so hides what that may do wrong.
  if (seed % 2 == 1) {
    plan.snapshots = random.between(1, 8);
    plan.grows = random.below(3);
    plan.kinds_of_trouble = 15;
  }
  return plan;
}

// A target as somebody started it, with links of its own.
struct Target {
  std::vector<MemoryLink*> links;  // the volume's
  std::unique_ptr<VolumeTarget> volume;
  std::vector<std::unique_ptr<BlockDevice>> devices;  // by shard
  size_t users = 0;
  bool is_ending = false;
};

// A snapshot, as whoever asked for it knows it.
struct Taken {
  Uuid id;
  std::optional<BlockHistory> holds = {};  // it was taken, and may be so
  uint64_t size_bytes = 0;
  bool is_deleting = false;  // somebody asked for that
};

class MirrorRun {
 public:
  MirrorRun(uint64_t seed, const RunOptions& options);
  Outcome run();
  void explain(const RunOptions& options) const;

 private:
  static Task<void> main(MirrorRun& run);
  Task<void> start_target();
  Task<void> end_target(std::shared_ptr<Target> target);
  static Task<void> open_on(Target& target, Shard& shard);
  static Task<void> close_on(Target& target, size_t shard);
  std::shared_ptr<Target> draw_target();
  Task<void> take_snapshot();
  Task<void> delete_snapshot();
  Task<void> grow();
  Task<void> finish_deletions();
  void verify_snapshots();
  Task<void> make_trouble();
  Task<void> trouble_replica(MemoryReplica& replica);
  void trouble_link(MemoryLink& link);
  bool may_lose_cache(const MemoryReplica& replica) const;
  Task<void> heal();
  void verify();

  static Task<void> work(MirrorRun& run, size_t shard, uint64_t seed);
  Task<void> do_one(Target& target, size_t shard, Prng& random);
  Task<void> read(Target& target, size_t shard, BlockRange range);
  Task<void> change(Target& target, size_t shard, BlockRange range, Prng& random);
  BlockRange draw_range(Prng& random) const;
  void fail(std::string text) {
    if (failure_.empty()) failure_ = std::move(text);
  }
  Reactor& reactor() { return node_->shard(0).reactor; }

  const MirrorPlan plan_;
  test::HistoryClock clock_;
  BlockHistory history_;
  uint64_t ids_ = 0;
  std::string failure_;
  bool is_over_ = false;  // nobody begins anything
  bool is_done_ = false;
  bool is_healing_ = false;
  size_t working_ = 0;
  uint64_t acknowledged_ = 0;
  uint64_t size_bytes_;                        // of the volume, as far as hosts know
  std::vector<std::unique_ptr<Taken>> taken_;  // unique_ptr: tasks refer to them
  Prng random_;
  std::unique_ptr<MemoryWitness> witness_;
  std::vector<std::unique_ptr<MemoryReplica>> replicas_;
  std::shared_ptr<Target> current_;
  std::vector<std::shared_ptr<Target>> targets_;
  std::unique_ptr<Scope> scope_;
  std::unique_ptr<sim::SimWorld> world_;
  sim::SimNode* node_ = nullptr;
};

MirrorRun::MirrorRun(uint64_t seed, const RunOptions& options)
    : plan_(draw_plan(seed)),
      history_(clock_, (plan_.options.size_bytes + plan_.grows * mirror::kExtentBytes) / kBlock),
      size_bytes_(plan_.options.size_bytes),
      random_(sim::mix_hash(0x74726f75626c65U, seed)),
      world_(std::make_unique<sim::SimWorld>(seed, plan_.settings)) {
  world_->trace().set_listener(options.listener);
  node_ = &world_->add_node("10.0.0.1", {.shards = plan_.shards, .more_addresses = {}});
}

// ---- Clients

BlockRange MirrorRun::draw_range(Prng& random) const {
  const uint64_t blocks = size_bytes_ / kBlock;
  const uint64_t count = std::min(random.skewed(1, plan_.block_max), blocks);
  // Some places are liked by all.
  const uint64_t first =
      random.coin() ? random.below(blocks - count + 1) : random.below(std::min<uint64_t>(8, blocks - count + 1));
  return {first, count};
}

Task<void> MirrorRun::read(Target& target, size_t shard, BlockRange range) {
  std::vector<std::byte> bytes(range.count * kBlock);
  iovec piece{bytes.data(), bytes.size()};
  const uint64_t began = clock_.begin_read();
  const Result<void> result = co_await block_read(node_->shard(shard).reactor, *target.devices[shard],
                                                  ByteOffset(range.first * kBlock), {&piece, 1});
  if (result) {
    const std::string wrong = history_.check_read(began, range, bytes, kBlock);
    if (!wrong.empty()) fail(wrong);
  }
  clock_.end_read(began);
}

Task<void> MirrorRun::change(Target& target, size_t shard, BlockRange range, Prng& random) {
  Reactor& there = node_->shard(shard).reactor;
  BlockDevice& device = *target.devices[shard];
  const uint64_t id = ++ids_;
  const auto offset = ByteOffset(range.first * kBlock);
  Result<void> result;
  if (random.one_in(4)) {
    history_.begin_write(range, test::kZeroContent, id);
    if (random.coin()) {
      result = co_await block_write_zeroes(there, device, offset, range.count * kBlock);
    } else {
      result = co_await block_discard(there, device, offset, range.count * kBlock);
    }
  } else {
    std::vector<std::byte> bytes(range.count * kBlock);
    for (uint64_t i = 0; i < range.count; ++i) {
      test::fill_block(std::span(bytes).subspan(i * kBlock, kBlock), range.first + i, id);
    }
    history_.begin_write(range, id, id);
    iovec piece{bytes.data(), bytes.size()};
    result = co_await block_write(there, device, offset, {&piece, 1});
  }
  if (result) {
    ++acknowledged_;
    history_.write_done(range, id, BlockHistory::Surely::kYes, false);
  } else {
    history_.write_failed(range, id);
  }
}

Task<void> MirrorRun::do_one(Target& target, size_t shard, Prng& random) {
  (void)target.devices[shard]->refresh_size();
  const uint64_t what = random.below(20);
  if (what == 0) {
    (void)co_await block_flush(node_->shard(shard).reactor, *target.devices[shard]);
  } else if (what < 9) {
    co_await read(target, shard, draw_range(random));
  } else {
    co_await change(target, shard, draw_range(random), random);
  }
}

Task<void> MirrorRun::work(MirrorRun& run, size_t shard, uint64_t seed) {
  Prng random(seed);
  Reactor& there = run.node_->shard(shard).reactor;
  // Spread over the troubles, in bursts.
  const Duration share = run.plan_.trouble_every * run.plan_.troubles / run.plan_.requests;
  for (uint64_t i = 0; i < run.plan_.requests && !run.is_over_ && run.failure_.empty(); ++i) {
    if (random.one_in(4)) {
      co_await sleep(there, Duration(static_cast<int64_t>(random.below(static_cast<uint64_t>(share.count()) * 4 + 1))));
    }
    // Hosts may not know yet who has the volume.
    std::shared_ptr<Target> target = run.current_;
    if (random.one_in(3) && !run.targets_.empty()) target = run.targets_[random.below(run.targets_.size())];
    if (target == nullptr || target->is_ending || target->devices.size() <= shard) continue;
    ++target->users;
    co_await run.do_one(*target, shard, random);
    --target->users;
  }
  --run.working_;
}

// ---- Targets

Task<void> MirrorRun::open_on(Target& target, Shard& shard) {
  auto device = target.volume->source()->open(shard);
  FL_CHECK(device);
  target.devices.push_back(std::move(*device));
  co_return;
}

Task<void> MirrorRun::close_on(Target& target, size_t shard) {
  target.devices[shard].reset();
  co_return;
}

Task<void> MirrorRun::start_target() {
  auto target = std::make_shared<Target>();
  std::vector<std::unique_ptr<mirror::ReplicaLink>> links;
  const size_t local = random_.below(replicas_.size() + 1);
  const bool is_partial = !is_healing_ && random_.one_in(3);  // what it does not reach another may go on to use
  for (size_t i = 0; i < replicas_.size(); ++i) {
    test::MemoryLinkOptions options;
    options.is_local = i == local;
    if (!options.is_local) options.delay_max = plan_.delay_max;
    auto link = std::make_unique<MemoryLink>(*replicas_[i], options);
    if (is_partial && random_.coin()) link->set_reachable(false);
    target->links.push_back(link.get());
    links.push_back(std::move(link));
  }
  std::vector<Shard*> shards;
  for (size_t i = 0; i < plan_.shards; ++i) shards.push_back(&node_->shard(i));
  MirrorOptions options = plan_.options;
  options.size_bytes = size_bytes_;
  target->volume = std::make_unique<VolumeTarget>(shards, std::move(links), *witness_, options);
  co_await target->volume->start();
  targets_.push_back(target);
  for (size_t i = 0; i < plan_.shards; ++i) {
    co_await call_on(reactor(), node_->shard(i).reactor, open_on(*target, node_->shard(i)));
  }
  current_ = target;
  world_->mark("target", targets_.size());
}

Task<void> MirrorRun::end_target(std::shared_ptr<Target> target) {
  if (target->is_ending) co_return;
  target->is_ending = true;
  if (current_ == target) current_.reset();
  // Devices are closed before the target stops, and what is asked of them ends before: by force when it must.
  co_await target->volume->stop_serving();
  while (target->users > 0) co_await sleep(reactor(), milliseconds(1));
  for (size_t i = 0; i < target->devices.size(); ++i) {
    co_await call_on(reactor(), node_->shard(i).reactor, close_on(*target, i));
  }
  co_await target->volume->stop();
}

// ---- Snapshots, and growth

std::shared_ptr<Target> MirrorRun::draw_target() {
  if (random_.coin() && current_ != nullptr) return current_;
  return targets_[random_.below(targets_.size())];
}

// Asked for again and again, of different targets: it is the same one.
Task<void> MirrorRun::take_snapshot() {
  if (taken_.size() >= plan_.snapshots) co_return;
  taken_.push_back(std::make_unique<Taken>());
  Taken& taken = *taken_.back();
  taken.id = uuid_from_random(world_->seed(), 1000 + taken_.size());
  const uint64_t began = clock_.begin_read();
  for (int i = 0; i < 3 && taken.size_bytes == 0; ++i) {
    const std::shared_ptr<Target> target = draw_target();
    if (target->is_ending) continue;
    world_->mark("snapshot.ask", taken_.size());
    const Result<void> done = co_await target->volume->take_snapshot(taken.id, milliseconds(random_.skewed(1, 20'000)));
    if (!done) continue;
    for (const auto& replica : replicas_) {
      const auto* const frozen = replica->medium().find_snapshot(taken.id);
      if (frozen != nullptr) taken.size_bytes = frozen->snapshot.size_bytes;
    }
    if (taken.size_bytes == 0 && !taken.is_deleting) fail("nobody has a snapshot that was taken");
    taken.holds = history_.frozen(began);
    world_->mark("snapshot.taken", taken_.size());
  }
  clock_.end_read(began);
}

Task<void> MirrorRun::delete_snapshot() {
  if (taken_.empty()) co_return;
  Taken& taken = *taken_[random_.below(taken_.size())];
  const std::shared_ptr<Target> target = draw_target();
  if (target->is_ending || !taken.holds) co_return;
  taken.is_deleting = true;
  (void)co_await target->volume->delete_snapshot(taken.id, milliseconds(random_.skewed(1, 20'000)));
}

Task<void> MirrorRun::grow() {
  const std::shared_ptr<Target> target = draw_target();
  const uint64_t wanted = size_bytes_ + mirror::kExtentBytes;
  if (target->is_ending || wanted > history_.blocks() * kBlock) co_return;
  if (co_await target->volume->grow(wanted, milliseconds(random_.skewed(1, 20'000)))) {
    size_bytes_ = std::max(size_bytes_, wanted);
  }
}

// What was asked for and not done on all is asked for again, as whoever wants it gone would.
Task<void> MirrorRun::finish_deletions() {
  for (const auto& taken : taken_) {
    if (!taken->is_deleting || !failure_.empty()) continue;
    const Result<void> done = co_await current_->volume->delete_snapshot(taken->id, seconds(60));
    if (!done) fail(fmt::format("a snapshot is not deleted: {}", to_string(done.error())));
  }
}

void MirrorRun::verify_snapshots() {
  const auto& first = replicas_.front()->medium().snapshots();
  for (const auto& replica : replicas_) {
    const auto& own = replica->medium().snapshots();
    const auto is_same = [](const auto& a, const auto& b) { return a.snapshot == b.snapshot && a.bytes == b.bytes; };
    if (!std::ranges::equal(own, first, is_same)) return fail("members have different snapshots");
  }
  for (const auto& taken : taken_) {
    const auto* const frozen = replicas_.front()->medium().find_snapshot(taken->id);
    if (taken->is_deleting && frozen != nullptr) return fail("a snapshot is there that was deleted");
    if (taken->is_deleting || !taken->holds) continue;
    if (frozen == nullptr) return fail("a snapshot is lost");
    const uint64_t began = clock_.begin_read();
    const std::string wrong =
        taken->holds->check_read(began, {0, frozen->bytes.size() / kBlock}, frozen->bytes, kBlock);
    clock_.end_read(began);
    if (!wrong.empty()) return fail("a snapshot: " + wrong);
  }
}

// ---- Troubles

// Not the last member that remembers what it was asked: then un-flushed writes may be lost, and the oracle knows no
// volumes that do.
bool MirrorRun::may_lose_cache(const MemoryReplica& replica) const {
  const mirror::Record* newest = nullptr;
  for (const auto& each : replicas_) {
    const mirror::Record& record = each->medium().state.record;
    if (newest == nullptr || record.at > newest->at) newest = &record;
  }
  const auto is_warm = [&](const ReplicaId& id) {
    for (const auto& each : replicas_) {
      const mirror::ReplicaState& state = each->medium().state;
      if (each->options().id == id && each.get() != &replica) {
        return !state.is_cold && (state.session.number == 0 || state.session.boot_id == each->medium().boot_id);
      }
    }
    return false;
  };
  const auto has_warm = [&](const mirror::MemberSet& set) { return std::ranges::any_of(set.ids(), is_warm); };
  // Somebody may be about to go on with fewer.
  return std::ranges::all_of(newest->members.ids(),
                             [&](const ReplicaId& id) { return id == replica.options().id || is_warm(id); }) &&
         has_warm(newest->members) && has_warm(newest->prior);
}

Task<void> MirrorRun::trouble_replica(MemoryReplica& replica) {
  switch (random_.below(5)) {
    case 0:
    case 1:
      if (replica.is_up()) {
        world_->mark("replica.stop", 0);
        co_await replica.stop();
        // Only now is it known what it has agreed to.
        if (random_.coin() && may_lose_cache(replica)) {
          world_->mark("replica.power", 0);
          replica.medium().cut_power(node_->shard(0).random);
        }
      } else {
        world_->mark("replica.start", 0);
        replica.start();
      }
      break;
    case 2:
      replica.set_delay(random_.coin() ? Duration(0)
                                       : Duration(static_cast<int64_t>(random_.skewed(1'000, 2'000'000'000))));
      break;
    case 3: {
      const auto op = static_cast<IoOp>(random_.below(5));
      const bool is_well = random_.coin();
      const Code code = random_.coin() ? Code::kIo : op == IoOp::kRead ? Code::kCorrupt : Code::kNoSpace;
      replica.set_error(op, is_well ? std::nullopt : std::optional(code));
      break;
    }
    default:
      for (size_t op = 0; op < 5; ++op) replica.set_error(static_cast<IoOp>(op), std::nullopt);
      if (random_.coin()) {
        replica.hold(static_cast<IoOp>(random_.below(3)));
      } else {
        replica.release();
      }
  }
}

void MirrorRun::trouble_link(MemoryLink& link) {
  switch (random_.below(4)) {
    case 0:
      link.set_reachable(random_.coin());
      break;
    case 1:
      link.set_cut(static_cast<MemoryLink::Cut>(random_.below(4)));
      break;
    case 2:
      link.drop();
      break;
    default:
      link.set_delay({}, random_.coin() ? Duration(0) : plan_.delay_max * static_cast<int64_t>(random_.between(1, 20)));
  }
}

Task<void> MirrorRun::make_trouble() {
  const uint64_t what = random_.below(plan_.kinds_of_trouble);
  if (what == 12) {
    scope_->spawn(take_snapshot());
  } else if (what == 13) {
    scope_->spawn(delete_snapshot());
  } else if (what == 14) {
    scope_->spawn(grow());
  } else if (what < 4) {
    co_await trouble_replica(*replicas_[random_.below(replicas_.size())]);
  } else if (what < 8) {
    Target& target = *targets_[random_.below(targets_.size())];
    if (!target.is_ending) trouble_link(*target.links[random_.below(target.links.size())]);
  } else if (what < 10) {
    if (targets_.size() < 12) co_await start_target();
  } else if (what == 10) {
    scope_->spawn(end_target(targets_[random_.below(targets_.size())]));
  } else if (random_.one_in(4)) {
    world_->mark("witness.rebuild", 0);
    witness_->rebuild(plan_.options.volume);
  } else {
    witness_->set_cut(random_.coin() ? MemoryWitness::Cut::kNothing
                                     : static_cast<MemoryWitness::Cut>(random_.below(3)));
  }
}

// ---- The run

// No faults from now on: then one target that nobody disturbs must bring everyone back.
Task<void> MirrorRun::heal() {
  world_->heal();
  is_healing_ = true;
  witness_->set_cut(MemoryWitness::Cut::kNothing);
  for (const auto& replica : replicas_) {
    for (size_t op = 0; op < 5; ++op) replica->set_error(static_cast<IoOp>(op), std::nullopt);
    replica->set_delay({});
    replica->release();
    if (!replica->is_up()) replica->start();
  }
  for (const std::shared_ptr<Target>& target : targets_) {
    if (target->is_ending) continue;
    for (MemoryLink* const link : target->links) {
      link->set_reachable(true);
      link->set_cut(MemoryLink::Cut::kNothing);
      link->set_delay({}, milliseconds(1));
    }
  }
  std::vector<std::shared_ptr<Target>> all = targets_;
  for (const std::shared_ptr<Target>& target : all) co_await end_target(target);
  co_await scope_->close();
  co_await start_target();
  const Instant end = reactor().now() + kHealMax;
  TargetStatus status;
  while (reactor().now() < end && failure_.empty()) {
    status = current_->volume->status();
    if (status.state == TargetStatus::State::kServing && status.record.members.size() == replicas_.size() &&
        status.record.is_settled() && status.unlevel_bytes == 0) {
      break;
    }
    co_await sleep(reactor(), milliseconds(10));
  }
  if (status.record.members.size() != replicas_.size() || !status.record.is_settled()) {
    fail(fmt::format("not whole again: state {} record {}: {}", static_cast<int>(status.state),
                     to_string(status.record), status.why));
  }
}

void MirrorRun::verify() {
  std::vector<std::byte> first(kBlock);
  std::vector<std::byte> other(kBlock);
  for (uint64_t block = 0; block < size_bytes_ / kBlock && failure_.empty(); ++block) {
    replicas_.front()->medium().read(block * kBlock, first);
    for (const auto& replica : replicas_) {
      replica->medium().read(block * kBlock, other);
      if (first != other) fail(fmt::format("members differ at block {}", block));
    }
  }
  for (const auto& replica : replicas_) {
    if (replica->misstamped() + replica->medium().unstamped > 0) fail("data was written without its stamp");
  }
}

Task<void> MirrorRun::main(MirrorRun& run) {
  run.scope_ = std::make_unique<Scope>(run.reactor());
  run.witness_ = std::make_unique<MemoryWitness>(run.reactor());
  mirror::Record first;
  first.at.term.number = 1;
  for (size_t i = 0; i < run.plan_.replicas; ++i) first.members.add(uuid_from_random(run.world_->seed(), 100 + i));
  first.prior = first.members;
  run.witness_->set_record(run.plan_.options.volume, first);
  for (const ReplicaId& id : first.members.ids()) {
    run.replicas_.push_back(std::make_unique<MemoryReplica>(
        run.node_->shard(0), test::MemoryReplicaOptions{.volume = run.plan_.options.volume,
                                                        .id = id,
                                                        .size_bytes = run.plan_.extents * mirror::kExtentBytes,
                                                        .lease_max = milliseconds(500),
                                                        .record = first}));
  }
  co_await run.start_target();
  for (size_t i = 0; i < run.plan_.workers; ++i) {
    ++run.working_;
    const size_t shard = i % run.plan_.shards;
    run.world_->spawn(*run.node_, shard, work(run, shard, run.random_.next()));
  }
  for (size_t i = 0; i < run.plan_.troubles && run.failure_.empty(); ++i) {
    co_await sleep(
        run.reactor(),
        Duration(static_cast<int64_t>(run.random_.below(static_cast<uint64_t>(run.plan_.trouble_every.count())))));
    co_await run.make_trouble();
  }
  co_await run.heal();
  co_await sleep(run.reactor(), seconds(2));
  run.is_over_ = true;
  while (run.working_ > 0) co_await sleep(run.reactor(), milliseconds(1));
  if (run.failure_.empty()) co_await run.read(*run.current_, 0, {0, run.size_bytes_ / kBlock});
  if (run.failure_.empty()) co_await run.finish_deletions();
  if (run.failure_.empty()) run.verify();
  if (run.failure_.empty()) run.verify_snapshots();
  co_await run.end_target(run.current_);
  for (const auto& replica : run.replicas_) co_await replica->stop();
  run.targets_.clear();
  run.current_.reset();
  run.replicas_.clear();
  co_await run.scope_->close();
  run.is_done_ = true;
}

Outcome MirrorRun::run() {
  world_->spawn(*node_, 0, main(*this));
  const RunResult result = world_->run_until([&] { return is_done_; }, std::chrono::hours(3));
  // Nothing can end what waits for ever: the world will say so, and end here.
  if (!is_done_)
    fmt::print(stderr, "seed {}: the run does not end: {} {}\n", world_->seed(), sim::run_result_name(result),
               failure_);
  return outcome_of(*world_, failure_.empty());
}

void MirrorRun::explain(const RunOptions& options) const {
  if (options.message != nullptr) *options.message = failure_;
  if (options.report != nullptr) {
    *options.report =
        world_->report() +
        fmt::format("plan: shards={} replicas={} extents={} workers={} blocks={} troubles={} acked={}\n", plan_.shards,
                    plan_.replicas, plan_.extents, plan_.workers, plan_.block_max, plan_.troubles, acknowledged_);
  }
}

}  // namespace

Outcome run_mirror_seed(uint64_t seed, const RunOptions& options) {
  MirrorRun run(seed, options);
  const Outcome outcome = run.run();
  run.explain(options);
  return outcome;
}

}  // namespace fairlead::sim_test
