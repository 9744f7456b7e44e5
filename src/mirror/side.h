// MirrorSide: what one shard has of a volume's target: a device for each replica, what each is used for, and the
// requests under way. Lives on its shard. The target on the home shard tells it what to do, by calls between shards;
// what it meets it reports by SideObserver.
//
// Rules of the data path (rule 2):
//   - A write (write zeroes, discard likewise) locks its range in MirrorShared::locks, goes to every slot in use, and
//   is
//     answered when every slot that is kNeeded by then has done it; one that lacks such a slot waits for a
//     configuration that needs it no more, or that brings the slot back as another incarnation: then it is sent there
//     anew.
//   - A flush the same, without a range.
//   - A read goes to one slot that is_read; when it is back and its range is being written, it waits for that write to
//     end. After an error the next slot is asked.
//   - Nothing begins while the side is held, in an extent that is unlevel, or (reads) without a lease.
//   - A request is answered only when no part of it is under way any more: its buffers are the caller's.
#pragma once

#include <array>
#include <memory>

#include "async/task.h"
#include "block/block_device.h"
#include "io/shard.h"
#include "mirror/shared.h"

namespace fairlead::mirror {

using Slot = uint8_t;  // of a replica in this target: 0 to kMembersMax - 1

enum class SlotUse : uint8_t {
  kOff,     // nothing is sent there
  kCopied,  // it gets every write, and nobody waits for it: it returns
  kNeeded,  // a member, or proposed: writes are answered when it has them
};
struct SlotConfiguration {
  SlotUse use = SlotUse::kOff;
  bool is_read = false;      // reads may go there
  bool is_broken = false;    // needed, but nothing more is sent there: a fault that is being recorded
  bool is_local = false;     // read it first
  uint64_t incarnation = 0;  // of its device: another after each attach()
};
struct SideConfiguration {
  std::array<SlotConfiguration, kMembersMax> slots;
  bool is_held = true;  // nothing begins
};

// What the data path meets. Called on the side's shard; the target takes it to its home shard.
class SideObserver {
 public:
  virtual ~SideObserver() = default;
  // The slot's device failed so; `incarnation` tells an old one. Called for each failure.
  virtual void slot_failed(ShardId shard, Slot slot, uint64_t incarnation, Error error) = 0;
  // A read wants a lease; called once until one was given.
  virtual void lease_wanted(ShardId shard) = 0;
  // Someone waits for these bytes to be level.
  virtual void level_wanted(ShardId shard, uint64_t extent) = 0;
  // A slot could not read what another could: to be written anew there.
  virtual void repair_wanted(ShardId shard, Slot slot, ByteRange range) = 0;
  // Some range was unlocked, or extent levelled, while requests of any shard waited for one: every side is to look
  // again.
  virtual void ranges_changed(ShardId shard) = 0;
};

class MirrorSide {
 public:
  MirrorSide(Shard& shard, std::shared_ptr<MirrorShared> shared, SideObserver& observer, Duration stall_limit);
  ~MirrorSide();  // Requires: detached all, no device is open.
  MirrorSide(const MirrorSide&) = delete;
  MirrorSide& operator=(const MirrorSide&) = delete;

  // ---- For the target, on this shard.

  // Requires: the slot is kOff and has no device.
  void attach(Slot slot, std::unique_ptr<BlockDevice> device);
  // From now on; looks again at everything that waits.
  void configure(const SideConfiguration& configuration);
  // Returns when all that began before this call has been answered. New requests go on meanwhile.
  Task<void> drain();
  // Returns when nothing is under way at the slot's device, which is then destroyed. Requires: kOff.
  Task<void> detach(Slot slot);
  // A lease came, an extent is level, a range is free.
  void look_again();
  // Ends what waits, and what comes, with this error. Until the next configure().
  void fail_waiting(Error error);

  // Whether someone here waits for a range: unlocking must call ranges_changed(). Any shard.
  bool has_waiters() const { return has_waiters_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> has_waiters_{false};
};

}  // namespace fairlead::mirror
