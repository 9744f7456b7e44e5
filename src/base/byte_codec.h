// ByteWriter and ByteReader: little-endian fields to and from bytes, for formats on disks and between engines. Both have
// the same field(), so that one list of fields encodes and decodes a structure: a type of fields has a static
// describe(io, self) that calls io.field() for each. Plain values; any thread.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/endian.h"
#include "base/units.h"
#include "base/uuid.h"

namespace fairlead {

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
  template <typename T>
    requires requires(ByteWriter& io, const T& value) { T::describe(io, value); }
  void field(const T& value) {
    T::describe(*this, value);
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
  template <typename T>
    requires requires(ByteReader& io, T& value) { T::describe(io, value); }
  void field(T& value) {
    T::describe(*this, value);
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

}  // namespace fairlead
