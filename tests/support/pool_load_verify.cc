// PoolLoad: while nobody works on the pool: every byte, every query, all room.
#include <algorithm>
#include <fmt/format.h>

#include "async/call.h"
#include "tests/support/pool_load.h"

namespace fairlead::test {

using pool::ByteRange;
using pool::ObjectInfo;
using pool::ObjectKind;
using pool::PoolStatistics;
using pool::Stamp;

namespace {

constexpr Duration kLook{100'000};
constexpr int kLooksMax = 100'000;
constexpr uint64_t kReadBytes = 128 * 1024;

// The extents that ranges touch. Empty: they are not in order, not joined, or beyond `size_bytes`.
std::optional<std::set<uint64_t>> extents_in(const std::vector<ByteRange>& ranges, uint64_t size_bytes,
                                             uint32_t extent_bytes) {
  std::set<uint64_t> extents;
  std::optional<uint64_t> last;
  for (const ByteRange& range : ranges) {
    if (range.begin >= range.end || range.end > size_bytes || (last && range.begin <= *last)) return std::nullopt;
    last = range.end;
    for (uint64_t at = range.begin / extent_bytes; at * extent_bytes < range.end; ++at) extents.insert(at);
  }
  return extents;
}

// Empty, or which extent is there and should not be, or is not and should.
std::string compare(const std::set<uint64_t>& found, const std::set<uint64_t>& least, const std::set<uint64_t>& most) {
  for (const uint64_t extent : least) {
    if (!found.contains(extent)) return fmt::format("extent {} is missing", extent);
  }
  for (const uint64_t extent : found) {
    if (!most.contains(extent)) return fmt::format("extent {} is too much", extent);
  }
  return {};
}

}  // namespace

Task<void> PoolLoad::verify(uint64_t epoch) {
  std::vector<ObjectRef> objects;
  for (const auto& [name, object] : model_.objects()) objects.push_back(object);
  for (const ObjectRef& object : objects) {
    if (is_alive(epoch)) co_await read_all(epoch, random_.below(node_.shard_count()), object);
  }
  for (const ObjectRef& object : objects) {
    if (is_alive(epoch)) co_await verify_queries(epoch, object);
  }
  if (is_alive(epoch)) co_await verify_differences(epoch);
  if (is_alive(epoch)) co_await verify_room(epoch);
}

Task<void> PoolLoad::read_all(uint64_t epoch, size_t shard, ObjectRef object) {
  Shard& here = node_.shard(shard);
  auto source = co_await call_on(here.reactor, node_.shard(0).reactor, pool_->source(object->name));
  if (!is_alive(epoch)) co_return;
  if (!source) co_return model_.fail(fmt::format("source of {}: {}", object->name, to_string(source.error())));
  auto device = (*source)->open(here);
  if (!is_alive(epoch)) co_return;
  if (!device) co_return model_.fail(fmt::format("open {}: {}", object->name, to_string(device.error())));
  const uint64_t size = (*device)->geometry().size_bytes;
  if (size != object->facts.size_bytes) {
    co_return model_.fail(
        fmt::format("{}: has {} bytes, should have {}", object->name, size, object->facts.size_bytes));
  }
  for (uint64_t offset = 0; offset < size && is_alive(epoch); offset += kReadBytes) {
    co_await read(epoch, here, **device, object, {offset, std::min(kReadBytes, size - offset)});
  }
}

Task<void> PoolLoad::verify_queries(uint64_t epoch, ObjectRef object) {
  const Result<ObjectInfo> info = pool_->find(object->name);
  if (!info) co_return model_.fail(fmt::format("{}: not found", object->name));
  model_.compare(*object, *info);
  const uint64_t size = object->facts.size_bytes;
  const std::set<uint64_t> touched = model_.touched(*object);
  const auto mapped = co_await pool_->mapped(object->name, {0, size});
  if (!is_alive(epoch)) co_return;
  if (!mapped) co_return model_.fail(fmt::format("mapped of {}: {}", object->name, to_string(mapped.error())));
  const auto mapped_extents = extents_in(*mapped, size, plan_.extent_bytes);
  if (!mapped_extents) co_return model_.fail(fmt::format("mapped of {}: ranges out of order", object->name));
  if (const std::string wrong = compare(*mapped_extents, model_.filled(*object), touched); !wrong.empty()) {
    co_return model_.fail(fmt::format("mapped of {}: {}", object->name, wrong));
  }
  for (const Stamp& stamp : {Stamp{}, Stamp{.term = next_term_ / 2, .writer = {}, .generation = 0}}) {
    if (object->facts.kind != ObjectKind::kReplica) break;
    const auto since = co_await pool_->changed_since(object->name, stamp, {0, size});
    if (!is_alive(epoch)) co_return;
    if (!since) co_return model_.fail(fmt::format("changed_since of {}: {}", object->name, to_string(since.error())));
    const auto extents = extents_in(*since, size, plan_.extent_bytes);
    if (!extents) co_return model_.fail(fmt::format("changed_since of {}: ranges out of order", object->name));
    const std::string wrong =
        compare(*extents, model_.stamped_since(*object, stamp), model_.touched_or_stamped(*object));
    if (!wrong.empty()) {
      co_return model_.fail(fmt::format("changed_since({}) of {}: {}", stamp.term, object->name, wrong));
    }
  }
}

Task<void> PoolLoad::verify_differences(uint64_t epoch) {
  std::vector<std::pair<ObjectRef, ObjectRef>> pairs;
  for (const auto& [name, older] : model_.objects()) {
    if (older->facts.kind != ObjectKind::kSnapshot) continue;
    for (const auto& [other, newer] : model_.objects()) {
      if (model_.descends(*newer, *older)) pairs.emplace_back(older, newer);
    }
  }
  for (const auto& [older, newer] : pairs) {
    const uint64_t size = std::max(older->facts.size_bytes, newer->facts.size_bytes);
    const auto between = co_await pool_->changed_between(older->name, newer->name, {0, size});
    if (!is_alive(epoch)) co_return;
    const std::string what = fmt::format("changed_between {} and {}", older->name, newer->name);
    if (!between) co_return model_.fail(fmt::format("{}: {}", what, to_string(between.error())));
    const auto extents = extents_in(*between, size, plan_.extent_bytes);
    if (!extents) co_return model_.fail(fmt::format("{}: ranges out of order", what));
    const std::string wrong =
        compare(*extents, model_.differing(*older, *newer), model_.touched_between(*older, *newer));
    if (!wrong.empty()) co_return model_.fail(fmt::format("{}: {}", what, wrong));
  }
}

Task<void> PoolLoad::verify_room(uint64_t epoch) {
  const Result<void> settled = co_await pool_->settle();
  if (!is_alive(epoch)) co_return;
  if (!settled) co_return model_.fail(fmt::format("settle: {}", to_string(settled.error())));
  const PoolStatistics now = statistics_ = pool_->statistics();
  const uint64_t sum = now.used_bytes + now.free_bytes + now.reserved_bytes + now.releasing_bytes;
  if (sum != now.capacity_bytes || now.releasing_bytes != 0 || now.metadata_bytes > now.used_bytes) {
    co_return model_.fail(fmt::format(
        "the room does not add up: {} used (metadata {}) {} free {} reserved {} releasing of {}", now.used_bytes,
        now.metadata_bytes, now.free_bytes, now.reserved_bytes, now.releasing_bytes, now.capacity_bytes));
  }
  const uint64_t extents = (now.used_bytes - now.metadata_bytes) / plan_.extent_bytes;
  const PoolModel::Room room = model_.room();
  if (plan_.checks_room && (extents < room.least || extents > room.most)) {
    co_return model_.fail(fmt::format("{} extents are used, should be {} to {}", extents, room.least, room.most));
  }
  std::vector<ObjectRef> objects;
  for (const auto& [name, object] : model_.objects()) objects.push_back(object);
  uint64_t sum_unique = 0;
  for (const ObjectRef& object : objects) {
    const Result<uint64_t> unique = co_await pool_->unique_bytes(object->name);
    if (!is_alive(epoch)) co_return;
    if (!unique) co_return model_.fail(fmt::format("unique_bytes of {}: {}", object->name, to_string(unique.error())));
    const Result<ObjectInfo> info = pool_->find(object->name);
    if (model_.is_alone(*object) && *unique != info->used_bytes) {
      co_return model_.fail(fmt::format("{}: {} bytes unique of {} used, and it shares with nobody", object->name,
                                        *unique, info->used_bytes));
    }
    sum_unique += *unique;
  }
  if (sum_unique > now.used_bytes - now.metadata_bytes) model_.fail("more bytes are unique than used");
}

Task<void> PoolLoad::delete_all(uint64_t epoch) {
  std::vector<std::string> names;
  for (const auto& [name, object] : model_.objects()) names.push_back(name);
  while (!names.empty() && is_alive(epoch)) {
    const size_t at = random_.below(names.size());
    const std::string name = names[at];
    names.erase(names.begin() + static_cast<ptrdiff_t>(at));
    ModelChange change = model_.begin_remove(model_.objects().at(name));
    Result<void> removed;
    for (int i = 0; i < kLooksMax && is_alive(epoch); ++i) {
      removed = co_await pool_->remove(name);
      if (removed || removed.error().code != Code::kBusy) break;
      co_await sleep(node_.shard(0).reactor, kLook);
    }
    if (!is_alive(epoch)) co_return;
    if (!removed) co_return model_.fail(fmt::format("remove of {}: {}", name, to_string(removed.error())));
    model_.done(change, epoch);
  }
  if (!is_alive(epoch)) co_return;
  Result<void> settled = co_await pool_->settle();
  if (settled && is_alive(epoch)) settled = co_await pool_->checkpoint();
  if (settled && is_alive(epoch)) settled = co_await pool_->settle();
  if (!is_alive(epoch)) co_return;
  const PoolStatistics now = statistics_ = pool_->statistics();
  if (!settled || now.used_bytes != now.metadata_bytes || now.releasing_bytes != 0 || !pool_->list().empty()) {
    model_.fail(fmt::format("all was removed, and {} bytes are used, {} of them metadata, {} releasing", now.used_bytes,
                            now.metadata_bytes, now.releasing_bytes));
  }
}

}  // namespace fairlead::test
