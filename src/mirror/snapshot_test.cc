// Snapshots of a volume, and its growth: on all replicas at once, on those that return, across take-overs.
#include "tests/support/volume_bed.h"

namespace fairlead::mirror {
namespace {

constexpr Duration kPatience = seconds(30);
Uuid snapshot_id(uint8_t number) { return uuid(static_cast<uint8_t>(100 + number)); }

// -1: it has none.
int in_snapshot(const VolumeBed& bed, size_t index, uint8_t number, uint64_t block) {
  const auto* const frozen = bed.replicas[index]->medium().find_snapshot(snapshot_id(number));
  return frozen == nullptr ? -1 : std::to_integer<int>(frozen->bytes[block * kBlock + 17]);
}

size_t count_snapshots(const VolumeBed& bed, size_t index) { return bed.replicas[index]->medium().snapshots().size(); }

void expect_same_everywhere(const VolumeBed& bed) {
  const auto& first = bed.replicas[0]->medium().snapshots();
  for (size_t i = 1; i < bed.replicas.size(); ++i) {
    const auto& other = bed.replicas[i]->medium().snapshots();
    EXPECT_EQ(other.size(), first.size()) << i;
    for (size_t k = 0; k < std::min(first.size(), other.size()); ++k) {
      EXPECT_EQ(other[k].snapshot, first[k].snapshot);
      EXPECT_TRUE(other[k].bytes == first[k].bytes) << "replica " << i << ", snapshot " << k;
    }
  }
}

TEST(SnapshotTest, AllReplicasHoldWhatTheVolumeHeldThen) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await bed.write(target, 5, 1));
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(1), kPatience));
    EXPECT_TRUE(co_await bed.write(target, 5, 2));
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(1), kPatience)) << "it is there";
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(2), kPatience));
    EXPECT_TRUE(co_await bed.write(target, 5, 3));
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(in_snapshot(bed, i, 1, 5), 1);
      EXPECT_EQ(in_snapshot(bed, i, 2, 5), 2);
      EXPECT_EQ(bed.on_replica(i, 5), 3);
      const MemoryReplica& replica = *bed.replicas[i];
      EXPECT_EQ(replica.medium().state.record.last_snapshot.id, snapshot_id(2));
      EXPECT_EQ(replica.medium().state.note, replica.medium().state.record.last_snapshot.cut);
    }
    const TargetStatus status = target.status();
    EXPECT_EQ(status.snapshots.size(), 2U);
    if (status.snapshots.size() != 2) co_return;
    EXPECT_EQ(status.snapshots[0].id, snapshot_id(1));
    EXPECT_LT(status.snapshots[0].cut, status.snapshots[1].cut);
    EXPECT_EQ(status.snapshots[0].size_bytes, kBytes);
    expect_same_everywhere(bed);
  });
}

// Writes the number to one block, then to another: who sees it in the second sees it in the first.
Task<void> count_in_two_places(VolumeBed& bed, TestTarget& target, uint64_t first, uint64_t second, bool& must_end) {
  for (uint8_t number = 1; number < 250 && !must_end; ++number) {
    EXPECT_TRUE(co_await bed.write(target, first, number));
    EXPECT_TRUE(co_await bed.write(target, second, number));
  }
}

TEST(SnapshotTest, IsOneCutThroughAllThatHostsWrite) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    for (MemoryLink* const link : target.links) link->set_delay(milliseconds(0), milliseconds(3));
    bool must_end = false;
    Scope writing(bed.reactor());
    for (uint64_t i = 0; i < 4; ++i) writing.spawn(count_in_two_places(bed, target, i, 1000 - i, must_end));
    for (uint8_t number = 1; number <= 8; ++number) {
      co_await sleep(bed.reactor(), milliseconds(20));
      EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(number), kPatience));
      for (uint64_t i = 0; i < 4; ++i) {
        const int ahead = in_snapshot(bed, 0, number, i) - in_snapshot(bed, 0, number, 1000 - i);
        EXPECT_TRUE(ahead == 0 || ahead == 1) << ahead;
      }
    }
    must_end = true;
    co_await writing.close();
    EXPECT_GT(in_snapshot(bed, 0, 8, 0), in_snapshot(bed, 0, 1, 0)) << "nobody was held for long";
    expect_same_everywhere(bed);
  });
}

