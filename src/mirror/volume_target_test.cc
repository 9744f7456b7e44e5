// A volume's target with replicas in memory: take-over, faults, returns, levelling, leases, hand-over.
#include "tests/support/volume_bed.h"

namespace fairlead::mirror {
namespace {

TEST(VolumeTargetTest, ServesAndMirrors) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await bed.write(target, 5, 42));
    EXPECT_EQ(co_await bed.read(target, 5), 42);
    EXPECT_TRUE(co_await block_flush(bed.reactor(), *target.device));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 5), 42);
  });
}

TEST(VolumeTargetTest, GoesOnWithoutAReplicaAndCopiesOnlyWhatItMissed) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    for (uint64_t block = 0; block < 1024; block += 256) EXPECT_TRUE(co_await bed.write(target, block, 1));
    co_await sleep(bed.reactor(), seconds(25));  // long enough for a checkpoint
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(target, 300, 2));
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    EXPECT_TRUE(target.status().is_degraded);
    EXPECT_EQ(bed.on_replica(2, 300), 0);
    const uint64_t before = bed.replicas[2]->count(IoOp::kWrite) + bed.replicas[2]->count(IoOp::kWriteZeroes);
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    EXPECT_EQ(bed.on_replica(2, 300), 2);
    EXPECT_EQ(bed.on_replica(2, 256), 1);
    const uint64_t after = bed.replicas[2]->count(IoOp::kWrite) + bed.replicas[2]->count(IoOp::kWriteZeroes);
    EXPECT_GT(after, before);
    EXPECT_LE(after - before, kExtentBytes / Copier::kPieceBytes + 2);  // one extent, in pieces of data and of zeroes
    EXPECT_TRUE(target.status().why.empty()) << target.status().why;
  });
}

TEST(VolumeTargetTest, AnotherTargetTakesOverAndTheFirstIsSuperseded) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target(0);
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    EXPECT_TRUE(co_await bed.write(*first, 7, 7));
    auto second = co_await bed.start_target(1);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_EQ(co_await bed.read(*second, 7), 7);
    EXPECT_FALSE(co_await bed.write(*first, 7, 8));
    EXPECT_TRUE(co_await bed.reaches(*first, State::kSuperseded));
    EXPECT_EQ(co_await bed.read(*first, 7), -1);
    EXPECT_EQ(co_await bed.read(*second, 7), 7);
    EXPECT_TRUE(co_await bed.write(*second, 7, 9));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 7), 9);
    co_await bed.end_target(std::move(first));
    co_await bed.end_target(std::move(second));
  });
}

TEST(VolumeTargetTest, OneThatNobodyAsksLearnsThatItIsSuperseded) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target(0);
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    auto second = co_await bed.start_target(1);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_TRUE(co_await bed.reaches(*first, State::kSuperseded, seconds(2)));
    co_await sleep(bed.reactor(), seconds(60));
    EXPECT_EQ(second->status().state, State::kServing);
    EXPECT_EQ(second->status().record.members.size(), 3U);
    co_await bed.end_target(std::move(first));
    co_await bed.end_target(std::move(second));
  });
}

TEST(VolumeTargetTest, WithoutAMajorityItWaitsAndSaysForWhom) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.replicas[1]->stop();
    co_await bed.replicas[2]->stop();
    Scope writing(bed.reactor());
    bool is_written = false;
    writing.spawn(bed.write_and_tell(target, 3, 3, is_written));
    EXPECT_TRUE(co_await bed.reaches(target, State::kSuspended));
    co_await sleep(bed.reactor(), seconds(60));
    EXPECT_FALSE(is_written);
    EXPECT_FALSE(target.status().why.empty());
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    co_await writing.close();
    EXPECT_TRUE(is_written);
    bed.replicas[1]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3, seconds(200)));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 3), 3);
  });
}

