// HostLoad: a node of hosts of src/host in one run. It keeps a Subsystem of the target and a device of each volume on
// each of its shards, and drives random requests through them; each answer goes to the checker. One thread.
//
// Each host writes to a region of its own of each volume and never twice at once to one block, for this is what a
// RemoteDevice orders nothing of; it reads everywhere.
#pragma once

#include <memory>
#include <vector>

#include "async/scope.h"
#include "cluster.h"
#include "host/remote_device.h"
#include "host/subsystem.h"

namespace fairlead::sim_test {

class HostLoad {
 public:
  HostLoad(Cluster& cluster, size_t index, uint64_t seed);
  ~HostLoad();

  void start_round();
  // Connects, does the round's requests, stays until release(), disconnects. Ends, unfinished, with its node.
  Task<void> run(bool* ended);
  // Every request of the round has ended.
  bool is_done() const;
  // Every path is live, and every device has the size that its volume has.
  bool is_whole() const;
  std::string describe() const;
  const host::RemoteDevice::Statistics& statistics() const { return statistics_; }
  // It may disconnect, and run() ends.
  void release();
  // Stops the subsystem, whatever is under way, and makes another one; or only that, while it is connecting.
  void restart();
  // Reads every block back, mends what cannot be read, and flushes. Without faults.
  Task<void> verify(bool* ended);

 private:
  friend class HostRequest;
  struct Session;
  struct Worker {
    uint32_t left = 0;  // requests of this round
  };

  host::SubsystemOptions options() const;
  Task<void> run_session();
  Task<void> connect_and_serve(Session& session);
  Task<void> end_session(Session& session);
  Task<bool> collect(Session& session);
  Task<void> serve_shard(Session& session, size_t shard);
  Task<void> work(Session& session, size_t shard, Worker& worker);
  Task<void> verify_volume(host::RemoteDevice& device, Volume& volume);
  Task<void> verify_block(host::RemoteDevice& device, Volume& volume, uint64_t lba);
  Duration stop_limit() const;
  void end();

  Cluster& cluster_;
  const size_t index_;
  const HostPlan& plan_;
  TargetSite& site_;
  sim::SimNode& node_;
  sim::Prng random_;
  std::vector<std::vector<Worker>> workers_;  // by shard
  std::vector<std::vector<BlockSpan>> busy_;  // by volume: writes under way
  uint32_t in_flight_ = 0;
  Session* session_ = nullptr;
  bool released_ = false;
  host::RemoteDevice::Statistics statistics_;  // of the devices that are gone
};

}  // namespace fairlead::sim_test