TEST(SnapshotTest, AReplicaThatWasAwayGetsThemLayerByLayer) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await bed.write(target, 5, 1));
    EXPECT_TRUE(co_await bed.write(target, 700, 1));
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(1), kPatience));
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(target, 5, 2));
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(2), kPatience));
    EXPECT_TRUE(co_await bed.write(target, 300, 3));
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(3), kPatience));
    EXPECT_TRUE(co_await bed.write(target, 5, 4));
    const uint64_t before = bed.replicas[2]->count(IoOp::kWrite);
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    EXPECT_EQ(bed.replicas[2]->count(IoOp::kWrite) - before, 3U) << "an extent for each layer";
    EXPECT_EQ(in_snapshot(bed, 2, 1, 5), 1);
    EXPECT_EQ(in_snapshot(bed, 2, 2, 5), 2);
    EXPECT_EQ(in_snapshot(bed, 2, 2, 300), 0);
    EXPECT_EQ(in_snapshot(bed, 2, 3, 300), 3);
    EXPECT_EQ(bed.on_replica(2, 5), 4);
    expect_same_everywhere(bed);
  });
}

TEST(SnapshotTest, AReplicaThatReturnsIsSentBackByASnapshotAndKeepsItsLayers) {
  VolumeBed bed(3);
  bed.resync_share_percent = 100;
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.miss_everything(target, 2);
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(1), kPatience));
    for (uint64_t block = 5; block < kBytes / kBlock; block += 128) EXPECT_TRUE(co_await bed.write(target, block, 2));
    bed.replicas[2]->set_delay(milliseconds(200));
    bed.replicas[2]->start();
    while (count_snapshots(bed, 2) == 0) co_await sleep(bed.reactor(), milliseconds(10));
    co_await sleep(bed.reactor(), milliseconds(900));  // some of what came since is there
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(2), kPatience));
    EXPECT_EQ(count_snapshots(bed, 2), 1U);
    EXPECT_TRUE(co_await bed.write(target, 6, 3));
    EXPECT_TRUE(co_await bed.has_members(target, 3, seconds(120)));
    EXPECT_EQ(bed.on_replica(2, 6), 3);
    EXPECT_EQ(in_snapshot(bed, 2, 2, 5), 2);
    expect_same_everywhere(bed);
  });
}

TEST(SnapshotTest, AReplicaThatIsLostWhileItGetsThemGoesOnAfterTheLastThatItHas) {
  VolumeBed bed(3);
  bed.resync_share_percent = 100;
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.miss_everything(target, 2);
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(1), kPatience));
    for (const uint64_t block : {5U, 1000U}) EXPECT_TRUE(co_await bed.write(target, block, 2));
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(2), kPatience));
    bed.replicas[2]->set_delay(milliseconds(200));
    bed.replicas[2]->start();
    while (count_snapshots(bed, 2) == 0) co_await sleep(bed.reactor(), milliseconds(10));
    co_await sleep(bed.reactor(), milliseconds(500));
    target.links[2]->drop();
    const uint64_t before = bed.replicas[2]->count(IoOp::kWrite);
    EXPECT_TRUE(co_await bed.has_members(target, 3, seconds(120)));
    EXPECT_LT(bed.replicas[2]->count(IoOp::kWrite) - before, 8U) << "what the first has is not copied again";
    expect_same_everywhere(bed);
    EXPECT_EQ(bed.on_replica(2, 5), 2);
  });
}

TEST(SnapshotTest, AMemberThatFailsMeanwhileIsLeftOutAndTheOthersTakeIt) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await bed.write(target, 5, 1));
    bed.replicas[1]->store().set_error(Code::kIo);
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(1), kPatience));
    EXPECT_EQ(in_snapshot(bed, 0, 1, 5), 1);
    EXPECT_EQ(in_snapshot(bed, 1, 1, 5), -1);
    EXPECT_TRUE(co_await bed.write(target, 5, 2));
    bed.replicas[1]->store().set_error(std::nullopt);
    EXPECT_TRUE(co_await bed.has_members(target, 3, seconds(300)));
    EXPECT_EQ(in_snapshot(bed, 1, 1, 5), 1);
    expect_same_everywhere(bed);
  });
}

