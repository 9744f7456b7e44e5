// Who may use volumes, and what there is.
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
using control::number_of;
using control::text_of;

constexpr uint64_t kPageMax = 1000;
constexpr int kTriesMax = 8;  // when others change the same document

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

Outcome<std::string> check_host(const std::string& node_id) {
  if (node_id.empty()) return refuse(Code::kInvalidArgument, "node_id: is missing");
  if (!node_of_host(node_id)) {
    return refuse(Code::kNotFound, "there is no node {}: those of this plugin are called {}", node_id,
                  host_nqn("NAME"));
  }
  return node_id;
}

bool has_path(const Json& volume, uint64_t) { return is_served(volume); }

}  // namespace

// ---- Publish

Task<Outcome<void>> Controller::check_node_has_room(std::string host) {
  if (options_.volumes_per_node_max == 0) co_return Outcome<void>();
  FL_CO_TRY(const Json volumes, co_await cluster_.list("volumes", {}));
  const auto count = std::ranges::count_if(field(volumes, "items"),
                                           [&](const Json& volume) { return !publication_of(volume, host).empty(); });
  if (static_cast<uint64_t>(count) < options_.volumes_per_node_max) co_return Outcome<void>();
  co_return refuse(Code::kResourceExhausted, "{} has {} volumes, as many as are allowed", host, count);
}

Task<Outcome<Json>> Controller::publish_to(std::string id, std::string host, std::string publication) {
  for (int i = 0; i < kTriesMax; ++i) {
    FL_CO_TRY(Json volume, co_await find("volumes", id));
    const std::string before = publication_of(volume, host);
    if (before == publication) co_return volume;
    if (!before.empty()) {
      co_return refuse(Code::kAlreadyExists, "volume {} is published to {} already, in another way", id, host);
    }
    for (const std::string& other : published_hosts(volume)) {
      if (is_shared(publication) && is_shared(publication_of(volume, other))) continue;
      co_return refuse(Code::kBusy, "volume {} is published to {}, and is for one machine at a time", id, other);
    }
    FL_CO_TRY_VOID(co_await check_node_has_room(host));
    Outcome<Json> changed = co_await cluster_.update("volumes", id, publication_patch(volume, host, publication),
                                                     number_of(volume, "revision"));
    if (changed || changed.error().error.code != Code::kMiscompare) co_return changed;
  }
  co_return try_again(fmt::format("volume {} is being changed by others", id));
}

Controller::Answer<wire::ControllerPublishVolumeResponse> Controller::publish(
    wire::ControllerPublishVolumeRequest request) {
  const std::string& id = request.volume_id();
  if (id.empty()) co_return refuse(Code::kInvalidArgument, "volume_id: is missing");
  if (request.node_id().empty()) co_return refuse(Code::kInvalidArgument, "node_id: is missing");
  if (!request.has_volume_capability()) co_return refuse(Code::kInvalidArgument, "volume_capability: is missing");
  FL_CO_TRY(Use use, use_of(request.volume_capability()));
  use.is_read_only = use.is_read_only || request.readonly();
  const auto turn = busy_.begin("volumes/" + id);
  if (!turn) co_return try_again(fmt::format("volume {} is being worked on already", id));
  FL_CO_TRY_VOID(co_await find("volumes", id));
  FL_CO_TRY(const std::string host, check_host(request.node_id()));
  FL_CO_TRY_VOID(co_await publish_to(id, host, to_text(use)));
  FL_CO_TRY(const Json volume, co_await settle("volumes", id, has_path, 0));
  wire::ControllerPublishVolumeResponse reply;
  for (const auto& [key, value] : publish_context(volume)) (*reply.mutable_publish_context())[key] = value;
  if (use.is_read_only) (*reply.mutable_publish_context())["readonly"] = "true";
  co_return reply;
}

Task<Outcome<void>> Controller::unpublish_from(std::string id, std::string host) {
  for (int i = 0; i < kTriesMax; ++i) {
    const Outcome<Json> volume = co_await find("volumes", id);
    if (!volume && volume.error().error.code == Code::kNotFound) co_return Outcome<void>();
    if (!volume) co_return std::unexpected(volume.error());
    const std::vector<std::string> published = published_hosts(*volume);
    const std::string leaving = host.empty() && !published.empty() ? published.front() : host;
    if (std::ranges::find(published, leaving) == published.end()) co_return Outcome<void>();
    const Outcome<Json> changed = co_await cluster_.update("volumes", id, publication_patch(*volume, leaving, ""),
                                                           number_of(*volume, "revision"));
    if (!changed && changed.error().error.code != Code::kMiscompare) co_return std::unexpected(changed.error());
    // All machines: one after the other.
    if (changed && host.empty()) i = -1;
    if (changed && !host.empty()) co_return Outcome<void>();
  }
  co_return try_again(fmt::format("volume {} is being changed by others", id));
}

Controller::Answer<wire::ControllerUnpublishVolumeResponse> Controller::unpublish(
    wire::ControllerUnpublishVolumeRequest request) {
  const std::string& id = request.volume_id();
  if (id.empty()) co_return refuse(Code::kInvalidArgument, "volume_id: is missing");
  const auto turn = busy_.begin("volumes/" + id);
  if (!turn) co_return try_again(fmt::format("volume {} is being worked on already", id));
  FL_CO_TRY_VOID(co_await unpublish_from(id, request.node_id()));
  co_return wire::ControllerUnpublishVolumeResponse();
}

