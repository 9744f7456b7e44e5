// RemoteDevice: a namespace of a subsystem as a BlockDevice, over as many paths as there are. Lives on one shard.
//
// Requests are split at what the controllers take, and go to the best path (ANA optimized before non-optimized, then
// the fewest commands in flight). When a path is lost, what it had in flight goes on elsewhere:
//   - what was not sent, and what changes nothing (read, flush, compare): at once;
//   - writes, write zeroes, discards: as soon as every shard of this host keeps what overlaps them from being sent,
//     until the lost controller can execute them no more (SubsystemOptions::quiesce). So no write of this host is ever
//     overwritten by an older one that a dead connection left behind.
// Requests that overlap each other while they are in flight have no order, before and after a path is lost.
//
// With OnLoss::kFail none of this: a request belongs to the connection that it was begun on, and ends with it.
//
// While no path is of use requests wait, for at most no_path_timeout since the last one was lost; then they, and later
// ones, fail with kUnreachable until a path is back. A namespace that no connected controller has any more: kNotFound.
#pragma once

#include <optional>
#include <vector>

#include "async/task.h"
#include "block/block_device.h"
#include "block/slot_pool.h"
#include "host/command.h"
#include "host/shard_paths.h"

namespace fairlead::host {

class RemoteDevice final : public BlockDevice {
 public:
  // Requires: `paths` outlives it.
  RemoteDevice(ShardPaths& paths, const NamespaceInfo& info);
  ~RemoteDevice() override;

  const NamespaceIdentity& identity() const { return identity_; }

  // Whether the medium holds these bytes: error kMiscompare when not; kNotSupported when a controller has no Compare.
  // `buffers` and what it points to are borrowed until then.
  Task<Result<void>> compare(ByteOffset offset, std::span<const iovec> buffers);

  struct Statistics {
    uint64_t resent = 0;   // commands that a lost path left open, or that a path refused, and that went out again
    uint64_t held = 0;     // times that an operation waited for a path
    uint64_t fenced = 0;   // times that an operation waited for a command of a lost path
    uint64_t retried = 0;  // commands that failed for a while and went out again
  };
  const Statistics& statistics() const { return statistics_; }

  // For ShardPaths.

  // Another path, other states, another size, fewer fences: looks again.
  void paths_changed();
  // Adds what the lost path left open.
  void list_open(size_t path, std::vector<Fence>& out);
  void resume(size_t path);

 private:
  enum class Kind : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes, kCompare };
  struct Job;
  struct Operation;

  void execute(IoRequest& request) override;
  void start(IoRequest& request, Kind kind);
  void pump(Job& job);
  void issue(Job& job);
  bool takes_zeroes() const;
  uint64_t piece_max(Kind kind) const;
  uint64_t bytes_max(const Operation& operation) const;
  void prepare(Operation& operation);
  void prepare_data(Operation& operation);
  void dispatch(Operation& operation);
  std::optional<size_t> choose(const Operation& operation);
  void hold(Operation& operation);
  void lose(Operation& operation);
  static void on_done(Command& command);
  void on_answer(Operation& operation);
  void on_path_error(Operation& operation);
  void end(Operation& operation, Result<void> result);
  void read_states();
  void on_hold_over();
  void on_retry();
  bool is_stuck_too_long() const;

  struct HoldAlarm : Timer {
    explicit HoldAlarm(RemoteDevice& d)
        : Timer([](Runnable& self) { static_cast<HoldAlarm&>(self).device.on_hold_over(); }), device(d) {}
    RemoteDevice& device;
  };
  struct RetryAlarm : Timer {
    explicit RetryAlarm(RemoteDevice& d)
        : Timer([](Runnable& self) { static_cast<RetryAlarm&>(self).device.on_retry(); }), device(d) {}
    RemoteDevice& device;
  };

  ShardPaths& paths_;
  Reactor& reactor_;
  const NamespaceIdentity identity_;
  const bool fails_on_loss_;       // OnLoss::kFail: there is one path
  std::vector<PathState> states_;  // by path
  size_t last_path_ = 0;
  bool is_gone_ = false;
  bool refuses_zeroes_ = false;         // Write Zeroes, though the controllers have it
  std::optional<Instant> stuck_since_;  // no path is of use
  SlotPool<Job> jobs_;
  SlotPool<Operation> operations_;
  IntrusiveList<Operation> held_;    // for a path
  IntrusiveList<Operation> open_;    // their path was lost while they were under way
  IntrusiveList<Operation> fenced_;  // overlap what may yet be executed
  IntrusiveList<Operation> delayed_;
  HoldAlarm hold_alarm_{*this};
  RetryAlarm retry_alarm_{*this};
  Statistics statistics_;
};

}  // namespace fairlead::host
