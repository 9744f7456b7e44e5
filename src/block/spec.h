// Options as people write them on a command line: "iops=100000,latency=80us".
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "async/time.h"
#include "base/error.h"

namespace fairlead {

// Pieces borrow from the text.
struct SpecOption {
  std::string_view key;
  std::string_view value;
};

// Splits "key=value,key=value"; an empty text has none. Error kInvalidArgument: a piece without "=", or with nothing on
// one side of it.
Result<std::vector<SpecOption>> split_options(std::string_view text);

// "80us", "5ms", "1.5s", "250ns", "10m", "1h". Error kInvalidArgument: not of that form, negative, or above 292 years.
Result<Duration> parse_duration(std::string_view text);

// A whole number, "100k" and "2M" being thousands and millions. Error kInvalidArgument.
Result<uint64_t> parse_count(std::string_view text);

// From 0 to 1: "0.25" or "25%". Error kInvalidArgument.
Result<double> parse_fraction(std::string_view text);

}  // namespace fairlead
