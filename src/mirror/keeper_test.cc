#include "mirror/keeper.h"

#include <gtest/gtest.h>

#include "tests/support/keeper_bed.h"

namespace fairlead::mirror {
namespace {

using std::chrono::milliseconds;
using Failure = MemoryReplicaStore::Failure;

// ---- Promise and session.

TEST(KeeperTest, APrepareIsAnsweredWhenItsPromiseAndItsSessionAreSaved) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    bed.store->hold_saves();
    Call call;
    bed.begin(call, 1, PrepareRequest{term(5)});
    co_await bed.pass(std::chrono::seconds(2));
    EXPECT_EQ(call.name(), "nothing");
    EXPECT_EQ(bed.medium.state, ReplicaState{});
    bed.store->release_saves();
    co_await bed.settle();
    EXPECT_EQ(call.name(), "prepared");
    EXPECT_EQ(bed.store->saves().size(), 2U);
    EXPECT_EQ(bed.store->saves()[0].promise, term(5));
    EXPECT_EQ(bed.store->saves()[0].session, Session{}) << "the promise comes first";
    EXPECT_EQ(bed.medium.state.promise, term(5));
    EXPECT_EQ(bed.medium.state.session, (Session{.term = term(5), .number = 1, .boot_id = uuid(50)}));
    EXPECT_EQ(bed.gate->open_for(), 1U);
  });
}

TEST(KeeperTest, ItSavesTheSessionBeforeItLetsAnythingThrough) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    bed.store->set_save_delay(milliseconds(10));
    Call call;
    bed.begin(call, 1, PrepareRequest{term(5)});
    while (bed.gate->open_for() == 0) co_await yield(bed.reactor());
    EXPECT_EQ(bed.medium.state.session.number, 1U);
    co_await bed.settle();
  });
}

TEST(KeeperTest, EachPrepareOpensAnotherSession) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    EXPECT_EQ((co_await bed.prepare(1, term(5))).session.number, 1U);
    EXPECT_EQ((co_await bed.prepare(1, term(5))).session.number, 2U);
    EXPECT_EQ((co_await bed.prepare(2, term(5))).session.number, 3U);
    EXPECT_EQ((co_await bed.prepare(3, term(6))).session.number, 4U);
    co_await bed.restart();
    EXPECT_EQ((co_await bed.prepare(1, term(6))).session.number, 5U);
  });
}

TEST(KeeperTest, ALowerTermIsFencedWithThePromiseAlsoAfterARestart) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5, 100));
    EXPECT_EQ(name(co_await bed.ask(2, PrepareRequest{term(4)})), "fenced 5");
    EXPECT_EQ(name(co_await bed.ask(2, PrepareRequest{term(5, 99)})), "fenced 5") << "the writers differ";
    EXPECT_EQ(name(co_await bed.ask(1, GenerationRequest{1})), "done") << "who was refused ends no session";
    co_await bed.restart();
    EXPECT_EQ(name(co_await bed.ask(2, PrepareRequest{term(4)})), "fenced 5");
  });
}

TEST(KeeperTest, RefusesWhatIsNotForIt) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    EXPECT_EQ(name(co_await bed.ask(1, PrepareRequest{term(0)})), "invalid_argument");
    Request other = bed.request(PrepareRequest{term(5)});
    other.volume = uuid(9);
    EXPECT_EQ(name(co_await bed.keeper->handle(1, other)), "not_found");
    other = bed.request(PrepareRequest{term(5)});
    other.replica = uuid(9);
    EXPECT_EQ(name(co_await bed.keeper->handle(1, other)), "not_found");
    EXPECT_EQ(bed.medium.state, ReplicaState{});
  });
}

TEST(KeeperTest, AnswersWhatItKnows) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    const Prepared first = co_await bed.prepare(1, term(5));
    EXPECT_EQ(first.record, Record{});
    EXPECT_EQ(first.newest, Stamp{});
    EXPECT_EQ(first.size_bytes, 8 * kExtentBytes);
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{3})), "done");
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 2}})), "done");
    EXPECT_EQ((co_await bed.prepare(1, term(5))).newest, (Stamp{term(5), 3})) << "the generation";
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{bed.record(7)})), "done");
    const Prepared second = co_await bed.prepare(1, term(5));
    EXPECT_EQ(second.newest, (Stamp{term(5), 7})) << "the record";
    EXPECT_EQ(second.record, bed.record(7));
    EXPECT_EQ(second.note, (Stamp{term(5), 2}));
    bed.medium.state.note = {term(5), 9};
    co_await bed.restart();
    EXPECT_EQ((co_await bed.prepare(1, term(5))).newest, (Stamp{term(5), 9})) << "the note";
  });
}

