// In a steady state nothing is allocated: no frame and nothing else from the heap.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "async/call.h"
#include "async/scope.h"
#include "io/runtime.h"
#include "tests/support/heap_use.h"

namespace fairlead {
namespace {

constexpr int kRounds = 500;

// Calls `work` twice and gives the allocations of this thread during the second time.
template <typename Work>
Task<void> measure(Work work, uint64_t& frames, uint64_t& calls) {
  co_await work();
  const testing::HeapUse before = testing::heap_use();
  co_await work();
  const testing::HeapUse after = testing::heap_use();
  frames = after.frames - before.frames;
  calls = after.allocations - before.allocations;
}

class SteadyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::can_count_heap()) GTEST_SKIP() << "the sanitizers have a heap of their own";
    ASSERT_TRUE(runtime_.start());
  }
  void expect_nothing() const {
    EXPECT_EQ(frames_, 0U);
    EXPECT_EQ(calls_, 0U);
  }
  Runtime runtime_{RuntimeOptions{.shards = 2}};
  uint64_t frames_ = 1;
  uint64_t calls_ = 1;
};

Task<int> add(int a, int b) { co_return a + b; }

Task<void> call_over(Runtime& runtime, Scope& scope) {
  int sum = 0;
  for (int i = 0; i < kRounds; ++i) {
    sum += co_await call_on(scope.reactor(), runtime.shard(1).reactor, add(i, 1));
  }
  EXPECT_EQ(sum, kRounds * (kRounds + 1) / 2);
}

Task<void> spawn_calls(Runtime& runtime) {
  Scope scope(runtime.shard(0).reactor);
  for (int i = 0; i < 4; ++i) scope.spawn(call_over(runtime, scope));
  co_await scope.close();
}

Task<void> measure_calls(Runtime& runtime, uint64_t& frames, uint64_t& calls) {
  co_await measure([&runtime] { return spawn_calls(runtime); }, frames, calls);
}

TEST_F(SteadyTest, CallsBetweenShards) {
  runtime_.run_on(0, measure_calls(runtime_, frames_, calls_));
  expect_nothing();
}

Task<void> accept_into(Shard& shard, Listener& listener, std::unique_ptr<Stream>& stream) {
  auto accepted = co_await listener.accept();
  EXPECT_TRUE(accepted);
  if (accepted) stream = std::move(*shard.network.adopt(std::move(*accepted)));
}

Task<void> play(Stream& one, Stream& other) {
  std::array<std::byte, 64> bytes{};
  std::array<iovec, 2> list{iovec{bytes.data(), 32}, iovec{bytes.data() + 32, 32}};
  for (int i = 0; i < kRounds; ++i) {
    EXPECT_EQ(co_await send(one, list), Result<size_t>(64));
    EXPECT_EQ(co_await receive(other, list), Result<size_t>(64));
  }
}

Task<void> measure_streams(Shard& shard, uint64_t& frames, uint64_t& calls) {
  auto listener = shard.network.listen(*parse_socket_address("127.0.0.1:0", 0));
  std::unique_ptr<Stream> server;
  Scope scope(shard.reactor);
  scope.spawn(accept_into(shard, **listener, server));
  auto client = co_await shard.network.connect((*listener)->address(), kConnectTimeout);
  co_await scope.close();
  EXPECT_TRUE(client && server);
  if (!client || !server) co_return;
  co_await measure([&] { return play(**client, *server); }, frames, calls);
}

TEST_F(SteadyTest, Streams) {
  runtime_.run_on(0, measure_streams(runtime_.shard(0), frames_, calls_));
  expect_nothing();
}

Task<void> write_and_read(Shard& shard, Disk& disk) {
  BufferAccount account;
  for (int i = 0; i < kRounds; ++i) {
    const Buffer buffer = shard.buffers.try_allocate(account, 4096);
    std::memset(buffer.data(), i, buffer.capacity());
    const iovec list{buffer.data(), 4096};
    for (const IoOp op : {IoOp::kWrite, IoOp::kRead}) {
      EXPECT_TRUE(co_await IoAwaiter<Disk>(shard.reactor, disk,
                                           {.op = op,
                                            .offset = ByteOffset(static_cast<uint64_t>(i) * 4096),
                                            .length = 4096,
                                            .buffers = std::span(&list, 1)}));
    }
  }
}

Task<void> measure_disk(Shard& shard, std::string path, uint64_t& frames, uint64_t& calls) {
  const auto file = shard.storage.open({.path = path, .size_bytes = 4 * kMiB});
  EXPECT_TRUE(file);
  if (!file) co_return;
  const auto disk = shard.storage.attach(*file);
  co_await measure([&] { return write_and_read(shard, **disk); }, frames, calls);
}

TEST_F(SteadyTest, DiskRequestsAndBuffers) {
  std::string path = "/tmp/fairlead-steady-XXXXXX";
  const int descriptor = ::mkostemp(path.data(), O_CLOEXEC);
  ASSERT_GE(descriptor, 0);
  ::close(descriptor);
  runtime_.run_on(0, measure_disk(runtime_.shard(0), path, frames_, calls_));
  ::unlink(path.c_str());
  expect_nothing();
}

}  // namespace
}  // namespace fairlead