// Frozen by all, and its record in force nowhere: whoever finds the record has the snapshot, whoever does not has none.
Task<void> freeze_and_die(VolumeBed& bed, TestTarget& target, Scope& asking, Result<void>& outcome) {
  EXPECT_TRUE(co_await bed.write(target, 5, 1));
  for (const size_t i : {1U, 2U}) target.links[i]->set_delay(milliseconds(5), milliseconds(5));
  asking.spawn([](TestTarget& its, Result<void>& its_outcome) -> Task<void> {
    its_outcome = co_await its.volume->take_snapshot(snapshot_id(1), kPatience);
  }(target, outcome));
  const auto has_record = [&] { return bed.replicas[0]->medium().state.record.last_snapshot.id == snapshot_id(1); };
  while (!has_record()) co_await sleep(bed.reactor(), std::chrono::microseconds(100));
  for (const size_t i : {1U, 2U}) target.links[i]->set_reachable(false);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(in_snapshot(bed, i, 1, 5), 1);
}

Task<void> take(TestTarget& target, uint8_t number) {
  EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(number), kPatience));
}

// Its answer is lost, so the snapshot is of a later moment, and what it has is another one by the same name.
TEST(SnapshotTest, WhatIsLeftOfAnAttemptIsNotTakenForTheSnapshot) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await bed.write(target, 5, 1));
    target.links[2]->set_delay(milliseconds(1), milliseconds(1));
    Scope taking(bed.reactor());
    taking.spawn(take(target, 1));
    while (count_snapshots(bed, 2) == 0) co_await sleep(bed.reactor(), std::chrono::microseconds(10));
    target.links[2]->set_reachable(false);
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    EXPECT_TRUE(co_await bed.write(target, 5, 2));
    co_await taking.close();
    EXPECT_EQ(in_snapshot(bed, 2, 1, 5), 1);
    EXPECT_EQ(in_snapshot(bed, 0, 1, 5), 2);
    target.links[2]->set_reachable(true);
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    EXPECT_EQ(in_snapshot(bed, 2, 1, 5), 2);
    expect_same_everywhere(bed);
  });
}

TEST(SnapshotTest, ATakeOverThatDoesNotFindTheRecordDeletesIt) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    Scope asking(bed.reactor());
    Result<void> outcome;
    co_await freeze_and_die(bed, *first, asking, outcome);
    co_await bed.replicas[0]->stop();
    co_await bed.end_target(std::move(first));
    co_await asking.close();
    EXPECT_EQ(outcome.error().code, Code::kShuttingDown);
    auto second = co_await bed.start_target(1);
    EXPECT_TRUE(co_await bed.has_members(*second, 2));
    for (const size_t i : {1U, 2U}) EXPECT_EQ(count_snapshots(bed, i), 0U);
    bed.replicas[0]->start();
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_EQ(count_snapshots(bed, 0), 0U);
    EXPECT_TRUE(co_await second->volume->take_snapshot(snapshot_id(1), kPatience));
    expect_same_everywhere(bed);
    co_await bed.end_target(std::move(second));
  });
}

TEST(SnapshotTest, ATakeOverThatFindsTheRecordHasIt) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    Scope asking(bed.reactor());
    Result<void> outcome;
    co_await freeze_and_die(bed, *first, asking, outcome);
    co_await bed.end_target(std::move(first));
    co_await asking.close();
    auto second = co_await bed.start_target(1);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_EQ(second->status().snapshots.size(), 1U);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(in_snapshot(bed, i, 1, 5), 1);
    co_await bed.end_target(std::move(second));
  });
}

