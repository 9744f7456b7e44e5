#include "control/cluster.h"

#include <fmt/format.h>

#include "base/check.h"
#include "control/json.h"
#include "control/recover.h"

namespace fairlead::control {
namespace {

Uuid id_of(const std::string& text) { return parse_uuid(text).value_or(Uuid{}); }

// Everything of each volume, to see whether it is as it was.
std::map<Uuid, std::string> fingerprints(const api::NodeState& state) {
  std::map<Uuid, std::string> all;
  for (const api::VolumeState& volume : state.volumes()) all[id_of(volume.id())] = volume.SerializeAsString();
  for (const api::ReplicaState& replica : state.replicas()) {
    all[id_of(replica.volume())] += replica.SerializeAsString();
  }
  return all;
}

// The volumes that are not as they were.
std::set<Uuid> differences(const NodeReport& report, const api::NodeState& now) {
  const std::map<Uuid, std::string> before = fingerprints(report.state);
  const std::map<Uuid, std::string> after = fingerprints(now);
  std::set<Uuid> changed;
  for (const auto& [id, text] : before) {
    const auto found = after.find(id);
    if (found == after.end() || found->second != text) changed.insert(id);
  }
  for (const auto& [id, text] : after) {
    if (!before.contains(id)) changed.insert(id);
  }
  return changed;
}

// What is neither among them nor gone stays.
template <typename Items, typename Ids>
void add_unchanged(Items& before, const Ids& gone, Items& now) {
  std::set<std::string> others(gone.begin(), gone.end());
  for (const auto& item : now) others.insert(item.id());
  for (auto& item : before) {
    if (!others.contains(item.id())) *now.Add() = std::move(item);
  }
}

// Makes the state of a report that tells of changes only whole. Returns the volumes that they are of.
std::set<Uuid> merge(NodeReport& report, api::ReportRequest& request) {
  api::NodeState& now = *request.mutable_state();
  std::set<Uuid> changed;
  for (const api::VolumeState& volume : now.volumes()) changed.insert(id_of(volume.id()));
  for (const api::ReplicaState& replica : now.replicas()) changed.insert(id_of(replica.volume()));
  for (const std::string& volume : request.gone_volumes()) changed.insert(id_of(volume));
  const std::set<std::string> gone(request.gone_replicas().begin(), request.gone_replicas().end());
  for (const api::ReplicaState& replica : report.state.replicas()) {
    if (gone.contains(replica.id())) changed.insert(id_of(replica.volume()));
  }
  add_unchanged(*report.state.mutable_volumes(), request.gone_volumes(), *now.mutable_volumes());
  add_unchanged(*report.state.mutable_replicas(), request.gone_replicas(), *now.mutable_replicas());
  return changed;
}

void index(NodeReport& report) {
  report.volumes.clear();
  report.replicas.clear();
  for (const api::VolumeState& volume : report.state.volumes()) report.volumes[id_of(volume.id())] = &volume;
  for (const api::ReplicaState& replica : report.state.replicas()) {
    report.replicas[id_of(replica.volume())][id_of(replica.id())] = &replica;
  }
}

}  // namespace

template <>
const KeptMap<Node>& Cluster::map<Node>() const {
  return nodes_;
}
template <>
const KeptMap<Pool>& Cluster::map<Pool>() const {
  return pools_;
}
template <>
const KeptMap<Volume>& Cluster::map<Volume>() const {
  return volumes_;
}
template <>
const KeptMap<Snapshot>& Cluster::map<Snapshot>() const {
  return snapshots_;
}
template <>
const KeptMap<Garbage>& Cluster::map<Garbage>() const {
  return garbage_;
}
template <>
const KeptMap<Settings>& Cluster::map<Settings>() const {
  return kept_settings_;
}

Cluster::Cluster(Shard& home, Store& store, const ControlSettings& settings)
    : home_(home), store_(store), settings_(settings), mutex_(home.reactor) {
  clear();
}

void Cluster::clear() {
  nodes_.clear();
  pools_.clear();
  volumes_.clear();
  snapshots_.clear();
  garbage_.clear();
  volume_names_.clear();
  Kept<Settings> settings;
  settings.value.metadata.name = Settings::kName;
  kept_settings_ = {{Settings::kName, settings}};
}

// ---- The store

template <typename T>
Outcome<void> Cluster::read(const Entry& entry) {
  const Outcome<Json> json = parse_json(entry.value);
  T value;
  const Outcome<void> done = json ? read_json(*json, value) : std::unexpected(json.error());
  if (!done) return problem(Code::kCorrupt, fmt::format("the store's {}: {}", entry.key, to_string(done.error())));
  if (key_of(T::kKind, value.metadata.name) != entry.key) {
    return problem(Code::kCorrupt,
                   fmt::format("the store's {} holds {} '{}'", entry.key, T::kKind, value.metadata.name));
  }
  mutable_map<T>()[value.metadata.name] = {.value = value, .revision = entry.revision};
  return {};
}

Outcome<void> Cluster::read_entry(const Entry& entry) {
  const std::string_view kind = std::string_view(entry.key).substr(0, entry.key.find('/'));
  if (kind == Node::kKind) return read<Node>(entry);
  if (kind == Pool::kKind) return read<Pool>(entry);
  if (kind == Volume::kKind) return read<Volume>(entry);
  if (kind == Snapshot::kKind) return read<Snapshot>(entry);
  if (kind == Garbage::kKind) return read<Garbage>(entry);
  if (kind == Settings::kKind) return read<Settings>(entry);
  return {};
}

Task<Outcome<void>> Cluster::load(uint32_t epoch) {
  first_term_ = (uint64_t{epoch} << 32) + 1;
  const Mutex::Guard guard = co_await lock();
  FL_CO_TRY(const std::vector<Entry> entries, co_await store_.list(""));
  clear();
  for (const Entry& entry : entries) FL_CO_TRY_VOID(read_entry(entry));
  for (const auto& [name, volume] : volumes_) volume_names_[volume.value.metadata.id] = name;
  loaded_ = home_.reactor.now();
  for (const auto& [name, node] : nodes_) {
    if (reports_.contains(name)) continue;
    reports_[name].lost_since = loaded_;
    reports_[name].why = "nothing was heard of it since control started";
  }
  is_doubtful_ = false;
  co_return Outcome<void>();
}

Task<Outcome<void>> Cluster::commit(Changes changes) {
  FL_CHECK(mutex_.is_locked());
  if (is_doubtful_) co_return problem(Code::kUnreachable, "the store is being read again: try again");
  std::vector<Write> writes = std::move(changes.writes_);
  const auto revision_of = [this](std::string_view kind, const std::string& name) -> uint64_t {
    const auto in = [&](const auto& map) {
      const auto found = map.find(name);
      return found == map.end() ? 0 : found->second.revision;
    };
    if (kind == Node::kKind) return in(nodes_);
    if (kind == Pool::kKind) return in(pools_);
    if (kind == Volume::kKind) return in(volumes_);
    if (kind == Snapshot::kKind) return in(snapshots_);
    if (kind == Settings::kKind) return in(kept_settings_);
    return in(garbage_);
  };
  for (const auto& put : changes.puts_) {
    std::visit(
        [&](const auto& value) {
          const std::string_view kind = std::remove_cvref_t<decltype(value)>::kKind;
          const std::string& name = value.metadata.name;
          writes.push_back(
              {.key = key_of(kind, name), .value = to_text(to_json(value)), .expected = revision_of(kind, name)});
        },
        put);
  }
  for (const auto& [kind, name] : changes.removals_) {
    writes.push_back({.key = key_of(kind, name), .value = std::nullopt, .expected = revision_of(kind, name)});
  }
  const Outcome<uint64_t> done = co_await store_.commit(std::move(writes));
  if (!done) {
    is_doubtful_ |= done.error().error.code != Code::kInvalidArgument;
    co_return std::unexpected(done.error());
  }
  apply(changes, *done);
  co_return Outcome<void>();
}

void Cluster::apply(const Changes& changes, uint64_t revision) {
  for (const auto& put : changes.puts_) {
    std::visit(
        [&](const auto& value) {
          using T = std::remove_cvref_t<decltype(value)>;
          mutable_map<T>()[value.metadata.name] = {.value = value, .revision = revision};
          if constexpr (std::same_as<T, Volume>) volume_names_[value.metadata.id] = value.metadata.name;
        },
        put);
  }
  for (const auto& [kind, name] : changes.removals_) {
    if (kind == Node::kKind) {
      nodes_.erase(name);
      reports_.erase(name);
    } else if (kind == Pool::kKind) {
      pools_.erase(name);
    } else if (kind == Volume::kKind) {
      if (const auto found = volumes_.find(name); found != volumes_.end()) {
        volume_names_.erase(found->second.value.metadata.id);
        volumes_.erase(found);
      }
    } else if (kind == Snapshot::kKind) {
      snapshots_.erase(name);
    } else {
      garbage_.erase(name);
    }
  }
}

const std::string* Cluster::volume_name(const Uuid& id) const {
  const auto found = volume_names_.find(id);
  return found == volume_names_.end() ? nullptr : &found->second;
}

// ---- Reports

bool Cluster::is_ready(const std::string& node) const {
  const auto found = reports_.find(node);
  return found != reports_.end() && found->second.is_ready;
}

std::set<Uuid> Cluster::take_report(api::ReportRequest request) {
  NodeReport& report = reports_[request.node()];
  FL_CHECK(request.has_state() && (request.since() == 0 || request.since() == report.sequence));
  const std::set<Uuid> changed = request.since() == 0 ? differences(report, request.state()) : merge(report, request);
  report.state = std::move(*request.mutable_state());
  report.sequence = request.sequence();
  report.run = id_of(report.state.run_id());
  index(report);
  take_sign_of_life(request.node());
  return changed;
}

void Cluster::take_sign_of_life(const std::string& node) {
  NodeReport& report = reports_[node];
  report.heard = home_.reactor.now();
  report.is_ready = !report.state.is_stopping();
  if (!report.is_ready && report.lost_since < report.heard) {
    report.lost_since = report.heard;
    report.why = "its engine is stopping";
  }
}

void Cluster::lose(const std::string& node, std::string why) {
  NodeReport& report = reports_[node];
  if (!report.is_ready) return;
  report.is_ready = false;
  report.lost_since = home_.reactor.now();
  report.why = std::move(why);
}

bool Cluster::has_to_do_with(const std::string& node, const Volume& volume) const {
  const VolumeDecision& decision = volume.decision;
  if (decision.target == node || std::ranges::find(decision.standbys, node) != decision.standbys.end()) return true;
  for (const PlacedReplica& replica : decision.replicas) {
    const Kept<Pool>* const pool = find<Pool>(replica.pool);
    if (pool != nullptr && pool->value.spec.node == node) return true;
  }
  const auto report = reports_.find(node);
  return report != reports_.end() && report->second.volumes.contains(volume.metadata.id);
}

std::set<std::string> Cluster::volumes_of(const std::string& node) const {
  std::set<std::string> names;
  for (const auto& [name, volume] : volumes_) {
    if (has_to_do_with(node, volume.value)) names.insert(name);
  }
  return names;
}

// ---- Facts

const api::PoolState* Cluster::pool_state(const Pool& pool) const {
  const auto report = reports_.find(pool.spec.node);
  if (report == reports_.end()) return nullptr;
  const auto& pools = report->second.state.pools();
  const auto found = std::ranges::find(pools, pool.metadata.name, &api::PoolState::name);
  return found == pools.end() ? nullptr : &*found;
}

std::vector<PoolCandidate> Cluster::candidates() const {
  std::vector<PoolCandidate> list;
  for (const auto& [name, pool] : pools_) {
    const std::string& at = pool.value.spec.node;
    PoolCandidate candidate;
    candidate.name = name;
    candidate.node = at;
    const Kept<Node>* const node = find<Node>(at);
    const api::PoolState* const state = pool_state(pool.value);
    if (node == nullptr) {
      candidate.excluded = fmt::format("node {} is not known", at);
    } else {
      candidate.node_labels = node->value.metadata.labels;
      candidate.node_labels.emplace("fairlead.dev/node", at);
      if (!is_ready(at)) {
        candidate.excluded = fmt::format("node {} is lost", at);
      } else if (node->value.spec.is_draining) {
        candidate.excluded = fmt::format("node {} is being drained", at);
      } else if (node->value.spec.is_cordoned) {
        candidate.excluded = fmt::format("node {} is cordoned", at);
      } else if (pool.value.spec.is_evacuating || pool.value.metadata.deleting_since_ms != 0) {
        candidate.excluded = fmt::format("pool {} is being emptied", name);
      } else if (state == nullptr || !state->trouble().empty()) {
        candidate.excluded = fmt::format("pool {} is not there{}{}", name, state == nullptr ? "" : ": ",
                                         state == nullptr ? "" : state->trouble());
      }
    }
    if (state != nullptr) {
      candidate.capacity_bytes = state->capacity_bytes();
      candidate.free_bytes = state->free_bytes();
      candidate.promised_bytes = state->promised_bytes();
    }
    list.push_back(std::move(candidate));
  }
  return list;
}

NodeFacts Cluster::node_facts(const std::string& name, const Uuid& volume) const {
  const Node& node = nodes_.at(name).value;
  NodeFacts facts;
  facts.data_address = node.data_address;
  facts.is_draining = node.spec.is_draining;
  const auto report = reports_.find(name);
  if (report == reports_.end()) return facts;
  facts.run = report->second.run;
  facts.is_ready = report->second.is_ready;
  facts.takes_more = facts.is_ready && !node.spec.is_cordoned && !node.spec.is_draining;
  if (!facts.is_ready) {
    const Instant now = home_.reactor.now();
    // One that was not heard of since control started may be serving.
    facts.is_lost = report->second.heard != Instant{} || now - loaded_ > settings_.lost_after;
    facts.lost_for = now - report->second.lost_since;
    return facts;
  }
  if (const auto found = report->second.volumes.find(volume); found != report->second.volumes.end()) {
    facts.volume = found->second;
  }
  return facts;
}

VolumeFacts Cluster::facts_of(const std::string& name, Use use) const {
  const Volume& volume = volumes_.at(name).value;
  const Uuid& id = volume.metadata.id;
  VolumeFacts facts{.volume = volume, .settings = settings_, .now_ms = home_.clock.wall_ms()};
  facts.first_term = first_term_;
  facts.annotation = annotation_of(volume);
  for (const auto& [node, kept] : nodes_) facts.nodes.emplace(node, node_facts(node, id));
  for (const auto& [pool, kept] : pools_) {
    const PoolSpec& spec = kept.value.spec;
    facts.node_of_pool[pool] = spec.node;
    const Kept<Node>* const node = find<Node>(spec.node);
    if (spec.is_evacuating || (node != nullptr && node->value.spec.is_draining)) facts.pools_to_leave.insert(pool);
  }
  if (use == Use::kPlan) facts.pools = candidates();
  const Volume* source = nullptr;
  for (const auto& [each, kept] : snapshots_) {
    if (kept.value.spec.volume == name) facts.snapshots.push_back(&kept.value);
    if (each != volume.spec.source) continue;
    facts.origin_snapshot = &kept.value;
    if (const Kept<Volume>* const origin = find<Volume>(kept.value.spec.volume)) source = &origin->value;
  }
  facts.origin = source;
  for (const auto& [node, report] : reports_) {
    if (!report.is_ready) continue;
    for (const Uuid& of : {id, source == nullptr ? Uuid{} : source->metadata.id}) {
      const auto found = report.replicas.find(of);
      if (found == report.replicas.end()) continue;
      for (const auto& [replica, state] : found->second) {
        // A copy of its disk may be elsewhere.
        const auto at = facts.node_of_pool.find(state->pool());
        if (at != facts.node_of_pool.end() && at->second == node) facts.replicas.emplace(replica, state);
      }
    }
  }
  if (use == Use::kPlan) facts.group_load = group_load(volume);
  return facts;
}

std::map<std::string, size_t> Cluster::group_load(const Volume& volume) const {
  std::map<std::string, size_t> load;
  const std::string& group = volume.spec.topology.group;
  if (group.empty()) return load;
  for (const auto& [name, kept] : volumes_) {
    if (name == volume.metadata.name || kept.value.spec.topology.group != group) continue;
    for (const PlacedReplica& replica : kept.value.decision.replicas) {
      if (const Kept<Pool>* const pool = find<Pool>(replica.pool)) ++load[pool->value.spec.node];
    }
  }
  return load;
}

}  // namespace fairlead::control
