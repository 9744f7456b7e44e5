// SqliteDatabase: the file of a SqliteStore. Every function blocks: one thread at a time, a worker's.
//
// Beside FILE, and SQLite's own FILE-wal and FILE-shm, stands FILE.lock: an empty database whose exclusive lock the
// leader holds. The system takes it from a process that ends, however it ends. The lock says who leads; what fences is
// the number of leaders in FILE, which each commit compares in its own transaction.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "async/time.h"
#include "base/problem.h"
#include "control/store.h"

struct sqlite3;

namespace fairlead::control {

struct SqliteDatabaseOptions {
  std::string path;
  std::string address;       // of this process, kept while it leads
  uint32_t now_seconds = 0;  // since 1970: the epoch of a file that is made
  Duration busy_max = {};    // how long it waits for other processes' transactions
};

class SqliteDatabase {
 public:
  explicit SqliteDatabase(SqliteDatabaseOptions options) : options_(std::move(options)) {}
  ~SqliteDatabase() { close(); }
  SqliteDatabase(const SqliteDatabase&) = delete;
  SqliteDatabase& operator=(const SqliteDatabase&) = delete;

  // Opens the file, or makes it. Errors besides the Store's: kPermissionDenied, kNotFound (no such folder),
  // kNotSupported (of a newer version, or another program's). Everything below requires that it succeeded.
  Outcome<void> open();
  // Gives leadership up. Idempotent; also without open().
  void close();

  // None: another leads.
  Outcome<std::optional<Leadership>> try_to_lead();
  Outcome<std::string> leader_address();
  Outcome<std::vector<Entry>> list(const std::string& prefix);
  // Each change as if it were alone, one after the other; all on stable storage at once. The outcomes are in their
  // order. Requires: check() holds for each. Gives leadership up when one is kFenced.
  std::vector<Outcome<uint64_t>> commit(std::span<const std::vector<Write>* const> changes);

 private:
  struct Closer {
    void operator()(sqlite3* handle) const;
  };
  using Handle = std::unique_ptr<sqlite3, Closer>;
  struct Meta {
    uint32_t epoch = 0;
    uint32_t leaders = 0;
    uint64_t revision = 0;
  };

  Outcome<Handle> open_handle(const std::string& path) const;
  // Whether the file is new; an error when it is none of ours.
  Outcome<bool> is_new();
  Outcome<void> prepare();
  Outcome<void> make_tables();
  Outcome<Meta> read_meta();
  Outcome<Leadership> count_leader();
  Outcome<void> check_expectation(const Write& write);
  Outcome<void> apply(const Write& write, uint64_t revision);
  // Takes it back, and it alone, where that is possible: else the transaction has ended.
  Outcome<uint64_t> commit_one(const std::vector<Write>& writes);
  Outcome<uint64_t> commit_locked(const std::vector<Write>& writes);
  // Runs `work` in a transaction that writes; takes it back when that fails.
  template <typename Work>
  auto in_transaction(Work work) -> decltype(work());
  Outcome<void> execute(const char* sql);

  const SqliteDatabaseOptions options_;
  Handle handle_;
  Handle lock_;  // there while it leads
  uint32_t leader_ = 0;
};

}  // namespace fairlead::control
