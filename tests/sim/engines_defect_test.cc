// Deliberate defects of what stands between the protocol and disks, each of which simulated clusters find. Built with
// the sources that have them compiled anew, FAIRLEAD_DEFECTS set.
#include <array>
#include <cstdio>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/defect.h"
#include "scenario.h"

namespace fairlead::sim_test {
namespace {

constexpr uint64_t kSeeds = 200;
// Tried first, by defect: they found them. A change of what a seed does makes another run of it; then all are searched,
// which says what to write here.
constexpr std::array<uint64_t, static_cast<size_t>(kLastDefect) + 1> kFoundBy = {0, 23, 1, 23};

bool passes(uint64_t seed) {
  std::string message;
  const RunOptions options{.scenario = Scenario::kEngines, .message = &message, .report = nullptr, .listener = nullptr};
  const bool is_passed = run_seed(seed, options).passed;
  if (!is_passed) std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), message.c_str());
  (void)std::fflush(stdout);
  return is_passed;
}

// In a process of its own: some defects end in a check that fails. 0: none of the seeds found anything.
int run_defect(Defect defect, uint64_t seeds) {
  const pid_t child = fork();
  if (child == 0) {
    active_defect = defect;
    const uint64_t known = kFoundBy.at(static_cast<size_t>(defect));
    if (known != 0 && !passes(known)) _exit(1);
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      std::printf("defect %d: seed %llu\n", static_cast<int>(defect), static_cast<unsigned long long>(seed));
      (void)std::fflush(stdout);  // it may end in a check
      if (!passes(seed)) _exit(1);
    }
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

class EnginesDefectTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Each, EnginesDefectTest, testing::Range(1, static_cast<int>(kLastDefect) + 1));

TEST(EnginesDefectTest, PoolsAndEnginesAsTheyArePass) { EXPECT_EQ(run_defect(Defect::kNone, 3), 0); }
TEST_P(EnginesDefectTest, IsFound) { EXPECT_NE(run_defect(static_cast<Defect>(GetParam()), kSeeds), 0); }

}  // namespace
}  // namespace fairlead::sim_test
