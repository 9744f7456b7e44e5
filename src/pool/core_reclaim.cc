// Room comes back: places that records gave up, layers that nobody needs any more, and their maps.
#include <algorithm>
#include <bit>

#include "async/call.h"
#include "base/fault.h"
#include "base/log.h"
#include "pool/core.h"

namespace fairlead::pool {
namespace {

constexpr uint64_t kCopyBytes = 256 * kKiB;  // of units that a merge moves at once

Task<void> drain_on(ShardSide& side) { co_await side.epochs.drain(); }

}  // namespace

// What the next checkpoints need at most: every map page anew, and two directories.
uint64_t PoolCore::metadata_reserve() const {
  const uint64_t pages = leaves_ + 1;
  const uint64_t needed = pages - std::min<uint64_t>(pages, pages_.free_pages());
  const uint64_t page_extents = (needed + layout_.pages_per_extent() - 1) / layout_.pages_per_extent();
  // Generous: what the encoding takes for each.
  const uint64_t directory = 4096 + leaves_ * 16 + layers_.size() * 16 + object_bytes_ + stamps_.size() * 64;
  const uint64_t directory_extents = (directory >> layout_.extent_shift()) + 1;
  return kCopies * (page_extents + 1 + directory_extents);
}

// For what makes the maps or the directory larger and takes no extent by itself.
bool PoolCore::has_metadata_room() const {
  return allocator_.free() + freed_.size() > metadata_reserve() + 2 * kCopies;
}

uint64_t PoolCore::reserved_extents(const Object& object) const {
  if (!object.state.is_thick) return 0;
  const uint64_t wanted = extent_count(object.state.size_bytes);
  return wanted - std::min(wanted, object.layer->places);
}

uint64_t PoolCore::reserved_extents() const {
  if (thick_objects_ == 0) return 0;
  uint64_t sum = 0;
  for (const auto& [id, object] : objects_) sum += reserved_extents(*object);
  return sum;
}

PoolStatistics PoolCore::statistics() const {
  const auto bytes = [&](uint64_t extents) { return extents << layout_.extent_shift(); };
  const uint64_t reserved = std::min<uint64_t>(metadata_reserve() + reserved_extents(), allocator_.free());
  const uint64_t releasing = freed_.size() + releasing_;
  const uint64_t used = allocator_.total() - allocator_.free() - releasing;
  uint64_t bad_superblocks = 0;
  for (const SuperblockPlaces& places : superblock_places_) bad_superblocks += places.bad();
  return {.capacity_bytes = bytes(allocator_.total()),
          .used_bytes = bytes(used),
          .free_bytes = bytes(allocator_.free() - reserved),
          .reserved_bytes = bytes(reserved),
          .releasing_bytes = bytes(releasing),
          .metadata_bytes = bytes(used - std::min(used, mapped_)),
          .cache_bytes = cache_bytes_,
          .journal_used_bytes = journal_->used_bytes(),
          .checkpoints = checkpoints_,
          .repaired_copies = repaired_copies_,
          .bad_superblocks = bad_superblocks};
}

void PoolCore::watch_room() {
  const uint64_t used = 100 - uint64_t{100} * allocator_.free() / allocator_.total();
  uint32_t level = 0;
  if (used >= options_.warn_percent) level = options_.warn_percent;
  if (used >= options_.critical_percent) level = options_.critical_percent;
  if (level > room_alarm_percent_) {
    log_warn("pool.filling", {{"pool", superblock_.name}, {"used_percent", used}, {"threshold_percent", level}});
  }
  // Told again only after some room came back.
  if (level > room_alarm_percent_ || used + 2 < room_alarm_percent_) room_alarm_percent_ = level;
}

Task<void> PoolCore::drain_shards() {
  for (const std::unique_ptr<ShardSide>& side : sides_) {
    co_await call_on(reactor(), side->shard.reactor, drain_on(*side));
  }
}

// Places whose records are on stable storage, when nobody can be reading there, are free.
Task<Result<void>> PoolCore::release_freed() {
  const Mutex::Guard guard = co_await releasing_lock_.lock();
  std::vector<Place> places;
  Sequence last;
  for (const Freed& each : std::exchange(freed_, {})) {
    places.push_back(each.place);
    last = std::max(last, each.sequence);
  }
  releasing_ = places.size();
  const auto parts = std::exchange(retired_parts_, {});
  std::vector<std::unique_ptr<MapPage>> pages;
  if (views_changing_ == 0) {
    const auto done =
        std::ranges::partition(retired_pages_, [](const auto& page) { return page->is_being_checkpointed; });
    std::ranges::move(done, std::back_inserter(pages));
    retired_pages_.erase(done.begin(), done.end());
  }
  const auto views = std::exchange(retired_views_, {});
  if (journal_->durable() < last) {
    if (const Result<void> synced = co_await journal_->sync(); !synced) {
      for (const Place place : places) freed_.push_back({place, last});
      releasing_ = 0;
      co_return synced;
    }
  }
  co_await drain_shards();
  co_await discard(places);
  for (const Place place : places) allocator_.release(place);
  releasing_ = 0;
  watch_room();
  co_return Result<void>();
}

// The disks are told, in runs.
Task<void> PoolCore::discard(std::vector<Place> places) {
  std::ranges::sort(places);
  for (size_t i = 0; i < places.size();) {
    const Layout::Location at = layout_.locate(places[i]);
    uint64_t length = layout_.extent_bytes();
    for (++i; i < places.size(); ++i, length += layout_.extent_bytes()) {
      const Layout::Location next = layout_.locate(places[i]);
      if (next.disk != at.disk || next.offset != at.offset + length) break;
    }
    (void)co_await block_discard(reactor(), home().disk(at.disk), ByteOffset(at.offset), length);
  }
}

// Changes that nobody flushes do not stay in caches for long; and what was given up comes back in lots.
Task<void> PoolCore::sync_loop() {
  while (true) {
    co_await sync_wanted_.wait();
    (void)co_await sleep(reactor(), options_.sync_interval, stopping_);
    if (stopping_.is_cancelled()) co_return;
    sync_wanted_.reset();
    (void)co_await flush();
  }
}

Task<void> PoolCore::reclaim_loop() {
  while (true) {
    if (stopping_.is_cancelled()) co_return;
    if (!reclaim_wanted_.is_set()) {
      is_idle_ = true;
      reclaim_progress_.release_waiters();
      co_await reclaim_wanted_.wait();
      continue;
    }
    is_idle_ = false;
    reclaim_wanted_.reset();
    Result<bool> more = true;
    while (more && *more && !stopping_.is_cancelled()) more = co_await reclaim_one();
    Result<void> released;
    if (more && !freed_.empty() + !retired_pages_.empty() + !retired_parts_.empty() > 0) {
      released = co_await release_freed();
    }
    if (!more || !released) {
      reclaim_error_ = more ? released.error() : more.error();
      log_warn("pool.reclaim_waits", {{"pool", superblock_.name}, {"error", to_string(*reclaim_error_)}});
      reclaim_progress_.release_waiters();
      (void)co_await sleep(reactor(), options_.sync_interval, stopping_);
      if (!journal_->failure()) reclaim_wanted_.set();
    }
  }
}

Task<Result<void>> PoolCore::settle() {
  reclaim_error_.reset();
  reclaim_wanted_.set();
  is_idle_ = false;
  while (!is_idle_) {
    co_await reclaim_progress_.wait();
    if (reclaim_error_) co_return std::unexpected(*reclaim_error_);
  }
  co_return Result<void>();
}

// One step: a removed layer's places, or a layer that no object needs. False: nothing is left to do.
Task<Result<bool>> PoolCore::reclaim_one() {
  if (!dying_.empty()) {
    const std::unique_ptr<Layer>& layer = dying_.front();
    FL_CO_TRY_VOID(co_await empty_dying(*layer));
    dying_.pop_front();
    co_return true;
  }
  for (const auto& [id, layer] : layers_) {
    if (layer->object != nullptr) continue;
    if (layer->children == 0) {
      const LayerId gone = layer->id;
      const Mutex::Guard guard = co_await administration_.lock();  // whoever asks about layers holds it
      std::vector<Record> records;
      records.emplace_back(LayerRemoval{gone});
      FL_CO_TRY_VOID(co_await journal_->write(std::move(records)));
      co_return true;
    }
    if (layer->children > 1) continue;
    const auto child =
        std::ranges::find_if(layers_, [&](const auto& each) { return each.second->parent == layer.get(); });
    FL_CO_TRY_VOID(co_await merge_into_child(*layer, *child->second));
    co_return true;
  }
  co_return false;
}

// The records say that the layer is gone; its map says what it had.
Task<Result<void>> PoolCore::empty_dying(Layer& layer) {
  while (!layer.leaves.empty()) {
    const uint32_t leaf = layer.leaves.back().leaf;
    FL_CO_TRY(PagePin pin, co_await page(layer, leaf));
    for (size_t index = 0; index < kEntriesPerPage; ++index) {
      const Place place = pin->own(index).place;
      if (place.value == 0) continue;
      freed_.push_back({place, journal_->applied()});
      --mapped_;
    }
    pin = PagePin();
    co_await drop_leaf(layer, leaf);
    if (freed_.size() >= kEntriesPerPage) FL_CO_TRY_VOID(co_await release_freed());
  }
  co_return Result<void>();
}

// Not while a checkpoint may be storing the page.
Task<void> PoolCore::drop_leaf(Layer& layer, uint32_t leaf) {
  const Mutex::Guard guard = co_await checkpointing_.lock();
  if (MapPage* const page = find_page(layer.id, leaf); page != nullptr) remove_page(*page);
  LeafRef* const ref = layer.find(leaf);
  if (ref->address != kNoAddress) unused_pages_.push_back(ref->address);
  layer.leaves.erase(layer.leaves.begin() + (ref - layer.leaves.data()));
  --leaves_;
}

// A deleted snapshot with one heir: what the heir has not got itself it gets, the rest is free. Whoever takes snapshots
// or clones meanwhile may do so between two extents.
Task<Result<void>> PoolCore::merge_into_child(Layer& layer, Layer& child) {
  while (!layer.leaves.empty()) {
    const uint32_t leaf = layer.leaves.back().leaf;
    for (size_t index = 0; index < kEntriesPerPage; ++index) {
      const Mutex::Guard guard = co_await administration_.lock();
      if (!is_only_heir(layer, child)) co_return Result<void>();
      if (stopping_.is_cancelled()) co_return fail(Code::kShuttingDown);
      FL_CO_TRY_VOID(co_await merge_extent(layer, child, leaf, index));
    }
    co_await drop_leaf(layer, leaf);
  }
  const Mutex::Guard guard = co_await administration_.lock();
  if (!is_only_heir(layer, child)) co_return Result<void>();
  std::vector<Record> records;
  records.emplace_back(LayerRecord{child.id, layer.parent == nullptr ? LayerId() : layer.parent->id});
  records.emplace_back(LayerRemoval{layer.id});
  co_return co_await journal_->write(std::move(records));
}

bool PoolCore::is_only_heir(const Layer& layer, const Layer& child) {
  return layer.object == nullptr && layer.children == 1 && child.parent == &layer;
}

Task<Result<void>> PoolCore::merge_extent(Layer& layer, Layer& child, uint32_t leaf, size_t index) {
  FL_CO_TRY(const PagePin from, co_await page(layer, leaf));
  const Entry old = from->own(index);
  if (old.is_absent()) co_return Result<void>();
  const ExtentIndex extent(leaf * static_cast<uint32_t>(kEntriesPerPage) + static_cast<uint32_t>(index));
  const ExtentLocks::Lock lock = co_await locks_.lock(child.id, extent, UnitSet::all());
  FL_CO_TRY(const PagePin to, co_await page(child, leaf));
  Entry heir = lock->entry ? *lock->entry : to->own(index);
  const UnitSet wanted = old.held - heir.held;
  if (heir.is_absent()) {
    heir = old;
  } else if (wanted.any()) {
    FL_CO_TRY(heir, co_await inherit(heir, old, wanted));
    probe(Probe::kPoolMergeCopied);
  }
  // A hole hides what is further up; with nothing up there it says nothing.
  if (heir.place.value == 0 && layer.parent == nullptr) heir.held = {};
  lock->entry = heir;
  std::vector<Record> records;
  records.emplace_back(EntryRecord{child.id, extent, heir});
  records.emplace_back(EntryRecord{layer.id, extent, Entry{}});
  co_return co_await journal_->write(std::move(records));
}

// The heir has some units of the extent itself and gets the others copied.
Task<Result<Entry>> PoolCore::inherit(Entry heir, Entry old, UnitSet wanted) {
  if (heir.place.value == 0) {
    // Zeroes of its own above data that it inherits: the place comes along, and the zeroes are written there.
    FL_CO_TRY_VOID(co_await zero_units(old.place, heir.held));
    co_return Entry{
        .place = old.place, .stamp = std::max(heir.stamp, old.stamp), .held = layout_.normal(heir.held | old.held)};
  }
  if (old.place.value == 0) {
    FL_CO_TRY_VOID(co_await zero_units(heir.place, wanted));
  } else {
    FL_CO_TRY_VOID(co_await copy_units(old.place, heir.place, wanted));
  }
  heir.held = layout_.normal(heir.held | wanted);
  heir.stamp = std::max(heir.stamp, old.stamp);
  co_return heir;
}

Task<Result<void>> PoolCore::zero_units(Place place, UnitSet units) {
  if (place.value == 0) co_return Result<void>();
  const Layout::Location at = layout_.locate(place);
  const uint32_t shift = layout_.unit_shift();
  for (size_t first = units.next(0); first < layout_.units();) {
    const size_t end = std::min<size_t>(units.next_missing(first), layout_.units());
    FL_CO_TRY_VOID(co_await block_write_zeroes(reactor(), home().disk(at.disk),
                                               ByteOffset(at.offset + (first << shift)), (end - first) << shift));
    first = units.next(end);
  }
  co_return Result<void>();
}

Task<Result<void>> PoolCore::copy_units(Place from, Place to, UnitSet units) {
  const Layout::Location source = layout_.locate(from);
  const Layout::Location sink = layout_.locate(to);
  const uint32_t shift = layout_.unit_shift();
  Buffer memory = co_await buffer(std::max<uint64_t>(kCopyBytes, layout_.unit_bytes()));
  const size_t most = memory.capacity() >> shift;
  for (size_t first = units.next(0); first < layout_.units();) {
    const size_t end = std::min<size_t>({units.next_missing(first), layout_.units(), first + most});
    iovec piece{memory.data(), (end - first) << shift};
    FL_CO_TRY_VOID(co_await block_read(reactor(), home().disk(source.disk),
                                       ByteOffset(source.offset + (first << shift)), {&piece, 1}));
    FL_CO_TRY_VOID(co_await block_write(reactor(), home().disk(sink.disk), ByteOffset(sink.offset + (first << shift)),
                                        {&piece, 1}));
    first = units.next(end);
  }
  co_return Result<void>();
}

}  // namespace fairlead::pool
