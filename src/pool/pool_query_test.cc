// What a pool knows of its objects: labels and properties, generations, and what is mapped, changed and shared.
#include <gtest/gtest.h>

#include "pool/test_bed.h"

namespace fairlead::pool {
namespace {

constexpr uint64_t kExtent = kTestExtent;
constexpr uint64_t kUnit = kTestUnit;
constexpr ByteRange kAll = {0, ~uint64_t{0}};
using Ranges = std::vector<ByteRange>;

Stamp stamp(uint64_t generation) { return {1, kFairleadNamespace, generation}; }

Task<std::unique_ptr<Pool>> new_pool(Bed& bed) {
  const auto created = co_await bed.create();
  EXPECT_TRUE(created.has_value());
  auto pool = co_await bed.must_import();
  if (pool != nullptr) {
    EXPECT_TRUE((co_await pool->create_replica({.name = "db", .size_bytes = 8 * kMiB})).has_value());
  }
  co_return pool;
}
// By a device of its own.
Task<void> write(Bed& bed, Pool& pool, std::string name, uint64_t offset, size_t length) {
  auto device = co_await bed.must_open(pool, name);
  CO_ASSERT_TRUE(device != nullptr);
  EXPECT_TRUE(co_await put(bed.reactor(), *device, offset, pattern(length, 1)));
}
Task<void> discard(Bed& bed, Pool& pool, std::string name, uint64_t offset, uint64_t length) {
  auto device = co_await bed.must_open(pool, name);
  CO_ASSERT_TRUE(device != nullptr);
  EXPECT_TRUE(co_await block_discard(bed.reactor(), *device, ByteOffset(offset), length));
}

Task<void> changes(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  const std::vector<std::byte> value(100, std::byte{7});
  Changes first = {.labels = {{"zone", "a"}, {"app", "shop"}},
                   .properties = {{9, value}, {2, value}},
                   .volume_id = kFairleadNamespace};
  EXPECT_TRUE(co_await pool->change("db", first));
  const Changes second = {
      .labels = {{"zone", ""}, {"tier", "x"}}, .properties = {{9, {}}, {3, value}}, .volume_id = {}};
  EXPECT_TRUE(co_await pool->change("db", second));
  // One part of it is not possible: nothing of it happens.
  Changes refused = {
      .labels = {{"good", "x"}}, .properties = {{4, std::vector<std::byte>(kPropertyBytesMax + 1)}}, .volume_id = {}};
  EXPECT_EQ((co_await pool->change("db", refused)).error().code, Code::kInvalidArgument);
  refused = {.labels = {{"good", std::string(kLabelBytesMax + 1, 'x')}}, .properties = {{4, value}}, .volume_id = {}};
  EXPECT_EQ((co_await pool->change("db", refused)).error().code, Code::kInvalidArgument);
  EXPECT_EQ((co_await pool->change("none", second)).error().code, Code::kNotFound);
  for (int i = 0; i < 2; ++i) {
    const auto db = pool->find("db");
    CO_ASSERT_TRUE(db.has_value());
    EXPECT_EQ(db->state.labels, (std::vector<Label>{{"app", "shop"}, {"tier", "x"}}));
    EXPECT_EQ(db->state.properties, (std::vector<Property>{{2, value}, {3, value}}));
    EXPECT_EQ(db->state.volume_id, kFairleadNamespace);
    EXPECT_TRUE(co_await pool->close());
    pool.reset();
    pool = co_await bed.must_import();
    CO_ASSERT_TRUE(pool != nullptr);
  }
  EXPECT_TRUE(co_await pool->close());
}
TEST(PoolQueryTest, LabelsAndPropertiesChangeTogether) { Bed().run(changes); }

Task<void> change_and_cut(Bed& bed, uint64_t& cut_at) {
  auto pool = co_await new_pool(bed);
  if (pool != nullptr) {
    EXPECT_TRUE(
        co_await pool->change("db", {.labels = {{"n", "1"}}, .properties = {{1, {std::byte{1}}}}, .volume_id = {}}));
    bed.cut.arm(cut_at);
    (void)co_await pool->change("db", {.labels = {{"n", "2"}}, .properties = {{1, {std::byte{2}}}}, .volume_id = {}});
    co_await bed.until_the_end();
    (void)co_await pool->close();
  }
}
Task<void> compare_change(Bed& bed, bool& was_cut) {
  auto pool = co_await bed.must_import();
  CO_ASSERT_TRUE(pool != nullptr);
  const ObjectState state = pool->find("db")->state;
  CO_ASSERT_TRUE(state.labels.size() == 1 && state.properties.size() == 1);
  EXPECT_EQ(state.labels[0].value == "2", state.properties[0].value[0] == std::byte{2});
  if (!was_cut) EXPECT_EQ(state.labels[0].value, "2");
  EXPECT_TRUE(co_await pool->close());
}
TEST(PoolQueryTest, AChangeIsAllThereOrNotAtAll) {
  bool was_cut = true;
  for (uint64_t cut_at = 0; was_cut && !testing::Test::HasFailure(); ++cut_at) {
    Bed bed(BedOptions{.seed = cut_at + 1});
    was_cut = bed.run_and_crash(sim::CrashKind::kPowerLost, change_and_cut, cut_at);
    bed.run(compare_change, was_cut);
  }
}

Task<void> generations(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_EQ(pool->generation("db"), std::nullopt);
  co_await write(bed, *pool, "db", 0, kExtent);
  EXPECT_EQ(co_await pool->changed_since("db", {}, kAll), Ranges());  // under no generation
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(1)));
  EXPECT_EQ(pool->generation("db"), stamp(1));
  EXPECT_EQ((co_await pool->begin_generation("db", stamp(1))).error().code, Code::kInvalidArgument);
  co_await write(bed, *pool, "db", 2 * kExtent, 2 * kExtent);
  EXPECT_EQ(co_await pool->changed_since("db", {}, kAll), (Ranges{{2 * kExtent, 4 * kExtent}}));
  EXPECT_TRUE(co_await pool->begin_generation("db", stamp(5)));
  EXPECT_EQ(co_await pool->changed_since("db", stamp(1), kAll), Ranges());
  // Overwritten in part, unmapped, and the first write of one from before all generations.
  co_await write(bed, *pool, "db", 3 * kExtent + 512, 512);
  co_await discard(bed, *pool, "db", 2 * kExtent, kExtent);
  co_await write(bed, *pool, "db", 0, 512);
  const Ranges expected = {{0, kExtent}, {2 * kExtent, 4 * kExtent}};
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(co_await pool->changed_since("db", stamp(1), kAll), expected);
    EXPECT_EQ(co_await pool->changed_since("db", stamp(4), kAll), expected);
    EXPECT_EQ(co_await pool->changed_since("db", stamp(5), kAll), Ranges());
    EXPECT_EQ(co_await pool->changed_since("db", stamp(1), {512, 2 * kExtent + 512}),
              (Ranges{{512, kExtent}, {2 * kExtent, 2 * kExtent + 512}}));
    // A snapshot keeps what it had; the replica above it counts both.
    if (i == 0) EXPECT_TRUE((co_await pool->snapshot("db", "s")).has_value());
    EXPECT_EQ(co_await pool->changed_since("s", stamp(1), kAll), expected);
    EXPECT_TRUE(co_await pool->close());
    pool.reset();
    pool = co_await bed.must_import();
    CO_ASSERT_TRUE(pool != nullptr);
    EXPECT_EQ(pool->generation("db"), stamp(5));
  }
  EXPECT_EQ((co_await pool->changed_since("none", {}, kAll)).error().code, Code::kNotFound);
  EXPECT_EQ((co_await pool->changed_since("db", {}, {9 * kMiB, 10 * kMiB})).error().code, Code::kOutOfRange);
  EXPECT_TRUE(co_await pool->close());
}
TEST(PoolQueryTest, WhatChangedSinceAGeneration) { Bed().run(generations); }

