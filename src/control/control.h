// Control: the control plane of a cluster, as one process of it: while it leads, it hears engines, keeps the store, and
// sees to it that what was asked for comes about. One shard.
//
// Life-cycle: make, run() in a scope, stop(), destroy. Its service may be called as soon as it is made.
#pragma once

#include <memory>
#include <string>

#include "control/api.h"
#include "control/balancer.h"
#include "control/cluster.h"
#include "control/engines.h"
#include "control/events.h"
#include "control/group_cuts.h"
#include "control/reconciler.h"
#include "control/witness.h"
#include "rpc/service.h"

namespace fairlead::control {

class Control {
 public:
  // All borrowed for life. The store is stopped by this.
  Control(Shard& home, Store& store, rpc::Dialer& dialer, ControlSettings settings);
  ~Control();  // Requires: stop() returned and run() has, or run() was never called.

  // Leads whenever it can, until stop().
  Task<void> run();
  // Gives leadership up. Idempotent.
  Task<void> stop();

  // Service Control of api/engine/v1.
  const rpc::Service& service() const { return service_; }
  // What people and tools ask for. Every call that is not the leader's fails with kUnreachable, and names the leader.
  Api& api() { return api_; }
  Events& events() { return events_; }
  const Cluster& cluster() const { return cluster_; }
  // Requires: it leads.
  std::vector<Condition> conditions(const std::string& volume) const { return reconciler_->conditions(volume); }
  bool is_leading() const { return is_leading_; }
  // Released when anything that api() shows may have changed.
  Event& changed() { return changed_; }

 private:
  friend class Api;
  Task<Outcome<void>> rule();
  Task<void> watch_leadership();
  Task<void> watch_nodes();
  Task<void> watch_pools();
  Task<void> watch_conditions();
  Task<Outcome<void>> see_to_pool(std::string name);
  Task<Outcome<void>> create_pool(Pool pool);
  Task<Outcome<void>> destroy_pool(Pool pool);
  Task<Outcome<void>> adopt_pool(std::string node, api::PoolState pool);
  Task<Outcome<void>> collect(std::string garbage);
  Task<void> collect_garbage();
  void report_orphans();
  Task<void> probe(std::string node);
  void lose(const std::string& node, std::string why);
  std::unexpected<Problem> not_leading() const;

  Task<Outcome<api::ReportReply>> report(api::ReportRequest request);
  Task<Outcome<void>> register_node(const api::NodeState& state);
  void suspect(const std::string& reporter, const NodeReport& before, const api::NodeState& now);
  Task<Outcome<api::NextTermReply>> next_term(api::NextTermRequest request);
  Task<Outcome<api::WitnessReply>> prepare(api::PrepareRequest request);
  Task<Outcome<api::WitnessReply>> keep(api::KeepRequest request);

  Shard& home_;
  Store& store_;
  const ControlSettings settings_;
  Events events_;
  Cluster cluster_;
  Engines engines_;
  WitnessService witness_;
  Event changed_;
  CancelSource stopping_;
  std::unique_ptr<CancelSource> ruling_;  // cancelled when it leads no more
  Scope scope_;                           // of a rule
  std::unique_ptr<Reconciler> reconciler_;
  std::unique_ptr<Balancer> balancer_;
  std::unique_ptr<GroupCuts> group_cuts_;
  std::set<std::string> orphans_;                     // replicas, that were reported
  std::set<std::string> probed_;                      // nodes, now
  std::map<std::string, std::string> pool_failures_;  // by pool: why the last call about it failed
  Leadership leadership_;
  bool is_leading_ = false;
  bool is_running_ = false;
  Event ended_;
  rpc::Service service_;
  Api api_;
};

}  // namespace fairlead::control