TEST(KeeperTest, OnlyTheSessionsCallerIsServedInItsTermAndNumber) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    EXPECT_EQ(name(co_await bed.ask(1, LevelledRequest{})), "fenced 0") << "there is no session";
    (void)co_await bed.prepare(1, term(5));
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(2, LevelledRequest{})), "fenced 5") << "another caller";
    const std::pair<Term, uint64_t> wrong[] = {{term(5), 1}, {term(5), 3}, {term(4), 2}, {term(6), 2}, {term(5, 9), 2}};
    for (const auto& [with, number] : wrong) {
      Request request = bed.request(LevelledRequest{});
      request.term = with;
      request.session = number;
      EXPECT_EQ(name(co_await bed.keeper->handle(1, request)), "fenced 5") << to_string(with) << " " << number;
    }
    EXPECT_EQ(name(co_await bed.ask(1, LevelledRequest{})), "done");
    co_await bed.restart();
    EXPECT_EQ(name(co_await bed.ask(1, LevelledRequest{})), "fenced 5") << "a session ends with the process";
  });
}

TEST(KeeperTest, EveryKindOfRequestOfAnOldSessionIsRefused) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{3})), "done");
    const ReplicaState before = bed.medium.state;
    const Prepared next = co_await [](KeeperBed& its) -> Task<Prepared> {
      const Reply reply = co_await its.ask(1, PrepareRequest{term(5)});
      co_return std::get<Prepared>(reply);
    }(bed);
    EXPECT_EQ(next.session.number, 2U);
    const std::vector<RequestBody> bodies = {
        RecordRequest{bed.record(9)},
        GenerationRequest{9},
        NoteRequest{{term(5), 3}},
        LevelledRequest{},
        LeaseRequest{1'000'000},
        ChangedRequest{},
        StampRequest{.extents = {0, 1}},
        SnapshotRequest{{.id = term(1).writer, .cut = {term(5), 3}, .size_bytes = 4096}},
        DeleteSnapshotRequest{},
        SnapshotsRequest{},
        ShowSnapshotRequest{},
        GrowRequest{1 << 30}};
    for (const RequestBody& body : bodies) {
      EXPECT_EQ(name(co_await bed.ask(1, body)), "fenced 5") << body.index();
    }
    EXPECT_EQ(bed.medium.state.record, before.record);
    EXPECT_EQ(bed.medium.state.note, before.note);
    EXPECT_EQ(bed.medium.generation, (Stamp{term(5), 3}));
  });
}

// ---- What a prepare waits for.

TEST(KeeperTest, WhatTheOldSessionHasUnderWayEndsBeforeAPrepareIsAnswered) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    for (const Term& next : {term(5), term(6)}) {  // its own term, and another
      (void)co_await bed.prepare(1, term(5));
      EXPECT_TRUE(bed.gate->enter(1).has_value());
      Call call;
      bed.begin(call, 2, PrepareRequest{next});
      co_await bed.pass(std::chrono::seconds(10));
      EXPECT_EQ(call.name(), "nothing");
      EXPECT_EQ(bed.gate->enter(1).error().code, Code::kFenced) << "a straggler";
      EXPECT_EQ(bed.gate->enter(2).error().code, Code::kFenced) << "too early";
      bed.gate->leave();
      co_await bed.settle();
      EXPECT_EQ(call.name(), "prepared");
      EXPECT_EQ(bed.gate->enter(1).error().code, Code::kFenced) << "a straggler";
      EXPECT_TRUE(bed.gate->enter(2).has_value());
      bed.gate->leave();
    }
  });
}

