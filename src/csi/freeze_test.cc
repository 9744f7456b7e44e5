// Snapshots of a volume that is mounted: controller, control plane, node plugin and machine together. The plugin is
// killed at every step.
#include <api/csi/v1/csi.pb.h>
#include <gmock/gmock.h>

#include "csi/controller.h"
#include "csi/names.h"
#include "csi/node.h"
#include "csi/test_cluster.h"
#include "csi/test_machine.h"

namespace fairlead::csi {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using Mode = wire::VolumeCapability::AccessMode;

const std::string kHost = host_nqn("worker-1");
const std::string kNqn = "nqn.test:db";
const std::string kStaging = "/var/lib/kubelet/staging/db";

// Takes snapshots some time after they were asked for, and knows whether the file system was still then.
class SlowCluster final : public TestCluster {
 public:
  explicit SlowCluster(TestMachine& machine) : machine_(machine) {}

  Task<Outcome<Json>> create(std::string kind, Json document) override {
    const std::string name = document["name"];
    const bool is_new = !all[kind].contains(name);
    FL_CO_TRY(Json made, co_await TestCluster::create(kind, std::move(document)));
    if (kind == "snapshots" && is_new) {
      all[kind][name]["status"]["state"] = "pending";
      made = all[kind][name];
      looks_left = looks;
    }
    co_return made;
  }
  Task<Outcome<Json>> get(std::string kind, std::string name) override {
    if (kind == "snapshots" && all[kind].contains(name) && all[kind][name]["status"]["state"] == "pending" &&
        looks_left-- == 0) {
      all[kind][name]["status"]["state"] = "ready";
      was_still[name] = machine_.devices[kNqn].is_frozen;
    }
    return TestCluster::get(std::move(kind), std::move(name));
  }

  int looks = 5;  // until one is taken
  int looks_left = 0;
  std::map<std::string, bool> was_still;

 private:
  TestMachine& machine_;
};

class FreezeTest : public testing::Test {
 protected:
  // The node plugin: it knows what its predecessor kept.
  struct Process {
    explicit Process(FreezeTest& test)
        : records(test.bed_.reactor(), test.machine_),
          node(test.bed_.reactor(), test.machine_, test.cluster_, records,
               {.node = "worker-1",
                .host_nqn = kHost,
                .host_id = "00000000-0000-4000-8000-000000000001",
                .topology = {}}) {
      EXPECT_TRUE(records.load());
      node.add_to(service);
    }
    NodeRecords records;
    Node node;
    rpc::Service service;
    bool has_ended = false;
  };

  FreezeTest() : cluster_(machine_), controller_(bed_.reactor(), cluster_, {}) { controller_.add_to(bed_.service); }
  ~FreezeTest() override { end(); }

  static Task<void> run(Process& process) {
    co_await process.node.run();
    process.has_ended = true;
  }
  void begin() {
    process_ = std::make_unique<Process>(*this);
    bed_.world.spawn(bed_.node, 0, run(*process_));
  }
  void end() {
    if (!process_) return;
    process_->node.stop();
    EXPECT_EQ(bed_.world.run_until([&] { return process_->has_ended; }, seconds(60)), sim::RunResult::kDone);
    process_.reset();
  }
  void wait(Duration time) { bed_.world.run_for(time); }

  template <typename Reply, typename Request>
  Outcome<Reply> call_node(const std::string& method, const Request& request) {
    std::swap(bed_.service, process_->service);
    Outcome<Reply> reply = bed_.call<Reply>("Node/" + method, request);
    std::swap(bed_.service, process_->service);
    return reply;
  }
  static wire::VolumeCapability capability(bool is_block) {
    wire::VolumeCapability capability;
    is_block ? (void)capability.mutable_block() : (void)capability.mutable_mount();
    capability.mutable_access_mode()->set_mode(Mode::SINGLE_NODE_WRITER);
    return capability;
  }
  // A volume that is mounted on the machine, or there as a raw device; the plugin runs.
  void use_volume(bool is_block = false) {
    wire::CreateVolumeRequest create;
    create.set_name("db");
    create.mutable_capacity_range()->set_required_bytes(64 << 20);
    *create.add_volume_capabilities() = capability(is_block);
    ASSERT_TRUE(bed_.call<wire::CreateVolumeResponse>("Controller/CreateVolume", create));
    wire::ControllerPublishVolumeRequest publish;
    publish.set_volume_id("db");
    publish.set_node_id(kHost);
    *publish.mutable_volume_capability() = capability(is_block);
    const auto published =
        bed_.call<wire::ControllerPublishVolumeResponse>("Controller/ControllerPublishVolume", publish);
    ASSERT_TRUE(published);
    begin();
    wire::NodeStageVolumeRequest stage;
    stage.set_volume_id("db");
    stage.set_staging_target_path(kStaging);
    *stage.mutable_volume_capability() = capability(is_block);
    *stage.mutable_publish_context() = published->publish_context();
    ASSERT_TRUE(call_node<wire::NodeStageVolumeResponse>("NodeStageVolume", stage));
  }
  Outcome<wire::NodeUnstageVolumeResponse> unstage() {
    wire::NodeUnstageVolumeRequest request;
    request.set_volume_id("db");
    request.set_staging_target_path(kStaging);
    return call_node<wire::NodeUnstageVolumeResponse>("NodeUnstageVolume", request);
  }
  static wire::CreateSnapshotRequest snapshot_request(const std::string& name, const char* quiesce = "freeze") {
    wire::CreateSnapshotRequest request;
    request.set_name(name);
    request.set_source_volume_id("db");
    (*request.mutable_parameters())["quiesceFs"] = quiesce;
    return request;
  }
  Outcome<wire::CreateSnapshotResponse> snapshot(const std::string& name, const char* quiesce = "freeze") {
    return bed_.call<wire::CreateSnapshotResponse>("Controller/CreateSnapshot", snapshot_request(name, quiesce));
  }
  bool is_frozen() { return machine_.devices[kNqn].is_frozen; }
  std::string label(const std::string& key) {
    return cluster_.all["volumes"]["db"]["labels"].value("fairlead.dev/" + key, "");
  }
  void ask_by_hand(const std::string& request) {
    cluster_.all["volumes"]["db"]["labels"]["fairlead.dev/freeze"] = request;
  }

