// Balancer: looks now and then whether pools are filled very differently; it has replicas moved then, or says what
// would help, as the cluster's settings say. One shard, of the process that leads. docs/internals/control.md tells
// when.
#pragma once

#include <map>
#include <set>
#include <string>

#include "async/cancel.h"
#include "control/cluster.h"
#include "control/events.h"
#include "control/rebalance.h"
#include "control/reconciler.h"

namespace fairlead::control {

class Balancer {
 public:
  // Borrowed for life.
  Balancer(Shard& home, Cluster& cluster, Reconciler& reconciler, Events& events, const ControlSettings& settings)
      : home_(home), cluster_(cluster), reconciler_(reconciler), events_(events), settings_(settings) {}

  // To the end of the leadership.
  Task<void> run(CancelSource& ruling);
  // What would make the pool less full, for people; empty: nothing is wrong, or nothing can be done.
  std::string suggestion(const std::string& pool) const;

 private:
  RebalanceFacts facts();
  void note_busy_pools();
  void suggest(const RebalancePlan& plan);
  Task<Outcome<void>> begin(Move move);

  Shard& home_;
  Cluster& cluster_;
  Reconciler& reconciler_;
  Events& events_;
  const ControlSettings& settings_;
  std::set<std::string> uneven_;
  std::map<std::string, Instant> busy_at_;          // pools that took part in a move, when that was seen last
  std::map<std::string, std::string> suggestions_;  // by pool
};

}  // namespace fairlead::control
