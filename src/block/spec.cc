#include "block/spec.h"

#include <array>
#include <charconv>
#include <cmath>

namespace fairlead {
namespace {

struct Scale {
  std::string_view name;
  uint64_t factor;
};
constexpr std::array<Scale, 6> kDurations = {{{"ns", 1},
                                              {"us", 1'000},
                                              {"ms", 1'000'000},
                                              {"s", 1'000'000'000},
                                              {"m", 60'000'000'000},
                                              {"h", 3'600'000'000'000}}};
constexpr std::array<Scale, 3> kCounts = {{{"", 1}, {"k", 1'000}, {"M", 1'000'000}}};

// A number at the start of the text, which then is what follows it.
template <typename Number>
bool take_number(std::string_view& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

}  // namespace

Result<std::vector<SpecOption>> split_options(std::string_view text) {
  std::vector<SpecOption> options;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view piece = text.substr(0, comma);
    const size_t equals = piece.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == piece.size()) {
      return fail(Code::kInvalidArgument, "options are key=value,key=value");
    }
    options.push_back({piece.substr(0, equals), piece.substr(equals + 1)});
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return fail(Code::kInvalidArgument, "an option is missing behind the last comma");
  }
  return options;
}

Result<Duration> parse_duration(std::string_view text) {
  double number = 0;
  if (!take_number(text, number) || !(number >= 0)) {
    return fail(Code::kInvalidArgument, "a duration is a number with ns, us, ms, s, m or h, such as 80us");
  }
  for (const Scale& scale : kDurations) {
    if (text != scale.name) continue;
    const double ns = number * static_cast<double>(scale.factor);
    if (ns >= 9.2e18) return fail(Code::kInvalidArgument, "a duration is below 292 years");
    return Duration(std::llround(ns));
  }
  return fail(Code::kInvalidArgument, "a duration ends in ns, us, ms, s, m or h");
}

Result<uint64_t> parse_count(std::string_view text) {
  uint64_t number = 0;
  if (!take_number(text, number)) return fail(Code::kInvalidArgument, "a whole number is expected");
  for (const Scale& scale : kCounts) {
    if (text != scale.name) continue;
    if (number > UINT64_MAX / scale.factor) return fail(Code::kInvalidArgument, "the number is too large");
    return number * scale.factor;
  }
  return fail(Code::kInvalidArgument, "a whole number is expected, with k or M behind it or nothing");
}

Result<double> parse_fraction(std::string_view text) {
  double number = 0;
  const bool is_number = take_number(text, number);
  if (is_number && text == "%") {
    number /= 100;
    text = {};
  }
  if (!is_number || !text.empty() || !(number >= 0 && number <= 1)) {
    return fail(Code::kInvalidArgument, "a number from 0 to 1, or a percentage, is expected");
  }
  return number;
}

}  // namespace fairlead
