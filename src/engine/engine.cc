#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "engine/local_link.h"

namespace fairlead::engine {
namespace {

// Of links: an engine that was away is found again soon.
constexpr Duration kReconnectMax = std::chrono::seconds(1);
constexpr uint16_t kControllerIdsEach = 256;

// The longest that replicas here give: more than targets here ask for, as engines may be told different ones.
Duration lease_given(const mirror::MirrorOptions& options) { return options.lease + options.lease / 4; }

target::TargetOptions target_options(const EngineOptions& options, const Uuid& pool) {
  target::TargetOptions target = options.target;
  const ControllerIds ids = options.controller_ids.value_or(controller_ids_of(pool));
  target.controller_id_min = ids.first;
  target.controller_id_max = ids.last;
  return target;
}

bool is_of_a_volume(const pool::ObjectState& state) {
  return state.kind == pool::ObjectKind::kReplica && !state.volume_id.is_nil();
}

}  // namespace

ControllerIds controller_ids_of(const Uuid& pool) {
  const Uuid mixed = uuid_from_name(kFairleadNamespace, "controllers:" + to_string(pool));
  const auto range = static_cast<uint16_t>((mixed.bytes[0] << 8 | mixed.bytes[1]) % 255);
  const auto first = static_cast<uint16_t>(range * kControllerIdsEach + 1);
  return {.first = first, .last = static_cast<uint16_t>(first + kControllerIdsEach - 1)};
}

// The ways to a volume's replicas, new ones for each time that it is served.
class Engine::Links final : public LinkFactory {
 public:
  Links(Engine& engine, std::vector<ReplicaPlace> places) : engine_(engine), places_(std::move(places)) {}

  const std::vector<ReplicaPlace>& places() const { return places_; }
  std::vector<std::unique_ptr<mirror::ReplicaLink>> make() override {
    std::vector<std::unique_ptr<mirror::ReplicaLink>> links;
    for (const ReplicaPlace& place : places_) {
      if (place.address) {
        auto link = std::make_unique<RemoteLink>(engine_.shards_, engine_.link_options(place));
        link->start();
        links.push_back(std::move(link));
        continue;
      }
      auto link = std::make_unique<LocalLink>(*engine_.replicas_.at(place.replica));
      link->start();
      links.push_back(std::move(link));
    }
    return links;
  }

