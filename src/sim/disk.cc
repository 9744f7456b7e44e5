#include "sim/disk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/fault.h"

namespace fairlead::sim {

SimDiskOptions SimDiskOptions::drawn(Prng& random) {
  SimDiskOptions options;
  options.logical_block = random.coin() ? 512 : 4096;
  options.physical_block = random.coin() ? options.logical_block : 4096;
  options.discard_granularity = random.one_in(4) ? 0 : random.coin() ? options.logical_block : 64 * 1024;
  options.write_zeroes_supported = !random.one_in(4);
  options.cache = random.one_in(4) ? Cache::kNone : Cache::kVolatile;
  options.discard_reads = static_cast<DiscardReads>(random.below(3));
  return options;
}

SimDevice::SimDevice(SimCore& core, uint32_t index, uint32_t node, uint64_t size_bytes, SimDiskOptions options,
                     Prng random)
    : core_(core),
      index_(index),
      node_(node),
      size_bytes_(size_bytes),
      options_(std::move(options)),
      random_(random),
      content_(options_.logical_block, options_.cache) {
  FL_CHECK(is_power_of_two(options_.logical_block) && is_aligned(size_bytes, options_.logical_block));
}

SimDevice::~SimDevice() { FL_CHECK(ops_.empty()); }

void SimDevice::resize(uint64_t size_bytes) {
  FL_CHECK(is_aligned(size_bytes, options_.logical_block));
  size_bytes_ = size_bytes;
}

void SimDevice::peek(uint64_t offset, std::span<std::byte> out) const {
  content_.read(offset / options_.logical_block, out);
}

void SimDevice::peek_stable(uint64_t offset, std::span<std::byte> out) const {
  content_.read_stable(offset / options_.logical_block, out);
}

bool SimDevice::is_damaged(uint64_t offset, uint64_t length) const {
  const auto at = damaged_.lower_bound(offset / options_.logical_block);
  return at != damaged_.end() && *at * options_.logical_block < offset + length;
}

void SimDevice::rot(uint64_t offset, uint64_t length) {
  const uint64_t block = options_.logical_block;
  for (uint64_t sector = offset / block; sector * block < offset + length; ++sector) {
    content_.flip_bit(sector, static_cast<uint32_t>(random_.below(block * 8)));
    damaged_.insert(sector);
    injected(SimFault::kRot);
  }
}

void SimDevice::make_unreadable(uint64_t offset, uint64_t length) {
  const uint64_t block = options_.logical_block;
  for (uint64_t sector = offset / block; sector * block < offset + length; ++sector) unreadable_.insert(sector);
  injected(SimFault::kReadError);
}

Result<uint64_t> SimDevice::claim() {
  if (claimed_by_ != 0) return fail(Code::kBusy, "claim the disk");
  claimed_by_ = next_token_++;
  return claimed_by_;
}

void SimDevice::release(uint64_t token) {
  // A crash may have freed the claim, and another life of the node may hold it now.
  if (claimed_by_ == token) claimed_by_ = 0;
}

uint64_t SimDevice::first_sector(const DiskOp& op) const { return op.request->offset.value / options_.logical_block; }
uint64_t SimDevice::sector_count(const DiskOp& op) const { return op.request->length / options_.logical_block; }

void SimDevice::trace(TraceKind kind, const DiskOp& op, uint64_t b, uint64_t digest) {
  core_.record({.kind = kind,
                .place = {.node = node_},
                .a = uint64_t{index_} << 8 | static_cast<uint64_t>(op.request->op),
                .b = b,
                .digest = digest});
}

void SimDevice::submit(std::unique_ptr<DiskOp> op) {
  op->id = next_op_++;
  if (op->request->op == IoOp::kWrite) {
    op->data.resize(op->request->length);
    copy_from_buffers(op->request->buffers, 0, op->data);
  }
  if (op->request->op == IoOp::kFlush) op->flush_to = content_.newest();
  trace(TraceKind::kDiskSubmit, *op, op->request->offset.value, mix_hash(op->request->length, hash_bytes(op->data)));
  if (observer_ != nullptr) observer_->submitted(*op->request);
  waiting_.push_back(op->id);
  ops_.emplace(op->id, std::move(op));
  start_waiting();
}

void SimDevice::start_waiting() {
  while (!waiting_.empty() && in_service_ < core_.settings().disk.queue_depth) {
    const uint64_t id = waiting_.front();
    waiting_.pop_front();
    ++in_service_;
    start(*ops_.at(id));
  }
}

Duration SimDevice::draw_latency(const DiskOp& op) {
  const DiskSettings& settings = core_.settings().disk;
  Duration latency = random_.between(settings.latency_min, settings.latency_max);
  const DiskZone zone = options_.faults.zone_at(op.request->offset.value, size_bytes_);
  if (random_.chance(zone.rates.slow_ppm)) {
    injected(SimFault::kSlowDisk);
    latency += random_.between(Duration(0), settings.slow_max);
  }
  return latency;
}

void SimDevice::start(DiskOp& op) {
  op.started = true;
  const Duration latency = draw_latency(op);
  const uint64_t id = op.id;
  if (op.request->op == IoOp::kWrite && sector_count(op) > 1 && random_.chance(core_.settings().disk.split_ppm)) {
    core_.after(random_.between(Duration(0), latency), [this, id] { apply_first_part(id); });
  }
  core_.after(latency, [this, id] { finish(id); });
}

void SimDevice::hang(Duration span) {
  injected(SimFault::kHungDisk);
  hangs_until_ = std::max(hangs_until_, core_.now() + span);
  core_.after(span, [this] { end_hang(); });
}

void SimDevice::replace(DiskContent content) {
  FL_CHECK(ops_.empty() && content.sector_bytes() == content_.sector_bytes());
  content_ = std::move(content);
  damaged_.clear();
  mended_in_cache_.clear();
  unreadable_.clear();
}

void SimDevice::heal() {
  options_.faults = {};
  hangs_until_ = {};
  end_hang();
}

void SimDevice::end_hang() {
  if (core_.now() < hangs_until_) return;
  for (const uint64_t id : std::exchange(hung_, {})) finish(id);
}

void SimDevice::apply_first_part(uint64_t id) {
  const auto at = ops_.find(id);
  if (at == ops_.end() || core_.now() < hangs_until_) return;
  DiskOp& op = *at->second;
  const uint64_t first = first_sector(op);
  const uint64_t part = random_.between(1, sector_count(op) - 1);
  if (options_.read_only || !has_room(first, first + sector_count(op))) return;
  apply(op, first, first + part);
  op.sectors_applied = part;
}

void SimDevice::finish(uint64_t id) {
  const auto at = ops_.find(id);
  if (at == ops_.end()) return;  // a crash took it
  if (core_.now() < hangs_until_) {
    hung_.push_back(id);
    return;
  }
  std::unique_ptr<DiskOp> op = std::move(at->second);
  ops_.erase(at);
  --in_service_;
  op->outcome = perform(*op);
  if (observer_ != nullptr) observer_->performed(*op->request);
  const uint64_t code = op->outcome ? 0 : static_cast<uint64_t>(op->outcome.error().code) + 1;
  const bool has_bytes = op->request->op == IoOp::kRead && op->outcome.has_value();
  trace(TraceKind::kDiskDone, *op, code, has_bytes ? hash_bytes(op->data) : 0);
  SimDisk& disk = *op->disk;
  disk.finished(std::move(op));
  start_waiting();
}

Result<void> SimDevice::perform(DiskOp& op) {
  const IoRequest& request = *op.request;
  // The disk may have shrunk while the operation was under way.
  if (request.offset.value + request.length > size_bytes_) return fail(Code::kIo, "beyond the end of the disk");
  switch (request.op) {
    case IoOp::kRead:
      return perform_read(op);
    case IoOp::kFlush:
      return perform_flush(op);
    case IoOp::kWrite: {
      std::vector<std::byte> now(request.length);
      copy_from_buffers(request.buffers, 0, now);
      if (std::memcmp(now.data(), op.data.data(), now.size()) != 0)
        core_.violation({.node = node_}, "violation disk.write_buffer_changed_in_flight");
      return perform_write(op);
    }
    case IoOp::kWriteZeroes:
      if (!options_.write_zeroes_supported) return fail(Code::kNotSupported, "write zeroes");
      return perform_write(op);
    case IoOp::kDiscard:
      return perform_discard(op);
  }
  FL_UNREACHABLE("no such operation");
}

SimDevice::Victim SimDevice::pick_victim(uint64_t begin, uint64_t end) {
  const uint64_t block = options_.logical_block;
  const uint64_t sector = begin + (end - begin > 1 ? random_.below(end - begin) : 0);
  Victim victim;
  victim.zone = options_.faults.zone_at(sector * block, size_bytes_);
  victim.begin = std::max(begin, victim.zone.begin / block);
  victim.end = std::min(end, victim.zone.end / block);
  return victim;
}

Result<void> SimDevice::perform_read(DiskOp& op) {
  const uint64_t begin = first_sector(op);
  const uint64_t end = begin + sector_count(op);
  const Victim victim = pick_victim(begin, end);
  const DiskRates& rates = victim.zone.rates;
  if (random_.chance(rates.read_error_ppm)) {
    injected(SimFault::kReadError);
    unreadable_.insert(random_.between(victim.begin, victim.end - 1));
  }
  const auto bad = unreadable_.lower_bound(begin);
  if (bad != unreadable_.end() && *bad < end) return fail(Code::kIo, "unreadable sector");
  if (random_.chance(rates.transient_read_error_ppm)) {
    injected(SimFault::kReadError);
    return fail(Code::kIo, "read");
  }
  if (random_.chance(rates.rot_ppm)) {
    rot(random_.between(victim.begin, victim.end - 1) * options_.logical_block, 1);
  }
  op.data.resize(op.request->length);
  content_.read(begin, op.data);
  if (random_.chance(rates.misdirected_read_ppm)) {
    injected(SimFault::kMisdirectedRead);
    const uint64_t block = options_.logical_block;
    const uint64_t count = victim.end - victim.begin;
    const uint64_t from = random_.between(victim.zone.begin / block, victim.zone.end / block - count);
    content_.read(from, std::span(op.data).subspan((victim.begin - begin) * block, count * block));
  }
  copy_to_buffers(op.request->buffers, 0, op.data);
  return {};
}

void SimDevice::apply_at(const DiskOp& op, uint64_t number, uint64_t from_sector, uint64_t to_sector,
                         DiskContent::Reach reach) {
  const std::byte* bytes = nullptr;
  if (op.request->op == IoOp::kWrite) {
    bytes = op.data.data() + (from_sector - first_sector(op)) * options_.logical_block;
  }
  content_.write(number, to_sector, bytes, reach);
  mend(to_sector, number, reach);
}

void SimDevice::mend(uint64_t sector, uint64_t number, DiskContent::Reach reach) {
  unreadable_.erase(sector);
  const bool was_damaged = damaged_.erase(sector) != 0;
  if (reach == DiskContent::Reach::kStable || options_.cache == Cache::kNone) {
    mended_in_cache_.erase(sector);
  } else if (was_damaged) {
    mended_in_cache_[sector] = number;
  }
}

DiskContent::Reach SimDevice::reach_of(const DiskOp& op) const {
  const bool is_forced = op.request->durability == Durability::kForced && !options_.ignores_flushes;
  return is_forced ? DiskContent::Reach::kStable : DiskContent::Reach::kCache;
}

void SimDevice::apply(const DiskOp& op, uint64_t begin, uint64_t end) {
  const DiskContent::Reach reach = reach_of(op);
  const uint64_t number = content_.begin_write();
  for (uint64_t sector = begin; sector < end; ++sector) apply_at(op, number, sector, sector, reach);
}

void SimDevice::apply_some(const DiskOp& op, DiskContent::Reach reach) {
  const uint64_t begin = first_sector(op) + op.sectors_applied;
  const uint64_t end = first_sector(op) + sector_count(op);
  const uint64_t number = content_.begin_write();
  for (uint64_t sector = begin; sector < end; ++sector) {
    if (random_.coin()) apply_at(op, number, sector, sector, reach);
  }
}

void SimDevice::damage(uint64_t begin, uint64_t end) {
  for (uint64_t sector = begin; sector < end; ++sector) damaged_.insert(sector);
}

void SimDevice::apply_misdirected(const DiskOp& op, const Victim& victim) {
  const uint64_t block = options_.logical_block;
  const uint64_t count = victim.end - victim.begin;
  const uint64_t to = random_.between(victim.zone.begin / block, victim.zone.end / block - count);
  const DiskContent::Reach reach = reach_of(op);
  const uint64_t number = content_.begin_write();
  damage(victim.begin, victim.end);
  for (uint64_t i = 0; i < count; ++i) apply_at(op, number, victim.begin + i, to + i, reach);
  if (to != victim.begin) damage(to, to + count);
}

bool SimDevice::has_room(uint64_t begin, uint64_t end) const {
  if (content_.allocated_bytes() + (end - begin) * options_.logical_block <= options_.room_bytes) return true;
  for (uint64_t sector = begin; sector < end; ++sector) {
    if (!content_.is_allocated(sector)) return false;
  }
  return true;
}

Result<void> SimDevice::perform_write(DiskOp& op) {
  if (options_.read_only) return fail(Code::kReadOnly, "write");
  const uint64_t begin = first_sector(op) + op.sectors_applied;
  const uint64_t end = first_sector(op) + sector_count(op);
  if (op.request->op == IoOp::kWrite && !has_room(begin, end)) {
    injected(SimFault::kNoSpace);
    return fail(Code::kNoSpace, "write");
  }
  const Victim victim = pick_victim(begin, end);
  if (random_.chance(victim.zone.rates.write_error_ppm)) {
    injected(SimFault::kWriteError);
    apply_some(op, DiskContent::Reach::kCache);
    return fail(Code::kIo, "write");
  }
  const bool lost = random_.chance(victim.zone.rates.lost_write_ppm);
  const bool misdirected = !lost && random_.chance(victim.zone.rates.misdirected_write_ppm);
  if (!lost && !misdirected) {
    apply(op, begin, end);
    return {};
  }
  apply(op, begin, victim.begin);
  apply(op, victim.end, end);
  injected(lost ? SimFault::kLostWrite : SimFault::kMisdirectedWrite);
  if (lost) {
    damage(victim.begin, victim.end);
  } else {
    apply_misdirected(op, victim);
  }
  return {};
}

Result<void> SimDevice::perform_flush(DiskOp& op) {
  if (random_.chance(options_.faults.elsewhere.flush_error_ppm)) {
    injected(SimFault::kFlushError);
    return fail(Code::kIo, "flush");
  }
  if (options_.ignores_flushes) return {};
  content_.flush(op.flush_to);
  std::erase_if(mended_in_cache_, [&](const auto& entry) { return entry.second <= op.flush_to; });
  return {};
}

Result<void> SimDevice::perform_discard(DiskOp& op) {
  if (options_.discard_granularity == 0) return fail(Code::kNotSupported, "discard");
  if (options_.read_only) return fail(Code::kReadOnly, "discard");
  switch (options_.discard_reads) {
    case DiscardReads::kZeroes:
      apply(op, first_sector(op), first_sector(op) + sector_count(op));
      break;
    case DiscardReads::kOldBytes:
      break;
    case DiscardReads::kEither:
      apply_some(op, DiskContent::Reach::kCache);
      break;
  }
  return {};
}

void SimDevice::crash(CrashKind kind) {
  waiting_.clear();
  in_service_ = 0;
  claimed_by_ = 0;
  while (!ops_.empty()) {
    auto node = ops_.extract(ops_.begin());
    std::unique_ptr<DiskOp> op = std::move(node.mapped());
    const IoOp kind_of_op = op->request->op;
    const bool writes = kind_of_op == IoOp::kWrite || kind_of_op == IoOp::kWriteZeroes;
    const bool fits = op->request->offset.value + op->request->length <= size_bytes_;
    if (op->started && writes && fits && !options_.read_only &&
        has_room(first_sector(*op), first_sector(*op) + sector_count(*op))) {
      // Not acknowledged, so never stable by right, whatever it asked for.
      const auto reach = options_.cache == Cache::kNone ? DiskContent::Reach::kStable : DiskContent::Reach::kCache;
      if (random_.coin()) apply_some(*op, reach);
    }
    op->outcome = fail(Code::kCancelled, "the node crashed");
    SimDisk& disk = *op->disk;
    disk.finished(std::move(op));
  }
  if (kind != CrashKind::kPowerLost) return;
  const DiskContent::CrashOutcome outcome = content_.crash(random_);
  for (const auto& [sector, number] : mended_in_cache_) damaged_.insert(sector);
  mended_in_cache_.clear();
  core_.record({.kind = TraceKind::kDiskCrash,
                .place = {.node = node_},
                .a = index_,
                .b = uint64_t{outcome.kept} << 32 | outcome.lost});
}

}  // namespace fairlead::sim
