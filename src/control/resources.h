// Resources: what the control plane is asked for (specs) and what it has decided (states). The store keeps them as
// JSON, each under "kind/name". Plain values; what engines report of them is elsewhere (cluster.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/problem.h"
#include "base/uuid.h"

namespace fairlead::control {

using Labels = std::map<std::string, std::string>;

inline constexpr uint32_t kReplicasMax = 7;  // of a volume: one place of the protocol's eight is for a move
inline constexpr uint64_t kVolumeBytesMin = 1 << 20;
inline constexpr uint64_t kVolumeBytesUnit = 4096;
inline constexpr uint32_t kSnapshotLimitMax = 500;

// Labels of a volume that Kubernetes asked for: its claim, where that is, and its PersistentVolume.
inline constexpr const char* kLabelClaim = "fairlead.dev/pvc";
inline constexpr const char* kLabelClaimNamespace = "fairlead.dev/pvc-namespace";
inline constexpr const char* kLabelPersistentVolume = "fairlead.dev/pv";

// What every resource has.
struct Metadata {
  std::string name;
  Uuid id;
  uint64_t created_ms = 0;  // since 1970
  Labels labels;
  uint64_t deleting_since_ms = 0;  // 0: it is not to be deleted

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("name", self.name);
    io("id", self.id);
    io("created_ms", self.created_ms);
    io("labels", self.labels);
    io("deleting_since_ms", self.deleting_since_ms);
  }
};

// ---- Nodes

struct NodeSpec {
  bool is_cordoned = false;  // no new replicas and targets
  bool is_draining = false;  // and those that it has move away

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("cordoned", self.is_cordoned);
    io("draining", self.is_draining);
  }
};
struct Node {
  static constexpr std::string_view kKind = "nodes";
  Metadata metadata;
  NodeSpec spec;
  // As it reported last.
  std::string data_address;
  std::string management_address;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("metadata", self.metadata);
    io("spec", self.spec);
    io("data_address", self.data_address);
    io("management_address", self.management_address);
  }
};

// ---- Pools

struct PoolSpec {
  std::string node;
  std::vector<std::string> disks;
  uint64_t file_size_bytes = 0;  // of disks that are files and not there yet; 0: all are there
  bool is_evacuating = false;    // no new replicas, and those that it has move away

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("node", self.node);
    io("disks", self.disks);
    io("file_size_bytes", self.file_size_bytes);
    io("evacuating", self.is_evacuating);
  }
};
struct Pool {
  static constexpr std::string_view kKind = "pools";
  Metadata metadata;
  PoolSpec spec;
  bool is_created = false;  // it was there once: it is imported from then on, never made again

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("metadata", self.metadata);
    io("spec", self.spec);
    io("is_created", self.is_created);
  }
};

// ---- Volumes

// Where replicas may be.
struct Topology {
  // Labels of nodes: replicas are on nodes that differ in each of them.
  std::vector<std::string> spread_over;
  Labels affinity;       // nodes have all of these labels
  Labels anti_affinity;  // and none of these
  std::string group;     // volumes of one group keep apart where they can

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("spread_over", self.spread_over);
    io("affinity", self.affinity);
    io("anti_affinity", self.anti_affinity);
    io("group", self.group);
  }
};

struct VolumeSpec {
  uint64_t size_bytes = 0;
  uint32_t replicas = 1;
  bool is_thin = true;
  Topology topology;
  std::string preferred_node;              // of the target; empty: where a replica is
  std::vector<std::string> allowed_hosts;  // NQNs; none: every host
  uint32_t snapshot_limit = 64;
  uint32_t resync_share = 0;  // percent of the time that copies may take while hosts ask; 0: as engines are set
  std::string source;         // a snapshot that it begins as; empty: zeroes

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("size_bytes", self.size_bytes);
    io("replicas", self.replicas);
    io("thin", self.is_thin);
    io("topology", self.topology);
    io("preferred_node", self.preferred_node);
    io("allowed_hosts", self.allowed_hosts);
    io("snapshot_limit", self.snapshot_limit);
    io("resync_share", self.resync_share);
    io("source", self.source);
  }
};