Controller::Answer<wire::ValidateVolumeCapabilitiesResponse> Controller::validate(
    wire::ValidateVolumeCapabilitiesRequest asked) {
  // Only of a constant one mutable_parameters() is the field, not a way to change `parameters`.
  const wire::ValidateVolumeCapabilitiesRequest& request = asked;
  if (!request.volume_id().empty() && request.volume_capabilities().empty()) {
    co_return refuse(Code::kInvalidArgument, "volume_capabilities: are missing");
  }
  FL_CO_TRY_VOID(co_await find("volumes", request.volume_id()));
  wire::ValidateVolumeCapabilitiesResponse reply;
  Outcome<void> good = check_uses(request.volume_capabilities());
  if (good) {
    const auto parsed = parse_parameters({request.parameters().begin(), request.parameters().end()});
    if (!parsed) good = std::unexpected(parsed.error());
  }
  if (good) {
    const auto parsed =
        parse_mutable_parameters({request.mutable_parameters().begin(), request.mutable_parameters().end()});
    if (!parsed) good = std::unexpected(parsed.error());
  }
  if (!good) {
    reply.set_message(to_string(good.error()));
    co_return reply;
  }
  auto& confirmed = *reply.mutable_confirmed();
  *confirmed.mutable_volume_context() = request.volume_context();
  *confirmed.mutable_volume_capabilities() = request.volume_capabilities();
  *confirmed.mutable_parameters() = request.parameters();
  *confirmed.mutable_mutable_parameters() = request.mutable_parameters();
  co_return reply;
}

// ---- What there is

namespace {

template <typename Status>
void fill_status(const Json& volume, Status& status) {
  for (const std::string& host : published_hosts(volume)) status.add_published_node_ids(host);
  fill(volume, *status.mutable_volume_condition());
}

}  // namespace

Controller::Answer<wire::ListVolumesResponse> Controller::list_volumes(wire::ListVolumesRequest request) {
  if (request.max_entries() < 0) co_return refuse(Code::kInvalidArgument, "max_entries: is negative");
  FL_CO_TRY(std::string after, last_of_page(request.starting_token()));
  const uint64_t limit = std::min(static_cast<uint64_t>(request.max_entries()), kPageMax);
  FL_CO_TRY(const Json page, co_await cluster_.list("volumes", {.after = std::move(after), .limit = limit}));
  wire::ListVolumesResponse reply;
  for (const Json& volume : field(page, "items")) {
    if (is_deleting(volume)) continue;
    wire::ListVolumesResponse::Entry& entry = *reply.add_entries();
    fill(volume, *entry.mutable_volume());
    fill_status(volume, *entry.mutable_status());
  }
  if (const std::string more = text_of(page, "continue"); !more.empty()) reply.set_next_token(page_token(more));
  co_return reply;
}

Controller::Answer<wire::ControllerGetVolumeResponse> Controller::get_volume(wire::ControllerGetVolumeRequest request) {
  FL_CO_TRY(const Json volume, co_await find("volumes", request.volume_id()));
  wire::ControllerGetVolumeResponse reply;
  fill(volume, *reply.mutable_volume());
  fill_status(volume, *reply.mutable_status());
  co_return reply;
}

namespace {

// Free bytes of each node that takes replicas: of all its pools, and of the roomiest.
struct Room {
  uint64_t all = 0;
  uint64_t in_one_pool = 0;
};

// The most that volumes of so many replicas, each on another node, can have together: the greatest S for which
// `replicas` times S fits when no node gives more than S.
uint64_t room_for(std::vector<uint64_t> free, uint64_t replicas) {
  std::ranges::sort(free, std::ranges::greater());
  uint64_t sum = 0;
  for (const uint64_t each : free) sum += each;
  for (size_t i = 0; i < replicas && i < free.size(); ++i) {
    // A node that has more than its share can give only that.
    const uint64_t share = sum / (replicas - i);
    if (free[i] <= share) return share;
    sum -= free[i];
  }
  return 0;
}

}  // namespace

Controller::Answer<wire::GetCapacityResponse> Controller::capacity(wire::GetCapacityRequest request) {
  if (!request.volume_capabilities().empty()) FL_CO_TRY_VOID(check_uses(request.volume_capabilities()));
  FL_CO_TRY(const VolumeParameters parameters,
            parse_parameters({request.parameters().begin(), request.parameters().end()}));
  const uint64_t replicas = parameters.changing.replicas.value_or(1);
  FL_CO_TRY(const Json nodes, co_await cluster_.list("nodes", {}));
  FL_CO_TRY(const Json pools, co_await cluster_.list("pools", {}));
  std::map<std::string, Room> rooms;
  for (const Json& node : field(nodes, "items")) {
    if (text_of(node, "status.state") == "ready") rooms[text_of(node, "name")] = {};
  }
  for (const Json& pool : field(pools, "items")) {
    const auto room = rooms.find(text_of(pool, "spec.node"));
    if (room == rooms.end() || text_of(pool, "status.state") != "online") continue;
    const uint64_t bytes = number_of(pool, "status.free_bytes");
    room->second.all += bytes;
    room->second.in_one_pool = std::max(room->second.in_one_pool, bytes);
  }
  std::vector<uint64_t> all;
  std::vector<uint64_t> in_one_pool;
  for (const auto& [name, room] : rooms) {
    all.push_back(room.all);
    in_one_pool.push_back(room.in_one_pool);
  }
  std::ranges::sort(in_one_pool, std::ranges::greater());
  const uint64_t one = in_one_pool.size() >= replicas ? in_one_pool[replicas - 1] : 0;
  wire::GetCapacityResponse reply;
  reply.set_available_capacity(static_cast<int64_t>(room_for(std::move(all), replicas)));
  reply.mutable_maximum_volume_size()->set_value(static_cast<int64_t>(one));
  reply.mutable_minimum_volume_size()->set_value(control::kVolumeBytesMin);
  co_return reply;
}

}  // namespace fairlead::csi