 private:
  Engine& engine_;
  const std::vector<ReplicaPlace> places_;
};

struct Engine::Shown {
  Shown(Engine& engine, std::vector<ReplicaPlace> places, VolumeOptions options)
      : links(engine, std::move(places)),
        volume(engine.shards_, engine.target_, engine.witness_, links, engine.copies_, std::move(options)) {}
  Links links;
  Volume volume;
};

Engine::Engine(std::vector<Shard*> shards, std::unique_ptr<pool::Pool> pool, mirror::Witness& witness,
               EngineOptions options, target::TargetObserver* observer)
    : shards_(std::move(shards)),
      options_(std::move(options)),
      witness_(witness),
      pool_(std::move(pool)),
      identity_(host::identity_from_id(uuid_from_name(kFairleadNamespace, "engine:" + to_string(pool_->id())))),
      copies_(shards_.front()->reactor, options_.copies_max),
      target_(shards_, target_options(options_, pool_->id()), observer) {}

Engine::~Engine() { FL_CHECK(is_stopped_); }

Task<void> Engine::start() {
  for (const pool::ObjectInfo& object : pool_->list()) {
    if (is_of_a_volume(object.state)) co_await offer(object.state.id);
  }
}

Task<Result<target::Target::Listening>> Engine::listen(target::ListenerOptions listener) {
  if (!volumes_.empty()) co_return fail(Code::kBusy, "volumes are shown on the listeners that there are already");
  FL_CO_TRY(const target::Target::Listening listening, co_await target_.start_listener(std::move(listener)));
  ports_.push_back(listening.port);
  co_return listening;
}

// ---- Replicas

Task<void> Engine::offer(mirror::ReplicaId id) {
  auto opened =
      co_await Replica::open(shards_, *pool_, &target_, {.id = id, .lease_max = lease_given(options_.mirror)});
  if (opened) {
    troubles_.erase(id);
    replicas_[id] = std::move(*opened);
    co_return;
  }
  troubles_[id] = opened.error();
  log_error("engine.replica_not_offered", {{"replica", to_string(id)}, {"error", to_string(opened.error())}});
}

Task<void> Engine::withdraw(mirror::ReplicaId id) {
  const auto found = replicas_.find(id);
  if (found == replicas_.end()) co_return;
  co_await found->second->close();
  replicas_.erase(id);
}

std::vector<ReplicaInfo> Engine::replicas() const {
  std::vector<ReplicaInfo> list;
  for (const pool::ObjectInfo& object : pool_->list()) {
    if (!is_of_a_volume(object.state)) continue;
    ReplicaInfo info{.name = object.state.name,
                     .id = object.state.id,
                     .volume = object.state.volume_id,
                     .size_bytes = object.state.size_bytes,
                     .state = {},
                     .trouble = {}};
    if (const auto offered = replicas_.find(info.id); offered != replicas_.end()) {
      info.state = offered->second->store().state();
    } else if (const auto trouble = troubles_.find(info.id); trouble != troubles_.end()) {
      info.trouble = trouble->second;
    }
    list.push_back(std::move(info));
  }
  return list;
}

// Without its volume: until it has its record nobody may take it for one that knows nothing. Returns what it is to
// begin with.
Task<Result<mirror::ReplicaState>> Engine::make_replica(const NewReplica& replica) {
  pool::ReplicaOptions options{.name = replica.name,
                               .size_bytes = replica.size_bytes,
                               .is_thick = false,
                               .id = replica.id,
                               .volume_id = {},
                               .labels = {}};
  mirror::ReplicaState state;
  state.record = {.at = {.term = {.number = 1, .writer = {}}, .generation = 0},
                  .members = replica.members,
                  .prior = replica.members};
  if (!replica.clone_of) {
    FL_CO_TRY_VOID(co_await pool_->create_replica(std::move(options)));
    co_return state;
  }
  const auto origin = replicas_.find(replica.clone_of->replica);
  if (origin == replicas_.end()) co_return fail(Code::kNotFound, "this engine offers no such replica");
  FL_CO_TRY(const PoolReplicaStore::Kept kept, origin->second->store().find_snapshot(replica.clone_of->snapshot));
  options.size_bytes = kept.snapshot.size_bytes;
  FL_CO_TRY_VOID(co_await pool_->clone(to_string(kept.object), std::move(options)));
  // All that it has it has in common with the other members, and nothing that is written to it is older.
  state.promise = kept.snapshot.cut.term;
  state.record.at = state.note = kept.snapshot.cut;
  co_return state;
}

Task<Result<void>> Engine::create_replica(NewReplica replica) {
  if (replica.id.is_nil() || replica.volume.is_nil()) {
    co_return fail(Code::kInvalidArgument, "a replica and its volume have ids");
  }
  if (!replica.members.empty() && !replica.members.has(replica.id)) {
    co_return fail(Code::kInvalidArgument, "a replica that a volume begins with is one of its members");
  }
  if (replica.clone_of && replica.members.empty()) {
    co_return fail(Code::kInvalidArgument, "a clone is one of the members that its volume begins with");
  }
  FL_CO_TRY(const mirror::ReplicaState state, co_await make_replica(replica));
  pool::Changes changes;
  changes.volume_id = replica.volume;
  if (!replica.members.empty()) {
    changes.properties.push_back({.key = kReplicaStateProperty, .value = mirror::encode(state)});
  }
  if (Result<void> changed = co_await pool_->change(replica.name, std::move(changes)); !changed) {
    (void)co_await pool_->remove(replica.name);
    co_return changed;
  }
  co_await offer(replica.id);
  if (const auto trouble = troubles_.find(replica.id); trouble != troubles_.end()) {
    co_return std::unexpected(trouble->second);
  }
  co_return Result<void>();
}

Task<Result<void>> Engine::delete_replica(std::string name) {
  FL_CO_TRY(const pool::ObjectInfo object, pool_->find(name));
  const mirror::ReplicaId id = object.state.id;
  if (object.state.kind != pool::ObjectKind::kReplica) co_return fail(Code::kNotFound, "it is a snapshot");
  if (is_in_use(id)) co_return fail(Code::kBusy, "a volume that is open here has it: close that first");
  co_await withdraw(id);
  Result<void> removed = co_await remove_with_snapshots(object.state);
  if (!removed) {
    if (is_of_a_volume(object.state)) co_await offer(id);
    co_return removed;
  }
  troubles_.erase(id);
  co_return removed;
}

Task<Result<void>> Engine::remove_with_snapshots(const pool::ObjectState& replica) {
  for (const pool::ObjectInfo& each : pool_->list()) {
    const bool is_of_volume = std::ranges::any_of(each.state.properties, [](const pool::Property& property) {
      return property.key == kSnapshotProperty;
    });
    if (each.state.kind != pool::ObjectKind::kSnapshot || each.state.origin != replica.id || !is_of_volume) continue;
    FL_CO_TRY_VOID(co_await pool_->remove(to_string(each.state.id)));
  }
  co_return co_await pool_->remove(to_string(replica.id));
}

bool Engine::is_in_use(const mirror::ReplicaId& replica) const {
  return std::ranges::any_of(volumes_, [&](const auto& shown) {
    return std::ranges::any_of(shown.second->links.places(),
                               [&](const ReplicaPlace& place) { return place.replica == replica && !place.address; });
  });
}

// ---- Volumes

RemoteLinkOptions Engine::link_options(const ReplicaPlace& place) const {
  RemoteLinkOptions options;
  options.replica = place.replica;
  options.address = *place.address;
  options.host.identity = identity_;
  options.host.reconnect_max = kReconnectMax;
  // A replica's engine that is silent so long is as good as one that stalls.
  options.host.keep_alive = std::max<Duration>(options_.mirror.stall_limit, std::chrono::seconds(1));
  options.call_limit = std::max(options.call_limit, options_.mirror.stall_limit + 2 * lease_given(options_.mirror));
  return options;
}

Result<void> Engine::check(const NewVolume& volume) const {
  if (volume.replicas.empty() || volume.replicas.size() > mirror::kMembersMax) {
    return fail(Code::kInvalidArgument, "a volume has 1 to 8 replicas");
  }
  mirror::MemberSet seen;
  for (const ReplicaPlace& place : volume.replicas) {
    if (seen.has(place.replica)) return fail(Code::kInvalidArgument, "a replica is named twice");
    seen.add(place.replica);
    if (place.address) {
      host::SubsystemOptions host = link_options(place).host;
      host.nqn = replica_nqn(place.replica);
      host.addresses = {*place.address};
      FL_TRY_VOID(host::check(host));
      continue;
    }
    const auto found = replicas_.find(place.replica);
    if (found == replicas_.end()) return fail(Code::kNotFound, "this engine offers no such replica");
    if (found->second->volume() != volume.id) {
      return fail(Code::kInvalidArgument, "the replica here is another volume's");
    }
  }
  return {};
}

Task<Result<void>> Engine::open_volume(NewVolume volume) {
  if (volume.id.is_nil() || volume.size_bytes == 0 || volume.size_bytes % options_.mirror.logical_block != 0) {
    co_return fail(Code::kInvalidArgument, "a volume has an id, and a size in whole blocks");
  }
  if (volumes_.contains(volume.id)) co_return fail(Code::kAlreadyExists, "it is open");
  FL_CO_TRY_VOID(check(volume));
  VolumeOptions options;
  options.mirror = options_.mirror;
  options.mirror.volume = volume.id;
  options.mirror.size_bytes = volume.size_bytes;
  options.nqn = volume_nqn(volume.id);
  options.ports = ports_;
  auto shown = std::make_unique<Shown>(*this, std::move(volume.replicas), std::move(options));
  FL_CO_TRY_VOID(co_await shown->volume.open());
  volumes_.emplace(volume.id, std::move(shown));
  co_return Result<void>();
}

Engine::Shown* Engine::find(const Uuid& volume) const {
  const auto found = volumes_.find(volume);
  return found == volumes_.end() ? nullptr : found->second.get();
}

Task<Result<void>> Engine::serve_volume(Uuid volume) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  Volume& of = shown->volume;
  using State = mirror::TargetStatus::State;
  while (of.is_target() && (of.status().state == State::kSuperseded || of.status().state == State::kStopped)) {
    co_await of.changed().wait();
  }
  of.serve();
  co_return Result<void>();
}

