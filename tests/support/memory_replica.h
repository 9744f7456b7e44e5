// MemoryReplica: a replica of a volume that has its disk in memory: bytes with a volatile cache, extents with stamps,
// what a keeper keeps, a keeper, and a gate that drains. Its parts are of use alone, too. Simulated worlds only: all on
// one home shard, and reached from others by MemoryLink.
//
// Life-cycle: made running; stop() and start() at will; stop() before it dies.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "async/event.h"
#include "io/request.h"
#include "mirror/keeper.h"

namespace fairlead::test {

class MemoryLink;

// What survives the end of the process; and of it, what survives the kernel. Plain data.
class MemoryMedium {
 public:
  static constexpr uint64_t kBlockBytes = 4 * kKiB;

  MemoryMedium(uint64_t size_bytes, Uuid boot);
  uint64_t size_bytes() const { return bytes_.size(); }

  void read(uint64_t offset, std::span<std::byte> into) const;
  // Extents that are written have the stamp of now before their bytes change.
  void write(uint64_t offset, std::span<const std::byte> from);
  // Zeroes. An extent that is unmapped as a whole keeps its stamp, a new one.
  void unmap(uint64_t offset, uint64_t length);
  void flush();
  void flush(uint64_t offset, uint64_t length);
  // Each block that was not flushed is as it was, or kept, as is drawn. Another boot.
  void cut_power(Random& random);
  // As a disk that lies: no stamp.
  void poke(uint64_t offset, std::span<const std::byte> from);

  // ---- Snapshots: what was not flushed when one was taken is not in it for sure.
  struct Frozen {
    mirror::Snapshot snapshot;
    uint64_t epoch = 0;
    std::vector<std::byte> bytes;
    std::vector<std::byte> stable;
    std::set<uint64_t> volatile_blocks;
    std::vector<bool> mapped;  // by extent
  };
  void take_snapshot(const mirror::Snapshot& snapshot);
  void delete_snapshot(const Uuid& id);
  const Frozen* find_snapshot(const Uuid& id) const;
  const std::vector<Frozen>& snapshots() const { return frozen_; }  // by cut
  // Whether the extent was written, or unmapped, after epoch `after` and in epoch `until` at most.
  bool has_changed(uint64_t extent, uint64_t after, uint64_t until) const;
  uint64_t epoch() const { return epoch_; }
  void grow(uint64_t size_bytes);

  bool is_mapped(uint64_t extent) const { return extents_[extent].is_mapped; }
  std::optional<mirror::Stamp> stamp(uint64_t extent) const { return extents_[extent].stamp; }
  void set_stamp(uint64_t extent, mirror::Stamp stamp) { extents_[extent].stamp = stamp; }
  uint64_t extents() const { return extents_.size(); }

  mirror::ReplicaState state;
  std::optional<mirror::Stamp> generation;
  Uuid boot_id;
  uint64_t unstamped = 0;  // writes that came before any generation was begun: a defect of whoever wrote

 private:
  struct Extent {
    std::optional<mirror::Stamp> stamp;
    bool is_mapped = false;
  };
  void note_change(uint64_t offset, uint64_t length);

  std::vector<Extent> extents_;
  std::vector<std::byte> bytes_;
  std::vector<std::byte> stable_;
  std::set<uint64_t> volatile_blocks_;
  std::vector<Frozen> frozen_;
  uint64_t epoch_ = 1;                                 // one more with each snapshot
  std::set<std::pair<uint64_t, uint64_t>> by_extent_;  // extents, and epochs in which they changed
};

// A pool's part, over a medium. Checks what a keeper owes it: one save at a time, generations that grow.
class MemoryReplicaStore final : public mirror::ReplicaStore {
 public:
  // Both borrowed for life. One at a time for a medium.
  MemoryReplicaStore(Shard& home, MemoryMedium& medium);

  // ---- For the test.
  // From now on saves wait; those that wait go on at release(). Not on stable storage before.
  void hold_saves() { is_held_ = true; }
  void release_saves();
  bool has_held_save() const { return is_saving_ && is_held_; }
  void set_save_delay(Duration span) { save_delay_ = span; }
  enum class Failure : uint8_t { kKeepsOld, kKeepsNew };  // what is found after a restart
  void fail_next_save(Failure failure) { next_failure_ = failure; }
  // All but save() fail so, until it is taken back.
  void set_error(std::optional<Code> code) { error_ = code; }
  void set_ranges_max(size_t count) { ranges_max_ = count; }  // of one answer of changed()
  // What was saved, in this order.
  const std::vector<mirror::ReplicaState>& saves() const { return saves_; }

  mirror::ReplicaState state() const override { return state_; }
  Task<Result<void>> save(mirror::ReplicaState state) override;
  uint64_t size_bytes() const override { return medium_.size_bytes(); }
  Uuid boot_id() const override { return medium_.boot_id; }
  std::optional<mirror::Stamp> generation() const override { return medium_.generation; }
  Task<Result<void>> begin_generation(mirror::Stamp stamp) override;
  Task<Result<bool>> has_changed_since(mirror::Stamp stamp) override;
  Task<Result<mirror::Ranges>> changed(mirror::ChangedRequest request) override;
  Task<Result<void>> stamp(std::vector<uint64_t> extents) override;
  std::vector<mirror::Snapshot> snapshots() const override;
  Task<Result<void>> take_snapshot(mirror::Snapshot snapshot) override;
  Task<Result<void>> delete_snapshot(Uuid id) override;
  Task<Result<void>> grow(uint64_t size_bytes) override;

