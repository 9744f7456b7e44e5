// The two sides of the floor: who asks and who answers, over bare sockets, without a protocol. One thread each.
//
// Both only count bytes: `in` of them received make one operation, for which `out` are sent. Who asks begins with
// `depth` operations owed on each connection; who answers begins with none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "measure.h"

namespace fairlead::bench {

struct SideOptions {
  size_t in = 0;   // bytes received for each operation
  size_t out = 0;  // bytes sent for each
  size_t depth = 0;
  size_t gather = 1;         // operations that are owed before any is sent
  size_t batch_bytes = 0;    // the most that one receive and one send take
  uint64_t spin_ns = 0;      // how long to look for work before sleeping
  uint64_t start_ns = 0;     // operations that end before it are not counted
  uint64_t end_ns = 0;       // who asks: when to stop. 0: when the other side does
  uint64_t interval_ns = 0;  // who asks, with a depth of 1 and one connection: from one operation to the next
  pid_t other = 0;           // who asks: the process that answers
  std::vector<int> sockets;  // connected, borrowed
  // kCalls: what is sent comes from here in turn, and what is received goes here. Borrowed. Empty: few bytes, always
  // the same, so that caches stay warm, as those of no real target do.
  std::span<std::byte> memory;
};

// How a side speaks to the kernel: recv(), send() and poll(); or an io_uring with multishot receive into provided
// buffers, where a turn is one system call. With an interval it is always the former.
enum class Engine : uint8_t { kCalls, kRing };

// Of who asks, from about start_ns on.
struct Counted {
  uint64_t operations = 0;
  Histogram latency_ns;
  // When counting began, and how much processor time both sides had taken by then.
  uint64_t began_ns = 0;
  double cpu_seconds = 0;
  double other_cpu_seconds = 0;
};

// Runs until the end.
Counted run_side(Engine engine, const SideOptions& options);

}  // namespace fairlead::bench
