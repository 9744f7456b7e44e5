#include "control/volume_plan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "base/units.h"
#include "control/json.h"

namespace fairlead::control {
namespace {

using ::testing::HasSubstr;
using Kind = Action::Kind;
using Stage = PlacedReplica::Stage;
using std::chrono::minutes;
using std::chrono::seconds;

class TestRandom final : public Random {
 public:
  explicit TestRandom(uint64_t seed) : engine_(seed) {}
  uint64_t next() override { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

// A naive model of engines that do at once what they are told. Which replicas have every write is known to it, as it is
// to no engine.
class Model {
 public:
  struct Node {
    bool is_up = true;
    bool is_cordoned = false;
    bool is_draining = false;
    bool is_evacuating = false;  // its pool
    Labels labels = {};
    uint64_t run = 1;
    Duration lost_for{};
    std::map<Uuid, api::ReplicaState> replicas;  // survive
    std::optional<api::VolumeState> volume;      // does not
  };

  explicit Model(size_t nodes, uint32_t replicas, uint64_t seed) : random(seed) {
    for (size_t i = 0; i < nodes; ++i) this->nodes[std::string(1, static_cast<char>('a' + i))];
    volume.metadata.name = "db";
    volume.metadata.id = uuid_from_random(1, 1);
    volume.spec.size_bytes = kGiB;
    volume.spec.replicas = replicas;
    settings.replace_after = minutes(10);
  }

  VolumeFacts facts() {
    VolumeFacts now{.volume = volume, .settings = settings, .now_ms = clock_ms += 1000};
    now.missing_for = missing_for;
    now.first_term = first_term;
    if (snapshot) {
      now.origin = &origin;
      now.origin_snapshot = &*snapshot;
      for (const auto& [id, replica] : origin_replicas) now.replicas[id] = &replica;
    }
    for (auto& [name, node] : nodes) {
      NodeFacts of;
      of.is_ready = node.is_up;
      of.is_lost = !node.is_up;
      of.is_draining = node.is_draining;
      of.takes_more = node.is_up && !node.is_draining && !node.is_cordoned;
      of.lost_for = node.lost_for;
      of.run = uuid_from_random(node.run, 7);
      of.data_address = "10.0.0." + name + ":4420";
      if (node.is_up && node.volume) of.volume = &*node.volume;
      now.nodes.emplace(name, of);
      now.node_of_pool["pool-" + name] = name;
      PoolCandidate pool;
      pool.name = "pool-" + name;
      pool.node = name;
      pool.node_labels = node.labels;
      pool.capacity_bytes = pool.free_bytes = 100 * kGiB;
      if (!of.takes_more) pool.excluded = fmt::format("node {} takes nothing", name);
      if (node.is_evacuating) pool.excluded = fmt::format("pool {} is evacuated", pool.name);
      now.pools.push_back(pool);
      if (node.is_draining || node.is_evacuating) now.pools_to_leave.insert(pool.name);
      if (!node.is_up) continue;
      for (const auto& [id, replica] : node.replicas) now.replicas[id] = &replica;
    }
    return now;
  }

  // Carries out what it says: the decision, or these of its actions.
  template <typename Choose>
  void carry_out(const VolumePlan& plan, Choose choose) {
    if (plan.is_gone) {
      is_gone = true;
      return;
    }
    if (plan.decision) {
      volume.decision = *plan.decision;
      if (plan.has_formed) {
        for (const PlacedReplica& replica : volume.decision.replicas) members.insert(replica.id);
      }
      return;
    }
    std::set<std::string> stuck;
    for (const Action& action : plan.actions) {
      if (stuck.contains(action.node) || !nodes.at(action.node).is_up || !choose()) {
        stuck.insert(action.node);
      } else {
        carry_out(action);
      }
    }
  }

  void carry_out(const Action& action) {
    Node& node = nodes.at(action.node);
    switch (action.kind) {
      case Kind::kCreateReplica: {
        api::ReplicaState state;
        state.set_id(to_string(action.id));
        state.set_volume(to_string(volume.metadata.id));
        node.replicas[action.id] = state;
        break;
      }
      case Kind::kDeleteReplica:
        EXPECT_TRUE(volume.metadata.deleting_since_ms != 0 || !members.contains(action.id)) << "a member is deleted";
        node.replicas.erase(action.id);
        break;
      case Kind::kOpen: {
        const bool is_new = !node.volume;
        const auto is_here = [&](const api::ReplicaPlace& place) {
          return !place.address().empty() || node.replicas.contains(parse_uuid(place.replica()).value());
        };
        if (!std::ranges::all_of(action.places, is_here)) break;  // the engine refuses
        if (is_new) node.volume.emplace();
        node.volume->set_id(to_string(volume.metadata.id));
        node.volume->clear_places();
        for (const api::ReplicaPlace& place : action.places) *node.volume->add_places() = place;
        if (is_new) node.volume->set_size_bytes(volume.spec.size_bytes);
        node.volume->set_resync_share(volume.spec.resync_share);
        break;
      }
      case Kind::kClose:
        node.volume.reset();
        break;
      case Kind::kServe:
        for (const auto& [name, other] : nodes) {
          EXPECT_FALSE(name != action.node && other.is_up && other.volume &&
                       other.volume->role() == api::VolumeState::SERVING)
              << "two are asked to serve";
        }
        EXPECT_TRUE(node.volume.has_value());
        if (!node.volume) break;
        for (auto& [name, other] : nodes) {
          if (other.volume && other.volume->role() == api::VolumeState::SERVING) {
            other.volume->set_role(api::VolumeState::SUPERSEDED);
          }
        }
        node.volume->set_role(api::VolumeState::SUSPENDED);
        node.volume->mutable_term()->set_number(++term);
        break;
      case Kind::kStandBy:
        if (node.volume) node.volume->set_role(api::VolumeState::STANDING_BY);
        break;
      case Kind::kGrow:
        EXPECT_TRUE(node.volume.has_value());
        if (node.volume) node.volume->set_size_bytes(volume.spec.size_bytes);
        break;
      case Kind::kRenewTerm:
        if (node.volume) node.volume->mutable_term()->set_number(term = std::max(term, first_term) + 1);
        break;
      case Kind::kAnnotate:
      case Kind::kTakeSnapshot:
      case Kind::kDeleteSnapshot:
        break;
    }
  }

  // What targets do by themselves: those that reach a replica which has everything serve, and bring the others up to
  // date, `is_copying`; those that they do not reach fall behind.
  void run_targets(bool is_copying) {
    for (auto& [name, node] : nodes) {
      if (!node.is_up || !node.volume) continue;
      const auto role = node.volume->role();
      if (role != api::VolumeState::SUSPENDED && role != api::VolumeState::SERVING) continue;
      std::set<Uuid> reached;
      for (const api::ReplicaPlace& place : node.volume->places()) {
        const Uuid id = parse_uuid(place.replica()).value();
        const auto at = std::ranges::find_if(nodes, [&](auto& each) { return each.second.replicas.contains(id); });
        if (at != nodes.end() && at->second.is_up) reached.insert(id);
      }
      const bool has_source = std::ranges::any_of(reached, [&](const Uuid& id) { return members.contains(id); });
      // A majority of those that the last record names; the witness, which is one of an even number, always answers.
      const size_t voters = members.size() + (members.size() % 2 == 0 ? 1 : 0);
      const auto votes =
          static_cast<size_t>(std::ranges::count_if(members, [&](const Uuid& id) { return reached.contains(id); })) +
          (voters - members.size());
      const bool can_serve = has_source && 2 * votes > voters;
      node.volume->set_role(can_serve ? api::VolumeState::SERVING : api::VolumeState::SUSPENDED);
      if (!can_serve) continue;
      std::erase_if(members, [&](const Uuid& id) { return !reached.contains(id); });
      if (is_copying) members.insert(reached.begin(), reached.end());
      api::Record record;
      for (const Uuid& id : members) record.add_members(to_string(id));
      *record.mutable_prior() = record.members();
      *node.volume->mutable_record() = record;
    }
  }

  void go_down(const std::string& name) {
    Node& node = nodes.at(name);
    node.is_up = false;
    node.volume.reset();
    node.lost_for = seconds(1);
    ++node.run;
  }

  // It is a clone, of a volume with a replica on each of these nodes, whose snapshot was taken just now; and whether
  // the replica's engine has told of it.
  void begin_as_clone(const std::map<std::string, bool>& has_snapshot) {
    snapshot.emplace();
    snapshot->metadata.id = uuid_from_random(2, 1);
    snapshot->is_taken = true;
    snapshot->taken_ms = clock_ms;
    volume.spec.source = "monday";
    for (const auto& [name, has] : has_snapshot) {
      const Uuid id = uuid_from_random(origin_replicas.size(), 3);
      origin.decision.replicas.push_back({.id = id, .pool = "pool-" + name, .origin = {}, .move_to = {}});
      api::ReplicaState& state = origin_replicas[id];
      state.set_id(to_string(id));
      if (has) state.add_snapshots()->set_id(to_string(snapshot->metadata.id));
    }
  }

  // Until nothing is left to do.
  ::testing::AssertionResult settle() {
    for (int i = 0; i < 200; ++i) {
      run_targets(true);
      const VolumePlan plan = plan_volume(facts(), random);
      if (!plan.decision && !plan.is_gone && plan.actions.empty()) return ::testing::AssertionSuccess();
      carry_out(plan, [] { return true; });
      if (is_gone) return ::testing::AssertionSuccess();
    }
    return ::testing::AssertionFailure() << "there is always something left to do: "
                                         << describe(plan_volume(facts(), random));
  }
  std::string describe(const VolumePlan& plan) const {
    std::string text = plan.decision ? "decides " + to_text(to_json(*plan.decision)) : "";
    for (const Action& action : plan.actions) text += fmt::format("; {} on {}", name_of(action.kind), action.node);
    for (const Condition& each : plan.conditions)
      text += fmt::format("\n  {} {}: {}", each.type, each.is_met, each.message);
    return text + "\n  now " + to_text(to_json(volume.decision));
  }
  std::string serving() { return serving_node(facts()); }
  std::set<std::string> nodes_with_replicas() {
    std::set<std::string> names;
    for (const auto& [name, node] : nodes) {
      if (!node.replicas.empty()) names.insert(name);
    }
    return names;
  }

  TestRandom random;
  ControlSettings settings;
  Volume volume;
  std::map<std::string, Node> nodes;
  std::set<Uuid> members;
  std::map<Uuid, Duration> missing_for;
  Volume origin;  // of a clone
  std::optional<Snapshot> snapshot;
  std::map<Uuid, api::ReplicaState> origin_replicas;
  uint64_t term = 1;
  uint64_t first_term = 0;
  uint64_t clock_ms = 0;
  bool is_gone = false;
};

const Condition& condition(const VolumePlan& plan, std::string_view type) {
  const auto found = std::ranges::find(plan.conditions, type, &Condition::type);
  EXPECT_NE(found, plan.conditions.end()) << type;
  return *found;
}

PlacedReplica& replica_on(Model& model, const std::string& node) {
  return *std::ranges::find(model.volume.decision.replicas, "pool-" + node, &PlacedReplica::pool);
}

using Names = std::set<std::string>;

TEST(VolumePlanTest, ANewVolumeIsPlacedMadeOpenedAndServed) {
  Model model(4, 3, 1);
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas().size(), 3);
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_EQ(model.serving(), model.volume.decision.target);
  EXPECT_EQ(model.volume.decision.standbys.size(), 2);
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  for (const char* type : {"Placed", "Available", "Redundant", "Settled"})
    EXPECT_TRUE(condition(plan, type).is_met) << type;
}

TEST(VolumePlanTest, WithoutRoomItSaysWhoHasNone) {
  Model model(2, 3, 1);
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  EXPECT_FALSE(plan.decision.has_value());
  EXPECT_THAT(condition(plan, "Placed").message, HasSubstr("2 nodes fit"));
  EXPECT_TRUE(plan.again_in.has_value());
}

TEST(VolumePlanTest, ACloneWaitsForWhatIsNotReportedYet) {
  Model model(3, 3, 1);
  model.begin_as_clone({{"a", true}, {"b", false}, {"c", true}});
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  EXPECT_FALSE(plan.decision.has_value());
  EXPECT_EQ(condition(plan, "Placed").reason, "NoSource");
  EXPECT_THAT(condition(plan, "Placed").message, HasSubstr("pool-b"));
  EXPECT_TRUE(plan.again_in.has_value());
  for (auto& [id, state] : model.origin_replicas) {
    if (state.snapshots().empty()) state.add_snapshots()->set_id(to_string(model.snapshot->metadata.id));
  }
  ASSERT_TRUE(model.settle());
  ASSERT_EQ(model.members.size(), 3);
  for (const PlacedReplica& replica : model.volume.decision.replicas) EXPECT_FALSE(replica.origin.is_nil());
}

TEST(VolumePlanTest, ACloneBeginsWhereItsSnapshotIsAndIsCopiedToTheOthers) {
  Model model(3, 3, 1);
  model.begin_as_clone({{"a", true}, {"b", false}});
  model.clock_ms += 10'000;
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_FALSE(replica_on(model, "a").origin.is_nil());
  EXPECT_TRUE(replica_on(model, "b").origin.is_nil());
  EXPECT_TRUE(replica_on(model, "c").origin.is_nil());
}

TEST(VolumePlanTest, AnEngineThatIsLostWhileItIsMadeIsReplaced) {
  Model model(4, 3, 1);
  model.carry_out(plan_volume(model.facts(), model.random), [] { return true; });
  ASSERT_EQ(model.volume.decision.replicas.size(), 3);
  const std::string lost = model.volume.decision.replicas[1].pool.substr(5);
  model.go_down(lost);
  model.nodes.at(lost).lost_for = minutes(1);
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  EXPECT_EQ(plan.garbage.size(), 3);
  ASSERT_TRUE(model.settle());
  EXPECT_FALSE(model.nodes_with_replicas().contains(lost));
  EXPECT_EQ(model.members.size(), 3);
}

TEST(VolumePlanTest, AStandbyTakesOverWhenTheTargetIsLost) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string first = model.serving();
  model.go_down(first);
  // The decision, then one call to a node that has it open.
  VolumePlan plan = plan_volume(model.facts(), model.random);
  ASSERT_TRUE(plan.decision.has_value());
  EXPECT_NE(plan.decision->target, first);
  model.carry_out(plan, [] { return true; });
  plan = plan_volume(model.facts(), model.random);
  while (plan.decision) {
    model.carry_out(plan, [] { return true; });
    plan = plan_volume(model.facts(), model.random);
  }
  ASSERT_FALSE(plan.actions.empty());
  EXPECT_EQ(plan.actions.front().kind, Kind::kServe);
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.members.size(), 2);
  model.nodes.at(first).is_up = true;
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_NE(model.serving(), first) << "it stays where it is";
}

TEST(VolumePlanTest, ANodeThatLacksItsReplicaDoesNotServe) {
  Model model(4, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string first = model.volume.decision.target;
  const std::string other = model.volume.decision.standbys.front();
  const std::string blank = model.volume.decision.standbys.back();
  const Uuid lost = replica_on(model, blank).id;
  // It comes back with another disk, before the others are heard of.
  for (const std::string& name : {first, other, blank}) model.go_down(name);
  model.nodes.at(blank).is_up = true;
  model.nodes.at(blank).replicas.clear();
  ASSERT_FALSE(plan_volume(model.facts(), model.random).decision.has_value()) << "it cannot be opened there";
  model.nodes.at(other).is_up = true;
  VolumePlan plan = plan_volume(model.facts(), model.random);
  ASSERT_TRUE(plan.decision.has_value());
  EXPECT_EQ(plan.decision->target, other);
  // Chosen when nobody knew.
  model.volume.decision.target = blank;
  model.volume.decision.target_run = model.facts().nodes.at(blank).run;
  plan = plan_volume(model.facts(), model.random);
  ASSERT_TRUE(plan.decision.has_value());
  EXPECT_EQ(plan.decision->target, other);
  model.nodes.at(first).is_up = true;
  model.missing_for = {{lost, minutes(11)}};
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_NE(model.serving(), blank);
}

// Control was away meanwhile, or an engine did late what it was told.
TEST(VolumePlanTest, WhoeverElseWouldServeItIsToldToStandBy) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  for (const std::string& name : model.volume.decision.standbys) {
    model.nodes.at(name).volume->set_role(api::VolumeState::STARTING);
  }
  ASSERT_TRUE(model.settle());
  for (const std::string& name : model.volume.decision.standbys) {
    EXPECT_EQ(model.nodes.at(name).volume->role(), api::VolumeState::STANDING_BY) << name;
  }
  EXPECT_EQ(model.nodes.at(model.volume.decision.target).volume->role(), api::VolumeState::SERVING);
}

TEST(VolumePlanTest, WhileItIsTakenOverNoReplicaIsSaidToBeAway) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  model.nodes.at(model.volume.decision.target).volume->set_role(api::VolumeState::SUSPENDED);
  Condition redundant = condition(plan_volume(model.facts(), model.random), "Redundant");
  EXPECT_FALSE(redundant.is_met);
  EXPECT_EQ(redundant.reason, "Unknown");
  EXPECT_EQ(redundant.message, "which replicas have everything is known when it is served");
  model.go_down(model.volume.decision.standbys.front());
  redundant = condition(plan_volume(model.facts(), model.random), "Redundant");
  EXPECT_THAT(redundant.message, HasSubstr(": node " + model.volume.decision.standbys.front() + " is lost"));
}

