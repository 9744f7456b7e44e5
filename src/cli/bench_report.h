// How `fairlead bench` tells what came of it: for people and as JSON. Plain functions.
#pragma once

#include <string>

#include "cli/bench_load.h"
#include "cli/bench_run.h"

namespace fairlead::cli {

// "9.52 us", "123 us", "1.23 ms", "2.50 s".
std::string format_latency(uint64_t ns);

// Of processor time a million requests; empty when it was not measured or nothing was done.
std::optional<double> seconds_per_million(std::optional<uint64_t> cpu_ns, uint64_t operations);

// What is about to be done, in a line without its end.
std::string describe(const std::string& target, const BenchLoad& load);

// Some lines.
std::string report(const BenchLoad& load, const BenchOutcome& outcome);

// One object, its keys being: iops, bytes_per_second, operations, errors, runtime_seconds, latency_ns {min, mean, p50,
// p99, p99_9, p99_99, max}, cpu_seconds_per_million, target_cpu_seconds_per_million (null when not measured), read and
// write {iops, bytes_per_second, operations, errors, latency_ns}, verified_reads, verify_errors, behind,
// longest_silence_ns. `operations` are those that succeeded; `behind` are those that --rate asked for and that were
// never sent; the longest silence is that of a queue that had requests in flight and saw none of them end.
std::string report_json(const BenchOutcome& outcome);

// How things stand, in a line without its end; `before` is what it was the last time.
std::string describe_progress(const BenchLoad& load, const BenchRun::Progress& before, const BenchRun::Progress& now);

}  // namespace fairlead::cli
