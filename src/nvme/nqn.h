// NVMe qualified names and the fixed-size text fields of wire structures. No state; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/uuid.h"

namespace fairlead::nvme {

inline constexpr std::string_view kDiscoveryNqn = "nqn.2014-08.org.nvmexpress.discovery";
inline constexpr std::string_view kUuidNqnPrefix = "nqn.2014-08.org.nvmexpress:uuid:";
inline constexpr size_t kNqnMax = 223;  // bytes, without the terminating zero

// Whether a name that we are to go by is a proper NQN (NVMe base 2.0 section 4.5): at most 223 bytes of UTF-8 without
// control characters, "nqn.yyyy-mm.reverse.domain:text" (the part from the colon may be absent only in the discovery
// NQN) or "nqn.2014-08.org.nvmexpress:uuid:UUID". Error kInvalidArgument, whose text says what is wrong.
Result<void> validate_nqn(std::string_view nqn);

// What is accepted from a peer: 1 to 223 bytes of UTF-8 without control characters. Hosts in the field use names that
// validate_nqn() refuses; a name is only ever compared, so this is enough to keep it harmless in logs.
bool is_acceptable_nqn(std::string_view nqn);

// "nqn.2014-08.org.nvmexpress:uuid:..."
std::string nqn_from_uuid(const Uuid& uuid);

// The text of a field that a zero ends. None when no zero is there within the field. Borrows from `field`.
std::optional<std::string_view> read_zero_terminated(std::span<const char> field);
// The text of an ASCII field padded with spaces (or, as some targets do, zeroes), without them. Borrows from `field`.
std::string_view read_space_padded(std::span<const char> field);

// Requires: text is shorter than field (the zero needs room). Fills the rest with zeroes.
void write_zero_terminated(std::span<char> field, std::string_view text);
// Cuts what is too long; fills the rest with spaces; writes '?' for what is not printable ASCII.
void write_space_padded(std::span<char> field, std::string_view text);

}  // namespace fairlead::nvme
