#include "pool/device.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "async/call.h"
#include "block/slot_pool.h"
#include "pool/io_pieces.h"

namespace fairlead::pool {
namespace {

// One shard's device of one object. Whatever the map already shows in place goes to the disks from here; the rest is
// done on the pool's home shard.
class ObjectDevice final : public BlockDevice {
 public:
  ObjectDevice(PoolCore& core, Object& object, std::shared_ptr<ObjectSide> own_side, const BlockGeometry& geometry)
      : BlockDevice(geometry), core_(core), object_(object), side_(std::move(own_side)), scope_(reactor()) {
    ++side_->devices;
  }
  ~ObjectDevice() override { --side_->devices; }

  Result<uint64_t> refresh_size() override { return geometry_.size_bytes = side_->size_bytes; }

 private:
  struct Request;
  // A part of a request on one disk.
  struct Part : IoRequest {
    Request* request = nullptr;
    uint16_t disk = 0;
    uint64_t ends_at = 0;  // bytes into the request
    std::vector<iovec> pieces;
  };
  struct Request {
    ObjectDevice* device = nullptr;
    IoRequest* original = nullptr;
    std::vector<Part*> parts;
    size_t under_way = 0;
    uint8_t epoch = 0;
    bool is_all_zeroes = true;
    Result<void> outcome;
  };
  // Where the next bytes of a request are.
  struct Run {
    uint64_t length = 0;
    Place place;  // 0: zeroes
    uint64_t offset = 0;
    uint16_t disk = 0;
  };
  enum class Plan : uint8_t { kReady, kNeedsPage, kNeedsHome };

  Reactor& reactor() const { return side_->side.shard.reactor; }
  const Layout& layout() const { return side_->side.layout; }

  void execute(IoRequest& request) override;
  void start_write(IoRequest& request);
  void start(IoRequest& request);
  Plan plan(Request& plan_of, uint32_t& missing_leaf);
  Plan find_run(const IoRequest& request, uint64_t at, Run& run, uint32_t& missing_leaf) const;
  void add_run(Request& request, uint64_t done, const Run& run);
  void add_zeroes(Request& request, uint64_t done, uint64_t length);
  void submit_parts(Request& request);
  static void part_done(IoRequest& part);
  void drop_parts(Request& request);
  void finish(Request& request);
  void complete(IoRequest& original, Result<void> outcome);

  Task<void> load_page(IoRequest& request, uint32_t leaf);
  Task<void> write_at_home(IoRequest& request);
  Task<void> flush(IoRequest& request);
  Task<void> force(IoRequest& request);
  Task<Result<void>> at_home(Task<Result<void>> task) {
    co_return co_await call_on(reactor(), core_.reactor(), std::move(task));
  }

