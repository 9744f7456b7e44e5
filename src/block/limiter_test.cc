#include "block/limiter.h"

#include <algorithm>
#include <deque>
#include <gtest/gtest.h>

#include "block/memory.h"
#include "block/null.h"
#include "block/test_world.h"

namespace fairlead {
namespace {

using namespace fairlead::test;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

std::shared_ptr<BlockSource> null_source() {
  auto source = make_null_source({.size_bytes = kGiB});
  FL_CHECK(source.has_value());
  return *source;
}

// Keeps `depth` requests in flight until told to stop.
class Load {
 public:
  Load(Reactor& reactor, BlockDevice& device, size_t depth, size_t length, IoOp op = IoOp::kRead)
      : reactor_(reactor), device_(device), memory_(length), buffer_{memory_.data(), length} {
    for (size_t i = 0; i < depth; ++i) {
      Request& request = requests_.emplace_back();
      request.load = this;
      request.op = op;
      request.length = op == IoOp::kFlush ? 0 : length;
      request.buffers = std::span(&buffer_, 1);
      request.done = [](IoRequest& self) { static_cast<Request&>(self).load->on_done(static_cast<Request&>(self)); };
    }
  }
  void start() {
    for (Request& request : requests_) submit(request);
  }
  void stop() { stopped_ = true; }

  uint64_t completed = 0;
  uint64_t limit = UINT64_MAX;  // submissions
  std::vector<Duration> latencies;

 private:
  struct Request : IoRequest {
    Load* load = nullptr;
    Instant submitted;
  };
  void submit(Request& request) {
    if (stopped_ || submitted_ == limit) return;
    ++submitted_;
    request.submitted = reactor_.now();
    device_.submit(request);
  }
  void on_done(Request& request) {
    FL_CHECK(request.result.has_value());
    ++completed;
    if (latencies.size() < latencies.capacity()) latencies.push_back(reactor_.now() - request.submitted);
    submit(request);
  }

