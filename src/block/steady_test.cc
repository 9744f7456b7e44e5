// The steady state allocates nothing: this binary counts every use of the heap.
#include <deque>
#include <gtest/gtest.h>

#include "block/disk.h"
#include "block/faulty.h"
#include "block/limiter.h"
#include "block/memory.h"
#include "block/test_world.h"
#include "tests/support/heap_use.h"

namespace fairlead {
namespace {

using namespace fairlead::test;

struct Looping : IoRequest {
  BlockDevice* device = nullptr;
  uint64_t left = 0;
  uint64_t round = 0;
  void next() {
    op = static_cast<IoOp>(round++ % 5);
    zero_mode = round % 2 == 0 ? ZeroMode::kMayDeallocate : ZeroMode::kKeepAllocated;
    length = op == IoOp::kFlush ? 0 : 300 * kKiB;
    --left;
    device->submit(*this);
  }
};

// 16 requests in flight, of every operation, `count` each.
void run_load(World& world, BlockDevice& device, std::array<Looping, 16>& requests, uint64_t count) {
  for (Looping& request : requests) {
    request.device = &device;
    request.left = count;
    request.next();
  }
  world.run();
  for (const Looping& request : requests) FL_CHECK(request.left == 0);
}

TEST(SteadyTest, NoDeviceAllocatesOnceItIsWarm) {
  World world;
  auto memory = make_memory_source({.size_bytes = kMiB});
  ASSERT_TRUE(memory);
  const auto unable = make_disk_source(std::make_shared<VectorDiskFile>(
      VectorDiskOptions{{.size_bytes = kMiB, .discard_granularity = 512}, VectorDiskOptions::Zeroes::kNone}));
  const auto rules = parse_fault_rules("any:delay=7us,every=3");
  ASSERT_TRUE(rules);
  const LimiterOptions limits = {
      .iops_max = 400'000, .latency = std::chrono::microseconds(80), .jitter = std::chrono::microseconds(80)};
  std::vector<std::byte> bytes(300 * kKiB + 1);
  const iovec odd = {bytes.data() + 1, 300 * kKiB};  // bounced by the disk
  for (const auto& source : {*memory, unable, make_limiter_source(make_faulty_source(*memory, *rules), limits),
                             make_limiter_source(make_faulty_source(unable, *rules), limits)}) {
    const auto device = open_or_die(*source, world.shard);
    std::array<Looping, 16> requests;
    for (Looping& request : requests) {
      request.buffers = std::span(&odd, 1);
      request.done = [](IoRequest& self) {
        auto& done = static_cast<Looping&>(self);
        FL_CHECK(done.result.has_value());
        if (done.left > 0) done.next();
      };
    }
    // What is kept grows to the most that was ever needed at once, which chance may bring late; then never again.
    uint64_t allocations = 1;
    for (int round = 0; round < 10 && allocations > 0; ++round) {
      const uint64_t before = testing::heap_use().allocations;
      run_load(world, *device, requests, 20);
      allocations = testing::heap_use().allocations - before;
    }
    EXPECT_EQ(allocations, 0U);
  }
}

}  // namespace
}  // namespace fairlead
