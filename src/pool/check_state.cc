#include "pool/check_state.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/endian.h"

namespace fairlead::pool {
namespace {

const char* kind_name(ObjectKind kind) { return kind == ObjectKind::kSnapshot ? "snapshot" : "replica"; }

}  // namespace

void FindingList::add(Severity severity, std::string text) {
  if (report_.findings.size() == kFindingsMax) {
    ++report_.findings_left_out;
    return;
  }
  report_.findings.push_back({severity, std::move(text)});
}

// ---- What is read

void CheckedState::load(const Directory& directory) {
  for (const LayerState& layer : directory.layers) layers_[layer.id].parent = layer.parent;
  for (const ObjectState& object : directory.objects) objects_.emplace(object.id, object);
  for (const StampRecord& stamp : directory.stamps) stamps_.emplace(stamp.ordinal, stamp);
  page_extents_ = directory.page_extents;
  next_stamp_ = directory.next_stamp;
}

void CheckedState::load_page(LayerId layer, const LeafRef& leaf, const MapBytes& page) {
  auto entries = std::make_unique<MapEntries>();
  decode_map(page, *entries);
  const auto places = std::ranges::count_if(*entries, [](const Entry& entry) { return entry.place.value != 0; });
  if (places != leaf.places) {
    findings_.oddity("the directory says that page {} of the map of {} has {} places, and it has {}", leaf.leaf,
                     name_of(layer), leaf.places, places);
  }
  layers_[layer].leaves[leaf.leaf] = std::move(entries);
}

void CheckedState::apply(Sequence batch, const Record& record) {
  std::visit([&](const auto& one) { apply_one(batch, one); }, record);
}

// Import refuses a journal with a record that does not fit what was before it, so each of these is damage.

void CheckedState::apply_one(Sequence batch, const EntryRecord& record) {
  const auto layer = layers_.find(record.layer);
  if (layer == layers_.end()) {
    findings_.damage("batch {} of the journal writes to layer {}, which is not there", batch.value, record.layer.value);
    return;
  }
  auto& entries = layer->second.leaves[record.extent.value / kEntriesPerPage];
  if (entries == nullptr) entries = std::make_unique<Entries>();
  (*entries)[record.extent.value % kEntriesPerPage] = record.entry;
}

void CheckedState::apply_one(Sequence batch, const LayerRecord& record) {
  if (record.parent.value != 0 && !layers_.contains(record.parent)) {
    findings_.damage("batch {} of the journal derives layer {} from layer {}, which is not there", batch.value,
                     record.layer.value, record.parent.value);
  }
  layers_[record.layer].parent = record.parent;
}

void CheckedState::apply_one(Sequence batch, const LayerRemoval& record) {
  if (layers_.erase(record.layer) == 0) {
    findings_.damage("batch {} of the journal removes layer {}, which is not there", batch.value, record.layer.value);
  }
}

void CheckedState::apply_one(Sequence batch, const ObjectRecord& record) {
  if (!layers_.contains(record.object.layer)) {
    findings_.damage("batch {} of the journal gives {} layer {}, which is not there", batch.value, record.object.name,
                     record.object.layer.value);
  }
  objects_.insert_or_assign(record.object.id, record.object);
}

void CheckedState::apply_one(Sequence batch, const ObjectRemoval& record) {
  if (objects_.erase(record.id) == 0) {
    findings_.damage("batch {} of the journal removes object {}, which is not there", batch.value,
                     to_string(record.id));
  }
}

void CheckedState::apply_one(Sequence batch, const StampRecord& record) {
  if (record.ordinal.value < next_stamp_) {
    findings_.damage("batch {} of the journal says anew what stamp {} is", batch.value, record.ordinal.value);
  } else {
    next_stamp_ = record.ordinal.value + 1;
  }
  stamps_.insert_or_assign(record.ordinal, record);
}

void CheckedState::apply_one(Sequence batch, const RestampRecord& record) {
  const auto layer = layers_.find(record.layer);
  if (layer == layers_.end()) {
    findings_.damage("batch {} of the journal stamps layer {}, which is not there", batch.value, record.layer.value);
    return;
  }
  const uint64_t end = uint64_t{record.first.value} + record.count;
  auto& leaves = layer->second.leaves;
  for (auto leaf = leaves.lower_bound(record.first.value / kEntriesPerPage); leaf != leaves.end(); ++leaf) {
    const uint64_t begin = uint64_t{leaf->first} * kEntriesPerPage;
    if (begin >= end) break;
    for (size_t i = 0; i < kEntriesPerPage; ++i) {
      Entry& entry = (*leaf->second)[i];
      if (begin + i >= record.first.value && begin + i < end && !entry.is_absent()) entry.stamp = record.ordinal;
    }
  }
}

// ---- What must hold

void CheckedState::verify(CheckReport& report) {
  for (const auto& [id, object] : objects_) {
    const auto [other, is_new] = object_by_layer_.emplace(object.layer, id);
    if (!is_new) {
      findings_.damage("{} {} and {} {} have the same map, layer {}", kind_name(objects_[other->second].kind),
                       objects_[other->second].name, kind_name(object.kind), object.name, object.layer.value);
    }
  }
  verify_tree();
  verify_objects();
  verify_entries(report);
  verify_owners(report.extents);
  for (const auto& [id, object] : objects_) report.objects.push_back(object);
  for (const auto& [ordinal, stamp] : stamps_) report.stamps.push_back(stamp);
}

void CheckedState::verify_tree() {
  std::set<LayerId> safe;  // their ancestors end at a root
  for (const auto& [id, layer] : layers_) {
    std::set<LayerId> walked;
    LayerId at = id;
    while (at.value != 0 && !safe.contains(at)) {
      if (!walked.insert(at).second) {
        findings_.damage("{} has itself as an ancestor", name_of(at));
        break;
      }
      const auto found = layers_.find(at);
      if (found == layers_.end()) {
        findings_.damage("layer {}, from which {} descends, is not there", at.value, name_of(id));
        break;
      }
      at = found->second.parent;
    }
    safe.merge(walked);
    const ObjectState* const parent = object_of(layer.parent);
    if (parent != nullptr && parent->kind == ObjectKind::kReplica) {
      findings_.damage("{} descends from replica {}, which goes on changing", name_of(id), parent->name);
    }
  }
}

void CheckedState::verify_objects() {
  std::set<std::string_view> names;
  for (const auto& [id, object] : objects_) {
    if (!names.insert(object.name).second) findings_.damage("two objects have the name {}", object.name);
    verify_object(object);
  }
}

void CheckedState::verify_object(const ObjectState& object) {
  const std::string name = fmt::format("{} {}", kind_name(object.kind), object.name);
  if (!layers_.contains(object.layer))
    findings_.damage("{} has no map: layer {} is not there", name, object.layer.value);
  if (object.stamp.value != 0 && !stamps_.contains(object.stamp)) {
    findings_.damage("{} is written under stamp {}, and nothing says what that is", name, object.stamp.value);
  }
  if (object.size_bytes % superblock_.logical_block != 0) {
    findings_.oddity("the size of {}, {} B, is no multiple of the pool's logical block, {} B", name, object.size_bytes,
                     superblock_.logical_block);
  }
}

void CheckedState::verify_entries(CheckReport& report) {
  for (const auto& [id, layer] : layers_) {
    CheckedLayer checked{.id = id, .parent = layer.parent, .extents = 0, .entries = 0, .object = {}};
    const ObjectState* const object = object_of(id);
    if (object != nullptr) checked.object = object->id;
    for (const auto& [leaf, entries] : layer.leaves) verify_leaf(checked, object, leaf, *entries);
    report.layers.push_back(std::move(checked));
  }
}

void CheckedState::verify_leaf(CheckedLayer& layer, const ObjectState* object, uint32_t leaf, const Entries& entries) {
  const uint64_t extents_end =
      object == nullptr ? ~uint64_t{0} : (object->size_bytes + layout_.extent_bytes() - 1) >> layout_.extent_shift();
  for (size_t i = 0; i < kEntriesPerPage; ++i) {
    const Entry& entry = entries[i];
    if (entry.is_absent()) continue;
    const uint64_t extent = uint64_t{leaf} * kEntriesPerPage + i;
    ++layer.entries;
    // Holes may be there: they hide what ancestors have from a replica that shrank, should it grow again.
    if (extent >= extents_end && entry.place.value != 0) {
      findings_.oddity("extent {} of {} lies behind its end", extent, name_of(layer.id));
    }
    if (entry.stamp.value != 0 && !stamps_.contains(entry.stamp)) {
      findings_.damage("extent {} of {} was written under stamp {}, and nothing says what that is", extent,
                       name_of(layer.id), entry.stamp.value);
    }
    if (entry.place.value == 0) continue;
    if (!layout_.contains(entry.place)) {
      findings_.damage("extent {} of {} is at place {}, and the pool has {}", extent, name_of(layer.id),
                       entry.place.value, layout_.extents());
      continue;
    }
    ++layer.extents;
    owners_.push_back({entry.place, OwnerKind::kMap, layer.id, ExtentIndex(static_cast<uint32_t>(extent))});
  }
}

void CheckedState::verify_owners(ExtentCounts& counts) {
  for (size_t i = 0; i < page_extents_.size(); ++i) {
    for (const Place place : page_extents_[i].places) {
      if (place.value == 0) continue;
      if (layout_.contains(place)) {
        owners_.push_back({place, OwnerKind::kPages, {}, ExtentIndex(static_cast<uint32_t>(i))});
      } else {
        findings_.damage("page extent {} is at place {}, and the pool has {}", i, place.value, layout_.extents());
      }
    }
  }
  for (const auto& copy : superblock_.directory) {
    for (size_t i = 0; i < copy.size(); ++i) {
      owners_.push_back({copy[i], OwnerKind::kDirectory, {}, ExtentIndex(static_cast<uint32_t>(i))});
    }
  }
  std::ranges::sort(owners_);
  counts.total = layout_.extents();
  for (size_t i = 0; i < owners_.size(); ++i) {
    if (i > 0 && owners_[i - 1].place == owners_[i].place) {
      findings_.damage("place {} is in use twice: by {}, and by {}", owners_[i].place.value, describe(owners_[i - 1]),
                       describe(owners_[i]));
      continue;
    }
    switch (owners_[i].kind) {
      case OwnerKind::kMap:
        ++counts.data;
        break;
      case OwnerKind::kPages:
        ++counts.pages;
        break;
      case OwnerKind::kDirectory:
        ++counts.directory;
        break;
    }
  }
}

std::string CheckedState::describe(const Owner& owner) const {
  switch (owner.kind) {
    case OwnerKind::kMap:
      return fmt::format("extent {} of {}", owner.extent.value, name_of(owner.layer));
    case OwnerKind::kPages:
      return fmt::format("page extent {}", owner.extent.value);
    case OwnerKind::kDirectory:
      return "the directory";
  }
  FL_UNREACHABLE("no such kind");
}

const ObjectState* CheckedState::object_of(LayerId layer) const {
  const auto id = object_by_layer_.find(layer);
  if (id == object_by_layer_.end()) return nullptr;
  const auto object = objects_.find(id->second);
  return object == objects_.end() ? nullptr : &object->second;
}

std::string CheckedState::name_of(LayerId layer) const {
  const ObjectState* found = object_of(layer);
  if (found == nullptr) {
    const auto object = std::ranges::find_if(objects_, [&](const auto& one) { return one.second.layer == layer; });
    if (object != objects_.end()) found = &object->second;
  }
  if (found == nullptr) return fmt::format("layer {}", layer.value);
  return fmt::format("{} {}", kind_name(found->kind), found->name);
}

}  // namespace fairlead::pool
