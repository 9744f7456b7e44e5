// The state, and apply(): the one place where it changes.
#include "pool/core.h"

#include <algorithm>

#include "base/log.h"

namespace fairlead::pool {
namespace {

// Ordinals that are kept of one object's generations. Beyond it every second of the older half goes: extents stamped
// with such a one then count as newer than they are, which costs a copy and loses nothing.
constexpr size_t kStampsMax = 4096;

}  // namespace

PoolCore::PoolCore(std::vector<std::unique_ptr<ShardSide>> sides, Superblock superblock,
                   std::vector<SuperblockPlaces> places, ImportOptions options)
    : options_(options),
      sides_(std::move(sides)),
      superblock_(std::move(superblock)),
      superblock_places_(std::move(places)),
      layout_(superblock_),
      allocator_(layout_),
      pages_(allocator_, layout_.pages_per_extent()),
      locks_(reactor(), &allocator_),
      administration_(reactor()),
      checkpointing_(reactor()),
      releasing_lock_(reactor()),
      scope_(reactor()),
      checkpointer_(reactor()),
      checkpoint_wanted_(reactor()),
      reclaim_wanted_(reactor()),
      reclaim_progress_(reactor()),
      sync_wanted_(reactor()) {}

PoolCore::~PoolCore() {
  while (!cache_order_.empty()) cache_order_.pop_front();
}

Layer* PoolCore::find_layer(LayerId id) {
  const auto found = layers_.find(id.value);
  return found == layers_.end() ? nullptr : found->second.get();
}

Layer* PoolCore::find_layer_or_dying(LayerId id) {
  const auto dying = std::ranges::find_if(dying_, [&](const auto& layer) { return layer->id == id; });
  return dying == dying_.end() ? find_layer(id) : dying->get();
}

Layer& PoolCore::layer(LayerId id) {
  Layer* const found = find_layer(id);
  FL_CHECK(found != nullptr);
  return *found;
}

Object* PoolCore::find_object(std::string_view name) const {
  const auto by_name =
      std::ranges::find_if(objects_, [&](const auto& each) { return each.second->state.name == name; });
  if (by_name != objects_.end()) return by_name->second.get();
  const Result<Uuid> id = parse_uuid(name);
  if (!id) return nullptr;
  const auto by_id = objects_.find(*id);
  return by_id == objects_.end() ? nullptr : by_id->second.get();
}

uint32_t PoolCore::leaf_count(uint64_t size_bytes) const {
  return static_cast<uint32_t>((extent_count(size_bytes) + kEntriesPerPage - 1) / kEntriesPerPage);
}

void PoolCore::apply(Sequence sequence, std::span<const Record> records) {
  applying_ = sequence;
  for (const Record& record : records) {
    std::visit([&](const auto& each) { apply_record(each); }, record);
  }
  if (is_replaying_) return;
  std::ranges::sort(gained_);
  for (const Place place : given_up_) {
    if (!std::ranges::binary_search(gained_, place)) freed_.push_back({place, sequence});
  }
  given_up_.clear();
  gained_.clear();
  if (!freed_.empty()) reclaim_wanted_.set();
  durable_.store(journal_->durable().value, std::memory_order_release);
  if (journal_->is_dirty()) {
    is_dirty_.store(true, std::memory_order_release);
    sync_wanted_.set();
  }
}

void PoolCore::apply_record(const EntryRecord& record) {
  const auto leaf = static_cast<uint32_t>(record.extent.value / kEntriesPerPage);
  MapPage* const page = find_page(record.layer, leaf);
  FL_CHECK(page != nullptr);
  Layer& changed = layer(record.layer);
  set_entry(changed, *page, record.extent.value % kEntriesPerPage, record.entry);
  if (changed.children > 0) ancestors_changed(changed, leaf);  // the reclaimer is at work
}

void PoolCore::apply_record(const RestampRecord& record) {
  const auto leaf = static_cast<uint32_t>(record.first.value / kEntriesPerPage);
  MapPage* const page = find_page(record.layer, leaf);
  FL_CHECK(page != nullptr);
  for (uint32_t i = 0; i < record.count; ++i) {
    const size_t index = (record.first.value + i) % kEntriesPerPage;
    Entry entry = page->own(index);
    if (entry.is_absent()) continue;
    entry.stamp = record.ordinal;
    set_entry(layer(record.layer), *page, index, entry);
  }
}

void PoolCore::about_to_change(MapPage& page) {
  if (page.is_being_checkpointed && page.checkpointed == nullptr) {
    page.checkpointed = std::make_unique<MapBytes>();
    page.encode(*page.checkpointed);
  }
  page.is_dirty = true;
}

void PoolCore::set_entry(Layer& layer, MapPage& page, size_t index, const Entry& entry) {
  about_to_change(page);
  const ShownEntry shown = page.load(index);
  cache_bytes_ -= page.memory_bytes();
  if (shown.is_borrowed && (shown.entry.held - entry.held).any()) {
    // What was borrowed is still where the units are that the layer does not have itself.
    const LowerParts* const known = page.lower(index);
    auto parts = known == nullptr ? std::make_unique<LowerParts>() : std::make_unique<LowerParts>(*known);
    if (shown.entry.place.value != 0) parts->insert(parts->begin(), {shown.entry.place, shown.entry.held});
    retire(page.set_lower(index, std::move(parts)));
  }
  const Entry before_it = shown.is_borrowed ? Entry() : shown.entry;
  const Place before = before_it.place;
  if (entry.stamp.value != 0 && entry.stamp != before_it.stamp && !is_replaying_) {
    page.stamps.add(index, applying_, journal_->durable());
    if (const Object* const object = layer.object; object != nullptr && object->state.stamp == entry.stamp) {
      page.enter_generation(entry.stamp, object->stamp_before);
    }
  }
  retire(page.store_own(index, entry));
  cache_bytes_ += page.memory_bytes();
  if (before == entry.place) {
    if (layer.find(page.leaf) == nullptr) {
      layer.find_or_add(page.leaf);
      ++leaves_;
    }
    return;
  }
  const size_t leaves = layer.leaves.size();
  LeafRef& ref = layer.find_or_add(page.leaf);
  leaves_ += layer.leaves.size() - leaves;
  const uint32_t lost = before.value != 0 ? 1 : 0;
  const uint32_t gained = entry.place.value != 0 ? 1 : 0;
  ref.places += gained - lost;
  layer.places += gained;
  layer.places -= lost;
  mapped_ += gained;
  mapped_ -= lost;
  if (is_replaying_) return;
  if (before.value != 0) given_up_.push_back(before);
  if (entry.place.value != 0) gained_.push_back(entry.place);
}

void PoolCore::apply_record(const LayerRecord& record) {
  std::unique_ptr<Layer>& slot = layers_[record.layer.value];
  if (slot == nullptr) {
    slot = std::make_unique<Layer>();
    slot->id = record.layer;
  } else if (slot->parent != nullptr) {
    --slot->parent->children;
  }
  slot->parent = find_layer(record.parent);
  if (slot->parent != nullptr) ++slot->parent->children;
  next_layer_ = std::max(next_layer_, record.layer.value + 1);
  ++map_version_;
}

void PoolCore::apply_record(const LayerRemoval& record) {
  const auto found = layers_.find(record.layer.value);
  std::unique_ptr<Layer> layer = std::move(found->second);
  FL_CHECK(layer->children == 0 && layer->object == nullptr);
  layers_.erase(found);
  if (layer->parent != nullptr) --layer->parent->children;
  layer->parent = nullptr;
  ++map_version_;
  if (!is_replaying_) {
    dying_.push_back(std::move(layer));
    reclaim_wanted_.set();
    return;
  }
  drop_pages(*layer);
  mapped_ -= layer->places;
  leaves_ -= layer->leaves.size();
  for (const LeafRef& ref : layer->leaves) {
    if (ref.address != kNoAddress) unused_pages_.push_back(ref.address);
  }
}

void PoolCore::apply_record(const ObjectRecord& record) {
  std::unique_ptr<Object>& slot = objects_[record.object.id];
  if (slot == nullptr) slot = std::make_unique<Object>();
  Object& object = *slot;
  thick_objects_ += (record.object.is_thick ? 1 : 0) - (object.state.is_thick ? 1 : 0);
  object_bytes_ += encoded_bytes(record.object) - (object.layer == nullptr ? 0 : encoded_bytes(object.state));
  if (object.state.stamp != record.object.stamp) object.stamp_before = object.state.stamp;
  object.state = record.object;
  Layer& layer = this->layer(record.object.layer);
  if (object.layer == &layer) return;
  if (object.layer != nullptr && object.layer->object == &object) object.layer->object = nullptr;
  object.layer = &layer;
  layer.object = &object;
  // Readers who have a page of the old layer go on with it: its bytes are the same. Writers are held back meanwhile.
  if (object.view == nullptr) return;
  for (std::atomic<MapPage*>& page : object.view->slots) page.store(nullptr, std::memory_order_release);
}

void PoolCore::apply_record(const ObjectRemoval& record) {
  const auto found = objects_.find(record.id);
  if (found->second->state.is_thick) --thick_objects_;
  object_bytes_ -= encoded_bytes(found->second->state);
  if (found->second->layer->object == found->second.get()) found->second->layer->object = nullptr;
  objects_.erase(found);
  if (!is_replaying_) reclaim_wanted_.set();
}

void PoolCore::apply_record(const StampRecord& record) { put_stamp(record); }

void PoolCore::put_stamp(const StampRecord& record) {
  stamps_.push_back(record);
  next_stamp_ = std::max(next_stamp_, record.ordinal.value + 1);
  const auto of_object =
      std::ranges::count_if(stamps_, [&](const StampRecord& each) { return each.object == record.object; });
  if (static_cast<size_t>(of_object) > kStampsMax) compact_stamps(record.object);
}

void PoolCore::compact_stamps(const Uuid& object) {
  size_t seen = 0;
  const auto is_current = [&](StampOrdinal ordinal) {
    return std::ranges::any_of(objects_, [&](const auto& each) { return each.second->state.stamp == ordinal; });
  };
  std::erase_if(stamps_, [&](const StampRecord& each) {
    if (each.object != object || is_current(each.ordinal)) return false;
    ++seen;
    return seen <= kStampsMax / 2 && seen % 2 == 1;
  });
}

void PoolCore::retire(MapPage::Replaced replaced) {
  if (replaced.units != nullptr || replaced.lower != nullptr) retired_parts_.push_back(std::move(replaced));
}

void PoolCore::retire(std::unique_ptr<MapPage> page) {
  retired_pages_.push_back(std::move(page));
  reclaim_wanted_.set();
}

Task<Result<void>> PoolCore::flush_disks() {
  // By index: a disk may be added meanwhile.
  for (size_t i = 0; i < home().disks.size(); ++i) {
    FL_CO_TRY_VOID(co_await block_flush(reactor(), *home().disks[i]));
  }
  co_return Result<void>();
}

}  // namespace fairlead::pool
