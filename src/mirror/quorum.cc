#include "mirror/quorum.h"

#include <algorithm>

#include "mirror/mutant.h"

namespace fairlead::mirror {
namespace {

const Ballot::Answer* find(const Ballot& ballot, const ReplicaId& id) {
  const auto found = std::ranges::find(ballot.answers, id, &Ballot::Answer::replica);
  return found == ballot.answers.end() ? nullptr : &*found;
}

bool needs_witness(const MemberSet& members) { return members.size() % 2 == 0; }

// Of those who may be copied from: not cold, or cold like all members, and all are there (hole H3).
std::optional<ReplicaId> choose_source(const Ballot& ballot, const MemberSet& members, const MemberSet& present) {
  const Ballot::Answer* chosen = nullptr;
  bool is_all_cold = present == members;
  for (const ReplicaId& id : present.ids()) {
    const Ballot::Answer& answer = *find(ballot, id);
    is_all_cold = is_all_cold && answer.prepared.is_cold;
    if (answer.prepared.is_cold && !is_mutant(Mutant::kCopiesFromCold)) continue;
    // The one that knows the most: less has to be copied to the others.
    if (chosen == nullptr || answer.prepared.newest > chosen->prepared.newest) chosen = &answer;
  }
  if (chosen != nullptr) return chosen->replica;
  if (is_all_cold && !present.empty()) return present.ids().front();
  return std::nullopt;
}

}  // namespace

bool is_majority(const MemberSet& members, const Votes& votes) {
  size_t voters = members.size();
  size_t yes = 0;
  for (const ReplicaId& id : members.ids()) yes += votes.replicas.has(id) ? 1 : 0;
  if (needs_witness(members)) {
    ++voters;
    yes += votes.has_witness ? 1 : 0;
  }
  return 2 * yes > voters;
}

namespace {

// What follows when this record is the one that counts.
Decision judge(const Record& record, const Ballot& ballot, const Votes& votes) {
  Decision decision;
  decision.newest = record;
  if (record.members.empty()) {
    decision.lack = Decision::Lack::kAnyRecord;
    return decision;
  }
  for (const MemberSet* const set : {&record.members, &record.prior}) {
    for (const ReplicaId& id : set->ids()) {
      if (!votes.replicas.has(id) && !decision.missing.is_full()) decision.missing.add(id);
    }
    decision.misses_witness |= needs_witness(*set) && !votes.has_witness;
  }
  for (const ReplicaId& id : record.members.ids()) {
    if (votes.replicas.has(id)) decision.present.add(id);
  }
  if (!is_majority(record.members, votes)) {
    decision.lack = Decision::Lack::kMajority;
  } else if (!is_majority(record.prior, votes) && !is_mutant(Mutant::kForgetsPrior)) {
    decision.lack = Decision::Lack::kPriorMajority;
  } else if (const auto source = choose_source(ballot, record.members, decision.present)) {
    decision.source = *source;
    decision.kind = Decision::Kind::kGoOn;
    // Those that lost something return as any that was away: until they have it again a flush would prove nothing.
    for (const Ballot::Answer& answer : ballot.answers) {
      if (answer.prepared.is_cold && answer.replica != *source) decision.present.remove(answer.replica);
    }
  } else {
    decision.lack = Decision::Lack::kWarmSource;
  }
  return decision;
}

// So many voters of either set answered without having it that it never was in force; they obey us now, so it never
// will be.
bool was_never_in_force(const Record& record, const Ballot& ballot) {
  const auto is_dead = [&](const MemberSet& members) {
    size_t without = 0;
    for (const ReplicaId& id : members.ids()) {
      const Ballot::Answer* const answer = find(ballot, id);
      without += answer != nullptr && answer->prepared.record.at < record.at ? 1 : 0;
    }
    const bool is_asked = needs_witness(members);
    without += is_asked && ballot.witness && ballot.witness->record.at < record.at ? 1 : 0;
    return 2 * without >= members.size() + (is_asked ? 1 : 0);
  };
  return is_dead(record.members) || is_dead(record.prior);
}

// The newest that was heard of and is older than `before`, or the newest at all.
const Record* newest_record(const Ballot& ballot, const Record* before) {
  const Record* found = nullptr;
  const auto look = [&](const Record& record) {
    if (before != nullptr && (record.at >= before->at || record.members != before->prior)) return;
    if (found == nullptr || record.at > found->at) found = &record;
  };
  for (const Ballot::Answer& answer : ballot.answers) look(answer.prepared.record);
  if (ballot.witness) look(ballot.witness->record);
  return found;
}

}  // namespace

Decision decide(const Ballot& ballot) {
  Votes votes;
  Stamp above;
  for (const Ballot::Answer& answer : ballot.answers) {
    votes.replicas.add(answer.replica);
    above = std::max({above, answer.prepared.newest, answer.prepared.record.at});
  }
  votes.has_witness = ballot.witness.has_value();
  if (ballot.witness) above = std::max(above, ballot.witness->record.at);
  const Record* const newest = newest_record(ballot, nullptr);
  Decision decision = judge(newest != nullptr ? *newest : Record{}, ballot, votes);
  // Nobody that the newest record names has all that was acknowledged. If it came to nothing, those that it was to
  // replace may.
  const auto is_warm = [&](const Decision& d) {
    return d.kind == Decision::Kind::kGoOn && !find(ballot, d.source)->prepared.is_cold;
  };
  if (newest != nullptr && !newest->is_settled() && !is_warm(decision) && was_never_in_force(*newest, ballot)) {
    const Record* const replaced = newest_record(ballot, newest);
    if (replaced != nullptr) {
      const Decision other = judge(*replaced, ballot, votes);
      if (is_warm(other)) decision = other;
    }
  }
  decision.above = above;
  return decision;
}

}  // namespace fairlead::mirror
