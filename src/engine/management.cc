#include "engine/management.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "engine/requests.h"

namespace fairlead::engine {
namespace {

v1::Done done() { return {}; }

// The error, with what it is about.
Outcome<v1::Done> done_or(const Result<void>& result, std::string about) {
  if (!result) return problem_of(result.error(), std::move(about));
  return done();
}

std::string key_of_pool(const std::string& name) { return "pool " + name; }
std::string key_of_volume(const Uuid& id) { return "volume " + to_string(id); }
// Of its snapshots and its size: these wait for the volume, and nobody waits for them.
std::string key_of_contents(const Uuid& id) { return "contents of volume " + to_string(id); }
std::string key_of_cut(const Uuid& id) { return "cut of volume " + to_string(id); }
constexpr uint64_t kHoldMsMax = 10'000;

}  // namespace

Management::Management(std::vector<Shard*> shards, Engine& engine, StateDirectory& directory, ManagementOptions options)
    : shards_(std::move(shards)),
      engine_(engine),
      directory_(directory),
      options_(std::move(options)),
      run_id_(shards_.front()->random.uuid()),
      idle_(shards_.front()->reactor),
      scope_(shards_.front()->reactor) {}

Management::~Management() { FL_CHECK(is_stopping_ && under_way_ == 0); }

void Management::add_to(rpc::Service& service) {
  const auto add = [&](const char* name, auto method) {
    service.add(std::string("/fairlead.engine.v1.Engine/") + name, *this, method);
  };
  add("GetState", &Management::get_state);
  add("CreatePool", &Management::create_pool);
  add("ImportPool", &Management::import_pool);
  add("GrowPool", &Management::grow_pool);
  add("DestroyPool", &Management::destroy_pool);
  add("CreateReplica", &Management::create_replica);
  add("SetAnnotations", &Management::set_annotations);
  add("DeleteReplica", &Management::delete_replica);
  add("OpenVolume", &Management::open_volume);
  add("CloseVolume", &Management::close_volume);
  add("ServeVolume", &Management::serve_volume);
  add("StandBy", &Management::stand_by);
  add("RenewTerm", &Management::renew_term);
  add("TakeSnapshot", &Management::take_snapshot);
  add("HoldForSnapshot", &Management::hold_for_snapshot);
  add("TakeHeldSnapshot", &Management::take_held_snapshot);
  add("DeleteSnapshot", &Management::delete_snapshot);
  add("GrowVolume", &Management::grow_volume);
  add("ForceVolume", &Management::force_volume);
}

void Management::begin_stop() {
  is_stopping_ = true;
  changes().tell();
}

Task<void> Management::stop() {
  begin_stop();
  while (under_way_ > 0) co_await idle_.wait();
  ending_.cancel();
  co_await scope_.close();
}

// ---- Who may change what, and when

Task<Outcome<void>> Management::admit(const v1::Leader& leader) {
  if (leader.number() > directory_.leader()) FL_CO_TRY_VOID(co_await directory_.note_leader(leader.number()));
  if (leader.number() < directory_.leader()) {
    co_return problem(Code::kFenced,
                      fmt::format("leader {} was followed by leader {}: this one leads no more, and nothing was done",
                                  leader.number(), directory_.leader()));
  }
  if (is_stopping_) co_return problem(Code::kShuttingDown, "the engine is stopping: ask again when it is back");
  co_return Outcome<void>();
}

Task<Outcome<Management::Turn>> Management::take_turn(v1::Leader leader, std::string thing) {
  Entered entered(*this);
  FL_CO_TRY_VOID(co_await admit(leader));
  std::erase_if(mutexes_, [](const auto& each) { return each.second.expired(); });
  std::shared_ptr<Mutex> mutex = mutexes_[thing].lock();
  if (mutex == nullptr) {
    mutex = std::make_shared<Mutex>(shards_.front()->reactor);
    mutexes_[thing] = mutex;
  }
  Mutex::Guard guard = co_await mutex->lock();
  // Who leads may be another by now.
  FL_CO_TRY_VOID(co_await admit(leader));
  co_return Turn{.entered = std::move(entered), .mutex = std::move(mutex), .guard = std::move(guard)};
}

// ---- Replicas

std::optional<ReplicaInfo> Management::find_replica(const mirror::ReplicaId& id) const {
  const std::vector<ReplicaInfo> replicas = engine_.replicas();
  const auto found = std::ranges::find(replicas, id, &ReplicaInfo::id);
  return found == replicas.end() ? std::nullopt : std::optional(*found);
}

Task<Outcome<v1::Done>> Management::create_replica(v1::CreateReplicaRequest request) {
  FL_CO_TRY(NewReplica replica, parse(request));
  if (replica.pool.empty() && engine_.pools().size() == 1) replica.pool = engine_.pools().front()->name();
  FL_CO_TRY_VOID(check_pool_name(replica.pool));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_pool(replica.pool)));
  co_return co_await make_replica(std::move(replica));
}

