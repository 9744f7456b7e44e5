// A keeper under everything at once, in an order that a seed draws: targets that prepare, change, read and vanish,
// saves that take their time or fail, ends of the process and of the kernel. What it answers is held against what it
// answered before.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <random>

#include "base/xoshiro.h"
#include "tests/support/keeper_bed.h"

namespace fairlead::mirror {
namespace {

using std::chrono::milliseconds;

// What a keeper has let others know, in all its lives.
struct Known {
  Term promise;
  uint64_t session = 0;
  Record record;
  Stamp note;
  Stamp generation;
  std::vector<std::pair<Term, Instant>> leases;
};

class Chaos {
 public:
  Chaos(KeeperBed& bed, uint64_t seed) : bed_(bed), random_(seed) {
    for (size_t i = 0; i < 3; ++i) targets_.push_back({.caller = ++callers_, .term = {}, .session = 0});
  }

  Task<void> run(int steps) {
    for (int i = 0; i < steps; ++i) {
      co_await step();
      co_await bed_.pass(milliseconds(below(3) == 0 ? below(200) : 0));
    }
    co_await bed_.scope->close();
    co_await restart(KeeperBed::Boot::kSame);
    co_await heal();
  }
  size_t prepared() const { return prepared_; }
  size_t changed() const { return changed_; }
  size_t fenced() const { return fenced_; }

 private:
  struct Target {
    CallerId caller = 0;
    Term term;
    uint64_t session = 0;
  };
  uint64_t below(uint64_t bound) { return random_.next() % bound; }

  Task<void> step() {
    Target& target = targets_[below(targets_.size())];
    const uint64_t what = below(80);
    if (what < 8) {
      bed_.scope->spawn(prepare(target, target.caller, draw_term(target)));
    } else if (what < 56) {
      bed_.scope->spawn(ask(target, target.caller, draw_body(target)));
    } else if (what < 68) {
      bed_.scope->spawn(transfer(target.caller, milliseconds(below(40))));
    } else if (what < 70) {
      const CallerId gone = std::exchange(target.caller, ++callers_);
      bed_.scope->spawn(forget(gone));
    } else if (what < 75) {
      bed_.store->set_save_delay(milliseconds(below(20)));
    } else if (what < 79) {
      bed_.store->fail_next_save(below(2) == 0 ? MemoryReplicaStore::Failure::kKeepsOld
                                               : MemoryReplicaStore::Failure::kKeepsNew);
    } else {
      co_await restart(below(2) == 0 ? KeeperBed::Boot::kSame : KeeperBed::Boot::kAnother);
    }
  }
  Term draw_term(const Target& target) {
    const uint64_t how = below(4);
    if (how == 0 && target.term.number != 0) return target.term;
    if (how == 1) return term(1 + below(terms_ + 1), static_cast<uint8_t>(100 + below(3)));
    return term(++terms_, static_cast<uint8_t>(100 + below(3)));
  }
  RequestBody draw_body(const Target& target) {
    switch (below(5)) {
      case 0:
        return RecordRequest{{.at = {target.term, 1 + below(++counter_)}, .members = {kReplica}, .prior = {kReplica}}};
      case 1:
        return GenerationRequest{1 + below(++counter_)};
      case 2:
        return NoteRequest{{target.term, below(counter_ + 1)}};
      case 3:
        return LeaseRequest{static_cast<uint64_t>(Duration(milliseconds(1 + below(500))).count())};
      default:
        return LevelledRequest{};
    }
  }

  // ---- What targets do. A caller that was forgotten meanwhile sends no more.

  Task<void> prepare(Target& target, CallerId caller, Term with) {
    if (target.caller != caller) co_return;
    const Reply reply = co_await bed_.keeper->handle(
        caller, {.volume = kVolume, .replica = kReplica, .term = {}, .session = 0, .body = PrepareRequest{with}});
    if (const auto* fenced = std::get_if<Fenced>(&reply)) note_fenced(*fenced, with);
    const auto* prepared = std::get_if<Prepared>(&reply);
    if (prepared == nullptr) co_return;
    check_prepared(*prepared, caller, with);
    target.term = with;
    target.session = prepared->session.number;
  }
  void check_prepared(const Prepared& prepared, CallerId caller, const Term& with) {
    ++prepared_;
    EXPECT_GE(with, known_.promise) << "a promise was broken";
    EXPECT_GT(prepared.session.number, known_.session) << "a session was opened twice";
    EXPECT_EQ(prepared.session.term, with);
    EXPECT_GE(prepared.record.at, known_.record.at) << "a record was forgotten";
    if (prepared.record.at == known_.record.at) EXPECT_EQ(prepared.record, known_.record);
    EXPECT_GE(prepared.note, known_.note) << "a note was forgotten";
    EXPECT_GE(prepared.newest, std::max({known_.record.at, known_.note, known_.generation}));
    for (const auto& [of, until] : known_.leases) {
      if (of != with) EXPECT_LE(until, bed_.now()) << "a lease of " << to_string(of) << " is out";
    }
    EXPECT_EQ(bed_.gate->open_for(), caller);
    EXPECT_EQ(bed_.gate->inside(), 0U) << "something of another session is under way";
    const ReplicaState& kept = bed_.medium.state;
    EXPECT_EQ(kept.promise, with) << "answered before it was kept";
    EXPECT_EQ(kept.session, prepared.session) << "answered before it was kept";
    EXPECT_EQ(kept.record, prepared.record);
    known_.promise = with;
    known_.session = prepared.session.number;
    known_.record = prepared.record;  // perhaps of a save that failed
    known_.note = prepared.note;
  }
  void note_fenced(const Fenced& fenced, const Term& asked) {
    ++fenced_;
    EXPECT_GE(fenced.promise, known_.promise);
    EXPECT_GE(fenced.promise, asked);
  }

