#include "csi/node.h"

#include <api/csi/v1/csi.pb.h>
#include <gmock/gmock.h>

#include "csi/linux_files.h"
#include "csi/names.h"
#include "csi/test_cluster.h"
#include "csi/test_machine.h"

namespace fairlead::csi {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;
using Mode = wire::VolumeCapability::AccessMode;

const std::string kNqn = "nqn.test:db";
const std::string kOtherNqn = "nqn.test:other";
const std::string kStaging = "/var/lib/kubelet/staging/db";
const std::string kTarget = "/var/lib/kubelet/pods/1/db";

wire::VolumeCapability mounted(Mode::Mode mode = Mode::SINGLE_NODE_WRITER, const std::string& fs_type = "") {
  wire::VolumeCapability capability;
  capability.mutable_mount()->set_fs_type(fs_type);
  capability.mutable_access_mode()->set_mode(mode);
  return capability;
}
wire::VolumeCapability raw() {
  wire::VolumeCapability capability;
  capability.mutable_block();
  capability.mutable_access_mode()->set_mode(Mode::MULTI_NODE_MULTI_WRITER);
  return capability;
}

// The plugin, which may be killed and started again, and its machine, which stays.
class NodeTest : public testing::Test {
 protected:
  // A process: it knows what its predecessor kept.
  struct Process {
    Process(NodeTest& test)
        : records(test.reactor(), test.machine_),
          node(test.reactor(), test.machine_, test.cluster_, records,
               {.node = "worker-1",
                .host_nqn = host_nqn("worker-1"),
                .host_id = "00000000-0000-4000-8000-000000000001",
                .topology = {{"topology.kubernetes.io/zone", "z"}},
                .volumes_max = 8,
                .has_volume_health = true,
                .device_limit = std::chrono::seconds(5)}) {
      EXPECT_TRUE(records.load());
      node.add_to(service);
    }
    NodeRecords records;
    Node node;
    rpc::Service service;
  };

  NodeTest() : host_(world_.add_node("10.0.0.1")) { restart(); }
  Reactor& reactor() { return host_.shard(0).reactor; }
  void restart() { process_ = std::make_unique<Process>(*this); }

  template <typename Reply, typename Request>
  Outcome<Reply> call(const std::string& method, const Request& request) {
    std::optional<Outcome<std::string>> got;
    world_.spawn(host_, 0, keep(process_->service.handle("/csi.v1.Node/" + method, request.SerializeAsString()), got));
    EXPECT_EQ(world_.run_until([&] { return got.has_value(); }, std::chrono::hours(1)), sim::RunResult::kDone);
    if (!got || !*got) return std::unexpected(got ? got->error() : Problem{});
    Reply reply;
    EXPECT_TRUE(reply.ParseFromString(**got));
    return reply;
  }
  static Task<void> keep(Task<Outcome<std::string>> task, std::optional<Outcome<std::string>>& got) {
    got = co_await std::move(task);
  }
  static Task<void> follow(Node& node, bool& done) {
    co_await node.follow();
    done = true;
  }
  static Task<void> put(NodeRecords& records, NodeRecord record, bool& done) {
    EXPECT_TRUE(co_await records.put("db", std::move(record)));
    done = true;
  }
  void follow() {
    bool done = false;
    world_.spawn(host_, 0, follow(process_->node, done));
    EXPECT_EQ(world_.run_until([&] { return done; }, std::chrono::hours(1)), sim::RunResult::kDone);
  }

