// Subsystem: a remote NVMe subsystem, over all its paths. The way into src/host.
//
//   Subsystem subsystem(shards, {.nqn = …, .addresses = {…}, .identity = …});
//   if (Result<void> started = co_await subsystem.start(); !started) …
//   Result<std::shared_ptr<BlockSource>> source = subsystem.source(1);   // opened on any of its shards
//   …
//   co_await subsystem.stop();   // after the devices were destroyed
//
// Made, started, asked, stopped and destroyed on the first of its shards, the home shard. Each address is a controller
// with an admin queue there and an I/O queue on each shard; devices work on their own shard alone.
#pragma once

#include <memory>
#include <vector>

#include "block/block_device.h"
#include "host/controller.h"

namespace fairlead::host {

class Subsystem {
 public:
  // Requires: check(options) is fine; all shards live longer.
  Subsystem(std::vector<Shard*> shards, SubsystemOptions options);
  ~Subsystem();  // Requires: stop() returned, or start() was never called.
  Subsystem(const Subsystem&) = delete;
  Subsystem& operator=(const Subsystem&) = delete;

  // Returns as soon as one path is live; the others go on connecting. Once. Error: that of the first path, when the
  // first attempt of each has failed; everything is stopped then.
  Task<Result<void>> start();
  // Disconnects. Requests that are under way fail. Idempotent. Requires: devices are destroyed, or get no more requests
  // and are destroyed before this is.
  Task<void> stop();

  // What the live controllers show, by NSID.
  std::vector<NamespaceInfo> namespaces() const;
  // Error kNotFound. The source must be opened on shards of this subsystem while it lives.
  Result<std::shared_ptr<BlockSource>> source(uint32_t nsid) const;

  // Replication control: sends the request and returns the answer, by the live controller of the lowest path. A few at
  // a time, the others wait in line. Errors: kUnreachable (no controller is live), kConnectionLost (the connection was
  // lost since: perhaps the call was made, perhaps not), kNotSupported (the namespace is no replica), kNotFound, and
  // what else the controller says. One that takes longer than admin_timeout loses the connection.
  // Requires: 1 to nvme::kReplicationSendBytesMax bytes.
  Task<Result<std::vector<std::byte>>> call(uint32_t nsid, std::vector<std::byte> request);
  // The number of a path's live connection, another one for each; 0: there is none now.
  uint64_t connection(size_t path) const;
  // Ends the connection if there is one, and soon all that is under way on it, even if the controller is silent; then
  // it connects again. `reason`: a literal, for people.
  void drop(size_t path, const char* reason);
  // The controllers can be reached, as far as the caller knows: who waits to connect again does so soon, no more often
  // than every reconnect_min.
  void retry();

  std::vector<ControllerStatus> controllers() const;
  // Released whenever controllers(), namespaces() or connection() may be another.
  Event& changed() { return changed_; }

 private:
  Reactor& reactor() const { return shards_.front()->reactor; }
  bool is_live() const;

  const std::vector<Shard*> shards_;
  const SubsystemOptions options_;
  std::vector<std::unique_ptr<ShardPaths>> sides_;  // by shard
  std::vector<std::unique_ptr<Controller>> controllers_;
  Event changed_;
  Scope scope_;
  bool is_stopped_ = false;
};

}  // namespace fairlead::host
