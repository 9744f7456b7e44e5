// `fairlead operator`: keeps pools as DiskPools of Kubernetes say, and tells Kubernetes what happens.
#pragma once

#include <string>

#include "cli/arguments.h"
#include "cli/csi.h"
#include "kube/http_api.h"
#include "kube/operator.h"

namespace CLI {
class App;
}

namespace fairlead::cli {

// As given.
struct OperatorArguments {
  CsiArguments common = {};  // the control plane
  std::string kube_server = {};
  std::string kube_token_file = {};
  std::string kube_ca = {};
  std::string name_space = {};
  std::string lease = "fairlead-operator";
  std::string identity = {};
  std::string listen = "127.0.0.1:7445";
};

struct OperatorPlan {
  control::ServerOptions servers;
  kube::KubeServer kube;
  std::string name_space;
  std::string lease;
  std::string identity;  // what is drawn by chance is added
  std::string listen;    // ADDR:PORT
  RuntimeOptions runtime;
};

void define_operator(CLI::App& command, OperatorArguments& arguments);

// Blocks while it reads files.
std::expected<OperatorPlan, Complaint> check(const OperatorArguments& arguments);

// Runs until SIGINT or SIGTERM; then another one may lead at once. Returns the process's exit code.
int run_operator(const OperatorPlan& plan);

}  // namespace fairlead::cli
