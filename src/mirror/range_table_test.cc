#include "mirror/range_table.h"

#include <gtest/gtest.h>
#include <set>
#include <vector>

#include "mirror/test_seed.h"

namespace fairlead::mirror {
namespace {

using Outcome = RangeTable::Outcome;

constexpr uint64_t kBlock = RangeTable::kBlockBytes;
constexpr uint64_t kTableBytes = RangeTable::kWords * RangeTable::kWordBytes;

TEST(RangeTableTest, LocksByBlocks) {
  RangeTable table;
  EXPECT_EQ(table.try_lock({kBlock + 512, kBlock + 1024}), Outcome::kLocked);
  EXPECT_EQ(table.try_lock({2 * kBlock - 512, 3 * kBlock}), Outcome::kBusy);
  EXPECT_EQ(table.try_lock({0, kBlock}), Outcome::kLocked);
  EXPECT_EQ(table.try_lock({2 * kBlock, 2 * kBlock + 1}), Outcome::kLocked);
  table.unlock({kBlock + 512, kBlock + 1024});
  EXPECT_TRUE(table.is_locked({0, 2 * kBlock}));
  EXPECT_FALSE(table.is_locked({kBlock, 2 * kBlock}));
  EXPECT_FALSE(table.is_locked({0, 0}));
}

TEST(RangeTableTest, ABusyRangeIsLeftAsItWas) {
  RangeTable table;
  const uint64_t last = 3 * RangeTable::kWordBytes;
  ASSERT_EQ(table.try_lock({last, last + kBlock}), Outcome::kLocked);
  EXPECT_EQ(table.try_lock({kBlock, last + kBlock}), Outcome::kBusy);
  EXPECT_FALSE(table.is_locked({0, last}));
  EXPECT_EQ(table.try_lock({0, last}), Outcome::kLocked);
}

TEST(RangeTableTest, ClaimsAreOfRegionsAndCounted) {
  RangeTable table;
  constexpr uint64_t kRegion = RangeTable::kClaimBytes;
  EXPECT_FALSE(table.is_claimed({0, kTableBytes}));
  table.claim({kRegion, 2 * kRegion});
  table.claim({2 * kRegion - 1, 2 * kRegion + 1});
  EXPECT_FALSE(table.is_claimed({0, kRegion}));
  EXPECT_TRUE(table.is_claimed({kRegion + kBlock, kRegion + 2 * kBlock}));
  EXPECT_TRUE(table.is_claimed({0, kRegion + 1}));
  EXPECT_TRUE(table.is_claimed({2 * kRegion, 3 * kRegion}));
  EXPECT_TRUE(table.is_claimed({kTableBytes + kRegion, kTableBytes + kRegion + 1})) << "it has the same place";
  EXPECT_TRUE(table.is_claimed({4 * kRegion, 4 * kRegion + 2 * kTableBytes})) << "longer than the table";
  EXPECT_EQ(table.try_lock({kRegion, 2 * kRegion}), Outcome::kLocked) << "a claim is no lock";
  table.disclaim({kRegion, 2 * kRegion});
  EXPECT_TRUE(table.is_claimed({kRegion, 2 * kRegion}));
  table.disclaim({2 * kRegion - 1, 2 * kRegion + 1});
  EXPECT_FALSE(table.is_claimed({0, kTableBytes}));
}

TEST(RangeTableTest, TheLongestRangeAndTheEndOfTheTable) {
  RangeTable table;
  // From the middle of a word over the table's end.
  const uint64_t begin = kTableBytes - RangeTable::kLockBytesMax / 2 + 5 * kBlock;
  const ByteRange range{begin, begin + RangeTable::kLockBytesMax};
  EXPECT_EQ(table.try_lock(range), Outcome::kLocked);
  EXPECT_EQ(table.try_lock({0, 1}), Outcome::kBusy) << "the same place in the table";
  EXPECT_EQ(table.try_lock({range.end - 1, range.end}), Outcome::kBusy);
  EXPECT_EQ(table.try_lock({range.end, range.end + 1}), Outcome::kLocked);
  EXPECT_EQ(table.try_lock({begin - 1, begin}), Outcome::kLocked);
  EXPECT_TRUE(table.is_locked({0, 2 * kTableBytes}));
  table.unlock(range);
  EXPECT_FALSE(table.is_locked(range));
  table.unlock({range.end, range.end + 1});
  table.unlock({begin - 1, begin});
  EXPECT_FALSE(table.is_locked({0, 2 * kTableBytes}));
}

TEST(RangeTableTest, AWatchSeesEachBlockFreeOnce) {
  RangeTable table;
  const ByteRange range{RangeTable::kWordBytes - 2 * kBlock, RangeTable::kWordBytes + 2 * kBlock};
  const ByteRange low{range.begin, range.begin + kBlock};
  const ByteRange middle{range.begin + kBlock, RangeTable::kWordBytes};
  const ByteRange high{range.end - kBlock, range.end};
  for (const ByteRange& each : {low, middle, high}) ASSERT_EQ(table.try_lock(each), Outcome::kLocked);
  RangeTable::Watch watch{.left = range};
  EXPECT_FALSE(table.was_free(watch));
  table.unlock(low);
  EXPECT_FALSE(table.was_free(watch));
  ASSERT_EQ(table.try_lock(low), Outcome::kLocked);  // the next write: no matter
  table.unlock(middle);
  EXPECT_FALSE(table.was_free(watch)) << "the other word";
  table.unlock(high);
  EXPECT_TRUE(table.was_free(watch));
  EXPECT_TRUE(table.is_locked(range));
}

// Against a set of blocks, at random: ranges that are near each other, whatever is between them in the table.
TEST(RangeTableTest, IsAsASetOfBlocks) {
  const uint64_t seed = test::draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t bound) { return random() % bound; };
  RangeTable table;
  std::set<uint64_t> locked;  // blocks of the table
  std::vector<ByteRange> held;
  const auto blocks = [](ByteRange range, auto visit) {
    for (uint64_t block = range.begin / kBlock; block <= (range.end - 1) / kBlock; ++block) {
      visit(block % (kTableBytes / kBlock));
    }
  };
  for (int round = 0; round < 20000; ++round) {
    const uint64_t at = kTableBytes * below(3) + RangeTable::kWordBytes * 14 + below(4 * RangeTable::kWordBytes);
    const uint64_t begin = below(2) == 0 ? at : at - 16 * RangeTable::kWordBytes + kTableBytes;
    const ByteRange range{begin, begin + 1 + below(below(4) == 0 ? 3 * RangeTable::kWordBytes : 4 * kBlock)};
    bool is_free = true;
    blocks(range, [&](uint64_t block) { is_free = is_free && !locked.contains(block); });
    ASSERT_EQ(table.is_locked(range), !is_free);
    if (below(2) == 0) {
      ASSERT_EQ(table.try_lock(range), is_free ? Outcome::kLocked : Outcome::kBusy);
      if (!is_free) continue;
      held.push_back(range);
      blocks(range, [&](uint64_t block) { locked.insert(block); });
    } else if (!held.empty()) {
      std::swap(held[below(held.size())], held.back());
      table.unlock(held.back());
      blocks(held.back(), [&](uint64_t block) { locked.erase(block); });
      held.pop_back();
    }
  }
}

}  // namespace
}  // namespace fairlead::mirror
