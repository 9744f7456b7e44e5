#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <utility>

#include "engine/management.h"
#include "engine/wire.h"

namespace fairlead::engine {
namespace {

using mirror::TargetStatus;
using Standing = mirror::Reign::Standing;
using Role = v1::VolumeState;

Role::Role role_of(TargetStatus::State state) {
  switch (state) {
    case TargetStatus::State::kStarting:
      return Role::STARTING;
    case TargetStatus::State::kSuspended:
      return Role::SUSPENDED;
    case TargetStatus::State::kServing:
      return Role::SERVING;
    case TargetStatus::State::kSuperseded:
      return Role::SUPERSEDED;
    case TargetStatus::State::kStopped:
      break;
  }
  return Role::STOPPED;
}

v1::VolumeState::Replica::Standing standing_of(Standing standing) {
  switch (standing) {
    case Standing::kAway:
      return Role::Replica::AWAY;
    case Standing::kPrepared:
      return Role::Replica::PREPARED;
    case Standing::kReturning:
      return Role::Replica::RETURNING;
    case Standing::kReady:
      return Role::Replica::READY;
    case Standing::kMember:
      break;
  }
  return Role::Replica::MEMBER;
}

void fill(v1::VolumeState::Replica& out, const mirror::ReplicaStatus& status) {
  out.set_id(to_string(status.replica));
  out.set_standing(standing_of(status.standing));
  out.set_is_local(status.is_local);
  out.set_copied_bytes(status.copied_bytes);
  out.set_to_copy_bytes(status.to_copy_bytes);
  out.set_copy_rate(status.copy_rate);
  out.set_copy_left_ms(static_cast<uint64_t>(status.copy_left / std::chrono::milliseconds(1)));
  const bool is_well = status.standing == Standing::kMember || status.last_error == Error{};
  if (!is_well) out.set_last_error(to_string(status.last_error));
}

void fill(v1::VolumeState& out, const TargetStatus& status) {
  out.set_role(role_of(status.state));
  *out.mutable_term() = to_wire(status.term);
  *out.mutable_record() = to_wire(status.record);
  out.set_is_degraded(status.is_degraded);
  out.set_unlevel_bytes(status.unlevel_bytes);
  for (const mirror::ReplicaStatus& replica : status.replicas) fill(*out.add_replicas(), replica);
  for (const mirror::Snapshot& snapshot : status.snapshots) *out.add_snapshots() = to_wire(snapshot);
  out.set_why(status.why);
}

v1::ReplicaState describe(const ReplicaInfo& info) {
  v1::ReplicaState out;
  out.set_id(to_string(info.id));
  out.set_volume(to_string(info.volume));
  out.set_pool(info.pool);
  out.set_size_bytes(info.size_bytes);
  out.set_allocated_bytes(info.allocated_bytes);
  *out.mutable_promise() = to_wire(info.state.promise);
  *out.mutable_record() = to_wire(info.state.record);
  out.set_is_cold(info.state.is_cold);
  if (info.trouble) out.set_trouble(to_string(*info.trouble));
  if (info.holder) *out.mutable_session() = to_wire(*info.holder);
  for (const auto& [key, value] : info.annotations) (*out.mutable_annotations())[key] = value;
  for (const mirror::Snapshot& snapshot : info.snapshots) *out.add_snapshots() = to_wire(snapshot);
  return out;
}

std::string encode_message(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // maps in order: equal states are equal bytes
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

using Encoded = std::map<std::string, std::string>;  // by id

// Two pools may have a replica of the same id.
template <typename Items>
Encoded encode_items(const Items& items) {
  Encoded encoded;
  for (const auto& item : items) encoded[item.id()] += encode_message(item);
  return encoded;
}

// Leaves out what is as it was, and names what is gone.
template <typename Items, typename Ids>
void keep_changes(const Encoded& before, const Encoded& now, Items& items, Ids& gone) {
  const auto is_same = [&](const auto& item) {
    const auto was = before.find(item.id());
    return was != before.end() && was->second == now.at(item.id());
  };
  items.erase(std::remove_if(items.begin(), items.end(), is_same), items.end());
  for (const auto& [id, encoded] : before) {
    if (!now.contains(id)) *gone.Add() = id;
  }
}

}  // namespace

v1::PoolState Management::describe(const pool::Pool& pool) const {
  const pool::PoolStatistics statistics = pool.statistics();
  v1::PoolState out;
  out.set_name(pool.name());
  out.set_id(to_string(pool.id()));
  out.set_capacity_bytes(statistics.capacity_bytes);
  out.set_used_bytes(statistics.used_bytes);
  out.set_free_bytes(statistics.free_bytes);
  uint64_t promised = 0;
  for (const pool::ObjectInfo& object : pool.list()) {
    if (object.state.kind == pool::ObjectKind::kReplica) promised += object.state.size_bytes;
  }
  out.set_promised_bytes(promised);
  return out;
}

v1::VolumeState Management::describe(const Uuid& id, const Volume& volume, size_t controllers) const {
  v1::VolumeState out;
  out.set_id(to_string(id));
  out.set_size_bytes(volume.size_bytes());
  out.set_role(Role::STANDING_BY);
  if (volume.is_target()) fill(out, volume.status());
  for (const ReplicaPlace& place : engine_.places_of(id)) {
    v1::ReplicaPlace& added = *out.add_places();
    added.set_replica(to_string(place.replica));
    if (place.address) added.set_address(to_string(*place.address));
  }
  for (const std::string& host : volume.allowed_hosts()) out.add_allowed_hosts(host);
  out.set_resync_share(volume.resync_share());
  out.set_controllers(controllers);
  return out;
}

v1::NodeState Management::state() const {
  v1::NodeState out;
  out.set_node(options_.node);
  out.set_node_id(to_string(directory_.node()));
  out.set_run_id(to_string(run_id_));
  out.set_boot_id(to_string(shards_.front()->storage.boot_id()));
  out.set_version(options_.version);
  out.set_data_address(options_.data_address);
  out.set_management_address(options_.management_address);
  out.set_is_stopping(is_stopping_);
  for (const auto& [key, value] : options_.labels) (*out.mutable_labels())[key] = value;
  for (const pool::Pool* const pool : engine_.pools()) *out.add_pools() = describe(*pool);
  for (const PoolRecord& record : directory_.pools()) {
    const auto is_it = [&](const v1::PoolState& each) { return each.name() == record.name; };
    const auto found = std::ranges::find_if(*out.mutable_pools(), is_it);
    v1::PoolState& pool = found == out.mutable_pools()->end() ? *out.add_pools() : *found;
    pool.set_name(record.name);
    for (const std::string& disk : record.disks) pool.add_disks(disk);
    for (const auto& [key, value] : record.labels) (*pool.mutable_labels())[key] = value;
    if (const auto trouble = troubles_.find(record.name); trouble != troubles_.end()) pool.set_trouble(trouble->second);
    if (pool.id().empty() && pool.trouble().empty()) pool.set_trouble("it is being imported");
  }
  for (const ReplicaInfo& replica : engine_.replicas()) *out.add_replicas() = engine::describe(replica);
  const std::map<std::string, size_t> controllers = engine_.controllers();
  for (const Uuid& id : engine_.volumes()) {
    const auto count = controllers.find(volume_nqn(id));
    *out.add_volumes() = describe(id, *engine_.find_volume(id), count == controllers.end() ? 0 : count->second);
  }
  return out;
}

Management::EncodedState Management::encode(v1::NodeState& state) {
  EncodedState encoded{
      .head = {}, .replicas = encode_items(state.replicas()), .volumes = encode_items(state.volumes())};
  google::protobuf::RepeatedPtrField<v1::ReplicaState> replicas;
  google::protobuf::RepeatedPtrField<v1::VolumeState> volumes;
  replicas.Swap(state.mutable_replicas());
  volumes.Swap(state.mutable_volumes());
  encoded.head = encode_message(state);
  replicas.Swap(state.mutable_replicas());
  volumes.Swap(state.mutable_volumes());
  return encoded;
}

v1::ReportRequest Management::sign_of_life() const {
  v1::ReportRequest request;
  request.set_node(options_.node);
  request.set_run_id(to_string(run_id_));
  request.set_sequence(sequence_);
  return request;
}

v1::ReportRequest Management::report(uint64_t known) {
  v1::NodeState now = state();
  EncodedState encoded = encode(now);
  const uint64_t before = sequence_;
  if (encoded != last_) ++sequence_;
  v1::ReportRequest request = sign_of_life();
  if (known != sequence_) {
    if (known == before && known != 0) {
      request.set_since(known);
      keep_changes(last_.replicas, encoded.replicas, *now.mutable_replicas(), *request.mutable_gone_replicas());
      keep_changes(last_.volumes, encoded.volumes, *now.mutable_volumes(), *request.mutable_gone_volumes());
    }
    *request.mutable_state() = std::move(now);
  }
  last_ = std::move(encoded);
  return request;
}

Task<Outcome<v1::NodeState>> Management::get_state(v1::GetStateRequest) { co_return state(); }

}  // namespace fairlead::engine
