// Engine: the data plane of a node. It has a pool, offers the replicas in it to the targets of their volumes, wherever
// those are, and shows volumes to hosts: as their target, or standing by. Lives on the home shard.
//
// Life-cycle: make, start(), listen() for each address, the rest as told, stop(), destroy. One call at a time.
// Listeners come before volumes: these are shown on the listeners that there are.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/remote_link.h"
#include "engine/replica.h"
#include "engine/volume.h"
#include "host/options.h"
#include "mirror/link.h"
#include "pool/pool.h"
#include "target/target.h"

namespace fairlead::engine {

// What an engine numbers its controllers with, both ends included. A host refuses two controllers of one subsystem that
// have one number (NVMe base 2.0 section 3.1), so engines that serve the same volume need ranges apart.
struct ControllerIds {
  uint16_t first = 1;
  uint16_t last = 0xffef;
  friend bool operator==(const ControllerIds&, const ControllerIds&) = default;
};
// One of 255 ranges of 256, the same for a pool each time. Of three pools two have the same one by chance of 1 in 85.
ControllerIds controller_ids_of(const Uuid& pool);

struct EngineOptions {
  target::TargetOptions target;                 // but for controller ids, which are
  std::optional<ControllerIds> controller_ids;  // these; none: controller_ids_of() the pool
  mirror::MirrorOptions mirror;                 // of every volume; its id and size are the volume's own
  size_t copies_max = 8;                        // extents that are copied at once, of all volumes; not 0
};

struct SnapshotPlace {
  mirror::ReplicaId replica;  // of this engine
  Uuid snapshot;
};
struct NewReplica {
  std::string name;
  uint64_t size_bytes = 0;
  Uuid volume;
  mirror::ReplicaId id;
  // Those that the volume begins with, this one among them. Empty: the volume is there, and this one is to join it.
  mirror::MemberSet members;
  // It begins as that is, as do the other members: with the same snapshot of other replicas. It has the size of that,
  // whatever `size_bytes` says, and members.
  std::optional<SnapshotPlace> clone_of = {};
};

struct ReplicaInfo {
  std::string name;
  mirror::ReplicaId id;
  Uuid volume;
  uint64_t size_bytes = 0;
  mirror::ReplicaState state;
  std::optional<Error> trouble;  // why it is not offered
};

struct ReplicaPlace {
  mirror::ReplicaId replica;
  std::optional<SocketAddress> address;  // of the engine that has it; none: this one
};
struct NewVolume {
  Uuid id;
  uint64_t size_bytes = 0;
  std::vector<ReplicaPlace> replicas;
};

class Engine {
 public:
  // `pool` was imported for `shards`. Shards, witness and observer (may be null) are borrowed for life.
  Engine(std::vector<Shard*> shards, std::unique_ptr<pool::Pool> pool, mirror::Witness& witness, EngineOptions options,
         target::TargetObserver* observer = nullptr);
  ~Engine();  // Requires: stop() returned.
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Offers every replica of the pool that belongs to a volume. One that cannot be offered keeps no other from it:
  // replicas() tells why.
  Task<void> start();
  // Errors: as Target::start_listener(); kBusy (volumes are open).
  Task<Result<target::Target::Listening>> listen(target::ListenerOptions listener);

  const pool::Pool& pool() const { return *pool_; }
  // Extents that are being copied, of all volumes.
  size_t copies_under_way() const { return copies_.under_way(); }
  // Those that belong to a volume.
  std::vector<ReplicaInfo> replicas() const;
  // Makes and offers it. Its first record is on stable storage, together with its volume, before anyone can ask for it.
  // Errors: those of Pool::create_replica() and clone(), kInvalidArgument (a nil id, members without it, a clone
  // without members), kNotFound (there is no such snapshot).
  Task<Result<void>> create_replica(NewReplica replica);
  // By its name or id: offers it no more, and deletes it with all that it holds, its volume's snapshots too. Errors:
  // kNotFound, kBusy (a volume that is open here has it), those of Pool::remove().
  Task<Result<void>> delete_replica(std::string name);

  // Shows the volume, inaccessible. Errors: kAlreadyExists; kNotFound (a replica is to be here and is not);
  // kInvalidArgument (no replica, too many, one twice, one of another volume, an address that
  // cannot be one); as Volume::open().
  Task<Result<void>> open_volume(NewVolume volume);
  // Takes it over: returns at once, and the volume's status tells how it goes. One that lost it to another engine, and
  // has not yet ended, ends first. Error of this and the next, and of
  // close_volume(): kNotFound.
  Task<Result<void>> serve_volume(Uuid volume);
  // Gives it up, in order when it can.
  Task<Result<void>> stand_by(Uuid volume);
  // As Volume has them. Error besides: kNotFound.
  Task<Result<void>> take_snapshot(Uuid volume, Uuid id, Duration limit);
  Task<Result<void>> delete_snapshot(Uuid volume, Uuid id, Duration limit);
  Task<Result<void>> grow_volume(Uuid volume, uint64_t size_bytes, Duration limit);
  // For a person: as VolumeTarget::force(). Errors besides: kNotFound, kInvalidArgument (it is not served here).
  Result<void> force(const Uuid& volume, const mirror::ReplicaId& trusted);
  Task<Result<void>> close_volume(Uuid volume);

  // None: it is not open.
  const Volume* find_volume(const Uuid& volume) const;
  std::vector<Uuid> volumes() const;

  // Ends volumes in order, then replicas, connections and pool. The first error is returned; it goes on all the same.
  Task<Result<void>> stop();

 private:
  class Links;
  struct Shown;
  Task<Result<mirror::ReplicaState>> make_replica(const NewReplica& replica);
  Task<Result<void>> remove_with_snapshots(const pool::ObjectState& replica);
  Task<void> offer(mirror::ReplicaId id);
  Task<void> withdraw(mirror::ReplicaId id);
  Result<void> check(const NewVolume& volume) const;
  RemoteLinkOptions link_options(const ReplicaPlace& place) const;
  bool is_in_use(const mirror::ReplicaId& replica) const;
  Shown* find(const Uuid& volume) const;

  const std::vector<Shard*> shards_;
  const EngineOptions options_;
  mirror::Witness& witness_;
  std::unique_ptr<pool::Pool> pool_;
  const host::HostIdentity identity_;  // as which it connects to other engines
  mirror::CopyBudget copies_;
  target::Target target_;
  std::vector<target::PortIndex> ports_;
  std::map<mirror::ReplicaId, std::unique_ptr<Replica>> replicas_;  // that are offered
  std::map<mirror::ReplicaId, Error> troubles_;                     // of those that are not
  std::map<Uuid, std::unique_ptr<Shown>> volumes_;
  bool is_stopped_ = false;
};

}  // namespace fairlead::engine
