// The target on the real runtime: threads, io_uring, TCP over loopback, with the client of the simulated tests. What it
// shows that simulation cannot: no data race (thread sanitizer), and no allocation in a steady state.
#include "io/runtime.h"
#include "tests/support/heap_use.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

constexpr size_t kTargetShards = 2;

Task<HeapUse> usage_here() { co_return heap_use(); }

// The target on shards 0 and 1; its hosts on shard 2.
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
    target_ = std::make_unique<target::Target>(std::vector<Shard*>{&runtime_.shard(0), &runtime_.shard(1)},
                                               target::TargetOptions{});
    const auto listening =
        co_await target_->start_listener({.bind = *parse_socket_address("127.0.0.1:0", 0), .advertise = {}});
    CO_ASSERT_TRUE(listening.has_value());
    address_ = listening->bound;
    CO_ASSERT_TRUE((co_await target_->add_subsystem({.nqn = kNqn, .serial = "", .allowed_hosts = {}})).has_value());
    auto source = make_memory_source({.size_bytes = 64 * kMiB, .logical_block = 4096});
    CO_ASSERT_TRUE((co_await target_->add_namespace(kNqn, {.source = std::move(*source), .uuid = {}})) == 1U);
  }
  Task<void> tear_down() {
    EXPECT_TRUE((co_await target_->stop()).has_value());
    target_.reset();
  }

  Shard& host_shard() { return runtime_.shard(kTargetShards); }
  Reactor& host_reactor() { return host_shard().reactor; }
  Task<HeapUse> usage_of(size_t shard) { return call_on(host_reactor(), runtime_.shard(shard).reactor, usage_here()); }
  template <typename T>
  Task<T> at_target(Task<T> task) {
    return call_on(host_reactor(), runtime_.shard(0).reactor, std::move(task));
  }

  Runtime runtime_{RuntimeOptions{.shards = kTargetShards + 1, .pinning = Pinning::kNone}};
  std::unique_ptr<target::Target> target_;
  SocketAddress address_;

  Task<void> everything_at_once();
  Task<void> replica_changes_hands();
  Task<void> steady_state();
  Task<void> idle_connections();
};

Task<void> read_and_write(NvmeConnection& io, uint64_t first, int rounds, uint32_t blocks) {
  const auto data = pattern(uint64_t{blocks} * 4096, first);
  std::vector<std::byte> back(data.size());
  for (int i = 0; i < rounds; ++i) {
    CO_ASSERT_OK(co_await io.write(1, first, blocks, data, {.fua = i % 2 == 0}));
    CO_ASSERT_OK(co_await io.read(1, first, blocks, back));
    CO_ASSERT_TRUE(back == data);
    if (i % 4 == 3) CO_ASSERT_OK(co_await io.flush(1));
  }
}

Task<void> add_up(NvmeConnection& io, int times) {
  for (int done = 0; done < times;) {
    std::vector<std::byte> before(4096);
    CO_ASSERT_OK(co_await io.read(1, 0, 1, before));
    std::vector<std::byte> after = before;
    uint64_t value = 0;
    std::memcpy(&value, before.data(), 8);
    ++value;
    std::memcpy(after.data(), &value, 8);
    const auto both = co_await io.compare_and_write(1, 0, 1, before, after);
    CO_ASSERT_TRUE(both.has_value());
    done += both->write.ok() ? 1 : 0;
  }
}