struct PlacedReplica {
  enum class Stage : uint8_t {
    kCreating,  // its engine is asked to make it
    kPresent,   // it was made; the target knows of it
    kLeaving,   // the target is to go on without it; then it is deleted
  };
  Uuid id;
  std::string pool;
  Stage stage = Stage::kCreating;
  uint64_t since_ms = 0;  // of the stage
  Uuid origin;            // of a clone: the replica in the same pool that has the snapshot
  std::string move_to;    // the pool that its successor is to be in; empty: it is not moved

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("id", self.id);
    io("pool", self.pool);
    io("stage", self.stage);
    io("since_ms", self.since_ms);
    io("origin", self.origin);
    io("move_to", self.move_to);
  }
};
std::span<const std::string_view> names_of(PlacedReplica::Stage);

// What was decided.
struct VolumeDecision {
  bool is_formed = false;  // all members that it begins with have been made; from here on it holds data
  std::vector<PlacedReplica> replicas;
  std::string target;                 // node
  Uuid target_run;                    // of its engine, when it was chosen: another one has forgotten the volume
  std::vector<std::string> standbys;  // nodes that hosts have a path to besides

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("formed", self.is_formed);
    io("replicas", self.replicas);
    io("target", self.target);
    io("target_run", self.target_run);
    io("standbys", self.standbys);
  }
};

struct Volume {
  static constexpr std::string_view kKind = "volumes";
  Metadata metadata;
  VolumeSpec spec;
  VolumeDecision decision;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("metadata", self.metadata);
    io("spec", self.spec);
    io("decision", self.decision);
  }
};

// ---- Snapshots

struct SnapshotSpec {
  std::string volume;
  std::string group;  // with whose snapshots it is of one moment; empty: it is of none

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("volume", self.volume);
    io("group", self.group);
  }
};
struct Snapshot {
  static constexpr std::string_view kKind = "snapshots";
  Metadata metadata;
  SnapshotSpec spec;
  bool is_begun = false;  // of a group: engines may have something by this id
  bool is_taken = false;
  uint64_t taken_ms = 0;
  uint64_t size_bytes = 0;  // of the volume then

  bool is_of_unfinished_group() const { return !spec.group.empty() && !is_taken; }

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("metadata", self.metadata);
    io("spec", self.spec);
    io("is_begun", self.is_begun);
    io("is_taken", self.is_taken);
    io("taken_ms", self.taken_ms);
    io("size_bytes", self.size_bytes);
  }
};

// Snapshots of several volumes at one moment. Nothing is kept of it but its snapshots.
struct SnapshotGroupSpec {
  static constexpr size_t kVolumesMax = 32;
  std::vector<std::string> volumes;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("volumes", self.volumes);
  }
};
struct SnapshotGroup {
  static constexpr std::string_view kKind = "snapshot-groups";
};

// ---- Settings of the cluster: one document, which is there from the beginning.

// When pools are filled very differently.
enum class Rebalance : uint8_t {
  kOff,
  kSuggest,  // it is said what would help
  kOn,       // replicas are moved
};
std::span<const std::string_view> names_of(Rebalance);

struct SettingsSpec {
  Rebalance rebalance = Rebalance::kSuggest;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("rebalance", self.rebalance);
  }
};
struct Settings {
  static constexpr std::string_view kKind = "settings";
  static constexpr const char* kName = "cluster";
  Metadata metadata;
  SettingsSpec spec;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("metadata", self.metadata);
    io("spec", self.spec);
  }
};

// ---- Garbage: a replica that nothing needs any more, on an engine that may have it, or get it yet.

struct Garbage {
  static constexpr std::string_view kKind = "garbage";
  Metadata metadata;  // its name is the replica's id
  std::string node;
  std::string volume;  // name of the one that it was of

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("metadata", self.metadata);
    io("node", self.node);
    io("volume", self.volume);
  }
};

// ---- Checks. Error kInvalidArgument, with what to do.

// 1 to 63 lower-case letters, digits and '-', '.', beginning and ending with a letter or digit: as Kubernetes has them.
Outcome<void> check_name(std::string_view what, std::string_view name);
Outcome<void> check_labels(const Labels& labels);
Outcome<void> check(const VolumeSpec& spec);
Outcome<void> check(const PoolSpec& spec);
// What of a volume may be changed while it is there.
Outcome<void> check_change(const VolumeSpec& from, const VolumeSpec& to);

std::string key_of(std::string_view kind, std::string_view name);

}  // namespace fairlead::control
