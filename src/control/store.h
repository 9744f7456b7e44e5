// Store: where the control plane keeps what must not be lost: keys and values, changed in transactions. One control
// process leads at a time; only the leader changes anything, and each transaction holds only if it still leads.
//
// One shard. Life-cycle: make, lead(), the rest, stop(), destroy. Keys are "kind/name", values JSON.
//
// Errors of all tasks: kUnreachable, kTimedOut, kIo, kNoSpace, kCorrupt, kShuttingDown. A commit that ends with
// kTimedOut, kIo or kShuttingDown may have been done: read again. None of them ends leadership: leads() tells.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/task.h"
#include "base/problem.h"

namespace fairlead::control {

struct Entry {
  std::string key;
  std::string value;
  uint64_t revision = 0;  // of the commit that wrote it: later ones have higher ones; never 0
  friend bool operator==(const Entry&, const Entry&) = default;
};

struct Write {
  std::string key;
  std::optional<std::string> value;  // none: it is deleted
  // It holds only if the key has this revision now; 0: is not there. None: whatever it has.
  std::optional<uint64_t> expected = {};
};

// What the store knows of itself.
inline constexpr size_t kWritesMax = 64;
inline constexpr size_t kKeyBytesMax = 512;
inline constexpr size_t kValueBytesMax = 256 * 1024;
inline constexpr size_t kTransactionBytesMax = 1024 * 1024;  // keys and values of all its writes
// What every store refuses. Errors: kInvalidArgument (none or too many, a key twice, an empty or long key, a long
// value, too many bytes).
Outcome<void> check(const std::vector<Write>& writes);
// The least key behind all those that begin with `prefix`; empty: there is none.
std::string end_of_prefix(std::string prefix);

struct Leadership {
  // One more each time that somebody begins to lead: what engines and the store tell leaders apart by. The upper half
  // is the epoch.
  uint64_t number = 0;
  // Drawn when the store was made: another one means that this store has forgotten all that an earlier one knew.
  // Seconds since 1970, so that a later one is higher.
  uint32_t epoch = 0;
};

class Store {
 public:
  virtual ~Store() = default;  // Requires: stop() returned.

  // Waits until this process leads. Errors besides: kShuttingDown, kBusy (another process has the store, and it cannot
  // be waited for). Requires: it does not lead, and does not wait already. May be called again when it led.
  virtual Task<Outcome<Leadership>> lead() = 0;
  // Whether it led, and is still sure that no other does.
  virtual bool leads() const = 0;
  // Set when leads() has become false, until lead() returns the next time.
  virtual Event& lost() = 0;
  // Where the leader can be reached, by what it gave as its address; empty: nobody knows. Not only for the leader. May
  // be that of one that has just died.
  virtual Task<Outcome<std::string>> leader_address() = 0;

  // Keys that begin so, in order, as of one moment.
  virtual Task<Outcome<std::vector<Entry>>> list(std::string prefix) = 0;
  // All or nothing, on stable storage; returns the revision (of one that changed nothing: that of the last commit may
  // do). Errors besides: kInvalidArgument (by check()), kMiscompare (an expectation does not hold), kFenced (it does
  // not lead, or not any more).
  virtual Task<Outcome<uint64_t>> commit(std::vector<Write> writes) = 0;

  // Leads no more, so that another may at once; what is under way has ended when it returns, what is asked later ends
  // with kShuttingDown. Idempotent. Called once at a time.
  virtual Task<void> stop() = 0;
};

}  // namespace fairlead::control
