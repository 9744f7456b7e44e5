// Reconciler: carries out what plan_volume() says, for every volume, again and again, as things change. One shard, of
// the process that leads.
//
// Life-cycle: make, start(), mark() whatever may have changed, stop(), destroy. Calls of one volume to one engine
// follow each other; those to different engines, and those of different volumes, wait for nobody.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/scope.h"
#include "control/cluster.h"
#include "control/engines.h"
#include "control/events.h"
#include "control/volume_plan.h"

namespace fairlead::control {

class Reconciler {
 public:
  // Borrowed for life.
  Reconciler(Shard& home, Cluster& cluster, Engines& engines, Events& events, const ControlSettings& settings);
  ~Reconciler();  // Requires: stop() returned, or start() was never called.

  void start();
  Task<void> stop();

  // Something that matters to it may have changed.
  void mark(const std::string& volume);
  void mark_all();
  // A report of the node has come: what it was asked for is in it.
  void node_reported(const std::string& node);

  // As of the last plan; empty: there was none yet.
  std::vector<Condition> conditions(const std::string& volume) const;
  // Released when the conditions of any volume may have changed.
  Event& changed() { return changed_; }

 private:
  struct Work;
  Task<void> run();
  Task<void> look_at(std::string volume);
  VolumePlan plan_of(const std::string& volume);
  Task<bool> keep(std::string volume);
  Task<void> mark_later(std::string volume, Duration span, std::shared_ptr<Work> work, uint64_t alarm);
  Task<void> act(std::string volume, std::string node, std::vector<Action> actions);
  Task<Outcome<void>> carry_out(const Volume& volume, const Action& action);
  Task<Outcome<void>> create_replica(const Volume& volume, const Action& action);
  Task<Outcome<void>> open(const Volume& volume, const Action& action);
  Task<Outcome<void>> snapshot(const Volume& volume, const Action& action);
  void take_conditions(const std::string& volume, Work& work, std::vector<Condition> conditions);
  void start_actions(const std::string& volume, Work& work, std::vector<Action> actions);
  Work& work_of(const std::string& volume);

  Shard& home_;
  Cluster& cluster_;
  Engines& engines_;
  Events& events_;
  const ControlSettings& settings_;
  Event marked_;
  Event changed_;
  CancelSource stopping_;
  Scope scope_;
  std::set<std::string> marks_;
  std::map<std::string, std::shared_ptr<Work>> works_;  // shared with tasks: a volume may go meanwhile
};

}  // namespace fairlead::control
