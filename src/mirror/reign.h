// Reign: one term of a volume's target, from its prepare to its end (docs/internals/replication.md, rules 1 to 7).
//
//   gather     ask every replica, and the witness, for its promise, until there is a decision
//   level      find the extents that members may differ in; they are copied before anyone reads them
//   record     bring the record that was found into force, then our own
//   govern     serve: faults, returns, settling, checkpoints, leases
//
// Lives on the home shard; owned by VolumeTarget, which begins another when one ends. A reign that has ended is never
// resumed: what it knew may be out of date.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/event.h"
#include "async/mutex.h"
#include "async/scope.h"
#include "mirror/copier.h"
#include "mirror/copy_budget.h"
#include "mirror/link.h"
#include "mirror/options.h"
#include "mirror/quorum.h"
#include "mirror/sides.h"
#include "mirror/volume_job.h"

namespace fairlead::mirror {

// A replica of the volume, for as long as the target knows it.
struct Peer {
  std::unique_ptr<ReplicaLink> link;
  Slot slot = 0;
  // Damping: who fails again and again is asked again later and later.
  uint32_t failures = 0;
  Instant failed_at;
  // What is copied to it, or from it, at once: less after it did not end in time, more again when it is quick.
  uint64_t piece_bytes = Copier::kPieceBytes;
  uint32_t quick_pieces = 0;
};

class Reign {
 public:
  // Why it ended.
  enum class End : uint8_t {
    kStopped,     // told to
    kSuperseded,  // a majority obeys another target: stop for good
    kRenew,       // only another term can go on
  };
  enum class Phase : uint8_t { kGathering, kRecording, kServing };

  // All borrowed for life. `trusted`: serves with this replica alone, whatever the others say, because a person told it
  // to (rule 7). `jobs`: to be done while it serves. `changed` is released whenever what status is made of may be
  // another.
  Reign(Shard& home, const MirrorOptions& options, Term term, std::optional<ReplicaId> trusted,
        std::vector<Peer*> peers, Witness& witness, Sides& sides, CopyBudget& copies, VolumeJobs& jobs, Event& changed);
  ~Reign();  // Requires: run() returned.
  Reign(const Reign&) = delete;
  Reign& operator=(const Reign&) = delete;

  // From its beginning to its end. When it returns every slot is off, and what hosts asked for and did not get waits.
  Task<End> run();
  // In order: what is under way ends, everything is flushed, notes are made, leases are given back.
  void stop();

  // Ends, for another term.
  void renew() {
    must_renew_ = true;
    note_change();
  }

  // There is another job.
  void look_for_jobs() { note_change(); }

  // Of the data path.
  void slot_failed(Slot slot, uint64_t incarnation, const Error& error);
  void lease_wanted();
  void level_wanted(uint64_t extent);
  void repair_wanted(Slot slot, ByteRange range);

  Phase phase() const { return phase_; }
  const Term& term() const { return term_; }
  const Record& in_force() const { return in_force_; }
  const std::optional<Record>& proposal() const { return proposal_; }
  const Decision& decision() const { return decision_; }
  // The highest term that refused us.
  const Term& refusal() const { return refusal_; }
  bool is_witness_away() const { return is_witness_away_; }
  // Those that exist, by cut, ascending. While it serves.
  const std::vector<Snapshot>& snapshots() const { return snapshots_; }
  bool has_snapshot(const Uuid& id) const {
    return std::ranges::find(snapshots_, id, &Snapshot::id) != snapshots_.end();
  }

  enum class Standing : uint8_t {
    kAway,       // not reached, or it has no session
    kPrepared,   // it promised
    kReturning,  // what it missed is being copied
    kReady,      // it has everything, and is to become a member
    kMember,
  };
  struct Seat {
    explicit Seat(Peer& p) : peer(p) {}
    Peer& peer;
    Standing standing = Standing::kAway;
    bool may_be_stalled = false;  // it was, and nobody could go on without it: looked at again soon
    uint64_t connection = 0;      // that its session is of
    Prepared prepared;
    bool has_session = false;
    bool is_cold = false;      // it is nobody's source
    bool thinks_cold = false;  // and is to be told when it is not any more
    Copier::Device device;     // the home shard's, for copies and flushes; of the session
    Instant lease_until;
    bool is_renewing = false;
    Stamp sent_record;  // the newest that it was sent
    Instant copying_since;
    uint64_t copied = 0;    // in its last return: extents,
    uint64_t to_copy = 0;   // of so many
    uint32_t sourcing = 0;  // copies that are being read from it
    Duration read_takes{};  // on average, of a piece, with others under way
    Duration next_read_takes() const { return read_takes * (sourcing + 1); }
    // kReturning: what it has got so far.
    enum class Stage : uint8_t { kNone, kSnapshots, kHead } stage = Stage::kNone;
    Uuid base;                // the newest snapshot that it has as the members have it, its note being older; nil: none
    bool is_refused = false;  // it obeys a higher term
    Error last_error = {};
  };
  const std::vector<std::unique_ptr<Seat>>& seats() const { return seats_; }

