// Voters, majorities and decisions of take-overs, against the counterexamples that the rules were mended by.
#include "mirror/quorum.h"

#include <gtest/gtest.h>

namespace fairlead::mirror {
namespace {

ReplicaId replica(uint8_t number) {
  ReplicaId id;
  id.bytes[0] = number;
  return id;
}
const ReplicaId kA = replica(1);
const ReplicaId kB = replica(2);
const ReplicaId kC = replica(3);

Stamp stamp(uint64_t term, uint64_t generation = 1) {
  Stamp at;
  at.term.number = term;
  at.generation = generation;
  return at;
}
Prepared prepared(const Record& record, bool is_cold = false) {
  Prepared answer;
  answer.record = record;
  answer.newest = record.at;
  answer.is_cold = is_cold;
  return answer;
}
WitnessAnswer witness(const Record& record) { return {.promise = {}, .record = record, .abstains = false}; }

TEST(QuorumTest, TheWitnessVotesWhenTheMembersAreEven) {
  EXPECT_TRUE(is_majority({kA}, {{kA}, false}));
  EXPECT_FALSE(is_majority({kA}, {{}, true}));
  EXPECT_FALSE(is_majority({kA, kB}, {{kA}, false}));
  EXPECT_TRUE(is_majority({kA, kB}, {{kA}, true}));
  EXPECT_TRUE(is_majority({kA, kB}, {{kA, kB}, false}));
  EXPECT_TRUE(is_majority({kA, kB, kC}, {{kA, kC}, false}));
  EXPECT_FALSE(is_majority({kA, kB, kC}, {{kA}, true}));
  EXPECT_FALSE(is_majority({kA, kB}, {{kC}, true}));
  EXPECT_FALSE(is_majority({}, {{kA}, false}));
}

TEST(QuorumTest, ARecordThatWasNeverInForceDoesNotDecideAlone) {
  // Hole H1: {A,B} -> {B} reached B and nobody else, while another target went on with {A}.
  const Record settled{stamp(1), {kA, kB}, {kA, kB}};
  const Record proposed{stamp(1, 2), {kB}, {kA, kB}};
  Ballot ballot;
  ballot.answers = {{kB, prepared(proposed)}};
  Decision decision = decide(ballot);
  EXPECT_EQ(decision.kind, Decision::Kind::kWait);
  EXPECT_EQ(decision.lack, Decision::Lack::kPriorMajority);
  EXPECT_EQ(decision.missing, MemberSet({kA}));
  EXPECT_TRUE(decision.misses_witness);
  ballot.witness = witness(settled);
  decision = decide(ballot);
  EXPECT_EQ(decision.kind, Decision::Kind::kGoOn);
  EXPECT_EQ(decision.newest, proposed);
  EXPECT_EQ(decision.source, kB);
}

TEST(QuorumTest, WhoLostItsCacheIsNoSourceUnlessAllDid) {
  const Record record{stamp(1), {kA, kB, kC}, {kA, kB, kC}};
  Ballot ballot;
  ballot.answers = {{kA, prepared(record, true)}, {kB, prepared(record, true)}};
  EXPECT_EQ(decide(ballot).lack, Decision::Lack::kWarmSource);
  ballot.answers.push_back({kC, prepared(record, true)});
  EXPECT_EQ(decide(ballot).kind, Decision::Kind::kGoOn);
  EXPECT_EQ(decide(ballot).present.size(), 1U);
  ballot.answers.back().prepared.is_cold = false;
  EXPECT_EQ(decide(ballot).source, kC);
  EXPECT_EQ(decide(ballot).present, MemberSet({kC}));
}

TEST(QuorumTest, AMemberThatIsNotOfTheNewestRecordIsNoSource) {
  const Record old{stamp(1), {kA, kB, kC}, {kA, kB, kC}};
  const Record newer{stamp(1, 2), {kA, kB}, {kA, kB, kC}};
  Ballot ballot;
  ballot.answers = {{kC, prepared(old)}, {kB, prepared(newer)}};
  Decision decision = decide(ballot);
  EXPECT_EQ(decision.kind, Decision::Kind::kWait);  // of {A,B} and the witness only B said yes
  EXPECT_EQ(decision.lack, Decision::Lack::kMajority);
  ballot.witness = witness(old);
  decision = decide(ballot);
  EXPECT_EQ(decision.kind, Decision::Kind::kGoOn);
  EXPECT_EQ(decision.source, kB);
  EXPECT_EQ(decision.present, MemberSet({kB}));
}

// {A,B}: their target thinks that A is lost and proposes {B}, which has lost power: the witness keeps that, B never
// hears of it. A has every acknowledged write.
TEST(QuorumTest, AProposalThatCameToNothingDoesNotLeaveOutWhoHasEverything) {
  const Record settled{stamp(1), {kA, kB}, {kA, kB}};
  const Record proposed{stamp(1, 2), {kB}, {kA, kB}};
  Ballot ballot;
  ballot.answers = {{kA, prepared(settled)}, {kB, prepared(settled, true)}};
  ballot.witness = witness(proposed);
  Decision decision = decide(ballot);
  EXPECT_EQ(decision.kind, Decision::Kind::kGoOn);
  EXPECT_EQ(decision.newest, settled);
  EXPECT_EQ(decision.source, kA);
  EXPECT_EQ(decision.present, MemberSet({kA}));  // B returns
  EXPECT_EQ(decision.above, proposed.at);
  // B had it: then it was in force, perhaps, and A may lack what came after.
  ballot.answers[1].prepared.record = proposed;
  decision = decide(ballot);
  EXPECT_EQ(decision.newest, proposed);
  EXPECT_EQ(decision.source, kB);
  // B has not lost anything: what is newest is followed, whether it was in force or not.
  ballot.answers[1] = {kB, prepared(settled)};
  EXPECT_EQ(decide(ballot).newest, proposed);
  // B has not answered: nobody knows.
  ballot.answers.pop_back();
  EXPECT_EQ(decide(ballot).kind, Decision::Kind::kWait);
}

TEST(QuorumTest, NothingIsKnownOfAVolumeThatNobodyHasARecordOf) {
  Ballot ballot;
  EXPECT_EQ(decide(ballot).lack, Decision::Lack::kAnyRecord);
  ballot.answers = {{kA, prepared(Record{})}};
  EXPECT_EQ(decide(ballot).lack, Decision::Lack::kAnyRecord);
}

TEST(QuorumTest, StampsGoOnAboveAllThatWasHeard) {
  const Record record{stamp(3, 7), {kA, kB, kC}, {kA, kB, kC}};
  Ballot ballot;
  ballot.answers = {{kA, prepared(record)}, {kB, prepared(record)}};
  ballot.answers[1].prepared.newest = stamp(3, 12);
  EXPECT_EQ(decide(ballot).above, stamp(3, 12));
  EXPECT_EQ(decide(ballot).source, kB);
  ballot.witness = witness({stamp(4, 1), {kA, kB, kC}, {kA, kB, kC}});
  EXPECT_EQ(decide(ballot).above, stamp(4, 1));
}

}  // namespace
}  // namespace fairlead::mirror
