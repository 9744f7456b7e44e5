// Plan: what one seed's run is made of. Drawn before anything runs, so that a run can be told about in one line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/disk.h"
#include "sim/prng.h"
#include "sim/settings.h"

namespace fairlead::sim_test {

struct VolumePlan {
  uint32_t block_bytes = 4096;
  uint64_t blocks = 128;
  bool volatile_cache = true;
  sim::DiscardReads discard_reads = sim::DiscardReads::kZeroes;
  bool can_discard = true;
  bool can_write_zeroes = true;
  uint64_t size_bytes() const { return blocks * block_bytes; }
};

struct TargetPlan {
  size_t shards = 1;
  size_t engines = 1;    // targets that serve the same volumes side by side, and know nothing of each other
  size_t listeners = 1;  // of each engine
  uint8_t transfer_shift = 8;
  uint32_t in_capsule_bytes = 16 * 1024;
  uint16_t queue_entries_max = 1024;
  std::vector<VolumePlan> volumes;
};

struct ClientPlan {
  size_t target = 0;
  uint16_t queues = 1;
  uint16_t workers = 2;  // each queue's; each has one command under way
  uint32_t keep_alive_ms = 2000;
  uint32_t patience_ms = 5000;  // without any progress it drops its connections
  bool header_digest = false;
  bool data_digest = false;
  bool disable_flow_control = false;
  bool write_cache = true;
  uint32_t in_capsule_max = 8192;
};

// A host of src/host.
struct HostPlan {
  size_t shards = 1;
  uint16_t workers = 2;  // each shard's; each has one request under way
  uint16_t queue_depth = 32;
  bool header_digest = false;
  bool data_digest = false;
  uint32_t keep_alive_ms = 2000;
  uint32_t connect_timeout_ms = 1000;
  uint32_t admin_timeout_ms = 2000;
  uint32_t command_timeout_ms = 2000;
  uint32_t abort_timeout_ms = 500;
  uint32_t reconnect_min_ms = 10;
  uint32_t reconnect_max_ms = 500;
  uint32_t no_path_timeout_ms = 1000;
  uint32_t quiesce_ms = 0;
  std::vector<size_t> paths;  // of the target
};
inline constexpr uint32_t kStallMaxMs = 400;
inline constexpr uint32_t kPatientMs = 3'600'000;  // no_path_timeout_ms: no outage lasts so long

// Faults that this run may meet; a subset of those there are.
struct ChaosPlan {
  bool partitions = false;
  bool resets = false;
  bool power_loss = false;
  bool kills = false;
  bool restarts = false;  // in good order
  bool client_loss = false;
  bool namespace_changes = false;
  bool ana_changes = false;
  bool resizes = false;
  bool no_room = false;
  // Of hosts of src/host only.
  bool links = false;    // of single listeners
  bool engines = false;  // stop and start in good order
  bool stalls = false;
  bool host_restarts = false;  // in good order, and as a crash
  sim::DiskRates disk;
  uint32_t actions = 6;  // a round
};

struct Plan {
  sim::SimSettings settings;
  std::vector<TargetPlan> targets;
  std::vector<ClientPlan> clients;
  std::vector<HostPlan> hosts;
  ChaosPlan chaos;
  bool hostile = false;
  uint32_t rounds = 2;
  uint32_t commands = 30;   // of each worker, in each round
  uint32_t blocks_max = 8;  // of a usual command
  uint32_t blocks_large = 64;
};

enum class Scenario : uint8_t {
  kChaos,  // everything
  kCalm,   // no fault at all: any error is a defect
  kPower,  // crashes above all
  kHost,   // hosts of src/host, with several paths to one target
  kHasty,  // the same, but they do not wait for what a dead connection left: the checker must find it. Not in campaigns
  kBroken,   // disks that lose writes and say nothing: the checker must find it. Not in campaigns
  kPool,     // a pool whose node crashes at all kinds of points
  kLying,    // the same on disks whose flushes do nothing: the oracle must find it. Not in campaigns
  kMirror,   // a volume whose replicas are in memory: targets, links, replicas and the witness fail
  kEngines,  // volumes on engines with pools, over the network: everything fails
  kControl,  // a cluster with its control plane, of which people ask things
};
std::optional<Scenario> parse_scenario(std::string_view name);
std::string_view scenario_name(Scenario scenario);

Plan draw_plan(uint64_t seed, Scenario scenario);
// For kHost and kHasty.
Plan draw_host_plan(uint64_t seed, Scenario scenario);
// Makes settings that drew together would take hours the same kind of run, in less time.
void make_bearable(sim::SimSettings& settings);
VolumePlan draw_volume(sim::Prng& random);
sim::DiskRates draw_rates(sim::Prng& random);
std::string to_string(const Plan& plan);

}  // namespace fairlead::sim_test
