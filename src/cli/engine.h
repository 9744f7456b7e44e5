// `fairlead engine`: the data plane of a node. Offers the replicas of its pools to the targets of their volumes, and
// shows volumes to hosts, as the control plane says, or lines on standard input.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "block/limiter.h"
#include "block/memory.h"
#include "cli/arguments.h"
#include "engine/engine.h"
#include "io/disk.h"
#include "io/runtime.h"
#include "rpc/tls_files.h"
#include "target/options.h"

namespace fairlead::cli {

// The arguments, as given. check() turns them into what can be run.
struct EngineArguments {
  std::vector<std::string> pool = {};    // its disks
  std::vector<std::string> listen = {};  // ADDR[:PORT][,advertise=ADDR[:PORT]]
  bool commands = false;                 // are read from standard input
  std::string lease = "400ms";
  std::string checkpoint_interval = "10s";
  std::string stall_limit = "5s";
  uint32_t resync_share = mirror::MirrorOptions{}.resync_share_percent;
  uint32_t copies = static_cast<uint32_t>(engine::EngineOptions{}.copies_max);
  std::string controller_ids = {};  // FIRST-LAST
  std::string limit = {};           // iops=…,bandwidth=…,latency=…,jitter=…
  bool faulty = false;              // the pool's disks fail when a command says so
  uint16_t shards = 0;              // 0: one for each processor
  std::string poll = "auto";
  std::string node = {};
  std::string state_dir = {};
  std::vector<std::string> control = {};
  std::string management = {};
  std::string advertise = {};
  std::vector<std::string> labels = {};  // KEY=VALUE
  std::string tls_ca = {};
  std::string tls_certificate = {};
  std::string tls_key = {};
  bool insecure = false;
  std::string stop_limit = "20s";
};

// What makes an engine a member of a cluster.
struct ClusterPlan {
  std::string node;
  std::string state_directory;              // empty: it keeps nothing, and is no member
  std::vector<std::string> control;         // addresses; none: it hears of nobody
  std::optional<SocketAddress> management;  // none: nobody calls it
  std::optional<SocketAddress> advertise;   // port 0: that of the listener
  std::map<std::string, std::string> labels;
  std::optional<rpc::TlsFiles> tls;
};

struct EnginePlan {
  std::vector<OpenDisk> pool;
  std::optional<MemoryOptions> memory;   // instead of disks
  std::optional<LimiterOptions> limits;  // of each disk
  bool has_faulty_disks = false;
  std::vector<target::ListenerOptions> listeners;
  bool takes_commands = false;
  engine::EngineOptions engine;
  RuntimeOptions runtime;
  ClusterPlan cluster;
  Duration stop_limit{};
};

std::expected<EnginePlan, Complaint> check(const EngineArguments& arguments);

// Runs until SIGINT or SIGTERM, or the command quit; then gives its volumes up in order. Returns the process's exit
// code.
int run_engine(const EnginePlan& plan);

}  // namespace fairlead::cli
