// What a volume is told while it is served: snapshots, and to grow (hole H16); and how a replica that returns gets the
// snapshots that it missed.
#include <algorithm>
#include <utility>

#include "async/alarm.h"
#include "base/log.h"
#include "mirror/mutant.h"
#include "mirror/reign.h"

namespace fairlead::mirror {

// ---- Jobs

// Nothing is about to change but by hosts.
bool Reign::is_steady() const {
  return phase_ == Phase::kServing && !is_ending() && !is_told_to_stop_ && !must_renew_ && is_level_ && !proposal_ &&
         in_force_.is_settled() && in_force_.last_snapshot == last_snapshot_ && wanted_members() == in_force_.members;
}

bool Reign::are_members(const MemberSet& members) const {
  return in_force_.members == members && !proposal_ && std::ranges::all_of(members.ids(), [this](const ReplicaId& id) {
           const Seat& seat = *find(id);
           return seat.has_session && seat.standing == Standing::kMember;
         });
}

Task<void> Reign::do_jobs() {
  while (!is_ending()) {
    if (jobs_.empty() || !is_steady()) {
      co_await changed_.wait();
      continue;
    }
    const std::shared_ptr<VolumeJob> job = jobs_.front();
    std::optional<Result<void>> outcome = co_await perform(*job);
    if (outcome) {
      job->outcome = std::move(outcome);
      std::erase(jobs_, job);
      note_change();
    } else {
      (void)co_await sleep(home_.reactor, options_.retry_min, ending_);
    }
  }
}

// None: it was not done, or nobody knows; to be tried again.
Task<std::optional<Result<void>>> Reign::perform(VolumeJob& job) {
  switch (job.kind) {
    case VolumeJob::Kind::kSnapshot:
      return take_snapshot(job);
    case VolumeJob::Kind::kDeleteSnapshot:
      return delete_snapshot(job.snapshot);
    case VolumeJob::Kind::kGrow:
      return grow(job.size_bytes);
  }
  FL_UNREACHABLE("a job");
}

Task<void> Reign::ask_one(Seat& seat, RequestBody body, bool& is_done_by_all) {
  if (!co_await ask(seat, std::move(body))) is_done_by_all = false;
}

// All at once. What one does not do is the end of its session.
Task<bool> Reign::ask_all(MemberSet members, RequestBody body) {
  bool is_done_by_all = true;
  Scope asking(home_.reactor);
  for (const ReplicaId& id : members.ids()) asking.spawn(ask_one(*find(id), body, is_done_by_all));
  co_await asking.close();
  co_return is_done_by_all;
}

Task<void> Reign::flush_one(Seat& seat, bool& is_done_by_all) {
  if (!co_await flush(seat)) is_done_by_all = false;
}

Task<bool> Reign::flush_all(MemberSet members) {
  bool is_done_by_all = true;
  if (is_mutant(Mutant::kCutsWithoutFlush)) members = {};
  Scope flushing(home_.reactor);
  for (const ReplicaId& id : members.ids()) flushing.spawn(flush_one(*find(id), is_done_by_all));
  co_await flushing.close();
  co_return is_done_by_all;
}

// ---- Snapshots: taken and deleted

// Hosts wait; what is under way ends; members freeze what they have; hosts go on. Then the record names the snapshot:
// until it is in force there is none, and whoever takes over deletes what members have of it.
Task<std::optional<Result<void>>> Reign::take_snapshot(VolumeJob& job) {
  const Uuid id = job.snapshot;
  if (has_snapshot(id)) co_return Result<void>();
  if (snapshots_.size() >= kSnapshotsMax) co_return fail(Code::kResourceExhausted, "the volume has 500 snapshots");
  const auto let_go = [&job]() -> std::optional<Result<void>> {
    if (job.gate == CutGate::kNone || job.gate == CutGate::kClosed) return std::nullopt;
    return fail(Code::kTimedOut, "hosts were let go before all volumes were held");
  };
  if (job.gate == CutGate::kGivenUp) co_return let_go();
  const MemberSet members = in_force_.members;
  Snapshot snapshot;
  Duration held{};
  {
    const Mutex::Guard guard = co_await generation_changing_.lock();
    if (!is_steady() || !are_members(members)) co_return std::nullopt;
    // What is being copied to them beneath the writes of hosts is of no one moment: they begin anew.
    for (const auto& seat : seats_) {
      if (seat->stage == Seat::Stage::kHead) send_back(*seat, "for a snapshot");
    }
    // Most of what has to be flushed is, before hosts wait.
    if (!co_await flush_all(members) || !is_steady()) co_return std::nullopt;
    snapshot = {.id = id, .cut = {term_, generation_}, .size_bytes = sides_.shared().size_bytes};
    const Instant held_since = home_.reactor.now();
    is_cutting_ = !is_mutant(Mutant::kCutsWithoutHold);
    sides_.configuration().is_held = is_held();
    co_await sides_.publish();
    const bool is_cut = co_await cut(job, snapshot, members);
    is_cutting_ = false;
    sides_.configuration().is_held = is_held();
    co_await sides_.publish();
    held = home_.reactor.now() - held_since;
    if (!is_cut) {
      for (const auto& seat : seats_) {
        if (seat->has_session && !is_ending()) (void)co_await ask(*seat, DeleteSnapshotRequest{id});
      }
      co_return let_go();
    }
    last_snapshot_ = snapshot;
  }
  note_change();
  while (!is_ending() && in_force_.last_snapshot != snapshot) co_await changed_.wait();
  if (is_ending()) co_return let_go();
  snapshots_.push_back(snapshot);
  log_info("mirror.snapshot", {{"volume", to_string(options_.volume)},
                               {"snapshot", to_string(id)},
                               {"held_us", std::chrono::duration_cast<std::chrono::microseconds>(held).count()}});
  (void)co_await ask_all(members, NoteRequest{snapshot.cut});
  co_return Result<void>();
}

// On all members, or it is to be undone. Requires: hosts are held, the generation does not change.
Task<bool> Reign::cut(VolumeJob& job, Snapshot snapshot, MemberSet members) {
  if (!is_mutant(Mutant::kCutsWithoutHold) && !co_await sides_.drain(era_)) co_return false;
  if (!are_members(members) || !co_await flush_all(members) || !co_await pass_gate(job)) co_return false;
  const bool is_taken = co_await ask_all(members, SnapshotRequest{snapshot});
  // What is written from here on is newer than the cut. Also when somebody did not answer: what is left of this
  // attempt, by the same name, must not have the cut of another.
  const uint64_t next = ++counter_;
  MemberSet stamped;
  for (const Seat* const seat : with_generation()) stamped.add(seat->peer.link->replica());
  (void)co_await ask_all(stamped, GenerationRequest{next});
  generation_ = next;
  co_return is_taken&& are_members(members);
}

// With snapshots of other volumes: when hosts are held everywhere. False: they were not, for too long.
Task<bool> Reign::pass_gate(VolumeJob& job) {
  if (job.gate == CutGate::kNone) co_return true;
  if (job.gate == CutGate::kClosed) job.gate = CutGate::kHeld;
  note_change();
  const Instant until = home_.reactor.now() + job.hold;
  const Alarm alarm(home_.reactor, changed_, until);
  const auto may_wait = [&] { return home_.reactor.now() < until && is_steady(); };
  while (job.gate == CutGate::kHeld && may_wait()) co_await changed_.wait();
  if (job.gate == CutGate::kHeld) job.gate = CutGate::kGivenUp;
  co_return job.gate == CutGate::kOpen&& is_steady();
}

// Those that are away do it when they are back: what the others have not is deleted there.
Task<std::optional<Result<void>>> Reign::delete_snapshot(Uuid id) {
  // Nobody copies from it.
  for (const auto& seat : seats_) {
    if (seat->stage == Seat::Stage::kSnapshots) send_back(*seat, "for a deletion");
  }
  while (!is_ending() && copying_snapshots_ > 0) co_await changed_.wait();
  if (is_ending()) co_return std::nullopt;
  for (const auto& seat : seats_) {
    if (!seat->has_session) continue;
    const uint64_t session = seat->prepared.session.number;
    const Result<Reply> reply = co_await call(*seat, DeleteSnapshotRequest{id});
    if (const Failed* failed = reply ? std::get_if<Failed>(&*reply) : nullptr; failed != nullptr) {
      if (failed->code == Code::kBusy) co_return std::nullopt;  // a return has begun to read it
      co_return std::unexpected(Error{.code = failed->code, .what = "a replica does not delete the snapshot"});
    }
    if (is_in(*seat, session)) (void)is_done(*seat, reply);
  }
  if (is_ending()) co_return std::nullopt;
  std::erase_if(snapshots_, [&](const Snapshot& snapshot) { return snapshot.id == id; });
  co_return Result<void>();
}

// ---- Size

// Larger on all that are sent what hosts write, before a host may.
Task<std::optional<Result<void>>> Reign::grow(uint64_t size_bytes) {
  const Mutex::Guard guard = co_await generation_changing_.lock();
  if (!is_steady()) co_return std::nullopt;
  if (size_bytes < sides_.shared().size_bytes) co_return fail(Code::kInvalidArgument, "a volume does not shrink");
  for (Seat* const seat : with_generation()) {
    const uint64_t session = seat->prepared.session.number;
    const Result<Reply> reply = co_await call(*seat, GrowRequest{size_bytes});
    if (const Failed* failed = reply ? std::get_if<Failed>(&*reply) : nullptr; failed != nullptr) {
      co_return std::unexpected(Error{.code = failed->code, .what = "a replica does not grow"});
    }
    if (is_in(*seat, session)) (void)is_done(*seat, reply);
  }
  for (Seat* const seat : with_generation()) {
    const bool is_sent = sides_.configuration().slots[seat->peer.slot].use != SlotUse::kOff;
    if (is_sent) (void)co_await await_size(*seat, size_bytes);
  }
  if (is_ending()) co_return std::nullopt;
  sides_.shared().size_bytes = size_bytes;
  note_change();
  co_return Result<void>();
}

// A replica that was away while the volume grew, or was made smaller than it is.
Task<bool> Reign::make_large(Seat& seat) {
  const uint64_t size_bytes = sides_.shared().size_bytes;
  if (seat.prepared.size_bytes >= size_bytes) co_return true;
  co_return co_await ask(seat, GrowRequest{size_bytes});
}

// Its devices hear of the size a little later than the replica has it. False: the session was lost.
Task<bool> Reign::await_size(Seat& seat, uint64_t size_bytes) {
  const uint64_t session = seat.prepared.session.number;
  const Instant until = home_.reactor.now() + options_.stall_limit;
  while (is_in(seat, session)) {
    const bool is_grown = seat.device->refresh_size().value_or(0) >= size_bytes;
    if (is_grown && co_await sides_.is_grown(seat.peer.slot, size_bytes)) co_return is_in(seat, session);
    if (home_.reactor.now() >= until) {
      lose(seat, session, Error{.code = Code::kTimedOut, .what = "the replica seems not to grow"});
      break;
    }
    (void)co_await sleep(home_.reactor, options_.retry_min / 8, ending_);
  }
  co_return false;
}

// ---- What replicas have

Task<std::optional<std::vector<Snapshot>>> Reign::snapshots_of(Seat& seat) {
  const uint64_t session = seat.prepared.session.number;
  const Result<Reply> reply = co_await call(seat, SnapshotsRequest{});
  if (const Snapshots* const snapshots = reply ? std::get_if<Snapshots>(&*reply) : nullptr) co_return snapshots->list;
  lose(seat, session, reply ? Error{.code = Code::kProtocol} : reply.error());
  co_return std::nullopt;
}

// Those that exist; what members have of one that came to nothing they delete.
Task<bool> Reign::learn_snapshots() {
  snapshots_.clear();
  if (is_mutant(Mutant::kKeepsFailedSnapshots)) co_return true;
  for (const ReplicaId& id : decision_.present.ids()) {
    Seat& seat = *find(id);
    const Snapshot& last = seat.prepared.last_snapshot;
    if (last == Snapshot{} || (id != source_ && last.cut <= last_snapshot_.cut)) continue;
    std::optional<std::vector<Snapshot>> has = co_await snapshots_of(seat);
    if (!has) co_return false;
    while (!has->empty() && has->back().cut > last_snapshot_.cut) {
      if (!co_await ask(seat, DeleteSnapshotRequest{has->back().id})) co_return false;
      has->pop_back();
    }
    if (id == source_) snapshots_ = std::move(*has);
  }
  co_return true;
}

// ---- Returns

namespace {

// Counts for as long as it lives.
class Counted {
 public:
  Counted(size_t& count, Event& changed) : count_(count), changed_(changed) { ++count_; }
  ~Counted() {
    --count_;
    changed_.release_waiters();
  }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  size_t& count_;
  Event& changed_;
};

}  // namespace

// All that the members have and it has not, oldest first: it is made as the volume was then, and takes the snapshot.
// Nobody else writes there meanwhile, and what is copied never changes. False: it failed.
Task<bool> Reign::copy_snapshots(Seat& seat) {
  if (is_mutant(Mutant::kReturnsWithoutSnapshots)) co_return true;
  const Counted counted(copying_snapshots_, changed_);
  const uint64_t session = seat.prepared.session.number;
  Seat* const source = source_for(seat);
  if (source == nullptr || !co_await make_large(seat)) co_return false;
  std::optional<std::vector<Snapshot>> theirs = co_await snapshots_of(*source);
  if (!theirs || !is_in(seat, session)) co_return false;
  const std::optional<std::vector<Snapshot>> own = co_await snapshots_of(seat);
  if (!own) co_return false;
  // One that is to come yet is not copied: this return begins anew then.
  std::erase_if(*theirs, [this](const Snapshot& each) { return each.cut > last_snapshot_.cut; });
  Stamp newest = seat.prepared.note;
  for (const Snapshot& each : *own) {
    if (std::ranges::find(*theirs, each) == theirs->end()) {
      if (!is_in(seat, session) || !co_await ask(seat, DeleteSnapshotRequest{each.id})) co_return false;
    } else if (each.cut > newest) {
      newest = each.cut;
      seat.base = each.id;
    }
  }
  for (const Snapshot& each : *theirs) {
    // Of what was before, it had all that was not being deleted.
    if (each.cut <= newest) continue;
    if (!is_in(seat, session) || !co_await copy_snapshot(seat, *source, each)) co_return false;
  }
  co_return is_in(seat, session);
}

Task<bool> Reign::copy_snapshot(Seat& seat, Seat& source, Snapshot snapshot) {
  const uint64_t session = seat.prepared.session.number;
  if (!co_await ask(seat, GenerationRequest{generation_})) co_return false;
  has_generation_.insert(&seat);
  if (!co_await ask(source, ShowSnapshotRequest{snapshot.id})) co_return false;
  Result<std::unique_ptr<BlockDevice>> from = co_await source.peer.link->open_snapshot(snapshot.id);
  if (!from) {
    seat.last_error = from.error();
    co_return false;
  }
  ExtentBits wanted((snapshot.size_bytes + kExtentBytes - 1) / kExtentBytes);
  ChangedRequest changes = changes_of(seat);
  if (!is_in(seat, session) || !co_await add_changes(seat, changes, wanted)) co_return false;
  changes.of = snapshot.id;
  if (!co_await add_changes(source, changes, wanted) || !is_in(seat, session)) co_return false;
  log_info("mirror.copy_snapshot", {{"volume", to_string(options_.volume)},
                                    {"replica", to_string(seat.peer.link->replica())},
                                    {"snapshot", to_string(snapshot.id)},
                                    {"extents", wanted.count()}});
  if (!co_await copy_layer(seat, wanted, std::move(*from), snapshot.size_bytes)) co_return false;
  // It is never half there: what was copied is on stable storage first.
  if (!is_in(seat, session) || !co_await flush(seat) || !co_await ask(seat, SnapshotRequest{snapshot})) co_return false;
  seat.base = snapshot.id;
  co_return true;
}

// Of a layer, by several workers.
struct Reign::LayerCopy {
  Seat& seat;
  const uint64_t session;
  const std::vector<uint64_t> extents;
  const Copier::Device from;
  const uint64_t size_bytes;
  size_t next = 0;
  bool is_good = true;
};

Task<bool> Reign::copy_layer(Seat& seat, const ExtentBits& wanted, Copier::Device from, uint64_t size_bytes) {
  std::vector<uint64_t> extents;
  for (uint64_t at = wanted.next(0); at < wanted.extents(); at = wanted.next(at + 1)) extents.push_back(at);
  seat.to_copy += extents.size();
  LayerCopy copy{seat, seat.prepared.session.number, std::move(extents), std::move(from), size_bytes};
  Scope workers(home_.reactor);
  for (size_t i = 0; i < options_.copies_in_flight; ++i) workers.spawn(layer_worker(copy));
  co_await workers.close();
  co_return copy.is_good&& is_in(seat, copy.session) && co_await stamp_all(seat, copy.extents);
}

Task<void> Reign::layer_worker(LayerCopy& copy) {
  Seat& seat = copy.seat;
  const AlignedBytes memory = Copier::make_memory();
  while (copy.is_good && copy.next < copy.extents.size()) {
    std::optional<CopyBudget::Place> place = co_await copies_.take(CopyBudget::Kind::kReturn, ending_);
    if (!place || !is_in(seat, copy.session)) copy.is_good = false;
    if (!copy.is_good || copy.next >= copy.extents.size()) co_return;
    const uint64_t begin = copy.extents[copy.next++] * kExtentBytes;
    ByteRange range{begin, std::min(begin + kExtentBytes, copy.size_bytes)};
    const Instant began = home_.reactor.now();
    sides_.shared().has_io.store(false, std::memory_order_relaxed);
    Result<void> done;
    while (done && !range.empty() && is_in(seat, copy.session)) {
      const ByteRange piece = Copier::first_piece(range, piece_bytes());
      const std::span<std::byte> bytes(memory.get(), piece.end - piece.begin);
      done = co_await copier_.read(piece, bytes, copy.from);
      if (!done || !is_in(seat, copy.session)) break;
      std::vector<Copier::Device> sinks = {seat.device};
      done = (co_await copier_.write(piece, bytes, std::move(sinks))).front();
      range.begin = piece.end;
    }
    place.reset();
    if (!is_in(seat, copy.session)) {
      copy.is_good = false;
    } else if (!done) {
      seat.last_error = done.error();
      copy.is_good = false;
    } else {
      ++seat.copied;
      co_await make_way(home_.reactor.now() - began);
    }
  }
}

// From here on hosts write there too. False: there is another snapshot meanwhile, and none was begun.
Task<bool> Reign::begin_head(Seat& seat, Snapshot seen) {
  const uint64_t session = seat.prepared.session.number;
  const Mutex::Guard guard = co_await generation_changing_.lock();
  if (!is_in(seat, session)) co_return true;  // whoever called looks
  if (seen != last_snapshot_) co_return false;
  if (!co_await make_large(seat) || !is_in(seat, session)) co_return true;
  if (!co_await ask(seat, GenerationRequest{generation_})) co_return true;
  has_generation_.insert(&seat);
  seat.stage = Seat::Stage::kHead;
  co_return true;
}

}  // namespace fairlead::mirror
