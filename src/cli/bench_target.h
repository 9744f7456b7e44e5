// BenchSources: the target of a benchmark, opened once for each queue. Lives on shard 0.
#pragma once

#include <expected>
#include <memory>
#include <vector>

#include "block/block_device.h"
#include "cli/bench.h"
#include "io/runtime.h"

namespace fairlead::cli {

class BenchSources {
 public:
  // Borrowed for life.
  BenchSources(Runtime& runtime, const BenchPlan& plan) : home_(runtime.shard(0)), plan_(plan) {}
  BenchSources(const BenchSources&) = delete;
  BenchSources& operator=(const BenchSources&) = delete;

  // A source for each queue. A remote namespace is connected for each queue by itself; a disk is opened once.
  Task<std::expected<std::vector<std::shared_ptr<BlockSource>>, Complaint>> open();
  // Lets open() end early.
  void cancel() {}
  // Disconnects. Requires: no device is open any more.
  Task<void> close() { co_return; }

 private:
  Shard& home_;
  const BenchPlan& plan_;
};

}  // namespace fairlead::cli
