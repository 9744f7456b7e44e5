// MemoryStore: a Store that control processes of a simulated world share, and that a test can make late, unreachable,
// forgetful of its leader or failing. Who leads has a lease in the world's time, as with etcd.
//
//   MemoryStoreState state(world);
//   MemoryStore store(node.shard(0), state, "10.0.0.1:7000");
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/mutex.h"
#include "async/scope.h"
#include "control/lease.h"
#include "control/store.h"
#include "control/store_gate.h"
#include "sim/world.h"

namespace fairlead::test {

enum class StoreCut : uint8_t { kNothing, kRequests, kReplies };  // what is lost

// What the stores of one cluster share. Outlives them and their nodes' lives; simulated worlds only.
class MemoryStoreState {
 public:
  // Requires: epoch > 0.
  explicit MemoryStoreState(sim::SimWorld& world, uint32_t epoch = 1) : world_(world), epoch_(epoch) {}
  MemoryStoreState(const MemoryStoreState&) = delete;
  MemoryStoreState& operator=(const MemoryStoreState&) = delete;

  // ---- For the test.
  void set_cut(StoreCut cut) { cut_ = cut; }
  void set_delay(Duration each_way) { delay_ = each_way; }
  // The next commits that arrive end with kIo, undone.
  void fail_commits(uint64_t count) { commits_to_fail_ = count; }
  // The leader leads no more, which it learns when it next asks.
  void depose() { leader_.until = world_.now(); }
  // All is lost, and it was made anew.
  void rebuild(uint32_t epoch) {
    entries_.clear();
    leader_ = {};
    leaders_ = 0;
    epoch_ = epoch;
  }
  const std::map<std::string, control::Entry>& entries() const { return entries_; }
  uint64_t commits() const { return commits_; }  // that were done

  bool is_led() const { return leader_.number != 0 && world_.now() < leader_.until; }

 private:
  friend class MemoryStore;
  struct Leader {
    uint64_t number = 0;  // 0: nobody
    uint64_t client = 0;
    std::string address = {};
    Instant until = {};
  };
  static constexpr Duration kLease = std::chrono::seconds(3);

  bool is_leader(uint64_t number) const { return is_led() && leader_.number == number; }
  std::optional<control::Leadership> try_to_lead(uint64_t client, const std::string& address) {
    if (is_led() && leader_.client != client) return std::nullopt;
    const uint64_t number = (uint64_t{epoch_} << 32) + ++leaders_;
    leader_ = {.number = number, .client = client, .address = address, .until = world_.now() + kLease};
    return control::Leadership{.number = number, .epoch = epoch_};
  }
  bool keep(uint64_t number) {
    if (!is_leader(number)) return false;
    leader_.until = world_.now() + kLease;
    return true;
  }
  void release(uint64_t number) {
    if (leader_.number == number) leader_ = {};
  }
  std::vector<control::Entry> list(const std::string& prefix) const {
    std::vector<control::Entry> found;
    for (auto at = entries_.lower_bound(prefix); at != entries_.end() && at->first.starts_with(prefix); ++at) {
      found.push_back(at->second);
    }
    return found;
  }
  Outcome<uint64_t> commit(uint64_t number, const std::vector<control::Write>& writes) {
    if (commits_to_fail_ > 0) {
      --commits_to_fail_;
      return problem(Code::kIo, "the store failed");
    }
    if (!is_leader(number)) return problem(Code::kFenced, "another process leads now");
    for (const control::Write& write : writes) {
      const auto at = entries_.find(write.key);
      const uint64_t revision = at == entries_.end() ? 0 : at->second.revision;
      if (write.expected.value_or(revision) != revision) return problem_of({.code = Code::kMiscompare}, write.key);
    }
    ++revision_;
    ++commits_;
    for (const control::Write& write : writes) {
      if (write.value) {
        entries_[write.key] = {.key = write.key, .value = *write.value, .revision = revision_};
      } else {
        entries_.erase(write.key);
      }
    }
    return revision_;
  }

  sim::SimWorld& world_;
  StoreCut cut_ = StoreCut::kNothing;
  Duration delay_ = std::chrono::microseconds(200);
  uint64_t commits_to_fail_ = 0;
  uint64_t commits_ = 0;
  uint64_t clients_ = 0;
  uint32_t epoch_;
  uint64_t leaders_ = 0;
  uint64_t revision_ = 0;  // goes on rising over rebuild()
  Leader leader_;
  std::map<std::string, control::Entry> entries_;
};

// One control process's end of it. Borrows the state.
class MemoryStore final : public control::Store {
 public:
  MemoryStore(Shard& shard, MemoryStoreState& state, std::string address)
      : reactor_(shard.reactor),
        clock_(shard.clock),
        state_(state),
        client_(++state.clients_),
        address_(std::move(address)),
        gate_(shard.reactor),
        lease_(shard),
        keeper_(shard.reactor) {}
  ~MemoryStore() override { FL_CHECK(gate_.is_closed()); }

