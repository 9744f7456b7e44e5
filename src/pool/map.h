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
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/intrusive_list.h"
#include "pool/format.h"
#include "pool/stamp_marks.h"

namespace fairlead::pool {

struct Object;

// An entry that a page shows for an ancestor's, so that a read needs no walk: never written to, never stored. The top
// bit of the place marks it.
inline constexpr uint32_t kBorrowed = uint32_t{1} << 31;
inline constexpr uint32_t kPlacesMax = kBorrowed - 1;

// What ancestors have of an extent besides what its entry shows: each unit in one part at most, units in none are
// zeroes.
struct LowerPart {
  Place place;
  UnitSet units;
};
using LowerParts = std::vector<LowerPart>;
// Null: nobody has anything.
Place find_lower(const LowerParts* parts, size_t unit);

// A set of units that readers on other shards look at while the home shard adds to it.
using SharedUnits = std::array<std::atomic<uint64_t>, UnitSet::kWords>;

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

  // Any shard. Place and units fit together.
  ShownEntry load(size_t index) const;
  // Any shard; only when is_resolved(). Null: units that the entry does not hold are zeroes.
  const LowerParts* lower(size_t index) const {
    const Extras* const extras = extras_.load(std::memory_order_acquire);
    return extras == nullptr ? nullptr : extras->lower[index].load(std::memory_order_acquire);
  }
  // Any shard. Whether what ancestors have is shown too.
  bool is_resolved() const { return is_resolved_.load(std::memory_order_acquire); }

  // Home shard.
  Entry own(size_t index) const {
    const ShownEntry shown = load(index);
    return shown.is_borrowed ? Entry{} : shown.entry;
  }
  // What has been replaced and may still be looked at: free it when no shard can.
  struct Replaced {
    std::unique_ptr<SharedUnits> units;
    std::unique_ptr<LowerParts> lower;
  };
  // What the layer has itself; it ends what was borrowed.
  [[nodiscard]] Replaced store_own(size_t index, const Entry& entry) { return store(index, entry, 0); }
  [[nodiscard]] Replaced borrow(size_t index, const Entry& entry) { return store(index, entry, kBorrowed); }
  [[nodiscard]] Replaced set_lower(size_t index, std::unique_ptr<LowerParts> parts);
  void set_resolved() { is_resolved_.store(true, std::memory_order_release); }
  // What it shows of ancestors is out of date. It still reads the same, until the places that they gave up are used
  // again: for those who are looking at it now.
  void set_unresolved() { is_resolved_.store(false, std::memory_order_release); }
  // Any shard. The extent is written.
  void note_write(size_t index) {
    if (!written_.has(index, std::memory_order_relaxed)) written_.set(index, std::memory_order_relaxed);
  }
  // Home shard. Of a new page: what is written there from now on is written in this generation.
  void set_generation(StampOrdinal generation) { generation_ = generation; }
  // Likewise, of a page of a new head: what its parent's page knows was written to.
  void inherit_writes(const MapPage& parent) {
    written_.put(parent.written_.get());
    written_before_ = parent.written_before_;
    generation_ = parent.generation_;
  }
  // Home shard, while nobody writes: before an entry gets the stamp of `now`, the generation that followed `before`.
  void enter_generation(StampOrdinal now, StampOrdinal before) {
    if (generation_ == now) return;
    const bool is_next = generation_ == before;
    const UnitSet written = written_.take();
    hot_ = is_next ? written & written_before_ : UnitSet();
    written_before_ = is_next ? written : UnitSet();
    generation_ = now;
  }
  // Home shard. Written in both of the generations before this one, and not taken yet.
  UnitSet take_hot() { return std::exchange(hot_, {}); }

  // As it is stored: what is borrowed is absent.
  void encode(std::span<std::byte, kMapPageBytes> bytes) const;
  // Fills a new page. False: an entry is none that can be (its place is beyond `places`).
  bool decode(std::span<const std::byte, kMapPageBytes> bytes, uint32_t places);
  uint32_t count_places() const;
  size_t memory_bytes() const { return sizeof(MapPage) + extra_bytes_; }

  const LayerId layer;
  const uint32_t leaf;
  StampMarks stamps;                              // of its entries
  mutable std::atomic<bool> is_referenced{true};  // looked at since the cache's hand passed; any shard
  // The rest is the home shard's alone.
  bool is_dirty = false;
  uint32_t pins = 0;                       // someone relies on its staying
  std::unique_ptr<MapBytes> checkpointed;  // what a checkpoint under way stores, if it changed since
  bool is_being_checkpointed = false;

 private:
  struct Slot {
    std::atomic<uint64_t> place_and_stamp{0};
    std::atomic<uintptr_t> held{kNone};  // kNone, kAll, or the address of SharedUnits
  };
  // What few entries need. Made when the first does.
  struct Extras {
    std::array<std::atomic<LowerParts*>, kEntriesPerPage> lower{};
    std::array<std::unique_ptr<LowerParts>, kEntriesPerPage> owned_lower;
    std::array<std::unique_ptr<SharedUnits>, kEntriesPerPage> owned_units;
  };
  static constexpr uintptr_t kNone = 0;
  static constexpr uintptr_t kAll = 1;
  // In the place of the first word: of no entry, as what is borrowed has no stamp.
  static constexpr uint64_t kChanging = ~uint64_t{0};

  Replaced store(size_t index, const Entry& entry, uint32_t mark);
  Extras& extras();

  std::array<Slot, kEntriesPerPage> slots_;
  std::unique_ptr<Extras> owned_extras_;
  std::atomic<Extras*> extras_{nullptr};
  std::atomic<bool> is_resolved_{false};
  StampOrdinal generation_;
  EntryBits written_;       // in that generation
  UnitSet written_before_;  // in the one before it
  UnitSet hot_;
  size_t extra_bytes_ = 0;
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
