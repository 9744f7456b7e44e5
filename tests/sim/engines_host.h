// EngineHost: the host of one volume: a node with a Subsystem that has a path to every listener of every engine, and
// workers on each of its shards. It never fails, and stays for the whole run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engines_node.h"
#include "host/remote_device.h"
#include "host/subsystem.h"

namespace fairlead::sim_test {

class EngineHost {
 public:
  EngineHost(Engines& engines, EngineVolume& volume);
  EngineHost(const EngineHost&) = delete;
  EngineHost& operator=(const EngineHost&) = delete;

  // Once: connects, and works until the run is over; stays connected until its node stops.
  void run();
  bool is_connected() const { return is_connected_; }
  sim::SimNode& node() { return node_; }
  EngineVolume& volume() { return volume_; }
  Task<void> read_all(bool* is_done);
  // For people.
  std::string describe() const;

 private:
  std::vector<Shard*> shards();
  Task<void> live();
  Task<bool> connect();
  Task<void> open_device(size_t shard);
  Task<void> close_device(size_t shard);
  Task<void> work(size_t shard, uint64_t seed);

  Engines& engines_;
  EngineVolume& volume_;
  sim::SimNode& node_;
  std::unique_ptr<host::Subsystem> subsystem_;
  std::vector<std::unique_ptr<BlockDevice>> devices_;  // by shard
  size_t users_ = 0;
  bool is_connected_ = false;
};

}  // namespace fairlead::sim_test