TEST(KeeperTest, WhatTheOldSessionChangesEndsBeforeAPrepareIsAnsweredAndIsInTheAnswer) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    bed.store->hold_saves();
    Call record;
    Call prepare;
    bed.begin(record, 1, RecordRequest{bed.record(3)});
    co_await bed.settle();
    bed.begin(prepare, 2, PrepareRequest{term(6)});
    co_await bed.settle();
    EXPECT_EQ(prepare.name(), "nothing");
    bed.store->release_saves();
    co_await bed.settle();
    EXPECT_EQ(record.name(), "done");
    EXPECT_EQ(std::get<Prepared>(prepare.reply.value()).record, bed.record(3));
  });
}

TEST(KeeperTest, WhatHasNotBegunWhenAPrepareComesIsRefused) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    bed.store->hold_saves();
    Call first;
    Call second;
    Call prepare;
    bed.begin(first, 1, RecordRequest{bed.record(3)});
    co_await bed.settle();
    bed.begin(second, 1, RecordRequest{bed.record(4)});
    co_await bed.settle();
    bed.begin(prepare, 2, PrepareRequest{term(6)});
    co_await bed.settle();
    bed.store->release_saves();
    co_await bed.settle();
    EXPECT_EQ(first.name(), "done");
    EXPECT_EQ(second.name(), "fenced 6");
    EXPECT_EQ(std::get<Prepared>(prepare.reply.value()).record, bed.record(3));
  });
}

TEST(KeeperTest, APrepareWaitsForTheLeaseOfAnotherTerm) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    const Instant given = bed.now();
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{300'000'000})), "done");
    co_await bed.pass(milliseconds(100));
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{400'000'000})), "done");
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{100'000'000})), "done") << "a shorter one changes nothing";
    Call call;
    bed.begin(call, 2, PrepareRequest{term(5, 101)});
    co_await bed.pass(std::chrono::seconds(2));
    EXPECT_EQ(call.name(), "prepared");
    EXPECT_GE(call.at, given + milliseconds(500));
    EXPECT_LT(call.at, given + milliseconds(510));
  });
}

TEST(KeeperTest, ALeaseIsAtMostTheLongestAndCanBeGivenBack) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    const auto longest = static_cast<uint64_t>(kLeaseMax.count());
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{longest + 1})), "invalid_argument");
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{~uint64_t{0}})), "invalid_argument");
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{longest})), "done");
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{0})), "done");
    const Instant asked = bed.now();
    (void)co_await bed.prepare(2, term(6));
    EXPECT_LT(bed.now(), asked + milliseconds(10));
  });
}

TEST(KeeperTest, TheSameTermComesBackWithoutWaitingForItsOwnLease) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{400'000'000})), "done");
    const Instant given = bed.now();
    EXPECT_EQ((co_await bed.prepare(2, term(5))).session.number, 2U);
    EXPECT_LT(bed.now(), given + milliseconds(10));
    (void)co_await bed.prepare(3, term(6));
    EXPECT_GE(bed.now(), given + milliseconds(399)) << "but another term does, though the session has changed";
  });
}

TEST(KeeperTest, NothingIsPreparedBeforeTheLongestLeaseAfterTheStart) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    for (const Term& next : {term(5), term(6)}) {
      co_await bed.restart();
      const Instant start = bed.now();
      co_await bed.pass(milliseconds(200));
      (void)co_await bed.prepare(1, next);
      EXPECT_GE(bed.now(), start + kLeaseMax);
      EXPECT_LT(bed.now(), start + kLeaseMax + milliseconds(10));
      EXPECT_EQ(bed.medium.state.promise, next);
    }
  });
}

TEST(KeeperTest, OneThatNobodyHadASessionWithAnswersAtOnce) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    co_await bed.restart();
    const Instant start = bed.now();
    (void)co_await bed.prepare(1, term(5));
    EXPECT_LT(bed.now(), start + milliseconds(10));
  });
}

TEST(KeeperTest, APromiseIsSavedWhileItsPrepareStillWaits) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_TRUE(bed.gate->enter(1).has_value());
    Call call;
    bed.begin(call, 2, PrepareRequest{term(6)});
    co_await bed.settle();
    EXPECT_EQ(bed.medium.state.promise, term(6));
    EXPECT_EQ(bed.medium.state.session.number, 1U);
    EXPECT_EQ(name(co_await bed.ask(1, RecordRequest{bed.record(3)})), "fenced 6");
    bed.gate->leave();
    co_await bed.settle();
    EXPECT_EQ(call.name(), "prepared");
  });
}

