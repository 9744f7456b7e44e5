// Scenario `control`: a whole cluster with its real control plane: processes that share a store, engines, hosts. People
// ask for things, processes die, messages and calls are lost; then everything heals, and what was asked for must come
// about in bounded time: every volume whole, every replica accounted for, every acknowledged write there.
#include <algorithm>
#include <fmt/format.h>

#include "base/check.h"
#include "base/units.h"
#include "control_cluster.h"
#include "control_groups.h"
#include "scenario.h"

namespace fairlead::sim_test {
namespace {

using control::Json;
using control::to_json;
using sim::CrashKind;
using sim::Prng;
using sim::RunResult;
using sim::SimWorld;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Duration kBootMax = seconds(60);
constexpr Duration kMakeMax = seconds(60);
constexpr Duration kHealMax = minutes(5);
constexpr Duration kReadMax = minutes(1);
constexpr Duration kStopMax = minutes(2);
constexpr Duration kLook = milliseconds(50);
constexpr Duration kRestartMax = seconds(15);
constexpr size_t kAttemptsMax = 1000;
constexpr uint64_t kVolumeBytes = 2 * kMiB;
constexpr uint64_t kCountedAt = kVolumeBytes - ControlHost::kBlock;
constexpr uint64_t kPoolBytes = 64 * kMiB;
constexpr const char* kDisk = "/disk";

struct ControlPlan {
  size_t controls = 1;
  size_t engines = 3;
  size_t troubles = 8;
  Duration trouble_every{};
  std::vector<uint32_t> replicas;  // of each volume
  uint64_t volume_bytes = 0;       // of which hosts use kVolumeBytes
  bool is_rebalancing = false;
  bool is_swapping = false;  // a disk, at the end
  bool has_groups = false;   // of snapshots of the first two volumes
  bool has_clones = false;
};

ControlPlan draw_plan(uint64_t seed) {
  Prng random(sim::mix_hash(seed, 0xc0117));
  ControlPlan plan;
  plan.controls = random.between(1, 3);
  plan.engines = random.between(3, 5);
  plan.troubles = random.between(4, 14);
  plan.trouble_every = milliseconds(random.skewed(100, 6000));
  const size_t volumes = random.between(1, 3);
  for (size_t i = 0; i < volumes; ++i) {
    plan.replicas.push_back(static_cast<uint32_t>(random.between(1, std::min<size_t>(3, plan.engines))));
  }
  // Then some pools are promised to more than others.
  plan.is_rebalancing = random.coin();
  plan.is_swapping = random.coin();
  plan.has_groups = volumes > 1 && Prng(sim::mix_hash(seed, 0x6709)).coin();
  plan.has_clones = Prng(sim::mix_hash(seed, 0xc10e)).coin();
  plan.volume_bytes = plan.is_rebalancing ? random.between(8, 24) * kMiB : kVolumeBytes;
  return plan;
}

class ControlRun {
 public:
  ControlRun(uint64_t seed, const RunOptions& options)
      : plan_(draw_plan(seed)), world_(std::make_unique<SimWorld>(seed, settings_for(seed))) {
    world_->trace().set_listener(options.listener);
    cluster_.world = world_.get();
    cluster_.rpc.join(*world_);
    cluster_.store = std::make_unique<test::MemoryStoreState>(*world_);
    cluster_.settings.replace_after = seconds(8);
    cluster_.settings.garbage_after = seconds(8);
    cluster_.settings.rebalance_every = seconds(2);
    cluster_.engine.mirror.retry_max = seconds(2);
    cluster_.engine.mirror.checkpoint_interval = seconds(3);
    cluster_.engine.mirror.renew_delay = seconds(3);
    for (size_t i = 0; i < plan_.controls; ++i) {
      controls_.push_back(std::make_unique<ControlProcess>(cluster_, i));
    }
    for (size_t i = 0; i < plan_.engines; ++i) engines_.push_back(std::make_unique<EngineProcess>(cluster_, i));
  }

  Outcome run();
  void explain(const RunOptions& options) const {
    if (options.message != nullptr) *options.message = cluster_.failure;
    if (options.report != nullptr) {
      *options.report =
          world_->report() + fmt::format("plan: controls={} engines={} volumes={} troubles={} every_ms={}\n",
                                         plan_.controls, plan_.engines, plan_.replicas.size(), plan_.troubles,
                                         plan_.trouble_every / milliseconds(1));
    }
  }

