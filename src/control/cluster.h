// Cluster: what is known of everything: resources as they are in the store, and what engines report. Changes go to the
// store first. One shard; everything in it is as of now, and may be another after a suspension.
#pragma once

#include <api/engine/v1/engine.pb.h>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "async/mutex.h"
#include "control/resources.h"
#include "control/store.h"
#include "control/volume_plan.h"
#include "io/shard.h"

namespace fairlead::control {

template <typename T>
struct Kept {
  T value;
  uint64_t revision = 0;
};
template <typename T>
using KeptMap = std::map<std::string, Kept<T>>;  // by name

// What an engine said last, and whether it is still true.
struct NodeReport {
  api::NodeState state;
  uint64_t sequence = 0;
  std::map<Uuid, const api::VolumeState*> volumes = {};                    // in `state`
  std::map<Uuid, std::map<Uuid, const api::ReplicaState*>> replicas = {};  // likewise, by volume
  Uuid run;
  Instant heard;  // the last sign of life
  bool is_ready = false;
  Instant lost_since;  // not is_ready
  std::string why;     // not is_ready
};

// What is to be changed together.
class Changes {
 public:
  template <typename T>
  void put(T value) {
    puts_.emplace_back(std::move(value));
  }
  template <typename T>
  void remove(std::string name) {
    removals_.emplace_back(T::kKind, std::move(name));
  }
  // Besides, what is no resource.
  void write(Write write) { writes_.push_back(std::move(write)); }

 private:
  friend class Cluster;
  std::vector<std::variant<Node, Pool, Volume, Snapshot, Garbage, Settings>> puts_;
  std::vector<std::pair<std::string_view, std::string>> removals_;
  std::vector<Write> writes_;
};

class Cluster {
 public:
  // Borrowed for life.
  Cluster(Shard& home, Store& store, const ControlSettings& settings);

  // From nothing. Errors: those of the store; kCorrupt (names what cannot be read).
  Task<Outcome<void>> load(uint32_t epoch);

  // Whoever changes something holds this from its look at what there is to the end of commit().
  Task<Mutex::Guard> lock() { return mutex_.lock(); }
  // Errors: those of the store. After any but kInvalidArgument it is not known what is there: is_doubtful(). Requires:
  // the lock.
  Task<Outcome<void>> commit(Changes changes);
  bool is_doubtful() const { return is_doubtful_; }

  template <typename T>
  const KeptMap<T>& map() const;
  const KeptMap<Node>& nodes() const { return nodes_; }
  const KeptMap<Pool>& pools() const { return pools_; }
  const KeptMap<Volume>& volumes() const { return volumes_; }
  const KeptMap<Snapshot>& snapshots() const { return snapshots_; }
  const KeptMap<Garbage>& garbage() const { return garbage_; }
  const SettingsSpec& settings() const { return kept_settings_.at(Settings::kName).value.spec; }
  template <typename T>
  const Kept<T>* find(const std::string& name) const {
    const KeptMap<T>& all = map<T>();
    const auto found = all.find(name);
    return found == all.end() ? nullptr : &found->second;
  }
  const std::string* volume_name(const Uuid& id) const;

  // ---- Reports
  std::map<std::string, NodeReport>& reports() { return reports_; }
  const std::map<std::string, NodeReport>& reports() const { return reports_; }
  bool is_ready(const std::string& node) const;
  // Returns the ids of volumes that are not as they were reported before. Requires: it has a state, and `since` is 0 or
  // the sequence of the report that there is.
  std::set<Uuid> take_report(api::ReportRequest request);
  void take_sign_of_life(const std::string& node);
  void lose(const std::string& node, std::string why);
  // Volumes that a node has to do with, by names.
  std::set<std::string> volumes_of(const std::string& node) const;
  bool has_to_do_with(const std::string& node, const Volume& volume) const;

  // ---- Facts
  // All but what the reconciler knows; kShow: without what only placement needs, which takes most of the time.
  // Requires: there is such a volume.
  enum class Use : uint8_t { kPlan, kShow };
  VolumeFacts facts_of(const std::string& volume, Use use) const;
  // See PlacementRequest.
  std::map<std::string, size_t> group_load(const Volume& volume) const;
  std::vector<PoolCandidate> candidates() const;
  const api::PoolState* pool_state(const Pool& pool) const;  // null: it is not reported

 private:
  template <typename T>
  KeptMap<T>& mutable_map() {
    return const_cast<KeptMap<T>&>(map<T>());
  }
  void clear();
  void apply(const Changes& changes, uint64_t revision);
  template <typename T>
  Outcome<void> read(const Entry& entry);
  Outcome<void> read_entry(const Entry& entry);
  NodeFacts node_facts(const std::string& name, const Uuid& volume) const;

  Shard& home_;
  Store& store_;
  const ControlSettings& settings_;
  Mutex mutex_;
  Instant loaded_;
  uint64_t first_term_ = 0;  // that this store gives out
  bool is_doubtful_ = false;
  KeptMap<Node> nodes_;
  KeptMap<Pool> pools_;
  KeptMap<Volume> volumes_;
  KeptMap<Snapshot> snapshots_;
  KeptMap<Garbage> garbage_;
  KeptMap<Settings> kept_settings_;  // one
  std::map<Uuid, std::string> volume_names_;
  std::map<std::string, NodeReport> reports_;
};

}  // namespace fairlead::control