TEST(VolumePlanTest, ATargetThatRestartedAtOnceLosesItToAStandby) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string first = model.serving();
  model.go_down(first);
  model.nodes.at(first).is_up = true;
  ASSERT_TRUE(model.settle());
  EXPECT_NE(model.serving(), first);
  EXPECT_FALSE(model.serving().empty());
}

TEST(VolumePlanTest, AMomentOfSilenceAfterTheStartMovesNothing) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  VolumeFacts facts = model.facts();
  NodeFacts& target = facts.nodes.at(model.serving());
  target.is_ready = false;
  target.is_lost = false;
  target.volume = nullptr;
  const VolumePlan plan = plan_volume(facts, model.random);
  EXPECT_FALSE(plan.decision.has_value() && plan.decision->target != model.volume.decision.target);
}

TEST(VolumePlanTest, AReplicaThatIsAwayForLongGetsASuccessor) {
  Model model(4, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string lost = model.volume.decision.standbys.front();
  model.go_down(lost);
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.volume.decision.replicas.size(), 3) << "not at once";
  model.nodes.at(lost).lost_for = minutes(11);
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_EQ(model.volume.decision.replicas.size(), 3);
}

// Its disk was replaced by an empty one, or by another's.
TEST(VolumePlanTest, AReplicaThatItsNodeDoesNotHaveAnyMoreGetsASuccessor) {
  Model model(4, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string node = model.volume.decision.standbys.front();
  const Uuid lost = replica_on(model, node).id;
  model.nodes.at(node).replicas.clear();
  model.run_targets(true);
  VolumeFacts facts = model.facts();
  facts.missing_for[lost] = seconds(1);
  const VolumePlan plan = plan_volume(facts, model.random);
  EXPECT_THAT(condition(plan, "Redundant").message, HasSubstr("does not have the one in pool pool-" + node));
  EXPECT_FALSE(plan.decision.has_value()) << "not at once";
  model.missing_for = {{lost, minutes(11)}};
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_FALSE(model.nodes_with_replicas().contains(node));
  EXPECT_TRUE(std::ranges::none_of(model.volume.decision.replicas,
                                   [&](const PlacedReplica& replica) { return replica.id == lost; }));
}

TEST(VolumePlanTest, OneThatComesBackBeforeItsSuccessorIsCompleteStays) {
  Model model(4, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string lost = model.volume.decision.standbys.front();
  const Names before = model.nodes_with_replicas();
  model.go_down(lost);
  model.nodes.at(lost).lost_for = minutes(11);
  for (int i = 0; i < 8; ++i) {
    model.run_targets(false);
    model.carry_out(plan_volume(model.facts(), model.random), [] { return true; });
  }
  EXPECT_EQ(model.volume.decision.replicas.size(), 4) << "the successor is there, and copied to";
  model.nodes.at(lost).is_up = true;
  for (int i = 0; i < 8; ++i) {
    model.run_targets(false);
    model.carry_out(plan_volume(model.facts(), model.random), [] { return true; });
  }
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas(), before);
}

TEST(VolumePlanTest, ScalesUpAndDown) {
  Model model(5, 1, 1);
  for (const uint32_t replicas : {1U, 3U, 5U, 2U, 1U}) {
    model.volume.spec.replicas = replicas;
    ASSERT_TRUE(model.settle());
    EXPECT_EQ(model.members.size(), replicas);
    EXPECT_EQ(model.nodes_with_replicas().size(), replicas);
    EXPECT_FALSE(model.serving().empty());
  }
}

TEST(VolumePlanTest, MovesToTheNodeThatIsPreferred) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  model.volume.spec.preferred_node = model.volume.decision.standbys.back();
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.serving(), model.volume.spec.preferred_node);
}

