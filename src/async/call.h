// Calls between shards: a task runs on another shard's reactor and its result comes back. No lock; a bounded mailbox
// each way. Calls between shards form a DAG: while a shard serves a call it makes none that leads back to its caller.
#pragma once

#include <coroutine>

#include "async/reactor.h"
#include "async/task.h"
#include "base/fault.h"

namespace fairlead {

// co_await MoveTo(from, to): the coroutine goes on on `to`'s thread. Waits in turns of `from` while the mailbox is
// full.
class MoveTo {
 public:
  MoveTo(Reactor& from, Reactor& to) : from_(from), to_(to) {}
  MoveTo(const MoveTo&) = delete;
  MoveTo& operator=(const MoveTo&) = delete;

  bool await_ready() const noexcept { return &from_ == &to_; }
  void await_suspend(std::coroutine_handle<> handle) {
    arrival_.handle = handle;
    retry_.move = this;
    try_to_send();
  }
  void await_resume() const noexcept {}

 private:
  struct Retry : Runnable {
    Retry() : Runnable([](Runnable& self) { static_cast<Retry&>(self).move->try_to_send(); }) {}
    MoveTo* move = nullptr;
  };
  // After a send that worked nothing here may be touched: the other thread may have resumed, and ended, the coroutine.
  void try_to_send() {
    Reactor& from = from_;
    if (to_.send(arrival_)) return;
    probe(Probe::kMailboxWait);
    from.post(retry_);
  }

  Reactor& from_;
  Reactor& to_;
  Resumption arrival_;
  Retry retry_;
};

// Runs `task` on `to` and gives its result on `from`, the caller's shard. The task's frame is freed on `from`: what it
// took by value must be free to die there.
template <typename T>
Task<T> call_on(Reactor& from, Reactor& to, Task<T> task) {
  co_await MoveTo(from, to);
  if constexpr (std::is_void_v<T>) {
    co_await std::move(task);
    co_await MoveTo(to, from);
  } else {
    T result = co_await std::move(task);
    co_await MoveTo(to, from);
    co_return result;
  }
}

}  // namespace fairlead
