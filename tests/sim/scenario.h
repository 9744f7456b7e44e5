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

struct Outcome {
  bool passed = false;
  uint64_t hash = 0;
  uint64_t turns = 0;
  uint64_t virtual_ms = 0;
  std::array<uint64_t, kProbeCount> probes{};
  std::array<uint64_t, kFaultPointCount> fault_points{};
  std::array<uint64_t, sim::kSimFaultCount> faults{};
  host::RemoteDevice::Statistics hosts;  // of all devices of hosts of src/host
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
Outcome outcome_of(const sim::SimWorld& world, bool passed);

}  // namespace fairlead::sim_test
