#include <gtest/gtest.h>
#include <random>
#include <thread>

#include "async/call.h"
#include "async/cancel.h"
#include "async/channel.h"
#include "async/event.h"
#include "async/reactor.h"
#include "async/scope.h"
#include "async/task.h"

namespace fairlead {
namespace {

using std::chrono::milliseconds;

// Drives one reactor in virtual time until nothing is left to do.
class Driver {
 public:
  Driver() : reactor({}) {}
  void run() {
    while (true) {
      while (reactor.run_ready(64) > 0) {
      }
      const std::optional<Instant> next = reactor.next_deadline();
      if (!next) return;
      reactor.set_now(*next);
      reactor.expire_timers();
    }
  }
  Reactor reactor;
};

Task<int64_t> add(int64_t a, int64_t b) { co_return a + b; }
Task<int64_t> sum_to(int64_t n) {
  int64_t sum = 0;
  for (int64_t i = 1; i <= n; ++i) sum = co_await add(sum, i);
  co_return sum;
}
Task<void> store(Task<int64_t> task, int64_t& out) { out = co_await std::move(task); }

TEST(TaskTest, IsLazyAndGivesItsResult) {
  Driver driver;
  Scope scope(driver.reactor);
  int64_t out = 0;
  scope.spawn(store(sum_to(100), out));
  EXPECT_EQ(out, 0);
  EXPECT_EQ(scope.running(), 1U);
  driver.run();
  EXPECT_EQ(out, 5050);
  EXPECT_EQ(scope.running(), 0U);
}

TEST(TaskTest, AMillionChildrenNeedNoStackAndNoHeap) {
  Driver driver;
  Scope scope(driver.reactor);
  int64_t out = 0;
  scope.spawn(store(sum_to(10), out));
  driver.run();
  [[maybe_unused]] const uint64_t before = frame_heap_allocations();
  scope.spawn(store(sum_to(1'000'000), out));
  driver.run();
#if !__has_feature(address_sanitizer)
  EXPECT_EQ(frame_heap_allocations(), before);
#endif
  EXPECT_EQ(out, 500'000'500'000);
}

Task<void> sleep_then_log(Reactor& reactor, Duration span, int id, std::vector<int>& log) {
  (void)co_await sleep(reactor, span);
  log.push_back(id);
}

TEST(TimerTest, FireInOrderOfTheirDeadlines) {
  Driver driver;
  Scope scope(driver.reactor);
  std::mt19937 random(5);
  std::vector<int> log;
  std::vector<int> spans(200);
  for (int i = 0; i < 200; ++i) spans[static_cast<size_t>(i)] = i;
  std::ranges::shuffle(spans, random);
  for (const int span : spans) scope.spawn(sleep_then_log(driver.reactor, milliseconds(span), span, log));
  driver.run();
  ASSERT_EQ(log.size(), 200U);
  EXPECT_TRUE(std::ranges::is_sorted(log));
}

TEST(TimerTest, HeapAgreesWithAMultimap) {
  Reactor reactor({});
  struct Item : Timer {
    Item() : Timer([](Runnable& self) { static_cast<Item&>(self).fired = true; }) {}
    bool fired = false;
    int64_t deadline = 0;
  };
  std::array<Item, 64> items;
  std::mt19937 random(6);
  int64_t now = 0;
  for (int step = 0; step < 20'000; ++step) {
    Item& item = items[random() % items.size()];
    switch (random() % 3) {
      case 0:
        item.deadline = now + static_cast<int64_t>(random() % 100);
        item.fired = false;
        reactor.arm(item, Instant{item.deadline});
        break;
      case 1:
        reactor.disarm(item);
        break;
      default:
        now += static_cast<int64_t>(random() % 10);
        reactor.set_now(Instant{now});
        reactor.expire_timers();
        reactor.run_ready(1000);
        for (const Item& each : items) {
          ASSERT_FALSE(each.is_armed() && each.deadline <= now);
          ASSERT_FALSE(each.fired && each.deadline > now);
        }
    }
    int64_t earliest = INT64_MAX;
    for (const Item& each : items) {
      if (each.is_armed()) earliest = std::min(earliest, each.deadline);
    }
    const auto next = reactor.next_deadline();
    ASSERT_EQ(next ? next->ns : INT64_MAX, earliest);
  }
  for (Item& item : items) reactor.disarm(item);
}

Task<void> sleep_until_cancelled(Reactor& reactor, CancelSource& source, Code& code) {
  const Result<void> result = co_await sleep(reactor, std::chrono::hours(1), source);
  code = result ? Code::kInternal : result.error().code;
}

TEST(CancelTest, EndsASleepAtOnceAndIsRememberedForTheNext) {
  Driver driver;
  Scope scope(driver.reactor);
  CancelSource source;
  Code first = Code::kInternal;
  Code second = Code::kInternal;
  scope.spawn(sleep_until_cancelled(driver.reactor, source, first));
  driver.reactor.run_ready(10);
  source.cancel();
  scope.spawn(sleep_until_cancelled(driver.reactor, source, second));
  driver.reactor.run_ready(10);
  EXPECT_EQ(first, Code::kCancelled);
  EXPECT_EQ(second, Code::kCancelled);
  EXPECT_FALSE(driver.reactor.next_deadline().has_value());
}

Task<void> produce(Channel<int>& channel, int count) {
  for (int i = 0; i < count; ++i) {
    if (!co_await channel.send(i)) co_return;
  }
  channel.close();
}
Task<void> consume(Channel<int>& channel, std::vector<int>& out) {
  while (auto value = co_await channel.receive()) out.push_back(*value);
}

TEST(ChannelTest, KeepsOrderThroughASmallBufferAndDrainsAfterClose) {
  Driver driver;
  Scope scope(driver.reactor);
  Channel<int> channel(driver.reactor, 3);
  std::vector<int> out;
  scope.spawn(produce(channel, 1000));
  scope.spawn(consume(channel, out));
  driver.run();
  ASSERT_EQ(out.size(), 1000U);
  EXPECT_TRUE(std::ranges::is_sorted(out));
  EXPECT_EQ(scope.running(), 0U);
}

TEST(ChannelTest, CloseFailsAWaitingSender) {
  Driver driver;
  Scope scope(driver.reactor);
  Channel<int> channel(driver.reactor, 1);
  scope.spawn(produce(channel, 5));
  driver.run();
  EXPECT_EQ(scope.running(), 1U);
  channel.close();
  driver.run();
  EXPECT_EQ(scope.running(), 0U);
}

Task<void> wait_for_scope(Scope& scope, bool& done) {
  co_await scope.close();
  done = true;
}

TEST(ScopeTest, CloseWaitsForAll) {
  Driver driver;
  Scope outer(driver.reactor);
  Scope inner(driver.reactor);
  std::vector<int> log;
  bool done = false;
  inner.spawn(sleep_then_log(driver.reactor, milliseconds(5), 1, log));
  inner.spawn(sleep_then_log(driver.reactor, milliseconds(9), 2, log));
  outer.spawn(wait_for_scope(inner, done));
  driver.reactor.run_ready(100);
  EXPECT_FALSE(done);
  driver.run();
  EXPECT_TRUE(done);
  EXPECT_EQ(log.size(), 2U);
}

TEST(MailboxTest, ManyProducersOneConsumer) {
  struct Item {
    int producer;
    int number;
  };
  constexpr int kProducers = 3;
  constexpr int kEach = 20'000;
  Mailbox<Item> mailbox(16);
  std::vector<std::vector<Item>> items(kProducers);
  for (int p = 0; p < kProducers; ++p) {
    for (int i = 0; i < kEach; ++i) items[static_cast<size_t>(p)].push_back({p, i});
  }
  std::vector<std::thread> threads;
  for (auto& mine : items) {
    threads.emplace_back([&mailbox, &mine] {
      for (Item& item : mine) {
        while (!mailbox.try_push(item)) std::this_thread::yield();
      }
    });
  }
  std::array<int, kProducers> next{};
  for (int got = 0; got < kProducers * kEach;) {
    Item* const item = mailbox.try_pop();
    if (item == nullptr) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(item->number, next[static_cast<size_t>(item->producer)]++);
    ++got;
  }
  EXPECT_TRUE(mailbox.empty());
  for (std::thread& thread : threads) thread.join();
}

Task<std::thread::id> thread_of_call() { co_return std::this_thread::get_id(); }
Task<void> call_many(Reactor& from, Reactor& to, int count, std::thread::id expected, int& left) {
  const std::thread::id home = std::this_thread::get_id();
  for (int i = 0; i < count; ++i) {
    const std::thread::id seen = co_await call_on(from, to, thread_of_call());
    EXPECT_EQ(seen, expected);
    EXPECT_EQ(std::this_thread::get_id(), home);
  }
  --left;
}

TEST(CallTest, RunsThereAndComesBackThroughATinyMailbox) {
  Reactor here({.mailbox_capacity = 2});
  Reactor there({.mailbox_capacity = 2});
  Scope scope(here);
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    while (!stop.load()) {
      if (there.run_ready(64) == 0) std::this_thread::yield();
    }
  });
  int left = 8;
  for (int i = 0; i < 8; ++i) scope.spawn(call_many(here, there, 500, thread.get_id(), left));
  while (left > 0) {
    if (here.run_ready(64) == 0) std::this_thread::yield();
  }
  stop.store(true);
  thread.join();
}

TEST(ReadyOrderTest, ThePickerDecides) {
  struct Last : ReadyOrder {
    size_t pick(size_t count) override { return count - 1; }
  } last;
  Reactor reactor({.order = &last});
  Scope scope(reactor);
  std::vector<int> log;
  for (int i = 0; i < 5; ++i)
    scope.spawn([](int id, std::vector<int>& out) -> Task<void> {
      out.push_back(id);
      co_return;
    }(i, log));
  reactor.run_ready(100);
  EXPECT_EQ(log, (std::vector<int>{4, 3, 2, 1, 0}));
}

}  // namespace
}  // namespace fairlead
