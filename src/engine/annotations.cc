#include "engine/annotations.h"

#include "base/byte_codec.h"
#include "pool/format.h"

namespace fairlead::engine {
namespace {

size_t encoded_bytes(const Annotations& annotations) {
  size_t bytes = 0;
  for (const auto& [key, value] : annotations) bytes += 2 * sizeof(uint16_t) + key.size() + value.size();
  return bytes;
}

void put(ByteWriter& writer, const std::string& text) {
  writer.field(static_cast<uint16_t>(text.size()));
  writer.bytes(std::as_bytes(std::span(text)));
}

std::string take(ByteReader& reader) {
  uint16_t size = 0;
  reader.field(size);
  const std::span<const std::byte> bytes = reader.take(size);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

Result<void> check(const Annotations& annotations) {
  if (annotations.size() > kAnnotationsMax) return fail(Code::kInvalidArgument, "a replica has at most 64 annotations");
  for (const auto& [key, value] : annotations) {
    if (key.empty() || key.size() > kAnnotationKeyBytesMax) {
      return fail(Code::kInvalidArgument, "the key of an annotation has 1 to 253 bytes");
    }
    if (value.size() > kAnnotationValueBytesMax) {
      return fail(Code::kInvalidArgument, "the value of an annotation has at most 2048 bytes");
    }
  }
  if (encoded_bytes(annotations) > pool::kPropertyBytesMax) {
    return fail(Code::kInvalidArgument, "the annotations of a replica have at most 4 KiB in all");
  }
  return {};
}

std::vector<std::byte> encode(const Annotations& annotations) {
  std::vector<std::byte> bytes(encoded_bytes(annotations));
  ByteWriter writer(bytes);
  for (const auto& [key, value] : annotations) {
    put(writer, key);
    put(writer, value);
  }
  return bytes;
}

Result<Annotations> decode_annotations(std::span<const std::byte> bytes) {
  Annotations annotations;
  ByteReader reader(bytes);
  while (reader.remaining() > 0) {
    std::string key = take(reader);
    annotations[std::move(key)] = take(reader);
    if (reader.is_short()) return fail(Code::kCorrupt, "annotations");
  }
  return annotations;
}

}  // namespace fairlead::engine
