// What reads, writes, unmapping and zeroing do to a pool's objects and its room, each plainly.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pool/test_bed.h"

namespace fairlead::pool {
namespace {

constexpr uint64_t kExtent = kTestExtent;
constexpr uint64_t kUnit = kTestUnit;

// An empty pool with replica db of 8 MiB, open.
struct Open {
  std::unique_ptr<Pool> pool;
  std::unique_ptr<BlockDevice> db;
};
Task<Open> open_new(Bed& bed, ImportOptions options = {}) {
  Open open;
  const auto created = co_await bed.create();
  EXPECT_TRUE(created.has_value());
  open.pool = co_await bed.must_import(options);
  if (open.pool == nullptr) co_return open;
  EXPECT_TRUE((co_await open.pool->create_replica({.name = "db", .size_bytes = 8 * kMiB})).has_value());
  open.db = co_await bed.must_open(*open.pool, "db");
  co_return open;
}
Task<void> end(Bed& bed, Open& open) {
  open.db.reset();
  EXPECT_TRUE(co_await open.pool->close());
  open.pool.reset();
  co_await bed.expect_clean();
}
uint64_t used(const Open& open, std::string_view name = "db") { return open.pool->find(name)->used_bytes; }

// ---- Room.

Task<void> thick(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  const PoolStatistics before = open.pool->statistics();
  const uint64_t half = align_down(before.free_bytes / 2, kExtent);
  EXPECT_TRUE(
      (co_await open.pool->create_replica({.name = "thick", .size_bytes = half, .is_thick = true})).has_value());
  EXPECT_EQ(open.pool->statistics().free_bytes, before.free_bytes - half);
  EXPECT_EQ(open.pool->statistics().reserved_bytes, before.reserved_bytes + half);
  const auto refused =
      co_await open.pool->create_replica({.name = "more", .size_bytes = half + 2 * kExtent, .is_thick = true});
  EXPECT_EQ(refused.error().code, Code::kNoSpace);
  EXPECT_EQ((co_await open.pool->resize("thick", 2 * half + 8 * kExtent, Pool::Shrink::kRefuse)).error().code,
            Code::kNoSpace);
  // A thin one takes the rest, and no more.
  EXPECT_TRUE(co_await open.pool->resize("db", 1 * kGiB, Pool::Shrink::kRefuse));
  open.db = co_await bed.must_open(*open.pool, "db");
  Result<void> last;
  uint64_t at = 0;
  for (; last && at < 1 * kGiB; at += kExtent) last = co_await put(bed.reactor(), *open.db, at, pattern(kUnit, 1));
  EXPECT_EQ(last.error().code, Code::kNoSpace);
  // All of the thick one has room now.
  auto device = co_await bed.must_open(*open.pool, "thick");
  for (uint64_t offset = 0; offset < half; offset += kExtent) {
    EXPECT_TRUE(co_await put(bed.reactor(), *device, offset, pattern(kUnit, 2)));
  }
  EXPECT_EQ(used(open, "thick"), half);
  // After a snapshot it would need that room again.
  EXPECT_EQ((co_await open.pool->snapshot("thick", "s")).error().code, Code::kNoSpace);
  device.reset();
  co_await end(bed, open);
}
TEST(PoolIoTest, AThickReplicaHasItsRoom) { Bed(BedOptions{.disk_bytes = 16 * kMiB}).run(thick); }

Task<void> resize(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  const auto data = pattern(kExtent, 4);
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 8 * kMiB - kExtent, data));
  EXPECT_EQ((co_await put(bed.reactor(), *open.db, 8 * kMiB, data)).error().code, Code::kOutOfRange);
  // Up while it is open; past one map page too.
  EXPECT_TRUE(co_await open.pool->resize("db", 200 * kMiB, Pool::Shrink::kRefuse));
  EXPECT_EQ(open.db->refresh_size(), 200 * kMiB);
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 200 * kMiB - kExtent, data));
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 200 * kMiB - kExtent, kExtent), data);
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 8 * kMiB - kExtent, kExtent), data);
  // Down only when told, and closed.
  const uint64_t down = 8 * kMiB - kUnit / 2;
  EXPECT_EQ((co_await open.pool->resize("db", down, Pool::Shrink::kRefuse)).error().code, Code::kInvalidArgument);
  EXPECT_EQ((co_await open.pool->resize("db", down, Pool::Shrink::kLoseData)).error().code, Code::kBusy);
  open.db.reset();
  EXPECT_TRUE(co_await open.pool->resize("db", down, Pool::Shrink::kLoseData));
  EXPECT_EQ(used(open), kExtent);
  EXPECT_EQ((co_await open.pool->resize("db", 0, Pool::Shrink::kLoseData)).error().code, Code::kInvalidArgument);
  EXPECT_EQ((co_await open.pool->resize("db", 4097, Pool::Shrink::kLoseData)).error().code, Code::kInvalidArgument);
  EXPECT_TRUE(co_await open.pool->resize("db", 200 * kMiB, Pool::Shrink::kRefuse));
  open.db = co_await bed.must_open(*open.pool, "db");
  auto expected = data;
  std::fill(expected.end() - kUnit / 2, expected.end(), std::byte{0});
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 8 * kMiB - kExtent, kExtent), expected);
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 200 * kMiB - kExtent, kExtent), std::vector<std::byte>(kExtent));
  co_await end(bed, open);
}
TEST(PoolIoTest, ReplicasGrowOpenAndShrinkWhenTold) { Bed().run(resize); }

