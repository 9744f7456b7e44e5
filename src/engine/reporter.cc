#include "engine/reporter.h"

#include <algorithm>

#include "base/log.h"

namespace fairlead::engine {
namespace {

constexpr Duration kIntervalMin = Reporter::kGap;
constexpr Duration kIntervalMax = std::chrono::seconds(10);

// Stands for no number of changes.
constexpr uint64_t kAnyChange = UINT64_MAX;

}  // namespace

Task<void> Reporter::stop() {
  is_stopping_ = true;
  wake();
  co_await scope_.close();
}

Task<void> Reporter::run() {
  bool is_last = false;
  while (!is_last) {
    is_last = is_stopping_;
    const Instant began = home_.clock.now();
    const uint64_t changes = management_.changes().count();
    co_await report();
    co_await wait_until(began + kGap, kAnyChange);
    if (known_ != 0 || !is_heard_) co_await wait_until(began + interval_, is_heard_ ? changes : kAnyChange);
  }
}

// While there were no more changes than that; to the end, when it is kAnyChange.
Task<void> Reporter::wait_until(Instant until, uint64_t changes) {
  while (!is_stopping_ && home_.clock.now() < until) {
    if (changes != kAnyChange && management_.changes().count() != changes) co_return;
    home_.reactor.arm(alarm_, until);
    co_await management_.changes().event().wait();
    home_.reactor.disarm(alarm_);
  }
}

// What nobody tells of, figures on the move, is looked for less and less often while none moves: to describe all that
// there is takes a while.
v1::ReportRequest Reporter::look() {
  const Instant now = home_.clock.now();
  const uint64_t changes = management_.changes().count();
  if (known_ != 0 && changes == looked_at_ && now < next_look_) return management_.sign_of_life();
  v1::ReportRequest request = management_.report(known_);
  look_gap_ = request.has_state() ? interval_ : std::min(look_gap_ * 2, std::max(kLookGapMax, interval_));
  next_look_ = now + look_gap_;
  looked_at_ = changes;
  return request;
}

Task<void> Reporter::report() {
  v1::ReportRequest request = look();
  const uint64_t sequence = request.sequence();
  const auto reply =
      co_await control_.call<v1::ReportReply>("/fairlead.engine.v1.Control/Report", std::move(request), kLimit);
  if (reply.has_value() != is_heard_) {
    is_heard_ = reply.has_value();
    if (is_heard_) {
      log_info("engine.control_hears", {{"node", management_.node()}});
    } else {
      log_warn("engine.control_away", {{"node", management_.node()}, {"error", to_string(reply.error())}});
    }
  }
  if (!reply) {
    known_ = 0;  // whoever answers next may be another
    co_return;
  }
  known_ = reply->wants_state() ? 0 : sequence;
  if (reply->interval_ms() == 0) co_return;
  constexpr auto kMaxMs = static_cast<uint64_t>(kIntervalMax / std::chrono::milliseconds(1));
  const std::chrono::milliseconds wanted(static_cast<int64_t>(std::min(reply->interval_ms(), kMaxMs)));
  interval_ = std::max<Duration>(wanted, kIntervalMin);
}

}  // namespace fairlead::engine
