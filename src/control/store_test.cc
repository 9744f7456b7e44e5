// What every Store promises, held against each of them.
#include "control/store.h"

#include <map>
#include <set>

#include "async/scope.h"
#include "base/xoshiro.h"
#include "tests/support/store_bed.h"

namespace fairlead::control {
namespace {

enum class Kind : uint8_t { kMemory, kSqlite, kEtcd };

class StoreTest : public testing::TestWithParam<Kind> {
 protected:
  static void TearDownTestSuite() { etcd_.reset(); }
  void SetUp() override {
    if (GetParam() == Kind::kMemory) bed_ = std::make_unique<MemoryBed>();
    if (GetParam() == Kind::kSqlite) bed_ = std::make_unique<SqliteBed>();
    if (GetParam() == Kind::kEtcd) set_up_etcd();
  }
  void run(StoreBed::Test test) { bed_->run(test); }

 private:
  void set_up_etcd() {
    if (!test::EtcdServer::is_installed()) GTEST_SKIP() << "etcd is not installed (Debian: etcd-server)";
    if (!etcd_) {
      auto server = test::EtcdServer::start();
      ASSERT_TRUE(server.has_value()) << to_string(server.error());
      etcd_ = std::move(*server);
    }
    std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '-');
    bed_ = std::make_unique<EtcdBed>(EtcdClientOptions{.endpoints = {etcd_->url()}}, name);
  }
  std::unique_ptr<StoreBed> bed_;
  static inline std::unique_ptr<test::EtcdServer> etcd_;
};
std::string kind_name(const testing::TestParamInfo<Kind>& kind) {
  return std::array{"Memory", "Sqlite", "Etcd"}[static_cast<size_t>(kind.param)];
}
INSTANTIATE_TEST_SUITE_P(Kinds, StoreTest, testing::Values(Kind::kMemory, Kind::kSqlite, Kind::kEtcd), kind_name);

Write put(std::string key, std::string value, std::optional<uint64_t> expected = std::nullopt) {
  return {.key = std::move(key), .value = std::move(value), .expected = expected};
}
Write remove(std::string key, std::optional<uint64_t> expected = std::nullopt) {
  return {.key = std::move(key), .value = std::nullopt, .expected = expected};
}
std::vector<Write> all_of(Write a) {
  std::vector<Write> writes;
  writes.push_back(std::move(a));
  return writes;
}
std::vector<Write> all_of(Write a, Write b) {
  std::vector<Write> writes = all_of(std::move(a));
  writes.push_back(std::move(b));
  return writes;
}

TEST_P(StoreTest, ListsWhatBeginsSoInOrder) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    EXPECT_EQ(co_await bed.content(*store), "");
    for (const char* key : {"volume/b", "volume/a", "node/x", "volumes", "volume/a/1", "volume", "volume0"}) {
      co_await bed.put(*store, key, "1");
    }
    EXPECT_EQ(co_await bed.content(*store, "volume/"), "volume/a=1 volume/a/1=1 volume/b=1");
    EXPECT_EQ(co_await bed.content(*store, "node/"), "node/x=1");
    EXPECT_EQ(co_await bed.content(*store, "nothing"), "");
    EXPECT_EQ(co_await bed.content(*store), "node/x=1 volume=1 volume/a=1 volume/a/1=1 volume/b=1 volume0=1 volumes=1");
    co_await store->stop();
  });
}

TEST_P(StoreTest, ExpectationsDecide) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    // Not there.
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("k", "1", 7))), Code::kMiscompare);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(remove("k", 7))), Code::kMiscompare);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("k", "1", 0))), std::nullopt);
    // There.
    const auto made = co_await bed.list(*store, "k");
    CO_ASSERT_TRUE(made.size() == 1);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("k", "2", 0))), Code::kMiscompare);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("k", "2", made[0].revision + 1))), Code::kMiscompare);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("k", "2", made[0].revision))), std::nullopt);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("k", "3", made[0].revision))), Code::kMiscompare);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("k", "3"))), std::nullopt);
    EXPECT_EQ(co_await bed.content(*store), "k=3");
    // Gone, and made again: it is another one.
    const auto third = co_await bed.list(*store, "k");
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(remove("k", third[0].revision))), std::nullopt);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("k", "4", third[0].revision))), Code::kMiscompare);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(remove("k"))), std::nullopt);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(remove("k", 0))), std::nullopt);
    EXPECT_EQ(co_await bed.content(*store), "");
    EXPECT_TRUE(store->leads());
    co_await store->stop();
  });
}

