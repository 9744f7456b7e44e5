#include "kube/disk_pool.h"

#include <algorithm>
#include <fmt/format.h>

#include "control/rest_client.h"
#include "kube/words.h"

namespace fairlead::kube {

using control::field;
using control::number_of;
using control::text_of;

std::string path_of_disk_pool(const std::string& name) {
  return fmt::format("{}/{}", kDiskPools, control::percent_encoded(name));
}

bool is_deleting(const Json& disk_pool) { return !text_of(disk_pool, "metadata.deletionTimestamp").empty(); }

bool has_finalizer(const Json& disk_pool) {
  const Json& finalizers = field(disk_pool, "metadata.finalizers");
  return finalizers.is_array() && std::ranges::find(finalizers, Json(kFinalizer)) != finalizers.end();
}

Json finalizer_patch(const Json& disk_pool, Finalizer what) {
  Json finalizers = Json::array();
  for (const Json& each : field(disk_pool, "metadata.finalizers")) {
    if (each != Json(kFinalizer)) finalizers.push_back(each);
  }
  if (what == Finalizer::kAdd) finalizers.push_back(kFinalizer);
  return {{"metadata",
           {{"resourceVersion", field(disk_pool, "metadata.resourceVersion")}, {"finalizers", std::move(finalizers)}}}};
}

// ---- What is asked for

Outcome<Json> wanted_pool(const Json& disk_pool) {
  const Json& spec = field(disk_pool, "spec");
  Json pool = {{"name", text_of(disk_pool, "metadata.name")}, {"labels", Json::object()}};
  pool["spec"] = {{"node", text_of(spec, "node")}, {"disks", field(spec, "disks")}};
  if (const Json& labels = field(spec, "labels"); labels.is_object()) pool["labels"] = labels;
  if (const Json& size = field(spec, "fileSize"); !size.is_null()) {
    const Outcome<uint64_t> bytes = parse_quantity(size);
    if (!bytes) return problem(Code::kInvalidArgument, fmt::format("spec.fileSize: {}", to_string(bytes.error())));
    pool["spec"]["file_size_bytes"] = *bytes;
  }
  pool["spec"]["evacuating"] = field(spec, "evacuating") == Json(true);
  return pool;
}

bool is_wanted(const Json& wanted, const Json& pool) {
  // A pool whose files are there is the same one, whoever gave them their size.
  const uint64_t size = number_of(wanted, "spec.file_size_bytes");
  return text_of(wanted, "spec.node") == text_of(pool, "spec.node") &&
         field(wanted, "spec.disks") == field(pool, "spec.disks") &&
         (size == 0 || size == number_of(pool, "spec.file_size_bytes"));
}

Json pool_patch(const Json& wanted, const Json& pool) {
  Json patch;
  const Json& labels = field(wanted, "labels");
  const Json& kept = field(pool, "labels");
  for (const auto& [key, value] : labels.items()) {
    if (!kept.contains(key) || kept[key] != value) patch["labels"][key] = value;
  }
  for (const auto& [key, value] : kept.items()) {
    if (!labels.contains(key)) patch["labels"][key] = nullptr;
  }
  const Json evacuating = field(pool, "spec.evacuating") == Json(true);
  if (field(wanted, "spec.evacuating") != evacuating) patch["spec"]["evacuating"] = !evacuating.get<bool>();
  return patch;
}

// ---- How it is

Standing standing_of(const Json& pool) {
  const std::string state = text_of(pool, "status.state");
  const std::string why = text_of(pool, "status.why");
  const auto said = [&](const char* otherwise) { return why.empty() ? std::string(otherwise) : why; };
  if (state == "online" && field(pool, "spec.evacuating") == Json(true)) {
    const uint64_t replicas = number_of(pool, "status.replicas");
    return {.status = "False",
            .reason = replicas == 0 ? "Evacuated" : "Evacuating",
            .message = !why.empty() ? why
                       : replicas == 0
                           ? std::string("it gets no new replicas, and has none: it can be deleted")
                           : fmt::format("it gets no new replicas; {} are to move to other pools", replicas)};
  }
  if (state == "online") return {.status = "True", .reason = "Online", .message = "replicas can be kept in it"};
  if (state == "creating") return {.status = "False", .reason = "Creating", .message = said("its engine is making it")};
  if (state == "failed") return {.status = "False", .reason = "Failed", .message = said("its engine cannot use it")};
  if (state == "deleting")
    return {.status = "False", .reason = "Deleting", .message = said("its disks are being freed")};
  return {.status = "Unknown", .reason = "NodeLost", .message = said("its engine gives no sign of life")};
}

Json status_of(const Json& disk_pool, const Json& pool, const Standing& standing, uint64_t now_ms) {
  const Json& before = field(disk_pool, "status");
  Json status = before.is_object() ? before : Json::object();
  const Json& generation = field(disk_pool, "metadata.generation");
  status["observedGeneration"] = generation;
  if (pool.is_null()) {
    status.erase("state");
  } else {
    status["id"] = text_of(pool, "id");
    status["state"] = text_of(pool, "status.state");
    status["replicas"] = number_of(pool, "status.replicas");
    for (const char* const what : {"capacity", "used", "free"}) {
      const Json& bytes = field(pool, fmt::format("status.{}_bytes", what));
      if (bytes.is_number_unsigned()) status[what] = to_quantity(bytes.get<uint64_t>());
    }
  }
  Json ready = {{"type", "Ready"},
                {"status", standing.status},
                {"observedGeneration", generation},
                {"lastTransitionTime", to_time(now_ms)},
                {"reason", standing.reason},
                {"message", standing.message.substr(0, 32768)}};
  Json conditions = Json::array();
  for (const Json& each : field(before, "conditions")) {
    if (text_of(each, "type") != "Ready") {
      conditions.push_back(each);
    } else if (text_of(each, "status") == standing.status) {
      ready["lastTransitionTime"] = field(each, "lastTransitionTime");
    }
  }
  conditions.push_back(std::move(ready));
  status["conditions"] = std::move(conditions);
  return status;
}

Difference difference_of(const Json& before, const Json& now) {
  if (is_same(before, now)) return Difference::kNone;
  Json a = before.is_object() ? before : Json::object();
  Json b = now;
  for (const char* const what : {"used", "free"}) {
    a.erase(what);
    b.erase(what);
  }
  return is_same(a, b) ? Difference::kNumbers : Difference::kWords;
}

}  // namespace fairlead::kube
