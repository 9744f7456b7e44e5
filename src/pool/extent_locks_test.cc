#include "pool/extent_locks.h"

#include <gtest/gtest.h>

#include "async/scope.h"
#include "pool/test_seed.h"

namespace fairlead::pool {
namespace {

constexpr LayerId kLayer(3);
constexpr ExtentIndex kExtent(8);

// By the bits of a mask, spread over all words.
UnitSet units(uint64_t mask) {
  UnitSet set;
  for (size_t bit = 0; bit < 64; ++bit) {
    const size_t unit = bit % 4 * 64 + bit;
    if ((mask >> bit & 1) != 0) set |= UnitSet::range(unit, unit + 1);
  }
  return set;
}

class ExtentLocksTest : public testing::Test {
 protected:
  void TearDown() override {
    held_.clear();
    run();
  }
  void run() {
    while (reactor_.run_ready(64) > 0) {
    }
  }
  Task<void> hold(int id, LayerId layer, ExtentIndex extent, UnitSet units) {
    auto lock = co_await locks_.lock(layer, extent, units);
    order_.push_back(id);
    held_.emplace(id, std::move(lock));
  }
  // Asks for the units; they are held until release().
  void ask(int id, const UnitSet& units, ExtentIndex extent = kExtent, LayerId layer = kLayer) {
    scope_.spawn(hold(id, layer, extent, units));
    run();
  }
  void release(int id) {
    ASSERT_EQ(held_.erase(id), 1U);
    run();
  }
  bool has(int id) const { return held_.contains(id); }

  Reactor reactor_{Reactor::Options{}};
  ExtentLocks locks_{reactor_};
  Scope scope_{reactor_};
  std::map<int, ExtentLocks::Lock> held_;
  std::vector<int> order_;
};

TEST_F(ExtentLocksTest, OverlappingMasksExcludeEachOther) {
  ask(1, units(0b0011));
  ask(2, units(0b1100));
  EXPECT_TRUE(has(1) && has(2));
  ask(3, units(0b0110));
  ask(4, units(0b10000));
  EXPECT_FALSE(has(3));
  EXPECT_TRUE(has(4));
  release(1);
  EXPECT_FALSE(has(3));
  release(2);
  EXPECT_TRUE(has(3));
}

TEST_F(ExtentLocksTest, OtherExtentsAndLayersAreOthers) {
  ask(1, UnitSet::all());
  ask(2, UnitSet::all(), ExtentIndex(9));
  ask(3, UnitSet::all(), kExtent, LayerId(4));
  EXPECT_TRUE(has(1) && has(2) && has(3));
  ask(4, units(1), ExtentIndex(9));
  EXPECT_FALSE(has(4));
  release(1);
  EXPECT_FALSE(has(4));
  release(2);
  EXPECT_TRUE(has(4));
}

TEST_F(ExtentLocksTest, WhoAsksFirstGetsIt) {
  ask(1, UnitSet::all());
  for (int id = 2; id < 8; ++id) ask(id, UnitSet::all());
  for (int id = 1; id < 8; ++id) {
    EXPECT_TRUE(has(id)) << id;
    release(id);
  }
  EXPECT_EQ(order_, (std::vector<int>{1, 2, 3, 4, 5, 6, 7}));
}

TEST_F(ExtentLocksTest, IsUsedWhileSomeoneHoldsOrWaits) {
  EXPECT_FALSE(locks_.is_used(kLayer, kExtent));
  ask(1, units(1));
  ask(2, units(1));
  EXPECT_TRUE(locks_.is_used(kLayer, kExtent));
  EXPECT_FALSE(locks_.is_used(kLayer, ExtentIndex(9)));
  release(1);
  EXPECT_TRUE(locks_.is_used(kLayer, kExtent));
  release(2);
  EXPECT_FALSE(locks_.is_used(kLayer, kExtent));
}

TEST_F(ExtentLocksTest, KnowsWhetherItIsLastOrAlone) {
  ask(1, units(0b01));
  EXPECT_TRUE(held_.at(1).is_last());
  EXPECT_TRUE(held_.at(1).is_alone());
  ask(2, units(0b01));  // waits
  EXPECT_FALSE(held_.at(1).is_last());
  EXPECT_TRUE(held_.at(1).is_alone());
  ask(3, units(0b10));
  EXPECT_FALSE(held_.at(1).is_alone());
  release(3);
  release(1);
  EXPECT_TRUE(held_.at(2).is_last());
}

TEST_F(ExtentLocksTest, PlaceAndEntryStayUntilTheLastIsGone) {
  ask(1, units(0b01));
  ask(2, units(0b10));
  held_.at(1)->place = Place(7);
  held_.at(1)->entry = Entry{Place(7), StampOrdinal(1), units(1)};
  release(1);
  EXPECT_EQ(held_.at(2)->place, Place(7));
  EXPECT_EQ(held_.at(2)->entry->held, units(1));
  ask(3, units(0b10));
  held_.at(2)->place = {};  // it is in the map now
  release(2);
  EXPECT_TRUE(held_.at(3)->entry.has_value());
  release(3);
  // Whoever comes now finds the map as it is.
  ask(4, units(0b10));
  EXPECT_FALSE(held_.at(4)->entry.has_value());
  EXPECT_EQ(held_.at(4)->place, Place(0));
}

TEST_F(ExtentLocksTest, MovedLocksAreReleasedOnce) {
  ask(1, units(1));
  ExtentLocks::Lock moved = std::move(held_.at(1));
  held_.erase(1);
  EXPECT_TRUE(locks_.is_used(kLayer, kExtent));
  moved.release();
  moved.release();
  EXPECT_FALSE(locks_.is_used(kLayer, kExtent));
}

TEST_F(ExtentLocksTest, RandomMasksNeverOverlapAndAllGetTheirTurn) {
  const uint64_t seed = draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  std::map<int, UnitSet> wanted;
  for (int id = 0; id < 2000; ++id) {
    UnitSet asked = units(random() & random() & random());
    if (random() % 8 == 0) asked = UnitSet::all();
    if (!asked.any()) asked = units(1);
    wanted.emplace(id, asked);
    ask(id, asked);
    for (uint64_t drops = random() % 3; drops > 0 && !held_.empty(); --drops) {
      release(std::ranges::next(held_.begin(), static_cast<ptrdiff_t>(random() % held_.size()))->first);
    }
    UnitSet locked;
    for (const auto& [holder, lock] : held_) {
      ASSERT_FALSE((locked & wanted.at(holder)).any());
      locked |= wanted.at(holder);
    }
  }
  while (!held_.empty()) release(held_.begin()->first);
  EXPECT_EQ(order_.size(), 2000U);
  EXPECT_FALSE(locks_.is_used(kLayer, kExtent));
}

}  // namespace
}  // namespace fairlead::pool