TEST(VolumePlanTest, DrainingMovesTheTargetThenTheReplica) {
  Model model(4, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string drained = model.serving();
  model.nodes.at(drained).is_draining = true;
  ASSERT_TRUE(model.settle());
  EXPECT_NE(model.serving(), drained);
  EXPECT_FALSE(model.nodes_with_replicas().contains(drained));
  EXPECT_FALSE(model.nodes.at(drained).volume.has_value());
  EXPECT_EQ(model.members.size(), 3);
}

TEST(VolumePlanTest, WithoutRoomADrainedNodeKeepsItsReplica) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string drained = model.serving();
  model.nodes.at(drained).is_draining = true;
  ASSERT_TRUE(model.settle());
  EXPECT_NE(model.serving(), drained);
  EXPECT_TRUE(model.nodes_with_replicas().contains(drained));
  EXPECT_FALSE(condition(plan_volume(model.facts(), model.random), "Placed").is_met);
}

TEST(VolumePlanTest, AnEvacuatedPoolLosesItsReplicaAndItsNodeKeepsTheTarget) {
  Model model(4, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string target = model.serving();
  model.nodes.at(target).is_evacuating = true;
  ASSERT_TRUE(model.settle());
  EXPECT_FALSE(model.nodes_with_replicas().contains(target));
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_EQ(model.serving(), target);
  // When there is no room elsewhere it stays, and it is said why.
  for (auto& [name, node] : model.nodes) node.is_evacuating = true;
  const Names before = model.nodes_with_replicas();
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas(), before);
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  EXPECT_FALSE(condition(plan, "Placed").is_met);
  EXPECT_THAT(condition(plan, "Placed").message, HasSubstr("is evacuated"));
  EXPECT_TRUE(condition(plan, "Available").is_met);
  EXPECT_TRUE(condition(plan, "Redundant").is_met);
}

