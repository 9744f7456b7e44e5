#include "cli/yaml.h"

#include <algorithm>
#include <array>

namespace fairlead::cli {
namespace {

using control::Json;

// Whether YAML 1.1 or 1.2 could take it for a number, a date, a truth, a null or a piece of syntax.
bool needs_quotes(const std::string& text) {
  constexpr std::array<std::string_view, 12> kWords = {"true", "false", "yes", "no",   "on", "off",
                                                       "null", "y",     "n",   ".nan", "~",  ".inf"};
  if (text.empty()) return true;
  std::string lower = text;
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (std::ranges::find(kWords, lower) != kWords.end()) return true;
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '/' || c == '_';
  };
  if (!is_letter(text.front()) || text.back() == ':' || text.back() == ' ') return true;
  if (text.find(": ") != std::string::npos || text.find(" #") != std::string::npos) return true;
  return !std::ranges::all_of(text, [](char c) { return c >= ' ' && c < '\x7f'; });
}

std::string scalar(const Json& json) {
  if (json.is_string() && !needs_quotes(json.get<std::string>())) return json.get<std::string>();
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

void write(std::string& out, const Json& json, size_t depth);

// What stands behind "key:" or "-".
void write_value(std::string& out, const Json& json, size_t depth) {
  if (!json.is_structured()) {
    out += " " + scalar(json) + "\n";
  } else if (json.empty()) {
    out += json.is_array() ? " []\n" : " {}\n";
  } else {
    out += "\n";
    write(out, json, depth);
  }
}

void write(std::string& out, const Json& json, size_t depth) {
  const std::string indent(2 * depth, ' ');
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) {
      out += indent + scalar(Json(key)) + ":";
      write_value(out, value, depth + 1);
    }
    return;
  }
  for (const Json& value : json) {
    if (!value.is_structured() || value.empty()) {
      out += indent + "-";
      write_value(out, value, depth + 1);
      continue;
    }
    // Its first line stands behind the dash.
    std::string inner;
    write(inner, value, depth + 1);
    inner.replace(2 * depth, 2, "- ");
    out += inner;
  }
}

}  // namespace

std::string to_yaml(const Json& json) {
  std::string out;
  if (json.is_structured() && !json.empty()) {
    write(out, json, 0);
  } else {
    write_value(out, json, 0);
    out.erase(0, 1);
  }
  return out;
}

}  // namespace fairlead::cli
