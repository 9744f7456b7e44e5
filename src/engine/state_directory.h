// StateDirectory: what an engine must know at its next start: who it is, which pools it has and how far each had come,
// and the highest number of a leader of the control plane that it obeyed. Two files, as JSON: node.json and pools.json.
// Home shard.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "async/mutex.h"
#include "base/problem.h"
#include "base/uuid.h"
#include "io/shard.h"
#include "io/small_files.h"
#include "pool/pool.h"

namespace fairlead::engine {

struct PoolRecord {
  std::string name;
  std::vector<std::string> disks;
  // That may be in the pool, or not yet: it was to grow by them when the engine ended.
  std::vector<std::string> joining = {};
  std::map<std::string, std::string> labels = {};
  friend bool operator==(const PoolRecord&, const PoolRecord&) = default;
};

class StateDirectory {
 public:
  // Reads what there is; the first time it draws the node's id and keeps it. `files` and `home` are borrowed for life.
  // Errors: those of SmallFiles; kCorrupt (a file that is not ours: who it is must not be guessed).
  static Task<Outcome<std::unique_ptr<StateDirectory>>> open(Shard& home, SmallFiles& files);
  StateDirectory(const StateDirectory&) = delete;
  StateDirectory& operator=(const StateDirectory&) = delete;

  const Uuid& node() const { return node_; }
  uint64_t leader() const { return leader_; }
  const std::vector<PoolRecord>& pools() const { return pools_; }
  // Null: there is none of this name. Valid until the next change.
  const PoolRecord* find_pool(const std::string& name) const;
  // How far the pools had come when that was last noted, as far as it is known.
  std::vector<pool::Progress> seen() const;

  // Each is on stable storage when it returns without an error. Errors: those of SmallFiles::replace().
  //
  // The highest number that was ever given counts: a lower one changes nothing.
  Task<Outcome<void>> note_leader(uint64_t number);
  // Instead of the one of this name, if there is one.
  Task<Outcome<void>> keep_pool(PoolRecord pool);
  Task<Outcome<void>> forget_pool(std::string name);
  // Of pools that it has, by name; of others it is not kept.
  Task<Outcome<void>> note_seen(std::map<std::string, pool::Progress> seen);
  // Whatever state the pool's disks hold next time is taken. False: nothing was noted of it.
  Task<Outcome<bool>> forget_seen(Uuid pool);

 private:
  using Seen = std::map<std::string, pool::Progress>;
  StateDirectory(Reactor& home, SmallFiles& files) : files_(files), changing_(home) {}
  Outcome<void> read();
  Outcome<void> read_node(const std::string& text);
  Outcome<void> read_pools(const std::string& text);
  Task<Outcome<void>> write_node(uint64_t leader);
  Task<Outcome<void>> write_pools(std::vector<PoolRecord> pools, Seen seen);

  SmallFiles& files_;
  Mutex changing_;
  Uuid node_;
  uint64_t leader_ = 0;
  std::vector<PoolRecord> pools_;  // by name
  Seen seen_;
};

}  // namespace fairlead::engine
