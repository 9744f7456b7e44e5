#include "pool/format.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <set>

#include "base/crc32c.h"
#include "base/xoshiro.h"
#include "pool/byte_codec.h"
#include "pool/test_samples.h"

namespace fairlead::pool {
namespace {

using Bytes = std::vector<std::byte>;

void put(std::span<std::byte> bytes, size_t offset, size_t width, uint64_t value) {
  for (size_t i = 0; i < width; ++i) bytes[offset + i] = static_cast<std::byte>(value >> (8 * i));
}
void mend_crc(std::span<std::byte> bytes) { put(bytes, 12, 4, crc_of_structure(bytes)); }

// The little-endian integer at an offset becomes another; the decoder must then say this.
struct Change {
  size_t offset = 0;
  size_t width = 0;
  uint64_t value = 0;
  const char* what = "";
  Code code = Code::kCorrupt;
};

template <typename T>
void expect_error(const Result<T>& result, const Change& change) {
  const std::string where = fmt::format("{:#x} at {} for {}", change.value, change.offset, change.what);
  ASSERT_FALSE(result.has_value()) << where;
  EXPECT_EQ(result.error().code, change.code) << where << ": " << result.error().what;
  EXPECT_NE(std::string_view(result.error().what).find(change.what), std::string_view::npos)
      << where << ": " << result.error().what;
}

// ---- Random valid values

class Source {
 public:
  explicit Source(uint64_t seed) : random_(seed) {}

  uint64_t any() { return random_.next() >> (random_.next() % 64); }
  uint64_t below(uint64_t limit) { return random_.next() % limit; }
  uint64_t from_to(uint64_t first, uint64_t last) { return first + below(last - first + 1); }
  uint32_t any32() { return static_cast<uint32_t>(any()); }
  uint32_t from_to32(uint32_t first, uint32_t last) { return static_cast<uint32_t>(from_to(first, last)); }
  bool flip() { return below(2) == 0; }
  Entry entry() { return {Place(any32()), StampOrdinal(any32()), UnitSet({any(), any(), any(), any()})}; }
  Uuid uuid() { return uuid_from_random(random_.next(), random_.next()); }
  Uuid uuid_or_nil() { return flip() ? uuid() : Uuid{}; }
  std::string text(size_t size, std::string_view letters) {
    std::string text;
    while (text.size() < size) text += letters[below(letters.size())];
    return text;
  }
  std::string name() { return "n" + text(below(kNameBytesMax), "azAZ09._-"); }
  Bytes bytes(size_t size) {
    Bytes bytes(size);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random_.next());
    return bytes;
  }

  Superblock superblock();
  ObjectState object();
  Record record();
  Directory directory();

 private:
  void draw_layout(Superblock& superblock);
  void draw_layers(Directory& directory);

