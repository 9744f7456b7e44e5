#include "control/group_cuts.h"

#include <algorithm>
#include <fmt/format.h>

#include "async/alarm.h"
#include "base/log.h"

namespace fairlead::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kLook = milliseconds(250);
constexpr Duration kGapMin = milliseconds(500);
constexpr Duration kGapMax = seconds(30);
// For a volume to be held. The others are held meanwhile, so it is short: whoever cannot now is asked again later.
constexpr Duration kHoldLimit = seconds(1);
// Hosts of one wait at most so long, should no word come.
constexpr Duration kHold = 2 * kHoldLimit;
constexpr Duration kLongLimit = seconds(30);
constexpr Duration kCallSlack = milliseconds(500);

uint64_t ms(Duration span) { return static_cast<uint64_t>(span / milliseconds(1)); }

}  // namespace

std::string GroupCuts::why(const std::string& group) const {
  const auto found = works_.find(group);
  return found == works_.end() ? std::string() : found->second.why;
}

Task<void> GroupCuts::run(CancelSource& ruling) {
  Scope scope(home_.reactor);
  while (!ruling.is_cancelled()) {
    begin_attempts(scope, ruling);
    const Alarm alarm(home_.reactor, changed_, home_.reactor.now() + kLook);
    co_await changed_.wait();
  }
  co_await scope.close();
}

// Of groups that share a volume one after the other: they would keep each other from holding it.
void GroupCuts::begin_attempts(Scope& scope, CancelSource& ruling) {
  std::map<std::string, std::set<std::string>> pending;  // volumes, by group
  for (const auto& [name, kept] : cluster_.snapshots()) {
    if (kept.value.is_of_unfinished_group()) pending[kept.value.spec.group].insert(kept.value.spec.volume);
  }
  std::erase_if(works_, [&](const auto& each) { return !each.second.is_busy && !pending.contains(each.first); });
  std::set<std::string> busy;
  for (const auto& [group, volumes] : pending) {
    if (works_[group].is_busy) busy.insert(volumes.begin(), volumes.end());
  }
  for (const auto& [group, volumes] : pending) {
    Work& work = works_[group];
    const auto is_busy = [&](const std::string& volume) { return busy.contains(volume); };
    if (home_.reactor.now() < work.again_at || std::ranges::any_of(volumes, is_busy)) continue;
    work.is_busy = true;
    busy.insert(volumes.begin(), volumes.end());
    scope.spawn(see_to(group, ruling));
  }
}

Task<void> GroupCuts::see_to(std::string group, CancelSource& ruling) {
  const Outcome<void> done = co_await advance(group);
  Work& work = works_[group];
  work.is_busy = false;
  changed_.release_waiters();
  if (done || ruling.is_cancelled()) {
    work = {};
    co_return;
  }
  work.gap = std::clamp(work.gap * 2, kGapMin, kGapMax);
  work.again_at = home_.reactor.now() + work.gap;
  const std::string why = to_string(done.error());
  if (work.why != why) events_.add(Events::Severity::kWarning, "snapshot-groups/" + group, "NotTaken", why);
  work.why = why;
}

// The next step; what it finds is as the last one, or another process, left it.
Task<Outcome<void>> GroupCuts::advance(std::string group) {
  bool is_begun = false;
  bool is_deleting = false;
  for (const auto& [name, kept] : cluster_.snapshots()) {
    if (kept.value.spec.group != group) continue;
    is_begun = is_begun || kept.value.is_begun;
    is_deleting = is_deleting || kept.value.metadata.deleting_since_ms != 0;
  }
  FL_CO_TRY(std::vector<Part> parts, parts_of(group));
  if (is_begun) co_return co_await clear(group, std::move(parts));
  if (is_deleting) {
    co_return co_await change_all(
        group, [](Changes& changes, const Snapshot& snapshot) { changes.remove<Snapshot>(snapshot.metadata.name); });
  }
  co_return co_await cut(group, std::move(parts));
}

Outcome<std::vector<GroupCuts::Part>> GroupCuts::parts_of(const std::string& group) const {
  std::vector<Part> parts;
  for (const auto& [name, kept] : cluster_.snapshots()) {
    const Snapshot& snapshot = kept.value;
    if (snapshot.spec.group != group) continue;
    const Kept<Volume>* const volume = cluster_.find<Volume>(snapshot.spec.volume);
    if (volume == nullptr) return problem(Code::kNotFound, fmt::format("there is no volume {}", snapshot.spec.volume));
    const VolumeFacts facts = cluster_.facts_of(snapshot.spec.volume, Cluster::Use::kShow);
    const std::string node = serving_node(facts);
    const auto at = facts.nodes.find(node);
    const bool is_serving = at != facts.nodes.end() && at->second.is_ready && at->second.volume != nullptr &&
                            at->second.volume->role() == api::VolumeState::SERVING;
    if (!is_serving && (snapshot.is_begun || snapshot.metadata.deleting_since_ms == 0)) {
      return problem(Code::kUnreachable, fmt::format("volume {} is not served now", snapshot.spec.volume));
    }
    parts.push_back({.snapshot = name,
                     .id = snapshot.metadata.id,
                     .volume = snapshot.spec.volume,
                     .volume_id = volume->value.metadata.id,
                     .node = node});
  }
  return parts;
}

