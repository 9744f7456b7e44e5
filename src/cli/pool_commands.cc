#include "cli/pool_commands.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace fairlead::cli {
namespace {

constexpr int kExitUsage = 2;

// The last word of "pool create".
std::string last_word(std::string_view command) { return std::string(command.substr(command.rfind(' ') + 1)); }

void add_labels(CLI::App& command, ObjectArguments& arguments, const char* description) {
  command.add_option("--label", arguments.labels, description)->allow_extra_args(false);
  command.add_option("--volume-id", arguments.volume_id, "UUID of the volume that it is a replica of");
}

template <typename Commands>
std::optional<int> run_the_parsed(const Commands& commands) {
  for (const auto& command : commands) {
    if (!command->app->parsed()) continue;
    const auto plan = check(command->arguments);
    if (plan) return run(*plan);
    const std::string_view name = command_name(command->arguments.action);
    fmt::print(stderr, "fairlead {0}: {1}\nTry 'fairlead {0} --help'.\n", name, plan.error());
    return kExitUsage;
  }
  return std::nullopt;
}

}  // namespace

PoolCommands::PoolCommands(CLI::App& app) {
  CLI::App& offline =
      *app.add_subcommand("offline", "Work on the disks of a pool that no engine has, without a cluster");
  offline.require_subcommand(1);
  CLI::App& pool = *offline.add_subcommand("pool", "Make, look at, check and grow a pool of disks");
  pool.require_subcommand(1);
  add_pool_commands(pool);
  CLI::App& replica = *offline.add_subcommand("replica", "Make and change the replicas of a pool that is not served");
  replica.require_subcommand(1);
  add_replica_commands(replica);
  CLI::App& snapshot = *offline.add_subcommand("snapshot", "Make and delete snapshots in a pool that is not served");
  snapshot.require_subcommand(1);
  add_snapshot_commands(snapshot);
}

PoolCommands::~PoolCommands() = default;

PoolCommands::Command<PoolArguments>& PoolCommands::add(CLI::App& parent, PoolAction action, const char* description) {
  pool_.push_back(std::make_unique<Command<PoolArguments>>());
  Command<PoolArguments>& command = *pool_.back();
  command.arguments.action = action;
  command.app = parent.add_subcommand(last_word(command_name(action)), description);
  if (action == PoolAction::kCreate) command.app->add_option("NAME", command.arguments.name, "Its name")->required();
  command.app->add_option("DISK", command.arguments.disks, "The pool's disks: files, partitions or block devices")
      ->required();
  return command;
}

PoolCommands::Command<ObjectArguments>& PoolCommands::add(CLI::App& parent, ObjectAction action,
                                                          const char* description) {
  objects_.push_back(std::make_unique<Command<ObjectArguments>>());
  Command<ObjectArguments>& command = *objects_.back();
  command.arguments.action = action;
  command.app = parent.add_subcommand(last_word(command_name(action)), description);
  command.app->add_option("--pool", command.arguments.pool, "DISK[,DISK…]: the pool's disks, all of them")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->required();
  return command;
}

void PoolCommands::add_pool_commands(CLI::App& pool) {
  auto& create = add(pool, PoolAction::kCreate, "Make a pool of blank disks");
  create.app->add_option("--size", create.arguments.size, "Makes files that are not there, sparse: 10GiB");
  create.app->add_option("--extent", create.arguments.extent,
                         "Unit of allocation, 64KiB to 16MiB. Default: 1MiB, which suits all but tiny pools");
  create.app->add_option("--unit", create.arguments.unit,
                         "Unit of copy-on-write, a 256th of an extent to all of it. Default: 4KiB, or the 256th");
  create.app->add_flag("--force", create.arguments.force, "Overwrites disks that hold something. What it is is lost");
  create.app->footer("Example: fairlead offline pool create fast disk.img --size 10GiB");

  auto& destroy = add(pool, PoolAction::kDestroy, "Make a pool's disks blank again");
  destroy.app->add_flag("--force", destroy.arguments.force, "Even when the pool holds replicas. They are lost");

  auto& list = add(pool, PoolAction::kList, "Tell which pools the disks are of");
  list.app->add_flag("--json", list.arguments.json, "Prints one JSON object");

  auto& show = add(pool, PoolAction::kShow, "Tell how full a pool is and what it holds");
  show.app->add_flag("--json", show.arguments.json, "Prints one JSON object");
  show.app->footer("USED is what a replica's or snapshot's own map holds; UNIQUE what only it needs.");

  auto& inspect = add(pool, PoolAction::kInspect, "Print what the disks hold of a pool, without writing to them");
  inspect.app->add_flag("--json", inspect.arguments.json, "Prints one JSON object");

  auto& check = add(pool, PoolAction::kCheck, "Verify every structure of a pool, without writing to it");
  check.app->add_flag("--json", check.arguments.json, "Prints one JSON object");
  check.app->footer(
      "damage: data is lost, or the pool cannot be used as it is. repair: one of two copies is bad, the next use\n"
      "writes it anew. oddity: nothing is lost, and it should not be so.\n"
      "Exit code 0: clean; 1: there are findings; 2: it could not be checked.");

  auto& grow = add(pool, PoolAction::kGrow, "Use room that the disks have gained, and add disks");
  grow.app->add_option("--add", grow.arguments.add, "Another disk; may be given several times")
      ->allow_extra_args(false);
  grow.app->add_option("--size", grow.arguments.size, "Of files that --add makes");
  grow.app->add_flag("--force", grow.arguments.force, "Adds disks that hold something. What it is is lost");

  auto& accept = add(pool, PoolAction::kAccept, "Let an engine take a pool whose disks were rolled back");
  accept.app
      ->add_option("--state-dir", accept.arguments.state_directory, "The state directory of the engine, which is ended")
      ->check(CLI::ExistingDirectory)
      ->required();
  accept.app->footer(
      "An engine refuses disks that hold an older state of a pool than it has seen: their replicas would count as\n"
      "complete, and lack what was acknowledged since. Accept that only where no other replica has the data;\n"
      "else delete the pool, and have its replicas made anew on blank disks.");
}

