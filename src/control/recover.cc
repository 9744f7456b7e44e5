#include "control/recover.h"

#include <algorithm>
#include <fmt/format.h>
#include <tuple>

#include "base/units.h"
#include "control/json.h"

namespace fairlead::control {
namespace {

Uuid id_of(const std::string& text) { return parse_uuid(text).value_or(Uuid{}); }

// As long as it takes to tell them apart, and of letters that names may have.
std::string short_name(std::string_view what, const Uuid& id) {
  return fmt::format("{}-{}", what, to_string(id).substr(0, 8));
}

auto order(const api::Record& record) {
  const api::Stamp& at = record.at();
  return std::tuple<uint64_t, const std::string&, uint64_t>(at.term().number(), at.term().writer(), at.generation());
}

struct Annotated {
  Metadata metadata;
  VolumeSpec spec;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("metadata", self.metadata);
    io("spec", self.spec);
  }
};

class Finder {
 public:
  Finder(const Cluster& cluster, uint64_t now_ms) : cluster_(cluster), now_ms_(now_ms) {}

  std::vector<RecoveredVolume> run() {
    std::map<Uuid, std::vector<const api::ReplicaState*>> found;
    for (const auto& [node, report] : cluster_.reports()) {
      if (!report.is_ready) continue;
      for (const api::ReplicaState& replica : report.state.replicas()) {
        const Kept<Pool>* const pool = cluster_.find<Pool>(replica.pool());
        const Uuid volume = id_of(replica.volume());
        if (volume.is_nil() || cluster_.volume_name(volume) != nullptr) continue;
        if (pool == nullptr || pool->value.spec.node != node || cluster_.find<Garbage>(replica.id()) != nullptr)
          continue;
        found[volume].push_back(&replica);
      }
    }
    std::vector<RecoveredVolume> volumes;
    for (const auto& [id, replicas] : found) {
      // One whose making came to nothing has no record that counts, and holds nothing.
      const bool is_formed = std::ranges::any_of(
          replicas, [](const api::ReplicaState* replica) { return replica->record().members_size() > 0; });
      if (is_formed) volumes.push_back(make(id, replicas));
    }
    return volumes;
  }

 private:
  RecoveredVolume make(const Uuid& id, const std::vector<const api::ReplicaState*>& replicas) {
    const api::ReplicaState& newest =
        **std::ranges::max_element(replicas, {}, [](const api::ReplicaState* each) { return order(each->record()); });
    RecoveredVolume recovered;
    Volume& volume = recovered.volume;
    read_annotation(newest, volume);
    volume.metadata.id = id;
    volume.metadata.deleting_since_ms = 0;
    if (!check_name("volume", volume.metadata.name) || is_taken(volume.metadata.name)) {
      volume.metadata.name = short_name("recovered", id);
    }
    names_.insert(volume.metadata.name);
    volume.decision.is_formed = true;
    std::set<Uuid> snapshots;
    for (const api::ReplicaState* const replica : replicas) {
      volume.spec.size_bytes = std::max(volume.spec.size_bytes, replica->size_bytes());
      volume.decision.replicas.push_back({.id = id_of(replica->id()),
                                          .pool = replica->pool(),
                                          .stage = PlacedReplica::Stage::kPresent,
                                          .since_ms = now_ms_,
                                          .origin = {},
                                          .move_to = {}});
      for (const api::Snapshot& snapshot : replica->snapshots()) {
        if (snapshots.insert(id_of(snapshot.id())).second) recovered.snapshots.push_back(make(volume, snapshot));
      }
    }
    for (const std::string& member : newest.record().members()) {
      const bool is_there = std::ranges::any_of(replicas, [&](const auto* each) { return each->id() == member; });
      if (!is_there) recovered.missing.push_back(member);
    }
    return recovered;
  }

  void read_annotation(const api::ReplicaState& replica, Volume& volume) const {
    const auto text = replica.annotations().find(kVolumeAnnotation);
    Annotated annotated;
    annotated.metadata.created_ms = now_ms_;
    annotated.spec.replicas = static_cast<uint32_t>(replica.record().members_size());
    if (text != replica.annotations().end()) {
      const Outcome<Json> json = parse_json(text->second);
      Annotated read = annotated;
      if (json && read_json(*json, read) && check(read.spec) && check_labels(read.metadata.labels)) annotated = read;
    }
    volume.metadata = std::move(annotated.metadata);
    volume.spec = std::move(annotated.spec);
  }

  Snapshot make(const Volume& volume, const api::Snapshot& of) const {
    Snapshot snapshot;
    const Uuid id = id_of(of.id());
    snapshot.metadata = {.name = short_name(volume.metadata.name.substr(0, 50), id),
                         .id = id,
                         .created_ms = now_ms_,
                         .labels = {},
                         .deleting_since_ms = 0};
    snapshot.spec.volume = volume.metadata.name;
    snapshot.is_taken = true;
    snapshot.taken_ms = now_ms_;
    snapshot.size_bytes = of.size_bytes();
    return snapshot;
  }

  bool is_taken(const std::string& name) const {
    return names_.contains(name) || cluster_.find<Volume>(name) != nullptr;
  }

  const Cluster& cluster_;
  const uint64_t now_ms_;
  std::set<std::string> names_;
};

}  // namespace

std::vector<RecoveredVolume> find_lost_volumes(const Cluster& cluster, uint64_t now_ms) {
  return Finder(cluster, now_ms).run();
}

std::string annotation_of(const Volume& volume) {
  return to_text(Json{{"metadata", to_json(volume.metadata)}, {"spec", to_json(volume.spec)}});
}

}  // namespace fairlead::control