  Xoshiro random_;
};

// Each disk: its head, perhaps a journal area, and as many segments with gaps between them.
void Source::draw_layout(Superblock& superblock) {
  const uint64_t extent = superblock.extent_bytes;
  std::vector<uint64_t> ends;
  for (size_t i = 0; i < superblock.disks.size(); ++i) ends.push_back(align_up(kHeadBytes, extent) / extent);
  for (auto& area : superblock.journal) {
    area.disk = static_cast<uint16_t>(below(ends.size()));
    area.offset = ends[area.disk] * extent;
    ends[area.disk] += (superblock.journal_bytes + extent - 1) / extent + below(3);
  }
  uint32_t next = 1;
  for (auto& segment : superblock.segments) {
    segment.disk = static_cast<uint16_t>(below(ends.size()));
    segment.first = Place(next);
    segment.count = from_to32(5, 1000);
    segment.disk_extent = static_cast<uint32_t>(ends[segment.disk] + below(3));
    ends[segment.disk] = segment.disk_extent + segment.count;
    next += segment.count;
  }
  for (size_t i = 0; i < ends.size(); ++i) superblock.disks[i] = {uuid(), ends[i] * extent + below(2 * kMiB)};
  std::set<uint32_t> used;
  for (auto& places : superblock.directory) {
    const size_t count = below(std::min<uint64_t>(kDirectoryExtentsMax, (next - 1) / 2)) + 1;
    while (places.size() < count) {
      const uint32_t place = from_to32(1, next - 1);
      if (used.insert(place).second) places.emplace_back(place);
    }
  }
  const size_t fewest = std::min(superblock.directory[0].size(), superblock.directory[1].size());
  superblock.directory_bytes = below(fewest * extent + 1);
}

Superblock Source::superblock() {
  Superblock superblock;
  superblock.pool_id = uuid();
  superblock.name = name();
  superblock.created_ms = any();
  superblock.extent_bytes = kExtentBytesMin << below(9);
  superblock.logical_block = 512U << below(4);
  superblock.unit_bytes = superblock.extent_bytes >> below(9);
  superblock.unit_bytes = std::max(superblock.unit_bytes, superblock.logical_block);
  superblock.disks.resize(from_to(1, kDisksMax));
  superblock.segments.resize(from_to(1, kSegmentsMax));
  superblock.journal_bytes = kJournalBytesMin + below(1000) * kPageBytes;
  draw_layout(superblock);
  superblock.disk_index = static_cast<uint16_t>(below(superblock.disks.size()));
  superblock.generation = any();
  superblock.incarnation = any();
  superblock.boot_id = uuid_or_nil();
  superblock.is_exported = flip();
  superblock.is_destroyed = flip();
  superblock.next_sequence = Sequence(any() | 1);
  superblock.journal_position = below(superblock.journal_bytes / kPageBytes + 1) * kPageBytes;
  superblock.chain = any32();
  superblock.directory_crc = any32();
  return superblock;
}

ObjectState Source::object() {
  ObjectState object;
  object.id = uuid();
  object.name = name();
  object.kind = flip() ? ObjectKind::kReplica : ObjectKind::kSnapshot;
  object.is_thick = flip();
  object.layer = LayerId(any32() | 1);
  object.size_bytes = from_to(1, uint64_t{1} << 47) * 512;
  object.created_ms = any();
  object.origin = uuid_or_nil();
  object.volume_id = uuid_or_nil();
  object.stamp = StampOrdinal(any32());
  std::set<std::string> keys;
  for (size_t i = below(kLabelsMax / 4); i > 0; --i) keys.insert(text(from_to(1, kLabelBytesMax), "abc/."));
  for (const auto& key : keys) object.labels.push_back({key, text(below(100), "xyz ")});
  std::set<uint16_t> numbers;
  for (size_t i = below(4); i > 0; --i) numbers.insert(static_cast<uint16_t>(any()));
  for (const uint16_t number : numbers) object.properties.push_back({number, bytes(below(2000))});
  return object;
}

Record Source::record() {
  const LayerId layer(any32() | 1);
  switch (below(7)) {
    case 0:
      return EntryRecord{layer, ExtentIndex(any32()), entry()};
    case 1:
      return LayerRecord{layer, LayerId(layer.value - 1)};
    case 2:
      return LayerRemoval{layer};
    case 3:
      return ObjectRecord{object()};
    case 4:
      return ObjectRemoval{uuid()};
    case 5:
      return StampRecord{StampOrdinal(any32() | 1), uuid(), {any(), uuid_or_nil(), any()}};
    default: {
      const uint32_t first = any32();
      return RestampRecord{layer, ExtentIndex(first), from_to32(1, 256 - first % 256), StampOrdinal(any32() | 1)};
    }
  }
}

void Source::draw_layers(Directory& directory) {
  directory.page_extents.resize(from_to(1, 20));
  uint32_t place = 0;
  for (auto& extent : directory.page_extents) {
    if (flip()) continue;
    for (auto& copy : extent.places) copy = Place(place += from_to32(1, 9));
  }
  uint32_t address = 0;
  const auto addresses = static_cast<uint32_t>(directory.page_extents.size() * kExtentBytesMax / kMapPageBytes);
  std::vector<LayerId> parents = {LayerId()};
  for (size_t i = below(40); i > 0; --i) {
    LayerState layer;
    layer.id = LayerId(directory.next_layer);
    directory.next_layer += from_to32(1, 4);
    layer.parent = parents[below(parents.size())];
    parents.push_back(layer.id);
    uint32_t leaf = 0;
    for (size_t j = below(20); j > 0 && address < addresses; --j) {
      layer.leaves.push_back({leaf += from_to32(1, 9), address, any32(), from_to32(0, 256)});
      address += from_to32(1, 9);
    }
    directory.layers.push_back(layer);
  }
}

Directory Source::directory() {
  Directory directory;
  directory.pool_id = uuid();
  directory.sequence = Sequence(any());
  for (size_t i = below(20); i > 0; --i) {
    directory.stamps.push_back({StampOrdinal(directory.next_stamp), uuid(), {any(), uuid(), any()}});
    directory.next_stamp += from_to32(1, 4);
  }
  draw_layers(directory);
  for (const LayerState& layer : directory.layers) {
    if (flip()) continue;
    directory.objects.push_back(object());
    ObjectState& object = directory.objects.back();
    object.layer = layer.id;
    object.name = fmt::format("o{}", layer.id.value);
    const bool has_stamp = flip() && !directory.stamps.empty();
    object.stamp = has_stamp ? directory.stamps[below(directory.stamps.size())].ordinal : StampOrdinal();
  }
  std::ranges::sort(directory.objects, {}, &ObjectState::id);
  return directory;
}

constexpr uint64_t kSeeds = 100;

// ---- Superblock

TEST(SuperblockFormatTest, RandomValuesComeBack) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const Superblock superblock = Source(seed).superblock();
    const auto decoded = decode_superblock(encode(superblock));
    ASSERT_TRUE(decoded.has_value()) << decoded.error().what;
    EXPECT_EQ(*decoded, superblock);
  }
}

