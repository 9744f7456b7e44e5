// Pool: disks of a node become replicas, snapshots and clones. docs/internals/pool.md says how.
//
// Life-cycle: create() writes an empty pool onto disks; import() takes one; every shard that is to serve it is given
// then. close() ends it, in order when the disks still answer, and lets them go; it is closed before it dies.
// Everything is called on the home shard, the first of those given; only the devices that source() leads to live on
// others. Requires of all tasks here: the pool outlives them.
//
// All that changes metadata is in the journal, on stable storage, when its task returns without an error (first writes
// by a device excepted: those are as durable as any write, by flush or forced unit access; but the stamp that a write
// gives an extent is there before the write is answered).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/scope.h"
#include "async/task.h"
#include "base/problem.h"
#include "block/block_device.h"
#include "io/shard.h"
#include "pool/format.h"

namespace fairlead::pool {

// A disk as it was named, opened.
struct PoolDisk {
  std::string path;  // for people
  std::shared_ptr<BlockSource> source;
};

enum class Blank : uint8_t { kRequired, kNotRequired };

struct CreateOptions {
  std::string name;  // is_valid_name()
  uint32_t extent_bytes = kExtentBytesDefault;
  uint32_t unit_bytes = 0;         // 0: 4 KiB, or a 256th of an extent where that is more
  uint64_t journal_bytes = 0;      // of each copy; 0: 1/1024 of the first disk, 1 MiB to 64 MiB
  Blank blank = Blank::kRequired;  // refuse disks whose first or last MiB holds anything
};

struct PoolStatistics {
  uint64_t capacity_bytes = 0;   // that extents can be made of
  uint64_t used_bytes = 0;       // extents in maps, and those of metadata
  uint64_t free_bytes = 0;       // that a thin write may take now
  uint64_t reserved_bytes = 0;   // free, and promised to thick replicas or kept for metadata
  uint64_t releasing_bytes = 0;  // given back, not yet free
  uint64_t metadata_bytes = 0;   // of used_bytes
  uint64_t cache_bytes = 0;      // memory of map pages
  uint64_t journal_used_bytes = 0;
  uint64_t checkpoints = 0;
  uint64_t repaired_copies = 0;  // of metadata, since import
  uint64_t bad_superblocks = 0;  // copies of superblocks that could not be written when it was last tried
};

struct ObjectInfo {
  ObjectState state;
  uint64_t used_bytes = 0;  // extents that its own layer has
  uint32_t open_devices = 0;
};

struct ReplicaOptions {
  std::string name;
  uint64_t size_bytes = 0;
  bool is_thick = false;
  Uuid id = {};  // nil: drawn
  Uuid volume_id = {};
  std::vector<Label> labels = {};
};

struct SnapshotOptions {
  std::string name;
  Uuid id = {};                           // nil: drawn
  uint64_t size_bytes = 0;                // the replica's first so many; 0: all of it
  std::vector<Property> properties = {};  // instead of the replica's
};

// [begin, end), bytes.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

struct Changes {
  std::vector<Label> labels;         // an empty value removes the label
  std::vector<Property> properties;  // likewise
  std::optional<Uuid> volume_id;
};

// How far a pool has come: the batches of its journal that are on stable storage.
struct Progress {
  Uuid pool;
  uint64_t batch = 0;
  friend bool operator==(const Progress&, const Progress&) = default;
};

struct ImportOptions {
  // Of any pools. Disks that hold an older state of one of these are refused, before anything is written.
  std::vector<Progress> seen = {};
  // Memory for map pages, 64 KiB at least; 0: 10 MiB for each TiB in the maps, 4 MiB at least.
  uint64_t cache_bytes = 0;
  // How long a change that nobody flushes may stay on volatile storage.
  Duration sync_interval = std::chrono::seconds(1);
  // Of the room; reported by log and statistics when passed.
  uint32_t warn_percent = 80;
  uint32_t critical_percent = 95;
};

class PoolCore;

class Pool {
 public:
  // Writes an empty pool onto the disks. Errors: kAlreadyExists (a disk is of a pool, or is not blank), kNoSpace (too
  // small), kInvalidArgument, kReadOnly, kIo.
  static Task<Outcome<void>> create(Shard& shard, std::vector<PoolDisk> disks, CreateOptions options);
  // Errors: kNotFound (no pool on a disk, or a disk of it is missing), kCorrupt, kInvalidArgument (disks of different
  // pools, an older copy of a disk, a disk that was removed, an older state than was seen), kNotSupported (a newer
  // format), kIo.
  static Task<Outcome<std::unique_ptr<Pool>>> import(std::vector<Shard*> shards, std::vector<PoolDisk> disks,
                                                     ImportOptions options);
  // Makes the disks blank again, as far as a pool is concerned. Errors: as import(); kBusy never: claim the disks.
  static Task<Outcome<void>> destroy(Shard& shard, std::vector<PoolDisk> disks);

  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Flushes, makes a checkpoint and marks the pool exported. Error kBusy: a device is open, and nothing is done. Any
  // other error: the disks are as a killed process leaves them, and let go.
  Task<Result<void>> close();

