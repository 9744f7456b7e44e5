// How names go between the orchestrator and the cluster. Plain functions; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/problem.h"

namespace fairlead::csi {

inline constexpr const char* kPluginName = "fairlead.dev";
inline constexpr const char* kTopologyNode = "topology.fairlead.dev/node";
inline constexpr size_t kIdBytesMax = 256;  // of what the orchestrator calls something by

// Of volumes and snapshots, in the cluster.
inline constexpr const char* kLabelOrigin = "fairlead.dev/created-by";
inline constexpr const char* kOrigin = "csi";
inline constexpr const char* kLabelSourceVolume = "fairlead.dev/source-volume";  // of a clone
inline constexpr const char* kLabelCloneFor = "fairlead.dev/clone-for";  // of a snapshot that a clone is made through
// Of a snapshot whose volume was to be kept still: `kStill`, or for which request that is to be found out yet.
inline constexpr const char* kLabelStill = "fairlead.dev/still";
inline constexpr const char* kStill = "yes";
inline constexpr const char* kLabelContext = "fairlead.dev/context.";      // and a key: what nodes are told
inline constexpr const char* kLabelPublished = "fairlead.dev/published.";  // and a node's key: how it has the volume

// The orchestrator's name, 1 to 128 characters of any kind, as the cluster's: itself where it is one there, else its
// beginning and what tells it from all others. The same name gives the same one. Error kInvalidArgument.
Outcome<std::string> resource_name(std::string_view name);
// Likewise of a group of snapshots, which are called as it is and have a number.
Outcome<std::string> group_name(std::string_view name);
// By which its volume is to be kept still for a snapshot: another one for each revision of the volume.
std::string freeze_request(std::string_view snapshot, uint64_t revision);
// Of the snapshot that a volume is cloned through.
std::string clone_snapshot_name(std::string_view volume);

// A machine is known by the NQN that it connects with: "nqn.2026-01.io.fairlead:host:worker-1".
std::string host_nqn(std::string_view node);
// None: it is no such NQN.
std::optional<std::string> node_of_host(std::string_view host_nqn);
// The NQN that stands in the access list of a volume that no machine may use.
inline constexpr const char* kNobody = "nqn.2026-01.io.fairlead:nobody";
// What the label is called that says how a machine has a volume.
std::string publication_label(std::string_view host_nqn);

// Any text as the value of a label, and back. Error kInvalidArgument: it is too long for that.
Outcome<std::string> label_value(std::string_view text);
std::string text_of_label(std::string_view value);

// Where a list goes on. Error kMiscompare, which the orchestrator knows as ABORTED: not a token of ours.
std::string page_token(std::string_view last);
Outcome<std::string> last_of_page(std::string_view token);

// Code kMiscompare: the orchestrator knows it as ABORTED and tries again.
std::unexpected<Problem> try_again(std::string sentence);

}  // namespace fairlead::csi
