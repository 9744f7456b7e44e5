// Little-endian integers of wire and disk structures: no alignment, no padding, no surprise on any host.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace fairlead {

// Holds sizeof(T) bytes in little-endian order, with alignment 1; trivially copyable.
template <typename T>
  requires std::is_unsigned_v<T>
class LittleEndian {
 public:
  constexpr LittleEndian() = default;
  constexpr LittleEndian(T value) : bytes_(encode(value)) {}  // NOLINT: implicit by intent, it stands for a T
  constexpr operator T() const { return get(); }              // NOLINT
  constexpr T get() const {
    const T raw = std::bit_cast<T>(bytes_);
    if constexpr (std::endian::native == std::endian::big && sizeof(T) > 1) return std::byteswap(raw);
    return raw;
  }

 private:
  struct Bytes {
    unsigned char b[sizeof(T)] = {};
  };
  static constexpr Bytes encode(T value) {
    if constexpr (std::endian::native == std::endian::big && sizeof(T) > 1) value = std::byteswap(value);
    return std::bit_cast<Bytes>(value);
  }
  Bytes bytes_;
};

using Le16 = LittleEndian<uint16_t>;
using Le32 = LittleEndian<uint32_t>;
using Le64 = LittleEndian<uint64_t>;
static_assert(sizeof(Le64) == 8 && alignof(Le64) == 1 && std::is_trivially_copyable_v<Le64>);

}  // namespace fairlead
