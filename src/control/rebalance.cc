#include "control/rebalance.h"

#include <algorithm>
#include <optional>
#include <tuple>

namespace fairlead::control {
namespace {

using AtRest = RebalanceFacts::AtRest;

class Planner {
 public:
  explicit Planner(const RebalanceFacts& facts) : facts_(facts), busy_(facts.busy_pools) {
    for (const PoolCandidate& pool : facts.pools) pools_.emplace(pool.name, &pool);
    for (const AtRest& each : facts.volumes) {
      for (const PlacedReplica& replica : each.volume->decision.replicas) {
        movable_[replica.pool].push_back({.of = &each, .replica = &replica});
      }
    }
  }

  RebalancePlan run() {
    std::vector<const PoolCandidate*> fullest;
    std::optional<double> lowest;  // of those that take more
    for (const PoolCandidate& pool : facts_.pools) {
      fullest.push_back(&pool);
      if (pool.excluded.empty()) lowest = std::min(lowest.value_or(fullness_of(pool)), fullness_of(pool));
    }
    std::ranges::sort(fullest, {},
                      [](const PoolCandidate* pool) { return std::pair(-fullness_of(*pool), pool->name); });
    for (const PoolCandidate* const pool : fullest) {
      const bool was_uneven = facts_.uneven_pools.contains(pool->name);
      const double limit = was_uneven ? kEvenBelow : kUnevenFrom;
      if (!lowest || fullness_of(*pool) - *lowest < limit) continue;
      plan_.uneven_pools.insert(pool->name);
      if (!busy_.contains(pool->name)) relieve(*pool, limit);
    }
    return std::move(plan_);
  }

 private:
  struct Movable {
    const AtRest* of = nullptr;
    const PlacedReplica* replica = nullptr;
  };

  void relieve(const PoolCandidate& from, double limit);
  std::optional<std::string> place_for(const Movable& movable, const PoolCandidate& from, double limit) const;
  bool is_better(const Movable& movable, const PoolCandidate& from, const PoolCandidate& to) const;

  const RebalanceFacts& facts_;
  std::set<std::string> busy_;   // pools
  std::set<std::string> moved_;  // volumes: of each one replica
  std::map<std::string, const PoolCandidate*> pools_;
  std::map<std::string, std::vector<Movable>> movable_;  // by pool
  RebalancePlan plan_;
};

// The two of them afterwards.
bool Planner::is_better(const Movable& movable, const PoolCandidate& from, const PoolCandidate& to) const {
  const uint64_t size = movable.of->volume->spec.size_bytes;
  const auto found = movable.of->used_bytes.find(movable.replica->id);
  const uint64_t used = found == movable.of->used_bytes.end() ? size : found->second;
  PoolCandidate left = from;
  left.promised_bytes -= std::min(size, left.promised_bytes);
  left.free_bytes = std::min(left.free_bytes + used, left.capacity_bytes);
  PoolCandidate joined = to;
  joined.promised_bytes += size;
  joined.free_bytes -= std::min(used, joined.free_bytes);
  return fullness_of(left) < fullness_of(from) && fullness_of(joined) <= fullness_of(left);
}

std::optional<std::string> Planner::place_for(const Movable& movable, const PoolCandidate& from, double limit) const {
  const Volume& volume = *movable.of->volume;
  PlacementRequest request{.spec = volume.spec, .count = 1, .group_load = movable.of->group_load};
  const auto load_of = [&](const std::string& node) {
    const auto found = request.group_load.find(node);
    return found == request.group_load.end() ? 0 : found->second;
  };
  for (const PoolCandidate& to : facts_.pools) {
    if (busy_.contains(to.name) || fullness_of(from) - fullness_of(to) < limit) continue;
    if (load_of(to.node) > load_of(from.node) || !is_better(movable, from, to)) continue;
    request.pools_only.push_back(to.name);
  }
  if (request.pools_only.empty()) return std::nullopt;
  for (const PlacedReplica& replica : volume.decision.replicas) {
    const auto pool = pools_.find(replica.pool);
    if (pool == pools_.end()) return std::nullopt;
    const bool is_moved = replica.id == movable.replica->id;
    (is_moved ? request.nodes_leaving : request.nodes_taken).push_back(pool->second->node);
  }
  const auto pools = place(facts_.pools, request);
  return pools ? std::optional(pools->front()) : std::nullopt;
}

// By one replica: rather not the one beside the target, whose reads cost nothing; of the others the largest.
void Planner::relieve(const PoolCandidate& from, double limit) {
  std::vector<Movable>& all = movable_[from.name];
  std::erase_if(all, [&](const Movable& each) { return each.of->volume->spec.preferred_node == from.node; });
  std::ranges::sort(all, [&](const Movable& a, const Movable& b) {
    const auto rank = [&](const Movable& each) {
      const Volume& volume = *each.of->volume;
      return std::tuple(volume.decision.target == from.node, ~volume.spec.size_bytes, volume.metadata.name);
    };
    return rank(a) < rank(b);
  });
  for (const Movable& each : all) {
    const std::string& volume = each.of->volume->metadata.name;
    if (moved_.contains(volume)) continue;
    const std::optional<std::string> to = place_for(each, from, limit);
    if (!to) continue;
    moved_.insert(volume);
    plan_.moves.push_back({.volume = volume,
                           .replica = each.replica->id,
                           .from = from.name,
                           .to = *to,
                           .from_fullness = fullness_of(from),
                           .to_fullness = fullness_of(*pools_.at(*to))});
    busy_.insert(from.name);
    busy_.insert(*to);
    return;
  }
}

}  // namespace

RebalancePlan plan_rebalance(const RebalanceFacts& facts) { return Planner(facts).run(); }

}  // namespace fairlead::control
