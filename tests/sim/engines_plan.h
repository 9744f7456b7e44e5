// What a run of scenario `engines` is made of: engines with pools, volumes whose replicas they hold, and what may fail.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/remote_link.h"
#include "mirror/options.h"
#include "plan.h"
#include "target/options.h"

namespace fairlead::sim_test {

struct EnginePlan {
  size_t shards = 1;
  std::vector<sim::SimDiskOptions> disks;
  size_t listeners = 1;
  target::TargetOptions target;
};

struct EngineVolumePlan {
  std::vector<size_t> engines;  // that hold a replica
  uint64_t blocks = 0;          // of kEngineBlock
  size_t workers = 1;           // of each target
  uint64_t unit_max = 16;       // of one request
  uint64_t requests = 0;        // of all workers together
  // Used by a host over NVMe, which has a path to every listener of every engine; otherwise by the devices of its
  // target.
  bool has_host = false;
  size_t host_shards = 1;
  mirror::MirrorOptions options;
};
inline constexpr uint32_t kEngineBlock = 512;  // what a disk may write alone when power is lost
inline constexpr uint32_t kEngineUnit = 4096;  // of requests: what every disk can address

struct EnginesPlan {
  sim::SimSettings settings;
  std::vector<EnginePlan> engines;
  std::vector<EngineVolumePlan> volumes;
  uint64_t disk_bytes = 0;
  uint32_t pool_extent_bytes = 0;
  uint64_t cache_bytes = 0;
  Duration sync_interval{};
  host::SubsystemOptions host;  // of links
  host::SubsystemOptions user;  // of hosts that use volumes
  Duration call_limit{};
  Duration witness_delay_max{};  // each way
  Duration witness_limit{};      // a call that has no answer then ends with an error
  sim::DiskRates disk;
  // The one engine whose disks fail for good now and then: what it has others have too, but of volumes of one replica.
  std::optional<size_t> sick;
  sim::DiskRates sickness;  // while it lasts
  Duration trouble_every{};
  size_t troubles = 10;
  uint64_t kinds_of_trouble = 18;  // 28: with snapshots
};
inline constexpr Duration kEngineLeaseMax = std::chrono::milliseconds(500);
inline constexpr Duration kEngineStallMax = std::chrono::seconds(3);  // of a shard
inline constexpr Duration kPatience = std::chrono::hours(24);

EnginesPlan draw_engines_plan(uint64_t seed);
std::string to_string(const EnginesPlan& plan);

}  // namespace fairlead::sim_test
