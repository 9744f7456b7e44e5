// What becomes of writes and flushes: see side_read_test.cc for reads, side_model_test.cc for all at once.
#include "mirror/side.h"

#include "mirror/test_slots.h"

namespace fairlead::mirror {
namespace {

using test::Asked;
using test::Observed;
using test::SideBed;

constexpr std::byte kA{0xaa};
constexpr std::byte kB{0xbb};
constexpr uint64_t kBlock = 4096;

TEST(SideTest, WritesGoToAllAndAreAnsweredWhenAllHaveEnded) {
  SideBed bed(3);
  bed.use(2, SlotUse::kCopied);
  bed.configure();
  bed.hold();
  Asked& write = bed.write(kBlock, kBlock, kA);
  for (const size_t last : {1U, 0U, 2U}) {
    ASSERT_EQ(bed.replicas[last]->held.size(), 1U);
    EXPECT_FALSE(write.is_answered());
    bed.replicas[last]->end(0);
  }
  EXPECT_TRUE(write.is_done());
  EXPECT_TRUE(bed.are_equal(0, 1) && bed.are_equal(0, 2));
  EXPECT_EQ(bed.replicas[2]->content[kBlock], kA);
  EXPECT_FALSE(bed.shared->locks.is_locked({0, 4 * kMiB}));
}

TEST(SideTest, OverlappingWritesGoOneAfterTheOther) {
  SideBed bed(2, 2);
  bed.hold();
  Asked& first = bed.write(0, 2 * kBlock, kA);
  Asked& second = bed.write(kBlock, 2 * kBlock, kB, 1);
  Asked& apart = bed.write(3 * kBlock, kBlock, kB);
  Asked& third = bed.write(2 * kBlock, 512, kA, 1);  // free, but the second one was there before
  bed.run();
  EXPECT_EQ(bed.replicas[0]->held.size(), 2U);
  EXPECT_EQ(bed.observed[0]->ranges_changes, 0);
  for (const auto& replica : bed.replicas) replica->end_all();
  EXPECT_TRUE(first.is_done() && apart.is_done());
  EXPECT_GT(bed.observed[0]->ranges_changes, 0) << "the other shard waits";
  EXPECT_FALSE(second.is_answered());
  bed.look_again();
  ASSERT_EQ(bed.replicas[0]->held.size(), 1U);
  EXPECT_EQ(bed.replicas[0]->held[0]->offset.value, kBlock);
  for (const auto& replica : bed.replicas) replica->end_all();
  bed.run();  // its own shard needs nobody to tell it
  for (const auto& replica : bed.replicas) replica->end_all();
  EXPECT_TRUE(second.is_done() && third.is_done());
  EXPECT_TRUE(bed.are_equal(0, 1));
}

TEST(SideTest, AWriteThatANeededSlotLacksWaitsForARecordWithoutIt) {
  SideBed bed(2);
  bed.hold();
  Asked& write = bed.write(0, kBlock, kA);
  bed.replicas[1]->end(0, fail(Code::kConnectionLost));
  bed.replicas[0]->end(0);
  bed.hold(false);
  Asked& behind = bed.write(0, kBlock, kB);
  Asked& read = bed.read(0, kBlock);
  bed.run();
  EXPECT_EQ(bed.observed[0]->failures, (std::vector<Observed::Failure>{{1, 2, Code::kConnectionLost}}));
  bed.slot(1).is_broken = true;
  bed.configure();
  bed.run();
  EXPECT_FALSE(write.is_answered() || behind.is_answered() || read.is_answered());
  bed.use(1, SlotUse::kOff);
  bed.configure();
  EXPECT_TRUE(write.is_done());
  bed.run();
  EXPECT_TRUE(behind.is_done() && read.is_done());
  EXPECT_EQ(bed.replicas[0]->content[0], kB);
  EXPECT_EQ(bed.replicas[1]->content[0], std::byte{0}) << "nothing is sent where the slot is off";
}

TEST(SideTest, AnotherIncarnationGetsParkedWritesAnewEvenWhileHeld) {
  SideBed bed(2);
  bed.replicas[1]->fails = Code::kFenced;
  Asked& write = bed.write(0, kBlock, kA);
  Asked& flush = bed.ask(IoOp::kFlush, 0, 0);
  bed.run();
  bed.replicas[1]->fails.reset();
  bed.configuration.is_held = true;
  bed.replace(1);
  EXPECT_FALSE(write.is_answered() || flush.is_answered()) << "a member all the time";
  bed.configure();
  EXPECT_TRUE(write.is_done() && flush.is_done());
  EXPECT_TRUE(bed.are_equal(0, 1));
  EXPECT_EQ(std::ranges::count(bed.replicas[0]->asked, IoOp::kWrite), 1);
}

// What an older incarnation had done counts no more: it may be another disk.
TEST(SideTest, WhatAnOlderIncarnationHadDoneIsDoneAnew) {
  SideBed bed(2);
  bed.replicas[1]->fails = Code::kConnectionLost;
  Asked& write = bed.write(0, kBlock, kA);
  bed.slot(1).is_broken = true;
  bed.replace(0);
  std::ranges::fill(bed.replicas[0]->content, std::byte{0});
  bed.configure();
  EXPECT_FALSE(write.is_answered()) << "the second lacks it still";
  bed.use(1, SlotUse::kOff);
  bed.configure();
  EXPECT_TRUE(write.is_done());
  EXPECT_EQ(bed.replicas[0]->content[0], kA);
  EXPECT_EQ(std::ranges::count(bed.replicas[0]->asked, IoOp::kWrite), 2);
}

TEST(SideTest, NothingIsAnsweredWithoutASlot) {
  SideBed bed(1);
  bed.hold();
  Asked& write = bed.write(0, kBlock, kA);
  bed.use(0, SlotUse::kOff);
  bed.configure();
  bed.replicas[0]->end(0);
  Asked& flush = bed.ask(IoOp::kFlush, 0, 0);
  bed.run();
  EXPECT_FALSE(write.is_answered() || flush.is_answered());
  bed.hold(false);
  bed.use(0, SlotUse::kNeeded);
  bed.configure();
  EXPECT_TRUE(write.is_done() && flush.is_done());
}

TEST(SideTest, AnIncarnationThatLacksWhatWasAnsweredIsNeverRelyedOn) {
  SideBed bed(2);
  bed.use(1, SlotUse::kCopied);
  bed.configure();
  bed.replicas[1]->fails = Code::kIo;
  EXPECT_TRUE(bed.write(0, kBlock, kA).is_done()) << "nobody waits for it";
  EXPECT_EQ(bed.observed[0]->failures.size(), 1U);
  bed.replicas[1]->fails.reset();
  bed.use(1, SlotUse::kNeeded, true);
  bed.configure();
  Asked& write = bed.write(kBlock, kBlock, kA);
  EXPECT_FALSE(write.is_answered()) << "the report is on its way, the member lacks a block";
  EXPECT_TRUE(bed.read(0, kBlock).reads(kA));
  bed.replace(1);
  bed.configure();
  EXPECT_TRUE(write.is_done());
}

TEST(SideTest, FlushesWaitForAllThatAreNeeded) {
  SideBed bed(2);
  bed.hold();
  Asked& flush = bed.ask(IoOp::kFlush, 0, 0);
  bed.replicas[0]->end(0);
  EXPECT_FALSE(flush.is_answered());
  bed.replicas[1]->end(0, fail(Code::kNoSpace));  // no fault of the flush
  EXPECT_FALSE(flush.is_answered());
  EXPECT_EQ(bed.observed[0]->failures.size(), 1U);
  bed.use(1, SlotUse::kOff);
  bed.configure();
  EXPECT_TRUE(flush.is_done());
}

TEST(SideTest, ForcedWritesAreForced) {
  SideBed bed(1);
  bed.hold();
  auto forced = std::make_unique<Asked>(kBlock);
  forced->op = IoOp::kWrite;
  forced->durability = Durability::kForced;
  bed.devices[0]->submit(*forced);
  EXPECT_EQ(bed.replicas[0]->held.at(0)->durability, Durability::kForced);
  EXPECT_EQ(bed.replicas[0]->held.at(0)->buffers.data(), forced->buffers.data()) << "nothing is copied";
  bed.replicas[0]->end(0);
  EXPECT_TRUE(forced->is_done());
}

TEST(SideTest, DiscardsAreZeroesOfWholeBlocks) {
  SideBed bed(2);
  bed.write(0, 4 * kBlock, kA);
  EXPECT_TRUE(bed.ask(IoOp::kDiscard, 512, 512).is_done());
  EXPECT_EQ(bed.replicas[0]->asked.size(), 1U) << "no whole block: left as it is";
  EXPECT_TRUE(bed.ask(IoOp::kDiscard, 512, 2 * kBlock).is_done());
  for (const auto& replica : bed.replicas) {
    EXPECT_EQ(replica->asked.back(), IoOp::kWriteZeroes);
    EXPECT_EQ(replica->content[kBlock - 1], kA);
    EXPECT_EQ(replica->content[kBlock], std::byte{0});
    EXPECT_EQ(replica->content[2 * kBlock], kA);
  }
}

TEST(SideTest, LongZeroesGoInPieces) {
  SideBed bed(1, 1, 40 * kMiB);
  bed.hold();
  Asked& zeroes = bed.ask(IoOp::kWriteZeroes, kMiB, 35 * kMiB);
  bool is_drained = false;
  std::vector<std::pair<uint64_t, uint64_t>> pieces;
  while (!bed.replicas[0]->held.empty()) {
    ASSERT_EQ(bed.replicas[0]->held.size(), 1U);
    EXPECT_FALSE(zeroes.is_answered());
    const IoRequest& piece = *bed.replicas[0]->held[0];
    pieces.emplace_back(piece.offset.value / kMiB, piece.length / kMiB);
    EXPECT_TRUE(bed.shared->locks.is_locked({piece.offset.value, piece.offset.value + piece.length}));
    if (pieces.size() == 2) bed.configuration.is_held = true;
    bed.configure();
    if (pieces.size() == 2) bed.drain(is_drained);
    bed.replicas[0]->end(0);
    bed.run();
  }
  EXPECT_TRUE(is_drained) << "the rest has not begun";
  EXPECT_FALSE(zeroes.is_answered());
  bed.configuration.is_held = false;
  bed.configure();
  bed.replicas[0]->end_all();
  EXPECT_TRUE(zeroes.is_done());
  EXPECT_EQ(pieces, (std::vector<std::pair<uint64_t, uint64_t>>{{1, 15}, {16, 16}}));
}

// ---- Refusals.

TEST(SideTest, WhatAllRefuseIsAnsweredOnceTheyAreEqual) {
  SideBed bed(3);
  bed.use(2, SlotUse::kCopied);
  bed.configure();
  for (const auto& replica : bed.replicas) std::ranges::fill(replica->content, kB);
  bed.hold();
  Asked& write = bed.write(kBlock, 64 * kBlock, kA);
  // Each got to another point.
  for (const auto& replica : bed.replicas) {
    const auto written = static_cast<ptrdiff_t>(&replica - bed.replicas.data());
    std::fill_n(replica->content.begin() + kBlock, written * 20 * static_cast<ptrdiff_t>(kBlock), kA);
  }
  std::fill_n(bed.replicas[0]->content.begin() + 30 * kBlock, kBlock, std::byte{0});
  bed.replicas[2]->end(0);  // this one had room
  bed.hold(false);
  bed.replicas[0]->end(0, fail(Code::kNoSpace));
  bed.replicas[1]->end(0, fail(Code::kNoSpace));
  bed.run();
  EXPECT_TRUE(write.has_failed(Code::kNoSpace));
  EXPECT_TRUE(bed.are_equal(0, 1) && bed.are_equal(0, 2));
  EXPECT_EQ(std::ranges::count(bed.replicas[1]->asked, IoOp::kWriteZeroes), 1) << "zeroes take no room";
  EXPECT_TRUE(bed.observed[0]->failures.empty()) << "nobody is at fault";
  EXPECT_FALSE(bed.shared->locks.is_locked({0, 4 * kMiB}));
}

TEST(SideTest, WhoCannotBeMadeEqualIsAFaultAndTheAnswerWaitsForItsRecord) {
  SideBed bed(3);
  bed.hold();
  Asked& write = bed.write(0, kBlock, kA);
  bed.replicas[2]->content[5] = kB;
  bed.replicas[0]->end(0, fail(Code::kNoSpace));
  bed.replicas[1]->end(0, fail(Code::kNoSpace));
  bed.replicas[2]->end(0, fail(Code::kReadOnly));
  bed.run();
  bed.hold(false);
  bed.replicas[2]->fails = Code::kIo;
  bed.replicas[0]->end_all();  // the read of the source
  bed.run();
  EXPECT_FALSE(write.is_answered());
  EXPECT_EQ(bed.observed[0]->failures, (std::vector<Observed::Failure>{{2, 3, Code::kIo}}));
  bed.use(2, SlotUse::kOff);
  bed.configure();
  bed.run();
  EXPECT_TRUE(write.has_failed(Code::kNoSpace));
  EXPECT_TRUE(bed.are_equal(0, 1));
}

TEST(SideTest, ASourceThatFailsIsReplacedByAnother) {
  SideBed bed(3);
  bed.hold();
  Asked& write = bed.write(0, 32 * kBlock, kA);
  bed.replicas[1]->content[5] = kB;
  bed.replicas[2]->content[99] = kB;
  for (const auto& replica : bed.replicas) replica->end(0, fail(Code::kNoSpace));
  bed.run();
  bed.replicas[1]->holds = bed.replicas[2]->holds = false;
  bed.replicas[0]->end(0);  // the first piece
  bed.run();
  bed.replicas[0]->end(0, fail(Code::kConnectionLost));
  bed.run();
  EXPECT_FALSE(write.is_answered());
  bed.use(0, SlotUse::kOff);
  bed.configure();
  EXPECT_TRUE(write.has_failed(Code::kNoSpace));
  EXPECT_TRUE(bed.are_equal(1, 2));
}

// What was made equal to a source that is broken by now is not equal to the next one.
TEST(SideTest, AnotherSourceIsEqualToNobodyYet) {
  SideBed bed(2);
  bed.hold();
  Asked& write = bed.write(0, kBlock, kA);
  bed.replicas[1]->content[5] = kB;
  for (const auto& replica : bed.replicas) replica->end(0, fail(Code::kNoSpace));
  bed.run();
  bed.replicas[0]->end(0);  // the read of the source
  bed.run();
  bed.replicas[1]->end(0, fail(Code::kConnectionLost));
  bed.hold(false);
  bed.replace(1);
  bed.configure();
  // Before it was begun anew, from the same source.
  bed.slot(0).is_broken = true;
  bed.configure();
  bed.run();
  EXPECT_FALSE(write.is_answered());
  bed.replace(0);
  bed.configure();
  bed.run();
  EXPECT_TRUE(write.has_failed(Code::kNoSpace));
  EXPECT_TRUE(bed.are_equal(0, 1));
}

TEST(SideTest, WhoRefusesWhatAnotherHasDoneIsAFault) {
  SideBed bed(2);
  bed.replicas[1]->fails = Code::kNoSpace;
  Asked& write = bed.write(0, kBlock, kA);
  EXPECT_FALSE(write.is_answered());
  EXPECT_EQ(bed.observed[0]->failures, (std::vector<Observed::Failure>{{1, 2, Code::kNoSpace}}));
  bed.use(1, SlotUse::kOff);
  bed.configure();
  EXPECT_TRUE(write.is_done());
}

// One has no room, the other is gone: once it is gone for good, nobody has room.
TEST(SideTest, ARefusalWaitsForThoseThatMayYetDoIt) {
  SideBed bed(2);
  bed.replicas[0]->fails = Code::kNoSpace;
  bed.replicas[1]->fails = Code::kConnectionLost;
  Asked& write = bed.write(0, kBlock, kA);
  bed.run();
  EXPECT_FALSE(write.is_answered());
  EXPECT_EQ(bed.observed[0]->failures, (std::vector<Observed::Failure>{{1, 2, Code::kConnectionLost}}));
  bed.use(1, SlotUse::kOff);
  bed.configure();
  bed.run();
  EXPECT_TRUE(write.has_failed(Code::kNoSpace));
}

// ---- What waits.

TEST(SideTest, AHeldSideBeginsNothingAndThenInOrder) {
  SideBed bed(1);
  bed.configuration.is_held = true;
  bed.configure();
  Asked& first = bed.write(0, kBlock, kA);
  Asked& second = bed.write(0, kBlock, kB);
  Asked& read = bed.read(kBlock, kBlock);
  bed.run();
  EXPECT_TRUE(bed.replicas[0]->asked.empty());
  EXPECT_FALSE(first.is_answered() || second.is_answered() || read.is_answered());
  bed.configuration.is_held = false;
  bed.configure();
  bed.run();
  EXPECT_TRUE(first.is_done() && second.is_done() && read.is_done());
  EXPECT_EQ(bed.replicas[0]->content[0], kB);
}

TEST(SideTest, WhatWaitsAndWhatComesCanBeFailed) {
  SideBed bed(2, 2);
  bed.replicas[1]->fails = Code::kConnectionLost;
  Asked& parked = bed.write(0, kBlock, kA);
  Asked& parked_flush = bed.ask(IoOp::kFlush, 0, 0);
  Asked& settling = bed.read(0, kBlock, 1);
  bed.hold();
  Asked& under_way = bed.write(8 * kBlock, kBlock, kA);
  bed.configuration.is_held = true;
  bed.configure();
  Asked& waiting = bed.write(kBlock, kBlock, kA, 1);
  bed.fail_waiting(Code::kUnreachable);
  for (const Asked* request : {&parked, &parked_flush, &settling, &waiting}) {
    EXPECT_TRUE(request->has_failed(Code::kUnreachable));
  }
  EXPECT_FALSE(under_way.is_answered());
  bed.replicas[0]->end(0);
  bed.replicas[1]->end(0, fail(Code::kConnectionLost));
  EXPECT_TRUE(under_way.has_failed(Code::kUnreachable));
  EXPECT_TRUE(bed.write(kBlock, kBlock, kA).has_failed(Code::kUnreachable));
  EXPECT_TRUE(bed.shared->locks.is_locked({0, kBlock})) << "members differ there";
  bed.hold(false);
  bed.replicas[1]->fails.reset();
  bed.replace(1);
  bed.use(1, SlotUse::kNeeded);
  bed.configuration.is_held = false;
  bed.configure();
  EXPECT_FALSE(bed.shared->locks.is_locked({0, 4 * kMiB}));
  EXPECT_TRUE(bed.write(kBlock, kBlock, kA).is_done());
}

TEST(SideTest, DrainWaitsForWhatHasBegunAlone) {
  SideBed bed(1);
  bed.hold();
  Asked& before = bed.write(0, kBlock, kA);
  Asked& waiting = bed.write(0, kBlock, kB);
  bool is_drained = false;
  bool is_drained_again = false;
  bed.drain(is_drained);
  bed.run();
  bed.drain(is_drained_again);
  Asked& after = bed.write(kBlock, kBlock, kA);
  bed.run();
  EXPECT_FALSE(is_drained);
  bed.replicas[0]->end(0);
  EXPECT_TRUE(before.is_done());
  bed.run();
  EXPECT_TRUE(is_drained);
  EXPECT_FALSE(is_drained_again) << "two others have begun meanwhile";
  bed.replicas[0]->end_all();
  bed.run();
  EXPECT_TRUE(is_drained_again);
  EXPECT_TRUE(waiting.is_done() && after.is_done());
}

TEST(SideTest, DetachWaitsForWhatIsUnderWay) {
  SideBed bed(2);
  bed.hold();
  Asked& write = bed.write(0, kBlock, kA);
  bed.use(1, SlotUse::kOff);
  bed.configure();
  bool is_detached = false;
  bed.world.spawn(bed.node, 0, SideBed::note_end(bed.sides[0]->detach(1), is_detached));
  bed.replicas[0]->end(0);
  bed.run();
  EXPECT_FALSE(is_detached);
  EXPECT_FALSE(write.is_answered()) << "its buffers are under way";
  bed.replicas[1]->end(0, fail(Code::kConnectionLost));
  bed.run();
  EXPECT_TRUE(is_detached);
  EXPECT_TRUE(write.is_done());
}

TEST(SideTest, AStallIsReportedOnceForAnIncarnation) {
  SideBed bed(2);
  bed.replicas[1]->holds = true;
  bed.write(0, kBlock, kA);
  bed.run(SideBed::kStallLimit / 2);
  bed.write(kBlock, kBlock, kA);
  EXPECT_TRUE(bed.observed[0]->failures.empty());
  bed.run(SideBed::kStallLimit / 2 + std::chrono::milliseconds(10));
  const std::vector<Observed::Failure> once = {{1, 2, Code::kTimedOut}};
  EXPECT_EQ(bed.observed[0]->failures, once);
  bed.run(2 * SideBed::kStallLimit);
  EXPECT_EQ(bed.observed[0]->failures, once);
  bed.replicas[1]->end_all();
  bed.replace(1);
  bed.use(1, SlotUse::kNeeded);
  bed.configure();
  bed.write(0, kBlock, kA);
  bed.run(2 * SideBed::kStallLimit);
  EXPECT_EQ(bed.observed[0]->failures.size(), 2U);
}

// The first of two is here, and its disk ends nothing any more.
struct HungBed : SideBed {
  explicit HungBed(size_t shards = 1) : SideBed(2, shards) {
    slot(0).is_local = true;
    configure();
    replicas[0]->holds = true;
  }
  // As the target does: told of the stall, and once the others have recorded that the volume goes on without it.
  void fault() {
    slot(0).is_broken = true;
    use(0, SlotUse::kNeeded);
    configure();
    for (const Asked* request : left) EXPECT_FALSE(request->early) << "it is a member still";
    use(0, SlotUse::kOff);
    configure();
  }
  std::vector<Asked*> left;
};

TEST(SideTest, AHungDiskHereIsLeftBehindOnceTheVolumeGoesOnWithoutIt) {
  HungBed bed;
  bed.left = {&bed.write(0, kBlock, kA), &bed.ask(IoOp::kFlush, 0, 0), &bed.read(kBlock, kBlock),
              &bed.ask(IoOp::kWriteZeroes, 4 * kBlock, 2 * kBlock)};
  Asked& behind = bed.write(0, kBlock, kB);
  bool is_drained = false;
  bed.drain(is_drained);
  bed.run(SideBed::kStallLimit + std::chrono::milliseconds(10));
  const std::vector<Observed::Failure> stall = {{0, 1, Code::kTimedOut}};
  EXPECT_EQ(bed.observed[0]->failures, stall);
  EXPECT_FALSE(is_drained);
  bed.fault();
  for (const Asked* request : bed.left) {
    ASSERT_TRUE(request->early);
    EXPECT_FALSE(request->is_answered()) << "the disk has its buffers";
    EXPECT_EQ(request->early->has_value(), request->op != IoOp::kRead);
  }
  EXPECT_EQ(bed.left[2]->early->error().code, Code::kBusy) << "its memory may not be read into twice";
  bed.run();
  EXPECT_TRUE(is_drained);
  EXPECT_TRUE(behind.is_done()) << "the range is free";
  EXPECT_FALSE(bed.shared->locks.is_locked({0, 4 * kMiB}));
  EXPECT_TRUE(bed.read(0, kBlock).reads(kB));
  bool is_let_go = false;
  bool is_detached = false;
  bed.world.spawn(bed.node, 0, SideBed::note_end(bed.sides[0]->detach(0, MirrorSide::Until::kAnswered), is_let_go));
  bed.world.spawn(bed.node, 0, SideBed::note_end(bed.sides[0]->detach(0), is_detached));
  bed.run();
  EXPECT_TRUE(is_let_go);
  EXPECT_FALSE(is_detached);
  bed.replicas[0]->end_all();
  for (const Asked* request : bed.left) EXPECT_TRUE(request->is_answered());
  bed.run();
  EXPECT_TRUE(is_detached);
}

TEST(SideTest, WhatComesToAHungDiskBeforeItsFaultIsLeftBehindWhenItStallsToo) {
  HungBed bed;
  bed.left = {&bed.write(0, kBlock, kA)};
  bed.run(SideBed::kStallLimit / 2);
  bed.left.push_back(&bed.write(kBlock, kBlock, kA));
  bed.replicas[1]->holds = true;
  Asked& late = bed.write(2 * kBlock, kBlock, kA);
  bed.run(SideBed::kStallLimit / 2 + std::chrono::milliseconds(10));
  bed.fault();
  for (const Asked* request : bed.left) EXPECT_TRUE(request->early && request->early->has_value());
  EXPECT_FALSE(late.early) << "the other one has not done it";
  bed.replicas[1]->end_all();
  EXPECT_TRUE(late.early && late.early->has_value());
  bed.replicas[0]->end_all(fail(Code::kIo));
  EXPECT_TRUE(late.is_done()) << "what the disk says at last is of no interest";
}

TEST(SideTest, ADiskThatIsTheOnlyOneIsWaitedFor) {
  SideBed bed(1);
  bed.slot(0).is_local = true;
  bed.configure();
  bed.hold();
  Asked& write = bed.write(0, kBlock, kA);
  bed.run(2 * SideBed::kStallLimit);
  bed.slot(0).is_broken = true;
  bed.configure();
  EXPECT_FALSE(write.early);
  bed.hold(false);
  bed.replicas[0]->end_all();
  bed.replace(0);
  bed.configure();
  EXPECT_TRUE(write.is_done());
}

TEST(SideTest, WhatWasLeftBehindIsAnsweredOnceThoughAllIsFailed) {
  HungBed bed;
  bed.replicas[1]->fails = Code::kConnectionLost;
  bed.left = {&bed.write(0, kBlock, kA)};
  bed.run(SideBed::kStallLimit + std::chrono::milliseconds(10));
  bed.slot(1).is_broken = true;
  bed.fault();
  EXPECT_FALSE(bed.left[0]->early) << "the other one lacks it";
  bed.fail_waiting(Code::kFenced);
  ASSERT_TRUE(bed.left[0]->early);
  EXPECT_EQ(bed.left[0]->early->error().code, Code::kFenced);
  EXPECT_TRUE(bed.shared->locks.is_locked({0, kBlock})) << "members differ there";
  bed.replicas[0]->end_all();
  EXPECT_TRUE(bed.left[0]->has_failed(Code::kFenced));
  bed.replicas[1]->fails.reset();
  bed.replace(1);
  bed.configure();
  EXPECT_FALSE(bed.shared->locks.is_locked({0, kBlock}));
}

TEST(SideTest, UnlevelExtentsWait) {
  SideBed bed(2);
  bed.shared->unlevel.set(1);
  bed.shared->unlevel.set(2);
  Asked& write = bed.write(2 * kMiB - kBlock, 2 * kBlock, kA);
  Asked& read = bed.read(kMiB, kBlock);
  EXPECT_TRUE(bed.write(0, kBlock, kA).is_done());
  bed.run();
  EXPECT_EQ(bed.observed[0]->levels_wanted, (std::vector<uint64_t>{1, 2, 1}));
  EXPECT_TRUE(bed.shared->has_waiters());
  EXPECT_FALSE(bed.shared->locks.is_locked({0, 4 * kMiB}));
  bed.shared->unlevel.clear(1);
  bed.look_again();
  EXPECT_TRUE(read.is_done());
  EXPECT_FALSE(write.is_answered());
  bed.shared->unlevel.clear(2);
  bed.look_again();
  EXPECT_TRUE(write.is_done());
  EXPECT_FALSE(bed.shared->has_waiters());
  EXPECT_EQ(bed.observed[0]->levels_wanted.size(), 3U) << "once each";
}

}  // namespace
}  // namespace fairlead::mirror
