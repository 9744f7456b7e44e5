#include "io/worker.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <gtest/gtest.h>
#include <latch>
#include <thread>
#include <unistd.h>

#include "async/cancel.h"
#include "async/scope.h"
#include "io/outside_thread.h"
#include "io/runtime.h"

namespace fairlead {
namespace {

std::thread::id this_thread() { return std::this_thread::get_id(); }

Task<int> run_values(Runtime& runtime) {
  Worker worker(runtime.shard(0).reactor, "a worker whose name is long");
  const std::thread::id shard = this_thread();
  const std::thread::id there = co_await worker.run(this_thread);
  if (there == shard || this_thread() != shard) co_return 1;
  int calls = 0;
  co_await worker.run([&calls] { ++calls; });
  auto owned = std::make_unique<int>(41);
  const std::unique_ptr<int> result = co_await worker.run([given = std::move(owned)]() mutable {
    ++*given;
    return std::move(given);
  });
  const Result<int> error = co_await worker.run([]() -> Result<int> { return fail(Code::kBusy); });
  co_return calls == 1 && *result == 42 && !error && error.error().code == Code::kBusy ? 0 : 2;
}

TEST(WorkerTest, RunsElsewhereAndResumesHere) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  EXPECT_EQ(runtime.run(run_values(runtime)), 0);
}

int write_to_nobody() {
  std::array<int, 2> pipe{};
  if (::pipe(pipe.data()) != 0) return 0;
  ::close(pipe[0]);
  const ssize_t written = ::write(pipe[1], "x", 1);
  const int os_errno = errno;
  ::close(pipe[1]);
  return written < 0 ? os_errno : 0;
}

Task<int> write_there(Runtime& runtime) {
  Worker worker(runtime.shard(0).reactor, "pipe");
  co_return co_await worker.run(write_to_nobody);
}

TEST(WorkerTest, AWriteToNobodyIsAnErrorAndNoMore) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  EXPECT_EQ(runtime.run(write_there(runtime)), EPIPE);
}

Task<void> append(Worker& worker, std::vector<int>& order, int number) {
  co_await worker.run([&order, number] { order.push_back(number); });
}

Task<int> run_in_order(Runtime& runtime, std::vector<int>& order, int count) {
  Reactor& reactor = runtime.shard(0).reactor;
  Worker worker(reactor, "order");
  Scope scope(reactor);
  for (int i = 0; i < count; ++i) scope.spawn(append(worker, order, i));
  co_await scope.close();
  co_return 0;
}

// More of them than a mailbox holds.
TEST(WorkerTest, KeepsTheOrderOfTheCalls) {
  constexpr int kCount = 5000;
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  std::vector<int> order;
  EXPECT_EQ(runtime.run(run_in_order(runtime, order, kCount)), 0);
  ASSERT_EQ(order.size(), static_cast<size_t>(kCount));
  EXPECT_TRUE(std::ranges::is_sorted(order));
}

Task<void> block(Worker& worker, std::latch& latch, bool& done) {
  co_await worker.run([&latch] { latch.wait(); });
  done = true;
}

Task<int> go_on_meanwhile(Runtime& runtime) {
  Reactor& reactor = runtime.shard(0).reactor;
  Worker worker(reactor, "blocked");
  Scope scope(reactor);
  std::latch latch(1);
  bool done = false;
  scope.spawn(block(worker, latch, done));
  (void)co_await sleep(reactor, std::chrono::milliseconds(5));
  const bool was_done = done;
  latch.count_down();
  co_await scope.close();
  co_return !was_done && done ? 0 : 1;
}

TEST(WorkerTest, TheShardGoesOnMeanwhile) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  EXPECT_EQ(runtime.run(go_on_meanwhile(runtime)), 0);
}

bool are_signals_blocked() {
  sigset_t blocked;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  return ::sigismember(&blocked, SIGINT) == 1 && ::sigismember(&blocked, SIGTERM) == 1;
}

Task<int> look_at_signals(Runtime& runtime, bool& here, bool& there) {
  Worker worker(runtime.shard(0).reactor, "signals");
  there = co_await worker.run(are_signals_blocked);
  here = are_signals_blocked();
  co_return 0;
}

// In a thread of its own: another test's Runtime may have blocked them in this one.
TEST(WorkerTest, SignalsAreForOthers) {
  std::thread thread([] {
    sigset_t none;
    sigemptyset(&none);
    ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
    Runtime runtime({.signals = RuntimeOptions::Signals::kDefault});
    ASSERT_TRUE(runtime.start());
    bool here = true;
    bool there = false;
    EXPECT_EQ(runtime.run(look_at_signals(runtime, here, there)), 0);
    EXPECT_FALSE(here);
    EXPECT_TRUE(there);
  });
  thread.join();
}

struct Count : Runnable {
  explicit Count(int& total) : Runnable([](Runnable& self) { ++static_cast<Count&>(self).count; }), count(total) {}
  int& count;
};

TEST(DeliverTest, WaitsForRoomInTheMailbox) {
  Reactor reactor({.mailbox_capacity = 2});
  int count = 0;
  std::vector<std::unique_ptr<Count>> runnables;
  for (int i = 0; i < 100; ++i) runnables.push_back(std::make_unique<Count>(count));
  std::thread sender([&] {
    for (const auto& runnable : runnables) deliver(reactor, *runnable);
  });
  while (count < 100) reactor.run_ready(10);
  sender.join();
}

// The thread sanitizer sees it when a thread is still inside.
TEST(InletTest, SeesTheLastThreadOut) {
  Reactor reactor({});
  for (int round = 0; round < 200; ++round) {
    int count = 0;
    Count runnable(count);
    auto inlet = std::make_unique<Inlet>(reactor);
    std::thread sender([&inlet = *inlet, &runnable] { inlet.deliver(runnable); });
    while (count == 0) reactor.run_ready(1);
    inlet.reset();
    sender.join();
  }
}

}  // namespace
}  // namespace fairlead
