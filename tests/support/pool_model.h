// PoolModel: what a pool must hold: objects with all that belongs to them, the bytes of each, and bounds for the room
// that they take. Naive by intent. What is under way when a crash comes may have happened or not: list() after the
// import decides. Plain data; one thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "pool/pool.h"
#include "tests/support/block_history.h"

namespace fairlead::test {

// What belongs to an object beside its bytes.
struct ObjectFacts {
  Uuid id;
  pool::ObjectKind kind = pool::ObjectKind::kReplica;
  bool is_thick = false;
  uint64_t size_bytes = 0;
  Uuid origin;
  Uuid volume_id;
  std::map<std::string, std::string> labels;
  std::map<uint16_t, std::vector<std::byte>> properties;
  friend bool operator==(const ObjectFacts&, const ObjectFacts&) = default;
};
ObjectFacts facts_of(const pool::ObjectState& state);
std::string to_string(const ObjectFacts& facts);
// As Pool::change() has it.
ObjectFacts changed(ObjectFacts facts, const pool::Changes& changes);

struct ModelObject {
  ModelObject(HistoryClock& clock, uint64_t blocks) : history(clock, blocks) {}
  std::string name;
  ObjectFacts facts;
  BlockHistory history;
  size_t layer = 0;  // in PoolModel's list
  std::optional<pool::Stamp> stamp;
  std::map<uint64_t, pool::Stamp> stamps;  // that extents have at least: no crash takes those away
  struct Recent {
    BlockRange range;
    uint64_t ended = ~uint64_t{0};
  };
  std::map<uint64_t, Recent> recent;  // writes, by id: those under way, and some that are not any more
  // For the load: who holds a device; whether one operation on the object is under way; whether it takes no more I/O.
  uint32_t users = 0;
  bool is_busy = false;
  bool is_closing = false;
};
using ObjectRef = std::shared_ptr<ModelObject>;

struct ModelWrite {
  ObjectRef object;
  BlockRange range;
  uint64_t id = 0;
  uint64_t epoch = 0;
  std::optional<pool::Stamp> stamp;  // of what has data
};
// Stamping without a write.
struct ModelStamping {
  ObjectRef object;
  pool::ByteRange range;
  std::optional<pool::Stamp> stamp;
  uint64_t epoch = 0;
};
// A change of objects that was asked for.
struct ModelChange {
  uint64_t number = 0;
  std::string name;
  std::optional<ObjectFacts> before;  // none: not there
  std::optional<ObjectFacts> after;
  ObjectRef from;      // of a snapshot its replica, of a clone its snapshot
  uint64_t began = 0;  // of a snapshot
  std::optional<pool::Stamp> stamp;
};

class PoolModel {
 public:
  // `block_bytes`: the smallest logical block of the disks, all that a loss of power leaves whole.
  PoolModel(uint32_t block_bytes, uint32_t extent_bytes) : block_bytes_(block_bytes), extent_bytes_(extent_bytes) {}
  PoolModel(const PoolModel&) = delete;
  PoolModel& operator=(const PoolModel&) = delete;

  uint32_t block_bytes() const { return block_bytes_; }
  uint32_t extent_bytes() const { return extent_bytes_; }
  HistoryClock& clock() { return clock_; }
  // Of the pool's lives: what began in another one is decided.
  uint64_t epoch() const { return epoch_; }
  const std::map<std::string, ObjectRef>& objects() const { return objects_; }

  // The first thing that went wrong; empty: nothing.
  const std::string& failure() const { return failure_; }
  void fail(std::string text) {
    if (failure_.empty()) failure_ = std::move(text);
  }

  // ---- Bytes. What ends in another epoch than it began is ignored.
  enum class Bytes : uint8_t { kData, kZeroes, kDiscard };
  ModelWrite begin_write(const ObjectRef& object, BlockRange range, Bytes bytes);
  void fill(const ModelWrite& write, std::span<std::byte> bytes) const;
  enum class Durable : uint8_t { kNo, kYes };
  void write_done(const ModelWrite& write, BlockHistory::Surely surely, Durable durable);
  void write_failed(const ModelWrite& write);
  ModelStamping begin_stamping(const ObjectRef& object, pool::ByteRange range);
  void stamping_done(const ModelStamping& stamping);
  uint64_t begin_read() { return clock_.begin_read(); }
  void check_read(const ModelObject& object, uint64_t epoch, uint64_t began, BlockRange range,
                  std::span<const std::byte> bytes);
  void read_failed(uint64_t epoch, uint64_t began) {
    if (epoch == epoch_) clock_.end_read(began);
  }
  uint64_t begin_flush() { return clock_.tick(); }
  void flush_done(const ObjectRef& object, uint64_t epoch, uint64_t began) {
    if (epoch == epoch_) object->history.flushed(began);
  }
  // Everything written so far, by any: after a checkpoint, a close.
  void all_flushed(uint64_t epoch, uint64_t began);