TEST(SuperblockFormatTest, BytesOfVersion1) {
  const Page page = encode(samples::superblock());
  EXPECT_EQ(crc32c(page), 0x615c17b5U);
  EXPECT_EQ(std::memcmp(page.data(), "FLPOOLSB\1\0\0\0", 12), 0);
  EXPECT_EQ(std::memcmp(page.data() + 56, "\0\0\x10\0\0\x10\0\0\0\x40\0\0fast-0\0", 19), 0);
}

TEST(SuperblockFormatTest, EachFlippedBitIsFound) {
  Page page = encode(samples::superblock());
  for (size_t bit = 0; bit < page.size() * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1U << bit % 8);
    page[bit / 8] ^= mask;
    ASSERT_FALSE(decode_superblock(page).has_value()) << "bit " << bit;
    page[bit / 8] ^= mask;
  }
  EXPECT_TRUE(decode_superblock(page).has_value());
}

constexpr Change kSuperblockChanges[] = {
    {0, 1, 'G', "none is here", Code::kNotFound},
    {8, 4, 2, "another version", Code::kNotSupported},
    {8, 4, 0, "another version", Code::kNotSupported},
    {24, 8, 1, "a feature", Code::kNotSupported},
    {31, 1, 0x80, "a feature", Code::kNotSupported},
    {56, 4, 0, "extent size"},
    {56, 4, 32 << 10, "extent size"},
    {56, 4, 32 << 20, "extent size"},
    {56, 4, (1 << 20) + 4096, "extent size"},
    {60, 4, 0, "logical block"},
    {60, 4, 256, "logical block"},
    {60, 4, 8192, "logical block"},
    {60, 4, 1536, "logical block"},
    {56, 4, 8 << 20, "unit is no power of two"},
    {64, 4, 0, "unit is no power of two"},
    {64, 4, 2048, "unit is no power of two"},
    {64, 4, 12 << 10, "unit is no power of two"},
    {64, 4, 2 << 20, "unit is no power of two"},
    {64, 4, 0xffffffff, "unit is no power of two"},
    {68, 1, 0, "name is not padded"},
    {68, 6, 0, "name is not valid"},
    {68, 1, '.', "name is not valid"},
    {70, 1, '/', "name is not valid"},
    {131, 1, 'x', "name is not padded"},
    {132, 2, 2, "this disk's index"},
    {134, 2, 0, "number of disks"},
    {134, 2, 3, "a disk's id is nil"},
    {134, 2, 33, "number of disks"},
    {136, 2, 0, "number of segments"},
    {136, 2, 65, "number of segments"},
    {136, 2, 4, "at the place behind"},
    {138, 2, 2, "journal area's disk"},
    {140, 2, 0xffff, "journal area's disk"},
    {142, 2, 1, "reserved or unused room"},
    {144, 4, 4, "unknown flag"},
    {148, 8, 64 << 10, "lies in its disk's head"},
    {148, 8, (1 << 20) + 512, "not aligned"},
    {148, 8, 62 << 20, "ends behind its disk's end"},
    {156, 8, ~uint64_t{4095}, "ends behind its disk's end"},
    {148, 8, 2 << 20, "journal area overlaps a segment"},
    {156, 8, 7 << 20, "journal area overlaps a segment"},
    {140, 2, 0, "journal areas overlap"},
    {164, 8, 4096, "journal's size"},
    {164, 8, (3 << 20) + 1, "journal's size"},
    {164, 8, ~uint64_t{4095}, "ends behind its disk's end"},
    {204, 8, 0, "next sequence number"},
    {212, 8, 512, "journal position"},
    {212, 8, (3 << 20) + 4096, "journal position"},
    {228, 8, (2 << 20) + 1, "longer than its extents"},
    {236, 2, 1, "reserved or unused room"},
    {236, 2, 3, "in no segment"},
    {238, 2, 129, "more than 128 extents"},
    {240, 4, 1, "reserved or unused room"},
    {255, 1, 1, "reserved or unused room"},
    {256 + 16, 8, 1000, "a disk's size"},
    {256 + 16, 8, ~uint64_t{0}, "a disk's size"},
    {256 + 16, 8, 63 << 20, "segment ends behind"},
    {256 + 48, 1, 1, "reserved or unused room"},
    {1024, 4, 0, "at the place behind"},
    {1024 + 4, 4, 0, "no extents"},
    {1024 + 4, 4, 39, "at the place behind"},
    {1024 + 8, 4, 0, "in its disk's head"},
    {1024 + 8, 4, 5, "two segments overlap"},
    {1024 + 8, 4, 0xffffffff, "segment ends behind"},
    {1024 + 12, 2, 2, "segment's disk"},
    {1024 + 14, 2, 1, "reserved or unused room"},
    {1024 + 32 + 4, 4, 0xffffffff - 99, "32 bits"},
    {1024 + 32 + 4, 4, 0xffffffff - 100, "segment ends behind"},
    {1024 + 48, 4, 1, "reserved or unused room"},
    {2048, 4, 0, "in no segment"},
    {2048, 4, 121, "in no segment"},
    {2048, 4, 120, "an extent twice"},
    {2048, 4, 9, "an extent twice"},
    {2048 + 8, 4, 1, "reserved or unused room"},
    {3072, 1, 1, "reserved or unused room"},
    {4095, 1, 1, "reserved or unused room"},
};

