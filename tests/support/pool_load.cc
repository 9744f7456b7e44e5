// PoolLoad: the pool's life, and the requests.
#include "tests/support/pool_load.h"

#include <algorithm>
#include <fmt/format.h>

#include "async/call.h"
#include "block/disk.h"

namespace fairlead::test {

using pool::ImportOptions;
using pool::ObjectKind;
using pool::Pool;
using pool::PoolDisk;

namespace {

constexpr Duration kLook{200'000};  // how often to look whether others have ended
constexpr size_t kSkewBytes = 4;    // off the alignment that disks like

// Memory for a request, at a distance from the alignment that disks like.
class Memory {
 public:
  Memory(size_t length, size_t skew) : bytes_(length + 4096 + skew), length_(length) {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    start_ = align_up(address, 4096) - address + skew;
    vector_ = {bytes_.data() + start_, length};
  }
  std::span<std::byte> bytes() { return std::span(bytes_).subspan(start_, length_); }
  std::span<const iovec> buffers() const { return {&vector_, 1}; }

 private:
  std::vector<std::byte> bytes_;
  size_t length_;
  size_t start_ = 0;
  iovec vector_{};
};

}  // namespace

// ---- Lives

Task<Result<std::vector<PoolDisk>>> PoolLoad::open_disks(const std::vector<std::string>& paths) {
  std::vector<PoolDisk> disks;
  for (const std::string& path : paths) {
    FL_CO_TRY(auto source, open_disk_source(node_.shard(0), {.path = path}));
    disks.push_back({path, std::move(source)});
  }
  co_return disks;
}

Task<void> PoolLoad::format(bool* done) {
  auto disks = co_await open_disks(plan_.disks);
  FL_CHECK(disks.has_value());
  const auto made = co_await Pool::create(node_.shard(0), std::move(*disks),
                                          {.name = "tank",
                                           .extent_bytes = plan_.extent_bytes,
                                           .unit_bytes = plan_.unit_bytes,
                                           .journal_bytes = plan_.journal_bytes,
                                           .blank = pool::Blank::kRequired});
  if (!made) model_.fail(fmt::format("create: {} {}", to_string(made.error().error), made.error().detail));
  *done = true;
}

Task<void> PoolLoad::live(Ends ends) {
  const uint64_t epoch = model_.epoch();
  doing_ = {};
  running_ = creating_ = 0;
  phase_ = Phase::kOpening;
  std::vector<Shard*> shards;
  for (size_t i = 0; i < node_.shard_count(); ++i) shards.push_back(&node_.shard(i));
  // A disk that was being added when a crash came is of the pool or not.
  for (const bool is_added : {!adding_.empty(), false}) {
    std::vector<std::string> paths = plan_.disks;
    if (is_added) paths.push_back(adding_);
    auto disks = co_await open_disks(paths);
    phase_ = Phase::kImporting;
    if (!disks || !is_alive(epoch)) break;
    auto imported =
        co_await Pool::import(shards, std::move(*disks),
                              {.seen = seen_, .cache_bytes = plan_.cache_bytes, .sync_interval = plan_.sync_interval});
    if (imported) {
      pool_ = std::move(*imported);
      if (is_added && is_alive(epoch)) plan_.disks.push_back(adding_);
      if (is_alive(epoch)) adding_.clear();
      break;
    }
    if (is_alive(epoch) && !is_added) {
      model_.fail(fmt::format("import: {} {}", to_string(imported.error().error), imported.error().detail));
    }
  }
  if (pool_ != nullptr) co_await run(epoch, ends);
  if (model_.epoch() == epoch) phase_ = Phase::kEnded;
}

Task<void> PoolLoad::run(uint64_t epoch, Ends ends) {
  if (is_alive(epoch)) model_.imported(pool_->list(), *pool_);
  for (uint32_t round = 0; round < plan_.rounds && is_alive(epoch); ++round) {
    phase_ = Phase::kWorking;
    co_await work(epoch);
    if (is_alive(epoch)) phase_ = Phase::kVerifying;
    co_await verify(epoch);
  }
  if (ends == Ends::kDeletesAll) co_await delete_all(epoch);
  if (is_alive(epoch)) phase_ = Phase::kClosing;
  const uint64_t began = model_.begin_flush();
  const Result<void> closed = co_await pool_->close();
  pool_.reset();
  if (!is_alive(epoch)) co_return;
  if (!closed) model_.fail(fmt::format("close: {}", to_string(closed.error())));
  model_.all_flushed(epoch, began);
}

Task<void> PoolLoad::work(uint64_t epoch) {
  for (size_t shard = 0; shard < node_.shard_count(); ++shard) {
    for (uint32_t i = 0; i < plan_.workers; ++i) {
      ++running_;
      world_.spawn(node_, shard, worker(epoch, shard, random_.next()));
    }
  }
  for (uint32_t i = 0; i < plan_.administrators; ++i) {
    ++running_;
    world_.spawn(node_, 0, administrator(epoch, random_.next()));
  }
  while (running_ > 0) {
    co_await sleep(node_.shard(0).reactor, kLook);
    if (is_alive(epoch)) seen_ = {pool_->progress()};
  }
}

// ---- Requests

// Null: there is none of the kind.
ObjectRef PoolLoad::pick(sim::Prng& random, bool for_change) {
  std::vector<ObjectRef> all;
  for (const auto& [name, object] : model_.objects()) {
    if (!object->is_closing && !(for_change && object->is_busy)) all.push_back(object);
  }
  return all.empty() ? nullptr : all[random.below(all.size())];
}

Task<void> PoolLoad::worker(uint64_t epoch, size_t shard, uint64_t seed) {
  sim::Prng random(seed);
  for (uint32_t i = 0; i < plan_.sessions && is_alive(epoch); ++i) {
    if (ObjectRef object = pick(random, false)) {
      ++object->users;
      co_await session(epoch, shard, object, random);
      if (model_.epoch() == epoch) --object->users;
    } else {
      co_await sleep(node_.shard(shard).reactor, random.between(kLook, 20 * kLook));
    }
  }
  --running_;
}

Task<void> PoolLoad::session(uint64_t epoch, size_t shard, ObjectRef object, sim::Prng& random) {
  Shard& here = node_.shard(shard);
  auto source = co_await call_on(here.reactor, node_.shard(0).reactor, pool_->source(object->name));
  if (!source) {
    if (is_alive(epoch)) model_.fail(fmt::format("source of {}: {}", object->name, to_string(source.error())));
    co_return;
  }
  auto device = (*source)->open(here);
  if (!device) {
    if (is_alive(epoch)) model_.fail(fmt::format("open {}: {}", object->name, to_string(device.error())));
    co_return;
  }
  logical_block_ = (*device)->geometry().logical_block;
  for (uint32_t i = 0; i < plan_.requests && is_alive(epoch) && !object->is_closing; ++i) {
    co_await request(epoch, here, **device, object, random);
  }
}

PoolLoad::Span PoolLoad::draw_span(uint64_t size_bytes, uint32_t block, sim::Prng& random) const {
  const uint64_t blocks = size_bytes / block;
  const uint64_t most = std::min(blocks, std::max<uint64_t>(1, plan_.request_bytes_max / block));
  uint64_t count = random.skewed(1, most);
  // Half of the load meets on a few blocks, some takes whole extents.
  const uint64_t region = random.coin() ? blocks : std::min<uint64_t>(blocks, 2 * plan_.extent_bytes / block);
  uint64_t first = random.below(region);
  const uint64_t extent = plan_.extent_bytes / block;
  if (random.one_in(6) && blocks >= extent) {
    count = extent;
    first = align_down(first, extent);
  }
  count = std::min(count, blocks);
  first = std::min(first, blocks - count);
  return {first * block, count * block};
}

Task<void> PoolLoad::request(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object, sim::Prng& random) {
  ++requests_;
  const uint64_t before = object->facts.size_bytes;
  const Result<uint64_t> size = random.one_in(8) ? device.refresh_size() : device.geometry().size_bytes;
  if (!size || !is_alive(epoch)) co_return;
  const uint64_t usable = std::min(*size, before);
  const Span span = draw_span(usable, device.geometry().logical_block, random);
  const uint64_t kind = random.below(100);
  const size_t skew = random.one_in(4) ? kSkewBytes : 0;
  if (kind < 30) {
    co_await read(epoch, shard, device, object, span);
  } else if (kind >= 92) {
    co_await flush(epoch, shard, device, object);
  } else if (object->facts.kind == ObjectKind::kSnapshot) {
    Memory memory(span.length, skew);
    const auto result = co_await block_write(shard.reactor, device, ByteOffset(span.offset), memory.buffers());
    if (is_alive(epoch) && (result || result.error().code != Code::kReadOnly)) model_.fail("a snapshot was written to");
  } else if (kind < 72) {
    const auto durability = random.one_in(8) ? Durability::kForced : Durability::kVolatile;
    co_await write(epoch, shard, device, object, span, durability, skew);
  } else if (kind < 82) {
    const auto mode = random.coin() ? ZeroMode::kMayDeallocate : ZeroMode::kKeepAllocated;
    co_await zero(epoch, shard, device, object, span, IoOp::kWriteZeroes, mode);
  } else {
    co_await zero(epoch, shard, device, object, span, IoOp::kDiscard, ZeroMode::kMayDeallocate);
  }
}

// Whether a full pool explains it.
bool PoolLoad::is_allowed(const Result<void>& result) {
  if (result.error().code != Code::kNoSpace || plan_.is_roomy) return false;
  ++refusals_;
  return true;
}

void PoolLoad::note(const char* what, const ModelObject& object, Span span, uint64_t number) {
  world_.mark(fmt::format("{} {} blocks {}..{} at {}", what, object.name, span.offset / model_.block_bytes(),
                          (span.offset + span.length) / model_.block_bytes(), model_.clock().now()),
              number);
}

void PoolLoad::note_end(const char* what, const std::string& name, const Result<void>& result) {
  world_.mark(fmt::format("{} {} ended at {}: {}", what, name, model_.clock().now(),
                          result ? "done" : to_string(result.error())));
}

Task<void> PoolLoad::read(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object, Span span) {
  const uint32_t block = model_.block_bytes();
  Memory memory(span.length, 0);
  const uint64_t began = model_.begin_read();
  const auto result = co_await block_read(shard.reactor, device, ByteOffset(span.offset), memory.buffers());
  if (!is_alive(epoch)) co_return;
  if (result) {
    model_.check_read(*object, epoch, began, {span.offset / block, span.length / block}, memory.bytes());
  } else {
    model_.read_failed(epoch, began);
    model_.fail(fmt::format("read of {}: {}", object->name, to_string(result.error())));
  }
}

void PoolLoad::end_write(uint64_t epoch, const ModelWrite& write, const Result<void>& result,
                         BlockHistory::Surely surely, PoolModel::Durable durable, const char* what) {
  if (!is_alive(epoch)) return;
  note_end(what, fmt::format("{} #{}", write.object->name, write.id), result);
  if (result) return model_.write_done(write, surely, durable);
  model_.write_failed(write);
  if (!is_allowed(result)) {
    model_.fail(fmt::format("{} of {}: {}", what, write.object->name, to_string(result.error())));
  }
}

Task<void> PoolLoad::write(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object, Span span,
                           Durability durability, size_t skew) {
  const uint32_t block = model_.block_bytes();
  Memory memory(span.length, skew);
  const ModelWrite write =
      model_.begin_write(object, {span.offset / block, span.length / block}, PoolModel::Bytes::kData);
  model_.fill(write, memory.bytes());
  note(durability == Durability::kForced ? "write forced" : "write", *object, span, write.id);
  const auto result =
      co_await block_write(shard.reactor, device, ByteOffset(span.offset), memory.buffers(), durability);
  const bool is_durable = durability == Durability::kForced || !device.geometry().volatile_cache;
  end_write(epoch, write, result, BlockHistory::Surely::kYes,
            is_durable ? PoolModel::Durable::kYes : PoolModel::Durable::kNo, "write");
}

Task<void> PoolLoad::zero(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object, Span span, IoOp op,
                          ZeroMode mode) {
  const uint32_t block = model_.block_bytes();
  const bool is_discard = op == IoOp::kDiscard;
  const ModelWrite write = model_.begin_write(object, {span.offset / block, span.length / block},
                                              is_discard ? PoolModel::Bytes::kDiscard : PoolModel::Bytes::kZeroes);
  note(is_discard ? "discard" : "zero", *object, span, write.id);
  const ByteOffset offset(span.offset);
  Result<void> result;
  if (is_discard) {
    result = co_await block_discard(shard.reactor, device, offset, span.length);
  } else {
    result = co_await block_write_zeroes(shard.reactor, device, offset, span.length, mode);
  }
  const bool is_sure = !is_discard || device.geometry().discard_zeroes;
  end_write(epoch, write, result, is_sure ? BlockHistory::Surely::kYes : BlockHistory::Surely::kPerhaps,
            device.geometry().volatile_cache ? PoolModel::Durable::kNo : PoolModel::Durable::kYes,
            is_discard ? "discard" : "write zeroes");
}

Task<void> PoolLoad::flush(uint64_t epoch, Shard& shard, BlockDevice& device, ObjectRef object) {
  const uint64_t began = model_.begin_flush();
  const Result<void> result = co_await block_flush(shard.reactor, device);
  if (!is_alive(epoch)) co_return;
  note_end(fmt::format("flush from {}", began).c_str(), object->name, result);
  if (result) {
    model_.flush_done(object, epoch, began);
  } else {
    model_.fail(fmt::format("flush of {}: {}", object->name, to_string(result.error())));
  }
}

}  // namespace fairlead::test
