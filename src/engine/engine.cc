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

target::TargetOptions target_options(const EngineOptions& options, const Uuid& node) {
  target::TargetOptions target = options.target;
  const ControllerIds ids = options.controller_ids.value_or(controller_ids_of(node));
  target.controller_id_min = ids.first;
  target.controller_id_max = ids.last;
  // What an engine showed before it started again it is told to show again.
  target.when_absent = target::WhenAbsent::kComeAgain;
  return target;
}

constexpr Duration kGrowLimit = std::chrono::seconds(10);  // of a volume that is opened with a larger size

bool is_of_a_volume(const pool::ObjectState& state) {
  return state.kind == pool::ObjectKind::kReplica && !state.volume_id.is_nil();
}

bool is_snapshot_of(const pool::ObjectState& state, const mirror::ReplicaId& replica) {
  const auto is_of_volume = [](const pool::Property& property) { return property.key == kSnapshotProperty; };
  return state.kind == pool::ObjectKind::kSnapshot && state.origin == replica &&
         std::ranges::any_of(state.properties, is_of_volume);
}

Annotations annotations_of(const pool::ObjectState& state) {
  const auto kept = std::ranges::find(state.properties, kAnnotationsProperty, &pool::Property::key);
  if (kept == state.properties.end()) return {};
  return decode_annotations(kept->value).value_or(Annotations{});
}

}  // namespace

ControllerIds controller_ids_of(const Uuid& node) {
  const Uuid mixed = uuid_from_name(kFairleadNamespace, "controllers:" + to_string(node));
  const auto range = static_cast<uint16_t>((mixed.bytes[0] << 8 | mixed.bytes[1]) % 255);
  const auto first = static_cast<uint16_t>(range * kControllerIdsEach + 1);
  return {.first = first, .last = static_cast<uint16_t>(first + kControllerIdsEach - 1)};
}

// The ways to a volume's replicas, new ones for each time that it is served.
class Engine::Links final : public LinkFactory {
 public:
  Links(Engine& engine, std::vector<ReplicaPlace> places) : engine_(engine), places_(std::move(places)) {}

  const std::vector<ReplicaPlace>& places() const { return places_; }
  // Those before are in use until done_changing().
  void change(std::vector<ReplicaPlace> places) { before_ = std::exchange(places_, std::move(places)); }
  void done_changing() { before_.clear(); }
  bool uses(const mirror::ReplicaId& replica) const {
    const auto is_it = [&](const ReplicaPlace& place) { return place.replica == replica && !place.address; };
    return std::ranges::any_of(places_, is_it) || std::ranges::any_of(before_, is_it);
  }
  std::vector<std::unique_ptr<mirror::ReplicaLink>> make() override {
    std::vector<std::unique_ptr<mirror::ReplicaLink>> links;
    for (const ReplicaPlace& place : places_) {
      if (place.address) {
        RemoteLinkOptions options = engine_.link_options(place);
        options.neighbours = &engine_.neighbours_;
        auto link = std::make_unique<RemoteLink>(engine_.shards_, std::move(options));
        link->start();
        links.push_back(std::move(link));
        continue;
      }
      auto link = std::make_unique<LocalLink>(*engine_.replicas_.at(place.replica).replica);
      link->start();
      links.push_back(std::move(link));
    }
    return links;
  }

 private:
  Engine& engine_;
  std::vector<ReplicaPlace> places_;
  std::vector<ReplicaPlace> before_;
};

struct Engine::Shown {
  Shown(Engine& engine, std::vector<ReplicaPlace> places, VolumeOptions options)
      : links(engine, std::move(places)),
        volume(engine.shards_, engine.target_, engine.witness_, links, engine.copies_, std::move(options)) {}
  Links links;
  Volume volume;
};

Engine::Engine(std::vector<Shard*> shards, const Uuid& node, mirror::Witness& witness, EngineOptions options,
               target::TargetObserver* observer)
    : shards_(std::move(shards)),
      options_(std::move(options)),
      witness_(witness),
      identity_(host::identity_from_id(uuid_from_name(kFairleadNamespace, "engine:" + to_string(node)))),
      changes_(shards_.front()->reactor),
      copies_(shards_.front()->reactor, options_.copies_max),
      target_(shards_, target_options(options_, node), observer),
      scope_(shards_.front()->reactor) {}

