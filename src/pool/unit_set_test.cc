#include "pool/unit_set.h"

#include <bitset>
#include <gtest/gtest.h>
#include <utility>
#include <vector>

#include "pool/test_seed.h"

namespace fairlead::pool {
namespace {

using Bits = std::bitset<kUnitsMax>;

UnitSet set_of(const Bits& bits) {
  std::array<uint64_t, UnitSet::kWords> words{};
  for (size_t unit = 0; unit < kUnitsMax; ++unit) words[unit / 64] |= uint64_t{bits[unit]} << unit % 64;
  return UnitSet(words);
}
Bits bits_of(const UnitSet& set) {
  Bits bits;
  for (size_t unit = 0; unit < kUnitsMax; ++unit) bits[unit] = set.has(unit);
  return bits;
}
// Sparse, dense, of few runs, and the two extremes.
Bits draw(std::mt19937_64& random) {
  Bits bits;
  switch (random() % 8) {
    case 0:
      return bits;
    case 1:
      return bits.set();
    case 2:
    case 3:
      for (uint64_t runs = random() % 4; runs > 0; --runs) {
        for (size_t unit = random() % kUnitsMax, left = random() % 100; unit < kUnitsMax && left > 0; ++unit, --left) {
          bits.set(unit);
        }
      }
      return bits;
    default: {
      const uint64_t odds = random() % 16;
      for (size_t unit = 0; unit < kUnitsMax; ++unit) bits[unit] = random() % 16 < odds;
      return bits;
    }
  }
}
size_t next_of(const Bits& bits, size_t from, bool value) {
  while (from < kUnitsMax && bits[from] != value) ++from;
  return from;
}

TEST(UnitSetTest, EachRangeIsItsUnits) {
  for (size_t first = 0; first <= kUnitsMax; ++first) {
    Bits expected;
    for (size_t end = first; end <= kUnitsMax; ++end) {
      ASSERT_EQ(bits_of(UnitSet::range(first, end)), expected) << first << " to " << end;
      if (end < kUnitsMax) expected.set(end);
    }
  }
}

TEST(UnitSetTest, NoneAndAll) {
  EXPECT_FALSE(UnitSet().any());
  EXPECT_FALSE(UnitSet().is_all());
  EXPECT_TRUE(UnitSet::all().any());
  EXPECT_TRUE(UnitSet::all().is_all());
  EXPECT_EQ(UnitSet(), UnitSet::range(7, 7));
  EXPECT_FALSE(UnitSet::range(0, kUnitsMax - 1).is_all());
  EXPECT_FALSE(UnitSet::range(1, kUnitsMax).is_all());
  EXPECT_EQ(UnitSet().next(0), kUnitsMax);
  EXPECT_EQ(UnitSet().next_missing(5), 5U);
  EXPECT_EQ(UnitSet::all().next(5), 5U);
  EXPECT_EQ(UnitSet::all().next_missing(0), kUnitsMax);
  EXPECT_EQ(UnitSet::all().next(kUnitsMax), kUnitsMax);
}

TEST(UnitSetTest, IsASetOfBitsWhateverIsDone) {
  const uint64_t seed = draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    const Bits left = draw(random);
    const Bits right = random() % 4 == 0 ? left & draw(random) : draw(random);
    const UnitSet a = set_of(left);
    const UnitSet b = set_of(right);
    ASSERT_EQ(bits_of(a), left);
    ASSERT_EQ(UnitSet(a.words()), a);
    ASSERT_EQ(bits_of(a | b), left | right);
    ASSERT_EQ(bits_of(a & b), left & right);
    ASSERT_EQ(bits_of(a - b), left & ~right);
    UnitSet changed = a;
    changed |= b;
    ASSERT_EQ(changed, a | b);
    changed -= a;
    ASSERT_EQ(changed, b - a);
    ASSERT_EQ(a.any(), left.any());
    ASSERT_EQ(a.is_all(), left.all());
    ASSERT_EQ(a == b, left == right);
    ASSERT_EQ(a.contains(b), (left & right) == right);
    for (size_t from = 0; from < kUnitsMax; ++from) {
      ASSERT_EQ(a.next(from), next_of(left, from, true)) << from;
      ASSERT_EQ(a.next_missing(from), next_of(left, from, false)) << from;
    }
  }
}

TEST(UnitSetTest, RunsAreMaximalAndEndAtTheCount) {
  const uint64_t seed = draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    const Bits bits = draw(random);
    const size_t count = size_t{1} << random() % 9;
    std::vector<std::pair<size_t, size_t>> expected;
    for (size_t first = next_of(bits, 0, true); first < count;) {
      const size_t end = std::min(next_of(bits, first, false), count);
      expected.emplace_back(first, end);
      first = next_of(bits, end, true);
    }
    std::vector<std::pair<size_t, size_t>> runs;
    for_each_run(set_of(bits), count, [&](uint32_t first, uint32_t end) { runs.emplace_back(first, end); });
    ASSERT_EQ(runs, expected) << bits << " of " << count;
  }
}

}  // namespace
}  // namespace fairlead::pool
