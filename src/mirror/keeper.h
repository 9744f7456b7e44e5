// Keeper: a replica's side of the protocol. It promises, keeps records, opens sessions, gives leases, and answers
// nothing before it is on stable storage. One for each replica that an engine has; lives on the home shard.
//
// Life-cycle: make as soon as the replica's pool is imported, handle() whatever comes, close(), destroy.
//
// Invariants:
//   - Promises and session numbers never go back, what is kept is never older than what was answered.
//   - Whoever had a session is refused, by handle() and by the gate, as soon as a prepare that is not refused begins,
//     whether it succeeds or not; what the session began has ended before another one begins.
//   - While a lease may be out, no session of another term is open.
#pragma once

#include <optional>

#include "async/event.h"
#include "async/mutex.h"
#include "async/scope.h"
#include "io/shard.h"
#include "mirror/replica_store.h"

namespace fairlead::mirror {

struct KeeperOptions {
  Uuid volume;
  ReplicaId replica;
  // The longest lease that is given. After its start a keeper answers no prepare for so long, unless nobody ever had a
  // session: it has forgotten what it gave before (rule 6, hole H11).
  Duration lease_max = std::chrono::milliseconds(500);
};

class Keeper {
 public:
  // All borrowed for life. Requires: the gate is closed.
  Keeper(Shard& home, ReplicaStore& store, ReplicaGate& gate, KeeperOptions options);
  ~Keeper();  // Requires: close() returned.
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // What a request gets. Several may be under way; those that change what is kept run one after the other.
  //   Prepare: takes as long as what it waits for: I/O under way, a lease. A later one that is not refused, of a higher
  //   term or of the same, ends that wait with Fenced. A term with number 0: Failed kInvalidArgument.
  //   All others, where the session named is not the caller's or not the current one: Fenced.
  //   Record, older than the one held, of another term than the session's, or without members: Failed kInvalidArgument.
  //   The one that is held already: Done. The same stamp on another record: Failed kInvalidArgument.
  //   Generation, below the current one: Failed kInvalidArgument. Equal: Done.
  //   Note, above the current generation: Failed kInvalidArgument. Equal to the one held, or older: Done, and nothing
  //   changes.
  //   Lease, longer than lease_max: Failed kInvalidArgument, for the caller counts on what it asked for. A shorter one
  //   than is out already changes nothing, but 0 gives it back.
  //   Snapshot, whose cut is not above those of all that there are, or larger than the replica: Failed
  //   kInvalidArgument; the same as one that there is: Done; more than kSnapshotsMax: Failed kResourceExhausted.
  //   ShowSnapshot of none: Failed kNotFound. DeleteSnapshot of one that is read in this process: Failed kBusy.
  //   Grow, to less than it is: Failed kInvalidArgument.
  //   Stamp, beyond the end, or before the session's term began a generation: Failed kInvalidArgument.
  // Requests for another volume or replica: Failed kNotFound. Where the store fails: Failed with its error, and what
  // was promised in memory stays promised; what was to be saved may be found after the next start.
  Task<Reply> handle(CallerId caller, Request request);

  // The caller's connection is gone: its session, if it has the current one, and its prepare, if one waits, end.
  // Returns when nothing is let through for it, and nothing is under way. Requires: it sends no more.
  Task<void> forget(CallerId caller);

  // The term of the target that has the replica now; none: none has, or its connection is gone.
  std::optional<Term> holder() const {
    return caller_ == 0 ? std::nullopt : std::optional(store_.state().session.term);
  }
  // Released when holder(), the promise or the record may be another.
  Event& changed() { return changed_; }

  // Refuses everything with Failed kShuttingDown, and closes the gate; returns when all handle() and forget() have.
  Task<void> close();

 private:
  // A prepare under way, and whether it is still the newest.
  struct Prepare {
    uint64_t number = 0;
    CallerId caller = 0;
    Term term;
  };
  struct Alarm : Timer {
    explicit Alarm(Event& event)
        : Timer([](Runnable& self) { static_cast<Alarm&>(self).rings.release_waiters(); }), rings(event) {}
    Event& rings;
  };
  class Entered;  // counts a task that close() waits for

  // Why a request is not executed, or not any more. None: the session that it names is the current one, and its own.
  std::optional<Reply> refusal(CallerId caller, const Request& request) const;
  // The same for a prepare: another one came, or the end.
  std::optional<Reply> refusal(const Prepare& prepare) const;

  Task<Reply> prepare(CallerId caller, Term term);
  Task<Result<void>> save_promise();
  Task<std::optional<Reply>> wait_for_others(const Prepare& prepare);
  Task<Reply> open_session(const Prepare& prepare);
  Task<Reply> save_session(const Prepare& prepare, Prepared& prepared);
  Task<Result<bool>> has_lost_writes(const ReplicaState& state);

  Task<Reply> execute(CallerId caller, const Request& request, Instant received);
  Task<Reply> change(const Request& request);
  // What a request makes of the state. The reply: nothing is to be saved.
  std::optional<Reply> apply(ReplicaState& state, const Record& record) const;
  std::optional<Reply> apply(ReplicaState& state, const NoteRequest& note) const;
  Task<Reply> begin_generation(Stamp stamp);
  Task<Reply> put_stamps(Term term, std::vector<uint64_t> extents);
  Task<Reply> take_snapshot(Snapshot snapshot);
  Task<Reply> delete_snapshot(Uuid id);
  Task<Reply> show_snapshot(Uuid id);
  Task<Reply> grow(uint64_t size_bytes);
  bool has_snapshot(const Uuid& id) const;
  Reply give_lease(const LeaseRequest& request, const Term& term, Instant received);

  void end_session();
  Task<void> close_gate();
  Task<void> open_gate(const Prepare& prepare);

  Shard& home_;
  ReplicaStore& store_;
  ReplicaGate& gate_;
  const KeeperOptions options_;
  const Instant quiet_until_;  // leases that were given before its start may be out; without any session there was none

  Term promise_;         // in memory: not below the one that is saved
  CallerId caller_ = 0;  // whose session is the current one
  Prepare newest_;       // caller 0: it has ended
  // Leases given, and to whom: there is one term at a time that has any.
  Term lease_term_;
  Instant lease_until_;

  bool gate_is_closed_ = true;
  bool gate_is_closing_ = false;
  uint64_t gate_openings_ = 0;

  bool is_closing_ = false;
  bool is_closed_ = false;
  size_t entered_ = 0;

  Mutex changes_;     // of what is kept
  Mutex gate_moves_;  // opening and closing the gate
  Event moved_;       // released when what a task here waits for may have come
  Event changed_;
  Alarm alarm_;  // the newest prepare's
  Scope scope_;
};

}  // namespace fairlead::mirror