Task<void> unmap_base(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  auto expected = pattern(4 * kExtent, 3);
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 0, expected));
  EXPECT_TRUE(co_await block_flush(bed.reactor(), *open.db));
  const uint64_t before = bed.devices[0]->allocated_bytes();
  // One whole extent, units of two more, and less than a unit, which is only a hint.
  EXPECT_TRUE(co_await block_discard(bed.reactor(), *open.db, ByteOffset(kExtent - kUnit), kExtent + 3 * kUnit));
  EXPECT_TRUE(co_await block_discard(bed.reactor(), *open.db, ByteOffset(3 * kExtent + 512), kUnit / 2));
  std::fill_n(expected.begin() + kExtent - kUnit, kExtent + 3 * kUnit, std::byte{0});
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 0, expected.size()), expected);
  EXPECT_TRUE(co_await open.pool->settle());
  EXPECT_EQ(used(open), 3 * kExtent);
  // The last units of an extent take it along, and the disk hears of it.
  EXPECT_TRUE(co_await block_discard(bed.reactor(), *open.db, ByteOffset(0), kExtent - kUnit));
  EXPECT_TRUE(co_await open.pool->settle());
  EXPECT_EQ(used(open), 2 * kExtent);
  EXPECT_TRUE(co_await open.pool->checkpoint());
  EXPECT_LT(bed.devices[0]->allocated_bytes(), before - kExtent - kExtent / 2);
  co_await end(bed, open);
}
TEST(PoolIoTest, UnmapGivesRoomBack) { Bed().run(unmap_base); }

Task<void> unmap_clone(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  const auto data = pattern(3 * kExtent, 3);
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 0, data));
  EXPECT_TRUE((co_await open.pool->snapshot("db", "s")).has_value());
  EXPECT_TRUE((co_await open.pool->clone("s", {.name = "copy"})).has_value());
  auto copy = co_await bed.must_open(*open.pool, "copy");
  auto snapshot = co_await bed.must_open(*open.pool, "s");
  auto expected = data;
  // Zeroes hide what the parent has.
  EXPECT_TRUE(co_await block_discard(bed.reactor(), *copy, ByteOffset(kExtent), kExtent));
  std::fill_n(expected.begin() + kExtent, kExtent, std::byte{0});
  EXPECT_EQ(co_await get(bed.reactor(), *copy, 0, data.size()), expected);
  EXPECT_EQ(used(open, "copy"), 0U);
  // A write into the hole: the rest of the extent stays zeroes.
  EXPECT_TRUE(co_await put(bed.reactor(), *copy, kExtent + 5 * kUnit + 512, pattern(512, 8)));
  std::ranges::copy(pattern(512, 8), expected.begin() + kExtent + 5 * kUnit + 512);
  EXPECT_EQ(co_await get(bed.reactor(), *copy, 0, data.size()), expected);
  EXPECT_TRUE(co_await block_write_zeroes(bed.reactor(), *copy, ByteOffset(512), 3 * kUnit));
  std::fill_n(expected.begin() + 512, 3 * kUnit, std::byte{0});
  EXPECT_EQ(co_await get(bed.reactor(), *copy, 0, data.size()), expected);
  EXPECT_EQ(co_await get(bed.reactor(), *snapshot, 0, data.size()), data);
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 0, data.size()), data);
  copy.reset();
  snapshot.reset();
  co_await end(bed, open);
}
TEST(PoolIoTest, AHoleInACloneHidesItsParent) { Bed().run(unmap_clone); }

