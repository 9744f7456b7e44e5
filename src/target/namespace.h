// Namespace: one shard's side of a namespace: its device, what is in flight on it, and the ranges that are locked.
// Lives on one shard; a namespace that several shards serve has one of these on each.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>

#include "async/event.h"
#include "async/task.h"
#include "base/intrusive_list.h"
#include "base/units.h"
#include "base/uuid.h"
#include "block/block_device.h"
#include "target/control_handler.h"

namespace fairlead::target {

struct NamespaceIdentity {
  uint32_t nsid = 0;
  Uuid uuid;
  uint32_t ana_group = 1;
  bool is_fenced = false;  // takes I/O of one caller only, at first of none
};

// Of one namespace on one shard; summed over shards for the health log.
struct IoCounters {
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  uint64_t errors = 0;

  IoCounters& operator+=(const IoCounters& other);
};

// A write that runs, or waits because its range is locked.
struct GatedWrite : ListNode<GatedWrite> {
  using Function = void (*)(GatedWrite&);
  explicit GatedWrite(Function function) : admitted(function) {}
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;
  Function admitted;  // called once the write may run, possibly inside enter()
};

// Keeps writes out of the ranges that a fused compare-and-write works on. Without one, entering costs a list insertion.
class WriteGate {
 public:
  explicit WriteGate(Reactor& reactor) : left_(reactor) {}

  void enter(GatedWrite& write);
  void leave(GatedWrite& write);
  // Takes back a write that was not admitted. False: it was.
  bool withdraw(GatedWrite& write);

  // Returns when no admitted write overlaps the range; until unlock() none will be. One lock at a time.
  Task<void> lock(ByteOffset offset, uint64_t length);
  void unlock();
  bool is_locked() const { return is_locked_; }

 private:
  bool overlaps_lock(const GatedWrite& write) const;
  bool is_locked_ = false;
  uint64_t lock_offset_ = 0;
  uint64_t lock_length_ = 0;
  IntrusiveList<GatedWrite> running_;
  IntrusiveList<GatedWrite> waiting_;
  Event left_;
};

class Namespace {
 public:
  Namespace(Reactor& reactor, const NamespaceIdentity& identity, std::unique_ptr<BlockDevice> device);

  const NamespaceIdentity& identity() const { return identity_; }
  BlockDevice& device() const { return *device_; }
  uint32_t block_bytes() const { return device_->geometry().logical_block; }
  uint64_t blocks() const { return device_->geometry().size_bytes >> std::countr_zero(block_bytes()); }
  WriteGate& gate() { return gate_; }
  IoCounters& counters() { return counters_; }

  bool is_fenced() const { return identity_.is_fenced; }
  // Whether that caller's I/O is taken: always, unless it is fenced. On the I/O path.
  bool lets_through(CallerId caller) const { return (caller & fence_mask_) == admitted_; }
  // Requires: is_fenced(). kNobody: none is taken. What was let through before goes on.
  void admit(CallerId caller);

  // Between these the namespace, though removed from its subsystem, is not destroyed.
  void begin_command() { ++in_flight_; }
  void end_command();
  Task<void> drain();

 private:
  NamespaceIdentity identity_;
  std::unique_ptr<BlockDevice> device_;
  WriteGate gate_;
  IoCounters counters_;
  const CallerId fence_mask_;  // all ones if fenced, else 0: then everyone is like `admitted_`
  CallerId admitted_ = kNobody;
  uint32_t in_flight_ = 0;
  Event idle_;
};

}  // namespace fairlead::target
