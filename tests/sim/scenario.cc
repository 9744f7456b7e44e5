#include "scenario.h"

#include <algorithm>
#include <fmt/format.h>
#include <memory>

#include "cluster.h"
#include "load.h"
#include "sim/world.h"

namespace fairlead::sim_test {
namespace {

using sim::CrashKind;
using sim::RunResult;
using sim::SimWorld;
using target::AnaState;

// Virtual time; the longest waits inside are seconds.
constexpr Duration kStartMax = std::chrono::seconds(60);
constexpr Duration kFinishMax = std::chrono::seconds(1800);
constexpr Duration kQuietMax = std::chrono::seconds(300);
constexpr Duration kStopMax = std::chrono::seconds(120);

enum class Trouble : uint8_t {
  kPartition,
  kPartitionOneWay,
  kReset,
  kPowerLoss,
  kKill,
  kRestart,
  kClientLoss,
  kNamespace,
  kAna,
  kResize,
  kNoRoom,
};

std::vector<Trouble> troubles_of(const ChaosPlan& chaos) {
  std::vector<Trouble> all;
  const auto add = [&all](bool on, Trouble trouble) {
    if (on) all.push_back(trouble);
  };
  add(chaos.partitions, Trouble::kPartition);
  add(chaos.partitions, Trouble::kPartitionOneWay);
  add(chaos.resets, Trouble::kReset);
  add(chaos.power_loss, Trouble::kPowerLoss);
  add(chaos.kills, Trouble::kKill);
  add(chaos.restarts, Trouble::kRestart);
  add(chaos.client_loss, Trouble::kClientLoss);
  add(chaos.namespace_changes, Trouble::kNamespace);
  add(chaos.ana_changes, Trouble::kAna);
  add(chaos.resizes, Trouble::kResize);
  add(chaos.no_room, Trouble::kNoRoom);
  return all;
}

class Run {
 public:
  Run(uint64_t seed, const RunOptions& options);
  Outcome run();
  // What went wrong, if anything did.
  void explain(const RunOptions& options) const;

 private:
  bool go_on() const { return !cluster_->has_failed(); }
  template <typename Predicate>
  void wait(Predicate predicate, Duration limit, const char* what);
  Duration draw_span(uint64_t low_ms, uint64_t high_ms);

  void begin_faults();
  void start_clients();
  void cause(Trouble trouble);
  void crash_target(TargetSite& site, CrashKind kind);
  void restart_target(TargetSite& site);
  void lose_client();
  void cut(TargetSite& site, bool both_ways);
  void heal();
  void settle();
  void read_back();
  void round();
  void finish();
  bool clients_done() const {
    return std::ranges::all_of(done_, [](const auto& done) { return *done; });
  }

