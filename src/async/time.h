// Points and spans of monotonic time, as the reactor's timers and the Clock seam use them.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>

namespace fairlead {

using Duration = std::chrono::nanoseconds;

// Nanoseconds of a monotonic clock with an arbitrary start; never wall-clock time.
struct Instant {
  int64_t ns = 0;

  friend constexpr auto operator<=>(Instant, Instant) = default;
  friend constexpr Instant operator+(Instant at, Duration span) { return Instant{at.ns + span.count()}; }
  friend constexpr Instant operator-(Instant at, Duration span) { return Instant{at.ns - span.count()}; }
  friend constexpr Duration operator-(Instant a, Instant b) { return Duration(a.ns - b.ns); }
};

}  // namespace fairlead
