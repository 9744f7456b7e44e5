#include "csi/controller.h"

#include <api/csi/v1/csi.pb.h>
#include <gmock/gmock.h>

#include "csi/identity.h"
#include "csi/names.h"
#include "csi/parameters.h"
#include "csi/test_cluster.h"

namespace fairlead::csi {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Mode = wire::VolumeCapability::AccessMode;

constexpr int64_t kMib = 1 << 20;
const std::string kHost = host_nqn("worker-1");

wire::VolumeCapability mounted(Mode::Mode mode = Mode::SINGLE_NODE_WRITER) {
  wire::VolumeCapability capability;
  capability.mutable_mount();
  capability.mutable_access_mode()->set_mode(mode);
  return capability;
}
wire::VolumeCapability raw(Mode::Mode mode = Mode::MULTI_NODE_MULTI_WRITER) {
  wire::VolumeCapability capability;
  capability.mutable_block();
  capability.mutable_access_mode()->set_mode(mode);
  return capability;
}

wire::CreateVolumeRequest volume(const std::string& name, int64_t bytes = 64 * kMib) {
  wire::CreateVolumeRequest request;
  request.set_name(name);
  request.mutable_capacity_range()->set_required_bytes(bytes);
  *request.add_volume_capabilities() = mounted();
  return request;
}

class ControllerTest : public testing::Test {
 protected:
  ControllerTest() : controller_(bed_.reactor(), cluster_, {.volumes_per_node_max = 2}) {
    controller_.add_to(bed_.service);
  }

  Outcome<wire::CreateVolumeResponse> create(const wire::CreateVolumeRequest& request) {
    return bed_.call<wire::CreateVolumeResponse>("Controller/CreateVolume", request);
  }
  Code create_code(const wire::CreateVolumeRequest& request) { return create(request).error().error.code; }
  Outcome<wire::DeleteVolumeResponse> remove(const std::string& id) {
    wire::DeleteVolumeRequest request;
    request.set_volume_id(id);
    return bed_.call<wire::DeleteVolumeResponse>("Controller/DeleteVolume", request);
  }
  Outcome<wire::ControllerPublishVolumeResponse> publish(const std::string& id, const std::string& host,
                                                         const wire::VolumeCapability& capability) {
    wire::ControllerPublishVolumeRequest request;
    request.set_volume_id(id);
    request.set_node_id(host);
    *request.mutable_volume_capability() = capability;
    return bed_.call<wire::ControllerPublishVolumeResponse>("Controller/ControllerPublishVolume", request);
  }
  Outcome<wire::ControllerUnpublishVolumeResponse> unpublish(const std::string& id, const std::string& host) {
    wire::ControllerUnpublishVolumeRequest request;
    request.set_volume_id(id);
    request.set_node_id(host);
    return bed_.call<wire::ControllerUnpublishVolumeResponse>("Controller/ControllerUnpublishVolume", request);
  }
  Outcome<wire::CreateSnapshotResponse> snapshot(const std::string& name, const std::string& of) {
    wire::CreateSnapshotRequest request;
    request.set_name(name);
    request.set_source_volume_id(of);
    return bed_.call<wire::CreateSnapshotResponse>("Controller/CreateSnapshot", request);
  }
  const Json& kept(const std::string& name) { return cluster_.all["volumes"][name]; }

