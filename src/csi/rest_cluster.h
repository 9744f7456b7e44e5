// RestCluster: the control plane by its REST API. One shard; a thread of its own waits for the answers, one after the
// other.
#pragma once

#include <memory>

#include "async/reactor.h"
#include "csi/cluster_api.h"

namespace fairlead::control {
struct ServerOptions;
}

namespace fairlead::csi {

std::unique_ptr<ClusterApi> make_rest_cluster(Reactor& home, control::ServerOptions options);

}  // namespace fairlead::csi
