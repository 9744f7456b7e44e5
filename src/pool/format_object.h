// The parts that journal records and the directory have in common: objects and stamps. For the format's own files;
// plain functions, any thread.
#pragma once

#include <cstddef>
#include <span>

#include "pool/byte_codec.h"
#include "pool/format.h"

namespace fairlead::pool {

inline constexpr size_t kStampRecordBytes = 52;  // encoded, without a record's header

template <typename Io, typename Value>
void stamp_fields(Io& io, Value& record) {
  io.field(record.ordinal);
  io.field(record.object);
  io.field(record.stamp.term);
  io.field(record.stamp.writer);
  io.field(record.stamp.generation);
}

// Each gives kCorrupt, with what is wrong, for a value that must not be on a disk.
Result<void> check_object(const ObjectState& object);
Result<void> check_stamp(const StampRecord& record);

// Requires: check_object() passes; room for encoded_bytes(object).
void encode_object(ByteWriter& writer, const ObjectState& object);
// Exactly these bytes. Error kCorrupt.
Result<ObjectState> decode_object(std::span<const std::byte> bytes);

}  // namespace fairlead::pool
