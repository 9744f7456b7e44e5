// `fairlead csi controller` and `fairlead csi node`: the plugins by which Kubernetes, or another orchestrator that
// speaks the Container Storage Interface, has volumes made and mounted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "control/rest_client.h"
#include "csi/controller.h"
#include "csi/node.h"

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
  bool has_volume_health = false;
};
struct CsiControllerArguments {
  CsiArguments common = {.endpoint = "unix:///run/fairlead/csi-controller.sock"};
  uint64_t volumes_per_node = 0;
  std::string settle_limit = "20s";
};

struct CsiNodeArguments {
  CsiArguments common = {.endpoint = "unix:///run/fairlead/csi-node.sock"};
  std::string node = {};
  std::string state_dir = "/var/lib/fairlead/csi";
  std::vector<std::string> topology = {};  // KEY=VALUE
  uint32_t io_queues = 0;
  uint64_t volumes = 0;
  std::string follow_interval = "3s";
};

struct CsiControllerPlan {
  std::string endpoint;  // unix:///PATH
  control::ServerOptions servers;
  csi::ControllerOptions options;
  RuntimeOptions runtime;
};

struct CsiNodePlan {
  std::string endpoint;  // unix:///PATH
  control::ServerOptions servers;
  std::string state_directory;
  csi::NodeOptions options;
  RuntimeOptions runtime;
};

void define_csi_controller(CLI::App& command, CsiControllerArguments& arguments);
void define_csi_node(CLI::App& command, CsiNodeArguments& arguments);

// Where the control plane is: all but the endpoint.
void define_servers(CLI::App& command, CsiArguments& arguments);

// Block while they read the token file.
std::expected<control::ServerOptions, Complaint> check_servers(const CsiArguments& arguments);
std::expected<CsiControllerPlan, Complaint> check(const CsiControllerArguments& arguments);
std::expected<CsiNodePlan, Complaint> check(const CsiNodeArguments& arguments);

// Run until SIGINT or SIGTERM. Return the process's exit code.
int run_csi_controller(const CsiControllerPlan& plan);
int run_csi_node(const CsiNodePlan& plan);

}  // namespace fairlead::cli