Task<void> LoopbackTest::everything_at_once() {
  Reactor& reactor = host_reactor();
  HostOptions options = TargetBed::io_options(6);
  options.queue.data_digest = options.queue.header_digest = true;
  options.queue.keep_alive_ms = 60'000;
  NvmeHost host(host_shard());
  NvmeHost leaver(host_shard());
  const Result<void> opened = co_await host.open(address_, options);
  const Result<void> opened_too = co_await leaver.open(address_, TargetBed::io_options(4));
  EXPECT_TRUE(opened && opened_too);
  if (opened && opened_too) {
    EXPECT_TRUE(succeeded(co_await host.admin().set_features(nvme::Feature::kAsyncEvents, 0x900)));
    Scope scope(reactor);
    Scope leaving(reactor);
    std::optional<Result<Completion>> event;
    scope.spawn(keep(host.admin().async_event(), event));
    for (uint64_t i = 0; i < 6; ++i) {
      scope.spawn(read_and_write(host.io(i), 100 + i * 600, 40, 1));
      scope.spawn(read_and_write(host.io(i), 200 + i * 600, 6, 256));
      scope.spawn(add_up(host.io(i), 15));
    }
    // Meanwhile things change, and a host goes in the middle of its I/O.
    std::array<std::optional<Result<Completion>>, 64> lost;
    std::vector<std::byte> big(512 * kKiB);
    for (size_t i = 0; i < lost.size(); ++i) leaving.spawn(keep(leaver.io(i % 4).write(1, 8000, 128, big), lost[i]));
    for (uint32_t nsid = 2; nsid < 6; ++nsid) {
      auto source = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 512});
      const auto added =
          co_await at_target(target_->add_namespace(kNqn, {.nsid = nsid, .source = std::move(*source), .uuid = {}}));
      EXPECT_TRUE(added == nsid);
      std::vector<std::byte> block(512);
      EXPECT_TRUE(succeeded(co_await host.io(nsid).read(nsid, 7, 1, block)));
      const auto state = nsid % 2 == 0 ? target::AnaState::kNonOptimized : target::AnaState::kOptimized;
      EXPECT_TRUE((co_await at_target(target_->set_ana_state(kNqn, 0, 1, state))).has_value());
      EXPECT_TRUE((co_await at_target(target_->remove_namespace(kNqn, nsid))).has_value());
    }
    leaver.admin().cut();
    for (size_t i = 0; i < 4; ++i) leaver.io(i).cut();
    co_await leaving.close();
    co_await scope.close();
    EXPECT_TRUE(succeeded(*event));
    std::vector<std::byte> counter(4096);
    EXPECT_TRUE(succeeded(co_await host.io().read(1, 0, 1, counter)));
    uint64_t value = 0;
    std::memcpy(&value, counter.data(), 8);
    EXPECT_EQ(value, 6U * 15);
    std::vector<std::byte> health(512);
    EXPECT_TRUE(succeeded(co_await host.admin().get_log_page(nvme::LogPage::kHealth, health)));
  }
  co_await host.close();
  co_await leaver.close();
  EXPECT_EQ(host.complaint(), "");
  EXPECT_EQ(leaver.complaint(), "");
}

TEST_F(LoopbackTest, EverythingAtOnce) { runtime_.run_on(kTargetShards, everything_at_once()); }

// Lets in whoever asks.
class Usher final : public target::ControlHandler {
 public:
  explicit Usher(target::Target& target) : target_(target) {}
  Task<std::vector<std::byte>> call(target::CallerId caller, std::vector<std::byte> request) override {
    if (!co_await target_.fence(kNqn, 7) || !co_await target_.admit(kNqn, 7, caller)) request.clear();
    co_return request;
  }
  void gone(target::CallerId /*caller*/) override {}

 private:
  target::Target& target_;
};

Task<bool> asks(NvmeConnection& admin) {
  const std::vector<std::byte> request(100, std::byte{1});
  std::vector<std::byte> answer(request.size());
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kReplicationSend);
  entry.nsid = 7;
  const CommandData out{.out = request};
  const auto sent = co_await admin.submit(entry, out);
  if (!succeeded(sent)) co_return false;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kReplicationReceive);
  entry.cdw10 = static_cast<uint32_t>(sent->result);
  const CommandData in{.in = answer};
  const auto received = co_await admin.submit(entry, in);
  co_return succeeded(received) && answer == request;
}

Task<void> write_until(NvmeConnection& io, uint64_t& written, const bool& stop) {
  const auto data = pattern(4096, 1);
  while (!stop && !io.is_lost()) {
    const auto done = co_await io.write(7, 0, 1, data);
    if (succeeded(done)) ++written;
    // Who lost its admin connection loses its queues too, with what waits in them.
    if (!done || done->ok() || done->status.code == nvme::StatusCode::kAbortedQueueDeleted) continue;
    EXPECT_EQ(done->status.code, nvme::StatusCode::kFenced);
  }
}

