#include "nvme/nqn.h"

#include <algorithm>
#include <cstdint>

#include "base/check.h"

namespace fairlead::nvme {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The length of the UTF-8 sequence at the front of `text`, 0 when it is none (overlong forms and surrogates are none)
// or a control character (C0, DEL, C1).
size_t printable_sequence(std::string_view text) {
  const auto byte = [&](size_t i) -> uint32_t { return static_cast<unsigned char>(text[i]); };
  const uint32_t first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  uint32_t value = first & (0x7fU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    value = (value << 6) | (byte(i) & 0x3f);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0xa0, 0x800, 0x10000};  // of 2 bytes: above the C1 control characters
  const bool surrogate = value >= 0xd800 && value <= 0xdfff;
  return value >= kLeast[length] && value <= 0x10ffff && !surrogate ? length : 0;
}

// "yyyy-mm."
bool is_date(std::string_view text) {
  if (text.size() < 8 || text[4] != '-' || text[7] != '.') return false;
  for (const size_t i : {0U, 1U, 2U, 3U, 5U, 6U}) {
    if (!is_digit(text[i])) return false;
  }
  const int month = (text[5] - '0') * 10 + (text[6] - '0');
  return month >= 1 && month <= 12;
}

// "org.nvmexpress": labels of letters, digits and hyphens.
bool is_domain(std::string_view text) {
  bool label_empty = true;
  for (const char c : text) {
    if (c == '.') {
      if (label_empty) return false;
      label_empty = true;
      continue;
    }
    if (!is_digit(c) && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && c != '-') return false;
    label_empty = false;
  }
  return !label_empty;
}

}  // namespace

bool is_acceptable_nqn(std::string_view nqn) {
  if (nqn.empty() || nqn.size() > kNqnMax) return false;
  while (!nqn.empty()) {
    const size_t length = printable_sequence(nqn);
    if (length == 0) return false;
    nqn.remove_prefix(length);
  }
  return true;
}

Result<void> validate_nqn(std::string_view nqn) {
  if (nqn.empty()) return fail(Code::kInvalidArgument, "the NQN is empty");
  if (nqn.size() > kNqnMax) return fail(Code::kInvalidArgument, "an NQN has at most 223 bytes");
  if (!is_acceptable_nqn(nqn)) return fail(Code::kInvalidArgument, "an NQN is UTF-8 without control characters");
  if (nqn == kDiscoveryNqn) return {};
  if (!nqn.starts_with("nqn.")) return fail(Code::kInvalidArgument, "an NQN starts with \"nqn.\"");
  if (nqn.starts_with(kUuidNqnPrefix)) {
    if (!parse_uuid(nqn.substr(kUuidNqnPrefix.size()))) {
      return fail(Code::kInvalidArgument, "a UUID must follow \"nqn.2014-08.org.nvmexpress:uuid:\"");
    }
    return {};
  }
  const std::string_view rest = nqn.substr(4);
  if (!is_date(rest)) return fail(Code::kInvalidArgument, "a date as \"2024-01.\" must follow \"nqn.\"");
  const size_t colon = rest.find(':');
  if (colon == std::string_view::npos || colon + 1 == rest.size()) {
    return fail(Code::kInvalidArgument, "an NQN ends in a colon and a name");
  }
  if (!is_domain(rest.substr(8, colon - 8))) {
    return fail(Code::kInvalidArgument, "a reversed domain name must stand between date and colon");
  }
  return {};
}

std::string nqn_from_uuid(const Uuid& uuid) { return std::string(kUuidNqnPrefix) + to_string(uuid); }

std::optional<std::string_view> read_zero_terminated(std::span<const char> field) {
  const auto end = std::ranges::find(field, '\0');
  if (end == field.end()) return std::nullopt;
  return std::string_view(field.data(), static_cast<size_t>(end - field.begin()));
}

std::string_view read_space_padded(std::span<const char> field) {
  std::string_view text(field.data(), field.size());
  text = text.substr(0, text.find('\0'));
  const size_t last = text.find_last_not_of(' ');
  return last == std::string_view::npos ? std::string_view{} : text.substr(0, last + 1);
}

void write_zero_terminated(std::span<char> field, std::string_view text) {
  FL_CHECK(text.size() < field.size());
  std::ranges::fill(std::ranges::copy(text, field.begin()).out, field.end(), '\0');
}

void write_space_padded(std::span<char> field, std::string_view text) {
  std::ranges::fill(field, ' ');
  for (size_t i = 0; i < std::min(field.size(), text.size()); ++i) {
    field[i] = text[i] >= 0x20 && text[i] <= 0x7e ? text[i] : '?';
  }
}

}  // namespace fairlead::nvme
