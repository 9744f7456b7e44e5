// Stamps: on stable storage before a write is answered, and given without a write.
#include <gtest/gtest.h>

#include "pool/test_bed.h"

namespace fairlead::pool {
namespace {

constexpr uint64_t kExtent = kTestExtent;
constexpr uint64_t kUnit = kTestUnit;
constexpr ByteRange kAll = {0, ~uint64_t{0}};
using Ranges = std::vector<ByteRange>;

Stamp stamp(uint64_t generation) { return {1, kFairleadNamespace, generation}; }

bool touches(const Ranges& ranges, uint64_t offset) {
  return std::ranges::any_of(ranges,
                             [&](const ByteRange& range) { return range.begin <= offset && offset < range.end; });
}

Task<std::unique_ptr<Pool>> new_pool(Bed& bed) {
  const auto created = co_await bed.create();
  EXPECT_TRUE(created.has_value());
  auto pool = co_await bed.must_import();
  if (pool != nullptr) {
    EXPECT_TRUE((co_await pool->create_replica({.name = "db", .size_bytes = 40 * kMiB})).has_value());
  }
  co_return pool;
}
Task<void> write(Bed& bed, Pool& pool, std::string name, uint64_t offset, size_t length, uint8_t seed = 1) {
  auto device = co_await bed.must_open(pool, name);
  CO_ASSERT_TRUE(device != nullptr);
  EXPECT_TRUE(co_await put(bed.reactor(), *device, offset, pattern(length, seed)));
}
Task<void> expect_bytes(Bed& bed, Pool& pool, std::string name, uint64_t offset, std::vector<std::byte> bytes) {
  auto device = co_await bed.must_open(pool, name);
  CO_ASSERT_TRUE(device != nullptr);
  EXPECT_EQ(co_await get(bed.reactor(), *device, offset, bytes.size()), bytes);
}
Task<void> reimport(Bed& bed, std::unique_ptr<Pool>& pool) {
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  pool = co_await bed.must_import();
}

// ---- What a write stamps is there whatever becomes of its data

constexpr uint64_t kOldExtents = 4;  // written in the generations before, the last two of them unmapped in this one

struct Acknowledged {
  uint64_t cut_at = 0;
  bool has_snapshot = false;      // of what was written before
  std::vector<uint64_t> offsets;  // written or unmapped, in generation 3
};

struct Change {
  size_t shard = 0;
  uint64_t offset = 0;
  IoOp op = IoOp::kWrite;
  Duration later{};
};

Task<void> change_one(Bed& bed, BlockDevice& device, Change change, Acknowledged& acknowledged) {
  const auto [shard, offset, op, later] = change;
  co_await sleep(bed.reactor(), later);
  co_await MoveTo(bed.reactor(), bed.shard(shard).reactor);
  Reactor& here = bed.shard(shard).reactor;
  Result<void> done;
  if (op == IoOp::kWrite) {
    done = co_await put(here, device, offset, pattern(kUnit, 9));
  } else {
    done = co_await block_write_zeroes(here, device, ByteOffset(offset), kExtent);
  }
  co_await MoveTo(here, bed.reactor());
  if (done && !bed.cut.is_cut()) acknowledged.offsets.push_back(offset);
}

// Both shards at once: the first writes of extents, more of the same extents beside them, overwrites in place, unmaps.
// Nothing is flushed.
Task<void> write_and_cut(Bed& bed, Acknowledged& acknowledged) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  for (const uint64_t generation : {uint64_t{1}, uint64_t{2}}) {
    EXPECT_TRUE(co_await pool->begin_generation("db", stamp(generation)));
    co_await write(bed, *pool, "db", 0, kOldExtents * kExtent);
  }
  if (acknowledged.has_snapshot) EXPECT_TRUE((co_await pool->snapshot("db", "s")).has_value());
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(3)));
  EXPECT_TRUE(co_await pool->checkpoint());
  {
    auto here = co_await bed.must_open(*pool, "db");
    const auto source = co_await pool->source("db");
    CO_ASSERT_TRUE(here != nullptr && source.has_value());
    co_await MoveTo(bed.reactor(), bed.shard(1).reactor);
    auto there = (*source)->open(bed.shard(1));
    co_await MoveTo(bed.shard(1).reactor, bed.reactor());
    CO_ASSERT_TRUE(there.has_value());
    bed.cut.arm(acknowledged.cut_at);
    Scope scope(bed.reactor());
    for (uint64_t i = 0; i < 8; ++i) {
      // The later ones come while the stamp of the first is in the map, and perhaps not on stable storage.
      for (const uint64_t extent : {uint64_t{0}, uint64_t{1}, uint64_t{7}, uint64_t{130}}) {
        const size_t shard = (i + extent) % 2;
        const Change change = {
            .shard = shard, .offset = extent * kExtent + i * 3 * kUnit, .later = std::chrono::microseconds(i * 40)};
        scope.spawn(change_one(bed, shard == 0 ? *here : **there, change, acknowledged));
      }
    }
    for (const uint64_t extent : {uint64_t{2}, uint64_t{3}}) {
      const Change change = {.offset = extent * kExtent, .op = IoOp::kWriteZeroes};
      scope.spawn(change_one(bed, *here, change, acknowledged));
    }
    co_await scope.close();
    co_await MoveTo(bed.reactor(), bed.shard(1).reactor);
    there->reset();
    co_await MoveTo(bed.shard(1).reactor, bed.reactor());
  }
  co_await bed.until_the_end();
  (void)co_await pool->close();
}

