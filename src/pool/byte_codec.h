// What all structures of the on-disk format have at their beginning. Plain values; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/byte_codec.h"
#include "base/crc32c.h"
#include "base/error.h"

namespace fairlead::pool {

// Every structure begins with magic (8 bytes), version (4) and CRC32C or reserved room (4), in every version.
inline constexpr size_t kMagicBytes = 8;
inline constexpr size_t kCrcOffset = 12;
using Magic = std::array<std::byte, kMagicBytes>;
// Requires: 8 characters.
consteval Magic make_magic(const char (&text)[kMagicBytes + 1]) {
  Magic magic;
  for (size_t i = 0; i < kMagicBytes; ++i) magic[i] = static_cast<std::byte>(text[i]);
  return magic;
}

// CRC32C of the bytes as if those of the CRC were zero. Requires: kCrcOffset + 4 bytes at least.
inline uint32_t crc_of_structure(std::span<const std::byte> bytes) {
  constexpr std::array<std::byte, sizeof(uint32_t)> kZeroes{};
  Crc32c crc;
  crc.update(bytes.first(kCrcOffset));
  crc.update(kZeroes);
  crc.update(bytes.subspan(kCrcOffset + kZeroes.size()));
  return crc.value();
}

// Aborts, naming what is wrong, unless the check passed: what is encoded obeys what is decoded.
inline void require_valid(const Result<void>& checked) {
  if (!checked) [[unlikely]]
    check_failed(checked.error().what, __FILE__, __LINE__);
}

}  // namespace fairlead::pool
