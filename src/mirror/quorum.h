// Who must agree: voters, majorities, and what a take-over may conclude from the answers that it has (rule 1). Pure
// functions.
#pragma once

#include <optional>
#include <vector>

#include "mirror/control.h"
#include "mirror/link.h"
#include "mirror/mutant.h"

namespace fairlead::mirror {

// Those who said yes: replicas, and perhaps the witness.
struct Votes {
  MemberSet replicas;
  bool has_witness = false;
};

// A majority of the voters of these members: they, and the witness when their number is even.
bool is_majority(const MemberSet& members, const Votes& votes);
// In force once these hold it (rule 1).
inline bool is_in_force(const Record& record, const Votes& votes) {
  return is_majority(record.members, votes) && (is_majority(record.prior, votes) || is_mutant(Mutant::kForgetsPrior));
}

// What a take-over has heard so far. Answers of the term that it asked for only.
struct Ballot {
  struct Answer {
    ReplicaId replica;
    Prepared prepared;
  };
  std::vector<Answer> answers;
  std::optional<WitnessAnswer> witness;  // none: it has not answered, or abstains
};

struct Decision {
  enum class Kind : uint8_t { kGoOn, kWait } kind = Kind::kWait;
  Record newest;      // of what was heard
  MemberSet present;  // members of it that answered; kGoOn: that may be the new members
  ReplicaId source;   // kGoOn: to be copied from
  Stamp above;        // every stamp begins after this
  // kWait: what for. Any of `missing` may change it.
  enum class Lack : uint8_t { kNothing, kAnyRecord, kMajority, kPriorMajority, kWarmSource } lack = Lack::kNothing;
  MemberSet missing;  // members, and prior members, that have not answered
  bool misses_witness = false;
};
// Requires: no replica answered twice.
Decision decide(const Ballot& ballot);

}  // namespace fairlead::mirror
