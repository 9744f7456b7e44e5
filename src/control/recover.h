// Recovery: volumes and snapshots made anew from the replicas that engines hold, for a store that was lost. Plain
// functions of what is known.
//
// What is found is taken for what it is: a volume has the replicas that are found, the size that they have, and the
// name and spec that they were annotated with. The witness has forgotten its votes and abstains (hole H12), so nothing
// is served that the replicas themselves would not allow.
#pragma once

#include <string>
#include <vector>

#include "control/cluster.h"

namespace fairlead::control {

struct RecoveredVolume {
  Volume volume;
  std::vector<Snapshot> snapshots;
  std::vector<std::string> missing;  // ids of replicas that its newest record names, and nobody has shown yet
};

// Of every volume that the cluster does not know, as far as nodes that are ready have replicas of it in pools that are
// known.
std::vector<RecoveredVolume> find_lost_volumes(const Cluster& cluster, uint64_t now_ms);

// What a replica is annotated with, so that its volume can be found again.
inline constexpr const char* kVolumeAnnotation = "volume";
std::string annotation_of(const Volume& volume);

}  // namespace fairlead::control
