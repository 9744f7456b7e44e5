// Runs of hosts of src/host with several paths to one target. See scenario.h.
#include <algorithm>
#include <fmt/format.h>
#include <memory>

#include "host_load.h"
#include "scenario.h"
#include "sim/world.h"

namespace fairlead::sim_test {
namespace {

using sim::CrashKind;
using sim::RunResult;
using sim::SimFabric;
using sim::SimWorld;
using target::AnaState;

// Virtual time; the longest waits inside are seconds.
constexpr Duration kStartMax = std::chrono::seconds(60);
constexpr Duration kFinishMax = std::chrono::seconds(600);
constexpr Duration kWholeMax = std::chrono::seconds(120);
constexpr Duration kQuietMax = std::chrono::seconds(300);
constexpr Duration kStopMax = std::chrono::seconds(120);

enum class Trouble : uint8_t {
  kPartition,
  kPartitionOneWay,
  kLink,
  kLinkReset,
  kReset,
  kPowerLoss,
  kKill,
  kRestart,
  kEngine,
  kNamespace,
  kAna,
  kResize,
  kStall,
  kHostRestart,
  kHostCrash,
};

std::vector<Trouble> troubles_of(const ChaosPlan& chaos) {
  std::vector<Trouble> all;
  const auto add = [&all](bool on, std::initializer_list<Trouble> troubles) {
    if (on) all.insert(all.end(), troubles);
  };
  add(chaos.partitions, {Trouble::kPartition, Trouble::kPartitionOneWay});
  add(chaos.links, {Trouble::kLink, Trouble::kLink, Trouble::kLinkReset});
  add(chaos.resets, {Trouble::kReset});
  add(chaos.power_loss, {Trouble::kPowerLoss});
  add(chaos.kills, {Trouble::kKill});
  add(chaos.restarts, {Trouble::kRestart});
  add(chaos.engines, {Trouble::kEngine});
  add(chaos.namespace_changes, {Trouble::kNamespace});
  add(chaos.ana_changes, {Trouble::kAna});
  add(chaos.resizes, {Trouble::kResize});
  add(chaos.stalls, {Trouble::kStall});
  add(chaos.host_restarts, {Trouble::kHostRestart, Trouble::kHostCrash});
  return all;
}

class HostRun {
 public:
  HostRun(uint64_t seed, const RunOptions& options);
  Outcome run();
  void explain(const RunOptions& options) const;

 private:
  bool go_on() const { return !cluster_->has_failed(); }
  template <typename Predicate>
  bool wait(Predicate predicate, Duration limit, const char* what);
  Duration draw_span(uint64_t low_ms, uint64_t high_ms);
  size_t draw_below(size_t count) { return static_cast<size_t>(world_->random().below(count)); }
  bool all_done() const {
    return std::ranges::all_of(loads_, [](const auto& load) { return load->is_done(); });
  }

  void begin_faults();
  void start_hosts();
  void cause(Trouble trouble);
  void partition(bool both_ways);
  void cut_link();
  void crash_target(CrashKind kind);
  void restart_target();
  void stop_engine();
  void change_namespace();
  void change_ana();
  void stall();
  void crash_host();
  void heal();
  void release_hosts();
  void settle();
  void read_back();
  void round();
  void finish();

