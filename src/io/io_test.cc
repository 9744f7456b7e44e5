#include <gtest/gtest.h>
#include <random>

#include "io/address.h"
#include "io/buffer_pool.h"
#include "io/request.h"

namespace fairlead {
namespace {

TEST(AddressTest, ParsesAndPrints) {
  for (const char* text : {"10.0.0.1:4420", "[::1]:4420", "[fe80::1:2]:1", "0.0.0.0:0"}) {
    const auto address = parse_socket_address(text, 9);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(to_string(*address), text);
  }
  EXPECT_EQ(to_string(*parse_socket_address("::1", 4420)), "[::1]:4420");
  EXPECT_EQ(to_string(*parse_socket_address("[::1]", 4420)), "[::1]:4420");
  EXPECT_EQ(to_string(*parse_socket_address("10.1.2.3", 4420)), "10.1.2.3:4420");
  for (const char* bad :
       {"", "host:1", "10.0.0.1:", "10.0.0.1:65536", "10.0.0.1:-1", "[::1", "[::1]x", "[::1]:", "1.2.3", ":4420"}) {
    EXPECT_EQ(parse_socket_address(bad, 1).error().code, Code::kInvalidArgument) << bad;
  }
}

TEST(RequestTest, CopiesAcrossPiecesLikeFlatMemory) {
  std::mt19937 random(4);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::vector<std::byte>> pieces(1 + random() % 5);
    std::vector<iovec> buffers;
    for (auto& piece : pieces) {
      piece.resize(1 + random() % 50);
      buffers.push_back({piece.data(), piece.size()});
    }
    const size_t total = total_length(buffers);
    const size_t skip = random() % total;
    std::vector<std::byte> data(random() % (total - skip + 1));
    for (std::byte& b : data) b = static_cast<std::byte>(random());
    copy_to_buffers(buffers, skip, data);
    std::vector<std::byte> flat;
    for (const auto& piece : pieces) flat.insert(flat.end(), piece.begin(), piece.end());
    ASSERT_TRUE(std::equal(data.begin(), data.end(), flat.begin() + static_cast<ptrdiff_t>(skip)));
    std::vector<std::byte> back(data.size());
    copy_from_buffers(buffers, skip, back);
    ASSERT_EQ(back, data);
  }
}

struct Waiter : BufferWaiter {
  Waiter() : BufferWaiter([](Runnable& self) { static_cast<Waiter&>(self).served = true; }) {}
  bool served = false;
};

TEST(BufferPoolTest, BuffersNeverOverlapAndAllComeBack) {
  Reactor reactor({});
  BufferPool pool(reactor, {});
  BufferAccount account;
  std::mt19937 random(8);
  std::vector<std::pair<Buffer, uint8_t>> held;
  for (int step = 0; step < 20'000; ++step) {
    if (held.size() < 100 && random() % 2 == 0) {
      const size_t length = 1 + random() % (1U << (random() % 18));
      Buffer buffer = pool.try_allocate(account, length);
      ASSERT_TRUE(buffer);
      ASSERT_GE(buffer.capacity(), length);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0U);
      const auto mark = static_cast<uint8_t>(random());
      std::memset(buffer.data(), mark, buffer.capacity());
      held.emplace_back(std::move(buffer), mark);
    } else if (!held.empty()) {
      const size_t index = random() % held.size();
      const auto& [buffer, mark] = held[index];
      for (const std::byte b : buffer.bytes(buffer.capacity())) ASSERT_EQ(static_cast<uint8_t>(b), mark);
      std::swap(held[index], held.back());
      held.pop_back();
    }
  }
  held.clear();
  EXPECT_EQ(pool.statistics().held_bytes, 0U);
  EXPECT_EQ(account.held_bytes(), 0U);
}

TEST(BufferPoolTest, OneWhoHoldsEverythingStarvesNobody) {
  Reactor reactor({});
  BufferPool pool(reactor, {.shared_max = 8 * kMiB});
  BufferAccount greedy;
  BufferAccount modest;
  std::vector<Buffer> held;
  while (Buffer buffer = pool.try_allocate(greedy, kMiB)) held.push_back(std::move(buffer));
  EXPECT_EQ(greedy.held_bytes(), 10 * kMiB);  // the reserve and all that is shared
  Waiter waiter;
  pool.wait(waiter, greedy, kMiB);
  Buffer mine = pool.try_allocate(modest, 2 * kMiB);
  EXPECT_TRUE(mine);
  EXPECT_FALSE(pool.try_allocate(modest, 4096));
  mine.reset();
  reactor.run_ready(10);
  EXPECT_FALSE(waiter.served);
  held.pop_back();
  reactor.run_ready(10);
  EXPECT_TRUE(waiter.served);
  EXPECT_TRUE(waiter.buffer);
}

TEST(BufferPoolTest, TheLineIsKeptAndACancelledWaiterLeavesIt) {
  Reactor reactor({});
  BufferPool pool(reactor, {.shared_max = 2 * kMiB});
  BufferAccount account;
  Buffer first = pool.try_allocate(account, 2 * kMiB);
  Buffer second = pool.try_allocate(account, 2 * kMiB);
  std::array<Waiter, 3> waiters;
  for (Waiter& waiter : waiters) pool.wait(waiter, account, 2 * kMiB);
  EXPECT_TRUE(pool.cancel(waiters[0]));
  first.reset();
  reactor.run_ready(10);
  EXPECT_FALSE(waiters[0].served);
  EXPECT_TRUE(waiters[1].served);
  EXPECT_FALSE(waiters[2].served);
  EXPECT_FALSE(pool.cancel(waiters[1]));
  EXPECT_TRUE(pool.cancel(waiters[2]));
}

TEST(BufferPoolTest, FindsTheSlabOfItsMemory) {
  Reactor reactor({});
  BufferPool pool(reactor, {});
  BufferAccount account;
  const Buffer buffer = pool.try_allocate(account, 8192);
  EXPECT_EQ(pool.find(buffer.data() + 5).slab, 0);
  EXPECT_EQ(pool.find(buffer.data() + 5).offset, pool.find(buffer.data()).offset + 5);
  int other = 0;
  EXPECT_EQ(pool.find(&other).slab, -1);
}

}  // namespace
}  // namespace fairlead