Engine::~Engine() { FL_CHECK(is_stopped_); }

Task<Result<target::Target::Listening>> Engine::listen(target::ListenerOptions listener) {
  if (!volumes_.empty()) co_return fail(Code::kBusy, "volumes are shown on the listeners that there are already");
  FL_CO_TRY(const target::Target::Listening listening, co_await target_.start_listener(std::move(listener)));
  ports_.push_back(listening.port);
  co_return listening;
}

// ---- Pools

Task<Result<void>> Engine::add_pool(std::unique_ptr<pool::Pool> pool) {
  const auto is_it = [&](const auto& each) { return each.first == pool->name() || each.second->id() == pool->id(); };
  if (std::ranges::any_of(pools_, is_it)) {
    (void)co_await pool->close();
    co_return fail(Code::kAlreadyExists, "the engine has a pool of this name or id");
  }
  pool::Pool& added = *pool;
  pools_.emplace(added.name(), std::move(pool));
  for (const pool::ObjectInfo& object : added.list()) {
    if (is_of_a_volume(object.state)) co_await offer(added, object.state.id);
  }
  changes_.tell();
  co_return Result<void>();
}

Task<Result<void>> Engine::remove_pool(std::string name) {
  const auto found = pools_.find(name);
  if (found == pools_.end()) co_return fail(Code::kNotFound, "the engine has no such pool");
  for (const auto& [id, offered] : replicas_) {
    if (offered.pool == found->second.get() && is_in_use(id)) {
      co_return fail(Code::kBusy, "a volume that is open here has a replica in it: close that first");
    }
  }
  const std::unique_ptr<pool::Pool> pool = std::move(found->second);
  pools_.erase(found);
  co_await withdraw_all(*pool);
  for (const pool::ObjectInfo& object : pool->list()) troubles_.erase(object.state.id);
  const Result<void> closed = co_await pool->close();
  changes_.tell();
  co_return closed;
}

std::vector<const pool::Pool*> Engine::pools() const {
  std::vector<const pool::Pool*> list;
  for (const auto& [name, pool] : pools_) list.push_back(pool.get());
  return list;
}

pool::Pool* Engine::find_pool(std::string_view name) const {
  const auto found = pools_.find(name);
  return found == pools_.end() ? nullptr : found->second.get();
}

// ---- Replicas

Task<void> Engine::offer(pool::Pool& pool, mirror::ReplicaId id) {
  Result<std::unique_ptr<Replica>> opened = fail(Code::kAlreadyExists, "another pool of this engine has it too");
  if (!replicas_.contains(id)) {
    opened = co_await Replica::open(shards_, pool, &target_,
                                    {.id = id, .lease_max = lease_given(options_.mirror), .changes = &changes_});
  }
  if (opened) {
    troubles_.erase(id);
    replicas_[id] = {.replica = std::move(*opened), .pool = &pool};
    co_return;
  }
  troubles_[id] = opened.error();
  log_error("engine.replica_not_offered", {{"replica", to_string(id)}, {"error", to_string(opened.error())}});
}

// Out of the table first: nobody begins to use one that is closing.
Task<void> Engine::withdraw(mirror::ReplicaId id) {
  const auto found = replicas_.find(id);
  if (found == replicas_.end()) co_return;
  const std::unique_ptr<Replica> replica = std::move(found->second.replica);
  replicas_.erase(found);
  co_await replica->close();
}

Task<void> Engine::withdraw_all(const pool::Pool& pool) {
  std::vector<std::unique_ptr<Replica>> leaving;
  for (auto& [id, offered] : replicas_) {
    if (offered.pool == &pool) leaving.push_back(std::move(offered.replica));
  }
  std::erase_if(replicas_, [&](const auto& each) { return each.second.pool == &pool; });
  for (const auto& replica : leaving) co_await replica->close();
}