TEST(SnapshotTest, IsOnStableStorageWhenItWasTaken) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 3));
    for (uint64_t block = 0; block < 64; ++block) EXPECT_TRUE(co_await bed.write(*target, block, 7));
    EXPECT_TRUE(co_await target->volume->take_snapshot(snapshot_id(1), kPatience));
    for (const auto& replica : bed.replicas) co_await replica->stop(MemoryReplica::Loses::kCache);
    for (size_t i = 0; i < 3; ++i) {
      for (uint64_t block = 0; block < 64; ++block) EXPECT_EQ(in_snapshot(bed, i, 1, block), 7) << i << ' ' << block;
    }
    co_await bed.end_target(std::move(target));
  });
}

TEST(SnapshotTest, IsDeletedEverywhereAlsoWhereItIsFoundLater) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    for (uint8_t number = 1; number <= 2; ++number) {
      EXPECT_TRUE(co_await bed.write(target, 5, number));
      EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(number), kPatience));
    }
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(target, 5, 3));
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    EXPECT_TRUE(co_await target.volume->delete_snapshot(snapshot_id(1), kPatience));
    EXPECT_TRUE(co_await target.volume->delete_snapshot(snapshot_id(1), kPatience)) << "there is none";
    EXPECT_EQ(target.status().snapshots.size(), 1U);
    EXPECT_EQ(count_snapshots(bed, 2), 2U);
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    expect_same_everywhere(bed);
    EXPECT_EQ(count_snapshots(bed, 2), 1U);
    EXPECT_EQ(in_snapshot(bed, 2, 2, 5), 2);
  });
}

TEST(SnapshotTest, WaitsForAVolumeThatCannotTakeIt) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    for (const size_t i : {1U, 2U}) co_await bed.replicas[i]->stop();
    EXPECT_TRUE(co_await bed.reaches(target, State::kSuspended));
    const Result<void> taken = co_await target.volume->take_snapshot(snapshot_id(1), seconds(3));
    EXPECT_EQ(taken.error().code, Code::kTimedOut);
    for (const size_t i : {1U, 2U}) bed.replicas[i]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3, seconds(300)));
    EXPECT_EQ(count_snapshots(bed, 0), 0U) << "nobody waits for it any more";
  });
}

// ---- Size

TEST(GrowTest, AVolumeGrowsOnAllAndOnThoseThatReturn) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(target, 5, 1));
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    EXPECT_FALSE(co_await bed.write(target, kBytes / kBlock, 1));
    EXPECT_EQ((co_await target.volume->grow(kBytes - kBlock, kPatience)).error().code, Code::kInvalidArgument);
    EXPECT_EQ((co_await target.volume->grow(kBytes + 1, kPatience)).error().code, Code::kInvalidArgument);
    EXPECT_TRUE(co_await target.volume->grow(2 * kBytes, kPatience));
    EXPECT_EQ(target.device->refresh_size(), 2 * kBytes);
    EXPECT_TRUE(co_await bed.write(target, 2 * kBytes / kBlock - 1, 9));
    EXPECT_EQ(bed.replicas[2]->medium().size_bytes(), kBytes);
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    EXPECT_EQ(bed.replicas[2]->medium().size_bytes(), 2 * kBytes);
    EXPECT_EQ(bed.on_replica(2, 2 * kBytes / kBlock - 1), 9);
  });
}

TEST(GrowTest, ASnapshotKeepsTheSizeThatTheVolumeHadAlsoOnANewReplica) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(target, 5, 1));
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(1), kPatience));
    EXPECT_TRUE(co_await target.volume->grow(2 * kBytes, kPatience));
    EXPECT_EQ(target.device->refresh_size(), 2 * kBytes);
    EXPECT_TRUE(co_await bed.write(target, 2 * kBytes / kBlock - 1, 9));
    EXPECT_TRUE(co_await target.volume->take_snapshot(snapshot_id(2), kPatience));
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(target, 3));
    expect_same_everywhere(bed);
    EXPECT_EQ(bed.replicas[2]->medium().find_snapshot(snapshot_id(1))->bytes.size(), kBytes);
    EXPECT_EQ(in_snapshot(bed, 2, 2, 2 * kBytes / kBlock - 1), 9);
  });
}

}  // namespace
}  // namespace fairlead::mirror
