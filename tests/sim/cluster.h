// Cluster: the simulated nodes of one run: targets with their volumes, which live through crashes of their targets, and
// the nodes of the hosts. One thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/scope.h"
#include "checker.h"
#include "nvme/log_page.h"
#include "plan.h"
#include "sim/world.h"
#include "target/target.h"

namespace fairlead::sim_test {

inline constexpr uint16_t kPort = 4420;
inline constexpr std::string_view kHostileNqn = "nqn.2026-01.io.fairlead:for-anybody";

// A disk of a target and what it should hold. Outlives every boot of its target.
struct Volume {
  uint32_t index = 0;
  uint32_t nsid = 0;
  std::string path;
  VolumePlan plan;
  sim::SimDevice* device = nullptr;
  std::unique_ptr<Checker> checker;
  uint64_t blocks = 0;   // that clients may use; the last is the counter's
  bool attached = true;  // as a namespace, or to be at the next boot
  uint32_t hidden = 0;   // engines that do not have it nevertheless, a bit each
  uint32_t ana_group = 1;
  bool is_at(size_t engine) const { return attached && (hidden >> engine & 1U) == 0; }

  // The counter: a block that only fused compare-and-writes change, each by one. See load.h.
  uint64_t counter_lba() const { return 0; }
  std::set<uint64_t> counted;  // numbers that somebody was told to have set, since power was last lost
};

using AnaStates = std::array<target::AnaState, 2>;  // by group
inline constexpr AnaStates kAllOptimized{target::AnaState::kOptimized, target::AnaState::kOptimized};

// What a target was told so far.
struct Engine {
  std::unique_ptr<target::Target> target;  // null: it was stopped
  std::vector<bool> attached;              // by volume
  std::vector<uint64_t> sizes;             // likewise, bytes
  std::vector<AnaStates> ana;              // by listener
};

// What runs on a target node from boot to its end. In the frame of its program.
struct Serving {
  explicit Serving(Reactor& reactor) : changes(reactor) {}
  std::vector<Engine> engines;
  Scope changes;
  std::vector<std::shared_ptr<BlockSource>> sources;  // by volume
  bool reconciling = false;                           // changes are made one after the other
};

// A listener of an engine, and what it should be.
struct SitePath {
  size_t engine = 0;
  target::PortIndex port = 0;
  SocketAddress address;
  AnaStates ana = kAllOptimized;
};

struct TargetSite {
  size_t index = 0;
  std::string nqn;
  sim::SimNode* node = nullptr;
  std::vector<std::unique_ptr<Volume>> volumes;
  std::vector<SitePath> paths;
  std::vector<bool> engine_wanted;   // runs
  std::unique_ptr<Serving> serving;  // null: down, starting or stopping
  uint64_t epoch = 0;                // of deaths
};

class Cluster {
 public:
  Cluster(sim::SimWorld& world, const Plan& plan);
  ~Cluster();

  sim::SimWorld& world() { return world_; }
  const Plan& plan() const { return plan_; }
  std::vector<std::unique_ptr<TargetSite>>& targets() { return targets_; }
  sim::SimNode& client_node(size_t index) { return *client_nodes_.at(index); }
  sim::SimNode& host_node(size_t index) { return *host_nodes_.at(index); }
  sim::SimNode& hostile_node() { return *hostile_node_; }

  // The first thing that was found to be wrong. Empty: nothing.
  const std::string& failure() const { return failure_; }
  void fail(std::string what);
  bool has_failed() const { return !failure_.empty(); }

  // Faults of nodes; the checkers hear of them.
  void crash(TargetSite& site, sim::CrashKind kind);
  void restart(TargetSite& site);
  bool all_serving() const;
  // No controllers, no connections, nothing under way on any disk.
  bool is_quiet() const;
  void settled();

  // Sees to it that the target becomes what the site says.
  void reconcile_soon(TargetSite& site);
  // Changes of the configuration while hosts are connected. No effect when the target does not serve.
  void detach(TargetSite& site, Volume& volume);
  void attach(TargetSite& site, Volume& volume);
  void grow(TargetSite& site, Volume& volume);
  void set_ana(TargetSite& site, uint32_t group, target::AnaState state, size_t path = 0);
  // As it should be again: every engine up, every volume attached, every path optimized, room on every disk.
  void restore(TargetSite& site);

 private:
  void add_target(size_t index, const TargetPlan& plan);

  sim::SimWorld& world_;
  const Plan& plan_;
  std::vector<std::unique_ptr<TargetSite>> targets_;
  std::vector<sim::SimNode*> client_nodes_;
  std::vector<sim::SimNode*> host_nodes_;
  sim::SimNode* hostile_node_ = nullptr;
  std::string failure_;
};

}  // namespace fairlead::sim_test
