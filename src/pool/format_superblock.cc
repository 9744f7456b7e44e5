#include <algorithm>

#include "pool/byte_codec.h"
#include "pool/format.h"

namespace fairlead::pool {
namespace {

constexpr Magic kMagic = make_magic("FLPOOLSB");
constexpr size_t kNameRoom = kNameBytesMax + 1;
constexpr size_t kTablesOffset = 256;
constexpr size_t kDiskBytes = 24;
constexpr size_t kSegmentBytes = 16;
constexpr size_t kPlaceBytes = 4;
constexpr size_t kUsedBytes = kTablesOffset + kDisksMax * kDiskBytes + kSegmentsMax * kSegmentBytes +
                              kCopies * kDirectoryExtentsMax * kPlaceBytes;
static_assert(kUsedBytes == 3072 && kUsedBytes <= kPageBytes);
constexpr uint32_t kExported = 1;
constexpr uint32_t kDestroyed = 2;
constexpr uint64_t kKnownIncompatible = 0;
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kDiskBytesMax = (uint64_t{1} << 63) - 1;
constexpr uint64_t kPlacesEnd = uint64_t{1} << 32;

// What the page holds beside the values of a Superblock.
struct Shape {
  Magic magic = kMagic;
  uint32_t version = kFormatVersion;
  uint32_t crc = 0;
  uint64_t compatible = 0;
  uint64_t incompatible = 0;
  std::array<std::byte, kNameRoom> name{};
  uint16_t disks = 0;
  uint16_t segments = 0;
  uint32_t flags = 0;
  std::array<uint16_t, kCopies> directory{};
};

template <typename Io, typename Value, typename PageShape>
void fixed_fields(Io& io, Value& superblock, PageShape& shape) {
  io.bytes(shape.magic);
  io.field(shape.version);
  io.field(shape.crc);
  io.field(shape.compatible);
  io.field(shape.incompatible);
  io.field(superblock.pool_id);
  io.field(superblock.created_ms);
  io.field(superblock.extent_bytes);
  io.field(superblock.logical_block);
  io.field(superblock.unit_bytes);
  io.bytes(shape.name);
  io.field(superblock.disk_index);
  io.field(shape.disks);
  io.field(shape.segments);
  for (auto& area : superblock.journal) io.field(area.disk);
  io.reserved(2);
  io.field(shape.flags);
  for (auto& area : superblock.journal) io.field(area.offset);
  io.field(superblock.journal_bytes);
  io.field(superblock.generation);
  io.field(superblock.incarnation);
  io.field(superblock.boot_id);
  io.field(superblock.next_sequence);
  io.field(superblock.journal_position);
  io.field(superblock.chain);
  io.field(superblock.directory_crc);
  io.field(superblock.directory_bytes);
  for (auto& count : shape.directory) io.field(count);
  io.reserved(16);
}

// Requires: the vectors are not longer than their tables.
template <typename Io, typename Value>
void table_fields(Io& io, Value& superblock) {
  for (auto& disk : superblock.disks) {
    io.field(disk.id);
    io.field(disk.size_bytes);
  }
  io.reserved((kDisksMax - superblock.disks.size()) * kDiskBytes);
  for (auto& segment : superblock.segments) {
    io.field(segment.first);
    io.field(segment.count);
    io.field(segment.disk_extent);
    io.field(segment.disk);
    io.reserved(2);
  }
  io.reserved((kSegmentsMax - superblock.segments.size()) * kSegmentBytes);
  for (auto& places : superblock.directory) {
    for (auto& place : places) io.field(place);
    io.reserved((kDirectoryExtentsMax - places.size()) * kPlaceBytes);
  }
  io.reserved(kPageBytes - kUsedBytes);
}

Result<void> check_pool(const Superblock& superblock) {
  if (superblock.pool_id.is_nil()) return fail(Code::kCorrupt, "superblock: the pool's id is nil");
  if (!is_valid_name(superblock.name)) return fail(Code::kCorrupt, "superblock: the pool's name is not valid");
  const uint32_t extent = superblock.extent_bytes;
  if (!is_power_of_two(extent) || extent < kExtentBytesMin || extent > kExtentBytesMax) {
    return fail(Code::kCorrupt, "superblock: the extent size is no power of two from 64 KiB to 16 MiB");
  }
  const uint32_t block = superblock.logical_block;
  if (!is_power_of_two(block) || block < kSectorBytes || block > kPageBytes) {
    return fail(Code::kCorrupt, "superblock: the logical block is no power of two from 512 to 4096");
  }
  const uint32_t unit = superblock.unit_bytes;
  if (!is_power_of_two(unit) || unit < block || unit > extent || unit < extent / kUnitsMax) {
    return fail(Code::kCorrupt,
                "superblock: the unit is no power of two from a logical block, or a 256th of an extent, to an extent");
  }
  return {};
}

Result<void> check_disks(const Superblock& superblock) {
  const auto& disks = superblock.disks;
  if (disks.empty() || disks.size() > kDisksMax) {
    return fail(Code::kCorrupt, "superblock: the number of disks is not from 1 to 32");
  }
  for (size_t i = 0; i < disks.size(); ++i) {
    if (disks[i].id.is_nil()) return fail(Code::kCorrupt, "superblock: a disk's id is nil");
    if (disks[i].size_bytes < kHeadBytes || disks[i].size_bytes > kDiskBytesMax) {
      return fail(Code::kCorrupt, "superblock: a disk's size is below 128 KiB or above 2^63 - 1");
    }
    for (size_t j = 0; j < i; ++j) {
      if (disks[i].id == disks[j].id) return fail(Code::kCorrupt, "superblock: two disks have one id");
    }
  }
  if (superblock.disk_index >= disks.size()) {
    return fail(Code::kCorrupt, "superblock: this disk's index is not in the list of disks");
  }
  return {};
}

// What a segment or a journal area takes of a disk.
struct Range {
  uint16_t disk = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  bool is_journal = false;
  friend auto operator<=>(const Range&, const Range&) = default;
};
using Ranges = std::vector<Range>;

// Returns how many places there are.
Result<uint64_t> check_segments(const Superblock& superblock, Ranges& ranges) {
  const auto& segments = superblock.segments;
  if (segments.empty() || segments.size() > kSegmentsMax) {
    return fail(Code::kCorrupt, "superblock: the number of segments is not from 1 to 64");
  }
  uint64_t next = 1;
  for (const Segment& segment : segments) {
    if (segment.first.value != next) {
      return fail(Code::kCorrupt, "superblock: a segment does not begin at the place behind the one before");
    }
    if (segment.count == 0) return fail(Code::kCorrupt, "superblock: a segment has no extents");
    if (segment.count > kPlacesEnd - next) {
      return fail(Code::kCorrupt, "superblock: the segments have more places than 32 bits can number");
    }
    next += segment.count;
    if (segment.disk >= superblock.disks.size()) {
      return fail(Code::kCorrupt, "superblock: a segment's disk is not in the list of disks");
    }
    const uint64_t begin = uint64_t{segment.disk_extent} * superblock.extent_bytes;
    const uint64_t end = begin + uint64_t{segment.count} * superblock.extent_bytes;
    if (begin < kHeadBytes) return fail(Code::kCorrupt, "superblock: a segment lies in its disk's head");
    if (end > superblock.disks[segment.disk].size_bytes) {
      return fail(Code::kCorrupt, "superblock: a segment ends behind its disk's end");
    }
    ranges.push_back({segment.disk, begin, end, false});
  }
  return next - 1;
}

Result<void> check_journal(const Superblock& superblock, Ranges& ranges) {
  const uint64_t bytes = superblock.journal_bytes;
  if (bytes < kJournalBytesMin || !is_aligned(bytes, kPageBytes)) {
    return fail(Code::kCorrupt, "superblock: the journal's size is below 512 KiB or no multiple of 4096");
  }
  for (const JournalArea& area : superblock.journal) {
    if (area.disk >= superblock.disks.size()) {
      return fail(Code::kCorrupt, "superblock: a journal area's disk is not in the list of disks");
    }
    if (area.offset < kHeadBytes || !is_aligned(area.offset, kPageBytes)) {
      return fail(Code::kCorrupt, "superblock: a journal area lies in its disk's head or is not aligned to 4096");
    }
    const uint64_t size = superblock.disks[area.disk].size_bytes;
    if (bytes > size || area.offset > size - bytes) {
      return fail(Code::kCorrupt, "superblock: a journal area ends behind its disk's end");
    }
    ranges.push_back({area.disk, area.offset, area.offset + bytes, true});
  }
  if (superblock.journal_position > bytes || !is_aligned(superblock.journal_position, kPageBytes)) {
    return fail(Code::kCorrupt, "superblock: the journal position is outside of the journal or not aligned to 4096");
  }
  if (superblock.next_sequence.value == 0) return fail(Code::kCorrupt, "superblock: the next sequence number is zero");
  return {};
}

Result<void> check_overlaps(Ranges& ranges) {
  std::ranges::sort(ranges);
  for (size_t i = 1; i < ranges.size(); ++i) {
    const Range& before = ranges[i - 1];
    const Range& range = ranges[i];
    if (before.disk != range.disk || before.end <= range.begin) continue;
    if (before.is_journal && range.is_journal) return fail(Code::kCorrupt, "superblock: the journal areas overlap");
    if (before.is_journal || range.is_journal) {
      return fail(Code::kCorrupt, "superblock: a journal area overlaps a segment");
    }
    return fail(Code::kCorrupt, "superblock: two segments overlap");
  }
  return {};
}

Result<void> check_directory_extents(const Superblock& superblock, uint64_t place_count) {
  std::vector<Place> all;
  for (const auto& places : superblock.directory) {
    if (places.size() > kDirectoryExtentsMax) {
      return fail(Code::kCorrupt, "superblock: a copy of the directory has more than 128 extents");
    }
    if (superblock.directory_bytes > places.size() * uint64_t{superblock.extent_bytes}) {
      return fail(Code::kCorrupt, "superblock: the directory is longer than its extents");
    }
    all.insert(all.end(), places.begin(), places.end());
  }
  for (const Place place : all) {
    if (place.value == 0 || place.value > place_count) {
      return fail(Code::kCorrupt, "superblock: an extent of the directory is in no segment");
    }
  }
  std::ranges::sort(all);
  if (std::ranges::adjacent_find(all) != all.end()) {
    return fail(Code::kCorrupt, "superblock: the directory has an extent twice");
  }
  return {};
}

Result<void> check(const Superblock& superblock) {
  FL_TRY_VOID(check_pool(superblock));
  FL_TRY_VOID(check_disks(superblock));
  Ranges ranges;
  FL_TRY(const uint64_t place_count, check_segments(superblock, ranges));
  FL_TRY_VOID(check_journal(superblock, ranges));
  FL_TRY_VOID(check_overlaps(ranges));
  return check_directory_extents(superblock, place_count);
}

Result<void> check_shape(const Shape& shape) {
  if (shape.version != kFormatVersion) {
    return fail(Code::kNotSupported, "superblock: another version of the format");
  }
  if ((shape.incompatible & ~kKnownIncompatible) != 0) {
    return fail(Code::kNotSupported, "superblock: the pool uses a feature that this version does not know");
  }
  if ((shape.flags & ~(kExported | kDestroyed)) != 0) {
    return fail(Code::kCorrupt, "superblock: it has an unknown flag");
  }
  if (shape.disks == 0 || shape.disks > kDisksMax)
    return fail(Code::kCorrupt, "superblock: the number of disks is not from 1 to 32");
  if (shape.segments == 0 || shape.segments > kSegmentsMax) {
    return fail(Code::kCorrupt, "superblock: the number of segments is not from 1 to 64");
  }
  if (std::ranges::max(shape.directory) > kDirectoryExtentsMax) {
    return fail(Code::kCorrupt, "superblock: a copy of the directory has more than 128 extents");
  }
  return {};
}

// Error kCorrupt: bytes behind the zero that ends it are not zero. Whether it is a valid name is check()'s affair.
Result<std::string> name_of(const Shape& shape) {
  const auto end = std::ranges::find(shape.name, std::byte{0});
  const bool is_padded =
      std::ranges::all_of(end, shape.name.end(), [](std::byte byte) { return byte == std::byte{0}; });
  if (end == shape.name.end() || !is_padded) {
    return fail(Code::kCorrupt, "superblock: the pool's name is not padded with zeroes");
  }
  return std::string(reinterpret_cast<const char*>(shape.name.data()), static_cast<size_t>(end - shape.name.begin()));
}

}  // namespace

Page encode(const Superblock& superblock) {
  require_valid(check(superblock));
  Shape shape;
  std::ranges::copy(std::as_bytes(std::span(superblock.name)), shape.name.begin());
  shape.disks = static_cast<uint16_t>(superblock.disks.size());
  shape.segments = static_cast<uint16_t>(superblock.segments.size());
  shape.flags = (superblock.is_exported ? kExported : 0) | (superblock.is_destroyed ? kDestroyed : 0);
  for (size_t i = 0; i < kCopies; ++i) shape.directory[i] = static_cast<uint16_t>(superblock.directory[i].size());

  Page page;
  ByteWriter writer(page);
  fixed_fields(writer, superblock, shape);
  FL_CHECK(writer.room() == kPageBytes - kTablesOffset);
  table_fields(writer, superblock);
  FL_CHECK(writer.room() == 0);
  ByteWriter(std::span(page).subspan(kCrcOffset)).field(crc_of_structure(page));
  return page;
}

Result<Superblock> decode_superblock(std::span<const std::byte, kPageBytes> bytes) {
  ByteReader reader(bytes);
  Superblock superblock;
  Shape shape;
  fixed_fields(reader, superblock, shape);
  if (shape.magic != kMagic) return fail(Code::kNotFound, "superblock: none is here");
  if (shape.crc != crc_of_structure(bytes)) return fail(Code::kCorrupt, "superblock: its checksum is wrong");
  FL_TRY_VOID(check_shape(shape));
  FL_TRY(superblock.name, name_of(shape));
  superblock.disks.resize(shape.disks);
  superblock.segments.resize(shape.segments);
  for (size_t i = 0; i < kCopies; ++i) superblock.directory[i].resize(shape.directory[i]);
  superblock.is_exported = (shape.flags & kExported) != 0;
  superblock.is_destroyed = (shape.flags & kDestroyed) != 0;
  table_fields(reader, superblock);
  FL_CHECK(!reader.is_short() && reader.remaining() == 0);
  // A compatible feature that is not ours may live there.
  if (reader.has_reserved() && shape.compatible == 0) {
    return fail(Code::kCorrupt, "superblock: reserved or unused room is not zero");
  }
  FL_TRY_VOID(check(superblock));
  return superblock;
}

}  // namespace fairlead::pool
