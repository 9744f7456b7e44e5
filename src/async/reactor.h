// Reactor: the ready queue, the timers and the mailbox of one shard. It polls no device itself: a driver (io_uring's
// event loop, or the simulator) calls run_ready() and expire_timers() and brings completions in by post().
//
// Lives on one shard; only send() and the waker may be used from other threads.
#pragma once

#include <coroutine>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "async/mailbox.h"
#include "async/time.h"
#include "base/intrusive_list.h"

namespace fairlead {

// Something that runs once on a reactor each time it is posted. Borrowed by the queue until it ran: it must not move
// or die while is_linked().
class Runnable : public ListNode<Runnable> {
 public:
  using Function = void (*)(Runnable&);
  explicit Runnable(Function function) : function_(function) {}
  void run() { function_(*this); }

 private:
  Function function_;
};

// Resumes a coroutine; awaiters keep one as a member.
class Resumption : public Runnable {
 public:
  Resumption() : Runnable([](Runnable& self) { static_cast<Resumption&>(self).handle.resume(); }) {}
  std::coroutine_handle<> handle;
};

// Fires once, at or after its deadline, on the reactor's shard. Disarm it before it dies.
class Timer : public Runnable {
 public:
  using Runnable::Runnable;
  ~Timer();
  bool is_armed() const { return slot_ != kUnarmed; }

 private:
  friend class Reactor;
  static constexpr size_t kUnarmed = ~size_t{0};
  size_t slot_ = kUnarmed;
  Instant deadline_;
};

// Wakes the thread that drives a reactor, from any thread.
class Waker {
 public:
  virtual ~Waker() = default;
  virtual void wake() noexcept = 0;
};

// Chooses which of the ready runnables goes next: the simulator's way to try other orders.
class ReadyOrder {
 public:
  virtual ~ReadyOrder() = default;
  // Requires: count > 0. Returns a number below it.
  virtual size_t pick(size_t count) = 0;
};

class Reactor {
 public:
  struct Options {
    size_t mailbox_capacity = 1024;  // power of two
    Waker* waker = nullptr;          // borrowed for life; null: the driver looks at the mailbox by itself
    ReadyOrder* order = nullptr;     // borrowed for life; null: first come, first served
  };
  explicit Reactor(Options options);
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // Requires: not linked already.
  void post(Runnable& runnable) {
    ready_.push_back(runnable);
    ++ready_count_;
  }
  // Takes back what was posted and has not run. No effect when it is not linked.
  void unpost(Runnable& runnable);

  // From any thread: runs `runnable` on this reactor. False: the mailbox is full, try again later.
  bool send(Runnable& runnable);

  // Arms (again) a timer. The deadline may be in the past: it fires on the next expire_timers().
  void arm(Timer& timer, Instant deadline);
  void arm(Timer& timer, Duration from_now) { arm(timer, now_ + from_now); }
  void disarm(Timer& timer);

  // The time of this turn of the loop: one reading of the clock for everything that happens in it.
  Instant now() const { return now_; }

  // For the driver.
  void set_now(Instant now) { now_ = now; }
  bool has_ready() const { return !ready_.empty(); }
  bool has_mail() const { return !mailbox_.empty(); }
  // Runs what is ready, at most `budget` runnables, mail first. Returns how many ran.
  size_t run_ready(size_t budget);
  // Posts the timers whose deadline is not after now().
  void expire_timers();
  std::optional<Instant> next_deadline() const;

 private:
  void take_mail();
  void sift_up(size_t slot);
  void sift_down(size_t slot);
  void place(size_t slot, Timer* timer);

  Options options_;
  Instant now_;
  IntrusiveList<Runnable, Runnable> ready_;
  size_t ready_count_ = 0;
  std::vector<Timer*> heap_;  // binary heap by deadline; timers know their slot
  Mailbox<Runnable> mailbox_;
};

// co_await yield(reactor): lets everything that is ready go first.
class Yield {
 public:
  explicit Yield(Reactor& reactor) : reactor_(reactor) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    resumption_.handle = handle;
    reactor_.post(resumption_);
  }
  void await_resume() const noexcept {}

 private:
  Reactor& reactor_;
  Resumption resumption_;
};
inline Yield yield(Reactor& reactor) { return Yield(reactor); }

}  // namespace fairlead
