#include "kube/operator.h"

#include <gmock/gmock.h>

#include "kube/test_servers.h"

namespace fairlead::kube {
namespace {

using control::field;
using control::text_of;
using testing::HasSubstr;
using Kill = TestProcess::Kill;
using std::chrono::minutes;
using std::chrono::seconds;

const std::string kPath = std::string(kDiskPools) + "/fast";

// A world with both servers.
class OperatorWorld {
 public:
  OperatorWorld() : node_(world_.add_node("10.0.0.1")), servers_(world_) {
    servers_.wall_begin_ms = node_.shard(0).clock.wall_ms() - static_cast<uint64_t>(world_.now().ns / 1'000'000);
  }
  std::unique_ptr<TestProcess> start(Kill kill = Kill::kNever, uint64_t at = 0) {
    return std::make_unique<TestProcess>(world_, node_, servers_, fmt::format("operator-{}", ++processes_), kill, at);
  }
  // False: not in time.
  template <typename Goal>
  bool reach(Goal goal) {
    return world_.run_until(goal, minutes(2)) == sim::RunResult::kDone;
  }
  void ask_for_pool(Json spec) { servers_.put(kPath, {{"metadata", {{"name", "fast"}}}, {"spec", std::move(spec)}}); }
  void ask_for_pool() {
    ask_for_pool({{"node", "a"}, {"disks", {"/dev/sdb"}}, {"fileSize", "20Gi"}, {"labels", {{"tier", "fast"}}}});
  }
  void edit(const Json& spec) {
    Json object = servers_.objects.at(kPath);
    object.merge_patch({{"spec", spec}});
    servers_.put(kPath, std::move(object));
  }
  bool has_disk_pool() const { return servers_.objects.contains(kPath); }
  const Json& status() const { return field(servers_.objects.at(kPath), "status"); }
  Json ready() const {
    for (const Json& each : field(status(), "conditions")) {
      if (each["type"] == "Ready") return each;
    }
    return {};
  }
  bool is_ready(const char* reason) const { return has_disk_pool() && text_of(ready(), "reason") == reason; }
  // Events by "kind/name reason", and how often each was counted.
  std::map<std::string, uint64_t> events() const {
    std::map<std::string, uint64_t> found;
    for (const auto& [path, object] : servers_.objects) {
      if (path.find("/events/") == std::string::npos) continue;
      found[fmt::format("{}/{} {}", text_of(object, "involvedObject.kind"), text_of(object, "involvedObject.name"),
                        text_of(object, "reason"))] += object["count"].get<uint64_t>();
    }
    return found;
  }

  sim::SimWorld world_{7};
  sim::SimNode& node_;
  TestServers servers_;
  int processes_ = 0;
};

class OperatorTest : public testing::Test, protected OperatorWorld {};

// ---- DiskPools

TEST_F(OperatorTest, a_disk_pool_becomes_a_pool_and_tells_how_it_is) {
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  const Json& pool = servers_.pools.at("fast");
  EXPECT_EQ(pool["spec"]["node"], "a");
  EXPECT_EQ(pool["spec"]["disks"], Json({"/dev/sdb"}));
  EXPECT_EQ(pool["spec"]["file_size_bytes"], uint64_t{20} << 30);
  EXPECT_EQ(pool["labels"], Json({{"tier", "fast"}}));
  EXPECT_EQ(status()["capacity"], "20Gi");
  EXPECT_EQ(status()["used"], "1Mi");
  EXPECT_EQ(status()["state"], "online");
  EXPECT_EQ(status()["replicas"], 0U);
  EXPECT_EQ(status()["id"], pool["id"]);
  EXPECT_EQ(status()["observedGeneration"], servers_.objects.at(kPath)["metadata"]["generation"]);
  EXPECT_EQ(ready()["status"], "True");
  EXPECT_TRUE(has_finalizer(servers_.objects.at(kPath)));
}

TEST_F(OperatorTest, nothing_is_written_when_nothing_changes) {
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  const std::string version = servers_.objects.at(kPath)["metadata"]["resourceVersion"];
  const uint64_t changes = servers_.pool_changes;
  world_.run_for(minutes(2));
  EXPECT_EQ(servers_.objects.at(kPath)["metadata"]["resourceVersion"], version);
  EXPECT_EQ(servers_.pool_changes, changes);
}

TEST_F(OperatorTest, how_full_it_is_is_told_now_and_then) {
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  world_.run_for(minutes(1));
  int writes = 0;
  std::string version = servers_.objects.at(kPath)["metadata"]["resourceVersion"];
  for (int i = 0; i < 120; ++i) {
    servers_.pools["fast"]["status"]["used_bytes"] = static_cast<uint64_t>(i + 2) << 20;
    world_.run_for(seconds(1));
    const std::string now = servers_.objects.at(kPath)["metadata"]["resourceVersion"];
    if (std::exchange(version, now) != now) ++writes;
  }
  EXPECT_GE(writes, 3);
  EXPECT_LE(writes, 5);
}

TEST_F(OperatorTest, a_pool_that_is_there_is_taken_on) {
  servers_.pools["fast"] = {
      {"name", "fast"},
      {"id", "x"},
      {"labels", Json::object()},
      {"spec", {{"node", "a"}, {"disks", {"/dev/sdb"}}, {"file_size_bytes", 0U}, {"evacuating", false}}},
      {"status", {{"state", "online"}, {"replicas", 3U}}}};
  const auto process = start();
  ask_for_pool({{"node", "a"}, {"disks", {"/dev/sdb"}}});
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  EXPECT_EQ(servers_.pools_made, 0U);
  EXPECT_EQ(status()["replicas"], 3U);
}

TEST_F(OperatorTest, another_pool_of_that_name_is_left_alone) {
  servers_.pools["fast"] = {{"name", "fast"},
                            {"labels", Json::object()},
                            {"spec", {{"node", "b"}, {"disks", {"/dev/sdz"}}, {"evacuating", false}}},
                            {"status", {{"state", "online"}, {"replicas", 0U}}}};
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("NameTaken"); }));
  EXPECT_THAT(text_of(ready(), "message"), HasSubstr("node b"));
  servers_.remove(kPath);
  ASSERT_TRUE(reach([&] { return !has_disk_pool(); }));
  EXPECT_TRUE(servers_.pools.contains("fast"));
  EXPECT_EQ(servers_.pool_changes, 0U);
}

