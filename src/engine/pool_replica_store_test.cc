// What a keeper finds in a pool: its state, stamps, and what changed since.
#include "engine/pool_replica_store.h"

#include <gtest/gtest.h>

#include "engine/test_bed.h"

namespace fairlead::engine {
namespace {

using mirror::ByteSpan;
using mirror::Ranges;
using mirror::ReplicaState;
using mirror::Stamp;

constexpr uint64_t kExtent = mirror::kExtentBytes;
using Spans = std::vector<ByteSpan>;

Stamp stamp(uint64_t generation) { return {.term = term(2), .generation = generation}; }

Task<std::unique_ptr<BlockDevice>> open_device(TestEngine& engine) {
  const auto source = co_await engine.pool().source(engine.name());
  EXPECT_TRUE(source.has_value());
  co_return std::move(*(*source)->open(engine.home()));
}
// All answers of changed() put together.
Task<Spans> all_changed(PoolReplicaStore& store, std::optional<Stamp> since, size_t* answers = nullptr) {
  Spans spans;
  uint64_t offset = 0;
  do {
    const Result<Ranges> ranges = co_await store.changed({.since = since, .offset = offset});
    EXPECT_TRUE(ranges.has_value());
    if (!ranges) co_return Spans{};
    EXPECT_LE(ranges->ranges.size(), mirror::kRangesMax);
    EXPECT_TRUE(mirror::decode_reply(mirror::encode(mirror::Reply(*ranges))).has_value());
    EXPECT_TRUE(ranges->next == 0 || ranges->next > offset);
    spans.insert(spans.end(), ranges->ranges.begin(), ranges->ranges.end());
    offset = ranges->next;
    if (answers != nullptr) ++*answers;
  } while (offset != 0);
  co_return spans;
}

ReplicaState some_state(EngineBed& bed) {
  ReplicaState state;
  state.promise = term(9, 3);
  state.record = bed.first;
  state.session = {.term = term(9, 3), .number = 4, .boot_id = test_uuid(77)};
  state.note = stamp(5);
  state.is_cold = true;
  return state;
}

Task<void> saves(EngineBed& bed) {
  TestEngine& engine = *bed.engines[0];
  auto store = PoolReplicaStore::open(engine.home(), engine.pool(), engine.id());
  CO_ASSERT_TRUE(store.has_value());
  EXPECT_EQ((*store)->state().record, bed.first);
  EXPECT_EQ((*store)->size_bytes(), kReplicaBytes);
  EXPECT_EQ((*store)->boot_id(), engine.home().storage.boot_id());
  EXPECT_EQ((*store)->generation(), std::nullopt);
  EXPECT_TRUE(co_await (*store)->save(some_state(bed)));
  EXPECT_EQ((*store)->state(), some_state(bed));
}
Task<void> finds(EngineBed& bed) {
  TestEngine& engine = *bed.engines[0];
  const auto store = PoolReplicaStore::open(engine.home(), engine.pool(), engine.id());
  CO_ASSERT_TRUE(store.has_value());
  EXPECT_EQ((*store)->state(), some_state(bed));
}
TEST(PoolReplicaStoreTest, StateIsOnStableStorageWhenSaved) {
  EngineBed bed;
  bed.run_at(0, saves);
  bed.crash(0, sim::CrashKind::kPowerLost);
  bed.restart(0);
  bed.run_at(0, finds);
}

Task<void> refuses(EngineBed& bed) {
  TestEngine& engine = *bed.engines[0];
  const auto open = [&](mirror::ReplicaId id) {
    const auto store = PoolReplicaStore::open(engine.home(), engine.pool(), id);
    return store ? std::nullopt : std::optional(store.error().code);
  };
  EXPECT_EQ(open(test_uuid(99)), Code::kNotFound);
  const auto snapshot = co_await engine.pool().snapshot("db", "s");
  CO_ASSERT_TRUE(snapshot.has_value());
  EXPECT_EQ(open(*snapshot), Code::kInvalidArgument);
  // A replica that was never asked anything; and one whose state cannot be read: each byte of it matters.
  const auto fresh = co_await engine.pool().create_replica({.name = "fresh", .size_bytes = kMiB});
  CO_ASSERT_TRUE(fresh.has_value());
  EXPECT_EQ(open(*fresh), std::nullopt);
  const std::vector<std::byte> good = mirror::encode(some_state(bed));
  std::vector<std::byte> bad = good;
  bad[0] ^= std::byte{0x40};
  std::vector<std::byte> cut(good.begin(), good.end() - 1);
  std::vector<std::byte> longer = good;
  longer.push_back(std::byte{0});
  for (const auto& value : {bad, cut, longer, std::vector<std::byte>(pool::kPropertyBytesMax, std::byte{1})}) {
    pool::Changes changes;
    changes.properties = {{kReplicaStateProperty, value}};
    EXPECT_TRUE(co_await engine.pool().change("fresh", changes));
    EXPECT_EQ(open(*fresh), Code::kCorrupt);
    const auto replica = co_await Replica::open(engine.shards(), engine.pool(), nullptr, {.id = *fresh});
    EXPECT_TRUE(!replica && replica.error().code == Code::kCorrupt);
  }
  // Names are for people.
  EXPECT_EQ(open(engine.id()), std::nullopt);
}
TEST(PoolReplicaStoreTest, WhatIsNoReplicaOrCannotBeReadIsRefused) { EngineBed().run_at(0, refuses); }

Task<void> lists_changes(EngineBed& bed) {
  TestEngine& engine = *bed.engines[0];
  auto opened = PoolReplicaStore::open(engine.home(), engine.pool(), engine.id());
  CO_ASSERT_TRUE(opened.has_value());
  PoolReplicaStore& store = **opened;
  auto device = co_await open_device(engine);
  EXPECT_EQ(co_await all_changed(store, std::nullopt), Spans());
  // Before any generation: known only to who asks for all.
  EXPECT_TRUE(co_await put(engine.reactor(), *device, 14 * kExtent + kBlock, pattern(kBlock, 1)));
  EXPECT_EQ(co_await all_changed(store, std::nullopt), (Spans{{14 * kExtent, 15 * kExtent}}));
  EXPECT_EQ(co_await all_changed(store, Stamp{}), Spans());
  EXPECT_EQ(co_await store.has_changed_since(Stamp{}), false);
  EXPECT_TRUE(co_await store.begin_generation(stamp(1)));
  EXPECT_EQ(store.generation(), stamp(1));
  EXPECT_TRUE(co_await put(engine.reactor(), *device, kExtent - kBlock, pattern(2 * kBlock, 1)));
  EXPECT_TRUE(co_await put(engine.reactor(), *device, 5 * kExtent, pattern(3 * kExtent, 1)));
  EXPECT_EQ(co_await store.has_changed_since(Stamp{}), true);
  EXPECT_EQ(co_await store.has_changed_since(stamp(1)), false);
  EXPECT_TRUE((co_await engine.pool().snapshot("db", "s")).has_value());
  EXPECT_TRUE(co_await store.begin_generation(stamp(2)));
  // A whole extent and a part of one are unmapped, one is written in part, two that hold nothing are stamped.
  EXPECT_TRUE(co_await block_write_zeroes(engine.reactor(), *device, ByteOffset(5 * kExtent), kExtent));
  EXPECT_TRUE(co_await put(engine.reactor(), *device, 7 * kExtent + kBlock, pattern(kBlock, 2)));
  EXPECT_TRUE(co_await store.stamp({9, 15, 11}));
  EXPECT_EQ(co_await store.has_changed_since(stamp(1)), true);
  EXPECT_EQ(co_await all_changed(store, stamp(1)), (Spans{{5 * kExtent, 6 * kExtent},
                                                          {7 * kExtent, 8 * kExtent},
                                                          {9 * kExtent, 10 * kExtent},
                                                          {11 * kExtent, 12 * kExtent},
                                                          {15 * kExtent, 16 * kExtent}}));
  EXPECT_EQ(co_await all_changed(store, stamp(2)), Spans());
  // Everything that is mapped, in ancestors too, and every hole with a stamp.
  EXPECT_EQ(co_await all_changed(store, std::nullopt), (Spans{{0, 2 * kExtent},
                                                              {5 * kExtent, 8 * kExtent},
                                                              {9 * kExtent, 10 * kExtent},
                                                              {11 * kExtent, 12 * kExtent},
                                                              {14 * kExtent, 16 * kExtent}}));
  // From somewhere on.
  const auto rest = co_await store.changed({.since = stamp(1), .offset = 7 * kExtent + 512});
  CO_ASSERT_TRUE(rest.has_value() && !rest->ranges.empty());
  EXPECT_EQ(rest->ranges.front(), (ByteSpan{7 * kExtent + 512, 8 * kExtent}));
  const auto behind = co_await store.changed({.since = stamp(1), .offset = ~uint64_t{0}});
  CO_ASSERT_TRUE(behind.has_value());
  EXPECT_TRUE(behind->ranges.empty() && behind->next == 0);
  // Stamps change no byte.
  const auto bytes = co_await get(engine.reactor(), *device, 6 * kExtent, kExtent);
  const auto written = pattern(3 * kExtent, 1);
  EXPECT_TRUE(bytes && std::ranges::equal(*bytes, std::span(written).subspan(kExtent, kExtent)));
}
TEST(PoolReplicaStoreTest, WritesUnmapsAndStampsAreChanges) { EngineBed().run_at(0, lists_changes); }

Task<void> pages(EngineBed& bed) {
  TestEngine& engine = *bed.engines[0];
  constexpr uint64_t kBytes = 300 * kGiB + 512 * kKiB;
  const auto made = co_await engine.pool().create_replica({.name = "large", .size_bytes = kBytes});
  CO_ASSERT_TRUE(made.has_value());
  auto opened = PoolReplicaStore::open(engine.home(), engine.pool(), *made);
  CO_ASSERT_TRUE(opened.has_value());
  PoolReplicaStore& store = **opened;
  EXPECT_TRUE(co_await store.begin_generation(stamp(1)));
  // Many here and there, a long run, and the last, which is half an extent.
  Spans expected;
  std::vector<uint64_t> extents;
  for (uint64_t extent = 3000; extent < 3000 + 2 * 4100; extent += 2) {
    extents.push_back(extent);
    expected.push_back({extent * kExtent, (extent + 1) * kExtent});
  }
  for (uint64_t extent = 200'000; extent < 200'300; ++extent) extents.push_back(extent);
  expected.push_back({200'000 * kExtent, 200'300 * kExtent});
  extents.push_back(300 * 1024);
  expected.push_back({300 * kGiB, kBytes});
  for (size_t at = 0; at < extents.size(); at += mirror::kStampsMax) {
    const auto first = extents.begin() + static_cast<ptrdiff_t>(at);
    const size_t count = std::min(mirror::kStampsMax, extents.size() - at);
    EXPECT_TRUE(co_await store.stamp({first, first + static_cast<ptrdiff_t>(count)}));
  }
  for (const std::optional<Stamp> since : {std::optional<Stamp>(), std::optional(Stamp{})}) {
    size_t answers = 0;
    EXPECT_EQ(co_await all_changed(store, since, &answers), expected);
    EXPECT_GE(answers, 3U);
  }
  EXPECT_EQ(co_await store.has_changed_since(Stamp{}), true);
  EXPECT_EQ(co_await store.has_changed_since(stamp(1)), false);
}
TEST(PoolReplicaStoreTest, ManyChangesTakeSeveralAnswers) { EngineBed().run_at(0, pages); }

}  // namespace
}  // namespace fairlead::engine
