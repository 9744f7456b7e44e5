#include "control/api.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/units.h"
#include "control/api_documents.h"
#include "control/control.h"
#include "control/recover.h"

namespace fairlead::control {
namespace {

bool is_selected(const Node& node, const Selection& selection) {
  return has_labels(node.metadata.labels, selection.labels);
}
bool is_selected(const Pool& pool, const Selection& selection) {
  return has_labels(pool.metadata.labels, selection.labels) &&
         (selection.node.empty() || pool.spec.node == selection.node);
}
bool is_selected(const Volume& volume, const Selection& selection) {
  return has_labels(volume.metadata.labels, selection.labels);
}
bool is_selected(const Snapshot& snapshot, const Selection& selection) {
  return has_labels(snapshot.metadata.labels, selection.labels) &&
         (selection.volume.empty() || snapshot.spec.volume == selection.volume);
}

bool is_met(const std::vector<Condition>& conditions, std::string_view type) {
  const auto found = std::ranges::find(conditions, type, &Condition::type);
  return found != conditions.end() && found->is_met;
}

std::string_view role_name(api::VolumeState::Role role) {
  switch (role) {
    case api::VolumeState::STANDING_BY:
      return "standby";
    case api::VolumeState::STARTING:
      return "starting";
    case api::VolumeState::SUSPENDED:
      return "suspended";
    case api::VolumeState::SERVING:
      return "serving";
    case api::VolumeState::SUPERSEDED:
      return "superseded";
    default:
      return "stopped";
  }
}

std::string_view standing_name(api::VolumeState::Replica::Standing standing) {
  switch (standing) {
    case api::VolumeState::Replica::AWAY:
      return "away";
    case api::VolumeState::Replica::PREPARED:
      return "prepared";
    case api::VolumeState::Replica::RETURNING:
      return "resyncing";
    case api::VolumeState::Replica::READY:
      return "ready";
    default:
      return "member";
  }
}

}  // namespace

// ---- What there is

Outcome<void> Api::check_leading() const {
  if (!control_.is_leading_) return control_.not_leading();
  return {};
}

Json Api::describe(const Node& node, uint64_t revision) const {
  const Cluster& cluster = control_.cluster_;
  const std::string& name = node.metadata.name;
  const auto report = cluster.reports().find(name);
  const bool is_ready = cluster.is_ready(name);
  Json status = {{"state", !is_ready               ? "lost"
                           : node.spec.is_draining ? "draining"
                           : node.spec.is_cordoned ? "cordoned"
                                                   : "ready"}};
  if (report != cluster.reports().end() && !is_ready) status["why"] = report->second.why;
  if (is_ready && node.spec.is_draining) {
    std::set<std::string> pools;
    for (const auto& [pool, kept] : cluster.pools()) {
      if (kept.value.spec.node == name) pools.insert(pool);
    }
    if (const std::string why = why_not_empty(pools); !why.empty()) status["why"] = why;
  }
  status["data_address"] = node.data_address;
  status["management_address"] = node.management_address;
  size_t targets = 0;
  size_t replicas = 0;
  for (const auto& [volume, kept] : cluster.volumes()) {
    if (kept.value.decision.target == name) ++targets;
    for (const PlacedReplica& replica : kept.value.decision.replicas) {
      const Kept<Pool>* const pool = cluster.find<Pool>(replica.pool);
      if (pool != nullptr && pool->value.spec.node == name) ++replicas;
    }
  }
  status["targets"] = targets;
  status["replicas"] = replicas;
  if (report != cluster.reports().end()) status["version"] = report->second.state.version();
  return document(Node::kKind, node.metadata, revision, to_json(node.spec), std::move(status));
}

// Of pools that are to have nothing: who stays there, and why.
std::string Api::why_not_empty(const std::set<std::string>& pools) const {
  for (const auto& [name, kept] : control_.cluster_.volumes()) {
    const auto& replicas = kept.value.decision.replicas;
    if (std::ranges::none_of(replicas, [&](const PlacedReplica& each) { return pools.contains(each.pool); })) continue;
    for (const Condition& condition : control_.reconciler_->conditions(name)) {
      if (condition.type != "Placed" || condition.is_met) continue;
      return fmt::format("volume {} keeps its replica: {}", name, condition.message);
    }
  }
  return {};
}

Json Api::describe(const Pool& pool, uint64_t revision) const {
  const Cluster& cluster = control_.cluster_;
  const api::PoolState* const state = cluster.pool_state(pool);
  const bool is_ready = cluster.is_ready(pool.spec.node);
  Json status = {{"state", "creating"}};
  const auto failure = control_.pool_failures_.find(pool.metadata.name);
  if (failure != control_.pool_failures_.end()) status["why"] = failure->second;
  if (pool.metadata.deleting_since_ms != 0) {
    status["state"] = "deleting";
  } else if (!is_ready) {
    status["state"] = "unknown";
    status["why"] = fmt::format("node {} is lost", pool.spec.node);
  } else if (state != nullptr && !state->trouble().empty()) {
    status["state"] = "failed";
    status["why"] = state->trouble();
  } else if (state != nullptr) {
    status["state"] = "online";
    if (pool.spec.is_evacuating) {
      if (const std::string why = why_not_empty({pool.metadata.name}); !why.empty()) status["why"] = why;
    }
    const std::string suggestion = control_.balancer_->suggestion(pool.metadata.name);
    if (!suggestion.empty()) status["suggestion"] = suggestion;
  }
  if (state != nullptr) {
    status["capacity_bytes"] = state->capacity_bytes();
    status["used_bytes"] = state->used_bytes();
    status["free_bytes"] = state->free_bytes();
    status["promised_bytes"] = state->promised_bytes();
  }
  size_t replicas = 0;
  for (const auto& [volume, kept] : cluster.volumes()) {
    for (const PlacedReplica& replica : kept.value.decision.replicas) {
      if (replica.pool == pool.metadata.name) ++replicas;
    }
  }
  status["replicas"] = replicas;
  return document(Pool::kKind, pool.metadata, revision, to_json(pool.spec), std::move(status));
}

Json Api::describe_replica(const Volume& volume, const PlacedReplica& replica, const VolumeFacts& facts) const {
  const Cluster& cluster = control_.cluster_;
  const Kept<Pool>* const pool = cluster.find<Pool>(replica.pool);
  const std::string node = pool == nullptr ? "" : pool->value.spec.node;
  Json json = {{"id", to_string(replica.id)}, {"volume", volume.metadata.name}, {"pool", replica.pool}, {"node", node}};
  const auto report = facts.replicas.find(replica.id);
  std::string state(names_of(replica.stage)[static_cast<size_t>(replica.stage)]);
  const std::string at = serving_node(facts);
  if (!cluster.is_ready(node)) {
    state = "lost";
  } else if (replica.stage == PlacedReplica::Stage::kPresent && !at.empty()) {
    for (const api::VolumeState::Replica& each : facts.nodes.at(at).volume->replicas()) {
      if (each.id() != to_string(replica.id)) continue;
      state = standing_name(each.standing());
      if (each.standing() == api::VolumeState::Replica::RETURNING) {
        json["copied_bytes"] = each.copied_bytes();
        json["to_copy_bytes"] = each.to_copy_bytes();
        json["copy_bytes_per_second"] = each.copy_rate();
        json["eta_ms"] = each.copy_left_ms();
      }
      if (each.standing() == api::VolumeState::Replica::MEMBER) json["resynced_bytes"] = each.copied_bytes();
      if (!each.last_error().empty() && each.standing() != api::VolumeState::Replica::MEMBER)
        json["error"] = each.last_error();
    }
  }
  json["state"] = state;
  if (report != facts.replicas.end()) json["allocated_bytes"] = report->second->allocated_bytes();
  return json;
}

Json Api::describe(const Volume& volume, uint64_t revision) const {
  const Cluster& cluster = control_.cluster_;
  const std::string& name = volume.metadata.name;
  const VolumeFacts facts = cluster.facts_of(name, Cluster::Use::kShow);
  const std::vector<Condition> conditions = control_.reconciler_->conditions(name);
  const std::string at = serving_node(facts);
  const bool is_available = is_met(conditions, "Available");
  const char* state = volume.metadata.deleting_since_ms != 0 ? "deleting"
                      : !volume.decision.is_formed           ? "creating"
                      : !is_available                        ? "unavailable"
                      : is_met(conditions, "Redundant")      ? "online"
                                                             : "degraded";
  Json status = {{"state", state}, {"conditions", to_json(conditions)}, {"target", at}};
  status["nqn"] = fmt::format("nqn.2026-01.io.fairlead:volume:{}", to_string(volume.metadata.id));
  status["paths"] = Json::array();
  for (const auto& [node, of] : facts.nodes) {
    if (of.volume == nullptr) continue;
    status["paths"].push_back({{"node", node},
                               {"address", of.data_address},
                               {"state", role_name(of.volume->role())},
                               {"controllers", of.volume->controllers()}});
  }
  status["replicas"] = Json::array();
  for (const PlacedReplica& replica : volume.decision.replicas) {
    status["replicas"].push_back(describe_replica(volume, replica, facts));
  }
  if (!at.empty()) status["size_bytes"] = facts.nodes.at(at).volume->size_bytes();
  status["snapshots"] = facts.snapshots.size();
  return document(Volume::kKind, volume.metadata, revision, to_json(volume.spec), std::move(status));
}

Json Api::describe(const Snapshot& snapshot, uint64_t revision) const {
  Json status = {{"state", snapshot.is_taken ? "ready" : "pending"}, {"size_bytes", snapshot.size_bytes}};
  if (snapshot.metadata.deleting_since_ms != 0) status["state"] = "deleting";
  if (snapshot.is_taken) status["taken_ms"] = snapshot.taken_ms;
  return document(Snapshot::kKind, snapshot.metadata, revision, to_json(snapshot.spec), std::move(status));
}

Json Api::describe(const Settings& settings, uint64_t revision) const {
  return {{"kind", Settings::kKind}, {"revision", revision}, {"spec", to_json(settings.spec)}};
}

template <typename T>
std::vector<Json> Api::list_of(const Selection& selection) const {
  std::vector<Json> list;
  for (const auto& [name, kept] : control_.cluster_.template map<T>()) {
    if (is_selected(kept.value, selection)) list.push_back(describe(kept.value, kept.revision));
  }
  return list;
}

std::vector<Json> Api::replicas(const Selection& selection) const {
  std::vector<Json> list;
  for (const auto& [name, kept] : control_.cluster_.volumes()) {
    if (!selection.volume.empty() && selection.volume != name) continue;
    const VolumeFacts facts = control_.cluster_.facts_of(name, Cluster::Use::kShow);
    for (const PlacedReplica& replica : kept.value.decision.replicas) {
      Json json = describe_replica(kept.value, replica, facts);
      if (selection.node.empty() || json["node"] == selection.node) list.push_back(std::move(json));
    }
  }
  return list;
}

Outcome<std::vector<Json>> Api::list(std::string_view kind, const Selection& selection) const {
  FL_TRY_VOID(check_leading());
  if (kind == Node::kKind) return list_of<Node>(selection);
  if (kind == Pool::kKind) return list_of<Pool>(selection);
  if (kind == Volume::kKind) return list_of<Volume>(selection);
  if (kind == Snapshot::kKind) return list_of<Snapshot>(selection);
  if (kind == SnapshotGroup::kKind) return groups(selection);
  if (kind == "replicas") return replicas(selection);
  return refuse(Code::kNotFound,
                "there are no {}; there are nodes, pools, volumes, replicas, snapshots and snapshot-groups", kind);
}

template <typename T>
std::optional<Json> Api::find(const std::string& name) const {
  const Kept<T>* const kept = control_.cluster_.template find<T>(name);
  return kept == nullptr ? std::nullopt : std::optional(describe(kept->value, kept->revision));
}

Outcome<Json> Api::get(std::string_view kind, const std::string& name) const {
  FL_TRY_VOID(check_leading());
  std::optional<Json> found;
  if (kind == Node::kKind) {
    found = find<Node>(name);
  } else if (kind == Pool::kKind) {
    found = find<Pool>(name);
  } else if (kind == Volume::kKind) {
    found = find<Volume>(name);
  } else if (kind == Snapshot::kKind) {
    found = find<Snapshot>(name);
  } else if (kind == Settings::kKind) {
    found = find<Settings>(name);
  } else if (kind == SnapshotGroup::kKind) {
    if (Json group = describe_group(name); !group.is_null()) found = std::move(group);
  } else {
    FL_TRY(const std::vector<Json> all, list(kind, {}));
    const auto is_it = [&](const Json& each) { return each["id"] == name; };
    if (const auto at = std::ranges::find_if(all, is_it); at != all.end()) found = *at;
  }
  if (found) return *std::move(found);
  return refuse(Code::kNotFound, "there is no {} {}", one_of(kind), name);
}

// ---- Changes

Metadata Api::metadata_for(std::string name, Labels labels) const {
  return {.name = std::move(name),
          .id = control_.home_.random.uuid(),
          .created_ms = control_.home_.clock.wall_ms(),
          .labels = std::move(labels),
          .deleting_since_ms = 0};
}

Task<Outcome<void>> Api::create_pool(Json document) {
  FL_CO_TRY(Asked<PoolSpec> asked, read_asked<PoolSpec>(document, Pool::kKind));
  FL_CO_TRY_VOID(check(asked.spec));
  Cluster& cluster = control_.cluster_;
  const Mutex::Guard guard = co_await cluster.lock();
  if (const Kept<Pool>* const there = cluster.find<Pool>(asked.name)) {
    co_return check_same(there->value, asked, Pool::kKind);
  }
  if (cluster.find<Node>(asked.spec.node) == nullptr) {
    co_return refuse(Code::kNotFound, "node: there is no node {}; 'fairlead node list' shows those that there are",
                     asked.spec.node);
  }
  Pool pool;
  pool.metadata = metadata_for(std::move(asked.name), std::move(asked.labels));
  pool.spec = std::move(asked.spec);
  Changes changes;
  changes.put(std::move(pool));
  co_return co_await cluster.commit(std::move(changes));
}

Task<Outcome<void>> Api::create_volume(Json document) {
  FL_CO_TRY(Asked<VolumeSpec> asked, read_asked<VolumeSpec>(document, Volume::kKind));
  Cluster& cluster = control_.cluster_;
  const Mutex::Guard guard = co_await cluster.lock();
  if (!asked.spec.source.empty()) {
    const Kept<Snapshot>* const source = cluster.find<Snapshot>(asked.spec.source);
    if (source == nullptr) co_return refuse(Code::kNotFound, "source: there is no snapshot {}", asked.spec.source);
    if (asked.spec.size_bytes == 0) asked.spec.size_bytes = source->value.size_bytes;
    if (source->value.is_taken && asked.spec.size_bytes < source->value.size_bytes) {
      co_return refuse(Code::kInvalidArgument, "size_bytes: the snapshot {} has {}, and a clone is not smaller",
                       asked.spec.source, format_size(source->value.size_bytes));
    }
  }
  FL_CO_TRY_VOID(check(asked.spec));
  if (const Kept<Volume>* const there = cluster.find<Volume>(asked.name)) {
    co_return check_same(there->value, asked, Volume::kKind);
  }
  Volume volume;
  volume.metadata = metadata_for(asked.name, std::move(asked.labels));
  volume.spec = std::move(asked.spec);
  Changes changes;
  changes.put(std::move(volume));
  FL_CO_TRY_VOID(co_await cluster.commit(std::move(changes)));
  control_.events_.add(Events::Severity::kNormal, key_of(Volume::kKind, asked.name), "Created", "it was asked for");
  if (control_.reconciler_ != nullptr) control_.reconciler_->mark(asked.name);
  co_return Outcome<void>();
}

Task<Outcome<void>> Api::create_snapshot(Json document) {
  FL_CO_TRY(Asked<SnapshotSpec> asked, read_asked<SnapshotSpec>(document, Snapshot::kKind));
  Cluster& cluster = control_.cluster_;
  const Mutex::Guard guard = co_await cluster.lock();
  if (const Kept<Snapshot>* const there = cluster.find<Snapshot>(asked.name)) {
    co_return check_same(there->value, asked, Snapshot::kKind);
  }
  if (!asked.spec.group.empty()) {
    co_return refuse(Code::kInvalidArgument,
                     "group: a snapshot of a group is made with the others, as a snapshot-group");
  }
  FL_CO_TRY_VOID(check_room(asked.spec.volume));
  Snapshot snapshot;
  snapshot.metadata = metadata_for(asked.name, std::move(asked.labels));
  snapshot.spec = asked.spec;
  Changes changes;
  changes.put(std::move(snapshot));
  FL_CO_TRY_VOID(co_await cluster.commit(std::move(changes)));
  if (control_.reconciler_ != nullptr) control_.reconciler_->mark(asked.spec.volume);
  co_return Outcome<void>();
}

Task<Outcome<Json>> Api::create(std::string kind, Json document) {
  FL_CO_TRY_VOID(check_leading());
  const std::string name = document.is_object() && document.contains("name") && document["name"].is_string()
                               ? document["name"].get<std::string>()
                               : std::string();
  if (kind == Pool::kKind) {
    FL_CO_TRY_VOID(co_await create_pool(std::move(document)));
  } else if (kind == Volume::kKind) {
    FL_CO_TRY_VOID(co_await create_volume(std::move(document)));
  } else if (kind == Snapshot::kKind) {
    FL_CO_TRY_VOID(co_await create_snapshot(std::move(document)));
  } else if (kind == SnapshotGroup::kKind) {
    FL_CO_TRY_VOID(co_await create_group(std::move(document)));
  } else {
    co_return refuse(Code::kNotSupported, "{} cannot be made; pools, volumes, snapshots and snapshot-groups can", kind);
  }
  control_.changed_.release_waiters();
  co_return get(kind, name);
}

template <typename T>
Task<Outcome<void>> Api::update_one(std::string name, Json patch, std::optional<uint64_t> revision) {
  Cluster& cluster = control_.cluster_;
  const Mutex::Guard guard = co_await cluster.lock();
  const Kept<T>* const there = cluster.find<T>(name);
  if (there == nullptr) co_return refuse(Code::kNotFound, "there is no {} {}", one_of(T::kKind), name);
  FL_CO_TRY_VOID(check_revision(revision, there->revision));
  using Spec = std::remove_cvref_t<decltype(there->value.spec)>;
  T next = there->value;
  Json merged =
      to_json(Asked<Spec>{.kind = one_of(T::kKind), .name = name, .labels = next.metadata.labels, .spec = next.spec});
  merged.merge_patch(patch);
  FL_CO_TRY(const Asked<Spec> asked, read_asked<Spec>(merged, T::kKind));
  if (asked.name != name) co_return refuse(Code::kInvalidArgument, "name: it does not change");
  if constexpr (std::same_as<T, Volume>) {
    FL_CO_TRY_VOID(check_change(there->value.spec, asked.spec));
  } else if constexpr (std::same_as<T, Pool>) {
    FL_CO_TRY_VOID(check(asked.spec));
    Spec same = asked.spec;
    same.is_evacuating = there->value.spec.is_evacuating;
    if (to_json(same) != to_json(there->value.spec)) {
      co_return refuse(Code::kInvalidArgument, "spec: of a pool only 'evacuating' changes");
    }
  } else if constexpr (std::same_as<T, Settings>) {
    if (!asked.labels.empty()) co_return refuse(Code::kInvalidArgument, "labels: settings have none");
  } else if constexpr (std::same_as<T, Snapshot>) {
    if (to_json(asked.spec) != to_json(there->value.spec)) {
      co_return refuse(Code::kInvalidArgument, "spec: of a snapshot only the labels change");
    }
  }
  next.metadata.labels = asked.labels;
  next.spec = asked.spec;
  Changes changes;
  changes.put(std::move(next));
  co_return co_await cluster.commit(std::move(changes));
}

Task<Outcome<Json>> Api::update(std::string kind, std::string name, Json patch, std::optional<uint64_t> revision) {
  FL_CO_TRY_VOID(check_leading());
  if (!patch.is_object()) co_return refuse(Code::kInvalidArgument, "a patch is an object with labels and spec");
  if (kind == Node::kKind) {
    FL_CO_TRY_VOID(co_await update_one<Node>(name, std::move(patch), revision));
  } else if (kind == Pool::kKind) {
    FL_CO_TRY_VOID(co_await update_one<Pool>(name, std::move(patch), revision));
  } else if (kind == Volume::kKind) {
    FL_CO_TRY_VOID(co_await update_one<Volume>(name, std::move(patch), revision));
  } else if (kind == Snapshot::kKind) {
    FL_CO_TRY_VOID(co_await update_one<Snapshot>(name, std::move(patch), revision));
  } else if (kind == Settings::kKind) {
    FL_CO_TRY_VOID(co_await update_one<Settings>(name, std::move(patch), revision));
  } else {
    co_return refuse(Code::kNotSupported, "{} cannot be changed; nodes, pools, volumes, snapshots and settings can",
                     kind);
  }
  mark_changed(kind, name);
  control_.changed_.release_waiters();
  co_return get(kind, name);
}

// Nodes and pools matter to any volume, and so does a snapshot, which its own and clones of it depend on.
void Api::mark_changed(std::string_view kind, const std::string& name) {
  if (control_.reconciler_ == nullptr) return;
  if (kind == Volume::kKind) return control_.reconciler_->mark(name);
  if (kind != Settings::kKind) control_.reconciler_->mark_all();
}

// ---- Removal

Outcome<void> Api::check_removal(const Node& node) const {
  const std::string& name = node.metadata.name;
  if (control_.cluster_.is_ready(name)) {
    return refuse(Code::kBusy, "node {} is there: drain it, and stop its engine first", name);
  }
  // Its pools go with it: nobody else could delete them.
  for (const auto& [pool, kept] : control_.cluster_.pools()) {
    if (kept.value.spec.node == name) {
      FL_TRY_VOID(check_removal(kept.value));
    }
  }
  return {};
}

Outcome<void> Api::check_removal(const Pool& pool) const {
  std::vector<std::string> used;
  for (const auto& [name, kept] : control_.cluster_.volumes()) {
    for (const PlacedReplica& replica : kept.value.decision.replicas) {
      if (replica.pool == pool.metadata.name) used.push_back(name);
    }
  }
  if (used.empty()) return {};
  const size_t count = used.size();
  used.resize(std::min<size_t>(count, 5));
  return refuse(Code::kBusy, "pool {} has replicas of {} volume{} ({}{}): evacuate it first", pool.metadata.name, count,
                count == 1 ? "" : "s", fmt::join(used, ", "), count > used.size() ? ", …" : "");
}

Outcome<void> Api::check_removal(const Volume& volume) const {
  for (const auto& [name, kept] : control_.cluster_.snapshots()) {
    if (kept.value.spec.volume != volume.metadata.name) continue;
    return refuse(Code::kBusy, "volume {} has the snapshot {}: delete its snapshots first", volume.metadata.name, name);
  }
  return {};
}

Outcome<void> Api::check_removal(const Snapshot& snapshot) const {
  if (!snapshot.spec.group.empty()) {
    return refuse(Code::kBusy, "snapshot {} is of the group {}: delete that, with all its snapshots",
                  snapshot.metadata.name, snapshot.spec.group);
  }
  return check_unused(snapshot);
}

// By a volume that is being made of it.
Outcome<void> Api::check_unused(const Snapshot& snapshot) const {
  for (const auto& [name, kept] : control_.cluster_.volumes()) {
    if (kept.value.spec.source != snapshot.metadata.name || kept.value.decision.is_formed) continue;
    return refuse(Code::kBusy, "volume {} is being made of snapshot {}", name, snapshot.metadata.name);
  }
  return {};
}

template <typename T>
Task<Outcome<void>> Api::mark_deleting(std::string name, std::optional<uint64_t> revision) {
  Cluster& cluster = control_.cluster_;
  const Mutex::Guard guard = co_await cluster.lock();
  const Kept<T>* const there = cluster.find<T>(name);
  if (there == nullptr) co_return Outcome<void>();
  FL_CO_TRY_VOID(check_revision(revision, there->revision));
  if (there->value.metadata.deleting_since_ms != 0) co_return Outcome<void>();
  FL_CO_TRY_VOID(check_removal(there->value));
  Changes changes;
  if constexpr (std::same_as<T, Node>) {
    changes.remove<Node>(name);
    for (const auto& [pool, kept] : cluster.pools()) {
      if (kept.value.spec.node == name) changes.remove<Pool>(pool);
    }
  } else {
    T next = there->value;
    next.metadata.deleting_since_ms = control_.home_.clock.wall_ms();
    changes.put(std::move(next));
  }
  co_return co_await cluster.commit(std::move(changes));
}

Task<Outcome<void>> Api::remove(std::string kind, std::string name, std::optional<uint64_t> revision) {
  FL_CO_TRY_VOID(check_leading());
  Outcome<void> done;
  if (kind == Node::kKind) {
    done = co_await mark_deleting<Node>(name, revision);
  } else if (kind == Pool::kKind) {
    done = co_await mark_deleting<Pool>(name, revision);
  } else if (kind == Volume::kKind) {
    done = co_await mark_deleting<Volume>(name, revision);
  } else if (kind == Snapshot::kKind) {
    done = co_await mark_deleting<Snapshot>(name, revision);
  } else if (kind == SnapshotGroup::kKind) {
    done = co_await remove_group(name, revision);
  } else {
    co_return refuse(Code::kNotSupported,
                     "{} cannot be deleted; nodes, pools, volumes, snapshots and snapshot-groups can", kind);
  }
  mark_changed(kind, name);
  control_.changed_.release_waiters();
  co_return done;
}

Task<Outcome<void>> Api::force(std::string volume, std::string replica) {
  FL_CO_TRY_VOID(check_leading());
  const Kept<Volume>* const kept = control_.cluster_.find<Volume>(volume);
  if (kept == nullptr) co_return refuse(Code::kNotFound, "there is no volume {}", volume);
  const std::string node = serving_node(control_.cluster_.facts_of(volume, Cluster::Use::kShow));
  if (node.empty()) co_return refuse(Code::kBusy, "no engine tries to serve volume {} now", volume);
  api::ForceVolumeRequest request;
  request.set_id(to_string(kept->value.metadata.id));
  request.set_trusted_replica(replica);
  control_.events_.add(Events::Severity::kWarning, key_of(Volume::kKind, volume), "Forced",
                       fmt::format("somebody trusts replica {} alone", replica));
  FL_CO_TRY_VOID(co_await control_.engines_.call<api::Done>(node, "ForceVolume", std::move(request),
                                                            control_.settings_.call_limit));
  co_return Outcome<void>();
}

Task<Outcome<Json>> Api::recover() {
  FL_CO_TRY_VOID(check_leading());
  Cluster& cluster = control_.cluster_;
  Json volumes = Json::array();
  Json snapshots = Json::array();
  Json missing = Json::array();
  const Mutex::Guard guard = co_await cluster.lock();
  // One transaction each: it may be asked for again, and goes on with the rest.
  for (RecoveredVolume& found : find_lost_volumes(cluster, control_.home_.clock.wall_ms())) {
    const std::string name = found.volume.metadata.name;
    Changes changes;
    changes.write(WitnessService::abstention(found.volume.metadata.id));
    changes.put(std::move(found.volume));
    found.snapshots.resize(std::min(found.snapshots.size(), kWritesMax - 2));
    for (Snapshot& snapshot : found.snapshots) {
      snapshots.push_back(snapshot.metadata.name);
      changes.put(std::move(snapshot));
    }
    FL_CO_TRY_VOID(co_await cluster.commit(std::move(changes)));
    volumes.push_back(name);
    for (const std::string& id : found.missing) missing.push_back(id);
    control_.events_.add(Events::Severity::kWarning, key_of(Volume::kKind, name), "Recovered",
                         "it was made anew from its replicas: the store did not know it");
    if (control_.reconciler_ != nullptr) control_.reconciler_->mark(name);
  }
  control_.changed_.release_waiters();
  co_return Json{{"volumes", std::move(volumes)}, {"snapshots", std::move(snapshots)}, {"missing", std::move(missing)}};
}

// ---- For people

std::vector<std::string> Api::why_volume(const Volume& volume) const {
  const std::string& name = volume.metadata.name;
  std::vector<std::string> lines;
  for (const Condition& condition : control_.reconciler_->conditions(name)) {
    if (condition.is_met) continue;
    std::string line = fmt::format("{}: {}", condition.reason, condition.message);
    if (condition.eta_ms) line += fmt::format(" (about {} s left)", (*condition.eta_ms + 999) / 1000);
    lines.push_back(std::move(line));
  }
  for (const auto& [node, facts] : control_.cluster_.facts_of(name, Cluster::Use::kShow).nodes) {
    if (facts.is_ready) continue;
    const auto report = control_.cluster_.reports().find(node);
    if (control_.cluster_.has_to_do_with(node, volume) && report != control_.cluster_.reports().end()) {
      lines.push_back(fmt::format("node {} is lost: {}", node, report->second.why));
    }
  }
  if (lines.empty()) lines.push_back(fmt::format("volume {} is as it was asked for", name));
  return lines;
}

Outcome<std::vector<std::string>> Api::why(std::string_view kind, const std::string& name) const {
  FL_TRY(const Json found, get(kind, name));
  if (kind == Volume::kKind) return why_volume(control_.cluster_.find<Volume>(name)->value);
  std::vector<std::string> lines;
  const Json empty = Json::object();
  const Json& status = found.contains("status") ? found["status"] : empty;
  std::string line = fmt::format("{} {} is {}", one_of(kind), name,
                                 found.contains("state")    ? found["state"].get<std::string>()
                                 : status.contains("state") ? status["state"].get<std::string>()
                                                            : "there");
  if (status.contains("why")) line += ": " + status["why"].get<std::string>();
  lines.push_back(std::move(line));
  if (status.contains("suggestion")) lines.push_back(status["suggestion"].get<std::string>());
  if (kind == Node::kKind) {
    for (const std::string& volume : control_.cluster_.volumes_of(name)) {
      const auto of_volume = why_volume(control_.cluster_.find<Volume>(volume)->value);
      if (control_.cluster_.is_ready(name) && !found["spec"]["draining"].get<bool>()) break;
      lines.push_back(fmt::format("volume {}: {}", volume, of_volume.front()));
    }
  }
  return lines;
}

Outcome<Json> Api::overview() const {
  FL_TRY_VOID(check_leading());
  Json problems = Json::array();
  const auto count = [&](std::string_view kind, std::string_view good) -> Outcome<Json> {
    FL_TRY(const std::vector<Json> all, list(kind, {}));
    size_t well = 0;
    for (const Json& each : all) {
      const std::string state = each["status"]["state"].get<std::string>();
      if (state == good) {
        ++well;
        continue;
      }
      const std::string name = each["name"].get<std::string>();
      FL_TRY(const std::vector<std::string> lines, why(kind, name));
      problems.push_back({{"resource", key_of(kind, name)}, {"state", state}, {"why", lines.front()}});
    }
    return Json{{"total", all.size()}, {std::string(good), well}};
  };
  FL_TRY(Json nodes, count(Node::kKind, "ready"));
  FL_TRY(Json pools, count(Pool::kKind, "online"));
  FL_TRY(Json volumes, count(Volume::kKind, "online"));
  FL_TRY(Json snapshots, count(Snapshot::kKind, "ready"));
  const bool is_well = problems.empty();
  return Json{{"well", is_well},
              {"nodes", std::move(nodes)},
              {"pools", std::move(pools)},
              {"volumes", std::move(volumes)},
              {"snapshots", std::move(snapshots)},
              {"problems", std::move(problems)}};
}

std::vector<Json> Api::events(uint64_t after, const std::string& resource) const {
  std::vector<Json> list;
  for (const EventRecord& event : control_.events_.list()) {
    if (event.number > after && (resource.empty() || event.resource == resource)) list.push_back(to_json(event));
  }
  return list;
}

}  // namespace fairlead::control
