// MirrorSide: what one shard has of a volume's target: a device for each replica, what each is used for, and the
// requests under way. Lives on its shard. The target on the home shard tells it what to do, by calls between shards;
// what it meets it reports by SideObserver.
//
// Rules of the data path (rule 2):
//   - A write (write zeroes, discard likewise) locks its range in MirrorShared::locks, goes to every slot in use, and
//   is
//     answered when every slot that is kNeeded by then has done it; one that lacks such a slot is parked, with its
//     lock, until a configuration needs the slot no more, or brings it back as another incarnation: then it is sent
//     there anew, even while the side is held.
//   - A flush the same, without a range.
//   - A read goes to one slot that is_read; when it is back and its range is being written, it waits for that write to
//     end, and is read anew if that was refused. After an error the next slot is asked; when none is left, it waits,
//     unless all say that the medium failed.
//   - Nothing begins while the side is held, in an extent that is unlevel, without a kNeeded slot, or (reads) without a
//     lease.
//   - A request is answered only when no part of it is under way any more: its buffers are the caller's.
//   - No write is answered with an error while slots differ: what all kNeeded slots refused (no room, not a valid
//     request) is answered after they were made equal again.
//   - Discards go out as write zeroes, so that members stay equal whatever their units are: of whole blocks of 4 KiB,
//     the rest is left as it is.
//
// What the target owes to shards that do not get a configuration at the same moment:
//   - a slot is is_broken, or not is_read, on all sides before any side needs it no more: else one side answers a write
//     that another side's reads miss;
//   - a slot is kNeeded on all sides, none of them lacks() it then, and what began before has been drained, before it
//     is_read on any, or counts as a member;
//   - a member that is back before a record without it could be made in force was kNeeded, and is_broken, all the time,
//     and is kNeeded as another incarnation at once, though perhaps not is_read: parked writes keep their ranges locked
//     until they are done there, and no copy passes them.
#pragma once

#include <array>
#include <bit>
#include <memory>
#include <optional>

#include "async/mutex.h"
#include "async/scope.h"
#include "async/task.h"
#include "block/block_device.h"
#include "block/slot_pool.h"
#include "io/shard.h"
#include "mirror/shared.h"

namespace fairlead::mirror {

using Slot = uint8_t;  // of a replica in this target: 0 to kMembersMax - 1

// Takes back requests that nobody did: see MirrorSide::fail_waiting(). Lives on the side's shard.
class Unserved {
 public:
  virtual ~Unserved() = default;
  // As if it had never been submitted; a write may have been done in part.
  virtual void take(IoRequest& request) = 0;
};

enum class SlotUse : uint8_t {
  kOff,     // nothing is sent there
  kCopied,  // it gets every write, and what becomes of it there makes no difference to the answer: it returns
  kNeeded,  // a member, or proposed: writes are answered when it has them
};
struct SlotConfiguration {
  SlotUse use = SlotUse::kOff;
  bool is_read = false;    // reads may go there, unless it is broken
  bool is_broken = false;  // in use, but nothing more is sent there: a fault that is being recorded
  // Read it first. And its medium's buffers are the hosts': nobody can end what a disk here does not end. So once the
  // volume goes on without a slot that stalled (it is neither sendable nor kNeeded), requests are answered without what
  // is under way there: it is left behind.
  bool is_local = false;
  uint64_t incarnation = 0;  // of its device: another after each attach()
};
struct SideConfiguration {
  std::array<SlotConfiguration, kMembersMax> slots;
  bool is_held = true;  // nothing begins
};

// What the data path meets. Called on the side's shard, from inside its work: it calls nothing of the side before it
// returned (the target takes it to its home shard).
class SideObserver {
 public:
  virtual ~SideObserver() = default;
  // The slot's device failed so; `incarnation` tells an old one. Called for each failure. Of a stall, kTimedOut, once
  // for an incarnation; what is under way there goes on until its link is dropped.
  virtual void slot_failed(ShardId shard, Slot slot, uint64_t incarnation, Error error) = 0;
  // A read wants a lease; called once until one was given.
  virtual void lease_wanted(ShardId shard) = 0;
  // Someone waits for this extent to be level. Once for each request that waits, and again after a configure(). It may
  // have become so meanwhile.
  virtual void level_wanted(ShardId shard, uint64_t extent) = 0;
  // A slot could not read what another could: to be written anew there.
  virtual void repair_wanted(ShardId shard, Slot slot, ByteRange range) = 0;
  // Some range was unlocked while others than this side's requests waited for one: every side is to look again, and
  // whoever else waits.
  virtual void ranges_changed(ShardId shard) = 0;
};

class MirrorSide {
 public:
  // `stall_limit`: what is under way at a slot for longer is a failure of it.
  MirrorSide(Shard& shard, std::shared_ptr<MirrorShared> shared, SideObserver& observer, Duration stall_limit);
  ~MirrorSide();  // Requires: detached all, nothing is under way or waits, no device is open.
  MirrorSide(const MirrorSide&) = delete;
  MirrorSide& operator=(const MirrorSide&) = delete;

