#include "pool/layout.h"

#include <gtest/gtest.h>

#include "pool/map.h"
#include "pool/test_seed.h"

namespace fairlead::pool {
namespace {

constexpr uint32_t kExtent = 64 * kKiB;

Superblock with_disks(size_t disks, uint32_t extent_bytes = kExtent) {
  Superblock superblock;
  superblock.extent_bytes = extent_bytes;
  superblock.unit_bytes = extent_bytes / 16;
  superblock.disks.resize(disks);
  superblock.journal_bytes = kJournalBytesMin;
  superblock.journal[0] = {.disk = 0, .offset = align_up(kHeadBytes, extent_bytes)};
  superblock.journal[1] = disks > 1 ? JournalArea{.disk = 1, .offset = superblock.journal[0].offset}
                                    : JournalArea{.disk = 0, .offset = superblock.journal[0].offset + kJournalBytesMin};
  return superblock;
}

TEST(LayoutTest, NewDisksBeginBehindHeadAndJournal) {
  Superblock superblock = with_disks(3);
  EXPECT_EQ(add_segment(superblock, 0, 1 * kMiB), 6U);  // 16 extents, 2 of the head and 8 of the journal
  EXPECT_EQ(add_segment(superblock, 1, 1 * kMiB + kExtent - 1), 6U);
  EXPECT_EQ(add_segment(superblock, 2, 1 * kMiB), 14U);
  const std::vector<Segment> expected = {{Place(1), 6, 0, 10}, {Place(7), 6, 1, 10}, {Place(13), 14, 2, 2}};
  EXPECT_EQ(superblock.segments, expected);
  EXPECT_EQ(superblock.disks[1].size_bytes, 1 * kMiB + kExtent - 1);
  const Layout layout(superblock);
  EXPECT_EQ(layout.extents(), 26U);
  EXPECT_FALSE(layout.contains(Place(0)));
  EXPECT_TRUE(layout.contains(Place(1)));
  EXPECT_TRUE(layout.contains(Place(26)));
  EXPECT_FALSE(layout.contains(Place(27)));
}

TEST(LayoutTest, BothJournalAreasMayLieOnOneDisk) {
  Superblock superblock = with_disks(1);
  EXPECT_EQ(add_segment(superblock, 0, 2 * kMiB), 32U - 2 - 16);
  EXPECT_EQ(superblock.segments.front().disk_extent, 18U);
}

TEST(LayoutTest, LargeExtentsBeginAtTheirMultiples) {
  Superblock superblock = with_disks(2, 16 * kMiB);
  EXPECT_EQ(add_segment(superblock, 0, 64 * kMiB), 2U);  // head, then journal, take one each
  EXPECT_EQ(superblock.segments.front().disk_extent, 2U);
}

TEST(LayoutTest, TooLittleRoomChangesNothing) {
  Superblock superblock = with_disks(2);
  const Superblock before = superblock;
  for (const uint64_t size : {uint64_t{0}, uint64_t{kExtent}, 10 * uint64_t{kExtent}, 11 * uint64_t{kExtent} - 1}) {
    EXPECT_EQ(add_segment(superblock, 0, size), 0U) << size;
    EXPECT_EQ(superblock, before);
  }
  EXPECT_EQ(add_segment(superblock, 0, 11 * uint64_t{kExtent}), 1U);
  EXPECT_EQ(add_segment(superblock, 0, 11 * uint64_t{kExtent} + 512), 0U);
  EXPECT_EQ(superblock.disks[0].size_bytes, 11 * uint64_t{kExtent});
}

TEST(LayoutTest, AGrownDiskLengthensTheLastSegmentOrGetsAnother) {
  Superblock superblock = with_disks(2);
  EXPECT_EQ(add_segment(superblock, 0, 20 * kExtent), 10U);
  EXPECT_EQ(add_segment(superblock, 0, 30 * kExtent), 10U);
  EXPECT_EQ(superblock.segments.size(), 1U);
  EXPECT_EQ(superblock.segments.back().count, 20U);
  EXPECT_EQ(add_segment(superblock, 1, 20 * kExtent), 10U);
  // Disk 1 came between: places follow each other in the order in which they came.
  EXPECT_EQ(add_segment(superblock, 0, 40 * kExtent), 10U);
  const std::vector<Segment> expected = {{Place(1), 20, 0, 10}, {Place(21), 10, 1, 10}, {Place(31), 10, 0, 30}};
  EXPECT_EQ(superblock.segments, expected);
}

TEST(LayoutTest, SegmentsAndExtentsHaveLimits) {
  Superblock superblock = with_disks(2);
  for (size_t i = 0; i < kSegmentsMax; ++i) {
    ASSERT_EQ(add_segment(superblock, i % 2, (11 + i / 2) * kExtent), 1U);
    ASSERT_EQ(superblock.segments.size(), i + 1);
  }
  const Superblock before = superblock;
  EXPECT_EQ(add_segment(superblock, 0, 1000 * uint64_t{kExtent}).error().code, Code::kResourceExhausted);
  EXPECT_EQ(superblock, before);
  EXPECT_EQ(add_segment(superblock, 1, 1000 * uint64_t{kExtent}), 958U);  // the last one grows longer

  Superblock large = with_disks(1);
  EXPECT_EQ(add_segment(large, 0, (uint64_t{kPlacesMax} + 18) * kExtent).error().code, Code::kResourceExhausted);
  EXPECT_TRUE(large.segments.empty());
  EXPECT_EQ(add_segment(large, 0, (uint64_t{kPlacesMax} + 17) * kExtent), kPlacesMax - 1);
  EXPECT_EQ(add_segment(large, 0, (uint64_t{kPlacesMax} + 18) * kExtent).error().code, Code::kResourceExhausted);
}

TEST(LayoutTest, LocatesAsCountingDoes) {
  const uint64_t seed = draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 50; ++round) {
    const auto shift = static_cast<uint32_t>(16 + random() % 9);
    Superblock superblock;
    superblock.extent_bytes = uint32_t{1} << shift;
    superblock.unit_bytes = superblock.extent_bytes >> random() % 9;
    std::vector<Layout::Location> expected = {{}};  // by place
    const size_t count = 1 + random() % 10;
    for (size_t i = 0; i < count; ++i) {
      const Segment segment = {.first = Place(static_cast<uint32_t>(expected.size())),
                               .count = static_cast<uint32_t>(1 + random() % 50),
                               .disk = static_cast<uint16_t>(random() % 32),
                               .disk_extent = static_cast<uint32_t>(random())};
      for (uint64_t extent = segment.disk_extent; extent < uint64_t{segment.disk_extent} + segment.count; ++extent) {
        expected.push_back({segment.disk, extent * (uint64_t{1} << shift)});
      }
      superblock.segments.push_back(segment);
    }
    const Layout layout(superblock);
    EXPECT_EQ(layout.extents() + 1, expected.size());
    EXPECT_EQ(layout.extent_bytes(), superblock.extent_bytes);
    EXPECT_EQ(layout.unit_bytes(), superblock.unit_bytes);
    EXPECT_EQ(layout.unit_bytes() * layout.units(), layout.extent_bytes());
    EXPECT_EQ(layout.pages_per_extent(), layout.extent_bytes() / kMapPageBytes);
    EXPECT_EQ(uint32_t{1} << layout.unit_shift(), layout.unit_bytes());
    for (uint32_t place = 1; place < expected.size(); ++place) {
      const Layout::Location found = layout.locate(Place(place));
      ASSERT_EQ(found.disk, expected[place].disk) << place;
      ASSERT_EQ(found.offset, expected[place].offset) << place;
    }
  }
}

TEST(LayoutTest, SetsOfAllUnitsAreNormal) {
  Superblock superblock = with_disks(1);
  for (uint32_t units = 1; units <= 16; units *= 2) {
    superblock.unit_bytes = kExtent / units;
    const Layout layout(superblock);
    ASSERT_EQ(layout.units(), units);
    EXPECT_EQ(layout.normal({}), UnitSet());
    EXPECT_EQ(layout.normal(UnitSet::range(0, units)), UnitSet::all());
    EXPECT_EQ(layout.normal(UnitSet::range(0, units + 1)), UnitSet::all());
    EXPECT_EQ(layout.normal(UnitSet::all()), UnitSet::all());
    EXPECT_EQ(layout.normal(UnitSet::range(units, kUnitsMax)), UnitSet());
    EXPECT_EQ(layout.normal(UnitSet::range(0, units - 1)), UnitSet::range(0, units - 1));
    EXPECT_EQ(layout.normal(UnitSet::range(1, kUnitsMax)), UnitSet::range(1, units));
  }
  superblock.extent_bytes = 1 * kMiB;
  superblock.unit_bytes = 4 * kKiB;
  const Layout layout(superblock);
  EXPECT_EQ(layout.units(), kUnitsMax);
  EXPECT_EQ(layout.normal(UnitSet::range(0, kUnitsMax - 1)), UnitSet::range(0, kUnitsMax - 1));
  EXPECT_EQ(layout.normal(UnitSet::range(0, kUnitsMax)), UnitSet::all());
}

}  // namespace
}  // namespace fairlead::pool
