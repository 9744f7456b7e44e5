// Layers, and their map pages in memory. A layer maps the extents of an address range to places; what it has nothing of
// its parent knows. The head layer of a replica is the only one that changes; a snapshot is the layer that was the head
// until then.
//
// Everything here is written on the pool's home shard only. Pages are read by other shards too, without a lock: the
// words of entries are atomic, and a page that leaves (or a table of units that is replaced) is freed only when no
// shard can still be using it (see Epochs in shard_side.h).
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/intrusive_list.h"
#include "pool/format.h"

namespace fairlead::pool {

struct Object;

// An entry that a page shows for an ancestor's, so that a read needs no walk: never written to, never stored. The top
// bit of the place marks it.
inline constexpr uint32_t kBorrowed = uint32_t{1} << 31;
inline constexpr uint32_t kPlacesMax = kBorrowed - 1;

// Where each unit of an extent is when several layers have some of it. 0: zeroes.
using UnitTable = std::array<Place, kUnitsPerExtent>;

struct ShownEntry {
  Entry entry;
  bool is_borrowed = false;
};

class MapPage : public ListNode<MapPage> {
 public:
  MapPage(LayerId layer_id, uint32_t leaf_index) : layer(layer_id), leaf(leaf_index) {}
  ~MapPage() = default;
  MapPage(const MapPage&) = delete;
  MapPage& operator=(const MapPage&) = delete;

  // Any shard. The two words fit together.
  ShownEntry load(size_t index) const {
    const std::atomic<uint64_t>& first = words_[2 * index];
    while (true) {
      const uint64_t a = first.load(std::memory_order_acquire);
      if (a == kChanging) continue;  // for two stores of the home shard
      const uint64_t b = words_[2 * index + 1].load(std::memory_order_acquire);
      if (first.load(std::memory_order_relaxed) != a) continue;
      ShownEntry shown{from_words({a, b})};
      shown.is_borrowed = (shown.entry.place.value & kBorrowed) != 0;
      shown.entry.place.value &= ~kBorrowed;
      return shown;
    }
  }
  // Any shard; only when is_resolved(). Null: units that the entry does not hold are zeroes.
  const UnitTable* units(size_t index) const {
    const UnitTables* const tables = tables_.load(std::memory_order_acquire);
    return tables == nullptr ? nullptr : tables->shown[index].load(std::memory_order_acquire);
  }
  // Any shard. Whether what ancestors have is shown too.
  bool is_resolved() const { return is_resolved_.load(std::memory_order_acquire); }

  // Home shard.
  Entry own(size_t index) const {
    const ShownEntry shown = load(index);
    return shown.is_borrowed ? Entry{} : shown.entry;
  }
  // What the layer has itself; it ends what was borrowed.
  void store_own(size_t index, const Entry& entry) { store(index, entry, 0); }
  void borrow(size_t index, const Entry& entry) { store(index, entry, kBorrowed); }
  // Returns the table that was there: free it when no shard can be using it.
  std::unique_ptr<UnitTable> set_units(size_t index, std::unique_ptr<UnitTable> table);
  void set_resolved() { is_resolved_.store(true, std::memory_order_release); }
  // What it shows of ancestors is out of date. It still reads the same, until the places that they gave up are used
  // again: for those who are looking at it now.
  void set_unresolved() { is_resolved_.store(false, std::memory_order_release); }

  // As it is stored: what is borrowed is absent.
  Page encode() const;
  // Fills a new page. False: an entry is none that can be (its place is beyond `places`).
  bool decode(std::span<const std::byte, kPageBytes> bytes, uint32_t places);
  uint32_t count_places() const;
  size_t memory_bytes() const { return sizeof(MapPage) + table_bytes_; }

  const LayerId layer;
  const uint32_t leaf;
  mutable std::atomic<bool> is_referenced{true};  // looked at since the cache's hand passed; any shard
  // The rest is the home shard's alone.
  bool is_dirty = false;
  uint32_t pins = 0;                   // someone relies on its staying
  std::unique_ptr<Page> checkpointed;  // what a checkpoint under way stores, if it changed since
  bool is_being_checkpointed = false;

 private:
  struct UnitTables {
    std::array<std::atomic<UnitTable*>, kEntriesPerPage> shown{};
    std::array<std::unique_ptr<UnitTable>, kEntriesPerPage> owned;
  };
  // In the place of the first word: of no entry, as what is borrowed has no stamp.
  static constexpr uint64_t kChanging = ~uint64_t{0};
  void store(size_t index, const Entry& entry, uint32_t mark) {
    const EntryWords words = to_words(entry);
    const uint64_t first = words.place_and_stamp | mark;
    // Readers never combine a place with what another one holds, and see no moment at which units are missing that are
    // held before and after: see load().
    const bool is_other = words_[2 * index].load(std::memory_order_relaxed) != first;
    if (is_other) words_[2 * index].store(kChanging, std::memory_order_release);
    words_[2 * index + 1].store(words.held, std::memory_order_release);
    if (is_other) words_[2 * index].store(first, std::memory_order_release);
  }

  std::array<std::atomic<uint64_t>, 2 * kEntriesPerPage> words_{};
  std::unique_ptr<UnitTables> owned_tables_;  // made when the first is needed
  std::atomic<UnitTables*> tables_{nullptr};
  std::atomic<bool> is_resolved_{false};
  size_t table_bytes_ = 0;
};

// A map. Home shard.
struct Layer {
  LayerId id;
  Layer* parent = nullptr;
  uint32_t children = 0;
  Object* object = nullptr;     // that it is the map of; none: a deleted snapshot that is still needed, or not yet gone
  std::vector<LeafRef> leaves;  // ascending; address kNoAddress: never stored
  uint64_t places = 0;          // extents that it has

  // Null: the layer has nothing there.
  LeafRef* find(uint32_t leaf);
  const LeafRef* find(uint32_t leaf) const { return const_cast<Layer*>(this)->find(leaf); }
  LeafRef& find_or_add(uint32_t leaf);
};
inline constexpr uint32_t kNoAddress = ~uint32_t{0};

// The pages of a replica's head (or a snapshot's layer) by leaf, for the shards that serve it. Slots are set on the
// home shard.
struct View {
  explicit View(size_t leaf_count) : slots(leaf_count) {}
  std::vector<std::atomic<MapPage*>> slots;
};

}  // namespace fairlead::pool