Task<void> LoopbackTest::replica_changes_hands() {
  const auto usher = std::make_shared<Usher>(*target_);
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 4096});
  target::NamespaceOptions wanted{.nsid = 7, .source = std::move(*memory), .uuid = {}, .control = usher};
  CO_ASSERT_TRUE((co_await at_target(target_->add_namespace(kNqn, std::move(wanted)))) == 7U);
  std::array<std::unique_ptr<NvmeHost>, 2> hosts;
  std::array<uint64_t, 2> written{};
  bool stop = false;
  Scope scope(host_reactor());
  for (size_t i = 0; i < 2; ++i) {
    hosts[i] = std::make_unique<NvmeHost>(host_shard());
    EXPECT_TRUE((co_await hosts[i]->open(address_, TargetBed::io_options(3))).has_value());
    for (size_t queue = 0; queue < 3; ++queue) {
      for (int k = 0; k < 4; ++k) scope.spawn(write_until(hosts[i]->io(queue), written[i], stop));
    }
  }
  for (size_t round = 0; round < 40; ++round) {
    EXPECT_TRUE(co_await asks(hosts[round % 2]->admin()));
    const uint64_t before = written[round % 2];
    while (written[round % 2] < before + 20) co_await yield(host_reactor());
  }
  hosts[0]->admin().cut();
  EXPECT_TRUE(co_await asks(hosts[1]->admin()));
  const uint64_t others = written[0];
  stop = true;
  co_await scope.close();
  EXPECT_LE(written[0], others + 12) << "answers that were on their way";
  for (const auto& host : hosts) co_await host->close();
  EXPECT_TRUE((co_await at_target(target_->remove_namespace(kNqn, 7))).has_value());
}

TEST_F(LoopbackTest, AReplicaChangesHands) { runtime_.run_on(kTargetShards, replica_changes_hands()); }

Task<void> load(Reactor& reactor, NvmeHost& host, int rounds) {
  Scope scope(reactor);
  for (uint64_t i = 0; i < 64; ++i)
    scope.spawn(read_and_write(host.io(i % 2), 1000 + i * 8, rounds, i % 8 == 0 ? 8 : 1));
  co_await scope.close();
}

Task<void> LoopbackTest::steady_state() {
  NvmeHost host(host_shard());
  HostOptions options = TargetBed::io_options(2);
  options.queue.data_digest = true;
  EXPECT_TRUE((co_await host.open(address_, options)).has_value());
  // What grows with the most that was ever in flight settles after a few loads, sooner or later as threads happen to
  // run. What allocates for each command never does.
  bool steady = false;
  for (int attempt = 0; attempt < 50 && !steady; ++attempt) {
    std::array<HeapUse, kTargetShards> before;
    for (size_t i = 0; i < kTargetShards; ++i) before[i] = co_await usage_of(i);
    co_await load(host_reactor(), host, 60);
    steady = true;
    for (size_t i = 0; i < kTargetShards; ++i) {
      const HeapUse after = co_await usage_of(i);
      steady = steady && after.allocations == before[i].allocations && after.frames == before[i].frames;
    }
  }
  EXPECT_TRUE(steady);
  co_await host.close();
}

TEST_F(LoopbackTest, SteadyIoAllocatesNothing) {
  if (!can_count_heap()) GTEST_SKIP() << "the sanitizers have a heap of their own";
  runtime_.run_on(kTargetShards, steady_state());
}

Task<void> LoopbackTest::idle_connections() {
  constexpr int64_t kConnections = 100;
  const auto total = [](const std::array<HeapUse, kTargetShards>& each) { return each[0].bytes + each[1].bytes; };
  std::array<HeapUse, kTargetShards> before;
  for (size_t i = 0; i < kTargetShards; ++i) before[i] = co_await usage_of(i);
  std::vector<std::unique_ptr<NvmeHost>> hosts;
  std::vector<std::byte> block(4096);
  for (int64_t i = 0; i < kConnections / 2; ++i) {
    hosts.push_back(std::make_unique<NvmeHost>(host_shard()));
    EXPECT_TRUE((co_await hosts.back()->open(address_, TargetBed::io_options(1))).has_value());
    EXPECT_TRUE(succeeded(co_await hosts.back()->io().read(1, 0, 1, block)));
  }
  std::array<HeapUse, kTargetShards> after;
  for (size_t i = 0; i < kTargetShards; ++i) after[i] = co_await usage_of(i);
  EXPECT_GE((total(after) - total(before)) / kConnections, 64 * 1024) << "the receive buffer is counted";
  // Most of it is the receive buffer of 64 KiB, of which only what was used is resident.
  EXPECT_LE((total(after) - total(before)) / kConnections, 96 * 1024);
  for (const auto& host : hosts) co_await host->close();
}

TEST_F(LoopbackTest, AnIdleConnectionIsSmall) {
  if (!can_count_heap()) GTEST_SKIP() << "the sanitizers have a heap of their own";
  runtime_.run_on(kTargetShards, idle_connections());
}

}  // namespace
}  // namespace fairlead::testing