  const Plan plan_;
  // Programs of the world refer to these: they go after it.
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::unique_ptr<HostLoad>> loads_;
  std::vector<std::unique_ptr<bool>> ended_;
  bool read_ = false;
  bool healed_ = true;
  std::unique_ptr<SimWorld> world_;
  TargetSite* site_ = nullptr;
};

HostRun::HostRun(uint64_t seed, const RunOptions& options)
    : plan_(draw_plan(seed, options.scenario)), world_(std::make_unique<SimWorld>(seed, plan_.settings)) {
  world_->trace().set_listener(options.listener);
  cluster_ = std::make_unique<Cluster>(*world_, plan_);
  site_ = cluster_->targets().front().get();
  for (size_t i = 0; i < plan_.hosts.size(); ++i) {
    loads_.push_back(std::make_unique<HostLoad>(*cluster_, i, world_->random().next()));
    ended_.push_back(std::make_unique<bool>(true));
  }
}

template <typename Predicate>
bool HostRun::wait(Predicate predicate, Duration limit, const char* what) {
  if (!go_on()) return false;
  const RunResult result = world_->run_until([&] { return !go_on() || predicate(); }, limit);
  if (result == RunResult::kDone) return go_on();
  std::string text = fmt::format("{}: {}", what, sim::run_result_name(result));
  for (const auto& load : loads_) text += "; " + load->describe();
  cluster_->fail(std::move(text));
  return false;
}

Duration HostRun::draw_span(uint64_t low_ms, uint64_t high_ms) {
  return std::chrono::milliseconds(world_->random().skewed(low_ms, high_ms));
}

void HostRun::begin_faults() {
  world_->settings() = plan_.settings;
  for (const auto& volume : site_->volumes) {
    sim::DiskFaults faults;
    faults.elsewhere = plan_.chaos.disk;
    volume->device->set_faults(faults);
  }
}

void HostRun::start_hosts() {
  for (size_t i = 0; i < loads_.size(); ++i) {
    loads_[i]->start_round();
    *ended_[i] = false;
    world_->spawn(cluster_->host_node(i), 0, loads_[i]->run(ended_[i].get()));
  }
}

// ---- Troubles

void HostRun::partition(bool both_ways) {
  const uint32_t target = site_->node->index();
  const uint32_t host = cluster_->host_node(draw_below(loads_.size())).index();
  const bool from_host = world_->random().coin();
  if (both_ways) {
    world_->network().partition(host, target);
  } else {
    world_->network().partition_one_way(from_host ? host : target, from_host ? target : host);
  }
  world_->after(draw_span(10, 15'000), [this, host, target] { world_->network().heal(host, target); });
}

void HostRun::cut_link() {
  const SocketAddress endpoint = site_->paths[draw_below(site_->paths.size())].address;
  const auto way = static_cast<SimFabric::Way>(draw_below(3));
  world_->network().cut_endpoint(endpoint, way);
  world_->after(draw_span(10, 15'000), [this, endpoint] { world_->network().heal_endpoint(endpoint); });
  // Another way to lose it than by silence, and what was sent is still under way.
  if (world_->random().coin()) return;
  world_->after(draw_span(1, 200), [this] {
    if (!healed_) world_->network().reset_connections(site_->node->index());
  });
}

void HostRun::crash_target(CrashKind kind) {
  cluster_->crash(*site_, kind);
  world_->run_for(draw_span(1, 3'000));
  cluster_->restart(*site_);
}

void HostRun::restart_target() {
  if (!world_->stop(*site_->node, kStopMax)) return cluster_->fail("a target did not stop");
  for (const auto& volume : site_->volumes) volume->checker->target_died(false);
  ++site_->epoch;
  world_->run_for(draw_span(1, 500));
  cluster_->restart(*site_);
}

void HostRun::stop_engine() {
  const size_t engine = draw_below(site_->engine_wanted.size());
  site_->engine_wanted[engine] = false;
  cluster_->reconcile_soon(*site_);
  world_->after(draw_span(1, 3'000), [this, engine] {
    site_->engine_wanted[engine] = true;
    cluster_->reconcile_soon(*site_);
  });
}

void HostRun::change_namespace() {
  Volume& volume = *site_->volumes[draw_below(site_->volumes.size())];
  if (world_->random().coin()) {
    volume.attached = false;
  } else {
    volume.hidden |= 1U << draw_below(site_->engine_wanted.size());
  }
  cluster_->reconcile_soon(*site_);
  world_->after(draw_span(1, 2'000), [this, &volume] {
    volume.attached = true;
    volume.hidden = 0;
    cluster_->reconcile_soon(*site_);
  });
}

void HostRun::change_ana() {
  constexpr std::array<AnaState, 4> kStates = {AnaState::kInaccessible, AnaState::kChange, AnaState::kNonOptimized,
                                               AnaState::kPersistentLoss};
  const auto group = static_cast<uint32_t>(1 + draw_below(2));
  const size_t path = draw_below(site_->paths.size());
  cluster_->set_ana(*site_, group, kStates[draw_below(kStates.size())], path);
  world_->after(draw_span(1, 3'000),
                [this, group, path] { cluster_->set_ana(*site_, group, AnaState::kOptimized, path); });
}

void HostRun::stall() {
  const uint64_t span = world_->random().skewed(1, kStallMaxMs);
  world_->stall(*site_->node, draw_below(site_->node->shard_count()), std::chrono::milliseconds(span));
}

void HostRun::crash_host() {
  const size_t index = draw_below(loads_.size());
  sim::SimNode& node = cluster_->host_node(index);
  world_->crash(node, world_->random().coin() ? CrashKind::kPowerLost : CrashKind::kProcessKilled);
  world_->run_for(draw_span(1, 1'000));
  world_->restart(node);
  if (!*ended_[index]) world_->spawn(node, 0, loads_[index]->run(ended_[index].get()));
}

void HostRun::cause(Trouble trouble) {
  world_->mark("trouble", static_cast<uint64_t>(trouble));
  const SocketAddress endpoint = site_->paths[draw_below(site_->paths.size())].address;
  switch (trouble) {
    case Trouble::kPartition:
      return partition(true);
    case Trouble::kPartitionOneWay:
      return partition(false);
    case Trouble::kLink:
      return cut_link();
    case Trouble::kLinkReset:
      world_->network().reset_connections(endpoint);
      return;
    case Trouble::kReset:
      world_->network().reset_connections(site_->node->index());
      return;
    case Trouble::kPowerLoss:
      return crash_target(CrashKind::kPowerLost);
    case Trouble::kKill:
      return crash_target(CrashKind::kProcessKilled);
    case Trouble::kRestart:
      return restart_target();
    case Trouble::kEngine:
      return stop_engine();
    case Trouble::kNamespace:
      return change_namespace();
    case Trouble::kAna:
      return change_ana();
    case Trouble::kResize:
      return cluster_->grow(*site_, *site_->volumes[draw_below(site_->volumes.size())]);
    case Trouble::kStall:
      return stall();
    case Trouble::kHostRestart:
      return loads_[draw_below(loads_.size())]->restart();
    case Trouble::kHostCrash:
      return crash_host();
  }
}

// ---- Phases

void HostRun::heal() {
  if (!go_on()) return;
  world_->mark("heal");
  healed_ = true;
  world_->heal();
  if (!wait([&] { return cluster_->all_serving(); }, kStartMax, "targets do not serve after the faults ended")) return;
  cluster_->restore(*site_);
}

void HostRun::release_hosts() {
  for (const auto& load : loads_) load->release();
  wait([&] { return std::ranges::all_of(ended_, [](const auto& ended) { return *ended; }); }, kStopMax,
       "hosts did not end");
}

void HostRun::settle() {
  wait([&] { return cluster_->is_quiet(); }, kQuietMax, "connections, controllers or disk operations were left over");
  if (go_on()) cluster_->settled();
}

void HostRun::read_back() {
  if (!go_on()) return;
  read_ = false;
  world_->spawn(cluster_->host_node(0), 0, loads_[0]->verify(&read_));
  wait([&] { return read_; }, kFinishMax, "reading back did not end");
}

void HostRun::round() {
  world_->mark("round");
  healed_ = false;
  begin_faults();
  start_hosts();
  const std::vector<Trouble> troubles = troubles_of(plan_.chaos);
  for (uint32_t i = 0; i < plan_.chaos.actions && !troubles.empty() && go_on() && !all_done(); ++i) {
    // Now and then long enough for keep-alives to run out.
    world_->run_for(world_->random().one_in(4) ? draw_span(1'000, 10'000) : draw_span(1, 1'000));
    if (go_on()) cause(troubles[draw_below(troubles.size())]);
  }
  if (plan_.chaos.actions > 0) {
    if (go_on()) (void)world_->run_until([&] { return all_done(); }, draw_span(1, 3'000));
    heal();
  }
  const auto is_whole = [&] { return std::ranges::all_of(loads_, [](const auto& load) { return load->is_whole(); }); };
  wait([&] { return all_done(); }, kFinishMax, "hosts did not end their requests");
  wait(is_whole, kWholeMax, "not every path came back, or a size was not seen");
  release_hosts();
  settle();
  read_back();
  settle();
}

void HostRun::finish() {
  if (go_on() && !world_->stop(*site_->node, kStopMax)) cluster_->fail("a target did not stop at the end");
  if (go_on() && world_->network().connection_count() != 0) cluster_->fail("connections were left over at the end");
  if (world_->violations() != 0) cluster_->fail("a contract of the seams was broken");
  if (world_->unexplained_errors() != 0) cluster_->fail("an ERROR was logged that no fault explains");
}

Outcome HostRun::run() {
  wait([&] { return cluster_->all_serving(); }, kStartMax, "targets do not serve");
  for (uint32_t i = 0; i < plan_.rounds && go_on(); ++i) round();
  finish();
  Outcome outcome = outcome_of(*world_, go_on());
  for (const auto& load : loads_) {
    outcome.hosts.resent += load->statistics().resent;
    outcome.hosts.held += load->statistics().held;
    outcome.hosts.fenced += load->statistics().fenced;
    outcome.hosts.retried += load->statistics().retried;
  }
  return outcome;
}

void HostRun::explain(const RunOptions& options) const {
  if (options.message != nullptr) *options.message = cluster_->failure();
  if (options.report != nullptr) *options.report = world_->report() + "plan: " + to_string(plan_) + "\n";
}

}  // namespace

Outcome run_host_seed(uint64_t seed, const RunOptions& options) {
  HostRun run(seed, options);
  Outcome outcome = run.run();
  run.explain(options);
  return outcome;
}

}  // namespace fairlead::sim_test
