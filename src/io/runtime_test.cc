#include "io/runtime.h"

#include <csignal>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include "async/call.h"
#include "async/cancel.h"
#include "async/scope.h"
#include "io/signals.h"

namespace fairlead {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

Task<int> add(int a, int b) { co_return a + b; }

Task<void> call_around(Runtime& runtime, size_t from, int rounds, int& sum) {
  Reactor& here = runtime.shard(from).reactor;
  for (int i = 0; i < rounds; ++i) {
    // Only upwards: calls between shards form a DAG.
    const size_t to = from + 1 + static_cast<size_t>(i) % (runtime.shard_count() - from - 1);
    sum += co_await call_on(here, runtime.shard(to).reactor, add(i, 1));
  }
}

Task<int> load_all_shards(Runtime& runtime, int tasks, int rounds) {
  Reactor& reactor = runtime.shard(0).reactor;
  std::vector<int> sums(static_cast<size_t>(tasks));
  Scope scope(reactor);
  for (int& sum : sums) scope.spawn(call_around(runtime, 0, rounds, sum));
  co_await scope.close();
  int total = 0;
  for (const int sum : sums) total += sum;
  co_return total;
}

class RuntimePollTest : public testing::TestWithParam<PollMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, RuntimePollTest, testing::Values(PollMode::kAuto, PollMode::kAlways, PollMode::kNever));

TEST_P(RuntimePollTest, CallsBetweenShardsUnderLoadAllComeBack) {
  constexpr int kTasks = 200;
  constexpr int kRounds = 40;
  Runtime runtime({.shards = 3, .poll = GetParam(), .pinning = Pinning::kNone});
  ASSERT_TRUE(runtime.start());
  EXPECT_EQ(runtime.run(load_all_shards(runtime, kTasks, kRounds)), kTasks * kRounds * (kRounds + 1) / 2);
}

Task<void> sleep_and_look(Shard& shard, Duration span, Duration& slept) {
  const Instant before = shard.reactor.now();
  (void)co_await sleep(shard.reactor, span);
  slept = shard.reactor.now() - before;
}

TEST_P(RuntimePollTest, TimersFireNotBeforeTheirTime) {
  Runtime runtime({.poll = GetParam()});
  ASSERT_TRUE(runtime.start());
  for (const Duration span : {Duration(0), Duration(microseconds(20)), Duration(milliseconds(3))}) {
    Duration slept{};
    runtime.run_on(0, sleep_and_look(runtime.shard(0), span, slept));
    EXPECT_GE(slept, span);
    EXPECT_LT(slept, span + std::chrono::seconds(5));
  }
}

Task<void> nothing() { co_return; }

TEST(RuntimeTest, WakesFromItsSleepEachTime) {
  Runtime runtime({.poll = PollMode::kNever});
  ASSERT_TRUE(runtime.start());
  for (int i = 0; i < 2000; ++i) runtime.run_on(0, nothing());
}

Task<void> take_statistics(UringShard& shard, UringShard::Statistics& out) {
  out = shard.statistics();
  co_return;
}

// The shard sleeps once after each visit, and in between nothing turns its loop.
TEST(RuntimeTest, AnIdleShardMakesNoTurns) {
  Runtime runtime({.shards = 2, .poll = PollMode::kAuto, .spin = microseconds(50)});
  ASSERT_TRUE(runtime.start());
  UringShard::Statistics before;
  UringShard::Statistics after;
  runtime.run_on(1, take_statistics(runtime.uring_shard(1), before));
  Duration slept{};
  runtime.run_on(0, sleep_and_look(runtime.shard(0), milliseconds(200), slept));
  runtime.run_on(1, take_statistics(runtime.uring_shard(1), after));
  EXPECT_LE(after.turns - before.turns, 8U);
  EXPECT_LE(after.sleeps - before.sleeps, 3U);
}

TEST(RuntimeTest, AShardThatDidNothingNeverSpins) {
  Runtime runtime({.shards = 2, .poll = PollMode::kAuto, .spin = std::chrono::seconds(5)});
  ASSERT_TRUE(runtime.start());
  UringShard::Statistics seen;
  runtime.run_on(1, take_statistics(runtime.uring_shard(1), seen));
  EXPECT_EQ(seen.spins, 0U);
}

Task<int> wait_for_signals(Runtime& runtime, int first, int second) {
  auto watch = SignalWatch::open(runtime.uring_shard(0));
  if (!watch) co_return 1;
  ::kill(::getpid(), first);
  const Result<int> one = co_await (*watch)->next();
  if (!one || *one != first) co_return 2;
  ::kill(::getpid(), second);
  const Result<int> two = co_await (*watch)->next();
  co_return two && *two == second ? 0 : 3;
}

TEST(SignalWatchTest, GivesEachSignal) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  EXPECT_EQ(runtime.run(wait_for_signals(runtime, SIGTERM, SIGINT)), 0);
}

Task<void> keep_next(SignalWatch& watch, Result<int>& result) { result = co_await watch.next(); }

