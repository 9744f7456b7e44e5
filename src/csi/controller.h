// Controller: the services Controller and GroupController, in terms of the control plane's documents. Lives on one
// shard.
//
// Every call may be repeated, and means the same again. One that finds another at work on the same volume or snapshot,
// or that waits for the cluster longer than `settle_limit`, is refused by kMiscompare (ABORTED) and is to be repeated.
// Errors of the control plane pass through.
#pragma once

#include <set>
#include <string>

#include "async/reactor.h"
#include "async/task.h"
#include "async/time.h"
#include "csi/busy.h"
#include "csi/cluster_api.h"
#include "csi/messages.h"
#include "csi/parameters.h"
#include "rpc/service.h"

namespace fairlead::csi {

struct ControllerOptions {
  Duration settle_limit = std::chrono::seconds(20);
  Duration freeze_limit = std::chrono::seconds(12);  // how long an answer of the host that has it mounted is waited for
  uint64_t volumes_per_node_max = 0;                 // 0: as many as are asked for
  bool has_volume_health = false;                    // the calls of CSI 1.13 that tell what is wrong
};

struct NewVolume;  // what one is to be

class Controller {
 public:
  // `cluster` is borrowed for life.
  Controller(Reactor& home, ClusterApi& cluster, ControllerOptions options)
      : home_(home), cluster_(cluster), options_(options) {}

  // Requires: this outlives `service`.
  void add_to(rpc::Service& service);

 private:
  template <typename Reply>
  using Answer = Task<Outcome<Reply>>;

  Answer<wire::ControllerGetCapabilitiesResponse> capabilities(wire::ControllerGetCapabilitiesRequest request);
  Answer<wire::CreateVolumeResponse> create_volume(wire::CreateVolumeRequest request);
  Answer<wire::DeleteVolumeResponse> delete_volume(wire::DeleteVolumeRequest request);
  Answer<wire::ControllerPublishVolumeResponse> publish(wire::ControllerPublishVolumeRequest request);
  Answer<wire::ControllerUnpublishVolumeResponse> unpublish(wire::ControllerUnpublishVolumeRequest request);
  Answer<wire::ValidateVolumeCapabilitiesResponse> validate(wire::ValidateVolumeCapabilitiesRequest request);
  Answer<wire::ListVolumesResponse> list_volumes(wire::ListVolumesRequest request);
  Answer<wire::ControllerGetVolumeResponse> get_volume(wire::ControllerGetVolumeRequest request);
  Answer<wire::GetCapacityResponse> capacity(wire::GetCapacityRequest request);
  Answer<wire::ControllerExpandVolumeResponse> expand(wire::ControllerExpandVolumeRequest request);
  Answer<wire::ControllerModifyVolumeResponse> modify(wire::ControllerModifyVolumeRequest request);
  Answer<wire::CreateSnapshotResponse> create_snapshot(wire::CreateSnapshotRequest request);
  Answer<wire::DeleteSnapshotResponse> delete_snapshot(wire::DeleteSnapshotRequest request);
  Answer<wire::ListSnapshotsResponse> list_snapshots(wire::ListSnapshotsRequest request);
  Answer<wire::GetSnapshotResponse> get_snapshot(wire::GetSnapshotRequest request);
  Answer<wire::ControllerListVolumeHealthResponse> list_volume_health(wire::ControllerListVolumeHealthRequest request);
  Answer<wire::ControllerGetVolumeHealthResponse> get_volume_health(wire::ControllerGetVolumeHealthRequest request);
  void add_health_to(rpc::Service& service);
  Answer<wire::GroupControllerGetCapabilitiesResponse> group_capabilities(
      wire::GroupControllerGetCapabilitiesRequest request);
  Answer<wire::CreateVolumeGroupSnapshotResponse> create_group(wire::CreateVolumeGroupSnapshotRequest request);
  Answer<wire::DeleteVolumeGroupSnapshotResponse> delete_group(wire::DeleteVolumeGroupSnapshotRequest request);
  Answer<wire::GetVolumeGroupSnapshotResponse> get_group(wire::GetVolumeGroupSnapshotRequest request);
  void add_groups_to(rpc::Service& service);

  // One of the cluster that is not being deleted. Errors: kInvalidArgument (no id), kNotFound.
  Task<Outcome<Json>> find(std::string kind, std::string id);
  Task<Outcome<Json>> find_group(std::string id);
  // The document, as soon as `is_done` says so. Errors: kNotFound, kMiscompare (it takes too long).
  Task<Outcome<Json>> settle(std::string kind, std::string name, bool (*is_done)(const Json&, uint64_t), uint64_t goal);
  // Deletes and waits until it is gone.
  Task<Outcome<void>> remove(std::string kind, std::string name);

  Task<Outcome<void>> find_source(NewVolume& plan);
  // The volume, made of its source; when there is no room for it, it is taken away again. Error kResourceExhausted.
  Task<Outcome<Json>> make(NewVolume& plan);
  // Snapshots of `volume` that clones were made through.
  Task<Outcome<void>> drop_clone_snapshots(std::string volume);
  Task<Outcome<void>> check_node_has_room(std::string host);
  // Errors: kAlreadyExists, kBusy (another machine has it).
  Task<Outcome<Json>> publish_to(std::string volume, std::string host, std::string publication);
  Task<Outcome<void>> unpublish_from(std::string volume, std::string host);
  // Their names.
  Task<Outcome<std::set<std::string>>> failed_pools();

  // Asks for it, so that it comes to be.
  Task<Outcome<void>> take(std::string name, std::string volume, Quiesce quiesce);
  // Has the host that writes to the volume's file system keep it still. The request that it answered; empty: there is
  // no such host. Error kTimedOut: it does not answer.
  Task<Outcome<std::string>> freeze(std::string volume, std::string snapshot);
  // Error kTimedOut: it does not say that it was still until now.
  Task<Outcome<void>> thaw(std::string volume, std::string request);
  // While it is still. It is there and settled then, or worth nothing.
  Task<Outcome<void>> take_still(std::string name, std::string volume, std::string request);
  // A snapshot that was begun for this request and is worth nothing.
  Task<Outcome<void>> drop_unsettled(std::string name, std::string request);
  Task<Outcome<void>> await_frozen(std::string volume, std::string label);

  Reactor& home_;
  ClusterApi& cluster_;
  const ControllerOptions options_;
  Busy busy_;
};

}  // namespace fairlead::csi
