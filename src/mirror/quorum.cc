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

Decision decide(const Ballot& ballot) {
  Decision decision;
  Votes votes;
  for (const Ballot::Answer& answer : ballot.answers) {
    votes.replicas.add(answer.replica);
    decision.above = std::max({decision.above, answer.prepared.newest, answer.prepared.record.at});
    if (answer.prepared.record.at > decision.newest.at) decision.newest = answer.prepared.record;
  }
  votes.has_witness = ballot.witness.has_value();
  if (ballot.witness) {
    decision.above = std::max(decision.above, ballot.witness->record.at);
    if (ballot.witness->record.at > decision.newest.at) decision.newest = ballot.witness->record;
  }
  const Record& newest = decision.newest;
  if (newest.members.empty()) {
    decision.lack = Decision::Lack::kAnyRecord;
    return decision;
  }
  for (const MemberSet* const set : {&newest.members, &newest.prior}) {
    for (const ReplicaId& id : set->ids()) {
      if (!votes.replicas.has(id) && !decision.missing.is_full()) decision.missing.add(id);
    }
    decision.misses_witness |= needs_witness(*set) && !votes.has_witness;
  }
  for (const ReplicaId& id : newest.members.ids()) {
    if (votes.replicas.has(id)) decision.present.add(id);
  }
  if (!is_majority(newest.members, votes)) {
    decision.lack = Decision::Lack::kMajority;
  } else if (!is_majority(newest.prior, votes) && !is_mutant(Mutant::kForgetsPrior)) {
    decision.lack = Decision::Lack::kPriorMajority;
  } else if (const auto source = choose_source(ballot, newest.members, decision.present)) {
    decision.source = *source;
    decision.kind = Decision::Kind::kGoOn;
  } else {
    decision.lack = Decision::Lack::kWarmSource;
  }
  return decision;
}

}  // namespace fairlead::mirror
