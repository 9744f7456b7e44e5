// The pool as its users see it, on simulated disks: each thing it does, once and plainly. Long sequences against a
// model are in model_test.cc, power cuts in the simulation's scenario.
#include "pool/pool.h"

#include <gtest/gtest.h>

#include "block/disk.h"
#include "sim/world.h"

namespace fairlead::pool {
namespace {

using std::chrono::seconds;

constexpr uint64_t kDiskBytes = 64 * kMiB;
constexpr uint32_t kExtent = 256 * kKiB;
constexpr uint64_t kUnit = kExtent / kUnitsPerExtent;

#define CO_ASSERT_TRUE(...)                    \
  if (const bool fl_ok{__VA_ARGS__}; !fl_ok) { \
    ADD_FAILURE() << #__VA_ARGS__;             \
    co_return;                                 \
  }

// A node with some disks, and a pool on them.
struct Bed {
  explicit Bed(size_t disks = 1, size_t shards = 2)
      : node(world.add_node("10.0.0.1", {.shards = shards, .more_addresses = {}})) {
    for (size_t i = 0; i < disks; ++i) {
      paths.push_back("/disk" + std::to_string(i));
      devices.push_back(&world.create_disk(node, paths.back(), kDiskBytes));
    }
  }
  // Runs a test to its end.
  template <typename Test>
  void run(Test test) {
    bool done = false;
    world.spawn(node, 0, run_and_tell(test, done));
    ASSERT_EQ(world.run_until([&] { return done; }, seconds(600)), sim::RunResult::kDone) << world.report();
    EXPECT_EQ(world.unexplained_errors(), 0U) << world.report();
  }
  template <typename Test>
  Task<void> run_and_tell(Test test, bool& done) {
    co_await test(*this);
    done = true;
  }

  Shard& shard() { return node.shard(0); }
  Reactor& reactor() { return shard().reactor; }
  std::vector<PoolDisk> disks() {
    std::vector<PoolDisk> list;
    for (const std::string& path : paths) {
      auto source = open_disk_source(shard(), {.path = path});
      EXPECT_TRUE(source.has_value());
      list.push_back({path, *source});
    }
    return list;
  }
  Task<Outcome<void>> create(Blank blank = Blank::kRequired) {
    co_return co_await Pool::create(
        shard(), disks(), {.name = "tank", .extent_bytes = kExtent, .journal_bytes = kJournalBytesMin, .blank = blank});
  }
  Task<Outcome<std::unique_ptr<Pool>>> import(ImportOptions options = {}) {
    std::vector<Shard*> shards;
    for (size_t i = 0; i < node.shard_count(); ++i) shards.push_back(&node.shard(i));
    co_return co_await Pool::import(shards, disks(), options);
  }

