// PoolCore: the state of an imported pool on its home shard, and everything that changes it. What Pool hides.
//
// The maps, objects and layers change in one place only, apply(), which import calls for what it reads in the journal
// and the journal for what it has written. Everything else decides, writes data, and appends records.
//
// Order of things that a crash must not turn round:
//  1. Data is written before the record that makes it visible is appended.
//  2. A place that a record gave up is used again only when that record is on stable storage, and no shard can be
//     reading there any more.
//  3. What a superblock leads to is not overwritten before another one is on stable storage.
#pragma once

#include <bitset>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "async/cancel.h"
#include "async/mutex.h"
#include "async/scope.h"
#include "pool/allocator.h"
#include "pool/extent_locks.h"
#include "pool/journal.h"
#include "pool/map.h"
#include "pool/page_store.h"
#include "pool/pool.h"
#include "pool/shard_side.h"
#include "pool/superblocks.h"

namespace fairlead::pool {

inline constexpr size_t kObjectsMax = 65536;
inline constexpr uint64_t kExtentsMax = uint64_t{1} << 31;  // of one replica

// A replica or snapshot.
struct Object {
  ObjectState state;
  StampOrdinal stamp_before;  // that of the generation before; 0: there was none, or nobody knows
  Layer* layer = nullptr;
  // With a source: what shards see of it.
  std::shared_ptr<View> view;                      // shared with the sides
  std::vector<std::shared_ptr<ObjectSide>> sides;  // by shard; shared with the sources
};

// Keeps a page in memory.
class PagePin {
 public:
  PagePin() = default;
  explicit PagePin(MapPage& page) : page_(&page) { ++page.pins; }
  PagePin(PagePin&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
  PagePin& operator=(PagePin&& other) noexcept {
    std::swap(page_, other.page_);
    return *this;
  }
  ~PagePin() {
    if (page_ == nullptr) return;
    --page_->pins;
  }
  MapPage& operator*() const { return *page_; }
  MapPage* operator->() const { return page_; }

 private:
  MapPage* page_ = nullptr;
};

class PoolCore final : public JournalSink {
 public:
  // As read from the disks: import.cc fills it in, then start()s it.
  // `places`: what is on the disks, in the superblock's order.
  PoolCore(std::vector<std::unique_ptr<ShardSide>> sides, Superblock superblock, std::vector<SuperblockPlaces> places,
           ImportOptions options);
  ~PoolCore();
  PoolCore(const PoolCore&) = delete;
  PoolCore& operator=(const PoolCore&) = delete;

  // core_import.cc
  // Writes the first checkpoint of a new, empty pool. After it only the destructor.
  Task<Result<void>> format();
  // Reads everything, takes the pool and starts the background's tasks.
  Task<Result<void>> load(Uuid boot_id, std::vector<Progress> seen);
  Progress progress() const { return {.pool = superblock_.pool_id, .batch = journal_->durable().value}; }
  Task<Result<uint64_t>> grow();
  // `device` is that of the home shard.
  Task<Result<void>> add_disk(std::shared_ptr<BlockSource> source, std::unique_ptr<BlockDevice> device);
  // One more disk on the other shards, where the home shard has it.
  Task<Result<void>> open_on_others(std::shared_ptr<BlockSource> source);
  // Ends what runs and lets the disks go, as a process that is killed. After it only the destructor.
  Task<void> abandon();
  // See Pool::close(). After it only the destructor.
  Task<Result<void>> close();

  // JournalSink
  void apply(Sequence sequence, std::span<const Record> records) override;
  Task<Result<void>> flush_disks() override;
  void want_checkpoint() override { checkpoint_wanted_.set(); }

  // core_pages.cc. The page shows ancestors' entries too. The layer must outlive the task.
  Task<Result<PagePin>> page(Layer& layer, uint32_t leaf);
  // For a device that found no page: puts it into the object's view.
  Task<Result<void>> load_view(Object& object, uint32_t leaf);

  // core_write.cc: what a device cannot do by itself. On the home shard.
  Task<Result<void>> write(Object& object, const IoRequest& request);
  Task<Result<void>> flush();
  bool needs_journal_flush() const { return is_dirty_.load(std::memory_order_acquire); }
  // Any shard. Whether the stamp that the page shows of an entry is on stable storage; false may be out of date.
  bool is_stamped_durably(const MapPage& page, size_t index) const {
    return page.stamps.is_durable(index, Sequence(durable_.load(std::memory_order_acquire)));
  }

