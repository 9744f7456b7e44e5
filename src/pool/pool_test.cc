// The pool as its users see it, on simulated disks: each thing it does, once and plainly. Long sequences against a
// model are in model_test.cc, power cuts in the simulation's scenario.
#include "pool/pool.h"

#include <gtest/gtest.h>

#include "pool/test_bed.h"

namespace fairlead::pool {
namespace {

constexpr uint64_t kDiskBytes = 64 * kMiB;
constexpr uint64_t kExtent = kTestExtent;
constexpr uint64_t kUnit = kTestUnit;

Task<void> writes_and_reads(Bed& bed) {
  CO_ASSERT_TRUE((co_await bed.create()).has_value());
  auto pool = co_await bed.import();
  CO_ASSERT_TRUE(pool.has_value());
  CO_ASSERT_TRUE((co_await (*pool)->create_replica({.name = "db", .size_bytes = 1 * kGiB})).has_value());
  const auto source = co_await (*pool)->source("db");
  CO_ASSERT_TRUE(source.has_value());
  auto device = (*source)->open(bed.shard());
  CO_ASSERT_TRUE(device.has_value());
  EXPECT_EQ((*pool)->list()[0].open_devices, 1U);
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
