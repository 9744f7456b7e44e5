// Whether others want the processor that a thread runs on: then to look on for work, instead of sleeping, takes from
// them what they need, and they may be who the work comes from. One thread.
#pragma once

#include <optional>

#include "async/time.h"

namespace fairlead {

// How long the thread has waited for a processor that others had, as the kernel counts it for the thread that makes
// this: the second number of its schedstat (the kernel's Documentation/scheduler/sched-stats.rst).
class RunDelay {
 public:
  explicit RunDelay(const char* path = "/proc/thread-self/schedstat");
  ~RunDelay();
  RunDelay(const RunDelay&) = delete;
  RunDelay& operator=(const RunDelay&) = delete;
  // Since the thread began. Nothing: the kernel does not say.
  std::optional<Duration> read() const;

 private:
  const int descriptor_;
};

class Crowding {
 public:
  static constexpr Duration kInterval = std::chrono::milliseconds(10);
  // Of the time between two looks, so much spent waiting is a crowd.
  static constexpr int64_t kPart = 8;

  bool is_due(Instant now) const { return now >= next_look_; }
  // What RunDelay said.
  void look(Instant now, std::optional<Duration> waited);
  bool is_crowded() const { return is_crowded_; }

 private:
  Instant last_look_;
  Instant next_look_;
  Duration waited_{};
  bool is_crowded_ = false;
};

}  // namespace fairlead
