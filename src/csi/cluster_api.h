// ClusterApi: what the plugins ask of the control plane, as documents (api/openapi.yaml). One shard. Two kinds:
// RestCluster speaks to a real one, tests have one of their own.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "async/task.h"
#include "base/problem.h"
#include "control/freeze.h"

namespace fairlead::csi {

using Json = nlohmann::ordered_json;

// Kinds are "volumes", "snapshots", "snapshot-groups", "pools", "nodes". Errors of all: kUnreachable, kTimedOut,
// kPermissionDenied; those of the control plane, with its words.
class ClusterApi {
 public:
  struct Query {
    std::string volume = {};  // of snapshots: of this one
    std::string after = {};   // the last name of the page before
    uint64_t limit = 0;       // 0: all
  };

  virtual ~ClusterApi() = default;  // Requires: no call is under way.
  // Error kNotFound.
  virtual Task<Outcome<Json>> get(std::string kind, std::string name) = 0;
  // {"items": […], "continue": "NAME" when there is more}.
  virtual Task<Outcome<Json>> list(std::string kind, Query query) = 0;
  // As it is now, new or not. Error kAlreadyExists: it is there in other words.
  virtual Task<Outcome<Json>> create(std::string kind, Json document) = 0;
  // A JSON merge patch, of what has this revision still; 0: whatever it has. Errors: kNotFound, kMiscompare.
  virtual Task<Outcome<Json>> update(std::string kind, std::string name, Json patch, uint64_t revision) = 0;
  // Begins it. One that is not there: done. Error kBusy.
  virtual Task<Outcome<void>> remove(std::string kind, std::string name) = 0;
  // By which the host of a volume says what it did for a snapshot (control/freeze.h). Errors: kNotFound, kMiscompare
  // (nobody asks for it now).
  virtual Task<Outcome<void>> answer_freeze(std::string volume, std::string request, control::FreezeAnswer answer) = 0;
};

}  // namespace fairlead::csi