  PoolCore& core_;
  Object& object_;
  std::shared_ptr<ObjectSide> side_;  // shared with the source
  SlotPool<Request> requests_;
  SlotPool<Part> parts_;
  Scope scope_;
};

bool changes_map_only_at_home(IoOp op) { return op == IoOp::kDiscard || op == IoOp::kWriteZeroes; }

void ObjectDevice::execute(IoRequest& request) {
  switch (request.op) {
    case IoOp::kRead:
      return start(request);
    case IoOp::kFlush:
      return scope_.spawn(flush(request));
    case IoOp::kWrite:
    case IoOp::kDiscard:
    case IoOp::kWriteZeroes:
      return start_write(request);
  }
}

void ObjectDevice::start_write(IoRequest& request) {
  if (side_->is_read_only) return request.complete(fail(Code::kReadOnly, "a snapshot does not change"));
  if (side_->is_gate_closed) return side_->held_back.push_back({&request, this});
  ++side_->writers;
  if (changes_map_only_at_home(request.op)) return scope_.spawn(write_at_home(request));
  start(request);
}

void ObjectDevice::complete(IoRequest& original, Result<void> outcome) {
  if (original.op != IoOp::kRead && --side_->writers == 0) side_->writers_left.release_waiters();
  original.complete(outcome);
}

void ObjectDevice::start(IoRequest& original) {
  Request& request = requests_.take();
  request.device = this;
  request.original = &original;
  request.outcome = {};
  request.is_all_zeroes = true;
  request.epoch = side_->side.epochs.enter();
  uint32_t missing_leaf = 0;
  const Plan plan = this->plan(request, missing_leaf);
  if (plan == Plan::kReady) return submit_parts(request);
  side_->side.epochs.leave(request.epoch);
  drop_parts(request);
  requests_.give_back(request);
  scope_.spawn(plan == Plan::kNeedsPage ? load_page(original, missing_leaf) : write_at_home(original));
}

ObjectDevice::Plan ObjectDevice::plan(Request& request, uint32_t& missing_leaf) {
  const IoRequest& original = *request.original;
  for (uint64_t done = 0; done < original.length;) {
    Run run;
    const Plan plan = find_run(original, done, run, missing_leaf);
    if (plan != Plan::kReady) return plan;
    if (run.place.value == 0) {
      add_zeroes(request, done, run.length);
    } else {
      add_run(request, done, run);
    }
    done += run.length;
  }
  return Plan::kReady;
}

// What the map shows `done` bytes into the request: as many units as are in one place, inside the extent.
ObjectDevice::Plan ObjectDevice::find_run(const IoRequest& request, uint64_t done, Run& run,
                                          uint32_t& missing_leaf) const {
  const Layout& at = layout();
  const uint64_t position = request.offset.value + done;
  const uint64_t extent = position >> at.extent_shift();
  const auto leaf = static_cast<uint32_t>(extent / kEntriesPerPage);
  missing_leaf = leaf;
  MapPage* const page = side_->view->slots[leaf].load(std::memory_order_acquire);
  if (page == nullptr || !page->is_resolved()) return Plan::kNeedsPage;
  if (!page->is_referenced.load(std::memory_order_relaxed)) page->is_referenced.store(true, std::memory_order_relaxed);
  const size_t index = extent % kEntriesPerPage;
  const ShownEntry shown = page->load(index);

  const uint64_t within = position & (at.extent_bytes() - 1);
  const uint64_t end = std::min<uint64_t>(at.extent_bytes(), within + (request.length - done));
  const auto first = static_cast<uint32_t>(within >> at.unit_shift());
  const auto last = static_cast<uint32_t>((end - 1) >> at.unit_shift());
  const UnitSet& held = shown.entry.held;
  auto next = static_cast<uint32_t>(held.next_missing(first));  // the first unit that the entry does not hold

  if (request.op == IoOp::kWrite) {
    const bool is_stamped = shown.entry.stamp == side_->stamp && core_.is_stamped_durably(*page, index);
    if (shown.is_borrowed || shown.entry.place.value == 0 || !is_stamped || next <= last) return Plan::kNeedsHome;
    page->note_write(index);
  }
  Place place = shown.entry.place;
  if (next == first) {
    const LowerParts* const parts = page->lower(index);
    place = find_lower(parts, first);
    for (next = first + 1; next <= last && !held.has(next); ++next) {
      if (find_lower(parts, next) != place) break;
    }
  }
  run.place = place;
  run.length = std::min<uint64_t>(end, uint64_t{next} << at.unit_shift()) - within;
  if (place.value == 0) return Plan::kReady;
  const Layout::Location location = at.locate(place);
  run.disk = location.disk;
  run.offset = location.offset + within;
  return Plan::kReady;
}

void ObjectDevice::add_zeroes(Request& request, uint64_t done, uint64_t length) {
  const IoRequest& original = *request.original;
  if (original.may_say_zeroes && length == original.length) return;  // finish() says so
  Part& scratch = parts_.take();
  scratch.pieces.clear();
  slice_buffers(original.buffers, done, length, scratch.pieces);
  for (const iovec& piece : scratch.pieces) std::memset(piece.iov_base, 0, piece.iov_len);
  parts_.give_back(scratch);
}

// Runs that follow each other on the disk, such as those of extents written in sequence, go as one.
void ObjectDevice::add_run(Request& request, uint64_t done, const Run& run) {
  const IoRequest& original = *request.original;
  request.is_all_zeroes = false;
  if (!request.parts.empty()) {
    Part& previous = *request.parts.back();
    if (previous.disk == run.disk && previous.offset.value + previous.length == run.offset &&
        previous.ends_at == done) {
      slice_buffers(original.buffers, done, run.length, previous.pieces);
      previous.buffers = previous.pieces;
      previous.length += run.length;
      previous.ends_at += run.length;
      return;
    }
  }
  Part& part = parts_.take();
  part.request = &request;
  part.disk = run.disk;
  part.ends_at = done + run.length;
  part.op = original.op;
  part.durability = original.durability;
  part.offset = ByteOffset(run.offset);
  part.length = run.length;
  part.done = part_done;
  part.may_say_zeroes = part.says_zeroes = false;
  if (run.length == original.length) {
    part.buffers = original.buffers;
  } else {
    part.pieces.clear();
    slice_buffers(original.buffers, done, run.length, part.pieces);
    part.buffers = part.pieces;
  }
  request.parts.push_back(&part);
}

void ObjectDevice::submit_parts(Request& request) {
  request.under_way = request.parts.size() + 1;  // ours: parts may end inside submit()
  ShardSide& side = side_->side;
  for (size_t i = 0; i < request.parts.size(); ++i) side.disk(request.parts[i]->disk).submit(*request.parts[i]);
  if (--request.under_way == 0) finish(request);
}

void ObjectDevice::part_done(IoRequest& done) {
  auto& part = static_cast<Part&>(done);
  Request& request = *part.request;
  if (!part.result) request.outcome = part.result;
  if (--request.under_way == 0) request.device->finish(request);
}

void ObjectDevice::drop_parts(Request& request) {
  for (Part* const part : request.parts) parts_.give_back(*part);
  request.parts.clear();
}

void ObjectDevice::finish(Request& request) {
  IoRequest& original = *request.original;
  const Result<void> outcome = request.outcome;
  side_->side.epochs.leave(request.epoch);
  if (original.op == IoOp::kRead && original.may_say_zeroes && request.is_all_zeroes) original.says_zeroes = true;
  drop_parts(request);
  requests_.give_back(request);
  // The bytes are safe, but perhaps not yet the record by which the map leads to their place.
  const bool is_forced = original.op == IoOp::kWrite && original.durability == Durability::kForced;
  if (is_forced && outcome && core_.needs_journal_flush()) return scope_.spawn(force(original));
  complete(original, outcome);
}

Task<void> ObjectDevice::load_page(IoRequest& request, uint32_t leaf) {
  const Result<void> loaded = co_await at_home(core_.load_view(object_, leaf));
  if (!loaded) co_return complete(request, loaded);
  start(request);
}

Task<void> ObjectDevice::write_at_home(IoRequest& request) {
  const Result<void> written = co_await at_home(core_.write(object_, request));
  complete(request, written);
}

Task<void> ObjectDevice::force(IoRequest& request) {
  const Result<void> flushed = co_await at_home(core_.flush());
  complete(request, flushed);
}

Task<void> ObjectDevice::flush(IoRequest& request) {
  if (core_.needs_journal_flush()) {
    const Result<void> flushed = co_await at_home(core_.flush());
    co_return request.complete(flushed);
  }
  // By index: a disk may be added meanwhile.
  for (size_t i = 0; i < side_->side.disks.size(); ++i) {
    const Result<void> flushed = co_await block_flush(reactor(), *side_->side.disks[i]);
    if (!flushed) co_return request.complete(flushed);
  }
  request.complete({});
}

class ObjectSource final : public BlockSource {
 public:
  ObjectSource(PoolCore& core, Object& object, const BlockGeometry& geometry)
      : core_(core), object_(object), geometry_(geometry), sides_(object.sides) {}

  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    for (const std::shared_ptr<ObjectSide>& side : sides_) {
      if (&side->side.shard != &shard) continue;
      if (side->is_removed) return fail(Code::kNotFound, "the replica was removed");
      BlockGeometry geometry = geometry_;
      geometry.size_bytes = side->size_bytes;
      return std::make_unique<ObjectDevice>(core_, object_, side, geometry);
    }
    return fail(Code::kInvalidArgument, "the pool was not imported for this shard");
  }

 private:
  PoolCore& core_;
  Object& object_;
  const BlockGeometry geometry_;
  const std::vector<std::shared_ptr<ObjectSide>> sides_;  // shared with the object
};

}  // namespace

void ObjectSide::open_gate() {
  is_gate_closed = false;
  std::vector<HeldBack> waiting = std::move(held_back);
  held_back.clear();
  for (const HeldBack& each : waiting) each.device->submit(*each.request);
}

std::shared_ptr<BlockSource> make_object_source(PoolCore& core, Object& object) {
  const Superblock& superblock = core.superblock();
  const BlockGeometry geometry = {.size_bytes = object.state.size_bytes,
                                  .logical_block = superblock.logical_block,
                                  .physical_block = std::max<uint32_t>(superblock.logical_block, 4096),
                                  .optimal_io = core.layout().unit_bytes(),
                                  .discard_granularity = core.layout().unit_bytes(),
                                  .discard_zeroes = false,
                                  .volatile_cache = core.has_volatile_cache(),
                                  .read_only = object.state.kind == ObjectKind::kSnapshot};
  return std::make_shared<ObjectSource>(core, object, geometry);
}

}  // namespace fairlead::pool