// ---- Prepares that meet.

TEST(KeeperTest, AHigherPrepareEndsTheWaitOfALowerForADrain) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_TRUE(bed.gate->enter(1).has_value());
    Call lower;
    Call higher;
    bed.begin(lower, 2, PrepareRequest{term(6)});
    co_await bed.settle();
    bed.begin(higher, 3, PrepareRequest{term(7)});
    co_await bed.settle();
    EXPECT_EQ(lower.name(), "fenced 7") << "at once";
    EXPECT_EQ(higher.name(), "nothing");
    EXPECT_EQ(name(co_await bed.ask(4, PrepareRequest{term(6)})), "fenced 7");
    bed.gate->leave();
    co_await bed.settle();
    EXPECT_EQ(higher.name(), "prepared");
    EXPECT_EQ(bed.gate->open_for(), 3U);
  });
}

TEST(KeeperTest, AHigherPrepareEndsTheWaitOfALowerForALeaseAndWaitsForItToo) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{400'000'000})), "done");
    const Instant given = bed.now();
    Call lower;
    Call higher;
    bed.begin(lower, 2, PrepareRequest{term(6)});
    co_await bed.pass(milliseconds(50));
    bed.begin(higher, 3, PrepareRequest{term(7)});
    co_await bed.settle();
    EXPECT_EQ(lower.name(), "fenced 7");
    co_await bed.pass(milliseconds(500));
    EXPECT_EQ(higher.name(), "prepared");
    EXPECT_GE(higher.at, given + milliseconds(399));
  });
}

TEST(KeeperTest, OfTwoPreparesOfATermTheLaterHasTheSession) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_TRUE(bed.gate->enter(1).has_value());
    Call first;
    Call second;
    bed.begin(first, 2, PrepareRequest{term(6)});
    co_await bed.settle();
    bed.begin(second, 3, PrepareRequest{term(6)});
    co_await bed.settle();
    EXPECT_EQ(first.name(), "fenced 6");
    bed.gate->leave();
    co_await bed.settle();
    EXPECT_EQ(second.name(), "prepared");
    EXPECT_EQ(bed.gate->open_for(), 3U);
  });
}

TEST(KeeperTest, AHigherPrepareOvertakesALowerAtEachOfItsSteps) {
  // The saves take 10 ms each; another prepare comes at every millisecond of the first one's way.
  for (int delay = 0; delay < 30; ++delay) {
    KeeperBed().run(
        [](KeeperBed& its, int after) -> Task<void> {
          (void)co_await its.prepare(1, term(5));
          its.store->set_save_delay(milliseconds(10));
          Call lower;
          Call higher;
          its.begin(lower, 2, PrepareRequest{term(6)});
          co_await its.pass(milliseconds(after) + std::chrono::microseconds(500));
          its.begin(higher, 3, PrepareRequest{term(7)});
          co_await its.pass(milliseconds(100));
          EXPECT_EQ(lower.name(), after < 20 ? "fenced 7" : "prepared") << after;
          EXPECT_EQ(higher.name(), "prepared") << after;
          EXPECT_EQ(its.gate->open_for(), 3U) << after;
          EXPECT_EQ(its.medium.state.promise, term(7));
          EXPECT_EQ(its.medium.state.session.term, term(7));
        },
        delay);
  }
}

// ---- Cold (hole H3).

TEST(KeeperTest, ColdIsWhoeverHadASessionInAnotherBootAndWroteAboveItsNote) {
  struct Case {
    bool had_session, is_another_boot, wrote, is_noted, is_cold;
  };
  const Case cases[] = {
      {true, true, true, false, true},    // lost its cache
      {true, false, true, false, false},  // only its process
      {true, true, false, false, false},  // had nothing in it
      {true, true, true, true, false},    // all was flushed
      {false, true, true, false, false},  // never asked anything
  };
  for (const Case& its : cases) {
    KeeperBed().run(
        [](KeeperBed& of, Case now) -> Task<void> {
          if (now.had_session) {
            (void)co_await of.prepare(1, term(5));
            EXPECT_EQ(name(co_await of.ask(GenerationRequest{1})), "done");
          } else {
            of.medium.generation = Stamp{term(5), 1};
          }
          if (now.wrote) of.medium.write(0, std::vector(4096, std::byte{1}));
          if (now.is_noted) EXPECT_EQ(name(co_await of.ask(NoteRequest{{term(5), 1}})), "done");
          co_await of.restart(now.is_another_boot ? KeeperBed::Boot::kAnother : KeeperBed::Boot::kSame);
          EXPECT_EQ((co_await of.prepare(1, term(6))).is_cold, now.is_cold)
              << now.had_session << now.is_another_boot << now.wrote << now.is_noted;
        },
        its);
  }
}

