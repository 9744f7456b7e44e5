// A control plane for the tests of the plugins: documents that are as they are asked for at once, and a way to call the
// methods of a service in virtual time. Lives in a simulated world.
#pragma once

#include <gtest/gtest.h>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "csi/cluster_api.h"
#include "rpc/service.h"
#include "sim/world.h"

namespace fairlead::csi {

class TestCluster : public ClusterApi {
 public:
  Task<Outcome<Json>> get(std::string kind, std::string name) override {
    const auto found = all[kind].find(name);
    if (found == all[kind].end()) co_return problem(Code::kNotFound, kind + "/" + name + " is not there");
    co_return found->second;
  }
  Task<Outcome<Json>> list(std::string kind, Query query) override {
    Json page = {{"items", Json::array()}};
    for (const auto& [name, document] : all[kind]) {
      if (name <= query.after && !query.after.empty()) continue;
      if (!query.volume.empty() && document["spec"]["volume"] != query.volume) continue;
      if (query.limit != 0 && page["items"].size() == query.limit) {
        page["continue"] = page["items"].back()["name"];
        break;
      }
      page["items"].push_back(document);
    }
    co_return page;
  }
  Task<Outcome<Json>> create(std::string kind, Json document) override {
    const std::string name = document["name"];
    if (all[kind].contains(name)) co_return problem(Code::kAlreadyExists, name + " is there");
    document["id"] = "00000000-0000-4000-8000-0000000000aa";
    document["created_ms"] = 1500U;
    document["revision"] = ++revision;
    document["status"] = kind == "volumes"     ? volume_status(document)
                         : kind == "snapshots" ? snapshot_status(document)
                                               : group_status(document);
    created.push_back(kind + "/" + name);
    co_return all[kind][name] = document;
  }
  Task<Outcome<Json>> update(std::string kind, std::string name, Json patch, uint64_t of) override {
    if (!all[kind].contains(name)) co_return problem(Code::kNotFound, name + " is not there");
    Json& document = all[kind][name];
    if (others_changes > 0) {
      --others_changes;
      document["revision"] = ++revision;
    }
    if (of != 0 && document["revision"] != of) co_return problem(Code::kMiscompare, "look at it again");
    document.merge_patch(patch);
    document["revision"] = ++revision;
    if (kind == "volumes" && is_growing) document["status"]["size_bytes"] = document["spec"]["size_bytes"];
    co_return document;
  }
  Task<Outcome<void>> remove(std::string kind, std::string name) override {
    if (kind == "volumes") {
      for (const auto& [other, snapshot] : all["snapshots"]) {
        if (snapshot["spec"]["volume"] == name) co_return problem(Code::kBusy, "volume has snapshot " + other);
      }
    }
    if (kind == "snapshot-groups" && all[kind].contains(name)) {
      for (const Json& snapshot : all[kind][name]["status"]["snapshots"]) all["snapshots"].erase(snapshot["name"]);
    }
    if (all[kind].contains(name)) removed.push_back(kind + "/" + name);
    if (is_removing) all[kind].erase(name);
    co_return Outcome<void>();
  }
  Task<Outcome<void>> answer_freeze(std::string volume, std::string request, control::FreezeAnswer answer) override {
    if (!all["volumes"].contains(volume)) co_return problem(Code::kNotFound, volume + " is not there");
    FL_CO_TRY(Json patch, control::freeze_answer_patch(all["volumes"][volume], request, answer));
    if (is_silent) co_return problem(Code::kTimedOut, "no answer");
    FL_CO_TRY_VOID(co_await update("volumes", volume, std::move(patch), 0));
    co_return Outcome<void>();
  }

  std::map<std::string, std::map<std::string, Json>> all;
  std::vector<std::string> created;
  std::vector<std::string> removed;
  uint64_t revision = 1;
  int others_changes = 0;  // before ours
  bool has_room = true;
  bool is_forming = true;  // volumes come about
  bool is_growing = true;
  bool is_removing = true;  // at once
  bool is_silent = false;   // to answers of hosts

 private:
  Json volume_status(Json& volume) {
    Json& spec = volume["spec"];
    if (!spec.contains("replicas")) spec["replicas"] = 1;
    if (!spec.contains("thin")) spec["thin"] = true;
    Json status = {{"state", "creating"}, {"nqn", "nqn.test:" + std::string(volume["name"])}};
    status["conditions"] = Json::array();
    status["paths"] = Json::array();
    if (!has_room) {
      status["conditions"].push_back(
          {{"type", "Placed"}, {"met", false}, {"reason", "NoRoom"}, {"message", "no pool has room for it"}});
    } else if (is_forming) {
      status["state"] = "online";
      status["size_bytes"] = spec["size_bytes"];
      status["paths"].push_back({{"node", "b"}, {"address", "10.0.0.2:4420"}, {"state", "standby"}});
      status["paths"].push_back({{"node", "a"}, {"address", "10.0.0.1:4420"}, {"state", "serving"}});
    }
    return status;
  }
  Json snapshot_status(const Json& snapshot) {
    const Json& volume = all["volumes"][snapshot["spec"]["volume"]];
    return {{"state", "ready"}, {"size_bytes", volume["spec"]["size_bytes"]}, {"taken_ms", 2500U}};
  }
  // Its snapshots are documents, too.
  Json group_status(const Json& group) {
    Json status = {{"state", "ready"}, {"taken_ms", 2500U}, {"snapshots", Json::array()}};
    for (const std::string volume : group["spec"]["volumes"]) {
      const std::string name = std::string(group["name"]) + "-" + std::to_string(status["snapshots"].size() + 1);
      const Json& bytes = all["volumes"][volume]["spec"]["size_bytes"];
      status["snapshots"].push_back({{"name", name}, {"volume", volume}, {"size_bytes", bytes}});
      all["snapshots"][name] = {
          {"name", name}, {"labels", Json::object()}, {"spec", {{"volume", volume}, {"group", group["name"]}}}};
      all["snapshots"][name]["status"] = snapshot_status(all["snapshots"][name]);
    }
    return status;
  }
};

// A world with one shard, on which the methods of `service` run.
class TestWorld {
 public:
  TestWorld() : node(world.add_node("10.0.0.1")) {}
  Reactor& reactor() { return node.shard(0).reactor; }

  template <typename Reply, typename Request>
  Outcome<Reply> call(const std::string& method, const Request& request) {
    std::optional<Outcome<std::string>> got;
    begin(method, request, got);
    const auto ended = world.run_until([&] { return got.has_value(); }, std::chrono::hours(1));
    EXPECT_EQ(ended, sim::RunResult::kDone) << method;
    if (!got || !*got) return std::unexpected(got ? got->error() : Problem{});
    Reply reply;
    EXPECT_TRUE(reply.ParseFromString(**got));
    return reply;
  }
  // Without waiting for its end.
  template <typename Request>
  void begin(const std::string& method, const Request& request, std::optional<Outcome<std::string>>& got) {
    world.spawn(node, 0, keep(service.handle("/csi.v1." + method, request.SerializeAsString()), got));
  }

  rpc::Service service;
  sim::SimWorld world{1};
  sim::SimNode& node;

 private:
  static Task<void> keep(Task<Outcome<std::string>> task, std::optional<Outcome<std::string>>& got) {
    got = co_await std::move(task);
  }
};

}  // namespace fairlead::csi