Task<void> between(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  co_await write(bed, *pool, "db", 0, 4 * kExtent);
  EXPECT_TRUE((co_await pool->snapshot("db", "a")).has_value());
  co_await write(bed, *pool, "db", kExtent, kUnit);
  EXPECT_TRUE((co_await pool->snapshot("db", "b")).has_value());
  co_await discard(bed, *pool, "db", 3 * kExtent, kExtent);
  EXPECT_TRUE((co_await pool->snapshot("db", "c")).has_value());
  co_await write(bed, *pool, "db", 10 * kExtent, 512);
  EXPECT_EQ(co_await pool->changed_between("a", "b", kAll), (Ranges{{kExtent, 2 * kExtent}}));
  EXPECT_EQ(co_await pool->changed_between("b", "c", kAll), (Ranges{{3 * kExtent, 4 * kExtent}}));
  EXPECT_EQ(co_await pool->changed_between("a", "c", kAll),
            (Ranges{{kExtent, 2 * kExtent}, {3 * kExtent, 4 * kExtent}}));
  EXPECT_EQ(co_await pool->changed_between("c", "db", kAll), (Ranges{{10 * kExtent, 11 * kExtent}}));
  EXPECT_EQ(co_await pool->changed_between("a", "a", kAll), Ranges());
  EXPECT_EQ((co_await pool->changed_between("b", "a", kAll)).error().code, Code::kInvalidArgument);
  // What is merged into the one above still counts.
  EXPECT_TRUE(co_await pool->remove("b"));
  EXPECT_TRUE(co_await pool->settle());
  EXPECT_EQ(co_await pool->changed_between("a", "c", kAll),
            (Ranges{{kExtent, 2 * kExtent}, {3 * kExtent, 4 * kExtent}}));
  EXPECT_TRUE((co_await pool->clone("a", {.name = "copy"})).has_value());
  EXPECT_EQ((co_await pool->changed_between("c", "copy", kAll)).error().code, Code::kInvalidArgument);
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  co_await bed.expect_clean();
}
TEST(PoolQueryTest, WhatChangedBetweenSnapshots) { Bed().run(between); }