Task<void> expect_stamps(Bed& bed, Acknowledged& acknowledged) {
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  const auto changed = co_await pool->changed_since("db", stamp(2), kAll);
  CO_ASSERT_TRUE(changed.has_value());
  for (const uint64_t offset : acknowledged.offsets) {
    EXPECT_TRUE(touches(*changed, offset)) << "extent " << offset / kExtent << ", cut at " << acknowledged.cut_at;
  }
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  co_await bed.expect_clean();
}

void cut_everywhere(bool has_snapshot) {
  bool was_cut = true;
  size_t most = 0;
  for (uint64_t cut_at = 0; was_cut && !testing::Test::HasFailure(); ++cut_at) {
    SCOPED_TRACE(cut_at);
    Bed bed(BedOptions{.seed = cut_at + 1});
    bed.world.settings().order = sim::Order::kRandom;
    Acknowledged acknowledged{.cut_at = cut_at, .has_snapshot = has_snapshot, .offsets = {}};
    was_cut = bed.run_and_crash(sim::CrashKind::kPowerLost, write_and_cut, acknowledged);
    bed.run(expect_stamps, acknowledged);
    most = std::max(most, acknowledged.offsets.size());
  }
  EXPECT_EQ(most, 34U);
}
TEST(StampTest, APowerCutTakesNoStampOfAWriteThatWasAnswered) { cut_everywhere(false); }
TEST(StampTest, APowerCutTakesNoStampAfterASnapshot) { cut_everywhere(true); }

// ---- Ahead of a write

// The first write to a page in a generation stamps what was written there in both of the generations before.
Task<void> stamps_ahead(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(1)));
  co_await write(bed, *pool, "db", 0, 10 * kExtent);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(2)));
  for (const uint64_t extent : {uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{5}}) {
    co_await write(bed, *pool, "db", extent * kExtent, kUnit);
  }
  EXPECT_EQ(co_await pool->changed_since("db", stamp(1), kAll),
            (Ranges{{kExtent, 4 * kExtent}, {5 * kExtent, 6 * kExtent}}))
      << "written once is not again and again";

  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(3)));
  EXPECT_EQ(co_await pool->changed_since("db", stamp(2), kAll), Ranges()) << "nothing, as nobody writes";
  co_await write(bed, *pool, "db", 8 * kExtent, kUnit);
  const Ranges hot = {{kExtent, 4 * kExtent}, {5 * kExtent, 6 * kExtent}, {8 * kExtent, 9 * kExtent}};
  EXPECT_EQ(co_await pool->changed_since("db", stamp(2), kAll), hot);

  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(4)));
  co_await write(bed, *pool, "db", 0, kUnit);
  EXPECT_EQ(co_await pool->changed_since("db", stamp(3), kAll), (Ranges{{0, kExtent}})) << "stamped is not written";
  co_await reimport(bed, pool);
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_EQ(co_await pool->changed_since("db", stamp(2), kAll),
            (Ranges{{0, 4 * kExtent}, {5 * kExtent, 6 * kExtent}, {8 * kExtent, 9 * kExtent}}));
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  co_await bed.expect_clean();
}
TEST(StampTest, WhatIsWrittenAgainAndAgainIsStampedAhead) { Bed().run(stamps_ahead); }

