// Alarm: resumes those who wait for an event when a moment has come, so that they look again. Armed for as long as it
// lives; lives on the event's shard.
#pragma once

#include "async/event.h"
#include "async/reactor.h"

namespace fairlead {

class Alarm : private Timer {
 public:
  // Both are borrowed for life.
  Alarm(Reactor& reactor, Event& event, Instant at)
      : Timer([](Runnable& self) { static_cast<Alarm&>(self).event_.release_waiters(); }),
        reactor_(reactor),
        event_(event) {
    reactor_.arm(*this, at);
  }
  ~Alarm() { reactor_.disarm(*this); }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

 private:
  Reactor& reactor_;
  Event& event_;
};

}  // namespace fairlead