Task<int> close_watch(Runtime& runtime) {
  Reactor& reactor = runtime.shard(0).reactor;
  auto watch = SignalWatch::open(runtime.uring_shard(0));
  if (!watch) co_return 1;
  Scope scope(reactor);
  Result<int> result = 0;
  scope.spawn(keep_next(**watch, result));
  (void)co_await sleep(reactor, milliseconds(2));
  (*watch)->close();
  co_await scope.close();
  const Result<int> again = co_await (*watch)->next();
  const bool both = !result && result.error().code == Code::kCancelled && !again;
  co_return both ? 0 : 2;
}

TEST(SignalWatchTest, CloseEndsTheWait) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  EXPECT_EQ(runtime.run(close_watch(runtime)), 0);
}

TEST(RuntimeTest, RefusesOptionsThatMakeNoSense) {
  for (const RuntimeOptions& options : {RuntimeOptions{.shards = 0}, RuntimeOptions{.shards = 2, .processors = {0}},
                                        RuntimeOptions{.processors = {1023}}, RuntimeOptions{.spin = Duration(-1)}}) {
    Runtime runtime(options);
    const Result<void> started = runtime.start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().code, Code::kInvalidArgument);
  }
}

Task<void> look_at_processor(int& processor) {
  processor = ::sched_getcpu();
  co_return;
}

TEST(RuntimeTest, PinsToTheProcessorAskedFor) {
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof allowed, &allowed), 0);
  for (int candidate = 0; candidate < CPU_SETSIZE; ++candidate) {
    if (!CPU_ISSET(static_cast<size_t>(candidate), &allowed)) continue;
    Runtime runtime({.processors = {candidate}});
    ASSERT_TRUE(runtime.start());
    int processor = -1;
    runtime.run_on(0, look_at_processor(processor));
    EXPECT_EQ(processor, candidate);
  }
}

// A seccomp filter counts for the thread that sets it alone, so this harms no other test.
Error create_where_setup_gives(int os_errno) {
  Error error;
  std::thread thread([&] {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(os_errno)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{std::size(program), program};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return;
    if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) return;
    const auto shard = UringShard::create({});
    if (!shard) error = shard.error();
  });
  thread.join();
  return error;
}

TEST(UringShardTest, SaysWhyThereIsNoIoUring) {
  const Error refused = create_where_setup_gives(EPERM);
  EXPECT_EQ(refused.code, Code::kPermissionDenied);
  EXPECT_NE(std::string_view(refused.what).find("seccomp"), std::string_view::npos) << refused.what;
  const Error missing = create_where_setup_gives(ENOSYS);
  EXPECT_EQ(missing.code, Code::kNotSupported);
  EXPECT_NE(std::string_view(missing.what).find("6.1"), std::string_view::npos) << missing.what;
}

struct CountingOp : UringOp {
  explicit CountingOp(int& total)
      : UringOp([](UringOp& op, int, uint32_t) { ++static_cast<CountingOp&>(op).count; }), count(total) {}
  int& count;
};

TEST(UringRingTest, LosesNothingWhenTheRingIsFull) {
  auto ring = UringRing::create({.entries = 4, .completion_entries = 8, .files = 2, .buffers = 1});
  ASSERT_TRUE(ring) << to_string(ring.error());
  int count = 0;
  CountingOp op(count);
  constexpr int kOperations = 1000;
  for (int i = 0; i < kOperations; ++i) io_uring_prep_nop((*ring)->prepare(&op));
  while (count < kOperations) {
    (*ring)->submit();
    (*ring)->wait(std::chrono::seconds(10));
    ASSERT_GT((*ring)->reap(64), 0U);
  }
  EXPECT_EQ((*ring)->in_flight(), 0U);
}

TEST(UringRingTest, RegistersWhatThereIsRoomFor) {
  auto ring = UringRing::create({.entries = 4, .completion_entries = 8, .files = 1, .buffers = 1});
  ASSERT_TRUE(ring);
  const auto slot = (*ring)->register_file(STDIN_FILENO);
  ASSERT_TRUE(slot);
  EXPECT_FALSE((*ring)->register_file(STDIN_FILENO));
  (*ring)->unregister_file(*slot);
  EXPECT_TRUE((*ring)->register_file(STDIN_FILENO));
  alignas(4096) static std::byte memory[4096];
  EXPECT_TRUE((*ring)->register_buffer(0, memory));
  EXPECT_FALSE((*ring)->register_buffer(1, memory));
  EXPECT_TRUE((*ring)->is_registered(0));
  EXPECT_FALSE((*ring)->is_registered(1));
}

TEST(UringRandomTest, GivesOtherNumbersEachTime) {
  UringRandom one;
  UringRandom two;
  EXPECT_NE(one.next(), two.next());
  EXPECT_NE(one.uuid(), one.uuid());
  std::array<int, 8> counts{};
  for (int i = 0; i < 8000; ++i) ++counts[one.below(8)];
  for (const int count : counts) EXPECT_NEAR(count, 1000, 250);
}

}  // namespace
}  // namespace fairlead
