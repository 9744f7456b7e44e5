// Campaign: many seeds, in several processes, so that a seed that aborts or hangs is one failure and no more.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace fairlead::sim_test {

struct CampaignOptions {
  std::vector<uint64_t> seeds;
  Scenario scenario = Scenario::kChaos;
  unsigned jobs = 1;
  uint64_t repeat_every = 16;  // seeds whose number is a multiple run twice, and must have the same hash. 0: none
  unsigned seconds_max = 300;  // of real time, for one seed
  bool verbose = false;
};

// Prints progress, failures with the command that repeats each, and the sum. Returns how many failed.
uint64_t run_campaign(const CampaignOptions& options);

}  // namespace fairlead::sim_test
