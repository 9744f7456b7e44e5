#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "pool/format.h"
#include "pool/test_seed.h"

namespace fairlead::pool {
namespace {

constexpr size_t kEntryBytes = 40;

TEST(MapFormatTest, RandomEntriesComeBack) {
  const uint64_t seed = draw_seed();
  FL_TRACE_SEED(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 100; ++round) {
    MapEntries entries;
    for (Entry& entry : entries) {
      if (random() % 2 == 0) continue;
      entry.place = Place(static_cast<uint32_t>(random()));
      entry.stamp = StampOrdinal(static_cast<uint32_t>(random()));
      entry.held = random() % 4 == 0 ? UnitSet::all() : UnitSet({random(), random(), random(), random()});
    }
    MapBytes bytes;
    bytes.fill(std::byte{0xee});
    encode_map(entries, bytes);
    MapEntries decoded;
    decode_map(bytes, decoded);
    ASSERT_TRUE(decoded == entries);
    const auto behind = std::span(bytes).subspan(kEntriesPerPage * kEntryBytes);
    ASSERT_TRUE(std::ranges::all_of(behind, [](std::byte byte) { return byte == std::byte{0}; }));
  }
}

TEST(MapFormatTest, BytesOfVersion1) {
  MapEntries entries;
  entries[1] = {Place(0x11223344), StampOrdinal(0x55667788), UnitSet::range(8, 200)};
  entries[255] = {Place(), StampOrdinal(1), UnitSet::all()};
  EXPECT_TRUE(entries[0].is_absent());
  EXPECT_FALSE(entries[1].is_absent());
  MapBytes bytes;
  encode_map(entries, bytes);
  EXPECT_EQ(std::memcmp(bytes.data() + kEntryBytes,
                        "\x44\x33\x22\x11\x88\x77\x66\x55"
                        "\0\xff\xff\xff\xff\xff\xff\xff"
                        "\xff\xff\xff\xff\xff\xff\xff\xff"
                        "\xff\xff\xff\xff\xff\xff\xff\xff"
                        "\xff\0\0\0\0\0\0\0",
                        kEntryBytes),
            0);
  EXPECT_EQ(crc32c(bytes), 0x84a986a5U);
}

}  // namespace
}  // namespace fairlead::pool
