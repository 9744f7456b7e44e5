// Zeroes to write out or to answer with: one piece of memory for all shards, which takes none as long as it is only
// read.
#pragma once

#include <cstddef>
#include <span>

#include "base/units.h"

namespace fairlead {

inline constexpr size_t kZeroesMax = kMiB;

// Aligned to 4 KiB; lives for ever. Never write to it: it is not const for the sake of iovec alone. Requires: length <=
// kZeroesMax.
std::span<std::byte> zeroes(size_t length);

}  // namespace fairlead
