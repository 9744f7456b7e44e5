#include "mirror/shared.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <vector>

#include "mirror/test_seed.h"

namespace fairlead::mirror {
namespace {

TEST(SharedTest, SizesNeedNotBeWholeExtents) {
  MirrorShared shared(3 * kExtentBytes + 512, 512);
  EXPECT_EQ(shared.unlevel.extents(), 4U);
  shared.unlevel.set(3);
  EXPECT_TRUE(shared.unlevel.any({3 * kExtentBytes, 3 * kExtentBytes + 512}));
  EXPECT_FALSE(shared.unlevel.any({0, 3 * kExtentBytes}));
  EXPECT_FALSE(shared.unlevel.test(4)) << "the volume has grown since";
  EXPECT_FALSE(shared.unlevel.any({4 * kExtentBytes, 9 * kExtentBytes}));
  EXPECT_FALSE(shared.unlevel.any({5, 5}));
}

TEST(SharedTest, WaitersAreCounted) {
  MirrorShared shared(kExtentBytes);
  EXPECT_FALSE(shared.has_waiters());
  shared.begin_waiting();
  shared.begin_waiting();
  shared.end_waiting();
  EXPECT_TRUE(shared.has_waiters());
  shared.end_waiting();
  EXPECT_FALSE(shared.has_waiters());
}

TEST(SharedTest, WhatIsTouchedIsOfTheReturnsThatThereAre) {
  MirrorShared shared(4 * kExtentBytes + 512);
  shared.touched.set(1);
  {
    const MirrorShared::Returning first(shared);
    EXPECT_EQ(shared.returns.load(), 1U);
    EXPECT_EQ(shared.touched.count(), 0U);
    shared.note_touched({2 * kExtentBytes - 1, 2 * kExtentBytes + 1});
    shared.note_touched({4 * kExtentBytes, 9 * kExtentBytes});  // the volume has grown since
    const MirrorShared::Returning second(shared);
    EXPECT_EQ(shared.touched.count(), 3U) << "the first goes on";
  }
  EXPECT_EQ(shared.returns.load(), 0U);
  ExtentBits wanted(shared.touched.extents());
  EXPECT_EQ(wanted.next_not_in(shared.touched), wanted.extents());
  for (const uint64_t extent : {1U, 3U, 4U}) wanted.set(extent);
  EXPECT_EQ(wanted.next_not_in(shared.touched), 3U);
  wanted.clear(3);
  EXPECT_EQ(wanted.next_not_in(shared.touched), wanted.extents());
}

TEST(SharedTest, ExtentBitsAreAsAVectorOfBool) {
  const uint64_t seed = test::draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  for (const uint64_t extents : {uint64_t{0}, uint64_t{1}, uint64_t{64}, uint64_t{65}, 1 + random() % 300}) {
    ExtentBits bits(extents);
    std::vector<bool> model(extents);
    const auto next = [&](uint64_t from, uint64_t end) {
      while (from < std::min(end, extents) && !model[from]) ++from;
      return from < std::min(end, extents) ? from : extents;
    };
    for (int round = 0; round < 2000; ++round) {
      const uint64_t extent = random() % (extents + 10);
      if (extent < extents) {
        const bool sets = random() % 3 == 0;
        sets ? bits.set(extent) : bits.clear(extent);
        model[extent] = sets;
      }
      ASSERT_EQ(bits.count(), static_cast<uint64_t>(std::ranges::count(model, true)));
      const uint64_t from = random() % (extents + 10);
      ASSERT_EQ(bits.test(from), from < extents && model[from]);
      ASSERT_EQ(bits.next(from), next(from, extents));
      const ByteRange range{from * kExtentBytes + random() % kExtentBytes,
                            (from + 1 + random() % 80) * kExtentBytes + 1 + random() % kExtentBytes};
      const uint64_t first = next(range.begin / kExtentBytes, (range.end + kExtentBytes - 1) / kExtentBytes);
      ASSERT_EQ(bits.next_in(range), first);
      ASSERT_EQ(bits.any(range), first < extents);
    }
  }
}

}  // namespace
}  // namespace fairlead::mirror
