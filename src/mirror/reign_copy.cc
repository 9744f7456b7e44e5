// What is copied: extents in which members may differ (rule 1), and what a replica that returns has missed (rule 4).
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "mirror/mutant.h"
#include "mirror/reign.h"

namespace fairlead::mirror {

// Adds what the replica says that it has written, or unmapped, since; false: it failed.
Task<bool> Reign::add_changes(Seat& of, ChangedRequest what, ExtentBits& into) {
  const uint64_t session = of.prepared.session.number;
  do {
    const Result<Reply> reply = co_await call(of, what);
    // A snapshot was deleted meanwhile.
    if (const Failed* failed = reply ? std::get_if<Failed>(&*reply) : nullptr;
        failed != nullptr && failed->code == Code::kNotFound) {
      co_return false;
    }
    const Ranges* const ranges = reply ? std::get_if<Ranges>(&*reply) : nullptr;
    if (ranges == nullptr || (ranges->next != 0 && ranges->next <= what.offset)) {
      lose(of, session, reply ? Error{.code = Code::kProtocol} : reply.error());
      co_return false;
    }
    for (const ByteSpan& range : ranges->ranges) {
      const uint64_t end = std::min((range.end + kExtentBytes - 1) / kExtentBytes, into.extents());
      for (uint64_t at = range.begin / kExtentBytes; at < end; ++at) into.set(at);
    }
    what.offset = ranges->next;
  } while (what.offset != 0);
  co_return true;
}

// Everything that any of those present was asked to write after its own note may be there and not elsewhere.
Task<bool> Reign::find_unlevel() {
  ExtentBits& unlevel = sides_.shared().unlevel;
  unlevel.reset(sides_.shared().extents());
  sides_.shared().touched.reset(unlevel.extents());
  if (is_mutant(Mutant::kDoesNotLevel)) co_return true;
  Seat& source = *find(source_);
  for (const ReplicaId& id : decision_.present.ids()) {
    if (id == source_) continue;
    Seat& seat = *find(id);
    const ChangedRequest since{.since = seat.prepared.note};
    if (!co_await add_changes(seat, since, unlevel) || !co_await add_changes(source, since, unlevel)) co_return false;
  }
  co_return true;
}

Task<void> Reign::leveller() {
  ExtentBits& unlevel = sides_.shared().unlevel;
  std::vector<uint64_t> levelled;
  for (uint64_t at = unlevel.next(0); at < unlevel.extents(); at = unlevel.next(at + 1)) levelled.push_back(at);
  Scope workers(home_.reactor);
  for (size_t i = 0; i < options_.copies_in_flight; ++i) workers.spawn(level_worker());
  co_await workers.close();
  if (is_ending() || unlevel.count() > 0) co_return;
  for (const auto& seat : seats_) {
    if (seat->standing != Standing::kMember) continue;
    if (!levelled.empty() && !co_await stamp_all(*seat, levelled)) continue;
    co_await tell_level(*seat);
  }
  is_level_ = true;
  note_change();
}

// It has every acknowledged write again.
Task<void> Reign::tell_level(Seat& seat) {
  seat.is_cold = false;
  if (seat.thinks_cold && co_await ask(seat, LevelledRequest{})) seat.thinks_cold = false;
}

// ---- Returns

Reign::Seat* Reign::source_for(const Seat& seat) const {
  Seat* found = nullptr;
  for (const auto& other : seats_) {
    if (other.get() == &seat || other->standing != Standing::kMember) continue;
    if (found == nullptr || other->peer.link->is_local()) found = other.get();
  }
  return found;
}

Task<void> Reign::bring_back(Seat& seat) {
  const uint64_t session = seat.prepared.session.number;
  const bool is_back = co_await bring_back_now(seat);
  if (is_back || is_ending() || !seat.has_session || seat.prepared.session.number != session) co_return;
  // Nothing is wrong with the replica itself: again from its note, a little later.
  constexpr Error kNoSource = {.code = Code::kUnreachable, .what = "no replica in step is left to copy from"};
  lose(seat, source_for(seat) == nullptr ? kNoSource : seat.last_error);
}

// In what it may differ from the members: since its note, or the snapshot that it has got since.
ChangedRequest Reign::changes_of(const Seat& seat) {
  ChangedRequest changes;
  changes.base = seat.base;
  if (seat.prepared.note != Stamp{}) changes.since = seat.prepared.note;
  return changes;
}

Task<bool> Reign::bring_back_now(Seat& seat) {
  const auto is_good = [this, &seat, session = seat.prepared.session.number] {
    return !is_ending() && seat.has_session && seat.prepared.session.number == session;
  };
  while (is_good() && !is_level_) co_await changed_.wait();
  if (!is_good()) co_return false;
  // What was left of an earlier session has ended by now.
  co_await sides_.detach(seat.peer.slot);
  if (!is_good()) co_return false;
  // First the snapshots, oldest first, while nobody else writes there.
  seat.stage = Seat::Stage::kSnapshots;
  seat.base = {};
  Snapshot seen;
  do {
    seen = last_snapshot_;
    if (!co_await copy_snapshots(seat) || !is_good()) co_return false;
  } while (!co_await begin_head(seat, seen));
  if (!is_good()) co_return false;
  const Result<void> attached = co_await sides_.attach(seat.peer.slot, *seat.peer.link);
  if (!attached || !is_good() || !co_await await_size(seat, sides_.shared().size_bytes)) co_return false;
  // From here on it receives every write; those that began before end first.
  SlotConfiguration& slot = sides_.configuration().slots[seat.peer.slot];
  slot.use = SlotUse::kCopied;
  slot.is_broken = false;
  co_await sides_.publish();
  if (!co_await sides_.drain(era_) || !is_good()) co_return false;
  Seat* const source = source_for(seat);
  if (source == nullptr) co_return false;
  ExtentBits wanted(sides_.shared().extents());
  const ChangedRequest changes = changes_of(seat);
  if (!is_mutant(Mutant::kComparesOneSide) && !co_await add_changes(seat, changes, wanted)) co_return false;
  if (!co_await add_changes(*source, changes, wanted)) co_return false;
  log_info("mirror.replica_returns", {{"volume", to_string(options_.volume)},
                                      {"replica", to_string(seat.peer.link->replica())},
                                      {"since", to_string(seat.prepared.note)},
                                      {"extents", wanted.count()}});
  if (!co_await copy_all(seat, wanted) || !is_good()) co_return false;
  // From here on acknowledgements need it; what began before has ended, and it has that too.
  slot.use = SlotUse::kNeeded;
  co_await sides_.publish();
  if (!co_await sides_.drain(era_) || co_await sides_.lacks(seat.peer.slot) || !is_good()) co_return false;
  // Hole H9: on stable storage before it may count.
  if (!co_await flush(seat) || !is_good()) co_return false;
  co_await tell_level(seat);
  if (!is_good()) co_return false;
  seat.standing = Standing::kReady;
  seat.stage = Seat::Stage::kNone;
  note_change();
  co_return true;
}

Task<bool> Reign::stamp_all(Seat& seat, std::vector<uint64_t> extents) {
  for (size_t at = 0; at < extents.size(); at += kStampsMax) {
    const size_t count = std::min(kStampsMax, extents.size() - at);
    const auto first = extents.begin() + static_cast<ptrdiff_t>(at);
    StampRequest request{.extents = {first, first + static_cast<ptrdiff_t>(count)}};
    if (!co_await ask(seat, std::move(request))) co_return false;
  }
  co_return true;
}

}  // namespace fairlead::mirror
