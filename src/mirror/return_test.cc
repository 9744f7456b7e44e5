// Returns: what a replica missed is copied from whom, in which order, and how much at once.
#include "tests/support/volume_bed.h"

namespace fairlead::mirror {
namespace {

// What waited for a range, to copy it, finds out who has everything when it gets it.
TEST(ReturnTest, NothingIsCopiedFromWhoLeftMeanwhile) {
  VolumeBed bed(3);
  bed.resync_share_percent = 100;
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    target.links[0]->keep_devices();
    co_await bed.replicas[2]->stop();
    for (const uint64_t block : {5U, 261U}) EXPECT_TRUE(co_await bed.write(target, block, 1));
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    bed.replicas[2]->set_delay(seconds(1));
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.returns(target, 2));
    // While the first extent is copied the second is written to, and the local replica does not hear of it.
    while (bed.replicas[0]->count(IoOp::kRead) == 0) co_await sleep(bed.reactor(), milliseconds(1));
    co_await sleep(bed.reactor(), milliseconds(10));
    bed.replicas[1]->store().hold_saves();
    target.links[0]->set_cut(MemoryLink::Cut::kRequests);
    Scope writing(bed.reactor());
    bool is_written = false;
    writing.spawn(bed.write_and_tell(target, 261, 2, is_written));
    while (target.links[0]->connection() != 0) co_await sleep(bed.reactor(), milliseconds(1));
    // It is back before it is recorded that it lacks something.
    target.links[0]->set_cut(MemoryLink::Cut::kNothing);
    co_await sleep(bed.reactor(), seconds(2));
    EXPECT_FALSE(is_written);
    bed.replicas[1]->store().release_saves();
    co_await writing.close();
    EXPECT_TRUE(is_written);
    EXPECT_TRUE(co_await bed.has_members(target, 3, seconds(120)));
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(bed.on_replica(i, 5), 1) << i;
      EXPECT_EQ(bed.on_replica(i, 261), 2) << i;
    }
  });
}

TEST(ReturnTest, WithNobodyToCopyFromItSaysSo) {
  VolumeBed bed(2);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.replicas[1]->stop();
    EXPECT_TRUE(co_await bed.write(target, 5, 1));
    EXPECT_TRUE(co_await bed.has_members(target, 1));
    co_await bed.replicas[0]->stop();
    bed.replicas[1]->start();
    co_await sleep(bed.reactor(), seconds(3));
    const Error error = target.status().replicas[1].last_error;
    EXPECT_EQ(error.code, Code::kUnreachable) << to_string(error);
    EXPECT_STREQ(error.what, "no replica in step is left to copy from");
  });
}

constexpr uint64_t kExtents = kBytes / kExtentBytes;
constexpr uint64_t kPieces = kExtents * (kExtentBytes / Copier::kPieceBytes);
constexpr uint64_t kBlocksEach = kExtentBytes / kBlock;

TEST(ReturnTest, CopiesAreReadFromAllMembers) {
  VolumeBed bed(3);
  bed.copies_in_flight = 4;
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.miss_everything(target, 2);
    for (const auto& replica : bed.replicas) replica->set_delay(milliseconds(1));
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    EXPECT_EQ(bed.replicas[0]->count(IoOp::kRead) + bed.replicas[1]->count(IoOp::kRead), kPieces);
    EXPECT_EQ(bed.replicas[1]->count(IoOp::kRead), kPieces / 2);
    const ReplicaStatus status = target.status().replicas[2];
    EXPECT_EQ(status.to_copy_bytes, kBytes);
    EXPECT_EQ(status.copied_bytes, kBytes);
  });
}

Task<void> reads_where_it_is_quick(VolumeBed& bed, TestTarget& target, size_t slow) {
  co_await bed.miss_everything(target, 2);
  bed.replicas[slow]->set_delay(milliseconds(1));
  bed.replicas[2]->start();
  EXPECT_TRUE(co_await bed.has_members(target, 3));
  EXPECT_GE(bed.replicas[slow]->count(IoOp::kRead), 1U);
  EXPECT_LE(bed.replicas[slow]->count(IoOp::kRead), 2U) << "nothing was known of it, or not any more";
}

TEST(ReturnTest, CopiesAreReadFromTheMemberThatAnswersSooner) {
  VolumeBed near(3);
  near.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> { return reads_where_it_is_quick(bed, target, 1); });
  VolumeBed far(3);
  far.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> { return reads_where_it_is_quick(bed, target, 0); });
}

