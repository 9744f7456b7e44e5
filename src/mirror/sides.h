// Sides: a MirrorSide on each shard, commanded as one. Lives on the home shard.
//
// Life-cycle: make, start(), use, stop(), destroy. The configuration is kept here: change configuration(), then
// publish().
#pragma once

#include <memory>
#include <vector>

#include "async/cancel.h"
#include "async/event.h"
#include "async/mutex.h"
#include "async/scope.h"
#include "mirror/link.h"
#include "mirror/side.h"

namespace fairlead::mirror {

// What shards met, on the home shard.
class SidesObserver {
 public:
  virtual ~SidesObserver() = default;
  virtual void slot_failed(Slot slot, uint64_t incarnation, Error error) = 0;
  virtual void lease_wanted() = 0;
  virtual void level_wanted(uint64_t extent) = 0;
  virtual void repair_wanted(Slot slot, ByteRange range) = 0;
};

class Sides {
 public:
  // `shards`: the home shard first. `observer` is borrowed for life.
  Sides(std::vector<Shard*> shards, std::shared_ptr<MirrorShared> shared, SidesObserver& observer,
        Duration stall_limit);
  ~Sides();  // Requires: stop() returned, or start() was never called.
  Sides(const Sides&) = delete;
  Sides& operator=(const Sides&) = delete;

  Task<void> start();
  // Waits for what was left behind. Requires: every slot is detached (kAnswered), no device is open.
  Task<void> stop();

  SideConfiguration& configuration() { return configuration_; }
  // Every shard has the configuration as it is now, or a later one, when this returns.
  Task<void> publish();
  // Opens a device of the link on every shard. After an error no shard has one. Requires: the slot is kOff, detached.
  Task<Result<void>> attach(Slot slot, ReplicaLink& link);
  // The slot is kOff on every shard, and its devices are gone, when this returns, but for what may be left behind. The
  // link must have been dropped, or to answer, for what is under way there to end.
  Task<void> detach(Slot slot, MirrorSide::Until until = MirrorSide::Until::kAllEnded);
  // Whether the slot's devices on all shards are of at least so many bytes. Requires: attached.
  Task<bool> is_grown(Slot slot, uint64_t size_bytes);
  // Returns when all that had begun on any shard has been answered. False: the era was abandoned.
  Task<bool> drain(uint64_t era);
  // Drains of this era and earlier ones end, those that wait and those to come.
  Task<void> abandon_drains(uint64_t era);
  uint64_t next_era() { return ++era_; }
  // Whether any shard answered something without the slot's incarnation, which was sent it (see MirrorSide::lacks()).
  Task<bool> lacks(Slot slot);
  // Whether requests were answered that a disk here has not ended: stop() would wait for it.
  Task<bool> has_left_behind();
  Task<void> look_again();
  Task<void> forget_stall(Slot slot);
  // `unserved`: none, or one for each shard (null: none there).
  Task<void> fail_waiting(Error error, std::vector<Unserved*> unserved = {});

  MirrorShared& shared() { return *shared_; }
  // Together with the writes of hosts. While it waits nobody begins to write there: those that are under way end, and
  // it has the range. Errors: kBusy after `patience` (a write there is parked); kCancelled, `ending` was first, and
  // whoever cancels it releases ranges_changed(). Requires: at most RangeTable::kLockBytesMax.
  Task<Result<void>> lock(ByteRange range, Duration patience, CancelSource& ending);
  void unlock(ByteRange range);
  // By shard: for devices that are opened there.
  std::vector<MirrorSide*> all() const;
  // Released whenever a range was unlocked that someone may wait for. Home shard.
  Event& ranges_changed() { return ranges_changed_; }

 private:
  // Takes what a shard meets home. Lives on that shard.
  class Reporter final : public SideObserver {
   public:
    Reporter(Sides& sides, Shard& shard) : sides_(sides), shard_(shard), scope_(shard.reactor) {}
    void slot_failed(ShardId shard, Slot slot, uint64_t incarnation, Error error) override;
    void lease_wanted(ShardId shard) override;
    void level_wanted(ShardId shard, uint64_t extent) override;
    void repair_wanted(ShardId shard, Slot slot, ByteRange range) override;
    void ranges_changed(ShardId shard) override;
    Task<void> close() { return scope_.close(); }

   private:
    struct Report {
      enum class Kind : uint8_t { kSlotFailed, kLeaseWanted, kLevelWanted, kRepairWanted, kRangesChanged };
      Kind kind = Kind::kRangesChanged;
      Slot slot = 0;
      uint64_t number = 0;  // incarnation, or extent
      ByteRange range;
      Error error;
    };
    Task<void> take_home(Report report);
    void arrive(const Report& report);
    Sides& sides_;
    Shard& shard_;
    Scope scope_;
    bool is_telling_ranges_ = false;  // one at a time is on its way
  };
  struct OnShard {
    Shard* shard = nullptr;
    std::unique_ptr<Reporter> reporter;
    std::unique_ptr<MirrorSide> side;
  };
  Reactor& home() const { return on_shards_.front().shard->reactor; }
  void tell_ranges_changed();
  bool try_lock(ByteRange range);
  Task<void> look_soon();
  Task<void> make_on(OnShard& here);
  static Task<void> close_reporter(OnShard& here);
  static Task<void> end_on(OnShard& here);
  static Task<Result<void>> attach_on(OnShard& here, Slot slot, ReplicaLink& link);
  static Task<void> detach_on(OnShard& here, Slot slot, MirrorSide::Until until);
  static Task<bool> is_grown_on(OnShard& here, Slot slot, uint64_t size_bytes);
  static Task<void> configure_on(OnShard& here, SideConfiguration configuration);
  static Task<bool> drain_on(OnShard& here, uint64_t era);
  static Task<void> abandon_on(OnShard& here, uint64_t era);
  static Task<bool> lacks_on(OnShard& here, Slot slot);
  static Task<bool> has_left_behind_on(OnShard& here);
  static Task<void> forget_stall_on(OnShard& here, Slot slot);
  static Task<void> look_on(OnShard& here);
  static Task<void> fail_on(OnShard& here, Error error, Unserved* unserved);

  std::vector<OnShard> on_shards_;
  const std::shared_ptr<MirrorShared> shared_;
  SidesObserver& observer_;
  const Duration stall_limit_;
  SideConfiguration configuration_;
  Mutex publishing_;
  Scope scope_;
  Event ranges_changed_;
  bool is_looking_ = false;  // a look is to begin
  uint64_t incarnations_ = 0;
  uint64_t era_ = 0;
  uint64_t abandoned_era_ = 0;
};

}  // namespace fairlead::mirror