  // ---- For the target, on this shard, and not from inside a request's `done` or an observer's call.

  // Requires: the slot is kOff or is_broken, and has no device.
  void attach(Slot slot, std::unique_ptr<BlockDevice> device);
  // From now on; looks again at everything that waits. An incarnation that lacks a request that was answered without it
  // (it was kCopied, or needed no more) is as if is_broken, whatever the configuration says. Requires: slots in use
  // have a device, but for those that are is_broken; an incarnation is another after each attach().
  void configure(const SideConfiguration& configuration);
  // Whether the slot's incarnation, as configured, lacks a request that was answered without it. That it failed may
  // still be on its way to the target; this is not.
  bool lacks(Slot slot) const { return slots_[slot].lacking == configuration_.slots[slot].incarnation; }
  // Returns when all that began before this call has been answered. New requests go on meanwhile. What waits has not
  // begun: for the side to be held no more, a lease, a level extent, a range, a slot to read from; and the rest of a
  // long write zeroes between two of its pieces. What is parked has begun.
  // False: the era was abandoned. Eras are numbers above 0.
  Task<bool> drain(uint64_t era = 1);
  // Ends the drains of that era and earlier ones, those that wait and those to come.
  void abandon_drains(uint64_t era);
  // Returns when nothing is under way at the slot's device, which is then destroyed; at once when there is none.
  // Requires: the slot is kOff or is_broken, and stays so until this returned. (A member whose device is replaced stays
  // kNeeded and is_broken: kOff would let writes be answered without it.)
  // kAnswered: does not wait for what was left behind, see SlotConfiguration::is_local; while there is any, the device
  // stays, and the slot can be attached again only after a detach() that waited for all.
  enum class Until : uint8_t { kAllEnded, kAnswered };
  Task<void> detach(Slot slot, Until until = Until::kAllEnded);
  // Whether the slot's device is of at least so many bytes. Requires: there is one.
  bool is_grown(Slot slot, uint64_t size_bytes) const {
    return slots_[slot].device->refresh_size().value_or(0) >= size_bytes;
  }
  bool has_left_behind() const {
    return std::ranges::any_of(slots_, [](const OnSlot& on) { return !on.left_behind.empty(); });
  }
  // A lease came, an extent is level, a range is free.
  void look_again();
  // That the slot's incarnation stalled is reported again, at once if it still does.
  void forget_stall(Slot slot);
  // Ends what waits or is parked, and what comes, with this error; what is under way as soon as it would be parked.
  // Until the next configure(). Members may then differ where a parked write was: its range stays locked until that
  // configure(), so that no read of another side passes. So: all sides fail, and are drained, before any is
  // configured again, and members are made level before it is held no more. `unserved` (may be null; borrowed until
  // then) gets it all instead.
  void fail_waiting(Error error, Unserved* unserved = nullptr);

  // ---- For the devices, on this shard.

  Shard& shard() const { return shard_; }
  const std::shared_ptr<MirrorShared>& shared() const { return shared_; }
  // Requires: check_request() accepts it, and it is not empty but for a flush.
  void submit(IoRequest& request);
  // The volume's size; the slots' devices have looked for theirs.
  uint64_t refresh_size();
  void device_opened() { ++devices_open_; }
  void device_closed() { --devices_open_; }

 private:
  struct Part;
  struct Operation;
  class PartAwaiter;
  using SlotMask = uint8_t;
  static constexpr SlotMask bit(Slot slot) { return static_cast<SlotMask>(1U << slot); }
  // Calls with each slot of the mask, as it was.
  template <typename Visit>
  static void for_each_slot(SlotMask mask, Visit visit) {
    for (; mask != 0; mask &= static_cast<SlotMask>(mask - 1)) visit(static_cast<Slot>(std::countr_zero(mask)));
  }
  struct OnSlot {
    std::unique_ptr<BlockDevice> device;
    IntrusiveList<Part, Part> under_way;  // oldest first
    IntrusiveList<Part, Part> left_behind;
    uint32_t reads = 0;               // of both
    bool is_local = false;            // as it was last configured
    std::optional<uint64_t> stalled;  // incarnation that was reported
    std::optional<uint64_t> lacking;  // incarnation that lacks what was answered without it
  };
  enum class Start : uint8_t { kBegan, kWaits, kWaitsForOthers };
  struct Look : Runnable {
    explicit Look(MirrorSide& s)
        : Runnable([](Runnable& self) { static_cast<Look&>(self).side.look_again(); }), side(s) {}
    MirrorSide& side;
  };
  struct StallAlarm : Timer {
    explicit StallAlarm(MirrorSide& s)
        : Timer([](Runnable& self) { static_cast<StallAlarm&>(self).side.on_stall_alarm(); }), side(s) {}
    MirrorSide& side;
  };

