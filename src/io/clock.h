// Clock and Random: the seams behind which time and chance stand. Passed by reference; nothing else reads either.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "async/time.h"
#include "base/check.h"
#include "base/uuid.h"

namespace fairlead {

// Lives on one shard.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;
  // Milliseconds since 1970-01-01 UTC: for people and for timestamps on the wire, never for intervals.
  virtual uint64_t wall_ms() const = 0;
};

// Lives on one shard.
class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t next() = 0;

  // Evenly spread in [0, bound). Requires: bound > 0.
  uint64_t below(uint64_t bound) {
    FL_CHECK(bound > 0);
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  bool one_in(uint64_t n) { return below(n) == 0; }
  Uuid uuid() {
    const uint64_t high = next();
    return uuid_from_random(high, next());
  }
};

}  // namespace fairlead
