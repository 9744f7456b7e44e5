// VolumeTarget: serves a volume by mirroring it onto its replicas. Lives on the home shard; its devices on every shard.
//
// It takes the volume over, again and again until it serves, and goes on until it is stopped, or learns that a majority
// of replicas obeys another target. What is asked of its devices meanwhile waits; when it is superseded it fails with
// kFenced, for hosts a path error.
//
// Life-cycle: make, start(), source() for as many as like, stop_serving(), close what they opened, stop(), destroy.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mirror/reign.h"

namespace fairlead::mirror {

struct ReplicaStatus {
  ReplicaId replica;
  Reign::Standing standing = Reign::Standing::kAway;
  bool is_local = false;
  bool is_refused = false;
  uint64_t copied_bytes = 0;   // in its last return in this term: so many
  uint64_t to_copy_bytes = 0;  // of these
  uint64_t copy_rate = 0;      // kReturning: bytes a second, since it began
  Duration copy_left{};        // at this rate
  Error last_error;
};

struct TargetStatus {
  enum class State : uint8_t {
    kStarting,   // nothing was decided yet
    kSuspended,  // I/O waits: `why` says for what
    kServing,
    kSuperseded,  // another target has the volume
    kStopped,
  };
  State state = State::kStarting;
  Term term;
  Record record;             // in force, as far as we know
  bool is_degraded = false;  // fewer members than replicas
  uint64_t unlevel_bytes = 0;
  std::vector<ReplicaStatus> replicas;
  std::vector<Snapshot> snapshots;  // by cut, ascending; while it serves
  std::string why;                  // for people; empty when all is well
};

class VolumeTarget final : private SidesObserver {
 public:
  // `shards`: the home shard first. Links are of different replicas, kMembersMax at most. `copies`: shared with other
  // volumes; null: it has one of its own, of copies_in_flight. All but the links are borrowed for life.
  VolumeTarget(std::vector<Shard*> shards, std::vector<std::unique_ptr<ReplicaLink>> links, Witness& witness,
               MirrorOptions options, CopyBudget* copies = nullptr);
  ~VolumeTarget() override;  // Requires: stop() returned, or start() was never called.
  VolumeTarget(const VolumeTarget&) = delete;
  VolumeTarget& operator=(const VolumeTarget&) = delete;

  // Returns when shards are ready for source(); taking over goes on in the background.
  Task<void> start();
  // Each waits until the volume is served by this target, for `limit` at most, and is done after those before it.
  // Errors of all: kTimedOut (it is tried no more; what was begun may yet be done by whoever serves the volume next:
  // ask again), kShuttingDown, kFenced (another target has the volume).
  //
  // One cut through all that hosts do: what was answered before is in it, what comes after it is done is not. Hosts
  // wait for a moment. Every replica has it, or gets it when it is back. One that there is: done. Error
  // kResourceExhausted: kSnapshotsMax.
  Task<Result<void>> take_snapshot(Uuid id, Duration limit);
  // The same for several volumes at one moment: hosts of each wait, and nothing is under way, from when this is done
  // until take_held_snapshot() or delete_snapshot() of this id, for `hold` at most. When all are held, all are taken:
  // what is in one was answered before anything that is not in another was asked for.
  Task<Result<void>> hold_for_snapshot(Uuid id, Duration limit, Duration hold);
  // Error kTimedOut, too: hosts are not held for it, or have not been all the while. Unless it is done, the snapshots
  // of the other volumes are of another moment than one that there may be by this id.
  Task<Result<void>> take_held_snapshot(Uuid id, Duration limit);
  // One that there is not: done.
  Task<Result<void>> delete_snapshot(Uuid id, Duration limit);
  // Errors: kInvalidArgument (smaller than it is, or not whole blocks); what a replica says: kNoSpace.
  Task<Result<void>> grow(uint64_t size_bytes, Duration limit);

  // MirrorOptions::resync_share_percent from now on.
  void set_resync_share(uint32_t percent) { options_.resync_share_percent = percent; }

  // Goes on with another term, that is asked for anew: the witness's store is another one than that which gave out
  // ours. Hosts wait for a moment.
  void renew_term() {
    if (reign_) reign_->renew();
  }

  // A person's word, when nothing else helps: goes on with this replica alone, whatever it may lack, and brings the
  // others back to what it has. What only they have is lost; should any of them serve the volume elsewhere, there are
  // two. Error kNotFound.
  Result<void> force(const ReplicaId& trusted);

  // In order when it serves: what is under way ends, is flushed and noted; another target needs to copy nothing. What
  // waits then, and what comes later, fails with `code`: kFenced, for hosts a path error, when another has the volume
  // or is to have it. Idempotent. `unserved`, one for each shard or none, get it instead: this engine goes on with
  // another target. They are borrowed until stop() returned.
  Task<void> stop_serving(Code code = Code::kShuttingDown, std::vector<Unserved*> unserved = {});
  // The same, stops the links and lets the shards go. Requires: devices are closed; so stop_serving() before, when any
  // may be in use.
  Task<void> stop();
  // Whether stop() waits for a disk of this process that does not end what it was asked for; hosts do not. Requires:
  // stop_serving() returned.
  Task<bool> has_left_behind() { return sides_.has_left_behind(); }

  // To be served. Requires: start() returned.
  std::shared_ptr<BlockSource> source();

  TargetStatus status() const;
  // Also when it was stopped since.
  bool is_superseded() const { return is_superseded_; }
  // Released whenever status() may be another.
  Event& changed() { return changed_; }

 private:
  Task<Result<void>> run(VolumeJob job, Duration limit);
  Task<Result<void>> outcome_of(std::shared_ptr<VolumeJob> job, Duration limit);
  Task<void> rule();
  Task<Term> next_term();
  void slot_failed(Slot slot, uint64_t incarnation, Error error) override;
  void lease_wanted() override;
  void level_wanted(uint64_t extent) override;
  void repair_wanted(Slot slot, ByteRange range) override;
  std::string why(const Reign& reign) const;
  ReplicaStatus status_of(const Reign::Seat& seat) const;

  const std::vector<Shard*> shards_;
  MirrorOptions options_;
  Witness& witness_;
  CopyBudget own_copies_;
  CopyBudget& copies_;
  std::shared_ptr<MirrorShared> shared_;
  Sides sides_;
  Event changed_;
  Scope scope_;
  CancelSource stopping_;
  std::vector<std::unique_ptr<Peer>> peers_;
  VolumeJobs jobs_;
  std::unique_ptr<Reign> reign_;
  Term highest_;                      // that was heard of
  std::optional<ReplicaId> trusted_;  // for the next reign
  bool is_started_ = false;
  bool is_stopped_ = false;
  bool is_superseded_ = false;
};

}  // namespace fairlead::mirror
