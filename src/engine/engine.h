// Engine: the data plane of a node. It has pools, offers the replicas in them to the targets of their volumes, wherever
// those are, and shows volumes to hosts: as their target, or standing by. Lives on the home shard.
//
// Life-cycle: make, add_pool() and listen() in any order, the rest as told, stop(), destroy. Listeners come before
// volumes: these are shown on the listeners that there are. One call at a time for each volume, each replica and each
// pool; stop() when none is under way.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/annotations.h"
#include "engine/changes.h"
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
// One of 255 ranges of 256, the same for a node each time. Of three nodes two have the same one by chance of 1 in 85.
ControllerIds controller_ids_of(const Uuid& node);

struct EngineOptions {
  target::TargetOptions target;                 // but for controller ids, which are
  std::optional<ControllerIds> controller_ids;  // these; none: controller_ids_of() the node
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
  std::string pool = {};  // its name; empty: the only one
  bool is_thick = false;
  Annotations annotations = {};
};

struct ReplicaInfo {
  std::string name;
  mirror::ReplicaId id;
  Uuid volume;
  uint64_t size_bytes = 0;
  mirror::ReplicaState state;
  std::optional<Error> trouble;  // why it is not offered
  std::string pool;
  uint64_t allocated_bytes = 0;  // of it and its volume's snapshots
  std::vector<mirror::Snapshot> snapshots;
  std::optional<mirror::Term> holder;  // of the target that has it; none: none has
  Annotations annotations;
};

struct ReplicaPlace {
  mirror::ReplicaId replica;
  std::optional<SocketAddress> address;  // of the engine that has it; none: this one
  friend bool operator==(const ReplicaPlace&, const ReplicaPlace&) = default;
};
struct NewVolume {
  Uuid id;
  uint64_t size_bytes = 0;
  std::vector<ReplicaPlace> replicas;
  std::vector<std::string> allowed_hosts = {};  // NQNs; none: every host
  uint32_t resync_share = 0;                    // see VolumeOptions
};

class Engine {
 public:
  // `node` tells it from other engines, the same each time. Shards, witness and observer (may be null) are borrowed for
  // life.
  Engine(std::vector<Shard*> shards, const Uuid& node, mirror::Witness& witness, EngineOptions options,
         target::TargetObserver* observer = nullptr);
  ~Engine();  // Requires: stop() returned.
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Errors: as Target::start_listener(); kBusy (volumes are open).
  Task<Result<target::Target::Listening>> listen(target::ListenerOptions listener);

  // Offers every replica of the pool that belongs to a volume. One that cannot be offered keeps no other from it:
  // replicas() tells why. Error kAlreadyExists (one of this name or id is here): the pool was closed again. Requires:
  // it was imported for the engine's shards.
  Task<Result<void>> add_pool(std::unique_ptr<pool::Pool> pool);
  // Offers its replicas no more, and closes it. Errors: kNotFound; kBusy (a volume that is open here has a replica in
  // it), and nothing was done; as Pool::close(), and it is let go all the same.
  Task<Result<void>> remove_pool(std::string name);
  // By name.
  std::vector<const pool::Pool*> pools() const;
  // Null: there is none of this name.
  pool::Pool* find_pool(std::string_view name) const;
  // Extents that are being copied, of all volumes.
  size_t copies_under_way() const { return copies_.under_way(); }
  // Of pools, replicas and volumes: told when something that people or the control plane decide by is another. Figures
  // that move all the time (bytes) are not among that.
  Changes& changes() { return changes_; }

  // Those that belong to a volume.
  std::vector<ReplicaInfo> replicas() const;
  // Makes and offers it. Its first record is on stable storage, together with its volume, before anyone can ask for it.
  // Errors: those of Pool::create_replica() and clone(), kInvalidArgument (a nil id, members without it, a clone
  // without members or in another pool, annotations that check() refuses, no pool named where there are several),
  // kNotFound (there is no such pool or snapshot).
  Task<Result<void>> create_replica(NewReplica replica);
  // By its name or id, as all that follow. Errors of all: kNotFound, those of Pool::change().
  Task<Result<void>> set_annotations(std::string replica, Annotations annotations);
  // Offers it no more, and deletes it with all that it holds, its volume's snapshots too. Errors besides: kBusy (a
  // volume that is open here has it), those of Pool::remove().
  Task<Result<void>> delete_replica(std::string name);

