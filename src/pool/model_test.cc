// Long random sequences of everything that a pool can do, from two shards,
// against a naive model. Crashes are the business of the simulated campaign
// (tests/sim, scenario pool).
#include <bit>
#include <cstdlib>
#include <gtest/gtest.h>
#include <random>

#include "tests/support/pool_load.h"

namespace fairlead::pool {
namespace {

using sim::RunResult;
using sim::SimDiskOptions;
using sim::SimNode;
using sim::SimSettings;
using sim::SimWorld;
using test::PoolLoad;
using test::PoolLoadPlan;
using test::PoolModel;

constexpr Duration kLifeMax = std::chrono::hours(1);

// A seed that differs from run to run; FAIRLEAD_TEST_SEED repeats one.
uint64_t draw_seed() {
  const char* const given = std::getenv("FAIRLEAD_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

struct Case {
  uint64_t disk_bytes = 64 * kMiB;
  size_t disks = 1;
  uint32_t lives = 3;
  PoolLoadPlan plan;
};

struct Sums {
  uint64_t refusals = 0;
  uint64_t checkpoints = 0;
  uint64_t wraps = 0;
  uint64_t copied = 0;
};

void run(const Case& what, uint64_t seed, Sums& sums) {
  SCOPED_TRACE("FAIRLEAD_TEST_SEED=" + std::to_string(seed));
  SimWorld world(seed, SimSettings::calm());
  world.settings().order = sim::Order::kRandom;
  world.settings().disk.split_ppm = 200'000;
  SimNode& node = world.add_node("10.0.0.1", {.shards = 2, .more_addresses = {}});
  PoolLoadPlan plan = what.plan;
  uint32_t smallest = 4096;
  uint32_t largest = 512;
  for (size_t i = 0; i < what.disks + 1; ++i) {
    SimDiskOptions options = SimDiskOptions::drawn(world.random());
    // A disk that comes later has no larger blocks.
    if (i == what.disks) options.logical_block = std::min(options.logical_block, largest);
    largest = std::max(largest, options.logical_block);
    smallest = std::min(smallest, options.logical_block);
    const std::string path = "/disk" + std::to_string(i);
    world.create_disk(node, path, what.disk_bytes, options);
    (i < what.disks ? plan.disks : plan.spare).push_back(path);
  }
  // Anything from the smallest that may be to whole extents.
  const uint32_t least = std::max<uint32_t>(largest, plan.extent_bytes / kUnitsMax);
  const auto sizes = static_cast<uint64_t>(std::bit_width(plan.extent_bytes / least));
  plan.unit_bytes = least << world.random().below(sizes);
  PoolModel model(smallest, plan.extent_bytes);
  PoolLoad load(world, node, model, plan, world.random().next());
  bool is_made = false;
  world.spawn(node, 0, load.format(&is_made));
  ASSERT_EQ(world.run_until([&] { return is_made; }, kLifeMax), RunResult::kDone) << world.report();
  for (uint32_t life = 1; life <= what.lives && model.failure().empty(); ++life) {
    load.announce();
    world.spawn(node, 0, load.live(life == what.lives ? PoolLoad::Ends::kDeletesAll : PoolLoad::Ends::kKeepsAll));
    const RunResult result =
        world.run_until([&] { return load.phase() == test::Phase::kEnded || !model.failure().empty(); }, kLifeMax);
    ASSERT_TRUE(model.failure().empty()) << model.failure() << "\n" << world.report();
    ASSERT_EQ(result, RunResult::kDone) << "a life did not end\n" << world.report();
  }
  EXPECT_EQ(world.unexplained_errors() + world.violations(), 0U) << world.report();
  sums.refusals += load.refusals();
  sums.checkpoints += world.probe_count(Probe::kPoolCheckpoint);
  sums.wraps += world.probe_count(Probe::kJournalWrapped);
  sums.copied += world.probe_count(Probe::kPoolMergeCopied);
}

TEST(PoolModelTest, APoolWithRoomDoesAllThatIsAsked) {
  const uint64_t seed = draw_seed();
  Sums sums;
  for (uint64_t i = 0; i < 4 && !testing::Test::HasFailure(); ++i) {
    Case what;
    what.disks = 1 + i % 3;
    what.plan.is_roomy = true;
    what.plan.rounds = 2;
    what.plan.extent_bytes = i % 2 == 0 ? 64 * kKiB : 256 * kKiB;
    what.plan.journal_bytes = kJournalBytesMin;
    run(what, seed + i, sums);
  }
  EXPECT_GT(sums.checkpoints, 0U);
}

// So little room that requests are refused all the time: that harms nothing,
// and deleting frees room.
TEST(PoolModelTest, AFullPoolRefusesAndHarmsNothing) {
  const uint64_t seed = draw_seed();
  Sums sums;
  for (uint64_t i = 0; i < 6 && !testing::Test::HasFailure(); ++i) {
    Case what;
    what.disks = 1 + i % 2;
    what.disk_bytes = (i % 2 == 0 ? 3 : 2) * kMiB + 64 * kKiB * i;
    what.plan.journal_bytes = kJournalBytesMin;
    what.plan.rounds = 3;
    what.plan.object_bytes_max = 4 * kMiB;
    what.plan.workers = 3;
    run(what, seed + 100 + i, sums);
  }
  EXPECT_GT(sums.refusals, 5U);
}

}  // namespace
}  // namespace fairlead::pool
