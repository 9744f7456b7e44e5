// PoolReplicaStore: what a keeper needs of the pool that has its replica. Lives on the pool's home shard.
#pragma once

#include <memory>
#include <string>

#include "mirror/replica_store.h"
#include "pool/pool.h"

namespace fairlead::engine {

// The replica's property that holds its mirror::ReplicaState.
inline constexpr uint16_t kReplicaStateProperty = 0x200;
// That of a snapshot of a volume, in the pool that has one of its replicas: its mirror::Snapshot.
inline constexpr uint16_t kSnapshotProperty = 0x201;

class PoolReplicaStore final : public mirror::ReplicaStore {
 public:
  // `home` is the pool's first shard; both are borrowed for life. Errors: kNotFound, kInvalidArgument (a snapshot),
  // kCorrupt (what is kept cannot be read: its promise is not known, so nobody may write to the replica).
  static Result<std::unique_ptr<PoolReplicaStore>> open(Shard& home, pool::Pool& pool, mirror::ReplicaId id);

  mirror::ReplicaState state() const override { return state_; }
  Task<Result<void>> save(mirror::ReplicaState state) override;
  uint64_t size_bytes() const override;
  Uuid boot_id() const override { return home_.storage.boot_id(); }
  std::optional<mirror::Stamp> generation() const override;
  Task<Result<void>> begin_generation(mirror::Stamp stamp) override;
  Task<Result<bool>> has_changed_since(mirror::Stamp stamp) override;
  // Ranges of whole mirror::kExtentBytes, but at the end of the replica and at `offset`. An answer may have none and go
  // on all the same.
  Task<Result<mirror::Ranges>> changed(mirror::ChangedRequest request) override;
  Task<Result<void>> stamp(std::vector<uint64_t> extents) override;
  std::vector<mirror::Snapshot> snapshots() const override;
  Task<Result<void>> take_snapshot(mirror::Snapshot snapshot) override;
  Task<Result<void>> delete_snapshot(Uuid id) override;
  Task<Result<void>> grow(uint64_t size_bytes) override;

  struct Kept {
    mirror::Snapshot snapshot;
    Uuid object;  // in the pool
  };
  // Error kNotFound.
  Result<Kept> find_snapshot(const Uuid& id) const;

 private:
  PoolReplicaStore(Shard& home, pool::Pool& pool, std::string name, mirror::ReplicaState state)
      : home_(home), pool_(pool), name_(std::move(name)), state_(std::move(state)) {}
  // What is asked, as the pool knows it.
  struct Question {
    std::string of;
    std::optional<std::string> base;
    std::optional<mirror::Stamp> since;
  };
  Result<Question> question(const mirror::ChangedRequest& request) const;
  Result<void> find_snapshots();
  Task<Result<std::vector<pool::ByteRange>>> changed_within(const Question& question, pool::ByteRange window);

  Shard& home_;
  pool::Pool& pool_;
  const std::string name_;  // its id: people may give it another name
  mirror::ReplicaState state_;
  std::vector<Kept> snapshots_;  // by cut
};

}  // namespace fairlead::engine
