#include "sim/world.h"

#include <gtest/gtest.h>

#include "async/call.h"

namespace fairlead::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(PrngTest, IsSpreadAndTheSameEverywhere) {
  Prng random(1);
  EXPECT_EQ(random.next(), 0xb3f2af6d0fc710c5U);
  EXPECT_EQ(random.next(), 0x853b559647364ceaU);
  std::array<int, 10> counts{};
  for (int i = 0; i < 100'000; ++i) ++counts[random.below(10)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);
  int hits = 0;
  for (int i = 0; i < 100'000; ++i) hits += random.chance(250'000) ? 1 : 0;
  EXPECT_NEAR(hits, 25'000, 1'000);
  uint64_t small = 0;
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t value = random.skewed(3, 5'000);
    ASSERT_GE(value, 3U);
    ASSERT_LE(value, 5'000U);
    small += value < 64 ? 1 : 0;
  }
  EXPECT_GT(small, 3'000U);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(random.skewed(7, 7), 7U);
}

TEST(NodeClockTest, TheWorldTimeOfADeadlineIsTheFirstThatReachesIt) {
  Prng random(3);
  for (int i = 0; i < 10'000; ++i) {
    const NodeClock clock{.offset_ns = static_cast<int64_t>(random.below(1'000'000'000'000)) - 500'000'000'000,
                          .drift_ppm = static_cast<int64_t>(random.below(401)) - 200,
                          .wall_offset_ms = 0};
    const Instant at{clock.offset_ns + static_cast<int64_t>(random.below(10'000'000'000'000)) + 1};
    const Instant world = clock.world(at);
    ASSERT_GE(clock.local(world), at);
    ASSERT_LT(clock.local(world - Duration(1)), at);
  }
}

Task<void> sleep_and_count(SimNode& node, size_t shard, Duration span, int& count) {
  (void)co_await sleep(node.shard(shard).reactor, span, node.cancel(shard));
  ++count;
}

TEST(WorldTest, TimersFireInVirtualTimeAndRunUntilIsBounded) {
  SimWorld world(1, SimSettings::calm());
  SimNode& node = world.add_node("10.0.0.1");
  int count = 0;
  world.spawn(node, 0, sleep_and_count(node, 0, seconds(3600), count));
  EXPECT_EQ(world.run_until([&] { return count == 1; }, seconds(3599)), RunResult::kTimedOut);
  EXPECT_EQ(world.now().ns, 3'599'000'000'000);
  EXPECT_EQ(world.run_until([&] { return count == 1; }, seconds(2)), RunResult::kDone);
  EXPECT_EQ(world.run_until([&] { return count == 2; }, seconds(100)), RunResult::kIdle);
  EXPECT_FALSE(world.step());
  const Instant before = world.now();
  world.run_for(seconds(5));
  EXPECT_EQ(world.now() - before, seconds(5));
}

TEST(WorldTest, ClocksOfNodesDifferInOriginAndRate) {
  SimSettings settings = SimSettings::calm();
  settings.clock_drift_ppm_max = 200;
  SimWorld world(7, settings);
  SimNode& a = world.add_node("10.0.0.1");
  SimNode& b = world.add_node("10.0.0.2");
  int wakes = 0;
  world.spawn(a, 0, sleep_and_count(a, 0, seconds(1), wakes));
  world.run_for(seconds(1));
  const Instant a0 = a.shard(0).clock.now();
  const Instant b0 = b.shard(0).clock.now();
  EXPECT_NE(a0, b0);
  int done = 0;
  world.spawn(a, 0, sleep_and_count(a, 0, seconds(1000), done));
  world.spawn(b, 0, sleep_and_count(b, 0, seconds(1000), done));
  ASSERT_EQ(world.run_until([&] { return done == 2; }, seconds(1001)), RunResult::kDone);
  const Duration apart = (a.shard(0).clock.now() - a0) - (b.shard(0).clock.now() - b0);
  EXPECT_NE(apart, Duration(0));
  EXPECT_LT(std::abs(apart.count()), 500'000'000);
}

// ---- Shards

Task<uint64_t> where_am_i(Shard& here) {
  (void)co_await sleep(here.reactor, milliseconds(1));
  co_return here.id.value;
}
Task<void> ask_often(SimNode& node, int rounds, int& right) {
  for (int i = 0; i < rounds; ++i) {
    const uint64_t answer = co_await call_on(node.shard(0).reactor, node.shard(1).reactor, where_am_i(node.shard(1)));
    if (answer == 1) ++right;
  }
}

TEST(WorldTest, CallsBetweenShardsArriveThroughTheSmallestMailbox) {
  SimSettings settings = SimSettings::calm();
  settings.order = Order::kRandom;
  settings.mailbox_capacity = 2;
  settings.fault_point_ppm[static_cast<size_t>(FaultPoint::kMailboxFull)] = 200'000;
  SimWorld world(11, settings);
  SimNode& node = world.add_node("10.0.0.1", {.shards = 2, .more_addresses = {}});
  int right = 0;
  for (int i = 0; i < 20; ++i) world.spawn(node, 0, ask_often(node, 10, right));
  EXPECT_EQ(world.run_until([&] { return right == 200; }, seconds(10)), RunResult::kDone) << world.report();
  EXPECT_GT(world.fault_point_count(FaultPoint::kMailboxFull), 0U);
  EXPECT_GT(world.probe_count(Probe::kMailboxWait), 0U);
}

// ---- The same again

Task<void> echo_stream(Shard& shard, std::unique_ptr<Stream> stream) {
  std::array<std::byte, 700> memory{};
  while (true) {
    const std::array<iovec, 1> in = {iovec{memory.data(), memory.size()}};
    const Result<size_t> got = co_await receive(*stream, in);
    if (!got || *got == 0) break;
    const std::array<iovec, 1> out = {iovec{memory.data(), *got}};
    if (!co_await send(*stream, out)) break;
    if (shard.random.one_in(50)) break;
  }
}
Task<void> accept_all(SimNode& node, Listener& listener, Scope& scope) {
  while (true) {
    Result<std::unique_ptr<Accepted>> accepted = co_await listener.accept();
    if (!accepted && accepted.error().code == Code::kResourceExhausted) continue;
    if (!accepted) break;
    Result<std::unique_ptr<Stream>> stream = node.shard(0).network.adopt(std::move(*accepted));
    if (stream) scope.spawn(echo_stream(node.shard(0), std::move(*stream)));
  }
}
Task<void> serve_echo(SimNode& node) {
  Shard& shard = node.shard(0);
  Result<std::unique_ptr<Listener>> listener = shard.network.listen(node.address(4420));
  if (!listener) co_return;  // crashed before its first turn
  Scope scope(shard.reactor);
  scope.spawn(accept_all(node, **listener, scope));
  co_await node.stopping(0).wait();
  (*listener)->close();
  // The streams end with their peers: a client that stops, or a node that crashes, ends them.
  co_await scope.close();
}
Task<void> write_disk(SimNode& node, int& bytes) {
  Shard& shard = node.shard(0);
  Result<std::shared_ptr<DiskFile>> file = shard.storage.open({.path = "/disk", .size_bytes = {}});
  if (!file) co_return;  // crashed before its first turn
  std::unique_ptr<Disk> disk = *shard.storage.attach(*file);
  BufferAccount account;
  while (!node.stopping(0).is_set()) {
    const Buffer buffer = shard.buffers.try_allocate(account, 4096);
    if (!buffer) {
      co_await yield(shard.reactor);
      continue;
    }
    std::ranges::fill(buffer.bytes(2048), static_cast<std::byte>(shard.random.next()));
    const std::array<iovec, 1> list = {iovec{buffer.data(), 2048}};
    const uint64_t at = shard.random.below(64) * 2048;
    const IoArguments write = {.op = IoOp::kWrite, .offset = ByteOffset(at), .length = 2048, .buffers = list};
    if (co_await IoAwaiter<Disk>(shard.reactor, *disk, write)) bytes += 2048;
    if (shard.random.one_in(8))
      (void)co_await IoAwaiter<Disk>(shard.reactor, *disk, {.op = IoOp::kFlush, .offset = {}});
  }
}
Task<void> talk(SimNode& node, SocketAddress to, int& bytes) {
  Shard& shard = node.shard(0);
  while (!node.stopping(0).is_set()) {
    Result<std::unique_ptr<Stream>> stream = co_await shard.network.connect(to, kConnectTimeout);
    if (!stream) {
      (void)co_await sleep(shard.reactor, milliseconds(20), node.cancel(0));
      continue;
    }
    std::array<std::byte, 500> memory{};
    while (!node.stopping(0).is_set()) {
      const std::array<iovec, 1> list = {iovec{memory.data(), memory.size()}};
      if (!co_await send(**stream, list)) break;
      const Result<size_t> got = co_await receive(**stream, list);
      if (!got || *got == 0) break;
      bytes += static_cast<int>(*got);
    }
  }
}

struct Outcome {
  uint64_t hash = 0;
  int bytes = 0;
};

// A little cluster with all faults: a server that is killed and comes back, two clients.
void build(SimWorld& world, Outcome& outcome) {
  SimDiskOptions options;
  options.faults.elsewhere = {.write_error_ppm = 5'000, .rot_ppm = 5'000, .lost_write_ppm = 5'000, .slow_ppm = 1'000};
  SimNode& server = world.add_node("10.0.0.1", {.shards = 2, .more_addresses = {}});
  world.create_disk(server, "/disk", kMiB, options);
  server.run_at_boot([&](SimNode& node) {
    world.spawn(node, 0, serve_echo(node));
    world.spawn(node, 0, write_disk(node, outcome.bytes));
  });
  for (const char* ip : {"10.0.0.2", "10.0.0.3"}) {
    SimNode& client = world.add_node(ip);
    world.spawn(client, 0, talk(client, server.address(4420), outcome.bytes));
  }
  for (int i = 1; i < 6; ++i) {
    world.after(milliseconds(15 * i), [&world, &server, i] {
      world.crash(server, i % 2 == 0 ? CrashKind::kPowerLost : CrashKind::kProcessKilled);
      world.after(milliseconds(5), [&world, &server] { world.restart(server); });
    });
  }
  world.after(milliseconds(10), [&world] { world.network().partition_one_way(0, 1); });
  world.after(milliseconds(25), [&world] { world.network().heal_all(); });
}

Outcome run_cluster(uint64_t seed) {
  Outcome outcome;
  {
    SimWorld world(seed);
    build(world, outcome);
    world.run_for(milliseconds(100));
    outcome.hash = world.trace_hash();
    EXPECT_EQ(world.violations(), 0U) << world.report();
  }
  return outcome;
}

TEST(WorldTest, TheSameSeedGivesTheSameTraceAndAnotherAnother) {
  std::set<uint64_t> hashes;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    const Outcome first = run_cluster(seed);
    const Outcome second = run_cluster(seed);
    EXPECT_EQ(first.hash, second.hash) << "seed " << seed;
    EXPECT_EQ(first.bytes, second.bytes) << "seed " << seed;
    EXPECT_GT(first.bytes, 0) << "seed " << seed;
    RecordProperty(fmt::format("trace_{}", seed), fmt::format("{:016x}", first.hash));  // to compare builds by
    hashes.insert(first.hash);
  }
  EXPECT_EQ(hashes.size(), 12U);
}

TEST(WorldTest, TwoWorldsAtOnceDoNotTouchEachOther) {
  const Outcome alone = run_cluster(5);
  Outcome a;
  Outcome b;
  {
    SimWorld first(5);
    build(first, a);
    SimWorld second(5);
    build(second, b);
    for (int i = 0; i < 40; ++i) {
      first.run_for(milliseconds(1));
      second.run_for(milliseconds(2));
    }
    first.run_for(milliseconds(40));
    a.hash = first.trace_hash();
    b.hash = second.trace_hash();
  }
  EXPECT_EQ(a.hash, b.hash);
  // run_for() in pieces stops at other instants than in one, which moves a turn's cost: only the two are the same.
  EXPECT_GT(alone.bytes, 0);
}

TEST(WorldTest, ADrawThatShouldNotBeShowsInTheHash) {
  SimWorld first(9, SimSettings::calm());
  SimWorld second(9, SimSettings::calm());
  EXPECT_EQ(first.trace_hash(), second.trace_hash());
  (void)second.random().next();
  EXPECT_NE(first.trace_hash(), second.trace_hash());
}

// ---- Death, stop, oracles

Task<void> run_until_stopped(SimNode& node, int& ended) {
  co_await node.stopping(0).wait();
  (void)co_await sleep(node.shard(0).reactor, seconds(3600));  // a slow way down costs the world nothing
  ++ended;
}

TEST(WorldTest, ACrashTakesNoTimeAndARestartRunsTheProgramAgain) {
  SimWorld world(2, SimSettings::calm());
  SimNode& node = world.add_node("10.0.0.1");
  int ended = 0;
  int boots = 0;
  node.run_at_boot([&](SimNode& n) {
    ++boots;
    world.spawn(n, 0, run_until_stopped(n, ended));
  });
  EXPECT_EQ(boots, 1);
  world.run_for(milliseconds(1));
  const Instant before = world.now();
  world.crash(node);
  EXPECT_EQ(world.now(), before);
  EXPECT_EQ(ended, 1);
  EXPECT_FALSE(node.is_up());
  world.restart(node);
  EXPECT_EQ(boots, 2);
  EXPECT_TRUE(node.is_up());
  EXPECT_FALSE(world.stop(node, seconds(10)));
  EXPECT_TRUE(world.stop(node, seconds(3600)));
  EXPECT_EQ(ended, 2);
}

TEST(WorldTest, TheBootIdIsOfTheKernelNotOfTheProcess) {
  SimWorld world(4, SimSettings::calm());
  SimWorld same(4, SimSettings::calm());
  SimNode& node = world.add_node("10.0.0.1", {.shards = 2, .more_addresses = {}});
  SimNode& other = world.add_node("10.0.0.2");
  const auto boot_id = [](SimNode& of) { return of.shard(0).storage.boot_id(); };
  const Uuid first = boot_id(node);
  EXPECT_FALSE(first.is_nil());
  EXPECT_EQ(node.shard(1).storage.boot_id(), first);
  EXPECT_EQ(boot_id(same.add_node("10.0.0.1")), first);
  EXPECT_NE(boot_id(other), first);
  world.crash(node, CrashKind::kProcessKilled);
  world.restart(node);
  EXPECT_EQ(boot_id(node), first);
  ASSERT_TRUE(world.stop(node, seconds(1)));
  world.restart(node);
  EXPECT_EQ(boot_id(node), first);
  world.crash(node, CrashKind::kPowerLost);
  world.restart(node);
  EXPECT_NE(boot_id(node), first);
}

TEST(WorldTest, ACrashEndsEverythingThatIsUnderWay) {
  // Crashes at many instants, over all the programs above: each must drain.
  for (uint64_t seed = 100; seed < 130; ++seed) {
    Outcome outcome;
    SimWorld world(seed);
    build(world, outcome);
    world.run_for(Duration(static_cast<int64_t>(world.random().below(20'000'000))));
  }
}

Task<void> report_error(std::string_view event) {
  log_error(event, {{"why", "test"}});
  co_return;
}

TEST(WorldTest, AnErrorLineThatNothingExplainsIsCounted) {
  SimWorld world(3, SimSettings::calm());
  SimNode& node = world.add_node("10.0.0.1");
  SimNode& other = world.add_node("10.0.0.2");
  SimDevice& disk = world.create_disk(other, "/disk", kMiB);
  world.allow_error("test.allowed");
  world.spawn(node, 0, report_error("test.allowed"));
  world.run_for(milliseconds(1));
  EXPECT_EQ(world.unexplained_errors(), 0U);
  disk.rot(0, 512);
  world.spawn(other, 0, report_error("test.rotten"));
  world.run_for(milliseconds(1));
  EXPECT_EQ(world.unexplained_errors(), 0U);
  world.spawn(node, 0, report_error("test.unexpected"));
  world.run_for(milliseconds(1));
  EXPECT_EQ(world.unexplained_errors(), 1U);
  EXPECT_NE(world.report().find("ERROR test.unexpected why=test"), std::string::npos) << world.report();
}

TEST(WorldTest, EachFaultPointFiresInSomeWorldAndNoneInACalmOne) {
  std::array<bool, kFaultPointCount> on{};
  std::array<bool, kFaultPointCount> off{};
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const SimSettings settings = SimSettings::drawn(seed);
    for (size_t i = 0; i < on.size(); ++i) (settings.fault_point_ppm[i] != 0 ? on : off)[i] = true;
  }
  for (size_t i = 0; i < on.size(); ++i) EXPECT_TRUE(on[i] && off[i]) << i;
  EXPECT_EQ(SimSettings::calm().fault_point_ppm, decltype(SimSettings::fault_point_ppm){});
}

Task<void> note_time(SimWorld& world, Shard& shard, Instant& woken) {
  (void)co_await sleep(shard.reactor, milliseconds(1));
  woken = world.now();
}

TEST(WorldTest, AStalledShardHasNoTurnAndItsTimersAreLate) {
  SimWorld world(4, SimSettings::calm());
  SimNode& node = world.add_node("10.0.0.1", {.shards = 2, .more_addresses = {}});
  Instant stalled;
  Instant running;
  const Instant begin = world.now();
  world.spawn(node, 0, note_time(world, node.shard(0), stalled));
  world.spawn(node, 1, note_time(world, node.shard(1), running));
  world.stall(node, 0, milliseconds(50));
  world.run_for(milliseconds(100));
  EXPECT_LT(running - begin, milliseconds(2));
  EXPECT_GE(stalled - begin, milliseconds(50));
  EXPECT_LT(stalled - begin, milliseconds(52));
}

}  // namespace
}  // namespace fairlead::sim