Task<void> write_zeroes(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  const size_t length = 3 * kExtent;
  const std::vector<std::byte> data(length, std::byte{0xaa});
  const std::array<uint64_t, 8> edges = {0,     512, kUnit, kUnit + 512, kExtent - 512, kExtent, kExtent + 3 * kUnit,
                                         length};
  for (const bool has_parent : {false, true}) {
    if (has_parent) EXPECT_TRUE((co_await open.pool->snapshot("db", "s")).has_value());
    for (const uint64_t begin : edges) {
      for (const uint64_t stop : edges) {
        if (stop <= begin) continue;
        if (!has_parent) EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 0, data));
        auto expected = co_await get(bed.reactor(), *open.db, 0, length);
        EXPECT_TRUE(co_await block_write_zeroes(bed.reactor(), *open.db, ByteOffset(begin), stop - begin));
        std::fill(expected.begin() + static_cast<ptrdiff_t>(begin), expected.begin() + static_cast<ptrdiff_t>(stop),
                  std::byte{0});
        EXPECT_EQ(co_await get(bed.reactor(), *open.db, 0, length), expected) << begin << " to " << stop;
      }
    }
    EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 0, data));
  }
  co_await end(bed, open);
}
TEST(PoolIoTest, WriteZeroesIsExact) { Bed().run(write_zeroes); }

// ---- Several shards.

struct Turn {
  size_t shard = 0;
  uint64_t offset = 0;
  uint8_t seed = 0;
  IoOp op = IoOp::kWrite;
};
Task<Result<void>> act_there(Bed& bed, std::shared_ptr<BlockSource> source, Turn turn) {
  Shard& shard = bed.shard(turn.shard);
  auto device = source->open(shard);
  if (turn.op == IoOp::kDiscard) {
    co_return co_await block_discard(shard.reactor, **device, ByteOffset(turn.offset), kExtent);
  }
  co_return co_await put(shard.reactor, **device, turn.offset, pattern(kUnit, turn.seed));
}
Task<void> act(Bed& bed, std::shared_ptr<BlockSource> source, Turn turn, int& ended) {
  const auto done = co_await call_on(bed.reactor(), bed.shard(turn.shard).reactor, act_there(bed, source, turn));
  EXPECT_TRUE(done.has_value());
  ++ended;
}

Task<void> first_writes_at_once(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  const auto source = co_await open.pool->source("db");
  Scope scope(bed.reactor());
  int ended = 0;
  for (uint64_t unit = 0; unit < 32; ++unit) {
    scope.spawn(act(bed, *source, {unit % 2, unit * kUnit, static_cast<uint8_t>(unit)}, ended));
  }
  co_await scope.close();
  EXPECT_EQ(ended, 32);
  EXPECT_EQ(used(open), kExtent);
  for (uint64_t unit = 0; unit < 32; ++unit) {
    EXPECT_EQ(co_await get(bed.reactor(), *open.db, unit * kUnit, kUnit), pattern(kUnit, static_cast<uint8_t>(unit)));
  }
  EXPECT_EQ(open.pool->statistics().used_bytes - open.pool->statistics().metadata_bytes, kExtent);
  co_await end(bed, open);
}
TEST(PoolShardsTest, FirstWritesToOneExtentShareIt) {
  for (uint64_t seed = 1; seed < 6; ++seed) Bed(BedOptions{.seed = seed}).run(first_writes_at_once);
}

Task<void> unmap_races(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  const auto source = co_await open.pool->source("db");
  const auto old = pattern(kExtent, 1);
  for (int round = 0; round < 20; ++round) {
    EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 0, old));
    Scope scope(bed.reactor());
    int ended = 0;
    for (uint64_t unit = 0; unit < 8; ++unit) {
      scope.spawn(act(bed, *source, {unit % 2, unit * kUnit, 50}, ended));
      if (unit == 4) scope.spawn(act(bed, *source, {1, 0, 0, IoOp::kDiscard}, ended));
    }
    co_await scope.close();
    EXPECT_EQ(ended, 9);
    // What was written: new or zeroes. The others: zeroes.
    for (uint64_t unit = 0; unit < kTestUnits; ++unit) {
      const auto now = co_await get(bed.reactor(), *open.db, unit * kUnit, kUnit);
      const bool is_new = unit < 8 && now == pattern(kUnit, 50);
      EXPECT_TRUE(is_new || now == std::vector<std::byte>(kUnit)) << "unit " << unit;
    }
  }
  EXPECT_TRUE(co_await open.pool->settle());
  EXPECT_LE(used(open), kExtent);
  co_await end(bed, open);
}
TEST(PoolShardsTest, UnmapRacesWithWrites) {
  for (uint64_t seed = 1; seed < 4; ++seed) Bed(BedOptions{.seed = seed}).run(unmap_races);
}