  // Shows the volume, inaccessible. One that is open already takes these places and hosts instead of those that it has,
  // and this size when it is larger; see Volume::renew(). When it returns nothing here uses replicas that it had, and
  // has no more. Errors: kNotFound (a replica is to be here and is not); kInvalidArgument (no replica, too many, one
  // twice, one of another volume, an address that cannot be one); as Volume::open() and grow().
  Task<Result<void>> open_volume(NewVolume volume);
  // Takes it over: returns at once, and the volume's status tells how it goes. One that lost it to another engine, and
  // has not yet ended, ends first. Error of this and the next, and of
  // close_volume(): kNotFound.
  Task<Result<void>> serve_volume(Uuid volume);
  // Gives it up, in order when it can.
  Task<Result<void>> stand_by(Uuid volume);
  // As Volume has them. Error besides: kNotFound.
  Result<void> renew_term(const Uuid& volume);
  Task<Result<void>> take_snapshot(Uuid volume, Uuid id, Duration limit);
  Task<Result<void>> hold_for_snapshot(Uuid volume, Uuid id, Duration limit, Duration hold);
  Task<Result<void>> take_held_snapshot(Uuid volume, Uuid id, Duration limit);
  Task<Result<void>> delete_snapshot(Uuid volume, Uuid id, Duration limit);
  Task<Result<void>> grow_volume(Uuid volume, uint64_t size_bytes, Duration limit);
  // For a person: as VolumeTarget::force(). Errors besides: kNotFound, kInvalidArgument (it is not served here).
  Result<void> force(const Uuid& volume, const mirror::ReplicaId& trusted);
  Task<Result<void>> close_volume(Uuid volume);

  // None: it is not open.
  const Volume* find_volume(const Uuid& volume) const;
  std::vector<Uuid> volumes() const;
  // Of an open volume. Requires: it is.
  const std::vector<ReplicaPlace>& places_of(const Uuid& volume) const;
  // Of hosts, by subsystem.
  std::map<std::string, size_t> controllers() const { return target_.controllers_by_subsystem(); }

  // Ends volumes in order, then replicas, connections and pools. The first error is returned; it goes on all the same.
  Task<Result<void>> stop();

 private:
  class Links;
  struct Shown;
  struct Offered {
    std::unique_ptr<Replica> replica;
    pool::Pool* pool = nullptr;
  };
  struct Found {
    pool::Pool* pool = nullptr;
    pool::ObjectInfo object;
  };
  Result<pool::Pool*> choose_pool(const NewReplica& replica) const;
  Result<Found> find_replica(std::string_view name) const;
  static Result<void> check(const NewReplica& replica);
  Task<Result<mirror::ReplicaState>> make_replica(pool::Pool& pool, const NewReplica& replica);
  static Task<Result<void>> remove_with_snapshots(pool::Pool& pool, const pool::ObjectState& replica);
  ReplicaInfo describe(const pool::Pool& pool, const pool::ObjectInfo& object) const;
  Task<void> offer(pool::Pool& pool, mirror::ReplicaId id);
  Task<void> withdraw(mirror::ReplicaId id);
  Task<void> withdraw_all(const pool::Pool& pool);
  Result<void> check(const NewVolume& volume) const;
  RemoteLinkOptions link_options(const ReplicaPlace& place) const;
  bool is_in_use(const mirror::ReplicaId& replica) const;
  Task<Result<void>> change_volume(Shown& shown, NewVolume volume);
  Task<void> close_and_forget(Uuid volume);
  Shown* find(const Uuid& volume) const;

  const std::vector<Shard*> shards_;
  const EngineOptions options_;
  mirror::Witness& witness_;
  const host::HostIdentity identity_;  // as which it connects to other engines
  Changes changes_;
  mirror::CopyBudget copies_;
  std::map<std::string, std::unique_ptr<pool::Pool>, std::less<>> pools_;
  target::Target target_;
  std::vector<target::PortIndex> ports_;
  std::map<mirror::ReplicaId, Offered> replicas_;  // that are offered
  std::map<mirror::ReplicaId, Error> troubles_;    // of those that are not
  Neighbours neighbours_;
  std::map<Uuid, std::unique_ptr<Shown>> volumes_;
  Scope scope_;
  bool is_stopped_ = false;
};

}  // namespace fairlead::engine
