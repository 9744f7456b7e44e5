// Writes the golden images of pools of the present format version: made once for each version, then kept as they are.
//
//   make_pool_images FOLDER
#include <cstdio>
#include <fmt/format.h>

#include "pool/test_bed.h"
#include "pool/test_golden.h"

namespace fairlead::pool {
namespace {

Task<void> write(Bed& bed, Pool& pool, std::string name, golden::Written what) {
  auto device = co_await bed.must_open(pool, name);
  CO_ASSERT_TRUE(device != nullptr);
  EXPECT_TRUE(co_await put(bed.reactor(), *device, what.offset, pattern(what.length, what.seed)));
  EXPECT_TRUE(co_await block_flush(bed.reactor(), *device));
}

Task<void> before_checkpoint(Bed& bed, Pool& pool) {
  ReplicaOptions db = {.name = "db", .size_bytes = 2 * kMiB, .volume_id = samples::uuid(30)};
  db.labels = {{"app", "shop"}, {"zone", "a"}};
  EXPECT_TRUE((co_await pool.create_replica(db)).has_value());
  EXPECT_TRUE(co_await pool.begin_generation("db", golden::stamp(1)));
  co_await write(bed, pool, "db", {512, 4608, 1});
  co_await write(bed, pool, "db", {golden::kHole, 2048, 2});
  EXPECT_TRUE((co_await pool.snapshot("db", "db.1")).has_value());
  EXPECT_TRUE(co_await pool.begin_generation("db", golden::stamp(2)));
  co_await write(bed, pool, "db", {1024, 1024, 3});
  {
    auto device = co_await bed.must_open(pool, "db");
    EXPECT_TRUE(co_await block_discard(bed.reactor(), *device, ByteOffset(golden::kHole), golden::kExtent));
  }
  EXPECT_TRUE((co_await pool.clone("db.1", {.name = "copy", .size_bytes = 4 * kMiB})).has_value());
  co_await write(bed, pool, "copy", {3 * kMiB, 1024, 4});
  EXPECT_TRUE(
      (co_await pool.create_replica({.name = "thick", .size_bytes = 128 * kKiB, .is_thick = true})).has_value());
  co_await write(bed, pool, "thick", {0, 512, 5});
  EXPECT_TRUE((co_await pool.create_replica({.name = "gone", .size_bytes = 1 * kMiB})).has_value());
  co_await write(bed, pool, "gone", {0, 512, 9});
  EXPECT_TRUE(co_await pool.remove("gone"));
  EXPECT_TRUE(co_await pool.settle());
}

Task<void> after_checkpoint(Bed& bed, Pool& pool) {
  co_await write(bed, pool, "db", {300 * kKiB, 1024, 6});
  EXPECT_TRUE((co_await pool.snapshot("db", "db.2")).has_value());
  EXPECT_TRUE(co_await pool.begin_generation("db", golden::stamp(3)));
  co_await write(bed, pool, "db", {512, 512, 7});
  Changes changes;
  changes.labels = {{"zone", "b"}};
  changes.properties = golden::kProperties;
  EXPECT_TRUE(co_await pool.change("db", changes));
  EXPECT_TRUE((co_await pool.create_replica({.name = "late", .size_bytes = 1 * kMiB})).has_value());
  co_await write(bed, pool, "late", {64 * kKiB, 512, 8});
}

enum class Left : uint8_t { kRunning, kExported };

Task<void> make(Bed& bed, std::string& path, Left& left) {
  const auto created =
      co_await Pool::create(bed.shard(), co_await bed.disks(bed.paths),
                            {.name = "golden", .extent_bytes = golden::kExtent, .journal_bytes = kJournalBytesMin});
  EXPECT_TRUE(created.has_value());
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  co_await before_checkpoint(bed, *pool);
  EXPECT_TRUE(co_await pool->checkpoint());
  co_await after_checkpoint(bed, *pool);
  golden::Disks disks;
  if (left == Left::kExported) EXPECT_TRUE(co_await pool->close());
  for (size_t i = 0; i < bed.devices.size(); ++i) disks.push_back(bed.image(i));
  if (left == Left::kRunning) EXPECT_TRUE(co_await pool->close());
  const std::vector<std::byte> file = golden::pack(disks);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
  fmt::print("{}: {} bytes\n", path, file.size());
}

}  // namespace
}  // namespace fairlead::pool

int main(int count, char** arguments) {
  using namespace fairlead::pool;
  testing::InitGoogleTest(&count, arguments);
  if (count != 2) {
    std::fputs("usage: make_pool_images FOLDER\n", stderr);
    return 2;
  }
  for (const bool is_one : {true, false}) {
    Bed bed(BedOptions{.disks = is_one ? 1U : 2U, .shards = 1, .disk_bytes = golden::kDiskBytes, .seed = 2026});
    std::string path =
        fmt::format("{}/pool-v{}-{}.image", arguments[1], kFormatVersion, is_one ? "one-disk" : "two-disks");
    Left left = is_one ? Left::kRunning : Left::kExported;
    bed.run(make, path, left);
  }
}
