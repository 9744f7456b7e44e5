// UUIDs (RFC 9562): as 16 bytes in network order, as text, random, and derived from a name.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace fairlead {

struct Uuid {
  std::array<uint8_t, 16> bytes{};  // network order: as NVMe's UUID descriptor carries it

  friend auto operator<=>(const Uuid&, const Uuid&) = default;
  bool is_nil() const { return *this == Uuid{}; }
};

// Version 4 from 128 random bits.
Uuid uuid_from_random(uint64_t high, uint64_t low) noexcept;
// Version 5 (SHA-1): the same name gives the same UUID, on every machine and after each restart.
Uuid uuid_from_name(const Uuid& name_space, std::string_view name);
// The name space for all names that Fairlead derives UUIDs from.
inline constexpr Uuid kFairleadNamespace{
    {0x6f, 0x0d, 0x3b, 0x5e, 0x5c, 0x1d, 0x4c, 0x36, 0x9a, 0x53, 0x1a, 0x8e, 0x27, 0x74, 0xf1, 0x09}};

// From "6f0d3b5e-5c1d-4c36-9a53-1a8e2774f109", either case. Error kInvalidArgument.
Result<Uuid> parse_uuid(std::string_view text);
std::string to_string(const Uuid& uuid);

}  // namespace fairlead