Task<void> no_stamp_ahead_of_what_is_gone(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  for (const uint64_t generation : {uint64_t{1}, uint64_t{2}}) {
    EXPECT_TRUE(co_await pool->begin_generation("db", stamp(generation)));
    co_await write(bed, *pool, "db", 0, 4 * kExtent);
  }
  {
    auto device = co_await bed.must_open(*pool, "db");
    EXPECT_TRUE(co_await block_discard(bed.reactor(), *device, ByteOffset(kExtent), kExtent));
  }
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(3)));
  co_await write(bed, *pool, "db", 0, 4 * kExtent);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(4)));
  {
    auto device = co_await bed.must_open(*pool, "db");
    EXPECT_TRUE(co_await block_discard(bed.reactor(), *device, ByteOffset(2 * kExtent), kExtent));
  }
  co_await write(bed, *pool, "db", 0, kUnit, 3);
  EXPECT_EQ(co_await pool->changed_since("db", stamp(3), kAll), (Ranges{{0, 4 * kExtent}}));
  EXPECT_EQ(co_await pool->mapped("db", kAll), (Ranges{{0, 2 * kExtent}, {3 * kExtent, 4 * kExtent}}));
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  co_await bed.expect_clean();
}
TEST(StampTest, OnlyWhatIsThereIsStampedAhead) { Bed().run(no_stamp_ahead_of_what_is_gone); }

// Generation 3 begins after a snapshot of generations 1 and 2, in which extents 0 to 3 were written, and 4 in one.
Task<std::unique_ptr<Pool>> snapshotted_pool(Bed& bed) {
  auto pool = co_await new_pool(bed);
  if (pool == nullptr) co_return pool;
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(1)));
  co_await write(bed, *pool, "db", 0, 5 * kExtent);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(2)));
  co_await write(bed, *pool, "db", 0, 4 * kExtent);
  EXPECT_TRUE((co_await pool->snapshot("db", "s")).has_value());
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(3)));
  co_return pool;
}

Task<void> stamps_ahead_after_a_snapshot(Bed& bed) {
  auto pool = co_await snapshotted_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  co_await write(bed, *pool, "db", kExtent, kUnit, 3);
  auto expected = pattern(4 * kExtent, 1);
  std::ranges::copy(pattern(kUnit, 3), expected.begin() + kExtent);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(co_await pool->changed_since("db", stamp(2), kAll), (Ranges{{0, 4 * kExtent}}));
    EXPECT_EQ(co_await pool->changed_between("s", "db", kAll), (Ranges{{kExtent, 2 * kExtent}})) << "only stamped";
    EXPECT_EQ(co_await pool->mapped("db", kAll), (Ranges{{0, 5 * kExtent}}));
    co_await expect_bytes(bed, *pool, "db", 0, expected);
    co_await expect_bytes(bed, *pool, "s", 0, pattern(4 * kExtent, 1));
    if (i == 0) co_await reimport(bed, pool);
    CO_ASSERT_TRUE(pool != nullptr);
  }
  // A clone is another replica, whose generations are its own.
  EXPECT_TRUE((co_await pool->clone("s", {.name = "clone"})).has_value());
  EXPECT_TRUE(co_await pool->begin_generation("clone", stamp(3)));
  co_await write(bed, *pool, "clone", kExtent, kUnit, 4);
  EXPECT_EQ(co_await pool->changed_since("clone", stamp(2), kAll), (Ranges{{kExtent, 2 * kExtent}}));
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  co_await bed.expect_clean();
}
TEST(StampTest, ASnapshotDoesNotMakeForgetWhatIsWrittenAgainAndAgain) { Bed().run(stamps_ahead_after_a_snapshot); }

