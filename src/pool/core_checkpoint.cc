// Checkpoints: the maps as of one moment go to new places on the disks, then the superblocks lead there.
#include <algorithm>

#include "base/crc32c.h"
#include "base/fault.h"
#include "base/log.h"
#include "pool/core.h"

namespace fairlead::pool {
namespace {

constexpr size_t kRunBytesMax = 256 * kKiB;  // of map pages that are written at once
constexpr int kCheckpointTries = 3;

}  // namespace

struct PoolCore::Capture {
  struct DirtyPage {
    MapPage* page = nullptr;
    LeafRef* ref = nullptr;  // in `directory`
    bool is_stored = false;
  };
  JournalMark mark;
  Directory directory;
  std::vector<DirtyPage> pages;
  // Free when this is done: what the superblock before leads to and this one does not.
  std::vector<uint32_t> unused_pages;
  std::vector<uint32_t> replaced_pages;
};

Task<Result<void>> PoolCore::checkpoint() {
  const Mutex::Guard guard = co_await checkpointing_.lock();
  checkpoint_wanted_.reset();
  co_return co_await checkpoint_up_to(journal_->mark());
}

// Requires: checkpointing_ is held. The mark is where the journal stands now.
Task<Result<void>> PoolCore::checkpoint_up_to(JournalMark mark) {
  Capture capture = this->capture(mark);
  const Result<void> outcome = co_await store(capture);
  if (outcome) {
    finish(capture);
    co_return outcome;
  }
  // Nothing leads to what was written; the pages are dirty as before.
  for (const Capture::DirtyPage& dirty : capture.pages) {
    if (dirty.is_stored) pages_.release(dirty.ref->address);
    dirty.page->is_dirty = true;
  }
  unused_pages_.insert(unused_pages_.end(), capture.unused_pages.begin(), capture.unused_pages.end());
  release_capture(capture);
  log_error("pool.checkpoint_failed", {{"pool", superblock_.name}, {"error", to_string(outcome.error())}});
  co_return outcome;
}

// Everything from here to the mark, with no pause in between.
PoolCore::Capture PoolCore::capture(const JournalMark& mark) {
  Capture capture;
  capture.mark = mark;
  capture.directory = make_directory(mark);
  for (LayerState& layer : capture.directory.layers) {
    for (LeafRef& ref : layer.leaves) {
      MapPage* const page = find_page(layer.id, ref.leaf);
      if (page == nullptr || !page->is_dirty) continue;
      page->is_dirty = false;
      page->is_being_checkpointed = true;
      capture.pages.push_back({.page = page, .ref = &ref});
    }
  }
  capture.unused_pages = std::exchange(unused_pages_, {});
  return capture;
}

Directory PoolCore::make_directory(const JournalMark& mark) const {
  Directory directory;
  directory.pool_id = superblock_.pool_id;
  directory.sequence = Sequence(mark.next.value - 1);
  directory.next_layer = next_layer_;
  directory.next_stamp = next_stamp_;
  directory.stamps = stamps_;
  for (const auto& [id, layer] : layers_) {
    directory.layers.push_back(
        {.id = layer->id, .parent = layer->parent == nullptr ? LayerId() : layer->parent->id, .leaves = layer->leaves});
  }
  for (const auto& [id, object] : objects_) directory.objects.push_back(object->state);
  return directory;
}

Task<Result<void>> PoolCore::store(Capture& capture) {
  // What they lead to must stay, and another superblock of the same generation must not be.
  if (superblocks_apart_) co_return std::unexpected(*superblocks_apart_);
  FL_CO_TRY_VOID(co_await store_pages(capture));
  const std::vector<Place> empty = pages_.drop_empty();
  unnamed_places_.insert(unnamed_places_.end(), empty.begin(), empty.end());
  capture.directory.page_extents = pages_.extents();
  Superblock next = superblock_;
  next.next_sequence = capture.mark.next;
  next.journal_position = capture.mark.position;
  next.chain = capture.mark.chain;
  FL_CO_TRY_VOID(co_await store_directory(capture, next));
  // All of it, and all data that it makes visible, before anything leads there.
  if (const Result<void> flushed = co_await flush_disks(); !flushed) {
    release_places(next.directory);
    co_return flushed;
  }
  ++next.generation;
  if (const Result<void> stored = co_await store_superblocks(next); !stored) {
    journal_->end_with(stored.error());  // some disks may lead to the new directory, some to the old one
    co_return stored;
  }
  release_places(superblock_.directory);
  superblock_ = std::move(next);
  co_return Result<void>();
}

void PoolCore::release_places(const std::array<std::vector<Place>, kCopies>& copies) {
  for (const std::vector<Place>& places : copies) {
    for (const Place place : places) allocator_.release(place);
  }
}

// Pages whose addresses follow each other are written together.
Task<Result<void>> PoolCore::store_pages(Capture& capture) {
  const size_t run_max = std::min<size_t>(kRunBytesMax, layout_.extent_bytes()) / kMapPageBytes;
  Buffer memory;
  for (size_t next = 0; next < capture.pages.size();) {
    if (!memory) memory = co_await buffer(run_max * kMapPageBytes);
    uint32_t first = 0;
    size_t count = 0;
    for (; next < capture.pages.size() && count < run_max; ++next, ++count) {
      Capture::DirtyPage& dirty = capture.pages[next];
      const std::optional<uint32_t> address = pages_.take(layout_);
      if (!address) co_return fail(Code::kNoSpace, "no room for the map itself");
      if (count == 0) first = *address;
      if (*address != first + count || *address / layout_.pages_per_extent() != first / layout_.pages_per_extent()) {
        pages_.release(*address);
        break;
      }
      const std::span<std::byte, kMapPageBytes> bytes(memory.data() + count * kMapPageBytes, kMapPageBytes);
      if (dirty.page->checkpointed) {
        std::ranges::copy(*dirty.page->checkpointed, bytes.begin());
      } else {
        dirty.page->encode(bytes);
      }
      if (dirty.ref->address != kNoAddress) capture.replaced_pages.push_back(dirty.ref->address);
      dirty.ref->address = *address;
      dirty.ref->crc = crc32c(bytes);
      dirty.is_stored = true;
    }
    FL_CO_TRY_VOID(co_await store_run(first, memory.bytes(count * kMapPageBytes)));
  }
  co_return Result<void>();
}

Task<Result<void>> PoolCore::store_run(uint32_t first_address, std::span<std::byte> bytes) {
  std::array<Layout::Location, kCopies> where;
  for (size_t copy = 0; copy < kCopies; ++copy) {
    const PageStore::Where page = pages_.locate(first_address, copy);
    where[copy] = layout_.locate(page.place);
    where[copy].offset += page.offset;
  }
  co_return co_await write_both(where, bytes);
}

// One good copy is enough to go on: the other is written again when the page is.
Task<Result<void>> PoolCore::write_both(const std::array<Layout::Location, kCopies>& where,
                                        std::span<std::byte> bytes) {
  Result<void> worst;
  size_t good = 0;
  iovec piece{bytes.data(), bytes.size()};
  for (const Layout::Location& at : where) {
    const Result<void> written =
        co_await block_write(reactor(), home().disk(at.disk), ByteOffset(at.offset), {&piece, 1});
    if (written) {
      ++good;
    } else {
      worst = written;
    }
  }
  if (good > 0 && !worst) {
    log_warn("pool.copy_lost", {{"pool", superblock_.name}, {"error", to_string(worst.error())}});
  }
  co_return good > 0 ? Result<void>() : worst;
}

Task<Result<void>> PoolCore::store_directory(Capture& capture, Superblock& next) {
  const std::vector<std::byte> bytes = encode(capture.directory);
  const uint64_t extent_bytes = layout_.extent_bytes();
  const size_t extents = (bytes.size() + extent_bytes - 1) / extent_bytes;
  next.directory_bytes = bytes.size();
  next.directory_crc = crc32c(bytes);
  next.directory = {};
  Result<void> outcome;
  if (extents > kDirectoryExtentsMax) outcome = fail(Code::kResourceExhausted, "the directory is too large");
  for (size_t i = 0; i < extents && outcome; ++i) {
    const std::optional<Place> first = allocator_.take();
    if (first) next.directory[0].push_back(*first);
    const std::optional<Place> second = first ? allocator_.take_apart_from(layout_.locate(*first).disk) : std::nullopt;
    if (second) next.directory[1].push_back(*second);
    if (!second) outcome = fail(Code::kNoSpace, "no room for the directory");
  }
  Buffer memory = co_await buffer(kRunBytesMax);
  for (uint64_t at = 0; at < bytes.size() && outcome;) {
    const uint64_t within = at % extent_bytes;
    const uint64_t length = std::min({kRunBytesMax, extent_bytes - within, bytes.size() - at});
    const std::span<std::byte> piece = memory.bytes(align_up(length, kPageBytes));
    std::ranges::fill(piece, std::byte{0});
    std::ranges::copy(std::span(bytes).subspan(at, length), piece.begin());
    std::array<Layout::Location, kCopies> where;
    for (size_t copy = 0; copy < kCopies; ++copy) {
      where[copy] = layout_.locate(next.directory[copy][at / extent_bytes]);
      where[copy].offset += within;
    }
    outcome = co_await write_both(where, piece);
    at += length;
  }
  if (!outcome) release_places(next.directory);
  co_return outcome;
}

// Once on every disk, then the rest: none has the new one twice before all have it. New disks come first: once another
// one names them they must be known by their own.
Task<Result<void>> PoolCore::store_superblocks(Superblock& next) {
  superblock_places_.resize(next.disks.size());
  for (size_t left = next.disks.size(); left > 0; --left) {
    next.disk_index = static_cast<uint16_t>(left - 1);
    BlockDevice& device = home().disk(next.disk_index);
    const Result<void> stored = co_await superblock_places_[next.disk_index].store_first(reactor(), device, next);
    if (!stored) {
      superblocks_apart_ = stored.error();
      co_return stored;
    }
  }
  for (uint16_t disk = 0; disk < next.disks.size(); ++disk) {
    next.disk_index = disk;
    co_await superblock_places_[disk].store_rest(reactor(), home().disk(disk), next);
  }
  next.disk_index = 0;
  co_return Result<void>();
}

// What the new superblocks lead to is the truth; what the old ones led to is free.
void PoolCore::finish(Capture& capture) {
  for (const Capture::DirtyPage& dirty : capture.pages) {
    LeafRef* const ref = find_layer_or_dying(dirty.page->layer)->find(dirty.page->leaf);
    ref->address = dirty.ref->address;
    ref->crc = dirty.ref->crc;
  }
  for (const uint32_t address : capture.unused_pages) pages_.release(address);
  for (const uint32_t address : capture.replaced_pages) pages_.release(address);
  for (const Place place : std::exchange(unnamed_places_, {})) allocator_.release(place);
  release_capture(capture);
  journal_->release(capture.mark);
  ++checkpoints_;
  probe(Probe::kPoolCheckpoint);
  evict();
  reclaim_wanted_.set();
}

void PoolCore::release_capture(Capture& capture) {
  for (const Capture::DirtyPage& dirty : capture.pages) {
    dirty.page->is_being_checkpointed = false;
    dirty.page->checkpointed.reset();
  }
}

Task<void> PoolCore::checkpoint_loop() {
  int failures = 0;
  while (true) {
    co_await checkpoint_wanted_.wait();
    if (is_ending_) co_return;
    const Result<void> done = co_await checkpoint();
    failures = done ? 0 : failures + 1;
    if (done || journal_->failure()) continue;
    // Whoever waits for room in the journal gets an error in the end, and the pool takes no more changes.
    if (failures == kCheckpointTries || stopping_.is_cancelled()) {
      journal_->end_with(done.error());
      continue;
    }
    (void)co_await sleep(reactor(), options_.sync_interval, stopping_);
    checkpoint_wanted_.set();
  }
}

}  // namespace fairlead::pool
