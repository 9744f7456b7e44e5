#include "engine/pool_replica_store.h"

#include <algorithm>
#include <utility>

#include "base/defect.h"

namespace fairlead::engine {
namespace {

using mirror::kExtentBytes;
using mirror::Ranges;
using pool::ByteRange;

// What is asked of the pool at a time, and how often for one answer: both bound how long others wait.
constexpr uint64_t kWindowBytes = 4096 * kExtentBytes / 2;
constexpr int kWindowsMax = 64;
static_assert(kWindowBytes / kExtentBytes <= mirror::kRangesMax);

mirror::Stamp from_pool(const pool::Stamp& stamp) {
  return {.term = {.number = stamp.term, .writer = stamp.writer}, .generation = stamp.generation};
}
pool::Stamp to_pool(const mirror::Stamp& stamp) {
  return {.term = stamp.term.number, .writer = stamp.term.writer, .generation = stamp.generation};
}

// Adds the range, made whole inside the window. In ascending order, but two may meet in one extent.
void add_whole(std::vector<mirror::ByteSpan>& spans, const ByteRange& range, const ByteRange& window) {
  const uint64_t begin = std::max(align_down(range.begin, kExtentBytes), window.begin);
  const uint64_t end = std::min(align_up(range.end, kExtentBytes), window.end);
  if (!spans.empty() && begin <= spans.back().end) {
    spans.back().end = std::max(spans.back().end, end);
  } else {
    spans.push_back({begin, end});
  }
}

}  // namespace

Result<std::unique_ptr<PoolReplicaStore>> PoolReplicaStore::open(Shard& home, pool::Pool& pool, mirror::ReplicaId id) {
  std::string name = to_string(id);
  FL_TRY(const pool::ObjectInfo info, pool.find(name));
  if (info.state.kind != pool::ObjectKind::kReplica) return fail(Code::kInvalidArgument, "a snapshot is no replica");
  mirror::ReplicaState state;
  const auto kept = std::ranges::find(info.state.properties, kReplicaStateProperty, &pool::Property::key);
  if (kept != info.state.properties.end()) {
    FL_TRY(state, mirror::decode_replica_state(kept->value));
  }
  std::unique_ptr<PoolReplicaStore> store(new PoolReplicaStore(home, pool, std::move(name), std::move(state)));
  FL_TRY_VOID(store->find_snapshots());
  return store;
}

// Those that people took of the pool's replica, by hand, are not the volume's.
Result<void> PoolReplicaStore::find_snapshots() {
  for (const pool::ObjectInfo& object : pool_.list()) {
    if (object.state.kind != pool::ObjectKind::kSnapshot || to_string(object.state.origin) != name_) continue;
    const auto kept = std::ranges::find(object.state.properties, kSnapshotProperty, &pool::Property::key);
    if (kept == object.state.properties.end()) continue;
    FL_TRY(const mirror::Snapshot snapshot, mirror::decode_snapshot(kept->value));
    snapshots_.push_back({snapshot, object.state.id});
  }
  std::ranges::sort(snapshots_, {}, [](const Kept& each) { return each.snapshot.cut; });
  return {};
}

Task<Result<void>> PoolReplicaStore::save(mirror::ReplicaState state) {
  pool::Changes changes;
  changes.properties.push_back({.key = kReplicaStateProperty, .value = mirror::encode(state)});
  if (!has_defect(Defect::kKeepsNothing)) {
    FL_CO_TRY_VOID(co_await pool_.change(name_, std::move(changes)));
  }
  state_ = std::move(state);
  co_return Result<void>();
}

uint64_t PoolReplicaStore::size_bytes() const {
  const Result<pool::ObjectInfo> info = pool_.find(name_);
  return info ? info->state.size_bytes : 0;
}

std::optional<mirror::Stamp> PoolReplicaStore::generation() const {
  const std::optional<pool::Stamp> stamp = pool_.generation(name_);
  if (!stamp) return std::nullopt;
  return from_pool(*stamp);
}

Task<Result<void>> PoolReplicaStore::begin_generation(mirror::Stamp stamp) {
  return pool_.begin_generation(name_, to_pool(stamp));
}

Task<Result<bool>> PoolReplicaStore::has_changed_since(mirror::Stamp stamp) {
  const uint64_t size = size_bytes();
  for (uint64_t at = 0; at < size; at += kWindowBytes) {
    const ByteRange window = {at, std::min(at + kWindowBytes, size)};
    FL_CO_TRY(const std::vector<ByteRange> ranges, co_await pool_.changed_since(name_, to_pool(stamp), window));
    if (!ranges.empty()) co_return true;
  }
  co_return false;
}

// Sorted by their beginnings.
Task<Result<std::vector<ByteRange>>> PoolReplicaStore::changed_within(const Question& question, ByteRange window) {
  if (question.base) co_return co_await pool_.changed_between(*question.base, question.of, window);
  FL_CO_TRY(std::vector<ByteRange> ranges,
            co_await pool_.changed_since(question.of, to_pool(question.since.value_or(mirror::Stamp{})), window));
  if (question.since) co_return ranges;
  // What was written before any generation has no stamp.
  FL_CO_TRY(const std::vector<ByteRange> mapped, co_await pool_.mapped(question.of, window));
  ranges.insert(ranges.end(), mapped.begin(), mapped.end());
  std::ranges::sort(ranges, {}, &ByteRange::begin);
  co_return ranges;
}

Result<PoolReplicaStore::Question> PoolReplicaStore::question(const mirror::ChangedRequest& request) const {
  Question question{.of = name_, .base = std::nullopt, .since = request.since};
  if (!request.of.is_nil()) {
    FL_TRY(const Kept of, find_snapshot(request.of));
    question.of = to_string(of.object);
  }
  if (!request.base.is_nil()) {
    FL_TRY(const Kept base, find_snapshot(request.base));
    question.base = to_string(base.object);
  }
  return question;
}

Task<Result<Ranges>> PoolReplicaStore::changed(mirror::ChangedRequest request) {
  FL_CO_TRY(const Question asked, question(request));
  FL_CO_TRY(const pool::ObjectInfo of, pool_.find(asked.of));
  const uint64_t size = of.state.size_bytes;
  Ranges answer;
  uint64_t at = std::min(request.offset, size);
  for (int i = 0; i < kWindowsMax && at < size; ++i) {
    const ByteRange window = {at, std::min(align_down(at, kWindowBytes) + kWindowBytes, size)};
    FL_CO_TRY(const std::vector<ByteRange> ranges, co_await changed_within(asked, window));
    std::vector<mirror::ByteSpan> spans;
    for (const ByteRange& range : ranges) add_whole(spans, range, window);
    if (answer.ranges.size() + spans.size() > mirror::kRangesMax) break;
    answer.ranges.insert(answer.ranges.end(), spans.begin(), spans.end());
    at = window.end;
  }
  answer.next = at < size ? at : 0;
  co_return answer;
}

std::vector<mirror::Snapshot> PoolReplicaStore::snapshots() const {
  std::vector<mirror::Snapshot> list;
  for (const Kept& each : snapshots_) list.push_back(each.snapshot);
  return list;
}

Result<PoolReplicaStore::Kept> PoolReplicaStore::find_snapshot(const Uuid& id) const {
  const auto found = std::ranges::find(snapshots_, id, [](const Kept& each) { return each.snapshot.id; });
  if (found == snapshots_.end()) return fail(Code::kNotFound, "no such snapshot");
  return *found;
}

// For people its name is its id, and, as a pool may have several replicas of a volume, the beginning of the replica's.
Task<Result<void>> PoolReplicaStore::take_snapshot(mirror::Snapshot snapshot) {
  FL_CO_TRY(const Uuid object,
            co_await pool_.snapshot(name_, {.name = to_string(snapshot.id) + "-" + name_.substr(0, 8),
                                            .id = {},
                                            .size_bytes = snapshot.size_bytes,
                                            .properties = {{kSnapshotProperty, mirror::encode(snapshot)}}}));
  snapshots_.push_back({snapshot, object});
  co_return Result<void>();
}

Task<Result<void>> PoolReplicaStore::delete_snapshot(Uuid id) {
  FL_CO_TRY(const Kept kept, find_snapshot(id));
  FL_CO_TRY_VOID(co_await pool_.remove(to_string(kept.object)));
  std::erase_if(snapshots_, [&](const Kept& each) { return each.snapshot.id == id; });
  co_return Result<void>();
}

Task<Result<void>> PoolReplicaStore::grow(uint64_t size_bytes) {
  return pool_.resize(name_, size_bytes, pool::Pool::Shrink::kRefuse);
}

Task<Result<void>> PoolReplicaStore::stamp(std::vector<uint64_t> extents) {
  const uint64_t size = size_bytes();
  std::vector<ByteRange> ranges;
  for (const uint64_t extent : extents) {
    if (extent >= size / kExtentBytes + 1) continue;  // it shrank meanwhile
    const uint64_t begin = extent * kExtentBytes;
    if (begin < size) ranges.push_back({begin, std::min(begin + kExtentBytes, size)});
  }
  return pool_.restamp(name_, std::move(ranges));
}

}  // namespace fairlead::engine
