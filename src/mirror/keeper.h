// Keeper: a replica's side of the protocol. It promises, keeps records, opens sessions, gives leases, and answers
// nothing before it is on stable storage. One for each replica that an engine has; lives on the home shard.
//
// Life-cycle: make as soon as the replica's pool is imported, handle() whatever comes, close(), destroy.
#pragma once

#include "async/cancel.h"
#include "async/mutex.h"
#include "io/shard.h"
#include "mirror/replica_store.h"

namespace fairlead::mirror {

struct KeeperOptions {
  Uuid volume;
  ReplicaId replica;
  // The longest lease that is given. After its start a keeper answers no prepare for so long: it has forgotten what it
  // gave before (rule 6, hole H11).
  Duration lease_max = std::chrono::milliseconds(500);
};

class Keeper {
 public:
  // All borrowed for life.
  Keeper(Shard& home, ReplicaStore& store, ReplicaGate& gate, KeeperOptions options);
  ~Keeper();  // Requires: close() returned.
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // What a request gets. Several may be under way; those that change what is kept run one after the other. A prepare
  // takes as long as what it waits for: I/O under way, a lease. A later prepare of a higher term ends that wait with
  // Fenced. Requests for another volume or replica: Failed kNotFound. Where the store fails: Failed, and what was
  // promised in memory stays promised.
  Task<Reply> handle(CallerId caller, Request request);

  // Its session, if it has the current one, ends: nothing more is let through. The caller's connection is gone.
  Task<void> forget(CallerId caller);

  // Refuses everything with Failed kShuttingDown; returns when all handle() have.
  Task<void> close();

 private:
  Shard& home_;
  ReplicaStore& store_;
  ReplicaGate& gate_;
  const KeeperOptions options_;
};

}  // namespace fairlead::mirror
