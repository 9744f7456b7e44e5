// What people and the control plane do to objects. Every task here holds administration_, so one runs at a time.
#include <algorithm>

#include "async/call.h"
#include "base/log.h"
#include "pool/core.h"
#include "pool/device.h"

namespace fairlead::pool {
namespace {

Task<void> close_gate_on(ObjectSide& side) {
  side.is_gate_closed = true;
  while (side.writers > 0) co_await side.writers_left.wait();
}
Task<void> open_gate_on(ObjectSide& side) {
  side.open_gate();
  co_return;
}
Task<uint32_t> devices_on(ObjectSide& side) { co_return side.devices.load(std::memory_order_relaxed); }
Task<void> set_removed_on(ObjectSide& side, bool is_removed) {
  side.is_removed = is_removed;
  co_return;
}
Task<void> update_on(ObjectSide& side, std::shared_ptr<View> view, uint64_t size_bytes, StampOrdinal stamp) {
  side.view = std::move(view);
  side.size_bytes = size_bytes;
  side.stamp = stamp;
  co_return;
}

template <typename Item>
void merge_changes(std::vector<Item>& items, const std::vector<Item>& changes) {
  for (const Item& change : changes) {
    std::erase_if(items, [&](const Item& item) { return item.key == change.key; });
    if (!change.value.empty()) items.push_back(change);
  }
  std::ranges::sort(items, {}, &Item::key);
}

}  // namespace

ObjectInfo PoolCore::info_of(const Object& object) const {
  uint32_t devices = 0;
  for (const std::shared_ptr<ObjectSide>& side : object.sides) {
    devices += side->devices.load(std::memory_order_relaxed);
  }
  return {.state = object.state, .used_bytes = object.layer->places << layout_.extent_shift(), .open_devices = devices};
}

std::vector<ObjectInfo> PoolCore::list() const {
  std::vector<ObjectInfo> infos;
  for (const auto& [id, object] : objects_) infos.push_back(info_of(*object));
  std::ranges::sort(infos, {}, [](const ObjectInfo& info) -> const std::string& { return info.state.name; });
  return infos;
}

Result<ObjectInfo> PoolCore::info(std::string_view name) const {
  const Object* const object = find_object(name);
  if (object == nullptr) return fail(Code::kNotFound, "no replica or snapshot of this name");
  return info_of(*object);
}

Task<Result<void>> PoolCore::write_durably(std::vector<Record> records) {
  FL_CO_TRY_VOID(co_await journal_->write(std::move(records)));
  co_return co_await flush();
}

Result<void> PoolCore::check_new(std::string_view name, const Uuid& id) const {
  if (!is_valid_name(name)) {
    return fail(Code::kInvalidArgument,
                "a name has 1 to 63 letters, digits, '.', '_' or '-', and begins with a letter or digit");
  }
  if (find_object(name) != nullptr) return fail(Code::kAlreadyExists, "the pool has an object of this name");
  if (objects_.contains(id)) return fail(Code::kAlreadyExists, "the pool has an object of this id");
  return {};
}

Result<void> PoolCore::check_room_for_object() const {
  if (objects_.size() >= kObjectsMax) return fail(Code::kResourceExhausted, "the pool has too many objects");
  if (!has_metadata_room()) return fail(Code::kNoSpace, "the pool is full");
  return {};
}

Result<void> PoolCore::check_state(const ObjectState& state) const {
  if (state.size_bytes == 0 || state.size_bytes % superblock_.logical_block != 0) {
    return fail(Code::kInvalidArgument, "a size is a multiple of the logical block, and not 0");
  }
  if (extent_count(state.size_bytes) > kExtentsMax)
    return fail(Code::kInvalidArgument, "a replica cannot be that large");
  if (state.labels.size() > kLabelsMax) return fail(Code::kInvalidArgument, "too many labels");
  for (const Label& label : state.labels) {
    if (label.key.empty() || label.key.size() > kLabelBytesMax || label.value.size() > kLabelBytesMax) {
      return fail(Code::kInvalidArgument, "a label's key or value is too long, or has no key");
    }
  }
  for (const Property& property : state.properties) {
    if (property.value.size() > kPropertyBytesMax) return fail(Code::kInvalidArgument, "a property is too long");
  }
  if (encoded_bytes(state) > kObjectBytesMax) return fail(Code::kInvalidArgument, "labels and properties are too long");
  return {};
}

Task<Result<Uuid>> PoolCore::create_replica(ReplicaOptions options) {
  const Mutex::Guard guard = co_await administration_.lock();
  ObjectState state = new_object(options);
  co_return co_await add_object(std::move(state), LayerId());
}

ObjectState PoolCore::new_object(const ReplicaOptions& options) {
  ObjectState state;
  state.id = options.id.is_nil() ? home().shard.random.uuid() : options.id;
  state.name = options.name;
  state.is_thick = options.is_thick;
  state.size_bytes = options.size_bytes;
  state.created_ms = home().shard.clock.wall_ms();
  state.volume_id = options.volume_id;
  state.labels = options.labels;
  std::ranges::sort(state.labels, {}, &Label::key);
  return state;
}

Task<Result<Uuid>> PoolCore::add_object(ObjectState state, LayerId parent) {
  FL_CO_TRY_VOID(check_new(state.name, state.id));
  FL_CO_TRY_VOID(check_state(state));
  if (state.is_thick) {
    const uint64_t kept = metadata_reserve() + reserved_extents();
    if (extent_count(state.size_bytes) + kept > allocator_.free()) {
      co_return fail(Code::kNoSpace, "the pool has no room for a thick replica of this size");
    }
  }
  FL_CO_TRY_VOID(check_room_for_object());
  state.layer = LayerId(next_layer_);
  std::vector<Record> records;
  records.emplace_back(LayerRecord{state.layer, parent});
  records.emplace_back(ObjectRecord{state});
  FL_CO_TRY_VOID(co_await write_durably(std::move(records)));
  co_return state.id;
}

// Writes under way end, those that come wait, and between the two the head becomes a layer that never changes again.
Task<Result<Uuid>> PoolCore::snapshot(std::string replica, SnapshotOptions options) {
  const Mutex::Guard guard = co_await administration_.lock();
  Object* const object = find_object(replica);
  if (object == nullptr) co_return fail(Code::kNotFound, "no replica of this name");
  if (object->state.kind != ObjectKind::kReplica) {
    co_return fail(Code::kInvalidArgument, "snapshots are taken of replicas; a clone of a snapshot is one");
  }
  ObjectState taken = object->state;
  taken.id = options.id.is_nil() ? home().shard.random.uuid() : options.id;
  taken.name = options.name;
  if (options.size_bytes > 0) taken.size_bytes = options.size_bytes;
  if (taken.size_bytes > object->state.size_bytes) {
    co_return fail(Code::kInvalidArgument, "a snapshot is not larger than its replica");
  }
  if (!options.properties.empty()) taken.properties = std::move(options.properties);
  taken.kind = ObjectKind::kSnapshot;
  taken.is_thick = false;
  taken.origin = object->state.id;
  taken.created_ms = home().shard.clock.wall_ms();
  FL_CO_TRY_VOID(check_new(taken.name, taken.id));
  FL_CO_TRY_VOID(check_state(taken));
  FL_CO_TRY_VOID(check_room_for_object());
  if (object->state.is_thick &&
      extent_count(object->state.size_bytes) + metadata_reserve() + reserved_extents() - reserved_extents(*object) >
          allocator_.free()) {
    co_return fail(Code::kNoSpace, "a thick replica needs room to be written anew after a snapshot");
  }
  ObjectState head = object->state;
  head.layer = LayerId(next_layer_);
  std::vector<Record> records;
  records.emplace_back(LayerRecord{head.layer, object->layer->id});
  records.emplace_back(ObjectRecord{std::move(head)});
  records.emplace_back(ObjectRecord{taken});
  co_await close_gates(*object);
  const Result<void> written = co_await journal_->write(std::move(records));
  co_await open_gates(*object);
  if (!written) co_return std::unexpected(written.error());
  FL_CO_TRY_VOID(co_await flush());
  co_return taken.id;
}

Task<void> PoolCore::close_gates(Object& object) {
  for (const std::shared_ptr<ObjectSide>& side : object.sides) {
    co_await call_on(reactor(), side->side.shard.reactor, close_gate_on(*side));
  }
}

Task<void> PoolCore::open_gates(Object& object) {
  for (const std::shared_ptr<ObjectSide>& side : object.sides) {
    co_await call_on(reactor(), side->side.shard.reactor, open_gate_on(*side));
  }
}

Task<Result<Uuid>> PoolCore::clone(std::string snapshot, ReplicaOptions options) {
  const Mutex::Guard guard = co_await administration_.lock();
  const Object* const object = find_object(snapshot);
  if (object == nullptr) co_return fail(Code::kNotFound, "no snapshot of this name");
  if (object->state.kind != ObjectKind::kSnapshot) {
    co_return fail(Code::kInvalidArgument, "clones are made of snapshots: take one of the replica first");
  }
  ObjectState state = new_object(options);
  if (state.size_bytes == 0) state.size_bytes = object->state.size_bytes;
  if (state.size_bytes < object->state.size_bytes) {
    co_return fail(Code::kInvalidArgument, "a clone is not smaller than its snapshot");
  }
  state.origin = object->state.id;
  co_return co_await add_object(std::move(state), object->layer->id);
}

Task<bool> PoolCore::is_open(Object& object) {
  uint32_t devices = 0;
  for (const std::shared_ptr<ObjectSide>& side : object.sides) {
    devices += co_await call_on(reactor(), side->side.shard.reactor, devices_on(*side));
  }
  co_return devices > 0;
}

Task<void> PoolCore::set_removed(Object& object, bool is_removed) {
  for (const std::shared_ptr<ObjectSide>& side : object.sides) {
    co_await call_on(reactor(), side->side.shard.reactor, set_removed_on(*side, is_removed));
  }
}

Task<Result<void>> PoolCore::remove(std::string name) {
  const Mutex::Guard guard = co_await administration_.lock();
  Object* const object = find_object(name);
  if (object == nullptr) co_return fail(Code::kNotFound, "no replica or snapshot of this name");
  co_await set_removed(*object, true);  // nobody opens it from here on
  if (co_await is_open(*object)) {
    co_await set_removed(*object, false);
    co_return fail(Code::kBusy, "it is served: stop that first");
  }
  std::vector<Record> records;
  records.emplace_back(ObjectRemoval{object->state.id});
  co_return co_await write_durably(std::move(records));
}

Task<Result<void>> PoolCore::resize(std::string replica, uint64_t size_bytes, Pool::Shrink shrink) {
  const Mutex::Guard guard = co_await administration_.lock();
  Object* const object = find_object(replica);
  if (object == nullptr) co_return fail(Code::kNotFound, "no replica of this name");
  if (object->state.kind != ObjectKind::kReplica) co_return fail(Code::kInvalidArgument, "a snapshot keeps its size");
  ObjectState state = object->state;
  state.size_bytes = size_bytes;
  FL_CO_TRY_VOID(check_state(state));
  if (size_bytes < object->state.size_bytes) {
    if (shrink == Pool::Shrink::kRefuse) {
      co_return fail(Code::kInvalidArgument, "smaller than it is: what lies beyond would be lost");
    }
    if (co_await is_open(*object)) co_return fail(Code::kBusy, "it is served: stop that before it shrinks");
    // Whole extents; the rest of the last one reads as zeroes should the replica grow again.
    const uint64_t end = extent_count(object->state.size_bytes) << layout_.extent_shift();
    FL_CO_TRY_VOID(co_await zero_range(*object, size_bytes, end, IoOp::kWriteZeroes));
  }
  const uint64_t more =
      extent_count(size_bytes) - std::min(extent_count(size_bytes), extent_count(object->state.size_bytes));
  if (state.is_thick && more + metadata_reserve() + reserved_extents() > allocator_.free()) {
    co_return fail(Code::kNoSpace, "the pool has no room for a thick replica of this size");
  }
  std::vector<Record> records;
  records.emplace_back(ObjectRecord{std::move(state)});
  FL_CO_TRY_VOID(co_await write_durably(std::move(records)));
  co_await update_sides(*object);
  co_return Result<void>();
}

// Shards see the size and the stamp of the object as it is by now.
Task<void> PoolCore::update_sides(Object& object) {
  if (object.sides.empty()) co_return;
  std::shared_ptr<View> view = object.view;
  const uint32_t leaves = leaf_count(object.state.size_bytes);
  ++views_changing_;  // pages that leave meanwhile stay in memory: shards may find them in the old view
  if (view->slots.size() != leaves) {
    object.view = std::make_shared<View>(leaves);
    for (size_t i = 0; i < std::min(view->slots.size(), object.view->slots.size()); ++i) {
      object.view->slots[i].store(view->slots[i].load(std::memory_order_relaxed), std::memory_order_release);
    }
  }
  for (const std::shared_ptr<ObjectSide>& side : object.sides) {
    co_await call_on(reactor(), side->side.shard.reactor,
                     update_on(*side, object.view, object.state.size_bytes, object.state.stamp));
  }
  --views_changing_;
  retired_views_.push_back(std::move(view));
}

Task<Result<void>> PoolCore::change(std::string name, Changes changes) {
  const Mutex::Guard guard = co_await administration_.lock();
  const Object* const object = find_object(name);
  if (object == nullptr) co_return fail(Code::kNotFound, "no replica or snapshot of this name");
  ObjectState state = object->state;
  merge_changes(state.labels, changes.labels);
  merge_changes(state.properties, changes.properties);
  if (changes.volume_id) state.volume_id = *changes.volume_id;
  FL_CO_TRY_VOID(check_state(state));
  if (encoded_bytes(state) > encoded_bytes(object->state) && !has_metadata_room()) {
    co_return fail(Code::kNoSpace, "the pool is full");
  }
  std::vector<Record> records;
  records.emplace_back(ObjectRecord{std::move(state)});
  co_return co_await write_durably(std::move(records));
}

Task<Result<std::shared_ptr<BlockSource>>> PoolCore::source(std::string name) {
  const Mutex::Guard guard = co_await administration_.lock();
  Object* const object = find_object(name);
  if (object == nullptr) co_return fail(Code::kNotFound, "no replica or snapshot of this name");
  if (object->sides.empty()) {
    object->view = std::make_shared<View>(leaf_count(object->state.size_bytes));
    for (const std::unique_ptr<ShardSide>& side : sides_) {
      auto made = std::make_shared<ObjectSide>(*side, object->view);
      made->size_bytes = object->state.size_bytes;
      made->stamp = object->state.stamp;
      made->is_read_only = object->state.kind == ObjectKind::kSnapshot;
      object->sides.push_back(std::move(made));
    }
  }
  co_return make_object_source(*this, *object);
}

Task<Result<void>> PoolCore::begin_generation(std::string replica, Stamp stamp) {
  const Mutex::Guard guard = co_await administration_.lock();
  Object* const object = find_object(replica);
  if (object == nullptr) co_return fail(Code::kNotFound, "no replica of this name");
  if (object->state.kind != ObjectKind::kReplica) co_return fail(Code::kInvalidArgument, "a snapshot is not written");
  if (const std::optional<Stamp> last = stamp_of(object->state.stamp); last && stamp <= *last) {
    co_return fail(Code::kInvalidArgument, "the generation is not newer than the last one");
  }
  ObjectState state = object->state;
  state.stamp = StampOrdinal(next_stamp_);
  std::vector<Record> records;
  records.emplace_back(StampRecord{state.stamp, state.id, stamp});
  records.emplace_back(ObjectRecord{std::move(state)});
  // Writes of the old generation end before the first of the new one begins.
  co_await close_gates(*object);
  const Result<void> outcome = co_await write_durably(std::move(records));
  co_await update_sides(*object);
  co_await open_gates(*object);
  co_return outcome;
}

std::optional<Stamp> PoolCore::stamp_of(StampOrdinal ordinal) const {
  const auto found = std::ranges::lower_bound(stamps_, ordinal, {}, &StampRecord::ordinal);
  if (found == stamps_.end() || ordinal.value == 0) return std::nullopt;
  return found->stamp;
}

std::optional<Stamp> PoolCore::generation(std::string_view name) const {
  const Object* const object = find_object(name);
  return object == nullptr ? std::nullopt : stamp_of(object->state.stamp);
}

}  // namespace fairlead::pool
