// The host on the real runtime: threads, io_uring, TCP over loopback, against the target. What it shows that simulation
// cannot: no data race (thread sanitizer), and no allocation in a steady state.
#include "host/remote_device.h"
#include "host/subsystem.h"
#include "io/runtime.h"
#include "tests/support/heap_use.h"
#include "tests/support/target_bed.h"

namespace fairlead::host {
namespace {

using testing::HeapUse;
using testing::kNqn;
using testing::pattern;

constexpr size_t kHostShards = 2;

// The target on shard 0 with two listeners, the host on shards 1 and 2; the test on shard 1, the host's home.
class LoopbackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(runtime_.start());
    runtime_.run_on(0, set_up());
  }
  void TearDown() override {
    runtime_.run_on(0, tear_down());
    runtime_.stop();
  }
  Task<void> set_up() {
    target_ = std::make_unique<target::Target>(std::vector<Shard*>{&runtime_.shard(0)}, target::TargetOptions{});
    for (int i = 0; i < 2; ++i) {
      const auto listening =
          co_await target_->start_listener({.bind = *parse_socket_address("127.0.0.1:0", 0), .advertise = {}});
      CO_ASSERT_TRUE(listening.has_value());
      addresses_.push_back(listening->bound);
    }
    CO_ASSERT_TRUE((co_await target_->add_subsystem({.nqn = kNqn, .serial = "", .allowed_hosts = {}})).has_value());
    auto source = make_memory_source({.size_bytes = 64 * kMiB, .logical_block = 4096});
    CO_ASSERT_TRUE((co_await target_->add_namespace(kNqn, {.source = std::move(*source), .uuid = {}})) == 1U);
  }
  Task<void> tear_down() {
    EXPECT_TRUE((co_await target_->stop()).has_value());
    target_.reset();
  }

  Reactor& home() { return runtime_.shard(1).reactor; }
  std::vector<Shard*> host_shards() { return {&runtime_.shard(1), &runtime_.shard(2)}; }
  SubsystemOptions options() const {
    SubsystemOptions made;
    made.nqn = kNqn;
    made.addresses = addresses_;
    made.identity = identity_from_id(uuid_from_random(1, 2));
    made.data_digest = true;
    made.quiesce = std::chrono::milliseconds(50);
    return made;
  }
  template <typename T>
  Task<T> at_target(Task<T> task) {
    return call_on(home(), runtime_.shard(0).reactor, std::move(task));
  }

  Task<void> paths_come_and_go();
  Task<void> steady_state();

  Runtime runtime_{RuntimeOptions{.shards = 1 + kHostShards, .pinning = Pinning::kNone}};
  std::unique_ptr<target::Target> target_;
  std::vector<SocketAddress> addresses_;
};

struct Load {
  uint64_t first = 0;  // block
  int rounds = 0;
  uint32_t blocks = 1;
};

Task<void> write_and_read(Reactor& reactor, BlockDevice& device, Load load) {
  std::vector<std::byte> data = pattern(uint64_t{load.blocks} * 4096, load.first);
  std::vector<std::byte> back(data.size());
  const iovec out{data.data(), data.size()};
  const iovec in{back.data(), back.size()};
  const ByteOffset offset(load.first * 4096);
  for (int i = 0; i < load.rounds; ++i) {
    data[static_cast<size_t>(i) % data.size()] ^= std::byte{1};
    CO_ASSERT_TRUE((co_await block_write(reactor, device, offset, {&out, 1})).has_value());
    CO_ASSERT_TRUE((co_await block_read(reactor, device, offset, {&in, 1})).has_value());
    CO_ASSERT_TRUE(back == data);
    if (i % 4 == 3) CO_ASSERT_TRUE((co_await block_flush(reactor, device)).has_value());
  }
}

// On its own shard: `streams` writers next to each other.
Task<void> run_load(Shard& shard, BlockDevice& device, Load load, int streams) {
  Scope scope(shard.reactor);
  for (int i = 0; i < streams; ++i) {
    scope.spawn(write_and_read(shard.reactor, device, load));
    load.first += load.blocks;
  }
  co_await scope.close();
}

Task<Result<std::unique_ptr<BlockDevice>>> open_here(Shard& shard, std::shared_ptr<BlockSource> source) {
  co_return source->open(shard);
}
Task<void> drop_here(std::unique_ptr<BlockDevice>& device) {
  device.reset();
  co_return;
}

