#include "scenario.h"

#include <gtest/gtest.h>

namespace fairlead::sim_test {
namespace {

Outcome run(uint64_t seed, Scenario scenario, std::string* message) {
  return run_seed(seed, {.scenario = scenario, .message = message, .report = nullptr, .listener = nullptr});
}

TEST(Scenario, OneSeedIsOneHistory) {
  std::string message;
  for (const uint64_t seed : {3U, 17U, 40U}) {
    const Outcome first = run(seed, Scenario::kChaos, &message);
    ASSERT_TRUE(first.passed) << "seed " << seed << ": " << message;
    const Outcome second = run(seed, Scenario::kChaos, &message);
    EXPECT_EQ(first.hash, second.hash) << "seed " << seed;
    EXPECT_EQ(first.turns, second.turns) << "seed " << seed;
  }
}

TEST(Scenario, AnotherSeedIsAnotherHistory) {
  std::string message;
  EXPECT_NE(run(5, Scenario::kCalm, &message).hash, run(6, Scenario::kCalm, &message).hash);
}

TEST(Scenario, NothingFailsInACalmWorld) {
  std::string message;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    EXPECT_TRUE(run(seed, Scenario::kCalm, &message).passed) << "seed " << seed << ": " << message;
  }
}

// The oracle works: disks that lose writes are found out.
TEST(Scenario, LostWritesAreFound) {
  size_t found = 0;
  std::string message;
  for (uint64_t seed = 1; seed <= 6; ++seed) found += run(seed, Scenario::kBroken, &message).passed ? 0 : 1;
  EXPECT_GE(found, 5U);
}

// Hosts that do not wait for what a dead connection left behind are found out: acknowledged writes are overwritten.
TEST(Scenario, OverwrittenWritesAreFound) {
  size_t found = 0;
  std::string message;
  for (uint64_t seed = 1; seed <= 12; ++seed) found += run(seed, Scenario::kHasty, &message).passed ? 0 : 1;
  EXPECT_GE(found, 2U);
}

TEST(Scenario, PoolsSurviveCrashesAtEveryPoint) {
  std::string message;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    EXPECT_TRUE(run(seed, Scenario::kPool, &message).passed) << "seed " << seed << ": " << message;
  }
}

// Disks whose flushes do nothing are found out: a pool on them loses what it promised to keep.
TEST(Scenario, FlushesThatDoNothingAreFound) {
  size_t found = 0;
  std::string message;
  for (uint64_t seed = 1; seed <= 12; ++seed) found += run(seed, Scenario::kLying, &message).passed ? 0 : 1;
  EXPECT_GE(found, 5U);
}

TEST(Scenario, HostsWithSeveralPathsSurvive) {
  std::string message;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    EXPECT_TRUE(run(seed, Scenario::kHost, &message).passed) << "seed " << seed << ": " << message;
  }
}

}  // namespace
}  // namespace fairlead::sim_test
