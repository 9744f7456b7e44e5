#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

#include "cli/engine_options.h"
#include "cli/operator.h"
#include "io/address.h"

namespace fairlead::cli {
namespace {

// Where Kubernetes tells a pod of itself.
const std::filesystem::path kAccount = "/var/run/secrets/kubernetes.io/serviceaccount";

std::expected<kube::KubeServer, Complaint> check_kube(const OperatorArguments& arguments) {
  kube::KubeServer server;
  server.token_file = arguments.kube_token_file;
  server.ca_file = arguments.kube_ca;
  if (arguments.kube_server.empty()) {
    const char* const host = std::getenv("KUBERNETES_SERVICE_HOST");
    const char* const port = std::getenv("KUBERNETES_SERVICE_PORT");
    if (host == nullptr || port == nullptr) {
      return std::unexpected("this is no pod of Kubernetes: say where its API server is by --kube-server");
    }
    const std::string text = host;
    server.url = fmt::format("https://{}:{}", text.find(':') == std::string::npos ? text : "[" + text + "]", port);
    if (server.token_file.empty()) server.token_file = kAccount / "token";
    if (server.ca_file.empty()) server.ca_file = kAccount / "ca.crt";
  } else {
    const auto url = control::server_url(arguments.kube_server);
    if (!url) return std::unexpected(fmt::format("--kube-server {}", to_string(url.error())));
    server.url = *url;
  }
  for (const std::string& file : {server.token_file, server.ca_file}) {
    if (!file.empty() && !std::filesystem::exists(file)) {
      return std::unexpected(fmt::format("{}: there is no such file (--kube-token-file, --kube-ca)", file));
    }
  }
  return server;
}

}  // namespace

void define_operator(CLI::App& command, OperatorArguments& arguments) {
  define_servers(command, arguments.common);
  command.add_option("--kube-server", arguments.kube_server,
                     "https://HOST:PORT of the API server of Kubernetes. Default: that of the pod's cluster");
  command.add_option("--kube-token-file", arguments.kube_token_file,
                     "The token for it is the first word of this file, which is read each time. Default: that of the "
                     "pod's account");
  command.add_option("--kube-ca", arguments.kube_ca,
                     "PEM file: whose certificates of the API server are trusted. Default: the pod's; with "
                     "--kube-server the system's");
  command.add_option(
      "--namespace", arguments.name_space,
      "The namespace that has the Lease by which one of several operators is chosen. Default: the pod's");
  command.add_option("--lease", arguments.lease, "The Lease's name")->capture_default_str();
  command.add_option("--identity", arguments.identity,
                     "Who this is, in the Lease: the pod's name. Default: the host name");
  command
      .add_option("--listen", arguments.listen,
                  "ADDR:PORT of /livez, /readyz and /metrics, which answer whoever asks for localhost")
      ->capture_default_str();
  command.footer(
      "Makes, changes and deletes pools as DiskPools say, tells in them how the pools are, and tells what happens to\n"
      "volumes, pools and nodes by Events of Kubernetes. It keeps nothing: several may run, of which one acts. The\n"
      "token for the control plane has to be one of an admin.\n"
      "SIGINT and SIGTERM end it. With systemd: Type=notify.\n"
      "Example: fairlead operator --control https://control:7400 --token-file token --ca ca.pem");
  command.fallthrough();  // for --config
  take_environment(command, "FAIRLEAD_OPERATOR_");
}

std::expected<OperatorPlan, Complaint> check(const OperatorArguments& arguments) {
  OperatorPlan plan;
  const auto servers = check_servers(arguments.common);
  if (!servers) return std::unexpected(servers.error());
  plan.servers = *servers;
  const auto kube = check_kube(arguments);
  if (!kube) return std::unexpected(kube.error());
  plan.kube = *kube;
  plan.name_space = arguments.name_space;
  if (plan.name_space.empty()) {
    std::ifstream file(kAccount / "namespace");
    if (!(file >> plan.name_space)) return std::unexpected("--namespace: is needed outside of a pod");
  }
  plan.lease = arguments.lease;
  plan.identity = arguments.identity.empty() ? host_name() : arguments.identity;
  const Result<SocketAddress> listen = parse_socket_address(arguments.listen, 0);
  if (!listen) return complain_about("--listen " + arguments.listen, listen.error());
  plan.listen = to_string(*listen);
  plan.runtime = {.shards = 1, .poll = PollMode::kNever, .pinning = Pinning::kNone};
  return plan;
}

}  // namespace fairlead::cli
