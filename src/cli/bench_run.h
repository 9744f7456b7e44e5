// BenchRun: one benchmark from the opening of the devices to their closing, over all queues and shards. Lives on shard
// 0, where all of it is called; queue i and its device live on shard i modulo their number.
#pragma once

#include <memory>
#include <vector>

#include "cli/bench_load.h"
#include "cli/bench_queue.h"
#include "io/runtime.h"

namespace fairlead::cli {

class BenchRun {
 public:
  struct Options {
    BenchLoad load;
    int target_pid = 0;  // whose processor time is measured too; 0: nobody's
  };
  // `runtime` is borrowed for life.
  BenchRun(Runtime& runtime, const Options& options);
  ~BenchRun();  // Requires: close() has returned, or open() was never called.
  BenchRun(const BenchRun&) = delete;
  BenchRun& operator=(const BenchRun&) = delete;

  // A source for each queue; several may be the same. A complaint says what the load asks that the device cannot do, or
  // how opening it failed; close() is due then too.
  Task<std::expected<void, Complaint>> open(std::vector<std::shared_ptr<BlockSource>> sources);
  // Runs the load, then reads back what is to be verified. Once, after open().
  Task<BenchOutcome> measure();
  // While measure() runs: lets the load end early; called again, or later, reading back too.
  Task<void> stop();
  Task<void> close();

  // So far, all queues together.
  struct Progress {
    enum class Phase : uint8_t { kIdle, kLoad, kReadBack } phase = Phase::kIdle;
    Duration elapsed{};       // of the load
    uint64_t operations = 0;  // of the load
    uint64_t latency_sum_ns = 0;
    uint64_t read_back = 0;  // requests
    uint64_t failures = 0;   // requests and verifications
    uint32_t in_flight = 0;
  };
  Task<Progress> progress();

 private:
  struct Lane {
    Shard* shard = nullptr;
    std::shared_ptr<BlockSource> source;  // shared by the lanes of one device
    std::unique_ptr<BlockDevice> device;
    std::unique_ptr<BenchQueue> queue;
  };
  static Task<Result<void>> open_device(Lane& lane);
  static Task<Result<void>> prepare_queue(Lane& lane, BenchQueue::Options options);
  static Task<void> close_lane(Lane& lane);
  static Task<void> stop_lane(Lane& lane);
  static Task<void> add_progress(Lane& lane, Progress& progress);
  std::expected<std::vector<BenchRegion>, Complaint> regions() const;
  BenchOutcome collect(Instant start) const;

  Runtime& runtime_;
  Shard& home_;
  const Options options_;
  std::vector<Lane> lanes_;
  Progress::Phase phase_ = Progress::Phase::kIdle;
  Instant start_;
};

}  // namespace fairlead::cli
