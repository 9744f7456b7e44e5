#include "cli/serve_pool.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>

#include "base/endian.h"
#include "base/log.h"
#include "base/units.h"
#include "cli/pool_disks.h"
#include "cli/pool_report.h"

namespace fairlead::cli {
namespace {

std::string_view kind_name(pool::ObjectKind kind) {
  return kind == pool::ObjectKind::kSnapshot ? "snapshot" : "replica";
}

// The property that keeps an object's namespace id. It names the object too: a snapshot inherits what is its replica's.
constexpr uint16_t kNumberProperty = 0x100;
struct KeptNumber {
  Uuid object;
  Le32 nsid;
};
static_assert(sizeof(KeptNumber) == 20);

std::vector<std::byte> encode_number(const Uuid& object, uint32_t nsid) {
  const KeptNumber kept{.object = object, .nsid = nsid};
  std::vector<std::byte> bytes(sizeof kept);
  std::memcpy(bytes.data(), &kept, sizeof kept);
  return bytes;
}

std::optional<uint32_t> number_of(const pool::ObjectState& state) {
  const auto found = std::ranges::find(state.properties, kNumberProperty, &pool::Property::key);
  if (found == state.properties.end() || found->value.size() != sizeof(KeptNumber)) return std::nullopt;
  KeptNumber kept;
  std::memcpy(&kept, found->value.data(), sizeof kept);
  if (kept.object != state.id || kept.nsid == 0 || kept.nsid > target::kNamespacesMax) return std::nullopt;
  return kept.nsid.get();
}

}  // namespace

Task<std::expected<void, Complaint>> PoolService::open(std::vector<OpenDisk> disks) {
  auto imported = co_await import_pool(shards_, std::move(disks));
  if (!imported) co_return std::unexpected(imported.error());
  pool_ = std::move(*imported);
  co_return std::expected<void, Complaint>();
}

Task<std::expected<void, Complaint>> PoolService::close() {
  if (pool_ == nullptr) co_return std::expected<void, Complaint>();
  const Result<void> closed = co_await pool_->close();
  const std::string name = pool_->name();
  pool_.reset();
  if (!closed) {
    co_return std::unexpected(fmt::format("pool {} could not be closed: {}", name, to_string(closed.error())));
  }
  co_return std::expected<void, Complaint>();
}

std::vector<std::string> PoolService::names() const {
  std::vector<std::string> names;
  for (const pool::ObjectInfo& object : pool_->list()) names.push_back(object.state.name);
  return names;
}

Task<std::expected<PoolService::Served, Complaint>> PoolService::serve(std::string name) {
  const Result<pool::ObjectInfo> object = pool_->find(name);
  if (!object) co_return about(name, object.error());
  const pool::ObjectState& state = object->state;
  if (served_.contains(state.name)) co_return std::unexpected(fmt::format("{} is served already", state.name));
  const Result<uint32_t> nsid = co_await add_namespace(state);
  if (!nsid) co_return about(name, nsid.error());
  served_.emplace(state.name, *nsid);
  co_return Served{fmt::format("{} {}", kind_name(state.kind), state.name), *nsid, state.size_bytes};
}

Task<Result<uint32_t>> PoolService::add_namespace(pool::ObjectState state) {
  FL_CO_TRY(const std::shared_ptr<BlockSource> source, co_await pool_->source(state.name));
  const std::optional<uint32_t> kept = number_of(state);
  uint32_t nsid = kept.value_or(fresh_number());
  for (uint32_t tries = 0; tries < target::kNamespacesMax && nsid != 0; ++tries) {
    if (nsid != kept) FL_CO_TRY_VOID(co_await keep_number(state, nsid));
    passed_.insert(nsid);
    Result<uint32_t> added = co_await target_.add_namespace(nqn_, {.nsid = nsid, .source = source, .uuid = state.id});
    if (added || added.error().code != Code::kAlreadyExists) co_return added;
    nsid = fresh_number();  // a disk that is served beside the pool has it
  }
  co_return fail(Code::kResourceExhausted, "a pool has at most 1024 namespaces");
}

// Before the namespace is there: no host has seen a number that is forgotten. A pool that is full is served all the
// same.
Task<Result<void>> PoolService::keep_number(const pool::ObjectState& state, uint32_t nsid) {
  pool::Changes changes;
  changes.properties.push_back({.key = kNumberProperty, .value = encode_number(state.id, nsid)});
  Result<void> kept = co_await pool_->change(state.name, std::move(changes));
  if (kept || kept.error().code != Code::kNoSpace) co_return kept;
  log_warn("pool.namespace_id_not_kept", {{"name", state.name}, {"nsid", nsid}});
  co_return Result<void>();
}

// Higher than all that were ever given where possible: one that a host may still take for something else comes last.
// 0: there is none.
uint32_t PoolService::fresh_number() const {
  std::set<uint32_t> taken;
  for (const pool::ObjectInfo& object : pool_->list()) {
    if (const std::optional<uint32_t> number = number_of(object.state)) taken.insert(*number);
  }
  const uint32_t highest = std::max(taken.empty() ? 0 : *taken.rbegin(), passed_.empty() ? 0 : *passed_.rbegin());
  if (highest < target::kNamespacesMax) return highest + 1;
  for (uint32_t nsid = 1; nsid <= target::kNamespacesMax; ++nsid) {
    if (!taken.contains(nsid)) return nsid;
  }
  return 0;
}

Task<Result<void>> PoolService::unserve(std::string name) {
  const auto served = served_.find(name);
  if (served == served_.end()) co_return fail(Code::kNotFound, "it is not served");
  const uint32_t nsid = served->second;
  FL_CO_TRY_VOID(co_await target_.remove_namespace(nqn_, nsid));
  served_.erase(name);
  co_return Result<void>();
}

// ---- Commands

std::span<const Verb<PoolService>> PoolService::verbs() {
  static constexpr std::array<Verb<PoolService>, 9> kVerbs = {{
      {"snapshot", 2, 0, "snapshot REPLICA NAME", &PoolService::snapshot},
      {"clone", 2, 0, "clone SNAPSHOT NAME", &PoolService::clone},
      {"delete", 1, 0, "delete NAME", &PoolService::remove},
      {"resize", 2, 0, "resize NAME SIZE", &PoolService::resize},
      {"serve", 1, 0, "serve NAME", &PoolService::start_serving},
      {"unserve", 1, 0, "unserve NAME", &PoolService::stop_serving},
      {"stats", 0, 0, "stats", &PoolService::show_statistics},
      {"list", 0, 0, "list", &PoolService::list},
      {"help", 0, 0, "help", &PoolService::show_help},
  }};
  return kVerbs;
}

Task<std::string> PoolService::execute(std::string line) { return execute_line(*this, verbs(), std::move(line)); }

Task<Answer> PoolService::snapshot(Words words) {
  const Result<Uuid> created = co_await pool_->snapshot(words[1], words[2]);
  if (!created) co_return about(created.error().code == Code::kAlreadyExists ? words[2] : words[1], created.error());
  co_return fmt::format("snapshot {} {}", words[2], to_string(*created));
}

Task<Answer> PoolService::clone(Words words) {
  const Result<pool::ObjectInfo> origin = pool_->find(words[1]);
  if (!origin) co_return about(words[1], origin.error());
  pool::ReplicaOptions options;
  options.name = words[2];
  options.size_bytes = origin->state.size_bytes;
  const Result<Uuid> created = co_await pool_->clone(words[1], std::move(options));
  if (!created) co_return about(words[2], created.error());
  const auto served = co_await serve(words[2]);
  if (!served) co_return std::unexpected(served.error());
  co_return fmt::format("replica {} {} nsid {}", words[2], to_string(*created), served->nsid);
}

Task<Answer> PoolService::remove(Words words) {
  const Result<pool::ObjectInfo> object = pool_->find(words[1]);
  if (!object) co_return about(words[1], object.error());
  const std::string name = object->state.name;
  if (served_.contains(name)) {
    if (const Result<void> unserved = co_await unserve(name); !unserved) co_return about(name, unserved.error());
  }
  if (const Result<void> removed = co_await pool_->remove(name); !removed) co_return about(name, removed.error());
  co_return fmt::format("deleted {} {}", kind_name(object->state.kind), name);
}

Task<Answer> PoolService::resize(Words words) {
  const Result<uint64_t> size = parse_size(words[2]);
  if (!size) co_return about(words[2], size.error());
  const Result<pool::ObjectInfo> object = pool_->find(words[1]);
  if (!object) co_return about(words[1], object.error());
  const std::string name = object->state.name;
  if (*size < object->state.size_bytes) {
    co_return std::unexpected(
        fmt::format("{} has {}: fairlead offline replica resize --lose-data makes it smaller, offline", name,
                    format_size(object->state.size_bytes)));
  }
  const Result<void> resized = co_await pool_->resize(name, *size, pool::Pool::Shrink::kRefuse);
  if (!resized) co_return about(name, resized.error());
  if (const auto served = served_.find(name); served != served_.end()) {
    const Result<uint64_t> told = co_await target_.rescan_namespace(nqn_, served->second);
    if (!told) co_return about(name, told.error());
  }
  co_return fmt::format("{} has {}", name, format_size(*size));
}

Task<Answer> PoolService::start_serving(Words words) {
  const auto served = co_await serve(words[1]);
  if (!served) co_return std::unexpected(served.error());
  co_return fmt::format("{} nsid {}", served->what, served->nsid);
}

Task<Answer> PoolService::stop_serving(Words words) {
  const Result<void> unserved = co_await unserve(words[1]);
  if (!unserved) co_return about(words[1], unserved.error());
  co_return words[1];
}

Task<Answer> PoolService::show_statistics(Words) { co_return statistics_to_json(pool_->statistics()); }

Task<Answer> PoolService::list(Words) {
  std::vector<ServedLine> lines;
  for (pool::ObjectInfo& info : pool_->list()) {
    const auto served = served_.find(info.state.name);
    const uint32_t nsid = served == served_.end() ? 0 : served->second;
    lines.push_back({{.info = std::move(info), .unique_bytes = {}, .origin = {}}, nsid});
  }
  for (ServedLine& line : lines) {
    const Result<uint64_t> unique = co_await pool_->unique_bytes(line.object.info.state.name);
    if (unique) line.object.unique_bytes = *unique;
  }
  co_return served_to_json(lines);
}

Task<Answer> PoolService::show_help(Words) { co_return usage_of(verbs()); }

}  // namespace fairlead::cli