TEST(KeeperTest, ColdStaysColdUntilLevelled) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{1})), "done");
    bed.medium.write(0, std::vector(4096, std::byte{1}));
    co_await bed.restart(KeeperBed::Boot::kAnother);
    EXPECT_TRUE((co_await bed.prepare(1, term(6))).is_cold);
    co_await bed.restart();  // the target's end before it has levelled, and the replica's own
    EXPECT_TRUE((co_await bed.prepare(1, term(7))).is_cold) << "though the session's boot is this one";
    EXPECT_TRUE((co_await bed.prepare(1, term(7))).is_cold);
    EXPECT_EQ(name(co_await bed.ask(LevelledRequest{})), "done");
    EXPECT_FALSE((co_await bed.prepare(1, term(7))).is_cold);
    co_await bed.restart();
    EXPECT_FALSE((co_await bed.prepare(1, term(7))).is_cold) << "levelled is kept";
  });
}

TEST(KeeperTest, ColdIsNotForgottenWhenTheSaveOfItsSessionFails) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{1})), "done");
    bed.medium.write(0, std::vector(4096, std::byte{1}));
    for (const Failure failure : {Failure::kKeepsOld, Failure::kKeepsNew}) {
      co_await bed.restart(KeeperBed::Boot::kAnother);
      bed.store->fail_next_save(failure);
      EXPECT_EQ(name(co_await bed.ask(1, PrepareRequest{term(5)})), "io");
      EXPECT_EQ(bed.gate->open_for(), 0U);
      co_await bed.restart();
      EXPECT_TRUE((co_await bed.prepare(1, term(5))).is_cold);
    }
  });
}

// ---- Records, generations, notes, stamps.

TEST(KeeperTest, ARecordIsKeptOnlyIfItIsNewerAndOfTheSessionsTerm) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{bed.record(3)})), "done");
    EXPECT_EQ(bed.medium.state.record, bed.record(3));
    const size_t saves = bed.store->saves().size();
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{bed.record(3)})), "done") << "sent again";
    Record other = bed.record(3);
    other.members = {kReplica};
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{other})), "invalid_argument") << "another of the same stamp";
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{bed.record(2)})), "invalid_argument") << "older";
    for (const Term& of : {term(4), term(6)}) {
      other = bed.record(9);
      other.at.term = of;
      EXPECT_EQ(name(co_await bed.ask(RecordRequest{other})), "invalid_argument") << to_string(of);
    }
    other = bed.record(9);
    other.members = {};
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{other})), "invalid_argument");
    EXPECT_EQ(bed.store->saves().size(), saves);
    EXPECT_EQ(bed.medium.state.record, bed.record(3));
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{bed.record(4)})), "done");
    (void)co_await bed.prepare(1, term(6));
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{bed.record(1)})), "done") << "of a higher term";
  });
}

TEST(KeeperTest, ARecordIsAnsweredWhenItIsSaved) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    bed.store->hold_saves();
    Call call;
    bed.begin(call, 1, RecordRequest{bed.record(3)});
    co_await bed.pass(std::chrono::seconds(1));
    EXPECT_EQ(call.name(), "nothing");
    EXPECT_EQ(bed.medium.state.record, Record{});
    bed.store->release_saves();
    co_await bed.settle();
    EXPECT_EQ(call.name(), "done");
  });
}

