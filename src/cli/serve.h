// `fairlead serve`: exports files, devices, the replicas and snapshots of a pool, memory or nothing at all as NVMe-oF
// namespaces of one subsystem.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/arguments.h"
#include "io/runtime.h"
#include "target/options.h"

namespace fairlead::cli {

// The arguments, as given. check() turns them into what can be run.
struct ServeArguments {
  std::vector<std::string> paths = {};
  std::vector<std::string> listen = {};    // ADDR[:PORT][,advertise=ADDR[:PORT]]
  std::string nqn = {};                    // empty: derived from machine and first path
  std::string size = {};                   // of files that are made or grown
  std::vector<std::string> memory = {};    // sizes of namespaces in memory
  std::vector<std::string> null = {};      // sizes of namespaces that keep nothing
  std::vector<std::string> pool = {};      // its disks
  std::vector<std::string> replicas = {};  // of the pool, by name; empty: all
  bool commands = false;                   // are read from standard input
  bool read_only = false;
  std::vector<std::string> hosts = {};  // host NQNs; empty: every host
  uint16_t shards = 0;                  // 0: one for each processor
  std::string poll = "auto";
};

struct ServePlan {
  std::vector<OpenDisk> disks;
  std::vector<uint64_t> memory_bytes;
  std::vector<uint64_t> null_bytes;
  std::vector<OpenDisk> pool;  // empty: none
  std::vector<std::string> replicas;
  bool takes_commands = false;
  std::vector<target::ListenerOptions> listeners;
  target::SubsystemOptions subsystem;  // with an empty NQN: derived from the pool's id
  RuntimeOptions runtime;
};

std::expected<ServePlan, Complaint> check(const ServeArguments& arguments);

// Serves until SIGINT or SIGTERM, then drains and flushes. Returns the process's exit code.
int serve(const ServePlan& plan);

}  // namespace fairlead::cli
