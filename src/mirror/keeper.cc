#include "mirror/keeper.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "mirror/mutant.h"

namespace fairlead::mirror {
namespace {

Reply failed(Code code) { return Failed{code}; }
Reply failed(const Error& error) { return Failed{error.code}; }
Reply done_or(const Result<void>& outcome) { return outcome ? Reply(Done{}) : failed(outcome.error()); }

}  // namespace

class Keeper::Entered {
 public:
  explicit Entered(Keeper& keeper) : keeper_(keeper) { ++keeper_.entered_; }
  ~Entered() {
    if (--keeper_.entered_ == 0) keeper_.moved_.release_waiters();
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  Keeper& keeper_;
};

Keeper::Keeper(Shard& home, ReplicaStore& store, ReplicaGate& gate, KeeperOptions options)
    : home_(home),
      store_(store),
      gate_(gate),
      options_(options),
      quiet_until_(home.clock.now() + (store.state().session.number == 0 ? Duration{} : options.lease_max)),
      promise_(store.state().promise),
      changes_(home.reactor),
      gate_moves_(home.reactor),
      moved_(home.reactor),
      changed_(home.reactor),
      alarm_(moved_),
      scope_(home.reactor) {}

Keeper::~Keeper() { FL_CHECK(is_closed_); }

Task<Reply> Keeper::handle(CallerId caller, Request request) {
  FL_CHECK(caller != 0);
  const Instant received = home_.clock.now();
  const Entered entered(*this);
  if (is_closing_) co_return failed(Code::kShuttingDown);
  if (request.volume != options_.volume || request.replica != options_.replica) co_return failed(Code::kNotFound);
  if (const auto* body = std::get_if<PrepareRequest>(&request.body)) co_return co_await prepare(caller, body->term);
  co_return co_await execute(caller, request, received);
}

Task<void> Keeper::forget(CallerId caller) {
  FL_CHECK(caller != 0);
  const Entered entered(*this);
  if (caller == caller_ || caller == newest_.caller) {
    newest_ = {.number = newest_.number + 1, .caller = 0, .term = {}};
    end_session();
  }
  // Perhaps for another's sake: then too what it drains may be this caller's.
  const uint64_t openings = gate_openings_;
  while (gate_is_closing_ && gate_openings_ == openings) co_await moved_.wait();
}

Task<void> Keeper::close() {
  is_closing_ = true;
  end_session();
  co_await scope_.close();
  while (entered_ > 0) co_await moved_.wait();
  home_.reactor.disarm(alarm_);
  is_closed_ = true;
}

// ---- Who is refused.

std::optional<Reply> Keeper::refusal(CallerId caller, const Request& request) const {
  if (is_closing_) return failed(Code::kShuttingDown);
  const Session session = store_.state().session;
  if (caller == caller_ && request.term == promise_ && request.term == session.term &&
      request.session == session.number) {
    return std::nullopt;
  }
  return Fenced{promise_};
}

std::optional<Reply> Keeper::refusal(const Prepare& prepare) const {
  if (is_closing_) return failed(Code::kShuttingDown);
  if (prepare.number == newest_.number) return std::nullopt;
  return Fenced{promise_};
}

// ---- Prepare.

Task<Reply> Keeper::prepare(CallerId caller, Term term) {
  if (term.number == 0) co_return failed(Code::kInvalidArgument);
  if (term < promise_) co_return Fenced{promise_};
  // From here on, before anything is saved: what is refused once must not be let through again.
  promise_ = term;
  newest_ = {.number = newest_.number + 1, .caller = caller, .term = term};
  const Prepare mine = newest_;
  end_session();
  const Result<void> saved = co_await save_promise();
  std::optional<Reply> answer = refusal(mine);
  if (!answer && !saved) answer = failed(saved.error());
  if (!answer) answer = co_await wait_for_others(mine);
  if (!answer) answer = co_await open_session(mine);
  if (newest_.number == mine.number) newest_.caller = 0;
  co_return *std::move(answer);
}

Task<Result<void>> Keeper::save_promise() {
  const Mutex::Guard guard = co_await changes_.lock();
  ReplicaState state = store_.state();
  if (state.promise == promise_) co_return Result<void>();  // a prepare before this one has saved it
  state.promise = promise_;
  const Result<void> saved = co_await store_.save(state);
  changed_.release_waiters();
  co_return saved;
}

// Until what was let through has ended, and no lease of another term can be out. The reply: it is refused meanwhile.
Task<std::optional<Reply>> Keeper::wait_for_others(const Prepare& prepare) {
  Instant until = quiet_until_;
  if (lease_term_ != prepare.term && !is_mutant(Mutant::kForgetsLeases)) until = std::max(until, lease_until_);
  while (true) {
    if (auto refused = refusal(prepare)) co_return refused;
    const bool is_early = home_.clock.now() < until;
    if (gate_is_closed_ && !is_early) co_return std::nullopt;
    if (is_early) home_.reactor.arm(alarm_, until);
    co_await moved_.wait();
  }
}

Task<Reply> Keeper::open_session(const Prepare& prepare) {
  Prepared prepared;
  const Reply saved = co_await save_session(prepare, prepared);
  if (!std::holds_alternative<Done>(saved)) co_return saved;
  co_await open_gate(prepare);
  if (auto refused = refusal(prepare)) co_return *refused;
  caller_ = prepare.caller;
  changed_.release_waiters();
  log_info("replica.prepared", {{"replica", to_string(options_.replica)},
                                {"term", to_string(prepare.term)},
                                {"session", prepared.session.number},
                                {"cold", prepared.is_cold}});
  co_return prepared;
}

// Fills in the answer. The reply: Done, or what to answer instead.
Task<Reply> Keeper::save_session(const Prepare& prepare, Prepared& prepared) {
  const Mutex::Guard guard = co_await changes_.lock();
  if (auto refused = refusal(prepare)) co_return *refused;
  ReplicaState state = store_.state();
  FL_CHECK(state.promise == prepare.term);
  const Result<bool> has_lost = co_await has_lost_writes(state);
  if (!has_lost) co_return failed(has_lost.error());
  if (auto refused = refusal(prepare)) co_return *refused;
  state.is_cold |= *has_lost;
  state.session = {.term = prepare.term, .number = state.session.number + 1, .boot_id = store_.boot_id()};
  if (const Result<void> saved = co_await store_.save(state); !saved) co_return failed(saved.error());
  if (auto refused = refusal(prepare)) co_return *refused;
  const Stamp begun = store_.generation().value_or(Stamp{});
  const std::vector<Snapshot> snapshots = store_.snapshots();
  const Snapshot last = snapshots.empty() ? Snapshot{} : snapshots.back();
  prepared = {.record = state.record,
              .newest = std::max({state.record.at, state.note, begun, last.cut}),
              .note = state.note,
              .is_cold = state.is_cold,
              .session = state.session,
              .size_bytes = store_.size_bytes(),
              .last_snapshot = last};
  co_return Done{};
}

// Whether writes that were answered may have gone with the disk's cache since the session that is held was opened
// (hole H3): another run of the kernel, and writes since what is surely on the disk.
Task<Result<bool>> Keeper::has_lost_writes(const ReplicaState& state) {
  if (state.session.number == 0 || state.session.boot_id == store_.boot_id()) co_return false;
  co_return co_await store_.has_changed_since(state.note);
}

// ---- The gate.

// Nobody has a session any more, and who waits looks again.
void Keeper::end_session() {
  caller_ = 0;
  changed_.release_waiters();
  if (!gate_is_closed_ && !gate_is_closing_) {
    gate_is_closing_ = true;
    scope_.spawn(close_gate());
  }
  moved_.release_waiters();
}

Task<void> Keeper::close_gate() {
  const Mutex::Guard guard = co_await gate_moves_.lock();
  co_await gate_.close();
  gate_is_closing_ = false;
  gate_is_closed_ = true;
  moved_.release_waiters();
}

Task<void> Keeper::open_gate(const Prepare& prepare) {
  const Mutex::Guard guard = co_await gate_moves_.lock();
  if (refusal(prepare)) co_return;
  FL_CHECK(gate_is_closed_);
  gate_is_closed_ = false;
  ++gate_openings_;
  co_await gate_.open(prepare.caller);
}

// ---- What a session may ask for.

Task<Reply> Keeper::execute(CallerId caller, const Request& request, Instant received) {
  if (auto refused = refusal(caller, request)) co_return *refused;
  if (const auto* lease = std::get_if<LeaseRequest>(&request.body))
    co_return give_lease(*lease, request.term, received);
  if (const auto* changed = std::get_if<ChangedRequest>(&request.body)) {
    const Result<Ranges> ranges = co_await store_.changed(*changed);
    if (auto refused = refusal(caller, request)) co_return *refused;
    if (!ranges) co_return failed(ranges.error());
    co_return *ranges;
  }
  if (std::holds_alternative<SnapshotsRequest>(request.body)) co_return Snapshots{store_.snapshots()};
  const Mutex::Guard guard = co_await changes_.lock();
  if (auto refused = refusal(caller, request)) co_return *refused;
  co_return co_await change(request);
}

// Requires: changes_ is held, and the session is the current one. What is under way here ends before a prepare is
// answered: that takes changes_ too.
Task<Reply> Keeper::change(const Request& request) {
  ReplicaState state = store_.state();
  std::optional<Reply> answer;
  if (const auto* record = std::get_if<RecordRequest>(&request.body)) {
    answer = apply(state, record->record);
  } else if (const auto* note = std::get_if<NoteRequest>(&request.body)) {
    answer = apply(state, *note);
  } else if (std::holds_alternative<LevelledRequest>(request.body)) {
    if (!state.is_cold) answer = Done{};
    state.is_cold = false;
  } else if (const auto* generation = std::get_if<GenerationRequest>(&request.body)) {
    co_return co_await begin_generation({.term = request.term, .generation = generation->generation});
  } else if (const auto* stamp = std::get_if<StampRequest>(&request.body)) {
    co_return co_await put_stamps(request.term, stamp->extents);
  } else if (const auto* taken = std::get_if<SnapshotRequest>(&request.body)) {
    co_return co_await take_snapshot(taken->snapshot);
  } else if (const auto* deleted = std::get_if<DeleteSnapshotRequest>(&request.body)) {
    co_return co_await delete_snapshot(deleted->id);
  } else if (const auto* shown = std::get_if<ShowSnapshotRequest>(&request.body)) {
    co_return co_await show_snapshot(shown->id);
  } else if (const auto* size = std::get_if<GrowRequest>(&request.body)) {
    co_return co_await grow(size->size_bytes);
  }
  if (answer) co_return *answer;
  const Result<void> saved = co_await store_.save(state);
  if (!std::holds_alternative<NoteRequest>(request.body)) changed_.release_waiters();
  co_return done_or(saved);
}

std::optional<Reply> Keeper::apply(ReplicaState& state, const Record& record) const {
  if (record.at.term != state.session.term || record.members.empty() || record.prior.empty()) {
    return failed(Code::kInvalidArgument);
  }
  if (record == state.record) return Done{};
  if (record.at <= state.record.at) return failed(Code::kInvalidArgument);
  state.record = record;
  return std::nullopt;
}

std::optional<Reply> Keeper::apply(ReplicaState& state, const NoteRequest& note) const {
  if (note.note <= state.note) return Done{};
  if (note.note > store_.generation()) return failed(Code::kInvalidArgument);
  state.note = note.note;
  return std::nullopt;
}

Task<Reply> Keeper::begin_generation(Stamp stamp) {
  const std::optional<Stamp> current = store_.generation();
  if (stamp == current) co_return Done{};
  if (stamp < current) co_return failed(Code::kInvalidArgument);
  const Result<void> begun = co_await store_.begin_generation(stamp);
  co_return done_or(begun);
}

Task<Reply> Keeper::put_stamps(Term term, std::vector<uint64_t> extents) {
  const std::optional<Stamp> current = store_.generation();
  const uint64_t count = (store_.size_bytes() + kExtentBytes - 1) / kExtentBytes;
  const bool is_inside = std::ranges::all_of(extents, [count](uint64_t extent) { return extent < count; });
  // With an older term's stamp a copy would look older than what it was copied over (hole H8).
  if (!is_inside || !current || current->term != term) co_return failed(Code::kInvalidArgument);
  co_return done_or(co_await store_.stamp(std::move(extents)));
}

bool Keeper::has_snapshot(const Uuid& id) const {
  const std::vector<Snapshot> all = store_.snapshots();
  return std::ranges::find(all, id, &Snapshot::id) != all.end();
}

Task<Reply> Keeper::take_snapshot(Snapshot snapshot) {
  const std::vector<Snapshot> all = store_.snapshots();
  if (std::ranges::find(all, snapshot) != all.end()) co_return Done{};
  const bool is_last = all.empty() || all.back().cut < snapshot.cut;
  if (!is_last || snapshot.id.is_nil() || has_snapshot(snapshot.id) || snapshot.size_bytes == 0 ||
      snapshot.size_bytes > store_.size_bytes()) {
    co_return failed(Code::kInvalidArgument);
  }
  if (all.size() >= kSnapshotsMax) co_return failed(Code::kResourceExhausted);
  co_return done_or(co_await store_.take_snapshot(snapshot));
}

Task<Reply> Keeper::delete_snapshot(Uuid id) {
  if (!has_snapshot(id)) co_return Done{};
  co_await gate_.hide(id);
  co_return done_or(co_await store_.delete_snapshot(id));
}

Task<Reply> Keeper::show_snapshot(Uuid id) {
  if (!has_snapshot(id)) co_return failed(Code::kNotFound);
  co_return done_or(co_await gate_.show(id));
}

Task<Reply> Keeper::grow(uint64_t size_bytes) {
  if (size_bytes < store_.size_bytes()) co_return failed(Code::kInvalidArgument);
  if (size_bytes > store_.size_bytes()) {
    if (const Result<void> grown = co_await store_.grow(size_bytes); !grown) co_return failed(grown.error());
  }
  // Also when it is so already: whoever made it so may have died before it was told.
  co_await gate_.tell_size();
  co_return Done{};
}

Reply Keeper::give_lease(const LeaseRequest& request, const Term& term, Instant received) {
  if (request.lease_ns > static_cast<uint64_t>(options_.lease_max.count())) return failed(Code::kInvalidArgument);
  const Instant until = received + Duration(static_cast<int64_t>(request.lease_ns));
  const bool is_longer = lease_term_ != term || until > lease_until_;
  if (is_longer || request.lease_ns == 0) lease_until_ = until;
  lease_term_ = term;
  return Done{};
}

}  // namespace fairlead::mirror