// Each shard writes its own half of every extent, ever newer bytes; a snapshot holds what was acknowledged before it.
struct Half {
  std::array<uint8_t, 8> acknowledged{};  // by extent
  std::array<uint8_t, 8> submitted{};
  bool is_over = false;
};
Task<void> keep_writing_there(Shard& shard, std::shared_ptr<BlockSource> source, uint64_t offset, Half& half) {
  auto device = source->open(shard);
  for (uint8_t version = 1; !half.is_over && version < 250; ++version) {
    for (size_t extent = 0; extent < half.submitted.size(); ++extent) {
      half.submitted[extent] = version;
      EXPECT_TRUE(
          co_await put(shard.reactor, **device, extent * kExtent + offset, std::vector(kUnit, std::byte{version})));
      half.acknowledged[extent] = version;
    }
  }
}
Task<void> keep_writing(Bed& bed, size_t shard, std::shared_ptr<BlockSource> source, Half& half) {
  const uint64_t offset = shard * kExtent / 2;
  co_await call_on(bed.reactor(), bed.shard(shard).reactor, keep_writing_there(bed.shard(shard), source, offset, half));
}
Task<void> snapshots_under_writes(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  const auto source = co_await open.pool->source("db");
  std::array<Half, 2> halves;
  Scope scope(bed.reactor());
  for (size_t shard = 0; shard < 2; ++shard) scope.spawn(keep_writing(bed, shard, *source, halves[shard]));
  for (int i = 0; i < 10; ++i) {
    (void)co_await sleep(bed.reactor(), std::chrono::milliseconds(2));
    const auto before = halves;
    const std::string name = "s" + std::to_string(i);
    EXPECT_TRUE((co_await open.pool->snapshot("db", name)).has_value());
    const auto after = halves;
    auto device = co_await bed.must_open(*open.pool, name);
    CO_ASSERT_TRUE(device != nullptr);
    for (size_t shard = 0; shard < 2; ++shard) {
      for (size_t extent = 0; extent < 8; ++extent) {
        const auto bytes = co_await get(bed.reactor(), *device, extent * kExtent + shard * kExtent / 2, kUnit);
        const auto version = static_cast<uint8_t>(bytes[0]);
        EXPECT_GE(version, before[shard].acknowledged[extent]) << name;
        EXPECT_LE(version, after[shard].submitted[extent]) << name;
        EXPECT_EQ(bytes, std::vector(kUnit, std::byte{version})) << name << " changes or is torn";
      }
    }
  }
  for (Half& half : halves) half.is_over = true;
  co_await scope.close();
  co_await end(bed, open);
}
TEST(PoolShardsTest, ASnapshotHasWhatWasAcknowledgedBefore) {
  for (uint64_t seed = 1; seed < 4; ++seed) Bed(BedOptions{.seed = seed}).run(snapshots_under_writes);
}

// ---- Long chains, small caches, several disks, bad ones.

Task<void> long_chain(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  constexpr int kSnapshots = 200;
  std::vector<std::byte> expected(kExtent);
  for (int i = 0; i < kSnapshots; ++i) {
    const auto at = static_cast<uint64_t>(i) % kTestUnits * kUnit;
    const auto data = pattern(kUnit, static_cast<uint8_t>(i));
    EXPECT_TRUE(co_await put(bed.reactor(), *open.db, at, data));
    std::ranges::copy(data, expected.begin() + static_cast<ptrdiff_t>(at));
    EXPECT_TRUE((co_await open.pool->snapshot("db", "s" + std::to_string(i))).has_value());
  }
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 0, kExtent), expected);
  co_await end(bed, open);
  open.pool = co_await bed.must_import();
  CO_ASSERT_TRUE(open.pool != nullptr);
  open.db = co_await bed.must_open(*open.pool, "db");
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 0, kExtent), expected);
  auto old = co_await bed.must_open(*open.pool, "s0");
  EXPECT_EQ(co_await get(bed.reactor(), *old, 0, kUnit), pattern(kUnit, 0));
  EXPECT_EQ(co_await get(bed.reactor(), *old, kUnit, kUnit), std::vector<std::byte>(kUnit));
  old.reset();
  for (int i = 0; i < kSnapshots; ++i) EXPECT_TRUE(co_await open.pool->remove("s" + std::to_string(i)));
  EXPECT_TRUE(co_await open.pool->settle());
  EXPECT_EQ(used(open), kExtent);
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 0, kExtent), expected);
  co_await end(bed, open);
}
TEST(PoolIoTest, TwoHundredSnapshotsInAChain) { Bed(BedOptions{.disk_bytes = 128 * kMiB}).run(long_chain); }