TEST(SuperblockFormatTest, EachWrongFieldIsNamed) {
  for (const Change& change : kSuperblockChanges) {
    Page page = encode(samples::superblock());
    put(page, change.offset, change.width, change.value);
    mend_crc(page);
    expect_error(decode_superblock(page), change);
  }
  for (const auto& [offset, what] : {std::pair{32, "pool's id"}, {256, "disk's id is nil"}}) {
    Page page = encode(samples::superblock());
    std::fill_n(page.begin() + offset, 16, std::byte{0});
    mend_crc(page);
    expect_error(decode_superblock(page), {.offset = static_cast<size_t>(offset), .what = what});
  }
  Page page = encode(samples::superblock());
  std::copy_n(page.begin() + 256, 16, page.begin() + 280);
  mend_crc(page);
  expect_error(decode_superblock(page), {.offset = 280, .what = "two disks have one id"});
}

TEST(SuperblockFormatTest, ReservedRoomBelongsToCompatibleFeatures) {
  Page page = encode(samples::superblock());
  put(page, 16, 8, 1);
  put(page, 3072, 8, ~uint64_t{0});
  mend_crc(page);
  const auto decoded = decode_superblock(page);
  ASSERT_TRUE(decoded.has_value()) << decoded.error().what;
  EXPECT_EQ(*decoded, samples::superblock());
}

TEST(SuperblockFormatDeathTest, WhatCouldNotBeDecodedIsNotEncoded) {
  Superblock superblock = samples::superblock();
  superblock.segments[1].count += 1;
  EXPECT_DEATH((void)encode(superblock), "place behind");
}

TEST(SuperblockFormatTest, Names) {
  for (const char* name : {"a", "0", "_", "A-b.c_9", "a.-"}) EXPECT_TRUE(is_valid_name(name)) << name;
  for (const char* name : {"", ".", ".a", "-a", "a b", "a/b", "\xc3\xa4", "a\n"})
    EXPECT_FALSE(is_valid_name(name)) << name;
  EXPECT_TRUE(is_valid_name(std::string(63, 'a')));
  EXPECT_FALSE(is_valid_name(std::string(64, 'a')));
  EXPECT_FALSE(is_valid_name(std::string_view("a\0", 2)));
}

// ---- Batches

Bytes payload_of(const std::vector<Record>& records) {
  Bytes payload;
  for (const Record& record : records) append_record(payload, record);
  return payload;
}