  // core_objects.cc
  std::vector<ObjectInfo> list() const;
  Result<ObjectInfo> info(std::string_view name) const;
  Task<Result<Uuid>> create_replica(ReplicaOptions options);
  Task<Result<Uuid>> snapshot(std::string replica, SnapshotOptions options);
  Task<Result<Uuid>> clone(std::string snapshot, ReplicaOptions options);
  Task<Result<void>> remove(std::string name);
  Task<Result<void>> resize(std::string replica, uint64_t size_bytes, Pool::Shrink shrink);
  Task<Result<void>> change(std::string name, Changes changes);
  Task<Result<std::shared_ptr<BlockSource>>> source(std::string name);
  Task<Result<void>> begin_generation(std::string replica, Stamp stamp);
  std::optional<Stamp> generation(std::string_view name) const;

  // core_write.cc
  Task<Result<void>> restamp(std::string replica, std::vector<ByteRange> ranges);

  // core_query.cc
  Task<Result<std::vector<ByteRange>>> mapped(std::string name, ByteRange within);
  Task<Result<std::vector<ByteRange>>> changed_since(std::string name, Stamp stamp, ByteRange within);
  Task<Result<std::vector<ByteRange>>> changed_between(std::string older, std::string newer, ByteRange within);
  Task<Result<uint64_t>> unique_bytes(std::string name);

  // core_checkpoint.cc
  Task<Result<void>> checkpoint();
  // core_reclaim.cc
  Task<Result<void>> settle();
  PoolStatistics statistics() const;

  const Superblock& superblock() const { return superblock_; }
  ShardSide& home() const { return *sides_.front(); }
  Reactor& reactor() const { return home().shard.reactor; }
  const Layout& layout() const { return layout_; }
  bool has_volatile_cache() const { return cache_kind() == Journal::Cache::kVolatile; }

 private:
  struct Freed {
    Place place;
    Sequence sequence;  // of the batch that gave it up
  };
  // What a checkpoint under way works on.
  struct Capture;

  // core.cc
  static uint64_t page_key(LayerId layer, uint32_t leaf) { return uint64_t{layer.value} << 32 | leaf; }
  Layer& layer(LayerId id);
  Layer* find_layer(LayerId id);
  Layer* find_layer_or_dying(LayerId id);
  Object* find_object(std::string_view name) const;
  void apply_record(const EntryRecord& record);
  void apply_record(const LayerRecord& record);
  void apply_record(const LayerRemoval& record);
  void apply_record(const ObjectRecord& record);
  void apply_record(const ObjectRemoval& record);
  void apply_record(const StampRecord& record);
  void apply_record(const RestampRecord& record);
  void set_entry(Layer& layer, MapPage& page, size_t index, const Entry& entry);
  void about_to_change(MapPage& page);
  void put_stamp(const StampRecord& record);
  void compact_stamps(const Uuid& object);
  void retire(MapPage::Replaced replaced);
  void retire(std::unique_ptr<MapPage> page);
  uint32_t leaf_count(uint64_t size_bytes) const;
  uint64_t extent_count(uint64_t size_bytes) const {
    return (size_bytes + layout_.extent_bytes() - 1) >> layout_.extent_shift();
  }

  // core_pages.cc
  MapPage* find_page(LayerId layer, uint32_t leaf);
  // Requires: the layer has the leaf, with an address.
  Task<Result<std::unique_ptr<MapPage>>> read_page(LayerId layer, LeafRef ref);
  Task<Result<void>> bring_in(Layer& layer, uint32_t leaf);
  void begin_writes(const Layer& layer, MapPage& page);
  struct Resolution;
  Task<Result<void>> resolve(Layer& layer, MapPage& page);
  struct StoredPage;
  Task<void> read_stored(StoredPage& stored);
  Task<Result<bool>> ask_ancestors(Layer& layer, uint32_t leaf, Resolution& found);
  void drop_pages(Layer& layer);
  void remove_page(MapPage& page);
  void evict();
  uint64_t cache_limit() const;
  // What pages of layers below show of their ancestors is not so any more.
  void ancestors_changed(Layer& layer, uint32_t leaf);

