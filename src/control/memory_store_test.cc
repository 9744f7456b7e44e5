// The faults of the store for simulated worlds: what tests of the control plane lean on.
#include "async/scope.h"
#include "tests/support/store_bed.h"

namespace fairlead::control {
namespace {

using test::StoreCut;

std::vector<Write> one(std::string key, std::string value) {
  std::vector<Write> writes;
  writes.push_back({.key = std::move(key), .value = std::move(value)});
  return writes;
}

MemoryBed& memory(StoreBed& bed) { return static_cast<MemoryBed&>(bed); }

TEST(MemoryStoreTest, LosesRequestsOrReplies) {
  MemoryBed().run([](StoreBed& bed) -> Task<void> {
    test::MemoryStoreState& state = memory(bed).state();
    auto store = co_await bed.make_leader("a");
    state.set_cut(StoreCut::kRequests);
    EXPECT_EQ(co_await bed.code_of_commit(*store, one("k", "1")), Code::kTimedOut);
    EXPECT_TRUE(state.entries().empty());
    state.set_cut(StoreCut::kReplies);
    EXPECT_EQ(co_await bed.code_of_commit(*store, one("k", "2")), Code::kTimedOut);
    EXPECT_EQ(state.entries().at("k").value, "2");
    state.set_cut(StoreCut::kNothing);
    EXPECT_EQ(co_await bed.content(*store), "k=2");
    co_await store->stop();
  });
}

TEST(MemoryStoreTest, FailsAsManyCommitsAsAskedFor) {
  MemoryBed().run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    memory(bed).state().fail_commits(2);
    EXPECT_EQ(co_await bed.code_of_commit(*store, one("k", "1")), Code::kIo);
    EXPECT_EQ(co_await bed.code_of_commit(*store, one("k", "1")), Code::kIo);
    EXPECT_EQ(co_await bed.content(*store), "");
    EXPECT_EQ(co_await bed.code_of_commit(*store, one("k", "1")), std::nullopt);
    co_await store->stop();
  });
}

// The one that was cut off knows before another leads.
TEST(MemoryStoreTest, ALeaderThatIsCutOffStopsInTime) {
  MemoryBed().run([](StoreBed& bed) -> Task<void> {
    auto first = memory(bed).make_memory("a");
    auto second = memory(bed).make_memory("b");
    EXPECT_TRUE((co_await first->lead()).has_value());
    (void)co_await sleep(bed.reactor(), seconds(10));
    EXPECT_TRUE(first->leads());
    first->set_cut(StoreCut::kReplies);
    Scope scope(bed.reactor());
    std::optional<Outcome<Leadership>> result;
    scope.spawn(bed.lead_and_tell(*second, result));
    co_await first->lost().wait();
    EXPECT_FALSE(first->leads());
    EXPECT_FALSE(result.has_value());
    first->set_cut(StoreCut::kRequests);  // or its own keep-alives hold the lease for ever
    co_await scope.close();
    EXPECT_TRUE(result.has_value() && result->has_value());
    EXPECT_EQ(co_await second->leader_address(), "b");
    co_await first->stop();
    EXPECT_TRUE(second->leads());
    co_await second->stop();
  });
}

TEST(MemoryStoreTest, AKilledLeadersLeaseRunsOut) {
  MemoryBed().run([](StoreBed& bed) -> Task<void> {
    auto first = memory(bed).make_memory("a");
    EXPECT_TRUE((co_await first->lead()).has_value());
    first->kill();
    co_await first->stop();
    EXPECT_TRUE(memory(bed).state().is_led());
    const Instant before = bed.reactor().now();
    auto second = co_await bed.make_leader("b");
    EXPECT_GT(bed.reactor().now() - before, seconds(2));
    EXPECT_LT(bed.reactor().now() - before, seconds(5));
    co_await second->stop();
  });
}

TEST(MemoryStoreTest, ARebuiltStoreIsEmptyAndOfAnotherEpoch) {
  MemoryBed().run([](StoreBed& bed) -> Task<void> {
    Leadership before;
    Leadership after;
    auto store = co_await bed.make_leader("a", &before);
    EXPECT_NE(co_await bed.put(*store, "k", "1"), 0U);
    memory(bed).state().rebuild(kNow + 5);
    EXPECT_EQ(co_await bed.code_of_commit(*store, one("k", "2")), Code::kFenced);
    co_await store->stop();
    store = co_await bed.make_leader("a", &after);
    EXPECT_EQ(after.epoch, kNow + 5);
    EXPECT_GT(after.number, before.number);
    EXPECT_EQ(co_await bed.content(*store), "");
    co_await store->stop();
  });
}

}  // namespace
}  // namespace fairlead::control