  // ---- For the test.
  void set_cut(StoreCut cut) { cut_ = cut; }
  // The process dies: nothing of what it asks from now on arrives, and its leadership runs out. Then stop() it.
  void kill() {
    is_killed_ = true;
    cut_ = StoreCut::kRequests;
  }

  Task<Outcome<control::Leadership>> lead() override {
    FL_CHECK(!leads());
    const auto pass = gate_.enter();
    if (!pass) co_return shutting_down();
    while (true) {
      const Instant asked = clock_.now();
      FL_CO_TRY_VOID(co_await arrive());
      const std::optional<control::Leadership> taken = state_.try_to_lead(client_, address_);
      if (taken) number_ = taken->number;  // stop() gives back what was not heard of, too
      FL_CO_TRY_VOID(co_await leave());
      if (taken && clock_.now() < sure_until(asked)) {
        lease_.begin(sure_until(asked));
        keeper_.spawn(keep(taken->number));
        co_return *taken;
      }
      (void)co_await sleep(reactor_, std::chrono::milliseconds(250), gate_.closing());
    }
  }
  bool leads() const override { return lease_.is_held(); }
  Event& lost() override { return lease_.lost(); }

  Task<Outcome<std::string>> leader_address() override {
    const auto pass = gate_.enter();
    if (!pass) co_return shutting_down();
    FL_CO_TRY_VOID(co_await arrive());
    std::string address = state_.is_led() ? state_.leader_.address : "";
    FL_CO_TRY_VOID(co_await leave());
    co_return address;
  }
  Task<Outcome<std::vector<control::Entry>>> list(std::string prefix) override {
    const auto pass = gate_.enter();
    if (!pass) co_return shutting_down();
    FL_CO_TRY_VOID(co_await arrive());
    std::vector<control::Entry> found = state_.list(prefix);
    FL_CO_TRY_VOID(co_await leave());
    co_return found;
  }
  Task<Outcome<uint64_t>> commit(std::vector<control::Write> writes) override {
    const auto pass = gate_.enter();
    if (!pass) co_return shutting_down();
    FL_CO_TRY_VOID(control::check(writes));
    if (!leads()) co_return problem(Code::kFenced, "this process does not lead");
    const uint64_t number = number_;
    FL_CO_TRY_VOID(co_await arrive());
    const Outcome<uint64_t> revision = state_.commit(number, writes);
    FL_CO_TRY_VOID(co_await leave());
    if (!revision && revision.error().error.code == Code::kFenced && number == number_) lease_.end();
    co_return revision;
  }
  Task<void> stop() override {
    if (gate_.is_closed()) co_return;
    lease_.end();
    co_await gate_.close();
    co_await keeper_.close();
    if (!is_killed_) state_.release(number_);
  }

 private:
  static std::unexpected<Problem> shutting_down() { return problem(Code::kShuttingDown, "the store is shutting down"); }
  static Instant sure_until(Instant asked) { return asked + MemoryStoreState::kLease - std::chrono::milliseconds(500); }
  bool is_cut(StoreCut what) const { return cut_ == what || state_.cut_ == what; }

  Task<Outcome<void>> arrive() {
    (void)co_await sleep(reactor_, state_.delay_, gate_.closing());
    if (gate_.is_closed()) co_return shutting_down();
    // Nobody can tell which of the two was lost.
    if (is_cut(StoreCut::kRequests)) co_return problem(Code::kTimedOut, "the store does not answer");
    co_return Outcome<void>();
  }
  Task<Outcome<void>> leave() {
    (void)co_await sleep(reactor_, state_.delay_, gate_.closing());
    if (gate_.is_closed()) co_return shutting_down();
    if (is_cut(StoreCut::kReplies)) co_return problem(Code::kTimedOut, "the store does not answer");
    co_return Outcome<void>();
  }

  // Until this leadership has ended.
  Task<void> keep(uint64_t number) {
    while (number == number_ && leads()) {
      (void)co_await sleep(reactor_, MemoryStoreState::kLease / 3, gate_.closing());
      const Instant asked = clock_.now();
      const Outcome<void> asks = co_await arrive();
      const bool is_kept = asks && state_.keep(number);
      const Outcome<void> answered = co_await leave();
      if (!asks || !answered || number != number_) continue;
      if (is_kept) {
        lease_.extend(sure_until(asked));
      } else {
        lease_.end();
      }
    }
  }

  Reactor& reactor_;
  Clock& clock_;
  MemoryStoreState& state_;
  const uint64_t client_;
  const std::string address_;
  StoreCut cut_ = StoreCut::kNothing;
  bool is_killed_ = false;
  uint64_t number_ = 0;
  control::StoreGate gate_;
  control::Lease lease_;
  Scope keeper_;
};

}  // namespace fairlead::test
