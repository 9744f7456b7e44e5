#include "checker.h"

#include <gtest/gtest.h>
#include <vector>

namespace fairlead::sim_test {
namespace {

constexpr uint32_t kBlock = 512;
constexpr BlockSpan kOne{5, 1};

class CheckerTest : public ::testing::Test {
 protected:
  std::vector<std::byte> bytes(VersionId version) const {
    std::vector<std::byte> block(kBlock);
    fill_block(block, 1, kOne.lba, version);
    return block;
  }
  bool reads(VersionId version) {
    const ReadTicket ticket = checker.begin_read();
    return checker.read_done(ticket, kOne, bytes(version)).empty();
  }
  WriteTicket write() {
    const WriteTicket ticket = checker.begin_write(kOne, WriteKind::kData);
    checker.write_done(ticket, Checker::Forced::kNo);
    return ticket;
  }
  void flush() { checker.flush_done(checker.begin_flush()); }

  Checker checker{1, kBlock, 16};
};

TEST_F(CheckerTest, FreshBlocksAreZeroes) {
  EXPECT_TRUE(reads(kZeroes));
  EXPECT_FALSE(reads(77));
}

TEST_F(CheckerTest, BytesThatNobodyWroteAreFound) {
  const ReadTicket ticket = checker.begin_read();
  std::vector<std::byte> block = bytes(kZeroes);
  block[100] = std::byte{1};
  EXPECT_FALSE(checker.read_done(ticket, kOne, block).empty());
  const WriteTicket written = write();
  block = bytes(written.id);
  block[kBlock - 1] ^= std::byte{1};
  EXPECT_FALSE(checker.read_done(ticket, kOne, block).empty());
  std::vector<std::byte> elsewhere(kBlock);
  fill_block(elsewhere, 1, kOne.lba + 1, written.id);
  EXPECT_FALSE(checker.read_done(ticket, kOne, elsewhere).empty());
}

TEST_F(CheckerTest, AReadGivesTheLastWrite) {
  const WriteTicket first = write();
  const WriteTicket second = write();
  EXPECT_TRUE(reads(second.id));
  EXPECT_FALSE(reads(first.id));
  EXPECT_FALSE(reads(kZeroes));
}

TEST_F(CheckerTest, AReadBesideAWriteGivesEither) {
  const WriteTicket first = write();
  const WriteTicket second = checker.begin_write(kOne, WriteKind::kData);
  EXPECT_TRUE(reads(first.id));
  EXPECT_TRUE(reads(second.id));
  // But not backwards.
  EXPECT_FALSE(reads(first.id));
  checker.write_done(second, Checker::Forced::kNo);
  EXPECT_FALSE(reads(first.id));
}

TEST_F(CheckerTest, OfTwoWritesAtOnceEitherWins) {
  const WriteTicket first = checker.begin_write(kOne, WriteKind::kData);
  const WriteTicket second = checker.begin_write(kOne, WriteKind::kData);
  checker.write_done(second, Checker::Forced::kNo);
  checker.write_done(first, Checker::Forced::kNo);
  EXPECT_FALSE(reads(kZeroes));
  EXPECT_TRUE(reads(second.id));
  EXPECT_FALSE(reads(first.id)) << "what is there does not change by itself";
}

TEST_F(CheckerTest, AFailedWriteMayHaveHappened) {
  const WriteTicket first = write();
  const WriteTicket second = checker.begin_write(kOne, WriteKind::kData);
  checker.write_failed(second);
  EXPECT_TRUE(reads(first.id));
  EXPECT_FALSE(reads(second.id)) << "it happened before it failed, or never";
}

TEST_F(CheckerTest, ALostWriteMayHappenLater) {
  const WriteTicket lost = checker.begin_write(kOne, WriteKind::kData);
  checker.write_lost(lost);
  const WriteTicket second = write();
  EXPECT_TRUE(reads(second.id));
  EXPECT_TRUE(reads(lost.id));
  EXPECT_FALSE(reads(second.id));
  const WriteTicket third = write();
  checker.settled();
  EXPECT_TRUE(reads(third.id));
  EXPECT_FALSE(reads(lost.id));
}

TEST_F(CheckerTest, ALostTryMayHappenAfterItsSecondOneAndALaterWrite) {
  const WriteTicket twice = checker.begin_write(kOne, WriteKind::kData);
  checker.write_lost(twice);
  checker.write_done(checker.again_write(twice), Checker::Forced::kYes);
  const WriteTicket later = checker.begin_write(kOne, WriteKind::kData);
  checker.write_done(later, Checker::Forced::kYes);
  checker.target_died(true);
  EXPECT_TRUE(reads(twice.id));
}

TEST_F(CheckerTest, ARefusedWriteNeverHappened) {
  const WriteTicket first = write();
  checker.write_refused(checker.begin_write(kOne, WriteKind::kData));
  EXPECT_FALSE(reads(first.id + 1));
  EXPECT_TRUE(reads(first.id));
}

TEST_F(CheckerTest, AKilledTargetLosesNothing) {
  const WriteTicket first = write();
  checker.target_died(false);
  EXPECT_FALSE(reads(kZeroes));
  EXPECT_TRUE(reads(first.id));
}

TEST_F(CheckerTest, LossOfPowerTakesWhatWasNotFlushed) {
  const WriteTicket first = write();
  flush();
  const WriteTicket second = write();
  checker.target_died(true);
  EXPECT_FALSE(reads(kZeroes)) << "flushed data was lost";
  EXPECT_TRUE(reads(first.id));
  EXPECT_FALSE(reads(second.id)) << "what was found after the crash is what there is";
}

TEST_F(CheckerTest, AnAnswerFromBeforeTheCrashTellsNothingOfAfter) {
  const WriteTicket first = write();
  flush();
  const ReadTicket early = checker.begin_read();
  const WriteTicket second = checker.begin_write(kOne, WriteKind::kData);
  checker.target_died(true);
  EXPECT_TRUE(checker.read_done(early, kOne, bytes(first.id)).empty());
  EXPECT_TRUE(reads(second.id));
}

TEST_F(CheckerTest, AForcedWriteSurvives) {
  write();
  const WriteTicket forced = checker.begin_write(kOne, WriteKind::kData);
  checker.write_done(forced, Checker::Forced::kYes);
  checker.target_died(true);
  EXPECT_FALSE(reads(kZeroes));
  EXPECT_TRUE(reads(forced.id));
}

TEST_F(CheckerTest, AFlushCoversOnlyWhatHadEnded) {
  const WriteTicket first = checker.begin_write(kOne, WriteKind::kData);
  const FlushTicket ticket = checker.begin_flush();
  checker.write_done(first, Checker::Forced::kNo);
  checker.flush_done(ticket);
  checker.target_died(true);
  EXPECT_TRUE(reads(kZeroes));
}

TEST_F(CheckerTest, CompareIsARead) {
  const WriteTicket first = write();
  EXPECT_TRUE(checker.compare_done(checker.begin_read(), kOne, bytes(first.id), true).empty());
  EXPECT_FALSE(checker.compare_done(checker.begin_read(), kOne, bytes(first.id), false).empty());
  EXPECT_FALSE(checker.compare_done(checker.begin_read(), kOne, bytes(kZeroes), true).empty());
}

// Writes of a host of ours.

TEST_F(CheckerTest, AHostsGivenUpWriteMayHappenLateButNotBehindALaterOne) {
  const WriteTicket before = write();
  const WriteTicket lost = checker.begin_host_write(kOne, WriteKind::kData);
  checker.write_given_up(lost);
  EXPECT_TRUE(reads(before.id));
  EXPECT_TRUE(reads(lost.id)) << "it happened after that read";
  const WriteTicket later = checker.begin_host_write(kOne, WriteKind::kData);
  checker.write_done(later, Checker::Forced::kNo);
  EXPECT_TRUE(reads(later.id));
  EXPECT_FALSE(reads(lost.id)) << "whatever it left under way is over";
}

TEST_F(CheckerTest, AHostsGivenUpWriteDoesNotHappenWhenAllIsQuiet) {
  const WriteTicket before = write();
  const WriteTicket lost = checker.begin_host_write(kOne, WriteKind::kData);
  checker.write_given_up(lost);
  checker.settled();
  EXPECT_TRUE(reads(before.id));
  EXPECT_FALSE(reads(lost.id));
}

TEST_F(CheckerTest, AHostsWriteGoesOnThroughACrash) {
  const WriteTicket before = checker.begin_host_write(kOne, WriteKind::kData);
  checker.write_done(before, Checker::Forced::kYes);
  const WriteTicket ticket = checker.begin_host_write(kOne, WriteKind::kData);
  checker.target_died(true);
  EXPECT_TRUE(reads(before.id)) << "not sent again yet";
  EXPECT_TRUE(reads(ticket.id));
  EXPECT_FALSE(reads(before.id));
  checker.write_done(ticket, Checker::Forced::kYes);
  checker.target_died(true);
  EXPECT_TRUE(reads(ticket.id));
  EXPECT_FALSE(reads(before.id));
}

// The part of it that was answered before the crash may be gone.
TEST_F(CheckerTest, AHostsWriteThatSpansALossOfPowerIsCertainOnlyWhenForced) {
  const WriteTicket before = checker.begin_host_write(kOne, WriteKind::kData);
  checker.write_done(before, Checker::Forced::kYes);
  const WriteTicket open = checker.begin_host_write(kOne, WriteKind::kData);
  checker.target_died(true);
  checker.write_done(open, Checker::Forced::kNo);
  EXPECT_TRUE(reads(before.id));
  const WriteTicket forced = checker.begin_host_write(kOne, WriteKind::kData);
  checker.target_died(true);
  checker.write_done(forced, Checker::Forced::kYes);
  EXPECT_FALSE(reads(before.id));
  EXPECT_FALSE(reads(open.id));
  EXPECT_TRUE(reads(forced.id));
}

}  // namespace
}  // namespace fairlead::sim_test
