#include "pool/layout.h"

#include <algorithm>

#include "pool/map.h"

namespace fairlead::pool {

Result<uint32_t> add_segment(Superblock& superblock, uint16_t disk, uint64_t size_bytes) {
  const uint64_t extent_bytes = superblock.extent_bytes;
  std::vector<Segment>& segments = superblock.segments;
  // Behind everything that is on the disk already.
  uint64_t begin = align_up(kHeadBytes, extent_bytes) / extent_bytes;
  for (const JournalArea& area : superblock.journal) {
    if (area.disk != disk) continue;
    begin = std::max(begin, align_up(area.offset + superblock.journal_bytes, extent_bytes) / extent_bytes);
  }
  for (const Segment& segment : segments) {
    if (segment.disk == disk) begin = std::max(begin, uint64_t{segment.disk_extent} + segment.count);
  }
  const uint64_t end = size_bytes / extent_bytes;
  if (end <= begin) return 0;
  const uint64_t first = segments.empty() ? 1 : uint64_t{segments.back().first.value} + segments.back().count;
  if (end > ~uint32_t{0} || first + (end - begin) > kPlacesMax) {
    return fail(Code::kResourceExhausted, "the pool would have too many extents: use larger ones");
  }
  const auto count = static_cast<uint32_t>(end - begin);
  if (!segments.empty() && segments.back().disk == disk &&
      segments.back().disk_extent + segments.back().count == begin) {
    segments.back().count += count;
  } else if (segments.size() == kSegmentsMax) {
    return fail(Code::kResourceExhausted, "the pool grew too often");
  } else {
    segments.push_back({.first = Place(static_cast<uint32_t>(first)),
                        .count = count,
                        .disk = disk,
                        .disk_extent = static_cast<uint32_t>(begin)});
  }
  superblock.disks[disk].size_bytes = size_bytes;
  return count;
}

}  // namespace fairlead::pool
