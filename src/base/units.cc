#include "base/units.h"

#include <array>
#include <cctype>
#include <fmt/format.h>

namespace fairlead {
namespace {

struct Unit {
  std::string_view name;  // lower case
  uint64_t bytes;
};
constexpr std::array<Unit, 18> kUnits = {{{"", 1},
                                          {"b", 1},
                                          {"k", kKiB},
                                          {"kib", kKiB},
                                          {"kb", 1000},
                                          {"m", kMiB},
                                          {"mib", kMiB},
                                          {"mb", 1000'000},
                                          {"g", kGiB},
                                          {"gib", kGiB},
                                          {"gb", 1000'000'000},
                                          {"t", kTiB},
                                          {"tib", kTiB},
                                          {"tb", 1000'000'000'000},
                                          {"p", 1024 * kTiB},
                                          {"pib", 1024 * kTiB},
                                          {"pb", 1000'000'000'000'000},
                                          {"bytes", 1}}};

const Unit* find_unit(std::string_view text) {
  std::string lower;
  for (const char c : text) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const Unit& unit : kUnits) {
    if (unit.name == lower) return &unit;
  }
  return nullptr;
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  constexpr const char* kForm = "a size is a number with KiB, MiB, GiB or TiB, such as 10GiB";
  constexpr unsigned __int128 kMax = (1ULL << 63) - 1;
  unsigned __int128 number = 0;
  uint64_t scale = 1;  // ten to the power of the digits behind the point
  size_t at = 0;
  size_t digits = 0;
  bool point = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '.' && !point) {
      point = true;
      continue;
    }
    if (c < '0' || c > '9') break;
    if (++digits > 19) return fail(Code::kInvalidArgument, "a size has at most 19 digits");
    number = number * 10 + static_cast<unsigned>(c - '0');
    if (point) scale *= 10;
  }
  if (digits == 0) return fail(Code::kInvalidArgument, kForm);
  while (at < text.size() && text[at] == ' ') ++at;
  const Unit* unit = find_unit(text.substr(at));
  if (unit == nullptr) return fail(Code::kInvalidArgument, kForm);
  const unsigned __int128 scaled = number * unit->bytes;
  if (scaled % scale != 0) return fail(Code::kInvalidArgument, "a size is a whole number of bytes");
  if (scaled / scale > kMax) return fail(Code::kInvalidArgument, "a size is below 8 EiB");
  return static_cast<uint64_t>(scaled / scale);
}

std::string format_size(uint64_t bytes) {
  constexpr std::array<std::pair<uint64_t, std::string_view>, 4> kBinary = {
      {{kTiB, "TiB"}, {kGiB, "GiB"}, {kMiB, "MiB"}, {kKiB, "KiB"}}};
  for (const auto& [unit, name] : kBinary) {
    if (bytes < unit) continue;
    if (bytes % unit == 0) return fmt::format("{} {}", bytes / unit, name);
    if (bytes * 10 / 10 == bytes && bytes * 10 % unit == 0) {
      return fmt::format("{}.{} {}", bytes / unit, bytes * 10 / unit % 10, name);
    }
  }
  return fmt::format("{} B", bytes);
}

}  // namespace fairlead
