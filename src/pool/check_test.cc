#include "pool/check.h"

#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>
#include <random>

#include "base/crc32c.h"
#include "base/endian.h"
#include "block/memory.h"
#include "pool/layout.h"
#include "pool/pool.h"
#include "pool/test_samples.h"
#include "sim/world.h"

namespace fairlead::pool {
namespace {

using samples::uuid;
using ::testing::Test;

constexpr uint64_t kDiskBytes = 4 * kMiB;
constexpr uint32_t kExtent = 64 * kKiB;
constexpr uint32_t kPlacesPerDisk = 54;
const Uuid kBoot = uuid(40);

// A pool of two disks that was not exported, written by hand: a snapshot, a replica above it, and in the journal a
// clone, an entry of its and a stamp. Tests change the values before write(), or the bytes after it.
struct HandMadePool {
  HandMadePool() {
    superblock.pool_id = uuid(1);
    superblock.name = "hand";
    superblock.extent_bytes = kExtent;
    superblock.logical_block = 512;
    superblock.unit_bytes = kUnitBytesDefault;
    superblock.disks = {{uuid(2), kDiskBytes}, {uuid(3), kDiskBytes}};
    superblock.segments = {{Place(1), kPlacesPerDisk, 0, 10}, {Place(1 + kPlacesPerDisk), kPlacesPerDisk, 1, 10}};
    superblock.journal = {JournalArea{0, kHeadBytes}, JournalArea{1, kHeadBytes}};
    superblock.journal_bytes = kJournalBytesMin;
    superblock.generation = 8;
    superblock.incarnation = 77;
    superblock.boot_id = kBoot;
    superblock.next_sequence = Sequence(5);
    superblock.journal_position = 2 * kPageBytes;
    superblock.chain = 12345;
    superblock.directory = {{{Place(2)}, {Place(56)}}};

    directory.pool_id = superblock.pool_id;
    directory.sequence = Sequence(4);
    directory.next_layer = 3;
    directory.next_stamp = 2;
    directory.page_extents = {{{Place(1), Place(55)}}};
    directory.stamps = {{StampOrdinal(1), uuid(11), {1, uuid(20), 1}}};
    directory.layers = {{LayerId(1), LayerId(0), {{0, 0, 0, 2}}},
                        {LayerId(2), LayerId(1), {{0, 1, 0, 1}, {3, 2, 0, 1}}}};
    ObjectState snapshot;
    snapshot.id = uuid(10);
    snapshot.name = "db.monday";
    snapshot.kind = ObjectKind::kSnapshot;
    snapshot.layer = LayerId(1);
    snapshot.size_bytes = 1000 * uint64_t{kExtent};
    snapshot.origin = uuid(11);
    ObjectState replica = snapshot;
    replica.id = uuid(11);
    replica.name = "db";
    replica.kind = ObjectKind::kReplica;
    replica.layer = LayerId(2);
    replica.origin = {};
    replica.stamp = StampOrdinal(1);
    directory.objects = {snapshot, replica};

    pages.resize(3);
    pages[0][0] = {Place(3), {}, UnitSet::all()};
    pages[0][7] = {Place(60), {}, UnitSet::range(0, 1)};
    pages[1][7] = {Place(4), StampOrdinal(1), UnitSet::range(1, 2)};
    pages[1][8] = {Place(0), StampOrdinal(1), UnitSet::all()};
    pages[2][200] = {Place(61), StampOrdinal(1), UnitSet::all()};

    ObjectState clone = replica;
    clone.id = uuid(12);
    clone.name = "clone";
    clone.layer = LayerId(3);
    clone.origin = snapshot.id;
    batches = {{LayerRecord{LayerId(3), LayerId(1)}, ObjectRecord{clone}},
               {EntryRecord{LayerId(3), ExtentIndex(7), {Place(62), StampOrdinal(2), UnitSet::range(2, 3)}},
                StampRecord{StampOrdinal(2), uuid(12), {2, uuid(20), 1}}}};
    durable = {Sequence(5), Sequence(5)};
  }