Task<void> forgets_in_time(Bed& bed) {
  auto pool = co_await snapshotted_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(4)));
  co_await write(bed, *pool, "db", kExtent, kUnit, 3);
  EXPECT_EQ(co_await pool->changed_since("db", stamp(2), kAll), (Ranges{{kExtent, 2 * kExtent}}));
  EXPECT_TRUE(co_await pool->close());
}
TEST(StampTest, WhatWasNotWrittenForAGenerationIsNotStampedAhead) { Bed().run(forgets_in_time); }

class FlushCounter final : public sim::DiskObserver {
 public:
  void submitted(const IoRequest& request) override { flushes += request.op == IoOp::kFlush ? 1 : 0; }
  void performed(const IoRequest&) override {}
  uint64_t flushes = 0;
};

Task<void> write_one(Bed& bed, BlockDevice& device, uint64_t offset) {
  EXPECT_TRUE(co_await put(bed.reactor(), device, offset, pattern(kUnit, 9)));
}

// The first write waits for one round, of two flushes; the others, which come while it is under way, for the same.
Task<void> counts_flushes(Bed& bed, FlushCounter& counter) {
  auto pool = co_await snapshotted_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  {
    auto device = co_await bed.must_open(*pool, "db");
    CO_ASSERT_TRUE(device != nullptr);
    bed.devices.front()->set_observer(&counter);
    Scope scope(bed.reactor());
    scope.spawn(write_one(bed, *device, 0));
    while (counter.flushes == 0) co_await sleep(bed.reactor(), std::chrono::microseconds(1));
    for (uint64_t extent = 1; extent < 4; ++extent) scope.spawn(write_one(bed, *device, extent * kExtent));
    co_await scope.close();
    EXPECT_EQ(counter.flushes, 2U);
    bed.devices.front()->set_observer(&bed.cut);
  }
  EXPECT_TRUE(co_await pool->close());
}
TEST(StampTest, FirstWritesAfterASnapshotShareAFlush) {
  FlushCounter counter;
  Bed bed;
  bed.run(counts_flushes, counter);
}

// ---- Without a write

Task<void> stamps_what_is_there(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_EQ((co_await pool->restamp("db", {{0, kExtent}})).error().code, Code::kInvalidArgument);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(1)));
  co_await write(bed, *pool, "db", 0, 6 * kExtent);
  {
    auto device = co_await bed.must_open(*pool, "db");
    EXPECT_TRUE(co_await block_discard(bed.reactor(), *device, ByteOffset(4 * kExtent), kExtent));
  }
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(2)));
  const Ranges mapped = {{0, 4 * kExtent}, {5 * kExtent, 6 * kExtent}};
  EXPECT_EQ(co_await pool->mapped("db", kAll), mapped);
  // Whole extents, in any order, over each other; one is a hole, and three were never mapped, two on a page of their
  // own. 40 MiB end within an extent of 256.
  const Ranges asked = {{4 * kExtent + 1, 5 * kExtent}, {kExtent + 7, kExtent + 8},     {kExtent, 2 * kExtent},
                        {2 * kExtent, 2 * kExtent},     {8 * kExtent - 1, 8 * kExtent}, {158 * kExtent, 160 * kExtent}};
  EXPECT_TRUE(co_await pool->restamp("db", asked));
  EXPECT_TRUE(co_await pool->restamp("db", {}));
  const Ranges stamped = {
      {kExtent, 2 * kExtent}, {4 * kExtent, 5 * kExtent}, {7 * kExtent, 8 * kExtent}, {158 * kExtent, 160 * kExtent}};
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(co_await pool->changed_since("db", stamp(1), kAll), stamped);
    // Every stamped hole counts since ever (those that were unmapped as those that were only stamped).
    EXPECT_EQ(co_await pool->changed_since("db", {}, kAll),
              (Ranges{{0, 6 * kExtent}, {7 * kExtent, 8 * kExtent}, {158 * kExtent, 160 * kExtent}}));
    EXPECT_EQ(co_await pool->mapped("db", kAll), mapped);
    co_await expect_bytes(bed, *pool, "db", 0, pattern(4 * kExtent, 1));
    co_await expect_bytes(bed, *pool, "db", 4 * kExtent, std::vector<std::byte>(kExtent));
    co_await expect_bytes(bed, *pool, "db", 7 * kExtent, std::vector<std::byte>(kExtent));
    co_await reimport(bed, pool);
    CO_ASSERT_TRUE(pool != nullptr);
  }
  EXPECT_EQ((co_await pool->restamp("db", {{39 * kMiB, 40 * kMiB + 512}})).error().code, Code::kOutOfRange);
  EXPECT_EQ((co_await pool->restamp("none", {})).error().code, Code::kNotFound);
  // What was only stamped is written as any other.
  co_await write(bed, *pool, "db", 7 * kExtent + kUnit, kUnit, 3);
  co_await expect_bytes(bed, *pool, "db", 7 * kExtent, std::vector<std::byte>(kUnit));
  co_await expect_bytes(bed, *pool, "db", 7 * kExtent + kUnit, pattern(kUnit, 3));
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  co_await bed.expect_clean();
}
TEST(StampTest, ExtentsAreStampedWithoutAWrite) { Bed().run(stamps_what_is_there); }

