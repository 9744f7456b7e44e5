// What a thread needs that belongs to no shard and yet works for one: a Worker's, and those that a library makes.
#pragma once

#include <atomic>
#include <csignal>
#include <cstdint>

#include "async/reactor.h"

namespace fairlead {

// Runs `runnable` on `reactor`; waits while its mailbox is full. Requires: not called on the reactor's own thread,
// which alone makes room. `runnable` may be gone when this returns.
void deliver(Reactor& reactor, Runnable& runnable);

// deliver() for threads that nobody here can join: it sees the last of them out. Made and destroyed on the shard of
// `home`.
class Inlet {
 public:
  explicit Inlet(Reactor& home) : home_(home) {}
  // Waits until every thread whose runnable has run is out of deliver(). Requires: nobody calls it any more.
  ~Inlet();
  Inlet(const Inlet&) = delete;
  Inlet& operator=(const Inlet&) = delete;

  Reactor& home() const { return home_; }
  // From any thread but home's own. The Inlet may be gone when this returns.
  void deliver(Runnable& runnable);

 private:
  Reactor& home_;
  std::atomic<uint32_t> inside_ = 0;
};

// While it lives, SIGINT and SIGTERM are blocked in this thread, and so in the threads that it makes (for ever): they
// are for a SignalWatch. Lives on one thread.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace fairlead
