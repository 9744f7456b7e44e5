#include "engine/volume.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "async/call.h"
#include "base/log.h"

namespace fairlead::engine {

using mirror::TargetStatus;
using target::AnaState;

std::string volume_nqn(const Uuid& volume) { return "nqn.2026-01.io.fairlead:volume:" + to_string(volume); }

// What the namespace is made of on a shard: the volume's target when this engine is it, nothing otherwise. One a shard;
// lives there.
class Volume::Device final : public BlockDevice, public mirror::Unserved {
 public:
  Device(Source& source, Shard& shard, const BlockGeometry& geometry);
  ~Device() override;

  Shard& shard() const { return shard_; }
  Result<uint64_t> refresh_size() override;
  // Requires: nothing is under way at what was there before.
  void plug(std::unique_ptr<BlockDevice> inner) { inner_ = std::move(inner); }
  // From now on requests wait, until release().
  void hold() { is_holding_ = true; }
  void release() {
    is_holding_ = false;
    IntrusiveList<IoRequest> held;
    while (!held_.empty()) held.push_back(held_.pop_front());
    while (!held.empty()) execute(held.pop_front());
  }
  void take(IoRequest& request) override {
    request.says_zeroes = false;
    held_.push_back(request);
  }

 private:
  void execute(IoRequest& request) override {
    if (is_holding_) [[unlikely]]
      return held_.push_back(request);
    if (inner_ == nullptr) return request.complete(fail(Code::kFenced, "this engine does not serve the volume now"));
    inner_->submit(request);
  }
  const std::shared_ptr<Source> source_;  // shared with the volume and the target: whoever is the last
  Shard& shard_;
  std::unique_ptr<BlockDevice> inner_;
  bool is_holding_ = false;
  IntrusiveList<IoRequest> held_;
};

// Knows its devices. Each place is its shard's alone.
class Volume::Source final : public BlockSource, public std::enable_shared_from_this<Source> {
 public:
  Source(const std::vector<Shard*>& shards, const mirror::MirrorOptions& options)
      : shards_(shards), devices_(shards.size()), options_(options), size_bytes_(options.size_bytes) {}

  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    const BlockGeometry geometry{.size_bytes = size_bytes(),
                                 .logical_block = options_.logical_block,
                                 .physical_block = 4096,
                                 .optimal_io = 0,
                                 .discard_granularity = 4096,
                                 .discard_zeroes = options_.logical_block == 4096,
                                 .volatile_cache = true,
                                 .read_only = false};
    if (*at(shard) != nullptr) return fail(Code::kBusy, "open a volume's namespace a second time on a shard");
    return std::make_unique<Device>(*this, shard, geometry);
  }
  uint64_t size_bytes() const { return size_bytes_.load(std::memory_order_relaxed); }
  void set_size(uint64_t size_bytes) { size_bytes_.store(size_bytes, std::memory_order_relaxed); }
  Device** at(Shard& shard) {
    const auto found = std::ranges::find(shards_, &shard);
    FL_CHECK(found != shards_.end());
    return &devices_[static_cast<size_t>(found - shards_.begin())];
  }

 private:
  const std::vector<Shard*> shards_;
  std::vector<Device*> devices_;
  const mirror::MirrorOptions options_;
  std::atomic<uint64_t> size_bytes_;  // of the volume, as it is now
};

Result<uint64_t> Volume::Device::refresh_size() {
  geometry_.size_bytes = source_->size_bytes();
  if (inner_ != nullptr) FL_TRY_VOID(inner_->refresh_size());
  return geometry_.size_bytes;
}

Volume::Device::Device(Source& source, Shard& shard, const BlockGeometry& geometry)
    : BlockDevice(geometry), source_(source.shared_from_this()), shard_(shard) {
  *source.at(shard) = this;
}
Volume::Device::~Device() { *source_->at(shard_) = nullptr; }

Volume::Volume(std::vector<Shard*> shards, target::Target& target, mirror::Witness& witness, LinkFactory& links,
               mirror::CopyBudget& copies, VolumeOptions options)
    : shards_(std::move(shards)),
      target_(target),
      witness_(witness),
      links_(links),
      copies_(copies),
      options_(std::move(options)),
      source_(std::make_shared<Source>(shards_, options_.mirror)),
      changed_(home()),
      scope_(home()),
      leaving_(home()) {}

Volume::~Volume() = default;

