// Seeds for tests that draw at random.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <gtest/gtest.h>
#include <random>

namespace fairlead::mirror::test {

// Another one for each run; FAIRLEAD_TEST_SEED repeats one.
inline uint64_t draw_seed() {
  if (const char* const text = std::getenv("FAIRLEAD_TEST_SEED"); text != nullptr) {
    return std::strtoull(text, nullptr, 0);
  }
  return std::random_device{}();
}

}  // namespace fairlead::mirror::test

// Each failure below it, in this scope, names the seed.
#define FL_TRACE_SEED(seed) SCOPED_TRACE(testing::Message() << "repeat with FAIRLEAD_TEST_SEED=" << (seed))
