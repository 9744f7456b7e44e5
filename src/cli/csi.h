// `fairlead csi controller` and `fairlead csi node`: the plugins by which Kubernetes, or another orchestrator that
// speaks the Container Storage Interface, has volumes made and mounted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "control/rest_client.h"
#include "csi/controller.h"

namespace CLI {
class App;
}

namespace fairlead::cli {

// As given.
struct CsiArguments {
  std::string endpoint = {};
  std::vector<std::string> control = {};
  std::string token_file = {};
  std::string ca_file = {};
};
struct CsiControllerArguments {
  CsiArguments common = {.endpoint = "unix:///run/fairlead/csi-controller.sock"};
  uint64_t volumes_per_node = 0;
  std::string settle_limit = "20s";
};

struct CsiControllerPlan {
  std::string endpoint;  // unix:///PATH
  control::ServerOptions servers;
  csi::ControllerOptions options;
  RuntimeOptions runtime;
};

void define_csi_controller(CLI::App& command, CsiControllerArguments& arguments);

// Blocks while it reads the token file.
std::expected<CsiControllerPlan, Complaint> check(const CsiControllerArguments& arguments);

// Runs until SIGINT or SIGTERM. Returns the process's exit code.
int run_csi_controller(const CsiControllerPlan& plan);

}  // namespace fairlead::cli