TEST_P(StoreTest, AMiscompareNamesTheKey) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    co_await bed.put(*store, "volume/db", "1");
    const auto refused = co_await store->commit(all_of(put("node/x", "1", 0), put("volume/db", "2", 0)));
    CO_ASSERT_TRUE(!refused.has_value());
    EXPECT_NE(to_string(refused.error()).find("volume/db"), std::string::npos) << to_string(refused.error());
    co_await store->stop();
  });
}

TEST_P(StoreTest, AllOrNothing) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    co_await bed.put(*store, "there", "1");
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("a", "1"), put("there", "2", 0))), Code::kMiscompare);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(remove("there"), put("b", "1", 5))), Code::kMiscompare);
    EXPECT_EQ(co_await bed.content(*store), "there=1");
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(remove("there"), put("b", "1", 0))), std::nullopt);
    EXPECT_EQ(co_await bed.content(*store), "b=1");
    co_await store->stop();
  });
}

Task<void> commit_and_tell(Store& store, std::vector<Write> writes, std::optional<Outcome<uint64_t>>& result) {
  result = co_await store.commit(std::move(writes));
}

// However many come at once, each is decided as if it came alone.
TEST_P(StoreTest, ChangesAtOnceAreEachForItself) {
  run([](StoreBed& bed) -> Task<void> {
    constexpr size_t kCount = 30;
    auto store = co_await bed.make_leader("a");
    std::vector<std::optional<Outcome<uint64_t>>> own(kCount);
    std::vector<std::optional<Outcome<uint64_t>>> common(kCount);
    Scope scope(bed.reactor());
    for (size_t i = 0; i < kCount; ++i) {
      const std::string number = std::to_string(i);
      scope.spawn(commit_and_tell(*store, all_of(put("own/" + number, number, 0)), own[i]));
      // Only one of these can be the first. What it would have written beside goes with it.
      scope.spawn(commit_and_tell(*store, all_of(put("beside/" + number, "1"), put("common", number, 0)), common[i]));
    }
    co_await scope.close();
    std::set<uint64_t> revisions;
    std::vector<size_t> winners;
    for (size_t i = 0; i < kCount; ++i) {
      CO_ASSERT_TRUE(own[i]->has_value());
      revisions.insert(**own[i]);
      if (common[i]->has_value()) {
        winners.push_back(i);
        revisions.insert(**common[i]);
      } else {
        EXPECT_EQ(common[i]->error().error.code, Code::kMiscompare);
      }
    }
    EXPECT_EQ(revisions.size(), kCount + 1);
    CO_ASSERT_TRUE(winners.size() == 1);
    const std::string winner = std::to_string(winners[0]);
    EXPECT_EQ(co_await bed.content(*store, "common"), "common=" + winner);
    EXPECT_EQ(co_await bed.content(*store, "beside/"), "beside/" + winner + "=1");
    const auto entries = co_await bed.list(*store, "own/");
    EXPECT_EQ(entries.size(), kCount);
    for (const Entry& entry : entries) EXPECT_EQ(entry.revision, **own[std::stoul(entry.value)]);
    co_await store->stop();
  });
}

TEST_P(StoreTest, RevisionsRise) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    const auto first = co_await store->commit(all_of(put("a", "1"), put("b", "1")));
    CO_ASSERT_TRUE(first.has_value() && *first > 0);
    const uint64_t second = co_await bed.put(*store, "b", "1");  // the same value: still a commit
    EXPECT_GT(second, *first);
    const auto entries = co_await bed.list(*store, "");
    CO_ASSERT_TRUE(entries.size() == 2);
    EXPECT_EQ(entries[0], (Entry{.key = "a", .value = "1", .revision = *first}));
    EXPECT_EQ(entries[1], (Entry{.key = "b", .value = "1", .revision = second}));
    co_await store->stop();
    // Over lives, too.
    store = co_await bed.make_leader("a");
    EXPECT_GT(co_await bed.put(*store, "c", "1"), second);
    co_await store->stop();
  });
}