  // side.cc: configuration, requests, what waits, parts.
  void read_masks();
  void end_unserved(IoRequest& original);
  void leave(Operation& operation);
  void orphan(Operation& operation);
  void release_orphans();
  void begin(Operation& operation);
  void end_begun(Operation& operation);
  void answer(Operation& operation, Result<void> result);
  void go_on_with_zeroes(Operation& operation);
  void start_or_wait(Operation& operation);
  Start try_start(Operation& operation);
  bool waits_for_level(Operation& operation);
  void start_waiting();
  void recount_waiters();
  void post_look();
  void unlock(ByteRange range);
  void tell_unlocked();
  void send(Operation& operation, SlotMask to);
  void submit_part(Part& part);
  static void on_part(IoRequest& request);
  void on_stall_alarm();
  void leave_behind();
  void leave_behind(OnSlot& on);
  void tell(Operation& operation, Result<void> result);
  void on_left_behind(Operation& operation, Part& part);

  // side_write.cc: writes, zeroes, flushes.
  Start try_start_write(Operation& operation);
  bool is_behind_waiting(const Operation& operation);
  bool is_current(const Operation& operation, Slot slot) const;
  SlotMask current(const Operation& operation, SlotMask mask) const;
  SlotMask lacking(const Operation& operation) const;
  void on_write_part(Operation& operation, Part& part);
  void decide_write(Operation& operation);
  void decide_lacking(Operation& operation, SlotMask missing);
  void report_refusals(Operation& operation);
  void note_lacking(const Operation& operation);
  void finish_write(Operation& operation, Result<void> result);
  void revisit_parked();

  // side_equalise.cc: after all have refused a write.
  bool can_equalise(const Operation& operation) const;
  std::optional<Slot> choose_source(const Operation& operation) const;
  SlotMask sinks(const Operation& operation) const;
  Task<void> equalise(Operation& operation);
  Task<void> equalise_from(Operation& operation, Slot source, SlotMask sinks_left);
  Task<void> equalise_piece(Operation& operation, Slot sink, ByteRange piece, std::span<std::byte> right,
                            std::span<std::byte> memory);
  Task<bool> move_piece(Operation& operation, Slot slot, IoOp op, ByteRange piece, std::span<std::byte> memory);

  // side_read.cc
  bool has_lease();
  Start try_start_read(Operation& operation);
  void on_read_part(Operation& operation, Part& part);
  void settle_or_wait(Operation& operation);
  void answer_read(Operation& operation);
  void answer_settled();

  Shard& shard_;
  Reactor& reactor_;
  const std::shared_ptr<MirrorShared> shared_;  // shared with the sides of the other shards
  SideObserver& observer_;
  const Duration stall_limit_;

  SideConfiguration configuration_;
  uint64_t configurations_ = 0;  // that there were: operations know by which they were sent
  SlotMask needed_ = 0;
  SlotMask sendable_ = 0;  // in use, and neither broken nor lacking
  SlotMask readable_ = 0;  // is_read and sendable
  SlotMask local_ = 0;
  std::optional<Error> failing_;  // fail_waiting()
  Unserved* unserved_ = nullptr;  // the same

  std::array<OnSlot, kMembersMax> slots_;
  SlotPool<Operation> operations_;
  IntrusiveList<Operation> waiting_;   // not begun, in order
  IntrusiveList<Operation> settling_;  // reads that are back, while their range is being written
  IntrusiveList<Operation> parked_;
  IntrusiveList<Operation> orphans_;  // answered by fail_waiting(), their ranges still locked
  uint32_t waiting_for_others_ = 0;   // of waiting_: for a range or a level extent
  bool is_counted_ = false;           // as a waiter in shared_
  bool lease_asked_ = false;
  Look look_{*this};
  StallAlarm stall_alarm_{*this};

  // Requests begun, by the parity of the drain that will wait for them.
  std::array<uint64_t, 2> begun_{};
  uint8_t parity_ = 0;
  Mutex draining_;
  Event drained_;
  uint64_t abandoned_era_ = 0;
  Event part_ended_;
  Mutex equalising_;
  Scope scope_;
  size_t devices_open_ = 0;
};

}  // namespace fairlead::mirror
