#include "pool/map.h"

#include <gtest/gtest.h>
#include <map>
#include <thread>

#include "pool/layout.h"
#include "pool/test_seed.h"

namespace fairlead::pool {
namespace {

Entry entry(uint32_t place, uint32_t stamp, uint64_t held) { return {Place(place), StampOrdinal(stamp), held}; }

TEST(MapPageTest, OwnAndBorrowedEntries) {
  MapPage page(LayerId(3), 7);
  EXPECT_TRUE(page.load(0).entry.is_absent());
  page.store_own(0, entry(5, 6, 0xff));
  EXPECT_EQ(page.load(0).entry, entry(5, 6, 0xff));
  EXPECT_FALSE(page.load(0).is_borrowed);
  EXPECT_EQ(page.own(0), entry(5, 6, 0xff));
  page.borrow(1, entry(kPlacesMax, 0, 0xf0));
  EXPECT_TRUE(page.load(1).is_borrowed);
  EXPECT_EQ(page.load(1).entry, entry(kPlacesMax, 0, 0xf0));
  EXPECT_TRUE(page.own(1).is_absent());
  EXPECT_EQ(page.count_places(), 1U);
  page.store_own(1, entry(9, 0, 1));  // it ends what was borrowed
  EXPECT_FALSE(page.load(1).is_borrowed);
  EXPECT_EQ(page.own(1), entry(9, 0, 1));
  EXPECT_EQ(page.count_places(), 2U);
  page.store_own(255, entry(0, 4, kAllUnits));  // a hole
  EXPECT_EQ(page.own(255), entry(0, 4, kAllUnits));
  EXPECT_EQ(page.count_places(), 2U);
}

TEST(MapPageTest, IsStoredWithoutWhatIsBorrowed) {
  MapPage page(LayerId(3), 7);
  page.store_own(0, entry(5, 6, 0xff));
  page.borrow(1, entry(8, 0, 0xf0));
  page.store_own(255, entry(0, 4, kAllUnits));
  page.store_own(100, entry(1000, ~uint32_t{0}, 0x8000000000000001));
  const Page bytes = page.encode();
  EXPECT_EQ(bytes[0], std::byte{5});
  EXPECT_EQ(bytes[4], std::byte{6});
  EXPECT_EQ(bytes[8], std::byte{0xff});
  EXPECT_EQ(bytes[16], std::byte{0});
  MapPage read(LayerId(3), 7);
  ASSERT_TRUE(read.decode(bytes, 1000));
  for (size_t i = 0; i < kEntriesPerPage; ++i) EXPECT_EQ(read.own(i), page.own(i)) << i;
  EXPECT_TRUE(read.own(1).is_absent());
  // A place beyond the pool, or with the mark of what is borrowed.
  MapPage refused(LayerId(3), 7);
  EXPECT_FALSE(refused.decode(bytes, 999));
  Page marked{};
  marked[3] = std::byte{0x80};
  EXPECT_FALSE(MapPage(LayerId(3), 7).decode(marked, kPlacesMax));
}

TEST(MapPageTest, UnitTables) {
  MapPage page(LayerId(3), 7);
  const size_t bare = page.memory_bytes();
  EXPECT_EQ(page.units(4), nullptr);
  EXPECT_EQ(page.set_units(4, nullptr), nullptr);
  EXPECT_EQ(page.memory_bytes(), bare);
  auto table = std::make_unique<UnitTable>();
  (*table)[9] = Place(77);
  const UnitTable* const raw = table.get();
  EXPECT_EQ(page.set_units(4, std::move(table)), nullptr);
  EXPECT_EQ(page.units(4), raw);
  EXPECT_EQ(page.units(5), nullptr);
  EXPECT_GE(page.memory_bytes(), bare + sizeof(UnitTable));
  const size_t with_one = page.memory_bytes();
  EXPECT_EQ(page.set_units(4, std::make_unique<UnitTable>()).get(), raw);
  EXPECT_EQ(page.memory_bytes(), with_one);

  page.store_own(4, entry(1, 2, 3));
  page.borrow(6, entry(8, 0, 1));
  page.set_resolved();
  EXPECT_TRUE(page.is_resolved());
  page.set_unresolved();  // what readers may be looking at stays
  EXPECT_FALSE(page.is_resolved());
  EXPECT_NE(page.units(4), nullptr);
  EXPECT_TRUE(page.load(6).is_borrowed);
}

TEST(MapPageTest, EncodesAndDecodesWhateverItHolds) {
  const uint64_t seed = draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    MapPage page(LayerId(1), 0);
    std::array<Entry, kEntriesPerPage> model;
    for (int i = 0; i < 300; ++i) {
      const size_t index = random() % kEntriesPerPage;
      const Entry drawn = entry(static_cast<uint32_t>(random()) % (kPlacesMax + 1), static_cast<uint32_t>(random()),
                                random() % 4 == 0 ? 0 : random());
      if (random() % 4 == 0) {
        page.borrow(index, drawn);
        model[index] = {};
      } else {
        page.store_own(index, drawn);
        model[index] = drawn;
      }
    }
    MapPage read(LayerId(1), 0);
    ASSERT_TRUE(read.decode(page.encode(), kPlacesMax));
    for (size_t i = 0; i < kEntriesPerPage; ++i) {
      ASSERT_EQ(page.own(i), model[i]);
      ASSERT_EQ(read.own(i), model[i]);
    }
  }
}

// What an entry holds follows from its place, so that a reader sees when it has parts of two.
uint64_t held_of(uint32_t place) { return uint64_t{place} * 0x9e3779b97f4a7c15; }

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
  for (uint32_t i = 1; i < kChanges; ++i) {
    const uint32_t place = i % 5000 + 1;
    const Entry next = entry(place, place / 2, held_of(place));
    if (place % 3 == 0) {
      page.borrow(kIndex, next);
    } else {
      page.store_own(kIndex, next);
    }
  }
  is_over.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(MapPageTest, ReadersNeverMissUnitsThatAreHeldBeforeAndAfter) {
  MapPage page(LayerId(1), 0);
  page.store_own(5, entry(9, 1, 1));
  std::atomic<bool> is_over{false};
  std::atomic<uint64_t> wrong{0};
  std::thread reader([&] {
    while (!is_over.load(std::memory_order_acquire)) {
      const Entry seen = page.load(5).entry;
      if ((seen.held & 1) == 0 || seen.place != Place(9)) wrong.fetch_add(1, std::memory_order_relaxed);
    }
  });
  for (uint32_t i = 0; i < 300'000; ++i) page.store_own(5, entry(9, i / 16, 1 | uint64_t{i} << 1));
  is_over.store(true, std::memory_order_release);
  reader.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(MapPageTest, ReadersSeeWholeUnitTables) {
  MapPage page(LayerId(1), 0);
  page.set_resolved();
  std::atomic<bool> is_over{false};
  std::atomic<uint64_t> wrong{0};
  std::thread reader([&] {
    while (!is_over.load(std::memory_order_acquire)) {
      const UnitTable* const table = page.units(3);
      if (table == nullptr) continue;
      for (const Place place : *table) {
        if (place != table->front()) wrong.fetch_add(1, std::memory_order_relaxed);
      }
    }
  });
  std::vector<std::unique_ptr<UnitTable>> retired;  // as until no shard can be using them
  for (uint32_t i = 1; i < 20'000; ++i) {
    auto table = std::make_unique<UnitTable>();
    table->fill(Place(i));
    retired.push_back(page.set_units(3, i % 7 == 0 ? nullptr : std::move(table)));
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