TEST_P(StoreTest, KeepsAnyBytesAndTheLargestTransaction) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    const std::string strange("\0 \xff\x80 \"\\\n\xc3\xa4", 10);
    co_await bed.put(*store, "strange", strange);
    co_await bed.put(*store, "empty", "");
    const auto entries = co_await bed.list(*store, "");
    CO_ASSERT_TRUE(entries.size() == 2);
    EXPECT_EQ(entries[0].value, "");
    EXPECT_EQ(entries[1].value, strange);

    const std::string key(kKeyBytesMax, 'k');
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put(key, std::string(kValueBytesMax, 'v')))), std::nullopt);
    const auto large = co_await bed.list(*store, key);
    EXPECT_TRUE(large.size() == 1 && large[0].value == std::string(kValueBytesMax, 'v'));
    std::vector<Write> many;
    for (size_t i = 0; i < kWritesMax; ++i) {
      const std::string name = "many/" + std::to_string(100 + i);
      many.push_back(put(name, std::string(kTransactionBytesMax / kWritesMax - name.size(), 'w'), 0));
    }
    EXPECT_EQ(co_await bed.code_of_commit(*store, many), std::nullopt);
    EXPECT_EQ((co_await bed.list(*store, "many/")).size(), kWritesMax);
    co_await store->stop();
  });
}

TEST_P(StoreTest, ListsMoreThanAPage) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    for (int i = 0; i < 20; ++i) {
      std::vector<Write> writes;
      for (int j = 0; j < 60; ++j) writes.push_back(put("k/" + std::to_string(1000 + i * 60 + j), std::to_string(i)));
      EXPECT_EQ(co_await bed.code_of_commit(*store, std::move(writes)), std::nullopt);
    }
    const auto entries = co_await bed.list(*store, "k/");
    CO_ASSERT_TRUE(entries.size() == 1200);
    for (size_t i = 0; i < entries.size(); ++i) EXPECT_EQ(entries[i].key, "k/" + std::to_string(1000 + i));
    co_await store->stop();
  });
}

TEST_P(StoreTest, RefusesWhatNoStoreKeeps) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    EXPECT_EQ(co_await bed.code_of_commit(*store, {}), Code::kInvalidArgument);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("a", "1"), remove("a"))), Code::kInvalidArgument);
    EXPECT_EQ(co_await bed.code_of_commit(*store, all_of(put("", "1"))), Code::kInvalidArgument);
    EXPECT_TRUE(store->leads());
    EXPECT_EQ(co_await bed.content(*store), "");
    co_await store->stop();
  });
}

TEST_P(StoreTest, EachLeaderHasAHigherNumber) {
  run([](StoreBed& bed) -> Task<void> {
    Leadership last;
    for (int i = 0; i < 4; ++i) {
      Leadership leadership;
      auto store = co_await bed.make_leader("a", &leadership);
      EXPECT_GT(leadership.number, last.number);
      EXPECT_EQ(leadership.epoch, kNow);
      EXPECT_EQ(leadership.number >> 32, kNow);
      last = leadership;
      co_await store->stop();
      EXPECT_FALSE(store->leads());
      EXPECT_TRUE(store->lost().is_set());
    }
    EXPECT_EQ(last.number & 0xffffffff, 4U);
  });
}

TEST_P(StoreTest, StandsByUntilTheLeaderStops) {
  run([](StoreBed& bed) -> Task<void> {
    auto first = co_await bed.make_leader("a");
    auto second = co_await bed.make("b");
    Scope scope(bed.reactor());
    std::optional<Outcome<Leadership>> result;
    scope.spawn(bed.lead_and_tell(*second, result));
    // Longer than a lease that nobody keeps.
    (void)co_await sleep(bed.reactor(), seconds(4));
    EXPECT_FALSE(result.has_value());
    EXPECT_TRUE(first->leads());
    EXPECT_FALSE(second->leads());
    EXPECT_EQ(co_await second->leader_address(), "a");
    co_await bed.put(*first, "k", "1");
    EXPECT_EQ(co_await bed.content(*second), "k=1");
    EXPECT_EQ(co_await bed.code_of_commit(*second, all_of(put("k", "2"))), Code::kFenced);

    const Instant before = bed.reactor().now();
    co_await first->stop();
    co_await scope.close();
    EXPECT_LT(bed.reactor().now() - before, seconds(60));
    CO_ASSERT_TRUE(result.has_value() && result->has_value());
    EXPECT_TRUE(second->leads());
    EXPECT_EQ(co_await second->leader_address(), "b");
    EXPECT_NE(co_await bed.put(*second, "k", "2"), 0U);
    co_await second->stop();
  });
}

TEST_P(StoreTest, NobodyLeadsAfterTheLastStop) {
  run([](StoreBed& bed) -> Task<void> {
    auto first = co_await bed.make_leader("a");
    auto second = co_await bed.make("b");
    co_await first->stop();
    EXPECT_EQ(co_await second->leader_address(), "");
    co_await second->stop();
  });
}

