// What only the store in a file can suffer: kills, torn ends, other files in its place, folders it may not write to.
#include "control/sqlite_store.h"

#include <csignal>
#include <fstream>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "async/scope.h"
#include "base/xoshiro.h"
#include "tests/support/store_bed.h"

namespace fairlead::control {
namespace {

namespace fs = std::filesystem;

SqliteDatabaseOptions options_for(const std::string& path) {
  return {.path = path, .address = "a", .now_seconds = kNow, .busy_max = seconds(5)};
}
void spill(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
std::vector<Write> pair_of(uint64_t number) {
  std::vector<Write> writes;
  writes.push_back({.key = "count/a", .value = std::to_string(number)});
  writes.push_back({.key = "count/b", .value = std::to_string(number) + std::string(number % 7 * 1000, ' ')});
  return writes;
}
bool commit_pair(SqliteDatabase& database, uint64_t number) {
  const std::vector<Write> writes = pair_of(number);
  const std::vector<Write>* const change = &writes;
  return database.commit({&change, 1}).front().has_value();
}
// The number of the last pair that is there; both of it are, or a failure. 0: none.
uint64_t last_pair(SqliteDatabase& database) {
  const auto entries = database.list("count/");
  EXPECT_TRUE(entries.has_value()) << to_string(entries.error());
  if (!entries || entries->empty()) return 0;
  EXPECT_EQ(entries->size(), 2U);
  const uint64_t number = std::stoull(entries->front().value);
  EXPECT_EQ(std::stoull(entries->back().value), number);
  EXPECT_EQ(entries->front().revision, entries->back().revision);
  return number;
}
void expect_refused(const std::string& path, Code code, const std::string& says) {
  SqliteDatabase database(options_for(path));
  const Outcome<void> opened = database.open();
  ASSERT_FALSE(opened.has_value()) << path;
  EXPECT_EQ(opened.error().error.code, code) << to_string(opened.error());
  EXPECT_NE(to_string(opened.error()).find(path), std::string::npos) << to_string(opened.error());
  EXPECT_NE(to_string(opened.error()).find(says), std::string::npos) << to_string(opened.error());
}

TEST(SqliteDatabaseTest, SaysWhatIsWrongWithTheFile) {
  const TestFolder folder;
  const std::string text = folder.file("text");
  spill(text, std::string(5000, 'x'));
  expect_refused(text, Code::kCorrupt, "no database");
  EXPECT_EQ(slurp(text), std::string(5000, 'x'));

  const std::string foreign = folder.file("foreign.db");
  run_sql(foreign, "CREATE TABLE songs (name TEXT)");
  const std::string before = slurp(foreign);
  expect_refused(foreign, Code::kNotSupported, "another program");
  EXPECT_EQ(slurp(foreign), before);

  const std::string newer = folder.file("newer.db");
  EXPECT_TRUE(SqliteDatabase(options_for(newer)).open().has_value());
  run_sql(newer, "PRAGMA user_version = 2");
  expect_refused(newer, Code::kNotSupported, "newer");

  expect_refused(folder.file("no/such/folder.db"), Code::kNotFound, "folder");
  expect_refused(text + "/below.db", Code::kNotFound, "folder");
}

// As somebody who is not root, for root may do all.
void refuse_as_nobody(const std::string& path) {
  std::thread thread([&] {
    if (::geteuid() == 0) ASSERT_EQ(::syscall(SYS_setresuid, -1, 65534, -1), 0);  // this thread alone
    expect_refused(path, Code::kPermissionDenied, "may not write");
  });
  thread.join();
}

TEST(SqliteDatabaseTest, SaysThatItMayNotWrite) {
  const TestFolder folder;
  ASSERT_EQ(::chmod(folder.file("").c_str(), 0755), 0);
  fs::create_directory(folder.file("closed"));
  ASSERT_EQ(::chmod(folder.file("closed").c_str(), 0555), 0);
  refuse_as_nobody(folder.file("closed/store.db"));

  const std::string store = folder.file("store.db");
  EXPECT_TRUE(SqliteDatabase(options_for(store)).open().has_value());
  ASSERT_EQ(::chmod(store.c_str(), 0444), 0);
  refuse_as_nobody(store);
}

// Leads and commits as fast as it can, and tells each number behind its commit, until it is killed.
[[noreturn]] void commit_for_ever(const std::string& path, int output, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  SqliteDatabase database(options_for(path));
  if (!database.open()) ::_exit(2);
  const auto taken = database.try_to_lead();
  if (!taken || !taken->has_value()) ::_exit(3);
  for (uint64_t number = last_pair(database) + 1;; ++number) {
    if (!commit_pair(database, number)) ::_exit(4);
    if (::write(output, &number, sizeof number) != sizeof number) ::_exit(5);
  }
}

TEST(SqliteDatabaseTest, AKilledLeaderLosesNothingAndItsPlaceIsFree) {
  const TestFolder folder;
  const std::string path = folder.file("store.db");
  SqliteDatabase onlooker(options_for(path));
  ASSERT_TRUE(onlooker.open().has_value());
  uint64_t acknowledged = 0;
  uint64_t leader = 0;
  for (int life = 1; life <= 5; ++life) {
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe(pipe.data()), 0);
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) commit_for_ever(path, pipe[1], parent);
    ::close(pipe[1]);
    const uint64_t until = acknowledged + static_cast<uint64_t>(life) * 7;
    while (acknowledged < until && ::read(pipe[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
    }
    const auto refused = onlooker.try_to_lead();
    EXPECT_TRUE(refused.has_value() && !refused->has_value());
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << WEXITSTATUS(status);
    while (::read(pipe[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
    }
    ::close(pipe[0]);

    SqliteDatabase database(options_for(path));
    ASSERT_TRUE(database.open().has_value());
    const auto taken = database.try_to_lead();
    ASSERT_TRUE(taken.has_value() && taken->has_value());
    EXPECT_GT((*taken)->number, leader);
    leader = (*taken)->number;
    EXPECT_GE(last_pair(database), acknowledged);
    EXPECT_LE(last_pair(database), acknowledged + 1);
    acknowledged = last_pair(database);
  }
}

// What a power cut may leave of the log: some beginning of it, and garbage behind.
TEST(SqliteDatabaseTest, ATornLogGivesOneOfThePastStates) {
  const uint64_t seed = draw_seed();
  SCOPED_TRACE(testing::Message() << "repeat with FAIRLEAD_TEST_SEED=" << seed);
  Xoshiro random(seed);
  const TestFolder folder;
  SqliteDatabase database(options_for(folder.file("store.db")));
  ASSERT_TRUE(database.open().has_value());
  ASSERT_TRUE((*database.try_to_lead()).has_value());
  for (uint64_t number = 1; number <= 30; ++number) ASSERT_TRUE(commit_pair(database, number));
  const std::string data = slurp(folder.file("store.db"));
  const std::string log = slurp(folder.file("store.db-wal"));
  ASSERT_GT(log.size(), 10000U);

  uint64_t last = 0;
  for (size_t cut = 0; cut <= log.size(); cut += 1 + random.next() % 12000) {
    std::string torn = log.substr(0, cut);
    if (random.next() % 2 == 0) torn += std::string(random.next() % 5000, '\x5a');
    spill(folder.file("copy.db"), data);
    spill(folder.file("copy.db-wal"), torn);
    fs::remove(folder.file("copy.db-shm"));
    SqliteDatabase copy(options_for(folder.file("copy.db")));
    ASSERT_TRUE(copy.open().has_value());
    const uint64_t found = last_pair(copy);
    EXPECT_GE(found, last);
    last = found;
  }
  spill(folder.file("whole.db"), data);
  spill(folder.file("whole.db-wal"), log);
  SqliteDatabase whole(options_for(folder.file("whole.db")));
  ASSERT_TRUE(whole.open().has_value());
  EXPECT_EQ(last_pair(whole), 30U);
}

TEST(SqliteStoreTest, SeveralMayMakeTheFileAtOnce) {
  for (int round = 0; round < 20; ++round) {
    const TestFolder folder;
    const std::string path = folder.file("store.db");
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&path] {
        SqliteDatabase database(options_for(path));
        const Outcome<void> opened = database.open();
        EXPECT_TRUE(opened.has_value()) << to_string(opened.error());
      });
    }
    for (std::thread& thread : threads) thread.join();
    SqliteDatabase database(options_for(path));
    ASSERT_TRUE(database.open().has_value());
    const auto taken = database.try_to_lead();
    ASSERT_TRUE(taken.has_value() && taken->has_value());
    EXPECT_EQ((*taken)->number, (uint64_t{kNow} << 32) + 1);
  }
}

TEST(SqliteStoreTest, TellsThatAnotherProcessKeepsTheFileBusyAndGoesOn) {
  SqliteBed bed;
  bed.run([](StoreBed& any) -> Task<void> {
    auto& sqlite = static_cast<SqliteBed&>(any);
    auto opened = co_await SqliteStore::open(any.shard(), {.path = sqlite.path(), .busy_max = milliseconds(20)});
    CO_ASSERT_TRUE(opened.has_value());
    SqliteStore& store = **opened;
    EXPECT_TRUE((co_await store.lead()).has_value());
    {
      sqlite3* handle = nullptr;
      EXPECT_EQ(sqlite3_open(sqlite.path().c_str(), &handle), SQLITE_OK);
      EXPECT_EQ(sqlite3_exec(handle, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
      EXPECT_EQ(co_await any.code_of_commit(store, pair_of(1)), Code::kTimedOut);
      EXPECT_EQ(co_await any.content(store), "");
      sqlite3_close(handle);
    }
    EXPECT_TRUE(store.leads());
    EXPECT_EQ(co_await any.code_of_commit(store, pair_of(1)), std::nullopt);
    co_await store.stop();
  });
}

TEST(SqliteStoreTest, AFileThatCannotBeOpenedIsAnAnswer) {
  SqliteBed bed;
  bed.run([](StoreBed& any) -> Task<void> {
    const auto opened = co_await static_cast<SqliteBed&>(any).open("/proc/store.db");
    CO_ASSERT_TRUE(!opened.has_value());
    EXPECT_NE(to_string(opened.error()).find("/proc/store.db"), std::string::npos) << to_string(opened.error());
  });
}

}  // namespace
}  // namespace fairlead::control
