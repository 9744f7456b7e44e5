// Replica: one replica of a pool, offered to targets: its keeper, and the ways to its data, which the keeper opens and
// closes together: over NVMe/TCP, as namespace 1 of a subsystem of its own, and in this process, by LocalLinks. Lives
// on the home shard.
//
// Life-cycle: open(), links come and go, close(), destroy. The pool, and the target if there is one, live longer.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "async/scope.h"
#include "engine/changes.h"
#include "engine/local_access.h"
#include "engine/pool_replica_store.h"
#include "mirror/keeper.h"
#include "target/target.h"

namespace fairlead::engine {

// The subsystem of a replica, on whatever engine it is.
std::string replica_nqn(const mirror::ReplicaId& id);
inline constexpr uint32_t kReplicaNsid = 1;  // those above are of snapshots that are shown, by their ids

struct ReplicaOptions {
  mirror::ReplicaId id;
  Duration lease_max = std::chrono::milliseconds(500);  // see mirror::KeeperOptions
  Changes* changes = nullptr;                           // told of them; may be null; borrowed for life
};

class LocalLink;

class Replica {
 public:
  // `shards`: those that the pool was imported for. The volume is the one that the pool says it belongs to. Null
  // target: for targets in this process alone. Errors: as PoolReplicaStore::open(), Target::add_subsystem() and
  // add_namespace().
  static Task<Result<std::unique_ptr<Replica>>> open(std::vector<Shard*> shards, pool::Pool& pool,
                                                     target::Target* target, ReplicaOptions options);
  ~Replica();  // Requires: close() returned; no LocalLink is left.
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  // Refuses everything, lets what is under way end, takes the subsystem off the target; connections end. LocalLinks
  // lose theirs; their devices must be destroyed before the pool can be closed.
  Task<void> close();

  const mirror::ReplicaId& id() const { return id_; }
  const Uuid& volume() const { return volume_; }
  Shard& home() const { return *shards_.front(); }
  mirror::Keeper& keeper() { return *keeper_; }
  const PoolReplicaStore& store() const { return *store_; }
  // See mirror::Keeper.
  std::optional<mirror::Term> holder() const { return keeper_->holder(); }
  bool is_open() const { return !is_closing_; }

 private:
  friend class LocalLink;
  class Handler;
  class Gate;
  Replica(std::vector<Shard*> shards, pool::Pool& pool, target::Target* target, std::shared_ptr<BlockSource> source,
          std::unique_ptr<PoolReplicaStore> store, Uuid volume, const ReplicaOptions& options);

  Task<void> tell(Changes& changes);
  Task<Result<void>> attach();
  Task<void> detach();
  Task<void> forget(mirror::CallerId caller);
  Task<Result<void>> show_snapshot(Uuid id);
  Task<void> hide_snapshot(Uuid id);

  // For LocalLink.
  mirror::CallerId connect(LocalLink& link);
  // Returns when nothing is let through for it.
  Task<void> disconnect(mirror::CallerId caller);
  // On the home shard, read-only. Error kUnreachable: it is not shown.
  Result<std::unique_ptr<BlockDevice>> open_snapshot(const Uuid& id);

  const std::vector<Shard*> shards_;
  pool::Pool& pool_;
  target::Target* const target_;
  const mirror::ReplicaId id_;
  const Uuid volume_;
  const std::string nqn_;
  const std::shared_ptr<BlockSource> source_;  // shared with the target, and what local devices keep alive
  const std::unique_ptr<PoolReplicaStore> store_;
  LocalAccess local_;
  std::unique_ptr<Gate> gate_;
  std::unique_ptr<mirror::Keeper> keeper_;
  std::map<mirror::CallerId, LocalLink*> links_;
  struct Shown {
    std::shared_ptr<BlockSource> source;  // shared with the target
    uint32_t nsid = 0;
  };
  std::map<Uuid, Shown> shown_;       // snapshots, by their ids
  mirror::CallerId last_caller_ = 0;  // without a target
  bool is_closing_ = false;
  bool is_closed_ = false;
  Scope scope_;
};

}  // namespace fairlead::engine
