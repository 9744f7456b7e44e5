#include "csi/names.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/uuid.h"
#include "control/resources.h"

namespace fairlead::csi {
namespace {

constexpr size_t kNameBytesMax = 512;  // 128 characters of UTF-8
constexpr size_t kReadableMax = 27;    // of a name that is no legal one; 32 hexadecimal digits and a dash follow
constexpr size_t kGroupNameMax = 60;
constexpr size_t kLabelValueMax = 63;
constexpr size_t kNodeNameMax = 190;  // an NQN has 223 bytes at most
constexpr std::string_view kHostPrefix = "nqn.2026-01.io.fairlead:host:";
constexpr std::string_view kTokenPrefix = "after:";

bool is_alphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

std::string digits_of(std::string_view text) {
  std::string digits = to_string(uuid_from_name(kFairleadNamespace, text));
  std::erase(digits, '-');
  return digits;
}

// A legal name that begins like `text` and that no other text has.
std::string shortened(std::string_view text) {
  std::string readable;
  for (const char c : text.substr(0, kReadableMax)) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    readable += is_alphanumeric(lower) ? lower : '-';
  }
  readable.erase(0, std::min(readable.find_first_not_of('-'), readable.size()));
  while (readable.ends_with('-')) readable.pop_back();
  return fmt::format("{}{}{}", readable, readable.empty() ? "x" : "-", digits_of(text));
}

}  // namespace

Outcome<std::string> resource_name(std::string_view name) {
  if (name.empty()) return problem(Code::kInvalidArgument, "name: is missing");
  if (name.size() > kNameBytesMax) {
    return problem(Code::kInvalidArgument, fmt::format("name: has {} bytes, at most {}", name.size(), kNameBytesMax));
  }
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::ranges::any_of(name, is_control)) {
    return problem(Code::kInvalidArgument, "name: control characters have no place in it");
  }
  if (control::check_name("name", name)) return std::string(name);
  return shortened(name);
}

Outcome<std::string> group_name(std::string_view name) {
  FL_TRY(std::string legal, resource_name(name));
  return legal.size() > kGroupNameMax ? shortened(name) : std::move(legal);
}

std::string freeze_request(std::string_view snapshot, uint64_t revision) {
  return fmt::format("{}-{}", digits_of(snapshot).substr(0, 16), revision);
}

std::string clone_snapshot_name(std::string_view volume) { return shortened(fmt::format("clone-{}", volume)); }

std::string host_nqn(std::string_view node) { return fmt::format("{}{}", kHostPrefix, node); }

std::optional<std::string> node_of_host(std::string_view nqn) {
  if (!nqn.starts_with(kHostPrefix)) return std::nullopt;
  const std::string_view node = nqn.substr(kHostPrefix.size());
  const bool is_good = !node.empty() && node.size() <= kNodeNameMax && std::ranges::all_of(node, [](char c) {
    return (is_alphanumeric(c) && (c < 'A' || c > 'Z')) || c == '-' || c == '.';
  });
  return is_good ? std::optional(std::string(node)) : std::nullopt;
}

std::string publication_label(std::string_view nqn) { return kLabelPublished + digits_of(nqn).substr(0, 16); }

Outcome<std::string> label_value(std::string_view text) {
  std::string value;
  for (const char c : text) {
    if (is_alphanumeric(c) || c == '-' || c == '.') {
      value += c;
    } else {
      value += fmt::format("_{:02x}", static_cast<unsigned char>(c));
    }
  }
  if (value.size() > kLabelValueMax) {
    return problem(Code::kInvalidArgument,
                   fmt::format("'{}' is too long: {} characters fit, where all but letters, digits, '-' and '.' count "
                               "for three",
                               text, kLabelValueMax));
  }
  return value;
}

std::string text_of_label(std::string_view value) {
  const auto digit = [](char c) { return c >= 'a' ? c - 'a' + 10 : c - '0'; };
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) {
    if (value[i] == '_' && i + 2 < value.size() && is_alphanumeric(value[i + 1]) && is_alphanumeric(value[i + 2])) {
      text += static_cast<char>(digit(value[i + 1]) * 16 + digit(value[i + 2]));
      i += 2;
    } else {
      text += value[i];
    }
  }
  return text;
}

std::string page_token(std::string_view last) { return fmt::format("{}{}", kTokenPrefix, last); }

Outcome<std::string> last_of_page(std::string_view token) {
  if (token.empty()) return std::string();
  if (!token.starts_with(kTokenPrefix)) {
    return try_again(fmt::format("starting_token: '{}' is none of this plugin; begin from the start", token));
  }
  return std::string(token.substr(kTokenPrefix.size()));
}

std::unexpected<Problem> try_again(std::string sentence) { return problem(Code::kMiscompare, std::move(sentence)); }

}  // namespace fairlead::csi
