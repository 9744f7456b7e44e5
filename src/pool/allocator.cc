#include "pool/allocator.h"

#include <algorithm>
#include <bit>

namespace fairlead::pool {

void Allocator::grow(const Layout& layout) {
  for (const Segment& segment : layout.segments()) {
    const size_t index = static_cast<size_t>(&segment - layout.segments().data());
    if (index == zones_.size())
      zones_.push_back({.segment = {.first = segment.first, .disk = segment.disk, .disk_extent = segment.disk_extent}});
    Zone& zone = zones_[index];
    FL_CHECK(zone.segment.first == segment.first && zone.segment.count <= segment.count);
    const uint32_t more = segment.count - zone.segment.count;
    zone.segment.count = segment.count;
    zone.free += more;
    free_ += more;
  }
  total_ = layout.extents();
  words_.resize(total_ / 64 + 1);
}

Allocator::Zone& Allocator::zone_of(Place place) {
  const auto zone = std::ranges::find_if(
      zones_, [&](const Zone& z) { return place.value - z.segment.first.value < z.segment.count; });
  FL_CHECK(zone != zones_.end());
  return *zone;
}

void Allocator::set(Zone& zone, Place place) {
  words_[place.value / 64] |= uint64_t{1} << place.value % 64;
  --zone.free;
  --free_;
}

bool Allocator::mark_used(Place place) {
  Zone& zone = zone_of(place);
  if (is_used(place)) return false;
  set(zone, place);
  return true;
}

void Allocator::release(Place place) {
  Zone& zone = zone_of(place);
  FL_CHECK(is_used(place));
  words_[place.value / 64] &= ~(uint64_t{1} << place.value % 64);
  ++zone.free;
  ++free_;
}

Place Allocator::take_from(Zone& zone) {
  FL_CHECK(zone.free > 0);
  while (true) {
    if (zone.cursor >= zone.segment.count) zone.cursor = 0;
    const uint32_t place = zone.segment.first.value + zone.cursor;
    // Free bits of this word from the place on.
    const uint64_t free = ~words_[place / 64] >> place % 64;
    const uint32_t step = free == 0 ? 64 - place % 64 : static_cast<uint32_t>(std::countr_zero(free));
    zone.cursor += step;
    if (free == 0 || zone.cursor >= zone.segment.count) continue;
    const Place found(zone.segment.first.value + zone.cursor++);
    set(zone, found);
    return found;
  }
}

std::optional<Place> Allocator::take(Place near) {
  if (near.value != 0 && near.value <= total_ && !is_used(near)) {
    Zone& zone = zone_of(near);
    set(zone, near);
    if (zone.cursor == near.value - zone.segment.first.value) ++zone.cursor;
    return near;
  }
  Zone* best = nullptr;
  for (Zone& zone : zones_) {
    if (zone.free == 0) continue;
    // free / count, compared without division
    if (best == nullptr || uint64_t{zone.free} * best->segment.count > uint64_t{best->free} * zone.segment.count) {
      best = &zone;
    }
  }
  if (best == nullptr) return std::nullopt;
  return take_from(*best);
}

std::optional<Place> Allocator::take_apart_from(uint16_t disk) {
  Zone* best = nullptr;
  for (Zone& zone : zones_) {
    if (zone.free > 0 && zone.segment.disk != disk && (best == nullptr || zone.free > best->free)) best = &zone;
  }
  if (best == nullptr) return take();
  return take_from(*best);
}

}  // namespace fairlead::pool