TEST_F(OperatorTest, it_waits_for_the_node_and_follows_edits) {
  servers_.nodes.clear();
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("NoSuchNode"); }));
  servers_.nodes = {"a"};
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  servers_.pools["fast"]["status"]["replicas"] = 2U;
  edit({{"evacuating", true}, {"labels", {{"tier", nullptr}, {"rack", "7"}}}});
  ASSERT_TRUE(reach([&] { return is_ready("Evacuating"); }));
  EXPECT_EQ(ready()["status"], "False");
  EXPECT_EQ(servers_.pools["fast"]["labels"], Json({{"rack", "7"}}));
  EXPECT_EQ(servers_.pools["fast"]["spec"]["evacuating"], true);
  servers_.pools["fast"]["status"]["replicas"] = 0U;
  ASSERT_TRUE(reach([&] { return is_ready("Evacuated"); }));
  edit({{"evacuating", false}});
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
}

TEST_F(OperatorTest, a_pool_goes_with_its_disk_pool_when_it_is_empty) {
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  servers_.pools["fast"]["status"]["replicas"] = 1U;
  servers_.remove(kPath);
  ASSERT_TRUE(reach([&] { return is_ready("NotEmpty"); }));
  EXPECT_THAT(text_of(ready(), "message"), HasSubstr("evacuate it first"));
  world_.run_for(minutes(1));
  EXPECT_TRUE(has_disk_pool());
  servers_.pools["fast"]["status"]["replicas"] = 0U;
  ASSERT_TRUE(reach([&] { return !has_disk_pool(); }));
  EXPECT_FALSE(servers_.pools.contains("fast"));
}

TEST_F(OperatorTest, a_list_that_is_too_old_is_made_anew) {
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  process->is_cut_off = true;
  world_.run_for(seconds(5));
  edit({{"labels", {{"tier", "slow"}}}});
  servers_.put(std::string(kDiskPools) + "/other",
               {{"metadata", {{"name", "other"}}}, {"spec", {{"node", "b"}, {"disks", {"/dev/sdc"}}}}});
  servers_.compact();
  process->is_cut_off = false;
  ASSERT_TRUE(reach([&] {
    return servers_.pools.contains("other") && servers_.pools["fast"]["labels"] == Json({{"tier", "slow"}});
  }));
}

TEST_F(OperatorTest, a_control_plane_that_stays_away_is_told_of) {
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  servers_.is_control_away = true;
  world_.run_for(seconds(20));
  EXPECT_TRUE(is_ready("Online"));
  ASSERT_TRUE(reach([&] { return is_ready("ControlPlaneAway"); }));
  EXPECT_EQ(ready()["status"], "Unknown");
  EXPECT_EQ(status()["capacity"], "20Gi");
  EXPECT_FALSE(status().contains("state"));
  servers_.is_control_away = false;
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
}