Model zoned(std::initializer_list<const char*> zones, uint32_t replicas) {
  Model model(zones.size(), replicas, 1);
  auto node = model.nodes.begin();
  for (const char* const zone : zones) (node++)->second.labels["zone"] = zone;
  model.volume.spec.topology.spread_over = {"zone"};
  return model;
}

TEST(VolumePlanTest, ADrainedNodeIsReplacedByOneOfItsZone) {
  Model model = zoned({"1", "2", "3", "3"}, 3);
  ASSERT_TRUE(model.settle());
  const std::string drained = model.nodes_with_replicas().contains("c") ? "c" : "d";
  model.nodes.at(drained).is_draining = true;
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas(), (Names{"a", "b", drained == "c" ? "d" : "c"}));
  EXPECT_EQ(model.members.size(), 3);
}

// Two of one zone are there for a while then: it is the new one that goes.
TEST(VolumePlanTest, ADrainThatIsTakenBackLeavesEachReplicaInAZoneOfItsOwn) {
  Model model = zoned({"1", "2", "3", "3"}, 3);
  ASSERT_TRUE(model.settle());
  const Names before = model.nodes_with_replicas();
  const std::string drained = before.contains("c") ? "c" : "d";
  model.nodes.at(drained).is_draining = true;
  for (int i = 0; i < 6; ++i) {
    model.run_targets(true);
    model.carry_out(plan_volume(model.facts(), model.random), [] { return true; });
  }
  ASSERT_EQ(model.volume.decision.replicas.size(), 4);
  model.nodes.at(drained).is_draining = false;
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas(), before);
}

