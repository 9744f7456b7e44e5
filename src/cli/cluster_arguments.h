// Arguments of the commands that speak to a cluster, and what they come to: a request of the REST API, and what to wait
// for.
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/cluster_report.h"
#include "control/rest_client.h"

namespace fairlead::cli {

using control::RestClient;
using control::RestMethod;
using control::RestRequest;
using control::ServerOptions;

enum class ClusterVerb : uint8_t {
  kList,
  kShow,
  kCreate,
  kSet,
  kDelete,
  kCordon,
  kUncordon,
  kDrain,
  kUndrain,
  kEvacuate,
  kResize,
  kScale,
  kMove,
  kClone,
  kAttach,
  kDetach,
  kForce,
  kEvents,
  kStatus,
  kWhy,
  kWait,
  kTop,
  kNames,
  kRecover,
};

// As given.
struct ClusterArguments {
  ClusterVerb verb = ClusterVerb::kStatus;
  std::string kind = {};  // "volumes"; of kWhy and kWait: by the resource

  std::vector<std::string> servers = {};
  std::string token_file = {};
  std::string ca_file = {};
  std::string output = "table";
  bool watch = false;
  bool no_wait = false;
  std::string timeout = {};

  std::string name = {};   // or the resource, "volume/db"
  std::string other = {};  // a second name: of a node, of a clone
  std::string size = {};
  std::optional<uint32_t> replicas = {};
  std::optional<uint32_t> snapshot_limit = {};
  std::optional<uint32_t> resync_share = {};
  bool thick = false;
  bool cancel = false;
  bool execute = false;
  std::vector<std::string> disks = {};
  std::vector<std::string> labels = {};
  std::vector<std::string> spread_over = {};
  std::vector<std::string> affinity = {};
  std::vector<std::string> anti_affinity = {};
  std::vector<std::string> hosts = {};
  std::string group = {};
  std::string node = {};
  std::string volume = {};
  std::vector<std::string> volumes = {};
  std::string source = {};
  std::string trust = {};
  std::string rebalance = {};
  std::string wait_for = "online";
  std::optional<uint64_t> revision = {};
};

// What is waited for.
struct Goal {
  enum class Kind : uint8_t {
    kNothing,
    kState,      // status.state is `text`
    kOnline,     // "online" or "ready"
    kAvailable,  // a volume that hosts can use, all replicas there or not
    kGone,
    kEmpty,     // a node without targets and replicas, a pool without replicas
    kSize,      // a volume of `number` bytes, or more
    kReplicas,  // a volume with `number` replicas, and online
    kTarget,    // a volume that node `text` serves
  };
  Kind kind = Kind::kNothing;
  std::string text = {};
  uint64_t number = 0;
};
// `document`: null when there is no such resource.
bool is_met(const Goal& goal, const Json& document);
// "is online", "is gone".
std::string to_text(const Goal& goal);

struct ClusterCommandPlan {
  ClusterVerb verb = ClusterVerb::kStatus;
  std::string kind;  // "volumes"
  std::string name;
  std::string path;                   // of what is read
  std::optional<RestRequest> change;  // to be made
  bool copies_replica_count = false;  // of a clone: as many replicas as what it is of has
  Goal goal;                          // after that; kNothing: none
  std::optional<Duration> limit;      // of waiting
  ServerOptions servers;
  Output output = Output::kTable;
  bool watch = false;
  bool execute = false;
};

// What the process's environment adds: FAIRLEAD_SERVER.
std::expected<ClusterCommandPlan, Complaint> check(const ClusterArguments& arguments,
                                                   const std::string& server_by_environment);

// "volume create".
std::string command_name(const ClusterArguments& arguments);

// "volume/db", also "volumes/db", into kind and name. Error: what is wrong.
struct ResourceName {
  std::string kind;
  std::string name;
};
std::expected<ResourceName, Complaint> parse_resource(std::string_view text);

}  // namespace fairlead::cli
