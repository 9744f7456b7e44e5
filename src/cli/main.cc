// The fairlead command: reads the command line, and leaves the work to the command's own file.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fmt/format.h>

#include "cli/bench.h"
#include "cli/cluster_commands.h"
#include "cli/completion.h"
#include "cli/control.h"
#include "cli/csi.h"
#include "cli/doctor.h"
#include "cli/engine.h"
#include "cli/engine_options.h"
#include "cli/kubectl.h"
#include "cli/operator.h"
#include "cli/pool_commands.h"
#include "cli/remote.h"
#include "cli/serve.h"
#include "cli/version.h"
#include "rpc/tls_files.h"

namespace {

constexpr int kExitUsage = 2;

using fairlead::cli::BenchArguments;
using fairlead::cli::ControlArguments;
using fairlead::cli::DiscoverArguments;
using fairlead::cli::EngineArguments;
using fairlead::cli::IdentifyArguments;
using fairlead::cli::ServeArguments;

using fairlead::cli::take_one_value_at_a_time;

void define_serve(CLI::App& serve, ServeArguments& arguments) {
  serve.add_option("PATH", arguments.paths, "Files or block devices; each becomes a namespace, in this order");
  serve.add_option("--listen", arguments.listen,
                   "ADDR[:PORT][,advertise=ADDR[:PORT]]: where to listen, IPv4 or [IPv6]; may be given several times. "
                   "Port 0 lets the system choose; what is advertised is told to hosts instead (NAT, VMs). "
                   "Default: 127.0.0.1:4420, this machine only; 0.0.0.0 is every IPv4 address");
  serve.add_option("--nqn", arguments.nqn,
                   "Name of the subsystem. Default: derived from this machine and the first PATH");
  serve.add_option("--size", arguments.size, "Makes files that are not there, sparse, and grows smaller ones: 10GiB");
  serve.add_option("--memory", arguments.memory, "Adds a namespace in memory of this size; may be given several times");
  serve.add_option("--null", arguments.null,
                   "Adds a namespace of this size that keeps nothing and reads as zeroes, for measuring");
  serve
      .add_option(
          "--pool", arguments.pool,
          "DISK[,DISK…]: adds the replicas and snapshots of the pool on these disks; see fairlead offline pool --help")
      ->delimiter(',');
  serve.add_option("--replica", arguments.replicas,
                   "Of the pool serves only this replica or snapshot; may be given several times");
  serve.add_flag("--commands", arguments.commands,
                 "Reads commands for the pool from standard input, one a line: help lists them. Each is answered by a "
                 "line that begins with ok or error");
  serve.add_flag("--read-only", arguments.read_only, "Refuses writes");
  serve.add_option("--host", arguments.hosts,
                   "NQN of a host that may connect; may be given several times. Default: any");
  serve.add_option("--shards", arguments.shards, "Threads that serve I/O. Default: one for each processor")
      ->check(CLI::PositiveNumber);
  serve
      .add_option(
          "--poll", arguments.poll,
          "auto: look for work for 50 us after the last, then sleep, and at once while others want the processor; "
          "always: never sleep; never: sleep at once")
      ->capture_default_str();
  serve.footer(
      "Sizes take KiB, MiB, GiB, TiB. SIGINT and SIGTERM drain and flush.\n"
      "Example: fairlead serve disk.img --size 10GiB --listen 0.0.0.0");
  take_one_value_at_a_time(serve);
}

void define_bench(CLI::App& bench, BenchArguments& arguments) {
  bench
      .add_option("TARGET", arguments.target,
                  "PATH of a file or block device, memory:SIZE, null:SIZE, pool:DISK[,DISK…]/REPLICA, or "
                  "nvme+tcp://ADDR[:PORT]/NQN[?ns=1] with an IP address (IPv6 in brackets) or localhost")
      ->required();
  bench.add_option("--rw", arguments.rw, "randread, randwrite, randrw, read or write; the last two are sequential")
      ->capture_default_str();
  bench.add_option("--mix", arguments.mix, "Reads in randrw, percent. Default: 70");
  bench.add_option("--bs", arguments.bs, "Bytes of a request: 4k, 128KiB; at most 2 MiB")->capture_default_str();
  bench.add_option("--qd", arguments.qd, "Requests in flight, the sum over all queues")->capture_default_str();
  bench
      .add_option("--queues", arguments.queues,
                  "Queues, each opened by itself: for a remote target a connection of its own")
      ->capture_default_str();
  bench.add_option("--shards", arguments.shards,
                   "Threads that share the queues. Default: one a queue, at most one for each processor");
  bench.add_option("--cpus", arguments.cpus, "Pins thread i to the i-th of these: 1, or 0-3,6. Default: not pinned");
  bench.add_option("--runtime", arguments.runtime, "How long: 10s, 500ms")->capture_default_str();
  bench.add_option(
      "--rate", arguments.rate,
      "Requests a second, the sum over all queues: 5000, 100k. Each is due at a moment of its own, and its "
      "latency counts from there, so a stall shows in every request that it held up. Default: as many as "
      "the target takes");
  bench.add_option("--offset", arguments.offset, "Where the range starts that is used. Default: 0");
  bench.add_option("--size", arguments.size,
                   "How much is used from there on; a file that does not exist is made. Default: up to the end");
  bench.add_flag(
      "--overwrite", arguments.overwrite,
      "Allows to write to a device, a file with something in it or a remote namespace. What it holds is lost");
  bench.add_flag(
      "--verify", arguments.verify,
      "Checks that reads give what was written last, and reads everything back at the end; uses the first 8 Mi "
      "blocks of --bs at most");
  bench.add_option(
      "--path", arguments.paths,
      "ADDR[:PORT]: another address of the same remote subsystem, for multipath; may be given several times");
  bench.add_option("--limit", arguments.limit,
                   "Plays a slower disk with a local target: iops=400k,bandwidth=2GiB,latency=80us,jitter=10us");
  bench.add_option(
      "--quiesce", arguments.quiesce,
      "How long what was sent to a target may still be done there after the path to it was lost; later "
      "writes to the same blocks wait. 0s where targets fence each other off, as those of a volume do when "
      "another takes over. Default: twice the keep-alive time");
  bench.add_option("--host", arguments.host, "NQN to connect as. Default: derived from this machine");
  bench.add_flag("--hdgst", arguments.hdgst, "Header digests on remote connections");
  bench.add_flag("--ddgst", arguments.ddgst, "Data digests on remote connections");
  bench.add_option("--target-pid", arguments.target_pid, "A process whose processor time is reported too");
  bench
      .add_option(
          "--poll", arguments.poll,
          "auto: look for work for 50 us after the last, then sleep, and at once while others want the processor; "
          "always: never sleep; never: sleep at once")
      ->capture_default_str();
  bench.add_flag("--json", arguments.json, "Prints one JSON object");
  bench.footer(
      "Sizes take KiB, MiB, GiB, TiB. SIGINT ends it early, with a report of what was done; with --verify a second one "
      "skips reading back.\n"
      "Latency is from the submission of a request to its completion, on a clock with nanoseconds.\n"
      "Examples: fairlead bench disk.img --bs 128k --rw read\n"
      "          fairlead bench memory:1GiB --rw randrw --verify\n"
      "          fairlead bench 'nvme+tcp://127.0.0.1:4420/NQN?ns=1' --queues 4 --rate 100k");
  take_one_value_at_a_time(bench);
}

void define_discover(CLI::App& discover, DiscoverArguments& arguments) {
  discover
      .add_option("ADDRESS", arguments.address,
                  "ADDR[:PORT], ADDR being an IP address or localhost. Default port: 4420")
      ->required();
  discover.add_option("--host", arguments.host, "NQN to connect as. Default: derived from this machine");
  discover.add_flag("--json", arguments.json, "Prints one JSON object");
  discover.footer(
      "Asks the discovery controller of a target, and those that it refers to, what this host may use. Targets that\n"
      "have a port of its own for discovery use 8009.\n"
      "Example: fairlead discover 192.0.2.10");
}

void define_identify(CLI::App& identify, IdentifyArguments& arguments) {
  identify
      .add_option("TARGET", arguments.target, "nvme+tcp://ADDR[:PORT]/NQN[?ns=N]; without ?ns all namespaces are shown")
      ->required();
  identify.add_option("--host", arguments.host, "NQN to connect as. Default: derived from this machine");
  identify.add_flag("--hdgst", arguments.hdgst, "Header digests");
  identify.add_flag("--ddgst", arguments.ddgst, "Data digests");
  identify.add_flag("--json", arguments.json, "Prints one JSON object");
  identify.footer("Example: fairlead identify nvme+tcp://192.0.2.10/NQN");
}

void define_doctor(CLI::App& doctor, fairlead::cli::DoctorArguments& arguments) {
  doctor.add_option("DISK", arguments.disks, "Disks that are to become a pool");
  doctor.add_option("--port", arguments.ports, "A port that is to be listened on; may be given several times");
  doctor.add_option("--reach", arguments.reach, "ADDR[:PORT] of another node; may be given several times");
  doctor.add_flag("--json", arguments.json, "Prints a JSON array");
  doctor.footer(
      "It changes nothing. Each finding comes with what mends it.\n"
      "Exit code 0: nothing is bad; 1: something is.\n"
      "Example: fairlead doctor --port 4420 --reach 192.0.2.11 /dev/sdb");
  take_one_value_at_a_time(doctor);
}

// Checks the arguments of command `name` and runs it.
template <typename Arguments, typename Run>
int check_and_run(const char* name, const Arguments& arguments, Run run) {
  const auto plan = fairlead::cli::check(arguments);
  if (!plan) {
    fmt::print(stderr, "fairlead {0}: {1}\nTry 'fairlead {0} --help'.\n", name, plan.error());
    return kExitUsage;
  }
  return run(*plan);
}

std::optional<fairlead::rpc::TlsFiles> tls_files_of(const fairlead::cli::EnginePlan& plan) { return plan.cluster.tls; }
std::optional<fairlead::rpc::TlsFiles> tls_files_of(const fairlead::cli::ControlPlan& plan) {
  if (plan.management_tls || !plan.certificate) return plan.management_tls;
  // REST alone trusts no certificates: its own stands for them.
  return fairlead::rpc::TlsFiles{
      .ca = plan.certificate->certificate, .certificate = plan.certificate->certificate, .key = plan.certificate->key};
}

// What check_and_run() runs for --check-config.
template <typename Plan>
int check_files(const char* name, const Plan& plan) {
  if (const auto files = tls_files_of(plan)) {
    if (const auto good = fairlead::rpc::check_tls_files(*files); !good) {
      fmt::print(stderr, "fairlead {}: {}\n", name, to_string(good.error()));
      return kExitUsage;
    }
  }
  fmt::print("the settings are right\n");
  return 0;
}

// The processes that a cluster is made of.
class ProcessCommands {
 public:
  explicit ProcessCommands(CLI::App& app)
      : engine_(*app.add_subcommand("engine", "Offer a pool's replicas, and serve the volumes that they are of")),
        control_(*app.add_subcommand("control", "Keep what was asked for, and see to it that engines do it")) {
    fairlead::cli::define_engine(engine_, engine_arguments_);
    fairlead::cli::define_control(control_, control_arguments_);
    for (CLI::App* const command : {&engine_, &control_}) {
      command
          ->add_flag("--check-config", is_check_,
                     "Tells whether options, and files that they name, are right, and ends")
          ->configurable(false);
    }
  }
  ProcessCommands(const ProcessCommands&) = delete;
  ProcessCommands& operator=(const ProcessCommands&) = delete;

