// For the tests of stores: each kind of store in the world it needs, behind one face. A bed has one store's content;
// the stores made in it are clients of that, as in as many processes.
#pragma once

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <memory>
#include <random>
#include <sqlite3.h>
#include <string>
#include <utility>
#include <vector>

#include "async/cancel.h"
#include "control/etcd_store.h"
#include "control/sqlite_store.h"
#include "control/store.h"
#include "io/runtime.h"
#include "sim/world.h"
#include "tests/support/etcd_server.h"
#include "tests/support/memory_store.h"

// As ASSERT_TRUE, in a coroutine that returns nothing.
#define CO_ASSERT_TRUE(...)                    \
  if (const bool fl_ok{__VA_ARGS__}; !fl_ok) { \
    ADD_FAILURE() << #__VA_ARGS__;             \
    co_return;                                 \
  }

namespace fairlead::control {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Tests use EtcdClient on threads that are no worker's.
[[maybe_unused]] inline const auto kNoBrokenPipes = std::signal(SIGPIPE, SIG_IGN);

inline constexpr uint32_t kNow = 1'790'000'000;

// Another one for each run; FAIRLEAD_TEST_SEED repeats one.
inline uint64_t draw_seed() {
  const char* const text = std::getenv("FAIRLEAD_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : std::random_device{}();
}

class TestFolder {
 public:
  TestFolder() {
    path_ = (std::filesystem::temp_directory_path() / "fairlead-store-XXXXXX").string();
    FL_CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Runs SQL on a file, as a person with the sqlite3 program would.
inline void run_sql(const std::string& path, const std::string& sql) {
  sqlite3* handle = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &handle), SQLITE_OK);
  sqlite3_busy_timeout(handle, 5000);
  EXPECT_EQ(sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(handle);
  sqlite3_close(handle);
}

class StoreBed {
 public:
  using Test = Task<void> (*)(StoreBed&);

  virtual ~StoreBed() = default;
  // Runs the test on shard(), to its end.
  virtual void run(Test test) = 0;
  virtual Shard& shard() = 0;
  Reactor& reactor() { return shard().reactor; }
  // The address is "a" to "z". None, and a failure, when it cannot be made.
  virtual Task<std::unique_ptr<Store>> make(std::string address) = 0;
  // Takes leadership from the leader behind its back.
  virtual void depose() = 0;

  // ---- What the tests ask for in a line.
  Task<std::unique_ptr<Store>> make_leader(std::string address, Leadership* leadership = nullptr) {
    std::unique_ptr<Store> store = co_await make(std::move(address));
    const Outcome<Leadership> led = co_await store->lead();
    EXPECT_TRUE(led.has_value()) << (led ? "" : to_string(led.error()));
    EXPECT_TRUE(store->leads());
    if (led && leadership != nullptr) *leadership = *led;
    co_return store;
  }
  // 0, and a failure, when it is not done.
  static Task<uint64_t> put(Store& store, std::string key, std::string value) {
    std::vector<Write> writes;
    writes.push_back({.key = std::move(key), .value = std::move(value)});
    const Outcome<uint64_t> revision = co_await store.commit(std::move(writes));
    EXPECT_TRUE(revision.has_value()) << (revision ? "" : to_string(revision.error()));
    co_return revision.value_or(0);
  }
  // None: it was done.
  static Task<std::optional<Code>> code_of_commit(Store& store, std::vector<Write> writes) {
    const Outcome<uint64_t> revision = co_await store.commit(std::move(writes));
    if (revision) co_return std::nullopt;
    co_return revision.error().error.code;
  }
  static Task<std::vector<Entry>> list(Store& store, std::string prefix) {
    const Outcome<std::vector<Entry>> entries = co_await store.list(std::move(prefix));
    EXPECT_TRUE(entries.has_value()) << (entries ? "" : to_string(entries.error()));
    co_return entries.value_or(std::vector<Entry>());
  }
  // "key=value key=value"
  static Task<std::string> content(Store& store, std::string prefix = "") {
    std::string text;
    for (const Entry& entry : co_await list(store, std::move(prefix))) {
      text += (text.empty() ? "" : " ") + entry.key + "=" + entry.value;
    }
    co_return text;
  }
  static Task<void> lead_and_tell(Store& store, std::optional<Outcome<Leadership>>& result) {
    result = co_await store.lead();
  }
};

class MemoryBed final : public StoreBed {
 public:
  MemoryBed() : world_(1, sim::SimSettings::calm()), node_(world_.add_node("10.0.0.1")), state_(world_, kNow) {}

  void run(Test test) override {
    bool is_done = false;
    world_.spawn(node_, 0, live(test, is_done));
    ASSERT_EQ(world_.run_until([&] { return is_done; }, seconds(3600)), sim::RunResult::kDone) << world_.report();
  }
  Shard& shard() override { return node_.shard(0); }
  Task<std::unique_ptr<Store>> make(std::string address) override { co_return make_memory(std::move(address)); }
  std::unique_ptr<test::MemoryStore> make_memory(std::string address) {
    return std::make_unique<test::MemoryStore>(shard(), state_, std::move(address));
  }
  void depose() override { state_.depose(); }
  test::MemoryStoreState& state() { return state_; }

 private:
  Task<void> live(Test test, bool& is_done) {
    co_await test(*this);
    is_done = true;
  }
  sim::SimWorld world_;
  sim::SimNode& node_;
  test::MemoryStoreState state_;
};

// A shard of real time.
class RuntimeBed : public StoreBed {
 public:
  RuntimeBed() : runtime_({}) { FL_CHECK(runtime_.start().has_value()); }
  void run(Test test) override { runtime_.run_on(0, test(*this)); }
  Shard& shard() override { return runtime_.shard(0); }

 private:
  Runtime runtime_;
};

class SqliteBed final : public RuntimeBed {
 public:
  const std::string& path() const { return path_; }
  Task<Outcome<std::unique_ptr<SqliteStore>>> open(std::string path, std::string address = "a") {
    co_return co_await SqliteStore::open(
        shard(),
        {.path = std::move(path), .address = std::move(address), .now_seconds = kNow, .poll = milliseconds(10)});
  }
  Task<std::unique_ptr<Store>> make(std::string address) override {
    Outcome<std::unique_ptr<SqliteStore>> store = co_await open(path_, std::move(address));
    EXPECT_TRUE(store.has_value()) << (store ? "" : to_string(store.error()));
    co_return store ? std::move(*store) : nullptr;
  }
  void depose() override { run_sql(path_, "UPDATE meta SET leaders = leaders + 1"); }

 private:
  TestFolder folder_;
  const std::string path_ = folder_.file("store.db");
};

// Beds of one etcd have nothing in common but that: each has a prefix of its own.
class EtcdBed final : public RuntimeBed {
 public:
  EtcdBed(EtcdClientOptions client, const std::string& name) : client_(std::move(client)), prefix_("/" + name + "/") {}

  EtcdStoreOptions options(std::string address) const {
    return {.client = client_,
            .prefix = prefix_,
            .address = std::move(address),
            .now_seconds = kNow,
            .poll = milliseconds(20)};
  }
  Task<std::unique_ptr<Store>> make(std::string address) override {
    Outcome<std::unique_ptr<EtcdStore>> store = EtcdStore::make(shard(), options(std::move(address)));
    EXPECT_TRUE(store.has_value()) << (store ? "" : to_string(store.error()));
    co_return store ? std::move(*store) : nullptr;
  }
  void depose() override {
    const auto client = EtcdClient::make(client_);
    ASSERT_TRUE(client.has_value());
    const Outcome<EtcdRangeAnswer> leader = (*client)->range({.key = prefix_ + "meta/leader"});
    ASSERT_TRUE(leader.has_value() && leader->entries.size() == 1);
    EXPECT_TRUE((*client)->revoke(leader->entries[0].lease).has_value());
  }

 private:
  const EtcdClientOptions client_;
  const std::string prefix_;
};

}  // namespace fairlead::control