  TestCluster cluster_;
  TestWorld bed_;
  Controller controller_;
};

// ---- Names and parameters

TEST(NamesTest, EveryNameBecomesALegalOneOfItsOwn) {
  EXPECT_EQ(*resource_name("pvc-6f0d3b5e-5c1d-4c36-9a53-1a8e2774f109"), "pvc-6f0d3b5e-5c1d-4c36-9a53-1a8e2774f109");
  const std::string long_name = *resource_name(std::string(128, 'a'));
  EXPECT_LE(long_name.size(), 63U);
  EXPECT_NE(long_name, *resource_name(std::string(127, 'a')));
  EXPECT_EQ(long_name, *resource_name(std::string(128, 'a')));
  EXPECT_TRUE(resource_name("Größe / 1"));
  EXPECT_NE(*resource_name("A"), *resource_name("a"));
  EXPECT_FALSE(resource_name(""));
  EXPECT_FALSE(resource_name("a\nb"));
}

TEST(NamesTest, ANodeIsKnownByItsNqn) {
  EXPECT_EQ(*node_of_host(host_nqn("worker-1.example")), "worker-1.example");
  EXPECT_FALSE(node_of_host("worker-1"));
  EXPECT_FALSE(node_of_host(host_nqn("")));
  EXPECT_FALSE(node_of_host(host_nqn("A b")));
}

TEST(NamesTest, ALabelHoldsAnyShortText) {
  for (const std::string text : {"", "ext4", "-E lazy_itable_init=0", "50_%"}) {
    EXPECT_EQ(text_of_label(*label_value(text)), text);
  }
  EXPECT_FALSE(label_value(std::string(64, 'a')));
}

TEST(ParametersTest, OwnNamesAndOthersMeanTheSame) {
  const auto own = parse_parameters({{"replicas", "3"}, {"spreadOver", "zone,rack"}, {"affinity", "disk=ssd"}});
  const auto others = parse_parameters(
      {{"repl", "3"}, {"nodeSpreadTopologyKey", "zone\nrack"}, {"nodeAffinityTopologyLabel", "disk: ssd"}});
  ASSERT_TRUE(own && others);
  EXPECT_EQ(own->changing.replicas, others->changing.replicas);
  EXPECT_EQ(own->spread_over, others->spread_over);
  EXPECT_EQ(own->affinity, others->affinity);
}

TEST(ParametersTest, WhatIsNotKnownIsNamed) {
  EXPECT_THAT(to_string(parse_parameters({{"replica", "3"}}).error()), HasSubstr("replica: is not known"));
  EXPECT_FALSE(parse_parameters({{"repl", "8"}}));
  EXPECT_FALSE(parse_parameters({{"thin", "maybe"}}));
  EXPECT_FALSE(parse_parameters({{"resyncShare", "101"}}));
  EXPECT_FALSE(parse_parameters({{"protocol", "iscsi"}}));
  EXPECT_FALSE(parse_parameters({{"fsType", "ntfs"}}));
  EXPECT_TRUE(parse_parameters({{"csi.storage.k8s.io/pv/name", "x"}}));
  EXPECT_THAT(to_string(parse_mutable_parameters({{"thin", "true"}}).error()), HasSubstr("thin: cannot be changed"));
}

TEST(ParametersTest, ClaimsOfASetAreAGroup) {
  const auto of = [](const char* claim) {
    return parse_parameters({{"stsAffinityGroup", "true"},
                             {"csi.storage.k8s.io/pvc/name", claim},
                             {"csi.storage.k8s.io/pvc/namespace", "shop"}});
  };
  EXPECT_EQ(of("data-db-0")->group, "shop.data-db");
  EXPECT_EQ(of("data-db-12")->group, "shop.data-db");
  EXPECT_FALSE(parse_parameters({{"stsAffinityGroup", "true"}}));
}

// ---- Volumes

TEST_F(ControllerTest, CreatesOnceWhatIsAskedForTwice) {
  auto request = volume("pvc-1");
  (*request.mutable_parameters())["repl"] = "2";
  (*request.mutable_parameters())["ioTimeout"] = "30";
  for (int i = 0; i < 2; ++i) {
    const auto made = create(request);
    ASSERT_TRUE(made) << to_string(made.error());
    EXPECT_EQ(made->volume().volume_id(), "pvc-1");
    EXPECT_EQ(made->volume().capacity_bytes(), 64 * kMib);
    EXPECT_EQ(made->volume().volume_context().at("ioTimeout"), "30");
  }
  EXPECT_THAT(cluster_.created, ElementsAre("volumes/pvc-1"));
  EXPECT_EQ(kept("pvc-1")["spec"]["replicas"], 2);
  EXPECT_EQ(kept("pvc-1")["spec"]["allowed_hosts"], Json({kNobody}));
  EXPECT_EQ(create_code(volume("pvc-1", 65 * kMib)), Code::kAlreadyExists);
}

TEST_F(ControllerTest, KeepsWhoseItIs) {
  auto request = volume("pvc-1");
  (*request.mutable_parameters())["csi.storage.k8s.io/pvc/name"] = "data-db-0";
  (*request.mutable_parameters())["csi.storage.k8s.io/pvc/namespace"] = "shop";
  (*request.mutable_parameters())["csi.storage.k8s.io/pv/name"] = "pvc-1";
  const auto made = create(request);
  ASSERT_TRUE(made) << to_string(made.error());
  EXPECT_TRUE(made->volume().volume_context().empty());
  const Json& labels = kept("pvc-1")["labels"];
  EXPECT_EQ(labels.value("fairlead.dev/pvc", ""), "data-db-0");
  EXPECT_EQ(labels.value("fairlead.dev/pvc-namespace", ""), "shop");
  EXPECT_EQ(labels.value("fairlead.dev/pv", ""), "pvc-1");
  // Kubernetes knows longer names than labels have room for.
  request.set_name("pvc-2");
  (*request.mutable_parameters())["csi.storage.k8s.io/pvc/name"] = std::string(200, 'a');
  ASSERT_TRUE(create(request));
  EXPECT_FALSE(kept("pvc-2")["labels"].contains("fairlead.dev/pvc"));
  EXPECT_EQ(kept("pvc-2")["labels"].value("fairlead.dev/pvc-namespace", ""), "shop");
}

TEST_F(ControllerTest, RefusesWhatCannotBe) {
  EXPECT_EQ(create_code(volume("")), Code::kInvalidArgument);
  auto none = volume("a");
  none.clear_volume_capabilities();
  EXPECT_EQ(create_code(none), Code::kInvalidArgument);
  auto shared = volume("a");
  *shared.mutable_volume_capabilities(0) = mounted(Mode::MULTI_NODE_MULTI_WRITER);
  EXPECT_EQ(create_code(shared), Code::kInvalidArgument);
  auto strange = volume("a");
  (*strange.mutable_parameters())["colour"] = "red";
  EXPECT_EQ(create_code(strange), Code::kInvalidArgument);
  auto small = volume("a", 1);
  small.mutable_capacity_range()->set_limit_bytes(4096);
  EXPECT_EQ(create_code(small), Code::kOutOfRange);
  EXPECT_TRUE(cluster_.created.empty());
}

// Else the claim is bound, and its pod can never start.
TEST_F(ControllerTest, AFileSystemHasRoomForItself) {
  const auto made_bytes = [&](wire::CreateVolumeRequest request, const char* fs_type, const char* parameter) {
    request.mutable_volume_capabilities(0)->mutable_mount()->set_fs_type(fs_type);
    if (*parameter != '\0') (*request.mutable_parameters())["fsType"] = parameter;
    const auto made = create(request);
    return made ? made->volume().capacity_bytes() / kMib : -1;
  };
  EXPECT_EQ(made_bytes(volume("a"), "", ""), 64);
  EXPECT_EQ(made_bytes(volume("b"), "xfs", ""), 300);
  EXPECT_EQ(made_bytes(volume("b"), "xfs", ""), 300);
  EXPECT_EQ(made_bytes(volume("c"), "", "btrfs"), 256);
  EXPECT_EQ(made_bytes(volume("d"), "ext4", "btrfs"), 64);
  EXPECT_EQ(made_bytes(volume("e", 400 * kMib), "xfs", ""), 400);
  auto limited = volume("f");
  limited.mutable_capacity_range()->set_limit_bytes(100 * kMib);
  EXPECT_EQ(made_bytes(limited, "xfs", ""), -1);
  limited.mutable_capacity_range()->set_required_bytes(0);
  EXPECT_EQ(made_bytes(limited, "xfs", ""), -1);
  EXPECT_EQ(made_bytes(limited, "", ""), 100);
  auto block = volume("g");
  *block.mutable_volume_capabilities(0) = raw();
  (*block.mutable_parameters())["fsType"] = "xfs";
  EXPECT_EQ(create(block)->volume().capacity_bytes(), 64 * kMib);
}

TEST_F(ControllerTest, AVolumeThatAPersonMadeIsNotTaken) {
  cluster_.all["volumes"]["db"] = {{"name", "db"}, {"labels", Json::object()}, {"spec", {{"size_bytes", 64 * kMib}}}};
  EXPECT_EQ(create_code(volume("db")), Code::kAlreadyExists);
}

TEST_F(ControllerTest, WithoutRoomNothingIsLeftBehind) {
  cluster_.has_room = false;
  EXPECT_EQ(create_code(volume("pvc-1")), Code::kResourceExhausted);
  EXPECT_TRUE(cluster_.all["volumes"].empty());
}

TEST_F(ControllerTest, WaitsForTheClusterAndThenIsAskedAgain) {
  cluster_.is_forming = false;
  std::optional<Outcome<std::string>> first;
  bed_.begin("Controller/CreateVolume", volume("pvc-1"), first);
  bed_.world.run_for(std::chrono::milliseconds(10));
  EXPECT_EQ(create_code(volume("pvc-1")), Code::kMiscompare);  // the first is at it
  EXPECT_FALSE(first);
  bed_.world.run_for(std::chrono::seconds(30));
  ASSERT_TRUE(first && !*first);
  EXPECT_EQ(first->error().error.code, Code::kMiscompare);
}

TEST_F(ControllerTest, MakesVolumesOfSnapshotsAndOfVolumes) {
  ASSERT_TRUE(create(volume("db")));
  ASSERT_TRUE(snapshot("monday", "db"));
  auto restored = volume("restored", 0);
  restored.mutable_volume_content_source()->mutable_snapshot()->set_snapshot_id("monday");
  const auto made = create(restored);
  ASSERT_TRUE(made) << to_string(made.error());
  EXPECT_EQ(made->volume().capacity_bytes(), 64 * kMib);
  EXPECT_EQ(made->volume().content_source().snapshot().snapshot_id(), "monday");
  restored.set_name("small");
  restored.mutable_capacity_range()->set_limit_bytes(kMib);
  EXPECT_EQ(create_code(restored), Code::kOutOfRange);
  restored.mutable_volume_content_source()->mutable_snapshot()->set_snapshot_id("none");
  EXPECT_EQ(create_code(restored), Code::kNotFound);

  auto clone = volume("clone");
  clone.mutable_volume_content_source()->mutable_volume()->set_volume_id("db");
  for (int i = 0; i < 2; ++i) {
    const auto cloned = create(clone);
    ASSERT_TRUE(cloned) << to_string(cloned.error());
    EXPECT_EQ(cloned->volume().content_source().volume().volume_id(), "db");
  }
  EXPECT_EQ(cluster_.all["snapshots"].size(), 1U);  // what it was made through is gone
  EXPECT_EQ(create_code(volume("clone")), Code::kAlreadyExists);
  clone.set_name("other");
  clone.mutable_volume_content_source()->mutable_volume()->set_volume_id("none");
  EXPECT_EQ(create_code(clone), Code::kNotFound);
}

TEST_F(ControllerTest, ACloneThatWasGivenUpLeavesNothing) {
  ASSERT_TRUE(create(volume("db")));
  cluster_.is_forming = false;
  auto clone = volume("clone");
  clone.mutable_volume_content_source()->mutable_volume()->set_volume_id("db");
  EXPECT_EQ(create_code(clone), Code::kMiscompare);
  EXPECT_EQ(cluster_.all["snapshots"].size(), 1U);
  EXPECT_TRUE(remove("db"));
  EXPECT_TRUE(remove("clone"));
  EXPECT_TRUE(cluster_.all["volumes"].empty() && cluster_.all["snapshots"].empty());
}

TEST_F(ControllerTest, DeletesWhatIsNotInUse) {
  EXPECT_TRUE(remove("never-was"));
  EXPECT_TRUE(remove("No Such/Name"));
  EXPECT_EQ(remove("").error().error.code, Code::kInvalidArgument);
  ASSERT_TRUE(create(volume("db")));
  ASSERT_TRUE(publish("db", kHost, mounted()));
  EXPECT_EQ(remove("db").error().error.code, Code::kBusy);
  ASSERT_TRUE(unpublish("db", kHost));
  ASSERT_TRUE(snapshot("monday", "db"));
  EXPECT_EQ(remove("db").error().error.code, Code::kBusy);
  EXPECT_TRUE(cluster_.all["volumes"].contains("db"));
}

// ---- Publications

TEST_F(ControllerTest, OneMachineAtATimeUnlessItIsShared) {
  ASSERT_TRUE(create(volume("db")));
  const auto published = publish("db", kHost, mounted());
  ASSERT_TRUE(published) << to_string(published.error());
  EXPECT_EQ(published->publish_context().at("paths"), "10.0.0.1:4420,10.0.0.2:4420");
  EXPECT_EQ(published->publish_context().at("nqn"), "nqn.test:db");
  EXPECT_EQ(kept("db")["spec"]["allowed_hosts"], Json({kHost}));
  EXPECT_TRUE(publish("db", kHost, mounted()));
  EXPECT_EQ(publish("db", kHost, mounted(Mode::SINGLE_NODE_READER_ONLY)).error().error.code, Code::kAlreadyExists);
  EXPECT_EQ(publish("db", host_nqn("b"), mounted()).error().error.code, Code::kBusy);
  EXPECT_EQ(publish("db", "worker-1", mounted()).error().error.code, Code::kNotFound);
  EXPECT_EQ(publish("none", kHost, mounted()).error().error.code, Code::kNotFound);
  EXPECT_TRUE(unpublish("db", kHost));
  EXPECT_TRUE(unpublish("db", kHost));
  EXPECT_EQ(kept("db")["spec"]["allowed_hosts"], Json({kNobody}));

  EXPECT_TRUE(publish("db", kHost, raw()));
  EXPECT_TRUE(publish("db", host_nqn("b"), raw()));
  EXPECT_EQ(publish("db", host_nqn("c"), mounted()).error().error.code, Code::kBusy);
  EXPECT_TRUE(unpublish("db", ""));
  EXPECT_EQ(kept("db")["spec"]["allowed_hosts"], Json({kNobody}));
  EXPECT_TRUE(unpublish("none", kHost));
}

TEST_F(ControllerTest, OthersMayChangeTheDocumentMeanwhile) {
  ASSERT_TRUE(create(volume("db")));
  cluster_.others_changes = 3;
  EXPECT_TRUE(publish("db", kHost, mounted()));
  cluster_.others_changes = 1000;
  EXPECT_EQ(unpublish("db", kHost).error().error.code, Code::kMiscompare);
}

TEST_F(ControllerTest, AMachineHasItsLimit) {
  for (const char* const name : {"a", "b", "c"}) ASSERT_TRUE(create(volume(name)));
  EXPECT_TRUE(publish("a", kHost, mounted()));
  EXPECT_TRUE(publish("b", kHost, mounted()));
  EXPECT_EQ(publish("c", kHost, mounted()).error().error.code, Code::kResourceExhausted);
  EXPECT_TRUE(publish("b", kHost, mounted()));
}

// ---- What there is

TEST_F(ControllerTest, ListsInPages) {
  for (const char* const name : {"a", "b", "c"}) ASSERT_TRUE(create(volume(name)));
  ASSERT_TRUE(publish("a", kHost, mounted()));
  wire::ListVolumesRequest request;
  request.set_max_entries(2);
  auto page = bed_.call<wire::ListVolumesResponse>("Controller/ListVolumes", request);
  ASSERT_TRUE(page);
  ASSERT_EQ(page->entries_size(), 2);
  EXPECT_THAT(page->entries(0).status().published_node_ids(), ElementsAre(kHost));
  request.set_starting_token(page->next_token());
  page = bed_.call<wire::ListVolumesResponse>("Controller/ListVolumes", request);
  ASSERT_EQ(page->entries_size(), 1);
  EXPECT_EQ(page->entries(0).volume().volume_id(), "c");
  EXPECT_EQ(page->next_token(), "");
  request.set_starting_token("invalid");
  page = bed_.call<wire::ListVolumesResponse>("Controller/ListVolumes", request);
  EXPECT_EQ(code_info(page.error().error.code).grpc_code, 10);  // ABORTED
}

TEST_F(ControllerTest, SnapshotsAreMadeFoundAndDeleted) {
  ASSERT_TRUE(create(volume("a")) && create(volume("b")));
  EXPECT_EQ(snapshot("s", "none").error().error.code, Code::kNotFound);
  const auto made = snapshot("s", "a");
  ASSERT_TRUE(made);
  EXPECT_EQ(made->snapshot().snapshot_id(), "s");
  EXPECT_TRUE(made->snapshot().ready_to_use());
  EXPECT_EQ(made->snapshot().creation_time().seconds(), 2);
  EXPECT_TRUE(snapshot("s", "a"));
  EXPECT_EQ(snapshot("s", "b").error().error.code, Code::kAlreadyExists);
  wire::ListSnapshotsRequest request;
  request.set_source_volume_id("b");
  EXPECT_EQ(bed_.call<wire::ListSnapshotsResponse>("Controller/ListSnapshots", request)->entries_size(), 0);
  request.set_source_volume_id("a");
  EXPECT_EQ(bed_.call<wire::ListSnapshotsResponse>("Controller/ListSnapshots", request)->entries_size(), 1);
  request.set_snapshot_id("none");
  EXPECT_EQ(bed_.call<wire::ListSnapshotsResponse>("Controller/ListSnapshots", request)->entries_size(), 0);
  wire::DeleteSnapshotRequest gone;
  for (const char* const id : {"s", "s", "No/Name"}) {
    gone.set_snapshot_id(id);
    EXPECT_TRUE(bed_.call<wire::DeleteSnapshotResponse>("Controller/DeleteSnapshot", gone)) << id;
  }
}

TEST_F(ControllerTest, GrowsAndNeverShrinks) {
  ASSERT_TRUE(create(volume("a")));
  wire::ControllerExpandVolumeRequest request;
  request.set_volume_id("a");
  const auto expand = [&] {
    return bed_.call<wire::ControllerExpandVolumeResponse>("Controller/ControllerExpandVolume", request);
  };
  EXPECT_EQ(expand().error().error.code, Code::kInvalidArgument);
  request.mutable_capacity_range()->set_required_bytes(128 * kMib + 1);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(expand()->capacity_bytes(), 128 * kMib + 4096);
  EXPECT_TRUE(expand()->node_expansion_required());
  request.mutable_capacity_range()->set_required_bytes(1);
  EXPECT_EQ(expand()->capacity_bytes(), 128 * kMib + 4096);
  request.mutable_capacity_range()->set_limit_bytes(kMib);
  EXPECT_EQ(expand().error().error.code, Code::kOutOfRange);
}

TEST_F(ControllerTest, ChangesWhatMayBeChanged) {
  ASSERT_TRUE(create(volume("a")));
  wire::ControllerModifyVolumeRequest request;
  request.set_volume_id("a");
  (*request.mutable_mutable_parameters())["replicas"] = "3";
  (*request.mutable_mutable_parameters())["snapshotLimit"] = "5";
  (*request.mutable_mutable_parameters())["resyncShare"] = "20";
  EXPECT_TRUE(bed_.call<wire::ControllerModifyVolumeResponse>("Controller/ControllerModifyVolume", request));
  EXPECT_EQ(kept("a")["spec"]["replicas"], 3);
  EXPECT_EQ(kept("a")["spec"]["snapshot_limit"], 5);
  EXPECT_EQ(kept("a")["spec"]["resync_share"], 20);
  (*request.mutable_mutable_parameters())["thin"] = "true";
  EXPECT_EQ(
      bed_.call<wire::ControllerModifyVolumeResponse>("Controller/ControllerModifyVolume", request).error().error.code,
      Code::kInvalidArgument);
}

TEST_F(ControllerTest, CapacityCountsNodesApart) {
  const auto add = [&](const std::string& node, uint64_t free) {
    cluster_.all["nodes"][node] = {{"name", node}, {"status", {{"state", "ready"}}}};
    cluster_.all["pools"]["p" + node] = {
        {"name", "p" + node}, {"spec", {{"node", node}}}, {"status", {{"state", "online"}, {"free_bytes", free}}}};
  };
  add("a", 100 * kMib);
  add("b", 60 * kMib);
  add("c", 10 * kMib);
  wire::GetCapacityRequest request;
  const auto capacity = [&](const char* replicas) {
    (*request.mutable_parameters())["replicas"] = replicas;
    return *bed_.call<wire::GetCapacityResponse>("Controller/GetCapacity", request);
  };
  EXPECT_EQ(capacity("1").available_capacity(), 170 * kMib);
  EXPECT_EQ(capacity("1").maximum_volume_size().value(), 100 * kMib);
  EXPECT_EQ(capacity("2").available_capacity(), 70 * kMib);
  EXPECT_EQ(capacity("2").maximum_volume_size().value(), 60 * kMib);
  EXPECT_EQ(capacity("3").available_capacity(), 10 * kMib);
  EXPECT_EQ(capacity("4").available_capacity(), 0);
}

// ---- Groups

TEST_F(ControllerTest, SnapshotsOfAGroupAreOneThing) {
  for (const char* const name : {"a", "b", "c"}) ASSERT_TRUE(create(volume(name)));
  wire::CreateVolumeGroupSnapshotRequest request;
  using Reply = wire::CreateVolumeGroupSnapshotResponse;
  const auto make = [&] { return bed_.call<Reply>("GroupController/CreateVolumeGroupSnapshot", request); };
  EXPECT_EQ(make().error().error.code, Code::kInvalidArgument);
  request.set_name("monday");
  EXPECT_EQ(make().error().error.code, Code::kInvalidArgument);
  request.add_source_volume_ids("b");
  request.add_source_volume_ids("none");
  EXPECT_EQ(make().error().error.code, Code::kNotFound);
  request.set_source_volume_ids(1, "a");
  for (int i = 0; i < 2; ++i) {
    const auto made = make();
    ASSERT_TRUE(made) << to_string(made.error());
    EXPECT_EQ(made->group_snapshot().group_snapshot_id(), "monday");
    EXPECT_TRUE(made->group_snapshot().ready_to_use());
    EXPECT_EQ(made->group_snapshot().creation_time().seconds(), 2);
    ASSERT_EQ(made->group_snapshot().snapshots_size(), 2);
    const wire::Snapshot& second = made->group_snapshot().snapshots(1);
    EXPECT_EQ(second.snapshot_id(), "monday-2");
    EXPECT_EQ(second.source_volume_id(), "b");
    EXPECT_EQ(second.group_snapshot_id(), "monday");
    EXPECT_EQ(second.size_bytes(), 64 * kMib);
  }
  request.add_source_volume_ids("c");
  EXPECT_EQ(make().error().error.code, Code::kAlreadyExists);
  (*request.mutable_parameters())["colour"] = "red";
  EXPECT_EQ(make().error().error.code, Code::kInvalidArgument);

  wire::GetSnapshotRequest one;
  one.set_snapshot_id("monday-1");
  const auto found = bed_.call<wire::GetSnapshotResponse>("Controller/GetSnapshot", one);
  EXPECT_EQ(found->snapshot().group_snapshot_id(), "monday");
  wire::DeleteSnapshotRequest alone;
  alone.set_snapshot_id("monday-1");
  EXPECT_EQ(bed_.call<wire::DeleteSnapshotResponse>("Controller/DeleteSnapshot", alone).error().error.code,
            Code::kInvalidArgument);
}

TEST_F(ControllerTest, GroupsAreFoundAndDeleted) {
  for (const char* const name : {"a", "b"}) ASSERT_TRUE(create(volume(name)));
  wire::CreateVolumeGroupSnapshotRequest make;
  make.set_name(std::string(128, 'g'));
  make.add_source_volume_ids("a");
  make.add_source_volume_ids("b");
  const auto made =
      bed_.call<wire::CreateVolumeGroupSnapshotResponse>("GroupController/CreateVolumeGroupSnapshot", make);
  ASSERT_TRUE(made) << to_string(made.error());
  const std::string id = made->group_snapshot().group_snapshot_id();
  EXPECT_LE(id.size(), 60U);
  wire::GetVolumeGroupSnapshotRequest get;
  const auto look = [&] {
    return bed_.call<wire::GetVolumeGroupSnapshotResponse>("GroupController/GetVolumeGroupSnapshot", get);
  };
  EXPECT_EQ(look().error().error.code, Code::kInvalidArgument);
  get.set_group_snapshot_id("none");
  EXPECT_EQ(look().error().error.code, Code::kNotFound);
  get.set_group_snapshot_id(id);
  EXPECT_EQ(look()->group_snapshot().snapshots_size(), 2);
  get.add_snapshot_ids(id + "-2");
  EXPECT_EQ(look().error().error.code, Code::kInvalidArgument);
  get.add_snapshot_ids(id + "-1");
  EXPECT_TRUE(look());

  wire::DeleteVolumeGroupSnapshotRequest gone;
  const auto remove = [&] {
    return bed_.call<wire::DeleteVolumeGroupSnapshotResponse>("GroupController/DeleteVolumeGroupSnapshot", gone);
  };
  EXPECT_EQ(remove().error().error.code, Code::kInvalidArgument);
  gone.set_group_snapshot_id(id);
  gone.add_snapshot_ids("other");
  EXPECT_EQ(remove().error().error.code, Code::kInvalidArgument);
  gone.clear_snapshot_ids();
  EXPECT_TRUE(remove());
  EXPECT_TRUE(remove());
  EXPECT_TRUE(cluster_.all["snapshots"].empty());
}

// ---- Health

class ControllerHealthTest : public ControllerTest {
 protected:
  ControllerHealthTest() : telling_(bed_.reactor(), cluster_, {.has_volume_health = true}) { telling_.add_to(told_); }