  Superblock superblock;
  Directory directory;
  std::vector<MapEntries> pages;  // by address
  std::vector<std::vector<Record>> batches;
  std::vector<Sequence> durable;  // of each batch
};

struct Range {
  size_t disk = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// ---- A pool that was made by Pool itself

Task<void> write_some(Shard& shard, std::shared_ptr<BlockSource> source, uint64_t first, uint64_t count) {
  const auto device = source->open(shard);
  EXPECT_TRUE(device);
  std::vector<std::byte> bytes(kPageBytes, std::byte{7});
  iovec piece{bytes.data(), bytes.size()};
  for (uint64_t i = first; i < first + count; ++i) {
    EXPECT_TRUE(co_await block_write(shard.reactor, **device, ByteOffset(i * kExtent), {&piece, 1}));
  }
  EXPECT_TRUE(co_await block_flush(shard.reactor, **device));
}

Task<void> copy(Shard& shard, BlockSource& from, BlockSource& to) {
  const auto source = from.open(shard);
  const auto target = to.open(shard);
  std::vector<std::byte> bytes(kDiskBytes);
  iovec piece{bytes.data(), bytes.size()};
  EXPECT_TRUE(co_await block_read(shard.reactor, **source, ByteOffset(0), {&piece, 1}));
  EXPECT_TRUE(co_await block_write(shard.reactor, **target, ByteOffset(0), {&piece, 1}));
}

// Makes a pool, uses it and closes it. `unclosed` becomes what the disks were just before: what a killed process
// leaves.
Task<void> make_and_use(Shard& shard, std::vector<PoolDisk> disks, std::vector<PoolDisk> unclosed) {
  CreateOptions create;
  create.name = "real";
  create.extent_bytes = kExtent;
  create.journal_bytes = kJournalBytesMin;
  EXPECT_TRUE(co_await Pool::create(shard, disks, create));
  auto pool = co_await Pool::import({&shard}, disks, {});
  EXPECT_TRUE(pool);
  if (!pool) co_return;
  ReplicaOptions options;
  options.name = "db";
  options.size_bytes = 600 * uint64_t{kExtent};
  EXPECT_TRUE(co_await (*pool)->create_replica(options));
  for (const char* snapshot : {"one", "two"}) {
    auto source = co_await (*pool)->source("db");
    EXPECT_TRUE(source);
    if (source) co_await write_some(shard, *source, 0, 5);
    if (source) co_await write_some(shard, *source, 500, 3);
    EXPECT_TRUE(co_await (*pool)->snapshot("db", snapshot));
    EXPECT_TRUE(co_await (*pool)->checkpoint());
  }
  options.name = "clone";
  EXPECT_TRUE(co_await (*pool)->clone("one", options));
  EXPECT_TRUE(co_await (*pool)->begin_generation("db", {1, uuid(20), 1}));
  auto source = co_await (*pool)->source("db");
  EXPECT_TRUE(source);
  if (source) co_await write_some(shard, *source, 3, 4);
  source = fail(Code::kInternal);
  for (size_t i = 0; i < disks.size(); ++i) co_await copy(shard, *disks[i].source, *unclosed[i].source);
  EXPECT_TRUE(co_await (*pool)->close());
}

class PoolCheckTest : public Test {
 protected:
  void SetUp() override {
    node_ = &world_.add_node("10.0.0.1");
    for (auto& source : unclosed_) source = *make_memory_source({.size_bytes = kDiskBytes, .logical_block = 512});
    for (auto& source : sources_) {
      source = *make_memory_source({.size_bytes = kDiskBytes, .logical_block = 512});
      devices_.push_back(std::move(*source->open(shard())));
    }
  }
  void TearDown() override { devices_.clear(); }
  Shard& shard() { return node_->shard(0); }

  // Runs the task to its end.
  void run(Task<void> task) {
    bool is_done = false;
    world_.spawn(*node_, 0, note_end(std::move(task), is_done));
    ASSERT_EQ(world_.run_until([&] { return is_done; }, std::chrono::seconds(600)), sim::RunResult::kDone);
  }
  static Task<void> note_end(Task<void> task, bool& is_done) {
    co_await std::move(task);
    is_done = true;
  }