 private:
  static sim::SimSettings settings_for(uint64_t seed) {
    sim::SimSettings settings = sim::SimSettings::calm();
    Prng random(sim::mix_hash(seed, 0x5e77));
    settings.order = random.coin() ? sim::Order::kRandom : sim::Order::kFifo;
    settings.clock_drift_ppm_max = static_cast<uint32_t>(random.below(200));
    return settings;
  }
  Prng& random() { return world_->random(); }
  bool go_on() const { return cluster_.failure.empty(); }
  template <typename Predicate>
  void wait(Predicate predicate, Duration limit, std::string_view what) {
    if (!go_on()) return;
    const RunResult result = world_->run_until([&] { return !go_on() || predicate(); }, limit);
    if (go_on() && result != RunResult::kDone) cluster_.fail(fmt::format("{}; {}", what, describe()));
  }
  void wait_until_settled(Duration limit, std::string_view what) {
    wait_until([this] { return is_settled(); }, limit, what);
  }
  // Looked at now and then: it asks for all that there is.
  template <typename Predicate>
  void wait_until(Predicate predicate, Duration limit, std::string_view what) {
    Duration waited{};
    while (go_on() && !predicate()) {
      if (waited >= limit) return cluster_.fail(fmt::format("{}; {}", what, describe()));
      world_->run_for(kLook);
      waited += kLook;
    }
  }
  control::Control* leader() const {
    for (const auto& each : controls_) {
      if (each->node().is_up() && each->leading() != nullptr) return each->leading();
    }
    return nullptr;
  }
  ControlProcess* leading_process() {
    for (const auto& each : controls_) {
      if (each->node().is_up() && each->leading() != nullptr) return each.get();
    }
    return nullptr;
  }

  // Asks the leader, on its node. `until`: what it is asked again for until it is done; else once, whatever comes of
  // it.
  enum class Patience : uint8_t { kNone, kUntilDone };
  void ask(std::string verb, std::string kind, std::string name, Json document, Patience patience);
  Task<void> ask_now(control::Control& control, std::string verb, std::string kind, std::string name, Json document,
                     bool* is_done, bool* is_good, std::string* error);

  void rebalance(const char* how) {
    ask("update", "settings", control::Settings::kName, Json{{"spec", {{"rebalance", how}}}}, Patience::kUntilDone);
  }
  sim::SimDevice& disk_of(EngineProcess& engine) { return *world_->find_disk(engine.node(), kDisk); }
  sim::DiskContent blank() {
    const sim::DiskContent any = disk_of(*engines_.front()).content();
    return sim::DiskContent(any.sector_bytes(), sim::Cache::kVolatile);
  }
  std::set<Uuid> wanted_replicas() const {
    std::set<Uuid> wanted;
    for (const auto& [name, volume] : leader()->cluster().volumes()) {
      for (const control::PlacedReplica& replica : volume.value.decision.replicas) wanted.insert(replica.id);
    }
    return wanted;
  }
  void make_pool(const EngineProcess& engine) {
    ask("create", "pools", "",
        Json{{"name", "pool-" + engine.name()},
             {"spec", {{"node", engine.name()}, {"disks", {kDisk}}, {"file_size_bytes", kPoolBytes}}}},
        Patience::kUntilDone);
  }
  void begin();
  void cause();
  void ask_for_something();
  void ask_for_a_group();
  void ask_for_a_clone();
  Content content_of(EngineProcess& engine, Uuid id, uint64_t bytes);
  void verify_groups();
  void clone_while_one_is_away();
  void verify_clones();
  void heal();
  void lose_the_store();
  void lose_an_engine();
  bool are_served_without(const std::string& pool) const;
  void verify();
  void swap_a_disk();
  void await_loss(const std::string& pool);
  bool has_failed(const std::string& pool) const;
  void replace_pool(EngineProcess& engine);
  bool are_volumes_settled() const;
  bool is_settled() const;
  std::string describe() const;
  std::string volume_name(size_t i) const { return fmt::format("v{}", i); }

