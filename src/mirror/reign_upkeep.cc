// While it serves: checkpoints (rule 5) and leases (rule 6).
#include <algorithm>

#include "base/log.h"
#include "mirror/mutant.h"
#include "mirror/reign.h"

namespace fairlead::mirror {

Task<void> Reign::upkeep() {
  while (!is_ending()) {
    (void)co_await sleep(home_.reactor, options_.checkpoint_interval, ending_);
    if (is_ending()) co_return;
    if (!sides_.shared().has_written.exchange(false)) continue;
    if (!co_await checkpoint()) sides_.shared().has_written = true;
  }
}

// Whom nobody asks for anything nobody tells either that another has the volume, or that a replica hangs.
Task<void> Reign::watch() {
  Duration interval = options_.watch_interval;
  while (!is_ending()) {
    (void)co_await sleep(home_.reactor, interval, ending_);
    if (is_ending()) co_return;
    interval = is_keeping_leases_ ? options_.watch_interval : std::min(interval * 2, options_.watch_interval_max);
    if (is_keeping_leases_) continue;  // who renews hears it
    Scope asking(home_.reactor);
    for (const auto& seat : seats_) {
      if (seat->standing == Standing::kMember) asking.spawn(ask_whether_it_obeys(*seat));
    }
    co_await asking.close();
  }
}

// A note that it has already changes nothing, whenever it arrives.
Task<void> Reign::ask_whether_it_obeys(Seat& seat) { (void)co_await ask(seat, NoteRequest{Stamp{}}); }

// Everything that was written until now is on stable storage on all members, and they know it. False: not so.
Task<bool> Reign::checkpoint() {
  if (!is_level_ || proposal_ || !in_force_.is_settled()) co_return false;
  const Mutex::Guard guard = co_await generation_changing_.lock();
  const Stamp note{term_, generation_};
  const uint64_t next = ++counter_;
  // Who returns is stamped likewise, so that what it gets from now on is newer than any note.
  const std::vector<Seat*> seats = with_generation();
  for (Seat* const seat : seats) {
    if (!co_await ask(*seat, GenerationRequest{next})) has_generation_.erase(seat);
  }
  generation_ = next;
  const MemberSet members = in_force_.members;
  if (!co_await sides_.drain(era_)) co_return false;
  for (const ReplicaId& id : members.ids()) {
    Seat* const seat = find(id);
    if (seat->standing != Standing::kMember) co_return false;
    if (!is_mutant(Mutant::kNotesWithoutFlush) && !co_await flush(*seat)) co_return false;
  }
  // A member that was lost meanwhile may lack what has been written; so may one that was brought in.
  if (is_ending() || in_force_.members != members || proposal_) co_return false;
  for (const ReplicaId& id : members.ids()) {
    Seat* const seat = find(id);
    if (seat->standing != Standing::kMember) co_return false;
  }
  bool is_noted = true;
  for (const ReplicaId& id : members.ids()) is_noted = co_await ask(*find(id), NoteRequest{note}) && is_noted;
  co_return is_noted;
}

// Those that were given a generation in the session that they have.
std::vector<Reign::Seat*> Reign::with_generation() const {
  std::vector<Seat*> found;
  for (const auto& seat : seats_) {
    if (seat->has_session && has_generation_.contains(seat.get())) found.push_back(seat.get());
  }
  return found;
}

Task<bool> Reign::flush(Seat& seat) {
  if (!seat.has_session) co_return false;
  const Copier::Device device = seat.device;
  const uint64_t number = seat.prepared.session.number;
  const Result<void> flushed = co_await block_flush(home_.reactor, *device);
  const bool is_same = seat.has_session && seat.prepared.session.number == number;
  if (!flushed && is_same) lose(seat, flushed.error());
  co_return flushed.has_value() && is_same;
}

// ---- Leases

void Reign::lease_wanted() {
  // Renewed for a while, so that steady reads never wait for one.
  leases_wanted_until_ = home_.reactor.now() + 20 * options_.lease;
  if (is_keeping_leases_ || is_ending()) return;
  is_keeping_leases_ = true;
  scope_.spawn(keep_leases());
}

Task<void> Reign::keep_leases() {
  while (!is_ending() && home_.reactor.now() < leases_wanted_until_) {
    for (const auto& seat : seats_) {
      if (seat->standing == Standing::kMember && !seat->is_renewing) scope_.spawn(renew_lease(*seat));
    }
    (void)co_await sleep(home_.reactor, options_.lease / 4, ending_);
  }
  is_keeping_leases_ = false;
}

Task<void> Reign::renew_lease(Seat& seat) {
  seat.is_renewing = true;
  // It counts from when it was asked for here, there from when the question came; clocks may run apart a little.
  const Instant asked = home_.clock.now();
  if (co_await ask(seat, LeaseRequest{static_cast<uint64_t>(options_.lease.count())})) {
    seat.lease_until = asked + options_.lease - options_.lease / 8;
    count_leases();
  }
  seat.is_renewing = false;
}

// Until when a majority of the voters of the members in force keeps its promise. The witness gives none, and counts.
void Reign::count_leases() {
  std::vector<int64_t> ends;
  for (const auto& seat : seats_) {
    if (!in_force_.members.has(seat->peer.link->replica()) || !seat->has_session) continue;
    ends.push_back(seat->lease_until.ns);
  }
  std::ranges::sort(ends, std::ranges::greater());
  const size_t members = in_force_.members.size();
  const size_t voters = members + (members % 2 == 0 ? 1 : 0);
  const size_t majority = voters / 2 + 1;
  const bool is_leased = phase_ == Phase::kServing && !is_ending() && members > 0 && ends.size() >= majority;
  const int64_t until = is_leased ? ends[majority - 1] : 0;
  std::atomic<int64_t>& shared = sides_.shared().lease_until_ns;
  const bool had_run_out = shared.load(std::memory_order_relaxed) <= home_.clock.now().ns;
  shared.store(until, std::memory_order_release);
  if (had_run_out && until > home_.clock.now().ns) scope_.spawn(sides_.look_again());
}

// ---- The end in order

// Nothing new begins; what is under way ends, is flushed and noted; reads have stopped: those who promised may obey
// another at once (rule 6).
Task<void> Reign::finish() {
  sides_.configuration().is_held = true;
  co_await sides_.publish();
  if (co_await sides_.drain(era_) && co_await checkpoint()) {
    leases_wanted_until_ = {};
    sides_.shared().lease_until_ns.store(0, std::memory_order_release);
    for (const auto& seat : seats_) {
      if (seat->standing == Standing::kMember) (void)co_await ask(*seat, LeaseRequest{0});
    }
  }
  is_finished_ = true;
  note_change();
}

// What cannot end in order ends all the same.
Task<void> Reign::lose_patience() {
  (void)co_await sleep(home_.reactor, options_.stall_limit, ending_);
  is_finished_ = true;
  note_change();
}

}  // namespace fairlead::mirror
