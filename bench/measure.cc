#include "measure.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fmt/format.h>
#include <sched.h>

namespace fairlead::bench {
namespace {

uint64_t read_ns(clockid_t clock) {
  timespec at{};
  if (::clock_gettime(clock, &at) != 0) return 0;
  return static_cast<uint64_t>(at.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(at.tv_nsec);
}

double per_million(double seconds, uint64_t operations) {
  return operations == 0 ? 0 : seconds * 1e6 / static_cast<double>(operations);
}

}  // namespace

uint64_t now_ns() { return read_ns(CLOCK_MONOTONIC); }

double cpu_seconds(pid_t pid) {
  clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
  if (pid != 0 && ::clock_getcpuclockid(pid, &clock) != 0) return 0;
  return static_cast<double>(read_ns(clock)) / 1e9;
}

void pin_to(int cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) fail("pin to the processor", errno);
}

std::string to_json(const Report& report) {
  const double operations = static_cast<double>(report.operations);
  return fmt::format(R"({{"iops":{:.1f},"bytes_per_second":{:.1f},"operations":{},"errors":0,"runtime_seconds":{:.6f},)"
                     R"("latency_ns":{{"mean":{:.1f},"p50":{},"p99":{},"p99_9":{},"p99_99":{}}},)"
                     R"("cpu_seconds_per_million":{:.6f},"target_cpu_seconds_per_million":{:.6f}}})",
                     operations / report.seconds, static_cast<double>(report.bytes) / report.seconds, report.operations,
                     report.seconds, report.latency_ns.mean(), report.latency_ns.quantile(0.5),
                     report.latency_ns.quantile(0.99), report.latency_ns.quantile(0.999),
                     report.latency_ns.quantile(0.9999), per_million(report.cpu_seconds, report.operations),
                     per_million(report.target_cpu_seconds, report.operations));
}

std::string to_text(const Report& report) {
  return fmt::format(
      "{:.0f} operations a second, {:.2f} GB/s; latency p50 {:.2f} us, p99 {:.2f} us; "
      "processor seconds a million: {:.3f}, of who answers {:.3f}",
      static_cast<double>(report.operations) / report.seconds, static_cast<double>(report.bytes) / report.seconds / 1e9,
      static_cast<double>(report.latency_ns.quantile(0.5)) / 1e3,
      static_cast<double>(report.latency_ns.quantile(0.99)) / 1e3, per_million(report.cpu_seconds, report.operations),
      per_million(report.target_cpu_seconds, report.operations));
}

void fail(const char* what, int os_errno) {
  fmt::print(stderr, "cannot {}{}{}\n", what, os_errno == 0 ? "" : ": ", os_errno == 0 ? "" : std::strerror(os_errno));
  std::exit(1);
}

}  // namespace fairlead::bench