TEST(BatchFormatTest, RandomBatchesComeBack) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Source source(seed);
    Bytes payload;
    std::vector<Record> records;
    for (size_t i = source.below(30); i > 0; --i) {
      const Record record = source.record();
      Bytes longer = payload;
      append_record(longer, record);
      if (kBatchHeaderBytes + longer.size() > kBatchBytesMax) break;
      payload = std::move(longer);
      records.push_back(record);
    }
    BatchHeader header;
    header.incarnation = source.any();
    header.sequence = Sequence(source.any() | 1);
    header.chain = source.any32();
    header.durable = Sequence(source.from_to(0, header.sequence.value - 1) + source.below(2));
    header.records = static_cast<uint32_t>(records.size());
    header.payload_bytes = static_cast<uint32_t>(payload.size());
    // Whatever was there before, and what stands behind it.
    Bytes bytes = source.bytes(batch_bytes(payload.size()) + kPageBytes);
    const auto batch = std::span(bytes).first(batch_bytes(payload.size()));
    std::ranges::copy(payload, batch.begin() + kBatchHeaderBytes);
    const uint32_t crc = seal_batch(batch, header);
    EXPECT_TRUE(std::ranges::all_of(batch.subspan(kBatchHeaderBytes + payload.size()),
                                    [](std::byte byte) { return byte == std::byte{0}; }));

    EXPECT_EQ(peek_batch_bytes(std::span<const std::byte>(bytes).first<kPageBytes>()), batch.size());
    const auto opened = open_batch(bytes);
    ASSERT_TRUE(opened.has_value()) << opened.error().what;
    EXPECT_EQ(opened->header, header);
    EXPECT_EQ(opened->crc, crc);
    const auto decoded = decode_records(opened->payload, opened->header.records);
    ASSERT_TRUE(decoded.has_value()) << decoded.error().what;
    EXPECT_TRUE(*decoded == records);
  }
}

TEST(BatchFormatTest, BytesOfVersion1) {
  const Bytes batch = samples::batch();
  EXPECT_EQ(crc32c(batch), 0xde27d6ecU);
  EXPECT_EQ(std::memcmp(batch.data(), "FLJBATCH\1\0\0\0", 12), 0);
  EXPECT_EQ(std::memcmp(batch.data() + 16,
                        "\x11\x22\x33\x44\x55\x66\x77\x88"
                        "\x4d\0\0\0\0\0\0\0"
                        "\x4b\0\0\0\0\0\0\0"
                        "\xef\xbe\xad\xde\x07\0\0\0",
                        32),
            0);
}

TEST(BatchFormatTest, EachFlippedBitIsFound) {
  Bytes batch = samples::batch();
  const size_t used = kBatchHeaderBytes + open_batch(batch)->payload.size();
  for (size_t bit = 0; bit < used * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1U << bit % 8);
    batch[bit / 8] ^= mask;
    ASSERT_FALSE(open_batch(batch).has_value()) << "bit " << bit;
    batch[bit / 8] ^= mask;
  }
  EXPECT_TRUE(open_batch(batch).has_value());
}

TEST(BatchFormatTest, CutShort) {
  const Bytes batch = samples::batch();
  for (size_t size = 0; size < batch.size(); ++size) {
    const auto opened = open_batch(std::span(batch).first(size));
    ASSERT_FALSE(opened.has_value()) << size;
    EXPECT_EQ(opened.error().code, size < kMagicBytes ? Code::kNotFound : Code::kCorrupt) << size;
  }
}

TEST(BatchFormatTest, EachWrongFieldIsNamed) {
  constexpr Change kChanges[] = {
      {0, 8, 0, "none is here", Code::kNotFound},
      {8, 4, 2, "another version", Code::kNotSupported},
      {24, 8, 0, "sequence number is zero"},
      {32, 8, 78, "a later one is durable"},
      {44, 4, 0, "number of records"},
      {44, 4, 1000, "number of records"},
      {52, 1, 1, "reserved room"},
      {63, 1, 1, "reserved room"},
  };
  const size_t used = kBatchHeaderBytes + open_batch(samples::batch())->payload.size();
  for (const Change& change : kChanges) {
    Bytes batch = samples::batch();
    put(batch, change.offset, change.width, change.value);
    mend_crc(std::span(batch).first(used));
    expect_error(open_batch(batch), change);
  }
  constexpr Change kLengths[] = {
      {48, 4, 64 * 1024 - 63, "payload is too long"},
      {48, 4, 0xffffffff, "payload is too long"},
      {48, 4, 64 * 1024 - 64, "longer than what is there"},
      {48, 4, 4096, "longer than what is there"},
      {48, 4, 100, "checksum"},
      {12, 4, 0, "checksum"},
  };
  for (const Change& change : kLengths) {
    Bytes batch = samples::batch();
    put(batch, change.offset, change.width, change.value);
    expect_error(open_batch(batch), change);
  }
}

