// Map pages in memory: brought in, completed with what ancestors have, and let go.
#include <algorithm>
#include <bit>

#include "base/crc32c.h"
#include "base/fault.h"
#include "base/log.h"
#include "pool/core.h"

namespace fairlead::pool {
namespace {

constexpr uint64_t kCacheBytesFloor = 64 * kKiB;  // what a few requests need at once
constexpr uint64_t kCacheBytesMin = 4 * kMiB;
constexpr uint64_t kCacheBytesPerTiB = 10 * kMiB;
constexpr size_t kReadAheadMax = 32;  // pages of ancestors that are read at once

}  // namespace

// A page as it will show: its own entries, the first ancestor's where it has none, and who has the other units.
struct PoolCore::Resolution {
  MapEntries own;
  MapEntries borrowed;
  std::array<std::unique_ptr<LowerParts>, kEntriesPerPage> lower;
  std::array<UnitSet, kEntriesPerPage> known;  // units that were found
  std::array<bool, kEntriesPerPage> has_entry{};
  size_t incomplete = kEntriesPerPage;

  void start(const MapPage& page) {
    for (size_t i = 0; i < kEntriesPerPage; ++i) {
      own[i] = page.own(i);
      has_entry[i] = !own[i].is_absent();
      learn(i, own[i].held);
    }
  }
  // False: entries of the page itself changed since start().
  bool is_of(const MapPage& page) const {
    for (size_t i = 0; i < kEntriesPerPage; ++i) {
      if (page.own(i) != own[i]) return false;
    }
    return true;
  }
  void learn(size_t i, const UnitSet& units) {
    if (known[i].is_all()) return;
    known[i] |= units;
    if (known[i].is_all()) --incomplete;
  }
  void add(size_t i, const Entry& entry) {
    const UnitSet found = entry.held - known[i];
    if (!found.any()) return;
    if (!has_entry[i]) {
      has_entry[i] = true;
      borrowed[i] = {.place = entry.place, .stamp = {}, .held = entry.held};
    } else {
      put(i, found, entry.place);
    }
    learn(i, found);
  }
  // Zeroes hide what is below and need no place.
  void put(size_t i, const UnitSet& units, Place place) {
    if (place.value == 0) return;
    if (lower[i] == nullptr) lower[i] = std::make_unique<LowerParts>();
    lower[i]->push_back({place, units});
  }
  // An ancestor's page that shows all of its own ancestors': nothing more is to be found.
  void add_resolved(const MapPage& page) {
    for (size_t i = 0; i < kEntriesPerPage; ++i) {
      if (known[i].is_all()) continue;
      const UnitSet before = known[i];
      const Entry shown = page.load(i).entry;
      add(i, shown);
      const LowerParts* const parts = page.lower(i);
      if (parts == nullptr) continue;
      for (const LowerPart& part : *parts) {
        const UnitSet found = part.units - before - shown.held;
        if (found.any()) put(i, found, part.place);
      }
    }
  }
};

MapPage* PoolCore::find_page(LayerId layer, uint32_t leaf) {
  const auto found = cache_.find(page_key(layer, leaf));
  return found == cache_.end() ? nullptr : found->second.get();
}

Task<Result<PagePin>> PoolCore::page(Layer& layer, uint32_t leaf) {
  const uint64_t key = page_key(layer.id, leaf);
  while (true) {
    if (MapPage* const resident = find_page(layer.id, leaf); resident != nullptr && resident->is_resolved()) {
      resident->is_referenced.store(true, std::memory_order_relaxed);
      co_return PagePin(*resident);
    }
    if (const auto loading = loading_.find(key); loading != loading_.end()) {
      co_await loading->second->wait();
      continue;
    }
    loading_.emplace(key, std::make_unique<Event>(reactor()));
    Result<void> outcome = co_await bring_in(layer, leaf);
    if (outcome) {
      const PagePin pin(*find_page(layer.id, leaf));
      outcome = co_await resolve(layer, *pin);
    }
    const auto loading = loading_.find(key);
    loading->second->release_waiters();
    loading_.erase(loading);
    if (!outcome) co_return std::unexpected(outcome.error());
    PagePin pin(*find_page(layer.id, leaf));
    evict();
    co_return pin;
  }
}

// What the layer itself has.
Task<Result<void>> PoolCore::bring_in(Layer& layer, uint32_t leaf) {
  while (find_page(layer.id, leaf) == nullptr) {
    std::unique_ptr<MapPage> page;
    const LeafRef* const ref = layer.find(leaf);
    if (ref != nullptr && ref->address != kNoAddress) {
      const LeafRef wanted = *ref;
      Result<std::unique_ptr<MapPage>> read = co_await read_page(layer.id, wanted);
      const LeafRef* const now = layer.find(leaf);
      if (now == nullptr || now->address != wanted.address) continue;  // a checkpoint moved it
      if (!read) co_return std::unexpected(read.error());
      page = std::move(*read);
    } else {
      page = std::make_unique<MapPage>(layer.id, leaf);
    }
    begin_writes(layer, *page);
    if (layer.parent == nullptr) page->set_resolved();
    cache_bytes_ += page->memory_bytes();
    cache_order_.push_back(*page);
    cache_.emplace(page_key(layer.id, leaf), std::move(page));
  }
  co_return Result<void>();
}

// A head that has nothing there yet takes over what is written again and again from the snapshot that was the head.
// A clone learns nothing by it: the generations of another are none that came before its own.
void PoolCore::begin_writes(const Layer& layer, MapPage& page) {
  if (layer.object == nullptr) return;
  page.set_generation(layer.object->state.stamp);
  if (layer.parent == nullptr || layer.find(page.leaf) != nullptr) return;
  if (const MapPage* const before = find_page(layer.parent->id, page.leaf)) page.inherit_writes(*before);
}

// From the second copy when the first is bad; the page is dirty then, so that the next checkpoint writes both.
Task<Result<std::unique_ptr<MapPage>>> PoolCore::read_page(LayerId layer, LeafRef ref) {
  Error error{Code::kCorrupt, 0, "both copies of a map page are damaged"};
  Buffer memory = co_await buffer(kMapPageBytes);
  for (size_t copy = 0; copy < kCopies; ++copy) {
    const PageStore::Where where = pages_.locate(ref.address, copy);
    const Layout::Location at = layout_.locate(where.place);
    iovec piece{memory.data(), kMapPageBytes};
    const Result<void> read =
        co_await block_read(reactor(), home().disk(at.disk), ByteOffset(at.offset + where.offset), {&piece, 1});
    const std::span<const std::byte, kMapPageBytes> bytes(memory.data(), kMapPageBytes);
    if (!read) {
      error = read.error();
    } else if (crc32c(bytes) == ref.crc) {
      auto page = std::make_unique<MapPage>(layer, ref.leaf);
      if (!page->decode(bytes, layout_.extents())) co_return fail(Code::kCorrupt, "a map page names no extent");
      if (copy > 0) {
        ++repaired_copies_;
        probe(Probe::kPoolRepairedCopy);
        page->is_dirty = true;
      }
      co_return page;
    }
  }
  co_return std::unexpected(error);
}

Task<Result<void>> PoolCore::resolve(Layer& layer, MapPage& page) {
  while (!page.is_resolved()) {
    const uint64_t version = map_version_;
    auto found = std::make_unique<Resolution>();
    found->start(page);
    FL_CO_TRY(const bool is_complete, co_await ask_ancestors(layer, page.leaf, *found));
    if (!is_complete || map_version_ != version || !found->is_of(page)) continue;
    cache_bytes_ -= page.memory_bytes();
    for (size_t i = 0; i < kEntriesPerPage; ++i) {
      // In the place of what was known before, too: readers who came then may still be looking, and combine the entry
      // that they saw with the parts below of now.
      if (page.load(i).is_borrowed) found->put(i, found->borrowed[i].held, found->borrowed[i].place);
      retire(page.set_lower(i, std::move(found->lower[i])));
      if (found->own[i].is_absent()) retire(page.borrow(i, found->borrowed[i]));
    }
    cache_bytes_ += page.memory_bytes();
    page.set_resolved();
  }
  co_return Result<void>();
}

// An ancestor's page that is not in memory.
struct PoolCore::StoredPage {
  LayerId layer_id;
  LeafRef ref;
  Result<std::unique_ptr<MapPage>> page;
};

Task<void> PoolCore::read_stored(StoredPage& stored) { stored.page = co_await read_page(stored.layer_id, stored.ref); }

// False: something moved meanwhile; ask again. Chains may be long: the further up it has to look, the more it reads at
// a time.
Task<Result<bool>> PoolCore::ask_ancestors(Layer& layer, uint32_t leaf, Resolution& found) {
  const uint64_t version = map_version_;
  size_t ahead = 1;
  for (Layer* from = layer.parent; from != nullptr && found.incomplete > 0;) {
    if (const MapPage* const resident = find_page(from->id, leaf); resident != nullptr) {
      if (resident->is_resolved()) {
        found.add_resolved(*resident);
        co_return true;
      }
      for (size_t i = 0; i < kEntriesPerPage; ++i) found.add(i, resident->own(i));
      from = from->parent;
      continue;
    }
    std::vector<StoredPage> stored;
    for (; from != nullptr && stored.size() < ahead && find_page(from->id, leaf) == nullptr; from = from->parent) {
      if (const LeafRef* const ref = from->find(leaf); ref != nullptr) stored.push_back({from->id, *ref, {}});
    }
    ahead = std::min(2 * ahead, kReadAheadMax);
    Scope reading(reactor());
    for (StoredPage& each : stored) reading.spawn(read_stored(each));
    co_await reading.close();
    if (map_version_ != version) co_return false;
    for (const StoredPage& each : stored) {
      const Layer* const ancestor = find_layer(each.layer_id);
      const LeafRef* const now = ancestor == nullptr ? nullptr : ancestor->find(leaf);
      if (now == nullptr || now->address != each.ref.address) co_return false;
      if (!each.page) co_return std::unexpected(each.page.error());
      for (size_t i = 0; i < kEntriesPerPage; ++i) found.add(i, (*each.page)->own(i));
    }
  }
  co_return true;
}

Task<Result<void>> PoolCore::load_view(Object& object, uint32_t leaf) {
  while (true) {
    Layer& layer = *object.layer;
    FL_CO_TRY(const PagePin pin, co_await page(layer, leaf));
    if (object.layer != &layer) continue;
    if (leaf < object.view->slots.size()) object.view->slots[leaf].store(&*pin, std::memory_order_release);
    co_return Result<void>();
  }
}

uint64_t PoolCore::cache_limit() const {
  if (options_.cache_bytes != 0) return std::max(options_.cache_bytes, kCacheBytesFloor);
  const uint64_t mapped_bytes = mapped_ << layout_.extent_shift();
  return std::max(kCacheBytesMin, kCacheBytesPerTiB * (mapped_bytes / kMiB) / (kTiB / kMiB));
}

// Second chance, in the order in which pages came.
void PoolCore::evict() {
  bool is_any_dirty = false;
  for (size_t left = 2 * cache_.size(); cache_bytes_ > cache_limit() && left > 0; --left) {
    MapPage& page = cache_order_.pop_front();
    cache_order_.push_back(page);
    if (page.pins > 0 || page.is_being_checkpointed) continue;
    is_any_dirty = is_any_dirty || page.is_dirty;
    if (page.is_dirty || page.is_referenced.exchange(false, std::memory_order_relaxed)) continue;
    remove_page(page);
  }
  // Only a checkpoint makes dirty pages clean.
  if (cache_bytes_ > cache_limit() && is_any_dirty) checkpoint_wanted_.set();
}

void PoolCore::remove_page(MapPage& page) {
  if (const Layer* const layer = find_layer(page.layer); layer != nullptr && layer->object != nullptr) {
    const std::shared_ptr<View>& view = layer->object->view;
    if (view != nullptr && page.leaf < view->slots.size()) {
      view->slots[page.leaf].store(nullptr, std::memory_order_release);
    }
  }
  cache_bytes_ -= page.memory_bytes();
  cache_order_.remove(page);
  const auto found = cache_.find(page_key(page.layer, page.leaf));
  std::unique_ptr<MapPage> owned = std::move(found->second);
  cache_.erase(found);
  retire(std::move(owned));
}

void PoolCore::drop_pages(Layer& layer) {
  for (const LeafRef& ref : layer.leaves) {
    if (MapPage* const page = find_page(layer.id, ref.leaf); page != nullptr) remove_page(*page);
  }
}

void PoolCore::ancestors_changed(Layer& changed, uint32_t leaf) {
  ++map_version_;
  for (const auto& [id, each] : layers_) {
    MapPage* const page = find_page(each->id, leaf);
    if (page == nullptr) continue;
    const Layer* above = each.get();
    while (above != nullptr && above != &changed) above = above->parent;
    if (above == nullptr || each.get() == &changed) continue;
    page->set_unresolved();
  }
}

}  // namespace fairlead::pool
