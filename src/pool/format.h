// What a pool's disks hold, version 1: the structures as values, and their one encoding, which validates everything.
// docs/internals/pool-format.md describes the bytes. Plain functions on bytes: no I/O, any thread.
//
// decode() and open_batch() take bytes as hostile: error kCorrupt, its text naming what is wrong, kNotSupported for a
// version or a feature that is not ours, kNotFound where there is no structure of ours at all (another magic).
// What is encoded is checked likewise, by an abort.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "base/uuid.h"
#include "pool/unit_set.h"

namespace fairlead::pool {

inline constexpr uint32_t kFormatVersion = 1;

// The number of an extent of the pool, from 1 on; 0: none.
using Place = Strong<struct PlaceTag, uint32_t>;
// The number of an extent of a replica, from 0 on.
using ExtentIndex = Strong<struct ExtentIndexTag, uint32_t>;
// A map. 0: none.
using LayerId = Strong<struct LayerIdTag, uint32_t>;
// The number of a batch of the journal, from 1 on, never used twice in the life of a pool.
using Sequence = Strong<struct SequenceTag, uint64_t>;
// Stands for a Stamp; greater ones are newer. 0: none, older than all.
using StampOrdinal = Strong<struct StampOrdinalTag, uint32_t>;

inline constexpr size_t kPageBytes = 4096;
inline constexpr size_t kEntriesPerPage = 256;

inline constexpr uint32_t kExtentBytesMin = 64 * kKiB;
inline constexpr uint32_t kExtentBytesMax = 16 * kMiB;
inline constexpr uint32_t kExtentBytesDefault = 1 * kMiB;
inline constexpr uint32_t kUnitBytesDefault = 4 * kKiB;

inline constexpr size_t kDisksMax = 32;
inline constexpr size_t kSegmentsMax = 64;
inline constexpr size_t kDirectoryExtentsMax = 128;  // of each copy
inline constexpr size_t kCopies = 2;                 // of all metadata
inline constexpr size_t kNameBytesMax = 63;
inline constexpr size_t kLabelsMax = 64;
inline constexpr size_t kLabelBytesMax = 255;      // of a key, and of a value
inline constexpr size_t kPropertyBytesMax = 4096;  // of a value
inline constexpr size_t kObjectBytesMax = 16 * kKiB;
inline constexpr size_t kBatchBytesMax = 64 * kKiB;  // header and padding included
inline constexpr uint64_t kJournalBytesMin = 8 * kBatchBytesMax;

// ---- Superblock: twice on each disk, at these offsets; one page. The spare one is for when one of the two cannot be
// written, and blank otherwise.
inline constexpr std::array<uint64_t, kCopies> kSuperblockOffsets = {0, 64 * kKiB};
inline constexpr uint64_t kSpareSuperblockOffset = 96 * kKiB;
inline constexpr uint64_t kHeadBytes = 128 * kKiB;  // of each disk; what follows begins at a multiple of extent_bytes

struct DiskMember {
  Uuid id;
  uint64_t size_bytes = 0;
  friend bool operator==(const DiskMember&, const DiskMember&) = default;
};

// `count` extents, from `first` on, lie on disk `disk` one after the other from its byte disk_extent * extent_bytes on.
// Segments follow each other without a gap: the first begins at place 1.
struct Segment {
  Place first;
  uint32_t count = 0;
  uint16_t disk = 0;
  uint32_t disk_extent = 0;
  friend bool operator==(const Segment&, const Segment&) = default;
};

struct JournalArea {
  uint16_t disk = 0;
  uint64_t offset = 0;  // bytes
  friend bool operator==(const JournalArea&, const JournalArea&) = default;
};

struct Superblock {
  // The pool, and what it is made of.
  Uuid pool_id;
  std::string name;            // 1 to kNameBytesMax bytes, is_valid_name()
  uint64_t created_ms = 0;     // wall clock
  uint32_t extent_bytes = 0;   // power of two, kExtentBytesMin to kExtentBytesMax
  uint32_t logical_block = 0;  // bytes: the largest of its disks; 512 to 4096
  // Of copy-on-write: power of two, logical_block to extent_bytes, extent_bytes / kUnitsMax at least.
  uint32_t unit_bytes = 0;
  std::vector<DiskMember> disks;             // by index; 1 to kDisksMax
  std::vector<Segment> segments;             // 1 to kSegmentsMax
  std::array<JournalArea, kCopies> journal;  // offsets: multiples of kPageBytes behind the head
  uint64_t journal_bytes = 0;                // of each area; multiple of kPageBytes

