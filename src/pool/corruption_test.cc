// Metadata that somebody flipped, zeroed or swapped, a page at a time: import
// refuses or takes the second copy; what is read then is right or an error,
// never anything else, and nothing crashes.
#include <gtest/gtest.h>

#include "block/disk.h"
#include "pool/layout.h"
#include "tests/support/pool_load.h"

namespace fairlead::pool {
namespace {

using sim::RunResult;
using sim::SimNode;
using sim::SimSettings;
using sim::SimWorld;
using test::BlockHistory;
using test::Phase;
using test::PoolLoad;
using test::PoolLoadPlan;
using test::PoolModel;

constexpr uint64_t kDiskBytes = 3 * kMiB;
constexpr size_t kDisks = 2;
constexpr uint64_t kJournalPages = 8;  // from where the checkpoint ends
constexpr Duration kLong = std::chrono::hours(1);

struct PageAt {
  size_t disk = 0;
  uint64_t offset = 0;
};
enum class Harm : uint8_t { kFlip, kZero, kSwap };

class CorruptionTest : public testing::TestWithParam<bool> {
 protected:
  CorruptionTest() : world(77, SimSettings::calm()), node(world.add_node("10.0.0.1")), model(512, 64 * kKiB) {
    for (size_t i = 0; i < kDisks; ++i) {
      paths.push_back("/disk" + std::to_string(i));
      world.create_disk(node, paths.back(), kDiskBytes);
    }
  }

  // A pool that was used, and closed or killed.
  void make(bool is_closed) {
    PoolLoadPlan plan;
    plan.disks = paths;
    plan.journal_bytes = kJournalBytesMin;
    PoolLoad load(world, node, model, plan, 5);
    bool is_made = false;
    world.spawn(node, 0, load.format(&is_made));
    ASSERT_EQ(world.run_until([&] { return is_made; }, kLong), RunResult::kDone);
    load.announce();
    world.spawn(node, 0, load.live(PoolLoad::Ends::kKeepsAll));
    const Phase last = is_closed ? Phase::kEnded : Phase::kVerifying;
    ASSERT_EQ(world.run_until([&] { return load.phase() == last || !model.failure().empty(); }, kLong),
              RunResult::kDone);
    if (!is_closed) {
      world.run_for(std::chrono::milliseconds(1));
      ASSERT_EQ(world.run_until([&] { return is_level(); }, kLong), RunResult::kDone);
      model.crashed(false);
      world.crash(node, sim::CrashKind::kProcessKilled);
      world.restart(node);
    }
    ASSERT_EQ(model.failure(), "");
    for (size_t i = 0; i < kDisks; ++i) images.push_back(image(i));
  }
  // Not in the middle of superblocks: each disk has both copies, of one generation.
  bool is_level() {
    std::vector<uint64_t> generations;
    for (size_t disk = 0; disk < kDisks; ++disk) {
      for (const uint64_t offset : kSuperblockOffsets) {
        Page page;
        world.find_disk(node, paths[disk])->peek(offset, page);
        const Result<Superblock> found = decode_superblock(page);
        if (!found) return false;
        generations.push_back(found->generation);
      }
    }
    return std::ranges::count(generations, generations.front()) == static_cast<long>(generations.size());
  }
  std::vector<std::byte> image(size_t disk) {
    std::vector<std::byte> bytes(kDiskBytes);
    world.find_disk(node, paths[disk])->peek(0, bytes);
    return bytes;
  }

  static Task<void> write_pages(CorruptionTest& test, size_t disk, const std::vector<std::byte>& from,
                                std::vector<uint64_t> offsets, bool* done) {
    Shard& shard = test.node.shard(0);
    auto source = open_disk_source(shard, {.path = test.paths[disk]});
    auto device = (*source)->open(shard);
    for (const uint64_t offset : offsets) {
      iovec piece{const_cast<std::byte*>(from.data()) + offset, kPageBytes};
      FL_CHECK(co_await block_write(shard.reactor, **device, ByteOffset(offset), {&piece, 1}, Durability::kForced));
    }
    *done = true;
  }
  // Makes the disk hold those bytes.
  void put(size_t disk, const std::vector<std::byte>& bytes) {
    const std::vector<std::byte> now = image(disk);
    std::vector<uint64_t> offsets;
    for (uint64_t at = 0; at < kDiskBytes; at += kPageBytes) {
      if (!std::ranges::equal(std::span(now).subspan(at, kPageBytes), std::span(bytes).subspan(at, kPageBytes))) {
        offsets.push_back(at);
      }
    }
    bool is_done = false;
    world.spawn(node, 0, write_pages(*this, disk, bytes, std::move(offsets), &is_done));
    ASSERT_EQ(world.run_until([&] { return is_done; }, kLong), RunResult::kDone);
  }

  // Pages of the copies that are in use, by copy: superblocks, journal,
  // directory.
  std::array<std::vector<PageAt>, kCopies> metadata() {
    std::array<std::vector<PageAt>, kCopies> pages;
    Superblock superblock;
    for (size_t disk = 0; disk < kDisks; ++disk) {
      superblock = *decode_superblock(std::span(images[disk]).subspan(0).first<kPageBytes>());
      for (size_t copy = 0; copy < kCopies; ++copy) pages[copy].push_back({disk, kSuperblockOffsets[copy]});
    }
    const Layout layout(superblock);
    for (size_t copy = 0; copy < kCopies; ++copy) {
      const JournalArea& area = superblock.journal[copy];
      for (uint64_t i = 0; i < kJournalPages; ++i) {
        const uint64_t within = (superblock.journal_position + i * kPageBytes) % superblock.journal_bytes;
        pages[copy].push_back({area.disk, area.offset + within});
      }
      for (const Place place : superblock.directory[copy]) {
        pages[copy].push_back({layout.locate(place).disk, layout.locate(place).offset});
      }
    }
    return pages;
  }

