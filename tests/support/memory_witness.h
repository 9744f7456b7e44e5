// MemoryWitness: a witness that a test can make late, unreachable or forgetful. Simulated worlds only; one shard.
#pragma once

#include <map>

#include "async/cancel.h"
#include "mirror/link.h"

namespace fairlead::test {

class MemoryWitness final : public mirror::Witness {
 public:
  explicit MemoryWitness(Reactor& reactor) : reactor_(reactor) {}

  // ---- For the test.
  enum class Cut : uint8_t { kNothing, kRequests, kReplies };  // what is lost
  void set_cut(Cut cut) { cut_ = cut; }
  void set_delay(Duration span) { delay_ = span; }
  // Lost what it knew of the volume: from now on it is another epoch, and abstains.
  void rebuild(const Uuid& volume) {
    epochs_[volume] += uint64_t{1} << 32;
    terms_[volume] = epochs_[volume];
    votes_[volume] = {.promise = {}, .record = {}, .abstains = true};
  }
  void set_record(const Uuid& volume, mirror::Record record) {
    votes_[volume] = {.promise = record.at.term, .record = record, .abstains = false};
  }
  const mirror::WitnessAnswer& vote(const Uuid& volume) { return votes_[volume]; }
  uint64_t calls() const { return calls_; }

  Task<Result<uint64_t>> next_term(Uuid volume) override {
    if (!co_await arrive()) co_return fail(Code::kUnreachable);
    const uint64_t term = ++terms_[volume];
    if (!co_await leave()) co_return fail(Code::kTimedOut);
    co_return term;
  }
  Task<Result<mirror::WitnessAnswer>> prepare(Uuid volume, mirror::Term term) override {
    if (!co_await arrive()) co_return fail(Code::kUnreachable);
    mirror::WitnessAnswer& vote = votes_[volume];
    vote.promise = std::max(vote.promise, term);
    terms_[volume] = std::max(terms_[volume], term.number);
    const mirror::WitnessAnswer answer = vote;
    if (!co_await leave()) co_return fail(Code::kTimedOut);
    co_return answer;
  }
  Task<Result<mirror::WitnessAnswer>> keep(Uuid volume, mirror::Record record, Standing standing) override {
    if (!co_await arrive()) co_return fail(Code::kUnreachable);
    mirror::WitnessAnswer& vote = votes_[volume];
    if (record.at.term >= vote.promise) {
      vote.promise = record.at.term;
      if (record.at > vote.record.at) vote.record = record;
      if (standing == Standing::kInForce && record.at.term.number > epochs_[volume]) vote.abstains = false;
    }
    const mirror::WitnessAnswer answer = vote;
    if (!co_await leave()) co_return fail(Code::kTimedOut);
    co_return answer;
  }

 private:
  Task<bool> arrive() {
    ++calls_;
    (void)co_await sleep(reactor_, delay_);
    co_return cut_ != Cut::kRequests;
  }
  Task<bool> leave() {
    (void)co_await sleep(reactor_, delay_);
    co_return cut_ == Cut::kNothing;
  }
  Reactor& reactor_;
  Cut cut_ = Cut::kNothing;
  Duration delay_ = std::chrono::microseconds(200);
  std::map<Uuid, mirror::WitnessAnswer> votes_;
  std::map<Uuid, uint64_t> terms_;
  std::map<Uuid, uint64_t> epochs_;
  uint64_t calls_ = 0;
};

}  // namespace fairlead::test
