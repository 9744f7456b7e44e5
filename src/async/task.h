// Task<T>: a lazy coroutine, started by co_await or by a Scope. Lives on one shard; its frame comes from the frame
// pool.
//
// The result moves out once. A Task that was never started may be dropped; one that was started runs to its end before
// its owner dies (a coroutine with I/O in flight is never destroyed: the kernel owns the buffer).
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "async/frame_pool.h"
#include "base/check.h"

namespace fairlead {

class Scope;
template <typename T>
class Task;

namespace detail {

class TaskPromiseBase {
 public:
  static void* operator new(size_t size) { return allocate_frame(size); }
  static void operator delete(void* frame, size_t size) noexcept { free_frame(frame, size); }

  std::suspend_always initial_suspend() const noexcept { return {}; }
  [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }

  struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
      TaskPromiseBase& promise = handle.promise();
      if (promise.scope_ != nullptr) return finish_in_scope(handle, *promise.scope_);
      return promise.continuation_;
    }
    void await_resume() const noexcept {}
  };
  FinalAwaiter final_suspend() const noexcept { return {}; }

  void set_continuation(std::coroutine_handle<> continuation) { continuation_ = continuation; }
  void set_scope(Scope& scope) { scope_ = &scope; }

 private:
  // Destroys the frame, then tells the scope. In scope.cc.
  static std::coroutine_handle<> finish_in_scope(std::coroutine_handle<> handle, Scope& scope) noexcept;

  std::coroutine_handle<> continuation_ = std::noop_coroutine();
  Scope* scope_ = nullptr;
};

template <typename T>
class TaskPromise final : public TaskPromiseBase {
 public:
  Task<T> get_return_object();
  template <typename U>
  void return_value(U&& value) {
    value_.emplace(std::forward<U>(value));
  }
  T take() {
    FL_CHECK(value_.has_value());
    return std::move(*value_);
  }

 private:
  std::optional<T> value_;
};

template <>
class TaskPromise<void> final : public TaskPromiseBase {
 public:
  Task<void> get_return_object();
  void return_void() const noexcept {}
  void take() const noexcept {}
};

}  // namespace detail

template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::TaskPromise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      destroy();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~Task() { destroy(); }

  // Starts the task and resumes the caller with its result.
  auto operator co_await() && noexcept {
    struct Awaiter {
      Handle handle;
      bool await_ready() const noexcept { return false; }
      Handle await_suspend(std::coroutine_handle<> caller) const noexcept {
        handle.promise().set_continuation(caller);
        return handle;
      }
      T await_resume() const { return handle.promise().take(); }
    };
    // Not "!= nullptr": that comparison would try the converting operator== of a T that is a Result.
    FL_CHECK(static_cast<bool>(handle_));
    return Awaiter{handle_};
  }

 private:
  friend class detail::TaskPromise<T>;
  friend class Scope;
  explicit Task(Handle handle) : handle_(handle) {}
  Handle release() { return std::exchange(handle_, nullptr); }
  void destroy() {
    if (handle_) handle_.destroy();
  }
  Handle handle_;
};

namespace detail {

template <typename T>
Task<T> TaskPromise<T>::get_return_object() {
  return Task<T>(std::coroutine_handle<TaskPromise>::from_promise(*this));
}
inline Task<void> TaskPromise<void>::get_return_object() {
  return Task<void>(std::coroutine_handle<TaskPromise>::from_promise(*this));
}

}  // namespace detail
}  // namespace fairlead