  static wire::NodeStageVolumeRequest stage_request(const wire::VolumeCapability& capability) {
    wire::NodeStageVolumeRequest request;
    request.set_volume_id("db");
    request.set_staging_target_path(kStaging);
    *request.mutable_volume_capability() = capability;
    (*request.mutable_publish_context())["nqn"] = kNqn;
    (*request.mutable_publish_context())["paths"] = "10.0.0.1:4420,10.0.0.2:4420";
    return request;
  }
  static wire::NodePublishVolumeRequest publish_request(const wire::VolumeCapability& capability,
                                                        const std::string& target = kTarget) {
    wire::NodePublishVolumeRequest request;
    request.set_volume_id("db");
    request.set_staging_target_path(kStaging);
    request.set_target_path(target);
    *request.mutable_volume_capability() = capability;
    return request;
  }
  Outcome<wire::NodeStageVolumeResponse> stage(const wire::VolumeCapability& capability = mounted()) {
    return call<wire::NodeStageVolumeResponse>("NodeStageVolume", stage_request(capability));
  }
  Outcome<wire::NodeUnstageVolumeResponse> unstage() {
    wire::NodeUnstageVolumeRequest request;
    request.set_volume_id("db");
    request.set_staging_target_path(kStaging);
    return call<wire::NodeUnstageVolumeResponse>("NodeUnstageVolume", request);
  }
  Outcome<wire::NodePublishVolumeResponse> publish(const wire::VolumeCapability& capability = mounted(),
                                                   const std::string& target = kTarget) {
    return call<wire::NodePublishVolumeResponse>("NodePublishVolume", publish_request(capability, target));
  }
  Outcome<wire::NodeUnpublishVolumeResponse> unpublish(const std::string& target = kTarget) {
    wire::NodeUnpublishVolumeRequest request;
    request.set_volume_id("db");
    request.set_target_path(target);
    return call<wire::NodeUnpublishVolumeResponse>("NodeUnpublishVolume", request);
  }
  TestMachine::Device& device() { return machine_.devices[kNqn]; }
  std::vector<std::string> addresses() {
    std::vector<std::string> all;
    for (const auto& [controller, request] : machine_.connections) all.push_back(request.address);
    return all;
  }

