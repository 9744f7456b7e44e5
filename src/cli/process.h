// How a command begins that serves until it is told to stop: `fairlead serve`, `fairlead engine`.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "cli/commands.h"
#include "io/runtime.h"
#include "io/service_manager.h"
#include "io/signals.h"

namespace fairlead::cli {

inline std::vector<Shard*> all_shards(Runtime& runtime) {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < runtime.shard_count(); ++i) shards.push_back(&runtime.shard(i));
  return shards;
}

// "READY=1" and the like, for systemd when that started us.
inline void tell_service_manager_that(std::string_view command, std::string_view state) {
  const char* const socket = std::getenv("NOTIFY_SOCKET");
  if (socket == nullptr || *socket == '\0') return;
  const Result<void> told = tell_service_manager(socket, state);
  if (!told) complain_of(command, "NOTIFY_SOCKET {}: {}", socket, to_string(told.error()));
}

template <typename Process, typename Plan>
Task<int> run_process(Runtime& runtime, const Plan& plan) {
  const Result<std::unique_ptr<SignalWatch>> signals = SignalWatch::open(runtime.uring_shard(0));
  if (!signals) {
    complain_of(Process::kCommand, "cannot watch for signals: {}", to_string(signals.error()));
    co_return 1;
  }
  Process process(runtime, plan);
  co_return co_await process.run(**signals);
}

// Makes a Process of runtime and plan on shard 0 and runs it there: its kCommand says who complains, run(SignalWatch&)
// returns the exit code, as this does.
template <typename Process, typename Plan>
int start_process(const Plan& plan) {
  Runtime runtime(plan.runtime);
  if (const Result<void> started = runtime.start(); !started) {
    complain_of(Process::kCommand, "cannot start: {}", to_string(started.error()));
    return 1;
  }
  return runtime.run(run_process<Process>(runtime, plan));
}

}  // namespace fairlead::cli
