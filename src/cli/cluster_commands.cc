#include "cli/cluster_commands.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fmt/format.h>

#include "cli/cluster_run.h"
#include "cli/kubectl.h"

namespace fairlead::cli {
namespace {

constexpr int kExitUsage = 2;
constexpr int kExitUnreachable = 5;

// "volumes" to "VOLUME", by which the shell's completion knows what to ask for.
std::string metavariable(std::string_view kind) {
  std::string text(kind.substr(0, kind.size() - 1));
  for (char& c : text) c = c == '-' ? c : static_cast<char>(c - 32);
  return text;
}

CLI::Option* add_list(CLI::App& app, const char* name, std::vector<std::string>& values, const char* description) {
  return app.add_option(name, values, description)->allow_extra_args(false);
}

void add_server(CLI::App& app, ClusterArguments& arguments) {
  app.add_option("--server", arguments.servers,
                 "URL of the control plane; may be given several times, or as a list with commas. Default: "
                 "FAIRLEAD_SERVER, else http://127.0.0.1:7400")
      ->allow_extra_args(false)
      ->group("Server");
  app.add_option("--token-file", arguments.token_file, "File with the token that the server asks for")
      ->group("Server")
      ->envname("FAIRLEAD_TOKEN_FILE");
  app.add_option("--ca", arguments.ca_file, "File with the certificates of who signed the server's")
      ->group("Server")
      ->envname("FAIRLEAD_CA");
}

void add_volume_options(CLI::App& app, ClusterArguments& arguments) {
  add_list(app, "--spread-over", arguments.spread_over,
           "Key of a label: the replicas' nodes differ in it; may be given several times");
  add_list(app, "--affinity", arguments.affinity, "KEY=VALUE: only nodes with this label");
  add_list(app, "--anti-affinity", arguments.anti_affinity, "KEY=VALUE: no nodes with this label");
  app.add_option("--group", arguments.group, "Volumes of one group keep apart where they can");
  app.add_option("--node", arguments.node, "Node that serves it when it can");
  add_list(app, "--host", arguments.hosts, "NQN of a host that may use it; may be given several times. Default: any");
  app.add_option("--snapshot-limit", arguments.snapshot_limit, "Snapshots that it may have");
  app.add_option("--resync-share", arguments.resync_share,
                 "Of the time that hosts keep it busy, percent that copies to replicas that came back may take. "
                 "0: as engines are set");
}

void add_create_options(CLI::App& app, ClusterArguments& arguments) {
  app.add_option("--replicas", arguments.replicas, "Copies, each on a node of its own. Default: 1");
  app.add_flag("--thick", arguments.thick, "Takes its room now, so that no write ever finds none");
  add_volume_options(app, arguments);
  add_list(app, "--label", arguments.labels, "KEY=VALUE; may be given several times");
}

}  // namespace

const char* const kExitCodesText =
    "Exit codes of the commands that speak to a cluster:\n"
    "  0  done, and what was waited for has come\n"
    "  1  it failed; of 'status' and 'doctor': not all is well\n"
    "  2  wrong arguments, or the server does not take them\n"
    "  3  there is no such resource\n"
    "  4  conflict: it is in use, changed meanwhile, or there in another form\n"
    "  5  no server can be reached, or none leads\n"
    "  6  the time limit passed; what was asked for goes on\n"
    "Other commands: 0 done, 1 failed, 2 wrong arguments.\n";

ClusterCommands::ClusterCommands(CLI::App& app) {
  add_volumes(app);
  add_snapshots(app);
  add_pools(app);
  add_nodes(app);
  add_settings(app);
  add_others(app);
}

ClusterCommands::~ClusterCommands() = default;

ClusterCommands::Command& ClusterCommands::add(CLI::App& parent, const char* word, std::string_view kind,
                                               ClusterVerb verb, const char* description) {
  commands_.push_back(std::make_unique<Command>());
  Command& command = *commands_.back();
  command.arguments.verb = verb;
  command.arguments.kind = kind;
  command.app = parent.add_subcommand(word, description);
  add_server(*command.app, command.arguments);
  return command;
}

ClusterCommands::Command& ClusterCommands::add_reader(CLI::App& parent, const char* word, std::string_view kind,
                                                      ClusterVerb verb, const char* description) {
  Command& command = add(parent, word, kind, verb, description);
  command.app->add_option("-o,--output", command.arguments.output, "table, wide, json, yaml or name")
      ->capture_default_str();
  return command;
}

ClusterCommands::Command& ClusterCommands::add_change(CLI::App& parent, const char* word, std::string_view kind,
                                                      ClusterVerb verb, const char* description, Waits waits) {
  Command& command = add_reader(parent, word, kind, verb, description);
  if (waits == Waits::kNo) return command;
  command.app->add_flag("--no-wait", command.arguments.no_wait, "Returns when it is asked for, not when it is done");
  command.app->add_option("--timeout", command.arguments.timeout,
                          "How long to wait: 30s, 5m. What was asked for goes on after that");
  return command;
}

void ClusterCommands::add_common(CLI::App& parent, std::string_view kind) {
  const std::string variable = metavariable(kind);
  Command& list = add_reader(parent, "list", kind, ClusterVerb::kList, "List them");
  add_list(*list.app, "-l,--label", list.arguments.labels, "KEY=VALUE: only those with this label");
  if (kind == "pools") list.app->add_option("--node", list.arguments.node, "Only those of this node");
  if (kind.starts_with("snapshot")) {
    list.app->add_option("--volume", list.arguments.volume, "Only those of this volume");
  }
  list.app->add_flag("-w,--watch", list.arguments.watch, "Goes on showing what changes, until it is ended");

  Command& show = add_reader(parent, "show", kind, ClusterVerb::kShow, "Show all about one");
  show.app->add_option(variable, show.arguments.name, "Its name")->required();
  show.app->add_flag("-w,--watch", show.arguments.watch, "Goes on showing what changes, until it is ended");

  if (kind != "snapshot-groups") {
    Command& set = add_change(parent, "set", kind, ClusterVerb::kSet, "Change one", Waits::kNo);
    set.app->add_option(variable, set.arguments.name, "Its name")->required();
    add_list(*set.app, "--label", set.arguments.labels, "KEY=VALUE, or KEY= to remove it; may be given several times");
    if (kind == "volumes") add_volume_options(*set.app, set.arguments);
    set.app->add_option("--if-revision", set.arguments.revision, "Only if it has this revision still");
  }

  Command& remove = add_change(parent, "delete", kind, ClusterVerb::kDelete,
                               kind == "nodes"   ? "Forget a node that does not come back"
                               : kind == "pools" ? "Delete a pool without replicas; its disks are blank then"
                                                 : "Delete one, and what it holds");
  remove.app->add_option(variable, remove.arguments.name, "Its name")->required();
  remove.app->add_option("--if-revision", remove.arguments.revision, "Only if it has this revision still");
}

void ClusterCommands::add_nodes(CLI::App& app) {
  CLI::App& node = *app.add_subcommand("node", "Machines with an engine: list, cordon, drain");
  node.require_subcommand(1);
  add_common(node, "nodes");
  const auto add_verb = [&](const char* word, ClusterVerb verb, Waits waits, const char* description) {
    Command& command = add_change(node, word, "nodes", verb, description, waits);
    command.app->add_option("NODE", command.arguments.name, "Its name")->required();
  };
  add_verb("cordon", ClusterVerb::kCordon, Waits::kNo, "Place nothing new on a node");
  add_verb("uncordon", ClusterVerb::kUncordon, Waits::kNo, "Take a node into use again: ends cordon and drain");
  add_verb("drain", ClusterVerb::kDrain, Waits::kYes,
           "Move targets and replicas off a node, and wait until it is empty");
  add_verb("undrain", ClusterVerb::kUndrain, Waits::kNo, "Stop to drain a node");
}

void ClusterCommands::add_pools(CLI::App& app) {
  CLI::App& pool = *app.add_subcommand("pool", "Storage that nodes offer: list, create, evacuate");
  pool.require_subcommand(1);
  add_common(pool, "pools");
  Command& create = add_change(pool, "create", "pools", ClusterVerb::kCreate, "Make a pool of blank disks of a node");
  create.app->add_option("NAME", create.arguments.name, "Its name")->required();
  create.app->add_option("DISK", create.arguments.disks, "Files, partitions or block devices of the node")->required();
  create.app->add_option("--node", create.arguments.node, "The node that has them")->required();
  create.app->add_option("--size", create.arguments.size, "Makes files that are not there, sparse: 100GiB");
  add_list(*create.app, "--label", create.arguments.labels, "KEY=VALUE; may be given several times");
  create.app->footer("Example: fairlead pool create fast --node a /dev/sdb");
  Command& evacuate = add_change(pool, "evacuate", "pools", ClusterVerb::kEvacuate,
                                 "Move all replicas off a pool, and wait until it is empty");
  evacuate.app->add_option("POOL", evacuate.arguments.name, "Its name")->required();
  evacuate.app->add_flag("--cancel", evacuate.arguments.cancel, "Takes the pool into use again");
}

void ClusterCommands::add_volumes(CLI::App& app) {
  CLI::App& volume = *app.add_subcommand("volume", "Replicated block devices: create, attach, resize, move …");
  volume.require_subcommand(1);
  Command& create =
      add_change(volume, "create", "volumes", ClusterVerb::kCreate, "Make a volume, and wait until hosts can use it");
  create.app->add_option("NAME", create.arguments.name, "Its name")->required();
  create.app->add_option("--size", create.arguments.size, "10GiB; more than the pools have is fine");
  create.app->add_option("--source", create.arguments.source, "Snapshot that it begins as");
  add_create_options(*create.app, create.arguments);
  create.app->footer("Example: fairlead volume create db --size 10GiB --replicas 3 --spread-over zone");
  Command& clone = add_change(volume, "clone", "volumes", ClusterVerb::kClone, "Make a volume of a snapshot");
  clone.app->add_option("SNAPSHOT", clone.arguments.source, "The snapshot")->required();
  clone.app->add_option("NAME", clone.arguments.other, "Name of the new volume")->required();
  clone.app->add_option("--size", clone.arguments.size, "Default: the snapshot's");
  add_create_options(*clone.app, clone.arguments);
  clone.app->get_option("--replicas")->description("Copies. Default: as many as the snapshot's volume has");
  add_common(volume, "volumes");
  add_volume_changes(volume);
}

void ClusterCommands::add_volume_changes(CLI::App& volume) {
  Command& resize = add_change(volume, "resize", "volumes", ClusterVerb::kResize, "Make a volume larger, in use too");
  resize.app->add_option("VOLUME", resize.arguments.name, "Its name")->required();
  resize.app->add_option("SIZE", resize.arguments.size, "20GiB")->required();
  Command& scale = add_change(volume, "scale", "volumes", ClusterVerb::kScale, "Change how many replicas it has");
  scale.app->add_option("VOLUME", scale.arguments.name, "Its name")->required();
  scale.app->add_option("REPLICAS", scale.arguments.replicas, "1 to 7")->required();
  Command& move = add_change(volume, "move", "volumes", ClusterVerb::kMove, "Have a volume served by another node");
  move.app->add_option("VOLUME", move.arguments.name, "Its name")->required();
  move.app->add_option("NODE", move.arguments.other, "The node")->required();
  Command& attach = add_change(volume, "attach", "volumes", ClusterVerb::kAttach,
                               "Print the commands that connect this host to a volume, or run them");
  attach.app->add_option("VOLUME", attach.arguments.name, "Its name")->required();
  attach.app->add_flag("--execute", attach.arguments.execute, "Runs them, as root");
  attach.app->footer("One command for each path. The kernel goes on by another path when the node that serves dies.");
  Command& detach = add_reader(volume, "detach", "volumes", ClusterVerb::kDetach,
                               "Print the command that disconnects this host from a volume, or run it");
  detach.app->add_option("VOLUME", detach.arguments.name, "Its name")->required();
  detach.app->add_flag("--execute", detach.arguments.execute, "Runs it, as root");
  Command& force = add_change(volume, "force", "volumes", ClusterVerb::kForce,
                              "Serve a volume from one replica alone, when the others do not come back");
  force.app->add_option("VOLUME", force.arguments.name, "Its name")->required();
  force.app->add_option("--trust", force.arguments.trust, "Id of the replica: 'fairlead volume show VOLUME' lists them")
      ->required();
  force.app->footer(
      "Writes that this replica missed are lost. 'fairlead why volume/NAME' tells whom the volume waits for, and what\n"
      "going on without them costs.");
}

void ClusterCommands::add_snapshots(CLI::App& app) {
  CLI::App& snapshot = *app.add_subcommand("snapshot", "Volumes as they were: create, list, delete");
  snapshot.require_subcommand(1);
  Command& create = add_change(snapshot, "create", "snapshots", ClusterVerb::kCreate, "Take a snapshot of a volume");
  create.app->add_option("NAME", create.arguments.name, "Its name")->required();
  create.app->add_option("--volume", create.arguments.volume, "The volume")->required();
  add_list(*create.app, "--label", create.arguments.labels, "KEY=VALUE; may be given several times");
  create.app->footer("Example: fairlead snapshot create db-monday --volume db");
  add_common(snapshot, "snapshots");

  CLI::App& group =
      *app.add_subcommand("snapshot-group", "Several volumes as they were at one moment: create, list, delete");
  group.require_subcommand(1);
  Command& cut = add_change(group, "create", "snapshot-groups", ClusterVerb::kCreate,
                            "Take a snapshot of each of several volumes, all of one moment");
  cut.app->add_option("NAME", cut.arguments.name, "Its name; the snapshots are NAME-1, NAME-2, …")->required();
  add_list(*cut.app, "--volume", cut.arguments.volumes, "A volume; given once for each")->required();
  add_list(*cut.app, "--label", cut.arguments.labels, "KEY=VALUE, of each snapshot; may be given several times");
  cut.app->footer("Example: fairlead snapshot-group create monday --volume db --volume log");
  add_common(group, "snapshot-groups");
}

void ClusterCommands::add_settings(CLI::App& app) {
  CLI::App& settings = *app.add_subcommand("settings", "What holds for the whole cluster: show, set");
  settings.require_subcommand(1);
  add_reader(settings, "show", "settings", ClusterVerb::kShow, "Show them");
  Command& set = add_change(settings, "set", "settings", ClusterVerb::kSet, "Change them", Waits::kNo);
  set.app->add_option(
      "--rebalance", set.arguments.rebalance,
      "When a pool is a fifth fuller than another: off, suggest (say which replica to move) or on (move "
      "it)");
  set.app->add_option("--if-revision", set.arguments.revision, "Only if they have this revision still");
}

void ClusterCommands::add_others(CLI::App& app) {
  CLI::App& replica = *app.add_subcommand("replica", "Copies of volumes: list");
  replica.require_subcommand(1);
  Command& replicas = add_reader(replica, "list", "replicas", ClusterVerb::kList, "List them");
  replicas.app->add_option("--volume", replicas.arguments.volume, "Only those of this volume");
  replicas.app->add_option("--node", replicas.arguments.node, "Only those on this node");
  replicas.app->add_flag("-w,--watch", replicas.arguments.watch, "Goes on showing what changes, until it is ended");
  CLI::App& event = *app.add_subcommand("event", "What happened: list");
  event.require_subcommand(1);
  Command& events = add_reader(event, "list", "", ClusterVerb::kEvents, "List the last events, oldest first");
  events.app->add_flag("-f,--follow", events.arguments.watch, "Goes on with those that come, until it is ended");

  Command& status = add_reader(app, "status", "", ClusterVerb::kStatus,
                               "Tell whether all is well in the cluster, and if not, what is not and why");
  status.app->footer("Exit code 0: all is well; 1: it is not. 'fairlead help exit-codes' has the others.");
  Command& why = add_reader(app, "why", "", ClusterVerb::kWhy, "Tell why a resource is as it is, and what comes next");
  why.app->add_option("RESOURCE", why.arguments.name, "volume/NAME, node/NAME, pool/NAME, …")->required();
  Command& wait = add(app, "wait", "", ClusterVerb::kWait, "Wait until a resource is as it should be");
  wait.app->add_option("RESOURCE", wait.arguments.name, "volume/NAME, node/NAME, pool/NAME, …")->required();
  wait.app->add_option("--for", wait.arguments.wait_for, "online, available, empty, gone, or another state")
      ->capture_default_str();
  wait.app->add_option("--timeout", wait.arguments.timeout, "How long: 30s, 5m. Default: without end");
  Command& top = add_reader(app, "top", "", ClusterVerb::kTop, "Show nodes and volumes, and how resyncs go on");
  top.app->add_flag("-w,--watch", top.arguments.watch, "Goes on, until it is ended; on a terminal it does in any case");
  Command& recover = add(app, "recover", "", ClusterVerb::kRecover,
                         "Make volumes anew from what engines hold, after the store was lost");
  recover.app->footer(
      "Start the control plane with a new store, and all engines; when 'fairlead node list' shows them, run this. It\n"
      "may be run again. Nothing is served that the replicas themselves would not allow.");
  // For completion scripts.
  Command& names = add(app, "names", "", ClusterVerb::kNames, "Names of a kind of resources");
  names.app->add_option("KIND", names.arguments.kind)->required();
  names.app->group("");
}

Outcome<void> ClusterCommands::find_server(Kubectl& kubectl, ClusterArguments& arguments) {
  const bool has_all = !arguments.token_file.empty() && !arguments.ca_file.empty();
  FL_TRY(const KubectlServers found,
         kubectl.connect(has_all ? Kubectl::Credentials::kGiven : Kubectl::Credentials::kOfSecret));
  arguments.servers = found.urls;
  if (has_all) return {};
  arguments.token_file = found.token_file;
  arguments.ca_file = found.ca_file;
  return {};
}

std::optional<int> ClusterCommands::run(Kubectl* kubectl) const {
  for (const auto& command : commands_) {
    if (!command->app->parsed()) continue;
    const std::string name = command_name(command->arguments);
    if (kubectl != nullptr && command->arguments.servers.empty()) {
      if (const Outcome<void> found = find_server(*kubectl, command->arguments); !found) {
        fmt::print(stderr, "kubectl fairlead: {}\n", to_string(found.error()));
        return kExitUnreachable;
      }
    }
    const char* const server = std::getenv("FAIRLEAD_SERVER");
    const auto plan = check(command->arguments, server == nullptr ? "" : server);
    if (plan) return run_cluster_command(*plan, name);
    fmt::print(stderr, "fairlead {0}: {1}\nTry 'fairlead {0} --help'.\n", name, plan.error());
    return kExitUsage;
  }
  return std::nullopt;
}

}  // namespace fairlead::cli