  // This disk.
  uint16_t disk_index = 0;  // in `disks`

  // Who has it.
  uint64_t generation = 0;   // of the superblock: the greatest counts
  uint64_t incarnation = 0;  // drawn at each import: batches of others are not ours
  Uuid boot_id;              // of the kernel that imported it last
  bool is_exported = false;  // in order: nothing is in the journal
  bool is_destroyed = false;

  // The checkpoint: everything up to its batch is in the directory.
  Sequence next_sequence{1};  // of the first batch after it
  uint64_t journal_position =
      0;                         // bytes from the area's start to where that batch is looked for; the end: at the start
  uint32_t chain = 0;            // what that batch continues
  uint64_t directory_bytes = 0;  // 0: there was no checkpoint yet
  uint32_t directory_crc = 0;
  std::array<std::vector<Place>, kCopies> directory;  // the extents that hold it, in order

  friend bool operator==(const Superblock&, const Superblock&) = default;
};

using Page = std::array<std::byte, kPageBytes>;
// Requires: what decode() demands.
Page encode(const Superblock& superblock);
Result<Superblock> decode_superblock(std::span<const std::byte, kPageBytes> bytes);

// 1 to kNameBytesMax letters, digits, '.', '_', '-', the first no '.' and no '-'.
bool is_valid_name(std::string_view name);

// ---- Map pages: kEntriesPerPage entries, whose CRC stands in the directory.

// What a layer has of one extent of its address range. Units (see Layout) that are held are read from `place`, or are
// zeroes when it is 0; of the others the parent knows, and where there is none they are zeroes. So every combination
// has a meaning: a place with nothing held is room that waits for its first write.
struct Entry {
  Place place;
  StampOrdinal stamp;
  UnitSet held;

