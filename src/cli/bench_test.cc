#include "cli/bench.h"

#include <cstdio>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "async/cancel.h"
#include "async/scope.h"
#include "block/faulty.h"
#include "block/memory.h"
#include "block/null.h"
#include "cli/bench_report.h"
#include "cli/bench_run.h"
#include "cli/pool_arguments.h"
#include "sim/world.h"

namespace fairlead::cli {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// A file that is gone with the test.
class TemporaryFile {
 public:
  explicit TemporaryFile(size_t bytes) { std::ofstream(path_) << std::string(bytes, 'x'); }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_ = fmt::format("{}/bench_test.{}", testing::TempDir(), ::getpid());
};

TEST(BenchArgumentsTest, DefaultsReadAtRandom) {
  const auto plan = check(BenchArguments{.target = "memory:1GiB"});
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_EQ(std::get<MemoryTarget>(plan->target).size_bytes, kGiB);
  EXPECT_EQ(plan->load.order, BenchOrder::kRandom);
  EXPECT_EQ(plan->load.read_percent, 100U);
  EXPECT_EQ(plan->load.block_bytes, 4096U);
  EXPECT_EQ(plan->load.depth, 32U);
  EXPECT_EQ(plan->load.runtime, std::chrono::seconds(10));
  EXPECT_EQ(plan->runtime.shards, 1);
  EXPECT_FALSE(plan->json);
}

TEST(BenchArgumentsTest, AllOfThem) {
  const auto plan = check(BenchArguments{.target = "null:2GiB",
                                         .rw = "randrw",
                                         .mix = 25,
                                         .bs = "128k",
                                         .qd = 7,
                                         .queues = 4,
                                         .shards = 2,
                                         .runtime = "1.5s",
                                         .rate = "100k",
                                         .offset = "1MiB",
                                         .size = "1GiB",
                                         .target_pid = ::getpid(),
                                         .poll = "always",
                                         .cpus = "1,0-1",
                                         .json = true});
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_EQ(plan->load.read_percent, 25U);
  EXPECT_EQ(plan->load.block_bytes, 128 * kKiB);
  EXPECT_EQ(plan->load.depth_of(0) + plan->load.depth_of(1) + plan->load.depth_of(2) + plan->load.depth_of(3), 7U);
  EXPECT_EQ(plan->load.depth_of(3), 1U);
  EXPECT_EQ(plan->load.rate, 100'000U);
  EXPECT_EQ(plan->load.offset, kMiB);
  EXPECT_EQ(plan->load.size, kGiB);
  EXPECT_EQ(plan->runtime.shards, 2);
  EXPECT_EQ(plan->runtime.poll, PollMode::kAlways);
  EXPECT_EQ(plan->runtime.processors, (std::vector<int>{1, 0, 1}));
}

TEST(BenchArgumentsTest, QueuesShareTheProcessorsThatAreNamed) {
  const auto plan = check(BenchArguments{.target = "null:1GiB", .queues = 4, .cpus = "0"});
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_EQ(plan->runtime.shards, 1);
}

TEST(BenchArgumentsTest, RemoteTargets) {
  const auto plan = check(BenchArguments{.target = "nvme+tcp://10.0.0.1:5/nqn.2020-01.org.example:a?ns=3",
                                         .paths = {"10.0.0.2", "[::1]:6"},
                                         .quiesce = "0s",
                                         .rw = "write",
                                         .overwrite = true,
                                         .ddgst = true});
  ASSERT_TRUE(plan) << plan.error();
  const auto& target = std::get<FabricTarget>(plan->target);
  EXPECT_EQ(target.subsystem.nqn, "nqn.2020-01.org.example:a");
  EXPECT_EQ(target.nsid, 3U);
  EXPECT_EQ(target.subsystem.quiesce, Duration(0));
  std::vector<std::string> paths;
  for (const SocketAddress& path : target.subsystem.addresses) paths.push_back(to_string(path));
  EXPECT_EQ(paths, (std::vector<std::string>{"10.0.0.1:5", "10.0.0.2:5", "[::1]:6"}));
  EXPECT_FALSE(target.subsystem.header_digest);
  EXPECT_TRUE(target.subsystem.data_digest);
}

TEST(BenchArgumentsTest, PoolTargets) {
  const auto plan = check(BenchArguments{.target = "pool:/dev/a,b/c.img/db", .rw = "write", .overwrite = true});
  ASSERT_TRUE(plan) << plan.error();
  const auto& target = std::get<PoolTarget>(plan->target);
  EXPECT_EQ(target.object, "db");
  ASSERT_EQ(target.disks.size(), 2U);
  EXPECT_EQ(target.disks[0].path, "/dev/a");
  EXPECT_EQ(target.disks[1].path, "b/c.img");
}

TEST(BenchArgumentsTest, ComplaintsNameTheArgument) {
  const std::string url = "nvme+tcp://10.0.0.1/nqn.2020-01.org.example:a";
  const struct {
    BenchArguments arguments;
    const char* says;
  } kTable[] = {
      {{}, "TARGET"},
      {{.target = "memory:lots"}, "memory:lots"},
      {{.target = "memory:1000"}, "memory:1000"},
      {{.target = "null:0"}, "null:0"},
      {{.target = "null:1G", .rw = "randwrites"}, "--rw randwrites"},
      {{.target = "null:1G", .rw = "randrw", .mix = 100}, "--mix 100"},
      {{.target = "null:1G", .mix = 50}, "--mix 50"},
      {{.target = "null:1G", .bs = "big"}, "--bs big"},
      {{.target = "null:1G", .bs = "1000"}, "--bs 1000"},
      {{.target = "null:1G", .bs = "4MiB"}, "--bs 4MiB"},
      {{.target = "null:1G", .qd = 0}, "--qd 0"},
      {{.target = "null:1G", .qd = 4, .queues = 8}, "--qd 4"},
      {{.target = "null:1G", .bs = "2MiB", .qd = 60000}, "--qd 60000"},
      {{.target = "null:1G", .queues = 0}, "--queues 0"},
      {{.target = "null:1G", .queues = 2, .shards = 3}, "--shards 3"},
      {{.target = "null:1G", .queues = 2, .shards = 2, .cpus = "0"}, "--shards 2"},
      {{.target = "null:1G", .runtime = "10"}, "--runtime 10"},
      {{.target = "null:1G", .runtime = "0s"}, "--runtime 0s"},
      {{.target = "null:1G", .rate = "fast"}, "--rate fast"},
      {{.target = "null:1G", .rate = "0"}, "--rate 0"},
      {{.target = "null:1G", .offset = "x"}, "--offset x"},
      {{.target = "null:1G", .size = "x"}, "--size x"},
      {{.target = "null:1G", .size = "512"}, "--size 512"},
      {{.target = "null:1G", .poll = "often"}, "--poll often"},
      {{.target = "null:1G", .cpus = "1-0"}, "--cpus 1-0"},
      {{.target = "null:1G", .cpus = "0-999"}, "--cpus 0-999"},
      {{.target = "null:1G", .target_pid = -1}, "--target-pid -1"},
      {{.target = "null:1G", .target_pid = 2'000'000'000}, "--target-pid 2000000000"},
      {{.target = "null:1G", .rw = "randrw", .verify = true}, "--verify"},
      {{.target = "memory:1G", .rw = "read", .verify = true}, "--rw randrw"},
      {{.target = "memory:1G", .hdgst = true}, "--hdgst"},
      {{.target = "memory:1G", .paths = {"10.0.0.1"}}, "--path"},
      {{.target = "nvme+tcp://10.0.0.1"}, "nvme+tcp://10.0.0.1"},
      {{.target = url, .paths = {"there"}}, "--path there"},
      {{.target = url, .limit = "latency=80us"}, "--limit"},
      {{.target = "memory:1G", .limit = "latency=soon"}, "--limit latency=soon"},
      {{.target = url, .quiesce = "soon"}, "--quiesce soon"},
      {{.target = "memory:1G", .quiesce = "0s"}, "--quiesce"},
      {{.target = url, .paths = {"10.0.0.1:4420"}}, "--path 10.0.0.1:4420"},
      {{.target = url, .host = "me"}, "--host me"},
      {{.target = url, .rw = "randrw"}, "--overwrite"},
      {{.target = "pool:disk.img"}, "REPLICA"},
      {{.target = "pool:disk.img/"}, "REPLICA"},
      {{.target = "pool:a,,b/db"}, "no name"},
      {{.target = "pool:disk.img/db", .rw = "write"}, "--overwrite"},
      {{.target = "/nowhere/disk.img"}, "/nowhere/disk.img"},
      {{.target = "/nowhere/disk.img", .rw = "write"}, "--size"},
  };
  for (const auto& [arguments, says] : kTable) {
    const auto plan = check(arguments);
    ASSERT_FALSE(plan) << says;
    EXPECT_THAT(plan.error(), HasSubstr(says));
  }
}

TEST(BenchArgumentsTest, WhatIsThereIsNotOverwrittenUnasked) {
  const TemporaryFile file(8192);
  for (const char* rw : {"randwrite", "write", "randrw"}) {
    const auto refused = check(BenchArguments{.target = file.path(), .rw = rw});
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error(), HasSubstr("--overwrite"));
    const auto plan = check(BenchArguments{.target = file.path(), .rw = rw, .overwrite = true});
    ASSERT_TRUE(plan) << plan.error();
    EXPECT_EQ(std::get<OpenDisk>(plan->target).access, Access::kReadWrite);
    EXPECT_FALSE(std::get<OpenDisk>(plan->target).size_bytes) << "it would grow";
  }
  const auto reads = check(BenchArguments{.target = file.path()});
  ASSERT_TRUE(reads) << reads.error();
  EXPECT_EQ(std::get<OpenDisk>(reads->target).access, Access::kReadOnly);
  const TemporaryFile empty(0);
  const auto grows = check(BenchArguments{.target = empty.path(), .rw = "write", .size = "1MiB"});
  ASSERT_TRUE(grows) << grows.error();
  EXPECT_EQ(std::get<OpenDisk>(grows->target).size_bytes, kMiB);
}

TEST(BenchLayoutTest, RandomQueuesShareAndTheOthersDivide) {
  const BlockGeometry geometry = {.size_bytes = kMiB, .logical_block = 4096};
  const BenchLoad load = {.depth = 8, .queues = 3, .offset = 8192};
  const auto shared = lay_out(load, geometry);
  ASSERT_TRUE(shared) << shared.error();
  EXPECT_EQ(*shared, std::vector<BenchRegion>(3, {.offset = 8192, .blocks = 254}));
  for (const bool verify : {false, true}) {
    BenchLoad own = load;
    own.read_percent = 0;
    if (verify) own.verify = BenchVerify::kOn;
    if (!verify) own.order = BenchOrder::kSequential;
    const auto divided = lay_out(own, geometry);
    ASSERT_TRUE(divided) << divided.error();
    EXPECT_EQ(*divided, (std::vector<BenchRegion>{{.offset = 8192, .blocks = 84},
                                                  {.offset = 8192 + 84 * 4096, .blocks = 84},
                                                  {.offset = 8192 + 168 * 4096, .blocks = 84}}));
  }
  const auto huge = lay_out({.verify = BenchVerify::kOn}, {.size_bytes = 8 * kTiB, .logical_block = 512});
  ASSERT_TRUE(huge) << huge.error();
  EXPECT_EQ(huge->front().blocks, kVerifiedBlocksMax);
}

TEST(BenchLayoutTest, ComplaintsSayWhatTheDeviceHas) {
  const BlockGeometry geometry = {.size_bytes = kMiB, .logical_block = 4096};
  const BlockGeometry read_only = {.size_bytes = kMiB, .logical_block = 4096, .read_only = true};
  const struct {
    BenchLoad load;
    BlockGeometry geometry;
    const char* says;
  } kTable[] = {
      {{.read_percent = 0}, read_only, "read-only"},
      {{.block_bytes = 512}, geometry, "--bs"},
      {{.offset = 512}, geometry, "--offset"},
      {{.offset = kMiB}, geometry, "--offset"},
      {{.size = 2 * kMiB}, geometry, "--size"},
      {{.offset = 4096, .size = kMiB}, geometry, "--size"},
      {{.order = BenchOrder::kSequential, .block_bytes = 1 << 19, .depth = 3, .queues = 3}, geometry, "too small"},
      {{.read_percent = 0, .depth = 300, .verify = BenchVerify::kOn}, geometry, "too small"},
  };
  for (const auto& [load, device, says] : kTable) {
    const auto layout = lay_out(load, device);
    ASSERT_FALSE(layout) << says;
    EXPECT_THAT(layout.error(), HasSubstr(says));
  }
}

// Does to some requests what a broken disk would, and says that all went well. Around a device that is done at once.
class LyingDevice final : public BlockDevice {
 public:
  enum class Lie : uint8_t { kLosesWrites, kMisdirectsWrites, kFlipsABit };
  LyingDevice(std::unique_ptr<BlockDevice> inner, Lie lie)
      : BlockDevice(inner->geometry()), inner_(std::move(inner)), lie_(lie) {}

 private:
  void execute(IoRequest& request) override {
    const bool is_write = request.op == IoOp::kWrite;
    const bool is_due = is_write == (lie_ != Lie::kFlipsABit) && ++matched_ % 50 == 0;
    if (is_due && lie_ == Lie::kLosesWrites) return request.complete({});
    IoRequest inside;
    inside.arguments() = request.arguments();
    inside.done = [](IoRequest&) {};
    if (is_due && lie_ == Lie::kMisdirectsWrites) {
      inside.offset = ByteOffset((request.offset.value + 16 * request.length) % geometry().size_bytes);
    }
    inner_->submit(inside);
    if (is_due && lie_ == Lie::kFlipsABit) static_cast<uint8_t*>(request.buffers[0].iov_base)[2000] ^= 4;
    request.complete(inside.result);
  }
  const std::unique_ptr<BlockDevice> inner_;
  const Lie lie_;
  uint64_t matched_ = 0;
};

class LyingSource final : public BlockSource {
 public:
  explicit LyingSource(LyingDevice::Lie lie) : lie_(lie) {}
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    FL_TRY(auto device, inner_->open(shard));
    return std::make_unique<LyingDevice>(std::move(device), lie_);
  }

 private:
  const LyingDevice::Lie lie_;
  const std::shared_ptr<BlockSource> inner_ = *make_memory_source({.size_bytes = 4 * kMiB});
};

struct Measured {
  Complaint complaint;
  BenchOutcome outcome;
};

enum class Ending : uint8_t { kByItself, kStopped, kStoppedTwice };
struct Ask {
  BenchLoad load;
  std::shared_ptr<BlockSource> source;
  Ending ending = Ending::kByItself;  // stopped: as soon as something was done
};

Task<void> stop_when_moving(Reactor& reactor, BenchRun& run, int stops) {
  while ((co_await run.progress()).operations == 0) (void)co_await sleep(reactor, milliseconds(1));
  for (int i = 0; i < stops; ++i) co_await run.stop();
}

Task<int> measure_on(Runtime& runtime, const Ask& ask, Measured& measured) {
  BenchRun run(runtime, {.load = ask.load});
  Reactor& reactor = runtime.shard(0).reactor;
  Scope beside(reactor);
  if (const auto opened = co_await run.open(std::vector(ask.load.queues, ask.source)); !opened) {
    measured.complaint = opened.error();
  } else {
    if (ask.ending != Ending::kByItself) {
      beside.spawn(stop_when_moving(reactor, run, ask.ending == Ending::kStoppedTwice ? 2 : 1));
    }
    measured.outcome = co_await run.measure();
  }
  co_await beside.close();
  co_await run.close();
  co_return 0;
}

Measured measure(const Ask& ask) {
  Runtime runtime({.shards = static_cast<uint16_t>(std::min(ask.load.queues, 2U)), .pinning = Pinning::kNone});
  const auto started = runtime.start();
  FL_CHECK(started.has_value());
  Measured measured;
  runtime.run(measure_on(runtime, ask, measured));
  return measured;
}

std::shared_ptr<BlockSource> memory() { return *make_memory_source({.size_bytes = 16 * kMiB}); }
std::shared_ptr<BlockSource> faulty(std::string_view rules) {
  return make_faulty_source(memory(), *parse_fault_rules(rules));
}

TEST(BenchRunTest, EveryPatternOnEveryKindOfMemory) {
  for (const auto& source : {memory(), *make_null_source({.size_bytes = kGiB})}) {
    for (const BenchOrder order : {BenchOrder::kRandom, BenchOrder::kSequential}) {
      for (const uint32_t reads : {0U, 40U, 100U}) {
        const BenchLoad load = {
            .order = order, .read_percent = reads, .depth = 7, .queues = 3, .runtime = std::chrono::hours(1)};
        const auto [complaint, outcome] = measure({load, source, Ending::kStopped});
        ASSERT_EQ(complaint, "");
        EXPECT_EQ(outcome.errors(), 0U);
        EXPECT_EQ(outcome.read.latency.count() > 0, reads > 0);
        EXPECT_EQ(outcome.write.latency.count() > 0, reads < 100);
      }
    }
  }
}

TEST(BenchRunTest, VerifiesWhatMemoryHolds) {
  for (const uint32_t reads : {0U, 50U}) {
    const BenchLoad load = {.order = BenchOrder::kSequential,
                            .read_percent = reads,
                            .depth = 8,
                            .queues = 2,
                            .runtime = milliseconds(50),
                            .verify = BenchVerify::kOn,
                            .size = 32 * 4096};
    const auto [complaint, outcome] = measure({load, memory()});
    ASSERT_EQ(complaint, "");
    EXPECT_EQ(outcome.verify_errors, 0U);
    // One after the other: all that were written are read back, be it one queue's part alone.
    EXPECT_GE(outcome.verified, std::min<uint64_t>(outcome.write.latency.count(), 16));
  }
}

TEST(BenchRunTest, CountsErrorsAndGivesUpAfterMany) {
  const auto [complaint, outcome] =
      measure({{.read_percent = 50, .runtime = std::chrono::hours(1), .verify = BenchVerify::kOn},
               faulty("write:error=no_space,every=10")});
  ASSERT_EQ(complaint, "");
  EXPECT_EQ(outcome.write.errors, 100U);
  EXPECT_EQ(outcome.read.errors, 0U);
  EXPECT_EQ(outcome.verify_errors, 0U) << "a write that failed promises nothing";
  ASSERT_FALSE(outcome.complaints.empty());
  EXPECT_THAT(outcome.complaints.front(), HasSubstr("write of 4096 bytes at offset"));
}

TEST(BenchRunTest, EndsEarlyWithWhatWasDone) {
  for (const uint64_t rate : {uint64_t{0}, uint64_t{1}}) {
    const BenchLoad load = {.depth = 4, .queues = 2, .runtime = std::chrono::hours(1), .rate = rate};
    const auto [complaint, outcome] = measure({load, memory(), Ending::kStopped});
    ASSERT_EQ(complaint, "");
    EXPECT_GT(outcome.operations(), 0U);
    EXPECT_GT(outcome.elapsed, Duration::zero());
    EXPECT_LT(outcome.elapsed, std::chrono::hours(1));
    EXPECT_EQ(outcome.behind, 0U);
  }
}

TEST(BenchRunTest, WhatWasWrittenUntilItWasStoppedIsReadBack) {
  const BenchLoad load = {
      .read_percent = 0, .depth = 4, .queues = 2, .runtime = std::chrono::hours(1), .verify = BenchVerify::kOn};
  const auto [complaint, outcome] = measure({load, memory(), Ending::kStopped});
  ASSERT_EQ(complaint, "");
  EXPECT_GT(outcome.verified, 0U);
  EXPECT_EQ(outcome.verify_errors, 0U);
  EXPECT_EQ(measure({load, memory(), Ending::kStoppedTwice}).outcome.verified, 0U);
}

// Queues in virtual time, where every latency is exact but for the nanoseconds that turns of the loop take.
constexpr uint64_t kTurns = 5'000;
struct QueueTest : testing::Test {
  std::vector<BenchQueue::Tally> run(const BenchLoad& load, const std::shared_ptr<BlockSource>& source) {
    std::vector<BenchQueue::Tally> tallies(load.queues);
    done = 0;
    for (uint32_t i = 0; i < load.queues; ++i) world.spawn(node, 0, run_one(load, i, *source, tallies[i]));
    const auto ended = [&] { return done == load.queues; };
    EXPECT_EQ(world.run_until(ended, std::chrono::seconds(10)), sim::RunResult::kDone) << world.report();
    return tallies;
  }
  Task<void> run_one(BenchLoad load, uint32_t index, BlockSource& source, BenchQueue::Tally& tally) {
    Shard& shard = node.shard(0);
    auto device = source.open(shard);
    FL_CHECK(device.has_value());
    BenchQueue queue(shard, **device,
                     {.load = load, .index = index, .region = {.offset = 0, .blocks = 100}, .seed = 1});
    FL_CHECK(queue.prepare().has_value());
    began = shard.clock.now();
    co_await queue.run(began);
    co_await queue.read_back();
    tally = queue.tally();
    ++done;
  }
  sim::SimWorld world{1, sim::SimSettings::calm()};
  sim::SimNode& node = world.add_node("10.0.0.1");
  Instant began;
  uint32_t done = 0;
};

TEST_F(QueueTest, KeepsItsDepthInFlight) {
  const auto tallies = run({.depth = 4, .runtime = milliseconds(100)}, faulty("read:delay=1ms"));
  const Histogram& latency = tallies[0].read.latency;
  EXPECT_EQ(latency.count(), 400U);
  EXPECT_GE(latency.min(), 1'000'000U);
  EXPECT_LE(latency.max(), 1'000'000U + kTurns);
  EXPECT_NEAR(static_cast<double>((tallies[0].ended - began).count()), 100e6, kTurns);
}

TEST_F(QueueTest, RateIsExactInSum) {
  const auto tallies = run({.depth = 64, .queues = 3, .runtime = milliseconds(100), .rate = 10'001}, memory());
  uint64_t operations = 0;
  for (const BenchQueue::Tally& tally : tallies) {
    operations += tally.read.latency.count();
    EXPECT_EQ(tally.behind, 0U);
    EXPECT_LE(tally.read.latency.max(), kTurns);
    EXPECT_NEAR(static_cast<double>((tally.ended - began).count()), 100e6, kTurns);
  }
  EXPECT_EQ(operations, 1001U);
}

TEST_F(QueueTest, AStallShowsInEveryRequestThatItHeldUp) {
  const auto tallies = run({.depth = 1, .runtime = milliseconds(100), .rate = 1000}, faulty("read:delay=20ms,count=1"));
  const Histogram& latency = tallies[0].read.latency;
  EXPECT_EQ(latency.count(), 100U);
  EXPECT_NEAR(static_cast<double>(latency.max()), 20e6, kTurns);
  // The one that stalled, and those that were due 1 ms to 19 ms after it.
  EXPECT_NEAR(static_cast<double>(latency.sum()), 210e6, 100 * kTurns);
}

TEST_F(QueueTest, SilenceIsWhenNoRequestEnds) {
  const auto silence = [this](const BenchLoad& load) {
    const BenchQueue::Tally tally = run(load, faulty("read:delay=20ms,count=1"))[0];
    EXPECT_NEAR(static_cast<double>(tally.read.latency.max()), 20e6, kTurns);
    return static_cast<double>(tally.longest_silence.count());
  };
  EXPECT_NEAR(silence({.depth = 1, .runtime = milliseconds(100), .rate = 1000}), 20e6, kTurns);
  EXPECT_NEAR(silence({.depth = 2, .runtime = milliseconds(100), .rate = 1000}), 1e6, kTurns) << "the others go on";
  EXPECT_NEAR(silence({.depth = 2, .runtime = milliseconds(100), .rate = 10}), 20e6, kTurns)
      << "while nothing is asked for nothing has to end";
}

TEST_F(QueueTest, WhatWasDueAndNotSentIsBehind) {
  const auto tallies = run({.depth = 2, .runtime = milliseconds(50), .rate = 1'000'000}, faulty("read:delay=1ms"));
  EXPECT_EQ(tallies[0].read.latency.count(), 100U);
  EXPECT_EQ(tallies[0].behind, 50'000U - 100U);
}

TEST_F(QueueTest, VerificationFindsADeviceThatLies) {
  const struct {
    LyingDevice::Lie lie;
    const char* says;
  } kTable[] = {{LyingDevice::Lie::kLosesWrites, "generation"},
                {LyingDevice::Lie::kMisdirectsWrites, "generation"},
                {LyingDevice::Lie::kFlipsABit, "damaged"}};
  for (const auto& [lie, says] : kTable) {
    for (const uint32_t reads : {0U, 50U}) {
      const auto source = make_faulty_source(std::make_shared<LyingSource>(lie), *parse_fault_rules("any:delay=100us"));
      const BenchLoad load = {
          .read_percent = reads, .depth = 8, .runtime = milliseconds(10), .verify = BenchVerify::kOn};
      const BenchQueue::Tally tally = run(load, source)[0];
      EXPECT_GT(tally.verify_errors, 0U) << says;
      EXPECT_THAT(fmt::format("{}", fmt::join(tally.complaints, "\n")), HasSubstr(says));
    }
  }
}

TEST_F(QueueTest, VerificationReadsBackAllThatWasWritten) {
  const BenchLoad load = {.read_percent = 0, .depth = 8, .runtime = milliseconds(100), .verify = BenchVerify::kOn};
  const BenchQueue::Tally tally = run(load, faulty("any:delay=100us"))[0];
  EXPECT_EQ(tally.verify_errors, 0U);
  EXPECT_EQ(tally.verified, 100U) << "8000 writes reach each of the 100 blocks";
  EXPECT_EQ(tally.read_back, 100U);
}

nlohmann::json bench_as_json(const BenchArguments& arguments, int* exit_code) {
  const auto plan = check(arguments);
  EXPECT_TRUE(plan) << plan.error();
  testing::internal::CaptureStdout();
  *exit_code = bench(*plan);
  return nlohmann::json::parse(testing::internal::GetCapturedStdout());
}

TEST(BenchTest, AFileIsMadeVerifiedAndReportedAsJson) {
  const TemporaryFile file(0);
  int exit_code = 0;
  const nlohmann::json json = bench_as_json({.target = file.path(),
                                             .rw = "randrw",
                                             .qd = 8,
                                             .queues = 2,
                                             .runtime = "300ms",
                                             .size = "8MiB",
                                             .verify = true,
                                             .target_pid = ::getpid(),
                                             .json = true},
                                            &exit_code);
  EXPECT_EQ(exit_code, 0);
  EXPECT_EQ(json.at("verify_errors"), 0);
  EXPECT_EQ(json.at("errors"), 0);
  EXPECT_GT(json.at("verified_reads"), 0);
  EXPECT_GE(json.at("runtime_seconds"), 0.3);
  EXPECT_GT(json.at("cpu_seconds_per_million"), 0);
  EXPECT_GT(json.at("longest_silence_ns"), 0);
  EXPECT_LE(json.at("longest_silence_ns"), json.at("latency_ns").at("max"));
  EXPECT_GT(json.at("target_cpu_seconds_per_million"), 0);
  for (const nlohmann::json& side : {json, json.at("read"), json.at("write")}) {
    const double operations = side.at("operations");
    EXPECT_NEAR(side.at("iops").get<double>() * json.at("runtime_seconds").get<double>(), operations, 0.5);
    EXPECT_NEAR(side.at("bytes_per_second").get<double>(), side.at("iops").get<double>() * 4096, 1);
    uint64_t last = 0;
    for (const char* key : {"min", "p50", "p99", "p99_9", "p99_99", "max"}) {
      const uint64_t value = side.at("latency_ns").at(key);
      EXPECT_GE(value, last) << key;
      last = value;
    }
    EXPECT_GT(side.at("latency_ns").at("mean"), 0);
  }
  EXPECT_EQ(json.at("operations"),
            json.at("read").at("operations").get<uint64_t>() + json.at("write").at("operations").get<uint64_t>());
}

TEST(BenchTest, AReplicaOfAPoolWithoutANetwork) {
  const TemporaryFile disk(64 * kMiB);
  testing::internal::CaptureStdout();
  const auto pool =
      check(PoolArguments{.action = PoolAction::kCreate, .name = "tank", .disks = {disk.path()}, .force = true});
  ASSERT_TRUE(pool) << pool.error();
  ASSERT_EQ(run(*pool), 0);
  const auto replica = check(
      ObjectArguments{.action = ObjectAction::kCreateReplica, .pool = {disk.path()}, .name = "db", .size = "16MiB"});
  ASSERT_TRUE(replica) << replica.error();
  ASSERT_EQ(run(*replica), 0);
  (void)testing::internal::GetCapturedStdout();

  int exit_code = 1;
  const std::string target = "pool:" + disk.path() + "/db";
  const nlohmann::json json = bench_as_json({.target = target,
                                             .rw = "randrw",
                                             .queues = 2,
                                             .runtime = "200ms",
                                             .verify = true,
                                             .overwrite = true,
                                             .json = true},
                                            &exit_code);
  EXPECT_EQ(exit_code, 0) << "the pool is closed, too";
  EXPECT_EQ(json.at("verify_errors"), 0);
  EXPECT_GT(json.at("verified_reads"), 0);

  const auto unknown = check(BenchArguments{.target = "pool:" + disk.path() + "/nothing", .runtime = "10ms"});
  ASSERT_TRUE(unknown) << unknown.error();
  testing::internal::CaptureStderr();
  EXPECT_EQ(bench(*unknown), 1);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("no replica"));
}

TEST(BenchTest, FailuresAreInTheExitCode) {
  const TemporaryFile file(100);  // less than a block
  int exit_code = 0;
  const auto plan = check(BenchArguments{.target = file.path(), .runtime = "10ms"});
  ASSERT_TRUE(plan) << plan.error();
  testing::internal::CaptureStderr();
  exit_code = bench(*plan);
  EXPECT_EQ(exit_code, 1);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(file.path()));
}

TEST(BenchReportTest, ReadsLikeATable) {
  BenchOutcome outcome;
  outcome.block_bytes = 4096;
  outcome.elapsed = std::chrono::seconds(2);
  for (int i = 0; i < 2'000'000; ++i) outcome.read.latency.record(20'000);
  outcome.read.errors = 1;
  outcome.bench_cpu_ns = 1'000'000'000;
  outcome.target_cpu_ns = 500'000'000;
  EXPECT_EQ(report({}, outcome),
            "           IOPS      MB/s      mean       p50       p99     p99.9    p99.99       max\n"
            "read    1000000    4096.0   20.0 us   20.0 us   20.0 us   20.0 us   20.0 us   20.0 us\n"
            "2000000 requests in 2.00 s, 1 error\n"
            "processor: 0.500 s for a million requests, and 0.250 s in the target\n");
  EXPECT_EQ(describe("disk.img", {.read_percent = 70, .depth = 64, .queues = 2, .rate = 500}),
            "disk.img: random reads and writes (70 % reads) of 4 KiB, 64 in flight on 2 queues, for 10.0 s, 500 a "
            "second");
}

TEST(BenchReportTest, LatenciesHaveThreeDigits) {
  const struct {
    uint64_t ns;
    const char* text;
  } kTable[] = {{0, "0 ns"},        {999, "999 ns"},    {1000, "1.00 us"},      {9'994, "9.99 us"},
                {9'996, "10.0 us"}, {99'960, "100 us"}, {1'500'000, "1.50 ms"}, {2'000'000'000, "2.00 s"}};
  for (const auto& [ns, text] : kTable) EXPECT_EQ(format_latency(ns), text);
}

}  // namespace
}  // namespace fairlead::cli