TEST(ReturnTest, WhatOneMemberCannotReadIsCopiedFromAnother) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.miss_everything(target, 2);
    const uint64_t writes = bed.replicas[0]->count(IoOp::kWrite);
    bed.replicas[0]->set_error(IoOp::kRead, Code::kIo);
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    for (uint64_t block = 5; block < kBytes / kBlock; block += 128) EXPECT_EQ(bed.on_replica(2, block), 1);
    EXPECT_GT(bed.replicas[0]->count(IoOp::kWrite), writes) << "it is repaired";
  });
}

TEST(ReturnTest, WhatNobodyCanReadKeepsItAwayUntilSomebodyCan) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.miss_everything(target, 2);
    for (size_t i = 0; i < 2; ++i) bed.replicas[i]->set_error(IoOp::kRead, Code::kIo);
    bed.replicas[2]->start();
    EXPECT_FALSE(co_await bed.has_members(target, 3, seconds(10)));
    EXPECT_EQ(target.status().record.members.size(), 2U) << "members stay members";
    EXPECT_EQ(target.status().replicas[2].last_error.code, Code::kIo);
    bed.replicas[1]->set_error(IoOp::kRead, std::nullopt);
    EXPECT_TRUE(co_await bed.has_members(target, 3, seconds(120)));
    EXPECT_EQ(bed.on_replica(2, 5), 1);
  });
}

Task<void> write_until(VolumeBed& bed, TestTarget& target, uint64_t block, const bool& is_ending) {
  while (!is_ending) EXPECT_TRUE(co_await bed.write(target, block, 7));
}

TEST(ReturnTest, WhatHostsWriteToIsCopiedLast) {
  VolumeBed bed(3);
  bed.resync_share_percent = 100;
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.miss_everything(target, 2);
    for (const auto& replica : bed.replicas) replica->set_delay(milliseconds(1));
    constexpr uint64_t kBusy = 2;
    Scope writing(bed.reactor());
    bool is_ending = false;
    writing.spawn(write_until(bed, target, kBusy * kBlocksEach, is_ending));
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.returns(target, 2));
    const auto copied = [&] { return target.status().replicas[2].copied_bytes / kExtentBytes; };
    const Instant until = bed.reactor().now() + seconds(10);
    while (copied() < kExtents - 1 && bed.reactor().now() < until) {
      co_await sleep(bed.reactor(), std::chrono::microseconds(100));
    }
    for (uint64_t extent = 0; extent < kExtents; ++extent) {
      EXPECT_EQ(bed.on_replica(2, extent * kBlocksEach + 5), extent == kBusy ? 0 : 1) << extent;
    }
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    is_ending = true;
    co_await writing.close();
    EXPECT_EQ(bed.on_replica(2, kBusy * kBlocksEach + 5), 1);
    EXPECT_EQ(bed.on_replica(2, kBusy * kBlocksEach), 7);
  });
}

// At no moment is none of their writes under way.
TEST(ReturnTest, AStreamOfSmallWritesDoesNotKeepTheCopyOff) {
  VolumeBed bed(2);
  bed.resync_share_percent = 100;
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.miss_everything(target, 1);
    bed.replicas[0]->set_delay(milliseconds(1));
    Scope writing(bed.reactor());
    bool is_ending = false;
    for (uint64_t writer = 0; writer < 4; ++writer) {
      writing.spawn(write_until(bed, target, writer, is_ending));
      co_await sleep(bed.reactor(), std::chrono::microseconds(250));
    }
    bed.replicas[1]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 2, seconds(2)));
    is_ending = true;
    co_await writing.close();
    EXPECT_EQ(bed.on_replica(1, 5), 1);
  });
}

TEST(ReturnTest, ProgressIsOfThisReturn) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.miss_everything(target, 2);
    for (const auto& replica : bed.replicas) replica->set_delay(milliseconds(1));
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.returns(target, 2));
    const auto now = [&] { return target.status().replicas[2]; };
    while (now().copied_bytes < 4 * kExtentBytes) co_await sleep(bed.reactor(), milliseconds(1));
    EXPECT_EQ(now().to_copy_bytes, kBytes);
    EXPECT_GT(now().copy_rate, 10U * kMiB);
    EXPECT_GT(now().copy_left, milliseconds(1));
    EXPECT_LT(now().copy_left, milliseconds(100));
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    // Another return, in the same term: it begins with nothing.
    co_await sleep(bed.reactor(), seconds(25));
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(target, 5, 2));
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.returns(target, 2, seconds(120)));
    EXPECT_EQ(now().copied_bytes, 0U);
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    EXPECT_EQ(now().copied_bytes, kExtentBytes);
    EXPECT_EQ(now().to_copy_bytes, kExtentBytes);
    EXPECT_EQ(now().copy_rate, 0U);
  });
}

}  // namespace
}  // namespace fairlead::mirror