TEST(VolumePlanTest, AnotherTopologyMovesReplicasOfAVolumeInUse) {
  Model model = zoned({"1", "1", "1", "2", "3"}, 3);
  model.volume.spec.topology.spread_over.clear();
  ASSERT_TRUE(model.settle());
  ASSERT_EQ(model.nodes_with_replicas(), (Names{"a", "b", "c"}));
  model.volume.spec.topology.spread_over = {"zone"};
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas().size(), 3);
  EXPECT_TRUE(model.nodes_with_replicas().contains("d") && model.nodes_with_replicas().contains("e"));
  EXPECT_EQ(model.members.size(), 3);

  model.volume.spec.topology = {};
  model.volume.spec.topology.affinity = {{"zone", "1"}};
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas(), (Names{"a", "b", "c"}));

  model.volume.spec.topology = {};
  model.volume.spec.topology.anti_affinity = {{"zone", "1"}};
  ASSERT_TRUE(model.settle());
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  EXPECT_THAT(condition(plan, "Placed").message, HasSubstr("is labelled zone=1"));
  EXPECT_EQ(model.members.size(), 3) << "what has no room elsewhere stays";
}

TEST(VolumePlanTest, AReplicaMovesToThePoolThatWasChosenForIt) {
  Model model(5, 3, 1);
  ASSERT_TRUE(model.settle());
  ASSERT_EQ(model.nodes_with_replicas(), (Names{"a", "b", "c"}));
  replica_on(model, "b").move_to = "pool-e";
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas(), (Names{"a", "c", "e"}));
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_TRUE(std::ranges::all_of(model.volume.decision.replicas, &std::string::empty, &PlacedReplica::move_to));
}