  // ---- Objects. Each begin_ is ended by done() or failed(), unless a crash comes.
  ModelChange begin_create(std::string name, ObjectFacts facts);
  ModelChange begin_snapshot(const ObjectRef& replica, std::string name);
  ModelChange begin_clone(const ObjectRef& snapshot, std::string name, ObjectFacts facts);
  ModelChange begin_change(const ObjectRef& object, ObjectFacts after);
  ModelChange begin_remove(const ObjectRef& object);
  ModelChange begin_generation(const ObjectRef& object, pool::Stamp stamp);
  // `id`: of a snapshot.
  void done(ModelChange& change, uint64_t epoch, Uuid id = {});
  void failed(const ModelChange& change, uint64_t epoch);

  // ---- Lives.
  void crashed(bool is_power_lost);
  // After an import: decides what was under way, and compares.
  void imported(const std::vector<pool::ObjectInfo>& list, const pool::Pool& pool);
  // An object that nothing is done to.
  void compare(const ModelObject& object, const pool::ObjectInfo& info);

  // ---- What queries must say at least, and at most.
  // Extents that surely have a newer stamp.
  std::set<uint64_t> stamped_since(const ModelObject& object, const pool::Stamp& stamp) const;
  // Extents that may differ between the two, and those that surely do.
  std::set<uint64_t> touched_between(const ModelObject& older, const ModelObject& newer) const;
  std::set<uint64_t> differing(const ModelObject& older, const ModelObject& newer) const;
  // Extents ever touched that the object can see.
  std::set<uint64_t> touched(const ModelObject& object) const;
  // Those that were stamped without a write, too.
  std::set<uint64_t> touched_or_stamped(const ModelObject& object) const;
  // Extents with bytes that are surely not zeroes.
  std::set<uint64_t> filled(const ModelObject& object) const;
  // Whether `newer` was made from the snapshot, with others between or not.
  bool descends(const ModelObject& newer, const ModelObject& snapshot) const;
  bool is_alone(const ModelObject& object) const;  // shares nothing with anyone

  // ---- Room, in extents, when nothing is under way and what was removed is reclaimed.
  struct Room {
    uint64_t least = 0;
    uint64_t most = 0;
  };
  Room room();

 private:
  struct Layer {
    std::optional<size_t> parent;
    bool has_object = true;
    bool is_thick = false;
    std::optional<size_t> merged_into;  // gone
    bool is_gone = false;
    std::set<uint64_t> touched;  // extents that writes of any kind were tried on
    std::set<uint64_t> stamped;  // without a write
    uint64_t extents = 0;
  };
  struct Origin {
    size_t layer = 0;
    bool is_layer_sure = true;  // false: a snapshot was taken beside the write
  };
  void end_write(const ModelWrite& write);
  void raise_stamps(ModelObject& object, uint64_t first_extent, uint64_t last_extent, const pool::Stamp& stamp);
  void take_snapshot(const ModelChange& change, ModelObject& snapshot);
  ModelChange begin(std::string name, std::optional<ObjectFacts> before, std::optional<ObjectFacts> after);
  void apply(const ModelChange& change);
  void decide(const ModelChange& change, const std::map<std::string, ObjectFacts>& actual, const pool::Pool& pool);
  uint64_t blocks_of(uint64_t size_bytes) const { return size_bytes / block_bytes_; }
  uint64_t extents_of(uint64_t size_bytes) const { return (size_bytes + extent_bytes_ - 1) / extent_bytes_; }
  uint64_t extent_of(uint64_t block) const { return block * block_bytes_ / extent_bytes_; }
  size_t add_layer(std::optional<size_t> parent, const ObjectFacts& facts);
  size_t merged(size_t layer) const;
  void settle_layers();
  void end_change(const ModelChange& change);

  const uint32_t block_bytes_;
  const uint32_t extent_bytes_;
  HistoryClock clock_;
  uint64_t epoch_ = 0;
  uint64_t next_id_ = 1;
  uint64_t next_change_ = 1;
  std::map<std::string, ObjectRef> objects_;
  std::map<uint64_t, ModelChange> under_way_;
  std::map<uint64_t, BlockHistory> caught_;  // what snapshots under way at a crash may hold, by change
  std::vector<Layer> layers_;
  std::map<Content, Origin> origins_;
  std::string failure_;
};

}  // namespace fairlead::test
