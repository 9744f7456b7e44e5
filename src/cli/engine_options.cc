#include "cli/engine_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "cli/engine.h"

namespace fairlead::cli {
namespace {

void define_data(CLI::App& engine, EngineArguments& arguments) {
  engine
      .add_option(
          "--pool", arguments.pool,
          "DISK[,DISK…]: imports the pool on these disks, all of them; see fairlead offline pool --help. Those that "
          "the "
          "control "
          "plane has made are found in the state directory. For measuring memory:SIZE, a pool that is gone with the "
          "process, or resident-memory:SIZE, which takes all of it at once and keeps it")
      ->delimiter(',');
  engine.add_option(
      "--listen", arguments.listen,
      "ADDR[:PORT][,advertise=ADDR[:PORT]]: where hosts and other engines connect, IPv4 or [IPv6]; may be "
      "given several times. Port 0 lets the system choose. Default: 127.0.0.1:4420, this machine only");
  engine.add_flag("--commands", arguments.commands,
                  "Reads commands from standard input, one a line: help lists them. Each is answered by a line that "
                  "begins with ok or error");
  engine.add_option("--controller-ids", arguments.controller_ids,
                    "FIRST-LAST: numbers for the controllers of hosts. Engines that show the same volume need ranges "
                    "apart. Default: one of 255, by the node's id, or the pool's");
  engine.add_option("--limit", arguments.limit,
                    "For measuring: plays slower disks, iops=400k,bandwidth=2GiB,latency=80us,jitter=10us");
  engine.add_flag("--faulty", arguments.faulty,
                  "For tests: the command disk faults makes the pool's disks fail or dawdle by rules, such as "
                  "write:error=io,every=3 or read:delay=5ms,probability=1%");
  engine.add_option("--shards", arguments.shards, "Threads that serve I/O. Default: one for each processor")
      ->check(CLI::PositiveNumber);
  engine
      .add_option(
          "--poll", arguments.poll,
          "auto: look for work for 50 us after the last, then sleep, and at once while others want the processor; "
          "always: never sleep; never: sleep at once")
      ->capture_default_str();
}

void define_replication(CLI::App& engine, EngineArguments& arguments) {
  engine
      .add_option(
          "--lease", arguments.lease,
          "How long a volume's target may read after its replicas were heard last. A take-over waits so long at "
          "most. The same on all engines")
      ->capture_default_str();
  engine
      .add_option("--checkpoint-interval", arguments.checkpoint_interval,
                  "What was written since the last checkpoint is compared by a take-over")
      ->capture_default_str();
  engine
      .add_option("--stall-limit", arguments.stall_limit,
                  "A replica that does not end a request for so long is left out until it comes back")
      ->capture_default_str();
  engine
      .add_option("--resync-share", arguments.resync_share,
                  "Of the time that hosts keep a volume busy, percent that copies to replicas that came back may take")
      ->capture_default_str();
  engine
      .add_option("--copies", arguments.copies,
                  "Extents of 1 MiB that are copied at once, of all volumes, to replicas that came back; what a "
                  "take-over has to copy goes before")
      ->capture_default_str();
}

void define_cluster(CLI::App& engine, EngineArguments& arguments) {
  engine.add_option("--node", arguments.node, "Name of this node in the cluster. Default: the name of the host");
  engine.add_option("--state-dir", arguments.state_dir,
                    "Directory that keeps who the node is and which pools it has; made when it is not there");
  engine
      .add_option("--control", arguments.control,
                  "ADDR:PORT[,ADDR:PORT…]: the processes of the control plane, which are told what there is here and "
                  "are asked for votes; may be given several times")
      ->delimiter(',');
  engine.add_option("--management", arguments.management,
                    "ADDR:PORT: where the control plane calls. Port 0 lets the system choose");
  engine.add_option("--advertise", arguments.advertise,
                    "ADDR[:PORT]: where hosts and other engines reach this one. Default: what is listened on first");
  engine.add_option("--label", arguments.labels,
                    "KEY=VALUE of the node, for placement: rack=7; may be given several times");
  engine.add_option("--tls-ca", arguments.tls_ca, "File of the certificates that are trusted, PEM");
  engine.add_option("--tls-certificate", arguments.tls_certificate, "File of this engine's certificate, PEM");
  engine.add_option("--tls-key", arguments.tls_key, "File of its key, PEM");
  engine.add_flag("--insecure", arguments.insecure,
                  "Takes orders beyond this machine without TLS, from whoever gives them");
  engine
      .add_option("--stop-limit", arguments.stop_limit,
                  "How long the end may take: what is not in order then is dropped, as by a crash")
      ->capture_default_str();
}

}  // namespace

void take_one_value_at_a_time(CLI::App& command) {
  for (CLI::Option* const option : command.get_options()) {
    if (!option->get_lnames().empty() && option->get_items_expected_max() > 1) option->allow_extra_args(false);
  }
}

void take_environment(CLI::App& command, const std::string& prefix) {
  for (CLI::Option* const option : command.get_options()) {
    if (option->get_lnames().empty() || option->get_lnames().front() == "help") continue;
    std::string name = prefix + option->get_lnames().front();
    std::ranges::transform(name, name.begin(), [](char c) {
      return c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    });
    option->envname(name);
  }
}

void define_engine(CLI::App& engine, EngineArguments& arguments) {
  define_data(engine, arguments);
  define_replication(engine, arguments);
  define_cluster(engine, arguments);
  engine.footer(
      "Offers every replica of its pools that belongs to a volume, to the volume's target, wherever that is; shows\n"
      "volumes to hosts, all engines under the same name: the one that serves a volume as its target, others standing\n"
      "by. Who serves is told by the control plane, or by commands: the engine decides nothing about that by itself.\n"
      "Without a control plane a volume of two replicas is served while both are there: nobody has the third vote.\n"
      "SIGINT and SIGTERM give volumes up in order. With systemd: Type=notify.\n"
      "Options come from the command line, from section [engine] of the file that --config names, and from the\n"
      "environment, in this order: --state-dir is state-dir = \"…\" there and FAIRLEAD_STATE_DIR here.\n"
      "Examples: fairlead engine --pool disk.img --listen 192.0.2.10 --commands\n"
      "          fairlead engine --node a --state-dir /var/lib/fairlead --control 127.0.0.1:7401 --management "
      "127.0.0.1:7440");
  take_one_value_at_a_time(engine);
  engine.fallthrough();  // for --config
  take_environment(engine, "FAIRLEAD_");
}

}  // namespace fairlead::cli
