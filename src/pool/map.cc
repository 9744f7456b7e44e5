#include "pool/map.h"

#include <algorithm>

namespace fairlead::pool {

Place find_lower(const LowerParts* parts, size_t unit) {
  if (parts == nullptr) return {};
  for (const LowerPart& part : *parts) {
    if (part.units.has(unit)) return part.place;
  }
  return {};
}

ShownEntry MapPage::load(size_t index) const {
  const Slot& slot = slots_[index];
  while (true) {
    const uint64_t first = slot.place_and_stamp.load(std::memory_order_acquire);
    if (first == kChanging) continue;  // for a few stores of the home shard
    const uintptr_t held = slot.held.load(std::memory_order_acquire);
    if (slot.place_and_stamp.load(std::memory_order_relaxed) != first) continue;
    ShownEntry shown;
    const auto place = static_cast<uint32_t>(first);
    shown.is_borrowed = (place & kBorrowed) != 0;
    shown.entry.place = Place(place & ~kBorrowed);
    shown.entry.stamp = StampOrdinal(static_cast<uint32_t>(first >> 32));
    if (held == kAll) {
      shown.entry.held = UnitSet::all();
    } else if (held != kNone) {
      std::array<uint64_t, UnitSet::kWords> words;
      const auto& shared = *reinterpret_cast<const SharedUnits*>(held);
      for (size_t i = 0; i < words.size(); ++i) words[i] = shared[i].load(std::memory_order_acquire);
      shown.entry.held = UnitSet(words);
    }
    return shown;
  }
}

MapPage::Extras& MapPage::extras() {
  if (owned_extras_ == nullptr) {
    owned_extras_ = std::make_unique<Extras>();
    extra_bytes_ += sizeof(Extras);
    extras_.store(owned_extras_.get(), std::memory_order_release);
  }
  return *owned_extras_;
}

MapPage::Replaced MapPage::set_lower(size_t index, std::unique_ptr<LowerParts> parts) {
  if (owned_extras_ == nullptr && parts == nullptr) return {};
  Extras& extras = this->extras();
  const auto bytes_of = [](const LowerParts* list) {
    return list == nullptr ? 0 : sizeof(LowerParts) + list->size() * sizeof(LowerPart);
  };
  extra_bytes_ += bytes_of(parts.get());
  extras.lower[index].store(parts.get(), std::memory_order_release);
  std::swap(extras.owned_lower[index], parts);
  extra_bytes_ -= bytes_of(parts.get());
  return {.units = nullptr, .lower = std::move(parts)};
}

// Readers never combine a place with units of another one, and see no moment at which units are missing that are held
// before and after: see load().
MapPage::Replaced MapPage::store(size_t index, const Entry& entry, uint32_t mark) {
  Slot& slot = slots_[index];
  const uint64_t first = (entry.place.value | mark) | uint64_t{entry.stamp.value} << 32;
  const uint64_t before = slot.place_and_stamp.load(std::memory_order_relaxed);
  const bool is_same_place = static_cast<uint32_t>(first) == static_cast<uint32_t>(before);
  const UnitSet old = load(index).entry.held;
  const bool is_partial = entry.held.any() && !entry.held.is_all();
  Replaced replaced;
  std::unique_ptr<SharedUnits> units;
  if (is_partial && is_same_place && slot.held.load(std::memory_order_relaxed) > kAll && entry.held.contains(old)) {
    for (size_t i = 0; i < UnitSet::kWords; ++i) {
      (*owned_extras_->owned_units[index])[i].store(entry.held.words()[i], std::memory_order_release);
    }
    slot.place_and_stamp.store(first, std::memory_order_release);
    return replaced;
  }
  uintptr_t held = entry.held.any() ? kAll : kNone;
  if (is_partial) {
    units = std::make_unique<SharedUnits>();
    for (size_t i = 0; i < UnitSet::kWords; ++i) (*units)[i].store(entry.held.words()[i], std::memory_order_relaxed);
    held = reinterpret_cast<uintptr_t>(units.get());
    extra_bytes_ += sizeof(SharedUnits);
  }
  slot.place_and_stamp.store(kChanging, std::memory_order_release);
  slot.held.store(held, std::memory_order_release);
  slot.place_and_stamp.store(first, std::memory_order_release);
  if (units != nullptr || owned_extras_ != nullptr) {
    std::swap(extras().owned_units[index], units);
    if (units != nullptr) extra_bytes_ -= sizeof(SharedUnits);
    replaced.units = std::move(units);
  }
  return replaced;
}

void MapPage::encode(std::span<std::byte, kMapPageBytes> bytes) const {
  const auto entries = std::make_unique<MapEntries>();
  for (size_t index = 0; index < kEntriesPerPage; ++index) (*entries)[index] = own(index);
  encode_map(*entries, bytes);
}

bool MapPage::decode(std::span<const std::byte, kMapPageBytes> bytes, uint32_t places) {
  const auto entries = std::make_unique<MapEntries>();
  decode_map(bytes, *entries);
  for (size_t index = 0; index < kEntriesPerPage; ++index) {
    if ((*entries)[index].place.value > places) return false;
    (void)store_own(index, (*entries)[index]);  // nobody looks at it yet
  }
  return true;
}

uint32_t MapPage::count_places() const {
  uint32_t count = 0;
  for (size_t index = 0; index < kEntriesPerPage; ++index) count += own(index).place.value != 0 ? 1 : 0;
  return count;
}

LeafRef* Layer::find(uint32_t leaf) {
  const auto ref = std::ranges::lower_bound(leaves, leaf, {}, &LeafRef::leaf);
  return ref == leaves.end() || ref->leaf != leaf ? nullptr : &*ref;
}

LeafRef& Layer::find_or_add(uint32_t leaf) {
  const auto ref = std::ranges::lower_bound(leaves, leaf, {}, &LeafRef::leaf);
  if (ref != leaves.end() && ref->leaf == leaf) return *ref;
  return *leaves.insert(ref, {.leaf = leaf, .address = kNoAddress, .crc = 0, .places = 0});
}

}  // namespace fairlead::pool
