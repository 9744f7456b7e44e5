// Volume: a volume on an engine that serves it, or may. Its subsystem and namespace look the same on each such engine,
// so hosts hold a path to all of them; the engine that is the volume's target shows the namespace as optimized, the
// others as inaccessible. Lives on the target's home shard.
//
// Life-cycle: make, open(), serve(), renew() and stand_by() as told, close(), destroy. One call at a time, but for
// those that wait for the volume to be served (snapshots, growth): they go on beside all others, and close() ends them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/changes.h"
#include "mirror/volume_target.h"
#include "target/target.h"

namespace fairlead::engine {

struct VolumeOptions {
  mirror::MirrorOptions mirror;
  std::string nqn;                         // of the volume's subsystem
  std::vector<std::string> allowed_hosts;  // NQNs; empty: every host
  uint32_t resync_share = 0;               // percent, in place of the mirror's; 0: that
  std::vector<target::PortIndex> ports;    // of this engine's listeners
  Changes* changes = nullptr;              // told of them; may be null; borrowed for life
};
// "nqn.2026-01.io.fairlead:volume:ID".
std::string volume_nqn(const Uuid& volume);

// Makes ways to the volume's replicas, started.
class LinkFactory {
 public:
  virtual ~LinkFactory() = default;
  virtual std::vector<std::unique_ptr<mirror::ReplicaLink>> make() = 0;
};

class Volume {
 public:
  // `shards` are the target's. `copies` is shared with other volumes. All borrowed for life.
  Volume(std::vector<Shard*> shards, target::Target& target, mirror::Witness& witness, LinkFactory& links,
         mirror::CopyBudget& copies, VolumeOptions options);
  ~Volume();  // Requires: close() returned, or open() did not.
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;

  // Shows the volume, inaccessible. Errors: as Target::add_subsystem() and add_namespace().
  Task<Result<void>> open();
  // Takes it over: returns at once. Hosts are told that the path is optimized as soon as the volume can be served; when
  // another engine turns out to have it, that the path is inaccessible again. Idempotent.
  void serve();
  // Gives it up, in order when it can: hosts are told to go elsewhere, what is under way ends. Idempotent.
  Task<void> stand_by();
  // The ways to its replicas are others from now on. Returns when nothing uses those that the factory made before:
  // a target ends in order, and another one is made with new ones. Hosts notice nothing but that they wait meanwhile,
  // and until that one serves.
  Task<void> renew();
  // As Target::set_allowed_hosts().
  Task<Result<void>> set_allowed_hosts(std::vector<std::string> hosts);
  // VolumeOptions::resync_share from now on.
  void set_resync_share(uint32_t percent);
  Task<void> close();

  bool is_target() const { return is_serving_; }
  // Requires: is_target().
  mirror::TargetStatus status() const { return volume_ == nullptr ? mirror::TargetStatus{} : volume_->status(); }
  // As VolumeTarget::force(). Error besides: kInvalidArgument (this is not the target).
  Result<void> force(const mirror::ReplicaId& trusted);
  // As VolumeTarget has them. Error besides: kInvalidArgument (this is not the target).
  Result<void> renew_term();
  Task<Result<void>> take_snapshot(Uuid id, Duration limit);
  Task<Result<void>> hold_for_snapshot(Uuid id, Duration limit, Duration hold);
  Task<Result<void>> take_held_snapshot(Uuid id, Duration limit);
  Task<Result<void>> delete_snapshot(Uuid id, Duration limit);
  // The same; an engine that stands by shows the new size from now on, and no host finds more there than it was told.
  Task<Result<void>> grow(uint64_t size_bytes, Duration limit);
  uint64_t size_bytes() const { return options_.mirror.size_bytes; }
  const std::vector<std::string>& allowed_hosts() const { return options_.allowed_hosts; }
  uint32_t resync_share() const { return options_.resync_share; }
  Event& changed() { return changed_; }

 private:
  class Device;
  class Source;
  class Waiting;
  uint32_t resync_share_in_force() const;
  // Once it has begun to serve. Error kInvalidArgument: it does not.
  Task<Result<mirror::VolumeTarget*>> served();
  // What others are told of.
  struct Seen {
    mirror::TargetStatus::State state = mirror::TargetStatus::State::kStopped;
    mirror::Term term;
    mirror::Record record;
    size_t snapshots = 0;
    std::vector<mirror::Reign::Standing> standings;
    std::string why;
    friend bool operator==(const Seen&, const Seen&) = default;
  };
  Task<void> run();
  enum class Next : uint8_t { kEnd, kRenew };
  Task<Next> have_target(std::vector<std::unique_ptr<mirror::ReplicaLink>> links);
  Task<void> end_target();
  static Task<void> end_later(std::unique_ptr<mirror::VolumeTarget> target);
  Task<Next> watch_target();
  enum class Held : uint8_t { kStay, kGo };
  Task<void> plug(std::shared_ptr<BlockSource> from, Held held);
  Task<std::vector<mirror::Unserved*>> hold();
  Task<void> show(target::AnaState state);
  void tell(const mirror::TargetStatus& status);
  static Task<void> plug_on(Source& source, Shard& shard, std::shared_ptr<BlockSource> from, Held held);
  static Task<mirror::Unserved*> hold_on(Source& source, Shard& shard);
  Reactor& home() const { return shards_.front()->reactor; }

  const std::vector<Shard*> shards_;
  target::Target& target_;
  mirror::Witness& witness_;
  LinkFactory& links_;
  mirror::CopyBudget& copies_;
  VolumeOptions options_;
  std::shared_ptr<Source> source_;  // shared with the target and its devices
  std::unique_ptr<mirror::VolumeTarget> volume_;
  Event changed_;
  Scope scope_;
  Scope leaving_;                // targets that wait for a disk that hangs
  size_t waiting_ = 0;           // calls that close() waits for
  bool is_serving_ = false;      // run() is there
  bool is_standing_by_ = false;  // and is to end
  bool is_renewing_ = false;     // and is to have another target
  Seen seen_;
  target::AnaState shown_ = target::AnaState::kInaccessible;
};

}  // namespace fairlead::engine
