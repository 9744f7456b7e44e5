// The pool that `fairlead serve --pool` serves: its replicas and snapshots as namespaces, and the commands that change
// them meanwhile.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "cli/commands.h"
#include "io/disk.h"
#include "pool/pool.h"
#include "target/target.h"

namespace fairlead::cli {

// Lives on the target's home shard, the first of its shards. Life-cycle: open(), then the rest, then close() when the
// target has stopped. One call at a time.
class PoolService {
 public:
  // Borrows the target for life.
  PoolService(std::vector<Shard*> shards, target::Target& target) : shards_(std::move(shards)), target_(target) {}

  // Imports the pool.
  Task<std::expected<void, Complaint>> open(std::vector<OpenDisk> disks);
  // Requires: open.
  const pool::Pool& pool() const { return *pool_; }
  // Namespaces are added to this subsystem, which the target has.
  void set_subsystem(std::string nqn) { nqn_ = std::move(nqn); }

  struct Served {
    std::string what;  // "replica db"
    uint32_t nsid = 0;
    uint64_t size_bytes = 0;
  };
  // Makes a namespace of a replica or snapshot, whose UUID is that of the object. Its number is kept in the pool with
  // the object: a host that was not told sends what it has in flight to the number, before it looks who bears it now.
  Task<std::expected<Served, Complaint>> serve(std::string name);
  // Names of all replicas and snapshots.
  std::vector<std::string> names() const;

  // Does what a line says and returns the answer, one line: "ok" or "error", and more about it.
  Task<std::string> execute(std::string line);

  // Requires: the target has stopped, or open() failed.
  Task<std::expected<void, Complaint>> close();

 private:
  static std::span<const Verb<PoolService>> verbs();
  Task<Answer> snapshot(Words words);
  Task<Answer> clone(Words words);
  Task<Answer> remove(Words words);
  Task<Answer> resize(Words words);
  Task<Answer> start_serving(Words words);
  Task<Answer> stop_serving(Words words);
  Task<Answer> show_statistics(Words words);
  Task<Answer> list(Words words);
  Task<Answer> show_help(Words words);
  Task<Result<uint32_t>> add_namespace(pool::ObjectState state);
  Task<Result<void>> keep_number(const pool::ObjectState& state, uint32_t nsid);
  uint32_t fresh_number() const;
  Task<Result<void>> unserve(std::string name);

  const std::vector<Shard*> shards_;
  target::Target& target_;
  std::unique_ptr<pool::Pool> pool_;
  std::string nqn_;
  std::map<std::string, uint32_t, std::less<>> served_;  // namespace ids by the names of objects
  std::set<uint32_t> passed_;                            // namespace ids that were given, or found taken, in this run
};

}  // namespace fairlead::cli