  static Task<void> transfer(Reactor& reactor, BlockDevice& device, IoOp op, uint64_t offset,
                             std::span<std::byte> bytes) {
    iovec piece{bytes.data(), bytes.size()};
    const Result<void> done = op == IoOp::kRead
                                  ? co_await block_read(reactor, device, ByteOffset(offset), {&piece, 1})
                                  : co_await block_write(reactor, device, ByteOffset(offset), {&piece, 1});
    EXPECT_TRUE(done);
  }
  // Pads to whole pages.
  void put(size_t disk, uint64_t offset, std::span<const std::byte> bytes) {
    std::vector<std::byte> padded(align_up(bytes.size(), kPageBytes));
    std::ranges::copy(bytes, padded.begin());
    run(transfer(shard().reactor, *devices_[disk], IoOp::kWrite, offset, padded));
  }
  std::vector<std::byte> get(size_t disk, uint64_t offset, uint64_t bytes) {
    std::vector<std::byte> read(bytes);
    run(transfer(shard().reactor, *devices_[disk], IoOp::kRead, offset, read));
    return read;
  }

  static uint64_t offset_of(Place place) { return (10 + (place.value - 1) % kPlacesPerDisk) * uint64_t{kExtent}; }
  static size_t disk_of(Place place) { return (place.value - 1) / kPlacesPerDisk; }

  // Both copies of everything, and notes where metadata is.
  void write(HandMadePool& pool) {
    ranges_.clear();
    for (LayerState& layer : pool.directory.layers) {
      for (LeafRef& leaf : layer.leaves) write_page(pool, leaf);
    }
    const std::vector<std::byte> directory = encode(pool.directory);
    pool.superblock.directory_bytes = directory.size();
    pool.superblock.directory_crc = crc32c(directory);
    for (const auto& copy : pool.superblock.directory) {
      put_metadata(disk_of(copy[0]), offset_of(copy[0]), directory);
    }
    write_journal(pool);
    for (uint16_t disk = 0; disk < 2; ++disk) {
      pool.superblock.disk_index = disk;
      for (const uint64_t offset : kSuperblockOffsets) put_metadata(disk, offset, encode(pool.superblock));
    }
  }
  void write_page(HandMadePool& pool, LeafRef& leaf) {
    if (leaf.address >= pool.pages.size()) return;
    MapBytes page;
    encode_map(pool.pages[leaf.address], page);
    if (leaf.crc == 0) leaf.crc = crc32c(page);
    for (const Place place : pool.directory.page_extents[0].places) {
      if (place.value <= 2 * kPlacesPerDisk) {
        put_metadata(disk_of(place), offset_of(place) + leaf.address * kMapPageBytes, page);
      }
    }
  }
  void write_journal(const HandMadePool& pool) {
    BatchHeader header;
    header.incarnation = pool.superblock.incarnation;
    header.sequence = pool.superblock.next_sequence;
    header.chain = pool.superblock.chain;
    uint64_t position = pool.superblock.journal_position;
    for (size_t i = 0; i < pool.batches.size(); ++i) {
      std::vector<std::byte> payload;
      for (const Record& record : pool.batches[i]) append_record(payload, record);
      header.records = static_cast<uint32_t>(pool.batches[i].size());
      header.payload_bytes = static_cast<uint32_t>(payload.size());
      header.durable = pool.durable[i];
      std::vector<std::byte> batch(batch_bytes(payload.size()));
      std::ranges::copy(payload, batch.begin() + kBatchHeaderBytes);
      header.chain = seal_batch(batch, header);
      for (const JournalArea& area : pool.superblock.journal) {
        put(area.disk, area.offset + position, batch);
        ranges_.push_back({area.disk, area.offset + position, kBatchHeaderBytes + payload.size()});
      }
      position += batch.size();
      header.sequence = Sequence(header.sequence.value + 1);
    }
  }
  void put_metadata(size_t disk, uint64_t offset, std::span<const std::byte> bytes) {
    put(disk, offset, bytes);
    ranges_.push_back({disk, offset, bytes.size()});
  }

  static Task<void> keep(Task<Result<CheckReport>> task, Result<CheckReport>& kept) { kept = co_await std::move(task); }
  Result<CheckReport> check(Uuid boot = kBoot, std::vector<size_t> disks = {0, 1}) {
    std::vector<PoolDisk> given;
    for (const size_t disk : disks) given.push_back({fmt::format("disk{}", disk), sources_[disk]});
    Result<CheckReport> report = fail(Code::kInternal);
    run(keep(check_pool(shard(), given, boot), report));
    return report;
  }
  static std::string texts(const CheckReport& report) {
    std::string all;
    for (const Finding& finding : report.findings) {
      all += fmt::format("{}: {}\n", severity_name(finding.severity), finding.text);
    }
    return all;
  }
  void make_real_pool() {
    run(make_and_use(shard(), {{"disk0", sources_[0]}, {"disk1", sources_[1]}},
                     {{"copy0", unclosed_[0]}, {"copy1", unclosed_[1]}}));
  }
  void flip(size_t disk, uint64_t offset, uint8_t bit) {
    const uint64_t page = align_down(offset, kPageBytes);
    std::vector<std::byte> bytes = get(disk, page, kPageBytes);
    bytes[offset - page] ^= std::byte(1 << bit);
    put(disk, page, bytes);
  }

