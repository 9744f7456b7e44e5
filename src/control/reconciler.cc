#include "control/reconciler.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "control/recover.h"
#include "control/witness.h"

namespace fairlead::control {
namespace {

using Kind = Action::Kind;
using std::chrono::milliseconds;
using std::chrono::seconds;

// What may have to wait for hosts, or for replicas.
constexpr Duration kLongLimit = seconds(30);
// An engine tells what has become of a call soon after it: it is asked nothing more of the volume before.
constexpr Duration kReportPatience = milliseconds(300);
constexpr Duration kRetryMin = milliseconds(100);
constexpr Duration kRetryMax = seconds(10);

std::string volume_key(const std::string& name) { return key_of(Volume::kKind, name); }

api::Record first_record(const VolumeDecision& decision) {
  api::Record record;
  record.mutable_at()->mutable_term()->set_number(1);
  for (const PlacedReplica& replica : decision.replicas) record.add_members(to_string(replica.id));
  std::ranges::sort(*record.mutable_members());
  *record.mutable_prior() = record.members();
  return record;
}

}  // namespace

// What is under way for a volume.
struct Reconciler::Work {
  bool is_looked_at = false;
  bool is_marked_again = false;
  std::set<std::string> busy;                 // nodes
  std::map<std::string, Instant> answered;    // nodes whose report is waited for, since
  std::map<std::string, Instant> retry_at;    // nodes that failed
  std::map<std::string, Duration> retry_gap;  // likewise
  std::map<std::string, std::string> failures;
  std::set<Uuid> made;
  std::map<Uuid, Instant> missing;  // replicas that their nodes do not show, since
  std::vector<Condition> conditions;
  uint64_t alarm = 0;  // of the last look_again
};

Reconciler::Reconciler(Shard& home, Cluster& cluster, Engines& engines, Events& events, const ControlSettings& settings)
    : home_(home),
      cluster_(cluster),
      engines_(engines),
      events_(events),
      settings_(settings),
      marked_(home.reactor),
      changed_(home.reactor),
      scope_(home.reactor) {}

Reconciler::~Reconciler() = default;

void Reconciler::start() {
  mark_all();
  scope_.spawn(run());
}

Task<void> Reconciler::stop() {
  stopping_.cancel();
  marked_.set();
  co_await scope_.close();
}

void Reconciler::mark(const std::string& volume) {
  marks_.insert(volume);
  marked_.set();
}

void Reconciler::mark_all() {
  for (const auto& [name, volume] : cluster_.volumes()) mark(name);
}

void Reconciler::node_reported(const std::string& node) {
  for (auto& [name, work] : works_) {
    if (work->answered.erase(node) > 0) mark(name);
  }
}

std::vector<Condition> Reconciler::conditions(const std::string& volume) const {
  const auto found = works_.find(volume);
  return found == works_.end() ? std::vector<Condition>() : found->second->conditions;
}

Reconciler::Work& Reconciler::work_of(const std::string& volume) {
  std::shared_ptr<Work>& work = works_[volume];
  if (work == nullptr) work = std::make_shared<Work>();
  return *work;
}

Task<void> Reconciler::run() {
  while (true) {
    co_await marked_.wait();
    if (stopping_.is_cancelled()) co_return;
    marked_.reset();
    const std::set<std::string> marks = std::exchange(marks_, {});
    for (const std::string& name : marks) {
      if (cluster_.find<Volume>(name) == nullptr) {
        works_.erase(name);
        continue;
      }
      Work& work = work_of(name);
      if (work.is_looked_at) {
        work.is_marked_again = true;
      } else {
        work.is_looked_at = true;
        scope_.spawn(look_at(name));
      }
    }
  }
}

VolumePlan Reconciler::plan_of(const std::string& volume) {
  Work& work = work_of(volume);
  VolumeFacts facts = cluster_.facts_of(volume, Cluster::Use::kPlan);
  std::erase_if(work.made, [&](const Uuid& id) { return facts.replicas.contains(id); });
  facts.made = work.made;
  facts.failures = work.failures;
  std::map<Uuid, Instant> missing;
  const Instant now = home_.reactor.now();
  for (const PlacedReplica& replica : facts.volume.decision.replicas) {
    const auto node = facts.node_of_pool.find(replica.pool);
    if (node == facts.node_of_pool.end() || !cluster_.is_ready(node->second)) continue;
    if (replica.stage != PlacedReplica::Stage::kPresent || facts.replicas.contains(replica.id)) continue;
    if (work.made.contains(replica.id)) continue;
    const auto since = work.missing.find(replica.id);
    missing[replica.id] = since == work.missing.end() ? now : since->second;
    facts.missing_for[replica.id] = now - missing[replica.id];
  }
  work.missing = std::move(missing);
  return plan_volume(facts, home_.random);
}

Task<void> Reconciler::look_at(std::string volume) {
  const std::shared_ptr<Work> work = works_.at(volume);
  do {
    work->is_marked_again = false;
    if (stopping_.is_cancelled() || cluster_.find<Volume>(volume) == nullptr) break;
    VolumePlan plan = plan_of(volume);
    take_conditions(volume, *work, plan.conditions);
    if (plan.decision || plan.is_gone) {
      work->is_marked_again = true;
      if (!co_await keep(volume)) (void)co_await sleep(home_.reactor, kRetryMin, stopping_);
      continue;
    }
    start_actions(volume, *work, std::move(plan.actions));
    if (!plan.again_in || stopping_.is_cancelled()) continue;
    // The last alarm counts.
    scope_.spawn(mark_later(volume, *plan.again_in, work, ++work->alarm));
  } while (work->is_marked_again);
  work->is_looked_at = false;
}

// `alarm`: unless another one was set meanwhile; 0: in any case.
Task<void> Reconciler::mark_later(std::string volume, Duration span, std::shared_ptr<Work> work, uint64_t alarm) {
  (void)co_await sleep(home_.reactor, span, stopping_);
  if (alarm == 0 || work->alarm == alarm) mark(volume);
}

// Under the lock it is planned once more: what is kept follows from what is. False: it could not be kept.
Task<bool> Reconciler::keep(std::string volume) {
  const Mutex::Guard guard = co_await cluster_.lock();
  const Kept<Volume>* const kept = cluster_.find<Volume>(volume);
  if (kept == nullptr) co_return true;
  VolumePlan plan = plan_of(volume);
  if (!plan.decision && !plan.is_gone) co_return true;
  Changes changes;
  Volume next = kept->value;
  if (plan.is_gone) {
    changes.remove<Volume>(volume);
    changes.write(WitnessService::removal(next.metadata.id));
  } else {
    next.decision = *plan.decision;
    if (plan.has_formed) changes.write(WitnessService::first_vote(next.metadata.id, first_record(next.decision)));
  }
  for (Garbage& garbage : plan.garbage) changes.put(std::move(garbage));
  if (!plan.is_gone) changes.put(next);
  const std::string target = kept->value.decision.target;
  const Outcome<void> done = co_await cluster_.commit(std::move(changes));
  if (!done) {
    log_warn("control.not_kept", {{"volume", volume}, {"error", to_string(done.error())}});
    co_return false;
  }
  if (plan.is_gone) {
    events_.add(Events::Severity::kNormal, volume_key(volume), "Deleted", "it is gone, with all its replicas");
  } else if (next.decision.target != target) {
    events_.add(target.empty() ? Events::Severity::kNormal : Events::Severity::kWarning, volume_key(volume),
                "TargetChosen",
                target.empty() ? fmt::format("{} is to serve it", next.decision.target)
                               : fmt::format("{} is to serve it instead of {}", next.decision.target, target));
  }
  co_return true;
}

void Reconciler::take_conditions(const std::string& volume, Work& work, std::vector<Condition> conditions) {
  const uint64_t now = home_.clock.wall_ms();
  bool has_changed = conditions.size() != work.conditions.size();
  for (Condition& condition : conditions) {
    const auto before = std::ranges::find(work.conditions, condition.type, &Condition::type);
    const bool is_same =
        before != work.conditions.end() && before->is_met == condition.is_met && before->reason == condition.reason;
    condition.since_ms = is_same ? before->since_ms : now;
    has_changed = has_changed || !is_same || before->message != condition.message;
    if (is_same || condition.type == "Settled") continue;
    if (before == work.conditions.end() && condition.is_met) continue;
    events_.add(condition.is_met ? Events::Severity::kNormal : Events::Severity::kWarning, volume_key(volume),
                condition.reason, condition.message);
  }
  work.conditions = std::move(conditions);
  if (has_changed) changed_.release_waiters();
}

void Reconciler::start_actions(const std::string& volume, Work& work, std::vector<Action> actions) {
  const Instant now = home_.reactor.now();
  std::map<std::string, std::vector<Action>> by_node;
  for (Action& action : actions) by_node[action.node].push_back(std::move(action));
  for (auto& [node, list] : by_node) {
    if (work.busy.contains(node)) continue;
    const auto answered = work.answered.find(node);
    if (answered != work.answered.end() && now - answered->second < kReportPatience) continue;
    const auto retry = work.retry_at.find(node);
    if (retry != work.retry_at.end() && now < retry->second) continue;
    work.busy.insert(node);
    scope_.spawn(act(volume, node, std::move(list)));
  }
}

Task<void> Reconciler::act(std::string volume, std::string node, std::vector<Action> actions) {
  const std::shared_ptr<Work> work = works_.at(volume);
  const Kept<Volume>* const kept = cluster_.find<Volume>(volume);
  // As it was planned for.
  const Volume of = kept == nullptr ? Volume{} : kept->value;
  Outcome<void> done;
  for (const Action& action : actions) {
    if (stopping_.is_cancelled() || kept == nullptr) break;
    done = co_await carry_out(of, action);
    log_debug("control.action", {{"volume", volume},
                                 {"node", node},
                                 {"action", name_of(action.kind)},
                                 {"error", done ? std::string() : to_string(done.error())}});
    if (!done) {
      const std::string text = fmt::format("{}: {}", name_of(action.kind), to_string(done.error()));
      if (work->failures[node] != text) {
        events_.add(Events::Severity::kWarning, volume_key(volume), "CallFailed", fmt::format("{} {}", node, text));
      }
      work->failures[node] = text;
      break;
    }
    if (action.kind == Kind::kCreateReplica) work->made.insert(action.id);
    if (action.kind == Kind::kDeleteReplica) work->made.erase(action.id);
  }
  work->busy.erase(node);
  if (done) {
    work->failures.erase(node);
    work->retry_at.erase(node);
    work->retry_gap.erase(node);
    work->answered[node] = home_.reactor.now();
    scope_.spawn(mark_later(volume, kReportPatience, work, 0));
  } else {
    Duration& gap = work->retry_gap[node];
    gap = std::clamp(gap * 2, kRetryMin, kRetryMax);
    work->retry_at[node] = home_.reactor.now() + gap;
    scope_.spawn(mark_later(volume, gap, work, 0));
  }
  mark(volume);
}

// ---- Calls

Task<Outcome<void>> Reconciler::create_replica(const Volume& volume, const Action& action) {
  api::CreateReplicaRequest request;
  request.set_id(to_string(action.id));
  request.set_volume(to_string(volume.metadata.id));
  request.set_size_bytes(volume.spec.size_bytes);
  request.set_is_thick(!volume.spec.is_thin);
  // From these the store can be made anew.
  (*request.mutable_annotations())[kVolumeAnnotation] = annotation_of(volume);
  for (const PlacedReplica& replica : volume.decision.replicas) {
    if (replica.id == action.id) {
      request.set_pool(replica.pool);
      if (!replica.origin.is_nil()) {
        request.set_origin_replica(to_string(replica.origin));
        if (const Kept<Snapshot>* const origin = cluster_.find<Snapshot>(volume.spec.source)) {
          request.set_origin_snapshot(to_string(origin->value.metadata.id));
        }
      }
    }
    if (!volume.decision.is_formed) request.add_members(to_string(replica.id));
  }
  FL_CO_TRY_VOID(co_await engines_.call<api::Done>(action.node, "CreateReplica", std::move(request), kLongLimit));
  co_return Outcome<void>();
}

Task<Outcome<void>> Reconciler::open(const Volume& volume, const Action& action) {
  api::OpenVolumeRequest request;
  request.set_id(to_string(volume.metadata.id));
  request.set_size_bytes(volume.spec.size_bytes);
  for (const api::ReplicaPlace& place : action.places) *request.add_places() = place;
  for (const std::string& host : volume.spec.allowed_hosts) request.add_allowed_hosts(host);
  request.set_resync_share(volume.spec.resync_share);
  FL_CO_TRY_VOID(
      co_await engines_.call<api::Done>(action.node, "OpenVolume", std::move(request), settings_.call_limit));
  co_return Outcome<void>();
}

// What was done is kept at once: that it was is not to be seen later.
Task<Outcome<void>> Reconciler::snapshot(const Volume& volume, const Action& action) {
  const bool is_taken = action.kind == Kind::kTakeSnapshot;
  api::SnapshotRequest request;
  request.set_volume(to_string(volume.metadata.id));
  request.set_snapshot(to_string(action.id));
  request.set_limit_ms(static_cast<uint64_t>(kLongLimit / milliseconds(1)));
  FL_CO_TRY_VOID(co_await engines_.call<api::Done>(action.node, is_taken ? "TakeSnapshot" : "DeleteSnapshot",
                                                   std::move(request), kLongLimit + settings_.call_limit));
  const Mutex::Guard guard = co_await cluster_.lock();
  for (const auto& [name, kept] : cluster_.snapshots()) {
    if (kept.value.metadata.id != action.id) continue;
    Changes changes;
    if (is_taken) {
      Snapshot next = kept.value;
      next.is_taken = true;
      next.taken_ms = home_.clock.wall_ms();
      next.size_bytes = volume.spec.size_bytes;
      changes.put(std::move(next));
    } else {
      changes.remove<Snapshot>(name);
    }
    events_.add(Events::Severity::kNormal, key_of(Snapshot::kKind, name), is_taken ? "Taken" : "Deleted",
                fmt::format("{} {}", is_taken ? "taken of volume" : "is gone from volume", volume.metadata.name));
    co_return co_await cluster_.commit(std::move(changes));
  }
  co_return Outcome<void>();
}

Task<Outcome<void>> Reconciler::carry_out(const Volume& volume, const Action& action) {
  api::VolumeRequest plain;
  plain.set_id(to_string(volume.metadata.id));
  switch (action.kind) {
    case Kind::kCreateReplica:
      co_return co_await create_replica(volume, action);
    case Kind::kDeleteReplica: {
      api::DeleteReplicaRequest request;
      request.set_id(to_string(action.id));
      FL_CO_TRY_VOID(co_await engines_.call<api::Done>(action.node, "DeleteReplica", std::move(request), kLongLimit));
      co_return Outcome<void>();
    }
    case Kind::kOpen:
      co_return co_await open(volume, action);
    case Kind::kClose: {
      FL_CO_TRY_VOID(co_await engines_.call<api::Done>(action.node, "CloseVolume", std::move(plain), kLongLimit));
      co_return Outcome<void>();
    }
    case Kind::kServe: {
      FL_CO_TRY_VOID(
          co_await engines_.call<api::Done>(action.node, "ServeVolume", std::move(plain), settings_.call_limit));
      co_return Outcome<void>();
    }
    case Kind::kStandBy: {
      FL_CO_TRY_VOID(co_await engines_.call<api::Done>(action.node, "StandBy", std::move(plain), kLongLimit));
      co_return Outcome<void>();
    }
    case Kind::kRenewTerm: {
      FL_CO_TRY_VOID(
          co_await engines_.call<api::Done>(action.node, "RenewTerm", std::move(plain), settings_.call_limit));
      co_return Outcome<void>();
    }
    case Kind::kGrow: {
      api::GrowVolumeRequest request;
      request.set_id(to_string(volume.metadata.id));
      request.set_size_bytes(volume.spec.size_bytes);
      request.set_limit_ms(static_cast<uint64_t>(kLongLimit / milliseconds(1)));
      FL_CO_TRY_VOID(co_await engines_.call<api::Done>(action.node, "GrowVolume", std::move(request),
                                                       kLongLimit + settings_.call_limit));
      co_return Outcome<void>();
    }
    case Kind::kAnnotate: {
      api::SetAnnotationsRequest request;
      request.set_replica(to_string(action.id));
      (*request.mutable_annotations())[kVolumeAnnotation] = annotation_of(volume);
      FL_CO_TRY_VOID(
          co_await engines_.call<api::Done>(action.node, "SetAnnotations", std::move(request), settings_.call_limit));
      co_return Outcome<void>();
    }
    case Kind::kTakeSnapshot:
    case Kind::kDeleteSnapshot:
      co_return co_await snapshot(volume, action);
  }
  co_return problem(Code::kInternal, "there is no such action");
}

}  // namespace fairlead::control
