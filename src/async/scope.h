// Scope: owns spawned tasks. Its close waits for all of them; its destructor checks that none is left. Lives on one
// shard.
#pragma once

#include <cstddef>

#include "async/event.h"
#include "async/reactor.h"
#include "async/task.h"

namespace fairlead {

class Scope {
 public:
  explicit Scope(Reactor& reactor) : reactor_(reactor), idle_(reactor) { idle_.set(); }
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // Starts the task on its first turn of the ready queue. Parameters that the task took by reference must outlive
  // close().
  void spawn(Task<void> task);

  // Waits until no task is left. Cancels nothing: ask the tasks to end first. Tasks may still spawn others while it
  // waits.
  Task<void> close();

  size_t running() const { return running_; }
  Reactor& reactor() const { return reactor_; }

 private:
  friend class detail::TaskPromiseBase;
  void on_finished() noexcept;

  Reactor& reactor_;
  Event idle_;
  size_t running_ = 0;
};

}  // namespace fairlead