ReplicaInfo Engine::describe(const pool::Pool& pool, const pool::ObjectInfo& object) const {
  ReplicaInfo info{.name = object.state.name,
                   .id = object.state.id,
                   .volume = object.state.volume_id,
                   .size_bytes = object.state.size_bytes,
                   .state = {},
                   .trouble = {},
                   .pool = pool.name(),
                   .allocated_bytes = object.used_bytes,
                   .snapshots = {},
                   .holder = {},
                   .annotations = annotations_of(object.state)};
  const auto offered = replicas_.find(info.id);
  if (offered != replicas_.end() && offered->second.pool == &pool) {
    const Replica& replica = *offered->second.replica;
    info.state = replica.store().state();
    info.snapshots = replica.store().snapshots();
    info.holder = replica.holder();
  } else if (const auto trouble = troubles_.find(info.id); trouble != troubles_.end()) {
    info.trouble = trouble->second;
  }
  return info;
}

std::vector<ReplicaInfo> Engine::replicas() const {
  std::vector<ReplicaInfo> list;
  for (const auto& [name, pool] : pools_) {
    const std::vector<pool::ObjectInfo> objects = pool->list();
    std::map<Uuid, size_t> places;
    for (const pool::ObjectInfo& object : objects) {
      if (!is_of_a_volume(object.state)) continue;
      places[object.state.id] = list.size();
      list.push_back(describe(*pool, object));
    }
    for (const pool::ObjectInfo& object : objects) {
      const auto replica = places.find(object.state.origin);
      if (replica == places.end() || !is_snapshot_of(object.state, object.state.origin)) continue;
      list[replica->second].allocated_bytes += object.used_bytes;
    }
  }
  return list;
}

Result<Engine::Found> Engine::find_replica(std::string_view name) const {
  for (const auto& [pool_name, pool] : pools_) {
    Result<pool::ObjectInfo> object = pool->find(name);
    if (!object) continue;
    if (object->state.kind != pool::ObjectKind::kReplica) return fail(Code::kNotFound, "it is a snapshot");
    return Found{.pool = pool.get(), .object = std::move(*object)};
  }
  return fail(Code::kNotFound, "no pool of this engine has it");
}

Result<void> Engine::check(const NewReplica& replica) {
  if (replica.id.is_nil() || replica.volume.is_nil()) {
    return fail(Code::kInvalidArgument, "a replica and its volume have ids");
  }
  if (!replica.members.empty() && !replica.members.has(replica.id)) {
    return fail(Code::kInvalidArgument, "a replica that a volume begins with is one of its members");
  }
  if (replica.clone_of && replica.members.empty()) {
    return fail(Code::kInvalidArgument, "a clone is one of the members that its volume begins with");
  }
  if (replica.clone_of && replica.is_thick) return fail(Code::kInvalidArgument, "a clone is thin");
  return engine::check(replica.annotations);
}

Result<pool::Pool*> Engine::choose_pool(const NewReplica& replica) const {
  if (replica.pool.empty() && pools_.size() > 1) {
    return fail(Code::kInvalidArgument, "the engine has several pools: name one");
  }
  const auto found = replica.pool.empty() ? pools_.begin() : pools_.find(replica.pool);
  if (found == pools_.end()) return fail(Code::kNotFound, "the engine has no such pool");
  const auto has_it = [&](const auto& each) {
    return each.second != found->second && each.second->find(to_string(replica.id)).has_value();
  };
  if (std::ranges::any_of(pools_, has_it)) return fail(Code::kAlreadyExists, "another pool has an object of this id");
  return found->second.get();
}

// Without its volume: until it has its record nobody may take it for one that knows nothing. Returns what it is to
// begin with.
Task<Result<mirror::ReplicaState>> Engine::make_replica(pool::Pool& pool, const NewReplica& replica) {
  pool::ReplicaOptions options{.name = replica.name,
                               .size_bytes = replica.size_bytes,
                               .is_thick = replica.is_thick,
                               .id = replica.id,
                               .volume_id = {},
                               .labels = {}};
  mirror::ReplicaState state;
  state.record = {.at = {.term = {.number = 1, .writer = {}}, .generation = 0},
                  .members = replica.members,
                  .prior = replica.members};
  if (!replica.clone_of) {
    FL_CO_TRY_VOID(co_await pool.create_replica(std::move(options)));
    co_return state;
  }
  const auto origin = replicas_.find(replica.clone_of->replica);
  if (origin == replicas_.end()) co_return fail(Code::kNotFound, "this engine offers no such replica");
  if (origin->second.pool != &pool) {
    co_return fail(Code::kInvalidArgument, "a clone is in the pool that has its snapshot");
  }
  FL_CO_TRY(const PoolReplicaStore::Kept kept,
            origin->second.replica->store().find_snapshot(replica.clone_of->snapshot));
  options.size_bytes = kept.snapshot.size_bytes;
  FL_CO_TRY_VOID(co_await pool.clone(to_string(kept.object), std::move(options)));
  // All that it has it has in common with the other members, and nothing that is written to it is older.
  state.promise = kept.snapshot.cut.term;
  state.record.at = state.note = kept.snapshot.cut;
  co_return state;
}

