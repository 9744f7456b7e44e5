// Reporter: tells the control plane what the engine has, for as long as both live: at once when something changed, else
// a sign of life now and then. It never keeps anything else waiting. Lives on the home shard.
//
// Life-cycle: make, start(), stop(), destroy.
#pragma once

#include "async/scope.h"
#include "engine/control_client.h"
#include "engine/management.h"

namespace fairlead::engine {

class Reporter {
 public:
  static constexpr Duration kGap = std::chrono::milliseconds(20);  // between two reports, at least
  static constexpr Duration kIntervalDefault = std::chrono::milliseconds(500);
  // The longest for which figures that move may be untold.
  static constexpr Duration kLookGapMax = std::chrono::seconds(4);
  static constexpr Duration kLimit = std::chrono::seconds(2);  // of a report

  // All borrowed for life.
  Reporter(Shard& home, Management& management, ControlClient& control)
      : home_(home), management_(management), control_(control), alarm_(*this), scope_(home.reactor) {}

  void start() { scope_.spawn(run()); }
  // Sends what has changed once more, when the control plane can be reached. Returns within two of kLimit.
  Task<void> stop();

 private:
  struct Alarm : Timer {
    explicit Alarm(Reporter& r)
        : Timer([](Runnable& self) { static_cast<Alarm&>(self).reporter.wake(); }), reporter(r) {}
    Reporter& reporter;
  };
  Task<void> run();
  Task<void> report();
  v1::ReportRequest look();
  Task<void> wait_until(Instant until, uint64_t changes);
  void wake() { management_.changes().event().release_waiters(); }

  Shard& home_;
  Management& management_;
  ControlClient& control_;
  Alarm alarm_;
  Scope scope_;
  uint64_t known_ = 0;  // sequence of the state that the control plane has; 0: none
  Duration interval_ = kIntervalDefault;
  uint64_t looked_at_ = 0;  // changes when the state was looked at last
  Duration look_gap_{};
  Instant next_look_;
  bool is_heard_ = true;
  bool is_stopping_ = false;
};

}  // namespace fairlead::engine
