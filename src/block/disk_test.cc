#include "block/disk.h"

#include <algorithm>
#include <gtest/gtest.h>

#include "block/test_world.h"

namespace fairlead {
namespace {

using namespace fairlead::test;
using Zeroes = VectorDiskOptions::Zeroes;
using Discards = VectorDiskOptions::Discards;

struct Variant {
  const char* name;
  VectorDiskOptions options;
  size_t memory_alignment;
};

class DiskModelTest : public testing::TestWithParam<Variant> {};

TEST_P(DiskModelTest, AgreesWithTheModel) {
  const Variant& variant = GetParam();
  World world;
  const auto file = std::make_shared<VectorDiskFile>(variant.options);
  const auto device = open_or_die(*make_disk_source(file), world.shard);
  const bool discards =
      variant.options.discards == Discards::kZero && variant.options.geometry.discard_granularity != 0;
  hold_against_model(world, *device,
                     {.seed = draw_seed(),
                      .rounds = 150,
                      .after_discard = discards ? AfterDiscard::kZeroes : AfterDiscard::kOldBytes,
                      .memory_alignment = variant.memory_alignment});
  EXPECT_EQ(world.buffers.statistics().held_bytes, 0U);
}

constexpr DiskGeometry kBlocksOf512 = {
    .size_bytes = 2 * kMiB + 512, .logical_block = 512, .physical_block = 4096, .discard_granularity = 4096};
constexpr DiskGeometry kBlocksOf4096 = {
    .size_bytes = 2 * kMiB + 4096, .logical_block = 4096, .physical_block = 4096, .discard_granularity = 4096};
constexpr DiskGeometry kNoDiscard = {.size_bytes = kMiB, .logical_block = 512, .discard_granularity = 0};

INSTANTIATE_TEST_SUITE_P(All, DiskModelTest,
                         testing::Values(Variant{"plain", {kBlocksOf512}, 4096},
                                         Variant{"aligned_to_a_block", {kBlocksOf512}, 512},
                                         Variant{"not_aligned", {kBlocksOf512}, 1},
                                         Variant{"not_aligned_4096", {kBlocksOf4096}, 512},
                                         Variant{"zeroes_kept_only", {kBlocksOf4096, Zeroes::kKeepAllocatedOnly}, 4096},
                                         Variant{"no_zeroes", {kBlocksOf4096, Zeroes::kNone}, 4096},
                                         Variant{"nothing", {kBlocksOf512, Zeroes::kNone, Discards::kNotSupported}, 4},
                                         Variant{"no_discard", {kNoDiscard}, 4096}),
                         [](const testing::TestParamInfo<Variant>& each) { return each.param.name; });

TEST(DiskTest, LearnsWhatTheDiskCannotDo) {
  World world;
  VectorDiskOptions options = {{.size_bytes = 20 * kMiB, .logical_block = 512, .discard_granularity = 512},
                               Zeroes::kNone,
                               Discards::kNotSupported};
  const auto file = std::make_shared<VectorDiskFile>(options);
  std::ranges::fill(file->bytes, std::byte{1});
  const auto device = open_or_die(*make_disk_source(file), world.shard);
  // Both modes refused, then writes of 4, 4 and 2 MiB.
  ASSERT_TRUE(
      world.perform(*device, {.op = IoOp::kWriteZeroes, .length = 10 * kMiB, .zero_mode = ZeroMode::kMayDeallocate}));
  EXPECT_EQ(file->refusals, 2U);
  EXPECT_EQ(file->requests, 2U + 3U);
  EXPECT_EQ(std::ranges::count(file->bytes, std::byte{0}), ptrdiff_t{10 * kMiB});
  ASSERT_TRUE(world.perform(*device, {.op = IoOp::kWriteZeroes, .length = 4 * kMiB}));
  EXPECT_EQ(file->refusals, 2U);
  EXPECT_EQ(file->requests, 2U + 3U + 1U);
  ASSERT_TRUE(world.perform(*device, {.op = IoOp::kDiscard, .length = kMiB}));
  ASSERT_TRUE(world.perform(*device, {.op = IoOp::kDiscard, .length = kMiB}));
  EXPECT_EQ(file->refusals, 3U);
  EXPECT_EQ(file->requests, 2U + 3U + 1U + 1U);
}

TEST(DiskTest, GrowsWithTheDisk) {
  World world;
  const auto file = std::make_shared<VectorDiskFile>(VectorDiskOptions{{.size_bytes = kMiB}});
  const auto device = open_or_die(*make_disk_source(file), world.shard);
  const IoArguments beyond = {.op = IoOp::kWriteZeroes, .offset = ByteOffset(kMiB), .length = kMiB};
  EXPECT_EQ(world.perform(*device, beyond).error().code, Code::kOutOfRange);
  file->bytes.resize(2 * kMiB);
  EXPECT_EQ(world.perform(*device, beyond).error().code, Code::kOutOfRange);  // not before it was asked
  EXPECT_EQ(*device->refresh_size(), 2 * kMiB);
  EXPECT_EQ(device->geometry().size_bytes, 2 * kMiB);
  EXPECT_TRUE(world.perform(*device, beyond));
}

TEST(DiskTest, OpensByPathAndRefusesWritesWhenReadOnly) {
  World world;
  world.storage.file = std::make_shared<VectorDiskFile>(VectorDiskOptions{{.size_bytes = kMiB}});
  EXPECT_EQ(open_disk_source(world.shard, {.path = "none"}).error().code, Code::kNotFound);
  const auto source = open_disk_source(world.shard, {.path = "disk", .access = Access::kReadOnly});
  ASSERT_TRUE(source);
  const auto device = open_or_die(**source, world.shard);
  EXPECT_TRUE(device->geometry().read_only);
  EXPECT_EQ(world.perform(*device, {.op = IoOp::kWriteZeroes, .length = 512}).error().code, Code::kReadOnly);
  EXPECT_EQ(world.storage.file->requests, 0U);
}

TEST(DiskTest, RefusesAGeometryThatNobodyCouldServe) {
  World world;
  for (const DiskGeometry& geometry : {DiskGeometry{.size_bytes = 0}, DiskGeometry{.size_bytes = kMiB + 1},
                                       DiskGeometry{.size_bytes = kMiB, .logical_block = 8192}}) {
    const auto source = make_disk_source(std::make_shared<VectorDiskFile>(VectorDiskOptions{geometry}));
    EXPECT_EQ(source->open(world.shard).error().code, Code::kInvalidArgument);
  }
}

// Many at once, more than the buffer pool holds: they wait for each other and all come home.
TEST(DiskTest, BouncesWaitForBuffers) {
  World world({.account_reserve = 2 * kMiB, .shared_max = 0});
  const auto file = std::make_shared<VectorDiskFile>(VectorDiskOptions{{.size_bytes = 64 * kMiB}});
  const auto device = open_or_die(*make_disk_source(file), world.shard);
  constexpr size_t kCount = 40;
  std::vector<std::byte> memory(kMiB + 1, std::byte{0x3c});
  const iovec buffer = {memory.data() + 1, kMiB};
  std::array<IoRequest, kCount> requests;
  static size_t completions;
  completions = 0;
  for (size_t i = 0; i < kCount; ++i) {
    requests[i].op = IoOp::kWrite;
    requests[i].offset = ByteOffset(i * kMiB);
    requests[i].length = kMiB;
    requests[i].buffers = std::span(&buffer, 1);
    requests[i].done = [](IoRequest& done) { completions += done.result.has_value() ? 1 : 0; };
    device->submit(requests[i]);
  }
  world.run();
  EXPECT_EQ(completions, kCount);
  EXPECT_GT(world.buffers.statistics().waits, 0U);
  EXPECT_EQ(world.buffers.statistics().held_bytes, 0U);
  EXPECT_EQ(std::ranges::count(file->bytes, std::byte{0x3c}), ptrdiff_t{kCount * kMiB});
}

}  // namespace
}  // namespace fairlead
