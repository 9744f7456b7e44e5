#include "control/placement.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>
#include <tuple>

#include "base/units.h"

namespace fairlead::control {
namespace {

constexpr size_t kStepsMax = 20'000;  // of the search: enough for any topology of this size that has an answer

const std::string* find_label(const Labels& labels, const std::string& key) {
  const auto found = labels.find(key);
  return found == labels.end() ? nullptr : &found->second;
}

// What a replica must find there to begin with. A thin one may find less than its size.
uint64_t room_needed(const PoolCandidate& pool, const VolumeSpec& spec) {
  return spec.is_thin ? std::min(spec.size_bytes, pool.capacity_bytes / 20) : spec.size_bytes;
}

std::string refusal(const PoolCandidate& pool, const PlacementRequest& request) {
  if (!pool.excluded.empty()) return pool.excluded;
  if (std::ranges::find(request.nodes_taken, pool.node) != request.nodes_taken.end() ||
      std::ranges::find(request.nodes_leaving, pool.node) != request.nodes_leaving.end()) {
    return fmt::format("node {} has a replica already", pool.node);
  }
  if (!request.pools_only.empty() && std::ranges::find(request.pools_only, pool.name) == request.pools_only.end()) {
    return fmt::format("pool {} does not have the snapshot", pool.name);
  }
  if (const std::string why = why_not_there(request.spec.topology, pool.node_labels); !why.empty()) {
    return fmt::format("node {} {}", pool.node, why);
  }
  const uint64_t needed = room_needed(pool, request.spec);
  if (pool.free_bytes < needed) {
    return fmt::format("pool {} has {} left, {} are needed", pool.name, format_size(pool.free_bytes),
                       format_size(needed));
  }
  return {};
}

// Depth first, the best first: the first set that fits.
class Search {
 public:
  Search(std::vector<const PoolCandidate*> fit, const PlacementRequest& request, std::set<std::string> values_taken)
      : fit_(std::move(fit)), request_(request), taken_(std::move(values_taken)) {}

  bool run(size_t from = 0) {
    if (chosen_.size() == request_.count) return true;
    for (size_t i = from; i < fit_.size() && steps_ < kStepsMax; ++i) {
      ++steps_;
      const std::vector<std::string> values = values_of(*fit_[i]);
      if (std::ranges::any_of(values, [this](const std::string& value) { return taken_.contains(value); })) continue;
      taken_.insert(values.begin(), values.end());
      chosen_.push_back(fit_[i]);
      if (run(i + 1)) return true;
      chosen_.pop_back();
      for (const std::string& value : values) taken_.erase(value);
    }
    return false;
  }
  const std::vector<const PoolCandidate*>& chosen() const { return chosen_; }

  // What no two replicas may have in common.
  std::vector<std::string> values_of(const PoolCandidate& pool) const {
    std::vector<std::string> values = spread_values(request_.spec.topology, pool.node_labels);
    values.push_back("node " + pool.node);
    return values;
  }

 private:
  const std::vector<const PoolCandidate*> fit_;
  const PlacementRequest& request_;
  std::set<std::string> taken_;
  std::vector<const PoolCandidate*> chosen_;
  size_t steps_ = 0;
};

auto rank(const PoolCandidate& pool, const PlacementRequest& request) {
  const auto group = request.group_load.find(pool.node);
  PoolCandidate after = pool;
  after.promised_bytes += request.spec.size_bytes;
  return std::tuple(pool.node != request.spec.preferred_node, group == request.group_load.end() ? 0 : group->second,
                    fullness_of(after), pool.name);
}

}  // namespace

std::string why_not_there(const Topology& topology, const Labels& node_labels) {
  for (const auto& [key, value] : topology.affinity) {
    const std::string* const has = find_label(node_labels, key);
    if (has == nullptr || *has != value) return fmt::format("is not labelled {}={}", key, value);
  }
  for (const auto& [key, value] : topology.anti_affinity) {
    const std::string* const has = find_label(node_labels, key);
    if (has != nullptr && *has == value) return fmt::format("is labelled {}={}", key, value);
  }
  for (const std::string& key : topology.spread_over) {
    if (find_label(node_labels, key) == nullptr) return fmt::format("has no label {}", key);
  }
  return {};
}

std::vector<std::string> spread_values(const Topology& topology, const Labels& node_labels) {
  std::vector<std::string> values;
  for (const std::string& key : topology.spread_over) {
    const std::string* const value = find_label(node_labels, key);
    if (value != nullptr) values.push_back(fmt::format("{}={}", key, *value));
  }
  return values;
}

double fullness_of(const PoolCandidate& pool) {
  const double capacity = static_cast<double>(std::max<uint64_t>(pool.capacity_bytes, 1));
  return std::max(static_cast<double>(pool.promised_bytes) / capacity,
                  1 - static_cast<double>(pool.free_bytes) / capacity);
}

Outcome<std::vector<std::string>> place(const std::vector<PoolCandidate>& pools, const PlacementRequest& request) {
  std::vector<const PoolCandidate*> fit;
  std::set<std::string> refusals;
  for (const PoolCandidate& pool : pools) {
    std::string why = refusal(pool, request);
    if (why.empty()) {
      fit.push_back(&pool);
    } else {
      refusals.insert(std::move(why));
    }
  }
  std::ranges::sort(
      fit, [&](const PoolCandidate* a, const PoolCandidate* b) { return rank(*a, request) < rank(*b, request); });
  Search labels({}, request, {});
  std::set<std::string> taken;
  for (const PoolCandidate& pool : pools) {
    if (std::ranges::find(request.nodes_taken, pool.node) == request.nodes_taken.end()) continue;
    for (std::string& value : labels.values_of(pool)) taken.insert(std::move(value));
  }
  Search search(fit, request, std::move(taken));
  if (search.run()) {
    std::vector<std::string> names;
    for (const PoolCandidate* const pool : search.chosen()) names.push_back(pool->name);
    return names;
  }
  std::set<std::string> nodes;
  for (const PoolCandidate* const pool : fit) nodes.insert(pool->node);
  std::string text =
      fmt::format("room for {} more replica{} is wanted, each on a node of its own; {} {}", request.count,
                  request.count == 1 ? "" : "s", nodes.size(), nodes.size() == 1 ? "node fits" : "nodes fit");
  if (!request.spec.topology.spread_over.empty()) {
    text += fmt::format(", spread over {}", fmt::join(request.spec.topology.spread_over, ", "));
  }
  if (pools.empty()) text += "; there is no pool: make one with 'fairlead pool create'";
  if (!refusals.empty()) text += fmt::format(": {}", fmt::join(refusals, "; "));
  return problem(Code::kNoSpace, std::move(text));
}

Outcome<std::vector<std::string>> place_beginning(const std::vector<PoolCandidate>& pools, PlacementRequest request) {
  const size_t count = request.count;
  Outcome<std::vector<std::string>> all = place(pools, request);
  if (all || request.pools_only.empty()) return all;
  while (--request.count > 0) {
    Outcome<std::vector<std::string>> some = place(pools, request);
    if (!some) continue;
    PlacementRequest rest = request;
    rest.count = count - request.count;
    rest.pools_only.clear();
    for (const PoolCandidate& pool : pools) {
      if (std::ranges::find(*some, pool.name) != some->end()) rest.nodes_taken.push_back(pool.node);
    }
    if (place(pools, rest)) return some;
  }
  return all;
}

}  // namespace fairlead::control
