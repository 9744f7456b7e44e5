#include "cli/bench.h"

#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <unistd.h>

#include "async/cancel.h"
#include "async/scope.h"
#include "base/log.h"
#include "cli/bench_report.h"
#include "cli/bench_run.h"
#include "cli/bench_target.h"
#include "io/signals.h"

namespace fairlead::cli {
namespace {

constexpr int kExitInterrupted = 130;  // as a shell says it of a process that SIGINT ended

template <typename... Arguments>
void complain(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  fmt::print(stderr, "fairlead bench: {}\n", fmt::format(format, std::forward<Arguments>(arguments)...));
}

// A line that is written over and over, when somebody looks.
class ProgressLine {
 public:
  bool is_seen() const { return is_seen_; }
  void show(const std::string& text) {
    fmt::print(stderr, "\r{}\x1b[K", text);
    std::fflush(stderr);
  }
  void clear() {
    if (is_seen_) show("");
  }

 private:
  const bool is_seen_ = ::isatty(STDERR_FILENO) == 1;
};

// One run of the command; lives on shard 0, inside main().
class Benchmark {
 public:
  Benchmark(Runtime& runtime, const BenchPlan& plan)
      : runtime_(runtime),
        plan_(plan),
        home_(runtime.shard(0)),
        watching_(home_.reactor),
        showing_(home_.reactor),
        sources_(runtime, plan),
        run_(runtime, {.load = plan.load, .target_pid = plan.target_pid}) {}

  Task<int> run() {
    Result<std::unique_ptr<SignalWatch>> signals = SignalWatch::open(runtime_.uring_shard(0));
    if (!signals) {
      complain("cannot watch for signals: {}", to_string(signals.error()));
      co_return 1;
    }
    watching_.spawn(watch_signals(**signals));
    const std::expected<void, Complaint> done = co_await measure();
    if (!done) complain("{}: {}", plan_.name, done.error());
    int exit_code = done ? tell() : 1;
    co_await run_.close();
    if (const auto closed = co_await sources_.close(); !closed) {
      complain("{}: {}", plan_.name, closed.error());
      exit_code = 1;
    }
    (*signals)->close();
    co_await watching_.close();
    co_return exit_code;
  }

 private:
  Task<std::expected<void, Complaint>> measure() {
    auto sources = co_await sources_.open();
    if (!sources) co_return std::unexpected(sources.error());
    if (const auto opened = co_await run_.open(std::move(*sources)); !opened) co_return std::unexpected(opened.error());
    for (const std::string& remark : sources_.remarks()) complain("{}", remark);
    set_log_level(LogLevel::kWarn);  // a connection that is lost meanwhile explains a figure
    if (!plan_.json) {
      fmt::print("{}\n", describe(plan_.name, plan_.load));
      std::fflush(stdout);
    }
    if (line_.is_seen()) showing_.spawn(show_progress());
    measuring_ = true;
    outcome_ = co_await run_.measure();
    measuring_ = false;
    finished_.cancel();
    co_await showing_.close();
    co_return std::expected<void, Complaint>{};
  }

  Task<void> show_progress() {
    BenchRun::Progress before;
    while (co_await sleep(home_.reactor, std::chrono::seconds(1), finished_)) {
      const BenchRun::Progress now = co_await run_.progress();
      line_.show(describe_progress(plan_.load, before, now));
      before = now;
    }
    line_.clear();
  }

  // The first signal ends the load, with a report; with verification another one ends reading back; the next ends the
  // process when requests never come back.
  Task<void> watch_signals(SignalWatch& signals) {
    if (!co_await signals.next()) co_return;
    if (measuring_) {
      const int stops = plan_.load.verify == BenchVerify::kOn ? 2 : 1;
      for (int i = 0; i < stops; ++i) {
        co_await run_.stop();
        if (!co_await signals.next()) co_return;
      }
      line_.clear();
      complain("requests are still under way: left behind");
    }
    // Nothing to report: connecting, disconnecting, or waiting for what never comes.
    std::_Exit(kExitInterrupted);
  }

  int tell() const {
    if (plan_.json) {
      fmt::print("{}\n", report_json(outcome_));
    } else {
      fmt::print("{}", report(plan_.load, outcome_));
    }
    std::fflush(stdout);
    for (const std::string& complaint : outcome_.complaints) complain("{}", complaint);
    if (outcome_.operations() == 0) complain("{}: no request was done", plan_.name);
    return outcome_.errors() > 0 || outcome_.verify_errors > 0 || outcome_.operations() == 0 ? 1 : 0;
  }

  Runtime& runtime_;
  const BenchPlan& plan_;
  Shard& home_;
  Scope watching_;
  Scope showing_;
  CancelSource finished_;
  ProgressLine line_;
  BenchSources sources_;
  BenchRun run_;
  BenchOutcome outcome_;
  bool measuring_ = false;
};

Task<int> run_benchmark(Runtime& runtime, const BenchPlan& plan) {
  Benchmark benchmark(runtime, plan);
  co_return co_await benchmark.run();
}

}  // namespace

int bench(const BenchPlan& plan) {
  set_log_level(LogLevel::kError);  // what fails is told once, by complain()
  Runtime runtime(plan.runtime);
  if (const Result<void> started = runtime.start(); !started) {
    complain("cannot start: {}", to_string(started.error()));
    return 1;
  }
  return runtime.run(run_benchmark(runtime, plan));
}

}  // namespace fairlead::cli
