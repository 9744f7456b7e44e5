// Pools of every version of the format open, and hold what was written then.
#include <gtest/gtest.h>

#include "block/memory.h"
#include "pool/test_bed.h"
#include "pool/test_golden.h"

namespace fairlead::pool {
namespace {

struct Image {
  std::string name;
  size_t disks = 0;
  bool is_exported = false;
  std::vector<golden::Content> contents;
};

Task<std::vector<PoolDisk>> load_disks(Bed& bed, const golden::Disks& images) {
  std::vector<PoolDisk> disks;
  for (const std::vector<std::byte>& image : images) {
    const auto memory = make_memory_source({.size_bytes = image.size(), .logical_block = 512});
    EXPECT_TRUE(memory.has_value());
    auto device = (*memory)->open(bed.shard());
    EXPECT_TRUE(co_await put(bed.reactor(), **device, 0, image));
    disks.push_back({"disk" + std::to_string(disks.size()), *memory});
  }
  co_return disks;
}

Task<CheckReport> check_clean(Bed& bed, std::vector<PoolDisk> disks) {
  auto report = co_await check_pool(bed.shard(), disks, bed.shard().storage.boot_id());
  EXPECT_TRUE(report.has_value());
  if (!report) co_return CheckReport{};
  for (const Finding& finding : report->findings) {
    ADD_FAILURE() << severity_name(finding.severity) << ": " << finding.text;
  }
  co_return std::move(*report);
}

Task<void> expect_content(Bed& bed, Pool& pool, const golden::Content& content) {
  const auto info = pool.find(content.name);
  CO_ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->state.kind, content.kind);
  EXPECT_EQ(info->state.size_bytes, content.size_bytes);
  EXPECT_EQ(info->state.is_thick, content.name == "thick");
  std::vector<std::byte> expected(content.size_bytes);
  for (const golden::Written& each : content.written) {
    std::ranges::copy(pattern(each.length, each.seed), expected.begin() + static_cast<ptrdiff_t>(each.offset));
  }
  auto device = co_await bed.must_open(pool, content.name);
  CO_ASSERT_TRUE(device != nullptr);
  EXPECT_EQ(co_await get(bed.reactor(), *device, 0, expected.size()), expected) << content.name;
}

Task<void> expect_db(Pool& pool) {
  const auto db = pool.find("db");
  const auto first = pool.find("db.1");
  CO_ASSERT_TRUE(db.has_value() && first.has_value());
  EXPECT_EQ(db->state.labels, golden::kLabels);
  EXPECT_EQ(db->state.properties, golden::kProperties);
  EXPECT_EQ(db->state.volume_id, samples::uuid(30));
  EXPECT_EQ(first->state.origin, db->state.id);
  EXPECT_EQ(pool.find("copy")->state.origin, first->state.id);
  EXPECT_EQ(pool.generation("db"), golden::stamp(3));
  EXPECT_EQ(pool.generation("db.1"), golden::stamp(1));
  const ByteRange all = {0, ~uint64_t{0}};
  const uint64_t extent = golden::kExtent;
  const auto since_second = co_await pool.changed_since("db", golden::stamp(2), all);
  EXPECT_EQ(since_second, (std::vector<ByteRange>{{0, extent}}));
  // What was written, and the hole.
  const auto since_first = co_await pool.changed_since("db", golden::stamp(1), all);
  EXPECT_EQ(since_first, (std::vector<ByteRange>{{0, extent}, {golden::kHole, 5 * extent}}));
}

Task<void> open_image(Bed& bed, const Image& image) {
  const golden::Disks images = golden::read_image(FAIRLEAD_GOLDEN_DIR "/" + image.name);
  CO_ASSERT_TRUE(images.size() == image.disks);
  const std::vector<PoolDisk> disks = co_await load_disks(bed, images);
  const CheckReport before = co_await check_clean(bed, disks);
  CO_ASSERT_TRUE(before.superblock.has_value());
  EXPECT_EQ(before.superblock->is_exported, image.is_exported);
  EXPECT_EQ(before.journal.records > 0, !image.is_exported);
  auto pool = co_await Pool::import({&bed.shard()}, disks, {});
  EXPECT_TRUE(pool.has_value()) << (pool ? "" : to_string(pool.error().error));
  if (!pool) co_return;
  EXPECT_EQ((*pool)->name(), "golden");
  EXPECT_EQ((*pool)->list().size(), image.contents.size());
  for (const golden::Content& content : image.contents) co_await expect_content(bed, **pool, content);
  co_await expect_db(**pool);
  EXPECT_TRUE(co_await (*pool)->close());
  pool->reset();
  (void)co_await check_clean(bed, disks);
}

TEST(GoldenTest, OneDiskOfVersion1LeftRunning) {
  const Image image = {"pool-v1-one-disk.image", 1, false, golden::version_1()};
  Bed(0).run(open_image, image);
}
TEST(GoldenTest, TwoDisksOfVersion1Exported) {
  const Image image = {"pool-v1-two-disks.image", 2, true, golden::version_1()};
  Bed(0).run(open_image, image);
}

}  // namespace
}  // namespace fairlead::pool