TEST(KeeperTest, GenerationsGoUpAndTheOneThatIsBegunMayBeAskedForAgain) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{7})), "done");
    EXPECT_EQ(bed.medium.generation, (Stamp{term(5), 7}));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{7})), "done");
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{6})), "invalid_argument");
    EXPECT_EQ(bed.medium.generation, (Stamp{term(5), 7}));
    (void)co_await bed.prepare(1, term(6));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{1})), "done");
    EXPECT_EQ(bed.medium.generation, (Stamp{term(6), 1}));
    bed.store->set_error(Code::kIo);
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{2})), "io");
    EXPECT_EQ(bed.medium.generation, (Stamp{term(6), 1}));
  });
}

TEST(KeeperTest, ANoteIsNeverAboveTheGenerationAndNeverGoesBack) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 1}})), "invalid_argument") << "no generation was begun";
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{7})), "done");
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 8}})), "invalid_argument");
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 6}})), "done");
    EXPECT_EQ(bed.medium.state.note, (Stamp{term(5), 6}));
    const size_t saves = bed.store->saves().size();
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 6}})), "done");
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 2}})), "done");
    EXPECT_EQ(bed.medium.state.note, (Stamp{term(5), 6}));
    EXPECT_EQ(bed.store->saves().size(), saves);
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 7}})), "done");
    EXPECT_EQ(bed.medium.state.note, (Stamp{term(5), 7}));
  });
}

TEST(KeeperTest, CopiesGetTheStampOfTheSessionsGeneration) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(StampRequest{.extents = {0}})), "invalid_argument") << "no generation was begun";
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{1})), "done");
    bed.medium.write(0, std::vector(4096, std::byte{1}));
    (void)co_await bed.prepare(1, term(6));
    EXPECT_EQ(name(co_await bed.ask(StampRequest{.extents = {0}})), "invalid_argument") << "only of an older term";
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{4})), "done");
    EXPECT_EQ(name(co_await bed.ask(StampRequest{.extents = {0, 8}})), "invalid_argument") << "beyond the end";
    EXPECT_EQ(bed.medium.stamp(0), (Stamp{term(5), 1}));
    EXPECT_EQ(name(co_await bed.ask(StampRequest{.extents = {0, 7}})), "done");
    EXPECT_EQ(bed.medium.stamp(0), (Stamp{term(6), 4}));
    EXPECT_EQ(bed.medium.stamp(7), std::nullopt) << "nothing is there";
  });
}

TEST(KeeperTest, SnapshotsAreTakenInOrderShownAndDeleted) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    const auto snapshot = [&](uint8_t id, uint64_t generation) {
      return SnapshotRequest{{.id = uuid(id), .cut = {term(5), generation}, .size_bytes = bed.medium.size_bytes()}};
    };
    SnapshotRequest large = snapshot(50, 1);
    large.snapshot.size_bytes += 4096;
    EXPECT_EQ(name(co_await bed.ask(large)), "invalid_argument") << "larger than the replica";
    EXPECT_EQ(name(co_await bed.ask(snapshot(50, 2))), "done");
    EXPECT_EQ(name(co_await bed.ask(snapshot(50, 2))), "done") << "the same again";
    EXPECT_EQ(name(co_await bed.ask(snapshot(50, 3))), "invalid_argument") << "another one of that id";
    EXPECT_EQ(name(co_await bed.ask(snapshot(51, 2))), "invalid_argument") << "not after the last";
    EXPECT_EQ(name(co_await bed.ask(snapshot(51, 3))), "done");
    const Reply list = co_await bed.ask(SnapshotsRequest{});
    const auto* const snapshots = std::get_if<Snapshots>(&list);
    EXPECT_TRUE(snapshots != nullptr && snapshots->list.size() == 2 && snapshots->list[0].id == uuid(50));
    EXPECT_EQ((co_await bed.prepare(2, term(6))).last_snapshot.id, uuid(51));
    EXPECT_EQ(name(co_await bed.ask(ShowSnapshotRequest{uuid(52)})), "not_found");
    EXPECT_EQ(name(co_await bed.ask(ShowSnapshotRequest{uuid(51)})), "done");
    EXPECT_TRUE(bed.gate->shows(uuid(51)));
    EXPECT_EQ(name(co_await bed.ask(DeleteSnapshotRequest{uuid(51)})), "done");
    EXPECT_FALSE(bed.gate->shows(uuid(51)));
    EXPECT_EQ(name(co_await bed.ask(DeleteSnapshotRequest{uuid(51)})), "done") << "there is none";
    EXPECT_EQ(name(co_await bed.ask(ChangedRequest{.since = {}, .offset = 0, .base = uuid(51), .of = {}})),
              "not_found");
    EXPECT_EQ(bed.medium.snapshots().size(), 1U);
  });
}

