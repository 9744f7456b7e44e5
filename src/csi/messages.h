// The messages of the Container Storage Interface (api/csi/v1/csi.proto), named and not defined: what headers here
// need. Whoever works with them includes <api/csi/v1/csi.pb.h>.
#pragma once

namespace csi::v1 {
class CreateSnapshotRequest;
class CreateSnapshotResponse;
class CreateVolumeGroupSnapshotRequest;
class CreateVolumeGroupSnapshotResponse;
class CreateVolumeRequest;
class CreateVolumeResponse;
class ControllerExpandVolumeRequest;
class ControllerExpandVolumeResponse;
class ControllerGetCapabilitiesRequest;
class ControllerGetCapabilitiesResponse;
class ControllerGetVolumeHealthRequest;
class ControllerGetVolumeHealthResponse;
class ControllerGetVolumeRequest;
class ControllerGetVolumeResponse;
class ControllerListVolumeHealthRequest;
class ControllerListVolumeHealthResponse;
class ControllerModifyVolumeRequest;
class ControllerModifyVolumeResponse;
class ControllerPublishVolumeRequest;
class ControllerPublishVolumeResponse;
class ControllerUnpublishVolumeRequest;
class ControllerUnpublishVolumeResponse;
class DeleteSnapshotRequest;
class DeleteSnapshotResponse;
class DeleteVolumeGroupSnapshotRequest;
class DeleteVolumeGroupSnapshotResponse;
class DeleteVolumeRequest;
class DeleteVolumeResponse;
class GetCapacityRequest;
class GetCapacityResponse;
class GetPluginCapabilitiesRequest;
class GetPluginCapabilitiesResponse;
class GetPluginInfoRequest;
class GetPluginInfoResponse;
class GetSnapshotRequest;
class GetSnapshotResponse;
class GetVolumeGroupSnapshotRequest;
class GetVolumeGroupSnapshotResponse;
class GroupControllerGetCapabilitiesRequest;
class GroupControllerGetCapabilitiesResponse;
class ListSnapshotsRequest;
class ListSnapshotsResponse;
class ListVolumesRequest;
class ListVolumesResponse;
class NodeExpandVolumeRequest;
class NodeExpandVolumeResponse;
class NodeGetCapabilitiesRequest;
class NodeGetCapabilitiesResponse;
class NodeGetInfoRequest;
class NodeGetInfoResponse;
class NodeGetStorageHealthRequest;
class NodeGetStorageHealthResponse;
class NodeGetVolumeHealthRequest;
class NodeGetVolumeHealthResponse;
class NodeGetVolumeStatsRequest;
class NodeGetVolumeStatsResponse;
class NodePublishVolumeRequest;
class NodePublishVolumeResponse;
class NodeStageVolumeRequest;
class NodeStageVolumeResponse;
class NodeUnpublishVolumeRequest;
class NodeUnpublishVolumeResponse;
class NodeUnstageVolumeRequest;
class NodeUnstageVolumeResponse;
class ProbeRequest;
class ProbeResponse;
class Snapshot;
class ValidateVolumeCapabilitiesRequest;
class ValidateVolumeCapabilitiesResponse;
class Volume;
class VolumeCapability;
class VolumeCondition;
class VolumeGroupSnapshot;
class VolumeHealth;
}  // namespace csi::v1

namespace fairlead::csi {
namespace wire = ::csi::v1;
}  // namespace fairlead::csi
