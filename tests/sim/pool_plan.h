// What a run of scenario `pool` is made of: a node with a pool, and where it crashes.
#pragma once

#include <string>
#include <vector>

#include "plan.h"
#include "sim/core.h"
#include "tests/support/pool_load.h"

namespace fairlead::sim_test {

// What a crash waits for.
enum class Point : uint8_t {
  kTime,        // nothing but a while
  kSuperblock,  // a write of one
  kJournal,     // of a batch
  kOther,       // of data, map pages or the directory
  kFlush,
  kDiscard,
};
inline constexpr size_t kPointCount = static_cast<size_t>(Point::kDiscard) + 1;

struct CrashPlan {
  Point point = Point::kTime;
  Duration time{0};                        // since the start of the life
  uint32_t count = 1;                      // the so-manieth of them
  bool is_after = false;                   // when it took effect, not when it was asked for
  std::optional<test::Phase> during;       // only those then
  std::optional<test::Doing> while_doing;  // likewise
  sim::CrashKind kind = sim::CrashKind::kPowerLost;
  bool is_double = false;  // power is lost right after the process was killed
  Duration down{0};
};

struct PoolRunPlan {
  sim::SimSettings settings;
  size_t shards = 1;
  std::vector<sim::SimDiskOptions> disks;  // the last one is spare
  uint64_t disk_bytes = 4 * kMiB;
  test::PoolLoadPlan load;
  std::vector<CrashPlan> crashes;
};

// `scenario`: kPool or kLying.
PoolRunPlan draw_pool_plan(uint64_t seed, Scenario scenario);
std::string to_string(const PoolRunPlan& plan);

}  // namespace fairlead::sim_test