  sim::SimWorld world_{1};
  sim::SimNode& host_;
  TestMachine machine_;
  TestCluster cluster_;
  std::unique_ptr<Process> process_;
};

TEST_F(NodeTest, BringsAVolumeAndTakesItAway) {
  for (int i = 0; i < 3; ++i) {
    const auto staged = stage();
    ASSERT_TRUE(staged) << to_string(staged.error());
    ASSERT_TRUE(publish());
  }
  EXPECT_THAT(addresses(), UnorderedElementsAre("10.0.0.1:4420", "10.0.0.2:4420"));
  EXPECT_EQ(device().formats, 1);
  EXPECT_EQ(device().content.what, "ext4");
  EXPECT_EQ(machine_.source_at(kTarget), device().path);
  EXPECT_EQ(unstage().error().error.code, Code::kBusy);
  ASSERT_TRUE(stage());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(unpublish());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(unstage());
  EXPECT_TRUE(machine_.is_clean());
  EXPECT_FALSE(machine_.paths.contains(kTarget));
  EXPECT_TRUE(process_->records.volumes().empty());
}

// Each call ends well after it was killed at any step, and the process with it.
TEST_F(NodeTest, GoesOnFromAnyStepAtWhichItWasKilled) {
  enum class Call : uint8_t { kStage, kPublish, kUnpublish, kUnstage };
  const auto make = [this](Call call, const wire::VolumeCapability& capability) {
    switch (call) {
      case Call::kStage:
        return stage(capability).has_value();
      case Call::kPublish:
        return publish(capability).has_value();
      case Call::kUnpublish:
        return unpublish().has_value();
      case Call::kUnstage:
        return unstage().has_value();
    }
    return false;
  };
  size_t kills = 0;
  for (const auto& capability : {mounted(), raw(), mounted(Mode::SINGLE_NODE_WRITER, "xfs")}) {
    machine_.devices.clear();
    for (const Call each : {Call::kStage, Call::kPublish, Call::kUnpublish, Call::kUnstage}) {
      bool is_done = false;
      for (size_t steps = 0; !is_done; ++steps) {
        machine_.revive(steps);
        is_done = make(each, capability);
        if (is_done) break;
        ++kills;
        // From here it may also be asked for the opposite; that, killed nowhere, leaves nothing. Then again.
        if (each == Call::kStage && steps % 2 == 1) {
          machine_.revive(~size_t{0});
          restart();
          ASSERT_TRUE(unstage());
          EXPECT_TRUE(machine_.is_clean());
        }
        restart();
        ASSERT_LT(steps, 100U);
      }
    }
    EXPECT_TRUE(machine_.is_clean());
    EXPECT_TRUE(process_->records.volumes().empty());
    EXPECT_EQ(device().formats > 0, !capability.has_block());
  }
  EXPECT_GT(kills, 60U);
}

TEST_F(NodeTest, ReadOnlyIsReadOnlyEvenIfItWasKilledBetween) {
  ASSERT_TRUE(stage());
  const auto capability = mounted(Mode::SINGLE_NODE_MULTI_WRITER);
  auto request = publish_request(capability);
  request.set_readonly(true);
  for (size_t steps = 0;; ++steps) {
    ASSERT_LT(steps, 100U);
    machine_.revive(steps);
    const auto published = call<wire::NodePublishVolumeResponse>("NodePublishVolume", request);
    restart();
    if (!published) continue;
    EXPECT_TRUE(machine_.all_mounts.back().is_read_only);
    EXPECT_EQ(machine_.all_mounts.size(), 2U);
    break;
  }
}

// Mounts do not guard it.
TEST_F(NodeTest, ARawDeviceIsNotWrittenToByThoseWhoOnlyReadIt) {
  ASSERT_TRUE(stage(raw()));
  auto request = publish_request(raw());
  request.set_readonly(true);
  ASSERT_TRUE(call<wire::NodePublishVolumeResponse>("NodePublishVolume", request));
  EXPECT_EQ(device().access, Access::kReadOnly);
  ASSERT_TRUE(publish(raw(), "/pods/2"));
  EXPECT_EQ(device().access, Access::kReadWrite);
  ASSERT_TRUE(unpublish("/pods/2"));
  EXPECT_EQ(device().access, Access::kReadOnly);
  ASSERT_TRUE(unpublish());
  ASSERT_TRUE(publish(raw()));
  EXPECT_EQ(device().access, Access::kReadWrite);
}

TEST_F(NodeTest, NeverFormatsWhatHoldsSomething) {
  device().path = "/dev/nvme1n1";
  device().content = {.kind = DeviceContent::Kind::kOther, .what = "a gpt partition table"};
  EXPECT_THAT(to_string(stage().error()), HasSubstr("a gpt partition table"));
  device().content = {.kind = DeviceContent::Kind::kFileSystem, .what = "xfs"};
  EXPECT_THAT(to_string(stage().error()), HasSubstr("holds xfs, and ext4 is asked for"));
  ASSERT_TRUE(unstage());
  EXPECT_TRUE(stage(mounted(Mode::SINGLE_NODE_WRITER, "xfs")));
  EXPECT_EQ(device().formats, 0);
}

TEST_F(NodeTest, WhatAKilledMkfsLeftIsForgottenWithItsVolume) {
  for (size_t steps = 1; device().content.kind != DeviceContent::Kind::kOther; ++steps) {
    ASSERT_LT(steps, 100U);
    machine_.revive(steps);
    ASSERT_FALSE(stage());
    restart();
    machine_.revive(~size_t{0});
    ASSERT_TRUE(unstage());
    if (device().content.kind == DeviceContent::Kind::kBlank) follow();  // as if it were the first time
  }
  restart();
  EXPECT_THAT(process_->records.volumes(), ElementsAre("db"));
  cluster_.all["volumes"]["db"] = {{"name", "db"}, {"status", {{"nqn", kNqn}}}};
  follow();
  EXPECT_THAT(process_->records.volumes(), ElementsAre("db"));
  cluster_.all.clear();
  follow();
  EXPECT_TRUE(process_->records.volumes().empty());
}

// It was making a file system when the machine lost the volume; another one made and used one since.
TEST_F(NodeTest, AnOldIntentionFormatsNothing) {
  NodeRecord record = {.nqn = kNqn, .staging_path = kStaging, .fs_type = "ext4", .is_formatting = true};
  device().path = "/dev/nvme1n1";
  device().content = {.kind = DeviceContent::Kind::kFileSystem, .what = "ext4"};
  bool kept = false;
  world_.spawn(host_, 0, put(process_->records, std::move(record), kept));
  EXPECT_EQ(world_.run_until([&] { return kept; }, std::chrono::hours(1)), sim::RunResult::kDone);
  restart();
  ASSERT_TRUE(stage());
  EXPECT_EQ(device().formats, 0);
  EXPECT_FALSE(process_->records.find("db")->is_formatting);
}

TEST_F(NodeTest, AnEmptyVolumeIsNotFormattedToBeRead) {
  EXPECT_THAT(to_string(stage(mounted(Mode::SINGLE_NODE_READER_ONLY)).error()), HasSubstr("nothing to mount"));
  EXPECT_EQ(device().formats, 0);
}

TEST_F(NodeTest, OnePathIsEnoughToBegin) {
  machine_.dead = {"10.0.0.1:4420"};
  ASSERT_TRUE(stage());
  EXPECT_THAT(addresses(), ElementsAre("10.0.0.2:4420"));
  ASSERT_TRUE(unstage());
  machine_.dead.insert("10.0.0.2:4420");
  EXPECT_EQ(stage().error().error.code, Code::kUnreachable);
  ASSERT_TRUE(unstage());
  machine_.dead.clear();
  machine_.hidden = true;
  EXPECT_EQ(stage().error().error.code, Code::kTimedOut);
  machine_.hidden = false;
  machine_.is_host = false;
  EXPECT_EQ(stage().error().error.code, Code::kNotSupported);
}

TEST_F(NodeTest, FollowsPaths) {
  ASSERT_TRUE(stage());
  Json paths = Json::array();
  const auto show = [&](const char* address, const char* state) {
    paths.push_back({{"node", "n"}, {"address", address}, {"state", state}});
    cluster_.all["volumes"]["db"] = {{"name", "db"}, {"status", {{"nqn", kNqn}, {"paths", paths}}}};
  };
  follow();  // without the control plane nothing changes
  EXPECT_EQ(addresses().size(), 2U);
  show("10.0.0.2:4420", "serving");
  show("10.0.0.3:4420", "standby");
  follow();
  EXPECT_THAT(addresses(), UnorderedElementsAre("10.0.0.2:4420", "10.0.0.3:4420"));
  // No path that is wanted works: what works is kept.
  paths = Json::array();
  machine_.dead = {"10.0.0.4:4420"};
  show("10.0.0.4:4420", "serving");
  follow();
  EXPECT_EQ(addresses().size(), 2U);
  machine_.dead.clear();
  follow();
  EXPECT_THAT(addresses(), ElementsAre("10.0.0.4:4420"));
  ASSERT_TRUE(unstage());
  follow();
  EXPECT_TRUE(machine_.is_clean());
}

// What the orchestrator asks for while the paths of that volume are looked at is done after it, not refused.
TEST_F(NodeTest, ACallWaitsWhileItsVolumeIsFollowed) {
  ASSERT_TRUE(stage());
  Json paths = Json::array();
  paths.push_back({{"node", "n"}, {"address", "10.0.0.3:4420"}, {"state", "serving"}});
  cluster_.all["volumes"]["db"] = {{"name", "db"}, {"status", {{"nqn", kNqn}, {"paths", paths}}}};
  Event go_on(reactor());
  machine_.held = &go_on;
  bool is_followed = false;
  world_.spawn(host_, 0, follow(process_->node, is_followed));
  EXPECT_EQ(world_.run_until([&] { return machine_.is_held; }, std::chrono::hours(1)), sim::RunResult::kDone);
  wire::NodeUnstageVolumeRequest request;
  request.set_volume_id("db");
  request.set_staging_target_path(kStaging);
  std::optional<Outcome<std::string>> unstaged;
  world_.spawn(host_, 0,
               keep(process_->service.handle("/csi.v1.Node/NodeUnstageVolume", request.SerializeAsString()), unstaged));
  world_.run_for(std::chrono::seconds(1));
  EXPECT_FALSE(unstaged.has_value());
  go_on.set();
  EXPECT_EQ(world_.run_until([&] { return unstaged.has_value(); }, std::chrono::hours(1)), sim::RunResult::kDone);
  EXPECT_TRUE(unstaged->has_value()) << to_string(unstaged->error());
  EXPECT_TRUE(is_followed);
  EXPECT_TRUE(machine_.is_clean());
  EXPECT_TRUE(process_->records.volumes().empty());
}

TEST_F(NodeTest, OnePodOrSeveral) {
  ASSERT_TRUE(stage());
  const auto alone = mounted(Mode::SINGLE_NODE_SINGLE_WRITER);
  ASSERT_TRUE(publish(alone));
  EXPECT_TRUE(publish(alone));
  EXPECT_EQ(publish(alone, "/pods/2").error().error.code, Code::kBusy);
  EXPECT_TRUE(publish(mounted(Mode::SINGLE_NODE_MULTI_WRITER), "/pods/3"));
  EXPECT_EQ(publish(mounted(Mode::SINGLE_NODE_READER_ONLY)).error().error.code, Code::kAlreadyExists);
  EXPECT_EQ(publish(raw(), "/pods/4").error().error.code, Code::kInvalidArgument);
}

TEST_F(NodeTest, APathIsOfOneVolume) {
  const auto of_other = [](auto request) {
    request.set_volume_id("other");
    return request;
  };
  auto stage_other = of_other(stage_request(mounted()));
  (*stage_other.mutable_publish_context())["nqn"] = kOtherNqn;
  ASSERT_TRUE(stage());
  ASSERT_TRUE(publish());
  const auto at_its_staging = call<wire::NodeStageVolumeResponse>("NodeStageVolume", stage_other);
  EXPECT_EQ(at_its_staging.error().error.code, Code::kAlreadyExists);
  EXPECT_THAT(to_string(at_its_staging.error()), HasSubstr("volume db is at"));
  stage_other.set_staging_target_path("/staging/other");
  ASSERT_TRUE(call<wire::NodeStageVolumeResponse>("NodeStageVolume", stage_other));
  const auto at_its_target =
      call<wire::NodePublishVolumeResponse>("NodePublishVolume", of_other(publish_request(mounted())));
  EXPECT_EQ(at_its_target.error().error.code, Code::kAlreadyExists);
  EXPECT_EQ(machine_.source_at(kTarget), device().path);
  ASSERT_TRUE(unpublish());
  EXPECT_TRUE(call<wire::NodePublishVolumeResponse>("NodePublishVolume", of_other(publish_request(mounted()))));
}

TEST_F(NodeTest, RefusesWhatIsIncomplete) {
  auto request = stage_request(mounted());
  request.clear_publish_context();
  EXPECT_EQ(call<wire::NodeStageVolumeResponse>("NodeStageVolume", request).error().error.code, Code::kInvalidArgument);
  request = stage_request(mounted());
  request.set_staging_target_path("relative");
  EXPECT_EQ(call<wire::NodeStageVolumeResponse>("NodeStageVolume", request).error().error.code, Code::kInvalidArgument);
  EXPECT_EQ(publish().error().error.code, Code::kNotFound);
  ASSERT_TRUE(stage());
  EXPECT_EQ(stage(raw()).error().error.code, Code::kAlreadyExists);
}

TEST_F(NodeTest, GrowsAndTellsItsUsage) {
  auto request = stage_request(mounted());
  (*request.mutable_volume_context())["ioTimeout"] = "30";
  (*request.mutable_volume_context())["ioQueues"] = "2";
  ASSERT_TRUE(call<wire::NodeStageVolumeResponse>("NodeStageVolume", request));
  EXPECT_EQ(device().io_timeout, 30U);
  EXPECT_EQ(machine_.connections.begin()->second.io_queues, 2U);
  ASSERT_TRUE(publish());
  wire::NodeExpandVolumeRequest expand;
  expand.set_volume_id("db");
  expand.set_volume_path(kTarget);
  expand.mutable_capacity_range()->set_required_bytes(128 << 20);
  EXPECT_EQ(call<wire::NodeExpandVolumeResponse>("NodeExpandVolume", expand).error().error.code, Code::kMiscompare);
  device().bytes = 128 << 20;
  EXPECT_EQ(call<wire::NodeExpandVolumeResponse>("NodeExpandVolume", expand)->capacity_bytes(), 128 << 20);
  EXPECT_EQ(device().fs_bytes, 128U << 20);
  wire::NodeGetVolumeStatsRequest stats;
  stats.set_volume_id("db");
  stats.set_volume_path(kTarget);
  EXPECT_EQ(call<wire::NodeGetVolumeStatsResponse>("NodeGetVolumeStats", stats)->usage(0).total(), 128 << 20);
  stats.set_volume_path("/elsewhere");
  EXPECT_EQ(call<wire::NodeGetVolumeStatsResponse>("NodeGetVolumeStats", stats).error().error.code, Code::kNotFound);
  stats.set_volume_id("none");
  EXPECT_EQ(call<wire::NodeGetVolumeStatsResponse>("NodeGetVolumeStats", stats).error().error.code, Code::kNotFound);
}

TEST_F(NodeTest, TellsWhatIsWrongWithIt) {
  const auto health = [&] {
    wire::NodeGetVolumeHealthRequest request;
    request.set_volume_id("db");
    const auto reply = call<wire::NodeGetVolumeHealthResponse>("NodeGetVolumeHealth", request);
    std::vector<std::string> all;
    if (!reply) return std::vector<std::string>{std::string(code_info(reply.error().error.code).name)};
    for (const auto& entry : reply->volume_health().health_statuses()) {
      all.push_back(wire::VolumeHealthErrorType_Name(entry.status()) + " " + entry.reason() + ": " + entry.message());
    }
    return all;
  };
  const auto storage = [&] {
    const auto reply =
        call<wire::NodeGetStorageHealthResponse>("NodeGetStorageHealth", wire::NodeGetStorageHealthRequest());
    std::vector<std::string> all;
    for (const auto& entry : reply->backend_health()) {
      all.push_back(wire::StorageHealthErrorType_Name(entry.status()) + " " + entry.reason());
    }
    return all;
  };
  EXPECT_THAT(health(), ElementsAre("not_found"));
  EXPECT_TRUE(storage().empty());
  ASSERT_TRUE(stage());
  EXPECT_TRUE(health().empty());
  EXPECT_TRUE(storage().empty());
  machine_.dead = {"10.0.0.2:4420"};
  EXPECT_THAT(health(), ElementsAre("DEGRADED PathLost: not connected to 10.0.0.2:4420"));
  EXPECT_THAT(storage(), ElementsAre("STORAGE_DEGRADED PathLost"));
  // A path that was never made is lost, too.
  machine_.dead.clear();
  Json paths = {{{"node", "n"}, {"address", "10.0.0.1:4420"}, {"state", "serving"}},
                {{"node", "m"}, {"address", "10.0.0.3:4420"}, {"state", "standby"}}};
  cluster_.all["volumes"]["db"] = {{"name", "db"}, {"status", {{"nqn", kNqn}, {"paths", paths}}}};
  EXPECT_THAT(health(), ElementsAre("DEGRADED PathLost: not connected to 10.0.0.3:4420"));
  machine_.dead = {"10.0.0.1:4420", "10.0.0.2:4420"};
  EXPECT_THAT(health(), ElementsAre(HasSubstr("INACCESSIBLE NoPath")));
  EXPECT_THAT(storage(), ElementsAre("STORAGE_UNREACHABLE NoPath"));
  machine_.dead.clear();
  cluster_.all.clear();
  machine_.all_mounts.clear();
  EXPECT_THAT(health(), ElementsAre(HasSubstr("INACCESSIBLE NotMounted")));
  machine_.hidden = true;
  EXPECT_THAT(health(), ElementsAre(HasSubstr("INACCESSIBLE DeviceGone")));
  machine_.is_host = false;
  EXPECT_THAT(storage(), ElementsAre("STORAGE_UNREACHABLE HostNotReady"));
}

TEST_F(NodeTest, TellsWhereItIs) {
  const auto info = call<wire::NodeGetInfoResponse>("NodeGetInfo", wire::NodeGetInfoRequest());
  ASSERT_TRUE(info);
  EXPECT_EQ(info->node_id(), host_nqn("worker-1"));
  EXPECT_EQ(info->max_volumes_per_node(), 8);
  const std::map<std::string, std::string> segments(info->accessible_topology().segments().begin(),
                                                    info->accessible_topology().segments().end());
  EXPECT_THAT(segments, ElementsAre(Pair(kTopologyNode, "worker-1"), Pair("topology.kubernetes.io/zone", "z")));
}

TEST(LinuxHostTest, SaysToTheKernelWhatAttachSays) {
  const auto line = linux_host::connect_line({.nqn = "nqn.a",
                                              .address = "[fd00::1]:4421",
                                              .host_nqn = "nqn.h",
                                              .host_id = "00000000-0000-4000-8000-000000000001",
                                              .io_queues = 2});
  EXPECT_EQ(*line,
            "nqn=nqn.a,transport=tcp,traddr=fd00::1,trsvcid=4421,hostnqn=nqn.h,"
            "hostid=00000000-0000-4000-8000-000000000001,ctrl_loss_tmo=-1,reconnect_delay=1,keep_alive_tmo=2,"
            "nr_io_queues=2");
  EXPECT_FALSE(linux_host::connect_line({.nqn = "nqn.a", .address = "nowhere", .host_nqn = "", .host_id = ""}));
  EXPECT_EQ(linux_host::address_of("traddr=10.0.0.1,trsvcid=4420,src_addr=10.0.0.9"), "10.0.0.1:4420");
  EXPECT_EQ(linux_host::address_of("traddr=fd00::1,trsvcid=4420"), "[fd00::1]:4420");
  EXPECT_EQ(linux_host::address_of(""), "");
}

TEST(LinuxHostTest, ToolsAreRunAndHeard) {
  EXPECT_TRUE(linux_host::run({"true"}));
  const auto failed = linux_host::run({"sh", "-c", "echo no such luck >&2; exit 3"});
  EXPECT_EQ(to_string(failed.error()), "sh ended with code 3: no such luck");
  EXPECT_EQ(linux_host::run({"fairlead-no-such-tool"}).error().error.code, Code::kNotFound);
}

}  // namespace
}  // namespace fairlead::csi
