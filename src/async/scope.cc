#include "async/scope.h"

#include <memory>

namespace fairlead {
namespace {

// The first step of a spawned task: kept apart from the frame, which is not ours to extend.
struct Start final : Runnable {
  explicit Start(std::coroutine_handle<> h)
      : Runnable([](Runnable& self) {
          auto* const start = static_cast<Start*>(&self);
          const std::coroutine_handle<> task = start->handle;
          delete start;  // lint: allow(raw_new) spawn() gave it away to the ready queue
          task.resume();
        }),
        handle(h) {}
  static void* operator new(size_t size) { return allocate_frame(size); }
  static void operator delete(void* memory, size_t size) noexcept { free_frame(memory, size); }
  std::coroutine_handle<> handle;
};

}  // namespace

namespace detail {

std::coroutine_handle<> TaskPromiseBase::finish_in_scope(std::coroutine_handle<> handle, Scope& scope) noexcept {
  handle.destroy();
  scope.on_finished();
  return std::noop_coroutine();
}

}  // namespace detail

Scope::~Scope() { FL_CHECK(running_ == 0); }

void Scope::spawn(Task<void> task) {
  const auto handle = task.release();
  FL_CHECK(handle != nullptr);
  handle.promise().set_scope(*this);
  if (running_++ == 0) idle_.reset();
  reactor_.post(*std::make_unique<Start>(handle).release());
}

void Scope::on_finished() noexcept {
  FL_CHECK(running_ > 0);
  if (--running_ == 0) idle_.set();
}

Task<void> Scope::close() {
  while (running_ != 0) co_await idle_.wait();
}

}  // namespace fairlead
