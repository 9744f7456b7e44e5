#include "pool_plan.h"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

#include "base/units.h"

namespace fairlead::sim_test {
namespace {

using sim::Prng;
using test::Doing;
using test::Phase;

CrashPlan draw_crash(Prng& random) {
  CrashPlan crash;
  crash.point = static_cast<Point>(random.below(kPointCount));
  crash.time = Duration(static_cast<int64_t>(random.skewed(10'000, 2'000'000'000)));
  crash.is_after = random.coin();
  crash.count = static_cast<uint32_t>(random.skewed(1, crash.point == Point::kSuperblock ? 16 : 200));
  const uint64_t when = random.below(10);
  if (when == 0) {
    crash.during = Phase::kImporting;
    crash.count = static_cast<uint32_t>(random.skewed(1, 20));
  } else if (when == 1) {
    crash.during = random.coin() ? Phase::kVerifying : Phase::kClosing;
    crash.count = static_cast<uint32_t>(random.skewed(1, 12));
  } else if (when < 7) {
    crash.while_doing = static_cast<Doing>(random.below(test::kDoingCount));
    crash.count = static_cast<uint32_t>(random.skewed(1, 24));
  }
  crash.kind = random.one_in(4) ? sim::CrashKind::kProcessKilled : sim::CrashKind::kPowerLost;
  crash.is_double = random.one_in(3);
  crash.down = Duration(static_cast<int64_t>(random.skewed(1'000, 1'000'000'000)));
  return crash;
}

void draw_disks(Prng& random, PoolRunPlan& plan) {
  const size_t count = 1 + random.below(3);
  const uint64_t blocks = random.below(3);  // all of 512, all of 4096, mixed
  const uint64_t caches = random.below(4);  // none has one, mixed, all
  uint32_t largest = 512;
  for (size_t i = 0; i < count + 1; ++i) {
    sim::SimDiskOptions disk = sim::SimDiskOptions::drawn(random);
    if (blocks < 2) disk.logical_block = blocks == 0 ? 512 : 4096;
    // A disk that comes later has no larger blocks.
    if (i == count) disk.logical_block = std::min(disk.logical_block, largest);
    largest = std::max(largest, disk.logical_block);
    disk.physical_block = std::max(disk.physical_block, disk.logical_block);
    if (caches != 1) disk.cache = caches == 0 ? sim::Cache::kNone : sim::Cache::kVolatile;
    plan.disks.push_back(disk);
    (i < count ? plan.load.disks : plan.load.spare).push_back(fmt::format("/disk{}", i));
  }
  plan.load.extent_bytes = static_cast<uint32_t>((blocks == 0 ? 64 : 256) * kKiB);
  plan.disk_bytes = (blocks == 0 ? random.between(30, 120) : random.between(10, 40)) * plan.load.extent_bytes;
  if (count == 1) plan.disk_bytes += 1 * kMiB;
}

}  // namespace

PoolRunPlan draw_pool_plan(uint64_t seed, Scenario scenario) {
  Prng random(sim::mix_hash(0x706f6f6cU, seed));
  PoolRunPlan plan;
  plan.settings = sim::SimSettings::drawn(seed);
  make_bearable(plan.settings);
  plan.settings.disk.latency_max = std::min<Duration>(plan.settings.disk.latency_max, std::chrono::milliseconds(2));
  plan.settings.disk.latency_min = std::min(plan.settings.disk.latency_min, plan.settings.disk.latency_max);
  plan.shards = random.between(1, 2);
  draw_disks(random, plan);
  test::PoolLoadPlan& load = plan.load;
  load.journal_bytes = pool::kJournalBytesMin + (random.coin() ? 0 : random.below(32) * pool::kPageBytes);
  load.sync_interval = Duration(static_cast<int64_t>(random.skewed(1'000'000, 1'000'000'000)));
  load.cache_bytes = random.coin() ? 64 * kKiB : 0;  // of all pages, hardly more than requests need at once
  load.workers = static_cast<uint32_t>(random.skewed(1, 4));
  load.administrators = static_cast<uint32_t>(random.between(1, 2));
  load.sessions = static_cast<uint32_t>(random.skewed(1, 6));
  load.requests = static_cast<uint32_t>(random.skewed(2, 24));
  load.changes = static_cast<uint32_t>(random.skewed(2, 24));
  load.objects_max = static_cast<uint32_t>(random.skewed(2, 8));
  load.object_bytes_max = random.skewed(2, 12) * load.extent_bytes;
  load.request_bytes_max = random.skewed(4 * kKiB, 2 * load.extent_bytes);
  const uint64_t crashes = random.between(2, 6);
  for (uint64_t i = 0; i < crashes; ++i) plan.crashes.push_back(draw_crash(random));
  // Units: the default, or any size from the smallest that may be to a whole extent.
  if (Prng units(sim::mix_hash(0x756e6974U, seed)); units.coin()) {
    uint32_t least = load.extent_bytes / pool::kUnitsMax;
    for (const sim::SimDiskOptions& disk : plan.disks) least = std::max(least, disk.logical_block);
    load.unit_bytes = least << units.below(static_cast<uint64_t>(std::bit_width(load.extent_bytes / least)));
  }
  // Some lives are long enough for the journal to come round.
  if (Prng(sim::mix_hash(0x6c6f6e67U, seed)).one_in(16)) {
    load.sessions *= 6;
    load.requests *= 10;
    for (CrashPlan& crash : plan.crashes) crash.count *= 40;
  }
  if (scenario == Scenario::kLying) {
    for (sim::SimDiskOptions& disk : plan.disks) {
      disk.cache = sim::Cache::kVolatile;
      disk.ignores_flushes = true;
    }
    for (CrashPlan& crash : plan.crashes) crash.kind = sim::CrashKind::kPowerLost;
  }
  return plan;
}

std::string to_string(const PoolRunPlan& plan) {
  std::string text = fmt::format(
      "shards={} extent={} unit={} journal={} disk_bytes={} workers={} administrators={} sessions={} requests={} "
      "changes={} "
      "objects={} object_bytes={} cache={} disks=",
      plan.shards, plan.load.extent_bytes, plan.load.unit_bytes, plan.load.journal_bytes, plan.disk_bytes,
      plan.load.workers, plan.load.administrators, plan.load.sessions, plan.load.requests, plan.load.changes,
      plan.load.objects_max, plan.load.object_bytes_max, plan.load.cache_bytes);
  for (const sim::SimDiskOptions& disk : plan.disks) {
    text += fmt::format("{}{},", disk.logical_block, disk.cache == sim::Cache::kVolatile ? "v" : "");
  }
  text += " crashes=";
  for (const CrashPlan& crash : plan.crashes) {
    text += fmt::format("{}{}:{}{},", crash.kind == sim::CrashKind::kPowerLost ? "power" : "kill",
                        crash.is_double ? "+power" : "", static_cast<int>(crash.point),
                        crash.point == Point::kTime ? fmt::format("@{}us", crash.time.count() / 1000)
                                                    : fmt::format("#{}", crash.count));
  }
  return text;
}

}  // namespace fairlead::sim_test
