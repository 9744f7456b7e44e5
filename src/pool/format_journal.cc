#include <algorithm>
#include <limits>

#include "pool/byte_codec.h"
#include "pool/format.h"
#include "pool/format_object.h"

namespace fairlead::pool {
namespace {

constexpr Magic kMagic = make_magic("FLJBATCH");
constexpr size_t kPayloadBytesOffset = 48;
constexpr size_t kPayloadBytesMax = kBatchBytesMax - kBatchHeaderBytes;
constexpr size_t kRecordHeaderBytes = 4;
constexpr size_t kRecordBytesMin = kRecordHeaderBytes + 4;

struct Shape {
  Magic magic = kMagic;
  uint32_t version = kFormatVersion;
  uint32_t crc = 0;
};

template <typename Io, typename Value, typename HeaderShape>
void header_fields(Io& io, Value& header, HeaderShape& shape) {
  io.bytes(shape.magic);
  io.field(shape.version);
  io.field(shape.crc);
  io.field(header.incarnation);
  io.field(header.sequence);
  io.field(header.durable);
  io.field(header.chain);
  io.field(header.records);
  io.field(header.payload_bytes);
  io.reserved(12);
}

Result<void> check(const BatchHeader& header) {
  if (header.sequence.value == 0) return fail(Code::kCorrupt, "batch: its sequence number is zero");
  if (header.durable > header.sequence) {
    return fail(Code::kCorrupt, "batch: it says that a later one is durable");
  }
  if (header.payload_bytes > kPayloadBytesMax) return fail(Code::kCorrupt, "batch: its payload is too long");
  if (header.records > header.payload_bytes / kRecordBytesMin || (header.records == 0) != (header.payload_bytes == 0)) {
    return fail(Code::kCorrupt, "batch: the number of records does not fit the payload");
  }
  return {};
}

// ---- Records. The numbers are the format's: never used for another thing.

enum class RecordType : uint16_t {
  kEntry = 1,
  kLayer = 2,
  kLayerRemoval = 3,
  kObject = 4,
  kObjectRemoval = 5,
  kStamp = 6,
  kRestamp = 7,
};

// Of each record but ObjectRecord: its type, the bytes of its body, its fields, and what must hold of them.
template <typename T>
struct Traits;

template <>
struct Traits<EntryRecord> {
  static constexpr RecordType kType = RecordType::kEntry;
  static constexpr size_t kBytes = 48;
  static void fields(auto& io, auto& record) {
    io.field(record.layer);
    io.field(record.extent);
    io.field(record.entry.place);
    io.field(record.entry.stamp);
    io.field(record.entry.held);
  }
  // Every Entry has a meaning: see docs/internals/pool-format.md.
  static Result<void> check(const EntryRecord& record) {
    if (record.layer.value == 0) return fail(Code::kCorrupt, "entry record: its layer is zero");
    return {};
  }
};
static_assert(kRecordHeaderBytes + Traits<EntryRecord>::kBytes == kEntryRecordBytes);

template <>
struct Traits<LayerRecord> {
  static constexpr RecordType kType = RecordType::kLayer;
  static constexpr size_t kBytes = 8;
  static void fields(auto& io, auto& record) {
    io.field(record.layer);
    io.field(record.parent);
  }
  static Result<void> check(const LayerRecord& record) {
    if (record.layer.value == 0) return fail(Code::kCorrupt, "layer record: its layer is zero");
    if (record.layer == record.parent) return fail(Code::kCorrupt, "layer record: the layer is its own parent");
    return {};
  }
};

template <>
struct Traits<LayerRemoval> {
  static constexpr RecordType kType = RecordType::kLayerRemoval;
  static constexpr size_t kBytes = 4;
  static void fields(auto& io, auto& record) { io.field(record.layer); }
  static Result<void> check(const LayerRemoval& record) {
    if (record.layer.value == 0) return fail(Code::kCorrupt, "layer removal: its layer is zero");
    return {};
  }
};

template <>
struct Traits<ObjectRemoval> {
  static constexpr RecordType kType = RecordType::kObjectRemoval;
  static constexpr size_t kBytes = 16;
  static void fields(auto& io, auto& record) { io.field(record.id); }
  static Result<void> check(const ObjectRemoval& record) {
    if (record.id.is_nil()) return fail(Code::kCorrupt, "object removal: its id is nil");
    return {};
  }
};

template <>
struct Traits<StampRecord> {
  static constexpr RecordType kType = RecordType::kStamp;
  static constexpr size_t kBytes = kStampRecordBytes;
  static void fields(auto& io, auto& record) { stamp_fields(io, record); }
  static Result<void> check(const StampRecord& record) { return check_stamp(record); }
};

template <>
struct Traits<RestampRecord> {
  static constexpr RecordType kType = RecordType::kRestamp;
  static constexpr size_t kBytes = 16;
  static void fields(auto& io, auto& record) {
    io.field(record.layer);
    io.field(record.first);
    io.field(record.count);
    io.field(record.ordinal);
  }
  static Result<void> check(const RestampRecord& record) {
    if (record.layer.value == 0) return fail(Code::kCorrupt, "restamp record: its layer is zero");
    if (record.ordinal.value == 0) return fail(Code::kCorrupt, "restamp record: its ordinal is zero");
    if (record.count == 0 || record.count > kEntriesPerPage - record.first.value % kEntriesPerPage) {
      return fail(Code::kCorrupt, "restamp record: its range is empty or not within one map page");
    }
    return {};
  }
};

template <typename T>
Result<void> check_record(const T& record) {
  return Traits<T>::check(record);
}
Result<void> check_record(const ObjectRecord& record) { return check_object(record.object); }

template <typename T>
size_t body_bytes(const T&) {
  return Traits<T>::kBytes;
}
size_t body_bytes(const ObjectRecord& record) { return encoded_bytes(record.object); }

template <typename T>
void write_body(ByteWriter& writer, const T& record) {
  Traits<T>::fields(writer, record);
}
void write_body(ByteWriter& writer, const ObjectRecord& record) { encode_object(writer, record.object); }

template <typename T>
constexpr RecordType type_of(const T&) {
  return Traits<T>::kType;
}
constexpr RecordType type_of(const ObjectRecord&) { return RecordType::kObject; }

template <typename T>
Result<Record> decode_fixed(std::span<const std::byte> body) {
  if (body.size() != Traits<T>::kBytes) return fail(Code::kCorrupt, "record: its length is not that of its type");
  ByteReader reader(body);
  T record;
  Traits<T>::fields(reader, record);
  FL_CHECK(!reader.is_short() && reader.remaining() == 0);
  FL_TRY_VOID(check_record(record));
  return record;
}

Result<Record> decode_body(RecordType type, std::span<const std::byte> body) {
  switch (type) {
    case RecordType::kEntry:
      return decode_fixed<EntryRecord>(body);
    case RecordType::kLayer:
      return decode_fixed<LayerRecord>(body);
    case RecordType::kLayerRemoval:
      return decode_fixed<LayerRemoval>(body);
    case RecordType::kObject: {
      FL_TRY(auto object, decode_object(body));
      return ObjectRecord{std::move(object)};
    }
    case RecordType::kObjectRemoval:
      return decode_fixed<ObjectRemoval>(body);
    case RecordType::kStamp:
      return decode_fixed<StampRecord>(body);
    case RecordType::kRestamp:
      return decode_fixed<RestampRecord>(body);
  }
  return fail(Code::kCorrupt, "record: its type is unknown");
}

}  // namespace

uint32_t seal_batch(std::span<std::byte> batch, const BatchHeader& header) {
  require_valid(check(header));
  FL_CHECK(batch.size() == batch_bytes(header.payload_bytes));
  const size_t used = kBatchHeaderBytes + header.payload_bytes;
  ByteWriter writer(batch.first(kBatchHeaderBytes));
  const Shape shape;
  header_fields(writer, header, shape);
  FL_CHECK(writer.room() == 0);
  std::ranges::fill(batch.subspan(used), std::byte{0});
  const uint32_t crc = crc_of_structure(batch.first(used));
  ByteWriter(batch.subspan(kCrcOffset)).field(crc);
  return crc;
}

Result<OpenedBatch> open_batch(std::span<const std::byte> bytes) {
  ByteReader reader(bytes.first(std::min(bytes.size(), kBatchHeaderBytes)));
  OpenedBatch opened;
  Shape shape;
  header_fields(reader, opened.header, shape);
  if (shape.magic != kMagic) return fail(Code::kNotFound, "batch: none is here");
  if (reader.is_short()) return fail(Code::kCorrupt, "batch: it ends within its header");
  const size_t payload = opened.header.payload_bytes;
  if (payload > kPayloadBytesMax) return fail(Code::kCorrupt, "batch: its payload is too long");
  if (batch_bytes(payload) > bytes.size()) return fail(Code::kCorrupt, "batch: it is longer than what is there");
  opened.crc = crc_of_structure(bytes.first(kBatchHeaderBytes + payload));
  if (opened.crc != shape.crc) return fail(Code::kCorrupt, "batch: its checksum is wrong");
  if (shape.version != kFormatVersion) return fail(Code::kNotSupported, "batch: another version of the format");
  if (reader.has_reserved()) return fail(Code::kCorrupt, "batch: reserved room is not zero");
  FL_TRY_VOID(check(opened.header));
  opened.payload = bytes.subspan(kBatchHeaderBytes, payload);
  return opened;
}

size_t peek_batch_bytes(std::span<const std::byte, kPageBytes> page) {
  if (!std::ranges::equal(page.first<kMagicBytes>(), kMagic)) return 0;
  ByteReader reader(page.subspan<kPayloadBytesOffset>());
  const auto payload = reader.take_integer<uint32_t>();
  return payload <= kPayloadBytesMax ? batch_bytes(payload) : 0;
}

void append_record(std::vector<std::byte>& payload, const Record& record) {
  std::visit(
      [&payload](const auto& value) {
        require_valid(check_record(value));
        const size_t body = body_bytes(value);
        static_assert(kObjectBytesMax <= std::numeric_limits<uint16_t>::max());
        const size_t start = payload.size();
        payload.resize(start + kRecordHeaderBytes + body);
        ByteWriter writer(std::span(payload).subspan(start));
        writer.field(static_cast<uint16_t>(type_of(value)));
        writer.field(static_cast<uint16_t>(body));
        write_body(writer, value);
        FL_CHECK(writer.room() == 0);
      },
      record);
}

Result<std::vector<Record>> decode_records(std::span<const std::byte> payload, uint32_t count) {
  if (count > payload.size() / kRecordBytesMin) return fail(Code::kCorrupt, "records: fewer than there should be");
  std::vector<Record> records;
  records.reserve(count);
  ByteReader reader(payload);
  for (uint32_t i = 0; i < count; ++i) {
    if (reader.remaining() == 0) return fail(Code::kCorrupt, "records: fewer than there should be");
    const auto type = reader.take_integer<uint16_t>();
    const auto body = reader.take(reader.take_integer<uint16_t>());
    if (reader.is_short()) return fail(Code::kCorrupt, "record: it ends behind the payload");
    FL_TRY(Record record, decode_body(static_cast<RecordType>(type), body));
    records.push_back(std::move(record));
  }
  if (reader.remaining() != 0) return fail(Code::kCorrupt, "records: bytes are left over behind them");
  return records;
}

}  // namespace fairlead::pool
