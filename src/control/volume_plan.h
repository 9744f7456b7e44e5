// What is to be done next for a volume, so that it becomes what was asked for: a plain function of what was asked for,
// what was decided before, and what engines report. It is asked again whenever one of these changes; each answer is
// safe whatever became of the last.
//
// Invariants:
//   - A replica is deleted only when its volume is to be deleted, or when the target serves, its record is settled and
//     in force without it, and no engine that can be reached knows the volume with it.
//   - A volume that may be served on an engine that can be reached is asked to be served nowhere else.
//   - Decisions are on stable storage before anything follows from them.
#pragma once

#include <api/engine/v1/engine.pb.h>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/time.h"
#include "control/placement.h"
#include "control/resources.h"
#include "io/clock.h"

namespace fairlead::control {

namespace api = fairlead::engine::v1;

struct ControlSettings {
  Duration lost_after = std::chrono::seconds(2);              // without a sign of life
  Duration report_interval = std::chrono::milliseconds(500);  // that engines are asked for
  Duration replace_after = std::chrono::minutes(10);          // a replica that is away so long gets a successor
  Duration call_limit = std::chrono::seconds(5);
  Duration forming_patience = std::chrono::seconds(3);  // an engine that is lost while a volume is made
  // What nothing needs any more is looked for so long: a call that was given up may make it yet.
  Duration garbage_after = std::chrono::minutes(2);
  size_t standbys = 2;
  Duration rebalance_every = std::chrono::seconds(10);  // that it is looked whether pools are filled differently
};

// A node as far as it matters to one volume.
struct NodeFacts {
  bool is_ready = false;
  bool is_lost = false;     // not ready, and that is sure
  bool takes_more = false;  // ready, and neither cordoned nor draining
  bool is_draining = false;
  Duration lost_for{};  // not ready since
  Uuid run;
  std::string data_address;
  const api::VolumeState* volume = nullptr;  // as it is open there; null: it is not, or nothing is known
};

struct VolumeFacts {
  const Volume& volume;
  std::string annotation = {};  // that replicas are to have; empty: none
  const ControlSettings& settings;
  uint64_t now_ms = 0;
  uint64_t first_term = 0;  // lower numbers were given out by a store that is lost, and its votes with it
  std::map<std::string, NodeFacts> nodes = {};             // all
  std::map<std::string, std::string> node_of_pool = {};    // all
  std::map<Uuid, const api::ReplicaState*> replicas = {};  // of the volume, where they can be reached
  std::set<Uuid> made = {};                                // whose engine said so, later than its report
  std::map<Uuid, Duration> missing_for = {};               // that are placed, on nodes that are ready and lack them
  std::vector<PoolCandidate> pools = {};                   // all
  std::set<std::string> pools_to_leave = {};               // evacuating, or on nodes that drain
  std::map<std::string, size_t> group_load = {};           // see PlacementRequest
  std::vector<const Snapshot*> snapshots = {};             // of it
  const Volume* origin = nullptr;                          // of a clone, if it is there still
  const Snapshot* origin_snapshot = nullptr;
  std::map<std::string, std::string> failures = {};  // of the last action on a node: why
};

struct Action {
  enum class Kind : uint8_t {
    kCreateReplica,
    kDeleteReplica,
    kOpen,
    kClose,
    kServe,
    kStandBy,
    kGrow,
    kRenewTerm,
    kTakeSnapshot,
    kDeleteSnapshot,
    kAnnotate,
  };
  Kind kind = Kind::kOpen;
  std::string node;
  Uuid id;                                     // of the replica or snapshot
  const PlacedReplica* replica = nullptr;      // kCreateReplica: in the facts' volume
  std::vector<api::ReplicaPlace> places = {};  // kOpen
};
std::string_view name_of(Action::Kind kind);

struct Condition {
  std::string type;  // Placed, Available, Redundant, Settled
  bool is_met = true;
  std::string reason;   // one word, for machines
  std::string message;  // for people: what is so, what is being done, what would help
  std::optional<uint64_t> eta_ms;
  uint64_t since_ms = 0;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("type", self.type);
    io("met", self.is_met);
    io("reason", self.reason);
    io("message", self.message);
    io("eta_ms", self.eta_ms);
    io("since_ms", self.since_ms);
  }
};

struct VolumePlan {
  std::optional<VolumeDecision> decision;  // to be kept; then it is asked again, and nothing else is done
  bool has_formed = false;                 // with this decision: its first record is the witness's too
  std::vector<Garbage> garbage;            // to be kept with the decision
  bool is_gone = false;                    // nothing is left of it but its name
  std::vector<Action> actions;             // of one node in this order, of several at once
  std::vector<Condition> conditions;       // by type, always the same ones
  std::optional<Duration> again_in;        // when nothing happens before
};

VolumePlan plan_volume(const VolumeFacts& facts, Random& random);

// Who serves it now, as far as is known: of several the one with the highest term. Empty: nobody.
std::string serving_node(const VolumeFacts& facts);

}  // namespace fairlead::control