Task<Result<void>> Engine::create_replica(NewReplica replica) {
  FL_CO_TRY_VOID(check(replica));
  FL_CO_TRY(pool::Pool* const pool, choose_pool(replica));
  FL_CO_TRY(const mirror::ReplicaState state, co_await make_replica(*pool, replica));
  pool::Changes changes;
  changes.volume_id = replica.volume;
  if (!replica.members.empty()) {
    changes.properties.push_back({.key = kReplicaStateProperty, .value = mirror::encode(state)});
  }
  if (!replica.annotations.empty()) {
    changes.properties.push_back({.key = kAnnotationsProperty, .value = encode(replica.annotations)});
  }
  if (Result<void> changed = co_await pool->change(replica.name, std::move(changes)); !changed) {
    (void)co_await pool->remove(replica.name);
    co_return changed;
  }
  co_await offer(*pool, replica.id);
  changes_.tell();
  if (const auto trouble = troubles_.find(replica.id); trouble != troubles_.end()) {
    co_return std::unexpected(trouble->second);
  }
  co_return Result<void>();
}

Task<Result<void>> Engine::set_annotations(std::string replica, Annotations annotations) {
  FL_CO_TRY_VOID(engine::check(annotations));
  FL_CO_TRY(const Found found, find_replica(replica));
  pool::Changes changes;
  changes.properties.push_back({.key = kAnnotationsProperty, .value = encode(annotations)});
  FL_CO_TRY_VOID(co_await found.pool->change(std::move(replica), std::move(changes)));
  changes_.tell();
  co_return Result<void>();
}

Task<Result<void>> Engine::delete_replica(std::string name) {
  FL_CO_TRY(const Found found, find_replica(name));
  const mirror::ReplicaId id = found.object.state.id;
  if (is_in_use(id)) co_return fail(Code::kBusy, "a volume that is open here has it: close that first");
  co_await withdraw(id);
  Result<void> removed = co_await remove_with_snapshots(*found.pool, found.object.state);
  if (removed) {
    troubles_.erase(id);
  } else if (is_of_a_volume(found.object.state)) {
    co_await offer(*found.pool, id);
  }
  changes_.tell();
  co_return removed;
}

Task<Result<void>> Engine::remove_with_snapshots(pool::Pool& pool, const pool::ObjectState& replica) {
  for (const pool::ObjectInfo& each : pool.list()) {
    if (is_snapshot_of(each.state, replica.id)) FL_CO_TRY_VOID(co_await pool.remove(to_string(each.state.id)));
  }
  co_return co_await pool.remove(to_string(replica.id));
}

bool Engine::is_in_use(const mirror::ReplicaId& replica) const {
  return std::ranges::any_of(volumes_, [&](const auto& shown) { return shown.second->links.uses(replica); });
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
    if (found->second.replica->volume() != volume.id) {
      return fail(Code::kInvalidArgument, "the replica here is another volume's");
    }
  }
  return {};
}

Task<Result<void>> Engine::open_volume(NewVolume volume) {
  if (volume.id.is_nil() || volume.size_bytes == 0 || volume.size_bytes % options_.mirror.logical_block != 0) {
    co_return fail(Code::kInvalidArgument, "a volume has an id, and a size in whole blocks");
  }
  FL_CO_TRY_VOID(check(volume));
  if (Shown* const shown = find(volume.id)) co_return co_await change_volume(*shown, std::move(volume));
  VolumeOptions options;
  options.mirror = options_.mirror;
  options.mirror.volume = volume.id;
  options.mirror.size_bytes = volume.size_bytes;
  options.nqn = volume_nqn(volume.id);
  options.allowed_hosts = std::move(volume.allowed_hosts);
  options.resync_share = volume.resync_share;
  options.ports = ports_;
  options.changes = &changes_;
  // In the table first: from now on its replicas are in use.
  const auto shown =
      volumes_.emplace(volume.id, std::make_unique<Shown>(*this, std::move(volume.replicas), std::move(options)));
  const Result<void> opened = co_await shown.first->second->volume.open();
  if (!opened) volumes_.erase(volume.id);
  changes_.tell();
  co_return opened;
}

