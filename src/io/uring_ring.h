// UringRing: one io_uring and what is registered with it. Lives on the thread that made it (SINGLE_ISSUER); nothing
// here may be called from another.
//
// Completions that the kernel has to finish in our context wait until we enter it (DEFER_TASKRUN), so nothing
// interrupts the shard; has_events() sees both kinds without a system call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <liburing.h>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "async/reactor.h"
#include "async/time.h"
#include "base/error.h"

namespace fairlead {

// One operation that the kernel works on; its address is the submission's user_data. Keep it, and what the submission
// points to, in place until `complete` is called for the last time.
struct UringOp {
  using Complete = void (*)(UringOp& op, int result, uint32_t flags);
  explicit UringOp(Complete function) : complete(function) {}
  // `result` is what the system call would return, or a negative errno; flags are IORING_CQE_F_*.
  Complete complete;
};

class UringRing {
 public:
  struct Options {
    unsigned entries = 512;              // submissions that wait for one io_uring_enter
    unsigned completion_entries = 4096;  // beyond it the kernel keeps them in a list: slower, not lost
    unsigned files = 1024;               // slots for registered files
    unsigned buffers = 2048;             // slots for registered buffers
  };
  // Errors: kNotSupported (no io_uring, or an old one), kPermissionDenied (switched off, or a seccomp profile);
  // the text says what to do.
  static Result<std::unique_ptr<UringRing>> create(Options options);
  ~UringRing();  // Requires: nothing in flight.
  UringRing(const UringRing&) = delete;
  UringRing& operator=(const UringRing&) = delete;

  // A submission to fill in by one of io_uring_prep_*(), before the next call of anything here. It never fails: when
  // the ring is full it waits in memory for the next submit(). Null: nobody waits for the outcome.
  io_uring_sqe* prepare(UringOp* op);
  // Asks the kernel to end `op` early; its completion still comes.
  void cancel(UringOp& op);

  // Hands over what was prepared and lets the kernel finish what it deferred. No system call when there is neither.
  void submit();
  // The same, then sleeps until a completion is there, the time is over, or a signal came. Empty: no limit.
  void wait(std::optional<Duration> limit);
  // Calls `complete` of up to `budget` operations that ended. Returns how many.
  size_t reap(size_t budget);

  // A completion is there, or can be had by submit(). Costs two loads.
  bool has_events() const;
  bool has_submissions() const { return io_uring_sq_ready(&ring_) != 0 || backlog_first_ != backlog_.size(); }
  size_t in_flight() const { return in_flight_; }

  // Slots for IOSQE_FIXED_FILE: empty when there is none left, and the caller uses the descriptor itself. Before Linux
  // 6.10 the kernel may keep the file for a second after the slot is given back: never register what carries a claim,
  // and never let a long-lived operation use a slot.
  std::optional<int> register_file(int descriptor);
  void unregister_file(int slot);

  // Pins memory for READ_FIXED and WRITE_FIXED as buffer `index`. False (and one line in the log): the limit of locked
  // memory is reached, or no slot is left; plain reads and writes do as well.
  bool register_buffer(size_t index, std::span<std::byte> memory);
  bool is_registered(size_t index) const { return index < buffer_registered_.size() && buffer_registered_[index]; }

 private:
  UringRing() = default;
  void register_tables(const Options& options);
  void move_backlog();

  io_uring ring_{};
  size_t in_flight_ = 0;
  std::vector<io_uring_sqe> backlog_;  // [backlog_first_, end): submissions that found the ring full
  size_t backlog_first_ = 0;
  std::vector<int> free_files_;
  std::vector<bool> buffer_registered_;
  bool registration_failure_told_ = false;
};

// co_await of one operation: prepare the submission first, then wait for its result.
//   UringWait wait(reactor);
//   io_uring_prep_connect(ring.prepare(&wait), …);
//   const int result = co_await wait;
class UringWait : public UringOp {
 public:
  explicit UringWait(Reactor& reactor) : UringOp(on_complete), reactor_(reactor) {}
  UringWait(const UringWait&) = delete;
  UringWait& operator=(const UringWait&) = delete;

  bool await_ready() const noexcept { return done_; }
  void await_suspend(std::coroutine_handle<> caller) { resumption_.handle = caller; }
  int await_resume() const noexcept { return result_; }

 private:
  static void on_complete(UringOp& op, int result, uint32_t) {
    auto& self = static_cast<UringWait&>(op);
    self.result_ = result;
    self.done_ = true;
    if (self.resumption_.handle) self.reactor_.post(self.resumption_);
  }
  Reactor& reactor_;
  Resumption resumption_;
  int result_ = 0;
  bool done_ = false;
};

}  // namespace fairlead
