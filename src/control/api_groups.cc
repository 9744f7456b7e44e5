// Groups of snapshots: nothing is kept of one but its snapshots, which are made, and deleted, together.
#include <algorithm>
#include <ranges>

#include "control/api.h"
#include "control/api_documents.h"
#include "control/control.h"

namespace fairlead::control {

namespace {

// With what is appended to it the name of a snapshot.
constexpr size_t kGroupNameMax = 60;

}  // namespace

// Null: there is no such group.
Json Api::describe_group(const std::string& group) const {
  Metadata metadata;
  uint64_t revision = 0;
  std::vector<const Snapshot*> parts;
  for (const auto& [name, kept] : control_.cluster_.snapshots()) {
    if (kept.value.spec.group != group) continue;
    parts.push_back(&kept.value);
    revision = std::max(revision, kept.revision);
  }
  if (group.empty() || parts.empty()) return nullptr;
  const auto volume_of = [](const Snapshot* part) { return part->spec.volume; };
  std::ranges::sort(parts, {}, volume_of);
  metadata = parts.front()->metadata;
  metadata.name = group;
  const bool is_taken = std::ranges::all_of(parts, &Snapshot::is_taken);
  SnapshotGroupSpec spec;
  Json snapshots = Json::array();
  for (const Snapshot* const part : parts) {
    spec.volumes.push_back(part->spec.volume);
    snapshots.push_back(
        {{"name", part->metadata.name}, {"volume", part->spec.volume}, {"size_bytes", part->size_bytes}});
    metadata.deleting_since_ms = std::max(metadata.deleting_since_ms, part->metadata.deleting_since_ms);
  }
  Json status = {{"state", metadata.deleting_since_ms != 0 ? "deleting" : is_taken ? "ready" : "pending"}};
  if (is_taken) status["taken_ms"] = parts.front()->taken_ms;
  if (const std::string why =
          is_taken || control_.group_cuts_ == nullptr ? std::string() : control_.group_cuts_->why(group);
      !why.empty()) {
    status["why"] = why;
  }
  status["snapshots"] = std::move(snapshots);
  Json described = document(SnapshotGroup::kKind, metadata, revision, to_json(spec), std::move(status));
  described.erase("id");  // engines know none
  return described;
}

std::vector<Json> Api::groups(const Selection& selection) const {
  std::set<std::string> names;
  for (const auto& [name, kept] : control_.cluster_.snapshots()) {
    const Snapshot& snapshot = kept.value;
    if (!has_labels(snapshot.metadata.labels, selection.labels)) continue;
    if (selection.volume.empty() || selection.volume == snapshot.spec.volume) names.insert(snapshot.spec.group);
  }
  names.erase("");
  std::vector<Json> list;
  for (const std::string& name : names) list.push_back(describe_group(name));
  return list;
}

// For one snapshot more.
Outcome<void> Api::check_room(const std::string& name) const {
  const Cluster& cluster = control_.cluster_;
  const Kept<Volume>* const volume = cluster.find<Volume>(name);
  if (volume == nullptr || volume->value.metadata.deleting_since_ms != 0) {
    return refuse(Code::kNotFound, "volume: there is no volume {}", name);
  }
  const auto is_its = [&](const auto& each) { return each.second.value.spec.volume == name; };
  const auto count = std::ranges::count_if(cluster.snapshots(), is_its);
  if (static_cast<uint64_t>(count) < volume->value.spec.snapshot_limit) return {};
  return refuse(Code::kResourceExhausted, "volume {} has {} snapshots, its limit: delete one, or raise snapshot_limit",
                name, count);
}

Task<Outcome<void>> Api::create_group(Json document) {
  FL_CO_TRY(Asked<SnapshotGroupSpec> asked, read_asked<SnapshotGroupSpec>(document, SnapshotGroup::kKind));
  if (asked.name.size() > kGroupNameMax) {
    co_return refuse(Code::kInvalidArgument, "name: that of a group has {} characters at most", kGroupNameMax);
  }
  std::vector<std::string>& volumes = asked.spec.volumes;
  std::ranges::sort(volumes);
  if (volumes.empty() || volumes.size() > SnapshotGroupSpec::kVolumesMax ||
      std::ranges::adjacent_find(volumes) != volumes.end()) {
    co_return refuse(Code::kInvalidArgument, "volumes: 1 to {} are named, each once", SnapshotGroupSpec::kVolumesMax);
  }
  Cluster& cluster = control_.cluster_;
  const Mutex::Guard guard = co_await cluster.lock();
  if (const Json there = describe_group(asked.name); !there.is_null()) {
    if (there["status"]["state"] != "deleting" && there["spec"] == to_json(asked.spec)) co_return Outcome<void>();
    co_return refuse(Code::kAlreadyExists,
                     "there is a snapshot-group {} already, of other volumes or being deleted: take another name",
                     asked.name);
  }
  Changes changes;
  for (size_t i = 0; i < volumes.size(); ++i) {
    FL_CO_TRY_VOID(check_room(volumes[i]));
    Snapshot snapshot;
    snapshot.metadata = metadata_for(fmt::format("{}-{}", asked.name, i + 1), asked.labels);
    snapshot.spec = {.volume = volumes[i], .group = asked.name};
    if (cluster.find<Snapshot>(snapshot.metadata.name) != nullptr) {
      co_return refuse(Code::kAlreadyExists, "name: there is a snapshot {} already: take another name",
                       snapshot.metadata.name);
    }
    changes.put(std::move(snapshot));
  }
  FL_CO_TRY_VOID(co_await cluster.commit(std::move(changes)));
  if (control_.group_cuts_ != nullptr) control_.group_cuts_->look();
  co_return Outcome<void>();
}

Task<Outcome<void>> Api::remove_group(std::string name, std::optional<uint64_t> revision) {
  Cluster& cluster = control_.cluster_;
  const Mutex::Guard guard = co_await cluster.lock();
  const Json there = describe_group(name);
  if (there.is_null()) co_return Outcome<void>();
  FL_CO_TRY_VOID(check_revision(revision, there["revision"].get<uint64_t>()));
  Changes changes;
  for (const auto& [each, kept] : cluster.snapshots()) {
    if (kept.value.spec.group != name || kept.value.metadata.deleting_since_ms != 0) continue;
    FL_CO_TRY_VOID(check_unused(kept.value));
    Snapshot next = kept.value;
    next.metadata.deleting_since_ms = control_.home_.clock.wall_ms();
    changes.put(std::move(next));
  }
  FL_CO_TRY_VOID(co_await cluster.commit(std::move(changes)));
  if (control_.group_cuts_ != nullptr) control_.group_cuts_->look();
  co_return Outcome<void>();
}

}  // namespace fairlead::control
