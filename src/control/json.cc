#include "control/json.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace fairlead::control {
namespace detail {

void JsonReader::complain(const std::string& path, std::string_view what) {
  if (error_.empty()) error_ = fmt::format("{}: {}", path.empty() ? "the document" : path, what);
}

void JsonReader::finish() {
  if (!in_.is_object()) return complain(path_, "must be an object");
  for (const auto& [key, value] : in_.items()) {
    if (std::ranges::find(known_, key) != known_.end()) continue;
    return complain(below(key), fmt::format("there is no such field; there are {}", fmt::join(known_, ", ")));
  }
}

void JsonReader::read_text(const Json& json, const std::string& path, std::string& value) {
  if (!json.is_string()) return complain(path, "must be a string");
  value = json.get<std::string>();
}

void JsonReader::read_uuid(const Json& json, const std::string& path, Uuid& value) {
  if (!json.is_string()) return complain(path, "must be a UUID");
  const Result<Uuid> id = parse_uuid(json.get<std::string>());
  if (!id) return complain(path, "must be a UUID");
  value = *id;
}

void JsonReader::read_number(const Json& json, const std::string& path, uint64_t max, uint64_t& value) {
  if (!json.is_number_unsigned() || json.get<uint64_t>() > max) {
    return complain(path, fmt::format("must be a whole number from 0 to {}", max));
  }
  value = json.get<uint64_t>();
}

size_t JsonReader::read_name(const Json& json, const std::string& path, std::span<const std::string_view> names,
                             size_t value) {
  const auto found = json.is_string() ? std::ranges::find(names, json.get<std::string>()) : names.end();
  if (found != names.end()) return static_cast<size_t>(found - names.begin());
  complain(path, fmt::format("must be one of {}", fmt::join(names, ", ")));
  return value;
}

}  // namespace detail

Outcome<Json> parse_json(std::string_view text) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    return problem(Code::kInvalidArgument, fmt::format("this is not JSON: {} (byte {})", error.what(), error.byte));
  }
}

std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace fairlead::control
