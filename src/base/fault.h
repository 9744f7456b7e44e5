// Fault points and probes, compiled into production code.
//
// A fault point is a place where something rare may be made to happen: `if (fault(FaultPoint::kX)) …take the rare
// way…`. The simulator switches a random subset on in each run; outside it each costs one load of a thread-local
// pointer. A probe counts that a rare branch was reached, so that a campaign can show that it was.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace fairlead {

enum class FaultPoint : uint8_t {
  kBufferPoolExhausted,  // a buffer is refused once: the request waits as if the pool were empty
  kShortSend,            // a stream send is cut short
  kShortReceive,         // a stream receive is cut short
  kYieldEarly,           // a fairness budget ends after one unit of work
  kMailboxFull,          // a cross-shard message meets a full mailbox once
  kDelayCompletion,      // a device's completion takes another turn of the ready queue
};
inline constexpr int kFaultPointCount = static_cast<int>(FaultPoint::kDelayCompletion) + 1;

enum class Probe : uint8_t {
  kBufferWait,          // a request waited for a buffer
  kMailboxWait,         // a caller waited for room in a mailbox
  kReceiveBudgetSpent,  // a connection gave way to others in the middle of its input
  kFusedPair,           // a fused compare-and-write ran
  kRangeConflict,       // a write waited for a locked range
  kLeftBehind,          // a request was answered without a disk that did not end it
  kKeepAliveExpired,    // a controller's keep-alive timer ran out
  kDigestMismatch,      // a digest did not fit its bytes
  kAbortedWaiting,      // Abort took back a command that was waiting
  kCrashTornWrite,      // SimDisk tore a write at a crash
  kCrashDroppedWrite,   // SimDisk lost an un-flushed write at a crash
  // From here on those of pools.
  kJournalWrapped,    // a journal went on at its area's start
  kPoolCheckpoint,    // a pool made a checkpoint
  kPoolTailDropped,   // an import dropped batches that no barrier covered
  kPoolMergeCopied,   // reclaiming a layer copied units to its child
  kPoolRepairedCopy,  // a bad copy of metadata was written anew from the good one
};
inline constexpr int kProbeCount = static_cast<int>(Probe::kPoolRepairedCopy) + 1;

std::string_view fault_point_name(FaultPoint point) noexcept;
std::string_view probe_name(Probe probe) noexcept;

// Decides at each fault point and counts at each probe, while it is installed on this thread. Lives on one thread.
class FaultPlan {
 public:
  FaultPlan() noexcept;
  virtual ~FaultPlan();
  FaultPlan(const FaultPlan&) = delete;
  FaultPlan& operator=(const FaultPlan&) = delete;

  virtual bool fires(FaultPoint point) = 0;
  void count(Probe probe) noexcept { ++counts_[static_cast<size_t>(probe)]; }
  uint64_t count_of(Probe probe) const noexcept { return counts_[static_cast<size_t>(probe)]; }

 private:
  FaultPlan* outer_;
  std::array<uint64_t, kProbeCount> counts_{};
};

namespace detail {
extern thread_local constinit FaultPlan* current_fault_plan;
}

inline bool fault(FaultPoint point) {
  FaultPlan* const plan = detail::current_fault_plan;
  return plan != nullptr && plan->fires(point);
}
inline void probe(Probe reached) noexcept {
  if (FaultPlan* const plan = detail::current_fault_plan; plan != nullptr) plan->count(reached);
}

}  // namespace fairlead
