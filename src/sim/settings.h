// What a simulated world is like: drawn from the seed, so that each run is another system, or set by the test.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "async/time.h"
#include "base/fault.h"
#include "base/units.h"

namespace fairlead::sim {

// Which of the ready runnables of one reactor goes next.
enum class Order : uint8_t { kFifo, kMostlyFifo, kRandom };

// How streams are cut.
enum class Chop : uint8_t {
  kWhole,        // as the sender wrote, as the reader asks
  kRandom,       // sends cut short, segments split, receives cut short
  kSingleBytes,  // every receive gives one byte
};

// All `_ppm` are times in a million.
struct NetworkSettings {
  Duration latency_min{20'000};
  Duration latency_max{200'000};
  uint32_t spike_ppm = 0;  // of segments, delayed by up to spike_max more
  Duration spike_max{0};
  uint64_t bytes_per_second = 1 * kGiB;
  uint32_t window_min = 64 * kKiB;  // bytes of one direction that are sent and not yet read; drawn per connection
  uint32_t window_max = 1 * kMiB;
  Chop chop = Chop::kWhole;
  uint32_t reset_ppm = 0;             // of segments: the connection is reset instead
  uint32_t accept_exhausted_ppm = 0;  // of accepts: kResourceExhausted once
  Duration connect_timeout{3'000'000'000};
};

struct DiskSettings {
  Duration latency_min{10'000};
  Duration latency_max{200'000};
  Duration slow_max{2'000'000'000};  // of an operation that DiskRates::slow_ppm hit
  uint32_t queue_depth = 64;         // operations that the device works on at once
  uint32_t split_ppm = 0;            // of writes: applied in two parts, at two times
};

struct SimSettings {
  Order order = Order::kFifo;
  uint32_t turn_cost_ns_max = 200;          // virtual time that a turn of a reactor takes, at most; at least 1
  uint32_t mailbox_capacity = 1024;         // power of two, at least 2
  uint64_t buffers_shared_max = 64 * kMiB;  // BufferPool::Options::shared_max
  uint32_t clock_drift_ppm_max = 0;         // each node's clock runs fast or slow by up to this
  NetworkSettings network;
  DiskSettings disk;
  std::array<uint32_t, kFaultPointCount> fault_point_ppm{};  // 0: switched off

  // A quick, well-behaved world without any fault.
  static SimSettings calm() { return {}; }
  // Another system for each seed: a random subset of fault points, tiny or large queues, short or long delays.
  static SimSettings drawn(uint64_t seed);
};

// One line: "order=random mailbox=2 …".
std::string to_string(const SimSettings& settings);

}  // namespace fairlead::sim
