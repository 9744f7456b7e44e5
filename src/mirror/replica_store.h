// The seams of a replica: what its keeper needs of the pool that has it, and of those who let I/O through to it. The
// engine implements both; tests do with memory. Home shard.
#pragma once

#include <optional>

#include "async/task.h"
#include "mirror/control.h"

namespace fairlead::mirror {

// Errors of all tasks: what the medium says.
class ReplicaStore {
 public:
  virtual ~ReplicaStore() = default;

  // As of the last save(), or as it was found; a replica that was never asked anything has ReplicaState{}.
  virtual ReplicaState state() const = 0;
  // On stable storage, as a whole, when it returns without an error; after an error it is the old or the new.
  virtual Task<Result<void>> save(ReplicaState state) = 0;

  virtual uint64_t size_bytes() const = 0;
  // Of this run of the kernel; another one means that what was not flushed may be lost.
  virtual Uuid boot_id() const = 0;

  // What writes are stamped with now; none: none was begun.
  virtual std::optional<Stamp> generation() const = 0;
  // On stable storage before the first write that has it. Requires: above generation().
  virtual Task<Result<void>> begin_generation(Stamp stamp) = 0;
  // Whether any extent has a stamp above that.
  virtual Task<Result<bool>> has_changed_since(Stamp stamp) = 0;
  // As it says. Error kNotFound: no such snapshot.
  virtual Task<Result<Ranges>> changed(ChangedRequest request) = 0;
  // The extents of kExtentBytes, where something is mapped or was unmapped, have the stamp of now, on stable storage.
  virtual Task<Result<void>> stamp(std::vector<uint64_t> extents) = 0;

  // By cut, ascending.
  virtual std::vector<Snapshot> snapshots() const = 0;
  // As SnapshotRequest says; its size is that of the replica at most. Requires: no I/O is under way.
  virtual Task<Result<void>> take_snapshot(Snapshot snapshot) = 0;
  // Error kBusy: a device of it is open. Requires: there is one.
  virtual Task<Result<void>> delete_snapshot(Uuid id) = 0;
  // Requires: larger than it is.
  virtual Task<Result<void>> grow(uint64_t size_bytes) = 0;
};

// A connection, or a local target: what a session belongs to. Never used twice in the life of a process; 0 is nobody.
using CallerId = uint64_t;

// Lets I/O of one caller through to a replica, and nobody else's (rule 0). What it refuses fails with kFenced.
class ReplicaGate {
 public:
  virtual ~ReplicaGate() = default;
  // Refuses everyone from now on; returns when what it let through before has ended, on all shards.
  virtual Task<void> close() = 0;
  // Requires: closed.
  virtual Task<void> open(CallerId caller) = 0;

  // Snapshots never change: one that is shown is read by whoever has a connection. Both do nothing when it is so
  // already. hide() returns when nobody reads it any more, but for those in this process, who keep their devices.
  virtual Task<Result<void>> show(Uuid snapshot) = 0;
  virtual Task<void> hide(Uuid snapshot) = 0;
  // The replica has grown: those who use it hear of it.
  virtual Task<void> tell_size() = 0;
};

}  // namespace fairlead::mirror
