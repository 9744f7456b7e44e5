// The nodes of scenario `control`: control processes that share a store, engines with pools that they are told to make,
// and hosts of volumes. Everything lives on the one thread of the world.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/control.h"
#include "engine/engine.h"
#include "engine/state_directory.h"
#include "host/subsystem.h"
#include "io/small_files.h"
#include "sim/world.h"
#include "tests/support/block_history.h"
#include "tests/support/memory_store.h"
#include "tests/support/sim_rpc.h"

namespace fairlead::sim_test {

// What nodes share. Owned by the run.
struct ControlCluster {
  sim::SimWorld* world = nullptr;
  test::SimRpc rpc;
  std::unique_ptr<test::MemoryStoreState> store;
  std::vector<std::string> control_addresses;
  std::vector<std::string> engine_addresses;  // "ADDR:PORT", NVMe/TCP
  control::ControlSettings settings;
  engine::EngineOptions engine;
  bool is_over = false;  // hosts begin nothing
  std::string failure = {};
  uint64_t acknowledged = 0;
  uint64_t reads = 0;

  void fail(std::string text) {
    if (failure.empty()) failure = std::move(text);
  }
};

// A control process, life after life.
class ControlProcess {
 public:
  ControlProcess(ControlCluster& cluster, size_t index);
  void run();
  sim::SimNode& node() { return node_; }
  // Null: it does not lead.
  control::Control* leading() const { return control_ != nullptr && control_->is_leading() ? control_ : nullptr; }

 private:
  Task<void> live();

  ControlCluster& cluster_;
  sim::SimNode& node_;
  const std::string address_;
  control::Control* control_ = nullptr;  // of this life
};

// An engine, life after life.
class EngineProcess {
 public:
  EngineProcess(ControlCluster& cluster, size_t index);
  void run();
  sim::SimNode& node() { return node_; }
  const std::string& name() const { return name_; }
  // Ids of the replicas that it holds; empty while it is down.
  std::vector<Uuid> replicas() const;
  bool is_ready() const { return engine_ != nullptr; }
  // Of its one pool; 0: it is down, or has none. How far that has come, and how far it had when that was last noted.
  uint64_t progress() const;
  uint64_t noted() const;
  // Its one; null: it is down, or has none.
  pool::Pool* pool() const;

 private:
  Task<void> live();

  ControlCluster& cluster_;
  sim::SimNode& node_;
  const std::string name_;
  const std::string management_address_;
  MemoryFiles files_;
  engine::Engine* engine_ = nullptr;                   // of this life
  const engine::StateDirectory* directory_ = nullptr;  // likewise
};

// A way of the node's first shard to the volume, once there is one; null: the node stops.
Task<std::unique_ptr<host::Subsystem>> connect_host(ControlCluster& cluster, sim::SimNode& node, Uuid volume);

// A host of one volume: writes and reads, each answer checked. It never fails, and waits for a path for ever.
class ControlHost {
 public:
  static constexpr uint32_t kBlock = 4096;
  ControlHost(ControlCluster& cluster, size_t index, Uuid volume, uint64_t size_bytes, uint64_t seed);
  void run();
  Task<void> read_all(bool* is_done);
  bool is_connected() const { return device_ != nullptr; }
  bool is_idle() const { return working_ == 0; }
  sim::SimNode& node() { return node_; }

 private:
  Task<void> live();
  Task<void> work(uint64_t seed);
  Task<void> write(test::BlockRange range, bool is_forced);
  Task<Result<void>> read(test::BlockRange range);
  Task<void> flush();

  ControlCluster& cluster_;
  sim::SimNode& node_;
  const Uuid volume_;
  const uint64_t seed_;
  test::HistoryClock clock_;
  test::BlockHistory history_;
  uint64_t last_write_ = 0;
  std::vector<test::BlockRange> writing_;
  std::unique_ptr<host::Subsystem> subsystem_;
  std::unique_ptr<BlockDevice> device_;
  size_t working_ = 0;
};

}  // namespace fairlead::sim_test