Task<Result<void>> Volume::open() {
  FL_CO_TRY_VOID(co_await target_.add_subsystem(
      {.nqn = options_.nqn, .serial = {}, .model = "Fairlead", .allowed_hosts = options_.allowed_hosts}));
  for (const target::PortIndex port : options_.ports) {
    FL_CO_TRY_VOID(co_await target_.set_ana_state(options_.nqn, port, 1, AnaState::kInaccessible));
  }
  const auto nsid = co_await target_.add_namespace(
      options_.nqn, {.nsid = 1, .source = source_, .uuid = options_.mirror.volume, .ana_group = 1, .control = nullptr});
  if (!nsid) {
    (void)co_await target_.remove_subsystem(options_.nqn);
    co_return std::unexpected(nsid.error());
  }
  co_return Result<void>();
}

Task<void> Volume::show(AnaState state) {
  if (shown_ == state) co_return;
  shown_ = state;
  for (const target::PortIndex port : options_.ports) {
    const Result<void> done = co_await target_.set_ana_state(options_.nqn, port, 1, state);
    if (!done) log_warn("volume.ana_state", {{"volume", options_.nqn}, {"error", to_string(done.error())}});
  }
}

Task<void> Volume::plug_on(Source& source, Shard& shard, std::shared_ptr<BlockSource> from, Held held) {
  Device* const device = *source.at(shard);
  if (device == nullptr) co_return;
  std::unique_ptr<BlockDevice> inner;
  if (from != nullptr) {
    Result<std::unique_ptr<BlockDevice>> opened = from->open(shard);
    if (opened) inner = std::move(*opened);
  }
  device->plug(std::move(inner));
  if (held == Held::kGo) device->release();
}

Task<mirror::Unserved*> Volume::hold_on(Source& source, Shard& shard) {
  Device* const device = *source.at(shard);
  if (device != nullptr) device->hold();
  co_return device;
}

// From now on requests wait in the devices. Returns those, for what the target has.
Task<std::vector<mirror::Unserved*>> Volume::hold() {
  std::vector<mirror::Unserved*> holding;
  for (Shard* const shard : shards_) {
    holding.push_back(co_await call_on(home(), shard->reactor, hold_on(*source_, *shard)));
  }
  co_return holding;
}

// Null: unplugs.
Task<void> Volume::plug(std::shared_ptr<BlockSource> from, Held held) {
  for (Shard* const shard : shards_) co_await call_on(home(), shard->reactor, plug_on(*source_, *shard, from, held));
}

void Volume::serve() {
  if (is_serving_) return;
  is_serving_ = true;
  is_standing_by_ = false;
  scope_.spawn(run());
}

Task<void> Volume::stand_by() {
  is_standing_by_ = true;
  if (volume_ != nullptr) volume_->changed().release_waiters();
  co_await scope_.close();
}

Task<void> Volume::renew() {
  is_renewing_ = is_serving_ && !is_standing_by_;
  if (!is_renewing_) co_return co_await scope_.close();
  if (volume_ != nullptr) volume_->changed().release_waiters();
  while (is_renewing_) co_await changed_.wait();
}

Task<Result<void>> Volume::set_allowed_hosts(std::vector<std::string> hosts) {
  FL_CO_TRY_VOID(co_await target_.set_allowed_hosts(options_.nqn, hosts));
  options_.allowed_hosts = std::move(hosts);
  co_return Result<void>();
}

void Volume::set_resync_share(uint32_t percent) {
  options_.resync_share = percent;
  if (volume_ != nullptr) volume_->set_resync_share(resync_share_in_force());
}

uint32_t Volume::resync_share_in_force() const {
  return options_.resync_share != 0 ? options_.resync_share : options_.mirror.resync_share_percent;
}

Result<void> Volume::force(const mirror::ReplicaId& trusted) {
  if (volume_ == nullptr) return fail(Code::kInvalidArgument, "this engine does not serve the volume");
  return volume_->force(trusted);
}

Result<void> Volume::renew_term() {
  if (volume_ == nullptr) return fail(Code::kInvalidArgument, "this engine does not serve the volume");
  volume_->renew_term();
  return {};
}