TEST(KeeperTest, GrowsAndNeverShrinks) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    const uint64_t size = bed.medium.size_bytes();
    EXPECT_EQ(name(co_await bed.ask(GrowRequest{size - 4096})), "invalid_argument");
    EXPECT_EQ(name(co_await bed.ask(GrowRequest{size})), "done");
    EXPECT_EQ(name(co_await bed.ask(GrowRequest{2 * size})), "done");
    EXPECT_EQ(bed.medium.size_bytes(), 2 * size);
    EXPECT_EQ((co_await bed.prepare(1, term(6))).size_bytes, 2 * size);
  });
}

TEST(KeeperTest, TellsWhatChangedInPieces) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{1})), "done");
    for (const uint64_t extent : std::initializer_list<uint64_t>{0, 2, 4})
      bed.medium.write(extent * kExtentBytes, std::vector(512, std::byte{1}));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{2})), "done");
    for (const uint64_t extent : std::initializer_list<uint64_t>{2, 3, 7})
      bed.medium.write(extent * kExtentBytes, std::vector(512, std::byte{1}));
    bed.store->set_ranges_max(1);
    const Reply first = co_await bed.ask(ChangedRequest{.since = Stamp{term(5), 1}, .offset = 0});
    const auto* ranges = std::get_if<Ranges>(&first);
    if (ranges == nullptr) {
      ADD_FAILURE() << name(first);
      co_return;
    }
    EXPECT_EQ(ranges->ranges, (std::vector<ByteSpan>{{2 * kExtentBytes, 4 * kExtentBytes}}));
    EXPECT_EQ(ranges->next, 7 * kExtentBytes);
    const Reply second = co_await bed.ask(ChangedRequest{.since = Stamp{term(5), 1}, .offset = ranges->next});
    EXPECT_EQ(std::get<Ranges>(second).ranges, (std::vector<ByteSpan>{{7 * kExtentBytes, 8 * kExtentBytes}}));
    EXPECT_EQ(std::get<Ranges>(second).next, 0U);
    bed.store->set_error(Code::kCorrupt);
    EXPECT_EQ(name(co_await bed.ask(ChangedRequest{})), "corrupt");
  });
}

TEST(KeeperTest, AnAnswerAboutWhatChangedIsNotGivenToAnOldSession) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    Call changed;
    Call prepare;
    bed.begin(changed, 1, ChangedRequest{});
    bed.begin(prepare, 2, PrepareRequest{term(6)});
    co_await bed.settle();
    EXPECT_EQ(changed.name(), "fenced 6");
    EXPECT_EQ(prepare.name(), "prepared");
  });
}

// ---- A store that fails.

TEST(KeeperTest, APromiseThatCouldNotBeSavedStillHolds) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    bed.store->fail_next_save(Failure::kKeepsOld);
    EXPECT_EQ(name(co_await bed.ask(2, PrepareRequest{term(6)})), "io");
    EXPECT_EQ(name(co_await bed.ask(1, RecordRequest{bed.record(3)})), "fenced 6");
    EXPECT_EQ(bed.gate->enter(1).error().code, Code::kFenced);
    EXPECT_EQ(name(co_await bed.ask(1, PrepareRequest{term(5)})), "fenced 6");
    (void)co_await bed.prepare(2, term(6));
    EXPECT_EQ(bed.medium.state.promise, term(6));
  });
}

TEST(KeeperTest, WhatCouldNotBeSavedIsNotAnswered) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    bed.store->fail_next_save(Failure::kKeepsNew);
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{bed.record(3)})), "io");
    EXPECT_EQ(name(co_await bed.ask(RecordRequest{bed.record(4)})), "done") << "it goes on";
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{2})), "done");
    bed.store->fail_next_save(Failure::kKeepsOld);
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 1}})), "io");
    bed.store->set_error(Code::kIo);
    EXPECT_EQ(name(co_await bed.ask(StampRequest{.extents = {0}})), "io");
    bed.store->set_error({});
    EXPECT_EQ(bed.medium.state.record, bed.record(4));
    EXPECT_EQ(bed.medium.state.note, Stamp{});
    EXPECT_EQ(name(co_await bed.ask(NoteRequest{{term(5), 1}})), "done");
  });
}

