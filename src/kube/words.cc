#include "kube/words.h"

#include <array>
#include <charconv>
#include <chrono>
#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <utility>

#include "base/units.h"

namespace fairlead::kube {
namespace {

using control::Json;

// By how much a suffix multiplies; none: it is no suffix.
std::optional<long double> factor_of(std::string_view suffix) {
  static constexpr std::array<std::pair<std::string_view, long double>, 14> kFactors = {{
      {"", 1.0L},
      {"Ki", 0x1p10L},
      {"Mi", 0x1p20L},
      {"Gi", 0x1p30L},
      {"Ti", 0x1p40L},
      {"Pi", 0x1p50L},
      {"Ei", 0x1p60L},
      {"m", 1e-3L},
      {"k", 1e3L},
      {"M", 1e6L},
      {"G", 1e9L},
      {"T", 1e12L},
      {"P", 1e15L},
      {"E", 1e18L},
  }};
  for (const auto& [name, factor] : kFactors) {
    if (suffix == name) return factor;
  }
  return std::nullopt;
}

std::string date_and_time(uint64_t ms) {
  using namespace std::chrono;
  const sys_time<milliseconds> at{milliseconds(ms)};
  const auto day = floor<days>(at);
  const year_month_day date(day);
  const hh_mm_ss time(floor<seconds>(at - day));
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), time.hours().count(),
                     time.minutes().count(), time.seconds().count());
}

}  // namespace

Outcome<uint64_t> parse_quantity(const Json& quantity) {
  if (quantity.is_number_unsigned()) return quantity.get<uint64_t>();
  const std::string text = quantity.is_string() ? quantity.get<std::string>() : control::to_text(quantity);
  const auto refused = problem(Code::kInvalidArgument, fmt::format("'{}' is no amount of bytes, such as 100Gi", text));
  const char* const end = text.data() + text.size();
  long double number = 0;
  // With an exponent where there is one; "1E" is a suffix.
  const bool has_exponent =
      text.find_first_of("eE") != std::string::npos && !text.ends_with('E') && !text.ends_with('i');
  const auto format = has_exponent ? std::chars_format::general : std::chars_format::fixed;
  const auto parsed = std::from_chars(text.data(), end, number, format);
  const std::optional<long double> factor = factor_of({parsed.ptr, static_cast<size_t>(end - parsed.ptr)});
  if (parsed.ec != std::errc() || !factor || (has_exponent && parsed.ptr != end)) return refused;
  const long double bytes = number * *factor;
  if (!(bytes >= 0) || bytes > 0x1p63L) return refused;
  const auto whole = static_cast<uint64_t>(bytes);
  return static_cast<long double>(whole) < bytes ? whole + 1 : whole;
}

std::string to_quantity(uint64_t bytes) {
  static constexpr std::array<std::pair<uint64_t, const char*>, 4> kUnits = {
      {{kTiB, "Ti"}, {kGiB, "Gi"}, {kMiB, "Mi"}, {kKiB, "Ki"}}};
  for (const auto& [unit, suffix] : kUnits) {
    if (bytes != 0 && bytes % unit == 0) return fmt::format("{}{}", bytes / unit, suffix);
  }
  return fmt::format("{}", bytes);
}

std::string to_time(uint64_t ms) { return date_and_time(ms) + "Z"; }
std::string to_micro_time(uint64_t ms) { return fmt::format("{}.{:06}Z", date_and_time(ms), ms % 1000 * 1000); }

bool is_same(const Json& a, const Json& b) { return nlohmann::json(a) == nlohmann::json(b); }

}  // namespace fairlead::kube
