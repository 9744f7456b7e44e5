// A reign from its beginning to its decision, and its end: sessions with replicas, and what they answered.
#include "mirror/reign.h"

#include <algorithm>

#include "async/alarm.h"
#include "base/log.h"
#include "mirror/mutant.h"

namespace fairlead::mirror {

Reign::Reign(Shard& home, const MirrorOptions& options, Term term, std::optional<ReplicaId> trusted,
             std::vector<Peer*> peers, Witness& witness, Sides& sides, CopyBudget& copies, VolumeJobs& jobs,
             Event& changed)
    : home_(home),
      options_(options),
      term_(term),
      trusted_(trusted),
      witness_(witness),
      sides_(sides),
      jobs_(jobs),
      era_(sides.next_era()),
      outer_changed_(changed),
      changed_(home.reactor),
      scope_(home.reactor),
      copier_(home, sides),
      copies_(copies),
      generation_changing_(home.reactor) {
  for (Peer* const peer : peers) seats_.push_back(std::make_unique<Seat>(*peer));
}

Reign::~Reign() = default;

void Reign::note_change() {
  changed_.release_waiters();
  outer_changed_.release_waiters();
}

Reign::Seat* Reign::find(const ReplicaId& id) const {
  const auto found = std::ranges::find(seats_, id, [](const auto& seat) { return seat->peer.link->replica(); });
  return found == seats_.end() ? nullptr : found->get();
}

Reign::Seat* Reign::find(Slot slot) const {
  const auto found = std::ranges::find(seats_, slot, [](const auto& seat) { return seat->peer.slot; });
  return found == seats_.end() ? nullptr : found->get();
}

Task<Reign::End> Reign::run() {
  for (const auto& seat : seats_) scope_.spawn(tend(*seat));
  const End end = co_await reign();
  log_info("mirror.reign_ended", {{"volume", to_string(options_.volume)},
                                  {"term", to_string(term_)},
                                  {"why", end == End::kStopped      ? "stopped"
                                          : end == End::kSuperseded ? "superseded"
                                                                    : "renew"}});
  co_await wind_down();
  co_return end;
}

void Reign::stop() {
  is_told_to_stop_ = true;
  note_change();
}

Task<Reign::End> Reign::reign() {
  const auto end = [this] {
    return is_told_to_stop_ ? End::kStopped : is_superseded() ? End::kSuperseded : End::kRenew;
  };
  if (!co_await gather()) co_return end();
  phase_ = Phase::kRecording;
  note_change();
  if (!co_await serve_first()) co_return end();
  phase_ = Phase::kServing;
  log_info("mirror.serving", {{"volume", to_string(options_.volume)},
                              {"record", to_string(in_force_)},
                              {"unlevel", sides_.shared().unlevel.count()}});
  note_change();
  scope_.spawn(upkeep());
  scope_.spawn(watch());
  scope_.spawn(leveller());
  scope_.spawn(do_jobs());
  co_return co_await govern();
}

Task<void> Reign::wind_down() {
  SideConfiguration& configuration = sides_.configuration();
  configuration.is_held = true;
  sides_.shared().lease_until_ns.store(0, std::memory_order_release);
  ending_.cancel();
  note_change();
  sides_.ranges_changed().release_waiters();
  for (const auto& seat : seats_) {
    ReplicaLink& link = *seat->peer.link;
    // One in this process may be letting I/O end that a disk does not end.
    if (link.is_local() && !seat->has_session) link.drop();
    link.changed().release_waiters();
  }
  co_await sides_.abandon_drains(era_);
  co_await scope_.close();
  // All at once: a write that lacks one of several must not seem to have all.
  for (SlotConfiguration& slot : configuration.slots) slot.use = SlotUse::kOff;
  co_await sides_.publish();
  for (const auto& seat : seats_) {
    seat->device.reset();
    co_await sides_.detach(seat->peer.slot, MirrorSide::Until::kAnswered);
  }
}

// ---- Sessions

Duration Reign::damping(const Peer& peer) const {
  if (peer.failures == 0) return Duration(0);
  const Duration wait = options_.retry_min * (int64_t{1} << std::min<uint32_t>(peer.failures - 1, 20));
  return std::min(wait, options_.retry_max);
}

// Keeps a session with the replica for as long as the reign lasts: whenever there is a connection without one, it
// prepares.
Task<void> Reign::tend(Seat& seat) {
  ReplicaLink& link = *seat.peer.link;
  while (!is_ending()) {
    // Also when nobody asks for anything: a volume that lacks a member says so.
    if (seat.has_session && link.connection() != seat.connection) lose(seat, Error{.code = Code::kConnectionLost});
    if (seat.has_session || link.connection() == 0) {
      co_await link.changed().wait();
      continue;
    }
    const Duration since = home_.reactor.now() - seat.peer.failed_at;
    if (const Duration wait = damping(seat.peer); phase_ == Phase::kServing && since < wait) {
      (void)co_await sleep(home_.reactor, wait - since, ending_);
      continue;
    }
    co_await prepare(seat);
  }
}

Task<void> Reign::prepare(Seat& seat) {
  ReplicaLink& link = *seat.peer.link;
  const uint64_t connection = link.connection();
  if (connection == 0 || is_ending()) co_return;
  const Result<Reply> reply = co_await link.call({.volume = options_.volume,
                                                  .replica = link.replica(),
                                                  .term = term_,
                                                  .session = 0,
                                                  .body = PrepareRequest{term_}});
  if (is_ending()) co_return;
  if (reply && std::holds_alternative<Prepared>(*reply) && link.connection() == connection) {
    seat.prepared = std::get<Prepared>(*reply);
    Result<std::unique_ptr<BlockDevice>> device = link.open(home_);
    if (device && seat.prepared.session.term == term_) {
      seat.device = std::move(*device);
      seat.connection = connection;
      seat.has_session = true;
      seat.is_cold = seat.thinks_cold = seat.prepared.is_cold;
      seat.is_refused = false;
      seat.standing = Standing::kPrepared;
      seat.sent_record = {};
      seat.lease_until = {};
      note_change();
      co_return;
    }
  } else if (reply && std::holds_alternative<Fenced>(*reply)) {
    seat.is_refused = true;
    refusal_ = std::max(refusal_, std::get<Fenced>(*reply).promise);
    note_refusal();
  } else {
    const Failed* const failed = reply ? std::get_if<Failed>(&*reply) : nullptr;
    seat.last_error = failed != nullptr ? Error{.code = failed->code} : reply ? Error{} : reply.error();
  }
  note_change();
  (void)co_await sleep(home_.reactor, options_.retry_min, ending_);
}

Task<Result<Reply>> Reign::call(Seat& seat, RequestBody body) {
  ReplicaLink& link = *seat.peer.link;
  const uint64_t number = seat.prepared.session.number;
  if (!seat.has_session || link.connection() != seat.connection) co_return fail(Code::kConnectionLost);
  Result<Reply> reply = co_await link.call({.volume = options_.volume,
                                            .replica = link.replica(),
                                            .term = term_,
                                            .session = number,
                                            .body = std::move(body)});
  // An answer in a session that has ended since says nothing of the one that there is now.
  if (!seat.has_session || seat.prepared.session.number != number) co_return fail(Code::kConnectionLost);
  co_return reply;
}

Task<bool> Reign::ask(Seat& seat, RequestBody body) {
  const uint64_t number = seat.prepared.session.number;
  const Result<Reply> reply = co_await call(seat, std::move(body));
  if (!seat.has_session || seat.prepared.session.number != number) co_return false;
  co_return is_done(seat, reply);
}

// What is not done is the end of the seat's session.
bool Reign::is_done(Seat& seat, const Result<Reply>& reply) {
  if (reply && std::holds_alternative<Done>(*reply)) return true;
  if (!seat.has_session) return false;
  if (reply && std::holds_alternative<Fenced>(*reply)) {
    seat.is_refused = true;
    refusal_ = std::max(refusal_, std::get<Fenced>(*reply).promise);
    lose(seat, Error{.code = Code::kFenced});
  } else if (const Failed* const failed = reply ? std::get_if<Failed>(&*reply) : nullptr) {
    lose(seat, Error{.code = failed->code});
  } else {
    lose(seat, reply ? Error{.code = Code::kProtocol} : reply.error());
  }
  return false;
}

// The replica is of no use until it has another session. A member stays needed until a record without it is in force.
void Reign::lose(Seat& seat, Error error) {
  if (!seat.has_session) return;
  log_warn("mirror.replica_failed", {{"volume", to_string(options_.volume)},
                                     {"replica", to_string(seat.peer.link->replica())},
                                     {"error", to_string(error)}});
  seat.has_session = false;
  if (!in_force_.members.has(seat.peer.link->replica()) && !proposed_since_.has(seat.peer.link->replica())) {
    sides_.configuration().slots[seat.peer.slot].use = SlotUse::kOff;
  }
  seat.standing = Standing::kAway;
  seat.stage = Seat::Stage::kNone;
  seat.last_error = error;
  seat.lease_until = {};
  count_leases();
  // Long quiet: it may come back at once.
  if (home_.reactor.now() - seat.peer.failed_at > 4 * options_.retry_max) seat.peer.failures = 0;
  // A way that is too slow for what is copied by it ends so too: the host gives its connection up.
  const bool was_perhaps_slow = error.code == Code::kTimedOut || error.code == Code::kConnectionLost;
  if (was_perhaps_slow && copies_.is_copying()) make_pieces_smaller(seat.peer);
  ++seat.peer.failures;
  seat.peer.failed_at = home_.reactor.now();
  SlotConfiguration& slot = sides_.configuration().slots[seat.peer.slot];
  slot.is_broken = true;
  if (is_mutant(Mutant::kFaultsAlone) && !wanted_members().empty()) slot.use = SlotUse::kOff;
  slot.is_read = false;
  scope_.spawn(sides_.publish());
  has_generation_.erase(&seat);
  if (seat.peer.link->connection() == seat.connection) seat.peer.link->drop();
  seat.peer.link->changed().release_waiters();
  note_change();
}

// Its return begins anew, through no fault of its own.
void Reign::send_back(Seat& seat, const char* what_for) {
  const Peer before{.link = nullptr, .slot = 0, .failures = seat.peer.failures, .failed_at = seat.peer.failed_at};
  lose(seat, Error{.code = Code::kCancelled, .what = what_for});
  seat.peer.failures = before.failures;
  seat.peer.failed_at = before.failed_at;
}

void Reign::slot_failed(Slot slot, uint64_t incarnation, const Error& error) {
  Seat* const seat = find(slot);
  if (seat == nullptr || is_ending() || sides_.configuration().slots[slot].incarnation != incarnation) return;
  if (error.code == Code::kFenced) seat->is_refused = true;
  if (error.code == Code::kTimedOut && is_slow_way_to_all(*seat)) {
    if (!std::exchange(seat->may_be_stalled, true)) scope_.spawn(see_whether_stalled(*seat));
    return;
  }
  lose(*seat, error);
}

// It is elsewhere, and nobody can go on without it: who gave up its connection would lose what is on its way, and ask
// for all of it again.
bool Reign::is_slow_way_to_all(const Seat& seat) const {
  if (seat.peer.link->is_local() || seat.standing != Standing::kMember) return false;
  return std::ranges::none_of(seats_, [&](const auto& other) {
    return other.get() != &seat && other->standing == Standing::kMember && !other->is_cold;
  });
}

Task<void> Reign::see_whether_stalled(Seat& seat) {
  const auto slept = co_await sleep(home_.reactor, options_.stall_limit, ending_);
  seat.may_be_stalled = false;
  if (slept) co_await sides_.forget_stall(seat.peer.slot);
}

// ---- Take-over

Task<void> Reign::ask_witness() {
  while (!is_ending() && !witness_answer_) {
    const Result<WitnessAnswer> answer = co_await witness_.prepare(options_.volume, term_);
    if (is_ending()) break;
    is_witness_away_ = !answer;
    if (answer && answer->promise > term_) {
      refusal_ = std::max(refusal_, answer->promise);
    } else if (answer) {
      witness_answer_ = *answer;
      is_witness_abstaining_ = answer->abstains;
    }
    note_change();
    if (!witness_answer_) (void)co_await sleep(home_.reactor, options_.retry_min, ending_);
  }
}

Ballot Reign::ballot() const {
  Ballot ballot;
  for (const auto& seat : seats_) {
    if (seat->has_session) ballot.answers.push_back({seat->peer.link->replica(), seat->prepared});
  }
  if (witness_answer_ && !witness_answer_->abstains) ballot.witness = witness_answer_;
  return ballot;
}

// As if the members had been the trusted replica alone.
Decision Reign::override_decision() const {
  Decision decision = decide(ballot());
  decision.newest.members = decision.newest.prior = decision.present = decision.missing = {*trusted_};
  decision.misses_witness = false;
  decision.lack = Decision::Lack::kMajority;
  const Seat* const seat = find(*trusted_);
  if (seat == nullptr || !seat->has_session) return decision;
  decision.newest.last_snapshot = seat->prepared.last_snapshot;
  decision.source = *trusted_;
  decision.missing = {};
  decision.lack = Decision::Lack::kNothing;
  decision.kind = Decision::Kind::kGoOn;
  return decision;
}

// Waits until the answers allow to go on. False: told to stop, or only another term can.
Task<bool> Reign::gather() {
  scope_.spawn(ask_witness());
  std::optional<Instant> possible_since;
  std::optional<Alarm> grace;
  bool is_decided = false;
  while (!is_told_to_stop_ && !must_renew_ && refusal_ <= term_) {
    decision_ = trusted_ ? override_decision() : decide(ballot());
    if (decision_.kind == Decision::Kind::kGoOn) {
      // Members that can be heard soon are worth a moment: without them they would have to return.
      const bool is_anyone_coming = std::ranges::any_of(seats_, [this](const auto& seat) {
        return decision_.missing.has(seat->peer.link->replica()) && !seat->has_session && !seat->is_refused &&
               !seat->peer.link->is_away();
      });
      if (!possible_since) {
        possible_since = home_.reactor.now();
        grace.emplace(home_.reactor, changed_, *possible_since + options_.grace);
      }
      if (!is_anyone_coming || home_.reactor.now() >= *possible_since + options_.grace) {
        is_decided = true;
        break;
      }
    }
    outer_changed_.release_waiters();
    co_await changed_.wait();
  }
  co_return is_decided;
}

}  // namespace fairlead::mirror
