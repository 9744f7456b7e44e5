// Documents of the control plane as messages of the interface, and what they tell of a volume's use. Plain functions.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/problem.h"
#include "csi/cluster_api.h"
#include "csi/messages.h"
#include "csi/parameters.h"

namespace fairlead::csi {

void fill(const Json& document, wire::Volume& volume);
void fill(const Json& document, wire::Snapshot& snapshot);
void fill(const Json& document, wire::VolumeGroupSnapshot& group);
void fill(const Json& document, wire::VolumeCondition& condition);
// What is wrong with it. `failed_pools`: of the whole cluster, by name.
void fill(const Json& document, const std::set<std::string>& failed_pools, wire::VolumeHealth& health);

bool is_deleting(const Json& document);
// Of a snapshot: its label; whether it is not known yet that it was taken as it was to be.
std::string still_label(const Json& snapshot);
bool is_unsettled(const Json& snapshot);
// Of a volume: the condition of this type, else null.
const Json& condition_of(const Json& volume, std::string_view type);
// Why hosts get no answer from it, or why it is not what it should be, as one sentence; empty: all is well.
std::string complaint_of(const Json& volume);

// How a volume may be used. Error kInvalidArgument: says what is missing, or what it cannot be used for.
struct Use {
  bool is_block = false;
  bool is_shared = false;  // by several machines
  bool is_read_only = false;
  int mode = 0;
};
Outcome<Use> use_of(const wire::VolumeCapability& capability);
template <typename Capabilities>
Outcome<void> check_uses(const Capabilities& capabilities) {
  if (capabilities.empty()) return problem(Code::kInvalidArgument, "volume_capabilities: are missing");
  for (const auto& capability : capabilities) FL_TRY_VOID(use_of(capability));
  return {};
}

// "rw.mount.1": as a publication's label has it.
std::string to_text(const Use& use);
bool is_shared(std::string_view publication);
bool is_mounted_to_write(std::string_view publication);

// Machines that may use it, by NQN.
std::vector<std::string> published_hosts(const Json& volume);
// A merge patch of the volume by which `host` may use it like `publication`; an empty one: not any more.
Json publication_patch(const Json& volume, const std::string& host, const std::string& publication);
// How `host` has it; empty: not at all.
std::string publication_of(const Json& volume, const std::string& host);

// For NodeStageVolume: "nqn", "uuid", and "paths" as ADDRESS,ADDRESS, the one that serves first.
Texts publish_context(const Json& volume);
bool is_served(const Json& volume);
// Of all paths that hosts may have, the one that serves first.
std::vector<std::string> path_addresses(const Json& volume);

}  // namespace fairlead::csi