Task<Result<void>> Engine::change_volume(Shown& shown, NewVolume volume) {
  if (volume.allowed_hosts != shown.volume.allowed_hosts()) {
    FL_CO_TRY_VOID(co_await shown.volume.set_allowed_hosts(std::move(volume.allowed_hosts)));
    changes_.tell();
  }
  if (volume.resync_share != shown.volume.resync_share()) {
    shown.volume.set_resync_share(volume.resync_share);
    changes_.tell();
  }
  if (!std::ranges::is_permutation(volume.replicas, shown.links.places())) {
    shown.links.change(std::move(volume.replicas));
    co_await shown.volume.renew();
    shown.links.done_changing();
    changes_.tell();
  }
  if (volume.size_bytes <= shown.volume.size_bytes()) co_return Result<void>();
  const Result<void> grown = co_await shown.volume.grow(volume.size_bytes, kGrowLimit);
  changes_.tell();
  co_return grown;
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

Result<void> Engine::renew_term(const Uuid& volume) {
  Shown* const shown = find(volume);
  if (shown == nullptr) return fail(Code::kNotFound, "no such volume is open");
  return shown->volume.renew_term();
}

Task<Result<void>> Engine::take_snapshot(Uuid volume, Uuid id, Duration limit) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_return co_await shown->volume.take_snapshot(id, limit);
}

Task<Result<void>> Engine::hold_for_snapshot(Uuid volume, Uuid id, Duration limit, Duration hold) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_return co_await shown->volume.hold_for_snapshot(id, limit, hold);
}

Task<Result<void>> Engine::take_held_snapshot(Uuid volume, Uuid id, Duration limit) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_return co_await shown->volume.take_held_snapshot(id, limit);
}

Task<Result<void>> Engine::delete_snapshot(Uuid volume, Uuid id, Duration limit) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  co_return co_await shown->volume.delete_snapshot(id, limit);
}

Task<Result<void>> Engine::grow_volume(Uuid volume, uint64_t size_bytes, Duration limit) {
  Shown* const shown = find(volume);
  if (shown == nullptr) co_return fail(Code::kNotFound, "no such volume is open");
  const Result<void> grown = co_await shown->volume.grow(size_bytes, limit);
  changes_.tell();
  co_return grown;
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
  changes_.tell();
  co_return Result<void>();
}

Task<void> Engine::close_and_forget(Uuid volume) { (void)co_await close_volume(volume); }

const Volume* Engine::find_volume(const Uuid& volume) const {
  const Shown* const shown = find(volume);
  return shown == nullptr ? nullptr : &shown->volume;
}

const std::vector<ReplicaPlace>& Engine::places_of(const Uuid& volume) const {
  const Shown* const shown = find(volume);
  FL_CHECK(shown != nullptr);
  return shown->links.places();
}

std::vector<Uuid> Engine::volumes() const {
  std::vector<Uuid> ids;
  for (const auto& [id, shown] : volumes_) ids.push_back(id);
  return ids;
}

Task<Result<void>> Engine::stop() {
  if (std::exchange(is_stopped_, true)) co_return Result<void>();
  // First: a host whose volume was closed would be told not to come again.
  co_await target_.stop_accepting();
  for (const Uuid& id : volumes()) scope_.spawn(close_and_forget(id));
  co_await scope_.close();
  while (!replicas_.empty()) co_await withdraw(replicas_.begin()->first);
  Result<void> outcome = co_await target_.stop();
  for (const auto& [name, pool] : pools_) {
    const Result<void> closed = co_await pool->close();
    if (outcome) outcome = closed;
  }
  pools_.clear();
  changes_.tell();
  co_return outcome;
}

}  // namespace fairlead::engine