  Task<void> ask(Target& target, CallerId caller, RequestBody body) {
    if (target.caller != caller || target.session == 0) co_return;
    const Instant sent = bed_.now();
    const Request request = {
        .volume = kVolume, .replica = kReplica, .term = target.term, .session = target.session, .body = body};
    const bool is_old = request.session < known_.session;
    const Reply reply = co_await bed_.keeper->handle(caller, request);
    if (std::holds_alternative<Fenced>(reply)) ++fenced_;
    if (!std::holds_alternative<Done>(reply)) co_return;
    ++changed_;
    EXPECT_FALSE(is_old) << "a later session was open already";
    EXPECT_EQ(request.session, known_.session) << "a later session was answered before this";
    const ReplicaState& kept = bed_.medium.state;
    if (const auto* record = std::get_if<RecordRequest>(&body)) {
      EXPECT_GE(kept.record.at, record->record.at) << "answered before it was kept";
      if (record->record.at > known_.record.at) known_.record = record->record;
    } else if (const auto* note = std::get_if<NoteRequest>(&body)) {
      EXPECT_GE(kept.note, note->note) << "answered before it was kept";
      known_.note = std::max(known_.note, note->note);
    } else if (const auto* generation = std::get_if<GenerationRequest>(&body)) {
      known_.generation = std::max(known_.generation, Stamp{request.term, generation->generation});
    } else if (const auto* lease = std::get_if<LeaseRequest>(&body)) {
      known_.leases.emplace_back(request.term, sent + Duration(static_cast<int64_t>(lease->lease_ns)));
    }
  }

  // Whatever is let through is of the newest session from its beginning to its end.
  Task<void> transfer(CallerId caller, Duration span) {
    MemoryGate& gate = *bed_.gate;
    if (!gate.enter(caller)) co_return;
    const uint64_t session = known_.session;
    co_await bed_.pass(span);
    EXPECT_EQ(session, known_.session) << "another session was opened meanwhile";
    gate.leave();
  }
  Task<void> forget(CallerId caller) {
    co_await bed_.keeper->forget(caller);
    EXPECT_NE(bed_.gate->open_for(), caller);
  }
  Task<void> restart(KeeperBed::Boot boot) { co_await bed_.restart(boot); }

  // When faults end, the highest term gets a session.
  Task<void> heal() {
    const Term highest = term(++terms_ + 1000);
    const CallerId caller = ++callers_;
    const Reply reply = co_await bed_.keeper->handle(
        caller, {.volume = kVolume, .replica = kReplica, .term = {}, .session = 0, .body = PrepareRequest{highest}});
    const auto* prepared = std::get_if<Prepared>(&reply);
    EXPECT_NE(prepared, nullptr) << name(reply);
    if (prepared != nullptr) check_prepared(*prepared, caller, highest);
  }

  KeeperBed& bed_;
  Xoshiro random_;
  std::vector<Target> targets_;
  Known known_;
  CallerId callers_ = 0;
  uint64_t terms_ = 0;
  uint64_t counter_ = 1;
  size_t prepared_ = 0;
  size_t changed_ = 0;
  size_t fenced_ = 0;
};

Task<void> run_chaos(KeeperBed& bed, uint64_t seed, std::array<size_t, 3>* counts) {
  Chaos chaos(bed, seed);
  co_await chaos.run(400);
  (*counts)[0] += chaos.prepared();
  (*counts)[1] += chaos.changed();
  (*counts)[2] += chaos.fenced();
}

TEST(KeeperModelTest, WhateverHappensItKeepsToWhatItAnswered) {
  const uint64_t first = std::random_device{}();
  std::array<size_t, 3> counts{};
  for (uint64_t seed = first; seed < first + 100; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    KeeperBed(seed).run(run_chaos, seed, &counts);
    if (HasFailure()) return;
  }
  for (const size_t count : counts) EXPECT_GT(count, 500U) << "of prepared, changed, fenced: too little happened";
}

}  // namespace
}  // namespace fairlead::mirror
