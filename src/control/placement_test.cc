#include "control/placement.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <set>

#include "base/units.h"

namespace fairlead::control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Names = std::vector<std::string>;

PoolCandidate pool(const std::string& node, uint64_t free_gib, Labels labels = {}) {
  PoolCandidate candidate;
  candidate.name = "pool-" + node;
  candidate.node = node;
  candidate.node_labels = std::move(labels);
  candidate.capacity_bytes = 100 * kGiB;
  candidate.free_bytes = free_gib * kGiB;
  candidate.promised_bytes = (100 - free_gib) * kGiB;
  return candidate;
}

VolumeSpec spec(uint32_t replicas) {
  VolumeSpec wanted;
  wanted.size_bytes = 10 * kGiB;
  wanted.replicas = replicas;
  return wanted;
}

std::string why(const Outcome<Names>& outcome) {
  EXPECT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().error.code, Code::kNoSpace);
  return to_string(outcome.error());
}

TEST(PlacementTest, TakesTheEmptiestFirst) {
  const VolumeSpec wanted = spec(2);
  EXPECT_THAT(place({pool("a", 20), pool("b", 90), pool("c", 50)}, {.spec = wanted, .count = 2}).value(),
              ElementsAre("pool-b", "pool-c"));
}

TEST(PlacementTest, NeverTwoOnANode) {
  PoolCandidate second = pool("a", 99);
  second.name = "second-a";
  const VolumeSpec wanted = spec(2);
  EXPECT_THAT(place({pool("a", 90), second, pool("b", 20)}, {.spec = wanted, .count = 2}).value(),
              ElementsAre("second-a", "pool-b"));
  EXPECT_THAT(why(place({pool("a", 90), second}, {.spec = wanted, .count = 2})), HasSubstr("1 node fits"));
}

TEST(PlacementTest, ASuccessorTakesThePlaceOfOneThatGoes) {
  VolumeSpec wanted = spec(3);
  wanted.topology.spread_over = {"zone"};
  const std::vector<PoolCandidate> pools = {pool("a", 50, {{"zone", "1"}}), pool("b", 50, {{"zone", "2"}}),
                                            pool("c", 50, {{"zone", "3"}}), pool("d", 50, {{"zone", "3"}})};
  EXPECT_THAT(why(place(pools, {.spec = wanted, .count = 1, .nodes_taken = {"a", "b", "c"}})),
              HasSubstr("spread over"));
  EXPECT_THAT(place(pools, {.spec = wanted, .count = 1, .nodes_taken = {"a", "b"}, .nodes_leaving = {"c"}}).value(),
              ElementsAre("pool-d"));
}

TEST(PlacementTest, ThePreferredNodeComesFirst) {
  VolumeSpec wanted = spec(1);
  wanted.preferred_node = "c";
  EXPECT_THAT(place({pool("a", 90), pool("c", 20)}, {.spec = wanted}).value(), ElementsAre("pool-c"));
}

TEST(PlacementTest, KeepsOffNodesThatHaveOne) {
  const VolumeSpec wanted = spec(3);
  EXPECT_THAT(place({pool("a", 90), pool("b", 20)}, {.spec = wanted, .count = 1, .nodes_taken = {"a"}}).value(),
              ElementsAre("pool-b"));
}

TEST(PlacementTest, SpreadsOverEveryLabel) {
  VolumeSpec wanted = spec(3);
  wanted.topology.spread_over = {"zone", "rack"};
  // The emptiest, a, leaves no set of three: b shares its zone, c its rack.
  const std::vector<PoolCandidate> pools = {
      pool("a", 99, {{"zone", "1"}, {"rack", "x"}}), pool("b", 80, {{"zone", "1"}, {"rack", "y"}}),
      pool("c", 70, {{"zone", "2"}, {"rack", "x"}}), pool("d", 60, {{"zone", "3"}, {"rack", "z"}}), pool("e", 98)};
  EXPECT_THAT(place(pools, {.spec = wanted, .count = 3}).value(), ElementsAre("pool-b", "pool-c", "pool-d"));
  const std::string reason =
      why(place({pools[0], pools[3], pools[4]}, {.spec = wanted, .count = 2, .nodes_taken = {"a"}}));
  EXPECT_THAT(reason, HasSubstr("node a has a replica already"));
  EXPECT_THAT(reason, HasSubstr("node e has no label zone"));
}

TEST(PlacementTest, LabelsIncludeAndExclude) {
  VolumeSpec wanted = spec(1);
  wanted.topology.affinity = {{"disk", "nvme"}};
  wanted.topology.anti_affinity = {{"zone", "2"}};
  const std::vector<PoolCandidate> pools = {pool("a", 99, {{"disk", "sata"}}),
                                            pool("b", 98, {{"disk", "nvme"}, {"zone", "2"}}),
                                            pool("c", 10, {{"disk", "nvme"}, {"zone", "1"}})};
  EXPECT_THAT(place(pools, {.spec = wanted}).value(), ElementsAre("pool-c"));
  const std::string reason = why(place({pools[0], pools[1]}, {.spec = wanted}));
  EXPECT_THAT(reason, HasSubstr("node a is not labelled disk=nvme"));
  EXPECT_THAT(reason, HasSubstr("node b is labelled zone=2"));
}

