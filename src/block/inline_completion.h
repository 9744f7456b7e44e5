// InlineCompletion: how a device that is done at once says so. Lives on one shard, in its device.
#pragma once

#include "async/reactor.h"
#include "base/fault.h"
#include "base/intrusive_list.h"
#include "io/request.h"

namespace fairlead {

// Completes at once; at fault point kDelayCompletion on another turn of the ready queue, so that simulations also meet
// callers that lean on the one or the other.
class InlineCompletion {
 public:
  explicit InlineCompletion(Reactor& reactor) : reactor_(reactor) { later_.owner = this; }
  InlineCompletion(const InlineCompletion&) = delete;
  InlineCompletion& operator=(const InlineCompletion&) = delete;

  void complete(IoRequest& request, Result<void> outcome = {}) {
    if (!fault(FaultPoint::kDelayCompletion)) {
      request.complete(outcome);
      return;
    }
    request.result = outcome;
    delayed_.push_back(request);
    if (!later_.is_linked()) reactor_.post(later_);
  }

 private:
  struct Later : Runnable {
    Later() : Runnable([](Runnable& self) { static_cast<Later&>(self).owner->complete_one(); }) {}
    InlineCompletion* owner = nullptr;
  };
  // One a turn; the last use of `this` comes before `done`, which may end the device's use.
  void complete_one() {
    IoRequest& request = delayed_.pop_front();
    if (!delayed_.empty()) reactor_.post(later_);
    request.complete(request.result);
  }

  Reactor& reactor_;
  IntrusiveList<IoRequest> delayed_;
  Later later_;
};

}  // namespace fairlead
