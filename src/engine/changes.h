// Changes: that something is not as it was: a volume, a replica, a pool. Home shard.
#pragma once

#include "async/event.h"

namespace fairlead::engine {

class Changes {
 public:
  explicit Changes(Reactor& reactor) : event_(reactor) {}
  void tell() {
    ++count_;
    event_.release_waiters();
  }
  // Another one after each change.
  uint64_t count() const { return count_; }
  // Released by each.
  Event& event() { return event_; }

 private:
  uint64_t count_ = 0;
  Event event_;
};

}  // namespace fairlead::engine