  Reactor& reactor_;
  BlockDevice& device_;
  std::vector<std::byte> memory_;
  iovec buffer_;
  std::deque<Request> requests_;
  uint64_t submitted_ = 0;
  bool stopped_ = false;
};

struct Timing {
  const char* name;
  LimiterOptions options;
  size_t depth;
  size_t length;
  IoOp op;
  uint64_t count;
  Duration expected;  // until the last is complete
};

class LimiterTimeTest : public testing::TestWithParam<Timing> {};

TEST_P(LimiterTimeTest, TakesTheComputedTime) {
  const Timing& timing = GetParam();
  World world;
  const auto source = make_limiter_source(null_source(), timing.options);
  const auto device = open_or_die(*source, world.shard);
  Load load(world.reactor, *device, timing.depth, timing.length, timing.op);
  load.limit = timing.count;
  load.start();
  world.run();
  EXPECT_EQ(load.completed, timing.count);
  EXPECT_EQ(world.reactor.now() - Instant{}, timing.expected);
}

constexpr LimiterOptions kIops = {.iops_max = 400'000};
constexpr LimiterOptions kOdd = {.iops_max = 300'000};
constexpr LimiterOptions kBandwidth = {.bandwidth_max = 1'000'000'000};
constexpr LimiterOptions kDisk = {.iops_max = 10'000, .bandwidth_max = 1'000'000'000, .latency = microseconds(80)};
constexpr LimiterOptions kLatency = {.latency = microseconds(80)};
INSTANTIATE_TEST_SUITE_P(
    All, LimiterTimeTest,
    testing::Values(
        // The first starts at once, hence one cost less than their number.
        Timing{"iops", kIops, 32, 4096, IoOp::kRead, 40'001, milliseconds(100)},
        Timing{"iops_alone", kIops, 1, 4096, IoOp::kWrite, 40'001, milliseconds(100)},
        Timing{"iops_of_odd_cost", kOdd, 32, 4096, IoOp::kRead, 300'001, nanoseconds(999'993'750)},
        Timing{"bandwidth", kBandwidth, 8, 64 * kKiB, IoOp::kWrite, 101, microseconds(6'553) + nanoseconds(600)},
        Timing{"flush_has_no_bytes", kBandwidth, 8, 64 * kKiB, IoOp::kFlush, 1'001, nanoseconds(0)},
        Timing{"small_meets_iops", kDisk, 4, 4096, IoOp::kRead, 1'001, milliseconds(100) + microseconds(80)},
        Timing{"large_meets_bandwidth", kDisk, 4, 1'024'000, IoOp::kRead, 101, microseconds(102'400 + 80)},
        Timing{"latency_alone", kLatency, 1, 4096, IoOp::kRead, 1'000, milliseconds(80)},
        Timing{"latency_at_depth", kLatency, 10, 4096, IoOp::kRead, 1'000, milliseconds(8)}),
    [](const testing::TestParamInfo<Timing>& each) { return each.param.name; });

TEST(LimiterTest, ChangesNoBytes) {
  World world;
  auto memory = make_memory_source({.size_bytes = 4 * kMiB});
  ASSERT_TRUE(memory);
  const auto source = make_limiter_source(
      *memory, {.iops_max = 1'000'000, .bandwidth_max = kGiB, .latency = microseconds(50), .jitter = microseconds(50)});
  const auto device = open_or_die(*source, world.shard);
  hold_against_model(world, *device, {.seed = draw_seed(), .rounds = 50});
}

TEST(LimiterTest, IdleTimeIsNotSavedUp) {
  World world;
  const auto source = make_limiter_source(null_source(), {.iops_max = 1'000});
  const auto device = open_or_die(*source, world.shard);
  for (int round = 1; round <= 3; ++round) {
    world.run_until(Instant{} + seconds(10 * round));
    Load load(world.reactor, *device, 11, 4096);
    load.limit = 11;
    load.start();
    world.run();
    EXPECT_EQ(world.reactor.now() - (Instant{} + seconds(10 * round)), milliseconds(10));
  }
}

// A shard that was away for a while catches up with what waited, and starts nothing before it came.
TEST(LimiterTest, NoRequestStartsBeforeItArrived) {
  World world;
  const auto source = make_limiter_source(null_source(), {.iops_max = 1'000'000, .latency = microseconds(100)});
  const auto device = open_or_die(*source, world.shard);
  Load early(world.reactor, *device, 3, 4096);
  Load late(world.reactor, *device, 1, 4096);
  early.latencies.reserve(3);
  early.limit = 3;
  late.latencies.reserve(1);
  late.limit = 1;
  early.start();
  world.reactor.set_now(Instant{} + microseconds(30));  // the timers of the time between have not fired
  late.start();
  world.run();
  EXPECT_EQ(early.latencies, (std::vector<Duration>{microseconds(100), microseconds(101), microseconds(102)}));
  EXPECT_EQ(late.latencies, std::vector<Duration>{microseconds(100)});
}

TEST(LimiterTest, JitterSpreadsTheLatencyEvenly) {
  World world;
  const auto source = make_limiter_source(null_source(), {.latency = microseconds(80), .jitter = microseconds(20)});
  const auto device = open_or_die(*source, world.shard);
  Load load(world.reactor, *device, 16, 4096);
  load.latencies.reserve(20'000);
  load.limit = 20'000;
  load.start();
  world.run();
  Duration sum{};
  for (const Duration latency : load.latencies) sum += latency;
  const auto [least, most] = std::ranges::minmax(load.latencies);
  EXPECT_GE(least, microseconds(60));
  EXPECT_LT(least, microseconds(61));
  EXPECT_LE(most, microseconds(100));
  EXPECT_GT(most, microseconds(99));
  EXPECT_NEAR(static_cast<double>((sum / 20'000).count()), 80'000.0, 500.0);
}

// A shard that polls every 7 µs, as one that spins does: always a little late, and never more than it may.
TEST(LimiterTest, IsExactOnAverageWhenPolledLate) {
  for (const size_t depth : {size_t{4}, size_t{128}}) {
    World world;
    const auto source = make_limiter_source(null_source(), {.iops_max = 400'000});
    const auto device = open_or_die(*source, world.shard);
    Load load(world.reactor, *device, depth, 4096);
    load.start();
    for (Instant now{}; now < Instant{} + seconds(1); now = now + microseconds(7)) {
      world.reactor.set_now(now);
      world.reactor.expire_timers();
      world.run_ready();
    }
    EXPECT_NEAR(static_cast<double>(load.completed), 400'000.0, 400.0) << depth;
    load.stop();
    world.run();
  }
}

// Runs two shards in step, the second one polled seldom and late.
TEST(LimiterTest, ShardsWithWorkWaitingGetEqualShares) {
  for (const uint64_t iops : {uint64_t{1'000}, uint64_t{400'000}}) {
    World eager;
    World lazy;
    const auto source = make_limiter_source(null_source(), {.iops_max = iops});
    const auto eager_device = open_or_die(*source, eager.shard);
    const auto lazy_device = open_or_die(*source, lazy.shard);
    Load eager_load(eager.reactor, *eager_device, 256, 4096);
    Load lazy_load(lazy.reactor, *lazy_device, 32, 4096);
    eager_load.start();
    lazy_load.start();
    for (int step = 0; step < 1'000'000; ++step) {
      const Instant now = Instant{} + microseconds(step);
      eager.run_until(now);
      if (step % 15 == 0) {
        lazy.reactor.set_now(now);
        lazy.reactor.expire_timers();
        lazy.run_ready();
      }
    }
    const auto sum = static_cast<double>(eager_load.completed + lazy_load.completed);
    EXPECT_NEAR(sum, static_cast<double>(iops), static_cast<double>(iops) * 0.01) << iops;
    EXPECT_NEAR(static_cast<double>(lazy_load.completed) / sum, 0.5, 0.02) << iops;
    eager_load.stop();
    lazy_load.stop();
    // Each waits for time that the other booked.
    eager.run();
    lazy.run();
  }
}

TEST(LimiterTest, ALoneShardGetsEverythingBesideOneWithLittleToDo) {
  World busy;
  World modest;
  const auto source = make_limiter_source(null_source(), {.iops_max = 100'000});
  const auto busy_device = open_or_die(*source, busy.shard);
  const auto modest_device = open_or_die(*source, modest.shard);
  Load busy_load(busy.reactor, *busy_device, 64, 4096);
  busy_load.start();
  std::vector<Duration> latencies;
  for (int step = 0; step < 100; ++step) {  // one request every 10 ms
    const Instant now = Instant{} + milliseconds(10 * step);
    busy.run_until(now);
    modest.run_until(now);
    const Instant before = modest.reactor.now();
    (void)modest.perform(*modest_device, {.op = IoOp::kFlush});
    latencies.push_back(modest.reactor.now() - before);
  }
  busy.run_until(Instant{} + seconds(1));
  EXPECT_NEAR(static_cast<double>(busy_load.completed), 99'900.0, 100.0);
  EXPECT_LE(std::ranges::max(latencies), microseconds(40));  // one lot of the other's, not its whole queue
  busy_load.stop();
  busy.run();
}

TEST(LimitsTest, ParsesWhatItPromises) {
  const auto limits = parse_limits("iops=100k,bandwidth=1GiB,latency=80us,jitter=20us");
  ASSERT_TRUE(limits);
  EXPECT_EQ(limits->iops_max, 100'000U);
  EXPECT_EQ(limits->bandwidth_max, kGiB);
  EXPECT_EQ(limits->latency, microseconds(80));
  EXPECT_EQ(limits->jitter, microseconds(20));
  EXPECT_TRUE(parse_limits(""));
  for (const char* bad : {"iops", "iops=x", "speed=3", "jitter=5us", "latency=5us,jitter=6us", "latency=80"}) {
    EXPECT_EQ(parse_limits(bad).error().code, Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace fairlead