// ---- Killed

// One whole life of a DiskPool, in which the operator is killed once and another one goes on.
class Life : OperatorWorld {
 public:
  Life(Kill kill, uint64_t at) : at_(at), process_(start(kill, at)) {}
  // False: it ended without a kill.
  bool live() {
    ask_for_pool();
    for (int i = 0; i < 2; ++i) servers_.happen("pools/fast", "Ready", "it is there");
    reach_it([&] { return is_ready("Online") && events() == counted(2); });
    edit({{"evacuating", true}});
    servers_.happen("pools/fast", "Ready", "it is there");
    reach_it([&] { return is_ready("Evacuated") && events() == counted(3); });
    servers_.remove(kPath);
    reach_it([&] { return !has_disk_pool() && !servers_.pools.contains("fast"); });
    world_.run_for(minutes(1));
    EXPECT_EQ(servers_.pools_made, 1U) << "killed at " << at_;
    EXPECT_EQ(events(), counted(3)) << "killed at " << at_;
    return was_killed_;
  }

 private:
  static std::map<std::string, uint64_t> counted(uint64_t times) { return {{"DiskPool/fast Ready", times}}; }
  template <typename Goal>
  void reach_it(Goal goal) {
    EXPECT_TRUE(reach([&] { return goal() || process_->is_dead(); })) << "killed at " << at_;
    if (!process_->is_dead()) return;
    was_killed_ = true;
    process_->die();
    process_ = start();
    EXPECT_TRUE(reach(goal)) << "killed at " << at_;
  }

  const uint64_t at_;
  std::unique_ptr<TestProcess> process_;
  bool was_killed_ = false;
};

TEST(OperatorKilled, another_one_goes_on_wherever_it_was) {
  for (const Kill kill : {Kill::kBefore, Kill::kAfter}) {
    uint64_t at = 0;
    while (Life(kill, at).live()) {
      ASSERT_FALSE(testing::Test::HasFailure());
      ASSERT_LT(++at, 500U);
    }
    EXPECT_GT(at, 30U);  // so many requests at least does a life take
  }
}

// ---- Election

TEST_F(OperatorTest, one_of_two_leads) {
  const auto first = start();
  ASSERT_TRUE(reach([&] { return first->operation().leads(); }));
  const auto second = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  world_.run_for(minutes(1));
  EXPECT_TRUE(first->operation().leads());
  EXPECT_FALSE(second->operation().leads());
  EXPECT_TRUE(second->operation().is_ready());
  EXPECT_EQ(second->control_changes, 0U);
}

TEST_F(OperatorTest, who_loses_the_lead_stops_before_another_begins) {
  const auto first = start();
  ASSERT_TRUE(reach([&] { return first->operation().leads(); }));
  const auto second = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  first->is_cut_off = true;
  const Instant cut = world_.now();
  std::optional<Instant> lost;
  ASSERT_TRUE(reach([&] {
    EXPECT_FALSE(first->operation().leads() && second->operation().leads());
    if (!lost && !first->operation().leads()) lost = world_.now();
    return second->operation().leads();
  }));
  ASSERT_TRUE(lost.has_value());
  EXPECT_LE(*lost - cut, seconds(10));
  EXPECT_GE(world_.now() - *lost, seconds(2));
  EXPECT_LE(world_.now() - cut, seconds(20));
  const uint64_t changes = first->control_changes;
  edit({{"evacuating", true}});
  ASSERT_TRUE(reach([&] { return is_ready("Evacuated"); }));
  first->is_cut_off = false;
  world_.run_for(minutes(1));
  EXPECT_EQ(first->control_changes, changes);
  EXPECT_FALSE(first->operation().leads());
  const Json& lease = servers_.objects.at("/apis/coordination.k8s.io/v1/namespaces/fairlead/leases/fairlead-operator");
  EXPECT_EQ(lease["spec"]["holderIdentity"], "operator-2");
  EXPECT_EQ(lease["spec"]["leaseTransitions"], 1U);
  EXPECT_EQ(lease["spec"]["leaseDurationSeconds"], 15U);
}

TEST_F(OperatorTest, who_ends_lets_another_lead_at_once) {
  const auto first = start();
  ASSERT_TRUE(reach([&] { return first->operation().leads(); }));
  const auto second = start();
  world_.run_for(seconds(5));
  first->stop();
  const Instant ended = world_.now();
  ASSERT_TRUE(reach([&] { return second->operation().leads(); }));
  EXPECT_LE(world_.now() - ended, seconds(3));
}

