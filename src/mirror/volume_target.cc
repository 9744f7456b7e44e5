#include "mirror/volume_target.h"

#include <algorithm>
#include <fmt/format.h>

#include "async/alarm.h"
#include "base/log.h"
#include "mirror/mirror_device.h"

namespace fairlead::mirror {

VolumeTarget::VolumeTarget(std::vector<Shard*> shards, std::vector<std::unique_ptr<ReplicaLink>> links,
                           Witness& witness, MirrorOptions options, CopyBudget* copies)
    : shards_(std::move(shards)),
      options_(options),
      witness_(witness),
      own_copies_(shards_.front()->reactor, options.copies_in_flight),
      copies_(copies != nullptr ? *copies : own_copies_),
      shared_(std::make_shared<MirrorShared>(options.size_bytes, options.logical_block)),
      sides_(shards_, shared_, *this, options.stall_limit),
      changed_(shards_.front()->reactor),
      scope_(shards_.front()->reactor) {
  FL_CHECK(links.size() <= kMembersMax);
  for (std::unique_ptr<ReplicaLink>& link : links) {
    auto peer = std::make_unique<Peer>();
    peer->slot = static_cast<Slot>(peers_.size());
    peer->link = std::move(link);
    peers_.push_back(std::move(peer));
  }
}

VolumeTarget::~VolumeTarget() = default;

Task<void> VolumeTarget::start() {
  co_await sides_.start();
  is_started_ = true;
  scope_.spawn(rule());
}

Result<void> VolumeTarget::force(const ReplicaId& trusted) {
  const auto is_it = [&](const auto& peer) { return peer->link->replica() == trusted; };
  if (std::ranges::none_of(peers_, is_it)) return fail(Code::kNotFound, "trust a replica of the volume");
  log_warn("mirror.forced", {{"volume", to_string(options_.volume)}, {"replica", to_string(trusted)}});
  trusted_ = trusted;
  if (reign_) reign_->renew();
  return {};
}

Task<Result<void>> VolumeTarget::take_snapshot(Uuid id, Duration limit) {
  return run({.kind = VolumeJob::Kind::kSnapshot, .snapshot = id}, limit);
}
Task<Result<void>> VolumeTarget::hold_for_snapshot(Uuid id, Duration limit, Duration hold) {
  return run({.kind = VolumeJob::Kind::kSnapshot, .snapshot = id, .gate = CutGate::kClosed, .hold = hold}, limit);
}
Task<Result<void>> VolumeTarget::take_held_snapshot(Uuid id, Duration limit) {
  const auto held = std::ranges::find_if(jobs_, [&](const auto& job) {
    return job->snapshot == id && (job->gate == CutGate::kHeld || job->gate == CutGate::kOpen);
  });
  if (held == jobs_.end() || !reign_) {
    if (reign_ && reign_->has_snapshot(id)) co_return Result<void>();
    co_return fail(Code::kTimedOut, "hosts are not held for the snapshot");
  }
  (*held)->gate = CutGate::kOpen;
  reign_->look_for_jobs();
  co_return co_await outcome_of(*held, limit);
}
Task<Result<void>> VolumeTarget::delete_snapshot(Uuid id, Duration limit) {
  for (const auto& job : jobs_) {
    if (job->snapshot == id && job->gate != CutGate::kNone) job->gate = CutGate::kGivenUp;
  }
  return run({.kind = VolumeJob::Kind::kDeleteSnapshot, .snapshot = id}, limit);
}
Task<Result<void>> VolumeTarget::grow(uint64_t size_bytes, Duration limit) {
  const uint64_t size = shared_->size_bytes;
  if (size_bytes < size) co_return fail(Code::kInvalidArgument, "a volume does not shrink");
  if (size_bytes % options_.logical_block != 0) co_return fail(Code::kInvalidArgument, "a size is in whole blocks");
  co_return co_await run({.kind = VolumeJob::Kind::kGrow, .snapshot = {}, .size_bytes = size_bytes}, limit);
}

Task<Result<void>> VolumeTarget::run(VolumeJob job, Duration limit) {
  const auto mine = std::make_shared<VolumeJob>(job);
  jobs_.push_back(mine);
  if (reign_) reign_->look_for_jobs();
  Result<void> outcome = co_await outcome_of(mine, limit);
  if (mine->gate == CutGate::kHeld) co_return outcome;
  // It is nobody's any more.
  mine->gate = mine->gate == CutGate::kNone ? CutGate::kNone : CutGate::kGivenUp;
  std::erase(jobs_, mine);
  changed_.release_waiters();
  co_return outcome;
}

// Until it has an outcome, or hosts are held for it.
Task<Result<void>> VolumeTarget::outcome_of(std::shared_ptr<VolumeJob> job, Duration limit) {
  Reactor& reactor = shards_.front()->reactor;
  const Instant until = reactor.now() + limit;
  const Alarm alarm(reactor, changed_, until);
  while (!job->outcome && job->gate != CutGate::kHeld && !is_superseded_ && !stopping_.is_cancelled() &&
         reactor.now() < until) {
    co_await changed_.wait();
  }
  if (job->outcome) co_return *job->outcome;
  if (is_superseded_) co_return fail(Code::kFenced, "another target has the volume");
  if (stopping_.is_cancelled()) co_return fail(Code::kShuttingDown, "the volume is given up");
  if (job->gate == CutGate::kHeld) co_return Result<void>();
  co_return fail(Code::kTimedOut, "the volume could not be served as that needs it");
}

Task<void> VolumeTarget::stop_serving(Code code, std::vector<Unserved*> unserved) {
  if (!is_started_ || is_stopped_) co_return;
  stopping_.cancel();
  changed_.release_waiters();
  if (reign_) reign_->stop();
  co_await scope_.close();
  while (!jobs_.empty()) co_await changed_.wait();
  if (is_stopped_) co_return;
  is_stopped_ = true;
  co_await sides_.fail_waiting(Error{.code = code}, std::move(unserved));
  changed_.release_waiters();
}

Task<void> VolumeTarget::stop() {
  if (!is_started_) co_return;
  co_await stop_serving();
  co_await sides_.stop();
  for (const auto& peer : peers_) co_await peer->link->stop();
  is_started_ = false;
}

// A number that nobody had; without the witness one above all that were heard of. Should another draw the same, the
// writers differ.
Task<Term> VolumeTarget::next_term() {
  Shard& home = *shards_.front();
  Term term{.number = highest_.number + 1, .writer = home.random.uuid()};
  const Result<uint64_t> number = co_await witness_.next_term(options_.volume);
  if (number) term.number = std::max(term.number, *number);
  highest_ = std::max(highest_, term);
  co_return term;
}

Task<void> VolumeTarget::rule() {
  Shard& home = *shards_.front();
  uint32_t fruitless = 0;
  while (!stopping_.is_cancelled()) {
    const Term term = co_await next_term();
    std::vector<Peer*> peers;
    for (const auto& peer : peers_) peers.push_back(peer.get());
    const std::optional<ReplicaId> trusted = trusted_;
    reign_ = std::make_unique<Reign>(home, options_, term, trusted, std::move(peers), witness_, sides_, copies_, jobs_,
                                     changed_);
    if (stopping_.is_cancelled()) reign_->stop();
    const Reign::End end = co_await reign_->run();
    highest_ = std::max(highest_, reign_->refusal());
    if (trusted == trusted_ && reign_->phase() == Reign::Phase::kServing) trusted_.reset();
    fruitless = reign_->phase() == Reign::Phase::kServing ? 0 : fruitless + 1;
    reign_.reset();
    changed_.release_waiters();
    if (end == Reign::End::kSuperseded) {
      is_superseded_ = true;
      co_await sides_.fail_waiting(Error{.code = Code::kFenced});
      co_return;
    }
    // Two that take over from each other are told apart by chance.
    const Duration limit = options_.retry_min * (int64_t{1} << std::min<uint32_t>(fruitless, 6));
    const Duration pause(static_cast<int64_t>(home.random.below(static_cast<uint64_t>(limit.count()))));
    (void)co_await sleep(home.reactor, fruitless == 0 ? Duration(0) : pause, stopping_);
  }
}

std::shared_ptr<BlockSource> VolumeTarget::source() { return make_mirror_source(sides_.all()); }

void VolumeTarget::slot_failed(Slot slot, uint64_t incarnation, Error error) {
  if (reign_) reign_->slot_failed(slot, incarnation, error);
}
void VolumeTarget::lease_wanted() {
  if (reign_) reign_->lease_wanted();
}
void VolumeTarget::level_wanted(uint64_t extent) {
  if (reign_) reign_->level_wanted(extent);
}
void VolumeTarget::repair_wanted(Slot slot, ByteRange range) {
  if (reign_) reign_->repair_wanted(slot, range);
}

// ---- For people

namespace {

std::string list(const MemberSet& replicas, bool with_witness) {
  std::string text;
  for (const ReplicaId& id : replicas.ids()) text += fmt::format("{}{}", text.empty() ? "" : ", ", to_string(id));
  if (with_witness) text += text.empty() ? "the witness" : " or the witness";
  return text;
}

}  // namespace

std::string VolumeTarget::why(const Reign& reign) const {
  using Lack = Decision::Lack;
  const Decision& decision = reign.decision();
  switch (reign.phase()) {
    case Reign::Phase::kGathering:
      switch (decision.lack) {
        case Lack::kNothing:
          return "takes over";
        case Lack::kAnyRecord:
          return "no replica or witness that knows the volume's members has answered yet";
        case Lack::kMajority:
          return fmt::format("waits for a majority of the members {}: {} must answer",
                             to_string(decision.newest.members), list(decision.missing, decision.misses_witness));
        case Lack::kPriorMajority:
          return fmt::format(
              "the newest record may never have been in force: of the members before it, {}, {} must answer",
              to_string(decision.newest.prior), list(decision.missing, decision.misses_witness));
        case Lack::kWarmSource:
          return fmt::format("every member that answers lost what its disk had not stored: waits for {}",
                             list(decision.missing, false));
      }
      return {};
    case Reign::Phase::kRecording:
      return "takes over: records the members";
    case Reign::Phase::kServing:
      break;
  }
  if (reign.proposal()) {
    return fmt::format("waits for a majority to record the members {}{}", to_string(reign.proposal()->members),
                       reign.is_witness_away() ? "; the witness does not answer" : "");
  }
  if (reign.in_force().members.size() < reign.seats().size()) {
    return fmt::format("{} of {} replicas have everything", reign.in_force().members.size(), reign.seats().size());
  }
  return {};
}

ReplicaStatus VolumeTarget::status_of(const Reign::Seat& seat) const {
  ReplicaStatus status;
  status.replica = seat.peer.link->replica();
  status.standing = seat.standing;
  status.is_local = seat.peer.link->is_local();
  status.is_refused = seat.is_refused;
  status.last_error = seat.last_error;
  status.copied_bytes = seat.copied * kExtentBytes;
  status.to_copy_bytes = seat.to_copy * kExtentBytes;
  if (seat.standing != Reign::Standing::kReturning) return status;
  const Duration since = shards_.front()->reactor.now() - seat.copying_since;
  const double seconds = std::chrono::duration<double>(since).count();
  if (seat.copied == 0 || seconds <= 0) return status;
  const double rate = static_cast<double>(status.copied_bytes) / seconds;
  const double left = static_cast<double>(status.to_copy_bytes - status.copied_bytes) / rate;
  status.copy_rate = static_cast<uint64_t>(rate);
  status.copy_left = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(left));
  return status;
}

TargetStatus VolumeTarget::status() const {
  using State = TargetStatus::State;
  TargetStatus status;
  if (!is_started_ || is_stopped_) {
    status.state = State::kStopped;
    return status;
  }
  if (is_superseded_) {
    status.state = State::kSuperseded;
    status.why = "a majority of the replicas obeys another target";
    return status;
  }
  status.term = highest_;
  if (!reign_) return status;
  const Reign& reign = *reign_;
  status.term = reign.term();
  status.record = reign.in_force();
  status.why = why(reign);
  status.unlevel_bytes = shared_->unlevel.count() * kExtentBytes;
  if (reign.phase() == Reign::Phase::kServing) {
    status.state = reign.proposal() ? State::kSuspended : State::kServing;
    status.is_degraded = reign.in_force().members.size() < peers_.size();
  } else if (reign.decision().lack != Decision::Lack::kNothing) {
    status.state = State::kSuspended;
  }
  status.snapshots = reign.snapshots();
  for (const auto& seat : reign.seats()) status.replicas.push_back(status_of(*seat));
  return status;
}

}  // namespace fairlead::mirror
