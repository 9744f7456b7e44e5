// Resources as JSON, both ways, by one description each: how the store keeps them and how people and tools see them.
//
// A type describes itself:   template <typename Io, typename Self>
//                            static void describe(Io& io, Self& self) { io("size_bytes", self.size_bytes); }
// An enum by its names:      std::span<const std::string_view> names_of(Enum);   // found by its argument
//
// Reading is strict: a field that is not known is an error, as is one of another type; one that is missing keeps its
// default. Errors name the field, "spec.topology.spread_over[1]".
#pragma once

#include <concepts>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/problem.h"
#include "base/uuid.h"

namespace fairlead::control {

using Json = nlohmann::ordered_json;

template <typename T>
Json to_json(const T& value);

namespace detail {

template <typename E>
concept NamedEnum = std::is_enum_v<E> && requires(E e) { names_of(e)[0]; };

class JsonWriter {
 public:
  explicit JsonWriter(Json& out) : out_(out) {}
  template <typename T>
  void operator()(const char* name, const T& value) {
    out_[name] = to_json(value);
  }

 private:
  Json& out_;
};

// The first error stays.
class JsonReader {
 public:
  JsonReader(const Json& in, std::string path, std::string& error) : in_(in), path_(std::move(path)), error_(error) {}

  template <typename T>
  void operator()(const char* name, T& value) {
    known_.emplace_back(name);
    if (!in_.is_object()) return;
    const auto found = in_.find(name);
    if (found != in_.end()) read(*found, below(name), value);
  }
  // Last of all.
  void finish();

  template <typename T>
  void read(const Json& json, const std::string& path, T& value);

 private:
  std::string below(std::string_view name) const {
    return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
  }
  void complain(const std::string& path, std::string_view what);
  void read_text(const Json& json, const std::string& path, std::string& value);
  void read_uuid(const Json& json, const std::string& path, Uuid& value);
  void read_number(const Json& json, const std::string& path, uint64_t max, uint64_t& value);
  size_t read_name(const Json& json, const std::string& path, std::span<const std::string_view> names, size_t value);

  const Json& in_;
  const std::string path_;
  std::string& error_;
  std::vector<std::string> known_;
};

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};
template <typename T>
struct IsMap : std::false_type {};
template <typename T>
struct IsMap<std::map<std::string, T>> : std::true_type {};
template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <typename T>
void JsonReader::read(const Json& json, const std::string& path, T& value) {
  if constexpr (std::same_as<T, Json>) {
    value = json;
  } else if constexpr (std::same_as<T, bool>) {
    if (!json.is_boolean()) return complain(path, "must be true or false");
    value = json.get<bool>();
  } else if constexpr (std::same_as<T, double>) {
    if (!json.is_number()) return complain(path, "must be a number");
    value = json.get<double>();
  } else if constexpr (std::unsigned_integral<T>) {
    uint64_t number = value;
    read_number(json, path, std::numeric_limits<T>::max(), number);
    value = static_cast<T>(number);
  } else if constexpr (std::same_as<T, std::string>) {
    read_text(json, path, value);
  } else if constexpr (std::same_as<T, Uuid>) {
    read_uuid(json, path, value);
  } else if constexpr (NamedEnum<T>) {
    value = static_cast<T>(read_name(json, path, names_of(value), static_cast<size_t>(value)));
  } else if constexpr (IsOptional<T>::value) {
    if (json.is_null()) {
      value.reset();
    } else {
      read(json, path, value.emplace());
    }
  } else if constexpr (IsVector<T>::value) {
    if (!json.is_array()) return complain(path, "must be a list");
    value.clear();
    for (const Json& each : json) read(each, path + "[" + std::to_string(value.size()) + "]", value.emplace_back());
  } else if constexpr (IsMap<T>::value) {
    if (!json.is_object()) return complain(path, "must be an object of names and values");
    value.clear();
    for (const auto& [key, each] : json.items()) {
      read(each, std::string(path).append(".").append(key), value[key]);
    }
  } else {
    JsonReader inner(json, path, error_);
    T::describe(inner, value);
    inner.finish();
  }
}

}  // namespace detail

template <typename T>
Json to_json(const T& value) {
  if constexpr (std::same_as<T, Json> || std::same_as<T, bool> || std::same_as<T, double> ||
                std::unsigned_integral<T> || std::same_as<T, std::string>) {
    return value;
  } else if constexpr (std::same_as<T, Uuid>) {
    return to_string(value);
  } else if constexpr (detail::NamedEnum<T>) {
    return std::string(names_of(value)[static_cast<size_t>(value)]);
  } else if constexpr (detail::IsOptional<T>::value) {
    return value ? to_json(*value) : Json();
  } else if constexpr (detail::IsVector<T>::value) {
    Json array = Json::array();
    for (const auto& each : value) array.push_back(to_json(each));
    return array;
  } else if constexpr (detail::IsMap<T>::value) {
    Json object = Json::object();
    for (const auto& [key, each] : value) object[key] = to_json(each);
    return object;
  } else {
    Json object = Json::object();
    detail::JsonWriter writer(object);
    T::describe(writer, value);
    return object;
  }
}

// Into `value`, whose fields stay where `json` has none. Error kInvalidArgument, which names the field.
template <typename T>
Outcome<void> read_json(const Json& json, T& value) {
  std::string error;
  const Json nothing;
  detail::JsonReader reader(nothing, "", error);
  reader.read(json, "", value);
  if (!error.empty()) return problem(Code::kInvalidArgument, std::move(error));
  return {};
}
// Error kInvalidArgument: it is not JSON, and where.
Outcome<Json> parse_json(std::string_view text);

// One line; bytes that are no UTF-8 become U+FFFD.
std::string to_text(const Json& json);

}  // namespace fairlead::control