TEST(VolumePlanTest, AMoveThatCannotBeIsForgotten) {
  Model model(5, 3, 1);
  ASSERT_TRUE(model.settle());
  replica_on(model, "b").move_to = "pool-e";
  model.nodes.at("e").is_cordoned = true;
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.nodes_with_replicas(), (Names{"a", "b", "c"}));
  EXPECT_EQ(replica_on(model, "b").move_to, "");
  EXPECT_TRUE(condition(plan_volume(model.facts(), model.random), "Placed").is_met);
}

// What has to move comes first.
TEST(VolumePlanTest, ADrainComesBeforeAMove) {
  Model model(5, 3, 1);
  ASSERT_TRUE(model.settle());
  replica_on(model, "b").move_to = "pool-e";
  model.nodes.at("c").is_draining = true;
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.members.size(), 3);
  EXPECT_FALSE(model.nodes_with_replicas().contains("c"));
  EXPECT_EQ(model.volume.decision.replicas.size(), 3);
}

// The witness of a store that was made anew knows nothing until a target tells it, by a term of that store.
TEST(VolumePlanTest, ATermOfALostStoreIsRenewedAndUntilThenItIsNotRedundant) {
  Model model(3, 2, 1);
  ASSERT_TRUE(model.settle());
  const std::string before = model.serving();
  model.first_term = 1000;
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  ASSERT_EQ(plan.actions.size(), 1U);
  EXPECT_EQ(plan.actions.front().kind, Kind::kRenewTerm);
  EXPECT_EQ(plan.actions.front().node, before);
  EXPECT_TRUE(condition(plan, "Available").is_met);
  EXPECT_EQ(condition(plan, "Redundant").reason, "WitnessNew");
  ASSERT_TRUE(model.settle());
  EXPECT_EQ(model.serving(), before);
  EXPECT_TRUE(condition(plan_volume(model.facts(), model.random), "Redundant").is_met);
}

