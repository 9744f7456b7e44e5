#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/log.h"
#include "engine/management.h"
#include "engine/pool_disks.h"
#include "engine/requests.h"

namespace fairlead::engine {
namespace {

using pool::Pool;

constexpr const char* kPools = "pools";  // which there are

bool are_same(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return std::ranges::is_permutation(a, b);
}

std::vector<OpenDisk> to_open(const std::vector<std::string>& paths) {
  std::vector<OpenDisk> disks;
  for (const std::string& path : paths) disks.push_back({.path = path});
  return disks;
}

// "pool tank holds 3 replicas and snapshots". Empty: it is empty.
std::string what_is_in(const Pool& pool) {
  const size_t count = pool.list().size();
  return count == 0 ? "" : fmt::format("pool {} holds {} replicas and snapshots", pool.name(), count);
}

}  // namespace

std::string Management::disks_of(const std::string& pool) const {
  const PoolRecord* const record = directory_.find_pool(pool);
  return record == nullptr ? "other disks" : fmt::format("{}", fmt::join(record->disks, ", "));
}

// Files that are not there are made with the size, when it is not 0.
Outcome<std::vector<pool::PoolDisk>> Management::open(const Paths& paths, uint64_t file_size_bytes) {
  Shard& home = *shards_.front();
  std::vector<pool::PoolDisk> disks;
  for (OpenDisk& disk : to_open(paths)) {
    auto opened = open_disks(home, {disk});
    if (!opened && opened.error().error.code == Code::kNotFound && file_size_bytes != 0) {
      disk.size_bytes = file_size_bytes;
      opened = open_disks(home, {disk});
    }
    if (!opened) {
      const bool may_be_made = opened.error().error.code == Code::kNotFound && file_size_bytes == 0;
      return problem(opened.error().error.code,
                     to_string(opened.error()) + (may_be_made ? "; with file_size_bytes a file is made" : ""));
    }
    disks.push_back(std::move(opened->front()));
  }
  return disks;
}

Task<Outcome<std::unique_ptr<Pool>>> Management::import(Paths paths) {
  FL_CO_TRY(std::vector<pool::PoolDisk> disks, open(paths, 0));
  pool::ImportOptions options = options_.import;
  options.seen = directory_.seen();
  co_return co_await Pool::import(shards_, std::move(disks), options);
}

// From what create() has refused, it may be what an earlier call made before the engine died.
Task<Outcome<std::unique_ptr<Pool>>> Management::make_pool(std::string name, Paths paths, uint64_t file_size_bytes) {
  FL_CO_TRY(const std::vector<pool::PoolDisk> disks, open(paths, file_size_bytes));
  if (const std::string found = what_is_on(*shards_.front(), to_open(paths)); !found.empty()) {
    co_return problem(Code::kAlreadyExists,
                      found + ": wipe it first, or make the pool by hand (fairlead offline pool create --force)");
  }
  pool::CreateOptions options = options_.create;
  options.name = name;
  const Outcome<void> created = co_await Pool::create(*shards_.front(), disks, options);
  if (!created && created.error().error.code != Code::kAlreadyExists) co_return std::unexpected(created.error());
  Outcome<std::unique_ptr<Pool>> pool = co_await Pool::import(shards_, disks, options_.import);
  if (created || (pool && (*pool)->name() == name && (*pool)->list().empty())) co_return pool;
  if (pool) (void)co_await (*pool)->close();
  co_return problem(Code::kAlreadyExists,
                    to_string(created.error()) + ": import it if it is a pool to keep, or wipe it first");
}

Task<Outcome<void>> Management::add(PoolRecord record, std::unique_ptr<Pool> pool) {
  if (const PoolRecord* const kept = directory_.find_pool(record.name); kept == nullptr || *kept != record) {
    if (Outcome<void> keeping = co_await directory_.keep_pool(record); !keeping) {
      (void)co_await pool->close();
      co_return keeping;
    }
  }
  const Result<void> added = co_await engine_.add_pool(std::move(pool));
  if (!added) co_return problem_of(added.error(), "pool " + record.name);
  troubles_.erase(record.name);
  changes().tell();
  co_return Outcome<void>();
}

// A pool that the state directory knows.
Task<Outcome<void>> Management::bring_in(PoolRecord record) {
  const std::string name = record.name;
  Outcome<std::unique_ptr<Pool>> pool = co_await import(record.disks);
  if (!pool && pool.error().error.code == Code::kNotFound && !record.joining.empty()) {
    record.disks.insert(record.disks.end(), record.joining.begin(), record.joining.end());
    pool = co_await import(record.disks);
  }
  Outcome<void> outcome;
  if (!pool) {
    outcome = std::unexpected(pool.error());
  } else if ((*pool)->name() != name) {
    outcome = problem(Code::kInvalidArgument, fmt::format("its disks hold pool {}", (*pool)->name()));
    (void)co_await (*pool)->close();
  } else {
    record.joining.clear();
    outcome = co_await add(std::move(record), std::move(*pool));
  }
  if (outcome) co_return outcome;
  troubles_[name] = to_string(outcome.error());
  log_error("engine.pool_not_imported", {{"pool", name}, {"error", troubles_[name]}});
  changes().tell();
  co_return problem(outcome.error().error.code, fmt::format("pool {} cannot be imported: {}", name, troubles_[name]));
}

Task<void> Management::start() {
  for (const PoolRecord& pool : std::vector<PoolRecord>(directory_.pools())) (void)co_await bring_in(pool);
  scope_.spawn(note_progress());
}

// So that disks which are rolled back, by hand or by whoever gives them, are noticed at the next start.
Task<void> Management::note_progress() {
  while (co_await sleep(shards_.front()->reactor, options_.note_interval, ending_)) {
    std::map<std::string, pool::Progress> seen;
    for (const Pool* const pool : engine_.pools()) seen.emplace(pool->name(), pool->progress());
    if (const Outcome<void> noted = co_await directory_.note_seen(std::move(seen)); !noted) {
      log_warn("engine.progress_not_noted", {{"error", to_string(noted.error())}});
    }
  }
}

Task<Outcome<v1::Done>> Management::create_pool(v1::CreatePoolRequest request) {
  FL_CO_TRY_VOID(check_pool_name(request.name()));
  FL_CO_TRY_VOID(check_file_size(request.file_size_bytes()));
  PoolRecord record{.name = request.name(), .disks = {}};
  FL_CO_TRY(record.disks, parse_paths(request.disks()));
  FL_CO_TRY(record.labels, parse_labels(request.labels()));
  if (record.disks.empty()) co_return problem(Code::kInvalidArgument, "a pool has one disk or more: name them");
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), kPools));
  if (const PoolRecord* const kept = directory_.find_pool(record.name)) {
    if (!are_same(kept->disks, record.disks)) {
      co_return problem(Code::kAlreadyExists, fmt::format("pool {} is there already, on {}: choose another name",
                                                          record.name, disks_of(record.name)));
    }
    if (engine_.find_pool(record.name) != nullptr) co_return v1::Done();
    FL_CO_TRY_VOID(co_await bring_in(*kept));
    co_return v1::Done();
  }
  if (engine_.find_pool(record.name) != nullptr) {
    co_return problem(Code::kAlreadyExists, fmt::format("pool {} is there already: choose another name", record.name));
  }
  FL_CO_TRY(std::unique_ptr<Pool> pool, co_await make_pool(record.name, record.disks, request.file_size_bytes()));
  FL_CO_TRY_VOID(co_await add(std::move(record), std::move(pool)));
  co_return v1::Done();
}

