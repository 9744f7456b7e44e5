// For tests: an API server of Kubernetes and a control plane, in memory, and processes that speak to them and can be
// killed at any request. Lives in a simulated world.
#pragma once

#include <algorithm>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "async/event.h"
#include "kube/disk_pool.h"
#include "kube/operator.h"
#include "kube/words.h"
#include "sim/world.h"

namespace fairlead::kube {

class TestServers {
 public:
  explicit TestServers(sim::SimWorld& world) : world_(world), changed_(world.add_node("10.0.0.9").shard(0).reactor) {}

  // ---- The API server

  Outcome<Json> kube(const RestRequest& request) {
    const std::string path = request.path.substr(0, request.path.find('?'));
    switch (request.method) {
      case RestMethod::kGet:
        return path == kDiskPools ? list(path) : get(path);
      case RestMethod::kPost:
        return make(path, request.body);
      case RestMethod::kPatch:
        return patch(path, request.body);
      default:
        return problem(Code::kNotSupported, "nobody deletes anything");
    }
  }
  // None: too old.
  std::optional<std::vector<Json>> changes_after(uint64_t version) const {
    if (version < compacted) return std::nullopt;
    std::vector<Json> found;
    for (const Json& change : changes_) {
      if (std::stoull(change["object"]["metadata"]["resourceVersion"].get<std::string>()) > version) {
        found.push_back(change);
      }
    }
    return found;
  }
  Event& changed() { return changed_; }
  void compact() {
    compacted = version_;
    changes_.clear();
  }

