// LocalAccess: the way to a replica's data for targets in this process: devices that are let through, or not, one
// caller at a time, on all shards. Lives on the home shard, but for the devices.
//
// Life-cycle: make, open() and close() in turn, close() last; devices die before it, and before the pool is closed.
#pragma once

#include <memory>
#include <vector>

#include "async/event.h"
#include "async/task.h"
#include "block/block_device.h"
#include "mirror/replica_store.h"

namespace fairlead::engine {

class LocalAccess {
 public:
  // `shards`: the home shard first; borrowed for life.
  LocalAccess(std::vector<Shard*> shards, std::shared_ptr<BlockSource> source);
  ~LocalAccess();  // Requires: nothing is under way.
  LocalAccess(const LocalAccess&) = delete;
  LocalAccess& operator=(const LocalAccess&) = delete;

  // As mirror::ReplicaGate. One at a time.
  Task<void> close();
  Task<void> open(mirror::CallerId caller);

  // On the shard's thread. All I/O of the device is that caller's: it fails with kFenced while that is not let through.
  // Errors: those of the source; kInvalidArgument (another shard).
  Result<std::unique_ptr<BlockDevice>> open_device(Shard& shard, mirror::CallerId caller);

 private:
  class Device;
  // Of one shard, and touched there only.
  struct Side {
    explicit Side(Shard& s) : shard(s), ended(s.reactor) {}
    Shard& shard;
    mirror::CallerId admitted = 0;  // 0: nobody
    uint64_t under_way = 0;
    Event ended;
  };
  Reactor& home() const { return sides_.front()->shard.reactor; }
  static Task<void> admit_on(Side& side, mirror::CallerId caller);
  static Task<void> drain_on(Side& side);
  Task<void> admit(mirror::CallerId caller);

  std::vector<std::unique_ptr<Side>> sides_;
  const std::shared_ptr<BlockSource> source_;  // shared with whoever serves it otherwise
};

}  // namespace fairlead::engine
