// Any bytes as what a pool's disk holds. What decodes must encode again, and that must decode to the same.
//
// Input: byte 0 picks the decoder: 0 superblock (a page, the rest zero), 1 batch and its records, 2 directory,
// 3 records alone, as many as byte 1 says. Checksums are mended first, so that the fuzzer gets past them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "pool/byte_codec.h"
#include "pool/format.h"

namespace fairlead::pool {
namespace {

using Bytes = std::vector<std::byte>;

void check_error(const Error& error) {
  FL_CHECK(error.code == Code::kCorrupt || error.code == Code::kNotSupported || error.code == Code::kNotFound);
  FL_CHECK(error.what != nullptr && error.what[0] != '\0');
}

// Requires: `used` bytes belong to the structure.
void mend_crc(std::span<std::byte> bytes, size_t used) {
  if (used < kCrcOffset + sizeof(uint32_t) || used > bytes.size()) return;
  ByteWriter(bytes.subspan(kCrcOffset)).field(crc_of_structure(bytes.first(used)));
}

void run_superblock(std::span<const std::byte> input) {
  Page page{};
  std::ranges::copy(input.first(std::min(input.size(), page.size())), page.begin());
  mend_crc(page, page.size());
  const auto decoded = decode_superblock(page);
  if (!decoded) return check_error(decoded.error());
  const auto again = decode_superblock(encode(*decoded));
  FL_CHECK(again.has_value() && *again == *decoded);
}

void run_records(std::span<const std::byte> payload, uint32_t count) {
  const auto decoded = decode_records(payload, count);
  if (!decoded) return check_error(decoded.error());
  FL_CHECK(decoded->size() == count);
  Bytes encoded;
  for (const Record& record : *decoded) append_record(encoded, record);
  FL_CHECK(std::ranges::equal(encoded, payload));  // one encoding each
}

void run_batch(std::span<const std::byte> input) {
  Bytes bytes(input.begin(), input.end());
  bytes.resize(align_up(std::max<size_t>(bytes.size(), 1), kPageBytes));
  const size_t peeked = peek_batch_bytes(std::span<const std::byte>(bytes).first<kPageBytes>());
  FL_CHECK(peeked <= kBatchBytesMax && peeked % kPageBytes == 0);
  uint32_t payload = 0;
  ByteReader(std::span<const std::byte>(bytes).subspan(48)).field(payload);
  mend_crc(bytes, kBatchHeaderBytes + payload);
  const auto opened = open_batch(bytes);
  if (!opened) return check_error(opened.error());
  FL_CHECK(opened->header.payload_bytes == opened->payload.size());
  FL_CHECK(peeked == batch_bytes(opened->payload.size()));
  Bytes again(peeked, std::byte{0xff});
  std::ranges::copy(opened->payload, again.begin() + kBatchHeaderBytes);
  FL_CHECK(seal_batch(again, opened->header) == opened->crc);
  const size_t used = kBatchHeaderBytes + opened->payload.size();
  FL_CHECK(std::ranges::equal(std::span(again).first(used), std::span(bytes).first(used)));
  run_records(opened->payload, opened->header.records);
}

void run_directory(std::span<const std::byte> input) {
  const auto decoded = decode_directory(input);
  if (!decoded) return check_error(decoded.error());
  const Bytes encoded = encode(*decoded);
  FL_CHECK(encoded.size() == input.size());
  const auto again = decode_directory(encoded);
  FL_CHECK(again.has_value() && *again == *decoded);
}

void run(std::span<const std::byte> input) {
  if (input.size() < 2) return;
  switch (static_cast<uint8_t>(input[0]) % 4) {
    case 0:
      return run_superblock(input.subspan(1));
    case 1:
      return run_batch(input.subspan(1));
    case 2:
      return run_directory(input.subspan(1));
    default:
      return run_records(input.subspan(2), static_cast<uint8_t>(input[1]));
  }
}

}  // namespace
}  // namespace fairlead::pool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fairlead::pool::run(std::as_bytes(std::span(data, size)));
  return 0;
}