 private:
  Task<Result<void>> touch();

  Shard& home_;
  MemoryMedium& medium_;
  mirror::ReplicaState state_;  // as its reader sees it
  std::vector<mirror::ReplicaState> saves_;
  Event released_;
  Duration save_delay_{};
  std::optional<Failure> next_failure_;
  std::optional<Code> error_;
  size_t ranges_max_ = 4;
  bool is_held_ = false;
  bool is_saving_ = false;
};

// Counts who is inside. Home shard.
class MemoryGate final : public mirror::ReplicaGate {
 public:
  explicit MemoryGate(Reactor& reactor) : reactor_(reactor), left_(reactor) {}
  // Error kFenced. Without one: leave() later.
  Result<void> enter(mirror::CallerId caller);
  void leave();
  mirror::CallerId open_for() const { return open_for_; }  // 0: nobody
  size_t inside() const { return inside_; }
  uint64_t openings() const { return openings_; }
  // Nothing is let through, and close() may still wait.
  bool is_draining() const { return open_for_ == 0 && inside_ > 0; }

  Task<void> close() override;
  Task<void> open(mirror::CallerId caller) override;
  Task<Result<void>> show(Uuid snapshot) override;
  Task<void> hide(Uuid snapshot) override;
  Task<void> tell_size() override { co_await yield(reactor_); }
  bool shows(const Uuid& snapshot) const { return shown_.contains(snapshot); }

 private:
  Reactor& reactor_;
  std::set<Uuid> shown_;
  mirror::CallerId open_for_ = 0;
  size_t inside_ = 0;
  uint64_t openings_ = 0;
  Event left_;
};

struct MemoryReplicaOptions {
  Uuid volume;
  mirror::ReplicaId id;
  uint64_t size_bytes = 8 * kMiB;
  Duration lease_max = std::chrono::milliseconds(500);
  mirror::Record record = {};  // that it was made with
};

// One request for data on its way: the caller's buffers are not needed meanwhile.
struct MemoryOperation {
  IoOp op = IoOp::kRead;
  Durability durability = Durability::kVolatile;
  uint64_t offset = 0;
  uint64_t length = 0;
  std::vector<std::byte> bytes;  // to be written, or read
  Uuid snapshot = {};            // to be read; nil: the replica as it is
};

class MemoryReplica {
 public:
  MemoryReplica(Shard& home, MemoryReplicaOptions options);
  ~MemoryReplica();  // Requires: stopped; its links are closed.
  MemoryReplica(const MemoryReplica&) = delete;
  MemoryReplica& operator=(const MemoryReplica&) = delete;

  // ---- For the test. Home shard.
  // The process ends: links drop, what is held goes on, and nobody is answered. kCache: with the kernel.
  enum class Loses : uint8_t { kNothing, kCache };
  Task<void> stop(Loses loses = Loses::kNothing);
  void start();
  bool is_up() const { return is_up_; }
  // Operations of the kind that come from now on stop just before they take effect; the gate has let them through.
  void hold(IoOp op) { at(op).is_held = true; }
  void release();
  size_t held() const { return held_; }
  void set_error(IoOp op, std::optional<Code> code) { at(op).error = code; }
  // Each operation takes so long.
  void set_delay(Duration span) { delay_ = span; }
  uint64_t count(IoOp op) const { return faults_[static_cast<size_t>(op)].count; }  // that took effect
  // Writes whose stamp was of another term than the session's: a defect of whoever wrote.
  uint64_t misstamped() const { return misstamped_; }

  Shard& home() const { return home_; }
  const MemoryReplicaOptions& options() const { return options_; }
  MemoryMedium& medium() { return medium_; }
  const MemoryMedium& medium() const { return medium_; }
  // Requires of these: it is up.
  MemoryReplicaStore& store() { return *store_; }
  MemoryGate& gate() { return *gate_; }
  mirror::Keeper& keeper() { return *keeper_; }

  // ---- For links. Home shard.
  void add(MemoryLink& link) { links_.push_back(&link); }
  void remove(MemoryLink& link) { std::erase(links_, &link); }
  mirror::CallerId connect();
  // None: nobody is there (any more), or the connection is gone.
  Task<std::optional<mirror::Reply>> ask(mirror::CallerId caller, mirror::Request request);
  Task<Result<void>> execute(mirror::CallerId caller, MemoryOperation& operation);
  Task<void> forget(mirror::CallerId caller);

 private:
  struct Fault {
    bool is_held = false;
    std::optional<Code> error;
    uint64_t count = 0;
  };
  Fault& at(IoOp op) { return faults_[static_cast<size_t>(op)]; }
  Task<Result<void>> perform(MemoryOperation& operation);
  Task<Result<void>> read_snapshot(MemoryOperation& operation);

  Shard& home_;
  const MemoryReplicaOptions options_;
  MemoryMedium medium_;
  std::unique_ptr<MemoryReplicaStore> store_;
  std::unique_ptr<MemoryGate> gate_;
  std::unique_ptr<mirror::Keeper> keeper_;
  std::vector<MemoryLink*> links_;
  std::set<mirror::CallerId> callers_;  // connections that are there
  mirror::CallerId last_caller_ = 0;
  std::array<Fault, 5> faults_;
  Event released_;
  Duration delay_{};
  size_t held_ = 0;
  uint64_t misstamped_ = 0;
  bool is_up_ = false;
};

}  // namespace fairlead::test
