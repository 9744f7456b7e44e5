// Processor time of a process, thread by thread, from /proc. Thread-safe.
#pragma once

#include <cstdint>
#include <map>

#include "base/error.h"

namespace fairlead::cli {

using ThreadTimes = std::map<int, uint64_t>;  // thread id: nanoseconds on a processor

// Of the process `pid`, 0 being this one. Exact to a tick of the scheduler (some milliseconds) for threads that run at
// the moment. Errors: kNotFound (no such process), kNotSupported (a kernel without schedstat).
Result<ThreadTimes> thread_times(int pid);

// Nanoseconds that the threads of `after` ran since `before`. Threads that ended in between are left out.
uint64_t cpu_ns_between(const ThreadTimes& before, const ThreadTimes& after);

}  // namespace fairlead::cli
