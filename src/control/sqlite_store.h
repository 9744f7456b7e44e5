// SqliteStore: the Store in one SQLite file, for one machine. Processes on the same file stand by for each other.
//
// One shard, and a thread of its own: the shard never waits for the disk. A commit is on stable storage when it returns
// (write-ahead log, synchronous=FULL); those that come while another is written are written together. An older copy put
// in the file's place is an older store that does not know it: whoever restores one has to begin a new epoch. See
// docs/design/2026-11-22-stores.md.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/scope.h"
#include "control/sqlite_database.h"
#include "control/store.h"
#include "control/store_gate.h"
#include "io/shard.h"
#include "io/worker.h"

namespace fairlead::control {

struct SqliteStoreOptions {
  std::string path;          // made when it is not there; its folder must be there, on a local file system
  std::string address = {};  // where others reach this process while it leads
  uint32_t now_seconds = 0;  // since 1970: the epoch of a file that is made
  Duration busy_max = std::chrono::seconds(2);     // for transactions of other processes
  Duration poll = std::chrono::milliseconds(200);  // how often one that stands by looks
};

class SqliteStore final : public Store {
 public:
  // Errors besides the Store's, each a sentence that names the file and what to do: kPermissionDenied, kNotFound (no
  // such folder), kNotSupported (of a newer version, or another program's).
  static Task<Outcome<std::unique_ptr<SqliteStore>>> open(Shard& shard, SqliteStoreOptions options);
  ~SqliteStore() override;

  // Stands by as long as another process has the file: never kBusy.
  Task<Outcome<Leadership>> lead() override;
  bool leads() const override { return leads_; }
  Event& lost() override { return lost_; }
  Task<Outcome<std::string>> leader_address() override;
  Task<Outcome<std::vector<Entry>>> list(std::string prefix) override;
  Task<Outcome<uint64_t>> commit(std::vector<Write> writes) override;
  Task<void> stop() override;

 private:
  struct Waiting {
    const std::vector<Write>* writes;  // the caller's, until there is an outcome
    std::optional<Outcome<uint64_t>> outcome = {};
  };

  SqliteStore(Shard& shard, SqliteStoreOptions options);
  void lose();
  Task<void> commit_waiting();

  Reactor& reactor_;
  const Duration poll_;
  StoreGate gate_;
  Event lost_;
  bool leads_ = false;
  std::vector<Waiting*> waiting_;  // for the commit after the one under way
  bool is_committing_ = false;
  Event committed_;
  Scope scope_;
  SqliteDatabase database_;  // the worker's, after the constructor
  Worker worker_;
};

}  // namespace fairlead::control
