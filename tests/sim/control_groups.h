// Groups of snapshots in scenario `control`: a host counts in two volumes, one after the other; in snapshots of one
// moment the second is never ahead of the first, and at most one behind.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "control_cluster.h"

namespace fairlead::sim_test {

// Writes each number to the last block of the first volume's host area, then of the second's.
class ControlCounter {
 public:
  ControlCounter(ControlCluster& cluster, std::array<Uuid, 2> volumes, uint64_t at);
  void run() { cluster_.world->spawn(node_, 0, live()); }
  uint64_t count() const { return count_; }
  sim::SimNode& node() { return node_; }

 private:
  Task<void> live();
  Task<void> work();

  ControlCluster& cluster_;
  sim::SimNode& node_;
  const std::array<Uuid, 2> volumes_;
  const uint64_t at_;  // bytes
  std::array<std::unique_ptr<BlockDevice>, 2> devices_;
  uint64_t count_ = 0;
};

// The number that the snapshot has on this engine; nothing: the engine does not have the snapshot.
Task<void> read_count(EngineProcess& engine, Uuid snapshot, uint64_t at, std::optional<uint64_t>* count, bool* is_done);

}  // namespace fairlead::sim_test
