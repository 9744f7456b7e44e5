#include "engine/pool_replica_store.h"

#include <algorithm>
#include <utility>

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
  return std::unique_ptr<PoolReplicaStore>(new PoolReplicaStore(home, pool, std::move(name), std::move(state)));
}

Task<Result<void>> PoolReplicaStore::save(mirror::ReplicaState state) {
  pool::Changes changes;
  changes.properties.push_back({.key = kReplicaStateProperty, .value = mirror::encode(state)});
  FL_CO_TRY_VOID(co_await pool_.change(name_, std::move(changes)));
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
Task<Result<std::vector<ByteRange>>> PoolReplicaStore::changed_within(std::optional<mirror::Stamp> since,
                                                                      ByteRange window) {
  FL_CO_TRY(std::vector<ByteRange> ranges,
            co_await pool_.changed_since(name_, to_pool(since.value_or(mirror::Stamp{})), window));
  if (since) co_return ranges;
  // What was written before any generation has no stamp.
  FL_CO_TRY(const std::vector<ByteRange> mapped, co_await pool_.mapped(name_, window));
  ranges.insert(ranges.end(), mapped.begin(), mapped.end());
  std::ranges::sort(ranges, {}, &ByteRange::begin);
  co_return ranges;
}

Task<Result<Ranges>> PoolReplicaStore::changed(std::optional<mirror::Stamp> since, uint64_t offset) {
  const uint64_t size = size_bytes();
  Ranges answer;
  uint64_t at = std::min(offset, size);
  for (int i = 0; i < kWindowsMax && at < size; ++i) {
    const ByteRange window = {at, std::min(align_down(at, kWindowBytes) + kWindowBytes, size)};
    FL_CO_TRY(const std::vector<ByteRange> ranges, co_await changed_within(since, window));
    std::vector<mirror::ByteSpan> spans;
    for (const ByteRange& range : ranges) add_whole(spans, range, window);
    if (answer.ranges.size() + spans.size() > mirror::kRangesMax) break;
    answer.ranges.insert(answer.ranges.end(), spans.begin(), spans.end());
    at = window.end;
  }
  answer.next = at < size ? at : 0;
  co_return answer;
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
