#include "control/rebalance.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "base/units.h"

namespace fairlead::control {
namespace {

using ::testing::AnyOf;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// A naive model of pools and volumes at rest, where a move takes no time.
class Model {
 public:
  void add_pool(const std::string& name, const std::string& node, uint64_t capacity_gib, Labels labels = {}) {
    PoolCandidate& pool = pools_.emplace_back();
    pool.name = name;
    pool.node = node;
    pool.node_labels = std::move(labels);
    pool.capacity_bytes = capacity_gib * kGiB;
  }

  Volume& add_volume(const std::string& name, uint64_t size_gib, std::vector<std::string> in,
                     uint64_t used_percent = 100) {
    Volume& volume = volumes_[name];
    volume.metadata.name = name;
    volume.spec.size_bytes = size_gib * kGiB;
    volume.spec.replicas = static_cast<uint32_t>(in.size());
    volume.decision.is_formed = true;
    for (std::string& pool : in) {
      PlacedReplica& replica = volume.decision.replicas.emplace_back();
      replica.id = uuid_from_random(++last_id_, 1);
      replica.pool = std::move(pool);
      replica.stage = PlacedReplica::Stage::kPresent;
      used_[replica.id] = size_gib * kGiB / 100 * used_percent;
    }
    return volume;
  }

  // As engines would report them.
  std::vector<PoolCandidate> pools() const {
    std::vector<PoolCandidate> all = pools_;
    for (PoolCandidate& pool : all) {
      uint64_t used = 0;
      for (const auto& [name, volume] : volumes_) {
        for (const PlacedReplica& replica : volume.decision.replicas) {
          if (replica.pool != pool.name) continue;
          pool.promised_bytes += volume.spec.size_bytes;
          used += used_.at(replica.id);
        }
      }
      pool.free_bytes = pool.capacity_bytes - std::min(used, pool.capacity_bytes);
    }
    return all;
  }
  PoolCandidate pool(const std::string& name) const {
    const std::vector<PoolCandidate> all = pools();
    return *std::ranges::find(all, name, &PoolCandidate::name);
  }
  double fullness(const std::string& name) const { return fullness_of(pool(name)); }
  PoolCandidate& spec_of_pool(const std::string& name) {
    return *std::ranges::find(pools_, name, &PoolCandidate::name);
  }
  Volume& volume(const std::string& name) { return volumes_.at(name); }

  RebalanceFacts facts(std::set<std::string> busy = {}) const {
    RebalanceFacts facts{.pools = pools(), .volumes = {}};
    facts.busy_pools = std::move(busy);
    facts.uneven_pools = uneven_;
    for (const auto& [name, volume] : volumes_) {
      facts.volumes.push_back({.volume = &volume, .used_bytes = used_, .group_load = group_load(volume)});
    }
    return facts;
  }
  std::map<std::string, size_t> group_load(const Volume& of) const {
    std::map<std::string, size_t> load;
    for (const auto& [name, volume] : volumes_) {
      if (of.spec.topology.group.empty() || name == of.metadata.name) continue;
      if (volume.spec.topology.group != of.spec.topology.group) continue;
      for (const PlacedReplica& replica : volume.decision.replicas) ++load[pool(replica.pool).node];
    }
    return load;
  }

  RebalancePlan plan(std::set<std::string> busy = {}) {
    RebalancePlan plan = plan_rebalance(facts(std::move(busy)));
    uneven_ = plan.uneven_pools;
    return plan;
  }
  void carry_out(const Move& move) {
    Volume& volume = volumes_.at(move.volume);
    const auto replica = std::ranges::find(volume.decision.replicas, move.replica, &PlacedReplica::id);
    ASSERT_NE(replica, volume.decision.replicas.end());
    ASSERT_EQ(replica->pool, move.from);
    replica->pool = move.to;
  }
  // How many moves there were until nothing was left to do.
  size_t settle(size_t moves_max = 1000) {
    size_t moves = 0;
    for (RebalancePlan next = plan(); !next.moves.empty(); next = plan()) {
      for (const Move& move : next.moves) carry_out(move);
      moves += next.moves.size();
      if (moves > moves_max || ::testing::Test::HasFatalFailure()) break;
    }
    EXPECT_LE(moves, moves_max) << "it does not come to an end";
    return moves;
  }

  // Whether the volume is where it may be.
  void expect_policy(const Volume& volume) const {
    std::set<std::string> nodes;
    std::set<std::string> values;
    for (const PlacedReplica& replica : volume.decision.replicas) {
      const PoolCandidate at = pool(replica.pool);
      EXPECT_TRUE(nodes.insert(at.node).second) << volume.metadata.name << " has two replicas on " << at.node;
      EXPECT_EQ(why_not_there(volume.spec.topology, at.node_labels), "") << volume.metadata.name;
      for (const std::string& value : spread_values(volume.spec.topology, at.node_labels)) {
        EXPECT_TRUE(values.insert(value).second) << volume.metadata.name << " has two replicas in " << value;
      }
    }
  }
  // The fullest first.
  std::vector<double> profile() const {
    std::vector<double> all;
    for (const PoolCandidate& pool : pools()) all.push_back(fullness_of(pool));
    std::ranges::sort(all, std::ranges::greater());
    return all;
  }