  // core_write.cc
  struct Piece;
  Task<Result<void>> write_extent(Object& object, Piece piece);
  Task<Result<Place>> place_for_write(const Object& object, ExtentLocks::Lock& lock, const MapPage& page, size_t index);
  Task<Result<void>> stamp_before_write(const Object& object, ExtentLocks::Lock& lock, MapPage& page,
                                        ExtentIndex extent, Place place);
  Task<Result<void>> await_stamp(const MapPage& page, size_t index);
  void note_durable();
  void stamp_ahead(const Object& object, MapPage& page, size_t index, std::vector<ExtentLocks::Lock>& locks,
                   std::vector<Record>& records);
  Task<Result<void>> restamp_leaf(const Object& object, uint32_t leaf, std::bitset<kEntriesPerPage> wanted);
  Task<Result<void>> append_entry(ExtentLocks::Lock& lock, LayerId layer, ExtentIndex extent, Entry entry);
  Task<Result<void>> fill_edges(Layer& layer, Piece& piece, UnitSet missing);
  Task<Result<Buffer>> read_below(Layer& layer, ExtentIndex extent, uint32_t begin, uint32_t length);
  Task<Result<void>> zero_range(Object& object, uint64_t begin, uint64_t end, IoOp op);
  Task<Result<void>> drop_extents(Object& object, uint32_t leaf, uint32_t first, uint32_t end);
  Task<Result<void>> zero_part(Object& object, ExtentIndex extent, uint32_t begin, uint32_t end, IoOp op);
  Task<Result<bool>> drop_units(Object& object, ExtentIndex extent, uint32_t begin, uint32_t end);
  Task<Result<void>> write_zeroes(Object& object, ExtentIndex extent, uint32_t begin, uint32_t end);
  std::optional<Place> try_allocate(const Object& object, Place near);
  Task<Result<Place>> allocate(const Object& object, Place near);
  Task<Buffer> buffer(size_t length);

  // core_objects.cc
  ObjectInfo info_of(const Object& object) const;
  Task<Result<void>> write_durably(std::vector<Record> records);
  Result<void> check_new(std::string_view name, const Uuid& id) const;
  Result<void> check_state(const ObjectState& state) const;
  Result<void> check_room_for_object() const;
  ObjectState new_object(const ReplicaOptions& options);
  Task<Result<Uuid>> add_object(ObjectState state, LayerId parent);
  Task<void> close_gates(Object& object);
  Task<void> open_gates(Object& object);
  Task<bool> is_open(Object& object);
  Task<void> set_removed(Object& object, bool is_removed);
  Task<void> update_sides(Object& object);
  std::optional<Stamp> stamp_of(StampOrdinal ordinal) const;

  // core_checkpoint.cc
  Task<Result<void>> checkpoint_up_to(JournalMark mark);
  Capture capture(const JournalMark& mark);
  Directory make_directory(const JournalMark& mark) const;
  Task<Result<void>> store(Capture& capture);
  Task<Result<void>> store_pages(Capture& capture);
  Task<Result<void>> store_run(uint32_t first_address, std::span<std::byte> bytes);
  Task<Result<void>> store_directory(Capture& capture, Superblock& next);
  Task<Result<void>> store_superblocks(Superblock& next);
  Task<Result<void>> write_both(const std::array<Layout::Location, kCopies>& where, std::span<std::byte> bytes);
  void release_places(const std::array<std::vector<Place>, kCopies>& copies);
  void finish(Capture& capture);
  void release_capture(Capture& capture);
  Task<void> checkpoint_loop();

  // core_reclaim.cc
  uint64_t metadata_reserve() const;
  bool has_metadata_room() const;
  uint64_t reserved_extents() const;
  uint64_t reserved_extents(const Object& object) const;
  Task<Result<void>> release_freed();
  Task<void> drain_shards();
  Task<void> discard(std::vector<Place> places);
  Task<void> reclaim_loop();
  Task<Result<bool>> reclaim_one();
  Task<Result<void>> empty_dying(Layer& layer);
  Task<void> drop_leaf(Layer& layer, uint32_t leaf);
  Task<Result<void>> merge_into_child(Layer& layer, Layer& child);
  static bool is_only_heir(const Layer& layer, const Layer& child);
  Task<Result<void>> merge_extent(Layer& layer, Layer& child, uint32_t leaf, size_t index);
  Task<Result<Entry>> inherit(Entry heir, Entry old, UnitSet wanted);
  Task<Result<void>> zero_units(Place place, UnitSet units);
  Task<Result<void>> copy_units(Place from, Place to, UnitSet units);
  Task<void> sync_loop();
  void watch_room();

