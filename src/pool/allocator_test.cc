#include "pool/allocator.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <set>

#include "pool/test_seed.h"

namespace fairlead::pool {
namespace {

constexpr uint32_t kExtent = 64 * kKiB;

// Segments one after the other, by their counts and disks.
struct Part {
  uint32_t count = 0;
  uint16_t disk = 0;
};
Layout make_layout(const std::vector<Part>& parts) {
  std::vector<Segment> segments;
  uint32_t first = 1;
  for (const Part& part : parts) {
    segments.push_back({.first = Place(first), .count = part.count, .disk = part.disk, .disk_extent = 2});
    first += part.count;
  }
  Superblock superblock;
  superblock.extent_bytes = kExtent;
  superblock.unit_bytes = kUnitBytesDefault;
  superblock.segments = segments;
  return Layout(superblock);
}

uint16_t disk_of(const Layout& layout, Place place) { return layout.locate(place).disk; }

TEST(AllocatorTest, GivesOutEachPlaceOnce) {
  // Bounds inside, at and just beside those of words.
  for (const uint32_t count : {1U, 2U, 62U, 63U, 64U, 65U, 127U, 128U, 200U}) {
    const Layout layout = make_layout({{.count = count, .disk = 0}});
    Allocator allocator(layout);
    EXPECT_EQ(allocator.total(), count);
    EXPECT_EQ(allocator.free(), count);
    std::set<uint32_t> seen;
    while (const std::optional<Place> place = allocator.take()) {
      EXPECT_TRUE(layout.contains(*place));
      EXPECT_TRUE(seen.insert(place->value).second) << place->value;
    }
    EXPECT_EQ(seen.size(), count);
    EXPECT_EQ(allocator.free(), 0U);
    EXPECT_FALSE(allocator.take_apart_from(7));
    // The only one that is free is found, wherever it is.
    for (const uint32_t free : seen) {
      allocator.release(Place(free));
      EXPECT_EQ(allocator.take(), Place(free));
    }
  }
}

TEST(AllocatorTest, TakesNearWhenItIsFree) {
  Allocator allocator(make_layout({{.count = 100, .disk = 0}, {.count = 100, .disk = 1}}));
  EXPECT_EQ(allocator.take(Place(150)), Place(150));
  EXPECT_EQ(allocator.take(Place(151)), Place(151));
  EXPECT_NE(allocator.take(Place(151)), Place(151));
  EXPECT_EQ(allocator.take(Place(200)), Place(200));
  EXPECT_TRUE(allocator.take(Place(201)));  // there is none: any other
  EXPECT_TRUE(allocator.take(Place(~uint32_t{})));
  // In sequence from an empty start.
  Allocator fresh(make_layout({{.count = 10, .disk = 0}}));
  Place last = *fresh.take();
  for (int i = 0; i < 9; ++i) {
    const Place next = *fresh.take(Place(last.value + 1));
    EXPECT_EQ(next.value, last.value + 1);
    last = next;
  }
}

TEST(AllocatorTest, FillsDisksByTheirShare) {
  const Layout layout = make_layout({{.count = 300, .disk = 0}, {.count = 100, .disk = 1}});
  Allocator allocator(layout);
  std::array<uint32_t, 2> taken{};
  for (int i = 0; i < 200; ++i) ++taken[disk_of(layout, *allocator.take())];
  EXPECT_NEAR(taken[0], 150, 1);
  EXPECT_NEAR(taken[1], 50, 1);
}

TEST(AllocatorTest, TakesApartWhileAnotherDiskHasRoom) {
  const Layout layout = make_layout({{.count = 5, .disk = 0}, {.count = 3, .disk = 1}, {.count = 2, .disk = 0}});
  Allocator allocator(layout);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(disk_of(layout, *allocator.take_apart_from(0)), 1);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(disk_of(layout, *allocator.take_apart_from(0)), 0);
  EXPECT_FALSE(allocator.take_apart_from(0));
  EXPECT_FALSE(allocator.take_apart_from(1));
}

TEST(AllocatorTest, MarksUsedOnce) {
  Allocator allocator(make_layout({{.count = 70, .disk = 0}, {.count = 70, .disk = 1}}));
  for (const uint32_t place : {1U, 64U, 70U, 71U, 128U, 140U}) {
    EXPECT_FALSE(allocator.is_used(Place(place)));
    EXPECT_TRUE(allocator.mark_used(Place(place)));
    EXPECT_TRUE(allocator.is_used(Place(place)));
    EXPECT_FALSE(allocator.mark_used(Place(place)));
  }
  EXPECT_EQ(allocator.free(), 134U);
}

// Everything at random against a set.
class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {
    const size_t segments = 1 + below(6);
    for (size_t i = 0; i < segments; ++i) add_part();
    layout_ = make_layout(parts_);
    allocator_.emplace(layout_);
  }