  bool is_absent() const { return place.value == 0 && stamp.value == 0 && !held.any(); }
  friend bool operator==(const Entry&, const Entry&) = default;
};
inline constexpr size_t kMapPageBytes = 3 * kPageBytes;
using MapBytes = std::array<std::byte, kMapPageBytes>;
using MapEntries = std::array<Entry, kEntriesPerPage>;
void encode_map(const MapEntries& entries, std::span<std::byte, kMapPageBytes> bytes);
void decode_map(std::span<const std::byte, kMapPageBytes> bytes, MapEntries& entries);

// ---- Objects: replicas and snapshots.

// When an extent was last written, as replication counts.
struct Stamp {
  uint64_t term = 0;
  Uuid writer;
  uint64_t generation = 0;
  friend auto operator<=>(const Stamp&, const Stamp&) = default;
};

enum class ObjectKind : uint8_t { kReplica = 1, kSnapshot = 2 };

struct Property {
  uint16_t key = 0;  // what it means is its owner's affair
  std::vector<std::byte> value;
  friend bool operator==(const Property&, const Property&) = default;
};
struct Label {
  std::string key;
  std::string value;
  friend bool operator==(const Label&, const Label&) = default;
};

struct ObjectState {
  Uuid id;           // not nil
  std::string name;  // is_valid_name()
  ObjectKind kind = ObjectKind::kReplica;
  bool is_thick = false;
  LayerId layer;
  uint64_t size_bytes = 0;  // multiple of the logical block (of 512, as far as decoding checks), not 0
  uint64_t created_ms = 0;
  Uuid origin;                       // of a snapshot its replica, of a clone its snapshot; else nil
  Uuid volume_id;                    // nil: none
  StampOrdinal stamp;                // what writes are stamped with; 0: no stamps
  std::vector<Label> labels;         // by key, no key twice
  std::vector<Property> properties;  // likewise
  friend bool operator==(const ObjectState&, const ObjectState&) = default;
};
// Bytes of its encoding; kObjectBytesMax is the limit.
size_t encoded_bytes(const ObjectState& object);

// ---- Journal: batches, each at a multiple of kPageBytes of the area, padded to one. A batch that does not fit before
// the end of the area stands at its start.

struct BatchHeader {
  uint64_t incarnation = 0;
  Sequence sequence;
  uint32_t chain = 0;  // crc of the batch before
  // Every batch up to this one, and all data that they make visible, is on stable storage. The batch's own number
  // when that is so as soon as the batch can be read.
  Sequence durable;
  uint32_t records = 0;
  uint32_t payload_bytes = 0;
  friend bool operator==(const BatchHeader&, const BatchHeader&) = default;
};
inline constexpr size_t kBatchHeaderBytes = 64;
constexpr size_t batch_bytes(size_t payload) { return align_up(kBatchHeaderBytes + payload, kPageBytes); }

// Writes the header before the payload and zeroes behind it, and returns the batch's crc. Requires: `batch` has
// batch_bytes(header.payload_bytes) bytes, the payload at kBatchHeaderBytes.
uint32_t seal_batch(std::span<std::byte> batch, const BatchHeader& header);

struct OpenedBatch {
  BatchHeader header;
  uint32_t crc = 0;
  std::span<const std::byte> payload;  // of the bytes given
};
// The batch that `bytes` begin with; they may go on behind it, and are all there is when a batch would be longer
// (then kCorrupt).
Result<OpenedBatch> open_batch(std::span<const std::byte> bytes);
// How long the batch is that the page begins, by a header that was not checked: how much to read for open_batch().
// 0: no batch of ours.
size_t peek_batch_bytes(std::span<const std::byte, kPageBytes> page);

// A layer's entry becomes this.
struct EntryRecord {
  LayerId layer;
  ExtentIndex extent;
  Entry entry;
  friend bool operator==(const EntryRecord&, const EntryRecord&) = default;
};
// A new, empty layer; or another parent for one that is there.
struct LayerRecord {
  LayerId layer;
  LayerId parent;
  friend bool operator==(const LayerRecord&, const LayerRecord&) = default;
};
// The layer and all its entries go.
struct LayerRemoval {
  LayerId layer;
  friend bool operator==(const LayerRemoval&, const LayerRemoval&) = default;
};
// A new object, or another state of one that is there.
struct ObjectRecord {
  ObjectState object;
  friend bool operator==(const ObjectRecord&, const ObjectRecord&) = default;
};
struct ObjectRemoval {
  Uuid id;
  friend bool operator==(const ObjectRemoval&, const ObjectRemoval&) = default;
};
// What an ordinal stands for.
struct StampRecord {
  StampOrdinal ordinal;
  Uuid object;  // whose generation it began
  Stamp stamp;
  friend bool operator==(const StampRecord&, const StampRecord&) = default;
};
// Each of `count` extents from `first` on that the layer has an entry for was written under another ordinal.
struct RestampRecord {
  LayerId layer;
  ExtentIndex first;
  uint32_t count = 0;
  StampOrdinal ordinal;
  friend bool operator==(const RestampRecord&, const RestampRecord&) = default;
};
using Record =
    std::variant<EntryRecord, LayerRecord, LayerRemoval, ObjectRecord, ObjectRemoval, StampRecord, RestampRecord>;

inline constexpr size_t kEntryRecordBytes = 52;  // encoded
// Requires: what decode_records() demands.
void append_record(std::vector<std::byte>& payload, const Record& record);
// All or an error.
Result<std::vector<Record>> decode_records(std::span<const std::byte> payload, uint32_t count);

// ---- Directory: everything but the map pages, as of a checkpoint.

// Where a map page is: page `address` % pages per extent of the page extent `address` / pages per extent, by its
// number in Directory::page_extents.
struct LeafRef {
  uint32_t leaf = 0;     // entries of extents [leaf * kEntriesPerPage, + kEntriesPerPage)
  uint32_t address = 0;  // of the page
  uint32_t crc = 0;      // CRC32C of the page
  uint32_t places = 0;   // entries with a place, 0 to kEntriesPerPage
  friend bool operator==(const LeafRef&, const LeafRef&) = default;
};

// Extents that hold map pages, each page in both.
struct PageExtent {
  std::array<Place, kCopies> places;
  friend bool operator==(const PageExtent&, const PageExtent&) = default;
};

struct LayerState {
  LayerId id;
  LayerId parent;               // 0: none
  std::vector<LeafRef> leaves;  // ascending
  friend bool operator==(const LayerState&, const LayerState&) = default;
};

struct Directory {
  Uuid pool_id;
  Sequence sequence;  // of the last batch that it contains
  uint32_t next_layer = 1;
  uint32_t next_stamp = 1;
  std::vector<PageExtent> page_extents;  // {0, 0}: unused number
  std::vector<StampRecord> stamps;       // ascending ordinals
  std::vector<LayerState> layers;        // ascending ids
  std::vector<ObjectState> objects;      // ascending ids
  friend bool operator==(const Directory&, const Directory&) = default;
};

// Requires: what decode_directory() demands.
std::vector<std::byte> encode(const Directory& directory);
// Checks what can be checked without the superblock: order, uniqueness of ids, names and pages, parents that exist and
// come in no circle, each object's layer, which no other object has, and its stamp. The CRC stands in the superblock.
Result<Directory> decode_directory(std::span<const std::byte> bytes);

}  // namespace fairlead::pool
