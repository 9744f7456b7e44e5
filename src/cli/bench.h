// `fairlead bench`: measures what a device or a namespace can do, and whether it keeps what it is given.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "block/limiter.h"
#include "cli/bench_load.h"
#include "host/options.h"
#include "io/disk.h"
#include "io/runtime.h"

namespace fairlead::cli {

// The arguments, as given. check() turns them into what can be run.
struct BenchArguments {
  // PATH, memory:SIZE, null:SIZE, pool:DISK[,DISK…]/REPLICA or nvme+tcp://ADDR[:PORT]/NQN[?ns=N]
  std::string target = {};
  std::vector<std::string> paths = {};  // ADDR[:PORT]: more ways to the same NQN
  std::string limit = {};               // of a local target: iops=…,bandwidth=…,latency=…,jitter=…
  std::string quiesce = {};             // how long a lost path's commands may still be carried out there
  std::string host = {};                // NQN that this host gives itself; empty: derived from the machine
  std::string rw = "randread";
  std::optional<uint32_t> mix = std::nullopt;  // percent of reads
  std::string bs = "4k";
  uint32_t qd = 32;
  uint32_t queues = 1;
  uint32_t shards = 0;  // 0: as many as there are queues, at most one a processor
  std::string runtime = "10s";
  std::string rate = {};
  std::string offset = {};
  std::string size = {};
  bool verify = false;
  bool overwrite = false;
  bool hdgst = false;
  bool ddgst = false;
  int target_pid = 0;
  std::string poll = "auto";
  std::string cpus = {};
  bool json = false;
};

struct MemoryTarget {
  uint64_t size_bytes = 0;
};
struct NullTarget {
  uint64_t size_bytes = 0;
};
struct PoolTarget {
  std::vector<OpenDisk> disks;
  std::string object;  // a replica, or a snapshot to be read
};
struct FabricTarget {
  host::SubsystemOptions subsystem;
  uint32_t nsid = 1;
};
using BenchTarget = std::variant<OpenDisk, MemoryTarget, NullTarget, PoolTarget, FabricTarget>;

struct BenchPlan {
  std::string name;  // of the target, as it was given
  BenchTarget target;
  std::optional<LimiterOptions> limits;  // of a local one
  uint32_t logical_block = 4096;         // of a target in memory
  BenchLoad load;
  int target_pid = 0;
  bool json = false;
  RuntimeOptions runtime;
};

std::expected<BenchPlan, Complaint> check(const BenchArguments& arguments);

// Measures and reports; SIGINT and SIGTERM end it early, with the report of what was done. Returns the process's exit
// code: 1 when anything failed, requests and verification among it.
int bench(const BenchPlan& plan);

}  // namespace fairlead::cli
