#include "base/fault.h"

#include "base/check.h"

namespace fairlead {

namespace detail {
thread_local constinit FaultPlan* current_fault_plan = nullptr;
}

std::string_view fault_point_name(FaultPoint point) noexcept {
  switch (point) {
    case FaultPoint::kBufferPoolExhausted:
      return "buffer_pool_exhausted";
    case FaultPoint::kShortSend:
      return "short_send";
    case FaultPoint::kShortReceive:
      return "short_receive";
    case FaultPoint::kYieldEarly:
      return "yield_early";
    case FaultPoint::kMailboxFull:
      return "mailbox_full";
    case FaultPoint::kDelayCompletion:
      return "delay_completion";
  }
  return "?";
}

std::string_view probe_name(Probe reached) noexcept {
  switch (reached) {
    case Probe::kBufferWait:
      return "buffer_wait";
    case Probe::kMailboxWait:
      return "mailbox_wait";
    case Probe::kReceiveBudgetSpent:
      return "receive_budget_spent";
    case Probe::kFusedPair:
      return "fused_pair";
    case Probe::kLeftBehind:
      return "left_behind";
    case Probe::kRangeConflict:
      return "range_conflict";
    case Probe::kKeepAliveExpired:
      return "keep_alive_expired";
    case Probe::kDigestMismatch:
      return "digest_mismatch";
    case Probe::kAbortedWaiting:
      return "aborted_waiting";
    case Probe::kCrashTornWrite:
      return "crash_torn_write";
    case Probe::kCrashDroppedWrite:
      return "crash_dropped_write";
    case Probe::kJournalWrapped:
      return "journal_wrapped";
    case Probe::kPoolCheckpoint:
      return "pool_checkpoint";
    case Probe::kPoolTailDropped:
      return "pool_tail_dropped";
    case Probe::kPoolMergeCopied:
      return "pool_merge_copied";
    case Probe::kPoolRepairedCopy:
      return "pool_repaired_copy";
  }
  return "?";
}

FaultPlan::FaultPlan() noexcept : outer_(detail::current_fault_plan) { detail::current_fault_plan = this; }

FaultPlan::~FaultPlan() {
  FL_CHECK(detail::current_fault_plan == this);
  detail::current_fault_plan = outer_;
}

}  // namespace fairlead