  const Plan plan_;
  // Programs of the world refer to these: they go after it.
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<std::unique_ptr<bool>> done_;
  bool hostile_until_ = false;
  bool hostile_done_ = true;
  bool read_ = false;
  std::unique_ptr<SimWorld> world_;
};

Run::Run(uint64_t seed, const RunOptions& options)
    : plan_(draw_plan(seed, options.scenario)), world_(std::make_unique<SimWorld>(seed, plan_.settings)) {
  world_->trace().set_listener(options.listener);
  cluster_ = std::make_unique<Cluster>(*world_, plan_);
  for (size_t i = 0; i < plan_.clients.size(); ++i) {
    clients_.push_back(std::make_unique<Client>(*cluster_, i, world_->random().next()));
    done_.push_back(std::make_unique<bool>(true));
  }
}

template <typename Predicate>
void Run::wait(Predicate predicate, Duration limit, const char* what) {
  if (!go_on()) return;
  const RunResult result = world_->run_until([&] { return !go_on() || predicate(); }, limit);
  if (result != RunResult::kDone) cluster_->fail(fmt::format("{}: {}", what, sim::run_result_name(result)));
}

Duration Run::draw_span(uint64_t low_ms, uint64_t high_ms) {
  return std::chrono::milliseconds(world_->random().skewed(low_ms, high_ms));
}

void Run::begin_faults() {
  world_->settings() = plan_.settings;
  for (const auto& site : cluster_->targets()) {
    for (const auto& volume : site->volumes) {
      sim::DiskFaults faults;
      faults.elsewhere = plan_.chaos.disk;
      volume->device->set_faults(faults);
    }
  }
}

void Run::start_clients() {
  for (size_t i = 0; i < clients_.size(); ++i) {
    clients_[i]->start_round();
    *done_[i] = false;
    world_->spawn(cluster_->client_node(i), 0, clients_[i]->run(done_[i].get()));
  }
  if (!plan_.hostile) return;
  hostile_until_ = hostile_done_ = false;
  world_->spawn(cluster_->hostile_node(), 0,
                run_hostile(*cluster_, world_->random().next(), &hostile_until_, &hostile_done_));
}

void Run::cut(TargetSite& site, bool both_ways) {
  const uint32_t target = site.node->index();
  const uint32_t client = cluster_->client_node(world_->random().below(clients_.size())).index();
  const bool from_client = world_->random().coin();
  if (both_ways) {
    world_->network().partition(client, target);
  } else {
    world_->network().partition_one_way(from_client ? client : target, from_client ? target : client);
  }
  world_->after(draw_span(10, 20'000), [this, client, target] { world_->network().heal(client, target); });
}

void Run::crash_target(TargetSite& site, CrashKind kind) {
  cluster_->crash(site, kind);
  world_->run_for(draw_span(1, 3'000));
  cluster_->restart(site);
}

void Run::restart_target(TargetSite& site) {
  if (!world_->stop(*site.node, kStopMax)) return cluster_->fail("a target did not stop");
  // Nothing of its is under way any more.
  for (const auto& volume : site.volumes) volume->checker->target_died(false);
  ++site.epoch;
  world_->run_for(draw_span(1, 500));
  cluster_->restart(site);
}

void Run::lose_client() {
  const size_t index = world_->random().below(clients_.size());
  sim::SimNode& node = cluster_->client_node(index);
  world_->crash(node, world_->random().coin() ? CrashKind::kPowerLost : CrashKind::kProcessKilled);
  world_->run_for(draw_span(1, 2'000));
  world_->restart(node);
  if (!*done_[index]) world_->spawn(node, 0, clients_[index]->run(done_[index].get()));
}

void Run::cause(Trouble trouble) {
  auto& targets = cluster_->targets();
  TargetSite& site = *targets[world_->random().below(targets.size())];
  Volume& volume = *site.volumes[world_->random().below(site.volumes.size())];
  const Duration span = draw_span(1, 2'000);
  world_->mark("trouble", static_cast<uint64_t>(trouble));
  switch (trouble) {
    case Trouble::kPartition:
      return cut(site, true);
    case Trouble::kPartitionOneWay:
      return cut(site, false);
    case Trouble::kReset:
      world_->network().reset_connections(site.node->index());
      return;
    case Trouble::kPowerLoss:
      return crash_target(site, CrashKind::kPowerLost);
    case Trouble::kKill:
      return crash_target(site, CrashKind::kProcessKilled);
    case Trouble::kRestart:
      return restart_target(site);
    case Trouble::kClientLoss:
      return lose_client();
    case Trouble::kNamespace:
      cluster_->detach(site, volume);
      world_->after(span, [this, &site, &volume] { cluster_->attach(site, volume); });
      return;
    case Trouble::kAna: {
      constexpr std::array<AnaState, 4> kStates = {AnaState::kInaccessible, AnaState::kChange, AnaState::kNonOptimized,
                                                   AnaState::kPersistentLoss};
      cluster_->set_ana(site, volume.ana_group, kStates[world_->random().below(kStates.size())]);
      const uint32_t group = volume.ana_group;
      world_->after(span, [this, &site, group] { cluster_->set_ana(site, group, AnaState::kOptimized); });
      return;
    }
    case Trouble::kResize:
      return cluster_->grow(site, volume);
    case Trouble::kNoRoom:
      volume.device->set_room(volume.device->allocated_bytes());
      world_->after(span, [&volume] { volume.device->set_room(~uint64_t{0}); });
      return;
  }
}

void Run::heal() {
  if (!go_on()) return;
  world_->mark("heal");
  world_->heal();
  wait([&] { return cluster_->all_serving(); }, kStartMax, "targets do not serve after the faults ended");
  if (!go_on()) return;
  for (const auto& site : cluster_->targets()) cluster_->restore(*site);
}

void Run::settle() {
  hostile_until_ = true;
  wait([&] { return hostile_done_; }, kQuietMax, "the hostile host did not end");
  wait([&] { return cluster_->is_quiet(); }, kQuietMax, "connections, controllers or disk operations were left over");
  if (go_on()) cluster_->settled();
}

void Run::read_back() {
  auto& targets = cluster_->targets();
  for (size_t i = 0; i < targets.size() && go_on(); ++i) {
    read_ = false;
    const size_t client = i % clients_.size();
    world_->spawn(cluster_->client_node(client), 0, clients_[client]->verify(targets[i].get(), &read_));
    wait([&] { return read_; }, kFinishMax, "reading back did not end");
  }
}

void Run::round() {
  world_->mark("round");
  begin_faults();
  start_clients();
  const std::vector<Trouble> troubles = troubles_of(plan_.chaos);
  for (uint32_t i = 0; i < plan_.chaos.actions && !troubles.empty() && go_on() && !clients_done(); ++i) {
    // Now and then long enough for keep-alives to run out.
    world_->run_for(world_->random().one_in(4) ? draw_span(2'000, 20'000) : draw_span(1, 2'000));
    if (go_on()) cause(troubles[world_->random().below(troubles.size())]);
  }
  if (plan_.chaos.actions > 0) {
    // Some of the load meets rates and settings only.
    if (go_on()) (void)world_->run_until([&] { return clients_done(); }, draw_span(1, 5'000));
    heal();
  }
  wait([&] { return clients_done(); }, kFinishMax, "hosts did not end their commands");
  settle();
  read_back();
  settle();
}

void Run::finish() {
  for (const auto& site : cluster_->targets()) {
    if (go_on() && !world_->stop(*site->node, kStopMax)) cluster_->fail("a target did not stop at the end");
  }
  if (go_on() && world_->network().connection_count() != 0) cluster_->fail("connections were left over at the end");
  if (world_->violations() != 0) cluster_->fail("a contract of the seams was broken");
  if (world_->unexplained_errors() != 0) cluster_->fail("an ERROR was logged that no fault explains");
}

Outcome Run::run() {
  wait([&] { return cluster_->all_serving(); }, kStartMax, "targets do not serve");
  for (uint32_t i = 0; i < plan_.rounds && go_on(); ++i) round();
  finish();
  return outcome_of(*world_, go_on());
}

void Run::explain(const RunOptions& options) const {
  if (options.message != nullptr) *options.message = cluster_->failure();
  if (options.report != nullptr) *options.report = world_->report() + "plan: " + to_string(plan_) + "\n";
}

}  // namespace

Outcome outcome_of(const SimWorld& world, bool passed) {
  Outcome outcome;
  outcome.passed = passed;
  outcome.hash = world.trace_hash();
  outcome.turns = world.turns();
  outcome.virtual_ms = static_cast<uint64_t>(world.now().ns / 1'000'000);
  for (size_t i = 0; i < outcome.probes.size(); ++i) outcome.probes[i] = world.probe_count(static_cast<Probe>(i));
  for (size_t i = 0; i < outcome.fault_points.size(); ++i) {
    outcome.fault_points[i] = world.fault_point_count(static_cast<FaultPoint>(i));
  }
  for (size_t i = 0; i < outcome.faults.size(); ++i) {
    outcome.faults[i] = world.injected_count(static_cast<sim::SimFault>(i));
  }
  return outcome;
}

Outcome run_seed(uint64_t seed, const RunOptions& options) {
  if (options.scenario == Scenario::kHost || options.scenario == Scenario::kHasty) return run_host_seed(seed, options);
  if (options.scenario == Scenario::kPool || options.scenario == Scenario::kLying) return run_pool_seed(seed, options);
  if (options.scenario == Scenario::kMirror) return run_mirror_seed(seed, options);
  if (options.scenario == Scenario::kEngines) return run_engines_seed(seed, options);
  if (options.scenario == Scenario::kControl) return run_control_seed(seed, options);
  Run run(seed, options);
  Outcome outcome = run.run();
  run.explain(options);
  return outcome;
}

}  // namespace fairlead::sim_test
