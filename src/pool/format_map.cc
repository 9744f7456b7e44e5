// Map pages: place, stamp and units of each entry, one after the other.
#include <algorithm>

#include "pool/byte_codec.h"
#include "pool/format.h"

namespace fairlead::pool {
namespace {

void entry_fields(auto& io, auto& entry) {
  io.field(entry.place);
  io.field(entry.stamp);
  io.field(entry.held);
}

}  // namespace

void encode_map(const MapEntries& entries, std::span<std::byte, kMapPageBytes> bytes) {
  std::ranges::fill(bytes, std::byte{0});
  ByteWriter writer(bytes);
  for (const Entry& entry : entries) entry_fields(writer, entry);
}

void decode_map(std::span<const std::byte, kMapPageBytes> bytes, MapEntries& entries) {
  ByteReader reader(bytes);
  for (Entry& entry : entries) entry_fields(reader, entry);
}

}  // namespace fairlead::pool
