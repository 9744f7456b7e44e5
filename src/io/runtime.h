// Runtime: the shards of a process, each with its thread.
//
//   Runtime runtime({.shards = 2});
//   if (Result<void> started = runtime.start(); !started) …
//   return runtime.run(serve(runtime, arguments));   // Task<int> serve(Runtime&, Arguments)
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "async/task.h"
#include "async/time.h"
#include "base/error.h"
#include "base/units.h"
#include "io/buffer_pool.h"
#include "io/shard.h"
#include "io/uring_shard.h"

namespace fairlead {

enum class Pinning : uint8_t {
  kAuto,  // shard i on the i-th processor that the process may use, when there are enough of them
  kNone,  // wherever the system likes
};

struct RuntimeOptions {
  uint16_t shards = 1;
  PollMode poll = PollMode::kAuto;
  Duration spin = std::chrono::microseconds(50);
  Pinning pinning = Pinning::kAuto;
  std::vector<int> processors = {};  // not empty: shard i on processors[i]; one a shard at least
  uint64_t buffers_account_reserve = BufferPool::kSlabBytes;  // a shard, see BufferPool::Options
  uint64_t buffers_shared_max = 64 * kMiB;
  // SIGINT and SIGTERM wait for a SignalWatch instead of ending the process. Blocks them in the thread that calls
  // start() and in the shards' threads; threads that were made before must block them by themselves.
  enum class Signals : uint8_t { kDefault, kWatched } signals = Signals::kWatched;
};

// Made, started, run and destroyed on one thread, outside the shards.
class Runtime {
 public:
  explicit Runtime(RuntimeOptions options);
  ~Runtime();  // Stops and joins what runs.
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Starts all threads; returns when each shard runs or none does. Errors: kInvalidArgument, as UringRing::create().
  Result<void> start();

  // Any thread, between start() and stop(). What belongs to a shard is for its thread, but for reactor.send().
  size_t shard_count() const { return shards_.size(); }
  Shard& shard(size_t index) { return uring_shard(index).shard(); }
  UringShard& uring_shard(size_t index);

  // Runs `main` on shard 0, then stops all shards and returns its result. Once. Requires: started; when `main` ends, so
  // have all tasks that it spawned, on every shard.
  int run(Task<int> main);

  // Runs `task` on a shard and waits for its end; the shards go on. Requires: started, called outside the shards.
  void run_on(size_t index, Task<void> task);

  // Ends the loops, destroys the shards, joins the threads. Idempotent.
  void stop();

 private:
  struct Thread;
  Result<void> check_options() const;
  int processor_of(size_t index) const;

  RuntimeOptions options_;
  std::vector<int> allowed_processors_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<UringShard*> shards_;
};

}  // namespace fairlead
