#include <CLI/CLI.hpp>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

#include "base/uuid.h"
#include "cli/csi.h"
#include "cli/engine_options.h"
#include "csi/names.h"

namespace fairlead::cli {
namespace {

constexpr const char* kControlDefault = "http://127.0.0.1:7400";
constexpr std::string_view kLocal = "unix://";
constexpr uint32_t kIoQueuesMax = 128;

void define_common(CLI::App& command, CsiArguments& arguments) {
  command.add_option("--endpoint", arguments.endpoint, "unix:///PATH of the socket to listen on")
      ->capture_default_str();
  define_servers(command, arguments);
  command.add_flag(
      "--volume-health", arguments.has_volume_health,
      "Answer the calls of CSI 1.13 that tell what is wrong with volumes; orchestrators before it know none");
}

std::expected<std::string, Complaint> check_endpoint(const std::string& endpoint) {
  std::string path = endpoint;
  if (path.starts_with(kLocal)) path.erase(0, kLocal.size());
  if (!path.starts_with('/') || path.ends_with('/')) {
    return std::unexpected(fmt::format("--endpoint {}: expected unix:///PATH", endpoint));
  }
  return fmt::format("{}{}", kLocal, path);
}

// What both plugins' plans have.
template <typename Plan>
std::expected<Plan, Complaint> begin_plan(const CsiArguments& arguments) {
  const auto endpoint = check_endpoint(arguments.endpoint);
  if (!endpoint) return std::unexpected(endpoint.error());
  const auto servers = check_servers(arguments);
  if (!servers) return std::unexpected(servers.error());
  Plan plan;
  plan.endpoint = *endpoint;
  plan.servers = *servers;
  plan.runtime = {.shards = 1, .poll = PollMode::kNever, .pinning = Pinning::kNone};
  return plan;
}

}  // namespace

void define_servers(CLI::App& command, CsiArguments& arguments) {
  command
      .add_option("--control", arguments.control,
                  "URL[,URL…] of the REST API of 'fairlead control'. Default: http://127.0.0.1:7400")
      ->delimiter(',');
  command.add_option("--token-file", arguments.token_file, "The token for it is the first word of this file");
  command.add_option("--ca", arguments.ca_file,
                     "PEM file: whose certificates of control processes are trusted. Default: the system's");
}

std::expected<control::ServerOptions, Complaint> check_servers(const CsiArguments& arguments) {
  control::ServerOptions servers;
  servers.named_by = "--control";
  servers.answer_limit = std::chrono::seconds(15);
  std::vector<std::string> texts = arguments.control;
  if (texts.empty()) texts.emplace_back(kControlDefault);
  for (const std::string& text : texts) {
    const auto url = control::server_url(text);
    if (!url) return std::unexpected(fmt::format("--control {}", to_string(url.error())));
    servers.urls.push_back(*url);
  }
  servers.ca_file = arguments.ca_file;
  if (!arguments.ca_file.empty() && !std::filesystem::exists(arguments.ca_file)) {
    return std::unexpected(fmt::format("--ca {}: there is no such file", arguments.ca_file));
  }
  if (arguments.token_file.empty()) return servers;
  std::ifstream file(arguments.token_file);
  if (!file || !(file >> servers.token)) {
    return std::unexpected(fmt::format("--token-file {}: no token can be read", arguments.token_file));
  }
  return servers;
}

void define_csi_controller(CLI::App& command, CsiControllerArguments& arguments) {
  define_common(command, arguments.common);
  command
      .add_option("--volumes-per-node", arguments.volumes_per_node,
                  "No machine gets more volumes than so many. 0: as many as are asked for")
      ->capture_default_str();
  command
      .add_option("--settle-limit", arguments.settle_limit,
                  "How long a call waits for the cluster to do what was asked; then the orchestrator is told to ask "
                  "again")
      ->capture_default_str();
  command.footer(
      "Makes, publishes, grows, snapshots and deletes volumes as the orchestrator asks. It keeps nothing: several may\n"
      "run, one after the other. The token has to be one of an admin.\n"
      "SIGINT and SIGTERM end it. With systemd: Type=notify.\n"
      "Example: fairlead csi controller --endpoint unix:///csi/csi.sock --control https://control:7400 --ca ca.pem");
  command.fallthrough();  // for --config
  take_environment(command, "FAIRLEAD_CSI_CONTROLLER_");
}

std::expected<CsiControllerPlan, Complaint> check(const CsiControllerArguments& arguments) {
  auto begun = begin_plan<CsiControllerPlan>(arguments.common);
  if (!begun) return begun;
  CsiControllerPlan& plan = *begun;
  using std::chrono::milliseconds;
  const auto limit = parse_span("--settle-limit", arguments.settle_limit,
                                {milliseconds(100), std::chrono::seconds(3600), "100ms to 1h"});
  if (!limit) return std::unexpected(limit.error());
  plan.options = {.settle_limit = *limit,
                  .volumes_per_node_max = arguments.volumes_per_node,
                  .has_volume_health = arguments.common.has_volume_health};
  return begun;
}

void define_csi_node(CLI::App& command, CsiNodeArguments& arguments) {
  define_common(command, arguments.common);
  command.add_option("--node", arguments.node,
                     "Name of this machine; that of its engine, if it has one. Default: the host name");
  command.add_option("--state-dir", arguments.state_dir, "Where it keeps what it has begun; made when it is not there")
      ->capture_default_str();
  command.add_option("--topology", arguments.topology,
                     "KEY=VALUE, such as topology.kubernetes.io/zone=a: where this machine is; may be given several "
                     "times. One without a value is not told. topology.fairlead.dev/node is told by itself");
  command
      .add_option("--io-queues", arguments.io_queues,
                  "I/O queues of a connection, where the class says nothing. 0: one for each processor")
      ->check(CLI::Range(0U, kIoQueuesMax))
      ->capture_default_str();
  command
      .add_option("--volumes", arguments.volumes,
                  "How many volumes this machine may have, for the orchestrator to know. 0: it decides itself")
      ->capture_default_str();
  command
      .add_option("--follow-interval", arguments.follow_interval,
                  "How often it looks whether a volume has other paths than this machine is connected to")
      ->capture_default_str();
  command.footer(
      "Connects this machine to volumes by NVMe over TCP, makes file systems where there is nothing, mounts them, and\n"
      "takes them away again. It has to run as root, in the machine's own namespace of mounts or with mounts\n"
      "propagated there, and needs mkfs, e2fsck, resize2fs, xfs_growfs or btrfs for what is mounted. When it ends,\n"
      "volumes stay. The token may be one of a host; with one of a viewer it freezes nothing for snapshots.\n"
      "SIGINT and SIGTERM end it. With systemd: Type=notify.\n"
      "Example: fairlead csi node --endpoint unix:///csi/csi.sock --control https://control:7400 --node worker-1");
  command.fallthrough();  // for --config
  take_environment(command, "FAIRLEAD_CSI_NODE_");
}

std::expected<CsiNodePlan, Complaint> check(const CsiNodeArguments& arguments) {
  auto begun = begin_plan<CsiNodePlan>(arguments.common);
  if (!begun) return begun;
  CsiNodePlan& plan = *begun;
  if (arguments.state_dir.empty()) return std::unexpected("--state-dir: is empty");
  plan.state_directory = arguments.state_dir;
  csi::NodeOptions& options = plan.options;
  options.node = arguments.node.empty() ? host_name() : arguments.node;
  options.host_nqn = csi::host_nqn(options.node);
  if (!csi::node_of_host(options.host_nqn)) {
    return std::unexpected(
        fmt::format("--node {}: expected lower-case letters, digits, '-' and '.', 190 at most", options.node));
  }
  options.host_id = to_string(uuid_from_name(kFairleadNamespace, options.host_nqn));
  for (const std::string& text : arguments.topology) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return std::unexpected(fmt::format("--topology {}: expected KEY=VALUE", text));
    }
    // A value that is not known is not told.
    if (equals + 1 < text.size()) options.topology[text.substr(0, equals)] = text.substr(equals + 1);
  }
  options.io_queues = arguments.io_queues;
  options.volumes_max = arguments.volumes;
  options.has_volume_health = arguments.common.has_volume_health;
  using std::chrono::milliseconds;
  const auto interval = parse_span("--follow-interval", arguments.follow_interval,
                                   {milliseconds(100), std::chrono::seconds(3600), "100ms to 1h"});
  if (!interval) return std::unexpected(interval.error());
  options.follow_interval = *interval;
  return begun;
}

}  // namespace fairlead::cli
