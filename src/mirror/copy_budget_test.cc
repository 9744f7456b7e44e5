// Who may copy, and in which order, when volumes share a budget.
#include "mirror/copy_budget.h"

#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "async/scope.h"
#include "sim/world.h"

namespace fairlead::mirror {
namespace {

using Kind = CopyBudget::Kind;

class CopyBudgetTest : public testing::Test {
 protected:
  // One that copies until it is told, by its name, to end.
  Task<void> copy(CopyBudget::Share& share, Kind kind, char name) {
    const std::optional<CopyBudget::Place> place = co_await share.take(kind, ending);
    if (!place) co_return;
    begun += name;
    while (ended.find(name) == std::string::npos) co_await changed.wait();
  }
  Task<void> settle() {
    for (int turn = 0; turn < 10; ++turn) co_await yield(reactor());
  }
  Task<void> end(char name) {
    ended += name;
    changed.release_waiters();
    return settle();
  }
  template <typename Body>
  void run(Body body) {
    bool is_done = false;
    world.spawn(node, 0, tell(body, is_done));
    ASSERT_EQ(world.run_until([&] { return is_done; }, std::chrono::seconds(60)), sim::RunResult::kDone);
  }
  template <typename Body>
  Task<void> tell(Body body, bool& is_done) {
    co_await body(*this);
    is_done = true;
  }
  Reactor& reactor() { return node.shard(0).reactor; }

 public:
  sim::SimWorld world{1, sim::SimSettings::calm()};
  sim::SimNode& node = world.add_node("10.0.0.1", {.shards = 1, .more_addresses = {}});
  Event changed{node.shard(0).reactor};
  CancelSource ending;
  std::string begun;
  std::string ended;

  // `a` and `b` are of one volume, and so on.
  Task<void> is_fair() {
    CopyBudget budget(reactor(), 2);
    CopyBudget::Share one(budget);
    CopyBudget::Share two(budget);
    Scope copying(reactor());
    for (const char name : {'a', 'b', 'c', 'd'}) copying.spawn(copy(one, Kind::kReturn, name));
    for (const char name : {'x', 'y'}) copying.spawn(copy(two, Kind::kReturn, name));
    co_await settle();
    EXPECT_EQ(begun, "ab");
    co_await end('a');
    EXPECT_EQ(begun, "abx") << "the other volume has none under way";
    co_await end('x');
    EXPECT_EQ(begun, "abxy") << "one has one under way";
    co_await end('b');
    EXPECT_EQ(begun, "abxyc");
    EXPECT_EQ(budget.under_way(), 2U);
    for (const char name : {'y', 'c', 'd'}) co_await end(name);
    EXPECT_EQ(begun, "abxycd");
    co_await copying.close();
    EXPECT_EQ(budget.under_way(), 0U);
  }
  Task<void> levels_first() {
    CopyBudget budget(reactor(), 2);
    CopyBudget::Share one(budget);
    CopyBudget::Share two(budget);
    CopyBudget::Share three(budget);
    Scope copying(reactor());
    for (const char name : {'a', 'b', 'c'}) copying.spawn(copy(one, Kind::kReturn, name));
    for (const char name : {'l', 'm', 'n'}) copying.spawn(copy(two, Kind::kLevel, name));
    co_await settle();
    EXPECT_EQ(begun, "ablm") << "returns do not hold it back";
    co_await end('a');
    EXPECT_EQ(begun, "ablm") << "it holds back returns";
    copying.spawn(copy(three, Kind::kLevel, 'v'));
    two.set_hurry(true);
    co_await settle();
    co_await end('l');
    EXPECT_EQ(begun, "ablmn") << "a host waits for it, though its volume has more under way";
    two.set_hurry(false);
    co_await end('m');
    EXPECT_EQ(begun, "ablmnv");
    co_await end('n');
    co_await end('b');
    EXPECT_EQ(begun, "ablmnvc");
    co_await end('v');
    co_await end('c');
    co_await copying.close();
  }
  Task<void> gives_up() {
    CopyBudget budget(reactor(), 1);
    CopyBudget::Share one(budget);
    Scope copying(reactor());
    for (const char name : {'a', 'b'}) copying.spawn(copy(one, Kind::kReturn, name));
    co_await settle();
    ending.cancel();
    co_await settle();
    copying.spawn(copy(one, Kind::kReturn, 'c'));
    co_await end('a');
    co_await copying.close();
    EXPECT_EQ(begun, "a");
    EXPECT_EQ(budget.under_way(), 0U);
  }
};

TEST_F(CopyBudgetTest, TheVolumeWithTheLeastUnderWayIsNext) {
  run([](CopyBudgetTest& test) { return test.is_fair(); });
}
TEST_F(CopyBudgetTest, WhatHostsWaitForGoesBeforeReturns) {
  run([](CopyBudgetTest& test) { return test.levels_first(); });
}
TEST_F(CopyBudgetTest, WhoIsToEndWaitsNoLonger) {
  run([](CopyBudgetTest& test) { return test.gives_up(); });
}

}  // namespace
}  // namespace fairlead::mirror
