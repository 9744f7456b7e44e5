#include "tests/support/block_history.h"

#include <gtest/gtest.h>

namespace fairlead::test {
namespace {

constexpr uint32_t kBlock = 512;
constexpr BlockRange kOne{5, 1};

class BlockHistoryTest : public ::testing::Test {
 protected:
  static std::vector<std::byte> bytes(Content content) {
    std::vector<std::byte> block(kBlock);
    fill_block(block, kOne.first, content);
    return block;
  }
  bool reads(Content content, BlockHistory& from) {
    const uint64_t began = clock.begin_read();
    const bool is_right = from.check_read(began, kOne, bytes(content), kBlock).empty();
    clock.end_read(began);
    return is_right;
  }
  bool reads(Content content) { return reads(content, history); }
  void begin(uint64_t id, BlockHistory& of) { of.begin_write(kOne, id, id); }
  void write(uint64_t id) {
    begin(id, history);
    history.write_done(kOne, id, BlockHistory::Surely::kYes, false);
  }
  void flush() { history.flushed(clock.tick()); }

  HistoryClock clock;
  BlockHistory history{clock, 16};
};

TEST_F(BlockHistoryTest, FreshBlocksAreZeroesAndForeignBytesAreFound) {
  EXPECT_TRUE(reads(kZeroContent));
  EXPECT_FALSE(reads(77));
  std::vector<std::byte> block = bytes(kZeroContent);
  block[100] = std::byte{1};
  EXPECT_FALSE(history.check_read(clock.begin_read(), kOne, block, kBlock).empty());
  write(1);
  block = bytes(1);
  block[kBlock - 1] ^= std::byte{1};
  EXPECT_FALSE(history.check_read(clock.begin_read(), kOne, block, kBlock).empty());
  fill_block(block, kOne.first + 1, 1);  // of its neighbour
  EXPECT_FALSE(history.check_read(clock.begin_read(), kOne, block, kBlock).empty());
}

TEST_F(BlockHistoryTest, AReadGivesTheLastWriteOrOneUnderWayAndNeverGoesBack) {
  write(1);
  write(2);
  EXPECT_FALSE(reads(1));
  EXPECT_TRUE(reads(2));
  begin(3, history);
  EXPECT_TRUE(reads(2));
  EXPECT_TRUE(reads(3));
  EXPECT_FALSE(reads(2));
}

TEST_F(BlockHistoryTest, AFailedWriteMayHaveHappenedUntilAReadTells) {
  write(1);
  begin(2, history);
  history.write_failed(kOne, 2);
  EXPECT_EQ(history.certain(kOne.first), std::nullopt);
  EXPECT_TRUE(reads(1));
  EXPECT_FALSE(reads(2));
  EXPECT_EQ(history.certain(kOne.first), 1U);
}

TEST_F(BlockHistoryTest, PowerLossTakesWhatWasNotFlushedAndWhatItLeftStays) {
  write(1);
  flush();
  write(2);
  write(3);
  history.power_lost();
  EXPECT_FALSE(reads(kZeroContent));
  EXPECT_TRUE(reads(2));
  EXPECT_FALSE(reads(3));
  EXPECT_FALSE(reads(1));
  history.power_lost();
  EXPECT_TRUE(reads(2));
}

// A host's read may outlast a power loss of whom it asked.
TEST_F(BlockHistoryTest, AReadThatBeganBeforeAllGivesWhatWasThere) {
  const uint64_t early = clock.begin_read();
  write(1);
  history.power_lost();
  EXPECT_TRUE(reads(1));
  EXPECT_EQ(history.check_read(early, kOne, bytes(kZeroContent), kBlock), "");
  clock.end_read(early);
  EXPECT_TRUE(reads(1));
  EXPECT_FALSE(reads(kZeroContent));
}

TEST_F(BlockHistoryTest, AKilledProcessLosesNothingThatWasAcknowledged) {
  write(1);
  write(2);
  begin(3, history);
  history.process_killed();
  EXPECT_FALSE(reads(1));
  EXPECT_TRUE(reads(3));
  // The power may still go before anything was flushed.
  history.power_lost();
  EXPECT_TRUE(reads(1));
}

TEST_F(BlockHistoryTest, AnUnsureDiscardGivesOldBytesOrZeroes) {
  write(1);
  history.begin_write(kOne, kZeroContent, 2);
  history.write_done(kOne, 2, BlockHistory::Surely::kPerhaps, true);
  EXPECT_TRUE(reads(1));
  EXPECT_FALSE(reads(kZeroContent));
}

TEST_F(BlockHistoryTest, ASnapshotHoldsWhatWasAcknowledgedAndNeverChanges) {
  write(1);
  write(2);
  const uint64_t began = clock.begin_read();
  begin(3, history);
  BlockHistory snapshot = history.frozen(began);
  clock.end_read(began);
  write(4);
  EXPECT_FALSE(reads(1, snapshot));
  EXPECT_FALSE(reads(4, snapshot));
  BlockHistory clone = snapshot.clone();
  EXPECT_TRUE(reads(3, snapshot));
  EXPECT_FALSE(reads(2, snapshot));
  snapshot.power_lost();
  EXPECT_TRUE(reads(3, snapshot));
  begin(9, clone);
  clone.write_done(kOne, 9, BlockHistory::Surely::kYes, false);
  EXPECT_TRUE(reads(9, clone));
  EXPECT_FALSE(reads(9, snapshot));
  clone.power_lost();
  EXPECT_TRUE(reads(2, clone));
}

TEST_F(BlockHistoryTest, WhatIsAddedIsZeroes) {
  write(1);
  history.resize(5);
  history.resize(16);
  EXPECT_TRUE(reads(kZeroContent));
  EXPECT_FALSE(reads(1));
}

}  // namespace
}  // namespace fairlead::test
