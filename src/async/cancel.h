// Cancellation: a request, seen at suspension points. The source is owned by who may ask; tokens borrow it. One shard.
#pragma once

#include "async/reactor.h"
#include "async/task.h"
#include "async/time.h"
#include "base/error.h"
#include "base/intrusive_list.h"

namespace fairlead {

// Called once when its source is cancelled; unlinks itself when it dies.
class CancelHook : public ListNode<CancelHook> {
 public:
  using Function = void (*)(CancelHook&);
  explicit CancelHook(Function function) : function_(function) {}
  void run() { function_(*this); }

 private:
  Function function_;
};

class CancelSource {
 public:
  // Idempotent. Hooks run here and now: they only post.
  void cancel() {
    cancelled_ = true;
    while (!hooks_.empty()) hooks_.pop_front().run();
  }
  bool is_cancelled() const { return cancelled_; }

  // Requires: not cancelled yet.
  void add(CancelHook& hook) {
    FL_CHECK(!cancelled_);
    hooks_.push_back(hook);
  }
  void remove(CancelHook& hook) {
    if (hook.is_linked()) hooks_.remove(hook);
  }

 private:
  bool cancelled_ = false;
  IntrusiveList<CancelHook, CancelHook> hooks_;
};

// co_await sleep(reactor, span): done after it. With a source: kCancelled as soon as that is cancelled.
class Sleep {
 public:
  Sleep(Reactor& reactor, Duration span, CancelSource* source) : reactor_(reactor), span_(span), source_(source) {}
  Sleep(const Sleep&) = delete;
  Sleep& operator=(const Sleep&) = delete;

  bool await_ready() const noexcept { return source_ != nullptr && source_->is_cancelled(); }
  void await_suspend(std::coroutine_handle<> caller) {
    timer_.sleep = this;
    hook_.sleep = this;
    caller_ = caller;
    reactor_.arm(timer_, span_);
    if (source_ != nullptr) source_->add(hook_);
  }
  Result<void> await_resume() const {
    if (source_ != nullptr && source_->is_cancelled()) return fail(Code::kCancelled);
    return {};
  }

 private:
  struct Alarm : Timer {
    Alarm() : Timer([](Runnable& self) { static_cast<Alarm&>(self).sleep->on_alarm(); }) {}
    Sleep* sleep = nullptr;
  };
  struct Hook : CancelHook {
    Hook() : CancelHook([](CancelHook& self) { static_cast<Hook&>(self).sleep->on_cancel(); }) {}
    Sleep* sleep = nullptr;
  };
  void on_alarm() {
    if (source_ != nullptr) source_->remove(hook_);
    caller_.resume();
  }
  // The timer, fired at once, resumes the caller through the ready queue.
  void on_cancel() {
    reactor_.disarm(timer_);
    reactor_.post(timer_);
  }

  Reactor& reactor_;
  Duration span_;
  CancelSource* source_;
  std::coroutine_handle<> caller_;
  Alarm timer_;
  Hook hook_;
};
inline Sleep sleep(Reactor& reactor, Duration span) { return Sleep(reactor, span, nullptr); }
inline Sleep sleep(Reactor& reactor, Duration span, CancelSource& source) { return Sleep(reactor, span, &source); }

}  // namespace fairlead
