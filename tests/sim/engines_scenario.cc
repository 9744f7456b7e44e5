// Runs of whole clusters: engines with pools on disks that forget and tear, targets that come, go and steal from each
// other, a control node that acts late or is away, partitions, crashes of any set of engines. Only the control plane
// and the hosts are not the real thing. See scenario.h.
#include <algorithm>
#include <fmt/format.h>

#include "base/crc32c.h"
#include "engines_host.h"
#include "engines_node.h"

namespace fairlead::sim_test {
namespace {

using mirror::Record;
using mirror::ReplicaId;
using mirror::TargetStatus;
using pool::CheckReport;
using pool::Severity;
using sim::CrashKind;
using sim::RunResult;
using sim::SimWorld;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

// Virtual time.
constexpr Duration kFormatMax = minutes(10);
constexpr Duration kReadyMax = minutes(5);
constexpr Duration kEndMax = minutes(5);
constexpr Duration kHealMax = minutes(20);        // a replica that failed often is asked again late
constexpr Duration kUnreadableMax = seconds(30);  // what only one has, and cannot give
constexpr Duration kReadMax = minutes(20);
constexpr Duration kStopMax = minutes(5);
constexpr Duration kLook = milliseconds(2);
constexpr size_t kTargetsMax = 3;  // of one volume at once, as far as control knows

constexpr std::array<std::pair<uint64_t EngineCounts::*, std::string_view>, 20> kCounts = {
    {{&EngineCounts::kills, "kills"},
     {&EngineCounts::power_losses, "power_losses"},
     {&EngineCounts::blackouts, "blackouts"},
     {&EngineCounts::stops, "stops"},
     {&EngineCounts::partitions, "partitions"},
     {&EngineCounts::resets, "resets"},
     {&EngineCounts::stalls, "stalls"},
     {&EngineCounts::hangs, "hangs"},
     {&EngineCounts::sicknesses, "sicknesses"},
     {&EngineCounts::mended, "mended"},
     {&EngineCounts::rebuilds, "rebuilds"},
     {&EngineCounts::targets, "targets"},
     {&EngineCounts::take_overs, "take_overs"},
     {&EngineCounts::returns, "returns"},
     {&EngineCounts::snapshots, "snapshots"},
     {&EngineCounts::deletions, "deletions"},
     {&EngineCounts::acknowledged, "acknowledged"},
     {&EngineCounts::flushes, "flushes"},
     {&EngineCounts::reads, "reads"},
     {&EngineCounts::host_errors, "host_errors"}}};

class EnginesRun {
 public:
  EnginesRun(uint64_t seed, const RunOptions& options);
  Outcome run();
  void explain(const RunOptions& options) const;

 private:
  using Nodes = std::vector<size_t>;
  bool go_on() const { return engines_.failure.empty(); }
  template <typename Predicate>
  void wait(Predicate predicate, Duration limit, const std::string& what);
  template <typename Predicate>
  void look_until(Predicate predicate, Duration limit);
  Duration draw_span(uint64_t low_ms, uint64_t high_ms) { return milliseconds(random().skewed(low_ms, high_ms)); }
  sim::Prng& random() { return world_->random(); }
  EngineNode& any_node() { return *engines_.nodes[random().below(engines_.nodes.size())]; }
  EngineVolume& any_volume() { return *engines_.volumes[random().below(engines_.volumes.size())]; }

  void begin();
  static void set_faults(const EngineNode& node, const sim::DiskRates& rates);
  void cause();
  void crash_some();
  void crash(const Nodes& nodes, CrashKind kind);
  void restart_later(size_t node, Duration span);
  void restart_in_order(EngineNode& node);
  void cut_some();
  void isolate(EngineNode& node);
  void start_some();
  void trouble_control();
  void hang(EngineNode& node);
  void fall_sick();
  void spoil(EngineNode& node);
  void mend();
  EngineNode* target_node(const EngineVolume& volume);
  bool has_room_for_snapshot(const EngineVolume& volume) const;
  void take_snapshot();
  void delete_snapshot();
  void finish_deletions(EngineVolume& volume);
  void compare_snapshots(EngineVolume& volume);
  bool is_unreadable() const;
  size_t targets_of(const EngineVolume& volume) const;

