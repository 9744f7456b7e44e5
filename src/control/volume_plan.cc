#include "control/volume_plan.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"
#include "base/units.h"

namespace fairlead::control {
namespace {

using Kind = Action::Kind;
using Stage = PlacedReplica::Stage;
using Role = api::VolumeState;
using Standing = api::VolumeState::Replica;

constexpr Duration kLookAgain = std::chrono::seconds(1);
// A take-over that finds what it needs is over by then.
constexpr uint64_t kLeavingPatienceMs = 3000;
constexpr uint64_t kSnapshotPatienceMs = 3000;  // until every engine that can be reached has reported it

bool is_target_role(Role::Role role) {
  return role == Role::STARTING || role == Role::SUSPENDED || role == Role::SERVING;
}
bool is_settled(const api::Record& record) { return std::ranges::equal(record.members(), record.prior()); }
bool has_member(const api::Record& record, const Uuid& id) {
  return std::ranges::find(record.members(), to_string(id)) != record.members().end();
}

class Planner {
 public:
  Planner(const VolumeFacts& facts, Random& random)
      : facts_(facts), random_(random), volume_(facts.volume), decision_(volume_.decision) {}

  VolumePlan run() {
    if (volume_.metadata.deleting_since_ms != 0) {
      take_away();
    } else if (!decision_.is_formed) {
      form();
    } else {
      keep();
    }
    return std::move(plan_);
  }

 private:
  // ---- What there is

  const NodeFacts* node(const std::string& name) const {
    const auto found = facts_.nodes.find(name);
    return found == facts_.nodes.end() ? nullptr : &found->second;
  }
  bool is_ready(const std::string& name) const {
    const NodeFacts* const found = node(name);
    return found != nullptr && found->is_ready;
  }
  std::string node_of(const PlacedReplica& replica) const {
    const auto found = facts_.node_of_pool.find(replica.pool);
    return found == facts_.node_of_pool.end() ? std::string() : found->second;
  }
  bool is_made(const PlacedReplica& replica) const {
    return facts_.replicas.contains(replica.id) || facts_.made.contains(replica.id);
  }
  std::vector<const PlacedReplica*> replicas(Stage stage) const {
    std::vector<const PlacedReplica*> list;
    for (const PlacedReplica& replica : decision_.replicas) {
      if (replica.stage == stage) list.push_back(&replica);
    }
    return list;
  }
  const api::VolumeState* serving_state() const {
    const std::string at = serving_node(facts_);
    return at.empty() ? nullptr : node(at)->volume;
  }
  bool is_member(const PlacedReplica& replica) const {
    const api::VolumeState* const state = serving_state();
    return state != nullptr && state->role() == Role::SERVING && has_member(state->record(), replica.id);
  }
  const Standing* standing_of(const PlacedReplica& replica) const {
    const api::VolumeState* const state = serving_state();
    if (state == nullptr) return nullptr;
    const auto found = std::ranges::find(state->replicas(), to_string(replica.id), &Standing::id);
    return found == state->replicas().end() ? nullptr : &*found;
  }

  // ---- What comes of it

  void say(std::string type, bool is_met, std::string reason, std::string message,
           std::optional<uint64_t> eta_ms = std::nullopt) {
    plan_.conditions.push_back({.type = std::move(type),
                                .is_met = is_met,
                                .reason = std::move(reason),
                                .message = std::move(message),
                                .eta_ms = eta_ms,
                                .since_ms = 0});
  }
  VolumeDecision& decide() {
    if (!plan_.decision) plan_.decision = decision_;
    return *plan_.decision;
  }
  void act(Kind kind, const std::string& at, Uuid id = {}) {
    plan_.actions.push_back({.kind = kind, .node = at, .id = id, .replica = nullptr, .places = {}});
  }
  void make(const PlacedReplica& replica) {
    plan_.actions.push_back(
        {.kind = Kind::kCreateReplica, .node = node_of(replica), .id = replica.id, .replica = &replica, .places = {}});
  }
  void look_again(Duration in) { plan_.again_in = plan_.again_in ? std::min(*plan_.again_in, in) : in; }
  // Its engine cannot be told, or was asked to make it and may yet do so.
  void leave_behind(const PlacedReplica& replica) {
    Garbage garbage;
    garbage.metadata.name = to_string(replica.id);
    garbage.metadata.id = replica.id;
    garbage.metadata.created_ms = facts_.now_ms;
    garbage.node = node_of(replica);
    garbage.volume = volume_.metadata.name;
    plan_.garbage.push_back(std::move(garbage));
  }

