// Lease: how long a leader may be sure that nobody else leads, by its own clock. Lives on one shard.
//
// Whoever extends it counts from before it asked, and keeps a margin: then the store's own count ends later.
#pragma once

#include "async/event.h"
#include "async/reactor.h"
#include "io/shard.h"

namespace fairlead::control {

class Lease {
 public:
  explicit Lease(Shard& shard) : reactor_(shard.reactor), clock_(shard.clock), lost_(shard.reactor), alarm_(*this) {}
  ~Lease() { reactor_.disarm(alarm_); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  void begin(Instant until) {
    is_held_ = true;
    lost_.reset();
    until_ = until;
    reactor_.arm(alarm_, until_);
  }
  // No effect on one that has ended.
  void extend(Instant until) {
    if (!is_held()) return;
    until_ = until;
    reactor_.arm(alarm_, until_);
  }
  void end() {
    is_held_ = false;
    reactor_.disarm(alarm_);
    lost_.set();
  }

  // Looks at the clock: right also for a process that has just been stopped for a while.
  bool is_held() const { return is_held_ && clock_.now() < until_; }
  // Set at its end, until it begins again.
  Event& lost() { return lost_; }

 private:
  struct Alarm : Timer {
    explicit Alarm(Lease& l) : Timer([](Runnable& self) { static_cast<Alarm&>(self).lease.end(); }), lease(l) {}
    Lease& lease;
  };

  Reactor& reactor_;
  Clock& clock_;
  bool is_held_ = false;
  Instant until_;
  Event lost_;
  Alarm alarm_;
};

}  // namespace fairlead::control