Task<Outcome<v1::Done>> Management::import_pool(v1::ImportPoolRequest request) {
  FL_CO_TRY(const Paths paths, parse_paths(request.disks()));
  if (paths.empty()) co_return problem(Code::kInvalidArgument, "a pool has one disk or more: name them");
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), kPools));
  const auto is_it = [&](const PoolRecord& each) { return are_same(each.disks, paths); };
  const auto known = std::ranges::find_if(directory_.pools(), is_it);
  if (known != directory_.pools().end()) {
    if (engine_.find_pool(known->name) != nullptr) co_return v1::Done();
    FL_CO_TRY_VOID(co_await bring_in(*known));
    co_return v1::Done();
  }
  FL_CO_TRY(std::unique_ptr<Pool> pool, co_await import(paths));
  PoolRecord record{.name = pool->name(), .disks = paths};
  if (engine_.find_pool(record.name) != nullptr) {
    (void)co_await pool->close();
    co_return problem(Code::kAlreadyExists, fmt::format("a pool {} is here already, on {}: two of one name cannot be",
                                                        record.name, disks_of(record.name)));
  }
  if (const PoolRecord* const kept = directory_.find_pool(record.name)) record.labels = kept->labels;
  FL_CO_TRY_VOID(co_await add(std::move(record), std::move(pool)));
  co_return v1::Done();
}

