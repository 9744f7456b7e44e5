#include "kube/pool_keeper.h"

#include <fmt/format.h>

#include "base/log.h"

namespace fairlead::kube {

using control::field;
using control::text_of;

namespace {

constexpr int kPageItems = 500;

// Fields that are there no more are null in a merge patch.
Json status_patch(const Json& disk_pool, const Json& status) {
  Json changed = status;
  const Json& before = field(disk_pool, "status");
  if (before.is_object()) {
    for (const auto& [key, value] : before.items()) {
      if (!status.contains(key)) changed[key] = nullptr;
    }
  }
  return {{"metadata", {{"resourceVersion", field(disk_pool, "metadata.resourceVersion")}}},
          {"status", std::move(changed)}};
}

}  // namespace

PoolKeeper::PoolKeeper(Shard& home, WatchApi& watch, Api& kube, Api& control, PoolKeeperOptions options)
    : home_(home), watch_(watch), kube_(kube), control_(control), options_(options), changed_(home.reactor) {}

// ---- DiskPools

void PoolKeeper::forget() {
  ++forgotten_;
  version_.clear();
  disk_pools_.clear();
  told_.clear();
  away_since_.reset();
}

Task<Outcome<void>> PoolKeeper::list() {
  const uint64_t forgotten = forgotten_;
  std::map<std::string, Json> found;
  std::string version;
  std::string more;
  do {
    const std::string next = more.empty() ? "" : "&continue=" + control::percent_encoded(more);
    FL_CO_TRY(const Json page, co_await kube_.get(fmt::format("{}?limit={}{}", kDiskPools, kPageItems, next)));
    for (const Json& each : field(page, "items")) found[text_of(each, "metadata.name")] = each;
    version = text_of(page, "metadata.resourceVersion");
    more = text_of(page, "metadata.continue");
  } while (!more.empty());
  if (forgotten != forgotten_) co_return Outcome<void>();
  disk_pools_ = std::move(found);
  version_ = std::move(version);
  changed_.set();
  co_return Outcome<void>();
}

Task<Outcome<void>> PoolKeeper::follow() {
  if (version_.empty()) co_return co_await list();
  const uint64_t forgotten = forgotten_;
  const Outcome<std::vector<Json>> events = co_await watch_.watch(
      fmt::format("{}?watch=true&allowWatchBookmarks=true&resourceVersion={}", kDiskPools, version_));
  if (forgotten != forgotten_) co_return Outcome<void>();
  if (!events) {
    if (events.error().error.code != Code::kOutOfRange) co_return std::unexpected(events.error());
    version_.clear();
    co_return Outcome<void>();
  }
  for (const Json& event : *events) take(event);
  co_return Outcome<void>();
}

void PoolKeeper::take(const Json& event) {
  const std::string type = text_of(event, "type");
  const Json& object = field(event, "object");
  // What it says of itself, whatever it is: to list anew is always right.
  if (type == "ERROR" || version_.empty()) return version_.clear();
  version_ = text_of(object, "metadata.resourceVersion");
  if (type == "BOOKMARK") return;
  const std::string name = text_of(object, "metadata.name");
  if (type == "DELETED") {
    disk_pools_.erase(name);
    told_.erase(name);
  } else {
    disk_pools_[name] = object;
  }
  changed_.set();
}

Json PoolKeeper::known(const std::string& name) const {
  const auto found = disk_pools_.find(name);
  return found == disk_pools_.end() ? Json() : found->second;
}

Task<bool> PoolKeeper::patch(const Json& disk_pool, std::string suffix, Json change) {
  const std::string name = text_of(disk_pool, "metadata.name");
  const std::string uid = text_of(disk_pool, "metadata.uid");
  const uint64_t forgotten = forgotten_;
  Outcome<Json> now = co_await kube_.call(
      {.method = RestMethod::kPatch, .path = path_of_disk_pool(name) + suffix, .body = std::move(change)});
  if (forgotten != forgotten_) co_return false;
  const auto kept = disk_pools_.find(name);
  const bool is_kept = kept != disk_pools_.end() && text_of(kept->second, "metadata.uid") == uid;
  if (now) {
    if (is_kept) kept->second = std::move(*now);
    co_return true;
  }
  // Of a conflict the watch brings what was changed.
  const Code code = now.error().error.code;
  if (code != Code::kMiscompare && code != Code::kFenced && code != Code::kNotFound) {
    log_warn("operator.disk_pool_not_written", {{"disk_pool", name}, {"error", to_string(now.error())}});
  }
  co_return false;
}

// ---- Pools

Task<Outcome<void>> PoolKeeper::act() {
  changed_.reset();
  const uint64_t forgotten = forgotten_;
  const Outcome<Json> listed = co_await control_.get("/v1/pools");
  if (forgotten != forgotten_ || !is_synced()) co_return Outcome<void>();
  std::vector<std::string> names;
  for (const auto& [name, disk_pool] : disk_pools_) names.push_back(name);
  if (!listed) {
    if (listed.error().error.code == Code::kFenced) co_return Outcome<void>();
    if (!away_since_) away_since_ = home_.clock.now();
    if (home_.clock.now() - *away_since_ >= options_.patience) {
      for (const std::string& name : names) co_await tell(known(name), Json(), standing_of_error(listed.error()));
    }
    co_return std::unexpected(listed.error());
  }
  away_since_.reset();
  std::map<std::string, Json> pools;
  for (const Json& pool : field(*listed, "items")) pools[text_of(pool, "name")] = pool;
  for (const std::string& name : names) {
    const auto pool = pools.find(name);
    co_await act_on(name, pool == pools.end() ? Json() : pool->second);
    if (forgotten != forgotten_) break;
  }
  co_return Outcome<void>();
}

Task<void> PoolKeeper::act_on(std::string name, const Json& pool) {
  Json disk_pool = known(name);
  if (disk_pool.is_null()) co_return;
  if (is_deleting(disk_pool)) {
    if (has_finalizer(disk_pool)) co_await release(std::move(disk_pool), pool);
    co_return;
  }
  if (!has_finalizer(disk_pool)) {
    if (!co_await patch(disk_pool, "", finalizer_patch(disk_pool, Finalizer::kAdd))) co_return;
    disk_pool = known(name);
    if (disk_pool.is_null() || is_deleting(disk_pool)) co_return;
  }
  co_await make(std::move(disk_pool), pool);
}

Standing PoolKeeper::standing_of_error(const Problem& error) {
  switch (error.error.code) {
    case Code::kUnreachable:
    case Code::kTimedOut:
      return {.status = "Unknown", .reason = "ControlPlaneAway", .message = to_string(error)};
    case Code::kAlreadyExists:
      return {.status = "False", .reason = "NameTaken", .message = to_string(error)};
    case Code::kNotFound:
      return {.status = "False", .reason = "NoSuchNode", .message = to_string(error)};
    case Code::kBusy:
      return {.status = "False", .reason = "NotEmpty", .message = to_string(error)};
    case Code::kPermissionDenied:
      return {.status = "Unknown", .reason = "Refused", .message = to_string(error)};
    default:
      return {.status = "False", .reason = "Invalid", .message = to_string(error)};
  }
}

Task<void> PoolKeeper::make(Json disk_pool, const Json& pool) {
  const std::string name = text_of(disk_pool, "metadata.name");
  const Outcome<Json> wanted = wanted_pool(disk_pool);
  if (!wanted) co_return co_await tell(disk_pool, Json(), standing_of_error(wanted.error()));
  if (!pool.is_null() && !is_wanted(*wanted, pool)) {
    const std::string message =
        fmt::format("there is a pool {} already, of node {} and disks {}: delete that, or take another name", name,
                    text_of(pool, "spec.node"), control::to_text(field(pool, "spec.disks")));
    co_return co_await tell(disk_pool, Json(), {.status = "False", .reason = "NameTaken", .message = message});
  }
  Outcome<Json> now = pool;
  if (pool.is_null()) {
    log_info("operator.pool_asked_for", {{"pool", name}, {"node", text_of(*wanted, "spec.node")}});
    now = co_await control_.call({.method = RestMethod::kPost, .path = "/v1/pools", .body = *wanted});
  } else if (text_of(pool, "status.state") != "deleting") {
    Json change = pool_patch(*wanted, pool);
    if (!change.is_null()) {
      log_info("operator.pool_changed", {{"pool", name}, {"change", control::to_text(change)}});
      now = co_await control_.call({.method = RestMethod::kPatch,
                                    .path = "/v1/pools/" + control::percent_encoded(name),
                                    .body = std::move(change)});
    }
  }
  if (now) co_return co_await tell(disk_pool, *now, standing_of(*now));
  const Code code = now.error().error.code;
  // It has changed meanwhile, or nobody is to act: look again.
  if (code == Code::kFenced || (code == Code::kNotFound && !pool.is_null())) co_return;
  if (code == Code::kUnreachable || code == Code::kTimedOut) co_return;
  co_await tell(disk_pool, pool, standing_of_error(now.error()));
}

Task<void> PoolKeeper::release(Json disk_pool, const Json& pool) {
  const std::string name = text_of(disk_pool, "metadata.name");
  const Outcome<Json> wanted = wanted_pool(disk_pool);
  // Another pool of that name is not ours to delete.
  const bool is_ours = !pool.is_null() && wanted && is_wanted(*wanted, pool);
  if (!is_ours) {
    const bool is_done = co_await patch(disk_pool, "", finalizer_patch(disk_pool, Finalizer::kRemove));
    if (is_done) {
      log_info("operator.disk_pool_released", {{"disk_pool", name}});
      disk_pools_.erase(name);
    }
    co_return;
  }
  if (text_of(pool, "status.state") == "deleting") co_return co_await tell(disk_pool, pool, standing_of(pool));
  log_info("operator.pool_deleted", {{"pool", name}});
  const Outcome<Json> gone =
      co_await control_.call({.method = RestMethod::kDelete, .path = "/v1/pools/" + control::percent_encoded(name)});
  if (gone) {
    Json deleting = gone->is_null() ? pool : *gone;
    deleting["status"]["state"] = "deleting";
    co_return co_await tell(disk_pool, deleting, standing_of(deleting));
  }
  const Code code = gone.error().error.code;
  if (code == Code::kFenced || code == Code::kUnreachable || code == Code::kTimedOut) co_return;
  co_await tell(disk_pool, pool, standing_of_error(gone.error()));
}

Task<void> PoolKeeper::tell(const Json& disk_pool, const Json& pool, Standing standing) {
  if (disk_pool.is_null()) co_return;
  const std::string name = text_of(disk_pool, "metadata.name");
  const Json status = status_of(disk_pool, pool, standing, home_.clock.wall_ms());
  const Difference difference = difference_of(field(disk_pool, "status"), status);
  if (difference == Difference::kNone) co_return;
  const auto told = told_.find(name);
  const bool is_recent = told != told_.end() && home_.clock.now() - told->second < options_.numbers_interval;
  if (difference == Difference::kNumbers && is_recent) co_return;
  if (co_await patch(disk_pool, "/status", status_patch(disk_pool, status))) {
    told_[name] = home_.clock.now();
    ++status_writes_;
  }
}

}  // namespace fairlead::kube
