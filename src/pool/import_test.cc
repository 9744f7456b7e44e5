// What import and create do with the wrong disks, and with disks as crashes and people leave them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/endian.h"
#include "pool/byte_codec.h"
#include "pool/test_bed.h"

namespace fairlead::pool {
namespace {

using sim::CrashKind;
using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kReplicaBytes = 8 * kMiB;
constexpr uint64_t kDiskBytes = 16 * kMiB;
BedOptions disks_of(size_t disks, uint64_t seed = 1) {
  return {.disks = disks, .shards = 2, .disk_bytes = kDiskBytes, .seed = seed, .disk = {}};
}

Task<void> end(std::unique_ptr<Pool>& pool) {
  EXPECT_TRUE(co_await pool->close());
  pool.reset();  // and with it the disks
}

// Replica db with data at three places, snapshot mon of the first state of it, and clone copy.
Task<void> fill(Bed& bed, Pool& pool) {
  EXPECT_TRUE((co_await pool.create_replica({.name = "db", .size_bytes = kReplicaBytes})).has_value());
  auto device = co_await bed.must_open(pool, "db");
  CO_ASSERT_TRUE(device != nullptr);
  EXPECT_TRUE(co_await put(bed.reactor(), *device, 0, pattern(2 * kTestExtent, 1)));
  EXPECT_TRUE((co_await pool.snapshot("db", "mon")).has_value());
  EXPECT_TRUE((co_await pool.clone("mon", {.name = "copy"})).has_value());
  EXPECT_TRUE(co_await put(bed.reactor(), *device, kTestExtent, pattern(kTestUnit, 9)));
  EXPECT_TRUE(co_await put(bed.reactor(), *device, 5 * kTestExtent, pattern(kTestUnit, 5)));
  EXPECT_TRUE(co_await block_flush(bed.reactor(), *device));
}
Task<void> expect_filled(Bed& bed, Pool& pool) {
  EXPECT_EQ(pool.list().size(), 3U);
  auto expected = pattern(2 * kTestExtent, 1);
  for (const std::string name : {"mon", "copy"}) {
    auto device = co_await bed.must_open(pool, name);
    CO_ASSERT_TRUE(device != nullptr);
    EXPECT_EQ(co_await get(bed.reactor(), *device, 0, expected.size()), expected) << name;
    EXPECT_EQ(co_await get(bed.reactor(), *device, 5 * kTestExtent, kTestUnit), std::vector<std::byte>(kTestUnit));
  }
  auto device = co_await bed.must_open(pool, "db");
  CO_ASSERT_TRUE(device != nullptr);
  std::ranges::copy(pattern(kTestUnit, 9), expected.begin() + kTestExtent);
  EXPECT_EQ(co_await get(bed.reactor(), *device, 0, expected.size()), expected);
  EXPECT_EQ(co_await get(bed.reactor(), *device, 5 * kTestExtent, kTestUnit), pattern(kTestUnit, 5));
}
// An exported pool on all disks of the bed.
Task<void> make_filled(Bed& bed) {
  const auto created = co_await bed.create();
  EXPECT_TRUE(created.has_value());
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  co_await fill(bed, *pool);
  co_await end(pool);
}
Task<void> import_and_compare(Bed& bed) {
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  co_await expect_filled(bed, *pool);
  co_await end(pool);
  co_await bed.expect_clean();
}
// A change of something, so that the disks are other ones.
Task<void> go_on(Bed& bed) {
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_TRUE((co_await pool->create_replica({.name = "later", .size_bytes = kReplicaBytes})).has_value());
  co_await end(pool);
}

// Writes to these pages of every disk fail so often, in a million, and leave any of their sectors written.
void fail_writes(Bed& bed, const std::vector<uint64_t>& pages, uint32_t ppm) {
  sim::DiskFaults faults;
  for (const uint64_t page : pages) {
    faults.zones.push_back({.begin = page, .end = page + kPageBytes, .rates = {.write_error_ppm = ppm}});
  }
  for (sim::SimDevice* const device : bed.devices) device->set_faults(faults);
}

// ---- Superblocks.

Task<void> copies_disagree(Bed& bed) {
  co_await make_filled(bed);
  std::vector<std::byte> old_page(kPageBytes);
  bed.devices[0]->peek(0, old_page);
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_TRUE((co_await pool->create_replica({.name = "later", .size_bytes = kReplicaBytes})).has_value());
  co_await end(pool);
  for (const uint64_t offset : kSuperblockOffsets) {
    co_await bed.put_image(0, old_page, offset);
    pool = co_await bed.must_import();
    CO_ASSERT_TRUE(pool != nullptr);
    EXPECT_TRUE(pool->find("later").has_value());
    co_await end(pool);
    co_await bed.expect_clean();  // both are written anew
  }
}
TEST(ImportTest, TheNewerOfTwoSuperblocksCounts) { Bed(disks_of(1)).run(copies_disagree); }

Task<void> copy_is_bad(Bed& bed) {
  co_await make_filled(bed);
  for (const uint64_t offset : kSuperblockOffsets) {
    bed.devices[0]->rot(offset, 512);
    co_await import_and_compare(bed);
    bed.devices[0]->make_unreadable(offset, 4096);
    co_await import_and_compare(bed);
    bed.devices[0]->rot(offset, 4096);
    bed.devices[1]->rot(kSuperblockOffsets[0] + kSuperblockOffsets[1] - offset, 4096);
    co_await import_and_compare(bed);
  }
}
TEST(ImportTest, OneWholeSuperblockOfADiskIsEnough) { Bed(disks_of(2)).run(copy_is_bad); }

Task<void> both_are_bad(Bed& bed) {
  co_await make_filled(bed);
  for (const uint64_t offset : kSuperblockOffsets) bed.devices[1]->rot(offset, 4096);
  const Problem problem = co_await bed.refused_import(bed.paths);
  EXPECT_EQ(problem.error.code, Code::kCorrupt);
  EXPECT_THAT(problem.detail, HasSubstr("/disk1"));
}
TEST(ImportTest, ADiskWithoutAWholeSuperblockIsNamed) { Bed(disks_of(2)).run(both_are_bad); }

Task<void> newer_version(Bed& bed) {
  co_await make_filled(bed);
  for (const uint64_t offset : kSuperblockOffsets) {
    std::vector<std::byte> page(kPageBytes);
    bed.devices[0]->peek(offset, page);
    ByteWriter version(std::span(page).subspan(kMagicBytes, 4));
    version.field(kFormatVersion + 1);
    ByteWriter(std::span(page).subspan(kCrcOffset, 4)).field(crc_of_structure(page));
    co_await bed.put_image(0, page, offset);
  }
  const Problem problem = co_await bed.refused_import(bed.paths);
  EXPECT_EQ(problem.error.code, Code::kNotSupported);
  EXPECT_THAT(problem.detail, HasSubstr("/disk0"));
}
TEST(ImportTest, ANewerFormatIsRefused) { Bed(disks_of(1)).run(newer_version); }

// ---- Which disks.

Task<void> missing(Bed& bed) {
  co_await make_filled(bed);
  const Problem problem = co_await bed.refused_import({"/disk0", "/disk2"});
  EXPECT_EQ(problem.error.code, Code::kNotFound);
  EXPECT_THAT(problem.detail, AllOf(HasSubstr("disk 2 of 3"), HasSubstr("tank"), HasSubstr("16 MiB")));
  EXPECT_EQ((co_await bed.refused_import({"/disk1"})).error.code, Code::kNotFound);
  co_await import_and_compare(bed);
}
TEST(ImportTest, AMissingDiskIsNamed) { Bed(disks_of(3)).run(missing); }

Task<void> other_order(Bed& bed) {
  co_await make_filled(bed);
  std::ranges::reverse(bed.paths);
  co_await import_and_compare(bed);
  std::ranges::rotate(bed.paths, bed.paths.begin() + 1);
  co_await import_and_compare(bed);
}
TEST(ImportTest, TheOrderOfTheDisksDoesNotMatter) { Bed(disks_of(3)).run(other_order); }

Task<void> wrong_disk(Bed& bed) {
  EXPECT_TRUE((co_await bed.create({"/disk0", "/disk1"}, "tank")).has_value());
  EXPECT_TRUE((co_await bed.create({"/disk2"}, "other")).has_value());
  const Problem problem = co_await bed.refused_import({"/disk0", "/disk2"});
  EXPECT_EQ(problem.error.code, Code::kInvalidArgument);
  EXPECT_THAT(problem.detail, AllOf(HasSubstr("/disk0 of pool tank"), HasSubstr("/disk2 is of pool other")));
  const Problem blank = co_await bed.refused_import({"/disk0", "/disk3"});
  EXPECT_EQ(blank.error.code, Code::kNotFound);
  EXPECT_THAT(blank.detail, HasSubstr("/disk3"));
}
TEST(ImportTest, DisksOfOthersAreNamed) { Bed(disks_of(4)).run(wrong_disk); }

Task<void> same_disk_twice(Bed& bed) {
  EXPECT_TRUE((co_await bed.create({"/disk0", "/disk1"})).has_value());
  co_await bed.put_image(2, bed.image(1));  // a copy
  const Problem copied = co_await bed.refused_import({"/disk0", "/disk1", "/disk2"});
  EXPECT_EQ(copied.error.code, Code::kInvalidArgument);
  EXPECT_THAT(copied.detail, HasSubstr("/disk2"));
  auto disks = co_await bed.disks({"/disk0", "/disk1"});
  disks.push_back(disks.front());
  const auto pool = co_await Pool::import({&bed.shard(0)}, disks, {});
  CO_ASSERT_TRUE(!pool.has_value());
  EXPECT_EQ(pool.error().error.code, Code::kInvalidArgument);
  EXPECT_THAT(pool.error().detail, HasSubstr("/disk0"));
}
TEST(ImportTest, TheSameDiskTwiceIsNamed) { Bed(disks_of(3)).run(same_disk_twice); }

Task<void> older_copy(Bed& bed) {
  co_await make_filled(bed);
  const auto old = bed.image(1);
  co_await go_on(bed);
  const auto newer = bed.image(1);
  co_await bed.put_image(1, old);
  const Problem problem = co_await bed.refused_import(bed.paths);
  EXPECT_EQ(problem.error.code, Code::kInvalidArgument);
  EXPECT_THAT(problem.detail, HasSubstr("/disk1 was left at generation"));
  co_await bed.put_image(1, newer);
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_TRUE(pool->find("later").has_value());
  co_await end(pool);
}
TEST(ImportTest, AnOlderCopyOfADiskIsRefused) { Bed(disks_of(2)).run(older_copy); }

// One checkpoint lies between the two: its superblocks were finished, so no crash leaves the disks so.
Task<void> copy_of_the_checkpoint_before(Bed& bed) {
  co_await make_filled(bed);
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  const auto old = bed.image(1);
  EXPECT_TRUE((co_await pool->create_replica({.name = "later", .size_bytes = kReplicaBytes})).has_value());
  co_await end(pool);
  co_await bed.put_image(1, old);
  const Problem problem = co_await bed.refused_import(bed.paths);
  EXPECT_EQ(problem.error.code, Code::kInvalidArgument);
  EXPECT_THAT(problem.detail, HasSubstr("/disk1"));
}
TEST(ImportTest, ACopyOfTheCheckpointBeforeIsRefused) { Bed(disks_of(2)).run(copy_of_the_checkpoint_before); }

Task<void> all_older(Bed& bed) {
  co_await make_filled(bed);
  const std::array old = {bed.image(0), bed.image(1)};
  co_await go_on(bed);
  co_await bed.put_image(0, old[0]);
  co_await bed.put_image(1, old[1]);
  co_await import_and_compare(bed);
}
TEST(ImportTest, AnOlderCopyOfAllDisksIsAPool) { Bed(disks_of(2)).run(all_older); }

Task<Outcome<std::unique_ptr<Pool>>> import_knowing(Bed& bed, Progress seen) {
  ImportOptions options;
  options.seen = {seen};
  co_return co_await bed.import(options);
}
// Nobody can tell from the disks alone: who knows how far the pool had come is told.
Task<void> all_older_than_seen(Bed& bed) {
  co_await make_filled(bed);
  const std::array old = {bed.image(0), bed.image(1)};
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  const Progress before = pool->progress();
  EXPECT_EQ(before.pool, pool->id());
  EXPECT_TRUE((co_await pool->create_replica({.name = "later", .size_bytes = kReplicaBytes})).has_value());
  EXPECT_TRUE(co_await pool->checkpoint());
  const Progress seen = pool->progress();
  EXPECT_GT(seen.batch, before.batch);
  co_await end(pool);
  const std::array newer = {bed.image(0), bed.image(1)};
  for (size_t i = 0; i < old.size(); ++i) co_await bed.put_image(i, old[i]);
  const auto refused = co_await import_knowing(bed, seen);
  EXPECT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().error.code, Code::kInvalidArgument);
  EXPECT_TRUE(bed.image(0) == old[0] && bed.image(1) == old[1]) << "nothing was written";
  for (const Progress& other : {before, Progress{.pool = uuid_from_name(seen.pool, "another"), .batch = seen.batch}}) {
    auto taken = co_await import_knowing(bed, other);
    EXPECT_TRUE(taken.has_value());
    if (taken) co_await end(*taken);
  }
  for (size_t i = 0; i < newer.size(); ++i) co_await bed.put_image(i, newer[i]);
  auto taken = co_await import_knowing(bed, seen);
  EXPECT_TRUE(taken.has_value());
  if (taken) co_await end(*taken);
}
TEST(ImportTest, AnOlderStateThanWasSeenIsRefused) { Bed(disks_of(2)).run(all_older_than_seen); }

Task<void> smaller(Bed& bed) {
  co_await make_filled(bed);
  bed.devices[1]->resize(kDiskBytes - 4096);
  const Problem problem = co_await bed.refused_import(bed.paths);
  EXPECT_EQ(problem.error.code, Code::kInvalidArgument);
  EXPECT_THAT(problem.detail, HasSubstr("/disk1"));
  bed.devices[1]->resize(80 * kMiB);
  co_await import_and_compare(bed);
}
TEST(ImportTest, ASmallerDiskIsRefusedALargerOneIsNot) { Bed(disks_of(2)).run(smaller); }

Task<void> destroyed(Bed& bed) {
  co_await make_filled(bed);
  EXPECT_TRUE((co_await Pool::destroy(bed.shard(), co_await bed.disks(bed.paths))).has_value());
  EXPECT_EQ((co_await bed.refused_import(bed.paths)).error.code, Code::kNotFound);
  // Nothing has to be forced now.
  co_await make_filled(bed);
  co_await import_and_compare(bed);
}
TEST(ImportTest, ADestroyedPoolIsGoneAndItsDisksAreBlank) {
  Bed(disks_of(1)).run(destroyed);
  Bed(disks_of(2)).run(destroyed);
}

// ---- Crashes.

Task<void> fill_then_checkpoint(Bed& bed, uint64_t& cut_at) {
  const auto created = co_await bed.create();
  EXPECT_TRUE(created.has_value());
  auto pool = co_await bed.must_import();
  if (pool != nullptr) {
    co_await fill(bed, *pool);
    bed.cut.arm(cut_at);
    (void)co_await pool->checkpoint();
    co_await bed.until_the_end();
    (void)co_await pool->close();
  }
}
TEST(ImportTest, ACheckpointMayBeTornAtAnyWrite) {
  for (const size_t disks : {size_t{1}, size_t{2}}) {
    bool was_cut = true;
    uint64_t cut_at = 0;
    for (; was_cut && !testing::Test::HasFailure(); ++cut_at) {
      for (const uint64_t seed : {1U, 2U}) {
        SCOPED_TRACE(testing::Message() << disks << " disks, cut at " << cut_at << ", seed " << seed);
        Bed bed(disks_of(disks, seed));
        was_cut = bed.run_and_crash(CrashKind::kPowerLost, fill_then_checkpoint, cut_at);
        bed.run(import_and_compare);
      }
    }
    EXPECT_GT(cut_at, 8U);  // pages, directory, superblocks, all of them twice, and flushes
  }
}

// The first superblock of every disk cannot be written, and each try leaves it torn; what is written meanwhile may be
// torn too.
Task<void> fill_then_checkpoint_badly(Bed& bed, uint64_t& cut_at) {
  const auto created = co_await bed.create();
  EXPECT_TRUE(created.has_value());
  auto pool = co_await bed.must_import();
  if (pool != nullptr) {
    co_await fill(bed, *pool);
    fail_writes(bed, {0}, 1'000'000);
    bed.cut.arm(cut_at);
    EXPECT_TRUE((co_await pool->checkpoint()).has_value() || bed.cut.is_cut());
    co_await bed.until_the_end();
    (void)co_await pool->close();
  }
}
TEST(ImportTest, ACheckpointMayBeTornWhileASuperblockCannotBeWritten) {
  for (const size_t disks : {size_t{1}, size_t{2}}) {
    bool was_cut = true;
    for (uint64_t cut_at = 0; was_cut && !testing::Test::HasFailure(); ++cut_at) {
      for (uint64_t seed = 1; seed <= 6; ++seed) {
        SCOPED_TRACE(testing::Message() << disks << " disks, cut at " << cut_at << ", seed " << seed);
        Bed bed(disks_of(disks, seed));
        was_cut = bed.run_and_crash(CrashKind::kPowerLost, fill_then_checkpoint_badly, cut_at);
        fail_writes(bed, {}, 0);
        bed.run(import_and_compare);
      }
    }
  }
}

const std::vector<uint64_t> kAllPlaces = {kSuperblockOffsets[0], kSuperblockOffsets[1], kSpareSuperblockOffset};

Task<void> fill_then_checkpoint_until_it_fails(Bed& bed) {
  const auto created = co_await bed.create();
  EXPECT_TRUE(created.has_value());
  auto pool = co_await bed.must_import();
  if (pool != nullptr) {
    co_await fill(bed, *pool);
    fail_writes(bed, kAllPlaces, 400'000);
    for (int left = 1000; left > 0; --left) {
      if (!co_await pool->checkpoint()) break;
    }
    EXPECT_FALSE((co_await pool->checkpoint()).has_value()) << "it has ended";
    co_await bed.until_the_end();
    (void)co_await pool->close();
  }
}
TEST(ImportTest, WhatIsLeftWhenSuperblocksCannotBeWrittenIsAPool) {
  for (uint64_t seed = 1; seed <= 60 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Bed bed(disks_of(1 + seed % 2, seed));
    bed.run_and_crash(seed % 3 == 0 ? CrashKind::kProcessKilled : CrashKind::kPowerLost,
                      fill_then_checkpoint_until_it_fails);
    fail_writes(bed, {}, 0);
    bed.run(import_and_compare);
  }
}

Task<void> one_place_is_bad(Bed& bed, uint64_t& bad) {
  co_await make_filled(bed);
  const std::vector<std::byte> blank(kPageBytes);
  std::vector<std::byte> spare(kPageBytes);
  const auto look = [&] {
    bed.devices[0]->peek(kSpareSuperblockOffset, spare);
    return spare;
  };
  fail_writes(bed, {bad}, 1'000'000);
  for (int round = 0; round < 3; ++round) {
    auto pool = co_await bed.must_import();
    CO_ASSERT_TRUE(pool != nullptr);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE((co_await pool->checkpoint()).has_value());
    EXPECT_EQ(pool->statistics().bad_superblocks, bed.devices.size());
    co_await end(pool);
    EXPECT_NE(look(), blank);
    const auto report = co_await check_pool(bed.shard(), co_await bed.disks(bed.paths), bed.shard().storage.boot_id());
    CO_ASSERT_TRUE(report.has_value());
    EXPECT_EQ(report->count(Severity::kDamage), 0U);
    const bool is_told = std::ranges::any_of(report->findings, [](const Finding& finding) {
      return finding.text.find("spare superblock of /disk0, at byte 98304, is in use") != std::string::npos;
    });
    EXPECT_TRUE(is_told);
  }
  fail_writes(bed, {}, 0);
  co_await import_and_compare(bed);
  EXPECT_EQ(look(), blank);
  // What the spare one had been must not come back.
  for (const uint64_t offset : kSuperblockOffsets) bed.devices[0]->rot(offset, kPageBytes);
  EXPECT_EQ((co_await bed.refused_import(bed.paths)).error.code, Code::kCorrupt);
}
TEST(ImportTest, ThePoolGoesOnWithOneBadPlaceForASuperblock) {
  for (const size_t disks : {size_t{1}, size_t{2}}) {
    for (uint64_t bad : kSuperblockOffsets) Bed(disks_of(disks)).run(one_place_is_bad, bad);
  }
}

Task<void> two_places_are_bad(Bed& bed) {
  co_await make_filled(bed);
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  fail_writes(bed, {kAllPlaces[0], kAllPlaces[2]}, 1'000'000);
  EXPECT_FALSE((co_await pool->checkpoint()).has_value());
  fail_writes(bed, {}, 0);
  EXPECT_FALSE((co_await pool->checkpoint()).has_value()) << "it has ended";
  EXPECT_FALSE(co_await pool->close());
  pool.reset();
  co_await import_and_compare(bed);
}
TEST(ImportTest, TheLastSuperblockIsNotWrittenOver) { Bed(disks_of(1)).run(two_places_are_bad); }

Task<void> write_flush_write(Bed& bed) {
  co_await make_filled(bed);
  auto pool = co_await bed.must_import({.sync_interval = std::chrono::hours(1)});
  if (pool != nullptr) {
    auto device = co_await bed.must_open(*pool, "db");
    EXPECT_TRUE(co_await put(bed.reactor(), *device, 10 * kTestExtent, pattern(kTestUnit, 20)));
    EXPECT_TRUE(co_await block_flush(bed.reactor(), *device));
    EXPECT_TRUE(co_await put(bed.reactor(), *device, 11 * kTestExtent, pattern(kTestUnit, 21)));
    co_await bed.until_the_end();
    device.reset();
    (void)co_await pool->close();
  }
}
enum class Unflushed : uint8_t { kThere, kOldOrNew, kGone };
Task<void> compare_unflushed(Bed& bed, Unflushed& unflushed) {
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  co_await expect_filled(bed, *pool);
  auto device = co_await bed.must_open(*pool, "db");
  EXPECT_EQ(co_await get(bed.reactor(), *device, 10 * kTestExtent, kTestUnit), pattern(kTestUnit, 20));
  const auto last = co_await get(bed.reactor(), *device, 11 * kTestExtent, kTestUnit);
  if (unflushed == Unflushed::kThere) EXPECT_EQ(last, pattern(kTestUnit, 21));
  if (unflushed != Unflushed::kThere) {
    EXPECT_TRUE(last == pattern(kTestUnit, 21) || last == std::vector<std::byte>(kTestUnit));
  }
  if (unflushed == Unflushed::kGone) EXPECT_EQ(last, std::vector<std::byte>(kTestUnit));
  device.reset();
  co_await end(pool);
  co_await bed.expect_clean();
}
TEST(ImportTest, AKilledProcessLosesNothing) {
  Bed bed(disks_of(2));
  bed.run_and_crash(CrashKind::kProcessKilled, write_flush_write);
  Unflushed unflushed = Unflushed::kThere;
  bed.run(compare_unflushed, unflushed);
}
TEST(ImportTest, APowerCutLosesOnlyWhatWasNotFlushed) {
  for (const uint64_t seed : {1U, 2U, 3U, 4U, 5U}) {
    Bed bed(disks_of(2, seed));
    bed.run_and_crash(CrashKind::kPowerLost, write_flush_write);
    Unflushed unflushed = Unflushed::kOldOrNew;
    bed.run(compare_unflushed, unflushed);
  }
}

Task<void> carry(Bed& from, Bed& to) {
  for (size_t i = 0; i < to.paths.size(); ++i) co_await to.put_image(i, from.image(i));
}
Task<void> carry_here(Bed& to, Bed& from) { co_await carry(from, to); }
TEST(ImportTest, AnotherNodeImportsWhatWasExported) {
  Bed here(disks_of(2));
  here.run(make_filled);
  Bed there(disks_of(2, 77));
  there.run(carry_here, here);
  there.run(import_and_compare);
}
TEST(ImportTest, AnotherNodeImportsWhatWasFlushedBeforeACrash) {
  Bed here(disks_of(2));
  here.run_and_crash(CrashKind::kProcessKilled, write_flush_write);
  Bed there(disks_of(2, 77));
  there.run(carry_here, here);
  // It cannot know what the caches of the other node still held.
  Unflushed unflushed = Unflushed::kGone;
  there.run(compare_unflushed, unflushed);
}

// ---- More room.

constexpr uint64_t kMuchBytes = 14 * kMiB;  // more than is free before

Task<void> write_much(Bed& bed, Pool& pool) {
  EXPECT_TRUE((co_await pool.create_replica({.name = "much", .size_bytes = kMuchBytes})).has_value());
  auto device = co_await bed.must_open(pool, "much");
  for (uint64_t at = 0; at < kMuchBytes; at += kTestExtent) {
    EXPECT_TRUE(co_await put(bed.reactor(), *device, at, pattern(kTestExtent, static_cast<uint8_t>(at >> 18))));
  }
}
Task<void> compare_much(Bed& bed, Pool& pool) {
  auto device = co_await bed.must_open(pool, "much");
  for (uint64_t at = 0; at < kMuchBytes; at += kTestExtent) {
    EXPECT_EQ(co_await get(bed.reactor(), *device, at, kTestExtent),
              pattern(kTestExtent, static_cast<uint8_t>(at >> 18)));
  }
}
Task<void> disk_grows(Bed& bed) {
  co_await make_filled(bed);
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_EQ(co_await pool->grow(), 0U);
  const uint64_t before = pool->statistics().capacity_bytes;
  bed.devices[0]->resize(2 * kDiskBytes);
  EXPECT_EQ(co_await pool->grow(), kDiskBytes);
  EXPECT_EQ(pool->statistics().capacity_bytes, before + kDiskBytes);
  co_await write_much(bed, *pool);
  co_await end(pool);
  pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_EQ(pool->statistics().capacity_bytes, before + kDiskBytes);
  co_await compare_much(bed, *pool);
  EXPECT_TRUE(co_await pool->remove("much"));
  co_await end(pool);
  co_await import_and_compare(bed);
}
TEST(PoolGrowTest, TakesWhatADiskGained) { Bed(disks_of(1)).run(disk_grows); }

Task<void> disk_added(Bed& bed) {
  co_await make_filled(bed);
  bed.add_disk(kDiskBytes);
  auto disks = co_await bed.disks({bed.paths.back()});
  auto imported = co_await bed.import({}, {bed.paths.front()});
  CO_ASSERT_TRUE(imported.has_value());
  std::unique_ptr<Pool> pool = std::move(*imported);
  const uint64_t before = pool->statistics().capacity_bytes;
  EXPECT_TRUE((co_await pool->add_disk(disks.front(), Blank::kRequired)).has_value());
  disks.clear();
  EXPECT_GT(pool->statistics().capacity_bytes, before + kDiskBytes - 1 * kMiB);
  co_await write_much(bed, *pool);
  co_await end(pool);
  EXPECT_EQ((co_await bed.refused_import({bed.paths.front()})).error.code, Code::kNotFound);
  pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  co_await compare_much(bed, *pool);
  EXPECT_TRUE(co_await pool->remove("much"));
  co_await end(pool);
  co_await import_and_compare(bed);
}
TEST(PoolGrowTest, TakesADiskThatIsAdded) { Bed(disks_of(1)).run(disk_added); }

Task<void> crash_while_adding(Bed& bed, uint64_t& cut_at) {
  co_await make_filled(bed);
  bed.add_disk(kDiskBytes);
  auto disks = co_await bed.disks({bed.paths.back()});
  auto pool = co_await bed.import({}, {bed.paths.front()});
  EXPECT_TRUE(pool.has_value());
  if (pool) {
    bed.cut.arm(cut_at);
    (void)co_await (*pool)->add_disk(disks.front(), Blank::kRequired);
    disks.clear();
    co_await bed.until_the_end();
    (void)co_await (*pool)->close();
  }
}
Task<void> import_with_or_without(Bed& bed) {
  auto pool = co_await bed.import();
  if (pool) {
    EXPECT_TRUE(co_await (*pool)->close());
    pool->reset();
  } else {
    EXPECT_THAT(pool.error().detail, HasSubstr(bed.paths.back()));
    bed.paths.pop_back();
  }
  co_await import_and_compare(bed);
}
TEST(PoolGrowTest, ACrashWhileADiskIsAddedLeavesItInOrOut) {
  bool was_cut = true;
  for (uint64_t cut_at = 0; was_cut && !testing::Test::HasFailure(); ++cut_at) {
    for (const uint64_t seed : {1U, 2U, 3U}) {
      SCOPED_TRACE(testing::Message() << "cut at " << cut_at << ", seed " << seed);
      Bed bed(disks_of(1, seed));
      was_cut = bed.run_and_crash(CrashKind::kPowerLost, crash_while_adding, cut_at);
      bed.run(import_with_or_without);
    }
  }
}

// ---- Create.

Task<void> not_blank(Bed& bed) {
  const std::vector<std::byte> sector(512, std::byte{1});
  for (const uint64_t offset : {uint64_t{0}, 1 * kMiB - 512, 63 * kMiB, 64 * kMiB - 512}) {
    co_await bed.put_image(1, sector, offset);
    const auto created = co_await bed.create();
    CO_ASSERT_TRUE(!created.has_value());
    EXPECT_EQ(created.error().error.code, Code::kAlreadyExists) << offset;
    EXPECT_THAT(created.error().detail, HasSubstr("/disk1"));
    co_await bed.put_image(1, std::vector<std::byte>(512), offset);
  }
  EXPECT_TRUE((co_await bed.create({"/disk1", "/disk2"}, "other")).has_value());
  const auto created = co_await bed.create({"/disk0", "/disk1"});
  CO_ASSERT_TRUE(!created.has_value());
  EXPECT_EQ(created.error().error.code, Code::kAlreadyExists);
  EXPECT_THAT(created.error().detail, AllOf(HasSubstr("/disk1"), HasSubstr("other")));
  EXPECT_TRUE((co_await bed.create({"/disk0", "/disk1"}, "tank", Blank::kNotRequired)).has_value());
  EXPECT_EQ((co_await bed.refused_import({"/disk1", "/disk2"})).error.code, Code::kInvalidArgument);
}
TEST(CreateTest, RefusesWhatIsNotBlankAndNamesIt) { Bed(3).run(not_blank); }

Task<void> refusals(Bed& bed) {
  const auto refused = [&](CreateOptions options, std::vector<PoolDisk> disks) {
    return Pool::create(bed.shard(), std::move(disks), std::move(options));
  };
  const CreateOptions good = {.name = "tank", .extent_bytes = kTestExtent, .journal_bytes = kJournalBytesMin};
  CreateOptions options = good;
  const auto code = [](const Outcome<void>& outcome) { return outcome ? Code::kInternal : outcome.error().error.code; };
  for (const char* const name : {"", ".hidden", "-x", "a b", "a/b"}) {
    options.name = name;
    EXPECT_EQ(code(co_await refused(options, co_await bed.disks({"/disk0"}))), Code::kInvalidArgument) << name;
  }
  options = good;
  for (const uint32_t extent : {0U, 3U * 65536, 32U * 1024, 32U << 20}) {
    options.extent_bytes = extent;
    EXPECT_EQ(code(co_await refused(options, co_await bed.disks({"/disk0"}))), Code::kInvalidArgument) << extent;
  }
  options = good;
  // No power of two, less than a block, less than a 256th of an extent, more than an extent.
  for (const uint32_t unit : {3U * 1024, 256U, 512U, 2 * uint32_t{kTestExtent}}) {
    options.unit_bytes = unit;
    EXPECT_EQ(code(co_await refused(options, co_await bed.disks({"/disk0"}))), Code::kInvalidArgument) << unit;
  }
  options = good;
  options.journal_bytes = kJournalBytesMin - kPageBytes;
  EXPECT_EQ(code(co_await refused(options, co_await bed.disks({"/disk0"}))), Code::kInvalidArgument);
  EXPECT_EQ(code(co_await refused(good, {})), Code::kInvalidArgument);
  // Too small: for the head, for the journal, for eight extents.
  for (const uint64_t bytes : {uint64_t{4096}, 128 * kKiB, 1 * kMiB, 1280 * kKiB, 13 * kTestExtent - 512}) {
    bed.devices[1]->resize(bytes);
    EXPECT_EQ(code(co_await refused(good, co_await bed.disks({"/disk1"}))), Code::kNoSpace) << bytes;
  }
  bed.devices[1]->resize(13 * kTestExtent);
  EXPECT_EQ(code(co_await refused(good, co_await bed.disks({"/disk1"}))), Code::kInternal);
  auto pool = co_await bed.import({}, {"/disk1"});
  CO_ASSERT_TRUE(pool.has_value());
  EXPECT_TRUE(co_await (*pool)->close());
}
TEST(CreateTest, RefusesWhatMakesNoPool) { Bed(2).run(refusals); }

Task<void> default_units(Bed& bed) {
  for (const auto& [extent, unit] : {std::pair<uint32_t, uint32_t>{64 * kKiB, 4 * kKiB},
                                     {1 * kMiB, 4 * kKiB},
                                     {2 * kMiB, 8 * kKiB},
                                     {4 * kMiB, 16 * kKiB}}) {
    const CreateOptions options = {.name = "tank", .extent_bytes = extent, .blank = Blank::kNotRequired};
    CO_ASSERT_TRUE((co_await Pool::create(bed.shard(), co_await bed.disks({"/disk0"}), options)).has_value());
    const auto report = co_await check_pool(bed.shard(), co_await bed.disks({"/disk0"}), bed.shard().storage.boot_id());
    CO_ASSERT_TRUE(report.has_value() && report->superblock.has_value());
    EXPECT_EQ(report->superblock->unit_bytes, unit) << extent;
  }
}
TEST(CreateTest, UnitsAreOf4KiBOrA256thOfAnExtent) { Bed().run(default_units); }

}  // namespace
}  // namespace fairlead::pool
