#include "cli/cpu_time.h"

#include <charconv>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

namespace fairlead::cli {

Result<ThreadTimes> thread_times(int pid) {
  const std::string process = pid == 0 ? "/proc/self" : fmt::format("/proc/{}", pid);
  std::error_code error;
  std::filesystem::directory_iterator threads(process + "/task", error);
  if (error) return fail(Code::kNotFound, "a process of this number");
  ThreadTimes times;
  bool is_readable = false;
  for (; !error && threads != std::filesystem::directory_iterator(); threads.increment(error)) {
    const std::string name = threads->path().filename();
    int thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    uint64_t ns = 0;
    std::ifstream file(threads->path() / "schedstat");
    if (!(file >> ns)) continue;  // it has just ended
    is_readable = true;
    times[thread] = ns;
  }
  if (!is_readable) return fail(Code::kNotSupported, "the kernel keeps no schedstat");
  return times;
}

uint64_t cpu_ns_between(const ThreadTimes& before, const ThreadTimes& after) {
  uint64_t sum = 0;
  for (const auto& [thread, ns] : after) {
    const auto earlier = before.find(thread);
    const uint64_t from = earlier == before.end() ? 0 : earlier->second;
    sum += ns > from ? ns - from : 0;
  }
  return sum;
}

}  // namespace fairlead::cli
