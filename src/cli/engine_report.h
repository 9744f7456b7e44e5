// What `fairlead engine` answers about replicas and volumes: JSON on one line.
#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"

namespace fairlead::cli {

std::string replicas_to_json(const std::vector<engine::ReplicaInfo>& replicas);
// The state is "standby" where the engine is not the volume's target; then there is nothing else to tell.
std::string volume_to_json(const Uuid& id, const engine::Volume& volume);

}  // namespace fairlead::cli