Task<void> mapped(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  EXPECT_EQ(co_await pool->mapped("db", kAll), Ranges());
  co_await write(bed, *pool, "db", kUnit + 512, kUnit);
  EXPECT_EQ(co_await pool->mapped("db", kAll), (Ranges{{kUnit, 3 * kUnit}}));
  EXPECT_TRUE((co_await pool->snapshot("db", "s")).has_value());
  co_await write(bed, *pool, "db", 3 * kUnit, kUnit);
  co_await write(bed, *pool, "db", 8 * kMiB - 512, 512);
  const Ranges expected = {{kUnit, 4 * kUnit}, {8 * kMiB - kUnit, 8 * kMiB}};
  EXPECT_EQ(co_await pool->mapped("db", kAll), expected);
  EXPECT_EQ(co_await pool->mapped("s", kAll), (Ranges{{kUnit, 3 * kUnit}}));
  EXPECT_EQ(co_await pool->mapped("db", {2 * kUnit, 8 * kMiB - kUnit}), (Ranges{{2 * kUnit, 4 * kUnit}}));
  co_await discard(bed, *pool, "db", 0, kExtent);
  EXPECT_EQ(co_await pool->mapped("db", kAll), (Ranges{{8 * kMiB - kUnit, 8 * kMiB}}));
  EXPECT_EQ(co_await pool->mapped("s", kAll), (Ranges{{kUnit, 3 * kUnit}}));
  EXPECT_TRUE(co_await pool->close());
}
TEST(PoolQueryTest, WhatIsMapped) { Bed().run(mapped); }

Task<void> unique(Bed& bed) {
  auto pool = co_await new_pool(bed);
  CO_ASSERT_TRUE(pool != nullptr);
  co_await write(bed, *pool, "db", 0, 4 * kExtent);
  EXPECT_EQ(co_await pool->unique_bytes("db"), 4 * kExtent);
  EXPECT_TRUE((co_await pool->snapshot("db", "s")).has_value());
  EXPECT_EQ(co_await pool->unique_bytes("db"), 0U);
  EXPECT_EQ(co_await pool->unique_bytes("s"), 0U);
  // Overwritten wholly: only the snapshot has the old one. In part: both need it. A hole hides it.
  co_await write(bed, *pool, "db", 0, kExtent);
  co_await write(bed, *pool, "db", kExtent, kExtent - kUnit);
  EXPECT_EQ(co_await pool->unique_bytes("s"), kExtent);
  EXPECT_EQ(co_await pool->unique_bytes("db"), 2 * kExtent);
  co_await discard(bed, *pool, "db", 2 * kExtent, kExtent);
  EXPECT_EQ(co_await pool->unique_bytes("s"), 2 * kExtent);
  EXPECT_TRUE((co_await pool->clone("s", {.name = "copy"})).has_value());
  EXPECT_EQ(co_await pool->unique_bytes("s"), 0U);
  EXPECT_TRUE(co_await pool->remove("copy"));
  EXPECT_TRUE(co_await pool->settle());
  EXPECT_EQ(co_await pool->unique_bytes("s"), 2 * kExtent);
  const uint64_t before = pool->statistics().used_bytes - pool->statistics().metadata_bytes;
  EXPECT_TRUE(co_await pool->remove("s"));
  EXPECT_TRUE(co_await pool->settle());
  EXPECT_EQ(pool->statistics().used_bytes - pool->statistics().metadata_bytes, before - 3 * kExtent);
  EXPECT_TRUE(co_await pool->close());
  pool.reset();
  co_await bed.expect_clean();
}
TEST(PoolQueryTest, WhatNobodyElseSees) { Bed().run(unique); }

}  // namespace
}  // namespace fairlead::pool