void PoolCommands::add_replica_commands(CLI::App& replica) {
  auto& create = add(replica, ObjectAction::kCreateReplica, "Make a replica, empty or from a snapshot");
  create.app->add_option("NAME", create.arguments.name, "Its name")->required();
  create.app->add_option("--size", create.arguments.size,
                         "10GiB; more than the pool has is fine. Default with --from: the snapshot's");
  create.app->add_flag("--thick", create.arguments.thick, "Takes its room now, so that no write ever finds none");
  create.app->add_option("--from", create.arguments.origin, "Snapshot whose content it starts with, at no cost");
  add_labels(*create.app, create.arguments, "KEY=VALUE; may be given several times");
  create.app->footer("Example: fairlead offline replica create db --size 10GiB --pool disk.img");

  auto& resize = add(replica, ObjectAction::kResizeReplica, "Make a replica larger, or smaller");
  resize.app->add_option("NAME", resize.arguments.name, "The replica")->required();
  resize.app->add_option("SIZE", resize.arguments.size, "20GiB")->required();
  resize.app->add_flag("--lose-data", resize.arguments.lose_data, "Allows a smaller size. What lies behind it is lost");

  auto& remove = add(replica, ObjectAction::kDeleteReplica, "Delete a replica. Its snapshots and clones stay");
  remove.app->add_option("NAME", remove.arguments.name, "The replica")->required();

  auto& set = add(replica, ObjectAction::kSetReplica, "Change labels and volume of a replica or snapshot");
  set.app->add_option("NAME", set.arguments.name, "The replica or snapshot")->required();
  add_labels(*set.app, set.arguments, "KEY=VALUE, or KEY= to remove it; may be given several times");

  auto& list = add(replica, ObjectAction::kListReplicas, "List the replicas");
  list.app->add_flag("--json", list.arguments.json, "Prints a JSON array");

  auto& sum =
      add(replica, ObjectAction::kChecksumReplica, "Read a replica or snapshot and print the CRC32C of its bytes");
  sum.app->add_option("NAME", sum.arguments.name, "The replica or snapshot")->required();
}

void PoolCommands::add_snapshot_commands(CLI::App& snapshot) {
  auto& create = add(snapshot, ObjectAction::kCreateSnapshot, "Make a snapshot of a replica");
  create.app->add_option("REPLICA", create.arguments.origin, "The replica")->required();
  create.app->add_option("NAME", create.arguments.name, "Name of the snapshot")->required();
  create.app->footer("Example: fairlead offline snapshot create db db.monday --pool disk.img");

  auto& remove = add(snapshot, ObjectAction::kDeleteSnapshot, "Delete a snapshot. Replica and clones stay");
  remove.app->add_option("NAME", remove.arguments.name, "The snapshot")->required();

  auto& list = add(snapshot, ObjectAction::kListSnapshots, "List the snapshots");
  list.app->add_flag("--json", list.arguments.json, "Prints a JSON array");
}

std::optional<int> PoolCommands::run() const {
  if (const std::optional<int> code = run_the_parsed(pool_)) return code;
  return run_the_parsed(objects_);
}

}  // namespace fairlead::cli