Task<Outcome<v1::Done>> Management::grow_pool(v1::GrowPoolRequest request) {
  FL_CO_TRY_VOID(check_pool_name(request.name()));
  FL_CO_TRY_VOID(check_file_size(request.file_size_bytes()));
  FL_CO_TRY(Paths paths, parse_paths(request.disks()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), kPools));
  FL_CO_TRY(const Turn of_pool, co_await take_turn(request.leader(), "pool " + request.name()));
  pool::Pool* const pool = engine_.find_pool(request.name());
  const PoolRecord* const record = directory_.find_pool(request.name());
  if (pool == nullptr || record == nullptr) {
    co_return problem(Code::kNotFound,
                      fmt::format("the engine has no pool {}: make or import it first", request.name()));
  }
  const Result<uint64_t> grown = co_await pool->grow();
  if (!grown) co_return problem_of(grown.error(), "pool " + request.name());
  std::erase_if(paths, [&](const std::string& path) { return std::ranges::count(record->disks, path) > 0; });
  if (!paths.empty()) FL_CO_TRY_VOID(co_await add_disks(*record, std::move(paths), request.file_size_bytes()));
  changes().tell();
  co_return v1::Done();
}

// Noted down before: a pool of which a disk is not known cannot be imported.
Task<Outcome<void>> Management::add_disks(PoolRecord record, Paths paths, uint64_t file_size_bytes) {
  FL_CO_TRY(const std::vector<pool::PoolDisk> disks, open(paths, file_size_bytes));
  if (const std::string found = what_is_on(*shards_.front(), to_open(paths)); !found.empty()) {
    co_return problem(Code::kAlreadyExists, found + ": wipe it first");
  }
  pool::Pool& pool = *engine_.find_pool(record.name);
  for (const pool::PoolDisk& disk : disks) {
    record.joining = {disk.path};
    FL_CO_TRY_VOID(co_await directory_.keep_pool(record));
    const Outcome<void> added = co_await pool.add_disk(disk, pool::Blank::kRequired);
    record.joining.clear();
    if (added) record.disks.push_back(disk.path);
    FL_CO_TRY_VOID(co_await directory_.keep_pool(record));
    if (!added) co_return added;
  }
  co_return Outcome<void>();
}

Task<Outcome<v1::Done>> Management::destroy_pool(v1::DestroyPoolRequest request) {
  FL_CO_TRY_VOID(check_pool_name(request.name()));
  FL_CO_TRY(const Turn turn, co_await take_turn(request.leader(), kPools));
  FL_CO_TRY(const Turn of_pool, co_await take_turn(request.leader(), "pool " + request.name()));
  const PoolRecord* const record = directory_.find_pool(request.name());
  const pool::Pool* const pool = engine_.find_pool(request.name());
  if (record == nullptr && pool == nullptr) co_return v1::Done();
  if (record == nullptr) {
    co_return problem(
        Code::kNotSupported,
        fmt::format("pool {} was given on the command line: end the engine, and destroy it by hand", request.name()));
  }
  FL_CO_TRY_VOID(co_await destroy(*record));
  co_return v1::Done();
}

Task<Outcome<void>> Management::destroy(PoolRecord record) {
  if (const pool::Pool* const pool = engine_.find_pool(record.name)) {
    if (const std::string held = what_is_in(*pool); !held.empty()) {
      co_return problem(Code::kBusy, held + ": delete them first");
    }
    const Result<void> removed = co_await engine_.remove_pool(record.name);
    if (!removed && removed.error().code == Code::kBusy) co_return problem_of(removed.error(), "pool " + record.name);
  } else if (auto held = co_await import(record.disks)) {
    // It could not be imported before, and it can now: nothing is destroyed that nobody has seen.
    const std::string name = (*held)->name();
    const std::string text = what_is_in(**held);
    (void)co_await (*held)->close();
    if (name != record.name) {
      co_return problem(Code::kBusy, fmt::format("the disks of pool {} hold pool {}: put its own or blank ones there",
                                                 record.name, name));
    }
    if (!text.empty()) co_return problem(Code::kBusy, text + ": import it, and delete them first");
  } else if (held.error().error.code != Code::kNotFound) {
    co_return problem(
        held.error().error.code,
        fmt::format("what pool {} holds cannot be read ({}): destroy it by hand (fairlead offline pool destroy)",
                    record.name, to_string(held.error())));
  }
  auto disks = open(record.disks, 0);
  if (disks) {
    const Outcome<void> destroyed = co_await Pool::destroy(*shards_.front(), std::move(*disks));
    // What is not there has been destroyed before.
    if (!destroyed && destroyed.error().error.code != Code::kNotFound) co_return destroyed;
  } else if (disks.error().error.code != Code::kNotFound) {
    co_return std::unexpected(disks.error());
  }
  FL_CO_TRY_VOID(co_await directory_.forget_pool(record.name));
  troubles_.erase(record.name);
  changes().tell();
  co_return Outcome<void>();
}

}  // namespace fairlead::engine