TEST(BatchFormatTest, PeekTellsHowMuchToRead) {
  Page page{};
  EXPECT_EQ(peek_batch_bytes(page), 0U);
  std::ranges::copy_n(samples::batch().begin(), kBatchHeaderBytes, page.begin());
  put(page, 48, 4, 0);
  EXPECT_EQ(peek_batch_bytes(page), kPageBytes);
  put(page, 48, 4, kPageBytes - kBatchHeaderBytes + 1);
  EXPECT_EQ(peek_batch_bytes(page), 2 * kPageBytes);
  put(page, 48, 4, kBatchBytesMax - kBatchHeaderBytes);
  EXPECT_EQ(peek_batch_bytes(page), kBatchBytesMax);
  put(page, 48, 4, kBatchBytesMax - kBatchHeaderBytes + 1);
  EXPECT_EQ(peek_batch_bytes(page), 0U);
}

// ---- Records

TEST(RecordFormatTest, BytesOfVersion1) {
  const Bytes payload = payload_of(samples::records());
  EXPECT_EQ(crc32c(payload), 0x5476e115U);
  constexpr char kEntryAndLayers[] =
      "\1\0\x30\0\3\0\0\0\xe8\3\0\0\x11\0\0\0\5\0\0\0"
      "\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0"
      "\2\0\x08\0\4\0\0\0\3\0\0\0"
      "\3\0\x04\0\2\0\0\0"
      "\4\0";
  EXPECT_EQ(std::memcmp(payload.data(), kEntryAndLayers, sizeof kEntryAndLayers - 1), 0);
  EXPECT_EQ(payload_of({samples::records()[0]}).size(), kEntryRecordBytes);
}

TEST(RecordFormatTest, CutShortMiscountedOrTrailed) {
  const std::vector<Record> records = samples::records();
  const Bytes payload = payload_of(records);
  const auto count = static_cast<uint32_t>(records.size());
  for (size_t size = 0; size < payload.size(); ++size) {
    EXPECT_FALSE(decode_records(std::span(payload).first(size), count).has_value()) << size;
  }
  EXPECT_TRUE(decode_records(payload, count).has_value());
  expect_error(decode_records(payload, count - 1), {.what = "left over"});
  expect_error(decode_records(payload, count + 1), {.what = "fewer"});
  expect_error(decode_records(payload, 0xffffffff), {.what = "fewer"});
  Bytes longer = payload;
  longer.push_back({});
  expect_error(decode_records(longer, count), {.what = "left over"});
  EXPECT_TRUE(decode_records({}, 0).has_value());
}

struct RecordChange {
  size_t record = 0;  // of samples::records()
  Change change;
};
constexpr RecordChange kRecordChanges[] = {
    {0, {0, 2, 0, "type is unknown"}},
    {0, {0, 2, 8, "type is unknown"}},
    {0, {0, 2, 0xffff, "type is unknown"}},
    {0, {0, 2, 2, "length is not that of its type"}},
    {0, {2, 2, 49, "ends behind the payload"}},
    {0, {2, 2, 47, "length is not that of its type"}},
    {0, {4, 4, 0, "entry record: its layer"}},
    {1, {4, 4, 0, "layer record: its layer"}},
    {1, {8, 4, 4, "its own parent"}},
    {2, {4, 4, 0, "layer removal: its layer"}},
    {3, {4 + 48, 8, 0, "its size"}},
    {3, {4 + 48, 8, 4097, "its size"}},
    {3, {4 + 48, 8, (uint64_t{1} << 56) + 512, "its size"}},
    {3, {4 + 64, 4, 0, "no layer"}},
    {3, {4 + 72, 1, 0, "its kind"}},
    {3, {4 + 72, 1, 3, "its kind"}},
    {3, {4 + 73, 1, 2, "unknown flag"}},
    {3, {4 + 74, 1, 0, "object"}},
    {3, {4 + 74, 1, 255, "ends too early"}},
    {3, {4 + 75, 1, 1, "reserved room"}},
    {3, {4 + 76, 2, 1, "ends too early"}},
    {3, {4 + 76, 2, 0xffff, "ends too early"}},
    {3, {4 + 78, 2, 1, "left over"}},
    {3, {4 + 78, 2, 3, "ends too early"}},
    {3, {4 + 80, 1, '-', "name is not valid"}},
    {3, {4 + 86, 1, 'z', "order of their keys"}},  // "app" becomes "zpp"
    {3, {4 + 93, 1, 0, "ends too early"}},
    {3, {4 + 99, 2, 7, "properties are not in the order"}},
    {3, {4 + 99, 2, 9, "properties are not in the order"}},
    {3, {4 + 101, 2, 100, "ends too early"}},
    {5, {4, 4, 0, "stamp: its ordinal"}},
    {6, {4, 4, 0, "restamp record: its layer"}},
    {6, {8, 4, 257, "within one map page"}},
    {6, {12, 4, 0, "within one map page"}},
    {6, {12, 4, 257, "within one map page"}},
    {6, {12, 4, 0xffffffff, "within one map page"}},
    {6, {16, 4, 0, "restamp record: its ordinal"}},
};