  TestMachine machine_;
  SlowCluster cluster_;
  TestWorld bed_;
  Controller controller_;
  std::unique_ptr<Process> process_;
};

TEST_F(FreezeTest, ASnapshotIsTakenWhileItIsStill) {
  use_volume();
  for (const char* const name : {"monday", "tuesday"}) {
    const auto taken = snapshot(name);
    ASSERT_TRUE(taken) << to_string(taken.error());
    EXPECT_TRUE(taken->snapshot().ready_to_use());
    EXPECT_TRUE(cluster_.was_still[name]);
    EXPECT_EQ(cluster_.all["snapshots"][name]["labels"].value("fairlead.dev/still", ""), "yes");
    EXPECT_FALSE(is_frozen());
    EXPECT_EQ(label("freeze") + label("frozen"), "");
  }
  EXPECT_TRUE(snapshot("monday"));
  EXPECT_TRUE(unstage());
}

TEST_F(FreezeTest, OnlyWhatIsMountedAndAskedForIsFrozen) {
  use_volume();
  ASSERT_TRUE(snapshot("plain", "none"));
  EXPECT_FALSE(cluster_.was_still["plain"]);
  EXPECT_EQ(snapshot("odd", "maybe").error().error.code, Code::kInvalidArgument);
  // Nobody has it mounted any more.
  ASSERT_TRUE(unstage());
  wire::ControllerUnpublishVolumeRequest unpublish;
  unpublish.set_volume_id("db");
  unpublish.set_node_id(kHost);
  ASSERT_TRUE(bed_.call<wire::ControllerUnpublishVolumeResponse>("Controller/ControllerUnpublishVolume", unpublish));
  end();
  EXPECT_TRUE(snapshot("alone"));
}

TEST_F(FreezeTest, ARawDeviceIsTakenAsItIs) {
  use_volume(true);
  EXPECT_TRUE(snapshot("raw"));
  EXPECT_FALSE(cluster_.was_still["raw"]);
}

TEST_F(FreezeTest, AHostThatDoesNotAnswerHasNoSnapshot) {
  use_volume();
  end();
  const auto taken = snapshot("monday");
  EXPECT_EQ(taken.error().error.code, Code::kTimedOut);
  EXPECT_THAT(to_string(taken.error()), HasSubstr(kHost + " has not frozen the file system of volume db"));
  EXPECT_TRUE(cluster_.all["snapshots"].empty());
  EXPECT_EQ(label("freeze"), "");
  begin();
  EXPECT_TRUE(snapshot("monday"));
  EXPECT_TRUE(cluster_.was_still["monday"]);
}

TEST_F(FreezeTest, ASnapshotThatTakesTooLongHoldsNobody) {
  use_volume();
  cluster_.looks = 1'000'000;
  std::optional<Outcome<std::string>> got;
  bed_.begin("Controller/CreateSnapshot", snapshot_request("monday"), got);
  wait(seconds(5));
  EXPECT_TRUE(is_frozen());
  // What would end it has to wait.
  EXPECT_EQ(unstage().error().error.code, Code::kMiscompare);
  wait(seconds(9));
  EXPECT_FALSE(is_frozen());
  EXPECT_TRUE(unstage());
  wait(seconds(60));
  ASSERT_TRUE(got && !*got);
  EXPECT_EQ(got->error().error.code, Code::kMiscompare);
  EXPECT_TRUE(cluster_.all["snapshots"].empty());
}

TEST_F(FreezeTest, AnAskerThatIsGoneHoldsNobody) {
  use_volume();
  ask_by_hand("r-1");
  wait(seconds(5));
  EXPECT_TRUE(is_frozen());
  EXPECT_EQ(label("frozen"), "r-1");
  wait(seconds(9));
  EXPECT_FALSE(is_frozen());
  wait(seconds(30));
  EXPECT_FALSE(is_frozen()) << "each request is for once";
  // Too late: it was not still until now.
  ask_by_hand("r-1.taken");
  wait(seconds(30));
  EXPECT_EQ(label("frozen"), "r-1");
}

TEST_F(FreezeTest, AnotherAskerTakesItFromTheFirst) {
  use_volume();
  ask_by_hand("r-1");
  wait(seconds(5));
  ASSERT_EQ(label("frozen"), "r-1");
  ask_by_hand("r-2");
  wait(seconds(5));
  EXPECT_EQ(label("frozen"), "r-2") << "and the first never hears that it was still";
  ask_by_hand("r-2.taken");
  wait(seconds(1));
  EXPECT_EQ(label("frozen"), "r-2.thawed");
  EXPECT_FALSE(is_frozen());
}

TEST_F(FreezeTest, AControlPlaneThatIsSilentHoldsNobody) {
  use_volume();
  cluster_.is_silent = true;
  EXPECT_EQ(snapshot("monday").error().error.code, Code::kTimedOut);
  EXPECT_FALSE(is_frozen());
  EXPECT_TRUE(cluster_.all["snapshots"].empty());
}

TEST_F(FreezeTest, WhatAnotherFrozeIsItsOwn) {
  use_volume();
  machine_.devices[kNqn].is_frozen = true;
  EXPECT_FALSE(snapshot("monday"));
  EXPECT_TRUE(is_frozen());
  EXPECT_FALSE(process_->records.find("db")->is_frozen);
  machine_.devices[kNqn].is_frozen = false;
  EXPECT_TRUE(snapshot("monday"));
}

TEST_F(FreezeTest, WhatAControllerThatWasKilledLeftIsNoSnapshot) {
  use_volume();
  Json left = {{"name", "monday"}, {"labels", {{"fairlead.dev/still", "r-1"}}}, {"spec", {{"volume", "db"}}}};
  left["status"] = {{"state", "ready"}, {"size_bytes", 64 << 20}};
  cluster_.all["snapshots"]["monday"] = left;
  wire::GetSnapshotRequest get;
  get.set_snapshot_id("monday");
  EXPECT_FALSE(bed_.call<wire::GetSnapshotResponse>("Controller/GetSnapshot", get)->snapshot().ready_to_use());
  wire::CreateVolumeRequest restore;
  restore.set_name("copy");
  *restore.add_volume_capabilities() = capability(false);
  restore.mutable_volume_content_source()->mutable_snapshot()->set_snapshot_id("monday");
  EXPECT_EQ(bed_.call<wire::CreateVolumeResponse>("Controller/CreateVolume", restore).error().error.code,
            Code::kMiscompare);
  EXPECT_TRUE(snapshot("monday"));
  EXPECT_TRUE(cluster_.was_still["monday"]);
  EXPECT_TRUE(bed_.call<wire::CreateVolumeResponse>("Controller/CreateVolume", restore));
}

// Whatever step it is killed at, and however soon the next process is there: a snapshot that is said to be good was
// taken while nothing was written, and nothing stays frozen.
TEST_F(FreezeTest, GoodIsGoodWhereverThePluginIsKilled) {
  use_volume();
  size_t kills = 0;
  size_t good = 0;
  for (const Duration away : {Duration(milliseconds(10)), Duration(milliseconds(700)), Duration(seconds(4))}) {
    for (size_t steps = 0;; ++steps) {
      ASSERT_LT(steps, 200U);
      const std::string name = "s" + std::to_string(away.count()) + "-" + std::to_string(steps);
      std::optional<Outcome<std::string>> got;
      machine_.revive(steps);
      bed_.begin("Controller/CreateSnapshot", snapshot_request(name), got);
      (void)bed_.world.run_until([&] { return got.has_value() || machine_.steps > steps; }, seconds(120));
      const bool was_killed = machine_.steps > steps;
      if (was_killed) {
        ++kills;
        wait(away);
        end();
        machine_.revive(~size_t{0});
        begin();
      }
      EXPECT_EQ(bed_.world.run_until([&] { return got.has_value(); }, seconds(120)), sim::RunResult::kDone);
      if (*got) {
        ++good;
        EXPECT_TRUE(cluster_.was_still[name]) << name;
      } else {
        EXPECT_FALSE(cluster_.all["snapshots"].contains(name)) << name;
      }
      machine_.revive(~size_t{0});
      wait(seconds(15));
      EXPECT_FALSE(is_frozen()) << name;
      EXPECT_FALSE(process_->records.find("db")->is_frozen) << name;
      if (!was_killed) break;
    }
  }
  EXPECT_GT(kills, 20U);
  EXPECT_GT(good, 3U);
  EXPECT_TRUE(unstage());
}

}  // namespace
}  // namespace fairlead::csi
