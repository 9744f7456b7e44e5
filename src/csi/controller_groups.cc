// Snapshots of several volumes at one moment.
#include <algorithm>
#include <api/csi/v1/csi.pb.h>
#include <fmt/format.h>

#include "control/resources.h"
#include "control/rest_client.h"
#include "csi/controller.h"
#include "csi/documents.h"
#include "csi/names.h"

namespace fairlead::csi {
namespace {

using control::field;
using control::text_of;

constexpr const char* kGroups = "snapshot-groups";

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

template <typename Texts>
std::vector<std::string> sorted(const Texts& texts) {
  std::vector<std::string> all(texts.begin(), texts.end());
  std::ranges::sort(all);
  return all;
}

bool is_taken(const Json& group, uint64_t) { return text_of(group, "status.state") == "ready"; }

// Snapshots that the orchestrator takes for the group's are all of it, or none are named.
template <typename Ids>
Outcome<void> check_members(const Json& group, const Ids& ids) {
  std::vector<std::string> members;
  for (const Json& snapshot : field(group, "status.snapshots")) members.push_back(text_of(snapshot, "name"));
  if (ids.empty() || sorted(ids) == sorted(members)) return {};
  return refuse(Code::kInvalidArgument, "snapshot_ids: are not those of group {}", text_of(group, "name"));
}

}  // namespace

void Controller::add_groups_to(rpc::Service& service) {
  service.add("/csi.v1.GroupController/GroupControllerGetCapabilities", *this, &Controller::group_capabilities);
  service.add("/csi.v1.GroupController/CreateVolumeGroupSnapshot", *this, &Controller::create_group);
  service.add("/csi.v1.GroupController/DeleteVolumeGroupSnapshot", *this, &Controller::delete_group);
  service.add("/csi.v1.GroupController/GetVolumeGroupSnapshot", *this, &Controller::get_group);
}

Controller::Answer<wire::GroupControllerGetCapabilitiesResponse> Controller::group_capabilities(
    wire::GroupControllerGetCapabilitiesRequest) {
  using Rpc = wire::GroupControllerServiceCapability::RPC;
  wire::GroupControllerGetCapabilitiesResponse reply;
  reply.add_capabilities()->mutable_rpc()->set_type(Rpc::CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT);
  co_return reply;
}

Task<Outcome<Json>> Controller::find_group(std::string id) {
  if (id.empty()) co_return refuse(Code::kInvalidArgument, "group_snapshot_id: is missing");
  if (!control::check_name("id", id)) co_return refuse(Code::kNotFound, "there is no snapshot group {}", id);
  FL_CO_TRY(Json found, co_await cluster_.get(kGroups, id));
  if (is_deleting(found)) co_return refuse(Code::kNotFound, "snapshot group {} is being deleted", id);
  co_return found;
}

Controller::Answer<wire::CreateVolumeGroupSnapshotResponse> Controller::create_group(
    wire::CreateVolumeGroupSnapshotRequest request) {
  FL_CO_TRY(const std::string name, group_name(request.name()));
  const std::vector<std::string> volumes = sorted(request.source_volume_ids());
  if (volumes.empty()) co_return refuse(Code::kInvalidArgument, "source_volume_ids: are missing");
  FL_CO_TRY_VOID(check_group_parameters({request.parameters().begin(), request.parameters().end()}));
  const auto turn = busy_.begin(fmt::format("{}/{}", kGroups, name));
  if (!turn) co_return try_again(fmt::format("snapshot group {} is being worked on already", name));
  const Outcome<Json> there = co_await cluster_.get(kGroups, name);
  if (there) {
    if (is_deleting(*there)) co_return try_again(fmt::format("snapshot group {} is being deleted", name));
    if (field(*there, "spec.volumes") != Json(volumes)) {
      co_return refuse(Code::kAlreadyExists, "there is a snapshot group {} already, of other volumes", name);
    }
  } else if (there.error().error.code != Code::kNotFound) {
    co_return std::unexpected(there.error());
  } else {
    for (const std::string& volume : volumes) FL_CO_TRY_VOID(co_await find("volumes", volume));
    Json document = {{"name", name}, {"labels", {{kLabelOrigin, kOrigin}}}, {"spec", {{"volumes", volumes}}}};
    FL_CO_TRY_VOID(co_await cluster_.create(kGroups, std::move(document)));
  }
  FL_CO_TRY(const Json group, co_await settle(kGroups, name, is_taken, 0));
  wire::CreateVolumeGroupSnapshotResponse reply;
  fill(group, *reply.mutable_group_snapshot());
  co_return reply;
}

Controller::Answer<wire::GetVolumeGroupSnapshotResponse> Controller::get_group(
    wire::GetVolumeGroupSnapshotRequest request) {
  FL_CO_TRY(const Json group, co_await find_group(request.group_snapshot_id()));
  FL_CO_TRY_VOID(check_members(group, request.snapshot_ids()));
  wire::GetVolumeGroupSnapshotResponse reply;
  fill(group, *reply.mutable_group_snapshot());
  co_return reply;
}

Controller::Answer<wire::DeleteVolumeGroupSnapshotResponse> Controller::delete_group(
    wire::DeleteVolumeGroupSnapshotRequest request) {
  const std::string& id = request.group_snapshot_id();
  const auto turn = busy_.begin(fmt::format("{}/{}", kGroups, id));
  if (!turn) co_return try_again(fmt::format("snapshot group {} is being worked on already", id));
  const Outcome<Json> group = co_await find_group(id);
  if (group) {
    FL_CO_TRY_VOID(check_members(*group, request.snapshot_ids()));
  } else if (group.error().error.code != Code::kNotFound) {
    co_return std::unexpected(group.error());
  }
  if (control::check_name("id", id)) FL_CO_TRY_VOID(co_await remove(kGroups, id));
  co_return wire::DeleteVolumeGroupSnapshotResponse();
}

}  // namespace fairlead::csi
