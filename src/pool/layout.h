// Layout: where the extents of a pool lie on its disks. Immutable; any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "pool/format.h"

namespace fairlead::pool {

class Layout {
 public:
  Layout() = default;
  explicit Layout(const Superblock& superblock)
      : extent_shift_(static_cast<uint32_t>(std::countr_zero(superblock.extent_bytes))),
        unit_shift_(static_cast<uint32_t>(std::countr_zero(superblock.unit_bytes))),
        segments_(superblock.segments) {}

  struct Location {
    uint16_t disk = 0;
    uint64_t offset = 0;  // bytes
  };
  // Requires: contains(place).
  Location locate(Place place) const {
    const Segment* segment = &segments_.front();
    while (place.value - segment->first.value >= segment->count) ++segment;
    const uint64_t extent = uint64_t{segment->disk_extent} + (place.value - segment->first.value);
    return {segment->disk, extent << extent_shift_};
  }
  bool contains(Place place) const { return place.value != 0 && place.value <= extents(); }

  // Places are 1 to extents().
  uint32_t extents() const { return segments_.empty() ? 0 : segments_.back().first.value - 1 + segments_.back().count; }
  uint32_t extent_bytes() const { return uint32_t{1} << extent_shift_; }
  uint32_t extent_shift() const { return extent_shift_; }
  uint32_t unit_bytes() const { return uint32_t{1} << unit_shift_; }
  uint32_t unit_shift() const { return unit_shift_; }
  uint32_t units() const { return uint32_t{1} << (extent_shift_ - unit_shift_); }  // of an extent
  // As entries have them: all when it is all that an extent has, and nothing beyond that otherwise.
  UnitSet normal(const UnitSet& set) const {
    const UnitSet mine = UnitSet::range(0, units());
    return set.contains(mine) ? UnitSet::all() : set & mine;
  }
  uint32_t pages_per_extent() const { return extent_bytes() / static_cast<uint32_t>(kMapPageBytes); }
  std::span<const Segment> segments() const { return segments_; }

 private:
  uint32_t extent_shift_ = 0;
  uint32_t unit_shift_ = 0;
  std::vector<Segment> segments_;
};

// Takes the room that a disk has beyond disks[disk].size_bytes into the superblock, whole extents of it; the size then
// is `size_bytes`. Returns how many extents that makes; 0: too little for one, nothing changed. Error
// kResourceExhausted: too many segments or extents.
Result<uint32_t> add_segment(Superblock& superblock, uint16_t disk, uint64_t size_bytes);

}  // namespace fairlead::pool