class Volume::Waiting {
 public:
  explicit Waiting(Volume& volume) : volume_(volume) { ++volume_.waiting_; }
  ~Waiting() {
    if (--volume_.waiting_ == 0) volume_.changed_.release_waiters();
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  Volume& volume_;
};

Task<Result<mirror::VolumeTarget*>> Volume::served() {
  while (is_serving_ && volume_ == nullptr) co_await changed_.wait();
  if (volume_ == nullptr) co_return fail(Code::kInvalidArgument, "this engine does not serve the volume");
  co_return volume_.get();
}

Task<Result<void>> Volume::take_snapshot(Uuid id, Duration limit) {
  const Waiting waiting(*this);
  FL_CO_TRY(mirror::VolumeTarget* const volume, co_await served());
  co_return co_await volume->take_snapshot(id, limit);
}

Task<Result<void>> Volume::hold_for_snapshot(Uuid id, Duration limit, Duration hold) {
  const Waiting waiting(*this);
  FL_CO_TRY(mirror::VolumeTarget* const volume, co_await served());
  co_return co_await volume->hold_for_snapshot(id, limit, hold);
}

Task<Result<void>> Volume::take_held_snapshot(Uuid id, Duration limit) {
  const Waiting waiting(*this);
  FL_CO_TRY(mirror::VolumeTarget* const volume, co_await served());
  co_return co_await volume->take_held_snapshot(id, limit);
}

Task<Result<void>> Volume::delete_snapshot(Uuid id, Duration limit) {
  const Waiting waiting(*this);
  FL_CO_TRY(mirror::VolumeTarget* const volume, co_await served());
  co_return co_await volume->delete_snapshot(id, limit);
}

Task<Result<void>> Volume::grow(uint64_t size_bytes, Duration limit) {
  const Waiting waiting(*this);
  if (is_serving_) {
    FL_CO_TRY(mirror::VolumeTarget* const volume, co_await served());
    FL_CO_TRY_VOID(co_await volume->grow(size_bytes, limit));
  } else if (size_bytes < options_.mirror.size_bytes || size_bytes % options_.mirror.logical_block != 0) {
    co_return fail(Code::kInvalidArgument, "a volume does not shrink, and is of whole blocks");
  }
  options_.mirror.size_bytes = size_bytes;
  source_->set_size(size_bytes);
  FL_CO_TRY_VOID(co_await target_.rescan_namespace(options_.nqn, 1));
  co_return Result<void>();
}

Task<void> Volume::run() {
  Next next = Next::kRenew;
  while (next == Next::kRenew) {
    next = co_await have_target(links_.make());
    is_renewing_ = false;
    is_serving_ = next == Next::kRenew;
    changed_.release_waiters();
  }
  TargetStatus none;
  none.state = TargetStatus::State::kStopped;
  tell(none);
}

// One target, from its making to its end.
Task<Volume::Next> Volume::have_target(std::vector<std::unique_ptr<mirror::ReplicaLink>> links) {
  volume_ = std::make_unique<mirror::VolumeTarget>(shards_, std::move(links), witness_, options_.mirror, &copies_);
  volume_->set_resync_share(resync_share_in_force());
  co_await volume_->start();
  co_await plug(volume_->source(), Held::kGo);
  Next next = co_await watch_target();
  std::vector<mirror::Unserved*> holding;
  if (next == Next::kRenew) {
    holding = co_await hold();
  } else {
    co_await show(AnaState::kInaccessible);
  }
  co_await volume_->stop_serving(Code::kFenced, holding);
  if (next == Next::kRenew && volume_->is_superseded()) {
    next = Next::kEnd;
    co_await show(AnaState::kInaccessible);
  }
  co_await plug(nullptr, next == Next::kRenew ? Held::kStay : Held::kGo);
  co_await end_target();
  co_return next;
}

// The next one does not wait for a disk that hangs.
Task<void> Volume::end_target() {
  if (co_await volume_->has_left_behind()) {
    leaving_.spawn(end_later(std::move(volume_)));
  } else {
    co_await volume_->stop();
    volume_.reset();
  }
}

Task<void> Volume::end_later(std::unique_ptr<mirror::VolumeTarget> target) { co_await target->stop(); }

Task<Volume::Next> Volume::watch_target() {
  while (!is_standing_by_) {
    const TargetStatus status = volume_->status();
    changed_.release_waiters();
    tell(status);
    if (status.state == TargetStatus::State::kSuperseded) co_return Next::kEnd;
    if (is_renewing_) co_return Next::kRenew;
    // Once it has served hosts wait here, whatever it lacks: nobody else is known to have more.
    if (status.state == TargetStatus::State::kServing) {
      co_await show(AnaState::kOptimized);
      if (is_standing_by_ || is_renewing_ || volume_->status().state != status.state) continue;
    }
    co_await volume_->changed().wait();
  }
  co_return Next::kEnd;
}

void Volume::tell(const TargetStatus& status) {
  if (options_.changes == nullptr) return;
  Seen seen{.state = status.state,
            .term = status.term,
            .record = status.record,
            .snapshots = status.snapshots.size(),
            .standings = {},
            .why = status.why};
  for (const mirror::ReplicaStatus& replica : status.replicas) seen.standings.push_back(replica.standing);
  if (seen == seen_) return;
  seen_ = std::move(seen);
  options_.changes->tell();
}

Task<void> Volume::close() {
  co_await stand_by();
  co_await leaving_.close();
  while (waiting_ > 0) co_await changed_.wait();
  (void)co_await target_.remove_subsystem(options_.nqn);
}

}  // namespace fairlead::engine