  // None: neither was asked for.
  std::optional<int> run() const {
    if (engine_.parsed()) {
      return check_and_run("engine", engine_arguments_, [this](const fairlead::cli::EnginePlan& plan) {
        return is_check_ ? check_files("engine", plan) : fairlead::cli::run_engine(plan);
      });
    }
    if (!control_.parsed()) return std::nullopt;
    return check_and_run("control", control_arguments_, [this](const fairlead::cli::ControlPlan& plan) {
      return is_check_ ? check_files("control", plan) : fairlead::cli::run_control(plan);
    });
  }

 private:
  EngineArguments engine_arguments_;
  ControlArguments control_arguments_;
  bool is_check_ = false;
  CLI::App& engine_;
  CLI::App& control_;
};

// The plugins of an orchestrator, and its operator.
class CsiCommands {
 public:
  explicit CsiCommands(CLI::App& app)
      : csi_(*app.add_subcommand("csi", "Serve Kubernetes: the plugins of the Container Storage Interface")),
        controller_(*csi_.add_subcommand("controller", "Make, publish, grow, snapshot and delete volumes")),
        node_(*csi_.add_subcommand("node", "Bring volumes to this machine, and mount them")),
        operator_(*app.add_subcommand("operator", "Serve Kubernetes: keep pools as its DiskPools say")) {
    csi_.require_subcommand(1);
    csi_.fallthrough();  // for --config
    fairlead::cli::define_csi_controller(controller_, controller_arguments_);
    fairlead::cli::define_csi_node(node_, node_arguments_);
    fairlead::cli::define_operator(operator_, operator_arguments_);
  }
  CsiCommands(const CsiCommands&) = delete;
  CsiCommands& operator=(const CsiCommands&) = delete;