  // A person's doing.
  void put(const std::string& path, Json object) {
    const bool is_new = !objects.contains(path);
    Json& metadata = object["metadata"];
    if (is_new) {
      metadata["uid"] = fmt::format("uid-{}", version_ + 1);
      metadata["creationTimestamp"] = "2026-01-01T00:00:00Z";
    }
    metadata["generation"] = number_of_generation(path) + (is_new || object["spec"] != objects[path]["spec"] ? 1 : 0);
    store(path, std::move(object), is_new ? "ADDED" : "MODIFIED");
  }
  void remove(const std::string& path) {
    Json object = objects.at(path);
    const Json& finalizers = control::field(object, "metadata.finalizers");
    if (!finalizers.is_array() || finalizers.empty()) return drop(path);
    object["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z";
    store(path, std::move(object), "MODIFIED");
  }
  std::map<std::string, Json> objects;  // by path
  uint64_t compacted = 0;

  // ---- The control plane

  Outcome<Json> control(const RestRequest& request) {
    if (is_control_away) return problem(Code::kUnreachable, "nobody leads");
    const std::string path = request.path.substr(0, request.path.find('?'));
    if (path == "/v1/events") return events_after(request.path);
    if (path.starts_with("/v1/volumes/")) return find(volumes, path.substr(12));
    if (path == "/v1/pools" && request.method == RestMethod::kGet) return list_pools();
    if (path == "/v1/pools") return create_pool(request.body);
    const std::string name = path.substr(std::string("/v1/pools/").size());
    if (!pools.contains(name)) {
      if (request.method == RestMethod::kDelete) return Json();
      return problem(Code::kNotFound, "there is no pool " + name);
    }
    Json& pool = pools[name];
    ++pool_changes;
    if (request.method == RestMethod::kPatch) {
      pool.merge_patch(request.body);
      return pool;
    }
    if (pool["status"]["replicas"] != 0U)
      return problem(Code::kBusy, "pool " + name + " has replicas: evacuate it first");
    pool["status"]["state"] = "deleting";
    return pool;
  }
  void happen(const std::string& resource, const std::string& reason, const std::string& message,
              const char* severity = "normal") {
    events.push_back({{"number", events.empty() ? 1 : events.back()["number"].get<uint64_t>() + 1},
                      {"at_ms", wall_ms()},
                      {"severity", severity},
                      {"resource", resource},
                      {"reason", reason},
                      {"message", message}});
  }
  uint64_t wall_ms() const { return wall_begin_ms + static_cast<uint64_t>(world_.now().ns / 1'000'000); }
  uint64_t wall_begin_ms = 0;
  std::map<std::string, Json> pools;
  std::map<std::string, Json> volumes;
  std::vector<Json> events;
  std::vector<std::string> nodes = {"a", "b"};
  bool is_control_away = false;
  uint64_t pools_made = 0;
  uint64_t pool_changes = 0;

 private:
  uint64_t number_of_generation(const std::string& path) {
    return objects.contains(path) ? control::number_of(objects[path], "metadata.generation") : 0;
  }
  void store(const std::string& path, Json object, const char* type) {
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    objects[path] = object;
    if (path.starts_with(kDiskPools)) changes_.push_back({{"type", type}, {"object", std::move(object)}});
    changed_.release_waiters();
  }
  void drop(const std::string& path) {
    Json object = std::move(objects.at(path));
    objects.erase(path);
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    if (path.starts_with(kDiskPools)) changes_.push_back({{"type", "DELETED"}, {"object", std::move(object)}});
    changed_.release_waiters();
  }
  static Outcome<Json> find(const std::map<std::string, Json>& all, const std::string& name) {
    const auto found = all.find(name);
    if (found == all.end()) return problem(Code::kNotFound, name + " is not there");
    return found->second;
  }
  Outcome<Json> get(const std::string& path) const { return find(objects, path); }
  Outcome<Json> list(const std::string& path) const {
    Json page = {{"metadata", {{"resourceVersion", std::to_string(version_)}}}, {"items", Json::array()}};
    for (const auto& [at, object] : objects) {
      if (at.starts_with(path + "/")) page["items"].push_back(object);
    }
    return page;
  }
  Outcome<Json> make(const std::string& collection, Json object) {
    const std::string path = collection + "/" + control::text_of(object, "metadata.name");
    if (objects.contains(path)) return problem(Code::kAlreadyExists, path + " is there");
    put(path, std::move(object));
    return objects[path];
  }
  Outcome<Json> patch(std::string path, const Json& change) {
    const bool is_status = path.ends_with("/status");
    if (is_status) path.resize(path.size() - 7);
    if (!objects.contains(path)) return problem(Code::kNotFound, path + " is not there");
    Json object = objects[path];
    const std::string of = control::text_of(change, "metadata.resourceVersion");
    if (!of.empty() && of != control::text_of(object, "metadata.resourceVersion"))
      return problem(Code::kMiscompare, "it has changed");
    if (is_status) {
      Json status = {{"status", change.at("status")}};
      object.merge_patch(status);
    } else {
      object.merge_patch(change);
    }
    if (is_same(object, objects[path])) return object;
    store(path, object, "MODIFIED");
    Json kept = objects[path];
    if (is_deleting(kept) && kept["metadata"]["finalizers"].empty()) drop(path);
    return kept;
  }

  Outcome<Json> events_after(const std::string& path) const {
    const uint64_t after = std::stoull(path.substr(path.find("after=") + 6));
    Json page = {{"items", Json::array()}};
    for (const Json& event : events) {
      if (event["number"].get<uint64_t>() > after) page["items"].push_back(event);
    }
    return page;
  }
  // Each look finds them further.
  Outcome<Json> list_pools() {
    Json page = {{"items", Json::array()}};
    std::erase_if(pools, [](const auto& each) { return each.second["status"]["state"] == "deleting"; });
    for (auto& [name, pool] : pools) {
      page["items"].push_back(pool);
      if (pool["status"]["state"] == "creating") {
        pool["status"]["state"] = "online";
        pool["status"]["capacity_bytes"] = uint64_t{20} << 30;
        pool["status"]["used_bytes"] = uint64_t{1} << 20;
        pool["status"]["free_bytes"] = (uint64_t{20} << 30) - (uint64_t{1} << 20);
      }
    }
    return page;
  }
  Outcome<Json> create_pool(Json document) {
    const std::string name = document["name"];
    const std::string node = document["spec"]["node"];
    if (std::ranges::find(nodes, node) == nodes.end())
      return problem(Code::kNotFound, "node: there is no node " + node);
    if (pools.contains(name)) {
      if (is_same(pools[name]["spec"], document["spec"])) return pools[name];
      return problem(Code::kAlreadyExists, "there is a pool " + name + " already");
    }
    // Else a DiskPool could go and leave its pool behind.
    EXPECT_TRUE(has_finalizer(objects[std::string(kDiskPools) + "/" + name]));
    document["id"] = "00000000-0000-4000-8000-0000000000aa";
    document["status"] = {{"state", "creating"}, {"replicas", 0U}};
    ++pools_made;
    ++pool_changes;
    return pools[name] = document;
  }

  sim::SimWorld& world_;
  Event changed_;
  uint64_t version_ = 100;
  std::vector<Json> changes_;
};

// One operator, which may be killed at any request: that one is done, or not, and none after it.
class TestProcess {
 public:
  enum class Kill : uint8_t { kNever, kBefore, kAfter };
  TestProcess(sim::SimWorld& world, sim::SimNode& node, TestServers& servers, const std::string& identity,
              Kill kill = Kill::kNever, uint64_t at = 0)
      : world_(world),
        servers_(servers),
        kill_(kill),
        left_(at),
        reactor_(node.shard(0).reactor),
        operator_(node.shard(0), {.lease = lease_, .kube = kube_, .watch = watch_, .control = control_},
                  {.election = {.name_space = "fairlead", .identity = identity},
                   .pools = {},
                   .events = {.identity = identity}}) {
    world.spawn(node, 0, run(*this));
  }
  ~TestProcess() { stop(); }
  TestProcess(const TestProcess&) = delete;
  TestProcess& operator=(const TestProcess&) = delete;