 private:
  // reign.cc
  Task<End> reign();
  Task<void> wind_down();
  Task<void> tend(Seat& seat);
  Task<void> prepare(Seat& seat);
  Task<void> ask_witness();
  Task<bool> gather();
  Ballot ballot() const;
  Decision override_decision() const;
  Task<Result<Reply>> call(Seat& seat, RequestBody body);
  // Whether the seat's session is that one still.
  bool is_in(const Seat& seat, uint64_t session) const {
    return !is_ending() && seat.has_session && seat.prepared.session.number == session;
  }
  // What it was asked it did; anything else loses the seat its session.
  Task<bool> ask(Seat& seat, RequestBody body);
  bool is_done(Seat& seat, const Result<Reply>& reply);
  bool is_slow_way_to_all(const Seat& seat) const;
  Task<void> see_whether_stalled(Seat& seat);
  void lose(Seat& seat, Error error);
  // What went wrong in that session, if it is still the seat's.
  void lose(Seat& seat, uint64_t session, Error error) {
    if (seat.prepared.session.number == session) lose(seat, error);
  }
  void send_back(Seat& seat, const char* what_for);
  Seat* find(const ReplicaId& id) const;
  Seat* find(Slot slot) const;
  bool is_ending() const { return ending_.is_cancelled(); }
  Duration damping(const Peer& peer) const;

  // reign_records.cc
  Task<bool> serve_first();
  Task<bool> seat_members();
  Task<End> govern();
  MemberSet wanted_members() const;
  bool is_superseded() const;
  bool gives_way() const;
  bool has_promise_of_majority() const;
  void note_refusal();
  Task<void> renew_later();
  Task<bool> bring_into_force(Record record);
  void send_proposal();
  Task<void> send_record(Seat& seat, Record record);
  Task<void> send_record_to_witness(Record record);
  Task<void> restore_witness(Record record);
  Task<void> adopt(Record record);
  void start_returns();

  // reign_copy.cc
  Task<bool> find_unlevel();
  Task<bool> add_changes(Seat& of, ChangedRequest what, ExtentBits& into);
  Task<void> leveller();
  Task<void> tell_level(Seat& seat);
  Task<void> bring_back(Seat& seat);
  Task<bool> bring_back_now(Seat& seat);
  static ChangedRequest changes_of(const Seat& seat);
  Task<bool> stamp_all(Seat& seat, std::vector<uint64_t> extents);
  Seat* source_for(const Seat& seat) const;

  // reign_extents.cc
  Seat* next_source(const std::vector<Seat*>& not_these);
  Task<Result<void>> read_from(Seat& seat, ByteRange range, std::span<std::byte> bytes);
  Task<Result<void>> read_any(ByteRange range, std::span<std::byte> bytes, std::vector<Seat*> not_these);
  // The bytes of the range on all of `to` that have a session, unless they lose it: those of a member, which is chosen
  // once nobody writes there. Another is asked when it fails to read. Errors: kBusy (a write there is parked, nothing
  // was done), kCancelled, those of the last that was asked, kUnreachable (there is none).
  // `memory`: Copier::make_memory().
  Task<Result<void>> copy(ByteRange range, std::vector<Seat*> to, std::byte* memory);
  struct InSession {
    Seat* seat;
    uint64_t session;
  };
  bool is_in(const InSession& what) const { return is_in(*what.seat, what.session); }
  uint64_t piece_bytes() const;
  void note_piece(Peer& peer, Instant began) const;
  static void make_pieces_smaller(Peer& peer);
  Task<Result<void>> write_piece(ByteRange piece, std::span<const std::byte> bytes, std::vector<InSession>& sinks);
  Task<void> level_worker();
  Task<bool> level(uint64_t extent, std::byte* memory);
  Task<Result<void>> level_range(ByteRange range, std::vector<InSession> members, std::byte* memory);
  Task<Result<Seat*>> read_to_level(ByteRange range, std::span<std::byte> bytes, std::vector<InSession> members);
  std::optional<uint64_t> next_unlevel();
  // Copies what is wanted: first, in order of place, what no host has written to since a return began, then the rest.
  Task<bool> copy_all(Seat& seat, ExtentBits& wanted);
  Task<void> copy_worker(Seat& seat, ExtentBits& wanted, uint64_t session, bool& is_good);
  uint64_t next_to_copy(const ExtentBits& wanted) const;
  Task<void> make_way(Duration took);
  Task<void> repair(Seat& seat, ByteRange range);