  void take_away();
  void form();
  enum class Which : uint8_t { kAny, kThatIsToGo };
  bool place_first();
  void keep();
  bool choose_target();
  std::string best_target() const;
  bool lacks_its_replica(const std::string& name) const;
  bool choose_standbys();
  bool choose_replicas();
  bool add_replica();
  bool let_one_go(Which which);
  bool take_back();
  bool is_to_go(const PlacedReplica& replica) const;
  bool must_go(const PlacedReplica& replica) const;
  bool is_misplaced(const PlacedReplica& replica) const;
  const Labels* labels_of(const PlacedReplica& replica) const;
  bool can_be_spared(const PlacedReplica& replica) const;
  void make_joiners();
  void finish_leaving();
  std::vector<api::ReplicaPlace> places_for(const std::string& name) const;
  bool is_open_as_decided(const std::string& name) const;
  void open_and_serve();
  void serve_on_target();
  void close_elsewhere();
  void grow();
  bool has_old_term() const;
  void care_for_snapshots();
  void annotate();
  void describe();
  void describe_availability();
  void describe_redundancy();

  const VolumeFacts& facts_;
  Random& random_;
  const Volume& volume_;
  const VolumeDecision& decision_;
  VolumePlan plan_;
};

// ---- Its end

void Planner::take_away() {
  std::set<std::string> open_at;
  for (const auto& [name, facts] : facts_.nodes) {
    if (!facts.is_ready || facts.volume == nullptr) continue;
    open_at.insert(name);
    act(Kind::kClose, name);
  }
  size_t left = 0;
  for (const PlacedReplica& replica : decision_.replicas) {
    if (!is_made(replica)) {
      leave_behind(replica);
    } else {
      ++left;
      // Closed everywhere first: a target would take it for one that is lost.
      if (open_at.empty()) act(Kind::kDeleteReplica, node_of(replica), replica.id);
    }
  }
  plan_.is_gone = open_at.empty() && left == 0;
  if (!plan_.is_gone) look_again(kLookAgain);
  say("Available", false, "Deleting", fmt::format("it is being deleted: {} replicas are left", left));
}

// ---- Its beginning

bool Planner::place_first() {
  PlacementRequest request{.spec = volume_.spec, .count = volume_.spec.replicas, .group_load = facts_.group_load};
  std::map<std::string, Uuid> origins;  // of a clone, by pool
  if (!volume_.spec.source.empty()) {
    if (facts_.origin == nullptr || facts_.origin_snapshot == nullptr || !facts_.origin_snapshot->is_taken) {
      say("Placed", false, "NoSource", fmt::format("the snapshot {} is not there (yet)", volume_.spec.source));
      return false;
    }
    const std::string snapshot = to_string(facts_.origin_snapshot->metadata.id);
    for (const PlacedReplica& replica : facts_.origin->decision.replicas) {
      const auto report = facts_.replicas.find(replica.id);
      if (report == facts_.replicas.end()) continue;
      const auto& snapshots = report->second->snapshots();
      if (std::ranges::find(snapshots, snapshot, &api::Snapshot::id) == snapshots.end()) {
        if (facts_.now_ms - facts_.origin_snapshot->taken_ms >= kSnapshotPatienceMs) continue;
        // What is known of the replica may be older than the snapshot.
        say("Placed", false, "NoSource", fmt::format("waits to hear of the snapshot in pool {}", replica.pool));
        look_again(facts_.settings.report_interval);
        return false;
      }
      origins[replica.pool] = replica.id;
      request.pools_only.push_back(replica.pool);
    }
    if (request.pools_only.empty()) request.pools_only.emplace_back("-");
  }
  const auto pools = place_beginning(facts_.pools, std::move(request));
  if (!pools) {
    say("Placed", false, "NoRoom", to_string(pools.error()));
    return false;
  }
  for (const std::string& pool : *pools) {
    decide().replicas.push_back({.id = random_.uuid(),
                                 .pool = pool,
                                 .stage = Stage::kCreating,
                                 .since_ms = facts_.now_ms,
                                 .origin = origins.contains(pool) ? origins.at(pool) : Uuid{},
                                 .move_to = {}});
  }
  return true;
}

void Planner::form() {
  const std::vector<PlacedReplica>& placed = decision_.replicas;
  const auto is_hopeless = [this](const PlacedReplica& replica) {
    const NodeFacts* const at = node(node_of(replica));
    return at == nullptr || (at->is_lost && at->lost_for > facts_.settings.forming_patience);
  };
  if (placed.empty()) {
    if (!place_first()) look_again(kLookAgain);
    return say("Available", false, "Creating", "its replicas are being placed");
  }
  // Nothing was written to it yet: another set of replicas, with ids of their own.
  if (std::ranges::any_of(placed, is_hopeless)) {
    for (const PlacedReplica& replica : placed) leave_behind(replica);
    decide().replicas.clear();
    return say("Available", false, "Creating", "an engine was lost meanwhile: other replicas are being placed");
  }
  std::vector<std::string> missing;
  for (const PlacedReplica& replica : placed) {
    if (is_made(replica)) continue;
    missing.push_back(node_of(replica));
    if (is_ready(node_of(replica))) make(replica);
  }
  if (missing.empty()) {
    decide().is_formed = true;
    for (PlacedReplica& replica : decide().replicas) {
      replica.stage = Stage::kPresent;
      replica.since_ms = facts_.now_ms;
    }
    plan_.has_formed = true;
    return say("Available", false, "Creating", "its replicas are there; its target comes next");
  }
  std::string text = fmt::format("its replicas are being made on {}", fmt::join(missing, ", "));
  for (const std::string& name : missing) {
    const auto failure = facts_.failures.find(name);
    if (failure != facts_.failures.end()) text += fmt::format("; {} says: {}", name, failure->second);
  }
  say("Available", false, "Creating", std::move(text));
  look_again(kLookAgain);
}

// ---- Its life

void Planner::keep() {
  if (!choose_replicas() && !choose_target() && !choose_standbys()) {
    make_joiners();
    open_and_serve();
    grow();
    if (has_old_term()) act(Kind::kRenewTerm, serving_node(facts_));
    care_for_snapshots();
    annotate();
    close_elsewhere();
    finish_leaving();
  }
  describe();
}

// Those that hold nothing of it serve it only when they are asked to by name.
std::string Planner::best_target() const {
  std::string best;
  int best_rank = -1;
  for (const auto& [name, facts] : facts_.nodes) {
    if (!facts.is_ready || facts.is_draining) continue;
    const auto has = [&](const PlacedReplica& replica) {
      return replica.stage == Stage::kPresent && node_of(replica) == name;
    };
    const auto local = std::ranges::find_if(decision_.replicas, has);
    const bool is_preferred = name == volume_.spec.preferred_node;
    if ((local == decision_.replicas.end() && !is_preferred) || lacks_its_replica(name)) continue;
    // A host has a path to where it is open: that comes first when the target is lost. One that serves it goes on.
    int rank = facts.volume != nullptr ? 8 : 0;
    if (facts.volume != nullptr && is_target_role(facts.volume->role())) rank += 16;
    if (is_preferred) rank += 4;
    if (facts.takes_more) rank += 2;
    const auto report = local == decision_.replicas.end() ? facts_.replicas.end() : facts_.replicas.find(local->id);
    if (report != facts_.replicas.end() && has_member(report->second->record(), local->id)) rank += 1;
    if (rank > best_rank) {
      best = name;
      best_rank = rank;
    }
  }
  return best;
}

// The volume cannot be opened on such a node: its disk is gone, or another's.
bool Planner::lacks_its_replica(const std::string& name) const {
  return std::ranges::any_of(decision_.replicas, [&](const PlacedReplica& replica) {
    return replica.stage == Stage::kPresent && node_of(replica) == name && !facts_.replicas.contains(replica.id) &&
           !facts_.made.contains(replica.id);
  });
}

bool Planner::choose_target() {
  const NodeFacts* const now = node(decision_.target);
  if (now != nullptr && !now->is_ready && !now->is_lost) {
    look_again(kLookAgain);
    return false;
  }
  const bool may_open = now != nullptr && now->run == decision_.target_run && !lacks_its_replica(decision_.target);
  const bool is_there = now != nullptr && now->is_ready && (now->volume != nullptr || may_open);
  const std::string& preferred = volume_.spec.preferred_node;
  bool is_to_move = !is_there || now->is_draining;
  if (!is_to_move && !preferred.empty() && decision_.target != preferred) {
    const NodeFacts* const wanted = node(preferred);
    const bool is_open = wanted != nullptr && wanted->is_ready && wanted->volume != nullptr;
    is_to_move = is_open && wanted->takes_more && is_open_as_decided(preferred);
  }
  if (!is_to_move) return false;
  const std::string best = is_there && !now->is_draining ? preferred : best_target();
  if (best.empty() || (best == decision_.target && node(best)->run == decision_.target_run)) return false;
  VolumeDecision& next = decide();
  next.target = best;
  next.target_run = node(best)->run;
  std::erase(next.standbys, best);
  return true;
}

bool Planner::choose_standbys() {
  std::vector<std::string> wanted;
  for (const std::string& name : decision_.standbys) {
    // One that is lost stays: it comes back.
    if (name != decision_.target && node(name) != nullptr && !node(name)->is_draining) wanted.push_back(name);
  }
  for (const PlacedReplica* const replica : replicas(Stage::kPresent)) {
    const std::string at = node_of(*replica);
    if (wanted.size() >= facts_.settings.standbys) break;
    if (at.empty() || at == decision_.target || node(at) == nullptr || node(at)->is_draining) continue;
    if (std::ranges::find(wanted, at) == wanted.end()) wanted.push_back(at);
  }
  // Those whose replica has gone make room for those that have one.
  std::erase_if(wanted, [this](const std::string& name) {
    return std::ranges::none_of(decision_.replicas,
                                [&](const PlacedReplica& replica) { return node_of(replica) == name; }) &&
           name != volume_.spec.preferred_node;
  });
  if (wanted == decision_.standbys) return false;
  decide().standbys = std::move(wanted);
  return true;
}

// ---- Which replicas

const Labels* Planner::labels_of(const PlacedReplica& replica) const {
  const auto pool = std::ranges::find(facts_.pools, replica.pool, &PoolCandidate::name);
  return pool == facts_.pools.end() ? nullptr : &pool->node_labels;
}

// It is where nothing of the volume may be, or too near to another that stays: something else was asked for meanwhile.
bool Planner::is_misplaced(const PlacedReplica& replica) const {
  const Topology& topology = volume_.spec.topology;
  const Labels* const labels = labels_of(replica);
  if (labels == nullptr) return false;
  if (!why_not_there(topology, *labels).empty()) return true;
  const std::vector<std::string> values = spread_values(topology, *labels);
  if (values.empty()) return false;
  for (const PlacedReplica& other : decision_.replicas) {
    // Of two the later one.
    if (other.id == replica.id) return false;
    if (other.stage == Stage::kLeaving || must_go(other) || labels_of(other) == nullptr) continue;
    const std::vector<std::string> taken = spread_values(topology, *labels_of(other));
    if (std::ranges::find_first_of(values, taken) != values.end()) return true;
  }
  return false;
}

// It is to have a successor, wherever there is room for one.
bool Planner::must_go(const PlacedReplica& replica) const {
  if (facts_.pools_to_leave.contains(replica.pool)) return true;
  const NodeFacts* const at = node(node_of(replica));
  if (at == nullptr) return true;
  if (at->is_lost && at->lost_for >= facts_.settings.replace_after) return true;
  // The node is there, and its disk is not, or is another.
  const auto missing = facts_.missing_for.find(replica.id);
  if (missing != facts_.missing_for.end() && missing->second >= facts_.settings.replace_after) return true;
  return is_misplaced(replica);
}

bool Planner::is_to_go(const PlacedReplica& replica) const { return !replica.move_to.empty() || must_go(replica); }

// Enough others have everything.
bool Planner::can_be_spared(const PlacedReplica& replica) const {
  const api::VolumeState* const state = serving_state();
  if (state == nullptr || state->role() != Role::SERVING || !is_settled(state->record())) return false;
  size_t others = 0;
  for (const PlacedReplica& each : decision_.replicas) {
    if (each.id != replica.id && each.stage == Stage::kPresent && is_member(each)) ++others;
  }
  if (others >= volume_.spec.replicas) return true;
  // One that is to go stays until its successor has everything: it may come back before.
  return others > 0 && !is_member(replica) &&
         std::ranges::none_of(decision_.replicas, [this](const PlacedReplica& each) {
           return each.stage != Stage::kLeaving && is_to_go(each);
         });
}

bool Planner::add_replica() {
  PlacementRequest request{.spec = volume_.spec, .count = 1, .group_load = facts_.group_load};
  const PlacedReplica* moved = nullptr;
  size_t active = 0;
  bool is_urgent = false;
  for (const PlacedReplica& replica : decision_.replicas) {
    const bool is_leaving = replica.stage == Stage::kLeaving || is_to_go(replica);
    (is_leaving ? request.nodes_leaving : request.nodes_taken).push_back(node_of(replica));
    if (replica.stage == Stage::kLeaving) continue;
    ++active;
    is_urgent = is_urgent || must_go(replica);
    if (!replica.move_to.empty()) moved = &replica;
  }
  if (is_urgent || active < volume_.spec.replicas) moved = nullptr;
  if (moved != nullptr) request.pools_only = {moved->move_to};
  const auto pools = place(facts_.pools, request);
  if (!pools && moved != nullptr) {
    // It was to be better there, and cannot be.
    for (PlacedReplica& replica : decide().replicas) replica.move_to.clear();
    return true;
  }
  if (!pools) {
    say("Placed", false, "NoRoom", to_string(pools.error()));
    look_again(kLookAgain);
    return false;
  }
  decide().replicas.push_back({.id = random_.uuid(),
                               .pool = pools->front(),
                               .stage = Stage::kCreating,
                               .since_ms = facts_.now_ms,
                               .origin = {},
                               .move_to = {}});
  return true;
}

// The one that is missed least: not in step, then the newest of these, then not the target's own, then of the fullest
// pool.
bool Planner::let_one_go(Which which) {
  const PlacedReplica* least = nullptr;
  std::array<double, 4> least_rank = {};
  for (const PlacedReplica& replica : decision_.replicas) {
    if (replica.stage == Stage::kLeaving || !can_be_spared(replica)) continue;
    if (which == Which::kThatIsToGo && !is_to_go(replica)) continue;
    const auto pool = std::ranges::find(facts_.pools, replica.pool, &PoolCandidate::name);
    const double fullness = pool == facts_.pools.end() || pool->capacity_bytes == 0
                                ? 1.0
                                : static_cast<double>(pool->promised_bytes) / static_cast<double>(pool->capacity_bytes);
    const bool is_in_step = is_member(replica);
    const std::array<double, 4> rank = {is_in_step ? 0.0 : 1.0,
                                        is_in_step ? 0.0 : static_cast<double>(replica.since_ms),
                                        node_of(replica) == decision_.target ? 0.0 : 1.0, fullness};
    if (least == nullptr || rank > least_rank) {
      least = &replica;
      least_rank = rank;
    }
  }
  if (least == nullptr) return false;
  const Uuid id = least->id;
  for (PlacedReplica& replica : decide().replicas) {
    if (replica.id != id) continue;
    replica.stage = Stage::kLeaving;
    replica.since_ms = facts_.now_ms;
  }
  return true;
}

bool Planner::choose_replicas() {
  size_t active = 0;
  size_t to_go = 0;
  for (const PlacedReplica& replica : decision_.replicas) {
    if (replica.stage == Stage::kLeaving) continue;
    ++active;
    if (is_to_go(replica)) ++to_go;
  }
  if (take_back()) return true;
  // One at a time: each costs a copy.
  const size_t wanted = volume_.spec.replicas + (to_go > 0 ? 1 : 0);
  if (active < wanted) return add_replica();
  // One at a time here too: of those that the last record names a majority is asked to go on without it.
  if (active == volume_.spec.replicas || !replicas(Stage::kLeaving).empty()) return false;
  return to_go > 0 ? let_one_go(Which::kThatIsToGo) : let_one_go(Which::kAny);
}

// What has gone on without it may turn out to be nothing: those that were to stay were lost first.
bool Planner::take_back() {
  const api::VolumeState* const state = serving_state();
  if (state != nullptr && state->role() == Role::SERVING) return false;
  for (const PlacedReplica* const replica : replicas(Stage::kLeaving)) {
    look_again(kLookAgain);
    if (!is_made(*replica) || facts_.now_ms - replica->since_ms < kLeavingPatienceMs) continue;
    const Uuid id = replica->id;
    for (PlacedReplica& each : decide().replicas) {
      if (each.id != id) continue;
      each.stage = Stage::kPresent;
      each.since_ms = facts_.now_ms;
    }
    return true;
  }
  return false;
}

void Planner::make_joiners() {
  for (const PlacedReplica& replica : decision_.replicas) {
    if (replica.stage != Stage::kCreating) continue;
    if (is_made(replica)) {
      for (PlacedReplica& each : decide().replicas) {
        if (each.id != replica.id) continue;
        each.stage = Stage::kPresent;
        each.since_ms = facts_.now_ms;
      }
    } else if (is_ready(node_of(replica))) {
      make(replica);
      look_again(kLookAgain);
    }
  }
}

// See the invariants.
void Planner::finish_leaving() {
  if (plan_.decision) return;
  for (const PlacedReplica* const replica : replicas(Stage::kLeaving)) {
    const api::VolumeState* const state = serving_state();
    look_again(kLookAgain);
    if (state == nullptr || state->role() != Role::SERVING || !is_settled(state->record())) continue;
    if (state->record().members().empty() || has_member(state->record(), replica->id)) continue;
    const std::string id = to_string(replica->id);
    const bool is_known = std::ranges::any_of(facts_.nodes, [&](const auto& each) {
      if (each.second.volume == nullptr) return false;
      const auto& places = each.second.volume->places();
      return std::ranges::find(places, id, &api::ReplicaPlace::replica) != places.end();
    });
    if (is_known) continue;
    if (is_ready(node_of(*replica)) && is_made(*replica)) {
      act(Kind::kDeleteReplica, node_of(*replica), replica->id);
      continue;
    }
    leave_behind(*replica);
    std::erase_if(decide().replicas, [&](const PlacedReplica& each) { return each.id == replica->id; });
    return;
  }
}

// ---- Where it is open

std::vector<api::ReplicaPlace> Planner::places_for(const std::string& name) const {
  std::vector<api::ReplicaPlace> places;
  for (const PlacedReplica* const replica : replicas(Stage::kPresent)) {
    const std::string at = node_of(*replica);
    const NodeFacts* const facts = node(at);
    if (facts == nullptr || (at != name && facts->data_address.empty())) continue;
    api::ReplicaPlace& place = places.emplace_back();
    place.set_replica(to_string(replica->id));
    if (at != name) place.set_address(facts->data_address);
  }
  return places;
}

bool Planner::is_open_as_decided(const std::string& name) const {
  const api::VolumeState* const open = node(name)->volume;
  if (open == nullptr) return false;
  const std::vector<api::ReplicaPlace> places = places_for(name);
  const auto is_same = [](const api::ReplicaPlace& a, const api::ReplicaPlace& b) {
    return a.replica() == b.replica() && a.address() == b.address();
  };
  return std::ranges::is_permutation(open->places(), places, is_same) &&
         open->resync_share() == volume_.spec.resync_share &&
         std::ranges::is_permutation(open->allowed_hosts(), volume_.spec.allowed_hosts);
}

void Planner::open_and_serve() {
  if (plan_.decision) return;
  std::vector<std::string> names = decision_.standbys;
  if (!decision_.target.empty()) names.insert(names.begin(), decision_.target);
  for (const std::string& name : names) {
    if (!is_ready(name)) continue;
    if (!is_open_as_decided(name)) {
      plan_.actions.push_back(
          {.kind = Kind::kOpen, .node = name, .id = {}, .replica = nullptr, .places = places_for(name)});
      look_again(kLookAgain);
    }
    if (name == decision_.target) serve_on_target();
  }
}

void Planner::serve_on_target() {
  bool is_had_by_another = false;
  for (const auto& [name, facts] : facts_.nodes) {
    if (name == decision_.target || !facts.is_ready || facts.volume == nullptr) continue;
    if (!is_target_role(facts.volume->role())) continue;
    // In order: what is under way there ends, and is noted. Also when the target serves already: hosts wait there.
    is_had_by_another = true;
    act(Kind::kStandBy, name);
    look_again(kLookAgain);
  }
  const api::VolumeState* const open = node(decision_.target)->volume;
  if (is_had_by_another || (open != nullptr && is_target_role(open->role()))) return;
  look_again(kLookAgain);
  act(Kind::kServe, decision_.target);
}

void Planner::close_elsewhere() {
  if (plan_.decision || serving_node(facts_) != decision_.target) return;
  for (const auto& [name, facts] : facts_.nodes) {
    if (!facts.is_ready || facts.volume == nullptr || name == decision_.target) continue;
    if (std::ranges::find(decision_.standbys, name) != decision_.standbys.end()) continue;
    act(Kind::kClose, name);
  }
}

void Planner::grow() {
  const api::VolumeState* const serving = serving_state();
  if (plan_.decision || serving == nullptr || serving->role() != Role::SERVING) return;
  if (serving->size_bytes() < volume_.spec.size_bytes) return act(Kind::kGrow, serving_node(facts_));
  for (const std::string& name : decision_.standbys) {
    if (!is_ready(name) || node(name)->volume == nullptr) continue;
    if (node(name)->volume->size_bytes() < volume_.spec.size_bytes) act(Kind::kGrow, name);
  }
}

// The witness counts when a target whose term its store gave out has told it of the members.
bool Planner::has_old_term() const {
  const api::VolumeState* const serving = serving_state();
  return !plan_.decision && serving != nullptr && serving->role() == Role::SERVING &&
         serving->term().number() < facts_.first_term;
}

void Planner::care_for_snapshots() {
  const api::VolumeState* const serving = serving_state();
  if (plan_.decision || serving == nullptr || serving->role() != Role::SERVING) return;
  for (const Snapshot* const snapshot : facts_.snapshots) {
    if (snapshot->is_of_unfinished_group()) continue;  // GroupCuts sees to it
    if (snapshot->metadata.deleting_since_ms != 0) {
      act(Kind::kDeleteSnapshot, serving_node(facts_), snapshot->metadata.id);
    } else if (!snapshot->is_taken) {
      act(Kind::kTakeSnapshot, serving_node(facts_), snapshot->metadata.id);
    }
  }
}

// What is known of the volume is known to its replicas, too: should the store be lost.
void Planner::annotate() {
  if (plan_.decision || facts_.annotation.empty()) return;
  for (const PlacedReplica* const replica : replicas(Stage::kPresent)) {
    const auto report = facts_.replicas.find(replica->id);
    if (report == facts_.replicas.end()) continue;
    const auto& annotations = report->second->annotations();
    const auto found = annotations.find("volume");
    if (found != annotations.end() && found->second == facts_.annotation) continue;
    act(Kind::kAnnotate, node_of(*replica), replica->id);
  }
}

// ---- For people

void Planner::describe_availability() {
  const std::string at = serving_node(facts_);
  const std::string& target = decision_.target;
  if (at.empty()) {
    if (target.empty()) {
      look_again(kLookAgain);
      return say("Available", false, "NoTarget", "no node that has a replica of it is ready: start one of them");
    }
    if (!is_ready(target)) {
      look_again(kLookAgain);
      if (node(target) != nullptr && !node(target)->is_lost) {
        return say("Available", false, "Unknown", fmt::format("nothing was heard of node {} yet", target));
      }
      return say("Available", false, "TargetLost", fmt::format("node {} is lost, and no other can serve it", target));
    }
    std::string text = fmt::format("{} is about to serve it", target);
    const auto failure = facts_.failures.find(target);
    if (failure != facts_.failures.end()) text += fmt::format("; it said: {}", failure->second);
    return say("Available", false, "Starting", std::move(text));
  }
  const api::VolumeState& state = *node(at)->volume;
  if (state.role() == Role::SERVING) {
    return say("Available", true, "Serving", fmt::format("{} serves it", at));
  }
  say("Available", false, state.role() == Role::SUSPENDED ? "Suspended" : "Starting",
      fmt::format("{} takes it over: {}", at, state.why().empty() ? "it asks the replicas" : state.why()));
}

void Planner::describe_redundancy() {
  std::vector<std::string> missing;
  std::optional<uint64_t> eta;
  size_t members = 0;
  const api::VolumeState* const state = serving_state();
  const bool is_known = state != nullptr && state->role() == Role::SERVING;  // else nobody is a member
  for (const PlacedReplica& replica : decision_.replicas) {
    if (replica.stage == Stage::kLeaving) continue;
    if (is_member(replica)) {
      ++members;
      continue;
    }
    const std::string at = node_of(replica);
    const Standing* const standing = standing_of(replica);
    if (replica.stage == Stage::kCreating) {
      missing.push_back(fmt::format("the one on {} is being made", at));
    } else if (standing != nullptr && standing->standing() == Standing::RETURNING) {
      missing.push_back(fmt::format("the one on {} is brought up to date, {} of {} copied", at,
                                    format_size(standing->copied_bytes()), format_size(standing->to_copy_bytes())));
      eta = std::max(eta.value_or(0), standing->copy_left_ms());
    } else if (!is_ready(at)) {
      missing.push_back(fmt::format("node {} is lost; it gets a successor when it is away for long", at));
      look_again(facts_.settings.replace_after);
    } else if (facts_.missing_for.contains(replica.id)) {
      missing.push_back(
          fmt::format("{} does not have the one in pool {}; it gets a successor when that lasts", at, replica.pool));
      look_again(facts_.settings.replace_after);
    } else if (is_known) {
      missing.push_back(fmt::format("the one on {} is away{}{}", at,
                                    standing != nullptr && !standing->last_error().empty() ? ": " : "",
                                    standing != nullptr ? standing->last_error() : ""));
    }
  }
  if (members >= volume_.spec.replicas && has_old_term()) {
    return say("Redundant", false, "WitnessNew", "all replicas have everything; the witness has not heard of them yet");
  }
  if (members >= volume_.spec.replicas) {
    return say("Redundant", true, "InStep",
               fmt::format("{} of {} replicas have everything", members, volume_.spec.replicas));
  }
  const std::string text =
      fmt::format("{}{}{}",
                  is_known ? fmt::format("{} of {} replicas have everything", members, volume_.spec.replicas)
                           : "which replicas have everything is known when it is served",
                  missing.empty() ? "" : ": ", fmt::join(missing, "; "));
  say("Redundant", false, !is_known ? "Unknown" : eta ? "Resyncing" : "Degraded", text, eta);
}

void Planner::describe() {
  describe_availability();
  describe_redundancy();
  if (std::ranges::none_of(plan_.conditions, [](const Condition& each) { return each.type == "Placed"; })) {
    say("Placed", true, "Placed", fmt::format("{} replicas are placed", decision_.replicas.size()));
  }
  const bool is_settled_now = !plan_.decision && plan_.actions.empty();
  say("Settled", is_settled_now, is_settled_now ? "AsAsked" : "Changing",
      is_settled_now ? "nothing is to be done" : "it is being made as it was asked for");
}

}  // namespace

std::string_view name_of(Action::Kind kind) {
  static constexpr std::array<std::string_view, 11> kNames = {
      "create replica", "delete replica", "open",          "close",           "serve",   "stand by",
      "grow",           "renew term",     "take snapshot", "delete snapshot", "annotate"};
  return kNames.at(static_cast<size_t>(kind));
}

std::string serving_node(const VolumeFacts& facts) {
  std::string best;
  uint64_t best_term = 0;
  for (const auto& [name, node] : facts.nodes) {
    if (!node.is_ready || node.volume == nullptr || !is_target_role(node.volume->role())) continue;
    if (!best.empty() && node.volume->term().number() <= best_term) continue;
    best = name;
    best_term = node.volume->term().number();
  }
  return best;
}

VolumePlan plan_volume(const VolumeFacts& facts, Random& random) { return Planner(facts, random).run(); }

}  // namespace fairlead::control
