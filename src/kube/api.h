// What the operator asks others for: the API server of Kubernetes and the control plane. Both speak HTTP with JSON, so
// that a request is the same for either. One shard. Two kinds: http_api.h, and that of the tests, in memory.
#pragma once

#include <string>
#include <vector>

#include "async/task.h"
#include "base/problem.h"
#include "control/rest_client.h"

namespace fairlead::kube {

using control::Json;
using control::RestMethod;
using control::RestRequest;

class Api {
 public:
  virtual ~Api() = default;  // Requires: no call is under way.
  // The answer's document. kPatch is a JSON merge patch; in Kubernetes one with metadata.resourceVersion is done only
  // if the object has that still. Errors: kUnreachable, kTimedOut (both: it may have been done), kPermissionDenied,
  // kNotFound, kAlreadyExists, kMiscompare (it has another resourceVersion), kInvalidArgument, kOutOfRange (that
  // resourceVersion is too old), kFenced (we do not lead); of the control plane those of its own.
  virtual Task<Outcome<Json>> call(RestRequest request) = 0;
  Task<Outcome<Json>> get(std::string path) { return call({.method = RestMethod::kGet, .path = std::move(path)}); }
};

class WatchApi {
 public:
  virtual ~WatchApi() = default;  // Requires: no watch is under way.
  // Events of a watch, as soon as there is one; none when there was none for a while. Errors as above.
  virtual Task<Outcome<std::vector<Json>>> watch(std::string path) = 0;
  // What is under way ends soon.
  virtual void interrupt() = 0;
};

}  // namespace fairlead::kube