  sim::SimWorld world{1, sim::SimSettings::calm()};
  sim::SimNode& node;
  std::vector<std::string> paths;
  std::vector<sim::SimDevice*> devices;
};

std::vector<std::byte> pattern(size_t bytes, uint8_t seed) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(seed + i / 512 * 7 + i % 251);
  return out;
}

Task<Result<void>> put(Reactor& reactor, BlockDevice& device, uint64_t offset, std::vector<std::byte> bytes) {
  iovec piece{bytes.data(), bytes.size()};
  co_return co_await block_write(reactor, device, ByteOffset(offset), {&piece, 1});
}
Task<std::vector<std::byte>> get(Reactor& reactor, BlockDevice& device, uint64_t offset, size_t length) {
  std::vector<std::byte> bytes(length, std::byte{0xee});
  iovec piece{bytes.data(), bytes.size()};
  const Result<void> read = co_await block_read(reactor, device, ByteOffset(offset), {&piece, 1});
  EXPECT_TRUE(read.has_value()) << (read ? "" : to_string(read.error()));
  co_return bytes;
}

Task<void> writes_and_reads(Bed& bed) {
  CO_ASSERT_TRUE((co_await bed.create()).has_value());
  auto pool = co_await bed.import();
  CO_ASSERT_TRUE(pool.has_value());
  CO_ASSERT_TRUE((co_await (*pool)->create_replica({.name = "db", .size_bytes = 1 * kGiB})).has_value());
  const auto source = co_await (*pool)->source("db");
  CO_ASSERT_TRUE(source.has_value());
  auto device = (*source)->open(bed.shard());
  CO_ASSERT_TRUE(device.has_value());
  EXPECT_EQ(co_await get(bed.reactor(), **device, 0, 4096), std::vector<std::byte>(4096));
  const auto data = pattern(3 * kExtent, 1);
  EXPECT_TRUE(co_await put(bed.reactor(), **device, kExtent / 2 + 512, data));
  EXPECT_EQ(co_await get(bed.reactor(), **device, kExtent / 2 + 512, data.size()), data);
  EXPECT_EQ(co_await get(bed.reactor(), **device, kExtent / 2, 512), std::vector<std::byte>(512));
  EXPECT_TRUE(co_await block_flush(bed.reactor(), **device));
  device->reset();
  EXPECT_TRUE(co_await (*pool)->close());
  pool->reset();
  // And again, from the disks.
  pool = co_await bed.import();
  CO_ASSERT_TRUE(pool.has_value());
  EXPECT_EQ((*pool)->list().size(), 1U);
  EXPECT_EQ((*pool)->list()[0].used_bytes, 4 * kExtent);
  const auto again = co_await (*pool)->source("db");
  device = (*again)->open(bed.shard());
  EXPECT_EQ(co_await get(bed.reactor(), **device, kExtent / 2 + 512, data.size()), data);
  device->reset();
  EXPECT_TRUE(co_await (*pool)->close());
}
TEST(PoolTest, WhatWasWrittenIsThereAfterExportAndImport) {
  Bed().run(writes_and_reads);
  Bed(3).run(writes_and_reads);
}

Task<void> snapshots(Bed& bed) {
  CO_ASSERT_TRUE((co_await bed.create()).has_value());
  auto pool = co_await bed.import();
  CO_ASSERT_TRUE(pool.has_value());
  CO_ASSERT_TRUE((co_await (*pool)->create_replica({.name = "db", .size_bytes = 8 * kMiB})).has_value());
  auto device = (*co_await (*pool)->source("db"))->open(bed.shard());
  const auto first = pattern(2 * kExtent, 1);
  EXPECT_TRUE(co_await put(bed.reactor(), **device, 0, first));
  EXPECT_TRUE((co_await (*pool)->snapshot("db", "monday")).has_value());
  // Half a unit: the other half comes from below.
  const auto second = pattern(kUnit / 2, 50);
  EXPECT_TRUE(co_await put(bed.reactor(), **device, kUnit, second));
  auto expected = first;
  std::ranges::copy(second, expected.begin() + kUnit);
  EXPECT_EQ(co_await get(bed.reactor(), **device, 0, expected.size()), expected);
  EXPECT_TRUE((co_await (*pool)->snapshot("db", "tuesday")).has_value());
  EXPECT_TRUE((co_await (*pool)->clone("monday", {.name = "copy"})).has_value());
  auto monday = (*co_await (*pool)->source("monday"))->open(bed.shard());
  auto copy = (*co_await (*pool)->source("copy"))->open(bed.shard());
  EXPECT_EQ(co_await get(bed.reactor(), **monday, 0, first.size()), first);
  EXPECT_EQ(co_await get(bed.reactor(), **copy, 0, first.size()), first);
  EXPECT_EQ((co_await put(bed.reactor(), **monday, 0, second)).error().code, Code::kReadOnly);
  EXPECT_TRUE(co_await put(bed.reactor(), **copy, 0, second));
  EXPECT_EQ(co_await get(bed.reactor(), **device, 0, expected.size()), expected);
  EXPECT_EQ((co_await (*pool)->remove("monday")).error().code, Code::kBusy);
  monday->reset();
  // In any order; what others see stays.
  EXPECT_TRUE(co_await (*pool)->remove("monday"));
  EXPECT_TRUE(co_await (*pool)->settle());
  EXPECT_EQ(co_await get(bed.reactor(), **device, 0, expected.size()), expected);
  copy->reset();
  EXPECT_TRUE(co_await (*pool)->remove("copy"));
  EXPECT_TRUE(co_await (*pool)->remove("tuesday"));
  EXPECT_TRUE(co_await (*pool)->settle());
  EXPECT_EQ(co_await get(bed.reactor(), **device, 0, expected.size()), expected);
  EXPECT_EQ((*pool)->list()[0].used_bytes, 2 * kExtent);
  EXPECT_EQ((*pool)->statistics().releasing_bytes, 0U);
  // Nothing is left of the others.
  EXPECT_TRUE(co_await block_discard(bed.reactor(), **device, ByteOffset(0), 8 * kMiB));
  EXPECT_TRUE(co_await (*pool)->settle());
  EXPECT_EQ((*pool)->list()[0].used_bytes, 0U);
  EXPECT_EQ((*pool)->statistics().used_bytes, (*pool)->statistics().metadata_bytes);
  EXPECT_EQ(co_await get(bed.reactor(), **device, 0, expected.size()), std::vector<std::byte>(expected.size()));
  device->reset();
  EXPECT_TRUE(co_await (*pool)->close());
}
TEST(PoolTest, SnapshotsKeepWhatWasAndGoInAnyOrder) {
  Bed().run(snapshots);
  Bed(2).run(snapshots);
}

Task<void> fills_up(Bed& bed) {
  CO_ASSERT_TRUE((co_await bed.create()).has_value());
  auto pool = co_await bed.import();
  CO_ASSERT_TRUE((co_await (*pool)->create_replica({.name = "db", .size_bytes = 1 * kGiB})).has_value());
  auto device = (*co_await (*pool)->source("db"))->open(bed.shard());
  uint64_t written = 0;
  Result<void> last;
  while (last && written < 1 * kGiB) {
    last = co_await put(bed.reactor(), **device, written, pattern(kExtent, static_cast<uint8_t>(written >> 18)));
    if (last) written += kExtent;
  }
  EXPECT_EQ(last.error().code, Code::kNoSpace);
  EXPECT_GT(written, kDiskBytes * 8 / 10);
  for (uint64_t at = 0; at < written; at += kExtent) {
    EXPECT_EQ(co_await get(bed.reactor(), **device, at, kExtent), pattern(kExtent, static_cast<uint8_t>(at >> 18)));
  }
  // Deleting works while nothing else does, and the room is there again.
  EXPECT_TRUE(co_await block_discard(bed.reactor(), **device, ByteOffset(0), 4 * kExtent));
  EXPECT_TRUE(co_await put(bed.reactor(), **device, written, pattern(kExtent, 3)));
  EXPECT_EQ(co_await get(bed.reactor(), **device, written, kExtent), pattern(kExtent, 3));
  device->reset();
  EXPECT_TRUE(co_await (*pool)->close());
}
TEST(PoolTest, AFullPoolRefusesAndLosesNothing) { Bed().run(fills_up); }

}  // namespace
}  // namespace fairlead::pool