TEST(KeeperTest, ASessionThatCouldNotBeSavedIsNotOpen) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    bed.store->fail_next_save(Failure::kKeepsNew);  // the promise is there already
    EXPECT_EQ(name(co_await bed.ask(1, PrepareRequest{term(5)})), "io");
    EXPECT_EQ(bed.gate->open_for(), 0U);
    EXPECT_EQ(name(co_await bed.ask(1, LevelledRequest{})), "fenced 5") << "nor is the old one";
    EXPECT_EQ((co_await bed.prepare(1, term(5))).session.number, 2U);
    EXPECT_EQ(name(co_await bed.ask(1, LevelledRequest{})), "done");
  });
}

TEST(KeeperTest, ChangesThatComeTogetherAreAllKept) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(GenerationRequest{9})), "done");
    bed.store->set_save_delay(milliseconds(5));
    Call calls[4];
    bed.begin(calls[0], 1, RecordRequest{bed.record(3)});
    bed.begin(calls[1], 1, NoteRequest{{term(5), 4}});
    bed.begin(calls[2], 1, RecordRequest{bed.record(4)});
    bed.begin(calls[3], 1, NoteRequest{{term(5), 5}});
    co_await bed.pass(milliseconds(100));
    EXPECT_EQ(calls[2].name(), "done");
    EXPECT_EQ(calls[3].name(), "done");
    EXPECT_EQ(bed.medium.state.record, bed.record(4));
    EXPECT_EQ(bed.medium.state.note, (Stamp{term(5), 5}));
  });
}

// ---- The ends.

TEST(KeeperTest, ASessionEndsWithItsCallersConnection) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    co_await bed.keeper->forget(2);
    EXPECT_EQ(bed.gate->open_for(), 1U) << "a stranger's end changes nothing";
    EXPECT_TRUE(bed.gate->enter(1).has_value());
    bool is_forgotten = false;
    bed.scope->spawn(KeeperBed::forget(*bed.keeper, 1, is_forgotten));
    co_await bed.pass(std::chrono::seconds(1));
    EXPECT_FALSE(is_forgotten) << "something is under way";
    EXPECT_EQ(bed.gate->enter(1).error().code, Code::kFenced);
    EXPECT_EQ(name(co_await bed.ask(1, LevelledRequest{})), "fenced 5");
    bed.gate->leave();
    co_await bed.settle();
    EXPECT_TRUE(is_forgotten);
    (void)co_await bed.prepare(2, term(5));
  });
}

TEST(KeeperTest, APrepareEndsWithItsCallersConnection) {
  for (int delay = 0; delay < 25; ++delay) {
    KeeperBed().run(
        [](KeeperBed& its, int after) -> Task<void> {
          its.store->set_save_delay(milliseconds(10));
          Call call;
          its.begin(call, 2, PrepareRequest{term(6)});
          co_await its.pass(milliseconds(after) + std::chrono::microseconds(500));
          co_await its.keeper->forget(2);
          co_await its.pass(milliseconds(100));
          EXPECT_EQ(call.name(), after < 20 ? "fenced 6" : "prepared") << after;
          EXPECT_EQ(its.gate->open_for(), 0U) << after;
        },
        delay);
  }
}

TEST(KeeperTest, CloseEndsWhatWaitsAndRefusesWhatComes) {
  KeeperBed().run([](KeeperBed& bed) -> Task<void> {
    (void)co_await bed.prepare(1, term(5));
    EXPECT_EQ(name(co_await bed.ask(LeaseRequest{400'000'000})), "done");
    Call prepare;
    bed.begin(prepare, 2, PrepareRequest{term(6)});
    co_await bed.settle();
    co_await bed.keeper->close();
    co_await bed.settle();
    EXPECT_EQ(prepare.name(), "shutting_down");
    EXPECT_EQ(name(co_await bed.ask(2, PrepareRequest{term(7)})), "shutting_down");
    EXPECT_EQ(bed.gate->open_for(), 0U);
  });
}

}  // namespace
}  // namespace fairlead::mirror
