#include "cli/timekeeper.h"

#include <ctime>

#include "io/uring_shard.h"

namespace fairlead::cli {

Instant RealTime::now() { return UringClock().now(); }
uint64_t RealTime::wall_ms() { return UringClock().wall_ms(); }

void RealTime::pause(Duration span) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(span);
  const timespec wanted{.tv_sec = seconds.count(), .tv_nsec = (span - seconds).count()};
  nanosleep(&wanted, nullptr);  // lint: allow(sleep) a command that asks a server again has no reactor to wait on
}

}  // namespace fairlead::cli
