#include "csi/documents.h"

#include <algorithm>
#include <api/csi/v1/csi.pb.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "control/rest_client.h"
#include "csi/names.h"

namespace fairlead::csi {
namespace {

using control::field;
using control::number_of;
using control::text_of;

const Json& label_of(const Json& document, const std::string& key) {
  static const Json kNothing;
  const Json& labels = field(document, "labels");
  const auto found = labels.is_object() ? labels.find(key) : labels.end();
  return labels.is_object() && found != labels.end() && found->is_string() ? *found : kNothing;
}
std::string label_text(const Json& document, const std::string& key) {
  const Json& label = label_of(document, key);
  return label.is_string() ? label.get<std::string>() : "";
}

constexpr const char* kAbnormal[] = {"Available", "Placed", "Redundant", "Settled"};

}  // namespace

void fill(const Json& document, wire::Volume& volume) {
  volume.set_capacity_bytes(static_cast<int64_t>(number_of(document, "spec.size_bytes")));
  volume.set_volume_id(text_of(document, "name"));
  const std::string_view prefix = kLabelContext;
  for (const auto& [key, value] : field(document, "labels").items()) {
    if (!key.starts_with(prefix)) continue;
    (*volume.mutable_volume_context())[key.substr(prefix.size())] = text_of_label(value.get<std::string>());
  }
  const std::string snapshot = text_of(document, "spec.source");
  const std::string source = label_text(document, kLabelSourceVolume);
  if (!source.empty()) {
    volume.mutable_content_source()->mutable_volume()->set_volume_id(source);
  } else if (!snapshot.empty()) {
    volume.mutable_content_source()->mutable_snapshot()->set_snapshot_id(snapshot);
  }
}

namespace {

template <typename Message>
void set_creation(const Json& document, Message& message) {
  const uint64_t taken_ms = number_of(document, "status.taken_ms");
  const uint64_t at_ms = taken_ms != 0 ? taken_ms : number_of(document, "created_ms");
  message.mutable_creation_time()->set_seconds(static_cast<int64_t>(at_ms / 1000));
  message.mutable_creation_time()->set_nanos(static_cast<int32_t>(at_ms % 1000) * 1'000'000);
}

}  // namespace

void fill(const Json& document, wire::VolumeGroupSnapshot& group) {
  const bool is_ready = text_of(document, "status.state") == "ready";
  group.set_group_snapshot_id(text_of(document, "name"));
  group.set_ready_to_use(is_ready);
  set_creation(document, group);
  for (const Json& each : field(document, "status.snapshots")) {
    wire::Snapshot& snapshot = *group.add_snapshots();
    snapshot.set_snapshot_id(text_of(each, "name"));
    snapshot.set_source_volume_id(text_of(each, "volume"));
    snapshot.set_size_bytes(static_cast<int64_t>(number_of(each, "size_bytes")));
    snapshot.set_group_snapshot_id(text_of(document, "name"));
    snapshot.set_ready_to_use(is_ready);
    set_creation(document, snapshot);
  }
}

void fill(const Json& document, wire::Snapshot& snapshot) {
  snapshot.set_snapshot_id(text_of(document, "name"));
  snapshot.set_source_volume_id(text_of(document, "spec.volume"));
  snapshot.set_size_bytes(static_cast<int64_t>(number_of(document, "status.size_bytes")));
  snapshot.set_ready_to_use(text_of(document, "status.state") == "ready" && !is_unsettled(document));
  snapshot.set_group_snapshot_id(text_of(document, "spec.group"));
  set_creation(document, snapshot);
}

void fill(const Json& document, wire::VolumeCondition& condition) {
  const std::string complaint = complaint_of(document);
  condition.set_abnormal(!complaint.empty());
  condition.set_message(complaint.empty() ? "all is well" : complaint);
}

void fill(const Json& document, const std::set<std::string>& failed_pools, wire::VolumeHealth& health) {
  health.set_volume_id(text_of(document, "name"));
  const std::string state = text_of(document, "status.state");
  if (state.empty() || state == "creating" || state == "deleting") return;
  const auto add = [&](wire::VolumeHealthErrorType status, std::string reason, std::string message) {
    wire::VolumeHealth::VolumeHealthEntry& entry = *health.add_health_statuses();
    entry.set_status(status);
    entry.set_reason(std::move(reason));
    entry.set_message(std::move(message));
  };
  // What is not known, as when the control plane has just started, is nothing wrong.
  for (const auto& [type, status] : {std::pair("Available", wire::INACCESSIBLE), std::pair("Redundant", wire::DEGRADED),
                                     std::pair("Placed", wire::DEGRADED)}) {
    const Json& condition = condition_of(document, type);
    const Json& is_met = field(condition, "met");
    const std::string reason = text_of(condition, "reason");
    if (!is_met.is_boolean() || is_met.get<bool>() || reason == "Unknown") continue;
    add(status, reason, text_of(condition, "message"));
  }
  const Json& replicas = field(document, "status.replicas");
  const auto has_failed = [&](const Json& replica) { return failed_pools.contains(text_of(replica, "pool")); };
  if (state == "unavailable" && !replicas.empty() && std::ranges::all_of(replicas, has_failed)) {
    add(wire::DATA_LOSS, "NoReplicaLeft", "each of its replicas is in a pool that has failed");
  }
}

std::string still_label(const Json& snapshot) { return label_text(snapshot, kLabelStill); }
bool is_unsettled(const Json& snapshot) {
  const std::string still = still_label(snapshot);
  return !still.empty() && still != kStill;
}

bool is_deleting(const Json& document) { return text_of(document, "status.state") == "deleting"; }

const Json& condition_of(const Json& volume, std::string_view type) {
  static const Json kNothing;
  for (const Json& condition : field(volume, "status.conditions")) {
    if (text_of(condition, "type") == type) return condition;
  }
  return kNothing;
}

std::string complaint_of(const Json& volume) {
  std::vector<std::string> complaints;
  for (const char* const type : kAbnormal) {
    const Json& condition = condition_of(volume, type);
    const Json& is_met = field(condition, "met");
    if (is_met.is_boolean() && !is_met.get<bool>()) complaints.push_back(text_of(condition, "message"));
  }
  return fmt::format("{}", fmt::join(complaints, "; "));
}

// ---- Uses

Outcome<Use> use_of(const wire::VolumeCapability& capability) {
  using Mode = wire::VolumeCapability::AccessMode;
  Use use;
  if (!capability.has_block() && !capability.has_mount()) {
    return problem(Code::kInvalidArgument, "volume_capability: expected block or mount");
  }
  use.is_block = capability.has_block();
  if (capability.has_mount() && !capability.mount().fs_type().empty()) {
    FL_TRY_VOID(check_fs_type(capability.mount().fs_type()));
  }
  if (!capability.has_access_mode() || capability.access_mode().mode() == Mode::UNKNOWN) {
    return problem(Code::kInvalidArgument, "volume_capability: access_mode is missing");
  }
  const Mode::Mode mode = capability.access_mode().mode();
  use.mode = mode;
  use.is_shared = mode == Mode::MULTI_NODE_READER_ONLY || mode == Mode::MULTI_NODE_SINGLE_WRITER ||
                  mode == Mode::MULTI_NODE_MULTI_WRITER;
  use.is_read_only = mode == Mode::SINGLE_NODE_READER_ONLY || mode == Mode::MULTI_NODE_READER_ONLY;
  if (!Mode::Mode_IsValid(mode)) {
    return problem(Code::kInvalidArgument,
                   fmt::format("volume_capability: access mode {} is not known", static_cast<int>(mode)));
  }
  if (use.is_shared && !use.is_block) {
    return problem(Code::kInvalidArgument,
                   "volume_capability: a file system is for one machine at a time; several of them can share a volume "
                   "as a raw block device only (volumeMode: Block)");
  }
  return use;
}

std::string to_text(const Use& use) {
  return fmt::format("{}.{}.{}", use.is_read_only ? "ro" : "rw", use.is_block ? "block" : "mount",
                     use.is_shared ? "shared" : "single");
}

bool is_shared(std::string_view publication) { return publication.ends_with(".shared"); }
bool is_mounted_to_write(std::string_view publication) { return publication.starts_with("rw.mount."); }

// ---- Publications

std::vector<std::string> published_hosts(const Json& volume) {
  std::vector<std::string> hosts;
  for (const Json& each : field(volume, "spec.allowed_hosts")) {
    std::string host = each.get<std::string>();
    if (label_of(volume, publication_label(host)).is_string()) hosts.push_back(std::move(host));
  }
  return hosts;
}

std::string publication_of(const Json& volume, const std::string& host) {
  return label_text(volume, publication_label(host));
}

Json publication_patch(const Json& volume, const std::string& host, const std::string& publication) {
  std::vector<std::string> hosts;
  for (const Json& each : field(volume, "spec.allowed_hosts")) {
    std::string allowed = each.get<std::string>();
    if (allowed != host && allowed != kNobody) hosts.push_back(std::move(allowed));
  }
  if (!publication.empty()) hosts.push_back(host);
  if (hosts.empty()) hosts.emplace_back(kNobody);
  Json patch;
  patch["labels"][publication_label(host)] = publication.empty() ? Json() : Json(publication);
  patch["spec"]["allowed_hosts"] = hosts;
  return patch;
}

bool is_served(const Json& volume) {
  const Json& paths = field(volume, "status.paths");
  return std::ranges::any_of(paths, [](const Json& path) { return text_of(path, "state") == "serving"; });
}

std::vector<std::string> path_addresses(const Json& volume) {
  std::vector<std::string> addresses;
  for (const Json& path : field(volume, "status.paths")) {
    const std::string address = text_of(path, "address");
    if (address.empty()) continue;
    addresses.insert(text_of(path, "state") == "serving" ? addresses.begin() : addresses.end(), address);
  }
  return addresses;
}

Texts publish_context(const Json& volume) {
  return {{"nqn", text_of(volume, "status.nqn")},
          {"uuid", text_of(volume, "id")},
          {"paths", fmt::format("{}", fmt::join(path_addresses(volume), ","))}};
}

}  // namespace fairlead::csi