TEST_P(StoreTest, AnOldLeaderChangesNothing) {
  run([](StoreBed& bed) -> Task<void> {
    Leadership before;
    Leadership after;
    auto first = co_await bed.make_leader("a", &before);
    co_await bed.put(*first, "k", "1");
    bed.depose();
    EXPECT_EQ(co_await bed.code_of_commit(*first, all_of(put("k", "2"), put("l", "2"))), Code::kFenced);
    EXPECT_FALSE(first->leads());
    co_await first->lost().wait();
    EXPECT_EQ(co_await bed.code_of_commit(*first, all_of(put("k", "2"))), Code::kFenced);
    EXPECT_EQ(co_await bed.content(*first), "k=1");

    auto second = co_await bed.make_leader("b", &after);
    EXPECT_GT(after.number, before.number);
    co_await bed.put(*second, "k", "3");
    EXPECT_EQ(co_await bed.code_of_commit(*first, all_of(put("k", "2"))), Code::kFenced);
    EXPECT_EQ(co_await bed.content(*first), "k=3");
    co_await second->stop();

    // And may lead again.
    const Outcome<Leadership> again = co_await first->lead();
    CO_ASSERT_TRUE(again.has_value());
    EXPECT_GT(again->number, after.number);
    EXPECT_FALSE(first->lost().is_set());
    EXPECT_NE(co_await bed.put(*first, "k", "4"), 0U);
    co_await first->stop();
  });
}

Task<void> lead_and_write(StoreBed& bed, std::string address, std::vector<uint64_t>& numbers) {
  for (int i = 0; i < 5; ++i) {
    Leadership leadership;
    auto store = co_await bed.make_leader(address, &leadership);
    // Only one is here at a time, so that this list is in the order of their reigns.
    numbers.push_back(leadership.number);
    EXPECT_NE(co_await bed.put(*store, "leader", std::to_string(leadership.number)), 0U);
    EXPECT_EQ(co_await bed.content(*store, "leader"), "leader=" + std::to_string(leadership.number));
    co_await store->stop();
  }
}

TEST_P(StoreTest, RivalsLeadOneAfterTheOther) {
  run([](StoreBed& bed) -> Task<void> {
    std::vector<uint64_t> numbers;
    Scope scope(bed.reactor());
    for (const char* address : {"a", "b", "c"}) scope.spawn(lead_and_write(bed, address, numbers));
    co_await scope.close();
    CO_ASSERT_TRUE(numbers.size() == 15);
    for (size_t i = 1; i < numbers.size(); ++i) EXPECT_GT(numbers[i], numbers[i - 1]);
  });
}

TEST_P(StoreTest, StopEndsWhatIsUnderWay) {
  run([](StoreBed& bed) -> Task<void> {
    auto first = co_await bed.make_leader("a");
    auto second = co_await bed.make("b");
    Scope scope(bed.reactor());
    std::optional<Outcome<Leadership>> result;
    scope.spawn(bed.lead_and_tell(*second, result));
    (void)co_await sleep(bed.reactor(), milliseconds(50));
    co_await second->stop();
    co_await scope.close();
    CO_ASSERT_TRUE(result.has_value() && !result->has_value());
    EXPECT_EQ(result->error().error.code, Code::kShuttingDown);
    const auto listed = co_await second->list("");
    EXPECT_TRUE(!listed && listed.error().error.code == Code::kShuttingDown);
    EXPECT_EQ(co_await bed.code_of_commit(*second, all_of(put("k", "1"))), Code::kShuttingDown);
    co_await second->stop();
    EXPECT_TRUE(first->leads());
    co_await first->stop();
  });
}

// ---- A random sequence against the plainest of models.

struct Model {
  std::map<std::string, std::pair<std::string, uint64_t>> entries;

  bool allows(const std::vector<Write>& writes) const {
    for (const Write& write : writes) {
      const auto at = entries.find(write.key);
      if (write.expected && *write.expected != (at == entries.end() ? 0 : at->second.second)) return false;
    }
    return true;
  }
  void apply(const std::vector<Write>& writes, uint64_t revision) {
    for (const Write& write : writes) {
      if (write.value) {
        entries[write.key] = {*write.value, revision};
      } else {
        entries.erase(write.key);
      }
    }
  }
};