Task<Outcome<v1::Done>> Management::make_replica(NewReplica replica) {
  if (const std::optional<ReplicaInfo> there = find_replica(replica.id)) {
    const bool is_it = there->volume == replica.volume && there->pool == replica.pool &&
                       (replica.clone_of || there->size_bytes == replica.size_bytes);
    if (is_it) co_return done();
    co_return problem(
        Code::kAlreadyExists,
        fmt::format("replica {} is there already, of volume {}, with {} bytes in pool {}: draw another id",
                    replica.name, to_string(there->volume), there->size_bytes, there->pool));
  }
  pool::Pool* const pool = engine_.find_pool(replica.pool);
  if (pool == nullptr) {
    co_return problem(Code::kNotFound, fmt::format("the engine has no pool {}: make or import it first", replica.pool));
  }
  // As a crash leaves it between its making and its record: it belongs to no volume, and nobody has seen it.
  const Result<pool::ObjectInfo> half = pool->find(replica.name);
  if (half && half->state.kind == pool::ObjectKind::kReplica && half->state.volume_id.is_nil()) {
    const Result<void> removed = co_await pool->remove(replica.name);
    if (!removed) co_return problem_of(removed.error(), "what is left of replica " + replica.name);
  }
  const std::string about = "replica " + replica.name;
  co_return done_or(co_await engine_.create_replica(std::move(replica)), about);
}

Task<Outcome<v1::Done>> Management::set_annotations(v1::SetAnnotationsRequest request) {
  FL_CO_TRY(const Uuid id, parse_id("a replica", request.replica()));
  Annotations annotations;
  for (const auto& [key, value] : request.annotations()) annotations.emplace(key, value);
  if (const Result<void> good = check(annotations); !good) {
    co_return problem(Code::kInvalidArgument, good.error().what);
  }
  const std::optional<ReplicaInfo> replica = find_replica(id);
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_pool(replica ? replica->pool : "")));
  co_return done_or(co_await engine_.set_annotations(to_string(id), std::move(annotations)),
                    "replica " + to_string(id));
}

Task<Outcome<v1::Done>> Management::delete_replica(v1::DeleteReplicaRequest request) {
  FL_CO_TRY(const Uuid id, parse_id("a replica", request.id()));
  const std::optional<ReplicaInfo> replica = find_replica(id);
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_pool(replica ? replica->pool : "")));
  const Result<void> deleted = co_await engine_.delete_replica(to_string(id));
  if (!deleted && deleted.error().code == Code::kNotFound) co_return done();
  if (!deleted && deleted.error().code == Code::kBusy) {
    co_return problem(Code::kBusy, fmt::format("replica {} cannot be deleted: {}, or open it with other places",
                                               to_string(id), deleted.error().what));
  }
  co_return done_or(deleted, "replica " + to_string(id));
}

// ---- Volumes

Task<Outcome<v1::Done>> Management::open_volume(v1::OpenVolumeRequest request) {
  FL_CO_TRY(NewVolume volume, parse(request));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_volume(volume.id)));
  const std::string about = "volume " + to_string(volume.id);
  co_return done_or(co_await engine_.open_volume(std::move(volume)), about);
}

Task<Outcome<v1::Done>> Management::close_volume(v1::VolumeRequest request) {
  FL_CO_TRY(const Uuid id, parse_id("a volume", request.id()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_volume(id)));
  const Result<void> closed = co_await engine_.close_volume(id);
  if (!closed && closed.error().code == Code::kNotFound) co_return done();
  co_return done_or(closed, "volume " + to_string(id));
}

