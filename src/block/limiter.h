// A device with limits, around another: lets a fast file play a slow disk.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "async/time.h"
#include "block/block_device.h"

namespace fairlead {

struct LimiterOptions {
  uint64_t iops_max = 0;       // 0: no limit
  uint64_t bandwidth_max = 0;  // bytes a second, of reads and writes; 0: no limit
  Duration latency{};          // from the turn of a request to its completion, at least
  Duration jitter{};           // latency is spread evenly over latency ± jitter; at most `latency`
};

// "iops=100k,bandwidth=1GiB,latency=80us,jitter=20us". Error kInvalidArgument.
Result<LimiterOptions> parse_limits(std::string_view text);

// Plays a disk that serves one request after another, each for the longer of 1 / iops_max and bytes / bandwidth_max; a
// request gets its turn then, and is complete when `latency` has gone by and the device below is done. Time in which
// nothing waits is not saved up: there are no bursts. A shard that looks late makes up for it with what waited
// meanwhile, so the average is exact as long as enough waits.
//
// All shards that open the source share the limits; each books time for what waits on it in small lots, so that those
// who always have something waiting get equal shares. Thread-safe to open.
// Requires: jitter <= latency.
std::shared_ptr<BlockSource> make_limiter_source(std::shared_ptr<BlockSource> inner, LimiterOptions options);

}  // namespace fairlead
