#include "pool/page_store.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <set>

#include "pool/test_seed.h"

namespace fairlead::pool {
namespace {

constexpr uint32_t kPages = 5;  // of an extent

Layout make_layout(std::vector<Segment> segments) {
  Superblock superblock;
  superblock.extent_bytes = 64 * kKiB;
  superblock.unit_bytes = kUnitBytesDefault;
  superblock.segments = std::move(segments);
  return Layout(superblock);
}
Layout two_disks(uint32_t extents_each) {
  return make_layout({{.first = Place(1), .count = extents_each, .disk = 0, .disk_extent = 2},
                      {.first = Place(1 + extents_each), .count = extents_each, .disk = 1, .disk_extent = 2}});
}

TEST(PageStoreTest, CopiesAreOnTwoDisks) {
  const Layout layout = two_disks(4);
  EXPECT_EQ(layout.pages_per_extent(), kPages);
  Allocator allocator(layout);
  PageStore pages(allocator, kPages);
  std::set<uint32_t> addresses;
  while (const std::optional<uint32_t> address = pages.take(layout)) {
    EXPECT_TRUE(addresses.insert(*address).second);
    const PageStore::Where first = pages.locate(*address, 0);
    const PageStore::Where second = pages.locate(*address, 1);
    EXPECT_NE(layout.locate(first.place).disk, layout.locate(second.place).disk);
    EXPECT_EQ(first.offset, second.offset);
    EXPECT_EQ(first.offset, *address % kPages * kMapPageBytes);
  }
  EXPECT_EQ(addresses.size(), 4 * kPages);
  EXPECT_EQ(allocator.free(), 0U);
  EXPECT_EQ(pages.used_pages(), 4 * kPages);
  EXPECT_EQ(pages.free_pages(), 0U);
}

TEST(PageStoreTest, AnOddExtentIsGivenBackWhenThereIsNoSecond) {
  const Layout layout = make_layout({{.first = Place(1), .count = 3, .disk = 0, .disk_extent = 2}});
  Allocator allocator(layout);
  PageStore pages(allocator, kPages);
  for (uint32_t i = 0; i < kPages; ++i) EXPECT_EQ(pages.take(layout), i);  // one after the other
  EXPECT_FALSE(pages.take(layout));
  EXPECT_EQ(allocator.free(), 1U);
}

TEST(PageStoreTest, RestoresWhatADirectoryHas) {
  const Layout layout = two_disks(10);
  Allocator allocator(layout);
  for (const uint32_t place : {3U, 13U, 4U, 14U}) EXPECT_TRUE(allocator.mark_used(Place(place)));
  PageStore pages(allocator, kPages);
  const std::vector<PageExtent> extents = {{{Place(3), Place(13)}}, {}, {{Place(4), Place(14)}}};
  pages.restore(extents);
  EXPECT_EQ(pages.extents(), extents);
  EXPECT_EQ(pages.free_pages(), 2 * kPages);
  EXPECT_TRUE(pages.mark_used(4));
  EXPECT_FALSE(pages.mark_used(4));
  EXPECT_FALSE(pages.mark_used(kPages));  // an unused number
  EXPECT_FALSE(pages.mark_used(2 * kPages - 1));
  EXPECT_TRUE(pages.mark_used(2 * kPages));
  EXPECT_TRUE(pages.mark_used(3 * kPages - 1));
  EXPECT_FALSE(pages.mark_used(3 * kPages));
  EXPECT_FALSE(pages.mark_used(~uint32_t{0}));
  EXPECT_EQ(pages.locate(2 * kPages + 3, 1).place, Place(14));
  EXPECT_EQ(pages.used_pages(), 3U);
  EXPECT_TRUE(pages.drop_empty().empty());
  pages.release(4);
  EXPECT_EQ(pages.drop_empty(), (std::vector<Place>{Place(3), Place(13)}));
  EXPECT_TRUE(allocator.is_used(Place(3)));  // the caller's now
  // Free numbers are used again before there are more.
  for (uint32_t i = 0; i < kPages - 2 + 2 * kPages; ++i) EXPECT_LT(*pages.take(layout), 3 * kPages);
  EXPECT_EQ(pages.take(layout), 3 * kPages);
}

// At random against sets of addresses and of places.
class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed), layout_(two_disks(12)), allocator_(layout_) {
    pages_.emplace(allocator_, kPages);
  }

  void step() {
    switch (random_() % 16) {
      case 0:
        return drop();
      case 1:
        return restart();
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
        return release();
      default:
        return take();
    }
  }

 private:
  void take() {
    const std::optional<uint32_t> address = pages_->take(layout_);
    if (!address) {
      EXPECT_LT(allocator_.free(), 2U);
      return;
    }
    EXPECT_TRUE(taken_.insert(*address).second) << "given out twice: " << *address;
    check();
  }
  void release() {
    // In lots, so that extents become empty.
    for (uint64_t i = random_() % 15; i > 0 && !taken_.empty(); --i) {
      const auto each = std::ranges::next(taken_.begin(), static_cast<ptrdiff_t>(random_() % taken_.size()));
      pages_->release(*each);
      taken_.erase(each);
    }
    check();
  }
  void drop() {
    size_t expected = 0;
    for (uint32_t extent = 0; extent < pages_->extents().size(); ++extent) {
      if (pages_->extents()[extent].places[0].value != 0 && pages_in(extent) == 0) expected += kCopies;
    }
    const std::vector<Place> places = pages_->drop_empty();
    EXPECT_EQ(places.size(), expected);
    for (const Place place : places) allocator_.release(place);
    check();
  }
  // As an import does.
  void restart() {
    const std::vector<PageExtent> extents = pages_->extents();
    pages_.emplace(allocator_, kPages);
    pages_->restore(extents);
    for (const uint32_t address : taken_) EXPECT_TRUE(pages_->mark_used(address));
    check();
  }
  size_t pages_in(uint32_t extent) const {
    return static_cast<size_t>(
        std::ranges::distance(taken_.lower_bound(extent * kPages), taken_.lower_bound((extent + 1) * kPages)));
  }
  void check() {
    std::set<Place> places;
    for (const PageExtent& extent : pages_->extents()) {
      for (const Place place : extent.places) {
        if (place.value != 0) {
          EXPECT_TRUE(places.insert(place).second && allocator_.is_used(place));
        }
      }
    }
    EXPECT_EQ(allocator_.total() - allocator_.free(), places.size());
    EXPECT_EQ(pages_->used_pages(), taken_.size());
    EXPECT_EQ(pages_->free_pages(), places.size() / kCopies * kPages - taken_.size());
    for (const uint32_t address : taken_) EXPECT_TRUE(places.contains(pages_->locate(address, 1).place));
  }

  std::mt19937_64 random_;
  const Layout layout_;
  Allocator allocator_;
  std::optional<PageStore> pages_;
  std::set<uint32_t> taken_;
};

TEST(PageStoreTest, IsASetWhateverIsDone) {
  const uint64_t first = draw_seed();
  for (uint64_t seed = first; seed < first + 20 && !testing::Test::HasFailure(); ++seed) {
    FL_TRACE_SEED(seed);
    Model model(seed);
    for (int i = 0; i < 1000 && !testing::Test::HasFailure(); ++i) model.step();
  }
}

}  // namespace
}  // namespace fairlead::pool
