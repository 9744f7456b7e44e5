// StoreGate: who is inside a store, so that its stop() can send them home and wait for them. Lives on one shard.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>

#include "async/cancel.h"
#include "async/event.h"
#include "async/task.h"
#include "base/check.h"

namespace fairlead::control {

class StoreGate {
 public:
  explicit StoreGate(Reactor& reactor) : idle_(reactor) { idle_.set(); }
  ~StoreGate() { FL_CHECK(inside_ == 0); }
  StoreGate(const StoreGate&) = delete;
  StoreGate& operator=(const StoreGate&) = delete;

  // Its owner is inside until it dies.
  class Pass {
   public:
    explicit Pass(StoreGate& gate) : gate_(&gate) {
      ++gate_->inside_;
      gate_->idle_.reset();
    }
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr && --gate_->inside_ == 0) gate_->idle_.set();
    }

   private:
    StoreGate* gate_;
  };
  // None: it is closed.
  std::optional<Pass> enter() {
    if (is_closed_) return std::nullopt;
    return Pass(*this);
  }

  bool is_closed() const { return is_closed_; }
  // Cancelled when it closes.
  CancelSource& closing() { return closing_; }

  // Lets nobody in, wakes who sleeps inside, waits until all have left. Idempotent.
  Task<void> close() {
    is_closed_ = true;
    closing_.cancel();
    co_await idle_.wait();
  }

 private:
  size_t inside_ = 0;
  bool is_closed_ = false;
  Event idle_;
  CancelSource closing_;
};

}  // namespace fairlead::control