  // None: none of them was asked for.
  std::optional<int> run() const {
    if (operator_.parsed()) return check_and_run("operator", operator_arguments_, fairlead::cli::run_operator);
    if (node_.parsed()) return check_and_run("csi node", node_arguments_, fairlead::cli::run_csi_node);
    if (!controller_.parsed()) return std::nullopt;
    return check_and_run("csi controller", controller_arguments_, fairlead::cli::run_csi_controller);
  }

 private:
  fairlead::cli::CsiControllerArguments controller_arguments_;
  fairlead::cli::CsiNodeArguments node_arguments_;
  fairlead::cli::OperatorArguments operator_arguments_;
  CLI::App& csi_;
  CLI::App& controller_;
  CLI::App& node_;
  CLI::App& operator_;
};

// By the plugin's name: takes what is kubectl's out of the words. False: something is wrong with it.
bool be_plugin(const char* called_as, std::vector<std::string>& words, std::optional<fairlead::cli::Kubectl>& kubectl) {
  if (!fairlead::cli::is_kubectl_plugin(called_as)) return true;
  const auto taken = fairlead::cli::take_kubectl_arguments(words);
  if (!taken) fmt::print(stderr, "kubectl fairlead: {}\n", to_string(taken.error()));
  if (taken) kubectl.emplace(*taken);
  return taken.has_value();
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  std::optional<fairlead::cli::Kubectl> kubectl;
  if (!be_plugin(argc > 0 ? argv[0] : "", words, kubectl)) return kExitUsage;
  CLI::App app("Fairlead: block storage over NVMe-oF", kubectl ? "kubectl fairlead" : "fairlead");
  if (kubectl) app.footer(fairlead::cli::kKubectlHelp);
  app.set_version_flag("--version", fmt::format("fairlead {}", fairlead::cli::kVersion));
  app.require_subcommand(0, 1);
  app.set_config("--config", "", "A TOML file with options, in a section for each command: [engine], [control]");
  app.allow_config_extras(CLI::config_extras_mode::error);
  ServeArguments serve_arguments;
  CLI::App& serve = *app.add_subcommand("serve", "Export files, devices, a pool or memory as NVMe-oF namespaces");
  define_serve(serve, serve_arguments);
  const ProcessCommands process_commands(app);
  const CsiCommands csi_commands(app);
  BenchArguments bench_arguments;
  CLI::App& bench = *app.add_subcommand("bench", "Measure a file, a device, a replica or a remote namespace");
  define_bench(bench, bench_arguments);
  DiscoverArguments discover_arguments;
  CLI::App& discover = *app.add_subcommand("discover", "List what a target offers");
  define_discover(discover, discover_arguments);
  IdentifyArguments identify_arguments;
  CLI::App& identify = *app.add_subcommand("identify", "Describe a remote controller and its namespaces");
  define_identify(identify, identify_arguments);
  const fairlead::cli::ClusterCommands cluster_commands(app);
  const fairlead::cli::PoolCommands pool_commands(app);
  fairlead::cli::DoctorArguments doctor_arguments;
  CLI::App& doctor = *app.add_subcommand("doctor", "Look whether this machine can be a node, and a host of volumes");
  define_doctor(doctor, doctor_arguments);
  std::string topic;
  CLI::App& help = *app.add_subcommand("help", "Tell about exit codes");
  help.add_option("TOPIC", topic, "exit-codes")->check(CLI::IsMember({"exit-codes"}));
  std::string shell;
  CLI::App& completion = *app.add_subcommand("completion", "Print a completion script for bash, zsh or fish");
  completion.add_option("SHELL", shell, "bash, zsh or fish")->required();

  try {
    std::ranges::reverse(words);  // as it wants them
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (app.get_subcommands().empty()) {
    fmt::print(stderr, "{}", app.help());
    return kExitUsage;
  }
  if (serve.parsed()) return check_and_run("serve", serve_arguments, fairlead::cli::serve);
  if (const std::optional<int> code = process_commands.run()) return *code;
  if (const std::optional<int> code = csi_commands.run()) return *code;
  if (bench.parsed()) return check_and_run("bench", bench_arguments, fairlead::cli::bench);
  if (discover.parsed()) return check_and_run("discover", discover_arguments, fairlead::cli::discover);
  if (identify.parsed()) return check_and_run("identify", identify_arguments, fairlead::cli::identify);
  if (const std::optional<int> code = cluster_commands.run(kubectl ? &*kubectl : nullptr)) return *code;
  if (const std::optional<int> code = pool_commands.run()) return *code;
  if (doctor.parsed()) return check_and_run("doctor", doctor_arguments, fairlead::cli::doctor);
  if (help.parsed()) {
    fmt::print("{}", topic.empty() ? app.help() : fairlead::cli::kExitCodesText);
    return 0;
  }
  if (kubectl) app.name("fairlead");  // deploy/kubectl/kubectl_complete-fairlead gives the name a meaning
  const auto script = fairlead::cli::completion_script(app, shell);
  if (!script) {
    fmt::print(stderr, "fairlead completion: {}\n", script.error());
    return kExitUsage;
  }
  std::fputs(script->c_str(), stdout);
  return 0;
}
