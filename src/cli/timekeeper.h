// Timekeeper: the time, and waiting, for commands that block. The tests' own goes as fast as they like.
#pragma once

#include "async/time.h"

namespace fairlead::cli {

class Timekeeper {
 public:
  virtual ~Timekeeper() = default;
  virtual Instant now() = 0;
  virtual uint64_t wall_ms() = 0;  // since 1970
  virtual void pause(Duration span) = 0;
};

// The machine's.
class RealTime final : public Timekeeper {
 public:
  Instant now() override;
  uint64_t wall_ms() override;
  void pause(Duration span) override;
};

}  // namespace fairlead::cli