  template <typename Reply, typename Request>
  Outcome<Reply> ask(const std::string& method, const Request& request) {
    std::swap(bed_.service, told_);
    Outcome<Reply> reply = bed_.call<Reply>("Controller/" + method, request);
    std::swap(bed_.service, told_);
    return reply;
  }
  void show(const std::string& name, const char* state, const char* type, const char* reason, const char* message) {
    Json& status = cluster_.all["volumes"][name]["status"];
    status["state"] = state;
    status["conditions"] = {{{"type", type}, {"met", false}, {"reason", reason}, {"message", message}}};
    status["replicas"] = {{{"pool", "p1"}}, {{"pool", "p2"}}};
  }
  // "STATUS REASON" of each.
  std::vector<std::string> health(const std::string& id) {
    wire::ControllerGetVolumeHealthRequest request;
    request.set_volume_id(id);
    const auto reply = ask<wire::ControllerGetVolumeHealthResponse>("ControllerGetVolumeHealth", request);
    if (!reply) return {to_string(reply.error())};
    EXPECT_EQ(reply->volume_health().volume_id(), id);
    std::vector<std::string> all;
    for (const auto& entry : reply->volume_health().health_statuses()) {
      EXPECT_NE(entry.message(), "");
      all.push_back(wire::VolumeHealthErrorType_Name(entry.status()) + " " + entry.reason());
    }
    return all;
  }