TEST(VolumePlanTest, EveryEngineIsToldOfAnotherShareForCopies) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  const std::string target = model.serving();
  model.volume.spec.resync_share = 20;
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  EXPECT_EQ(std::ranges::count(plan.actions, Kind::kOpen, &Action::kind), 3);
  ASSERT_TRUE(model.settle());
  for (const auto& [name, node] : model.nodes) EXPECT_EQ(node.volume->resync_share(), 20U) << name;
  EXPECT_EQ(model.serving(), target);
}

TEST(VolumePlanTest, GrowsTheTargetBeforeTheOthers) {
  Model model(3, 3, 1);
  ASSERT_TRUE(model.settle());
  model.volume.spec.size_bytes = 2 * kGiB;
  const VolumePlan plan = plan_volume(model.facts(), model.random);
  ASSERT_EQ(plan.actions.size(), 1);
  EXPECT_EQ(plan.actions.front().node, model.serving());
  ASSERT_TRUE(model.settle());
  for (const auto& [name, node] : model.nodes) EXPECT_EQ(node.volume->size_bytes(), 2 * kGiB) << name;
}

TEST(VolumePlanTest, WhatIsDeletedIsGoneEverywhere) {
  Model model(4, 3, 1);
  ASSERT_TRUE(model.settle());
  model.volume.metadata.deleting_since_ms = 1;
  const std::string lost = model.volume.decision.standbys.front();
  model.go_down(lost);
  VolumePlan plan = plan_volume(model.facts(), model.random);
  EXPECT_EQ(plan.garbage.size(), 1) << "what is on the lost node is remembered";
  ASSERT_TRUE(model.settle());
  EXPECT_TRUE(model.is_gone);
  EXPECT_EQ(model.nodes_with_replicas(), Names{lost});
}

