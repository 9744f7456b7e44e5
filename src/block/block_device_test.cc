#include "block/block_device.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <limits>
#include <thread>

#include "async/scope.h"
#include "base/fault.h"
#include "block/memory.h"
#include "block/null.h"
#include "block/spec.h"
#include "block/test_world.h"

namespace fairlead {
namespace {

using namespace fairlead::test;

std::shared_ptr<BlockSource> memory_or_die(MemoryOptions options) {
  auto source = make_memory_source(options);
  FL_CHECK(source.has_value());
  return *source;
}

// Counts what gets past the checks.
class CountingDevice final : public BlockDevice {
 public:
  explicit CountingDevice(const BlockGeometry& geometry) : BlockDevice(geometry) {}
  int executed = 0;

 private:
  void execute(IoRequest& request) override {
    ++executed;
    request.complete({});
  }
};

TEST(BlockDeviceTest, ChecksRangesAlignmentAndBuffers) {
  World world;
  constexpr uint64_t kSize = 64 * kKiB;
  CountingDevice device({.size_bytes = kSize, .logical_block = 4096});
  std::array<std::byte, 8192> memory{};
  const std::array<iovec, 1> one = {{{memory.data(), 4096}}};
  const std::array<iovec, 1> two = {{{memory.data(), 8192}}};
  const std::array<iovec, 2> wrapping = {{{memory.data(), SIZE_MAX - 4095}, {memory.data(), 8192}}};
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  struct Case {
    IoOp op;
    uint64_t offset;
    uint64_t length;
    std::span<const iovec> buffers;
    std::optional<Code> error;
  };
  const std::vector<Case> cases = {
      {IoOp::kRead, 0, 4096, one, {}},
      {IoOp::kRead, kSize - 4096, 4096, one, {}},
      {IoOp::kWrite, kSize - 8192, 8192, two, {}},
      {IoOp::kDiscard, 0, kSize, {}, {}},
      {IoOp::kFlush, 0, 0, {}, {}},
      {IoOp::kRead, kSize, 4096, one, Code::kOutOfRange},
      {IoOp::kRead, kSize - 4096, 8192, two, Code::kOutOfRange},
      {IoOp::kRead, kMax - 4095, 4096, one, Code::kOutOfRange},  // the end wraps to 0
      {IoOp::kWrite, kMax - 4095, 8192, two, Code::kOutOfRange},
      {IoOp::kDiscard, 4096, kMax - 4095, {}, Code::kOutOfRange},
      {IoOp::kWriteZeroes, kMax - 8191, kMax - 4095, {}, Code::kOutOfRange},
      {IoOp::kDiscard, uint64_t{1} << 63, uint64_t{1} << 63, {}, Code::kOutOfRange},
      {IoOp::kRead, 512, 4096, one, Code::kInvalidArgument},
      {IoOp::kWriteZeroes, 0, 512, {}, Code::kInvalidArgument},
      {IoOp::kDiscard, 1, 4096, {}, Code::kInvalidArgument},
      {IoOp::kRead, 0, 8192, one, Code::kInvalidArgument},
      {IoOp::kRead, 0, 4096, two, Code::kInvalidArgument},
      {IoOp::kWrite, 0, 4096, wrapping, Code::kInvalidArgument},  // 4096 when summed up in 64 bits
      {IoOp::kWrite, 0, 4096, {}, Code::kInvalidArgument},
      {IoOp::kFlush, 0, 4096, {}, Code::kInvalidArgument},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(testing::Message() << static_cast<int>(each.op) << " " << each.offset << "+" << each.length);
    const int before = device.executed;
    const auto outcome = world.perform(
        device, {.op = each.op, .offset = ByteOffset(each.offset), .length = each.length, .buffers = each.buffers});
    EXPECT_EQ(outcome.has_value(), !each.error.has_value());
    if (each.error && !outcome) EXPECT_EQ(outcome.error().code, *each.error);
    EXPECT_EQ(device.executed - before, each.error ? 0 : 1);
  }
}

TEST(BlockDeviceTest, AnEmptyRequestDoesNothingButIsChecked) {
  World world;
  CountingDevice device({.size_bytes = 8192, .logical_block = 4096});
  EXPECT_TRUE(world.perform(device, {.op = IoOp::kWrite, .offset = ByteOffset(8192)}));
  EXPECT_EQ(world.perform(device, {.op = IoOp::kRead, .offset = ByteOffset(12288)}).error().code, Code::kOutOfRange);
  EXPECT_EQ(device.executed, 0);
}

TEST(BlockDeviceTest, AReadOnlyDeviceReadsAndFlushes) {
  World world;
  CountingDevice device({.size_bytes = 8192, .logical_block = 4096, .read_only = true});
  std::array<std::byte, 4096> memory{};
  const std::array<iovec, 1> one = {{{memory.data(), 4096}}};
  for (const IoOp op : {IoOp::kWrite, IoOp::kDiscard, IoOp::kWriteZeroes}) {
    EXPECT_EQ(world.perform(device, {.op = op, .length = 4096, .buffers = one}).error().code, Code::kReadOnly);
  }
  EXPECT_EQ(device.executed, 0);
  EXPECT_TRUE(world.perform(device, {.op = IoOp::kRead, .length = 4096, .buffers = one}));
  EXPECT_TRUE(world.perform(device, {.op = IoOp::kFlush}));
  EXPECT_EQ(device.executed, 2);
}

TEST(MemoryTest, AgreesWithTheModel) {
  World world;
  for (const uint32_t block : {512U, 4096U}) {
    for (const size_t alignment : {size_t{1}, size_t{4096}}) {
      const auto source = memory_or_die({.size_bytes = 516 * kKiB, .logical_block = block});
      const auto device = open_or_die(*source, world.shard);
      hold_against_model(world, *device, {.seed = draw_seed(), .memory_alignment = alignment});
    }
  }
}

TEST(MemoryTest, RefusesWrongSizes) {
  EXPECT_EQ(make_memory_source({.size_bytes = 0}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(make_memory_source({.size_bytes = 4097}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(make_memory_source({.size_bytes = 4096, .logical_block = 1024}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(make_memory_source({.size_bytes = uint64_t{1} << 62}).error().code, Code::kResourceExhausted);
}

TEST(MemoryTest, ATebibyteCostsWhatIsWrittenAndIsSharedByItsDevices) {
  World world;
  const auto source = memory_or_die({.size_bytes = kTiB});
  const auto one = open_or_die(*source, world.shard);
  const auto other = open_or_die(*source, world.shard);
  EXPECT_FALSE(one->geometry().volatile_cache);
  std::vector<std::byte> memory(4096, std::byte{0x5a});
  const std::array<iovec, 1> buffer = {{{memory.data(), memory.size()}}};
  const ByteOffset end(kTiB - 4096);
  ASSERT_TRUE(world.perform(*one, {.op = IoOp::kWrite, .offset = end, .length = 4096, .buffers = buffer}));
  std::ranges::fill(memory, std::byte{0});
  ASSERT_TRUE(world.perform(*other, {.op = IoOp::kRead, .offset = end, .length = 4096, .buffers = buffer}));
  EXPECT_EQ(memory, std::vector<std::byte>(4096, std::byte{0x5a}));
  // Discarding it all takes no longer than what was written: else this would touch a tebibyte.
  ASSERT_TRUE(world.perform(*other, {.op = IoOp::kDiscard, .length = kTiB}));
  ASSERT_TRUE(world.perform(*one, {.op = IoOp::kRead, .offset = end, .length = 4096, .buffers = buffer}));
  EXPECT_EQ(memory, std::vector<std::byte>(4096, std::byte{0}));
}

TEST(MemoryTest, ResidentMemoryIsKept) {
  World world;
  const MemoryOptions options = {.size_bytes = 516 * kKiB, .backing = MemoryOptions::Backing::kResident};
  const auto source = memory_or_die(options);
  const auto device = open_or_die(*source, world.shard);
  hold_against_model(world, *device,
                     {.seed = draw_seed(), .after_discard = AfterDiscard::kOldBytes, .memory_alignment = 4096});
  EXPECT_FALSE(device->geometry().discard_zeroes);
  std::vector<std::byte> memory(4096, std::byte{0x5a});
  const std::array<iovec, 1> buffer = {{{memory.data(), memory.size()}}};
  ASSERT_TRUE(world.perform(*device, {.op = IoOp::kWrite, .length = 4096, .buffers = buffer}));
  ASSERT_TRUE(world.perform(*device, {.op = IoOp::kDiscard, .length = options.size_bytes}));
  std::ranges::fill(memory, std::byte{0});
  ASSERT_TRUE(world.perform(*device, {.op = IoOp::kRead, .length = 4096, .buffers = buffer}));
  EXPECT_EQ(memory, std::vector<std::byte>(4096, std::byte{0x5a}));
}

// Overlapping commands from several shards are the host's affair; the thread sanitizer has nothing to say about them.
TEST(MemoryTest, ShardsMayOverlap) {
  const auto source = memory_or_die({.size_bytes = 64 * kKiB});
  std::vector<std::thread> threads;
  for (int id = 0; id < 3; ++id) {
    threads.emplace_back([&source, id] {
      World world;
      const auto device = open_or_die(*source, world.shard);
      std::vector<std::byte> memory(16 * kKiB, static_cast<std::byte>(id));
      const std::array<iovec, 1> buffer = {{{memory.data(), memory.size()}}};
      std::mt19937 random(static_cast<unsigned>(id));
      for (int i = 0; i < 500; ++i) {
        const ByteOffset offset(random() % 12 * 4096);
        const auto op = static_cast<IoOp>(random() % 5);
        const uint64_t length = op == IoOp::kFlush ? 0 : memory.size();
        FL_CHECK(world.perform(*device, {.op = op, .offset = offset, .length = length, .buffers = buffer}));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(NullTest, ReadsGiveZeroesAndWritesVanish) {
  World world;
  const auto source = make_null_source({.size_bytes = kTiB, .logical_block = 512});
  ASSERT_TRUE(source);
  const auto device = open_or_die(**source, world.shard);
  std::vector<std::byte> memory(5 * 512, std::byte{0x77});
  const std::array<iovec, 3> buffers = {{{memory.data(), 700}, {nullptr, 0}, {memory.data() + 700, 5 * 512 - 700}}};
  for (const IoOp op : {IoOp::kWrite, IoOp::kDiscard, IoOp::kWriteZeroes}) {
    ASSERT_TRUE(world.perform(*device, {.op = op, .length = 5 * 512, .buffers = buffers}));
  }
  ASSERT_EQ(memory.front(), std::byte{0x77});
  ASSERT_TRUE(world.perform(*device, {.op = IoOp::kRead, .length = 5 * 512, .buffers = buffers}));
  EXPECT_EQ(memory, std::vector<std::byte>(5 * 512, std::byte{0}));
  EXPECT_TRUE(world.perform(*device, {.op = IoOp::kFlush}));
  IoRequest request;
  memory.front() = std::byte{0x77};
  request.length = memory.size();
  request.buffers = buffers;
  request.may_say_zeroes = true;
  request.done = [](IoRequest&) {};
  device->submit(request);
  EXPECT_TRUE(request.says_zeroes);
  EXPECT_EQ(memory.front(), std::byte{0x77}) << "said, so not written";
  EXPECT_FALSE(make_null_source({.size_bytes = 100}));
}

class DelayEverything final : public FaultPlan {
 public:
  bool fires(FaultPoint point) override { return point == FaultPoint::kDelayCompletion; }
};

TEST(InlineCompletionTest, AFaultPointDelaysItToTheReadyQueue) {
  World world;
  const auto source = memory_or_die({.size_bytes = 256 * kKiB});
  const auto device = open_or_die(*source, world.shard);
  std::array<IoRequest, 3> requests;
  static int completions;
  completions = 0;
  for (IoRequest& request : requests) {
    request.op = IoOp::kFlush;
    request.done = [](IoRequest&) { ++completions; };
  }
  device->submit(requests[0]);
  EXPECT_EQ(completions, 1);
  const DelayEverything plan;
  for (IoRequest& request : requests) device->submit(request);
  EXPECT_EQ(completions, 1);
  world.run();
  EXPECT_EQ(completions, 4);
  hold_against_model(world, *device, {.seed = draw_seed(), .rounds = 20});
}

TEST(InlineCompletionTest, WhatWasWrittenAtOnceMayGoWhileItsCompletionWaits) {
  World world;
  const auto source = memory_or_die({.size_bytes = 64 * kKiB});
  const auto device = open_or_die(*source, world.shard);
  ASSERT_TRUE(device->takes_writes_at_once());
  std::vector<std::byte> memory(4096, std::byte{0x42});
  const iovec piece = {memory.data(), memory.size()};
  IoRequest request;
  request.op = IoOp::kWrite;
  request.length = memory.size();
  request.buffers = {&piece, 1};
  request.done = [](IoRequest&) {};
  {
    const DelayEverything plan;
    device->submit(request);
  }
  std::ranges::fill(memory, std::byte{0});
  world.run();
  ASSERT_TRUE(world.perform(*device, {.op = IoOp::kRead, .length = memory.size(), .buffers = {&piece, 1}}));
  EXPECT_EQ(memory, std::vector<std::byte>(4096, std::byte{0x42}));
}

Task<void> write_then_read(Reactor& reactor, BlockDevice& device, std::vector<std::byte>& back, int& finished) {
  std::vector<std::byte> memory(4096, std::byte{0x21});
  const iovec out = {memory.data(), memory.size()};
  const iovec in = {back.data(), back.size()};
  FL_CHECK(co_await block_write(reactor, device, ByteOffset(0), std::span(&out, 1), Durability::kForced));
  FL_CHECK(co_await block_flush(reactor, device));
  FL_CHECK(co_await block_write_zeroes(reactor, device, ByteOffset(4096), 4096));
  FL_CHECK(co_await block_discard(reactor, device, ByteOffset(8192), 4096));
  FL_CHECK(co_await block_read(reactor, device, ByteOffset(0), std::span(&in, 1)));
  const auto outcome = co_await block_discard(reactor, device, ByteOffset(0), 1);
  EXPECT_EQ(outcome.error().code, Code::kInvalidArgument);
  ++finished;
}

TEST(BlockAwaiterTest, DoesEachOperation) {
  World world;
  const auto source = memory_or_die({.size_bytes = 64 * kKiB});
  const auto device = open_or_die(*source, world.shard);
  std::vector<std::byte> back(4096);
  int finished = 0;
  Scope scope(world.reactor);
  scope.spawn(write_then_read(world.reactor, *device, back, finished));
  world.run();
  EXPECT_EQ(finished, 1);
  EXPECT_EQ(back, std::vector<std::byte>(4096, std::byte{0x21}));
}

TEST(SpecTest, ParsesDurationsCountsFractionsAndOptions) {
  using std::chrono::nanoseconds;
  EXPECT_EQ(*parse_duration("80us"), nanoseconds(80'000));
  EXPECT_EQ(*parse_duration("1.5s"), nanoseconds(1'500'000'000));
  EXPECT_EQ(*parse_duration("0ns"), nanoseconds(0));
  EXPECT_EQ(*parse_duration("10m"), std::chrono::minutes(10));
  EXPECT_EQ(*parse_duration("1.5h"), std::chrono::minutes(90));
  for (const char* bad : {"", "5", "us", "-1us", "1d", "1e30s", "nans", "1 us"})
    EXPECT_FALSE(parse_duration(bad)) << bad;
  EXPECT_EQ(*parse_count("100k"), 100'000U);
  EXPECT_EQ(*parse_count("2M"), 2'000'000U);
  for (const char* bad : {"", "k", "-1", "1.5k", "1K", "18446744073709551615k"}) EXPECT_FALSE(parse_count(bad)) << bad;
  EXPECT_EQ(*parse_fraction("25%"), 0.25);
  EXPECT_EQ(*parse_fraction("1"), 1.0);
  for (const char* bad : {"", "%", "1.01", "101%", "-0.1", "nan"}) EXPECT_FALSE(parse_fraction(bad)) << bad;
  const auto options = split_options("a=1,b==x");
  ASSERT_TRUE(options);
  ASSERT_EQ(options->size(), 2U);
  EXPECT_EQ((*options)[1].key, "b");
  EXPECT_EQ((*options)[1].value, "=x");
  EXPECT_TRUE(split_options("")->empty());
  for (const char* bad : {",", "a", "a=", "=b", "a=1,", "a=1,,b=2"}) EXPECT_FALSE(split_options(bad)) << bad;
}

}  // namespace
}  // namespace fairlead