TEST(VolumeTargetTest, OfTwoOneGoesOnWithTheWitness) {
  VolumeBed bed(2);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.replicas[1]->stop();
    EXPECT_TRUE(co_await bed.write(target, 1, 1));
    EXPECT_TRUE(co_await bed.has_members(target, 1));
    EXPECT_EQ(bed.witness.vote(kVolume).record.members, MemberSet({replica_id(0)}));
    EXPECT_EQ(co_await bed.read(target, 1), 1);
    bed.replicas[1]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    EXPECT_EQ(bed.on_replica(1, 1), 1);
  });
}

// Hole H14 before it serves: somebody had the witness promise a higher term, and came to nothing.
TEST(VolumeTargetTest, AWitnessThatRefusesItsFirstRecordIsAskedWithAnotherTerm) {
  VolumeBed bed(2);
  bed.run([](VolumeBed& bed) -> Task<void> {
    co_await bed.replicas[1]->stop();
    bed.witness.set_delay(milliseconds(100));
    auto target = co_await bed.start_target();
    while (target->status().why != "takes over: records the members") co_await sleep(bed.reactor(), milliseconds(1));
    bed.witness.set_delay(milliseconds(0));
    Term other;
    other.number = 100;
    EXPECT_TRUE(co_await bed.witness.prepare(kVolume, other));
    EXPECT_TRUE(co_await bed.has_members(*target, 1));
    EXPECT_GT(target->status().term.number, 100U);
    co_await bed.end_target(std::move(target));
  });
}

TEST(VolumeTargetTest, WhatTheOnlyReplicaMissedIsSentAgainWhenItIsBack) {
  VolumeBed bed(1);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await bed.write(target, 1, 1));
    target.links[0]->set_reachable(false);
    Scope writing(bed.reactor());
    bool is_written = false;
    writing.spawn(bed.write_and_tell(target, 2, 2, is_written));
    co_await sleep(bed.reactor(), seconds(20));
    EXPECT_FALSE(is_written);
    target.links[0]->set_reachable(true);
    co_await writing.close();
    EXPECT_TRUE(is_written);
    EXPECT_EQ(co_await bed.read(target, 2), 2);
    EXPECT_EQ(co_await bed.read(target, 1), 1);
  });
}

TEST(VolumeTargetTest, AfterAnEndInOrderNothingIsToBeLevelled) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    for (uint64_t block = 0; block < 2048; block += 100) EXPECT_TRUE(co_await bed.write(*first, block, 5));
    EXPECT_EQ(co_await bed.read(*first, 100), 5);  // so there are leases
    const Instant before = bed.reactor().now();
    co_await bed.end_target(std::move(first));
    auto second = co_await bed.start_target(2);
    const uint64_t writes = bed.replicas[0]->count(IoOp::kWrite);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_LT(bed.reactor().now() - before, milliseconds(100));  // no lease was waited for
    EXPECT_EQ(co_await bed.read(*second, 200), 5);
    EXPECT_EQ(bed.replicas[0]->count(IoOp::kWrite), writes);
    co_await bed.end_target(std::move(second));
  });
}

Task<void> stop_serving(TestTarget& target) { co_await target.volume->stop_serving(); }

// Should it vanish now, its successor could need a member that nobody ever hears of again: without the one that obeys
// the successor it would be one of two.
TEST(VolumeTargetTest, OneThatIsGivenUpLeavesNobodyOutThatObeysItsSuccessor) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    EXPECT_TRUE(co_await bed.write(*first, 5, 1));
    for (const size_t i : {1U, 2U}) first->links[i]->set_delay(milliseconds(5), milliseconds(5));
    Scope stopping(bed.reactor());
    stopping.spawn(stop_serving(*first));
    auto second = co_await bed.start_target(2);
    for (const size_t i : {0U, 1U}) second->links[i]->set_reachable(false);
    co_await stopping.close();
    EXPECT_GT(bed.replicas[2]->medium().state.promise, first->status().term) << "it obeys the second";
    for (const size_t i : {0U, 1U}) EXPECT_EQ(bed.replicas[i]->medium().state.record.members.size(), 3U) << i;
    co_await bed.end_target(std::move(first));
    second->links[1]->set_reachable(true);
    EXPECT_TRUE(co_await bed.has_members(*second, 2)) << "nobody needs the first replica, or the witness";
    EXPECT_EQ(co_await bed.read(*second, 5), 1);
    co_await bed.end_target(std::move(second));
  });
}

