// PoolLoad: works on a pool in a simulated world, by the model's side: requests of all kinds from all shards beside
// changes of all kinds, then reads everything back, asks everything, and adds up the room.
//
// Life-cycle: format() once; then live() for each life of the node's process. A crash is told to the model first
// (PoolModel::crashed()), then to the world; live() ends on the dead node by itself.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "pool/pool.h"
#include "sim/world.h"
#include "tests/support/pool_model.h"

namespace fairlead::test {

struct PoolLoadPlan {
  std::vector<std::string> disks;  // paths on the node, of the pool from the start
  std::vector<std::string> spare;  // added later
  uint32_t extent_bytes = 64 * 1024;
  uint32_t unit_bytes = 0;  // 0: the default
  uint64_t journal_bytes = 0;
  uint64_t cache_bytes = 0;
  Duration sync_interval = std::chrono::milliseconds(100);
  uint32_t workers = 2;  // on each shard; each has one request under way
  uint32_t administrators = 2;
  uint32_t sessions = 4;   // of a worker in a round: devices that it opens
  uint32_t requests = 12;  // of a session
  uint32_t changes = 12;   // of an administrator in a round
  uint32_t rounds = 1;     // in a life
  uint32_t objects_max = 6;
  uint64_t object_bytes_max = 1024 * 1024;
  uint64_t request_bytes_max = 96 * 1024;
  bool is_roomy = false;  // the pool can never be full
  bool checks_room = true;
};

// Where a life is; and what is being done, for who wants to crash just then.
enum class Phase : uint8_t { kOpening, kImporting, kWorking, kVerifying, kClosing, kEnded };
enum class Doing : uint8_t { kCheckpoint, kSettle, kRemove, kSnapshot, kChange, kAddDisk };
inline constexpr size_t kDoingCount = static_cast<size_t>(Doing::kAddDisk) + 1;

class PoolLoad {
 public:
  PoolLoad(sim::SimWorld& world, sim::SimNode& node, PoolModel& model, PoolLoadPlan plan, uint64_t seed)
      : world_(world), node_(node), model_(model), plan_(std::move(plan)), random_(seed) {}
  PoolLoad(const PoolLoad&) = delete;
  PoolLoad& operator=(const PoolLoad&) = delete;

  // On the home shard, the node's first.
  Task<void> format(bool* done);
  enum class Ends : uint8_t { kKeepsAll, kDeletesAll };
  Task<void> live(Ends ends);
  // Before live() is spawned, so that phase() is not that of the life before.
  void announce() { phase_ = Phase::kOpening; }

  Phase phase() const { return phase_; }
  bool is_doing(Doing doing) const { return doing_[static_cast<size_t>(doing)] > 0; }
  uint64_t refusals() const { return refusals_; }  // for want of room
  uint64_t requests() const { return requests_; }
  // Of the last life that worked.
  const pool::PoolStatistics& statistics() const { return statistics_; }

 private:
  class Mark;
  struct Span {
    uint64_t offset = 0;  // bytes
    uint64_t length = 0;
  };
  bool is_alive(uint64_t epoch) const { return model_.epoch() == epoch && model_.failure().empty(); }
  Task<Result<std::vector<pool::PoolDisk>>> open_disks(const std::vector<std::string>& paths);
  Task<void> run(uint64_t epoch, Ends ends);
  Task<void> work(uint64_t epoch);

  // pool_load.cc: requests
  ObjectRef pick(sim::Prng& random, bool for_change);
  Task<void> worker(uint64_t epoch, size_t shard, uint64_t seed);
  Task<void> session(uint64_t epoch, size_t shard, ObjectRef object, sim::Prng& random);
  Task<void> request(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object, sim::Prng& random);
  Span draw_span(uint64_t size_bytes, uint32_t block, sim::Prng& random) const;
  Task<void> read(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object, Span span);
  Task<void> write(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object, Span span,
                   Durability durability, size_t skew);
  Task<void> zero(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object, Span span, IoOp op,
                  ZeroMode mode);
  Task<void> flush(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object);
  void end_write(uint64_t epoch, const ModelWrite& write, const Result<void>& result, BlockHistory::Surely surely,
                 PoolModel::Durable durable, const char* what);
  bool is_allowed(const Result<void>& result);

  // pool_load_changes.cc
  Task<void> administrator(uint64_t epoch, uint64_t seed);
  Task<void> change_something(uint64_t epoch, sim::Prng& random);
  Task<void> create(uint64_t epoch, sim::Prng& random);
  Task<void> snapshot(uint64_t epoch, ObjectRef replica);
  Task<void> clone(uint64_t epoch, ObjectRef snapshot, sim::Prng& random);
  Task<void> remove(uint64_t epoch, ObjectRef object);
  Task<void> resize(uint64_t epoch, ObjectRef object, sim::Prng& random);
  Task<void> shrink(uint64_t epoch, ObjectRef object, uint64_t size_bytes);
  Task<void> change(uint64_t epoch, ObjectRef object, sim::Prng& random);
  Task<void> begin_generation(uint64_t epoch, ObjectRef object);
  Task<void> restamp(uint64_t epoch, ObjectRef object, sim::Prng& random);
  Task<void> ask(uint64_t epoch, ObjectRef object, sim::Prng& random);
  Task<void> look_after_pool(uint64_t epoch, sim::Prng& random);
  Task<void> add_disk(uint64_t epoch);
  Task<bool> close_devices(uint64_t epoch, ObjectRef object);
  template <typename T>
  void end_change(uint64_t epoch, ModelChange& change, const Result<T>& result, const char* what, Uuid id = {});

  // pool_load_verify.cc
  Task<void> verify(uint64_t epoch);
  Task<void> read_all(uint64_t epoch, size_t shard, ObjectRef object);
  Task<void> verify_queries(uint64_t epoch, ObjectRef object);
  Task<void> verify_differences(uint64_t epoch);
  Task<void> verify_room(uint64_t epoch);
  Task<void> delete_all(uint64_t epoch);

  // Lines of the world's trace.
  void note(const char* what, const ModelObject& object, Span span, uint64_t number);
  void note_end(const char* what, const std::string& name, const Result<void>& result);
  std::string next_name(const char* kind) { return std::string(kind) + std::to_string(next_number_++); }
  uint64_t draw_size(sim::Prng& random) const;

  sim::SimWorld& world_;
  sim::SimNode& node_;
  PoolModel& model_;
  PoolLoadPlan plan_;
  sim::Prng random_;
  std::unique_ptr<pool::Pool> pool_;
  std::vector<pool::Progress> seen_;  // of this life and those before
  uint32_t logical_block_ = 4096;     // of the pool
  Phase phase_ = Phase::kEnded;
  std::array<uint32_t, kDoingCount> doing_{};
  uint32_t running_ = 0;
  uint32_t creating_ = 0;
  uint64_t next_number_ = 1;
  uint64_t next_term_ = 1;
  uint64_t refusals_ = 0;
  uint64_t requests_ = 0;
  std::string adding_;  // a disk that a crash may have left in the pool or not
  pool::PoolStatistics statistics_;
};

}  // namespace fairlead::test
