// What a volume's target is told. Plain values.
#pragma once

#include <cstdint>

#include "async/time.h"
#include "base/uuid.h"

namespace fairlead::mirror {

struct MirrorOptions {
  Uuid volume;
  uint64_t size_bytes = 0;
  uint32_t logical_block = 512;
  // Reads begin only while a majority has promised to wait so long before it obeys another (rule 6).
  Duration lease = std::chrono::milliseconds(400);
  // Once a take-over could go on it waits so long for members that are connected and have not answered yet.
  Duration grace = std::chrono::milliseconds(200);
  // A replica that does not end something for so long is faulted as if it were gone.
  Duration stall_limit = std::chrono::seconds(5);
  // How long a replica that was written to may stay without a note: what changed since it is levelled by a take-over.
  Duration checkpoint_interval = std::chrono::seconds(10);
  // So often a target that nobody reads from asks its members whether they obey it still, and less and less often
  // while nobody does.
  Duration watch_interval = std::chrono::milliseconds(1500);
  Duration watch_interval_max = std::chrono::seconds(15);
  // A target that serves, and is refused by a minority, takes over from itself after so long: unless whoever was asked
  // to take over has done so by then.
  Duration renew_delay = std::chrono::seconds(5);
  Duration retry_min = std::chrono::milliseconds(50);
  Duration retry_max = std::chrono::seconds(60);  // of a replica that fails again and again
  // Of the time that copies to replicas that return may take while hosts ask for something, in percent, 1 to 100. What
  // a take-over has to level is not held back: hosts wait for it.
  uint32_t resync_share_percent = 50;
  size_t copies_in_flight = 4;  // extents that the volume copies at once, within the budget of all
};

}  // namespace fairlead::mirror