// Devices of the namespace, one a shard; made and dropped there.
struct Devices {
  std::array<std::unique_ptr<BlockDevice>, kHostShards> each;

  Task<bool> open(Reactor& home, const std::vector<Shard*>& shards, std::shared_ptr<BlockSource> source) {
    for (size_t i = 0; i < kHostShards; ++i) {
      auto device = co_await call_on(home, shards[i]->reactor, open_here(*shards[i], source));
      if (!device) co_return false;
      each[i] = std::move(*device);
    }
    co_return true;
  }
  Task<void> drop(Reactor& home, const std::vector<Shard*>& shards) {
    for (size_t i = 0; i < kHostShards; ++i) co_await call_on(home, shards[i]->reactor, drop_here(each[i]));
  }
};

Task<void> LoopbackTest::paths_come_and_go() {
  const std::vector<Shard*> shards = host_shards();
  Subsystem subsystem(shards, options());
  CO_ASSERT_TRUE((co_await subsystem.start()).has_value());
  Devices devices;
  const auto source = subsystem.source(1);
  CO_ASSERT_TRUE(source.has_value());
  CO_ASSERT_TRUE(co_await devices.open(home(), shards, *source));
  Scope load(home());
  for (size_t i = 0; i < kHostShards; ++i) {
    const Load small{.first = i * 4096, .rounds = 60, .blocks = 1};
    const Load large{.first = i * 4096 + 2048, .rounds = 4, .blocks = 300};
    load.spawn(call_on(home(), shards[i]->reactor, run_load(*shards[i], *devices.each[i], small, 16)));
    load.spawn(call_on(home(), shards[i]->reactor, run_load(*shards[i], *devices.each[i], large, 2)));
  }
  for (int round = 0; round < 6; ++round) {
    const auto port = static_cast<target::PortIndex>(round % 2);
    using enum target::AnaState;
    for (const target::AnaState state : {kInaccessible, kOptimized}) {
      EXPECT_TRUE((co_await at_target(target_->set_ana_state(kNqn, port, 1, state))).has_value());
      co_await sleep(home(), std::chrono::milliseconds(5));
    }
    auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 512});
    const auto added =
        co_await at_target(target_->add_namespace(kNqn, {.nsid = 7, .source = std::move(*memory), .uuid = {}}));
    EXPECT_TRUE(added == 7U);
    EXPECT_TRUE((co_await at_target(target_->remove_namespace(kNqn, 7))).has_value());
  }
  co_await load.close();
  co_await devices.drop(home(), shards);
  co_await subsystem.stop();
}

TEST_F(LoopbackTest, PathsComeAndGo) { runtime_.run_on(1, paths_come_and_go()); }

Task<HeapUse> use_here() { co_return testing::heap_use(); }

Task<void> LoopbackTest::steady_state() {
  const std::vector<Shard*> shards = host_shards();
  Subsystem subsystem(shards, options());
  CO_ASSERT_TRUE((co_await subsystem.start()).has_value());
  Devices devices;
  CO_ASSERT_TRUE(co_await devices.open(home(), shards, *subsystem.source(1)));
  // What grows with the most that was ever in flight settles after some loads; what allocates for each command does
  // not.
  bool steady = false;
  for (int attempt = 0; attempt < 50 && !steady; ++attempt) {
    Reactor& other = shards[1]->reactor;
    const HeapUse before = co_await call_on(home(), other, use_here());
    const Load small{.first = 0, .rounds = 60, .blocks = 1};
    co_await call_on(home(), other, run_load(*shards[1], *devices.each[1], small, 32));
    const HeapUse between = co_await call_on(home(), other, use_here());
    const Load large{.first = 4096, .rounds = 5, .blocks = 256};
    co_await call_on(home(), other, run_load(*shards[1], *devices.each[1], large, 4));
    const HeapUse after = co_await call_on(home(), other, use_here());
    // The load itself makes two buffers for each stream, and the first time a list of them.
    steady = between.allocations - before.allocations <= 2 * 32 && after.allocations - between.allocations <= 2 * 4 &&
             after.frames == before.frames;
  }
  EXPECT_TRUE(steady);
  co_await devices.drop(home(), shards);
  co_await subsystem.stop();
}

TEST_F(LoopbackTest, SteadyIoAllocatesNothing) {
  if (!testing::can_count_heap()) GTEST_SKIP() << "the sanitizers have a heap of their own";
  runtime_.run_on(1, steady_state());
}

}  // namespace
}  // namespace fairlead::host
