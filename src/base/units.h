// Strong integer types and byte sizes as people write them.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace fairlead {

// An integer that mixes with no other: explicit to make, explicit to take apart.
template <typename Tag, typename Rep>
struct Strong {
  Rep value = 0;
  constexpr Strong() = default;
  constexpr explicit Strong(Rep v) : value(v) {}
  friend constexpr auto operator<=>(Strong, Strong) = default;
};

using ByteOffset = Strong<struct ByteOffsetTag, uint64_t>;
using Lba = Strong<struct LbaTag, uint64_t>;
using ShardId = Strong<struct ShardIdTag, uint16_t>;

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kTiB = 1024 * kGiB;

// Bytes from "4096", "4KiB", "1.5 GiB", "2G" (binary, as in dd and qemu-img) or "10GB" (decimal).
// Error kInvalidArgument: not of that form, not a whole number of bytes, or above 2^63 - 1.
Result<uint64_t> parse_size(std::string_view text);

// The shortest exact form in binary units: "4 KiB", "1.5 GiB", "1000 B".
std::string format_size(uint64_t bytes);

constexpr bool is_power_of_two(uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }
// Requires: alignment is a power of two.
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) { return value & ~(alignment - 1); }
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) { return align_down(value + alignment - 1, alignment); }
constexpr bool is_aligned(uint64_t value, uint64_t alignment) { return (value & (alignment - 1)) == 0; }

}  // namespace fairlead
