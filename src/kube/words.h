// How Kubernetes writes amounts and times. Plain functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/problem.h"
#include "control/json.h"

namespace fairlead::kube {

// Bytes of a quantity: 107374182400, "100Gi", "1.5G", "2e9"; a fraction of a byte is rounded up. Error
// kInvalidArgument.
Outcome<uint64_t> parse_quantity(const control::Json& quantity);
// The shortest exact form: "20Gi", "1536Mi", "1000".
std::string to_quantity(uint64_t bytes);

// "2026-01-31T12:00:00Z"
std::string to_time(uint64_t ms_since_1970);
// "2026-01-31T12:00:00.250000Z"
std::string to_micro_time(uint64_t ms_since_1970);

// Whether they hold the same, in whatever order their fields stand.
bool is_same(const control::Json& a, const control::Json& b);

}  // namespace fairlead::kube