  sim::SimWorld world_{1};
  sim::SimNode* node_ = nullptr;
  std::array<std::shared_ptr<BlockSource>, 2> sources_;
  std::array<std::shared_ptr<BlockSource>, 2> unclosed_;  // see make_real_pool()
  std::vector<std::unique_ptr<BlockDevice>> devices_;
  std::vector<Range> ranges_;
};

TEST_F(PoolCheckTest, AWholePoolIsCleanAndDescribed) {
  HandMadePool pool;
  write(pool);
  const auto report = check();
  ASSERT_TRUE(report) << to_string(report.error());
  EXPECT_TRUE(report->is_clean()) << texts(*report);
  ASSERT_TRUE(report->is_state_known);
  EXPECT_EQ(report->superblock->name, "hand");
  ASSERT_EQ(report->objects.size(), 3U);
  EXPECT_EQ(report->objects[2].name, "clone");
  ASSERT_EQ(report->layers.size(), 3U);
  EXPECT_EQ(report->layers[1].extents, 2U);
  EXPECT_EQ(report->layers[1].entries, 3U);
  EXPECT_EQ(report->layers[2].object, uuid(12));
  EXPECT_EQ(report->stamps.size(), 2U);
  EXPECT_EQ(report->journal.batches, 2U);
  EXPECT_EQ(report->journal.records, 4U);
  EXPECT_EQ(report->extents.total, 2 * kPlacesPerDisk);
  EXPECT_EQ(report->extents.data, 5U);
  EXPECT_EQ(report->extents.pages, 2U);
  EXPECT_EQ(report->extents.directory, 2U);
  EXPECT_EQ(report->extents.free(), 2 * kPlacesPerDisk - 9);
}

TEST_F(PoolCheckTest, AfterAPowerCutOnlyWhatWasSafeCounts) {
  HandMadePool pool;
  write(pool);
  const auto report = check(uuid(41));
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->is_clean()) << texts(*report);
  EXPECT_EQ(report->journal.batches, 1U);
  EXPECT_EQ(report->journal.dropped, 1U);
  EXPECT_EQ(report->objects.size(), 3U);
  EXPECT_EQ(report->extents.data, 4U);
}

TEST_F(PoolCheckTest, WithoutAnySuperblockNothingElseIsKnown) {
  HandMadePool pool;
  write(pool);
  for (const Range& range : std::vector(ranges_)) {
    if (range.offset == kSuperblockOffsets[0] || range.offset == kSuperblockOffsets[1]) {
      flip(range.disk, range.offset + 100, 1);
    }
  }
  const auto report = check();
  ASSERT_TRUE(report) << to_string(report.error());
  EXPECT_FALSE(report->superblock);
  EXPECT_FALSE(report->is_state_known);
  EXPECT_EQ(report->count(Severity::kDamage), 2U) << texts(*report);
  EXPECT_EQ(report->disks.size(), 2U);
}

TEST_F(PoolCheckTest, WhatIsNoPoolIsToldApart) {
  EXPECT_EQ(check().error().code, Code::kNotFound);
  HandMadePool pool;
  pool.superblock.is_destroyed = true;
  write(pool);
  EXPECT_EQ(check().error().code, Code::kNotFound);
  EXPECT_EQ(check(kBoot, {}).error().code, Code::kInvalidArgument);
}

TEST_F(PoolCheckTest, AFlippedBitInOneCopyIsFound) {
  HandMadePool pool;
  write(pool);
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (const Range& range : std::vector(ranges_)) {
    for (uint64_t at = random() % 8; at < range.bytes; at += 1 + random() % (range.bytes / 24)) {
      const auto bit = static_cast<uint8_t>(random() % 8);
      flip(range.disk, range.offset + at, bit);
      const auto report = check();
      ASSERT_TRUE(report) << to_string(report.error());
      EXPECT_GE(report->count(Severity::kRepair), 1U) << range.disk << " " << range.offset + at << "\n"
                                                      << texts(*report);
      EXPECT_EQ(report->count(Severity::kDamage), 0U) << range.disk << " " << range.offset + at << "\n"
                                                      << texts(*report);
      EXPECT_EQ(report->objects.size(), 3U);
      EXPECT_EQ(report->extents.data, 5U);
      flip(range.disk, range.offset + at, bit);
    }
  }
}

// Metadata is written in pairs: first one copy, then the other.
TEST_F(PoolCheckTest, BothCopiesBadIsDamage) {
  HandMadePool pool;
  write(pool);
  for (size_t i = 0; i + 1 < ranges_.size(); i += 2) {
    const Range first = ranges_[i];
    const Range second = ranges_[i + 1];
    ASSERT_EQ(first.bytes, second.bytes);
    flip(first.disk, first.offset + 20, 3);
    flip(second.disk, second.offset + 21, 4);
    const auto report = check();
    ASSERT_TRUE(report) << to_string(report.error());
    // What the last batch of a journal was nobody can know.
    const bool is_last_batch = first.offset == kHeadBytes + 3 * kPageBytes;
    EXPECT_EQ(report->count(Severity::kDamage) > 0, !is_last_batch) << i << "\n" << texts(*report);
    flip(first.disk, first.offset + 20, 3);
    flip(second.disk, second.offset + 21, 4);
  }
}

TEST_F(PoolCheckTest, RubbishNeverAborts) {
  HandMadePool pool;
  write(pool);
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    for (uint64_t hit = 1 + random() % 4; hit > 0; --hit) {
      const Range range = ranges_[random() % ranges_.size()];
      const Range other = ranges_[random() % ranges_.size()];
      std::vector<std::byte> bytes(kPageBytes);
      switch (random() % 3) {
        case 0:
          break;  // zeroes
        case 1:
          std::ranges::generate(bytes, [&] { return std::byte(random()); });
          break;
        case 2:
          bytes = get(other.disk, align_down(other.offset, kPageBytes), kPageBytes);
          break;
      }
      put(range.disk, align_down(range.offset, kPageBytes), bytes);
    }
    (void)check();
    if (round % 3 == 0) write(pool);
  }
}

TEST_F(PoolCheckTest, DisksThatAreNotThePools) {
  HandMadePool pool;
  write(pool);
  auto report = check(kBoot, {0});
  ASSERT_TRUE(report);
  EXPECT_NE(texts(*report).find("damage: disk 1 of the pool"), std::string::npos) << texts(*report);
  EXPECT_NE(texts(*report).find("is missing"), std::string::npos) << texts(*report);
  EXPECT_EQ(report->objects.size(), 3U) << "one copy of everything is there";

  report = check(kBoot, {0, 1, 1});
  ASSERT_TRUE(report);
  EXPECT_NE(texts(*report).find("one is a copy"), std::string::npos) << texts(*report);

  Superblock older = pool.superblock;
  older.disk_index = 1;
  for (const uint64_t generations : {1ULL, 2ULL}) {
    older.generation = pool.superblock.generation - generations;
    for (const uint64_t offset : kSuperblockOffsets) put(1, offset, encode(older));
    // As a crash leaves them: no disk has the newer one twice.
    Superblock before = older;
    before.disk_index = 0;
    if (generations == 1) put(0, kSuperblockOffsets[1], encode(before));
    report = check();
    ASSERT_TRUE(report);
    EXPECT_NE(texts(*report).find(generations == 1 ? "repair: the superblocks of disk1 are one generation behind"
                                                   : "damage: disk1 is an older copy of disk 1"),
              std::string::npos)
        << texts(*report);
  }

  older.generation = pool.superblock.generation;
  older.pool_id = uuid(99);
  older.name = "foreign";
  for (const uint64_t offset : kSuperblockOffsets) put(1, offset, encode(older));
  report = check();
  ASSERT_TRUE(report);
  EXPECT_NE(texts(*report).find("disk1 belongs to another pool, foreign"), std::string::npos) << texts(*report);
}

// Structures with right checksums that say what cannot be.
const struct {
  void (*change)(HandMadePool&);
  const char* says;
} kFalsehoods[] = {
    {[](HandMadePool& p) { p.pages[0][9].place = Place(3); },
     "damage: place 3 is in use twice: by extent 0 of snapshot db.monday, and by extent 9 of snapshot db.monday"},
    {[](HandMadePool& p) { p.pages[2][200].place = Place(55); },
     "damage: place 55 is in use twice: by extent 968 of replica db, and by page extent 0"},
    {[](HandMadePool& p) { p.pages[2][200].place = Place(2); }, "and by the directory"},
    {[](HandMadePool& p) { p.pages[1][7].place = Place(109); }, "damage: extent 7 of replica db is at place 109"},
    {[](HandMadePool& p) { p.pages[1][7].stamp = StampOrdinal(9); },
     "damage: extent 7 of replica db was written under stamp 9"},
    {[](HandMadePool& p) { p.pages[2][255] = {Place(62), StampOrdinal(1), UnitSet::range(0, 1)}; },
     "oddity: extent 1023 of replica db lies behind its end"},
    {[](HandMadePool& p) { p.directory.layers[1].leaves[1].places = 7; },
     "oddity: the directory says that page 3 of the map of replica db has 7 places, and it has 1"},
    {[](HandMadePool& p) { p.directory.layers[1].leaves[1].address = 5; },
     "damage: page 3 of the map of replica db is said to be in page extent 1"},
    {[](HandMadePool& p) { p.directory.layers[1].leaves[0].crc = 1; },
     "damage: page 0 of the map of replica db cannot be read from either copy: where extents 0 to 255"},
    {[](HandMadePool& p) { p.directory.page_extents[0].places[1] = Place(500); },
     "repair: the second copy of page 0 of the map of snapshot db.monday"},
    {[](HandMadePool& p) { p.directory.pool_id = uuid(50); }, "damage: the directory is of another pool"},
    {[](HandMadePool& p) { p.directory.sequence = Sequence(3); }, "damage: the directory ends with batch 3"},
    {[](HandMadePool& p) { p.directory.objects[1].size_bytes += 512; }, ""},
    {[](HandMadePool& p) {
       p.superblock.logical_block = 1024;
       p.directory.objects[1].size_bytes += 512;
     },
     "oddity: the size of replica db"},
    {[](HandMadePool& p) { p.batches[0] = {LayerRecord{LayerId(1), LayerId(2)}}; }, "has itself as an ancestor"},
    {[](HandMadePool& p) { p.batches[0] = {LayerRecord{LayerId(3), LayerId(2)}}; },
     "damage: layer 3 descends from replica db, which goes on changing"},
    {[](HandMadePool& p) { p.batches[0] = {LayerRecord{LayerId(3), LayerId(8)}}; },
     "damage: layer 8, from which layer 3 descends, is not there"},
    {[](HandMadePool& p) { p.batches[0] = {LayerRemoval{LayerId(2)}}; },
     "damage: replica db has no map: layer 2 is not there"},
    {[](HandMadePool& p) { p.batches[0] = {LayerRemoval{LayerId(20)}}; }, "damage: batch 5 of the journal removes"},
    {[](HandMadePool& p) { p.batches[0] = {ObjectRemoval{uuid(20)}}; }, "damage: batch 5 of the journal removes"},
    {[](HandMadePool& p) { p.batches[1] = {EntryRecord{LayerId(30), ExtentIndex(0), {}}}; },
     "damage: batch 6 of the journal writes to layer 30"},
    {[](HandMadePool& p) { p.batches[1] = {RestampRecord{LayerId(30), ExtentIndex(0), 4, StampOrdinal(1)}}; },
     "damage: batch 6 of the journal stamps layer 30"},
    {[](HandMadePool& p) { p.batches[1] = {RestampRecord{LayerId(2), ExtentIndex(7), 1, StampOrdinal(3)}}; },
     "damage: extent 7 of replica db was written under stamp 3"},
    {[](HandMadePool& p) { std::get<ObjectRecord>(p.batches[0][1]).object.name = "db"; },
     "damage: two objects have the name db"},
    {[](HandMadePool& p) { std::get<ObjectRecord>(p.batches[0][1]).object.layer = LayerId(2); },
     "have the same map, layer 2"},
    {[](HandMadePool& p) { std::get<ObjectRecord>(p.batches[0][1]).object.stamp = StampOrdinal(7); },
     "damage: replica clone is written under stamp 7"},
    {[](HandMadePool& p) { std::get<StampRecord>(p.batches[1][1]).ordinal = StampOrdinal(1); },
     "damage: batch 6 of the journal says anew what stamp 1 is"},
    {[](HandMadePool& p) { std::swap(p.batches[0][0], p.batches[0][1]); },
     "damage: batch 5 of the journal gives clone layer 3, which is not there"},
    {[](HandMadePool& p) { p.batches[0] = {LayerRecord{LayerId(3), LayerId(8)}}; },
     "damage: batch 5 of the journal derives layer 3 from layer 8"},
    {[](HandMadePool& p) { p.superblock.is_exported = true; }, "oddity: the pool was exported, and its journal has 2"},
    {[](HandMadePool& p) { p.superblock.disks[0].size_bytes *= 2; },
     "damage: disk0 has 4194304 B, less than the 8388608 B"},
};

TEST_F(PoolCheckTest, FalseButWellFormedStructuresAreFound) {
  for (const auto& [change, says] : kFalsehoods) {
    HandMadePool pool;
    change(pool);
    write(pool);
    const auto report = check();
    ASSERT_TRUE(report) << says;
    const std::string found = texts(*report);
    if (*says == '\0') {
      EXPECT_EQ(found, "");
    } else {
      EXPECT_NE(found.find(says), std::string::npos) << says << "\n" << found;
    }
  }
}

TEST_F(PoolCheckTest, APoolIsCleanWhenItWasClosedAndWhenItWasNot) {
  make_real_pool();
  auto report = check();
  ASSERT_TRUE(report) << to_string(report.error());
  EXPECT_TRUE(report->is_clean()) << texts(*report);
  EXPECT_TRUE(report->superblock->is_exported);
  EXPECT_EQ(report->objects.size(), 4U);
  EXPECT_EQ(report->extents.data, 8U + 8U + 4U);
  EXPECT_EQ(report->stamps.size(), 1U);
  std::swap(sources_, unclosed_);
  for (const Uuid& boot : {shard().storage.boot_id(), uuid(99)}) {
    report = check(boot);
    ASSERT_TRUE(report) << to_string(report.error());
    EXPECT_TRUE(report->is_clean()) << texts(*report);
    EXPECT_FALSE(report->superblock->is_exported);
    EXPECT_GT(report->journal.batches, 0U);
    EXPECT_EQ(report->objects.size(), 4U);
    EXPECT_EQ(report->extents.data, 8U + 8U + 4U);
  }
}

TEST_F(PoolCheckTest, AnyMetadataPageOfAClosedPoolIsChecked) {
  make_real_pool();
  const auto report = check();
  ASSERT_TRUE(report);
  std::vector<Range> pages;
  for (size_t disk = 0; disk < 2; ++disk) {
    for (const uint64_t offset : kSuperblockOffsets) pages.push_back({disk, offset, kPageBytes});
  }
  const Superblock& superblock = *report->superblock;
  const Layout layout(superblock);
  for (const auto& copy : superblock.directory) {
    const Layout::Location at = layout.locate(copy[0]);
    pages.push_back({at.disk, at.offset, superblock.directory_bytes});
  }
  ASSERT_GT(report->map_pages, 3U);
  for (const PageExtent& extent : report->page_extents) {
    for (const Place place : extent.places) {
      if (place.value == 0) continue;
      const Layout::Location at = layout.locate(place);
      // Pages are taken from the first on; those of checkpoints before are in between.
      pages.push_back({at.disk, at.offset, kExtent});
    }
  }
  uint64_t found = 0;
  for (const Range& range : pages) {
    for (uint64_t at = 17; at < range.bytes; at += kPageBytes) {
      flip(range.disk, range.offset + at, 5);
      const auto damaged = check();
      ASSERT_TRUE(damaged);
      EXPECT_EQ(damaged->count(Severity::kDamage), 0U) << texts(*damaged);
      found += damaged->count(Severity::kRepair);
      flip(range.disk, range.offset + at, 5);
    }
  }
  EXPECT_EQ(found, 4 + 2 + 2 * (kMapPageBytes / kPageBytes) * report->map_pages);
}

}  // namespace
}  // namespace fairlead::pool
