// SimCore: what all parts of a simulated world share: virtual time, the event queue, the trace, the count of injected
// faults. Owned by SimWorld; one thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>

#include "async/time.h"
#include "base/uuid.h"
#include "sim/action.h"
#include "sim/prng.h"
#include "sim/settings.h"
#include "sim/trace.h"

namespace fairlead::sim {

// What was done to the system under test. Keep in step with sim_fault_name().
enum class SimFault : uint8_t {
  kReadError,
  kWriteError,
  kFlushError,
  kRot,
  kMisdirectedRead,
  kMisdirectedWrite,
  kLostWrite,
  kNoSpace,
  kSlowDisk,
  kHungDisk,
  kReset,
  kPartition,
  kStall,
  kCrash,
};
inline constexpr int kSimFaultCount = static_cast<int>(SimFault::kCrash) + 1;
std::string_view sim_fault_name(SimFault fault) noexcept;
// The faults of a medium: from the first on, a node may log ERROR lines.
constexpr bool is_hard(SimFault fault) { return fault <= SimFault::kNoSpace; }

enum class CrashKind : uint8_t {
  kPowerLost,      // un-flushed writes may be lost; peers hear nothing
  kProcessKilled,  // the disk's cache lives on; the system ends the connections
};

// One life of a node's process, from boot to crash. shared_ptr: everything made in that life looks at it to know
// whether it still counts, and some of it (a DiskFile that a test kept) may outlive the node's shards.
struct Boot {
  uint32_t node = 0;
  uint64_t number = 0;
  Uuid kernel;        // another after each loss of power, the same after the end of a process
  bool alive = true;  // false: nothing that is done has an effect any more
};

class SimCore {
 public:
  SimCore(uint64_t seed, const SimSettings& settings) : settings_(settings), ties_(mix_hash(seed, 1)) {}

  SimSettings& settings() { return settings_; }
  const SimSettings& settings() const { return settings_; }
  Instant now() const { return now_; }
  // Requires: not before now().
  void advance_to(Instant when);

  // Runs `action` at or after `when`; those of one instant in random order.
  void at(Instant when, Action<> action);
  void after(Duration span, Action<> action) { at(now_ + span, std::move(action)); }
  std::optional<Instant> next_event() const;
  // Requires: next_event() is not after now().
  void run_next_event();

  void record(const TraceRecord& record) { trace_.record(now_, record); }
  void note(Place place, std::string_view text) { trace_.note(now_, place, text); }
  Trace& trace() { return trace_; }
  const Trace& trace() const { return trace_; }

  void injected(SimFault fault, uint32_t node);
  uint64_t injected_count(SimFault fault) const { return injected_[static_cast<size_t>(fault)]; }
  bool had_hard_fault(uint32_t node) const { return hard_.contains(node); }

  // The system under test broke a contract of a seam in a way that a run can survive: counted, noted, for the oracle.
  void violation(Place place, std::string_view what);
  uint64_t violations() const { return violations_; }

  // One more number: reveals that something was drawn which should not have been.
  uint64_t peek_random() const { return Prng(ties_).next(); }

 private:
  SimSettings settings_;
  Prng ties_;
  Instant now_;
  uint64_t sequence_ = 0;
  std::map<std::tuple<Instant, uint64_t, uint64_t>, Action<>> events_;  // when, tie, sequence
  Trace trace_;
  std::array<uint64_t, kSimFaultCount> injected_{};
  std::set<uint32_t> hard_;
  uint64_t violations_ = 0;
};

}  // namespace fairlead::sim
