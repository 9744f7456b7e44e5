// Annotations: what the control plane notes down with a replica, kept in its pool for the day that the control plane
// has lost everything else. Plain values.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace fairlead::engine {

// The replica's property that holds them.
inline constexpr uint16_t kAnnotationsProperty = 0x202;

using Annotations = std::map<std::string, std::string>;
inline constexpr size_t kAnnotationsMax = 64;
inline constexpr size_t kAnnotationKeyBytesMax = 253;
inline constexpr size_t kAnnotationValueBytesMax = 2048;

// Errors: kInvalidArgument (too many, an empty or long key, a long value, more than a property takes in all).
Result<void> check(const Annotations& annotations);
// None: empty. Requires: check() is fine with them.
std::vector<std::byte> encode(const Annotations& annotations);
// Error kCorrupt.
Result<Annotations> decode_annotations(std::span<const std::byte> bytes);

}  // namespace fairlead::engine
