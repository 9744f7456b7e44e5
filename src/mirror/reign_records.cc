// Who the members are: records, faults, returns, settling (rules 1, 3, 4).
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "mirror/reign.h"

namespace fairlead::mirror {

// From the decision to the first record of our own in force. False: only another term can go on, or told to stop.
Task<bool> Reign::serve_first() {
  const Record found = decision_.newest;
  const MemberSet members = decision_.present;
  source_ = decision_.source;
  find(source_)->is_cold = false;  // or all lost something: what it has is what there is
  counter_ = decision_.above.generation + 1;
  generation_ = counter_;
  if (!co_await seat_members()) co_return false;
  last_snapshot_ = found.last_snapshot;
  if (!co_await learn_snapshots()) co_return false;
  if (!co_await find_unlevel()) co_return false;
  in_force_ = found;
  if (!found.is_settled()) {
    // Hole H2: whoever comes after a half-way stop must hear of the record that we build on.
    const Record again{
        .at = {term_, ++counter_}, .members = found.members, .prior = found.prior, .last_snapshot = last_snapshot_};
    if (!co_await bring_into_force(again)) co_return false;
  }
  const Record own{
      .at = {term_, ++counter_}, .members = members, .prior = found.members, .last_snapshot = last_snapshot_};
  if (!co_await bring_into_force(own)) co_return false;
  co_await adopt(own);
  co_return true;
}

// Those that are to be members write with our generation, and every shard has a way to them.
Task<bool> Reign::seat_members() {
  for (const ReplicaId& id : decision_.present.ids()) {
    Seat* const seat = find(id);
    if (!seat->has_session) co_return false;
    if (!co_await make_large(*seat)) co_return false;
    if (!co_await ask(*seat, GenerationRequest{generation_})) co_return false;
    // What an earlier reign left behind there has ended by now.
    co_await sides_.detach(seat->peer.slot);
    const Result<void> attached = co_await sides_.attach(seat->peer.slot, *seat->peer.link);
    if (!attached) {
      lose(*seat, attached.error());
      co_return false;
    }
    if (!seat->has_session || !co_await await_size(*seat, sides_.shared().size_bytes)) co_return false;
    has_generation_.insert(seat);
    seat->standing = Standing::kMember;
  }
  co_return true;
}

// Members in force that can go on, and those that are ready to be members.
MemberSet Reign::wanted_members() const {
  MemberSet wanted;
  for (const auto& seat : seats_) {
    const ReplicaId& id = seat->peer.link->replica();
    const bool is_member = seat->standing == Standing::kMember;
    if (seat->has_session && (is_member || seat->standing == Standing::kReady)) wanted.add(id);
  }
  return wanted;
}

// A majority of the voters of the members in force obeys a higher term.
bool Reign::is_superseded() const {
  if (in_force_.members.empty()) return false;
  Votes votes;
  for (const auto& seat : seats_) {
    if (seat->is_refused) votes.replicas.add(seat->peer.link->replica());
  }
  votes.has_witness = is_witness_refusing_;
  return refusal_ > term_ && is_majority(in_force_.members, votes);
}

// Told to stop, and somebody has begun to take over: a record that leaves out who obeys him would be of use to nobody,
// and he could need those that it names.
bool Reign::gives_way() const {
  return is_told_to_stop_ && std::ranges::any_of(seats_, [](const auto& seat) {
           return !seat->has_session && (seat->is_refused || seat->last_error.code == Code::kFenced);
         });
}

// Enough voters obey us still, though none of them can go on as the member that it was.
bool Reign::has_promise_of_majority() const {
  Votes votes{.replicas = {}, .has_witness = !is_witness_refusing_ && !is_witness_away_};
  for (const auto& seat : seats_) {
    if (seat->has_session) votes.replicas.add(seat->peer.link->replica());
  }
  return is_majority(in_force_.members, votes);
}

// A voter that obeys a higher term, of a take-over that came to nothing, can be had again by a term of our own (hole
// H14). Whoever asked for that term may be about to serve: it gets the time for it.
void Reign::note_refusal() {
  note_change();
  if (is_renewing_ || phase_ == Phase::kGathering) return;  // gather() ends by itself
  is_renewing_ = true;
  scope_.spawn(renew_later());
}

Task<void> Reign::renew_later() {
  (void)co_await sleep(home_.reactor, options_.renew_delay, ending_);
  must_renew_ = true;
  note_change();
}

Task<Reign::End> Reign::govern() {
  while (true) {
    if (is_told_to_stop_ && !std::exchange(is_finishing_, true)) {
      scope_.spawn(finish());
      scope_.spawn(lose_patience());
    }
    if (is_finished_ || gives_way()) co_return End::kStopped;
    if (is_superseded()) co_return End::kSuperseded;
    const MemberSet wanted = wanted_members();
    // Without one that has every acknowledged write nobody is left out: who had them is waited for.
    const bool has_all = std::ranges::any_of(wanted.ids(), [this](const ReplicaId& id) { return !find(id)->is_cold; });
    if (must_renew_ || (!has_all && has_promise_of_majority())) co_return End::kRenew;
    start_returns();
    if (!has_all) {
      co_await changed_.wait();  // until enough obey us again, or we hear that they obey another
      continue;
    }
    // A proposal that did not come into force is withdrawn by another that does.
    const bool is_open =
        std::ranges::any_of(proposed_since_.ids(), [this](const ReplicaId& id) { return !in_force_.members.has(id); });
    const bool has_snapshot = in_force_.last_snapshot == last_snapshot_;
    if (wanted != in_force_.members || !in_force_.is_settled() || is_open || !has_snapshot) {
      const Record record{
          .at = {term_, ++counter_}, .members = wanted, .prior = in_force_.members, .last_snapshot = last_snapshot_};
      if (co_await bring_into_force(record)) co_await adopt(record);
      continue;
    }
    co_await changed_.wait();
  }
}

// Sends it to everyone who votes, until it is in force. False: it never was, as far as we know; another record is to be
// proposed, with the same prior, or the reign is to end. Its members stay needed.
Task<bool> Reign::bring_into_force(Record record) {
  proposal_ = record;
  // Never more than it can hold: before our own record is in force they are members of the one that was found, after
  // that replicas that we have a link to.
  for (const ReplicaId& id : record.members.ids()) proposed_since_.add(id);
  votes_ = {};
  log_info("mirror.proposing", {{"volume", to_string(options_.volume)}, {"record", to_string(record)}});
  while (true) {
    // While it serves the end begins in govern(), and what is under way may need the record until then.
    if (is_told_to_stop_ && (phase_ != Phase::kServing || !is_finishing_ || is_finished_)) co_return false;
    if (is_in_force(record, votes_)) co_return true;
    if (is_superseded() || must_renew_ || gives_way()) co_return false;
    const MemberSet wanted = wanted_members();
    if (phase_ == Phase::kServing) {
      if (wanted != record.members) co_return false;
    } else if (std::ranges::any_of(record.members.ids(),
                                   [&](const ReplicaId& id) { return decision_.present.has(id) && !wanted.has(id); })) {
      co_return false;  // one of those that we began with is lost
    }
    send_proposal();
    outer_changed_.release_waiters();
    co_await changed_.wait();
  }
}

// To each voter that was not sent it yet.
void Reign::send_proposal() {
  const Record& record = *proposal_;
  for (const auto& seat : seats_) {
    const ReplicaId& id = seat->peer.link->replica();
    const bool is_voter = record.members.has(id) || record.prior.has(id);
    if (!is_voter || !seat->has_session || seat->sent_record == record.at) continue;
    seat->sent_record = record.at;
    scope_.spawn(send_record(*seat, record));
  }
  const bool has_witness = record.members.size() % 2 == 0 || record.prior.size() % 2 == 0;
  if (has_witness && sent_to_witness_ != record.at) {
    sent_to_witness_ = record.at;
    scope_.spawn(send_record_to_witness(record));
  }
}

Task<void> Reign::send_record(Seat& seat, Record record) {
  const uint64_t number = seat.prepared.session.number;
  const Result<Reply> reply = co_await call(seat, RecordRequest{record});
  if (!seat.has_session || seat.prepared.session.number != number) co_return;
  // A later record may have overtaken this one, and a replica keeps no older one.
  if (!proposal_ || proposal_->at != record.at || seat.sent_record != record.at) co_return;
  if (!is_done(seat, reply)) co_return;
  votes_.replicas.add(seat.peer.link->replica());
  note_change();
}

Task<void> Reign::send_record_to_witness(Record record) {
  while (!is_ending() && proposal_ && proposal_->at == record.at) {
    const Result<WitnessAnswer> answer = co_await witness_.keep(options_.volume, record, Witness::Standing::kProposed);
    if (is_ending()) break;
    is_witness_away_ = !answer;
    if (answer && answer->promise > term_) {
      // Hole H14: it obeys a higher term. Only a term of our own, higher still, can use it again.
      refusal_ = std::max(refusal_, answer->promise);
      is_witness_refusing_ = true;
      note_refusal();
      break;
    }
    if (answer && proposal_ && proposal_->at == record.at) {
      votes_.has_witness = !answer->abstains;
      is_witness_abstaining_ = answer->abstains;
      note_change();
      break;
    }
    (void)co_await sleep(home_.reactor, options_.retry_min, ending_);
  }
}

// Hole H12: it was built anew, and counts again when it knows what is in force, from one who has that by a term of its
// new store. An older term may be without force and not know it: then another is asked for.
Task<void> Reign::restore_witness(Record record) {
  while (!is_ending() && in_force_ == record) {
    const Result<WitnessAnswer> answer = co_await witness_.keep(options_.volume, record, Witness::Standing::kInForce);
    if (answer) {
      is_witness_abstaining_ = answer->abstains;
      if (answer->abstains) note_refusal();
      break;
    }
    (void)co_await sleep(home_.reactor, options_.retry_min, ending_);
  }
}

// The record is in force: the data path goes by it.
Task<void> Reign::adopt(Record record) {
  in_force_ = record;
  proposal_.reset();
  proposed_since_ = {};
  log_info("mirror.in_force", {{"volume", to_string(options_.volume)}, {"record", to_string(record)}});
  SideConfiguration& configuration = sides_.configuration();
  const auto leaves = [&](const Seat& seat) {
    const bool comes = seat.standing == Standing::kReturning || seat.standing == Standing::kReady;
    return !comes && !record.members.has(seat.peer.link->replica()) &&
           configuration.slots[seat.peer.slot].use == SlotUse::kNeeded;
  };
  // Nobody reads where a write may be missing that another shard is about to answer.
  for (const auto& seat : seats_) {
    if (!leaves(*seat)) continue;
    configuration.slots[seat->peer.slot].is_broken = true;
    configuration.slots[seat->peer.slot].is_read = false;
  }
  co_await sides_.publish();
  for (const auto& seat : seats_) {
    SlotConfiguration& slot = configuration.slots[seat->peer.slot];
    if (record.members.has(seat->peer.link->replica())) {
      if (seat->standing == Standing::kReady) seat->standing = Standing::kMember;
      slot.use = SlotUse::kNeeded;
      slot.is_broken = seat->standing != Standing::kMember;
      slot.is_read = seat->standing == Standing::kMember;
      slot.is_local = seat->peer.link->is_local();
    } else if (leaves(*seat)) {
      slot.use = SlotUse::kOff;
    }
  }
  configuration.is_held = is_held();
  count_leases();
  if (is_witness_abstaining_) scope_.spawn(restore_witness(record));
  co_await sides_.publish();
  note_change();
}

// Whoever has a session and is no member is brought back.
void Reign::start_returns() {
  for (const auto& seat : seats_) {
    const ReplicaId& id = seat->peer.link->replica();
    if (seat->standing != Standing::kPrepared || !seat->has_session || in_force_.members.has(id)) continue;
    if (proposed_since_.has(id)) continue;  // writes need it: first a record without it
    seat->standing = Standing::kReturning;
    seat->copied = seat->to_copy = 0;
    seat->copying_since = home_.reactor.now();
    scope_.spawn(bring_back(*seat));
  }
}

}  // namespace fairlead::mirror
