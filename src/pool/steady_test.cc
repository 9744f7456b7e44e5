// Reads and overwrites of what is mapped take nothing from the heap once they are warm: this binary counts its use.
#include <array>
#include <deque>
#include <gtest/gtest.h>

#include "async/event.h"
#include "async/reactor.h"
#include "block/memory.h"
#include "io/runtime.h"
#include "pool/pool.h"
#include "tests/support/heap_use.h"

namespace fairlead::pool {
namespace {

using fairlead::testing::can_count_heap;
using fairlead::testing::heap_use;
using fairlead::testing::HeapUse;

constexpr uint64_t kSize = 16 * kMiB;
constexpr uint64_t kLong = 2 * kMiB + 4096;  // over the ends of extents
constexpr size_t kDepth = 16;

// One request in flight, again and again: reads and writes, short ones and such as cross extents.
struct Looping : IoRequest {
  struct Turn : Runnable {
    Turn() : Runnable([](Runnable& self) { static_cast<Turn&>(self).owner->next(); }) {}
    Looping* owner = nullptr;
  };

  void start(BlockDevice& on, Reactor& by, Event& event, std::span<std::byte> memory) {
    device = &on;
    reactor = &by;
    ended = &event;
    piece = {memory.data(), memory.size()};
    turn.owner = this;
    buffers = {&piece, 1};
    done = [](IoRequest& request) {
      auto& self = static_cast<Looping&>(request);
      FL_CHECK(self.result.has_value());
      self.reactor->post(self.turn);  // a device may be done inside submit()
    };
  }
  void next() {
    if (left == 0) return ended->set();
    --left;
    ++round;
    op = round % 2 == 0 ? IoOp::kRead : IoOp::kWrite;
    length = round % 3 == 0 ? kLong : 4096;
    piece.iov_len = length;
    offset = ByteOffset(round * 37 * 4096 % (kSize - kLong) / 4096 * 4096);
    device->submit(*this);
  }

  BlockDevice* device = nullptr;
  Reactor* reactor = nullptr;
  Event* ended = nullptr;
  Turn turn;
  iovec piece{};
  uint64_t round = 0;
  uint64_t left = 0;
};

Task<std::unique_ptr<Pool>> make_pool(Shard& shard) {
  std::vector<PoolDisk> disks(1);
  disks[0] = {"memory", *make_memory_source({.size_bytes = 64 * kMiB})};
  EXPECT_TRUE(co_await Pool::create(shard, disks, {.name = "tank"}));
  auto pool = co_await Pool::import(std::vector<Shard*>(1, &shard), disks, {});
  FL_CHECK(pool.has_value());
  EXPECT_TRUE(co_await (*pool)->create_replica({.name = "db", .size_bytes = kSize}));
  co_return std::move(*pool);
}

// Each of the requests `count` times. Returns what that took.
Task<HeapUse> run_load(Reactor& reactor, std::array<Looping, kDepth>& requests, uint64_t count) {
  const HeapUse before = heap_use();
  for (Looping& request : requests) {
    request.left = count;
    request.ended->reset();
    reactor.post(request.turn);
  }
  for (Looping& request : requests) co_await request.ended->wait();
  const HeapUse after = heap_use();
  co_return HeapUse{.allocations = after.allocations - before.allocations, .frames = after.frames - before.frames};
}

Task<void> steady_state(Shard& shard) {
  const std::unique_ptr<Pool> pool = co_await make_pool(shard);
  {
    const auto source = co_await pool->source("db");
    FL_CHECK(source.has_value());
    const auto device = (*source)->open(shard);
    FL_CHECK(device.has_value());
    std::vector<std::byte> memory(kLong);
    for (uint64_t at = 0; at < kSize; at += kMiB) {
      const iovec piece{memory.data(), kMiB};
      EXPECT_TRUE(co_await block_write(shard.reactor, **device, ByteOffset(at), {&piece, 1}));
    }
    std::deque<Event> events;
    std::array<Looping, kDepth> requests;
    for (Looping& request : requests) {
      request.start(**device, shard.reactor, events.emplace_back(shard.reactor), memory);
      request.round = events.size() * 101;
    }
    // What is kept grows to the most that was ever needed at once, which chance may bring late; then never again. The
    // second in which the pool flushes by itself is not steady.
    HeapUse use = co_await run_load(shard.reactor, requests, 100);
    EXPECT_GT(use.allocations, 0U) << "nothing is counted";
    for (int round = 0; round < 20 && use.allocations + use.frames > 0; ++round) {
      use = co_await run_load(shard.reactor, requests, 100);
    }
    EXPECT_EQ(use.allocations, 0U);
    EXPECT_EQ(use.frames, 0U);
  }
  EXPECT_TRUE(co_await pool->close());
}

TEST(SteadyTest, ReadsAndOverwritesAllocateNothing) {
  if (!can_count_heap()) GTEST_SKIP() << "the sanitizers have a heap of their own";
  Runtime runtime({.shards = 1});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, steady_state(runtime.shard(0)));
}

}  // namespace
}  // namespace fairlead::pool
