// Golden images of pools: how they are kept, and what is in the pools. Written once by
// tests/golden/make_pool_images.cc, opened by golden_test.cc for ever. What stands here of a version never changes
// again.
//
// A file: "FLGOLDEN", 4 bytes number of disks, 8 bytes size of each; then, for each page of 4096 bytes that is not all
// zeroes: 4 bytes disk, 8 bytes offset, 4 bytes length, and so many bytes; the rest of the page is zeroes.
// Little-endian.
#pragma once

#include <algorithm>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "pool/byte_codec.h"
#include "pool/format.h"
#include "pool/test_samples.h"

namespace fairlead::pool::golden {

inline constexpr uint32_t kExtent = kExtentBytesMin;
inline constexpr uint64_t kDiskBytes = 4 * kMiB;
inline constexpr Magic kFileMagic = make_magic("FLGOLDEN");
using Disks = std::vector<std::vector<std::byte>>;

inline std::vector<std::byte> pack(const Disks& disks) {
  std::vector<std::byte> file;
  const auto append = [&](auto... values) {
    std::vector<std::byte> bytes((sizeof(values) + ...));
    ByteWriter writer(bytes);
    (writer.field(values), ...);
    file.insert(file.end(), bytes.begin(), bytes.end());
  };
  file.assign(kFileMagic.begin(), kFileMagic.end());
  append(static_cast<uint32_t>(disks.size()));
  for (const auto& disk : disks) append(uint64_t{disk.size()});
  for (uint32_t disk = 0; disk < disks.size(); ++disk) {
    for (uint64_t offset = 0; offset < disks[disk].size(); offset += kPageBytes) {
      const auto page = std::span(disks[disk]).subspan(offset, kPageBytes);
      size_t length = page.size();
      while (length > 0 && page[length - 1] == std::byte{0}) --length;
      if (length == 0) continue;
      append(disk, offset, static_cast<uint32_t>(length));
      file.insert(file.end(), page.begin(), page.begin() + static_cast<ptrdiff_t>(length));
    }
  }
  return file;
}
// Empty: it is no such file.
inline Disks unpack(std::span<const std::byte> file) {
  ByteReader reader(file);
  if (!std::ranges::equal(reader.take(kMagicBytes), kFileMagic)) return {};
  Disks disks(reader.take_integer<uint32_t>());
  for (auto& disk : disks) disk.resize(reader.take_integer<uint64_t>());
  while (reader.remaining() > 0) {
    const auto disk = reader.take_integer<uint32_t>();
    const auto offset = reader.take_integer<uint64_t>();
    const auto bytes = reader.take(reader.take_integer<uint32_t>());
    if (reader.is_short()) return {};
    std::ranges::copy(bytes, disks.at(disk).begin() + static_cast<ptrdiff_t>(offset));
  }
  return disks;
}
inline Disks read_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  return unpack(std::as_bytes(std::span(bytes)));
}

// What an object reads as: zeroes, and these.
struct Written {
  uint64_t offset = 0;
  size_t length = 0;
  uint8_t seed = 0;
};
struct Content {
  std::string name;
  ObjectKind kind = ObjectKind::kReplica;
  uint64_t size_bytes = 0;
  std::vector<Written> written;  // later ones over earlier ones
};
inline constexpr uint64_t kHole = 3 * uint64_t{kExtent};  // unmapped in db after the first snapshot
// Of all images of version 1.
inline std::vector<Content> version_1() {
  const std::vector<Written> first = {{512, 4608, 1}, {kHole, 2048, 2}};
  const std::vector<Written> second = {{512, 4608, 1}, {1024, 1024, 3}, {300 * kKiB, 1024, 6}};
  auto last = second;
  last.push_back({512, 512, 7});
  auto copy = first;
  copy.push_back({3 * kMiB, 1024, 4});
  return {{"copy", ObjectKind::kReplica, 4 * kMiB, copy},
          {"db", ObjectKind::kReplica, 2 * kMiB, last},
          {"db.1", ObjectKind::kSnapshot, 2 * kMiB, first},
          {"db.2", ObjectKind::kSnapshot, 2 * kMiB, second},
          {"late", ObjectKind::kReplica, 1 * kMiB, {{64 * kKiB, 512, 8}}},
          {"thick", ObjectKind::kReplica, 128 * kKiB, {{0, 512, 5}}}};
}
inline Stamp stamp(uint64_t generation) { return {7, samples::uuid(20), generation}; }
inline const std::vector<Label> kLabels = {{"app", "shop"}, {"zone", "b"}};
inline const std::vector<Property> kProperties = {{1, {std::byte{1}, std::byte{2}, std::byte{3}}}};

}  // namespace fairlead::pool::golden