 private:
  std::vector<PoolCandidate> pools_;
  std::map<std::string, Volume> volumes_;
  std::map<Uuid, uint64_t> used_;
  std::set<std::string> uneven_;
  uint64_t last_id_ = 0;
};

// Three nodes, all of whose volumes are in pool-a; each is 10 % of a pool.
Model lopsided(size_t volumes) {
  Model model;
  for (const char* node : {"a", "b", "c"}) model.add_pool(fmt::format("pool-{}", node), node, 100);
  for (size_t i = 0; i < volumes; ++i) model.add_volume(fmt::format("v{}", i), 10, {"pool-a"});
  return model;
}

TEST(RebalanceTest, WhatIsEvenIsLeftAlone) {
  Model model = lopsided(1);
  EXPECT_THAT(model.plan().moves, IsEmpty());
  EXPECT_THAT(model.plan().uneven_pools, IsEmpty());
  EXPECT_THAT(plan_rebalance({.pools = {}, .volumes = {}}).moves, IsEmpty());
}

TEST(RebalanceTest, AFullPoolGivesToTheEmptiest) {
  Model model = lopsided(6);
  model.add_volume("other", 10, {"pool-b"});
  const RebalancePlan plan = model.plan();
  ASSERT_THAT(plan.moves, SizeIs(1)) << "a pool takes part in one at a time";
  EXPECT_EQ(plan.moves.front().from, "pool-a");
  EXPECT_EQ(plan.moves.front().to, "pool-c");
  EXPECT_DOUBLE_EQ(plan.moves.front().from_fullness, 0.6);
  model.settle();
  for (const char* pool : {"pool-a", "pool-b", "pool-c"}) EXPECT_NEAR(model.fullness(pool), 0.23, 0.08) << pool;
}

TEST(RebalanceTest, OnceBegunItGoesOnUntilPoolsAreQuiteEven) {
  Model model = lopsided(2);
  // Less than a fifth: nothing begins.
  model.add_volume("w", 9, {"pool-a"});
  model.add_volume("x", 10, {"pool-b"});
  model.add_volume("y", 10, {"pool-c"});
  EXPECT_THAT(model.plan().moves, IsEmpty());
  model.add_volume("z", 2, {"pool-a"});
  EXPECT_THAT(model.plan().moves, SizeIs(1));
  model.settle();
  EXPECT_LT(model.profile().front() - model.profile().back(), kEvenBelow);
  // And then not before they differ by a fifth again.
  model.add_volume("more", 9, {"pool-b"});
  EXPECT_THAT(model.plan().moves, IsEmpty());
  EXPECT_THAT(model.plan().uneven_pools, IsEmpty());
}

TEST(RebalanceTest, BusyPoolsGetNothingElseToDo) {
  Model model = lopsided(6);
  EXPECT_THAT(model.plan({"pool-a"}).moves, IsEmpty());
  const RebalancePlan plan = model.plan({"pool-b"});
  ASSERT_THAT(plan.moves, SizeIs(1));
  EXPECT_EQ(plan.moves.front().to, "pool-c");
}

TEST(RebalanceTest, NothingMovesToWhereNothingNewIsTaken) {
  Model model = lopsided(6);
  model.spec_of_pool("pool-b").excluded = "node b is cordoned";
  EXPECT_EQ(model.plan().moves.front().to, "pool-c");
  model.spec_of_pool("pool-c").excluded = "node c is lost";
  EXPECT_THAT(model.plan().moves, IsEmpty());
}

TEST(RebalanceTest, TheReplicaOnThePreferredNodeStays) {
  Model model = lopsided(6);
  for (size_t i = 0; i < 6; ++i) model.volume(fmt::format("v{}", i)).spec.preferred_node = "a";
  EXPECT_THAT(model.plan().moves, IsEmpty());
}

TEST(RebalanceTest, TheReplicaBesideTheTargetMovesLast) {
  Model model = lopsided(6);
  for (size_t i = 0; i < 6; ++i) model.volume(fmt::format("v{}", i)).decision.target = i == 4 ? "b" : "a";
  ASSERT_THAT(model.plan().moves, SizeIs(1));
  EXPECT_EQ(model.plan().moves.front().volume, "v4");
}

TEST(RebalanceTest, AVolumeLargerThanTheDifferenceStays) {
  Model model;
  for (const char* node : {"a", "b"}) model.add_pool(fmt::format("pool-{}", node), node, 100);
  model.add_volume("large", 90, {"pool-a"});
  EXPECT_THAT(model.plan().moves, IsEmpty()) << "pools would only change places";
}

TEST(RebalanceTest, ASuccessorMayBeInTheSameZone) {
  Model model;
  model.add_pool("pool-a", "a", 100, {{"zone", "1"}});
  model.add_pool("pool-b", "b", 100, {{"zone", "2"}});
  model.add_pool("pool-c", "c", 100, {{"zone", "1"}});
  for (int i = 0; i < 6; ++i) {
    model.add_volume(fmt::format("v{}", i), 10, {"pool-a", "pool-b"}).spec.topology.spread_over = {"zone"};
  }
  EXPECT_GT(model.settle(), 0U);
  EXPECT_NEAR(model.fullness("pool-a"), model.fullness("pool-c"), 0.11);
  EXPECT_DOUBLE_EQ(model.fullness("pool-b"), 0.6) << "all of zone 2 is there";
}

TEST(RebalanceTest, AGroupIsNotPutTogether) {
  Model model = lopsided(0);
  for (int i = 0; i < 3; ++i) model.add_volume(fmt::format("v{}", i), 15, {"pool-a"});
  model.add_volume("w", 5, {"pool-b"});
  model.add_volume("x", 5, {"pool-c"});
  model.volume("v0").spec.topology.group = model.volume("w").spec.topology.group =
      model.volume("x").spec.topology.group = "g";
  const RebalancePlan plan = model.plan();
  ASSERT_THAT(plan.moves, SizeIs(1));
  EXPECT_EQ(plan.moves.front().volume, "v1");
}

// Any cluster: no move breaks what was asked for, each leaves the two pools less full than the one was, they come to an
// end, and then stay at their end, also when pools fill a little differently.
TEST(RebalanceTest, AnyClusterComesToRest) {
  size_t moved = 0;
  size_t even = 0;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 random(seed);
    const auto below = [&](uint64_t limit) { return random() % limit; };
    Model model;
    const size_t nodes = below(6) + 2;
    for (size_t i = 0; i < nodes; ++i) {
      const std::string node(1, static_cast<char>('a' + i));
      const Labels labels = {{"zone", fmt::format("{}", below(3))}, {"disk", below(2) == 0 ? "ssd" : "hdd"}};
      for (size_t k = 0; k <= below(2); ++k) {
        model.add_pool(fmt::format("pool-{}{}", node, k), node, (below(4) + 1) * 100, labels);
      }
    }
    for (size_t i = 0; i < below(60) + 5; ++i) {
      VolumeSpec spec;
      spec.size_bytes = (below(40) + 1) * kGiB;
      spec.replicas = static_cast<uint32_t>(below(3) + 1);
      if (below(3) == 0) spec.topology.spread_over = {"zone"};
      if (below(4) == 0) spec.topology.affinity = {{"disk", "ssd"}};
      if (below(4) == 0) spec.topology.group = "g";
      if (below(4) == 0) spec.preferred_node = std::string(1, static_cast<char>('a' + below(nodes)));
      // Placed when only some of the pools were there.
      std::vector<PoolCandidate> pools = model.pools();
      for (PoolCandidate& pool : pools) {
        if (pool.name.back() != '0' || below(3) == 0) pool.excluded = "it came later";
      }
      const auto placed = place(pools, {.spec = spec, .count = spec.replicas});
      if (!placed) continue;
      Volume& volume = model.add_volume(fmt::format("v{:02}", i), spec.size_bytes / kGiB, *placed, below(101));
      volume.spec = spec;
      volume.decision.target = model.pool(placed->front()).node;
    }
    for (RebalancePlan plan = model.plan(); !plan.moves.empty(); plan = model.plan()) {
      std::set<std::string> busy;
      for (const Move& move : plan.moves) {
        EXPECT_TRUE(busy.insert(move.from).second && busy.insert(move.to).second) << "a pool is in two moves";
        const Volume& volume = model.volume(move.volume);
        EXPECT_TRUE(volume.spec.preferred_node.empty() || volume.spec.preferred_node != model.pool(move.from).node);
        const std::vector<double> before = model.profile();
        const double from_before = model.fullness(move.from);
        model.carry_out(move);
        EXPECT_LT(model.fullness(move.from), from_before);
        EXPECT_LE(model.fullness(move.to), model.fullness(move.from)) << "it could move back";
        EXPECT_LT(model.profile(), before);
        model.expect_policy(volume);
      }
      moved += plan.moves.size();
      ASSERT_FALSE(HasFailure());
    }
    // When they are quite even, a volume of half of what lies in between begins nothing.
    const std::vector<double> rest = model.profile();
    if (rest.front() - rest.back() >= kEvenBelow) continue;
    ++even;
    const PoolCandidate any = model.pools()[below(model.pools().size())];
    const double room = (kUnevenFrom - kEvenBelow) / 2 * static_cast<double>(any.capacity_bytes);
    model.add_volume("small", static_cast<uint64_t>(room) / kGiB, {any.name});
    EXPECT_THAT(model.plan().moves, IsEmpty());
  }
  EXPECT_GT(moved, 100U) << "the clusters were too even";
  EXPECT_GT(even, 10U) << "the clusters were too uneven";
}

}  // namespace
}  // namespace fairlead::control
