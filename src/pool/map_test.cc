#include "pool/map.h"

#include <gtest/gtest.h>
#include <map>
#include <thread>

#include "pool/layout.h"
#include "pool/test_seed.h"

namespace fairlead::pool {
namespace {

Entry entry(uint32_t place, uint32_t stamp, const UnitSet& held) { return {Place(place), StampOrdinal(stamp), held}; }
UnitSet first_units(size_t count) { return UnitSet::range(0, count); }
UnitSet unit(size_t number) { return UnitSet::range(number, number + 1); }

TEST(MapPageTest, OwnAndBorrowedEntries) {
  MapPage page(LayerId(3), 7);
  EXPECT_TRUE(page.load(0).entry.is_absent());
  (void)page.store_own(0, entry(5, 6, first_units(8)));
  EXPECT_EQ(page.load(0).entry, entry(5, 6, first_units(8)));
  EXPECT_FALSE(page.load(0).is_borrowed);
  EXPECT_EQ(page.own(0), entry(5, 6, first_units(8)));
  (void)page.borrow(1, entry(kPlacesMax, 0, UnitSet::range(60, 70)));
  EXPECT_TRUE(page.load(1).is_borrowed);
  EXPECT_EQ(page.load(1).entry, entry(kPlacesMax, 0, UnitSet::range(60, 70)));
  EXPECT_TRUE(page.own(1).is_absent());
  EXPECT_EQ(page.count_places(), 1U);
  (void)page.store_own(1, entry(9, 0, unit(0)));  // it ends what was borrowed
  EXPECT_FALSE(page.load(1).is_borrowed);
  EXPECT_EQ(page.own(1), entry(9, 0, unit(0)));
  EXPECT_EQ(page.count_places(), 2U);
  (void)page.store_own(255, entry(0, 4, UnitSet::all()));  // a hole
  EXPECT_EQ(page.own(255), entry(0, 4, UnitSet::all()));
  EXPECT_EQ(page.count_places(), 2U);
}

TEST(MapPageTest, IsStoredWithoutWhatIsBorrowed) {
  MapPage page(LayerId(3), 7);
  (void)page.store_own(0, entry(5, 6, first_units(8)));
  (void)page.borrow(1, entry(8, 0, UnitSet::range(60, 70)));
  (void)page.store_own(255, entry(0, 4, UnitSet::all()));
  (void)page.store_own(100, entry(1000, ~uint32_t{0}, unit(0) | unit(255)));
  MapBytes bytes;
  page.encode(bytes);
  EXPECT_EQ(bytes[0], std::byte{5});
  EXPECT_EQ(bytes[4], std::byte{6});
  EXPECT_EQ(bytes[8], std::byte{0xff});
  EXPECT_EQ(bytes[40], std::byte{0});
  MapPage read(LayerId(3), 7);
  ASSERT_TRUE(read.decode(bytes, 1000));
  for (size_t i = 0; i < kEntriesPerPage; ++i) EXPECT_EQ(read.own(i), page.own(i)) << i;
  EXPECT_TRUE(read.own(1).is_absent());
  // A place beyond the pool, or with the mark of what is borrowed.
  MapPage refused(LayerId(3), 7);
  EXPECT_FALSE(refused.decode(bytes, 999));
  MapBytes marked{};
  marked[3] = std::byte{0x80};
  EXPECT_FALSE(MapPage(LayerId(3), 7).decode(marked, kPlacesMax));
}

TEST(MapPageTest, LowerParts) {
  MapPage page(LayerId(3), 7);
  const size_t bare = page.memory_bytes();
  EXPECT_EQ(page.lower(4), nullptr);
  EXPECT_EQ(page.set_lower(4, nullptr).lower, nullptr);
  EXPECT_EQ(page.memory_bytes(), bare);
  auto parts = std::make_unique<LowerParts>(LowerParts{{Place(77), unit(9)}, {Place(78), UnitSet::range(10, 200)}});
  const LowerParts* const raw = parts.get();
  EXPECT_EQ(page.set_lower(4, std::move(parts)).lower, nullptr);
  EXPECT_EQ(page.lower(4), raw);
  EXPECT_EQ(page.lower(5), nullptr);
  EXPECT_GE(page.memory_bytes(), bare + sizeof(LowerParts) + 2 * sizeof(LowerPart));
  const size_t with_two = page.memory_bytes();
  const MapPage::Replaced replaced = page.set_lower(4, std::make_unique<LowerParts>(1));
  EXPECT_EQ(replaced.lower.get(), raw);
  EXPECT_EQ(replaced.units, nullptr);
  EXPECT_EQ(page.memory_bytes(), with_two - sizeof(LowerPart));

  (void)page.store_own(4, entry(1, 2, first_units(2)));
  (void)page.borrow(6, entry(8, 0, unit(0)));
  page.set_resolved();
  EXPECT_TRUE(page.is_resolved());
  page.set_unresolved();  // what readers may be looking at stays
  EXPECT_FALSE(page.is_resolved());
  EXPECT_NE(page.lower(4), nullptr);
  EXPECT_TRUE(page.load(6).is_borrowed);
}

TEST(MapPageTest, LowerUnitsAreFoundByTheirPart) {
  const LowerParts parts = {{Place(77), unit(9)}, {Place(78), UnitSet::range(10, 200)}};
  EXPECT_EQ(find_lower(&parts, 9), Place(77));
  EXPECT_EQ(find_lower(&parts, 10), Place(78));
  EXPECT_EQ(find_lower(&parts, 199), Place(78));
  EXPECT_EQ(find_lower(&parts, 200), Place(0));
  EXPECT_EQ(find_lower(&parts, 0), Place(0));
  EXPECT_EQ(find_lower(nullptr, 9), Place(0));
}

// Sets of some units need room of their own, which comes back when it is replaced, for the time that readers need it.
TEST(MapPageTest, WhatIsReplacedIsHandedBack) {
  MapPage page(LayerId(3), 7);
  const size_t bare = page.memory_bytes();
  EXPECT_EQ(page.store_own(4, entry(1, 2, UnitSet::all())).units, nullptr);
  EXPECT_EQ(page.store_own(5, entry(1, 2, {})).units, nullptr);
  EXPECT_EQ(page.memory_bytes(), bare);
  EXPECT_EQ(page.store_own(4, entry(2, 2, unit(3))).units, nullptr);
  const size_t with_one = page.memory_bytes();
  EXPECT_GE(with_one, bare + sizeof(SharedUnits));
  // More units of the same place are added where the others are.
  EXPECT_EQ(page.store_own(4, entry(2, 3, unit(3) | unit(100))).units, nullptr);
  EXPECT_EQ(page.own(4), entry(2, 3, unit(3) | unit(100)));
  EXPECT_EQ(page.memory_bytes(), with_one);
  // Fewer, or of another place, come in another set.
  EXPECT_NE(page.store_own(4, entry(2, 3, unit(100))).units, nullptr);
  EXPECT_NE(page.store_own(4, entry(7, 3, unit(100) | unit(101))).units, nullptr);
  EXPECT_NE(page.borrow(4, entry(7, 3, unit(100) | unit(101))).units, nullptr);
  EXPECT_EQ(page.memory_bytes(), with_one);
  const MapPage::Replaced replaced = page.store_own(4, entry(7, 3, UnitSet::all()));
  ASSERT_NE(replaced.units, nullptr);
  EXPECT_EQ((*replaced.units)[1].load(), unit(100).words()[1] | unit(101).words()[1]);
  EXPECT_EQ(page.own(4), entry(7, 3, UnitSet::all()));
  EXPECT_EQ(page.memory_bytes(), with_one - sizeof(SharedUnits));
}

// Any set, often one of a few kinds.
UnitSet draw_units(std::mt19937_64& random) {
  if (random() % 4 == 0) return random() % 2 == 0 ? UnitSet() : UnitSet::all();
  return UnitSet({random(), random(), random(), random()});
}

TEST(MapPageTest, EncodesAndDecodesWhateverItHolds) {
  const uint64_t seed = draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    MapPage page(LayerId(1), 0);
    MapEntries model;
    for (int i = 0; i < 300; ++i) {
      const size_t index = random() % kEntriesPerPage;
      const Entry drawn = entry(static_cast<uint32_t>(random()) % (kPlacesMax + 1), static_cast<uint32_t>(random()),
                                draw_units(random));
      if (random() % 4 == 0) {
        (void)page.borrow(index, drawn);
        model[index] = {};
      } else {
        (void)page.store_own(index, drawn);
        model[index] = drawn;
      }
    }
    MapPage read(LayerId(1), 0);
    MapBytes bytes;
    page.encode(bytes);
    ASSERT_TRUE(read.decode(bytes, kPlacesMax));
    for (size_t i = 0; i < kEntriesPerPage; ++i) {
      ASSERT_EQ(page.own(i), model[i]);
      ASSERT_EQ(read.own(i), model[i]);
    }
  }
}

// What an entry holds follows from its place, so that a reader sees when it has parts of two.
UnitSet held_of(uint32_t place) {
  if (place == 0) return {};
  if (place % 5 == 0) return place % 2 == 0 ? UnitSet() : UnitSet::all();
  const uint64_t word = uint64_t{place} * 0x9e3779b97f4a7c15;
  return UnitSet({word, ~word, word + 1, word ^ 0xff00ff});
}

TEST(MapPageTest, ReadersNeverSeePartsOfTwoEntries) {
  constexpr uint32_t kChanges = 300'000;
  constexpr size_t kIndex = 17;
  MapPage page(LayerId(1), 0);
  std::atomic<bool> is_over{false};
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint32_t> changed{0};
  const auto read = [&] {
    uint32_t rounds = 0;
    for (; !is_over.load(std::memory_order_acquire) || rounds < 1000; ++rounds) {
      const ShownEntry shown = page.load(kIndex);
      const uint32_t place = shown.entry.place.value;
      const bool is_right = shown.entry.held == held_of(place) && shown.entry.stamp.value == place / 2 &&
                            shown.is_borrowed == (place != 0 && place % 3 == 0);
      if (!is_right) wrong.fetch_add(1, std::memory_order_relaxed);
    }
    changed.fetch_add(rounds, std::memory_order_relaxed);
  };
  std::vector<std::thread> readers;
  readers.emplace_back(read);
  readers.emplace_back(read);
  std::vector<std::unique_ptr<SharedUnits>> retired;  // as until no shard can be using them
  for (uint32_t i = 1; i < kChanges; ++i) {
    const uint32_t place = i % 5000 + 1;
    const Entry next = entry(place, place / 2, held_of(place));
    auto replaced = place % 3 == 0 ? page.borrow(kIndex, next) : page.store_own(kIndex, next);
    if (replaced.units != nullptr) retired.push_back(std::move(replaced.units));
  }
  is_over.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(MapPageTest, ReadersNeverMissUnitsThatAreHeldBeforeAndAfter) {
  MapPage page(LayerId(1), 0);
  (void)page.store_own(5, entry(9, 1, unit(0)));
  std::atomic<bool> is_over{false};
  std::atomic<uint64_t> wrong{0};
  std::thread reader([&] {
    while (!is_over.load(std::memory_order_acquire)) {
      const Entry seen = page.load(5).entry;
      if (!seen.held.has(0) || seen.place != Place(9)) wrong.fetch_add(1, std::memory_order_relaxed);
    }
  });
  std::vector<std::unique_ptr<SharedUnits>> retired;  // as until no shard can be using them
  for (uint32_t i = 0; i < 300'000; ++i) {
    const UnitSet held = i % 1000 == 999 ? UnitSet::all() : UnitSet({1 | uint64_t{i} << 1, i, 0, uint64_t{i} << 32});
    auto replaced = page.store_own(5, entry(9, i / 16, held));
    if (replaced.units != nullptr) retired.push_back(std::move(replaced.units));
  }
  is_over.store(true, std::memory_order_release);
  reader.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(MapPageTest, ReadersSeeWholeLowerParts) {
  MapPage page(LayerId(1), 0);
  page.set_resolved();
  std::atomic<bool> is_over{false};
  std::atomic<uint64_t> wrong{0};
  std::thread reader([&] {
    while (!is_over.load(std::memory_order_acquire)) {
      const LowerParts* const parts = page.lower(3);
      if (parts == nullptr) continue;
      if (parts->size() != parts->front().place.value % 5 + 1) wrong.fetch_add(1, std::memory_order_relaxed);
      for (const LowerPart& part : *parts) {
        if (part.place != parts->front().place) wrong.fetch_add(1, std::memory_order_relaxed);
      }
    }
  });
  std::vector<std::unique_ptr<LowerParts>> retired;  // as until no shard can be using them
  for (uint32_t i = 1; i < 20'000; ++i) {
    auto parts = std::make_unique<LowerParts>(i % 5 + 1, LowerPart{Place(i), unit(i % 256)});
    retired.push_back(page.set_lower(3, i % 7 == 0 ? nullptr : std::move(parts)).lower);
  }
  is_over.store(true, std::memory_order_release);
  reader.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(LayerTest, LeavesAreAnOrderedMap) {
  const uint64_t seed = draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  Layer layer;
  std::map<uint32_t, uint32_t> model;  // leaf: address
  for (int i = 0; i < 5000; ++i) {
    const auto leaf = static_cast<uint32_t>(random() % 3000);
    if (random() % 2 == 0) {
      LeafRef& ref = layer.find_or_add(leaf);
      ASSERT_EQ(ref.leaf, leaf);
      ASSERT_EQ(ref.address, model.contains(leaf) ? model[leaf] : kNoAddress);
      model[leaf] = ref.address = static_cast<uint32_t>(random());
      continue;
    }
    const LeafRef* const ref = std::as_const(layer).find(leaf);
    ASSERT_EQ(ref != nullptr, model.contains(leaf));
    if (ref != nullptr) ASSERT_EQ(ref->address, model[leaf]);
  }
  ASSERT_EQ(layer.leaves.size(), model.size());
  size_t i = 0;
  for (const auto& [leaf, address] : model) ASSERT_EQ(layer.leaves[i++].leaf, leaf);
}

}  // namespace
}  // namespace fairlead::pool
