#include "block/faulty.h"

#include <algorithm>
#include <gtest/gtest.h>

#include "block/memory.h"
#include "block/test_world.h"

namespace fairlead {
namespace {

using namespace fairlead::test;
using std::chrono::microseconds;
using std::chrono::milliseconds;

std::shared_ptr<BlockSource> memory() {
  auto source = make_memory_source({.size_bytes = 4 * kMiB});
  FL_CHECK(source.has_value());
  return *source;
}

std::vector<FaultRule> rules_or_die(std::string_view text) {
  auto rules = parse_fault_rules(text);
  FL_CHECK(rules.has_value());
  return *rules;
}

class FaultyTest : public testing::Test {
 protected:
  // "." done, "!" failed, for `count` requests one after another.
  std::string outcomes(BlockDevice& device, IoOp op, uint64_t offset, int count) {
    std::array<std::byte, 4096> bytes{};
    const iovec buffer = {bytes.data(), bytes.size()};
    std::string text;
    for (int i = 0; i < count; ++i) {
      const uint64_t length = op == IoOp::kFlush ? 0 : 4096;
      const auto outcome = world.perform(
          device, {.op = op, .offset = ByteOffset(offset), .length = length, .buffers = std::span(&buffer, 1)});
      text += outcome ? '.' : '!';
      if (!outcome) last_error = outcome.error().code;
    }
    return text;
  }
  World world;
  Code last_error = Code::kInternal;
};

TEST_F(FaultyTest, WithoutRulesIsTheDeviceBelow) {
  const auto source = make_faulty_source(memory(), {});
  const auto device = open_or_die(*source, world.shard);
  hold_against_model(world, *device, {.seed = draw_seed(), .rounds = 50});
  EXPECT_EQ(source->fired(), 0U);
}

TEST_F(FaultyTest, DelaysChangeNoBytes) {
  const auto source = make_faulty_source(memory(), rules_or_die("any:delay=5us,probability=50%,seed=3;any:delay=1us"));
  const auto device = open_or_die(*source, world.shard);
  hold_against_model(world, *device, {.seed = draw_seed(), .rounds = 50});
  EXPECT_GT(source->fired(), 200U);
}

TEST_F(FaultyTest, EveryNthAndCountAreExact) {
  const auto source = make_faulty_source(memory(), rules_or_die("write:error=no_space,every=3,count=2"));
  const auto device = open_or_die(*source, world.shard);
  EXPECT_EQ(outcomes(*device, IoOp::kRead, 0, 4), "....");
  EXPECT_EQ(outcomes(*device, IoOp::kWrite, 0, 10), "..!..!....");
  EXPECT_EQ(last_error, Code::kNoSpace);
  EXPECT_EQ(source->fired(), 2U);
}

TEST_F(FaultyTest, RangesAreHalfOpenAndAFlushHasNone) {
  const auto source = make_faulty_source(memory(), rules_or_die("any:error=io,range=1MiB-2MiB"));
  const auto device = open_or_die(*source, world.shard);
  EXPECT_EQ(outcomes(*device, IoOp::kWrite, kMiB - 4096, 1), ".");
  EXPECT_EQ(outcomes(*device, IoOp::kRead, kMiB, 1), "!");
  EXPECT_EQ(outcomes(*device, IoOp::kDiscard, 2 * kMiB - 4096, 1), "!");
  EXPECT_EQ(outcomes(*device, IoOp::kWriteZeroes, 2 * kMiB, 1), ".");
  EXPECT_EQ(outcomes(*device, IoOp::kFlush, 0, 1), ".");
  EXPECT_FALSE(world.perform(*device, {.op = IoOp::kDiscard, .length = 4 * kMiB}));
  source->set_rules(rules_or_die("flush:error=io"));
  EXPECT_EQ(outcomes(*device, IoOp::kFlush, 0, 1), "!");
}

TEST_F(FaultyTest, AFailedWriteNeverReachesTheDeviceBelow) {
  const auto inner = memory();
  const auto source = make_faulty_source(inner, rules_or_die("write:error=io"));
  const auto device = open_or_die(*source, world.shard);
  const auto below = open_or_die(*inner, world.shard);
  std::vector<std::byte> bytes(4096, std::byte{7});
  const iovec buffer = {bytes.data(), bytes.size()};
  EXPECT_FALSE(world.perform(*device, {.op = IoOp::kWrite, .length = 4096, .buffers = std::span(&buffer, 1)}));
  ASSERT_TRUE(world.perform(*below, {.op = IoOp::kRead, .length = 4096, .buffers = std::span(&buffer, 1)}));
  EXPECT_EQ(bytes, std::vector<std::byte>(4096, std::byte{0}));
}

TEST_F(FaultyTest, ProbabilityFollowsItsSeed) {
  const auto run = [this](std::string_view rules) {
    const auto source = make_faulty_source(memory(), rules_or_die(rules));
    const auto device = open_or_die(*source, world.shard);
    return outcomes(*device, IoOp::kRead, 0, 4000);
  };
  const std::string first = run("read:error=io,probability=0.25,seed=1");
  EXPECT_EQ(run("read:error=io,probability=0.25,seed=1"), first);
  EXPECT_NE(run("read:error=io,probability=0.25,seed=2"), first);
  const auto failed = std::ranges::count(first, '!');
  EXPECT_GT(failed, 850);  // 5 standard deviations are 137
  EXPECT_LT(failed, 1150);
  EXPECT_EQ(std::ranges::count(run("read:error=io,probability=0"), '!'), 0);
}

TEST_F(FaultyTest, DelaysTakeTheirTimeAndTheFirstRuleDecides) {
  const auto source =
      make_faulty_source(memory(), rules_or_die("write:delay=5ms,error=timed_out,count=1;write+read:delay=80us"));
  const auto device = open_or_die(*source, world.shard);
  EXPECT_EQ(outcomes(*device, IoOp::kWrite, 0, 1), "!");
  EXPECT_EQ(last_error, Code::kTimedOut);
  EXPECT_EQ(world.reactor.now() - Instant{}, milliseconds(5));
  EXPECT_EQ(outcomes(*device, IoOp::kWrite, 0, 1), ".");
  EXPECT_EQ(outcomes(*device, IoOp::kRead, 0, 1), ".");
  EXPECT_EQ(world.reactor.now() - Instant{}, milliseconds(5) + microseconds(160));
  EXPECT_EQ(source->fired(), 3U);
}

TEST_F(FaultyTest, RulesChangeWhileItRuns) {
  const auto source = make_faulty_source(memory(), rules_or_die("any:error=io"));
  const auto device = open_or_die(*source, world.shard);
  EXPECT_EQ(outcomes(*device, IoOp::kRead, 0, 2), "!!");
  source->set_rules({});
  EXPECT_EQ(outcomes(*device, IoOp::kRead, 0, 2), "..");
  source->set_rules(rules_or_die("read:error=corrupt,every=2"));
  EXPECT_EQ(outcomes(*device, IoOp::kRead, 0, 4), ".!.!");
}

TEST(FaultRuleTest, ParsesWhatItPromises) {
  const auto rules =
      parse_fault_rules("write:error=io,range=1MiB-2MiB,every=3;read+discard:delay=5ms,range=4KiB-,count=7");
  ASSERT_TRUE(rules);
  ASSERT_EQ(rules->size(), 2U);
  const auto& [first, second] = std::pair((*rules)[0], (*rules)[1]);
  EXPECT_EQ(first.operations, op_set(IoOp::kWrite));
  EXPECT_EQ(first.from, ByteOffset(kMiB));
  EXPECT_EQ(first.to, ByteOffset(2 * kMiB));
  EXPECT_EQ(first.every, 3U);
  EXPECT_EQ(first.error, Code::kIo);
  EXPECT_EQ(second.operations, op_set(IoOp::kRead) | op_set(IoOp::kDiscard));
  EXPECT_EQ(second.from, ByteOffset(4096));
  EXPECT_EQ(second.to, FaultRule{}.to);
  EXPECT_EQ(second.delay, milliseconds(5));
  EXPECT_EQ(second.count, 7U);
  EXPECT_FALSE(second.error);
  EXPECT_TRUE(parse_fault_rules("")->empty());
  for (const char* bad :
       {"write", "write:", "write:every=3", "wrote:error=io", "write:error=oi", "write:error=io,every=0",
        "write:error=io,range=2MiB-1MiB", "write:error=io,range=5", "write:error=io,probability=2",
        "write:error=io,what=3", "write+:error=io", ":error=io", "read:error=io;;read:error=io", "read:delay=5"}) {
    EXPECT_EQ(parse_fault_rules(bad).error().code, Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace fairlead
