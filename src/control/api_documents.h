// What the parts of Api share: documents read and written. Only for them.
#pragma once

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "control/json.h"
#include "control/resources.h"

namespace fairlead::control {

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

// "volumes" to "volume".
inline std::string one_of(std::string_view kind) {
  return std::string(kind == Settings::kKind ? kind : kind.substr(0, kind.size() - 1));
}

// As people see it.
inline Json document(std::string_view kind, const Metadata& metadata, uint64_t revision, Json spec, Json status) {
  if (metadata.deleting_since_ms != 0) status["deleting_since_ms"] = metadata.deleting_since_ms;
  return {{"kind", one_of(kind)},
          {"name", metadata.name},
          {"id", to_string(metadata.id)},
          {"revision", revision},
          {"created_ms", metadata.created_ms},
          {"labels", to_json(metadata.labels)},
          {"spec", std::move(spec)},
          {"status", std::move(status)}};
}

// What a document asks for. "kind" may be there for people.
template <typename Spec>
struct Asked {
  std::string kind;
  std::string name;
  Labels labels;
  Spec spec;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("kind", self.kind);
    io("name", self.name);
    io("labels", self.labels);
    io("spec", self.spec);
  }
};

template <typename Spec>
Outcome<Asked<Spec>> read_asked(const Json& json, std::string_view kind) {
  Asked<Spec> asked;
  FL_TRY_VOID(read_json(json, asked));
  if (!asked.kind.empty() && asked.kind != one_of(kind)) {
    return refuse(Code::kInvalidArgument, "kind: this makes a {}, not a {}", one_of(kind), asked.kind);
  }
  FL_TRY_VOID(check_name("name", asked.name));
  FL_TRY_VOID(check_labels(asked.labels));
  return asked;
}

// One that is there, asked for again.
template <typename T, typename Spec>
Outcome<void> check_same(const T& there, const Asked<Spec>& asked, std::string_view kind) {
  if (there.metadata.deleting_since_ms != 0) {
    return refuse(Code::kAlreadyExists, "{} {} is being deleted: ask again when it is gone", one_of(kind), asked.name);
  }
  if (to_json(there.spec) == to_json(asked.spec)) return {};
  return refuse(Code::kAlreadyExists, "there is a {} {} already, with another spec: change that, or take another name",
                one_of(kind), asked.name);
}

inline Outcome<void> check_revision(std::optional<uint64_t> wanted, uint64_t now) {
  if (!wanted || *wanted == now) return {};
  return refuse(Code::kMiscompare, "it has revision {} by now, not {}: look at it again", now, *wanted);
}

inline bool has_labels(const Labels& labels, const Labels& wanted) {
  return std::ranges::all_of(wanted, [&](const auto& each) {
    const auto found = labels.find(each.first);
    return found != labels.end() && found->second == each.second;
  });
}

}  // namespace fairlead::control