TEST(RecordFormatTest, EachWrongFieldIsNamed) {
  for (const auto& [record, change] : kRecordChanges) {
    SCOPED_TRACE(fmt::format("record {}", record));
    Bytes payload = payload_of({samples::records()[record]});
    put(payload, change.offset, change.width, change.value);
    expect_error(decode_records(payload, 1), change);
  }
  struct Nil {
    size_t record, offset;
    const char* what;
  };
  for (const auto& [record, offset, what] :
       {Nil{3, 4, "object: its id"}, {4, 4, "object removal"}, {5, 8, "stamp: its object"}}) {
    Bytes payload = payload_of({samples::records()[record]});
    std::fill_n(payload.begin() + static_cast<ptrdiff_t>(offset), 16, std::byte{0});
    expect_error(decode_records(payload, 1), {.offset = offset, .what = what});
  }
}

TEST(RecordFormatTest, NoObjectIsItsOwnOrigin) {
  Bytes payload = payload_of({samples::records()[3]});
  std::copy_n(payload.begin() + 4, 16, payload.begin() + 20);
  expect_error(decode_records(payload, 1), {.what = "its own origin"});
}

TEST(RecordFormatTest, LimitsOfObjects) {
  ObjectState object = samples::snapshot();
  object.name = std::string(kNameBytesMax, 'n');
  for (size_t i = 0; i < kLabelsMax; ++i) {
    object.labels.push_back({fmt::format("{:02}", i), std::string(i == 0 ? kLabelBytesMax : 1, 'v')});
  }
  object.labels.back().key.resize(kLabelBytesMax, 'k');
  for (uint16_t key = 0; key < 3; ++key) object.properties.push_back({key, Bytes(kPropertyBytesMax)});
  object.properties.push_back({9, {}});
  object.properties.back().value.resize(kObjectBytesMax - encoded_bytes(object));
  EXPECT_EQ(encoded_bytes(object), kObjectBytesMax);
  Bytes payload = payload_of({ObjectRecord{object}});
  EXPECT_EQ(payload.size(), 4 + kObjectBytesMax);
  const auto decoded = decode_records(payload, 1);
  ASSERT_TRUE(decoded.has_value()) << decoded.error().what;
  EXPECT_TRUE(std::get<ObjectRecord>(decoded->front()).object == object);

  object.properties.back().value.push_back({});
  Bytes more;
  EXPECT_DEATH(append_record(more, ObjectRecord{object}), "longer than 16 KiB");
  put(payload, 2, 2, kObjectBytesMax + 1);
  payload.push_back({});
  expect_error(decode_records(payload, 1), {.what = "longer than 16 KiB"});
  object.properties.clear();
  object.labels.push_back({"z", ""});
  EXPECT_DEATH(append_record(more, ObjectRecord{object}), "more labels");
  object.labels = {{"a", std::string(kLabelBytesMax + 1, 'v')}};
  EXPECT_DEATH(append_record(more, ObjectRecord{object}), "label's value is too long");
  object.labels = {{"", "v"}};
  EXPECT_DEATH(append_record(more, ObjectRecord{object}), "key is empty");
  object.labels = {};
  object.properties = {{1, Bytes(kPropertyBytesMax + 1)}};
  EXPECT_DEATH(append_record(more, ObjectRecord{object}), "property's value is too long");
}

// ---- Directory

TEST(DirectoryFormatTest, RandomValuesComeBack) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const Directory directory = Source(seed).directory();
    const auto decoded = decode_directory(encode(directory));
    ASSERT_TRUE(decoded.has_value()) << decoded.error().what;
    EXPECT_TRUE(*decoded == directory);
  }
}

TEST(DirectoryFormatTest, BytesOfVersion1) {
  const Bytes bytes = encode(samples::directory());
  EXPECT_EQ(crc32c(bytes), 0xb5a24a0cU);
  EXPECT_EQ(std::memcmp(bytes.data(), "FLPOOLDR\1\0\0\0", 12), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + 96, "\x0a\0\0\0\x3c\0\0\0\0\0\0\0", 12), 0);
}

TEST(DirectoryFormatTest, CutShortOrTrailed) {
  Bytes bytes = encode(samples::directory());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto decoded = decode_directory(std::span(bytes).first(size));
    ASSERT_FALSE(decoded.has_value()) << size;
    EXPECT_EQ(decoded.error().code, size < kMagicBytes ? Code::kNotFound : Code::kCorrupt) << size;
  }
  bytes.push_back({});
  expect_error(decode_directory(bytes), {.what = "left over"});
}