TEST(PlacementTest, AThickReplicaNeedsItsWholeSize) {
  VolumeSpec wanted = spec(1);
  wanted.size_bytes = 30 * kGiB;
  EXPECT_TRUE(place({pool("a", 20)}, {.spec = wanted}).has_value());
  wanted.is_thin = false;
  EXPECT_THAT(why(place({pool("a", 20)}, {.spec = wanted})),
              HasSubstr("pool pool-a has 20 GiB left, 30 GiB are needed"));
}

TEST(PlacementTest, GroupsKeepApart) {
  VolumeSpec wanted = spec(1);
  wanted.topology.group = "db";
  EXPECT_THAT(place({pool("a", 90), pool("b", 20)}, {.spec = wanted, .group_load = {{"a", 1}}}).value(),
              ElementsAre("pool-b"));
}

TEST(PlacementTest, SaysWhatIsExcludedAndWhy) {
  PoolCandidate lost = pool("a", 90);
  lost.excluded = "node a is lost";
  const VolumeSpec wanted = spec(1);
  EXPECT_THAT(why(place({lost}, {.spec = wanted})), HasSubstr("node a is lost"));
  EXPECT_THAT(why(place({}, {.spec = wanted})), HasSubstr("fairlead pool create"));
}

// Against trying every set: it finds one exactly when there is one, and what it finds fits.
TEST(PlacementTest, BeginsWhereItCanAndLeavesTheRestForLater) {
  const std::vector<PoolCandidate> pools = {pool("a", 90), pool("b", 80), pool("c", 70)};
  const VolumeSpec wanted = spec(3);
  const auto begin = [&](std::vector<std::string> pools_only) {
    return place_beginning(pools, {.spec = wanted, .count = 3, .pools_only = std::move(pools_only)});
  };
  EXPECT_THAT(begin({"pool-c", "pool-b", "pool-a"}).value(), ElementsAre("pool-a", "pool-b", "pool-c"));
  EXPECT_THAT(begin({"pool-c", "pool-b"}).value(), ElementsAre("pool-b", "pool-c"));
  EXPECT_THAT(begin({"pool-c"}).value(), ElementsAre("pool-c"));
  EXPECT_THAT(why(begin({"-"})), HasSubstr("pool pool-a does not have the snapshot"));
  EXPECT_THAT(begin({}).value(), ElementsAre("pool-a", "pool-b", "pool-c"));
}

TEST(PlacementTest, BeginsNowhereWhenTheRestFindsNoRoom) {
  const VolumeSpec wanted = spec(3);
  EXPECT_THAT(why(place_beginning({pool("a", 90), pool("b", 80), pool("c", 1)},
                                  {.spec = wanted, .count = 3, .pools_only = {"pool-a", "pool-b"}})),
              HasSubstr("2 nodes fit"));
  // One of two that have it is full: the other begins, and the third node gets what is left.
  EXPECT_THAT(place_beginning({pool("a", 90), pool("b", 1), pool("c", 80)},
                              {.spec = wanted, .count = 2, .pools_only = {"pool-a", "pool-b"}})
                  .value(),
              ElementsAre("pool-a"));
}

TEST(PlacementTest, FindsASetWheneverThereIsOne) {
  std::mt19937_64 random(20261122);
  for (int round = 0; round < 500; ++round) {
    VolumeSpec wanted = spec(static_cast<uint32_t>(random() % 3 + 1));
    wanted.topology.spread_over = {"zone"};
    std::vector<PoolCandidate> pools;
    const size_t count = random() % 7;
    for (size_t i = 0; i < count; ++i) {
      pools.push_back(pool(std::string(1, static_cast<char>('a' + random() % 5)), random() % 100,
                           {{"zone", std::to_string(random() % 3)}}));
      pools.back().name += std::to_string(i);
    }
    const auto fits = [&](const std::vector<const PoolCandidate*>& set) {
      std::set<std::string> nodes;
      std::set<std::string> zones;
      for (const PoolCandidate* each : set) {
        if (each->free_bytes < 5 * kGiB) return false;
        nodes.insert(each->node);
        zones.insert(each->node_labels.at("zone"));
      }
      return nodes.size() == set.size() && zones.size() == set.size();
    };
    bool is_possible = false;
    for (size_t bits = 0; bits < size_t{1} << count; ++bits) {
      std::vector<const PoolCandidate*> set;
      for (size_t i = 0; i < count; ++i) {
        if ((bits >> i & 1) != 0) set.push_back(&pools[i]);
      }
      is_possible = is_possible || (set.size() == wanted.replicas && fits(set));
    }
    const auto placed = place(pools, {.spec = wanted, .count = wanted.replicas});
    ASSERT_EQ(placed.has_value(), is_possible) << "round " << round;
    if (!placed) continue;
    std::vector<const PoolCandidate*> set;
    for (const std::string& name : *placed) set.push_back(&*std::ranges::find(pools, name, &PoolCandidate::name));
    EXPECT_THAT(*placed, SizeIs(wanted.replicas));
    EXPECT_TRUE(fits(set)) << "round " << round;
  }
}

}  // namespace
}  // namespace fairlead::control