// ---- Events

class OperatorEventTest : public OperatorTest {
 protected:
  OperatorEventTest() {
    servers_.put("/api/v1/namespaces/shop/persistentvolumeclaims/data", {{"metadata", {{"name", "data"}}}});
    servers_.put("/api/v1/persistentvolumes/pvc-1", {{"metadata", {{"name", "pvc-1"}}}});
    servers_.put("/api/v1/nodes/a", {{"metadata", {{"name", "a"}}}});
    servers_.volumes["pvc-1"] = {
        {"name", "pvc-1"},
        {"labels",
         {{"fairlead.dev/pvc", "data"}, {"fairlead.dev/pvc-namespace", "shop"}, {"fairlead.dev/pv", "pvc-1"}}}};
    servers_.volumes["mine"] = {{"name", "mine"}, {"labels", Json::object()}};
  }
};

TEST_F(OperatorEventTest, claims_volumes_pools_and_nodes_tell_what_happened) {
  const auto process = start();
  ask_for_pool();
  ASSERT_TRUE(reach([&] { return is_ready("Online"); }));
  servers_.happen("volumes/pvc-1", "ReplicaLost", "node a is lost", "warning");
  servers_.happen("volumes/mine", "ReplicaLost", "node a is lost", "warning");
  servers_.happen("nodes/a", "Lost", "no sign of life", "warning");
  servers_.happen("nodes/unknown", "Lost", "no sign of life", "warning");
  servers_.happen("pools/fast", "Ready", "it is there, on node a");
  const std::map<std::string, uint64_t> wanted = {{"DiskPool/fast Ready", 1},
                                                  {"Node/a Lost", 1},
                                                  {"PersistentVolume/pvc-1 ReplicaLost", 1},
                                                  {"PersistentVolumeClaim/data ReplicaLost", 1}};
  ASSERT_TRUE(reach([&] { return events() == wanted; }));
  for (const auto& [path, object] : servers_.objects) {
    if (path.find("/namespaces/shop/events/data.") == std::string::npos) continue;
    EXPECT_EQ(object["type"], "Warning");
    EXPECT_EQ(object["message"], "node a is lost");
    EXPECT_EQ(object["involvedObject"]["uid"],
              servers_.objects["/api/v1/namespaces/shop/persistentvolumeclaims/data"]["metadata"]["uid"]);
    EXPECT_EQ(object["involvedObject"]["namespace"], "shop");
  }
  // What is gone is told of to the last.
  servers_.volumes.erase("pvc-1");
  servers_.happen("volumes/pvc-1", "Deleted", "it is gone");
  ASSERT_TRUE(reach([&] { return events().contains("PersistentVolumeClaim/data Deleted"); }));
}

TEST_F(OperatorEventTest, the_same_is_counted_and_never_twice) {
  auto process = start();
  for (int i = 0; i < 5; ++i) servers_.happen("nodes/a", "Lost", "no sign of life", "warning");
  const std::map<std::string, uint64_t> wanted = {{"Node/a Lost", 5}};
  ASSERT_TRUE(reach([&] { return events() == wanted; }));
  process->die();
  process = start();
  world_.run_for(minutes(1));
  EXPECT_EQ(events(), wanted);
  // The control plane begins to count anew.
  servers_.events.clear();
  world_.run_for(seconds(5));
  servers_.happen("nodes/a", "Lost", "no sign of life", "warning");
  servers_.happen("nodes/a", "Ready", "it is back");
  const std::map<std::string, uint64_t> later = {{"Node/a Lost", 6}, {"Node/a Ready", 1}};
  ASSERT_TRUE(reach([&] { return events() == later; }));
  world_.run_for(minutes(1));
  EXPECT_EQ(events(), later);
}

TEST_F(OperatorEventTest, old_ones_and_too_many_are_left) {
  servers_.happen("nodes/a", "Lost", "long ago", "warning");
  world_.run_for(minutes(11));
  const auto process = start();
  for (int i = 0; i < 100; ++i) servers_.happen("nodes/a", "Noise", fmt::format("number {}", i));
  servers_.happen("volumes/pvc-1", "Created", "it was asked for");
  ASSERT_TRUE(reach([&] { return events().contains("PersistentVolume/pvc-1 Created"); }));
  EXPECT_FALSE(events().contains("Node/a Lost"));
  EXPECT_EQ(events()["Node/a Noise"], 25U);
}

}  // namespace
}  // namespace fairlead::kube
