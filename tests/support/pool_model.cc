#include "tests/support/pool_model.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/check.h"

namespace fairlead::test {

using pool::ObjectInfo;
using pool::ObjectKind;
using pool::Stamp;

ObjectFacts facts_of(const pool::ObjectState& state) {
  ObjectFacts facts{.id = state.id,
                    .kind = state.kind,
                    .is_thick = state.is_thick,
                    .size_bytes = state.size_bytes,
                    .origin = state.origin,
                    .volume_id = state.volume_id,
                    .labels = {},
                    .properties = {}};
  for (const pool::Label& label : state.labels) facts.labels[label.key] = label.value;
  for (const pool::Property& property : state.properties) facts.properties[property.key] = property.value;
  return facts;
}

std::string to_string(const ObjectFacts& facts) {
  std::string text = fmt::format("{} {} {} bytes{} origin {} volume {}", fairlead::to_string(facts.id),
                                 facts.kind == ObjectKind::kReplica ? "replica" : "snapshot", facts.size_bytes,
                                 facts.is_thick ? " thick" : "", fairlead::to_string(facts.origin),
                                 fairlead::to_string(facts.volume_id));
  for (const auto& [key, value] : facts.labels) text += fmt::format(" {}={}", key, value);
  for (const auto& [key, value] : facts.properties) text += fmt::format(" {}:{} bytes", key, value.size());
  return text;
}

ObjectFacts changed(ObjectFacts facts, const pool::Changes& changes) {
  for (const pool::Label& label : changes.labels) {
    facts.labels[label.key] = label.value;
    if (label.value.empty()) facts.labels.erase(label.key);
  }
  for (const pool::Property& property : changes.properties) {
    facts.properties[property.key] = property.value;
    if (property.value.empty()) facts.properties.erase(property.key);
  }
  if (changes.volume_id) facts.volume_id = *changes.volume_id;
  return facts;
}

// ---- Bytes

ModelWrite PoolModel::begin_write(const ObjectRef& object, BlockRange range, Bytes bytes) {
  ModelWrite write{.object = object, .range = range, .id = next_id_++, .epoch = epoch_, .stamp = {}};
  if (bytes == Bytes::kData) write.stamp = object->stamp;
  object->history.begin_write(range, bytes == Bytes::kData ? write.id : kZeroContent, write.id);
  if (bytes == Bytes::kData) origins_[write.id] = {object->layer};
  Layer& layer = layers_[merged(object->layer)];
  for (uint64_t extent = extent_of(range.first); extent <= extent_of(range.end() - 1); ++extent) {
    layer.touched.insert(extent);
  }
  if (object->recent.size() > 256) {
    std::erase_if(object->recent, [&](const auto& entry) { return entry.second.ended < clock_.oldest_read(); });
  }
  object->recent[write.id] = {range};
  return write;
}

void PoolModel::end_write(const ModelWrite& write) {
  const auto at = write.object->recent.find(write.id);
  if (at != write.object->recent.end()) at->second.ended = clock_.now();
}

void PoolModel::fill(const ModelWrite& write, std::span<std::byte> bytes) const {
  for (uint64_t i = 0; i < write.range.count; ++i) {
    fill_block(bytes.subspan(i * block_bytes_, block_bytes_), write.range.first + i, write.id);
  }
}

void PoolModel::write_done(const ModelWrite& write, BlockHistory::Surely surely, Durable durable) {
  if (write.epoch != epoch_) return;
  write.object->history.write_done(write.range, write.id, surely, durable == Durable::kYes);
  end_write(write);
  if (!write.stamp) return;
  raise_stamps(*write.object, extent_of(write.range.first), extent_of(write.range.end() - 1), *write.stamp);
}

void PoolModel::raise_stamps(ModelObject& object, uint64_t first_extent, uint64_t last_extent, const Stamp& stamp) {
  for (uint64_t extent = first_extent; extent <= last_extent && extent < extents_of(object.facts.size_bytes);
       ++extent) {
    object.stamps[extent] = std::max(object.stamps[extent], stamp);
  }
}

ModelStamping PoolModel::begin_stamping(const ObjectRef& object, pool::ByteRange range) {
  Layer& layer = layers_[merged(object->layer)];
  for (uint64_t at = range.begin / extent_bytes_; at * extent_bytes_ < range.end; ++at) layer.stamped.insert(at);
  return {.object = object, .range = range, .stamp = object->stamp, .epoch = epoch_};
}

void PoolModel::stamping_done(const ModelStamping& stamping) {
  if (stamping.epoch != epoch_ || !stamping.stamp || stamping.range.begin >= stamping.range.end) return;
  raise_stamps(*stamping.object, stamping.range.begin / extent_bytes_, (stamping.range.end - 1) / extent_bytes_,
               *stamping.stamp);
}

void PoolModel::write_failed(const ModelWrite& write) {
  if (write.epoch != epoch_) return;
  write.object->history.write_failed(write.range, write.id);
  end_write(write);
}

void PoolModel::check_read(const ModelObject& object, uint64_t epoch, uint64_t began, BlockRange range,
                           std::span<const std::byte> bytes) {
  if (epoch != epoch_) return;
  clock_.end_read(began);
  const std::string wrong = const_cast<ModelObject&>(object).history.check_read(began, range, bytes, block_bytes_);
  if (!wrong.empty()) fail(fmt::format("{}: {}", object.name, wrong));
}

void PoolModel::all_flushed(uint64_t epoch, uint64_t began) {
  if (epoch != epoch_) return;
  for (const auto& [name, object] : objects_) object->history.flushed(began);
}

// ---- Objects

ModelChange PoolModel::begin(std::string name, std::optional<ObjectFacts> before, std::optional<ObjectFacts> after) {
  ModelChange change;
  change.number = next_change_++;
  change.name = std::move(name);
  change.before = std::move(before);
  change.after = std::move(after);
  return change;
}

ModelChange PoolModel::begin_create(std::string name, ObjectFacts facts) {
  ModelChange change = begin(std::move(name), std::nullopt, std::move(facts));
  under_way_[change.number] = change;
  return change;
}

ModelChange PoolModel::begin_snapshot(const ObjectRef& replica, std::string name) {
  ObjectFacts facts = replica->facts;
  facts.id = {};
  facts.kind = ObjectKind::kSnapshot;
  facts.is_thick = false;
  facts.origin = replica->facts.id;
  ModelChange change = begin(std::move(name), std::nullopt, std::move(facts));
  change.from = replica;
  change.began = clock_.begin_read();
  under_way_[change.number] = change;
  return change;
}

ModelChange PoolModel::begin_clone(const ObjectRef& snapshot, std::string name, ObjectFacts facts) {
  ModelChange change = begin(std::move(name), std::nullopt, std::move(facts));
  change.from = snapshot;
  under_way_[change.number] = change;
  return change;
}

ModelChange PoolModel::begin_change(const ObjectRef& object, ObjectFacts after) {
  // What is cut off may be gone as soon as that begins.
  object->stamps.erase(object->stamps.lower_bound(after.size_bytes / extent_bytes_), object->stamps.end());
  ModelChange change = begin(object->name, object->facts, std::move(after));
  under_way_[change.number] = change;
  return change;
}

ModelChange PoolModel::begin_remove(const ObjectRef& object) {
  ModelChange change = begin(object->name, object->facts, std::nullopt);
  under_way_[change.number] = change;
  return change;
}

ModelChange PoolModel::begin_generation(const ObjectRef& object, Stamp stamp) {
  ModelChange change = begin(object->name, object->facts, object->facts);
  change.stamp = stamp;
  under_way_[change.number] = change;
  return change;
}

size_t PoolModel::add_layer(std::optional<size_t> parent, const ObjectFacts& facts) {
  Layer layer;
  layer.parent = parent;
  layer.is_thick = facts.is_thick;
  layer.extents = extents_of(facts.size_bytes);
  layers_.push_back(layer);
  return layers_.size() - 1;
}

void PoolModel::apply(const ModelChange& change) {
  if (!change.after) {
    const auto at = objects_.find(change.name);
    FL_CHECK(at != objects_.end());
    layers_[at->second->layer].has_object = false;
    objects_.erase(at);
    return;
  }
  const ObjectFacts& after = *change.after;
  if (change.before) {
    ModelObject& object = *objects_.at(change.name);
    object.facts = after;
    object.history.resize(blocks_of(after.size_bytes));
    layers_[object.layer].extents = std::max(layers_[object.layer].extents, extents_of(after.size_bytes));
    if (change.stamp) object.stamp = change.stamp;
    return;
  }
  auto object = std::make_shared<ModelObject>(clock_, blocks_of(after.size_bytes));
  object->name = change.name;
  object->facts = after;
  if (after.kind == ObjectKind::kSnapshot) {
    take_snapshot(change, *object);
  } else if (change.from) {
    object->history = change.from->history;
    object->history.resize(blocks_of(after.size_bytes));
    object->layer = add_layer(change.from->layer, after);
  } else {
    object->layer = add_layer(std::nullopt, after);
  }
  objects_[change.name] = std::move(object);
}

// The replica goes on in a layer of its own.
void PoolModel::take_snapshot(const ModelChange& change, ModelObject& snapshot) {
  ModelObject& replica = *change.from;
  snapshot.history = replica.history.frozen(change.began);
  snapshot.layer = replica.layer;
  snapshot.stamp = replica.stamp;
  replica.layer = add_layer(snapshot.layer, replica.facts);
  replica.history.flushed(change.began);
  // Writes beside it may be in the old layer or in the new one.
  for (const auto& [id, recent] : replica.recent) {
    if (recent.ended < change.began) continue;
    if (const auto origin = origins_.find(id); origin != origins_.end()) origin->second.is_layer_sure = false;
    for (uint64_t extent = extent_of(recent.range.first); extent <= extent_of(recent.range.end() - 1); ++extent) {
      layers_[replica.layer].touched.insert(extent);
    }
  }
}

void PoolModel::end_change(const ModelChange& change) {
  if (change.began != 0) clock_.end_read(change.began);
  under_way_.erase(change.number);
}

void PoolModel::done(ModelChange& change, uint64_t epoch, Uuid id) {
  if (epoch != epoch_) return;
  if (!id.is_nil() && change.after) change.after->id = id;
  apply(change);
  end_change(change);
}

void PoolModel::failed(const ModelChange& change, uint64_t epoch) {
  if (epoch == epoch_) end_change(change);
}

// ---- Lives

void PoolModel::crashed(bool is_power_lost) {
  ++epoch_;
  for (const auto& [number, change] : under_way_) {
    // Writes that were under way may be in a snapshot that was.
    if (change.began != 0) caught_.emplace(number, change.from->history.frozen(change.began));
  }
  clock_.forget_readers();
  for (const auto& [name, object] : objects_) {
    if (is_power_lost) {
      object->history.power_lost();
    } else {
      object->history.process_killed();
    }
    for (auto& [id, recent] : object->recent) recent.ended = std::min(recent.ended, clock_.now());
    object->users = 0;
    object->is_busy = object->is_closing = false;
  }
}

void PoolModel::decide(const ModelChange& change, const std::map<std::string, ObjectFacts>& actual,
                       const pool::Pool& pool) {
  const auto at = actual.find(change.name);
  const std::optional<ObjectFacts> found = at == actual.end() ? std::nullopt : std::optional(at->second);
  if (change.stamp) {
    const std::optional<Stamp> stamp = found ? pool.generation(change.name) : std::nullopt;
    if (stamp == change.stamp) apply(change);
    return;
  }
  std::optional<ObjectFacts> after = change.after;
  if (after && after->id.is_nil() && found) after->id = found->id;
  if (found == change.before && found != after) return;
  if (found != after) {
    return fail(fmt::format("{}: neither as before nor as after what a crash cut off: {}", change.name,
                            found ? to_string(*found) : "not there"));
  }
  ModelChange decided = change;
  decided.after = after;
  const bool is_new = !change.before && change.after;
  apply(decided);
  if (const auto caught = caught_.find(change.number); is_new && caught != caught_.end()) {
    objects_.at(change.name)->history = caught->second;
  }
}

void PoolModel::imported(const std::vector<ObjectInfo>& list, const pool::Pool& pool) {
  std::map<std::string, ObjectFacts> actual;
  for (const ObjectInfo& info : list) actual[info.state.name] = facts_of(info.state);
  for (const auto& [number, change] : under_way_) decide(change, actual, pool);
  under_way_.clear();
  caught_.clear();
  for (const ObjectInfo& info : list) {
    const auto at = objects_.find(info.state.name);
    if (at == objects_.end()) return fail(fmt::format("{} is there and should not be", info.state.name));
    compare(*at->second, info);
    if (at->second->facts.kind == ObjectKind::kReplica && pool.generation(info.state.name) != at->second->stamp) {
      fail(fmt::format("{}: another generation than was begun", info.state.name));
    }
  }
  for (const auto& [name, object] : objects_) {
    if (!actual.contains(name)) fail(fmt::format("{} is not there any more", name));
  }
}

void PoolModel::compare(const ModelObject& object, const ObjectInfo& info) {
  const ObjectFacts facts = facts_of(info.state);
  if (facts != object.facts) {
    fail(fmt::format("{}: is {}, should be {}", object.name, to_string(facts), to_string(object.facts)));
  }
}

// ---- Queries

std::set<uint64_t> PoolModel::stamped_since(const ModelObject& object, const Stamp& stamp) const {
  std::set<uint64_t> extents;
  for (const auto& [extent, newest] : object.stamps) {
    if (newest > stamp) extents.insert(extent);
  }
  return extents;
}

std::set<uint64_t> PoolModel::touched_or_stamped(const ModelObject& object) const {
  std::set<uint64_t> extents = touched(object);
  for (std::optional<size_t> at = object.layer; at; at = layers_[*at].parent) {
    const std::set<uint64_t>& more = layers_[merged(*at)].stamped;
    extents.insert(more.begin(), more.end());
  }
  return extents;
}

std::set<uint64_t> PoolModel::touched(const ModelObject& object) const {
  std::set<uint64_t> extents;
  for (std::optional<size_t> at = object.layer; at; at = layers_[*at].parent) {
    const std::set<uint64_t>& more = layers_[merged(*at)].touched;
    extents.insert(more.begin(), more.end());
  }
  return extents;
}

std::set<uint64_t> PoolModel::touched_between(const ModelObject& older, const ModelObject& newer) const {
  std::set<uint64_t> extents;
  for (std::optional<size_t> at = newer.layer; at && merged(*at) != older.layer; at = layers_[*at].parent) {
    const std::set<uint64_t>& more = layers_[merged(*at)].touched;
    extents.insert(more.begin(), more.end());
  }
  // What was cut off, or added, differs as well.
  const uint64_t low = std::min(older.facts.size_bytes, newer.facts.size_bytes) / extent_bytes_;
  const uint64_t high = extents_of(std::max(older.facts.size_bytes, newer.facts.size_bytes));
  for (uint64_t extent = low; extent < high && older.facts.size_bytes != newer.facts.size_bytes; ++extent) {
    extents.insert(extent);
  }
  return extents;
}

std::set<uint64_t> PoolModel::differing(const ModelObject& older, const ModelObject& newer) const {
  std::set<uint64_t> extents;
  const uint64_t blocks = std::min(older.history.blocks(), newer.history.blocks());
  for (uint64_t i = 0; i < blocks; ++i) {
    const std::optional<Content> one = older.history.certain(i);
    const std::optional<Content> other = newer.history.certain(i);
    if (one && other && one != other) extents.insert(extent_of(i));
  }
  return extents;
}

std::set<uint64_t> PoolModel::filled(const ModelObject& object) const {
  std::set<uint64_t> extents;
  for (uint64_t i = 0; i < object.history.blocks(); ++i) {
    if (const std::optional<Content> content = object.history.certain(i); content && *content != kZeroContent) {
      extents.insert(extent_of(i));
    }
  }
  return extents;
}

bool PoolModel::descends(const ModelObject& newer, const ModelObject& snapshot) const {
  if (newer.layer == snapshot.layer) return false;
  for (std::optional<size_t> at = newer.layer; at; at = layers_[*at].parent) {
    if (*at == snapshot.layer) return true;
  }
  return false;
}

bool PoolModel::is_alone(const ModelObject& object) const {
  if (layers_[object.layer].parent) return false;
  return std::ranges::none_of(layers_, [&](const Layer& layer) { return layer.parent == object.layer; });
}

// ---- Room

size_t PoolModel::merged(size_t layer) const {
  while (layers_[layer].merged_into) layer = *layers_[layer].merged_into;
  return layer;
}

// A layer that no object needs goes into its only child, or away.
void PoolModel::settle_layers() {
  bool is_changed = true;
  while (is_changed) {
    is_changed = false;
    for (size_t i = 0; i < layers_.size(); ++i) {
      Layer& layer = layers_[i];
      if (layer.has_object || layer.is_gone) continue;
      std::vector<size_t> children;
      for (size_t j = 0; j < layers_.size(); ++j) {
        if (!layers_[j].is_gone && layers_[j].parent == i) children.push_back(j);
      }
      if (children.size() > 1) continue;
      layer.is_gone = is_changed = true;
      if (children.empty()) continue;
      Layer& child = layers_[children.front()];
      child.touched.insert(layer.touched.begin(), layer.touched.end());
      child.stamped.insert(layer.stamped.begin(), layer.stamped.end());
      child.extents = std::max(child.extents, layer.extents);
      child.is_thick = child.is_thick || layer.is_thick;
      child.parent = layer.parent;
      layer.merged_into = children.front();
    }
  }
}

PoolModel::Room PoolModel::room() {
  settle_layers();
  Room room;
  for (const Layer& layer : layers_) {
    if (!layer.is_gone) room.most += layer.is_thick ? layer.extents : layer.touched.size();
  }
  // What some object sees of a layer stands in an extent of that layer.
  std::set<std::pair<size_t, uint64_t>> seen;
  for (const auto& [name, object] : objects_) {
    for (uint64_t i = 0; i < object->history.blocks(); ++i) {
      const std::optional<Content> content = object->history.certain(i);
      if (!content || *content == kZeroContent) continue;
      const Origin& origin = origins_.at(*content);
      if (origin.is_layer_sure) seen.emplace(merged(origin.layer), extent_of(i));
    }
  }
  room.least = seen.size();
  return room;
}

}  // namespace fairlead::test