  const std::string& name() const;
  const Uuid& id() const;
  // Never goes back, whatever crashes: for ImportOptions::seen.
  Progress progress() const;
  PoolStatistics statistics() const;

  // The disks grew: takes the new room. Returns the bytes gained.
  Task<Result<uint64_t>> grow();
  // Errors: as create().
  Task<Outcome<void>> add_disk(PoolDisk disk, Blank blank);

  // ---- Objects. By name or by id as text. Errors of all: kNotFound, kAlreadyExists (a name or id), kNoSpace,
  // kInvalidArgument, kIo.
  std::vector<ObjectInfo> list() const;
  Result<ObjectInfo> find(std::string_view name) const;
  Task<Result<Uuid>> create_replica(ReplicaOptions options);
  // While I/O runs: writes that were acknowledged are in it, writes under way are or are not, later ones are not.
  Task<Result<Uuid>> snapshot(std::string replica, SnapshotOptions options);
  Task<Result<Uuid>> snapshot(std::string replica, std::string name) {
    return snapshot(std::move(replica),
                    SnapshotOptions{.name = std::move(name), .id = {}, .size_bytes = 0, .properties = {}});
  }
  // A replica that starts as the snapshot is. Thin.
  Task<Result<Uuid>> clone(std::string snapshot, ReplicaOptions options);
  // Error kBusy: a device is open. Its room comes back in the background.
  Task<Result<void>> remove(std::string name);
  enum class Shrink : uint8_t { kRefuse, kLoseData };
  // Smaller only when told, and never while devices are open (kBusy).
  Task<Result<void>> resize(std::string replica, uint64_t size_bytes, Shrink shrink);
  // All in one atomic, durable step.
  Task<Result<void>> change(std::string name, Changes changes);

  // Serves it: snapshots read-only.
  Task<Result<std::shared_ptr<BlockSource>>> source(std::string name);

  // ---- Generations. From now on writes are stamped with this; on stable storage before the first of them.
  // Error kInvalidArgument: not newer than the last.
  Task<Result<void>> begin_generation(std::string replica, Stamp stamp);
  // Every extent that the ranges touch has the stamp of now, as if it had been written, on stable storage. Where
  // nothing is mapped only the stamp is kept. Errors: kInvalidArgument (no generation was begun), kOutOfRange (beyond
  // the end).
  Task<Result<void>> restamp(std::string replica, std::vector<ByteRange> extents);
  // What stamp the writes have now; none: none was begun.
  std::optional<Stamp> generation(std::string_view name) const;

  // ---- Queries. Ranges are in ascending order, whole units, joined where they touch.
  Task<Result<std::vector<ByteRange>>> mapped(std::string name, ByteRange within);
  // Whole extents that were written, unmapped, or stamped, under a stamp newer than that.
  Task<Result<std::vector<ByteRange>>> changed_since(std::string name, Stamp stamp, ByteRange within);
  // Where `newer`, a snapshot or replica that descends from the snapshot `older`, may differ from it.
  Task<Result<std::vector<ByteRange>>> changed_between(std::string older, std::string newer, ByteRange within);
  // Bytes of extents that nobody else sees.
  Task<Result<uint64_t>> unique_bytes(std::string name);

  // Waits until what was removed is free. For people who want the figure, and tests.
  Task<Result<void>> settle();
  // Everything up to now on stable storage, and into a checkpoint.
  Task<Result<void>> checkpoint();

 private:
  explicit Pool(std::unique_ptr<PoolCore> core);
  std::unique_ptr<PoolCore> core_;
};

}  // namespace fairlead::pool