TEST(VolumeTargetTest, WhatWasNotAcknowledgedIsLevelledBeforeItIsRead) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    EXPECT_TRUE(co_await bed.write(*first, 9, 1));
    // It reaches one of three, and its target is gone.
    bed.replicas[1]->hold(IoOp::kWrite);
    bed.replicas[2]->hold(IoOp::kWrite);
    Scope writing(bed.reactor());
    bool is_written = false;
    writing.spawn(bed.write_and_tell(*first, 9, 2, is_written));
    while (bed.replicas[1]->held() + bed.replicas[2]->held() < 2) co_await sleep(bed.reactor(), milliseconds(1));
    EXPECT_EQ(bed.on_replica(0, 9), 2);
    for (MemoryLink* const link : first->links) link->set_reachable(false);
    co_await bed.replicas[1]->stop();
    co_await bed.replicas[2]->stop();
    bed.replicas[1]->start();
    bed.replicas[2]->start();
    auto second = co_await bed.start_target(1);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    const int seen = co_await bed.read(*second, 9);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 9), seen);
    for (MemoryLink* const link : first->links) link->set_reachable(true);
    EXPECT_TRUE(co_await bed.reaches(*first, State::kSuperseded));
    co_await writing.close();
    EXPECT_FALSE(is_written);
    co_await bed.end_target(std::move(first));
    EXPECT_EQ(co_await bed.read(*second, 9), seen);
    co_await bed.end_target(std::move(second));
  });
}

// Members differ in what was never answered alone, and hosts get at nothing that was not levelled: any of them may go.
TEST(VolumeTargetTest, TheSourceMayGoBeforeAllIsLevel) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target(0);
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    for (const uint64_t block : {9U, 300U, 600U}) EXPECT_TRUE(co_await bed.write(*first, block, 1));
    // The first replica alone has what came next.
    for (size_t i = 1; i < 3; ++i) first->links[i]->set_cut(MemoryLink::Cut::kRequests);
    Scope writing(bed.reactor());
    bool is_written = false;
    for (const uint64_t block : {9U, 300U, 600U}) writing.spawn(bed.write_and_tell(*first, block, 2, is_written));
    co_await sleep(bed.reactor(), milliseconds(10));
    for (const uint64_t block : {9U, 300U, 600U}) EXPECT_EQ(bed.on_replica(0, block), 2);
    for (MemoryLink* const link : first->links) link->set_reachable(false);
    // It is the source, and goes when one extent of three is level.
    for (const auto& replica : bed.replicas) replica->set_delay(milliseconds(1));
    auto second = co_await bed.start_target(1);
    const auto unlevel = [&] { return second->status().unlevel_bytes / kExtentBytes; };
    const Instant until = bed.reactor().now() + seconds(30);
    while (unlevel() != 2 && bed.reactor().now() < until) {
      co_await sleep(bed.reactor(), std::chrono::microseconds(100));
    }
    EXPECT_EQ(unlevel(), 2U);
    co_await bed.replicas[0]->stop();
    EXPECT_TRUE(co_await bed.has_members(*second, 2));
    for (const uint64_t block : {300U, 600U}) EXPECT_EQ(co_await bed.read(*second, block), 1);
    EXPECT_EQ(unlevel(), 0U);
    bed.replicas[0]->start();
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    for (const uint64_t block : {9U, 300U, 600U}) {
      for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, block), bed.on_replica(1, block)) << block;
    }
    for (MemoryLink* const link : first->links) {
      link->set_cut(MemoryLink::Cut::kNothing);
      link->set_reachable(true);
    }
    EXPECT_TRUE(co_await bed.reaches(*first, State::kSuperseded));
    co_await writing.close();
    EXPECT_FALSE(is_written);
    co_await bed.end_target(std::move(first));
    co_await bed.end_target(std::move(second));
  });
}

