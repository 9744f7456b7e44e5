#include "cli/bench_run.h"

#include <algorithm>
#include <fmt/format.h>

#include "async/call.h"
#include "async/scope.h"
#include "base/check.h"
#include "cli/cpu_time.h"

namespace fairlead::cli {

BenchRun::BenchRun(Runtime& runtime, const Options& options)
    : runtime_(runtime), home_(runtime.shard(0)), options_(options), lanes_(options.load.queues) {
  for (size_t i = 0; i < lanes_.size(); ++i) lanes_[i].shard = &runtime_.shard(i % runtime_.shard_count());
}

BenchRun::~BenchRun() {
  for (const Lane& lane : lanes_) FL_CHECK(lane.device == nullptr && lane.queue == nullptr);
}

Task<Result<void>> BenchRun::open_device(Lane& lane) {
  FL_CO_TRY(lane.device, lane.source->open(*lane.shard));
  co_return Result<void>{};
}

Task<Result<void>> BenchRun::prepare_queue(Lane& lane, BenchQueue::Options options) {
  lane.queue = std::make_unique<BenchQueue>(*lane.shard, *lane.device, options);
  co_return lane.queue->prepare();
}

Task<void> BenchRun::close_lane(Lane& lane) {
  lane.queue.reset();
  lane.device.reset();
  co_return;
}

Task<void> BenchRun::stop_lane(Lane& lane) {
  lane.queue->stop();
  co_return;
}

// The devices are there and nothing is under way: their geometry may be looked at from here.
std::expected<std::vector<BenchRegion>, Complaint> BenchRun::regions() const {
  const BlockGeometry& geometry = lanes_.front().device->geometry();
  for (const Lane& lane : lanes_) {
    const BlockGeometry& other = lane.device->geometry();
    if (other.size_bytes != geometry.size_bytes || other.logical_block != geometry.logical_block) {
      return std::unexpected("the queues see devices of different sizes");
    }
  }
  return lay_out(options_.load, geometry);
}

Task<std::expected<void, Complaint>> BenchRun::open(std::vector<std::shared_ptr<BlockSource>> sources) {
  FL_CHECK(sources.size() == lanes_.size());
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    lane.source = std::move(sources[i]);
    const Result<void> opened = co_await call_on(home_.reactor, lane.shard->reactor, open_device(lane));
    if (!opened) co_return std::unexpected(to_string(opened.error()));
  }
  const auto layout = regions();
  if (!layout) co_return std::unexpected(layout.error());
  const uint64_t seed = home_.random.next();
  for (uint32_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    const BenchQueue::Options queue = {.load = options_.load, .index = i, .region = (*layout)[i], .seed = seed + i};
    const Result<void> ready = co_await call_on(home_.reactor, lane.shard->reactor, prepare_queue(lane, queue));
    if (!ready) co_return std::unexpected(to_string(ready.error()));
  }
  co_return std::expected<void, Complaint>{};
}

Task<BenchOutcome> BenchRun::measure() {
  Scope running(home_.reactor);
  const Result<ThreadTimes> bench_before = thread_times(0);
  const Result<ThreadTimes> target_before =
      options_.target_pid != 0 ? thread_times(options_.target_pid) : fail(Code::kNotFound);
  start_ = home_.clock.now();
  phase_ = Progress::Phase::kLoad;
  for (Lane& lane : lanes_) {
    running.spawn(call_on(home_.reactor, lane.shard->reactor, lane.queue->run(start_)));
  }
  co_await running.close();
  const Result<ThreadTimes> bench_after = thread_times(0);
  const Result<ThreadTimes> target_after =
      options_.target_pid != 0 ? thread_times(options_.target_pid) : fail(Code::kNotFound);
  phase_ = Progress::Phase::kReadBack;
  for (Lane& lane : lanes_) {
    running.spawn(call_on(home_.reactor, lane.shard->reactor, lane.queue->read_back()));
  }
  co_await running.close();
  phase_ = Progress::Phase::kIdle;
  BenchOutcome outcome = collect(start_);
  if (bench_before && bench_after) outcome.bench_cpu_ns = cpu_ns_between(*bench_before, *bench_after);
  if (target_before && target_after) outcome.target_cpu_ns = cpu_ns_between(*target_before, *target_after);
  co_return outcome;
}

// After the load: the queues are at rest, and what they did was seen by this shard when their tasks ended.
BenchOutcome BenchRun::collect(Instant start) const {
  BenchOutcome outcome;
  outcome.block_bytes = options_.load.block_bytes;
  Instant ended = start;
  for (const Lane& lane : lanes_) {
    const BenchQueue::Tally& tally = lane.queue->tally();
    outcome.read.merge(tally.read);
    outcome.write.merge(tally.write);
    outcome.behind += tally.behind;
    outcome.longest_silence = std::max(outcome.longest_silence, tally.longest_silence);
    outcome.verified += tally.verified;
    outcome.verify_errors += tally.verify_errors;
    outcome.complaints.insert(outcome.complaints.end(), tally.complaints.begin(), tally.complaints.end());
    ended = std::max(ended, tally.ended);
  }
  outcome.elapsed = ended - start;
  return outcome;
}

Task<void> BenchRun::stop() {
  for (Lane& lane : lanes_) co_await call_on(home_.reactor, lane.shard->reactor, stop_lane(lane));
}

Task<void> BenchRun::close() {
  for (Lane& lane : lanes_) co_await call_on(home_.reactor, lane.shard->reactor, close_lane(lane));
}

Task<void> BenchRun::add_progress(Lane& lane, Progress& progress) {
  const BenchQueue::Tally& tally = lane.queue->tally();
  progress.operations += tally.read.latency.count() + tally.write.latency.count();
  progress.latency_sum_ns += tally.read.latency.sum() + tally.write.latency.sum();
  progress.read_back += tally.read_back;
  progress.failures += tally.read.errors + tally.write.errors + tally.verify_errors;
  progress.in_flight += lane.queue->in_flight();
  co_return;
}

Task<BenchRun::Progress> BenchRun::progress() {
  Progress progress;
  progress.phase = phase_;
  progress.elapsed = home_.clock.now() - start_;
  for (Lane& lane : lanes_) {
    co_await call_on(home_.reactor, lane.shard->reactor, add_progress(lane, progress));
  }
  co_return progress;
}

}  // namespace fairlead::cli
