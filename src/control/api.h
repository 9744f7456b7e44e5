// Api: resources as documents, for REST and whoever else serves people. Each document is JSON:
//   {"kind", "name", "id", "revision", "created_ms", "labels", "spec": {…}, "status": {…}}
// One shard: that of the control plane it belongs to.
//
// Every mutation is idempotent by name. Those that name a revision hold only if the resource has it still. Errors of
// all: kUnreachable (this process does not lead: names who does, when that is known), those of the store; each says
// what to do.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "control/json.h"
#include "control/resources.h"

namespace fairlead::control {

class Control;
struct VolumeFacts;

struct Selection {
  Labels labels = {};       // that they have
  std::string volume = {};  // of snapshots and replicas: of that volume
  std::string node = {};    // of pools and replicas: on that node
};

class Api {
 public:
  explicit Api(Control& control) : control_(control) {}

  // Kinds: nodes, pools, volumes, replicas, snapshots, snapshot-groups. By name. Errors: kNotFound (no such kind).
  Outcome<std::vector<Json>> list(std::string_view kind, const Selection& selection) const;
  // These, and settings, of which there is one, "cluster". Error kNotFound.
  Outcome<Json> get(std::string_view kind, const std::string& name) const;
  // Pools, volumes, snapshots, snapshot-groups. One that there is, and was asked for in the same words: is given as it
  // is. Errors: kInvalidArgument, kAlreadyExists (asked for in other words), kNotFound (what it refers to), kBusy.
  Task<Outcome<Json>> create(std::string kind, Json document);
  // A JSON merge patch (RFC 7396) of labels and spec. Errors: kNotFound, kInvalidArgument, kMiscompare (another
  // revision).
  Task<Outcome<Json>> update(std::string kind, std::string name, Json patch, std::optional<uint64_t> revision);
  // Begins it; the resource is there until it is done. One that is not there: done. Errors: kBusy (says what is in the
  // way), kMiscompare.
  Task<Outcome<void>> remove(std::string kind, std::string name, std::optional<uint64_t> revision);
  // A person's word, for a store that was lost: makes volumes and snapshots anew from the replicas that engines hold,
  // and this store does not know. {"volumes": [names], "snapshots": [names], "missing": [ids of replicas that nobody
  // shows]}.
  Task<Outcome<Json>> recover();
  // A person's word: see mirror::VolumeTarget::force(). `replica` by id.
  Task<Outcome<void>> force(std::string volume, std::string replica);

  // Why it is as it is, what happens next, and when: sentences, the most important first.
  Outcome<std::vector<std::string>> why(std::string_view kind, const std::string& name) const;
  // One document that says whether all is well.
  Outcome<Json> overview() const;
  // The last events, oldest first, after number `after`.
  std::vector<Json> events(uint64_t after, const std::string& resource) const;

 private:
  Outcome<void> check_leading() const;
  Json describe(const Node& node, uint64_t revision) const;
  Json describe(const Pool& pool, uint64_t revision) const;
  Json describe(const Volume& volume, uint64_t revision) const;
  Json describe(const Snapshot& snapshot, uint64_t revision) const;
  Json describe_group(const std::string& group) const;
  Json describe(const Settings& settings, uint64_t revision) const;
  std::string why_not_empty(const std::set<std::string>& pools) const;
  Json describe_replica(const Volume& volume, const PlacedReplica& replica, const VolumeFacts& facts) const;
  std::vector<Json> replicas(const Selection& selection) const;
  template <typename T>
  std::optional<Json> find(const std::string& name) const;
  template <typename T>
  std::vector<Json> list_of(const Selection& selection) const;
  Task<Outcome<void>> create_pool(Json document);
  Task<Outcome<void>> create_volume(Json document);
  Task<Outcome<void>> create_snapshot(Json document);
  Task<Outcome<void>> create_group(Json document);
  Task<Outcome<void>> remove_group(std::string name, std::optional<uint64_t> revision);
  std::vector<Json> groups(const Selection& selection) const;
  Outcome<void> check_room(const std::string& volume) const;
  template <typename T>
  Task<Outcome<void>> update_one(std::string name, Json patch, std::optional<uint64_t> revision);
  template <typename T>
  Task<Outcome<void>> mark_deleting(std::string name, std::optional<uint64_t> revision);
  void mark_changed(std::string_view kind, const std::string& name);
  Outcome<void> check_removal(const Node& node) const;
  Outcome<void> check_removal(const Pool& pool) const;
  Outcome<void> check_removal(const Volume& volume) const;
  Outcome<void> check_removal(const Snapshot& snapshot) const;
  Outcome<void> check_unused(const Snapshot& snapshot) const;
  Metadata metadata_for(std::string name, Labels labels) const;
  std::vector<std::string> why_volume(const Volume& volume) const;

  Control& control_;
};

}  // namespace fairlead::control