// Whatever fails, whatever is asked for, however little of each plan is carried out: no member is deleted, nobody is
// asked to serve what another serves, and when all nodes are back it becomes what was asked for.
TEST(VolumePlanTest, AnythingMayHappenInAnyOrder) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 random(seed);
    Model model(random() % 4 + 2, static_cast<uint32_t>(random() % 2 + 1), seed);
    const auto any_node = [&]() -> std::pair<const std::string, Model::Node>& {
      return *std::next(model.nodes.begin(), static_cast<ptrdiff_t>(random() % model.nodes.size()));
    };
    for (int step = 0; step < 150; ++step) {
      const auto& [name, node] = any_node();
      switch (random() % 24) {
        case 0:
          model.go_down(name);
          break;
        case 1:
        case 2:
          model.nodes.at(name).is_up = true;
          break;
        case 3:
          model.nodes.at(name).lost_for = minutes(11);
          break;
        case 4:
          model.nodes.at(name).is_draining = random() % 2 == 0;
          break;
        case 5:
          model.nodes.at(name).is_cordoned = random() % 2 == 0;
          model.nodes.at(name).is_evacuating = random() % 4 == 0;
          break;
        case 6:
          model.volume.spec.replicas = static_cast<uint32_t>(random() % 4 + 1);
          break;
        case 7:
          model.volume.spec.preferred_node = random() % 2 == 0 ? name : "";
          break;
        case 8:
          model.volume.spec.size_bytes += kGiB;
          break;
        case 9:
          for (PlacedReplica& replica : model.volume.decision.replicas) {
            if (replica.stage == Stage::kPresent && random() % 4 == 0) replica.move_to = "pool-" + name;
          }
          break;
        case 10:
        case 11:
          model.run_targets(random() % 2 == 0);
          break;
        default:
          model.carry_out(plan_volume(model.facts(), model.random), [&] { return random() % 3 != 0; });
      }
      ASSERT_FALSE(::testing::Test::HasFailure()) << "step " << step;
      if (model.volume.decision.is_formed) ASSERT_FALSE(model.members.empty()) << "step " << step;
    }
    for (auto& [name, node] : model.nodes) {
      node.is_up = true;
      node.is_draining = node.is_cordoned = node.is_evacuating = false;
    }
    model.volume.spec.replicas = std::min(model.volume.spec.replicas, static_cast<uint32_t>(model.nodes.size()));
    ASSERT_TRUE(model.settle());
    EXPECT_EQ(model.members.size(), model.volume.spec.replicas)
        << model.describe(plan_volume(model.facts(), model.random));
    EXPECT_EQ(model.volume.decision.replicas.size(), model.volume.spec.replicas);
    EXPECT_EQ(model.serving(), model.volume.decision.target);
    ASSERT_FALSE(::testing::Test::HasFailure());
  }
}

}  // namespace
}  // namespace fairlead::control