  Controller telling_;
  rpc::Service told_;
};

TEST_F(ControllerHealthTest, IsToldOnlyWhenItIsAskedFor) {
  const auto types = [](const wire::ControllerGetCapabilitiesResponse& reply) {
    std::vector<int> all;
    for (const auto& capability : reply.capabilities()) all.push_back(capability.rpc().type());
    return all;
  };
  const wire::ControllerGetCapabilitiesRequest nothing;
  using Reply = wire::ControllerGetCapabilitiesResponse;
  const std::vector<int> silent = types(*bed_.call<Reply>("Controller/ControllerGetCapabilities", nothing));
  EXPECT_THAT(silent, testing::Not(testing::Contains(16)));
  EXPECT_THAT(silent, testing::Not(testing::Contains(17)));
  const std::vector<int> telling = types(*ask<Reply>("ControllerGetCapabilities", nothing));
  EXPECT_THAT(telling, testing::IsSupersetOf({16, 17}));
  const auto refused = bed_.call<wire::ControllerListVolumeHealthResponse>("Controller/ControllerListVolumeHealth",
                                                                           wire::ControllerListVolumeHealthRequest());
  EXPECT_EQ(refused.error().error.code, Code::kNotSupported);
}

TEST_F(ControllerHealthTest, SaysWhatIsWrong) {
  ASSERT_TRUE(create(volume("a")));
  EXPECT_TRUE(health("a").empty());
  show("a", "degraded", "Redundant", "Resyncing", "the one on b is brought up to date");
  EXPECT_THAT(health("a"), ElementsAre("DEGRADED Resyncing"));
  show("a", "unavailable", "Available", "Suspended", "too few replicas can be asked");
  EXPECT_THAT(health("a"), ElementsAre("INACCESSIBLE Suspended"));
  show("a", "unavailable", "Available", "Unknown", "nothing was heard of node a yet");
  EXPECT_TRUE(health("a").empty());
  // As long as one pool may come back, nothing is lost.
  show("a", "unavailable", "Available", "Suspended", "too few replicas can be asked");
  cluster_.all["pools"]["p1"] = {{"name", "p1"}, {"status", {{"state", "failed"}}}};
  cluster_.all["pools"]["p2"] = {{"name", "p2"}, {"status", {{"state", "unknown"}}}};
  EXPECT_THAT(health("a"), ElementsAre("INACCESSIBLE Suspended"));
  cluster_.all["pools"]["p2"]["status"]["state"] = "failed";
  EXPECT_THAT(health("a"), ElementsAre("INACCESSIBLE Suspended", "DATA_LOSS NoReplicaLeft"));
  EXPECT_THAT(health("none"), ElementsAre(HasSubstr("none")));
}

TEST_F(ControllerHealthTest, ListsThoseWithTroubleInPages) {
  for (const char* const name : {"a", "b", "c", "d", "e"}) ASSERT_TRUE(create(volume(name)));
  for (const char* const name : {"b", "d", "e"}) show(name, "degraded", "Redundant", "Degraded", "one is away");
  wire::ControllerListVolumeHealthRequest request;
  const auto names = [&] {
    const auto page = ask<wire::ControllerListVolumeHealthResponse>("ControllerListVolumeHealth", request);
    std::vector<std::string> all;
    for (const auto& entry : page->entries()) all.push_back(entry.volume_id());
    request.set_starting_token(page->next_token());
    return all;
  };
  EXPECT_THAT(names(), ElementsAre("b", "d", "e"));
  EXPECT_EQ(request.starting_token(), "");
  request.set_max_entries(2);
  EXPECT_THAT(names(), ElementsAre("b", "d"));
  EXPECT_THAT(names(), ElementsAre("e"));
  EXPECT_EQ(request.starting_token(), "");
  request.set_starting_token("invalid");
  const auto refused = ask<wire::ControllerListVolumeHealthResponse>("ControllerListVolumeHealth", request);
  EXPECT_EQ(refused.error().error.code, Code::kMiscompare);
}

TEST_F(ControllerTest, ValidatesWithWords) {
  ASSERT_TRUE(create(volume("a")));
  wire::ValidateVolumeCapabilitiesRequest request;
  request.set_volume_id("a");
  const auto validate = [&] {
    return bed_.call<wire::ValidateVolumeCapabilitiesResponse>("Controller/ValidateVolumeCapabilities", request);
  };
  EXPECT_EQ(validate().error().error.code, Code::kInvalidArgument);
  *request.add_volume_capabilities() = raw();
  (*request.mutable_parameters())["repl"] = "2";
  EXPECT_TRUE(validate()->has_confirmed());
  EXPECT_EQ(validate()->confirmed().parameters().size(), 1U);
  *request.add_volume_capabilities() = mounted(Mode::MULTI_NODE_SINGLE_WRITER);
  EXPECT_FALSE(validate()->has_confirmed());
  EXPECT_THAT(validate()->message(), HasSubstr("one machine"));
  request.set_volume_id("none");
  EXPECT_EQ(validate().error().error.code, Code::kNotFound);
}

}  // namespace
}  // namespace fairlead::csi
