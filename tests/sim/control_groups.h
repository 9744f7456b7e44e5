// Groups of snapshots in scenario `control`: a host counts in two volumes, one after the other; in snapshots of one
// moment the second is never ahead of the first, and at most one behind.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

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

// What the replica or snapshot with that id has on this engine, from its beginning; nothing: the engine does not have
// it.
using Content = std::optional<std::vector<std::byte>>;
Task<void> read_object(EngineProcess& engine, Uuid id, uint64_t bytes, Content* content, bool* is_done);

// The number that was written there last.
uint64_t count_in(const std::vector<std::byte>& content, uint64_t at);

}  // namespace fairlead::sim_test