  struct Seen {
    bool is_done = false;
    std::optional<Problem> problem;
    std::string wrong;
    uint64_t failed_reads = 0;
    uint64_t good_reads = 0;
  };
  static Task<void> look(CorruptionTest& test, Seen& seen) {
    Shard& shard = test.node.shard(0);
    std::vector<PoolDisk> disks;
    for (const std::string& path : test.paths) disks.push_back({path, *open_disk_source(shard, {.path = path})});
    std::vector<Shard*> shards = {&shard};
    auto pool = co_await Pool::import(std::move(shards), std::move(disks), {});
    if (!pool) {
      seen.problem = pool.error();
    } else {
      co_await read_all(test, shard, **pool, seen);
      (void)co_await (*pool)->close();
    }
    seen.is_done = true;
  }
  static Task<void> read_all(CorruptionTest& test, Shard& shard, Pool& pool, Seen& seen) {
    if (pool.list().size() != test.model.objects().size()) seen.wrong = "another number of objects";
    for (const auto& [name, object] : test.model.objects()) {
      auto source = co_await pool.source(name);
      if (!source) {
        seen.wrong = name + " is not there";
        continue;
      }
      auto device = (*source)->open(shard);
      BlockHistory history = object->history;
      std::vector<std::byte> bytes(object->facts.size_bytes);
      iovec piece{bytes.data(), bytes.size()};
      if (!co_await block_read(shard.reactor, **device, ByteOffset(0), {&piece, 1})) {
        ++seen.failed_reads;
        continue;
      }
      ++seen.good_reads;
      const std::string wrong = history.check_read(test.model.begin_read(), {0, history.blocks()}, bytes, 512);
      if (!wrong.empty()) seen.wrong = name + ": " + wrong;
    }
  }
  void harm(std::vector<std::vector<std::byte>>& bad, PageAt at, PageAt other, Harm harm) {
    const auto page = std::span(bad[at.disk]).subspan(at.offset, kPageBytes);
    const size_t within = world.random().below(kPageBytes);
    switch (harm) {
      case Harm::kFlip:
        page[within] ^= static_cast<std::byte>(1U << world.random().below(8));
        break;
      case Harm::kZero:
        std::ranges::fill(page, std::byte{0});
        break;
      case Harm::kSwap:
        std::ranges::swap_ranges(page, std::span(bad[other.disk]).subspan(other.offset, kPageBytes));
    }
  }
  Seen import_with(const std::vector<std::vector<std::byte>>& bad) {
    for (size_t i = 0; i < kDisks; ++i) put(i, bad[i]);
    Seen seen;
    world.spawn(node, 0, look(*this, seen));
    EXPECT_EQ(world.run_until([&] { return seen.is_done; }, kLong), RunResult::kDone) << world.report();
    return seen;
  }

  std::vector<std::string> paths;
  std::vector<std::vector<std::byte>> images;
  SimWorld world;
  SimNode& node;
  PoolModel model;
};
INSTANTIATE_TEST_SUITE_P(ClosedOrKilled, CorruptionTest, testing::Bool());

// One copy is enough.
TEST_P(CorruptionTest, AnyOnePageMayGo) {
  ASSERT_NO_FATAL_FAILURE(make(GetParam()));
  const auto pages = metadata();
  for (size_t copy = 0; copy < kCopies; ++copy) {
    for (const PageAt& page : pages[copy]) {
      auto bad = images;
      harm(bad, page, page, world.random().coin() ? Harm::kFlip : Harm::kZero);
      const Seen seen = import_with(bad);
      ASSERT_FALSE(seen.problem) << seen.problem->detail << " " << to_string(seen.problem->error) << " disk "
                                 << page.disk << " offset " << page.offset;
      ASSERT_EQ(seen.wrong, "") << "disk " << page.disk << " offset " << page.offset;
      ASSERT_EQ(seen.failed_reads, 0U);
    }
  }
}

// With several gone import may refuse, or reads may fail; nothing is ever taken
// for what it is not.
TEST_P(CorruptionTest, WhateverGoesNothingForeignIsRead) {
  ASSERT_NO_FATAL_FAILURE(make(GetParam()));
  const auto pages = metadata();
  // Where both copies of a batch are gone nothing tells that there was one: the
  // journal's pages stay but for a swap.
  uint64_t refused = 0;
  uint64_t read = 0;
  for (int round = 0; round < 60; ++round) {
    auto bad = images;
    const size_t copy = world.random().below(kCopies);
    const size_t index = world.random().below(pages[copy].size());
    const PageAt& other = pages[copy][world.random().below(pages[copy].size())];
    const auto kind = static_cast<Harm>(world.random().below(3));
    harm(bad, pages[copy][index], other, kind);
    const bool is_journal = index >= kDisks && index < kDisks + kJournalPages;
    if (!is_journal && world.random().coin()) harm(bad, pages[1 - copy][index], pages[1 - copy][index], Harm::kFlip);
    const Seen seen = import_with(bad);
    if (seen.problem) {
      ++refused;
      EXPECT_NE(seen.problem->error.code, Code::kInternal);
      EXPECT_NE(std::string(seen.problem->error.what), "");
    } else {
      read += seen.good_reads;
      ASSERT_EQ(seen.wrong, "") << "round " << round;
    }
  }
  EXPECT_GT(refused, 0U);
  EXPECT_GT(read, 0U);
}

}  // namespace
}  // namespace fairlead::pool