std::vector<Write> draw_writes(Xoshiro& random, const Model& model) {
  std::map<std::string, Write> writes;
  const uint64_t count = 1 + random.next() % 4;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = "kind" + std::to_string(random.next() % 3) + "/" + std::to_string(random.next() % 5);
    Write write = random.next() % 3 == 0 ? remove(key) : put(key, std::to_string(random.next()));
    const auto at = model.entries.find(key);
    const uint64_t revision = at == model.entries.end() ? 0 : at->second.second;
    const uint64_t choice = random.next() % 10;
    if (choice < 6) write.expected = revision;
    if (choice == 6) write.expected = revision + 1;
    writes[key] = std::move(write);
  }
  std::vector<Write> list;
  for (auto& [key, write] : writes) list.push_back(std::move(write));
  return list;
}

Task<void> compare(Store& store, const Model& model, std::string prefix) {
  std::vector<Entry> expected;
  for (const auto& [key, value] : model.entries) {
    if (key.starts_with(prefix)) expected.push_back({.key = key, .value = value.first, .revision = value.second});
  }
  EXPECT_EQ(co_await StoreBed::list(store, prefix), expected) << prefix;
}

TEST_P(StoreTest, AgreesWithAMap) {
  run([](StoreBed& bed) -> Task<void> {
    const uint64_t seed = draw_seed();
    SCOPED_TRACE(testing::Message() << "repeat with FAIRLEAD_TEST_SEED=" << seed);
    Xoshiro random(seed);
    Model model;
    uint64_t last = 0;
    auto store = co_await bed.make_leader("a");
    for (int round = 0; round < 300 && !testing::Test::HasFailure(); ++round) {
      const std::vector<Write> writes = draw_writes(random, model);
      const Outcome<uint64_t> revision = co_await store->commit(writes);
      EXPECT_EQ(revision.has_value(), model.allows(writes));
      if (revision) {
        EXPECT_GE(*revision, last);
        last = *revision;
        model.apply(writes, *revision);
      } else {
        EXPECT_EQ(revision.error().error.code, Code::kMiscompare);
      }
      if (round % 10 == 0) co_await compare(*store, model, "kind" + std::to_string(random.next() % 3) + "/");
      if (round % 100 != 99) continue;
      co_await store->stop();
      store = co_await bed.make_leader("a");
      co_await compare(*store, model, "");
    }
    co_await store->stop();
  });
}

// ---- What needs no store.

TEST(StoreCheckTest, KnowsTheLimits) {
  const auto code = [](const std::vector<Write>& writes) -> std::optional<Code> {
    const Outcome<void> checked = check(writes);
    return checked ? std::nullopt : std::optional(checked.error().error.code);
  };
  std::vector<Write> most;
  for (size_t i = 0; i < kWritesMax; ++i) most.push_back(put(std::to_string(i), "v"));
  EXPECT_EQ(code(most), std::nullopt);
  most.push_back(put("one more", "v"));
  EXPECT_EQ(code(most), Code::kInvalidArgument);
  EXPECT_EQ(code({}), Code::kInvalidArgument);
  EXPECT_EQ(code(all_of(put(std::string(kKeyBytesMax, 'k'), "v"))), std::nullopt);
  EXPECT_EQ(code(all_of(put(std::string(kKeyBytesMax + 1, 'k'), "v"))), Code::kInvalidArgument);
  EXPECT_EQ(code(all_of(put("", "v"))), Code::kInvalidArgument);
  EXPECT_EQ(code(all_of(put("k", std::string(kValueBytesMax, 'v')))), std::nullopt);
  EXPECT_EQ(code(all_of(put("k", std::string(kValueBytesMax + 1, 'v')))), Code::kInvalidArgument);
  EXPECT_EQ(code(all_of(put("k", "v"), remove("k"))), Code::kInvalidArgument);

  std::vector<Write> heavy;
  for (size_t i = 0; i < 4; ++i) heavy.push_back(put(std::to_string(i), std::string(kValueBytesMax - 1, 'v')));
  EXPECT_EQ(code(heavy), std::nullopt);
  heavy.push_back(put("5", ""));
  EXPECT_EQ(code(heavy), Code::kInvalidArgument);
}

TEST(StorePrefixTest, EndsBehindAllThatBeginSo) {
  EXPECT_EQ(end_of_prefix("volume/"), "volume0");
  EXPECT_EQ(end_of_prefix("a\xff"), "b");
  EXPECT_EQ(end_of_prefix("\x7f"), "\x80");
  EXPECT_EQ(end_of_prefix("\xff\xff"), "");
  EXPECT_EQ(end_of_prefix(""), "");
}

}  // namespace
}  // namespace fairlead::control