Task<Outcome<v1::Done>> Management::serve_volume(v1::VolumeRequest request) {
  FL_CO_TRY(const Uuid id, parse_id("a volume", request.id()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_volume(id)));
  co_return done_or(co_await engine_.serve_volume(id), "volume " + to_string(id));
}

Task<Outcome<v1::Done>> Management::stand_by(v1::VolumeRequest request) {
  FL_CO_TRY(const Uuid id, parse_id("a volume", request.id()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_volume(id)));
  co_return done_or(co_await engine_.stand_by(id), "volume " + to_string(id));
}

Task<Outcome<v1::Done>> Management::renew_term(v1::VolumeRequest request) {
  FL_CO_TRY(const Uuid id, parse_id("a volume", request.id()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_volume(id)));
  co_return done_or(engine_.renew_term(id), "volume " + to_string(id));
}

Task<Outcome<v1::Done>> Management::take_snapshot(v1::SnapshotRequest request) {
  return change_snapshot(std::move(request), &Engine::take_snapshot);
}

// Hosts wait: not for their turn after what else is asked of the volume.
Task<Outcome<v1::Done>> Management::hold_for_snapshot(v1::HoldForSnapshotRequest request) {
  FL_CO_TRY(const Uuid volume, parse_id("a volume", request.volume()));
  FL_CO_TRY(const Uuid snapshot, parse_id("a snapshot", request.snapshot()));
  FL_CO_TRY(const Duration limit, parse_limit(request.limit_ms()));
  if (request.hold_ms() == 0 || request.hold_ms() > kHoldMsMax) {
    co_return problem(Code::kInvalidArgument, fmt::format("hold_ms: {} is not 1 to {}", request.hold_ms(), kHoldMsMax));
  }
  const auto hold = std::chrono::milliseconds(request.hold_ms());
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_cut(volume)));
  co_return done_or(co_await engine_.hold_for_snapshot(volume, snapshot, limit, hold), "volume " + to_string(volume));
}

Task<Outcome<v1::Done>> Management::take_held_snapshot(v1::SnapshotRequest request) {
  FL_CO_TRY(const Uuid volume, parse_id("a volume", request.volume()));
  FL_CO_TRY(const Uuid snapshot, parse_id("a snapshot", request.snapshot()));
  FL_CO_TRY(const Duration limit, parse_limit(request.limit_ms()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_cut(volume)));
  co_return done_or(co_await engine_.take_held_snapshot(volume, snapshot, limit), "volume " + to_string(volume));
}

Task<Outcome<v1::Done>> Management::delete_snapshot(v1::SnapshotRequest request) {
  return change_snapshot(std::move(request), &Engine::delete_snapshot);
}

Task<Outcome<v1::Done>> Management::change_snapshot(v1::SnapshotRequest request,
                                                    Task<Result<void>> (Engine::*change)(Uuid, Uuid, Duration)) {
  FL_CO_TRY(const Uuid volume, parse_id("a volume", request.volume()));
  FL_CO_TRY(const Uuid snapshot, parse_id("a snapshot", request.snapshot()));
  FL_CO_TRY(const Duration limit, parse_limit(request.limit_ms()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_contents(volume)));
  co_return done_or(co_await (engine_.*change)(volume, snapshot, limit), "volume " + to_string(volume));
}

Task<Outcome<v1::Done>> Management::grow_volume(v1::GrowVolumeRequest request) {
  FL_CO_TRY(const Uuid id, parse_id("a volume", request.id()));
  FL_CO_TRY_VOID(check_size("a volume", request.size_bytes()));
  FL_CO_TRY(const Duration limit, parse_limit(request.limit_ms()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_contents(id)));
  co_return done_or(co_await engine_.grow_volume(id, request.size_bytes(), limit), "volume " + to_string(id));
}

Task<Outcome<v1::Done>> Management::force_volume(v1::ForceVolumeRequest request) {
  FL_CO_TRY(const Uuid id, parse_id("a volume", request.id()));
  FL_CO_TRY(const Uuid trusted, parse_id("a replica", request.trusted_replica()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), key_of_volume(id)));
  co_return done_or(engine_.force(id, trusted), "volume " + to_string(id));
}

}  // namespace fairlead::engine