Task<void> tiny_cache(Bed& bed) {
  Open open = co_await open_new(bed, {.cache_bytes = 1});
  CO_ASSERT_TRUE(open.db != nullptr);
  const uint64_t stride = kEntriesPerPage * kExtent;  // a map page each
  EXPECT_TRUE(co_await open.pool->resize("db", 40 * stride, Pool::Shrink::kRefuse));
  (void)open.db->refresh_size();
  for (uint8_t i = 0; i < 40; ++i) EXPECT_TRUE(co_await put(bed.reactor(), *open.db, i * stride, pattern(kUnit, i)));
  EXPECT_TRUE((co_await open.pool->snapshot("db", "s")).has_value());
  for (uint8_t i = 0; i < 40; ++i) {
    EXPECT_TRUE(co_await put(bed.reactor(), *open.db, i * stride + kUnit, pattern(kUnit, i + 100)));
  }
  EXPECT_TRUE(co_await open.pool->checkpoint());
  for (int round = 0; round < 2; ++round) {
    for (uint8_t i = 0; i < 40; ++i) {
      EXPECT_EQ(co_await get(bed.reactor(), *open.db, i * stride, kUnit), pattern(kUnit, i));
      EXPECT_EQ(co_await get(bed.reactor(), *open.db, i * stride + kUnit, kUnit), pattern(kUnit, i + 100));
      EXPECT_LE(open.pool->statistics().cache_bytes, 4 * 10 * kPageBytes);
    }
  }
  co_await end(bed, open);
}
TEST(PoolIoTest, ATinyCacheIsEnough) { Bed().run(tiny_cache); }

Task<void> statistics(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  const auto adds_up = [&] {
    const PoolStatistics now = open.pool->statistics();
    EXPECT_EQ(now.used_bytes + now.free_bytes + now.reserved_bytes + now.releasing_bytes, now.capacity_bytes);
    EXPECT_LE(now.metadata_bytes, now.used_bytes);
    return now;
  };
  const PoolStatistics empty = adds_up();
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 0, pattern(4 * kExtent, 1)));
  const PoolStatistics written = adds_up();
  EXPECT_EQ(written.used_bytes - written.metadata_bytes, 4 * kExtent);
  EXPECT_GT(written.journal_used_bytes, empty.journal_used_bytes);
  EXPECT_TRUE(co_await block_discard(bed.reactor(), *open.db, ByteOffset(0), kExtent));
  (void)adds_up();
  EXPECT_TRUE(co_await open.pool->settle());
  EXPECT_TRUE(co_await open.pool->checkpoint());
  const PoolStatistics after = adds_up();
  EXPECT_EQ(after.used_bytes - after.metadata_bytes, 3 * kExtent);
  EXPECT_EQ(after.releasing_bytes, 0U);
  EXPECT_GT(after.checkpoints, written.checkpoints);
  co_await end(bed, open);
}
TEST(PoolIoTest, StatisticsAddUp) { Bed(2).run(statistics); }

Task<void> fill_up(Bed& bed) {
  Open open = co_await open_new(bed, {.warn_percent = 50, .critical_percent = 90});
  CO_ASSERT_TRUE(open.db != nullptr);
  EXPECT_TRUE(co_await open.pool->resize("db", 1 * kGiB, Pool::Shrink::kRefuse));
  (void)open.db->refresh_size();
  Result<void> last;
  std::vector<std::string> told;
  for (uint64_t at = 0; last; at += kExtent) {
    last = co_await put(bed.reactor(), *open.db, at, pattern(kUnit, 1));
    const std::string trace = bed.world.report();  // its last lines
    for (const std::string threshold : {"threshold_percent=50", "threshold_percent=90"}) {
      if (trace.find(threshold) != std::string::npos && std::ranges::find(told, threshold) == told.end())
        told.push_back(threshold);
    }
  }
  EXPECT_THAT(told, testing::ElementsAre("threshold_percent=50", "threshold_percent=90"));
  co_await end(bed, open);
}
TEST(PoolIoTest, PassingAThresholdIsLogged) { Bed(BedOptions{.disk_bytes = 16 * kMiB}).run(fill_up); }

