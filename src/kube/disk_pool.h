// A DiskPool (deploy/helm/fairlead/files/diskpool.yaml) in terms of a pool of the control plane, and back. Plain
// functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/problem.h"
#include "control/json.h"

namespace fairlead::kube {

using control::Json;

inline constexpr const char* kDiskPools = "/apis/fairlead.dev/v1/diskpools";
// While it has this, its pool is to be deleted first.
inline constexpr const char* kFinalizer = "fairlead.dev/pool";

std::string path_of_disk_pool(const std::string& name);
bool is_deleting(const Json& disk_pool);
bool has_finalizer(const Json& disk_pool);
// A merge patch of the finalizers, for this resourceVersion alone.
enum class Finalizer : uint8_t { kAdd, kRemove };
Json finalizer_patch(const Json& disk_pool, Finalizer what);

// The pool that it asks for. Error kInvalidArgument.
Outcome<Json> wanted_pool(const Json& disk_pool);
// Whether the pool that is there may be the one that is asked for: of the same disks of the same node.
bool is_wanted(const Json& wanted, const Json& pool);
// A merge patch that makes it so; null: nothing is to be done.
Json pool_patch(const Json& wanted, const Json& pool);

// Condition Ready.
struct Standing {
  std::string status;  // "True", "False", "Unknown"
  std::string reason;
  std::string message;
};
Standing standing_of(const Json& pool);

// What its status is to be. `pool` may be null: then what it said of one stays, but for its state.
Json status_of(const Json& disk_pool, const Json& pool, const Standing& standing, uint64_t now_ms);
enum class Difference : uint8_t { kNone, kNumbers, kWords };
// kNumbers: only how full it is.
Difference difference_of(const Json& status_before, const Json& status_now);

}  // namespace fairlead::kube
