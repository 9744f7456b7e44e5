// Snapshots of a volume at a moment that somebody else chooses: hosts are held until he says so, or for so long.
#include "tests/support/volume_bed.h"

namespace fairlead::mirror {
namespace {

constexpr Duration kPatience = seconds(30);
constexpr Duration kHold = milliseconds(500);
Uuid snapshot_id(uint8_t number) { return uuid(static_cast<uint8_t>(100 + number)); }

// -1: it has none.
int in_snapshot(const VolumeBed& bed, size_t index, uint8_t number, uint64_t block) {
  const auto* const frozen = bed.replicas[index]->medium().find_snapshot(snapshot_id(number));
  return frozen == nullptr ? -1 : std::to_integer<int>(frozen->bytes[block * kBlock + 17]);
}

Task<Result<void>> hold(TestTarget& target, uint8_t number) {
  return target.volume->hold_for_snapshot(snapshot_id(number), kPatience, kHold);
}
Task<Result<void>> take(TestTarget& target, uint8_t number) {
  return target.volume->take_held_snapshot(snapshot_id(number), kPatience);
}

TEST(HeldSnapshotTest, HostsWaitUntilItIsTakenAndIsOfTheMomentBefore) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await bed.write(target, 5, 1));
    EXPECT_TRUE(co_await hold(target, 1));
    bool is_written = false;
    Scope writing(bed.reactor());
    writing.spawn(bed.write_and_tell(target, 5, 2, is_written));
    co_await sleep(bed.reactor(), milliseconds(300));
    EXPECT_FALSE(is_written);
    EXPECT_EQ(in_snapshot(bed, 0, 1, 5), -1);
    EXPECT_TRUE(co_await take(target, 1));
    co_await writing.close();
    EXPECT_TRUE(is_written);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(in_snapshot(bed, i, 1, 5), 1);
      EXPECT_EQ(bed.on_replica(i, 5), 2);
    }
    EXPECT_TRUE(co_await take(target, 1)) << "it is there";
    EXPECT_TRUE(co_await hold(target, 1)) << "likewise: nobody is held";
    EXPECT_TRUE(co_await bed.write(target, 5, 3));
  });
}

TEST(HeldSnapshotTest, HostsGoOnWhenNobodySaysAWord) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await hold(target, 1));
    const Instant since = bed.reactor().now();
    EXPECT_TRUE(co_await bed.write(target, 5, 2));
    EXPECT_GE(bed.reactor().now() - since, kHold - milliseconds(1));
    EXPECT_LT(bed.reactor().now() - since, 2 * kHold);
    EXPECT_EQ((co_await take(target, 1)).error().code, Code::kTimedOut) << "what is written now is not of that moment";
    EXPECT_TRUE(target.status().snapshots.empty());
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(in_snapshot(bed, i, 1, 5), -1);
    EXPECT_TRUE(co_await hold(target, 2));
    EXPECT_TRUE(co_await take(target, 2));
    EXPECT_EQ(in_snapshot(bed, 1, 2, 5), 2);
  });
}

TEST(HeldSnapshotTest, IsNotTakenForAnother) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_EQ((co_await take(target, 1)).error().code, Code::kTimedOut) << "nobody is held";
    EXPECT_TRUE(co_await hold(target, 1));
    EXPECT_EQ((co_await take(target, 2)).error().code, Code::kTimedOut);
    EXPECT_TRUE(co_await take(target, 1));
  });
}

TEST(HeldSnapshotTest, DeletingItLetsHostsGoAtOnce) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await hold(target, 1));
    const Instant since = bed.reactor().now();
    EXPECT_TRUE(co_await target.volume->delete_snapshot(snapshot_id(1), kPatience));
    EXPECT_TRUE(co_await bed.write(target, 5, 2));
    EXPECT_LT(bed.reactor().now() - since, kHold / 2);
    EXPECT_EQ((co_await take(target, 1)).error().code, Code::kTimedOut);
  });
}

TEST(HeldSnapshotTest, AMemberThatFailsMeanwhileIsTheEndOfIt) {
  VolumeBed bed(3);
  bed.serve([](VolumeBed& bed, TestTarget& target) -> Task<void> {
    EXPECT_TRUE(co_await hold(target, 1));
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(target, 5, 2));
    EXPECT_EQ((co_await take(target, 1)).error().code, Code::kTimedOut);
    EXPECT_TRUE(co_await bed.has_members(target, 2));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(in_snapshot(bed, i, 1, 5), -1);
  });
}

// A cut of the next target by the same word would be of a moment at which other volumes are not held any more.
TEST(HeldSnapshotTest, ATakeOverIsTheEndOfIt) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto first = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    EXPECT_TRUE(co_await hold(*first, 1));
    auto second = co_await bed.start_target(1);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_TRUE(co_await bed.write(*second, 5, 2));
    EXPECT_FALSE(co_await take(*first, 1));
    EXPECT_EQ((co_await take(*second, 1)).error().code, Code::kTimedOut);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(in_snapshot(bed, i, 1, 5), -1);
    co_await bed.end_target(std::move(first));
    co_await bed.end_target(std::move(second));
  });
}

TEST(HeldSnapshotTest, AVolumeThatIsGivenUpMeanwhileDoesNotWaitForTheWord) {
  VolumeBed bed(3);
  bed.run([](VolumeBed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 3));
    EXPECT_TRUE(co_await hold(*target, 1));
    const Instant since = bed.reactor().now();
    co_await target->volume->stop_serving();
    EXPECT_LT(bed.reactor().now() - since, kHold);
    EXPECT_FALSE(co_await take(*target, 1));
    co_await bed.end_target(std::move(target));
  });
}

}  // namespace
}  // namespace fairlead::mirror
