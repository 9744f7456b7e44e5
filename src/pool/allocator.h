// Allocator: which extents of a pool are in use. Rebuilt at each import from the maps, so there is no second truth.
// Lives on the pool's home shard.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "pool/layout.h"

namespace fairlead::pool {

class Allocator {
 public:
  // All free.
  explicit Allocator(const Layout& layout) { grow(layout); }
  // More segments, or a longer last one; the others are as they were.
  void grow(const Layout& layout);

  // False: it was in use already. Requires: the layout contains it.
  bool mark_used(Place place);
  // Requires: in use.
  void release(Place place);
  bool is_used(Place place) const { return (words_[place.value / 64] >> place.value % 64 & 1) != 0; }

  // A free extent, now in use: `near` if that is free, so that what is written in sequence lies in sequence; else one
  // on the disk that has the largest share of its room free. None: all are in use.
  std::optional<Place> take(Place near = {});
  // One on another disk than that, if any has room.
  std::optional<Place> take_apart_from(uint16_t disk);

  uint32_t total() const { return total_; }
  uint32_t free() const { return free_; }

 private:
  struct Zone {
    Segment segment;
    uint32_t free = 0;
    uint32_t cursor = 0;  // where the search goes on, from the segment's first
  };
  Zone& zone_of(Place place);
  Place take_from(Zone& zone);
  void set(Zone& zone, Place place);

  std::vector<uint64_t> words_;  // bit by place
  std::vector<Zone> zones_;
  uint32_t total_ = 0;
  uint32_t free_ = 0;
};

}  // namespace fairlead::pool
