// Scenario: one run of one seed, from an empty world to the verdict. One thread; several may run in several processes.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/fault.h"
#include "host/remote_device.h"
#include "plan.h"
#include "sim/core.h"
#include "sim/trace.h"
#include "sim/world.h"

namespace fairlead::sim_test {

// What a run of kEngines went through.
struct EngineCounts {
  uint64_t kills = 0;
  uint64_t power_losses = 0;  // of one engine
  uint64_t blackouts = 0;     // of all engines at once
  uint64_t stops = 0;         // in good order
  uint64_t partitions = 0;
  uint64_t resets = 0;
  uint64_t stalls = 0;
  uint64_t hangs = 0;       // of disks
  uint64_t sicknesses = 0;  // of disks that fail for a while, or have places that cannot be read
  uint64_t mended = 0;      // disks of which these places were still there in the end
  uint64_t rebuilds = 0;    // of the witness
  uint64_t targets = 0;     // started
  uint64_t take_overs = 0;  // that came to serve
  uint64_t returns = 0;     // of replicas, to a target that served
  uint64_t snapshots = 0;  // that were taken
  uint64_t deletions = 0;
  uint64_t acknowledged = 0;
  uint64_t flushes = 0;
  uint64_t reads = 0;
  uint64_t host_errors = 0;  // that a host over NVMe saw, and may see
};
EngineCounts& operator+=(EngineCounts& sum, const EngineCounts& more);
std::string to_string(const EngineCounts& counts);

struct Outcome {
  bool passed = false;
  uint64_t hash = 0;
  uint64_t turns = 0;
  uint64_t virtual_ms = 0;
  std::array<uint64_t, kProbeCount> probes{};
  std::array<uint64_t, kFaultPointCount> fault_points{};
  std::array<uint64_t, sim::kSimFaultCount> faults{};
  host::RemoteDevice::Statistics hosts;  // of all devices of hosts of src/host
  EngineCounts engines;
};

// `message` gets what went wrong, one line; `report` the trace's tail, settings and counts. `listener` may be null.
struct RunOptions {
  Scenario scenario = Scenario::kChaos;
  std::string* message = nullptr;
  std::string* report = nullptr;
  sim::TraceListener* listener = nullptr;
};
Outcome run_seed(uint64_t seed, const RunOptions& options);
// For Scenario::kHost and kHasty.
Outcome run_host_seed(uint64_t seed, const RunOptions& options);
// For Scenario::kPool and kLying.
Outcome run_pool_seed(uint64_t seed, const RunOptions& options);
// For Scenario::kMirror.
Outcome run_mirror_seed(uint64_t seed, const RunOptions& options);
// For Scenario::kEngines.
Outcome run_engines_seed(uint64_t seed, const RunOptions& options);
// For Scenario::kControl.
Outcome run_control_seed(uint64_t seed, const RunOptions& options);
Outcome outcome_of(const sim::SimWorld& world, bool passed);

}  // namespace fairlead::sim_test