// What an attempt left that was not seen to succeed.
Task<Outcome<void>> GroupCuts::clear(std::string group, std::vector<Part> parts) {
  FL_CO_TRY_VOID(co_await call_all(Call::kDelete, parts));
  co_return co_await change_all(group, [this](Changes& changes, const Snapshot& snapshot) {
    Snapshot next = snapshot;
    next.is_begun = false;
    next.metadata.id = home_.random.uuid();
    changes.put(std::move(next));
  });
}

Task<Outcome<void>> GroupCuts::cut(std::string group, std::vector<Part> parts) {
  FL_CO_TRY_VOID(co_await change_all(group, [](Changes& changes, const Snapshot& snapshot) {
    Snapshot next = snapshot;
    next.is_begun = true;
    changes.put(std::move(next));
  }));
  const Instant since = home_.reactor.now();
  Outcome<void> done = co_await call_all(Call::kHold, parts);
  const uint64_t taken_ms = home_.clock.wall_ms();
  if (done) done = co_await call_all(Call::kTake, parts);
  if (!done) {
    // Hosts are not to wait for the hold to run out.
    (void)co_await clear(group, std::move(parts));
    co_return done;
  }
  const Duration held = home_.reactor.now() - since;
  FL_CO_TRY_VOID(co_await change_all(group, [&](Changes& changes, const Snapshot& snapshot) {
    const Kept<Volume>* const volume = cluster_.find<Volume>(snapshot.spec.volume);
    Snapshot next = snapshot;
    next.is_begun = false;
    next.is_taken = true;
    next.taken_ms = taken_ms;
    next.size_bytes = volume == nullptr ? 0 : volume->value.spec.size_bytes;
    changes.put(std::move(next));
  }));
  events_.add(Events::Severity::kNormal, "snapshot-groups/" + group, "Taken",
              fmt::format("taken of {} volumes at one moment, within {} ms", parts.size(), ms(held)));
  co_return Outcome<void>();
}

// ---- Calls and changes

Task<Outcome<void>> GroupCuts::call_all(Call call, const std::vector<Part>& parts) {
  std::vector<Outcome<void>> done(parts.size());
  Scope calls(home_.reactor);
  for (size_t i = 0; i < parts.size(); ++i) calls.spawn(call_one(call, parts[i], done[i]));
  co_await calls.close();
  const auto failed = std::ranges::find_if(done, [](const Outcome<void>& each) { return !each; });
  co_return failed == done.end() ? Outcome<void>() : *failed;
}

Task<void> GroupCuts::call_one(Call call, Part part, Outcome<void>& done) {
  const auto outcome = [&](const Outcome<api::Done>& answer) -> Outcome<void> {
    if (answer) return {};
    return problem(answer.error().error.code, fmt::format("volume {}: {}", part.volume, to_string(answer.error())));
  };
  if (call == Call::kHold) {
    api::HoldForSnapshotRequest request;
    request.set_volume(to_string(part.volume_id));
    request.set_snapshot(to_string(part.id));
    request.set_limit_ms(ms(kHoldLimit));
    request.set_hold_ms(ms(kHold));
    done = outcome(
        co_await engines_.call<api::Done>(part.node, "HoldForSnapshot", std::move(request), kHoldLimit + kCallSlack));
    co_return;
  }
  const Duration limit = call == Call::kTake ? kHold : kLongLimit;
  api::SnapshotRequest request;
  request.set_volume(to_string(part.volume_id));
  request.set_snapshot(to_string(part.id));
  request.set_limit_ms(ms(limit));
  done = outcome(co_await engines_.call<api::Done>(
      part.node, call == Call::kTake ? "TakeHeldSnapshot" : "DeleteSnapshot", std::move(request), limit + kCallSlack));
}

// Of the group's snapshots, as they are now; nothing when they are not what they were at the beginning of the step.
template <typename Change>
Task<Outcome<void>> GroupCuts::change_all(std::string group, Change change) {
  const Mutex::Guard guard = co_await cluster_.lock();
  Changes changes;
  for (const auto& [name, kept] : cluster_.snapshots()) {
    if (kept.value.spec.group == group) change(changes, kept.value);
  }
  co_return co_await cluster_.commit(std::move(changes));
}

}  // namespace fairlead::control
