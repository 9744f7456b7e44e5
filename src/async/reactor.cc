#include "async/reactor.h"

#include <utility>

#include "base/check.h"
#include "base/fault.h"

namespace fairlead {

Timer::~Timer() { FL_CHECK(!is_armed()); }

Reactor::Reactor(Options options) : options_(options), mailbox_(options.mailbox_capacity) {}

Reactor::~Reactor() {
  FL_CHECK(heap_.empty());
  FL_CHECK(ready_.empty());
}

void Reactor::unpost(Runnable& runnable) {
  if (!runnable.is_linked()) return;
  ready_.remove(runnable);
  --ready_count_;
}

bool Reactor::send(Runnable& runnable) {
  if (fault(FaultPoint::kMailboxFull)) return false;
  if (!mailbox_.try_push(runnable)) return false;
  if (options_.waker != nullptr) options_.waker->wake();
  return true;
}

void Reactor::take_mail() {
  while (Runnable* const runnable = mailbox_.try_pop()) post(*runnable);
}

size_t Reactor::run_ready(size_t budget) {
  take_mail();
  size_t ran = 0;
  for (; ran < budget && !ready_.empty(); ++ran) {
    Runnable* next = &ready_.front();
    if (options_.order != nullptr && ready_count_ > 1) {
      auto at = ready_.begin();
      for (size_t skip = options_.order->pick(ready_count_); skip > 0; --skip) ++at;
      next = &*at;
    }
    ready_.remove(*next);
    --ready_count_;
    next->run();
  }
  return ran;
}

void Reactor::place(size_t slot, Timer* timer) {
  heap_[slot] = timer;
  timer->slot_ = slot;
}

void Reactor::sift_up(size_t slot) {
  Timer* const timer = heap_[slot];
  while (slot > 0) {
    const size_t parent = (slot - 1) / 2;
    if (heap_[parent]->deadline_ <= timer->deadline_) break;
    place(slot, heap_[parent]);
    slot = parent;
  }
  place(slot, timer);
}

void Reactor::sift_down(size_t slot) {
  Timer* const timer = heap_[slot];
  while (true) {
    size_t child = 2 * slot + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->deadline_ < heap_[child]->deadline_) ++child;
    if (timer->deadline_ <= heap_[child]->deadline_) break;
    place(slot, heap_[child]);
    slot = child;
  }
  place(slot, timer);
}

void Reactor::arm(Timer& timer, Instant deadline) {
  disarm(timer);
  timer.deadline_ = deadline;
  heap_.push_back(&timer);
  sift_up(heap_.size() - 1);
}

void Reactor::disarm(Timer& timer) {
  unpost(timer);  // it may have expired and wait in the ready queue
  if (!timer.is_armed()) return;
  const size_t slot = std::exchange(timer.slot_, Timer::kUnarmed);
  Timer* const last = heap_.back();
  heap_.pop_back();
  if (last == &timer) return;
  place(slot, last);
  sift_down(slot);
  sift_up(last->slot_);
}

void Reactor::expire_timers() {
  while (!heap_.empty() && heap_.front()->deadline_ <= now_) {
    Timer& timer = *heap_.front();
    disarm(timer);
    post(timer);
  }
}

std::optional<Instant> Reactor::next_deadline() const {
  if (heap_.empty()) return std::nullopt;
  return heap_.front()->deadline_;
}

}  // namespace fairlead