  // core_import.cc
  Task<void> stop_background();
  void open_journal(const JournalMark& tail, const JournalMark& head, Sequence durable);
  Task<Result<Directory>> read_directory();
  Result<void> restore(Directory directory);
  Task<Result<void>> replay(const Uuid& boot_id);
  Result<void> check_applies(const Record& record);
  Task<Result<void>> bring_in_for(const Record& record);
  struct StoredLeaf {
    Layer* layer = nullptr;
    LeafRef ref;
  };
  Task<Result<void>> account_places();
  Task<Result<void>> account_run(std::span<const StoredLeaf> run);
  Result<void> claim_places(const MapPage& page);
  Task<Result<void>> extend(Superblock wider);
  JournalAreas journal_areas() const;
  Journal::Cache cache_kind() const;

  // core_query.cc
  Result<Object*> find_for_query(std::string_view name, ByteRange& within) const;
  std::vector<uint32_t> leaves_in(const Layer& layer, const Layer* until, ByteRange within) const;
  template <typename Predicate>
  Task<Result<std::vector<ByteRange>>> extents_where(Layer& from, const Layer* until, ByteRange within,
                                                     Predicate predicate);

  const ImportOptions options_;
  std::vector<std::unique_ptr<ShardSide>> sides_;
  Superblock superblock_;                            // as last written, or about to be
  std::vector<SuperblockPlaces> superblock_places_;  // by disk
  // Why superblocks could not be stored: some disks may lead to another directory than `superblock_` does.
  std::optional<Error> superblocks_apart_;
  Layout layout_;
  Allocator allocator_;
  PageStore pages_;
  std::map<uint32_t, std::unique_ptr<Layer>> layers_;
  std::list<std::unique_ptr<Layer>> dying_;  // removed; their places are not all given back
  std::map<Uuid, std::unique_ptr<Object>> objects_;
  std::vector<StampRecord> stamps_;  // ascending
  uint32_t next_layer_ = 1;
  uint32_t next_stamp_ = 1;
  uint64_t mapped_ = 0;  // extents in maps
  uint64_t leaves_ = 0;
  bool is_replaying_ = false;

  std::unordered_map<uint64_t, std::unique_ptr<MapPage>> cache_;  // looked up, never walked
  IntrusiveList<MapPage> cache_order_;
  uint64_t cache_bytes_ = 0;
  std::unordered_map<uint64_t, std::unique_ptr<Event>> loading_;
  uint64_t map_version_ = 0;  // counts changes to what ancestors have
  std::vector<MapPage::Replaced> retired_parts_;
  std::vector<std::unique_ptr<MapPage>> retired_pages_;
  std::vector<std::shared_ptr<View>> retired_views_;
  uint32_t views_changing_ = 0;
  uint64_t repaired_copies_ = 0;

  std::unique_ptr<Journal> journal_;
  std::atomic<bool> is_dirty_{false};  // a flush must look at the journal too
  std::atomic<uint64_t> durable_{0};   // batches up to this are on stable storage, perhaps more are
  Sequence applying_;                  // the batch
  ExtentLocks locks_;
  Mutex administration_;
  Mutex checkpointing_;
  BufferAccount buffers_;

  std::deque<Freed> freed_;
  // Of the batch that is being applied: what moves from one layer to another is in both.
  std::vector<Place> given_up_;
  std::vector<Place> gained_;
  size_t thick_objects_ = 0;
  uint64_t object_bytes_ = 0;           // that the objects take in a directory
  std::vector<uint32_t> unused_pages_;  // the last directory on the disks may name them, the next one will not
  std::vector<Place> unnamed_places_;   // likewise, extents that held pages
  uint64_t releasing_ = 0;
  Mutex releasing_lock_;
  bool is_idle_ = true;                 // of the reclaimer
  std::optional<Error> reclaim_error_;  // that it met last
  uint32_t room_alarm_percent_ = 0;

  Scope scope_;
  CancelSource stopping_;
  Scope checkpointer_;
  bool is_ending_ = false;
  Event checkpoint_wanted_;
  Event reclaim_wanted_;
  Event reclaim_progress_;
  Event sync_wanted_;
  uint64_t checkpoints_ = 0;
};

}  // namespace fairlead::pool
