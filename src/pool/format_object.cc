#include "pool/format_object.h"

#include <algorithm>

namespace fairlead::pool {
namespace {

constexpr size_t kObjectFixedBytes = 80;
constexpr size_t kLabelOverhead = 2;
constexpr size_t kPropertyOverhead = 4;
constexpr uint8_t kThick = 1;
constexpr uint64_t kSectorBytes = 512;  // no logical block is smaller
// What 32-bit extent indices reach with the largest extents.
constexpr uint64_t kObjectSizeMax = (uint64_t{1} << 32) * kExtentBytesMax;

struct Shape {
  uint8_t kind = 0;
  uint8_t flags = 0;
  uint8_t name_bytes = 0;
  uint16_t labels = 0;
  uint16_t properties = 0;
};

template <typename Io, typename Object, typename ObjectShape>
void fixed_fields(Io& io, Object& object, ObjectShape& shape) {
  io.field(object.id);
  io.field(object.origin);
  io.field(object.volume_id);
  io.field(object.size_bytes);
  io.field(object.created_ms);
  io.field(object.layer);
  io.field(object.stamp);
  io.field(shape.kind);
  io.field(shape.flags);
  io.field(shape.name_bytes);
  io.reserved(1);
  io.field(shape.labels);
  io.field(shape.properties);
}

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string take_text(ByteReader& reader, size_t size) {
  const auto bytes = reader.take(size);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<void> check_attributes(const ObjectState& object) {
  if (object.labels.size() > kLabelsMax) return fail(Code::kCorrupt, "object: more labels than the limit");
  for (size_t i = 0; i < object.labels.size(); ++i) {
    const Label& label = object.labels[i];
    if (label.key.empty() || label.key.size() > kLabelBytesMax) {
      return fail(Code::kCorrupt, "object: a label's key is empty or too long");
    }
    if (label.value.size() > kLabelBytesMax) return fail(Code::kCorrupt, "object: a label's value is too long");
    if (i > 0 && object.labels[i - 1].key >= label.key) {
      return fail(Code::kCorrupt, "object: the labels are not in the order of their keys, or a key is there twice");
    }
  }
  for (size_t i = 0; i < object.properties.size(); ++i) {
    const Property& property = object.properties[i];
    if (property.value.size() > kPropertyBytesMax) {
      return fail(Code::kCorrupt, "object: a property's value is too long");
    }
    if (i > 0 && object.properties[i - 1].key >= property.key) {
      return fail(Code::kCorrupt, "object: the properties are not in the order of their keys, or a key is there twice");
    }
  }
  return {};
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

}  // namespace

bool is_valid_name(std::string_view name) {
  if (name.empty() || name.size() > kNameBytesMax) return false;
  if (name[0] == '.' || name[0] == '-') return false;
  return std::ranges::all_of(name, is_name_character);
}

size_t encoded_bytes(const ObjectState& object) {
  size_t bytes = kObjectFixedBytes + object.name.size();
  for (const Label& label : object.labels) bytes += kLabelOverhead + label.key.size() + label.value.size();
  for (const Property& property : object.properties) bytes += kPropertyOverhead + property.value.size();
  return bytes;
}

Result<void> check_object(const ObjectState& object) {
  if (object.id.is_nil()) return fail(Code::kCorrupt, "object: its id is nil");
  if (object.origin == object.id) return fail(Code::kCorrupt, "object: it is its own origin");
  if (!is_valid_name(object.name)) return fail(Code::kCorrupt, "object: its name is not valid");
  if (object.kind != ObjectKind::kReplica && object.kind != ObjectKind::kSnapshot) {
    return fail(Code::kCorrupt, "object: its kind is neither replica nor snapshot");
  }
  if (object.layer.value == 0) return fail(Code::kCorrupt, "object: it has no layer");
  if (object.size_bytes == 0 || !is_aligned(object.size_bytes, kSectorBytes) || object.size_bytes > kObjectSizeMax) {
    return fail(Code::kCorrupt, "object: its size is zero, no multiple of 512, or above 64 PiB");
  }
  FL_TRY_VOID(check_attributes(object));
  if (encoded_bytes(object) > kObjectBytesMax) return fail(Code::kCorrupt, "object: longer than 16 KiB");
  return {};
}

Result<void> check_stamp(const StampRecord& record) {
  if (record.ordinal.value == 0) return fail(Code::kCorrupt, "stamp: its ordinal is zero");
  if (record.object.is_nil()) return fail(Code::kCorrupt, "stamp: its object is nil");
  return {};
}

void encode_object(ByteWriter& writer, const ObjectState& object) {
  const Shape shape{static_cast<uint8_t>(object.kind), object.is_thick ? kThick : uint8_t{0},
                    static_cast<uint8_t>(object.name.size()), static_cast<uint16_t>(object.labels.size()),
                    static_cast<uint16_t>(object.properties.size())};
  fixed_fields(writer, object, shape);
  writer.bytes(bytes_of(object.name));
  for (const Label& label : object.labels) {
    writer.field(static_cast<uint8_t>(label.key.size()));
    writer.field(static_cast<uint8_t>(label.value.size()));
    writer.bytes(bytes_of(label.key));
    writer.bytes(bytes_of(label.value));
  }
  for (const Property& property : object.properties) {
    writer.field(property.key);
    writer.field(static_cast<uint16_t>(property.value.size()));
    writer.bytes(property.value);
  }
}

Result<ObjectState> decode_object(std::span<const std::byte> bytes) {
  if (bytes.size() > kObjectBytesMax) return fail(Code::kCorrupt, "object: longer than 16 KiB");
  ByteReader reader(bytes);
  ObjectState object;
  Shape shape;
  fixed_fields(reader, object, shape);
  if ((shape.flags & ~kThick) != 0) return fail(Code::kCorrupt, "object: it has an unknown flag");
  if (reader.has_reserved()) return fail(Code::kCorrupt, "object: reserved room is not zero");
  object.kind = static_cast<ObjectKind>(shape.kind);
  object.is_thick = (shape.flags & kThick) != 0;
  object.name = take_text(reader, shape.name_bytes);
  for (size_t i = 0; i < shape.labels && !reader.is_short(); ++i) {
    const auto key = reader.take_integer<uint8_t>();
    const auto value = reader.take_integer<uint8_t>();
    Label& label = object.labels.emplace_back();
    label.key = take_text(reader, key);
    label.value = take_text(reader, value);
  }
  for (size_t i = 0; i < shape.properties && !reader.is_short(); ++i) {
    Property& property = object.properties.emplace_back();
    reader.field(property.key);
    const auto value = reader.take(reader.take_integer<uint16_t>());
    property.value.assign(value.begin(), value.end());
  }
  if (reader.is_short()) return fail(Code::kCorrupt, "object: it ends too early");
  if (reader.remaining() != 0) return fail(Code::kCorrupt, "object: bytes are left over behind it");
  FL_TRY_VOID(check_object(object));
  return object;
}

}  // namespace fairlead::pool