  void stop() {
    if (std::exchange(is_told_, true)) return;
    operator_.stop();
    FL_CHECK(world_.run_until([&] { return is_done_; }, std::chrono::minutes(5)) == sim::RunResult::kDone);
  }
  // As a process that is killed.
  void die() {
    is_dead_ = true;
    stop();
  }
  bool is_dead() const { return is_dead_; }
  Operator& operation() { return operator_; }
  bool is_cut_off = false;  // from the API server
  uint64_t control_changes = 0;

 private:
  static Task<void> run(TestProcess& self) {
    co_await self.operator_.run();
    self.is_done_ = true;
  }
  // True: the request reaches its server.
  bool passes() {
    if (is_dead_ || kill_ == Kill::kNever || left_-- != 0) return !is_dead_;
    is_dead_ = true;
    return kill_ == Kill::kAfter;
  }
  Outcome<Json> serve(const RestRequest& request, bool is_control) {
    if (!passes() || (is_cut_off && !is_control)) return problem(Code::kUnreachable, "no answer");
    if (is_control && request.method != RestMethod::kGet) ++control_changes;
    // By text, as between processes.
    RestRequest sent = request;
    sent.body = control::parse_json(control::to_text(request.body)).value();
    Outcome<Json> answer = is_control ? servers_.control(sent) : servers_.kube(sent);
    if (is_dead_) return problem(Code::kTimedOut, "no answer");
    return answer;
  }

  class Calls final : public Api {
   public:
    Calls(TestProcess& process, bool is_control) : process_(process), is_control_(is_control) {}
    Task<Outcome<Json>> call(RestRequest request) override {
      (void)co_await sleep(process_.reactor_, std::chrono::milliseconds(5));
      Outcome<Json> answer = process_.serve(request, is_control_);
      (void)co_await sleep(process_.reactor_, std::chrono::milliseconds(5));
      co_return answer;
    }

   private:
    TestProcess& process_;
    const bool is_control_;
  };
  class Watches final : public WatchApi {
   public:
    explicit Watches(TestProcess& process) : process_(process) {}
    Task<Outcome<std::vector<Json>>> watch(std::string path) override {
      const uint64_t version = std::stoull(path.substr(path.find("resourceVersion=") + 16));
      for (int turn = 0; turn < 100; ++turn) {
        (void)co_await sleep(process_.reactor_, std::chrono::milliseconds(200));
        if (process_.is_dead_ || process_.is_cut_off) co_return problem(Code::kUnreachable, "no answer");
        auto events = process_.servers_.changes_after(version);
        if (!events) co_return problem(Code::kOutOfRange, "too old");
        if (!events->empty() || is_interrupted_) co_return std::move(*events);
      }
      co_return std::vector<Json>();
    }
    void interrupt() override { is_interrupted_ = true; }

   private:
    TestProcess& process_;
    bool is_interrupted_ = false;
  };

  sim::SimWorld& world_;
  TestServers& servers_;
  const Kill kill_;
  uint64_t left_;
  Reactor& reactor_;
  bool is_dead_ = false;
  bool is_told_ = false;
  bool is_done_ = false;
  Calls lease_{*this, false};
  Calls kube_{*this, false};
  Calls control_{*this, true};
  Watches watch_{*this};
  Operator operator_;
};

}  // namespace fairlead::kube
