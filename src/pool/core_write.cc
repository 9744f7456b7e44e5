// What changes a replica's content and its map: first writes, copy-on-write, unmapping. On the home shard.
#include <algorithm>

#include "base/defect.h"
#include "block/zeroes.h"
#include "pool/core.h"
#include "pool/io_pieces.h"

namespace fairlead::pool {
namespace {

// What it found in the maps may be read from the disk as long as this lives. Not across allocate(), which may wait for
// everyone to leave.
class Inside {
 public:
  explicit Inside(Epochs& epochs) : epochs_(epochs), epoch_(epochs.enter()) {}
  ~Inside() { epochs_.leave(epoch_); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Epochs& epochs_;
  const uint8_t epoch_;
};

uint32_t leaf_of(ExtentIndex extent) { return extent.value / static_cast<uint32_t>(kEntriesPerPage); }
size_t index_of(ExtentIndex extent) { return extent.value % kEntriesPerPage; }
bool is_hole(const Entry& entry) { return entry.place.value == 0 && entry.held.any(); }

// The entry as it will be when all that was appended is applied.
Entry latest(const ExtentLocks::Lock& lock, const MapPage& page, size_t index) {
  return lock->entry ? *lock->entry : page.own(index);
}

// Where a unit that the layer does not hold is. 0: zeroes.
Place below(const MapPage& page, size_t index, uint32_t unit) {
  const ShownEntry shown = page.load(index);
  if (shown.is_borrowed && shown.entry.held.has(unit)) return shown.entry.place;
  return find_lower(page.lower(index), unit);
}

bool has_anything_below(const MapPage& page, size_t index, uint32_t first, uint32_t end) {
  for (uint32_t unit = first; unit < end; ++unit) {
    if (below(page, index, unit).value != 0) return true;
  }
  return false;
}

// Of what was read below; no buffer: zeroes.
iovec edge(const Buffer& memory, size_t skip, size_t length) {
  return {memory ? memory.data() + skip : zeroes(length).data(), length};
}

Task<void> append_later(Journal& journal, std::vector<Record> records) {
  (void)co_await journal.write(std::move(records));
}

}  // namespace

// A write's part in one extent.
struct PoolCore::Piece {
  ExtentIndex extent;
  uint32_t begin = 0;  // bytes in the extent
  uint32_t end = 0;
  std::vector<iovec> buffers;
  // Of the edges, where the write covers units in part that the layer does not have.
  Buffer head;
  Buffer tail;
  uint32_t from = 0;  // bytes in the extent, with the edges
  uint32_t to = 0;
};

Task<Result<void>> PoolCore::flush() {
  FL_CO_TRY_VOID(co_await journal_->sync());
  note_durable();
  co_return Result<void>();
}

void PoolCore::note_durable() {
  durable_.store(journal_->durable().value, std::memory_order_release);
  if (!journal_->is_dirty()) is_dirty_.store(false, std::memory_order_release);
}

Task<Buffer> PoolCore::buffer(size_t length) {
  BufferPool& pool = home().shard.buffers;
  if (Buffer memory = pool.try_allocate(buffers_, length)) co_return memory;
  struct Wait : BufferWaiter {
    Wait() : BufferWaiter([](Runnable& self) { static_cast<Wait&>(self).caller.resume(); }) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
      caller = handle;
      from->wait(*this, *account, wanted);
    }
    Buffer await_resume() { return std::move(buffer); }
    std::coroutine_handle<> caller;
    BufferPool* from = nullptr;
    BufferAccount* account = nullptr;
    size_t wanted = 0;
  };
  Wait wait;
  wait.from = &pool;
  wait.account = &buffers_;
  wait.wanted = length;
  co_return co_await wait;
}

Task<Result<void>> PoolCore::write(Object& object, const IoRequest& request) {
  const uint64_t begin = request.offset.value;
  const uint64_t end = begin + request.length;
  if (request.op != IoOp::kWrite) {
    FL_CO_TRY_VOID(co_await zero_range(object, begin, end, request.op));
  } else {
    for (uint64_t at = begin; at < end;) {
      const uint64_t next = std::min(end, align_down(at, layout_.extent_bytes()) + layout_.extent_bytes());
      Piece piece;
      piece.extent = ExtentIndex(static_cast<uint32_t>(at >> layout_.extent_shift()));
      piece.begin = static_cast<uint32_t>(at & (layout_.extent_bytes() - 1));
      piece.end = piece.begin + static_cast<uint32_t>(next - at);
      slice_buffers(request.buffers, at - begin, next - at, piece.buffers);
      FL_CO_TRY_VOID(co_await write_extent(object, std::move(piece)));
      at = next;
    }
  }
  if (request.durability == Durability::kForced) co_return co_await flush();
  co_return Result<void>();
}

Task<Result<void>> PoolCore::write_extent(Object& object, Piece piece) {
  Layer& layer = *object.layer;
  const uint32_t shift = layout_.unit_shift();
  const uint32_t first = piece.begin >> shift;
  const uint32_t last = (piece.end - 1) >> shift;
  const size_t index = index_of(piece.extent);
  FL_CO_TRY(const PagePin pin, co_await page(layer, leaf_of(piece.extent)));

  UnitSet units = UnitSet::range(first, last + 1);
  ExtentLocks::Lock lock = co_await locks_.lock(layer.id, piece.extent, units);
  if (is_hole(latest(lock, *pin, index))) {
    units = UnitSet::all();  // the others become zeroes on the disk
    lock.release();
    lock = co_await locks_.lock(layer.id, piece.extent, units);
  }
  FL_CO_TRY(const Place place, co_await place_for_write(object, lock, *pin, index));
  FL_CO_TRY_VOID(co_await stamp_before_write(object, lock, *pin, piece.extent, place));
  Entry now = latest(lock, *pin, index);
  const Layout::Location at = layout_.locate(place);
  if (is_hole(now)) {
    FL_CO_TRY_VOID(co_await block_write_zeroes(reactor(), home().disk(at.disk), ByteOffset(at.offset),
                                               layout_.extent_bytes(), ZeroMode::kMayDeallocate));
  }
  const UnitSet missing = UnitSet::range(first, last + 1) - now.held;
  FL_CO_TRY_VOID(co_await fill_edges(layer, piece, missing));
  FL_CO_TRY_VOID(
      co_await block_write(reactor(), home().disk(at.disk), ByteOffset(at.offset + piece.from), piece.buffers));
  now = latest(lock, *pin, index);
  pin->note_write(index);
  if (now.place == place && now.held.contains(missing)) co_return Result<void>();
  now.place = place;
  now.held = layout_.normal(now.held | missing);
  now.stamp = object.state.stamp;
  lock->place = {};
  co_return co_await append_entry(lock, layer.id, piece.extent, now);
}

// The extent's, or one that was allocated for it and stands in no map yet.
Task<Result<Place>> PoolCore::place_for_write(const Object& object, ExtentLocks::Lock& lock, const MapPage& page,
                                              size_t index) {
  const auto known = [&] {
    const Entry now = latest(lock, page, index);
    return now.place.value != 0 ? now.place : lock->place;
  };
  if (known().value != 0) co_return known();
  const Place before = index == 0 ? Place() : page.own(index - 1).place;
  FL_CO_TRY(const Place place, co_await allocate(object, before.value == 0 ? before : Place(before.value + 1)));
  // Another write to the extent may have been quicker: its place is in the map by now, or on its way there.
  if (const Place quicker = known(); quicker.value != 0) {
    allocator_.release(place);
    co_return quicker;
  }
  lock->place = place;
  co_return place;
}

// The extent has the stamp of today on stable storage before any data is written under it: what a disk's cache loses
// can be told then (docs/internals/replication.md, rule 2).
Task<Result<void>> PoolCore::stamp_before_write(const Object& object, ExtentLocks::Lock& lock, MapPage& page,
                                                ExtentIndex extent, Place place) {
  if (has_defect(Defect::kWritesUnstamped)) co_return Result<void>();
  const StampOrdinal stamp = object.state.stamp;
  const size_t index = index_of(extent);
  Entry now = latest(lock, page, index);
  if (stamp.value == 0) {
    if (now.place.value == 0 || now.stamp == stamp) co_return Result<void>();
    now.stamp = stamp;
    co_return co_await append_entry(lock, object.layer->id, extent, now);
  }
  // What another write has appended may not be applied yet, and only what is applied will be flushed.
  if (page.own(index).stamp != stamp) {
    now.stamp = stamp;
    if (!is_hole(now)) {
      now.place = place;
      lock->place = {};
    }
    lock->entry = now;
    std::vector<Record> records;
    records.emplace_back(EntryRecord{object.layer->id, extent, now});
    std::vector<ExtentLocks::Lock> ahead;
    stamp_ahead(object, page, index, ahead, records);
    FL_CO_TRY_VOID(co_await journal_->write(std::move(records)));
  }
  co_return co_await await_stamp(page, index);
}

// A flush that began when the stamp was in the map is enough: it is no write that has to be on stable storage.
Task<Result<void>> PoolCore::await_stamp(const MapPage& page, size_t index) {
  while (!page.stamps.is_durable(index, journal_->durable())) {
    FL_CO_TRY_VOID(co_await journal_->sync_more());
    note_durable();
  }
  co_return Result<void>();
}

// The other extents of the page that were written in both of the generations before get the stamp of today along with
// the one at `index`, in the same batch: steady writes to them pay for one flush in each generation of a page, not of
// an extent. Those that are a snapshot's since then get a stamp and nothing else. They count as changed though nobody
// may write to them any more, for this one generation. Those that someone uses stamp themselves. The locks are for as
// long as the records are under way.
void PoolCore::stamp_ahead(const Object& object, MapPage& page, size_t index, std::vector<ExtentLocks::Lock>& locks,
                           std::vector<Record>& records) {
  const StampOrdinal stamp = object.state.stamp;
  page.enter_generation(stamp, object.stamp_before);
  const UnitSet hot = page.take_hot();
  const auto extent_at = [&page](size_t i) {
    return ExtentIndex(page.leaf * static_cast<uint32_t>(kEntriesPerPage) + static_cast<uint32_t>(i));
  };
  UnitSet stamped;
  for (size_t i = hot.next(0); i < kEntriesPerPage; i = hot.next(i + 1)) {
    Entry entry = page.own(i);
    const bool is_of_generation = entry.place.value != 0 && entry.stamp.value != 0 && entry.stamp != stamp;
    const bool is_snapshotted = entry.is_absent();
    if (!(is_of_generation || is_snapshotted) || locks_.is_used(page.layer, extent_at(i))) continue;
    locks.push_back(locks_.lock_unused(page.layer, extent_at(i)));
    entry.stamp = stamp;
    locks.back()->entry = entry;
    if (is_snapshotted) {
      records.emplace_back(EntryRecord{page.layer, extent_at(i), entry});
    } else {
      stamped |= UnitSet::range(i, i + 1);
    }
  }
  if (!stamped.any()) return;
  // It has its record already; here it joins the runs on both sides.
  stamped |= UnitSet::range(index, index + 1);
  for_each_run(stamped, kEntriesPerPage, [&](uint32_t first, uint32_t end) {
    if (end - first == 1 && first == index) return;
    records.emplace_back(RestampRecord{page.layer, extent_at(first), end - first, stamp});
  });
}

Task<Result<void>> PoolCore::append_entry(ExtentLocks::Lock& lock, LayerId layer, ExtentIndex extent, Entry entry) {
  lock->entry = entry;
  std::vector<Record> records;
  records.emplace_back(EntryRecord{layer, extent, entry});
  if (has_defect(Defect::kAnswersBeforeRecord)) {
    scope_.spawn(append_later(*journal_, std::move(records)));
    co_return Result<void>();
  }
  co_return co_await journal_->write(std::move(records));
}

// Completes the units that are written in part with what can be read there now.
Task<Result<void>> PoolCore::fill_edges(Layer& layer, Piece& piece, UnitSet missing) {
  const uint32_t shift = layout_.unit_shift();
  const uint32_t unit_bytes = layout_.unit_bytes();
  const uint32_t first = piece.begin >> shift;
  const uint32_t last = (piece.end - 1) >> shift;
  const bool needs_head = missing.has(first) && piece.begin % unit_bytes != 0;
  const bool needs_tail = missing.has(last) && piece.end % unit_bytes != 0;
  piece.from = needs_head ? first << shift : piece.begin;
  piece.to = needs_tail ? (last + 1) << shift : piece.end;
  const uint32_t head = piece.begin - piece.from;
  const uint32_t tail = piece.to - piece.end;
  // Both edges of one unit come with one read.
  const bool is_one = needs_head && needs_tail && first == last;
  if (needs_head) {
    const uint32_t length = is_one ? unit_bytes : head;
    FL_CO_TRY(piece.head, co_await read_below(layer, piece.extent, piece.from, length));
    piece.buffers.insert(piece.buffers.begin(), edge(piece.head, 0, head));
  }
  if (needs_tail) {
    if (!is_one) {
      FL_CO_TRY(piece.tail, co_await read_below(layer, piece.extent, piece.end, tail));
    }
    piece.buffers.push_back(is_one ? edge(piece.head, piece.end - piece.from, tail) : edge(piece.tail, 0, tail));
  }
  co_return Result<void>();
}

// Bytes of one unit that the layer does not hold. An empty buffer: zeroes.
Task<Result<Buffer>> PoolCore::read_below(Layer& layer, ExtentIndex extent, uint32_t begin, uint32_t length) {
  const Inside inside(home().epochs);
  FL_CO_TRY(const PagePin pin, co_await page(layer, leaf_of(extent)));
  const Place place = below(*pin, index_of(extent), begin >> layout_.unit_shift());
  if (place.value == 0) co_return Buffer();
  const Layout::Location at = layout_.locate(place);
  Buffer memory = co_await buffer(length);
  iovec piece{memory.data(), length};
  FL_CO_TRY_VOID(co_await block_read(reactor(), home().disk(at.disk), ByteOffset(at.offset + begin), {&piece, 1}));
  co_return memory;
}

// Unmapping, and writing of zeroes, which is the same where whole units are concerned.

Task<Result<void>> PoolCore::zero_range(Object& object, uint64_t begin, uint64_t end, IoOp op) {
  const uint64_t extent_bytes = layout_.extent_bytes();
  for (uint64_t at = begin; at < end;) {
    const ExtentIndex extent(static_cast<uint32_t>(at >> layout_.extent_shift()));
    if (is_aligned(at, extent_bytes) && end - at >= extent_bytes) {
      const auto index = static_cast<uint32_t>(index_of(extent));
      const uint64_t count = std::min<uint64_t>((end - at) / extent_bytes, kEntriesPerPage - index);
      FL_CO_TRY_VOID(co_await drop_extents(object, leaf_of(extent), index, index + static_cast<uint32_t>(count)));
      at += count * extent_bytes;
      continue;
    }
    const uint64_t next = std::min(end, align_down(at, extent_bytes) + extent_bytes);
    const auto from = static_cast<uint32_t>(at & (extent_bytes - 1));
    FL_CO_TRY_VOID(co_await zero_part(object, extent, from, from + static_cast<uint32_t>(next - at), op));
    at = next;
  }
  co_return Result<void>();
}

// Entries [first, end) of a leaf, wholly.
Task<Result<void>> PoolCore::drop_extents(Object& object, uint32_t leaf, uint32_t first, uint32_t end) {
  Layer& layer = *object.layer;
  if (layer.parent == nullptr && layer.find(leaf) == nullptr && loading_.empty()) {
    if (find_page(layer.id, leaf) == nullptr) co_return Result<void>();
  }
  FL_CO_TRY(PagePin pin, co_await page(layer, leaf));
  std::vector<ExtentLocks::Lock> locks;
  std::vector<Record> records;
  for (uint32_t index = first; index < end; ++index) {
    const ExtentIndex extent(leaf * static_cast<uint32_t>(kEntriesPerPage) + index);
    if (!pin->is_resolved()) {
      FL_CO_TRY(pin, co_await page(layer, leaf));
    }
    const bool is_nothing = pin->load(index).entry.is_absent() && pin->lower(index) == nullptr;
    if (is_nothing && !locks_.is_used(layer.id, extent)) continue;
    ExtentLocks::Lock lock = co_await locks_.lock(layer.id, extent, UnitSet::all());
    const Entry now = latest(lock, *pin, index);
    // With a parent the zeroes must hide what it has.
    const Entry then = {
        .place = {}, .stamp = object.state.stamp, .held = layer.parent == nullptr ? UnitSet() : UnitSet::all()};
    if (then == now) continue;
    records.emplace_back(EntryRecord{layer.id, extent, then});
    locks.push_back(std::move(lock));
  }
  if (records.empty()) co_return Result<void>();
  if (layer.find(leaf) == nullptr && !has_metadata_room()) co_return fail(Code::kNoSpace, "the pool is full");
  for (size_t i = 0; i < locks.size(); ++i) locks[i]->entry = std::get<EntryRecord>(records[i]).entry;
  FL_CO_TRY_VOID(co_await journal_->write(std::move(records)));
  if (pin->stamps.is_all_durable(journal_->durable())) co_return Result<void>();
  co_return co_await flush();
}

// Whole units of one extent leave the map; what is left at the edges is written as zeroes, unless it was only a hint.
Task<Result<void>> PoolCore::zero_part(Object& object, ExtentIndex extent, uint32_t begin, uint32_t end, IoOp op) {
  const uint32_t unit_bytes = layout_.unit_bytes();
  const auto inner_begin = static_cast<uint32_t>(align_up(begin, unit_bytes));
  const auto inner_end = static_cast<uint32_t>(align_down(end, unit_bytes));
  if (inner_begin >= inner_end) {
    if (op == IoOp::kDiscard) co_return Result<void>();
    co_return co_await write_zeroes(object, extent, begin, end);
  }
  if (op == IoOp::kWriteZeroes && begin < inner_begin) {
    FL_CO_TRY_VOID(co_await write_zeroes(object, extent, begin, inner_begin));
  }
  FL_CO_TRY(const bool is_dropped, co_await drop_units(object, extent, inner_begin, inner_end));
  if (!is_dropped && op == IoOp::kWriteZeroes) {
    FL_CO_TRY_VOID(co_await write_zeroes(object, extent, inner_begin, inner_end));
  }
  if (op == IoOp::kWriteZeroes && inner_end < end) co_return co_await write_zeroes(object, extent, inner_end, end);
  co_return Result<void>();
}

// False: something below would show, so zeroes must be written over it.
Task<Result<bool>> PoolCore::drop_units(Object& object, ExtentIndex extent, uint32_t begin, uint32_t end) {
  Layer& layer = *object.layer;
  const size_t index = index_of(extent);
  const uint32_t first = begin >> layout_.unit_shift();
  const uint32_t last = end >> layout_.unit_shift();
  const UnitSet units = UnitSet::range(first, last);
  ExtentLocks::Lock lock = co_await locks_.lock(layer.id, extent, units);
  FL_CO_TRY(const PagePin pin, co_await page(layer, leaf_of(extent)));
  Entry now = latest(lock, *pin, index);
  if (is_hole(now)) co_return true;  // zeroes already
  if (has_anything_below(*pin, index, first, last)) co_return false;
  if (!(now.held & units).any()) co_return true;
  if (layer.parent != nullptr) co_return false;  // what ancestors have of units that it holds, a page does not show
  now.held = layout_.normal(now.held - units);
  now.stamp = object.state.stamp;
  // While others write to the extent it keeps its place.
  if (!now.held.any() && lock.is_alone()) now.place = {};
  FL_CO_TRY_VOID(co_await append_entry(lock, layer.id, extent, now));
  FL_CO_TRY_VOID(co_await await_stamp(*pin, index));
  // Overwrites of these units that are under way land before anyone has them again in the same place: they would come
  // out over the zeroes around what is written then.
  const Mutex::Guard draining = co_await releasing_lock_.lock();
  co_await drain_shards();
  co_return true;
}

// Data of zeroes, where anything else can be read. Requires: inside one extent.
Task<Result<void>> PoolCore::write_zeroes(Object& object, ExtentIndex extent, uint32_t begin, uint32_t end) {
  Layer& layer = *object.layer;
  const uint32_t shift = layout_.unit_shift();
  for (uint32_t at = begin; at < end;) {
    const uint32_t unit = at >> shift;
    const uint32_t next = std::min(end, (unit + 1) << shift);
    FL_CO_TRY(const PagePin pin, co_await page(layer, leaf_of(extent)));
    const Entry own = pin->own(index_of(extent));
    const bool is_data = own.place.value != 0 && own.held.has(unit);
    const bool is_unsure = locks_.is_used(layer.id, extent);
    if (is_data || is_unsure || (!is_hole(own) && below(*pin, index_of(extent), unit).value != 0)) {
      Piece piece;
      piece.extent = extent;
      piece.begin = at;
      piece.end = next;
      piece.buffers.push_back({zeroes(next - at).data(), next - at});
      FL_CO_TRY_VOID(co_await write_extent(object, std::move(piece)));
    }
    at = next;
  }
  co_return Result<void>();
}

// Stamps without data.

Task<Result<void>> PoolCore::restamp(std::string replica, std::vector<ByteRange> ranges) {
  const Mutex::Guard guard = co_await administration_.lock();
  Object* const object = find_object(replica);
  if (object == nullptr) co_return fail(Code::kNotFound, "no replica of this name");
  if (object->state.kind != ObjectKind::kReplica) co_return fail(Code::kInvalidArgument, "a snapshot is not written");
  if (object->state.stamp.value == 0) co_return fail(Code::kInvalidArgument, "no generation was begun");
  for (const ByteRange& range : ranges) {
    if (range.end > object->state.size_bytes) co_return fail(Code::kOutOfRange, "the range ends beyond the end");
  }
  std::erase_if(ranges, [](const ByteRange& range) { return range.begin >= range.end; });
  std::ranges::sort(ranges, {}, &ByteRange::begin);
  const uint64_t leaf_bytes = kEntriesPerPage << layout_.extent_shift();
  for (size_t first = 0; first < ranges.size();) {
    const uint64_t leaf = ranges[first].begin / leaf_bytes;
    const uint64_t leaf_end = (leaf + 1) * leaf_bytes;
    std::bitset<kEntriesPerPage> wanted;
    for (size_t i = first; i < ranges.size() && ranges[i].begin < leaf_end; ++i) {
      const uint64_t end = std::min(ranges[i].end, leaf_end);
      for (uint64_t at = align_down(ranges[i].begin, layout_.extent_bytes()); at < end; at += layout_.extent_bytes()) {
        wanted.set((at >> layout_.extent_shift()) % kEntriesPerPage);
      }
      ranges[i].begin = end;
    }
    while (first < ranges.size() && ranges[first].begin >= ranges[first].end) ++first;
    FL_CO_TRY_VOID(co_await restamp_leaf(*object, static_cast<uint32_t>(leaf), wanted));
  }
  co_return co_await flush();
}

Task<Result<void>> PoolCore::restamp_leaf(const Object& object, uint32_t leaf, std::bitset<kEntriesPerPage> wanted) {
  Layer& layer = *object.layer;
  const StampOrdinal stamp = object.state.stamp;
  FL_CO_TRY(const PagePin pin, co_await page(layer, leaf));
  std::vector<ExtentLocks::Lock> locks;
  std::vector<Entry> entries;
  std::vector<Record> records;
  const auto extent_at = [leaf](size_t index) {
    return ExtentIndex(leaf * static_cast<uint32_t>(kEntriesPerPage) + static_cast<uint32_t>(index));
  };
  for (size_t index = 0; index < kEntriesPerPage; ++index) {
    if (!wanted.test(index)) continue;
    const size_t first = index;
    bool has_entries = false;
    for (; index < kEntriesPerPage && wanted.test(index); ++index) {
      // Those that have the stamp too: the record is of all extents from the first to the last.
      locks.push_back(co_await locks_.lock(layer.id, extent_at(index), UnitSet::all()));
      Entry entry = latest(locks.back(), *pin, index);
      const bool is_absent = entry.is_absent();
      has_entries = has_entries || (!is_absent && entry.stamp != stamp);
      entry.stamp = stamp;
      entries.push_back(entry);
      if (is_absent) records.emplace_back(EntryRecord{layer.id, extent_at(index), entry});
    }
    if (!has_entries) continue;
    records.emplace_back(RestampRecord{layer.id, extent_at(first), static_cast<uint32_t>(index - first), stamp});
  }
  if (records.empty()) co_return Result<void>();
  if (layer.find(leaf) == nullptr && !has_metadata_room()) co_return fail(Code::kNoSpace, "the pool is full");
  for (size_t i = 0; i < locks.size(); ++i) locks[i]->entry = entries[i];
  co_return co_await journal_->write(std::move(records));
}

// Room.

std::optional<Place> PoolCore::try_allocate(const Object& object, Place near) {
  const uint64_t promised_to_others = reserved_extents() - reserved_extents(object);
  if (allocator_.free() <= metadata_reserve() + promised_to_others) return std::nullopt;
  return allocator_.take(near);
}

Task<Result<Place>> PoolCore::allocate(const Object& object, Place near) {
  while (true) {
    if (const std::optional<Place> place = try_allocate(object, near)) {
      watch_room();
      co_return *place;
    }
    // What was given up is free as soon as that is on stable storage.
    if (freed_.empty() && !releasing_lock_.is_locked()) co_return fail(Code::kNoSpace, "the pool is full");
    FL_CO_TRY_VOID(co_await release_freed());
  }
}

}  // namespace fairlead::pool
