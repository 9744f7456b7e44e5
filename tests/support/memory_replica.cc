#include "tests/support/memory_replica.h"

#include <algorithm>
#include <utility>

#include "async/cancel.h"
#include "tests/support/memory_link.h"

namespace fairlead::test {

using mirror::kExtentBytes;

// ---- MemoryMedium

MemoryMedium::MemoryMedium(uint64_t size_bytes, Uuid boot)
    : boot_id(boot),
      extents_((size_bytes + kExtentBytes - 1) / kExtentBytes),
      bytes_(size_bytes),
      stable_(size_bytes) {}

void MemoryMedium::read(uint64_t offset, std::span<std::byte> into) const {
  std::ranges::copy(std::span(bytes_).subspan(offset, into.size()), into.begin());
}

void MemoryMedium::note_change(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  if (!generation) ++unstamped;
  for (uint64_t i = offset / kExtentBytes; i <= (offset + length - 1) / kExtentBytes; ++i) {
    extents_[i].stamp = std::max(extents_[i].stamp, generation);
    by_extent_.emplace(i, epoch_);
  }
  for (uint64_t i = offset / kBlockBytes; i <= (offset + length - 1) / kBlockBytes; ++i) volatile_blocks_.insert(i);
}

void MemoryMedium::write(uint64_t offset, std::span<const std::byte> from) {
  note_change(offset, from.size());
  for (uint64_t i = offset / kExtentBytes; i * kExtentBytes < offset + from.size(); ++i) extents_[i].is_mapped = true;
  std::ranges::copy(from, std::span(bytes_).subspan(offset).begin());
}

void MemoryMedium::unmap(uint64_t offset, uint64_t length) {
  note_change(offset, length);
  std::ranges::fill(std::span(bytes_).subspan(offset, length), std::byte{0});
  const uint64_t end = offset + length;
  for (uint64_t i = (offset + kExtentBytes - 1) / kExtentBytes; i < extents_.size(); ++i) {
    if (std::min((i + 1) * kExtentBytes, size_bytes()) > end) break;
    extents_[i].is_mapped = false;
  }
}

void MemoryMedium::flush() {
  for (const uint64_t block : volatile_blocks_) {
    const uint64_t begin = block * kBlockBytes;
    const uint64_t end = std::min(begin + kBlockBytes, size_bytes());
    std::copy(bytes_.begin() + static_cast<ptrdiff_t>(begin), bytes_.begin() + static_cast<ptrdiff_t>(end),
              stable_.begin() + static_cast<ptrdiff_t>(begin));
  }
  volatile_blocks_.clear();
}

void MemoryMedium::flush(uint64_t offset, uint64_t length) {
  const auto begin = static_cast<ptrdiff_t>(offset);
  std::copy_n(bytes_.begin() + begin, static_cast<ptrdiff_t>(length), stable_.begin() + begin);
}

void MemoryMedium::cut_power(Random& random) {
  for (const uint64_t block : std::exchange(volatile_blocks_, {})) {
    const auto begin = static_cast<ptrdiff_t>(block * kBlockBytes);
    const auto end = static_cast<ptrdiff_t>(std::min((block + 1) * kBlockBytes, size_bytes()));
    if (random.one_in(2)) {
      std::copy(bytes_.begin() + begin, bytes_.begin() + end, stable_.begin() + begin);
    } else {
      std::copy(stable_.begin() + begin, stable_.begin() + end, bytes_.begin() + begin);
    }
  }
  for (Frozen& frozen : frozen_) {
    for (const uint64_t block : std::exchange(frozen.volatile_blocks, {})) {
      if (random.one_in(2)) continue;
      const uint64_t begin = block * kBlockBytes;
      const uint64_t end = std::min(begin + kBlockBytes, frozen.bytes.size());
      if (begin < end) std::copy_n(&frozen.stable[begin], end - begin, &frozen.bytes[begin]);
    }
  }
  boot_id = random.uuid();
}

void MemoryMedium::take_snapshot(const mirror::Snapshot& snapshot) {
  Frozen frozen;
  frozen.snapshot = snapshot;
  frozen.epoch = epoch_++;
  frozen.bytes.assign(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(snapshot.size_bytes));
  frozen.stable = stable_;
  frozen.volatile_blocks = volatile_blocks_;
  for (const Extent& extent : extents_) frozen.mapped.push_back(extent.is_mapped);
  frozen_.push_back(std::move(frozen));
}
void MemoryMedium::delete_snapshot(const Uuid& id) {
  std::erase_if(frozen_, [&](const Frozen& frozen) { return frozen.snapshot.id == id; });
}
const MemoryMedium::Frozen* MemoryMedium::find_snapshot(const Uuid& id) const {
  const auto found = std::ranges::find(frozen_, id, [](const Frozen& frozen) { return frozen.snapshot.id; });
  return found == frozen_.end() ? nullptr : &*found;
}
bool MemoryMedium::has_changed(uint64_t extent, uint64_t after, uint64_t until) const {
  const auto found = by_extent_.lower_bound({extent, after + 1});
  return found != by_extent_.end() && found->first == extent && found->second <= until;
}
void MemoryMedium::grow(uint64_t size_bytes) {
  extents_.resize((size_bytes + kExtentBytes - 1) / kExtentBytes);
  bytes_.resize(size_bytes);
  stable_.resize(size_bytes);
}

void MemoryMedium::poke(uint64_t offset, std::span<const std::byte> from) {
  std::ranges::copy(from, std::span(bytes_).subspan(offset).begin());
  std::ranges::copy(from, std::span(stable_).subspan(offset).begin());
}

// ---- MemoryReplicaStore

MemoryReplicaStore::MemoryReplicaStore(Shard& home, MemoryMedium& medium)
    : home_(home), medium_(medium), state_(medium.state), released_(home.reactor) {}

void MemoryReplicaStore::release_saves() {
  is_held_ = false;
  released_.release_waiters();
}

Task<Result<void>> MemoryReplicaStore::save(mirror::ReplicaState state) {
  FL_CHECK(!is_saving_);
  is_saving_ = true;
  co_await yield(home_.reactor);
  if (save_delay_ > Duration(0)) (void)co_await sleep(home_.reactor, save_delay_);
  while (is_held_) co_await released_.wait();
  is_saving_ = false;
  if (const auto failure = std::exchange(next_failure_, std::nullopt)) {
    if (*failure == Failure::kKeepsNew) medium_.state = state;
    co_return fail(Code::kIo, "save a replica's state");
  }
  medium_.state = state;
  state_ = state;
  saves_.push_back(state);
  co_return Result<void>();
}

Task<Result<void>> MemoryReplicaStore::touch() {
  co_await yield(home_.reactor);
  if (error_) co_return fail(*error_, "a medium that fails");
  co_return Result<void>();
}

Task<Result<void>> MemoryReplicaStore::begin_generation(mirror::Stamp stamp) {
  FL_CHECK(stamp > medium_.generation);
  FL_CO_TRY_VOID(co_await touch());
  medium_.generation = stamp;
  co_return Result<void>();
}

Task<Result<bool>> MemoryReplicaStore::has_changed_since(mirror::Stamp stamp) {
  FL_CO_TRY_VOID(co_await touch());
  for (uint64_t i = 0; i < medium_.extents(); ++i) {
    if (medium_.stamp(i) > stamp) co_return true;
  }
  co_return false;
}

Task<Result<mirror::Ranges>> MemoryReplicaStore::changed(mirror::ChangedRequest request) {
  FL_CO_TRY_VOID(co_await touch());
  const MemoryMedium::Frozen* const base = medium_.find_snapshot(request.base);
  const MemoryMedium::Frozen* const of = medium_.find_snapshot(request.of);
  if ((base == nullptr && !request.base.is_nil()) || (of == nullptr && !request.of.is_nil())) {
    co_return fail(Code::kNotFound, "no such snapshot");
  }
  const uint64_t until = of == nullptr ? medium_.epoch() : of->epoch;
  const auto is_in = [&](uint64_t i) {
    if (base != nullptr) return medium_.has_changed(i, base->epoch, until);
    // Of a snapshot it may say too much: that it was written later.
    if (request.since) return medium_.stamp(i) > request.since;
    return of == nullptr ? medium_.is_mapped(i) : i < of->mapped.size() && of->mapped[i];
  };
  mirror::Ranges found;
  for (uint64_t i = request.offset / kExtentBytes; i < medium_.extents(); ++i) {
    if (!is_in(i)) continue;
    const uint64_t begin = i * kExtentBytes;
    const uint64_t end = std::min(begin + kExtentBytes, medium_.size_bytes());
    if (!found.ranges.empty() && found.ranges.back().end == begin) {
      found.ranges.back().end = end;
      continue;
    }
    if (found.ranges.size() == ranges_max_) {
      found.next = begin;
      break;
    }
    found.ranges.push_back({.begin = begin, .end = end});
  }
  co_return found;
}

Task<Result<void>> MemoryReplicaStore::stamp(std::vector<uint64_t> extents) {
  FL_CO_TRY_VOID(co_await touch());
  FL_CHECK(medium_.generation.has_value());
  for (const uint64_t extent : extents) {
    if (medium_.stamp(extent) || medium_.is_mapped(extent)) medium_.set_stamp(extent, *medium_.generation);
  }
  co_return Result<void>();
}

std::vector<mirror::Snapshot> MemoryReplicaStore::snapshots() const {
  std::vector<mirror::Snapshot> all;
  for (const MemoryMedium::Frozen& frozen : medium_.snapshots()) all.push_back(frozen.snapshot);
  return all;
}

Task<Result<void>> MemoryReplicaStore::take_snapshot(mirror::Snapshot snapshot) {
  FL_CO_TRY_VOID(co_await touch());
  medium_.take_snapshot(snapshot);
  co_return Result<void>();
}

Task<Result<void>> MemoryReplicaStore::delete_snapshot(Uuid id) {
  FL_CO_TRY_VOID(co_await touch());
  medium_.delete_snapshot(id);
  co_return Result<void>();
}

Task<Result<void>> MemoryReplicaStore::grow(uint64_t size_bytes) {
  FL_CHECK(size_bytes > medium_.size_bytes());
  FL_CO_TRY_VOID(co_await touch());
  medium_.grow(size_bytes);
  co_return Result<void>();
}

// ---- MemoryGate

Task<Result<void>> MemoryGate::show(Uuid snapshot) {
  co_await yield(reactor_);
  shown_.insert(snapshot);
  co_return Result<void>();
}

Task<void> MemoryGate::hide(Uuid snapshot) {
  co_await yield(reactor_);
  shown_.erase(snapshot);
}

Result<void> MemoryGate::enter(mirror::CallerId caller) {
  FL_CHECK(caller != 0);
  if (caller != open_for_) return fail(Code::kFenced, "the replica lets another one through");
  ++inside_;
  return {};
}

void MemoryGate::leave() {
  FL_CHECK(inside_ > 0);
  if (--inside_ == 0) left_.release_waiters();
}

Task<void> MemoryGate::close() {
  open_for_ = 0;
  while (inside_ > 0) co_await left_.wait();
}

Task<void> MemoryGate::open(mirror::CallerId caller) {
  FL_CHECK(open_for_ == 0 && inside_ == 0 && caller != 0);
  co_await yield(reactor_);  // as it takes, to tell all shards
  open_for_ = caller;
  ++openings_;
}

// ---- MemoryReplica

MemoryReplica::MemoryReplica(Shard& home, MemoryReplicaOptions options)
    : home_(home), options_(options), medium_(options.size_bytes, home.random.uuid()), released_(home.reactor) {
  medium_.state.record = options.record;
  start();
}

MemoryReplica::~MemoryReplica() {
  FL_CHECK(!is_up_ && keeper_ == nullptr);
  FL_CHECK(links_.empty());
}

void MemoryReplica::start() {
  FL_CHECK(!is_up_ && keeper_ == nullptr);
  store_ = std::make_unique<MemoryReplicaStore>(home_, medium_);
  gate_ = std::make_unique<MemoryGate>(home_.reactor);
  keeper_ = std::make_unique<mirror::Keeper>(
      home_, *store_, *gate_,
      mirror::KeeperOptions{.volume = options_.volume, .replica = options_.id, .lease_max = options_.lease_max});
  is_up_ = true;
  for (MemoryLink* link : links_) link->look_for_replica();
}

Task<void> MemoryReplica::stop(Loses loses) {
  FL_CHECK(is_up_);
  is_up_ = false;
  callers_.clear();
  const std::vector<MemoryLink*> links = links_;
  for (MemoryLink* link : links) link->drop();
  store_->release_saves();
  release();
  co_await keeper_->close();
  keeper_.reset();
  gate_.reset();
  store_.reset();
  if (loses == Loses::kCache) medium_.cut_power(home_.random);
}

void MemoryReplica::release() {
  for (Fault& fault : faults_) fault.is_held = false;
  released_.release_waiters();
}

mirror::CallerId MemoryReplica::connect() {
  FL_CHECK(is_up_);
  callers_.insert(++last_caller_);
  return last_caller_;
}

Task<std::optional<mirror::Reply>> MemoryReplica::ask(mirror::CallerId caller, mirror::Request request) {
  if (!callers_.contains(caller)) co_return std::nullopt;
  co_return co_await keeper_->handle(caller, std::move(request));
}

Task<Result<void>> MemoryReplica::execute(mirror::CallerId caller, MemoryOperation& operation) {
  if (!callers_.contains(caller)) co_return fail(Code::kConnectionLost, "the replica has gone");
  if (!operation.snapshot.is_nil()) co_return co_await read_snapshot(operation);
  MemoryGate& gate = *gate_;
  FL_CO_TRY_VOID(gate.enter(caller));
  const Result<void> done = co_await perform(operation);
  gate.leave();
  co_return done;
}

Task<Result<void>> MemoryReplica::read_snapshot(MemoryOperation& operation) {
  if (delay_ > Duration(0)) (void)co_await sleep(home_.reactor, delay_);
  if (const Fault& fault = at(IoOp::kRead); fault.error) co_return fail(*fault.error, "a medium that fails");
  const MemoryMedium::Frozen* const frozen = medium_.find_snapshot(operation.snapshot);
  // The reader's mistake: it was to be shown first.
  if (frozen == nullptr || !is_up_ || !gate_->shows(operation.snapshot)) {
    co_return fail(Code::kNotFound, "no such snapshot is shown");
  }
  const auto begin = frozen->bytes.begin() + static_cast<ptrdiff_t>(operation.offset);
  operation.bytes.assign(begin, begin + static_cast<ptrdiff_t>(operation.length));
  co_return Result<void>();
}

Task<Result<void>> MemoryReplica::perform(MemoryOperation& operation) {
  if (delay_ > Duration(0)) (void)co_await sleep(home_.reactor, delay_);
  Fault& fault = at(operation.op);
  if (fault.is_held) {
    ++held_;
    while (fault.is_held) co_await released_.wait();
    --held_;
  }
  if (fault.error) co_return fail(*fault.error, "a medium that fails");
  ++fault.count;
  if (operation.op != IoOp::kRead && operation.op != IoOp::kFlush && medium_.generation &&
      medium_.generation->term != medium_.state.session.term) {
    ++misstamped_;
  }
  switch (operation.op) {
    case IoOp::kRead:
      operation.bytes.resize(operation.length);
      medium_.read(operation.offset, operation.bytes);
      break;
    case IoOp::kWrite:
      medium_.write(operation.offset, operation.bytes);
      break;
    case IoOp::kFlush:
      medium_.flush();
      break;
    case IoOp::kDiscard:
    case IoOp::kWriteZeroes:
      medium_.unmap(operation.offset, operation.length);
      break;
  }
  if (operation.durability == Durability::kForced) medium_.flush(operation.offset, operation.length);
  co_return Result<void>();
}

Task<void> MemoryReplica::forget(mirror::CallerId caller) {
  if (callers_.erase(caller) == 0) co_return;
  co_await keeper_->forget(caller);
}

}  // namespace fairlead::test