  const ControlPlan plan_;
  ControlCluster cluster_;
  std::vector<std::unique_ptr<ControlProcess>> controls_;
  std::vector<std::unique_ptr<EngineProcess>> engines_;
  std::vector<std::unique_ptr<ControlHost>> hosts_;
  std::unique_ptr<ControlCounter> counter_;
  size_t snapshots_ = 0;
  size_t groups_ = 0;
  size_t extras_ = 0;
  size_t clones_ = 0;
  struct OldDisk {
    sim::DiskContent content;
    uint64_t progress = 0;  // of its pool
  };
  std::vector<OldDisk> old_disks_;  // of each engine, as they were before any trouble
  // Of tasks that outlive those who wait for them: in the order of their making.
  struct Asked {
    bool is_done = false;
    bool is_good = false;
    std::string error;
  };
  std::vector<std::unique_ptr<Asked>> asked_;
  std::unique_ptr<SimWorld> world_;
};

Task<void> ControlRun::ask_now(control::Control& control, std::string verb, std::string kind, std::string name,
                               Json document, bool* is_done, bool* is_good, std::string* error) {
  if (verb == "create") {
    const auto made = co_await control.api().create(kind, std::move(document));
    *is_good = made.has_value();
    if (!made) *error = to_string(made.error());
  } else if (verb == "update") {
    const auto made = co_await control.api().update(kind, name, std::move(document), std::nullopt);
    *is_good = made.has_value();
    if (!made) *error = to_string(made.error());
  } else if (verb == "recover") {
    const auto found = co_await control.api().recover();
    *is_good = found.has_value();
    if (!found) *error = to_string(found.error());
  } else {
    const auto gone = co_await control.api().remove(kind, name, std::nullopt);
    *is_good = gone.has_value();
    if (!gone) *error = to_string(gone.error());
  }
  *is_done = true;
}

void ControlRun::ask(std::string verb, std::string kind, std::string name, Json document, Patience patience) {
  size_t attempts = 0;
  while (go_on()) {
    wait([&] { return leader() != nullptr; }, kBootMax, "nobody leads");
    if (!go_on()) return;
    ControlProcess& process = *leading_process();
    asked_.push_back(std::make_unique<Asked>());
    Asked& asked = *asked_.back();
    world_->spawn(
        process.node(), 0,
        ask_now(*process.leading(), verb, kind, name, document, &asked.is_done, &asked.is_good, &asked.error));
    (void)world_->run_until([&] { return asked.is_done; }, seconds(20));
    if (patience == Patience::kNone || asked.is_good) return;
    world_->run_for(milliseconds(100));
    if (++attempts > kAttemptsMax) return cluster_.fail(fmt::format("{} {} {}: {}", verb, kind, name, asked.error));
  }
}

void ControlRun::begin() {
  for (const auto& each : controls_) each->run();
  for (const auto& each : engines_) each->run();
  wait([&] { return leader() != nullptr && leader()->cluster().nodes().size() == engines_.size(); }, kBootMax,
       "engines do not join");
  for (const auto& engine : engines_) make_pool(*engine);
  for (size_t i = 0; i < plan_.replicas.size(); ++i) {
    ask("create", "volumes", "",
        Json{{"name", volume_name(i)}, {"spec", {{"size_bytes", plan_.volume_bytes}, {"replicas", plan_.replicas[i]}}}},
        Patience::kUntilDone);
  }
  if (plan_.is_rebalancing) rebalance("on");
  wait_until_settled(kMakeMax, "what was asked for first is not there");
  if (!go_on()) return;
  for (const auto& engine : engines_) old_disks_.push_back({disk_of(*engine).content(), engine->progress()});
  for (size_t i = 0; i < plan_.replicas.size(); ++i) {
    const Uuid id = leader()->cluster().volumes().at(volume_name(i)).value.metadata.id;
    const uint64_t bytes = plan_.has_groups ? kCountedAt : kVolumeBytes;
    hosts_.push_back(std::make_unique<ControlHost>(cluster_, i, id, bytes, sim::mix_hash(world_->seed(), i)));
    hosts_.back()->run();
  }
  if (!plan_.has_groups) return;
  const auto id_of = [&](size_t i) { return leader()->cluster().volumes().at(volume_name(i)).value.metadata.id; };
  counter_ = std::make_unique<ControlCounter>(cluster_, std::array{id_of(0), id_of(1)}, kCountedAt);
  counter_->run();
}

// ---- Troubles

void ControlRun::ask_for_something() {
  const std::string volume = volume_name(random().below(plan_.replicas.size()));
  const std::string node = engines_[random().below(engines_.size())]->name();
  switch (random().below(9)) {
    case 0:
      return ask("update", "volumes", volume, Json{{"spec", {{"replicas", random().between(1, 3)}}}}, Patience::kNone);
    case 1:
      return ask("update", "volumes", volume, Json{{"spec", {{"preferred_node", node}}}}, Patience::kNone);
    case 2:
      return ask("update", "nodes", node, Json{{"spec", {{"draining", random().coin()}}}}, Patience::kNone);
    case 3:
      return ask("update", "nodes", node, Json{{"spec", {{"cordoned", random().coin()}}}}, Patience::kNone);
    case 4:
      return ask("update", "volumes", volume,
                 Json{{"spec", {{"size_bytes", plan_.volume_bytes + random().between(1, 4) * kMiB}}}}, Patience::kNone);
    case 5:
      return ask("create", "snapshots", "",
                 Json{{"name", fmt::format("s{}", ++snapshots_)}, {"spec", {{"volume", volume}}}}, Patience::kNone);
    case 6:
      return ask("update", "pools", "pool-" + node, Json{{"spec", {{"evacuating", random().coin()}}}}, Patience::kNone);
    case 7:
      if (snapshots_ == 0) return;
      return ask("remove", "snapshots", fmt::format("s{}", random().between(1, snapshots_)), {}, Patience::kNone);
    default:
      if (extras_ > 0 && random().coin()) {
        return ask("remove", "volumes", fmt::format("x{}", random().between(1, extras_)), {}, Patience::kNone);
      }
      return ask("create", "volumes", "",
                 Json{{"name", fmt::format("x{}", ++extras_)},
                      {"spec", {{"size_bytes", kVolumeBytes}, {"replicas", random().between(1, 3)}}}},
                 Patience::kNone);
  }
}

void ControlRun::ask_for_a_group() {
  if (groups_ > 0 && random().below(3) == 0) {
    return ask("remove", "snapshot-groups", fmt::format("g{}", random().between(1, groups_)), {}, Patience::kNone);
  }
  ask("create", "snapshot-groups", "",
      Json{{"name", fmt::format("g{}", ++groups_)}, {"spec", {{"volumes", {volume_name(0), volume_name(1)}}}}},
      Patience::kNone);
}

// Of a snapshot that may be there, or be taken meanwhile.
void ControlRun::ask_for_a_clone() {
  if (snapshots_ == 0) return;
  ask("create", "volumes", "",
      Json{{"name", fmt::format("c{}", ++clones_)},
           {"spec",
            {{"source", fmt::format("s{}", random().between(1, snapshots_))}, {"replicas", random().between(1, 3)}}}},
      Patience::kNone);
}

void ControlRun::cause() {
  const auto restart_later = [this](sim::SimNode& node) {
    world_->after(milliseconds(random().skewed(1, kRestartMax / milliseconds(1))), [this, &node] {
      if (!node.is_up()) world_->restart(node);
    });
  };
  sim::SimNode& engine = engines_[random().below(engines_.size())]->node();
  sim::SimNode& control = controls_[random().below(controls_.size())]->node();
  switch (random().below(12)) {
    case 0:
    case 1:
      if (!engine.is_up()) return;
      world_->mark("kill", engine.index());
      world_->crash(engine, CrashKind::kProcessKilled);
      return restart_later(engine);
    case 2:
      if (!engine.is_up()) return;
      world_->mark("stop", engine.index());
      if (!world_->stop(engine, kStopMax)) return cluster_.fail("an engine does not stop");
      return restart_later(engine);
    case 3:
      if (!control.is_up()) return;
      world_->mark("kill_control", control.index());
      world_->crash(control, CrashKind::kProcessKilled);
      return restart_later(control);
    case 4:
      // A leader that is paused, and believes for a while that it leads.
      if (!control.is_up()) return;
      return world_->stall(control, 0, milliseconds(random().skewed(100, 8'000)));
    case 5:
      if (!engine.is_up()) return;
      return world_->stall(engine, 0, milliseconds(random().skewed(100, 4'000)));
    case 6:
      cluster_.store->depose();
      return;
    case 7:
      cluster_.store->fail_commits(random().between(1, 3));
      return;
    case 8: {
      const auto cut = random().coin() ? test::StoreCut::kRequests : test::StoreCut::kReplies;
      cluster_.store->set_cut(cut);
      world_->after(milliseconds(random().skewed(50, 6'000)),
                    [this] { cluster_.store->set_cut(test::StoreCut::kNothing); });
      return;
    }
    case 9:
      cluster_.rpc.set({.lost_requests = static_cast<uint32_t>(random().below(30)),
                        .lost_replies = static_cast<uint32_t>(random().below(30))});
      return;
    case 10: {
      const uint32_t one = random().coin() ? engine.index() : control.index();
      const uint32_t other = engines_[random().below(engines_.size())]->node().index();
      if (one == other) return;
      world_->network().partition(one, other);
      world_->after(milliseconds(random().skewed(100, 10'000)),
                    [this, one, other] { world_->network().heal(one, other); });
      return;
    }
    default:
      return ask_for_something();
  }
}

// ---- The end

bool ControlRun::is_settled() const {
  if (!are_volumes_settled()) return false;
  const auto pools = leader()->api().list("pools", {});
  return pools && pools->size() == engines_.size() &&
         std::ranges::all_of(*pools, [](const Json& pool) { return pool["status"]["state"] == "online"; });
}

bool ControlRun::are_volumes_settled() const {
  control::Control* const control = leader();
  if (control == nullptr) return false;
  control::Api& api = control->api();
  const auto volumes = api.list("volumes", {});
  const auto snapshots = api.list("snapshots", {});
  if (!volumes || !snapshots) return false;
  for (const Json& snapshot : *snapshots) {
    if (snapshot["status"]["state"] != "ready") return false;
  }
  for (const Json& volume : *volumes) {
    if (volume["status"]["state"] != "online") return false;
    for (const Json& condition : volume["status"]["conditions"]) {
      if (!condition["met"].get<bool>()) return false;
    }
    if (volume["status"]["replicas"].size() != volume["spec"]["replicas"].get<size_t>()) return false;
    if (volume["status"].value("size_bytes", Json()) != volume["spec"]["size_bytes"]) return false;
  }
  return control->cluster().garbage().empty();
}

std::string ControlRun::describe() const {
  control::Control* const control = leader();
  if (control == nullptr) return "nobody leads";
  control::Api& api = control->api();
  std::string text;
  for (const char* const kind : {"nodes", "pools", "volumes", "snapshots"}) {
    const auto all = api.list(kind, {});
    if (!all) continue;
    for (const Json& each : *all)
      text += fmt::format("\n  {} {}", each["name"].get<std::string>(), each["status"].dump());
  }
  return text + fmt::format("\n  garbage {}", control->cluster().garbage().size());
}

void ControlRun::heal() {
  if (!go_on()) return;
  world_->mark("heal");
  world_->heal();
  cluster_.rpc.set({});
  cluster_.store->set_cut(test::StoreCut::kNothing);
  cluster_.store->fail_commits(0);
  for (const auto& each : controls_) {
    if (!each->node().is_up()) world_->restart(each->node());
  }
  for (const auto& each : engines_) {
    if (!each->node().is_up()) world_->restart(each->node());
  }
  for (const auto& engine : engines_) {
    ask("update", "nodes", engine->name(), Json{{"spec", {{"draining", false}, {"cordoned", false}}}},
        Patience::kUntilDone);
    ask("update", "pools", "pool-" + engine->name(), Json{{"spec", {{"evacuating", false}}}}, Patience::kUntilDone);
  }
  wait_until_settled(kHealMax, "what was asked for does not come about");
  if (!plan_.is_rebalancing || !go_on()) return;
  // What begins by itself ends too.
  world_->run_for(seconds(20));
  rebalance("off");
  wait_until_settled(kHealMax, "moves do not come to an end");
}

// ---- Other disks

// The others go on without its replicas: until then it would be the state of the art that came back old.
void ControlRun::await_loss(const std::string& pool) {
  wait(
      [&] {
        const control::Control* const control = leader();
        if (control == nullptr) return false;
        for (const auto& [name, volume] : control->cluster().volumes()) {
          const auto& replicas = volume.value.decision.replicas;
          if (std::ranges::find(replicas, pool, &control::PlacedReplica::pool) == replicas.end()) continue;
          const std::vector<control::Condition> conditions = control->conditions(name);
          const auto redundant = std::ranges::find(conditions, "Redundant", &control::Condition::type);
          if (redundant == conditions.end() || redundant->is_met) return false;
        }
        return true;
      },
      kHealMax, "a replica that is away is not missed");
}

// It says that its disk is another.
bool ControlRun::has_failed(const std::string& pool) const {
  if (leader() == nullptr) return false;
  const auto found = leader()->api().get("pools", pool);
  return found && (*found)["status"]["state"] == "failed" && found->at("status").contains("why");
}

// As a person does it who has put a blank disk there.
void ControlRun::replace_pool(EngineProcess& engine) {
  const std::string pool = "pool-" + engine.name();
  if (disk_of(engine).content().allocated_bytes() != 0) {
    world_->crash(engine.node(), CrashKind::kProcessKilled);
    disk_of(engine).replace(blank());
    world_->restart(engine.node());
    wait([&] { return has_failed(pool); }, kHealMax, "a blank disk is not missed");
  }
  ask("remove", "pools", pool, {}, Patience::kUntilDone);
  wait([&] { return leader() != nullptr && leader()->cluster().find<control::Pool>(pool) == nullptr; }, kHealMax,
       "a pool whose disk is gone cannot be deleted");
  make_pool(engine);
}

// A node comes back with a blank disk, with that of another, or with what its own was long ago.
void ControlRun::swap_a_disk() {
  // What control was told of the others may be a moment old: none of them was lost just before.
  world_->run_for(seconds(3));
  wait_until_settled(kHealMax, "it does not stay settled");
  if (!go_on()) return;
  EngineProcess& engine = *engines_[random().below(engines_.size())];
  const std::string pool = "pool-" + engine.name();
  for (const auto& [name, volume] : leader()->cluster().volumes()) {
    const auto& replicas = volume.value.decision.replicas;
    if (std::ranges::find(replicas, pool, &control::PlacedReplica::pool) == replicas.end()) continue;
    // Nobody else has it, or has room for another one of it.
    if (replicas.size() < 2 || replicas.size() == engines_.size()) return;
  }
  const size_t index = static_cast<size_t>(
      std::ranges::find_if(engines_, [&](const auto& each) { return each.get() == &engine; }) - engines_.begin());
  const uint64_t kind = random().below(3);
  // What was written since the last note is not missed.
  if (kind == 2 && engine.noted() <= old_disks_[index].progress) return;
  world_->mark("swap_disk", kind);
  world_->allow_error("engine.pool_not_imported");
  world_->crash(engine.node(), CrashKind::kProcessKilled);
  await_loss(pool);
  if (!go_on()) return;
  const sim::DiskContent others = disk_of(*engines_[(index + 1) % engines_.size()]).content();
  disk_of(engine).replace(kind == 0 ? blank() : kind == 1 ? others : old_disks_[index].content);
  world_->restart(engine.node());
  wait([&] { return has_failed(pool); }, kHealMax, "it is not said that a disk is another");
  wait_until([&] { return are_volumes_settled(); }, kHealMax, "what a lost disk had is not made up for");
  if (go_on()) replace_pool(engine);
  wait_until_settled(kHealMax, "a node with another disk does not come into use");
}

// All that it knew is made anew from what engines hold.
void ControlRun::lose_the_store() {
  std::map<std::string, std::pair<Uuid, Json>> before;
  for (const auto& [name, volume] : leader()->cluster().volumes()) {
    before[name] = {volume.value.metadata.id, to_json(volume.value.spec)};
  }
  world_->mark("lose_store");
  for (const auto& each : controls_) world_->crash(each->node(), CrashKind::kProcessKilled);
  cluster_.store->rebuild(2);
  for (const auto& each : controls_) world_->restart(each->node());
  wait(
      [&] {
        const control::Control* const control = leader();
        return control != nullptr && control->cluster().nodes().size() == engines_.size() &&
               control->cluster().pools().size() == engines_.size();
      },
      kBootMax, "engines do not join a new store");
  ask("recover", "", "", {}, Patience::kUntilDone);
  wait_until_settled(kHealMax, "what was recovered does not come about");
  if (!go_on()) return;
  const auto& after = leader()->cluster().volumes();
  for (const auto& [name, volume] : before) {
    const auto found = after.find(name);
    if (found == after.end() || found->second.value.metadata.id != volume.first) {
      return cluster_.fail(fmt::format("volume {} was not recovered", name));
    }
    if (to_json(found->second.value.spec) != volume.second) {
      return cluster_.fail(
          fmt::format("volume {} has another spec: {}", name, to_json(found->second.value.spec).dump()));
    }
  }
  for (const auto& host : hosts_) {
    bool is_read = false;
    if (!go_on()) return;
    world_->spawn(host->node(), 0, host->read_all(&is_read));
    wait([&] { return is_read; }, kReadMax, "reading back what was recovered");
  }
  lose_an_engine();
}

// Whole as they are, volumes of two replicas too go on without one of them: the new witness knows of them.
void ControlRun::lose_an_engine() {
  if (!go_on()) return;
  world_->run_for(kRestartMax);  // troubles of before restart engines until then
  EngineProcess& engine = *engines_[random().below(engines_.size())];
  world_->mark("lose_engine", engine.node().index());
  world_->crash(engine.node(), CrashKind::kProcessKilled);
  const std::string pool = "pool-" + engine.name();
  wait_until([&] { return leader() != nullptr && !leader()->cluster().is_ready(engine.name()); }, kHealMax,
             "an engine that died is not missed");
  wait_until([&] { return are_served_without(pool); }, kHealMax, "a volume does not go on without one engine");
  if (!go_on()) return;
  world_->restart(engine.node());
  wait_until_settled(kHealMax, "an engine that is back does not come into use");
}

// Those that have another replica.
bool ControlRun::are_served_without(const std::string& pool) const {
  if (leader() == nullptr) return false;
  for (const auto& [name, kept] : leader()->cluster().volumes()) {
    const auto& replicas = kept.value.decision.replicas;
    const bool has_other = std::ranges::any_of(replicas, [&](const auto& each) { return each.pool != pool; });
    const auto document = leader()->api().get("volumes", name);
    if (!document) return false;
    for (const Json& condition : (*document)["status"]["conditions"]) {
      if (has_other && condition["type"] == "Available" && !condition["met"].get<bool>()) return false;
    }
  }
  return true;
}

Content ControlRun::content_of(EngineProcess& engine, Uuid id, uint64_t bytes) {
  Content content;
  bool is_done = false;
  world_->spawn(engine.node(), 0, read_object(engine, id, bytes, &content, &is_done));
  wait([&] { return is_done; }, kReadMax, "reading what an engine has");
  return content;
}

// Each engine that has a snapshot of a group has the same, and they are of one moment.
void ControlRun::verify_groups() {
  if (!plan_.has_groups || !go_on()) return;
  ask("create", "snapshot-groups", "",
      Json{{"name", "last"}, {"spec", {{"volumes", {volume_name(0), volume_name(1)}}}}}, Patience::kUntilDone);
  wait_until_settled(kHealMax, "a group of snapshots is not taken");
  std::map<std::string, std::array<std::optional<uint64_t>, 2>> groups;
  if (!go_on()) return;
  const control::KeptMap<control::Snapshot> snapshots = leader()->cluster().snapshots();
  for (const auto& [name, kept] : snapshots) {
    const control::Snapshot& snapshot = kept.value;
    if (snapshot.spec.group.empty()) continue;
    std::optional<uint64_t>& found = groups[snapshot.spec.group][snapshot.spec.volume == volume_name(0) ? 0 : 1];
    for (const auto& engine : engines_) {
      const Content content = content_of(*engine, snapshot.metadata.id, kVolumeBytes);
      if (!content) continue;
      const uint64_t count = count_in(*content, kCountedAt);
      if (found && *found != count) cluster_.fail(fmt::format("snapshot {} differs between engines", name));
      found = count;
    }
  }
  for (const auto& [name, counts] : groups) {
    if (!counts[0] || !counts[1]) return cluster_.fail(fmt::format("no engine has the snapshots of group {}", name));
    world_->mark("group", *counts[0]);
    const bool is_one_moment = *counts[0] == *counts[1] || *counts[0] == *counts[1] + 1;
    if (!is_one_moment) cluster_.fail(fmt::format("group {} has {} and {}", name, *counts[0], *counts[1]));
  }
  if (counter_->count() == 0) cluster_.fail("nobody counted");
}

// A clone begins where its snapshot can be reached; the others get theirs by copying.
void ControlRun::clone_while_one_is_away() {
  if (!plan_.has_clones || !go_on()) return;
  ask("create", "snapshots", "",
      Json{{"name", fmt::format("s{}", ++snapshots_)}, {"spec", {{"volume", volume_name(0)}}}}, Patience::kUntilDone);
  wait_until_settled(kHealMax, "a snapshot is not taken");
  if (!go_on()) return;
  EngineProcess& engine = *engines_[random().below(engines_.size())];
  world_->mark("clone_without", engine.node().index());
  world_->crash(engine.node(), CrashKind::kProcessKilled);
  ask("create", "volumes", "",
      Json{{"name", fmt::format("c{}", ++clones_)},
           {"spec", {{"source", fmt::format("s{}", snapshots_)}, {"replicas", 3U}}}},
      Patience::kUntilDone);
  world_->run_for(milliseconds(random().skewed(1, 12'000)));
  if (!engine.node().is_up()) world_->restart(engine.node());
  wait_until_settled(kHealMax, "a clone is not made");
}

// Nobody has written to them: on each engine they are as their snapshots.
void ControlRun::verify_clones() {
  if (!plan_.has_clones || !go_on()) return;
  const control::KeptMap<control::Volume> volumes = leader()->cluster().volumes();
  const control::KeptMap<control::Snapshot> snapshots = leader()->cluster().snapshots();
  for (const auto& [name, kept] : volumes) {
    const auto source = snapshots.find(kept.value.spec.source);
    if (source == snapshots.end()) continue;
    const uint64_t bytes = source->second.value.size_bytes;
    Content expected;
    for (const auto& engine : engines_) {
      const Content here = content_of(*engine, source->second.value.metadata.id, bytes);
      if (expected && here && *here != *expected)
        cluster_.fail("snapshot " + source->first + " differs between engines");
      if (here) expected = here;
    }
    if (!expected) return cluster_.fail(fmt::format("no engine has snapshot {}", source->first));
    for (const control::PlacedReplica& replica : kept.value.decision.replicas) {
      const auto engine =
          std::ranges::find(engines_, replica.pool, [](const auto& each) { return "pool-" + each->name(); });
      const Content here = content_of(**engine, replica.id, bytes);
      if (!here || *here != *expected) {
        cluster_.fail(fmt::format("clone {} is not as its snapshot in {}", name, replica.pool));
      }
    }
    const auto is_copied = [](const control::PlacedReplica& replica) { return replica.origin.is_nil(); };
    world_->mark("clone", static_cast<uint64_t>(std::ranges::count_if(kept.value.decision.replicas, is_copied)));
  }
}

void ControlRun::verify() {
  verify_groups();
  clone_while_one_is_away();
  verify_clones();
  if (!go_on()) return;
  wait([&] { return std::ranges::all_of(hosts_, [](const auto& host) { return host->is_connected(); }); }, kReadMax,
       "a host has no path");
  cluster_.is_over = true;
  wait([&] { return std::ranges::all_of(hosts_, [](const auto& host) { return host->is_idle(); }); }, kReadMax,
       "requests of hosts do not end");
  for (const auto& host : hosts_) {
    bool is_read = false;
    if (!go_on()) return;
    world_->spawn(host->node(), 0, host->read_all(&is_read));
    wait([&] { return is_read; }, kReadMax, "reading back");
  }
  if (!go_on()) return;
  wait_until_settled(kHealMax, "it does not stay as it was asked for");
  if (!go_on()) return;
  if (random().coin()) lose_the_store();
  if (!go_on()) return;
  std::set<Uuid> wanted = wanted_replicas();
  for (const auto& engine : engines_) {
    for (const Uuid& id : engine->replicas()) {
      if (wanted.erase(id) == 0)
        cluster_.fail(fmt::format("engine {} has a replica that nobody knows", engine->name()));
    }
  }
  if (!wanted.empty()) cluster_.fail(fmt::format("{} replicas are nowhere", wanted.size()));
  for (const auto& host : hosts_) {
    if (go_on() && !world_->stop(host->node(), kStopMax)) cluster_.fail("a host did not stop");
  }
  if (counter_ != nullptr && go_on() && !world_->stop(counter_->node(), kStopMax)) cluster_.fail("a host did not stop");
  for (const auto& engine : engines_) {
    if (go_on() && !world_->stop(engine->node(), kStopMax)) cluster_.fail("an engine did not stop");
  }
  for (const auto& control : controls_) {
    if (go_on() && !world_->stop(control->node(), kStopMax)) cluster_.fail("a control process did not stop");
  }
  if (go_on() && world_->violations() != 0) cluster_.fail("a contract of the seams was broken");
  if (go_on() && world_->unexplained_errors() != 0) cluster_.fail("an ERROR was logged that no fault explains");
}

Outcome ControlRun::run() {
  begin();
  for (size_t i = 0; i < plan_.troubles && go_on(); ++i) {
    world_->run_for(Duration(static_cast<int64_t>(random().below(static_cast<uint64_t>(plan_.trouble_every.count())))));
    if (go_on()) cause();
    if (go_on() && plan_.has_groups && random().coin()) ask_for_a_group();
    if (go_on() && plan_.has_clones && random().below(4) == 0) ask_for_a_clone();
  }
  heal();
  if (plan_.is_swapping) swap_a_disk();
  verify();
  Outcome outcome = outcome_of(*world_, go_on());
  outcome.engines.acknowledged = cluster_.acknowledged;
  outcome.engines.reads = cluster_.reads;
  return outcome;
}

}  // namespace

Outcome run_control_seed(uint64_t seed, const RunOptions& options) {
  ControlRun run(seed, options);
  const Outcome outcome = run.run();
  run.explain(options);
  return outcome;
}

}  // namespace fairlead::sim_test
