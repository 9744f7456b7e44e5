// The API server of Kubernetes and the control plane by HTTP. One shard; a thread of its own for each waits for the
// answers, one after the other.
#pragma once

#include <memory>
#include <string>

#include "async/reactor.h"
#include "async/time.h"
#include "base/problem.h"
#include "kube/api.h"

namespace fairlead::kube {

struct KubeServer {
  std::string url;         // https://HOST:PORT
  std::string token_file;  // read for each request: Kubernetes renews it. Empty: none is sent
  std::string ca_file;     // empty: the system's certificates
  Duration connect_limit = std::chrono::seconds(3);
  Duration answer_limit = std::chrono::seconds(10);
  Duration watch_limit = std::chrono::seconds(20);  // after which a watch begins anew
};

// What speaks to the API server, for one who calls. `thread` is for people.
std::unique_ptr<Api> make_kube_api(Reactor& home, KubeServer server, const char* thread);
std::unique_ptr<WatchApi> make_watch_api(Reactor& home, KubeServer server);
// The control plane's REST.
std::unique_ptr<Api> make_control_api(Reactor& home, control::ServerOptions options);

// Of a status of the API server and its document.
Problem problem_of_status(int status, const Json& document);

}  // namespace fairlead::kube