// Members differ in a block that the first replica alone has; its target is gone, and another one takes over.
Task<std::unique_ptr<TestTarget>> take_over_unlevel(VolumeBed& bed, uint64_t block) {
  auto first = co_await bed.start_target(0);
  EXPECT_TRUE(co_await bed.has_members(*first, 3));
  EXPECT_TRUE(co_await bed.write(*first, block, 1));
  for (size_t i = 1; i < 3; ++i) first->links[i]->set_cut(MemoryLink::Cut::kRequests);
  Scope writing(bed.reactor());
  bool is_written = false;
  writing.spawn(bed.write_and_tell(*first, block, 2, is_written));
  co_await sleep(bed.reactor(), milliseconds(10));
  EXPECT_EQ(bed.on_replica(0, block), 2);
  for (MemoryLink* const link : first->links) link->set_reachable(false);
  auto ending = bed.end_target(std::move(first));
  writing.spawn(std::move(ending));
  co_await writing.close();
  EXPECT_FALSE(is_written);
  co_return co_await bed.start_target(1);
}

Task<void> levels_without(VolumeBed& bed, size_t unreadable) {
  bed.replicas[unreadable]->set_error(IoOp::kRead, Code::kIo);
  auto second = co_await take_over_unlevel(bed, 9);
  EXPECT_TRUE(co_await bed.has_members(*second, 3));
  const int seen = co_await bed.read(*second, 9);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 9), seen);
  EXPECT_EQ(second->status().unlevel_bytes, 0U);
  EXPECT_EQ(second->status().term.number, 2U) << "by no other take-over";
  co_await bed.end_target(std::move(second));
}

TEST(VolumeTargetTest, WhatTheSourceCannotReadIsLevelledFromAnother) {
  VolumeBed first(3);
  first.run([](VolumeBed& bed) { return levels_without(bed, 0); });
  VolumeBed second(3);
  second.run([](VolumeBed& bed) { return levels_without(bed, 1); });
  VolumeBed third(3);
  third.run([](VolumeBed& bed) { return levels_without(bed, 2); });
}

// It may be what the next take-over levels from, and what was read here would be gone again.
TEST(VolumeTargetTest, NothingIsLevelThatAMemberInForceLacks) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto second = co_await take_over_unlevel(bed, 9);
    for (const IoOp op : {IoOp::kWrite, IoOp::kWriteZeroes}) bed.replicas[2]->hold(op);
    EXPECT_TRUE(co_await bed.reaches(*second, State::kServing));
    while (bed.replicas[2]->held() == 0) co_await sleep(bed.reactor(), milliseconds(1));
    // It fails, and a record without it does not come into force yet.
    bed.replicas[0]->store().hold_saves();
    co_await bed.replicas[2]->stop();
    co_await sleep(bed.reactor(), milliseconds(100));
    EXPECT_TRUE(bed.replicas[0]->store().has_held_save());
    EXPECT_EQ(second->status().unlevel_bytes, kExtentBytes);
    bed.replicas[0]->store().release_saves();
    const Instant until = bed.reactor().now() + seconds(10);
    while (second->status().unlevel_bytes > 0 && bed.reactor().now() < until) {
      co_await sleep(bed.reactor(), std::chrono::microseconds(10));
    }
    EXPECT_EQ(bed.on_replica(0, 9), bed.on_replica(1, 9));
    EXPECT_FALSE(second->status().record.members.has(replica_id(2)));
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_EQ(bed.on_replica(0, 9), bed.on_replica(2, 9));
    co_await bed.end_target(std::move(second));
  });
}

