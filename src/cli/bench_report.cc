#include "cli/bench_report.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.h"

namespace fairlead::cli {
namespace {

using Json = nlohmann::ordered_json;

double seconds(Duration span) { return std::chrono::duration<double>(span).count(); }

double per_second(double count, Duration span) { return span > Duration::zero() ? count / seconds(span) : 0; }

double bandwidth(const BenchOutcome& outcome, uint64_t operations) {
  return per_second(static_cast<double>(operations) * outcome.block_bytes, outcome.elapsed);
}

Json side_json(const BenchOutcome& outcome, const BenchSide& side) {
  const Histogram& latency = side.latency;
  Json json;
  json["iops"] = per_second(static_cast<double>(latency.count()), outcome.elapsed);
  json["bytes_per_second"] = bandwidth(outcome, latency.count());
  json["operations"] = latency.count();
  json["errors"] = side.errors;
  json["latency_ns"] = {
      {"min", latency.min()},          {"mean", latency.mean()},           {"p50", latency.quantile(0.5)},
      {"p99", latency.quantile(0.99)}, {"p99_9", latency.quantile(0.999)}, {"p99_99", latency.quantile(0.9999)},
      {"max", latency.max()}};
  return json;
}

Json or_null(std::optional<double> value) { return value ? Json(*value) : Json(nullptr); }

std::string row(std::string_view name, const BenchOutcome& outcome, const BenchSide& side) {
  const Histogram& latency = side.latency;
  std::string line =
      fmt::format("{:<5} {:>9.0f} {:>9.1f}", name, per_second(static_cast<double>(latency.count()), outcome.elapsed),
                  bandwidth(outcome, latency.count()) / 1e6);
  line += fmt::format(" {:>9}", format_latency(static_cast<uint64_t>(latency.mean())));
  for (const double part : {0.5, 0.99, 0.999, 0.9999, 1.0}) {
    line += fmt::format(" {:>9}", format_latency(latency.quantile(part)));
  }
  return line + "\n";
}

BenchSide both(const BenchOutcome& outcome) {
  BenchSide all = outcome.read;
  all.merge(outcome.write);
  return all;
}

std::string processor_line(const BenchOutcome& outcome) {
  const auto ours = seconds_per_million(outcome.bench_cpu_ns, outcome.operations());
  const auto theirs = seconds_per_million(outcome.target_cpu_ns, outcome.operations());
  if (!ours) return {};
  std::string line = fmt::format("processor: {:.3f} s for a million requests", *ours);
  if (theirs) line += fmt::format(", and {:.3f} s in the target", *theirs);
  return line + "\n";
}

std::string counted(uint64_t count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

}  // namespace

std::string format_latency(uint64_t ns) {
  const struct {
    double scale;
    const char* unit;
  } kUnits[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}};
  for (const auto& [scale, unit] : kUnits) {
    const double value = static_cast<double>(ns) / scale;
    if (value < 1) continue;
    return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, unit);
  }
  return fmt::format("{} ns", ns);
}

std::optional<double> seconds_per_million(std::optional<uint64_t> cpu_ns, uint64_t operations) {
  if (!cpu_ns || operations == 0) return std::nullopt;
  return static_cast<double>(*cpu_ns) / 1e9 * 1e6 / static_cast<double>(operations);
}

std::string describe(const std::string& target, const BenchLoad& load) {
  const char* const order = load.order == BenchOrder::kRandom ? "random" : "sequential";
  std::string what = fmt::format("{} {}", order, load.writes() ? "writes" : "reads");
  if (load.reads() && load.writes()) what = fmt::format("{} reads and writes ({} % reads)", order, load.read_percent);
  std::string line =
      fmt::format("{}: {} of {}, {} in flight on {}, for {}", target, what, format_size(load.block_bytes), load.depth,
                  counted(load.queues, "queue"), format_latency(static_cast<uint64_t>(load.runtime.count())));
  if (load.rate > 0) line += fmt::format(", {} a second", load.rate);
  if (load.verify == BenchVerify::kOn) line += ", verified";
  return line;
}

std::string report(const BenchLoad& load, const BenchOutcome& outcome) {
  std::string text = fmt::format("{:<5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "", "IOPS", "MB/s", "mean",
                                 "p50", "p99", "p99.9", "p99.99", "max");
  if (load.reads()) text += row("read", outcome, outcome.read);
  if (load.writes()) text += row("write", outcome, outcome.write);
  if (load.reads() && load.writes()) text += row("both", outcome, both(outcome));
  text += fmt::format("{} in {:.2f} s, {}\n", counted(outcome.operations(), "request"), seconds(outcome.elapsed),
                      counted(outcome.errors(), "error"));
  if (load.rate > 0 && outcome.behind > 0) {
    text +=
        fmt::format("too slow for --rate {}: {} due and never sent\n", load.rate, counted(outcome.behind, "request"));
  }
  if (load.verify == BenchVerify::kOn) {
    text +=
        fmt::format("verified {}, {}\n", counted(outcome.verified, "read"), counted(outcome.verify_errors, "error"));
  }
  return text + processor_line(outcome);
}

std::string report_json(const BenchOutcome& outcome) {
  Json json = side_json(outcome, both(outcome));
  json["runtime_seconds"] = seconds(outcome.elapsed);
  json["cpu_seconds_per_million"] = or_null(seconds_per_million(outcome.bench_cpu_ns, outcome.operations()));
  json["target_cpu_seconds_per_million"] = or_null(seconds_per_million(outcome.target_cpu_ns, outcome.operations()));
  json["read"] = side_json(outcome, outcome.read);
  json["write"] = side_json(outcome, outcome.write);
  json["verified_reads"] = outcome.verified;
  json["verify_errors"] = outcome.verify_errors;
  json["behind"] = outcome.behind;
  json["longest_silence_ns"] = outcome.longest_silence.count();
  return json.dump(2);
}

std::string describe_progress(const BenchLoad& load, const BenchRun::Progress& before, const BenchRun::Progress& now) {
  using Phase = BenchRun::Progress::Phase;
  const std::string failures = now.failures > 0 ? fmt::format("  {}", counted(now.failures, "error")) : "";
  if (now.phase == Phase::kReadBack) return fmt::format("reading back: {}{}", counted(now.read_back, "read"), failures);
  if (now.elapsed > load.runtime + std::chrono::seconds(1)) {
    return fmt::format("waiting for {}{}", counted(now.in_flight, "request"), failures);
  }
  const uint64_t operations = now.operations - before.operations;
  const double rate = per_second(static_cast<double>(operations), now.elapsed - before.elapsed);
  const uint64_t latency = operations > 0 ? (now.latency_sum_ns - before.latency_sum_ns) / operations : 0;
  return fmt::format("{:.0f} s of {}  {:.0f} IOPS  {:.1f} MB/s  mean {}{}", seconds(now.elapsed),
                     format_latency(static_cast<uint64_t>(load.runtime.count())), rate, rate * load.block_bytes / 1e6,
                     format_latency(latency), failures);
}

}  // namespace fairlead::cli
