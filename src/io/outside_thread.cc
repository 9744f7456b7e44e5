#include "io/outside_thread.h"

#include <pthread.h>
#include <thread>

#include "base/check.h"
#include "base/fault.h"

namespace fairlead {

void deliver(Reactor& reactor, Runnable& runnable) {
  // A full mailbox is emptied by one turn of the shard's loop.
  constexpr auto kPause = std::chrono::microseconds(50);
  while (!reactor.send(runnable)) {
    probe(Probe::kMailboxWait);
    std::this_thread::sleep_for(kPause);  // lint: allow(sleep) nothing tells other threads that a mailbox has room
  }
}

Inlet::~Inlet() {
  // Some instructions away from its end: its runnable ran here already.
  while (inside_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
}

void Inlet::deliver(Runnable& runnable) {
  inside_.fetch_add(1, std::memory_order_relaxed);
  fairlead::deliver(home_, runnable);
  inside_.fetch_sub(1, std::memory_order_release);
}

SignalsBlocked::SignalsBlocked() {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  FL_CHECK(::pthread_sigmask(SIG_BLOCK, &watched, &before_) == 0);
}

SignalsBlocked::~SignalsBlocked() { FL_CHECK(::pthread_sigmask(SIG_SETMASK, &before_, nullptr) == 0); }

}  // namespace fairlead
