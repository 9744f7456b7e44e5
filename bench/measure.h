// What the reference programs share: the clock, processor time, pinning, and the report. One thread a process.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>

#include "base/histogram.h"

namespace fairlead::bench {

// Monotonic, in nanoseconds.
uint64_t now_ns();

// Processor time, user and system, of process `pid` so far (0: this one), in seconds.
double cpu_seconds(pid_t pid);

// Keeps this thread on processor `cpu`; a negative one leaves it free. Ends the process when there is no such
// processor.
void pin_to(int cpu);

// The outcome of one run.
struct Report {
  uint64_t operations = 0;
  uint64_t bytes = 0;
  double seconds = 0;
  double cpu_seconds = 0;         // of who asks
  double target_cpu_seconds = 0;  // of who answers; 0 when that is nobody
  Histogram latency_ns;
};
// One object, with the keys of `fairlead bench --json`.
std::string to_json(const Report& report);
std::string to_text(const Report& report);

// Says on standard error what did not work, with errno's text when `os_errno` is not 0, and ends the process.
[[noreturn]] void fail(const char* what, int os_errno);

}  // namespace fairlead::bench