  void step() {
    switch (below(12)) {
      case 0:
        return grow();
      case 1:
      case 2:
      case 3:
      case 4:
        return took(allocator_->take());
      case 5:
      case 6:
        return take_near();
      case 7:
        return take_apart();
      case 8:
        return mark();
      default:
        return release();
    }
  }

 private:
  uint32_t below(uint64_t limit) { return static_cast<uint32_t>(random_() % limit); }
  void add_part() {
    const auto disk = static_cast<uint16_t>(below(4));
    parts_.push_back({.count = 1 + below(below(2) == 0 ? 5 : 200), .disk = disk});
  }
  void grow() {
    if (below(3) != 0 || parts_.size() > 12) return;
    if (below(2) == 0) {
      parts_.back().count += 1 + below(100);
    } else {
      add_part();
    }
    layout_ = make_layout(parts_);
    allocator_->grow(layout_);
    check();
  }
  void took(std::optional<Place> place) {
    ASSERT_EQ(place.has_value(), used_.size() < layout_.extents());
    if (!place) return;
    EXPECT_TRUE(layout_.contains(*place));
    EXPECT_TRUE(used_.insert(place->value).second) << "given out twice: " << place->value;
    check();
  }
  void take_near() {
    const Place near(below(layout_.extents() + 3));
    const bool is_free = layout_.contains(near) && !used_.contains(near.value);
    const std::optional<Place> place = allocator_->take(near);
    if (is_free) {
      EXPECT_EQ(place, near);
    }
    took(place);
  }
  void take_apart() {
    const auto disk = static_cast<uint16_t>(below(4));
    bool has_other = false;
    for (uint32_t i = 1; i <= layout_.extents(); ++i) {
      has_other = has_other || (!used_.contains(i) && disk_of(layout_, Place(i)) != disk);
    }
    const std::optional<Place> place = allocator_->take_apart_from(disk);
    if (has_other) {
      ASSERT_TRUE(place);
      EXPECT_NE(disk_of(layout_, *place), disk);
    }
    took(place);
  }
  void mark() {
    const Place place(1 + below(layout_.extents()));
    EXPECT_EQ(allocator_->mark_used(place), used_.insert(place.value).second);
    check();
  }
  void release() {
    if (used_.empty()) return;
    const auto place = std::ranges::next(used_.begin(), below(used_.size()));
    allocator_->release(Place(*place));
    used_.erase(place);
    check();
  }
  void check() {
    ASSERT_EQ(allocator_->total(), layout_.extents());
    ASSERT_EQ(allocator_->free(), layout_.extents() - used_.size());
    for (uint32_t i = 1; i <= layout_.extents(); ++i) ASSERT_EQ(allocator_->is_used(Place(i)), used_.contains(i)) << i;
  }

  std::mt19937_64 random_;
  std::vector<Part> parts_;
  Layout layout_;
  std::optional<Allocator> allocator_;
  std::set<uint32_t> used_;
};

TEST(AllocatorTest, IsASetWhateverIsDone) {
  const uint64_t first = draw_seed();
  for (uint64_t seed = first; seed < first + 8 && !testing::Test::HasFailure(); ++seed) {
    FL_TRACE_SEED(seed);
    Model model(seed);
    for (int i = 0; i < 1000 && !testing::Test::HasFailure(); ++i) model.step();
  }
}

}  // namespace
}  // namespace fairlead::pool