Task<void> stamps_above_a_parent(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(1)));
  co_await write(bed, *pool, "db", 0, 2 * kExtent);
  EXPECT_TRUE((co_await pool->snapshot("db", "s")).has_value());
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(2)));
  EXPECT_EQ((co_await pool->restamp("s", {{0, kExtent}})).error().code, Code::kInvalidArgument);
  EXPECT_TRUE(co_await pool->restamp("db", {{0, kExtent}}));
  co_await write(bed, *pool, "db", kUnit, kUnit, 5);
  auto expected = pattern(2 * kExtent, 1);
  std::ranges::copy(pattern(kUnit, 5), expected.begin() + kUnit);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(3)));
  EXPECT_TRUE(co_await pool->restamp("db", {{0, 3 * kExtent}}));
  for (int i = 0; i < 2; ++i) {
    co_await expect_bytes(bed, *pool, "db", 0, expected);
    EXPECT_EQ(co_await pool->changed_since("db", stamp(2), kAll), (Ranges{{0, 3 * kExtent}}));
    EXPECT_EQ(co_await pool->changed_since("s", stamp(1), kAll), Ranges());
    // Only stamped: the snapshot below still shows.
    EXPECT_EQ(co_await pool->changed_between("s", "db", kAll), (Ranges{{0, kExtent}}));
    EXPECT_EQ(co_await pool->mapped("db", kAll), (Ranges{{0, 2 * kExtent}}));
    co_await reimport(bed, pool);
    CO_ASSERT_TRUE(pool != nullptr);
  }
  // The layers become one.
  EXPECT_TRUE(co_await pool->remove("s"));
  EXPECT_TRUE(co_await pool->settle());
  co_await expect_bytes(bed, *pool, "db", 0, expected);
  EXPECT_EQ(co_await pool->changed_since("db", stamp(2), kAll), (Ranges{{0, 3 * kExtent}}));
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  co_await bed.expect_clean();
}
TEST(StampTest, AStampHidesNothingOfTheParent) { Bed().run(stamps_above_a_parent); }

Task<void> restamp_and_cut(Bed& bed, bool& is_stamped) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(1)));
  co_await write(bed, *pool, "db", 0, 2 * kExtent);
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(2)));
  is_stamped = (co_await pool->restamp("db", {{0, 4 * kExtent}})).has_value();
  co_await bed.until_the_end();
  (void)co_await pool->close();
}
Task<void> expect_restamped(Bed& bed) {
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_EQ(co_await pool->changed_since("db", stamp(1), kAll), (Ranges{{0, 4 * kExtent}}));
  EXPECT_TRUE(co_await pool->close());
}
TEST(StampTest, StampsAreOnStableStorageWhenItReturns) {
  Bed bed;
  bool is_stamped = false;
  bed.run_and_crash(sim::CrashKind::kPowerLost, restamp_and_cut, is_stamped);
  EXPECT_TRUE(is_stamped);
  bed.run(expect_restamped);
}

}  // namespace
}  // namespace fairlead::pool