TEST(VolumeTargetTest, APersonMayTrustOneReplica) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await bed.write(target, 4, 1));
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(target, 4, 2));
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    co_await bed.replicas[0]->stop();
    co_await bed.replicas[1]->stop();
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.reaches(target, State::kSuspended));
    co_await sleep(bed.reactor(), seconds(30));
    EXPECT_EQ(target.status().state, State::kSuspended);
    EXPECT_EQ(target.volume->force(uuid(77)).error().code, Code::kNotFound);
    EXPECT_TRUE(target.volume->force(replica_id(2)));
    EXPECT_TRUE(co_await bed.has_members(target, 1));
    EXPECT_EQ(co_await bed.read(target, 4), 1);  // what the others had is lost
    EXPECT_TRUE(co_await bed.write(target, 900, 3));
    bed.replicas[0]->start();
    bed.replicas[1]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3, seconds(300)));
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(bed.on_replica(i, 4), 1);
      EXPECT_EQ(bed.on_replica(i, 900), 3);
    }
  });
}

TEST(VolumeTargetTest, AnErrorOfTheOnlyMediumIsTheHosts) {
  VolumeBed bed(1);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 1));
    EXPECT_TRUE(co_await bed.write(*target, 1, 1));
    for (const IoOp op : {IoOp::kRead, IoOp::kWrite}) bed.replicas[0]->set_error(op, Code::kIo);
    const auto written = co_await bed.write(*target, 1, 2);
    EXPECT_FALSE(written);
    if (!written) EXPECT_EQ(written.error().code, Code::kIo);
    EXPECT_EQ(co_await bed.read(*target, 1), -1);
    for (const IoOp op : {IoOp::kRead, IoOp::kWrite}) bed.replicas[0]->set_error(op, std::nullopt);
    EXPECT_TRUE(co_await bed.write(*target, 1, 3));
    EXPECT_EQ(co_await bed.read(*target, 1), 3);
    co_await bed.end_target(std::move(target));
  });
}

Task<void> read_until(VolumeBed& bed, TestTarget& target, bool& is_ending) {
  while (!is_ending) EXPECT_EQ(co_await bed.read(target, 5), 1);
}

Task<void> time_return(VolumeBed& bed, TestTarget& target, uint32_t share, bool is_busy, Duration& taken) {
  target.volume->set_resync_share(share);
  co_await bed.miss_everything(target, 2);
  for (const auto& replica : bed.replicas) replica->set_delay(milliseconds(1));
  Scope asking(bed.reactor());
  bool is_ending = false;
  if (is_busy) asking.spawn(read_until(bed, target, is_ending));
  bed.replicas[2]->start();
  EXPECT_TRUE(co_await bed.returns(target, 2));
  const Instant began = bed.reactor().now();
  EXPECT_TRUE(co_await bed.has_members(target, 3));
  taken = bed.reactor().now() - began;
  is_ending = true;
  co_await asking.close();
}

// Virtual time that a replica needs to come back, which missed every extent.
Duration time_to_return(uint32_t share, bool is_busy) {
  VolumeBed bed(3);
  Duration taken{};
  bed.serve([share, is_busy, &taken](VolumeBed& bed, TestTarget& target) {
    return time_return(bed, target, share, is_busy, taken);
  });
  return taken;
}

TEST(VolumeTargetTest, CopiesTakeTheirShareWhileHostsAsk) {
  const Duration quiet = time_to_return(10, false);
  EXPECT_GT(quiet, milliseconds(20));
  EXPECT_GT(time_to_return(10, true), 5 * quiet);
  EXPECT_LT(time_to_return(100, true), 2 * quiet);
}

}  // namespace
}  // namespace fairlead::mirror
