// Mutex: what coroutines of one shard do one at a time, across suspensions. Lives on one shard.
#pragma once

#include <utility>

#include "async/event.h"
#include "async/task.h"

namespace fairlead {

//   const Mutex::Guard guard = co_await mutex.lock();
class Mutex {
 public:
  explicit Mutex(Reactor& reactor) : unlocked_(reactor) {}
  class Guard {
   public:
    explicit Guard(Mutex& mutex) : mutex_(&mutex) {}
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (mutex_ == nullptr) return;
      mutex_->is_locked_ = false;
      mutex_->unlocked_.release_waiters();
    }

   private:
    Mutex* mutex_;
  };
  Task<Guard> lock() {
    while (is_locked_) co_await unlocked_.wait();
    is_locked_ = true;
    co_return Guard(*this);
  }
  bool is_locked() const { return is_locked_; }

 private:
  bool is_locked_ = false;
  Event unlocked_;
};

}  // namespace fairlead
