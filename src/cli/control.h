// `fairlead control`: the control plane. Keeps what was asked for in a store, and sees to it that engines do it; serves
// REST to people and tools, and gRPC to engines. One of several processes on one store leads.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cli/arguments.h"
#include "control/etcd_client.h"
#include "control/volume_plan.h"
#include "gateway/access.h"
#include "gateway/connection.h"
#include "rpc/tls_files.h"

namespace CLI {
class App;
}

namespace fairlead::cli {

// The arguments, as given. check() turns them into what can be run.
struct ControlArguments {
  std::string store = "sqlite:/var/lib/fairlead/control.db";
  std::string etcd_ca = {};
  std::string etcd_certificate = {};
  std::string etcd_key = {};
  std::string listen = "127.0.0.1:7400";
  std::string management = "127.0.0.1:7401";
  std::string advertise = {};  // HOST[:PORT]
  std::string token_file = {};
  std::string tls_ca = {};
  std::string tls_certificate = {};
  std::string tls_key = {};
  bool insecure = false;
  std::string lost_after = "2s";
  std::string replace_after = "10m";
};

struct ControlPlan {
  std::variant<std::string, control::EtcdClientOptions> store;  // SQLite's file, or where etcd is
  std::string listen;                                           // ADDR:PORT
  std::string management;                                       // likewise
  std::string advertise;                                        // HOST[:PORT]; empty: as it listens
  std::optional<gateway::Tokens> tokens;
  std::optional<gateway::ServerCertificate> certificate;
  std::optional<rpc::TlsFiles> management_tls;
  control::ControlSettings settings;
  RuntimeOptions runtime;
};

void define_control(CLI::App& command, ControlArguments& arguments);

// Blocks while it reads the token file.
std::expected<ControlPlan, Complaint> check(const ControlArguments& arguments);

// Runs until SIGINT or SIGTERM; then another one may lead at once. Returns the process's exit code.
int run_control(const ControlPlan& plan);

}  // namespace fairlead::cli
