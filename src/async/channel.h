// Channel<T>: a bounded queue between coroutines of one shard.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "async/event.h"
#include "async/task.h"
#include "base/check.h"

namespace fairlead {

template <typename T>
class Channel {
 public:
  Channel(Reactor& reactor, size_t capacity) : slots_(capacity), not_empty_(reactor), not_full_(reactor) {
    FL_CHECK(capacity > 0);
  }
  ~Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // False: full or closed; `value` is untouched then.
  bool try_send(T& value) {
    if (closed_ || count_ == slots_.size()) return false;
    slots_[(first_ + count_++) % slots_.size()].emplace(std::move(value));
    not_empty_.release_waiters();
    return true;
  }
  std::optional<T> try_receive() {
    if (count_ == 0) return std::nullopt;
    std::optional<T> value = std::exchange(slots_[first_], std::nullopt);
    first_ = (first_ + 1) % slots_.size();
    --count_;
    not_full_.release_waiters();
    return value;
  }

  // Waits for room. False: the channel was closed and the value dropped.
  Task<bool> send(T value) {
    while (!try_send(value)) {
      if (closed_) co_return false;
      co_await not_full_.wait();
    }
    co_return true;
  }
  // Waits for a value. Empty: the channel is closed and drained.
  Task<std::optional<T>> receive() {
    while (true) {
      if (std::optional<T> value = try_receive(); value.has_value()) co_return value;
      if (closed_) co_return std::nullopt;
      co_await not_empty_.wait();
    }
  }

  // Senders fail from now on; receivers get what is left.
  void close() {
    closed_ = true;
    not_empty_.release_waiters();
    not_full_.release_waiters();
  }
  bool is_closed() const { return closed_; }
  size_t size() const { return count_; }

 private:
  std::vector<std::optional<T>> slots_;
  size_t first_ = 0;
  size_t count_ = 0;
  bool closed_ = false;
  Event not_empty_;
  Event not_full_;
};

}  // namespace fairlead
