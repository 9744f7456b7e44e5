#include "control/balancer.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"

namespace fairlead::control {
namespace {

using Stage = PlacedReplica::Stage;

// Looks until a pool where something moved is ready for more: what a replica leaves behind is freed by and by, and
// reported then.
constexpr int kRestLooks = 3;

int percent(double fullness) { return static_cast<int>(fullness * 100 + 0.5); }

std::string text_of(const Move& move) {
  return fmt::format("it is {} % full, pool {} {} %", percent(move.from_fullness), move.to, percent(move.to_fullness));
}

bool is_whole(const Volume& volume, const std::vector<Condition>& conditions) {
  const VolumeDecision& decision = volume.decision;
  if (volume.metadata.deleting_since_ms != 0 || !decision.is_formed) return false;
  if (decision.replicas.size() != volume.spec.replicas || conditions.empty()) return false;
  return std::ranges::all_of(conditions, &Condition::is_met) &&
         std::ranges::all_of(decision.replicas, [](const PlacedReplica& replica) {
           return replica.stage == Stage::kPresent && replica.move_to.empty();
         });
}

}  // namespace

Task<void> Balancer::run(CancelSource& ruling) {
  while (co_await sleep(home_.reactor, settings_.rebalance_every, ruling)) {
    note_busy_pools();
    if (cluster_.settings().rebalance == Rebalance::kOff) {
      uneven_.clear();
      suggestions_.clear();
      continue;
    }
    const RebalancePlan plan = plan_rebalance(facts());
    suggest(plan);
    uneven_ = plan.uneven_pools;
    if (cluster_.settings().rebalance != Rebalance::kOn) continue;
    for (const Move& move : plan.moves) {
      if (ruling.is_cancelled()) co_return;
      const Outcome<void> done = co_await begin(move);
      if (!done) log_warn("control.rebalance", {{"volume", move.volume}, {"error", to_string(done.error())}});
    }
  }
}

std::string Balancer::suggestion(const std::string& pool) const {
  const auto found = suggestions_.find(pool);
  return found == suggestions_.end() ? "" : found->second;
}

void Balancer::note_busy_pools() {
  const Instant now = home_.reactor.now();
  for (const auto& [name, kept] : cluster_.volumes()) {
    for (const PlacedReplica& replica : kept.value.decision.replicas) {
      if (replica.stage == Stage::kPresent && replica.move_to.empty()) continue;
      busy_at_[replica.pool] = now;
      if (!replica.move_to.empty()) busy_at_[replica.move_to] = now;
    }
  }
  std::erase_if(busy_at_,
                [&](const auto& each) { return now - each.second >= kRestLooks * settings_.rebalance_every; });
}

RebalanceFacts Balancer::facts() {
  RebalanceFacts facts{.pools = cluster_.candidates(), .volumes = {}};
  facts.uneven_pools = uneven_;
  for (const auto& [pool, at] : busy_at_) facts.busy_pools.insert(pool);
  for (const auto& [name, kept] : cluster_.volumes()) {
    const Volume& volume = kept.value;
    if (!is_whole(volume, reconciler_.conditions(name))) continue;
    RebalanceFacts::AtRest& at_rest = facts.volumes.emplace_back();
    at_rest.volume = &volume;
    at_rest.group_load = cluster_.group_load(volume);
    for (const auto& [node, report] : cluster_.reports()) {
      const auto found = report.replicas.find(volume.metadata.id);
      if (found == report.replicas.end()) continue;
      for (const auto& [id, replica] : found->second) at_rest.used_bytes[id] = replica->allocated_bytes();
    }
  }
  return facts;
}

void Balancer::suggest(const RebalancePlan& plan) {
  const bool is_on = cluster_.settings().rebalance == Rebalance::kOn;
  const std::map<std::string, std::string> before = std::exchange(suggestions_, {});
  for (const auto& [pool, text] : before) {
    if (!plan.uneven_pools.contains(pool)) {
      events_.add(Events::Severity::kNormal, key_of(Pool::kKind, pool), "Balanced", "it is filled as others are");
    } else if (busy_at_.contains(pool)) {
      suggestions_[pool] = text;
    }
  }
  for (const Move& move : plan.moves) {
    suggestions_[move.from] = fmt::format(
        "{}: {}", text_of(move),
        is_on ? fmt::format("a replica of volume {} moves there", move.volume)
              : fmt::format("moving a replica of volume {} there would help; 'fairlead settings set --rebalance on' "
                            "has this done",
                            move.volume));
    if (before.contains(move.from)) continue;
    events_.add(Events::Severity::kNormal, key_of(Pool::kKind, move.from), "Unbalanced", suggestions_[move.from]);
  }
}

// As it is under the lock, the volume may not be whole any more.
Task<Outcome<void>> Balancer::begin(Move move) {
  const Mutex::Guard guard = co_await cluster_.lock();
  const Kept<Volume>* const kept = cluster_.find<Volume>(move.volume);
  if (cluster_.settings().rebalance != Rebalance::kOn) co_return Outcome<void>();
  if (kept == nullptr || !is_whole(kept->value, reconciler_.conditions(move.volume))) co_return Outcome<void>();
  Volume next = kept->value;
  const auto replica = std::ranges::find(next.decision.replicas, move.replica, &PlacedReplica::id);
  if (replica == next.decision.replicas.end()) co_return Outcome<void>();
  replica->move_to = move.to;
  Changes changes;
  changes.put(std::move(next));
  FL_CO_TRY_VOID(co_await cluster_.commit(std::move(changes)));
  events_.add(Events::Severity::kNormal, key_of(Volume::kKind, move.volume), "Rebalancing",
              fmt::format("its replica in pool {} moves to pool {}: {}", move.from, move.to, text_of(move)));
  reconciler_.mark(move.volume);
  co_return Outcome<void>();
}

}  // namespace fairlead::control
