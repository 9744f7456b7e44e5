// PoolKeeper: sees to it that there is a pool for each DiskPool, that it is as the DiskPool says, and that the DiskPool
// tells how it is. Lives on one shard.
//
// It keeps nothing that matters: DiskPools are listed and watched, pools listed each time, and each step looks first
// whether it is done. So it may be ended anywhere, and its successor goes on. A DiskPool gets a finalizer before its
// pool is asked for, and loses it when the pool is gone.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "async/event.h"
#include "async/time.h"
#include "io/shard.h"
#include "kube/api.h"
#include "kube/disk_pool.h"

namespace fairlead::kube {

struct PoolKeeperOptions {
  // How full pools are is told as often at most; all else at once.
  Duration numbers_interval = std::chrono::seconds(30);
  // For so long a control plane that is away is no news.
  Duration patience = std::chrono::seconds(30);
};

class PoolKeeper {
 public:
  // Borrowed for life. Calls of `kube` and `control` end with kFenced when this process is not to act.
  PoolKeeper(Shard& home, WatchApi& watch, Api& kube, Api& control, PoolKeeperOptions options);

  // Brings what is known of DiskPools up to date: lists them, or waits for a while for one to change. Error: that came
  // to nothing; try again a little later.
  Task<Outcome<void>> follow();
  // One look at each of them. Error: the control plane does not answer.
  Task<Outcome<void>> act();
  // What is known may be old.
  void forget();
  // Rings when follow() has news.
  Event& changed() { return changed_; }

  bool is_synced() const { return !version_.empty(); }
  const std::map<std::string, Json>& disk_pools() const { return disk_pools_; }
  uint64_t status_writes() const { return status_writes_; }

 private:
  Task<Outcome<void>> list();
  void take(const Json& event);
  Task<void> act_on(std::string name, const Json& pool);
  Task<void> make(Json disk_pool, const Json& pool);
  Task<void> release(Json disk_pool, const Json& pool);
  // True: the DiskPool has been changed like that.
  Task<bool> patch(const Json& disk_pool, std::string suffix, Json change);
  Task<void> tell(const Json& disk_pool, const Json& pool, Standing standing);
  Json known(const std::string& name) const;
  static Standing standing_of_error(const Problem& error);

  Shard& home_;
  WatchApi& watch_;
  Api& kube_;
  Api& control_;
  const PoolKeeperOptions options_;
  Event changed_;
  std::string version_;  // of the list; empty: it is to be listed
  uint64_t forgotten_ = 0;
  std::map<std::string, Json> disk_pools_;  // by name
  std::map<std::string, Instant> told_;     // when the status was last written
  std::optional<Instant> away_since_;       // the control plane
  uint64_t status_writes_ = 0;
};

}  // namespace fairlead::kube