Task<void> evenly(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  // A run of as many extents as a map page has goes to one disk, the next to the emptiest one.
  const uint64_t extents = 6 * kEntriesPerPage;
  EXPECT_TRUE(co_await open.pool->resize("db", extents * kExtent, Pool::Shrink::kRefuse));
  (void)open.db->refresh_size();
  std::vector<uint64_t> before;
  for (const sim::SimDevice* const device : bed.devices) before.push_back(device->allocated_bytes());
  for (uint64_t i = 0; i < extents; ++i) {
    EXPECT_TRUE(co_await put(bed.reactor(), *open.db, i * kExtent, pattern(kUnit, 1)));
  }
  for (size_t i = 0; i < before.size(); ++i) {
    const uint64_t gained = bed.devices[i]->allocated_bytes() - before[i];
    EXPECT_GT(gained, extents * kUnit / before.size() * 9 / 10) << "disk " << i;
  }
  co_await end(bed, open);
}
TEST(PoolIoTest, AllDisksAreUsed) { Bed(BedOptions{.disks = 3, .disk_bytes = 192 * kMiB}).run(evenly); }

Task<void> data_write_error(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 0, pattern(kExtent, 1)));
  sim::DiskFaults faults;
  const uint64_t behind_journal = align_up(kHeadBytes, kExtent) + 2 * kJournalBytesMin;
  faults.zones = {{behind_journal, bed.devices[0]->size_bytes(), {.write_error_ppm = 1'000'000}}};
  bed.devices[0]->set_faults(faults);
  EXPECT_EQ((co_await put(bed.reactor(), *open.db, 4 * kExtent, pattern(kExtent, 2))).error().code, Code::kIo);
  EXPECT_EQ((co_await put(bed.reactor(), *open.db, 5 * kExtent, pattern(kUnit, 2))).error().code, Code::kIo);
  bed.devices[0]->set_faults({});
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 0, kExtent), pattern(kExtent, 1));
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 4 * kExtent, kExtent), std::vector<std::byte>(kExtent));
  EXPECT_EQ(used(open), kExtent);
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 4 * kExtent, pattern(kExtent, 3)));
  EXPECT_EQ(co_await get(bed.reactor(), *open.db, 4 * kExtent, kExtent), pattern(kExtent, 3));
  const PoolStatistics now = open.pool->statistics();
  EXPECT_EQ(now.used_bytes - now.metadata_bytes, 2 * kExtent);
  co_await end(bed, open);
}
TEST(PoolIoTest, AWriteThatFailsHarmsNothingElse) { Bed().run(data_write_error); }

Task<void> metadata_write_error(Bed& bed) {
  Open open = co_await open_new(bed);
  CO_ASSERT_TRUE(open.db != nullptr);
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, 0, pattern(kExtent, 1)));
  // The journal's copy and the first superblock of one disk.
  sim::DiskFaults faults;
  const uint64_t head = align_up(kHeadBytes, kExtent);
  faults.zones = {{0, 4096, {.write_error_ppm = 1'000'000}},
                  {head, head + kJournalBytesMin, {.write_error_ppm = 1'000'000}}};
  bed.devices[1]->set_faults(faults);
  EXPECT_TRUE(co_await put(bed.reactor(), *open.db, kExtent, pattern(kExtent, 2)));
  EXPECT_TRUE(co_await open.pool->checkpoint());
  EXPECT_TRUE((co_await open.pool->snapshot("db", "s")).has_value());
  EXPECT_TRUE(co_await block_flush(bed.reactor(), *open.db));
  open.db.reset();
  EXPECT_TRUE(co_await open.pool->close());
  open.pool.reset();
  bed.devices[1]->set_faults({});
  open.pool = co_await bed.must_import();
  CO_ASSERT_TRUE(open.pool != nullptr);
  auto snapshot = co_await bed.must_open(*open.pool, "s");
  EXPECT_EQ(co_await get(bed.reactor(), *snapshot, kExtent, kExtent), pattern(kExtent, 2));
  snapshot.reset();
  co_await end(bed, open);
}
TEST(PoolIoTest, OneCopyOfMetadataMayFail) { Bed(2).run(metadata_write_error); }

}  // namespace
}  // namespace fairlead::pool
