#include "engine/state_directory.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace fairlead::engine {
namespace {

using Json = nlohmann::json;

constexpr const char* kNodeFile = "node.json";
constexpr const char* kPoolsFile = "pools.json";
constexpr int kVersion = 1;

std::unexpected<Problem> not_ours(const char* file) {
  return problem(Code::kCorrupt,
                 fmt::format("{} in the state directory is not what an engine wrote there: restore it, or begin with "
                             "an empty directory, and the node is another one",
                             file));
}

bool are_texts(const Json& json) {
  return json.is_array() && std::ranges::all_of(json, [](const Json& each) { return each.is_string(); });
}

bool is_pool(const Json& json) {
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return false;
  if (!json.contains("disks") || !are_texts(json["disks"])) return false;
  if (json.contains("joining") && !are_texts(json["joining"])) return false;
  if (json.contains("seen")) {
    const Json& seen = json["seen"];
    if (!seen.is_object() || !seen.contains("pool") || !seen["pool"].is_string() || !seen.contains("batch") ||
        !seen["batch"].is_number_unsigned() || !parse_uuid(seen["pool"].get_ref<const std::string&>())) {
      return false;
    }
  }
  if (!json.contains("labels")) return true;
  return json["labels"].is_object() &&
         std::ranges::all_of(json["labels"], [](const Json& each) { return each.is_string(); });
}

Json to_json(const PoolRecord& pool) {
  Json json = {{"name", pool.name}, {"disks", pool.disks}};
  if (!pool.joining.empty()) json["joining"] = pool.joining;
  if (!pool.labels.empty()) json["labels"] = pool.labels;
  return json;
}

std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace

Task<Outcome<std::unique_ptr<StateDirectory>>> StateDirectory::open(Shard& home, SmallFiles& files) {
  std::unique_ptr<StateDirectory> state(new StateDirectory(home.reactor, files));
  FL_CO_TRY_VOID(state->read());
  if (state->node_.is_nil()) {
    state->node_ = home.random.uuid();
    FL_CO_TRY_VOID(co_await state->write_node(0));
  }
  co_return state;
}

Outcome<void> StateDirectory::read() {
  FL_TRY(const std::optional<std::string> node, files_.read(kNodeFile));
  if (node) FL_TRY_VOID(read_node(*node));
  FL_TRY(const std::optional<std::string> pools, files_.read(kPoolsFile));
  if (pools) FL_TRY_VOID(read_pools(*pools));
  return {};
}

Outcome<void> StateDirectory::read_node(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("id") || !json["id"].is_string() || !json.contains("leader") ||
      !json["leader"].is_number_unsigned()) {
    return not_ours(kNodeFile);
  }
  const Result<Uuid> id = parse_uuid(json["id"].get_ref<const std::string&>());
  if (!id || id->is_nil()) return not_ours(kNodeFile);
  node_ = *id;
  leader_ = json["leader"].get<uint64_t>();
  return {};
}

Outcome<void> StateDirectory::read_pools(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("pools") || !json["pools"].is_array()) return not_ours(kPoolsFile);
  for (const Json& each : json["pools"]) {
    if (!is_pool(each)) return not_ours(kPoolsFile);
    PoolRecord pool{.name = each["name"], .disks = each["disks"]};
    if (each.contains("joining")) pool.joining = each["joining"];
    if (each.contains("labels")) pool.labels = each["labels"];
    if (each.contains("seen")) {
      const Json& seen = each["seen"];
      seen_[pool.name] = {.pool = *parse_uuid(seen["pool"].get_ref<const std::string&>()), .batch = seen["batch"]};
    }
    pools_.push_back(std::move(pool));
  }
  return {};
}

const PoolRecord* StateDirectory::find_pool(const std::string& name) const {
  const auto found = std::ranges::find(pools_, name, &PoolRecord::name);
  return found == pools_.end() ? nullptr : &*found;
}

std::vector<pool::Progress> StateDirectory::seen() const {
  std::vector<pool::Progress> all;
  for (const auto& [name, progress] : seen_) all.push_back(progress);
  return all;
}

Task<Outcome<void>> StateDirectory::write_node(uint64_t leader) {
  const Json json = {{"version", kVersion}, {"id", to_string(node_)}, {"leader", leader}};
  FL_CO_TRY_VOID(co_await files_.replace(kNodeFile, text_of(json)));
  leader_ = leader;
  co_return Outcome<void>();
}

Task<Outcome<void>> StateDirectory::write_pools(std::vector<PoolRecord> pools, Seen seen) {
  Json list = Json::array();
  std::erase_if(seen, [&](const auto& each) { return std::ranges::count(pools, each.first, &PoolRecord::name) == 0; });
  for (const PoolRecord& pool : pools) {
    Json entry = to_json(pool);
    if (const auto of = seen.find(pool.name); of != seen.end()) {
      entry["seen"] = {{"pool", to_string(of->second.pool)}, {"batch", of->second.batch}};
    }
    list.push_back(std::move(entry));
  }
  const Json json = {{"version", kVersion}, {"pools", std::move(list)}};
  FL_CO_TRY_VOID(co_await files_.replace(kPoolsFile, text_of(json)));
  pools_ = std::move(pools);
  seen_ = std::move(seen);
  co_return Outcome<void>();
}

Task<Outcome<void>> StateDirectory::note_leader(uint64_t number) {
  const Mutex::Guard guard = co_await changing_.lock();
  if (number <= leader_) co_return Outcome<void>();
  co_return co_await write_node(number);
}

Task<Outcome<void>> StateDirectory::keep_pool(PoolRecord pool) {
  const Mutex::Guard guard = co_await changing_.lock();
  std::vector<PoolRecord> pools = pools_;
  std::erase_if(pools, [&](const PoolRecord& each) { return each.name == pool.name; });
  pools.push_back(std::move(pool));
  std::ranges::sort(pools, {}, &PoolRecord::name);
  co_return co_await write_pools(std::move(pools), seen_);
}

Task<Outcome<void>> StateDirectory::forget_pool(std::string name) {
  const Mutex::Guard guard = co_await changing_.lock();
  std::vector<PoolRecord> pools = pools_;
  std::erase_if(pools, [&](const PoolRecord& each) { return each.name == name; });
  co_return co_await write_pools(std::move(pools), seen_);
}

Task<Outcome<void>> StateDirectory::note_seen(Seen seen) {
  const Mutex::Guard guard = co_await changing_.lock();
  seen.insert(seen_.begin(), seen_.end());
  if (seen == seen_) co_return Outcome<void>();
  co_return co_await write_pools(pools_, std::move(seen));
}

Task<Outcome<bool>> StateDirectory::forget_seen(Uuid pool) {
  const Mutex::Guard guard = co_await changing_.lock();
  Seen seen = seen_;
  const size_t known = std::erase_if(seen, [&](const auto& each) { return each.second.pool == pool; });
  if (known == 0) co_return false;
  FL_CO_TRY_VOID(co_await write_pools(pools_, std::move(seen)));
  co_return true;
}

}  // namespace fairlead::engine