Task<Result<void>> Engine::stand_by(Uuid volume) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_await shown->volume.stand_by();
  co_return Result<void>();
}

Task<Result<void>> Engine::take_snapshot(Uuid volume, Uuid id, Duration limit) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_return co_await shown->volume.take_snapshot(id, limit);
}

Task<Result<void>> Engine::delete_snapshot(Uuid volume, Uuid id, Duration limit) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_return co_await shown->volume.delete_snapshot(id, limit);
}

Task<Result<void>> Engine::grow_volume(Uuid volume, uint64_t size_bytes, Duration limit) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_return co_await shown->volume.grow(size_bytes, limit);
}

Result<void> Engine::force(const Uuid& volume, const mirror::ReplicaId& trusted) {
  Shown* const shown = find(volume);
  if (shown == nullptr) return fail(Code::kNotFound, "no such volume is open");
  return shown->volume.force(trusted);
}

Task<Result<void>> Engine::close_volume(Uuid volume) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_await shown->volume.close();
  volumes_.erase(volume);
  co_return Result<void>();
}

const Volume* Engine::find_volume(const Uuid& volume) const {
  const Shown* const shown = find(volume);
  return shown == nullptr ? nullptr : &shown->volume;
}

std::vector<Uuid> Engine::volumes() const {
  std::vector<Uuid> ids;
  for (const auto& [id, shown] : volumes_) ids.push_back(id);
  return ids;
}

Task<Result<void>> Engine::stop() {
  if (std::exchange(is_stopped_, true)) co_return Result<void>();
  for (const Uuid& id : volumes()) (void)co_await close_volume(id);
  while (!replicas_.empty()) co_await withdraw(replicas_.begin()->first);
  const Result<void> stopped = co_await target_.stop();
  Result<void> closed = co_await pool_->close();
  co_return stopped ? closed : stopped;
}

}  // namespace fairlead::engine