  // reign_snapshot.cc
  Task<bool> make_large(Seat& seat);
  Task<bool> await_size(Seat& seat, uint64_t size_bytes);
  Task<bool> learn_snapshots();
  Task<std::optional<std::vector<Snapshot>>> snapshots_of(Seat& seat);
  Task<bool> copy_snapshots(Seat& seat);
  Task<bool> copy_snapshot(Seat& seat, Seat& source, Snapshot snapshot);
  Task<bool> copy_layer(Seat& seat, const ExtentBits& wanted, Copier::Device from, uint64_t size_bytes);
  struct LayerCopy;
  Task<void> layer_worker(LayerCopy& copy);
  Task<bool> begin_head(Seat& seat, Snapshot seen);
  Task<void> do_jobs();
  Task<std::optional<Result<void>>> perform(VolumeJob& job);
  Task<std::optional<Result<void>>> take_snapshot(VolumeJob& job);
  Task<bool> cut(VolumeJob& job, Snapshot snapshot, MemberSet members);
  Task<bool> pass_gate(VolumeJob& job);
  Task<bool> ask_all(MemberSet members, RequestBody body);
  Task<void> ask_one(Seat& seat, RequestBody body, bool& is_done_by_all);
  Task<bool> flush_all(MemberSet members);
  Task<void> flush_one(Seat& seat, bool& is_done_by_all);
  Task<std::optional<Result<void>>> delete_snapshot(Uuid id);
  Task<std::optional<Result<void>>> grow(uint64_t size_bytes);
  bool is_steady() const;
  bool are_members(const MemberSet& members) const;

  // reign_upkeep.cc
  Task<void> upkeep();
  Task<void> watch();
  Task<void> ask_whether_it_obeys(Seat& seat);
  Task<bool> checkpoint();
  std::vector<Seat*> with_generation() const;
  Task<bool> flush(Seat& seat);
  Task<void> keep_leases();
  Task<void> renew_lease(Seat& seat);
  void count_leases();
  Task<void> finish();
  Task<void> lose_patience();

  void note_change();
  // Whether hosts are to wait: also when a snapshot that the end cut off comes to its own.
  bool is_held() const { return is_told_to_stop_ || is_cutting_ || is_ending(); }

  Shard& home_;
  const MirrorOptions& options_;
  const Term term_;
  const std::optional<ReplicaId> trusted_;
  Witness& witness_;
  Sides& sides_;
  VolumeJobs& jobs_;
  const uint64_t era_;
  Event& outer_changed_;
  Event changed_;  // anything that a coroutine here may wait for
  CancelSource ending_;
  Scope scope_;
  Copier copier_;
  CopyBudget::Share copies_;
  size_t next_source_ = 0;
  std::vector<std::unique_ptr<Seat>> seats_;

  Phase phase_ = Phase::kGathering;
  bool is_told_to_stop_ = false;
  bool is_finishing_ = false;  // after it was told to stop
  bool is_finished_ = false;
  bool must_renew_ = false;
  bool is_renewing_ = false;  // soon
  Term refusal_;
  std::optional<WitnessAnswer> witness_answer_;
  bool is_witness_away_ = false;
  bool is_asking_witness_ = false;
  Decision decision_;
  uint64_t counter_ = 0;     // of generations and records
  uint64_t generation_ = 0;  // that writes have

  Record in_force_;
  std::optional<Record> proposal_;
  MemberSet proposed_since_;  // members of all that was proposed since in_force_ is: writes need them too (rule 2)
  Votes votes_;
  bool is_witness_refusing_ = false;
  bool is_witness_abstaining_ = false;
  Stamp sent_to_witness_;

  ReplicaId source_;  // to level from
  std::deque<uint64_t> wanted_level_;
  std::set<uint64_t> leveling_;
  bool is_level_ = false;
  std::set<Seat*> has_generation_;  // in the session that they have
  Mutex generation_changing_;

  std::vector<Snapshot> snapshots_;
  Snapshot last_snapshot_;        // of the records to come
  bool is_cutting_ = false;       // hosts wait for a snapshot to be taken
  size_t copying_snapshots_ = 0;  // seats

  Instant leases_wanted_until_;
  bool is_keeping_leases_ = false;
};

}  // namespace fairlead::mirror
