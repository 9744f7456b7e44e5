// What a map page knows of its entries' stamps besides the stamps: which may not be on stable storage yet, and which
// extents were written.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "pool/format.h"

namespace fairlead::pool {

// A bit for each entry of a page. Every shard may read and set; the order of what is set with other memory is said with
// each use.
class EntryBits {
 public:
  static_assert(kEntriesPerPage == kUnitsMax);  // a UnitSet has a bit for each

  bool has(size_t index, std::memory_order order) const {
    return (words_[index / 64].load(order) & uint64_t{1} << index % 64) != 0;
  }
  void set(size_t index, std::memory_order order) { words_[index / 64].fetch_or(uint64_t{1} << index % 64, order); }
  // All at once, word by word. take() leaves nothing but what others set meanwhile.
  UnitSet take() {
    std::array<uint64_t, UnitSet::kWords> words;
    for (size_t i = 0; i < words.size(); ++i) words[i] = words_[i].exchange(0, std::memory_order_acq_rel);
    return UnitSet(words);
  }
  UnitSet get() const {
    std::array<uint64_t, UnitSet::kWords> words;
    for (size_t i = 0; i < words.size(); ++i) words[i] = words_[i].load(std::memory_order_acquire);
    return UnitSet(words);
  }
  void put(const UnitSet& bits) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i].store(bits.words()[i], std::memory_order_release);
  }

 private:
  std::array<std::atomic<uint64_t>, UnitSet::kWords> words_{};
};

// Which entries got another stamp by batches of late. The home shard adds, any shard asks. An answer may be no for a
// little longer than it has to be, and is never yes too early: two sets, each with the last batch that it has to do
// with; one gathers while the other waits for the disk.
class StampMarks {
 public:
  // Home shard. Before the entry is stored: who sees its stamp sees this too. `durable`: that batch and all before it
  // are on stable storage.
  void add(size_t index, Sequence batch, Sequence durable) {
    if (older_.last.load(std::memory_order_relaxed) <= durable.value) {
      // Its last batch first: what is there from before counts as young for a moment, which is safe.
      older_.last.store(newer_.last.load(std::memory_order_relaxed), std::memory_order_release);
      older_.entries.put(newer_.entries.get());
      newer_.entries.put({});  // then: who misses one here finds it there
    }
    newer_.last.store(batch.value, std::memory_order_release);
    newer_.entries.set(index, std::memory_order_release);
  }

  // Any shard, after the entry was loaded.
  bool is_durable(size_t index, Sequence durable) const {
    for (const Set* const set : {&newer_, &older_}) {  // in this order: entries move from the one to the other
      if (set->entries.has(index, std::memory_order_acquire) &&
          set->last.load(std::memory_order_acquire) > durable.value)
        return false;
    }
    return true;
  }
  // Home shard. Of all entries.
  bool is_all_durable(Sequence durable) const { return newer_.last.load(std::memory_order_relaxed) <= durable.value; }

 private:
  struct Set {
    EntryBits entries;
    std::atomic<uint64_t> last{0};
  };
  Set newer_;
  Set older_;
};

}  // namespace fairlead::pool
