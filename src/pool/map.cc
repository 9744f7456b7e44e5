#include "pool/map.h"

#include <algorithm>
#include <cstring>

#include "base/endian.h"

namespace fairlead::pool {

std::unique_ptr<UnitTable> MapPage::set_units(size_t index, std::unique_ptr<UnitTable> table) {
  if (owned_tables_ == nullptr) {
    if (table == nullptr) return nullptr;
    owned_tables_ = std::make_unique<UnitTables>();
    table_bytes_ += sizeof(UnitTables);
    tables_.store(owned_tables_.get(), std::memory_order_release);
  }
  table_bytes_ += table == nullptr ? 0 : sizeof(UnitTable);
  owned_tables_->shown[index].store(table.get(), std::memory_order_release);
  std::swap(owned_tables_->owned[index], table);
  table_bytes_ -= table == nullptr ? 0 : sizeof(UnitTable);
  return table;
}

Page MapPage::encode() const {
  Page bytes;
  for (size_t index = 0; index < kEntriesPerPage; ++index) {
    const EntryWords words = to_words(own(index));
    const std::array<Le64, 2> stored = {words.place_and_stamp, words.held};
    std::memcpy(bytes.data() + index * sizeof(stored), stored.data(), sizeof(stored));
  }
  return bytes;
}

bool MapPage::decode(std::span<const std::byte, kPageBytes> bytes, uint32_t places) {
  for (size_t index = 0; index < kEntriesPerPage; ++index) {
    std::array<Le64, 2> stored;
    std::memcpy(stored.data(), bytes.data() + index * sizeof(stored), sizeof(stored));
    const Entry entry = from_words({stored[0], stored[1]});
    if (entry.place.value > places) return false;
    store_own(index, entry);
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
