// What becomes of reads.
#include "mirror/test_slots.h"

namespace fairlead::mirror {
namespace {

using test::Asked;
using test::Observed;
using test::SideBed;

constexpr std::byte kA{0xaa};
constexpr std::byte kB{0xbb};
constexpr uint64_t kBlock = 4096;

size_t reads_of(const SideBed& bed, Slot slot) {
  return static_cast<size_t>(std::ranges::count(bed.replicas[slot]->asked, IoOp::kRead));
}

TEST(SideReadTest, GoToTheLocalSlot) {
  SideBed bed(3);
  bed.slot(1).is_local = true;
  bed.configure();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(bed.read(0, kBlock).is_done());
  EXPECT_EQ(reads_of(bed, 1), 3U);
}

TEST(SideReadTest, GoToTheSlotWithTheFewestElse) {
  SideBed bed(3);
  bed.use(2, SlotUse::kNeeded);
  bed.configure();
  bed.hold();
  for (int i = 0; i < 5; ++i) bed.read(0, kBlock);
  EXPECT_EQ(bed.replicas[0]->held.size(), 3U);
  EXPECT_EQ(bed.replicas[1]->held.size(), 2U);
  bed.replicas[0]->end_all();
  bed.read(0, kBlock);
  EXPECT_EQ(bed.replicas[0]->held.size(), 1U);
  EXPECT_EQ(bed.replicas[2]->held.size(), 0U) << "not read yet";
}

TEST(SideReadTest, AskTheNextAfterAnErrorOfThePath) {
  for (const Code code :
       {Code::kConnectionLost, Code::kFenced, Code::kTimedOut, Code::kUnreachable, Code::kShuttingDown}) {
    SideBed bed(2);
    bed.replicas[0]->fails = code;
    bed.replicas[1]->content.assign(4 * kMiB, kB);
    EXPECT_TRUE(bed.read(0, kBlock).reads(kB));
    EXPECT_EQ(bed.observed[0]->failures, (std::vector<Observed::Failure>{{0, 1, code}}));
    EXPECT_TRUE(bed.observed[0]->repairs.empty());
  }
}

TEST(SideReadTest, WhatAMediumCannotReadIsRepaired) {
  for (const Code code : {Code::kIo, Code::kCorrupt}) {
    SideBed bed(2);
    bed.replicas[0]->fails = code;
    bed.replicas[1]->content.assign(4 * kMiB, kB);
    EXPECT_TRUE(bed.read(kBlock, kBlock).reads(kB));
    EXPECT_TRUE(bed.observed[0]->failures.empty());
    EXPECT_EQ(bed.observed[0]->repairs,
              (std::vector<std::pair<Slot, ByteRange>>{{Slot{0}, ByteRange{kBlock, 2 * kBlock}}}));
  }
}

TEST(SideReadTest, FailWhenAllMediaFail) {
  SideBed bed(2);
  bed.replicas[0]->fails = bed.replicas[1]->fails = Code::kCorrupt;
  EXPECT_TRUE(bed.read(0, kBlock).has_failed(Code::kCorrupt));
  EXPECT_TRUE(bed.observed[0]->repairs.empty());
}

TEST(SideReadTest, WaitForASlotThatMayBeBack) {
  SideBed bed(2);
  bed.replicas[0]->fails = Code::kIo;
  bed.replicas[1]->fails = Code::kConnectionLost;
  bed.replicas[1]->content.assign(4 * kMiB, kB);
  Asked& read = bed.read(0, kBlock);
  bool is_drained = false;
  bed.drain(is_drained);
  bed.run();
  EXPECT_FALSE(read.is_answered());
  EXPECT_TRUE(is_drained) << "it waits for a slot";
  bed.replicas[1]->fails.reset();
  bed.replace(1);
  bed.use(0, SlotUse::kNeeded);
  bed.use(1, SlotUse::kNeeded, true);
  bed.configure();
  bed.run();
  EXPECT_TRUE(read.reads(kB));
  // And when it is gone for good, the medium has the word.
  bed.replicas[1]->fails = Code::kConnectionLost;
  bed.use(0, SlotUse::kNeeded, true);
  bed.configure();
  Asked& last = bed.read(0, kBlock);
  EXPECT_FALSE(last.is_answered());
  bed.use(1, SlotUse::kOff);
  bed.configure();
  EXPECT_TRUE(last.has_failed(Code::kIo));
}

TEST(SideReadTest, OfAWriteUnderWayWaitForItsEnd) {
  for (const size_t writer : {0U, 1U}) {
    SCOPED_TRACE(writer);
    SideBed bed(2, 2);
    bed.replicas[1]->holds = true;
    Asked& write = bed.write(0, 2 * kBlock, kA, writer);
    Asked& read = bed.read(kBlock, 3 * kBlock, 0);
    Asked& apart = bed.read(2 * kBlock, kBlock, 0);
    EXPECT_TRUE(apart.is_done());
    bed.look_again();
    EXPECT_FALSE(read.is_answered()) << "who takes over from the other one would not have it";
    // The next write of the same block begins before the first is answered: the read was owed but one.
    Asked& next = bed.write(kBlock, kBlock, kB, writer);
    bed.replicas[1]->end(0);
    EXPECT_TRUE(write.is_done());
    EXPECT_EQ(bed.observed[writer]->ranges_changes > 0, writer != 0);
    if (writer != 0) bed.sides[0]->look_again();
    bed.run();
    EXPECT_TRUE(read.is_done());
    EXPECT_FALSE(next.is_answered());
  }
}

// The first had done the write, but not the second, and none has it in the end.
TEST(SideReadTest, OfAWriteThatIsRefusedAreReadAnew) {
  SideBed bed(2, 2);
  bed.slot(1).is_local = true;
  bed.configure();
  for (const auto& replica : bed.replicas) replica->content.assign(4 * kMiB, kB);
  bed.hold();
  Asked& write = bed.write(0, kBlock, kA);
  std::fill_n(bed.replicas[1]->content.begin(), kBlock, kA);
  Asked& settling = bed.read(0, kBlock, 1);
  Asked& late = bed.read(0, kBlock, 1);
  bed.replicas[1]->end(1);
  bed.replicas[1]->perform(*bed.replicas[1]->held.at(1));
  IoRequest& late_part = *bed.replicas[1]->held.at(1);
  bed.replicas[1]->held.erase(bed.replicas[1]->held.begin() + 1);
  bed.replicas[0]->end(0, fail(Code::kNoSpace));
  bed.replicas[1]->end(0, fail(Code::kNoSpace));
  bed.hold(false);
  bed.run();
  EXPECT_FALSE(settling.is_answered());
  for (const auto& replica : bed.replicas) replica->end_all();
  bed.run();
  EXPECT_TRUE(write.has_failed(Code::kNoSpace));
  late_part.complete({});
  bed.sides[1]->look_again();
  EXPECT_TRUE(settling.reads(kB));
  EXPECT_TRUE(late.reads(kB)) << "back only after all was over";
}

TEST(SideReadTest, NeedALease) {
  SideBed bed(1);
  bed.run();
  const auto now = [&] { return bed.node.shard(0).clock.now().ns; };
  bed.shared->lease_until_ns = now();
  Asked& first = bed.read(0, kBlock);
  Asked& second = bed.read(0, kBlock);
  EXPECT_TRUE(bed.write(0, kBlock, kA).is_done()) << "writes need none";
  EXPECT_EQ(bed.observed[0]->leases_wanted, 1);
  EXPECT_FALSE(first.is_answered());
  bed.shared->lease_until_ns = now() + 10'000'000;
  bed.look_again();
  EXPECT_TRUE(first.is_done() && second.is_done());
  EXPECT_TRUE(bed.read(0, kBlock).is_done());
  bed.run(std::chrono::milliseconds(20));
  bool has_turned = false;  // an idle shard has no turns, and its clock stands
  bed.drain(has_turned);
  bed.run();
  Asked& late = bed.read(0, kBlock);
  EXPECT_FALSE(late.is_answered());
  EXPECT_EQ(bed.observed[0]->leases_wanted, 2);
}

TEST(SideReadTest, PassOnThatThereAreZeroes) {
  SideBed bed(1);
  bed.hold();
  auto read = std::make_unique<Asked>(kBlock);
  read->may_say_zeroes = true;
  bed.devices[0]->submit(*read);
  IoRequest& part = *bed.replicas[0]->held.at(0);
  EXPECT_TRUE(part.may_say_zeroes);
  part.says_zeroes = true;
  bed.replicas[0]->end(0);
  EXPECT_TRUE(read->says_zeroes);
}

}  // namespace
}  // namespace fairlead::mirror
