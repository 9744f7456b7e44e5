// Each deliberate defect of the protocol is found by the mirror scenario, within some seeds that the protocol as it is
// passes. Built with mirror's own sources compiled anew, FAIRLEAD_MUTANTS set.
#include <array>
#include <cstdio>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mirror/mutant.h"
#include "scenario.h"

namespace fairlead::sim_test {
namespace {

using mirror::Mutant;

constexpr uint64_t kSeeds = 6000;
// Tried first, by mutant: they found them. A change of the protocol, or of the scenario, makes of a seed another run;
// then all are searched, which says what to write here.
constexpr std::array<uint64_t, static_cast<size_t>(mirror::kLastMutant) + 1> kFoundBy = {
    0, 40, 28, 590, 2628, 146, 7734, 770, 40, 4148, 244, 455, 479, 9653, 145};

bool passes(uint64_t seed) {
  return run_seed(seed, {.scenario = Scenario::kMirror, .message = nullptr, .report = nullptr, .listener = nullptr})
      .passed;
}

// In a process of its own: some defects end in a check that fails. 0: none of the seeds found anything.
int run_mutant(Mutant mutant, uint64_t seeds) {
  const pid_t child = fork();
  if (child == 0) {
    mirror::active_mutant = mutant;
    // Odd seeds have snapshots.
    const uint64_t first = mutant >= Mutant::kCutsWithoutHold ? 1 : 2;
    const uint64_t known = kFoundBy.at(static_cast<size_t>(mutant));
    if (known != 0 && !passes(known)) _exit(1);
    for (uint64_t i = 0; i < seeds; ++i) {
      std::printf("mutant %d: seed %llu\n", static_cast<int>(mutant), static_cast<unsigned long long>(first + 2 * i));
      (void)std::fflush(stdout);  // it may end in a check
      if (!passes(first + 2 * i)) _exit(1);
    }
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

class MirrorMutantTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Each, MirrorMutantTest, testing::Range(1, static_cast<int>(mirror::kLastMutant) + 1));

TEST_P(MirrorMutantTest, IsFound) { EXPECT_NE(run_mutant(static_cast<Mutant>(GetParam()), kSeeds), 0); }

TEST(MirrorMutantTest, TheProtocolAsItIsPasses) { EXPECT_EQ(run_mutant(Mutant::kNone, 100), 0); }

}  // namespace
}  // namespace fairlead::sim_test