  // What power losses may take.
  struct Known {
    std::vector<Record> records;
    std::vector<ReplicaId> warm;
  };
  Known known(const EngineVolume& volume, const Nodes& without);
  static bool is_safe(const Known& known);
  bool may_cut(const Nodes& nodes);
  void look_for_loss();
  void look_later();
  void black_out();

  void heal();
  void start_anew();
  bool is_whole(const EngineVolume& volume) const;
  std::string describe(const EngineVolume& volume) const;
  void verify();
  void read_back(EngineVolume& volume);
  void compare(EngineVolume& volume);
  void finish();
  void check(EngineNode& node);

  const EnginesPlan plan_;
  // Programs of the world refer to these: they go after it.
  Engines engines_;
  std::unique_ptr<ControlNode> control_;
  bool is_read_ = false;
  std::vector<std::byte> bytes_;
  std::optional<Result<CheckReport>> report_;
  std::unique_ptr<SimWorld> world_;
};

EnginesRun::EnginesRun(uint64_t seed, const RunOptions& options)
    : plan_(draw_engines_plan(seed)),
      engines_(plan_),
      world_(std::make_unique<SimWorld>(seed, sim::SimSettings::calm())) {
  world_->trace().set_listener(options.listener);
  engines_.world = world_.get();
  for (size_t i = 0; i < plan_.volumes.size(); ++i) {
    engines_.volumes.push_back(std::make_unique<EngineVolume>(plan_.volumes[i], i, seed));
  }
  control_ = std::make_unique<ControlNode>(engines_);
  for (size_t i = 0; i < plan_.engines.size(); ++i) {
    engines_.nodes.push_back(std::make_unique<EngineNode>(engines_, *control_, i));
  }
  for (const auto& volume : engines_.volumes) {
    if (volume->plan.has_host) engines_.hosts.push_back(std::make_unique<EngineHost>(engines_, *volume));
  }
}

template <typename Predicate>
void EnginesRun::wait(Predicate predicate, Duration limit, const std::string& what) {
  if (!go_on()) return;
  const RunResult result = world_->run_until([&] { return !go_on() || predicate(); }, limit);
  if (result != RunResult::kDone) engines_.fail(fmt::format("{}: {}", what, sim::run_result_name(result)));
}

// For what takes long to look at: now and then, not after each turn.
template <typename Predicate>
void EnginesRun::look_until(Predicate predicate, Duration limit) {
  const Instant end = world_->now() + limit;
  while (!predicate() && world_->now() < end) world_->run_for(kLook);
}

// Pools are made in a world without faults.
void EnginesRun::begin() {
  std::vector<std::unique_ptr<bool>> done;
  for (const auto& node : engines_.nodes) {
    done.push_back(std::make_unique<bool>(false));
    world_->spawn(node->node(), 0, node->format(done.back().get()));
  }
  wait([&] { return std::ranges::all_of(done, [](const auto& each) { return *each; }); }, kFormatMax, "making pools");
  if (!go_on()) return;
  for (const auto& node : engines_.nodes) node->run();
  wait([&] { return std::ranges::all_of(engines_.nodes, &EngineNode::is_ready); }, kReadyMax, "the first start");
  if (!go_on()) return;
  for (const auto& host : engines_.hosts) host->run();
  wait([&] { return std::ranges::all_of(engines_.hosts, &EngineHost::is_connected); }, kReadyMax,
       "hosts do not connect");
  world_->settings() = plan_.settings;
  for (const auto& node : engines_.nodes) set_faults(*node, plan_.disk);
  look_later();
}

void EnginesRun::set_faults(const EngineNode& node, const sim::DiskRates& rates) {
  for (sim::SimDevice* const device : node.devices()) {
    sim::DiskFaults faults;
    faults.elsewhere = rates;
    device->set_faults(faults);
  }
}

// ---- What power losses may take

// Any of the records may decide a take-over. A volume none of whose members remembers what it was asked goes on all the
// same, without what was not flushed.
EnginesRun::Known EnginesRun::known(const EngineVolume& volume, const Nodes& without) {
  Known known;
  known.records.push_back(control_->witness().vote(volume.plan.options.volume).record);
  for (size_t i = 0; i < engines_.nodes.size(); ++i) {
    const std::optional<ReplicaView> view = engines_.nodes[i]->view(volume);
    if (!view) continue;
    known.records.push_back(view->record);
    if (view->is_warm && std::ranges::find(without, i) == without.end()) known.warm.push_back(view->id);
  }
  return known;
}

bool EnginesRun::is_safe(const Known& known) {
  return std::ranges::all_of(known.records, [&](const Record& record) {
    return record.members.empty() ||
           std::ranges::any_of(known.warm, [&](const ReplicaId& id) { return record.members.has(id); });
  });
}

bool EnginesRun::may_cut(const Nodes& nodes) {
  return std::ranges::all_of(engines_.volumes, [&](const auto& volume) { return is_safe(known(*volume, nodes)); });
}

// Records move while power is lost: what seemed safe may turn out not to have been, before anybody could see it. Then
// all lose power, so that there is one moment at which everything was lost.
void EnginesRun::look_for_loss() {
  for (const auto& volume : engines_.volumes) {
    const bool is_safe_now = is_safe(known(*volume, {}));
    if (!is_safe_now && !volume->is_excused) return black_out();
    if (is_safe_now) volume->is_excused = false;
  }
}

void EnginesRun::look_later() {
  world_->after(kLook, [this] {
    if (!go_on() || engines_.is_checking) return;
    look_for_loss();
    look_later();
  });
}

void EnginesRun::black_out() {
  world_->mark("blackout");
  ++engines_.counts.blackouts;
  for (size_t i = 0; i < engines_.nodes.size(); ++i) {
    EngineNode& node = *engines_.nodes[i];
    if (!node.is_up()) continue;
    node.crash(CrashKind::kPowerLost);
    restart_later(i, engines_.is_healing ? seconds(1) : draw_span(1, 10'000));
  }
  for (const auto& volume : engines_.volumes) {
    volume->power_lost();
    volume->is_excused = true;
  }
}

// ---- Troubles

void EnginesRun::restart_later(size_t node, Duration span) {
  world_->after(span, [this, node] {
    if (!engines_.nodes[node]->is_up()) world_->restart(engines_.nodes[node]->node());
  });
}

void EnginesRun::crash(const Nodes& nodes, CrashKind kind) {
  for (const size_t i : nodes) {
    EngineNode& node = *engines_.nodes[i];
    if (!node.is_up()) continue;
    world_->mark("crash", i * 2 + (kind == CrashKind::kPowerLost ? 1 : 0));
    ++(kind == CrashKind::kPowerLost ? engines_.counts.power_losses : engines_.counts.kills);
    node.crash(kind);
    restart_later(i, draw_span(1, 20'000));
  }
}

void EnginesRun::crash_some() {
  Nodes nodes;
  const size_t count = random().skewed(1, engines_.nodes.size());
  for (size_t i = 0; i < count; ++i) nodes.push_back(random().below(engines_.nodes.size()));
  if (!random().coin()) return crash(nodes, CrashKind::kProcessKilled);
  if (may_cut(nodes)) return crash(nodes, CrashKind::kPowerLost);
  if (random().one_in(3)) return black_out();
  crash({nodes.front()}, may_cut({nodes.front()}) ? CrashKind::kPowerLost : CrashKind::kProcessKilled);
}

void EnginesRun::restart_in_order(EngineNode& node) {
  if (!node.is_up() || !may_cut({})) return;
  world_->mark("stop");
  ++engines_.counts.stops;
  if (!world_->stop(node.node(), kStopMax)) return engines_.fail("an engine did not stop");
  world_->run_for(draw_span(1, 2'000));
  if (!node.is_up()) world_->restart(node.node());
}

void EnginesRun::cut_some() {
  const uint32_t one = any_node().node().index();
  const uint32_t other = any_node().node().index();
  if (one == other) return;
  ++engines_.counts.partitions;
  if (random().coin()) {
    world_->network().partition(one, other);
  } else {
    world_->network().partition_one_way(one, other);
  }
  world_->after(draw_span(10, 20'000), [this, one, other] { world_->network().heal(one, other); });
}

// From everyone; sometimes from the witness too.
void EnginesRun::isolate(EngineNode& node) {
  ++engines_.counts.partitions;
  const size_t index = static_cast<size_t>(std::ranges::find(engines_.nodes, &node, &std::unique_ptr<EngineNode>::get) -
                                           engines_.nodes.begin());
  world_->network().isolate(node.node().index());
  control_->set_cut(index, random().coin());
  world_->after(draw_span(10, 20'000), [this, &node, index] {
    for (const auto& other : engines_.nodes) {
      if (other.get() != &node) world_->network().heal(node.node().index(), other->node().index());
    }
    control_->set_cut(index, false);
  });
}

size_t EnginesRun::targets_of(const EngineVolume& volume) const {
  return static_cast<size_t>(
      std::ranges::count_if(engines_.nodes, [&](const auto& node) { return node->has_target(volume); }));
}

// Control moves the volume, or believes that its target is dead; it may act late.
void EnginesRun::start_some() {
  EngineVolume& volume = any_volume();
  if (targets_of(volume) >= kTargetsMax) {
    any_node().end_a_target(random().below(8));
    return;
  }
  EngineNode& node = any_node();
  const uint64_t seed = random().next();
  const bool is_moved = random().coin();
  world_->after(random().coin() ? Duration(1) : draw_span(1, 5'000), [this, &volume, &node, seed, is_moved] {
    if (engines_.is_healing || node.has_target(volume)) return;
    if (is_moved) {
      for (const auto& other : engines_.nodes) {
        if (other->has_target(volume)) other->end_target_of(volume);
      }
    }
    node.start_target(volume, seed);
  });
}

void EnginesRun::trouble_control() {
  test::MemoryWitness& witness = control_->witness();
  switch (random().below(4)) {
    case 0:
      control_->set_away(random().coin());
      break;
    case 1:
      control_->set_cut(random().below(engines_.nodes.size()), random().coin());
      break;
    case 2:
      witness.set_cut(random().coin() ? test::MemoryWitness::Cut::kNothing
                                      : static_cast<test::MemoryWitness::Cut>(random().below(3)));
      break;
    default:
      ++engines_.counts.rebuilds;
      witness.rebuild(any_volume().plan.options.volume);
  }
}

// One disk of it does nothing for a while.
void EnginesRun::hang(EngineNode& node) {
  const auto devices = node.devices();
  ++engines_.counts.hangs;
  devices[random().below(devices.size())]->hang(draw_span(10, 15'000));
}

// Writes and flushes fail for a while, some places cannot be read until they are written again. A pool that gave up is
// tried again when somebody starts the engine anew.
void EnginesRun::fall_sick() {
  if (!plan_.sick) return;
  const size_t index = *plan_.sick;
  EngineNode& node = *engines_.nodes[index];
  ++engines_.counts.sicknesses;
  engines_.has_been_sick = true;
  spoil(node);
  if (random().coin()) return;
  set_faults(node, plan_.sickness);
  world_->after(draw_span(100, 20'000), [this, &node, index] {
    if (engines_.is_healing || !go_on()) return;
    set_faults(node, plan_.disk);
    crash({index}, CrashKind::kProcessKilled);
  });
}

// Only what workers wrote: of the pool's own pages both copies could be hit.
void EnginesRun::spoil(EngineNode& node) {
  const uint64_t tries = random().skewed(1, 200);
  for (uint64_t i = 0; i < tries; ++i) {
    for (sim::SimDevice* const device : node.devices()) {
      const uint64_t sector = device->options().logical_block;
      const uint64_t offset = random().below(device->size_bytes() / sector) * sector;
      std::vector<std::byte> bytes(sector);
      device->peek(offset, bytes);
      if (test::is_filled(bytes)) device->make_unreadable(offset, sector);
    }
  }
}

// What could not be read can be after all.
void EnginesRun::mend() {
  for (const auto& node : engines_.nodes) {
    for (sim::SimDevice* const device : node->devices()) {
      if (device->has_unreadable()) ++engines_.counts.mended;
      device->make_readable();
    }
  }
}

bool EnginesRun::is_unreadable() const {
  return std::ranges::any_of(engines_.nodes, [](const auto& node) {
    return std::ranges::any_of(node->devices(), &sim::SimDevice::has_unreadable);
  });
}

// ---- Snapshots

EngineNode* EnginesRun::target_node(const EngineVolume& volume) {
  const auto at = std::ranges::find_if(engines_.nodes, [&](const auto& node) { return node->has_target(volume); });
  return at == engines_.nodes.end() ? nullptr : at->get();
}

// Even if all of every volume is written over between any two, and brought back once more.
bool EnginesRun::has_room_for_snapshot(const EngineVolume& volume) const {
  uint64_t needed = 12 * kMiB + align_up(volume.plan.options.size_bytes, mirror::kExtentBytes);
  for (const auto& each : engines_.volumes) {
    needed += (each->taken.size() + 2) * align_up(each->plan.options.size_bytes, mirror::kExtentBytes);
  }
  return needed <= plan_.disk_bytes;
}

void EnginesRun::take_snapshot() {
  EngineVolume& volume = any_volume();
  EngineNode* const node = target_node(volume);
  if (node == nullptr) return;
  constexpr size_t kSnapshots = 6;
  if (volume.taken.size() >= kSnapshots || !has_room_for_snapshot(volume)) return;
  // Whoever gives ids may give one twice, to things of different kinds: some are replicas' too.
  const Uuid id = uuid_from_random(world_->seed(), 1000 + 100 * volume.index + volume.taken.size());
  volume.taken.push_back(std::make_unique<EngineVolume::Taken>());
  volume.taken.back()->id = id;
  world_->spawn(node->node(), 0, node->take_snapshot(volume, *volume.taken.back(), draw_span(1, 20'000)));
}

void EnginesRun::delete_snapshot() {
  EngineVolume& volume = any_volume();
  EngineNode* const node = target_node(volume);
  if (node == nullptr || volume.taken.empty()) return;
  EngineVolume::Taken& taken = *volume.taken[random().below(volume.taken.size())];
  if (!taken.holds) return;
  taken.is_deleting = true;
  world_->spawn(node->node(), 0, node->delete_snapshot(volume, taken.id, draw_span(1, 20'000), nullptr));
}

// As whoever wants it gone would, until it is. Of one that nobody heard of again nobody knows whether it is there.
void EnginesRun::finish_deletions(EngineVolume& volume) {
  for (const auto& taken : volume.taken) {
    EngineNode* const node = target_node(volume);
    if (!go_on() || !taken->is_deleting) continue;
    if (node == nullptr) return engines_.fail("a target has gone");
    is_read_ = false;
    world_->spawn(node->node(), 0, node->delete_snapshot(volume, taken->id, kReadMax, &is_read_));
    wait([&] { return is_read_; }, kReadMax, "deleting a snapshot");
  }
}

static std::string list(const std::vector<EngineNode::FoundSnapshot>& snapshots) {
  std::string text;
  for (const auto& [id, bytes] : snapshots) {
    text += fmt::format(" {} {} bytes, crc {:08x};", to_string(id).substr(24), bytes.size(), crc32c(bytes));
  }
  return text.empty() ? " none;" : text;
}

void EnginesRun::compare_snapshots(EngineVolume& volume) {
  using Found = std::vector<EngineNode::FoundSnapshot>;
  std::optional<Found> first;
  for (const size_t engine : volume.plan.engines) {
    Found found;
    is_read_ = false;
    world_->spawn(engines_.nodes[engine]->node(), 0, engines_.nodes[engine]->read_snapshots(volume, &found, &is_read_));
    wait([&] { return is_read_; }, kReadMax, "reading snapshots");
    if (!go_on()) return;
    if (!first) first = found;
    if (found == first) continue;
    return engines_.fail(fmt::format("volume {}: members have other snapshots: the first{} engine {}{}", volume.index,
                                     list(*first), engine, list(found)));
  }
  for (const auto& taken : volume.taken) {
    const auto found = std::ranges::find(*first, taken->id, &EngineNode::FoundSnapshot::id);
    const bool is_there = found != first->end();
    if (taken->is_deleting && is_there) return engines_.fail("a snapshot is there that was deleted");
    if (taken->is_deleting || !taken->holds) continue;
    if (!is_there || found->bytes.empty()) return engines_.fail("a snapshot is lost");
    const uint64_t began = volume.clock.begin_read();
    const std::string wrong = taken->holds->check_read(began, {0, volume.plan.blocks}, found->bytes, kEngineBlock);
    volume.clock.end_read(began);
    if (!wrong.empty()) return engines_.fail(fmt::format("volume {}: a snapshot: {}", volume.index, wrong));
  }
}

void EnginesRun::cause() {
  const uint64_t what = random().below(plan_.kinds_of_trouble);
  world_->mark("trouble", what);
  if (what < 4) return crash_some();
  if (what < 6) return cut_some();
  if (what == 6) return isolate(any_node());
  if (what == 7) {
    ++engines_.counts.resets;
    world_->network().reset_connections(any_node().node().index());
    return;
  }
  if (what == 8) {
    EngineNode& node = any_node();
    if (!node.is_up()) return;
    ++engines_.counts.stalls;
    return world_->stall(node.node(), random().below(node.node().shard_count()), draw_span(1, 3'000));
  }
  if (what == 9) return trouble_control();
  if (what == 10) return restart_in_order(any_node());
  if (what == 11) return any_node().end_a_target(random().below(8));
  if (what == 12) return hang(any_node());
  if (what == 13 || what == 14) return fall_sick();
  if (what >= 18 && what < 26) return take_snapshot();
  if (what >= 26) return delete_snapshot();
  start_some();
}

// ---- The end

bool EnginesRun::is_whole(const EngineVolume& volume) const {
  for (const auto& node : engines_.nodes) {
    const std::optional<TargetStatus> status = node->status_of(volume);
    if (!status) continue;
    return status->state == TargetStatus::State::kServing && status->record.members.size() == volume.replicas.size() &&
           status->record.is_settled() && status->unlevel_bytes == 0;
  }
  return false;
}

std::string EnginesRun::describe(const EngineVolume& volume) const {
  std::string text = fmt::format("volume {}", volume.index);
  for (const auto& node : engines_.nodes) {
    const std::optional<TargetStatus> found = node->status_of(volume);
    if (!found) continue;
    const TargetStatus& status = *found;
    text += fmt::format(": state {} record {} unlevel {}: {}", static_cast<int>(status.state), to_string(status.record),
                        status.unlevel_bytes, status.why);
    for (const mirror::ReplicaStatus& replica : status.replicas) {
      text += fmt::format("; {} standing {} {}", to_string(replica.replica), static_cast<int>(replica.standing),
                          to_string(replica.last_error));
    }
  }
  return text;
}

// No faults from now on: then one target that nobody disturbs must bring everyone back.
void EnginesRun::heal() {
  if (!go_on()) return;
  world_->mark("heal");
  engines_.is_healing = true;
  world_->heal();
  control_->heal();
  control_->witness().set_cut(test::MemoryWitness::Cut::kNothing);
  for (const auto& node : engines_.nodes) {
    if (!node->is_up()) world_->restart(node->node());
  }
  // A pool that gave up stays so.
  if (EngineNode* const sick = engines_.has_been_sick ? engines_.nodes[*plan_.sick].get() : nullptr) {
    sick->crash(CrashKind::kProcessKilled);
    world_->restart(sick->node());
  }
  Instant end = world_->now() + kHealMax;
  uint64_t blackouts = 0;
  // What was lost before may come to light only now, and take the targets along.
  do {
    blackouts = engines_.counts.blackouts;
    start_anew();
    const auto is_over = [&] {
      return !go_on() || engines_.counts.blackouts != blackouts ||
             std::ranges::all_of(engines_.volumes, [this](const auto& volume) { return is_whole(*volume); });
    };
    // The only one that has everything may not give it: nothing but another disk helps then.
    const auto is_hopeless = [&, since = world_->now()] {
      return is_unreadable() && world_->now() - since > kUnreadableMax;
    };
    if (go_on()) look_until([&] { return is_over() || is_hopeless(); }, end - world_->now());
    if (go_on() && !is_over() && is_unreadable()) {
      mend();
      end = world_->now() + kHealMax;
      look_until(is_over, kHealMax);
    }
  } while (go_on() && engines_.counts.blackouts != blackouts && world_->now() < end);
  mend();
  for (const auto& volume : engines_.volumes) {
    if (!is_whole(*volume)) engines_.fail("not whole again: " + describe(*volume));
  }
}

// One target a volume, and no other.
void EnginesRun::start_anew() {
  const auto& nodes = engines_.nodes;
  wait([&] { return std::ranges::all_of(nodes, &EngineNode::is_ready); }, kReadyMax, "engines are not ready");
  for (const auto& node : nodes) node->end_targets();
  wait([&] { return std::ranges::all_of(nodes, [](const auto& node) { return node->targets() == 0; }); }, kEndMax,
       "targets do not end");
  // A blackout while they ended: the next one.
  if (!go_on() || !std::ranges::all_of(nodes, &EngineNode::is_ready)) return;
  for (const auto& volume : engines_.volumes) {
    volume->requests_left = std::max<uint64_t>(volume->requests_left, 20);
    any_node().start_target(*volume, random().next());
  }
}

void EnginesRun::compare(EngineVolume& volume) {
  std::vector<std::byte> first;
  for (const size_t engine : volume.plan.engines) {
    is_read_ = false;
    bytes_.clear();
    EngineNode& node = *engines_.nodes[engine];
    world_->spawn(node.node(), 0, node.read_replica(volume, &bytes_, &is_read_));
    wait([&] { return is_read_; }, kReadMax, "reading a replica");
    if (!go_on()) return;
    if (bytes_.empty()) return engines_.fail(fmt::format("volume {}: a replica cannot be read", volume.index));
    if (first.empty()) first = bytes_;
    const auto [one, other] = std::ranges::mismatch(first, bytes_);
    if (one == first.end()) continue;
    engines_.fail(fmt::format("volume {}: members differ at block {}: engines {} and {}", volume.index,
                              (one - first.begin()) / kEngineBlock, volume.plan.engines.front(), engine));
  }
}

void EnginesRun::read_back(EngineVolume& volume) {
  if (!go_on()) return;
  is_read_ = false;
  const auto host = std::ranges::find(engines_.hosts, &volume, [](const auto& each) { return &each->volume(); });
  if (host != engines_.hosts.end()) {
    world_->spawn((*host)->node(), 0, (*host)->read_all(&is_read_));
  } else {
    const auto at = std::ranges::find_if(engines_.nodes, [&](const auto& node) { return node->has_target(volume); });
    if (at == engines_.nodes.end()) return engines_.fail("a target has gone");
    world_->spawn((*at)->node(), 0, (*at)->read_all(volume, &is_read_));
  }
  wait([&] { return is_read_; }, kReadMax, "reading back");
}

void EnginesRun::verify() {
  if (!go_on()) return;
  world_->run_for(seconds(2));
  engines_.is_over = true;
  for (const auto& volume : engines_.volumes) {
    wait([&] { return volume->working == 0; }, kEndMax, fmt::format("requests of volume {} do not end", volume->index));
    if (volume->working > 0) {
      engines_.failure += fmt::format("; {} workers, writes:{}; ", volume->working, volume->describe_writes());
      engines_.failure += describe(*volume);
    }
  }
  for (const auto& host : engines_.hosts) {
    if (host->volume().working > 0) engines_.failure += "; " + host->describe();
  }
  for (const auto& volume : engines_.volumes) read_back(*volume);
  // What the last requests cost a slow replica its place for comes back before all are compared.
  for (const auto& volume : engines_.volumes) {
    if (!go_on() || is_whole(*volume)) continue;
    look_until([&] { return !go_on() || is_whole(*volume); }, kHealMax);
    if (go_on() && !is_whole(*volume)) engines_.fail("not whole at rest: " + describe(*volume));
  }
  for (const auto& volume : engines_.volumes) finish_deletions(*volume);
  if (!go_on()) return;
  for (const auto& node : engines_.nodes) node->end_targets();
  wait([&] { return std::ranges::all_of(engines_.nodes, [](const auto& node) { return node->targets() == 0; }); },
       kEndMax, "targets do not end at last");
  for (const auto& volume : engines_.volumes) {
    if (go_on()) compare(*volume);
    if (go_on()) compare_snapshots(*volume);
  }
  for (const auto& host : engines_.hosts) {
    if (go_on() && !world_->stop(host->node(), kStopMax)) engines_.fail("a host did not stop");
  }
}

void EnginesRun::check(EngineNode& node) {
  if (!go_on()) return;
  if (!world_->stop(node.node(), kStopMax)) return engines_.fail("an engine did not stop at the end");
  world_->restart(node.node());
  report_.reset();
  world_->spawn(node.node(), 0, node.check_disks(&report_));
  wait([&] { return report_.has_value(); }, kReadMax, "the checker");
  if (!go_on()) return;
  if (!*report_) return engines_.fail(fmt::format("check: {}", to_string(report_->error())));
  for (const pool::Finding& finding : (*report_)->findings) {
    engines_.fail(fmt::format("check: {}: {}", pool::severity_name(finding.severity), finding.text));
  }
  if (go_on() && !world_->stop(node.node(), kStopMax)) engines_.fail("a node did not stop after the checker");
}

void EnginesRun::finish() {
  engines_.is_checking = true;
  for (const auto& node : engines_.nodes) check(*node);
  if (world_->violations() != 0) engines_.fail("a contract of the seams was broken");
  if (world_->unexplained_errors() != 0) engines_.fail("an ERROR was logged that no fault explains");
}

Outcome EnginesRun::run() {
  begin();
  for (const auto& volume : engines_.volumes) {
    if (go_on()) any_node().start_target(*volume, random().next());
  }
  for (size_t i = 0; i < plan_.troubles && go_on(); ++i) {
    world_->run_for(Duration(static_cast<int64_t>(random().below(static_cast<uint64_t>(plan_.trouble_every.count())))));
    if (go_on()) cause();
  }
  heal();
  verify();
  finish();
  Outcome outcome = outcome_of(*world_, go_on());
  outcome.engines = engines_.counts;
  outcome.hosts = engines_.statistics;
  return outcome;
}

void EnginesRun::explain(const RunOptions& options) const {
  if (options.message != nullptr) *options.message = engines_.failure;
  if (options.report != nullptr) {
    *options.report = world_->report() + "plan: " + to_string(plan_) + "\ncounts: " + to_string(engines_.counts) + "\n";
  }
}

}  // namespace

EngineCounts& operator+=(EngineCounts& sum, const EngineCounts& more) {
  for (const auto& [member, name] : kCounts) sum.*member += more.*member;
  return sum;
}

std::string to_string(const EngineCounts& counts) {
  std::string text;
  for (const auto& [member, name] : kCounts) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, counts.*member);
  }
  return text;
}

Outcome run_engines_seed(uint64_t seed, const RunOptions& options) {
  EnginesRun run(seed, options);
  const Outcome outcome = run.run();
  run.explain(options);
  return outcome;
}

}  // namespace fairlead::sim_test
