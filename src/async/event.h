// Event: a flag that coroutines wait for. Lives on one shard; waiters resume through the ready queue.
#pragma once

#include <coroutine>

#include "async/reactor.h"
#include "base/intrusive_list.h"

namespace fairlead {

class Event {
 public:
  explicit Event(Reactor& reactor) : reactor_(reactor) {}

  bool is_set() const { return set_; }
  void set() {
    set_ = true;
    release_waiters();
  }
  void reset() { set_ = false; }
  // Resumes those who wait now, and leaves the flag as it is.
  void release_waiters() {
    while (!waiters_.empty()) reactor_.post(waiters_.pop_front());
  }

  class Wait : public Resumption {
   public:
    explicit Wait(Event& event) : event_(event) {}
    bool await_ready() const noexcept { return event_.set_; }
    void await_suspend(std::coroutine_handle<> caller) {
      handle = caller;
      event_.waiters_.push_back(*this);
    }
    void await_resume() const noexcept {}

   private:
    Event& event_;
  };
  // co_await event.wait(): at once when set, else on the next set() or release_waiters(). What the event stands for may
  // have changed again by then: look.
  Wait wait() { return Wait(*this); }

 private:
  Reactor& reactor_;
  IntrusiveList<Runnable, Runnable> waiters_;
  bool set_ = false;
};

}  // namespace fairlead
