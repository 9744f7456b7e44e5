// Node: the service of that name: brings volumes to this machine, and takes them away. Lives on one shard.
//
// Every call may be repeated, and goes on where an earlier one ended, at whatever step: each step looks first whether
// it is done. One that finds another at work on the same volume is refused by kMiscompare (ABORTED) and is to be
// repeated. While a volume is here, its connections follow the paths that the control plane tells of.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "async/cancel.h"
#include "async/event.h"
#include "async/reactor.h"
#include "async/scope.h"
#include "async/task.h"
#include "async/time.h"
#include "csi/busy.h"
#include "csi/cluster_api.h"
#include "csi/freezer.h"
#include "csi/machine.h"
#include "csi/messages.h"
#include "csi/node_records.h"
#include "rpc/service.h"

namespace fairlead::csi {

struct NodeOptions {
  std::string node;                             // its name
  std::string host_nqn;                         // that it connects with, and is known by
  std::string host_id;                          // a UUID
  std::map<std::string, std::string> topology;  // besides topology.fairlead.dev/node
  uint32_t io_queues = 0;                       // of a connection, where a class says nothing; 0: the kernel's choice
  uint64_t volumes_max = 0;                     // 0: the orchestrator decides
  bool has_volume_health = false;               // the calls of CSI 1.13 that tell what is wrong
  Duration follow_interval = std::chrono::seconds(3);
  Duration freeze_limit = std::chrono::seconds(10);  // how long a file system is kept still for a snapshot at most
  Duration device_limit = std::chrono::seconds(20);  // how long a call waits for a device, or for it to have grown
};

class Node {
 public:
  // All but `options` is borrowed for life. Requires: `records` was loaded.
  Node(Reactor& home, Machine& machine, ClusterApi& cluster, NodeRecords& records, NodeOptions options);

  // Requires: this outlives `service`.
  void add_to(rpc::Service& service);

  // Follows paths until stop(). When it ends, nothing is frozen.
  Task<void> run();
  void stop() {
    stopping_.cancel();
    freezer_.stop();
  }
  // One look at all volumes that are here.
  Task<void> follow();

 private:
  template <typename Reply>
  using Answer = Task<Outcome<Reply>>;
  struct Staging;  // what NodeStageVolume asks for

  Answer<wire::NodeStageVolumeResponse> stage(wire::NodeStageVolumeRequest request);
  Answer<wire::NodeUnstageVolumeResponse> unstage(wire::NodeUnstageVolumeRequest request);
  Answer<wire::NodePublishVolumeResponse> publish(wire::NodePublishVolumeRequest request);
  Answer<wire::NodeUnpublishVolumeResponse> unpublish(wire::NodeUnpublishVolumeRequest request);
  Answer<wire::NodeGetVolumeStatsResponse> stats(wire::NodeGetVolumeStatsRequest request);
  Answer<wire::NodeExpandVolumeResponse> expand(wire::NodeExpandVolumeRequest request);
  Answer<wire::NodeGetCapabilitiesResponse> capabilities(wire::NodeGetCapabilitiesRequest request);
  Answer<wire::NodeGetInfoResponse> info(wire::NodeGetInfoRequest request);
  Answer<wire::NodeGetVolumeHealthResponse> volume_health(wire::NodeGetVolumeHealthRequest request);
  Answer<wire::NodeGetStorageHealthResponse> storage_health(wire::NodeGetStorageHealthRequest request);
  void add_health_to(rpc::Service& service);

  static Outcome<Staging> staging_of(const wire::NodeStageVolumeRequest& request);
  Outcome<void> check_free(const std::string& path, const std::string& volume) const;
  Task<Outcome<void>> bring(Staging& staging);
  // Makes the connections that are missing, and takes away those to nowhere. Error: not one could be made.
  Task<Outcome<void>> connect(NodeRecord record, std::vector<std::string> addresses);
  Task<Outcome<std::string>> wait_for_device(std::string nqn);
  // Makes a file system where there is nothing, and none where there is something.
  Task<Outcome<void>> prepare(Staging& staging, std::string device);
  Task<Outcome<void>> mount_staged(Staging& staging, std::string device);
  Task<Outcome<void>> unmount_all(std::string target);
  Task<Outcome<bool>> is_mounted(std::string target);
  // The device of a volume that is staged. Error kNotFound.
  Task<Outcome<std::string>> device_of(std::string volume);
  Task<void> follow_one(std::string volume);
  // As Busy::begin(), but waits while it is only followed; and what was left frozen is thawed.
  Task<std::optional<Busy::Turn>> begin(std::string volume);

  Reactor& home_;
  Machine& machine_;
  ClusterApi& cluster_;
  NodeRecords& records_;
  const NodeOptions options_;
  Busy busy_;
  Freezer freezer_;
  std::string following_;  // the volume that is looked at now; empty: none
  Event followed_;
  CancelSource stopping_;
};

}  // namespace fairlead::csi
