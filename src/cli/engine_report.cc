#include "cli/engine_report.h"

#include <array>
#include <nlohmann/json.hpp>

namespace fairlead::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string_view name_of(mirror::TargetStatus::State state) {
  constexpr std::array<std::string_view, 5> kNames = {"starting", "suspended", "serving", "superseded", "stopped"};
  return kNames.at(static_cast<size_t>(state));
}

std::string_view name_of(mirror::Reign::Standing standing) {
  constexpr std::array<std::string_view, 5> kNames = {"away", "prepared", "returning", "ready", "member"};
  return kNames.at(static_cast<size_t>(standing));
}

Json to_json_value(const mirror::MemberSet& members) {
  Json array = Json::array();
  for (const mirror::ReplicaId& id : members.ids()) array.push_back(to_string(id));
  return array;
}

Json to_json_value(const mirror::Term& term) { return {{"number", term.number}, {"writer", to_string(term.writer)}}; }

// None: all is well.
Json to_json_value(const Error& error) {
  return error == Error{} && *error.what == '\0' ? Json() : Json(to_string(error));
}

Json to_json_value(const mirror::ReplicaStatus& replica) {
  return {{"replica", to_string(replica.replica)},
          {"standing", name_of(replica.standing)},
          {"is_local", replica.is_local},
          {"is_refused", replica.is_refused},
          {"copied_bytes", replica.copied_bytes},
          {"to_copy_bytes", replica.to_copy_bytes},
          {"copy_bytes_per_second", replica.copy_rate},
          {"copy_seconds_left", std::chrono::duration<double>(replica.copy_left).count()},
          {"last_error", to_json_value(replica.last_error)}};
}

Json to_json_value(const mirror::Snapshot& snapshot) {
  return {{"snapshot", to_string(snapshot.id)},
          {"term", snapshot.cut.term.number},
          {"generation", snapshot.cut.generation},
          {"size_bytes", snapshot.size_bytes}};
}

std::string one_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

std::string replicas_to_json(const std::vector<engine::ReplicaInfo>& replicas) {
  Json array = Json::array();
  for (const engine::ReplicaInfo& replica : replicas) {
    const mirror::ReplicaState& state = replica.state;
    array.push_back({{"name", replica.name},
                     {"replica", to_string(replica.id)},
                     {"volume", to_string(replica.volume)},
                     {"size_bytes", replica.size_bytes},
                     {"is_offered", !replica.trouble},
                     {"trouble", replica.trouble ? Json(to_string(*replica.trouble)) : Json()},
                     {"promise", to_json_value(state.promise)},
                     {"members", to_json_value(state.record.members)},
                     {"is_cold", state.is_cold}});
  }
  return one_line(array);
}

std::string volume_to_json(const Uuid& id, const engine::Volume& volume) {
  Json json = {{"volume", to_string(id)}, {"nqn", engine::volume_nqn(id)}, {"size_bytes", volume.size_bytes()}};
  if (!volume.is_target()) {
    json["state"] = "standby";
    return one_line(json);
  }
  const mirror::TargetStatus status = volume.status();
  json["state"] = name_of(status.state);
  json["why"] = status.why;
  json["term"] = to_json_value(status.term);
  json["members"] = to_json_value(status.record.members);
  json["is_settled"] = status.record.is_settled();
  json["is_degraded"] = status.is_degraded;
  json["unlevel_bytes"] = status.unlevel_bytes;
  json["replicas"] = Json::array();
  for (const mirror::ReplicaStatus& replica : status.replicas) json["replicas"].push_back(to_json_value(replica));
  json["snapshots"] = Json::array();
  for (const mirror::Snapshot& snapshot : status.snapshots) json["snapshots"].push_back(to_json_value(snapshot));
  return one_line(json);
}

}  // namespace fairlead::cli
