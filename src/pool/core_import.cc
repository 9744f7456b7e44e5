// From what the disks hold to a pool that runs; and more room while it does.
#include <algorithm>

#include "async/call.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "base/log.h"
#include "pool/core.h"
#include "pool/journal_reader.h"

namespace fairlead::pool {
namespace {

constexpr size_t kRunPages = 32;  // of map pages that are read at once

Task<void> show_layout_on(ShardSide& side, Layout layout) {
  side.layout = std::move(layout);
  co_return;
}
Task<Result<uint64_t>> refresh_size_on(ShardSide& side, uint16_t disk) { co_return side.disk(disk).refresh_size(); }

Task<Result<void>> open_on(ShardSide& side, std::shared_ptr<BlockSource> source) {
  FL_CO_TRY(std::unique_ptr<BlockDevice> device, source->open(side.shard));
  side.disks.push_back(std::move(device));
  co_return Result<void>();
}
Task<void> drop_on(std::unique_ptr<ShardSide> side) {
  side.reset();
  co_return;
}

}  // namespace

Task<Result<void>> PoolCore::open_on_others(std::shared_ptr<BlockSource> source) {
  for (const std::unique_ptr<ShardSide>& side : sides_) {
    if (side == sides_.front()) continue;
    FL_CO_TRY_VOID(co_await call_on(reactor(), side->shard.reactor, open_on(*side, source)));
  }
  co_return Result<void>();
}

// Checkpoints go on: what is to be stopped may be waiting for room in the journal.
Task<void> PoolCore::stop_background() {
  stopping_.cancel();
  reclaim_wanted_.set();
  sync_wanted_.set();
  co_await scope_.close();
}

// What lives on other shards dies there.
Task<void> PoolCore::abandon() {
  co_await stop_background();
  is_ending_ = true;
  checkpoint_wanted_.set();
  co_await checkpointer_.close();
  if (journal_ != nullptr) co_await journal_->close();
  while (sides_.size() > 1) {
    std::unique_ptr<ShardSide> side = std::move(sides_.back());
    sides_.pop_back();
    Reactor& there = side->shard.reactor;
    co_await call_on(reactor(), there, drop_on(std::move(side)));
  }
}

JournalAreas PoolCore::journal_areas() const {
  JournalAreas areas;
  for (size_t copy = 0; copy < kCopies; ++copy) {
    areas.devices[copy] = &home().disk(superblock_.journal[copy].disk);
    areas.offsets[copy] = superblock_.journal[copy].offset;
  }
  areas.bytes = superblock_.journal_bytes;
  return areas;
}

Journal::Cache PoolCore::cache_kind() const {
  const bool is_volatile = std::ranges::any_of(
      home().disks, [](const std::unique_ptr<BlockDevice>& disk) { return disk->geometry().volatile_cache; });
  return is_volatile ? Journal::Cache::kVolatile : Journal::Cache::kNone;
}

void PoolCore::open_journal(const JournalMark& tail, const JournalMark& head, Sequence durable) {
  journal_ = std::make_unique<Journal>(reactor(), *this,
                                       Journal::Options{.areas = journal_areas(),
                                                        .tail = tail,
                                                        .start = head,
                                                        .durable = durable,
                                                        .incarnation = superblock_.incarnation,
                                                        .cache = cache_kind()});
}

Task<Result<void>> PoolCore::format() {
  open_journal({}, {}, Sequence());
  const Mutex::Guard guard = co_await checkpointing_.lock();
  co_return co_await checkpoint_up_to({});
}

Task<Result<void>> PoolCore::load(Uuid boot_id, std::vector<Progress> seen) {
  FL_CO_TRY(Directory directory, co_await read_directory());
  FL_CO_TRY_VOID(restore(std::move(directory)));
  FL_CO_TRY_VOID(co_await replay(boot_id));
  const auto is_newer = [&](const Progress& known) {
    return known.pool == superblock_.pool_id && known.batch > journal_->applied().value;
  };
  if (std::ranges::any_of(seen, is_newer)) {
    co_return fail(
        Code::kInvalidArgument,
        "its disks hold an older state than it was seen in: put the newer ones back, or have its replicas made "
        "anew on blank disks; if nothing else has the data, fairlead offline pool accept takes it as it is");
  }
  FL_CO_TRY_VOID(co_await account_places());
  // What was read is on stable storage before anything is built on it: batches that only a cache holds would otherwise
  // be dropped by the next import, whose pool would still think it has the places that they gave up.
  FL_CO_TRY_VOID(co_await journal_->sync());
  co_await journal_->close();
  // What a crash left one generation apart must not become two apart by another one.
  const bool is_level = std::ranges::all_of(
      superblock_places_, [&](const SuperblockPlaces& places) { return places.is_complete(superblock_.generation); });
  if (!is_level) FL_CO_TRY_VOID(co_await store_superblocks(superblock_));
  superblock_.incarnation = home().shard.random.next();
  superblock_.boot_id = boot_id;
  superblock_.is_exported = false;
  const JournalMark mark{journal_->mark().next, 0, 0};
  {
    const Mutex::Guard guard = co_await checkpointing_.lock();
    FL_CO_TRY_VOID(co_await checkpoint_up_to(mark));
  }
  open_journal(mark, mark, Sequence(mark.next.value - 1));
  evict();
  checkpointer_.spawn(checkpoint_loop());
  scope_.spawn(reclaim_loop());
  scope_.spawn(sync_loop());
  reclaim_wanted_.set();
  co_return Result<void>();
}

Task<Result<Directory>> PoolCore::read_directory() {
  Error error{Code::kCorrupt, 0, "both copies of the directory are damaged"};
  for (size_t copy = 0; copy < kCopies; ++copy) {
    std::vector<std::byte> bytes;
    bytes.reserve(superblock_.directory_bytes);
    Buffer memory = co_await buffer(kPageBytes * kRunPages);
    Result<void> read;
    while (bytes.size() < superblock_.directory_bytes && read) {
      const uint64_t within = bytes.size() & (layout_.extent_bytes() - 1);
      const uint64_t left = superblock_.directory_bytes - bytes.size();
      const uint64_t length = std::min({kPageBytes * kRunPages, layout_.extent_bytes() - within, left});
      const Layout::Location at = layout_.locate(superblock_.directory[copy][bytes.size() >> layout_.extent_shift()]);
      iovec piece{memory.data(), align_up(length, kPageBytes)};
      read = co_await block_read(reactor(), home().disk(at.disk), ByteOffset(at.offset + within), {&piece, 1});
      bytes.insert(bytes.end(), memory.data(), memory.data() + length);
    }
    if (!read) {
      error = read.error();
    } else if (crc32c(bytes) == superblock_.directory_crc) {
      if (copy > 0) ++repaired_copies_;
      co_return decode_directory(bytes);
    }
  }
  co_return std::unexpected(error);
}

Result<void> PoolCore::restore(Directory directory) {
  if (directory.pool_id != superblock_.pool_id) return fail(Code::kCorrupt, "the directory is of another pool");
  next_layer_ = directory.next_layer;
  next_stamp_ = directory.next_stamp;
  stamps_ = std::move(directory.stamps);
  const auto claim = [&](Place place) { return layout_.contains(place) && allocator_.mark_used(place); };
  for (const std::vector<Place>& copy : superblock_.directory) {
    if (!std::ranges::all_of(copy, claim)) return fail(Code::kCorrupt, "the directory's extents are not its own");
  }
  for (const PageExtent& extent : directory.page_extents) {
    if (extent.places[0].value == 0) continue;
    if (!std::ranges::all_of(extent.places, claim))
      return fail(Code::kCorrupt, "an extent of map pages has two owners");
  }
  pages_.restore(std::move(directory.page_extents));
  for (LayerState& state : directory.layers) {
    auto layer = std::make_unique<Layer>();
    layer->id = state.id;
    layer->leaves = std::move(state.leaves);
    for (const LeafRef& ref : layer->leaves) {
      if (!pages_.mark_used(ref.address)) return fail(Code::kCorrupt, "a map page has two owners, or no place");
      layer->places += ref.places;
    }
    mapped_ += layer->places;
    leaves_ += layer->leaves.size();
    layers_.emplace(state.id.value, std::move(layer));
  }
  for (const LayerState& state : directory.layers) {
    Layer& layer = *layers_.at(state.id.value);
    layer.parent = find_layer(state.parent);
    if (layer.parent != nullptr) ++layer.parent->children;
  }
  is_replaying_ = true;
  for (ObjectState& state : directory.objects) apply_record(ObjectRecord{std::move(state)});
  return {};
}

// Twice: which batches count is known at the end only.
Task<Result<void>> PoolCore::replay(const Uuid& boot_id) {
  const JournalMark start{superblock_.next_sequence, superblock_.journal_position, superblock_.chain};
  JournalMark head = start;
  Sequence durable(start.next.value - 1);
  Sequence last = durable;
  if (!superblock_.is_exported) {
    JournalReader reader(reactor(), journal_areas(), start, superblock_.incarnation);
    while (true) {
      FL_CO_TRY(const std::optional<JournalBatch> batch, co_await reader.next());
      if (!batch) break;
      last = batch->header.sequence;
      durable = std::max(durable, batch->header.durable);
    }
    repaired_copies_ += reader.damaged_copies();
    // The power was cut: only what a flush covered can be relied on, all of it and its data.
    if (boot_id != superblock_.boot_id && durable < last) {
      probe(Probe::kPoolTailDropped);
      last = durable;
    }
  }
  JournalReader reader(reactor(), journal_areas(), start, superblock_.incarnation);
  while (head.next <= last) {
    FL_CO_TRY(const std::optional<JournalBatch> batch, co_await reader.next());
    if (!batch) co_return fail(Code::kIo, "the journal reads differently the second time");
    for (const Record& record : batch->records) {
      FL_CO_TRY_VOID(check_applies(record));
      FL_CO_TRY_VOID(co_await bring_in_for(record));
      apply(batch->header.sequence, {&record, 1});
    }
    head = batch->after;
  }
  is_replaying_ = false;
  open_journal(start, head, std::min(durable, last));
  co_return Result<void>();
}

// Records of a batch that is whole are ours; that they fit the state is checked all the same.
Result<void> PoolCore::check_applies(const Record& record) {
  const auto known = [&](LayerId id) { return find_layer(id) != nullptr; };
  bool fits = true;
  if (const auto* const entry = std::get_if<EntryRecord>(&record)) {
    fits = known(entry->layer) && (entry->entry.place.value == 0 || layout_.contains(entry->entry.place)) &&
           entry->extent.value < kExtentsMax;
  } else if (const auto* const restamp = std::get_if<RestampRecord>(&record)) {
    fits = known(restamp->layer);
  } else if (const auto* const layer = std::get_if<LayerRecord>(&record)) {
    fits = layer->parent.value == 0 || known(layer->parent);
    for (const Layer* above = find_layer(layer->parent); above != nullptr; above = above->parent) {
      fits = fits && above->id != layer->layer;
    }
  } else if (const auto* const removal = std::get_if<LayerRemoval>(&record)) {
    const Layer* const found = find_layer(removal->layer);
    fits = found != nullptr && found->children == 0 && found->object == nullptr;
  } else if (const auto* const object = std::get_if<ObjectRecord>(&record)) {
    const Layer* const found = find_layer(object->object.layer);
    const Object* const same_name = find_object(object->object.name);
    fits = found != nullptr && (same_name == nullptr || same_name->state.id == object->object.id);
  } else if (const auto* const gone = std::get_if<ObjectRemoval>(&record)) {
    fits = objects_.contains(gone->id);
  } else if (const auto* const stamp = std::get_if<StampRecord>(&record)) {
    fits = stamp->ordinal.value >= next_stamp_;
  }
  return fits ? Result<void>() : fail(Code::kCorrupt, "a record of the journal does not fit what was before it");
}

Task<Result<void>> PoolCore::bring_in_for(const Record& record) {
  if (const auto* const entry = std::get_if<EntryRecord>(&record)) {
    co_return co_await bring_in(layer(entry->layer), entry->extent.value / static_cast<uint32_t>(kEntriesPerPage));
  }
  if (const auto* const restamp = std::get_if<RestampRecord>(&record)) {
    co_return co_await bring_in(layer(restamp->layer), restamp->first.value / static_cast<uint32_t>(kEntriesPerPage));
  }
  co_return Result<void>();
}

// Which places are in use is in the maps and nowhere else: all of them are read, in the order in which they lie. Both
// copies, so that what one of them has lost is mended while the other is there.
Task<Result<void>> PoolCore::account_places() {
  std::vector<StoredLeaf> stored;
  for (const auto& [id, layer] : layers_) {
    for (const LeafRef& ref : layer->leaves) {
      if (const MapPage* const page = find_page(layer->id, ref.leaf); page != nullptr) {
        FL_CO_TRY_VOID(claim_places(*page));
      } else {
        stored.push_back({layer.get(), ref});
      }
    }
  }
  std::ranges::sort(stored, {}, [](const StoredLeaf& leaf) { return leaf.ref.address; });
  for (size_t first = 0; first < stored.size();) {
    size_t end = first + 1;
    while (end < stored.size() && end - first < kRunPages &&
           stored[end].ref.address == stored[first].ref.address + end - first &&
           stored[end].ref.address % layout_.pages_per_extent() != 0) {
      ++end;
    }
    FL_CO_TRY_VOID(co_await account_run(std::span(stored).subspan(first, end - first)));
    first = end;
  }
  co_return Result<void>();
}

// Requires: the pages lie one after the other.
Task<Result<void>> PoolCore::account_run(std::span<const StoredLeaf> run) {
  std::array<Buffer, kCopies> memory;
  std::array<bool, kCopies> is_read{};
  Error error{Code::kCorrupt, 0, "both copies of a map page are damaged"};
  for (size_t copy = 0; copy < kCopies; ++copy) {
    memory[copy] = co_await buffer(kRunPages * kMapPageBytes);
    const PageStore::Where where = pages_.locate(run.front().ref.address, copy);
    const Layout::Location at = layout_.locate(where.place);
    iovec piece{memory[copy].data(), run.size() * kMapPageBytes};
    const Result<void> read =
        co_await block_read(reactor(), home().disk(at.disk), ByteOffset(at.offset + where.offset), {&piece, 1});
    is_read[copy] = read.has_value();
    if (!read) error = read.error();  // what could not be read need not be damaged
  }
  for (size_t i = 0; i < run.size(); ++i) {
    size_t good = kCopies;
    size_t bad = 0;
    for (size_t copy = 0; copy < kCopies; ++copy) {
      const std::span<const std::byte> bytes(memory[copy].data() + i * kMapPageBytes, kMapPageBytes);
      if (is_read[copy] && crc32c(bytes) == run[i].ref.crc) {
        good = copy;
      } else {
        ++bad;
      }
    }
    if (good == kCopies) co_return std::unexpected(error);
    const auto page = std::make_unique<MapPage>(run[i].layer->id, run[i].ref.leaf);
    if (!page->decode(std::span<const std::byte, kMapPageBytes>(memory[good].data() + i * kMapPageBytes, kMapPageBytes),
                      layout_.extents())) {
      co_return fail(Code::kCorrupt, "a map page names no extent");
    }
    FL_CO_TRY_VOID(claim_places(*page));
    if (bad == 0) continue;
    ++repaired_copies_;
    probe(Probe::kPoolRepairedCopy);
    FL_CO_TRY_VOID(co_await bring_in(*run[i].layer, run[i].ref.leaf));
    find_page(run[i].layer->id, run[i].ref.leaf)->is_dirty = true;  // the checkpoint that follows writes both
  }
  co_return Result<void>();
}

Result<void> PoolCore::claim_places(const MapPage& page) {
  for (size_t index = 0; index < kEntriesPerPage; ++index) {
    const Place place = page.own(index).place;
    if (place.value != 0 && !allocator_.mark_used(place)) return fail(Code::kCorrupt, "an extent has two owners");
  }
  return {};
}

// Every shard sees the new segments before a place in them is given out.
Task<Result<void>> PoolCore::extend(Superblock wider) {
  Result<void> outcome;
  {
    const Mutex::Guard guard = co_await checkpointing_.lock();
    // Checkpoints that came between have moved the rest on.
    Superblock next = superblock_;
    next.disks = std::move(wider.disks);
    next.segments = std::move(wider.segments);
    wider = std::exchange(superblock_, std::move(next));
    outcome = co_await checkpoint_up_to(journal_->mark());
    if (!outcome) std::swap(superblock_, wider);
  }
  FL_CO_TRY_VOID(outcome);
  layout_ = Layout(superblock_);
  for (const std::unique_ptr<ShardSide>& side : sides_) {
    co_await call_on(reactor(), side->shard.reactor, show_layout_on(*side, layout_));
  }
  allocator_.grow(layout_);
  co_return outcome;
}

Task<Result<uint64_t>> PoolCore::grow() {
  const Mutex::Guard guard = co_await administration_.lock();
  Superblock wider = superblock_;
  uint64_t gained = 0;
  for (uint16_t disk = 0; disk < wider.disks.size(); ++disk) {
    uint64_t size = ~uint64_t{0};
    for (const std::unique_ptr<ShardSide>& side : sides_) {
      FL_CO_TRY(const uint64_t seen, co_await call_on(reactor(), side->shard.reactor, refresh_size_on(*side, disk)));
      size = std::min(size, seen);
    }
    if (size <= wider.disks[disk].size_bytes) continue;
    FL_CO_TRY(const uint32_t extents, add_segment(wider, disk, size));
    gained += uint64_t{extents} << layout_.extent_shift();
  }
  if (gained == 0) co_return gained;
  FL_CO_TRY_VOID(co_await extend(std::move(wider)));
  co_return gained;
}

Task<Result<void>> PoolCore::add_disk(std::shared_ptr<BlockSource> source, std::unique_ptr<BlockDevice> device) {
  const Mutex::Guard guard = co_await administration_.lock();
  Superblock wider = superblock_;
  const auto disk = static_cast<uint16_t>(wider.disks.size());
  const uint64_t size = device->geometry().size_bytes;
  wider.disks.push_back({home().shard.random.uuid(), 0});
  FL_CO_TRY(const uint32_t extents, add_segment(wider, disk, size));
  if (extents == 0) co_return fail(Code::kNoSpace, "the disk is too small");
  if (disk == kDisksMax) co_return fail(Code::kResourceExhausted, "a pool has 32 disks at most");
  if (home().disks.size() > disk) co_return fail(Code::kBusy, "a disk could not be added: import the pool again first");
  home().disks.push_back(std::move(device));
  FL_CO_TRY_VOID(co_await open_on_others(std::move(source)));
  co_return co_await extend(std::move(wider));
}

Task<Result<void>> PoolCore::close() {
  for (const auto& [id, object] : objects_) {
    if (co_await is_open(*object)) co_return fail(Code::kBusy, "a replica or snapshot of the pool is served");
  }
  co_await stop_background();
  Result<void> outcome = co_await flush();
  if (outcome) {
    superblock_.is_exported = true;
    outcome = co_await checkpoint();
  }
  co_await abandon();
  co_return outcome;
}

}  // namespace fairlead::pool
