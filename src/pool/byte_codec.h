// ByteWriter and ByteReader: little-endian fields to and from bytes, for the format's own files. Both have the same
// field(), so that one list of fields encodes and decodes a structure. Plain values; any thread.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/units.h"
#include "base/uuid.h"
#include "pool/unit_set.h"

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

// Requires of all fields together: no more bytes than there are.
class ByteWriter {
 public:
  // `bytes` is borrowed for the writer's life.
  explicit ByteWriter(std::span<std::byte> bytes) : rest_(bytes) {}

  template <std::unsigned_integral T>
  void field(T value) {
    const LittleEndian<T> encoded(value);
    bytes(std::as_bytes(std::span(&encoded, 1)));
  }
  template <typename Tag, typename Rep>
  void field(Strong<Tag, Rep> value) {
    field(value.value);
  }
  void field(const UnitSet& units) {
    for (const uint64_t word : units.words()) field(word);
  }
  void field(const Uuid& uuid) { bytes(std::as_bytes(std::span(uuid.bytes))); }
  void bytes(std::span<const std::byte> source) {
    FL_CHECK(source.size() <= rest_.size());
    std::ranges::copy(source, rest_.begin());
    rest_ = rest_.subspan(source.size());
  }
  void reserved(size_t size) {
    FL_CHECK(size <= rest_.size());
    std::ranges::fill(rest_.first(size), std::byte{0});
    rest_ = rest_.subspan(size);
  }
  size_t room() const { return rest_.size(); }

 private:
  std::span<std::byte> rest_;
};

// Behind the end all fields are zero, and is_short() says so from then on.
class ByteReader {
 public:
  // `bytes` is borrowed for the reader's life, and for that of what take() returns.
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <std::unsigned_integral T>
  void field(T& value) {
    LittleEndian<T> encoded;
    bytes(std::as_writable_bytes(std::span(&encoded, 1)));
    value = encoded.get();
  }
  template <typename Tag, typename Rep>
  void field(Strong<Tag, Rep>& value) {
    field(value.value);
  }
  void field(UnitSet& units) {
    std::array<uint64_t, UnitSet::kWords> words{};
    for (uint64_t& word : words) field(word);
    units = UnitSet(words);
  }
  void field(Uuid& uuid) { bytes(std::as_writable_bytes(std::span(uuid.bytes))); }
  void bytes(std::span<std::byte> target) {
    const auto source = take(target.size());
    std::ranges::copy(source, target.begin());
    if (source.size() < target.size()) std::ranges::fill(target, std::byte{0});
  }
  // Reads over `size` bytes and notes whether they are zero.
  void reserved(size_t size) {
    for (const std::byte byte : take(size)) has_reserved_ |= byte != std::byte{0};
  }
  // The next `size` bytes, or none at all.
  std::span<const std::byte> take(size_t size) {
    if (size > rest_.size()) {
      is_short_ = true;
      rest_ = {};
      return {};
    }
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }
  template <std::unsigned_integral T>
  T take_integer() {
    T value = 0;
    field(value);
    return value;
  }

  size_t remaining() const { return rest_.size(); }
  bool is_short() const { return is_short_; }
  bool has_reserved() const { return has_reserved_; }  // a reserved byte was not zero

 private:
  std::span<const std::byte> rest_;
  bool is_short_ = false;
  bool has_reserved_ = false;
};

// Aborts, naming what is wrong, unless the check passed: what is encoded obeys what is decoded.
inline void require_valid(const Result<void>& checked) {
  if (!checked) [[unlikely]]
    check_failed(checked.error().what, __FILE__, __LINE__);
}

}  // namespace fairlead::pool