// No checksum guards the directory by itself: what is flipped may decode, but to something that obeys the rules.
TEST(DirectoryFormatTest, FlippedBitsNeverBreakTheDecoder) {
  Bytes bytes = encode(samples::directory());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1U << bit % 8);
    bytes[bit / 8] ^= mask;
    if (const auto decoded = decode_directory(bytes)) {
      const auto again = decode_directory(encode(*decoded));
      ASSERT_TRUE(again.has_value() && *again == *decoded) << "bit " << bit;
    }
    bytes[bit / 8] ^= mask;
  }
}

constexpr Change kDirectoryChanges[] = {
    {0, 8, 0, "none is here", Code::kNotFound},
    {8, 4, 2, "another version", Code::kNotSupported},
    {12, 4, 1, "reserved room"},
    {24, 8, uint64_t{1} << 40, "a feature", Code::kNotSupported},
    {56, 4, 0, "next layer's id"},
    {56, 4, 7, "a layer's id is zero or was not given out"},
    {60, 4, 0, "next stamp's ordinal"},
    {60, 4, 5, "a stamp's ordinal was not given out"},
    {64, 4, 0xffffffff, "ends too early"},
    {68, 4, 0xffffffff, "ends too early"},
    {72, 4, 0xffffffff, "ends too early"},
    {76, 4, 0xffffffff, "ends too early"},
    {76, 4, 1, "left over"},
    {76, 4, 3, "ends too early"},
    {80, 1, 1, "reserved room"},
    {95, 1, 1, "reserved room"},
    {96, 4, 0, "lacks one of its copies"},
    {96, 4, 60, "holds map pages twice"},
    {96, 4, 11, "holds map pages twice"},
    {104, 4, 99, "lacks one of its copies"},
    {120, 4, 0, "stamp: its ordinal"},
    {120, 4, 5, "stamps are not ascending"},
    {224, 4, 0, "a layer's id is zero"},
    {224, 4, 3, "layers are not ascending"},
    {228, 4, 1, "parent does not exist"},
    {228, 4, 3, "in a circle"},
    {228, 4, 2, "in a circle"},
    {228, 4, 7, "in a circle"},
    {232, 4, 0xffffffff, "ends too early"},
    {236, 4, 39, "leaves are not ascending"},
    {252, 4, 1 << 24, "behind the last extent"},
    {240, 4, 0, "two leaves have one page"},
    {240, 4, 513, "two leaves have one page"},
    {240, 4, 3 * 1365, "in no page extent"},
    {248, 4, 257, "more than 256 places"},
    {308, 2, 0, "ends too early"},
    {308, 2, 109, "object"},
    {374, 4, 4, "object's layer does not exist"},
    {374, 4, 2, "two objects have one layer"},
    {378, 4, 3, "object's stamp does not exist"},
    {382, 1, 0, "its kind"},
    {422, 1, 9, "objects are not ascending"},
};

TEST(DirectoryFormatTest, EachWrongFieldIsNamed) {
  const Bytes good = encode(samples::directory());
  for (const Change& change : kDirectoryChanges) {
    Bytes bytes = good;
    put(bytes, change.offset, change.width, change.value);
    expect_error(decode_directory(bytes), change);
  }
  Bytes bytes = good;
  std::fill_n(bytes.begin() + 32, 16, std::byte{0});
  expect_error(decode_directory(bytes), {.offset = 32, .what = "pool's id"});
}

TEST(DirectoryFormatTest, NamesAreUnique) {
  Directory directory = samples::directory();
  directory.objects[1].name = "db.2";
  Bytes bytes = encode(directory);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  bytes[text.find("db.2") + 3] = std::byte{'1'};
  expect_error(decode_directory(bytes), {.what = "two objects have one name"});
}

TEST(DirectoryFormatTest, LongChainsOfParents) {
  constexpr uint32_t kLayers = 100'000;
  Directory directory;
  directory.pool_id = samples::uuid(1);
  directory.next_layer = kLayers + 1;
  for (uint32_t id = 1; id <= kLayers; ++id)
    directory.layers.push_back({LayerId(id), LayerId((id + 1) % (kLayers + 1)), {}});
  Bytes bytes = encode(directory);
  EXPECT_TRUE(decode_directory(bytes).has_value());
  put(bytes, bytes.size() - 8, 4, 1);
  expect_error(decode_directory(bytes), {.what = "in a circle"});
}

}  // namespace
}  // namespace fairlead::pool
