// What is wrong with volumes, and with the ways to them, as this machine sees it (CSI 1.13).
#include <algorithm>
#include <api/csi/v1/csi.pb.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>

#include "control/json.h"
#include "csi/documents.h"
#include "csi/node.h"

namespace fairlead::csi {
namespace {

void add(wire::VolumeHealth& health, wire::VolumeHealthErrorType status, const char* reason, std::string message) {
  wire::VolumeHealth::VolumeHealthEntry& entry = *health.add_health_statuses();
  entry.set_status(status);
  entry.set_reason(reason);
  entry.set_message(std::move(message));
}

void add(wire::NodeGetStorageHealthResponse& reply, wire::StorageHealthErrorType status, const char* reason,
         std::string message) {
  wire::NodeGetStorageHealthResponse::StorageBackendHealth& entry = *reply.add_backend_health();
  entry.set_status(status);
  entry.set_reason(reason);
  entry.set_message(std::move(message));
}

std::set<std::string> live_addresses(const Attachment& attachment) {
  std::set<std::string> live;
  for (const Connection& connection : attachment.connections) {
    if (connection.is_live) live.insert(connection.address);
  }
  return live;
}

}  // namespace

void Node::add_health_to(rpc::Service& service) {
  service.add("/csi.v1.Node/NodeGetVolumeHealth", *this, &Node::volume_health);
  service.add("/csi.v1.Node/NodeGetStorageHealth", *this, &Node::storage_health);
}

Node::Answer<wire::NodeGetVolumeHealthResponse> Node::volume_health(wire::NodeGetVolumeHealthRequest request) {
  const std::string& volume = request.volume_id();
  if (volume.empty()) co_return problem(Code::kInvalidArgument, "volume_id: is missing");
  const NodeRecord* const found = records_.find(volume);
  if (found == nullptr || found->staging_path.empty()) {
    co_return problem(Code::kNotFound, fmt::format("volume {} is not staged on this machine", volume));
  }
  const NodeRecord record = *found;
  wire::NodeGetVolumeHealthResponse reply;
  wire::VolumeHealth& health = *reply.mutable_volume_health();
  health.set_volume_id(volume);
  FL_CO_TRY(const Attachment attachment, co_await machine_.find(record.nqn));
  const std::set<std::string> live = live_addresses(attachment);
  if (live.empty()) {
    add(health, wire::INACCESSIBLE, "NoPath", "this machine is connected to none of the nodes that could serve it");
  }
  if (attachment.device.empty()) {
    add(health, wire::INACCESSIBLE, "DeviceGone", "this machine shows no device of it");
  } else if (!record.fs_type.empty()) {
    FL_CO_TRY(const bool is_staged, co_await is_mounted(record.staging_path));
    if (!is_staged) {
      add(health, wire::INACCESSIBLE, "NotMounted", fmt::format("it is not mounted at {}", record.staging_path));
    }
  }
  // Paths that were never made are known to the control plane only; when it is silent, those that are lost remain.
  std::set<std::string> wanted;
  for (const Connection& connection : attachment.connections) wanted.insert(connection.address);
  if (const Outcome<Json> document = co_await cluster_.get("volumes", volume)) {
    const std::vector<std::string> addresses = path_addresses(*document);
    if (!addresses.empty()) wanted = {addresses.begin(), addresses.end()};
  }
  std::vector<std::string> lost;
  std::ranges::set_difference(wanted, live, std::back_inserter(lost));
  if (!live.empty() && !lost.empty()) {
    add(health, wire::DEGRADED, "PathLost", fmt::format("not connected to {}", fmt::join(lost, ", ")));
  }
  co_return reply;
}

Node::Answer<wire::NodeGetStorageHealthResponse> Node::storage_health(wire::NodeGetStorageHealthRequest) {
  wire::NodeGetStorageHealthResponse reply;
  if (const Outcome<void> checked = co_await machine_.check_host(); !checked) {
    add(reply, wire::STORAGE_UNREACHABLE, "HostNotReady", to_string(checked.error()));
    co_return reply;
  }
  // A node of the cluster is away, for this machine, when no connection to it works.
  std::set<std::string> tried;
  std::set<std::string> live;
  for (const std::string& volume : records_.volumes()) {
    const NodeRecord* const record = records_.find(volume);
    if (record == nullptr) continue;
    const std::string nqn = record->nqn;
    FL_CO_TRY(const Attachment attachment, co_await machine_.find(nqn));
    live.merge(live_addresses(attachment));
    for (const Connection& connection : attachment.connections) tried.insert(connection.address);
  }
  std::vector<std::string> lost;
  std::ranges::set_difference(tried, live, std::back_inserter(lost));
  if (lost.empty()) co_return reply;
  std::string message = fmt::format("not connected to {}", fmt::join(lost, ", "));
  if (live.empty()) {
    add(reply, wire::STORAGE_UNREACHABLE, "NoPath", std::move(message));
  } else {
    add(reply, wire::STORAGE_DEGRADED, "PathLost", std::move(message));
  }
  co_return reply;
}

}  // namespace fairlead::csi
