// The volumes.
#include "csi/controller.h"

#include <algorithm>
#include <api/csi/v1/csi.pb.h>
#include <fmt/format.h>

#include "async/cancel.h"
#include "control/resources.h"
#include "control/rest_client.h"
#include "csi/documents.h"
#include "csi/names.h"

namespace fairlead::csi {
namespace {

struct Size {
  uint64_t wanted = 0;  // 0: nothing is asked
  uint64_t limit = ~uint64_t{0};
};

}  // namespace

struct NewVolume {
  std::string name = {};
  Size size = {};
  VolumeParameters parameters = {};
  MutableParameters changed = {};  // in place of these
  std::string preferred_node = {};
  std::string source_volume = {};
  std::string snapshot = {};
  uint64_t source_bytes = 0;
};

namespace {

using control::field;
using control::kVolumeBytesMin;
using control::kVolumeBytesUnit;
using control::number_of;
using control::text_of;

constexpr uint64_t kVolumeBytesDefault = 1 << 30;
constexpr Duration kLookFirst = std::chrono::milliseconds(5);
constexpr Duration kLookLast = std::chrono::milliseconds(200);

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

template <typename Map>
Texts texts_of(const Map& map) {
  return {map.begin(), map.end()};
}

Outcome<Size> size_of(const wire::CapacityRange& range) {
  if (range.required_bytes() < 0 || range.limit_bytes() < 0) {
    return refuse(Code::kInvalidArgument, "capacity_range: is negative");
  }
  Size size;
  size.wanted = static_cast<uint64_t>(range.required_bytes());
  if (range.limit_bytes() > 0) size.limit = static_cast<uint64_t>(range.limit_bytes());
  if (size.wanted > size.limit) return refuse(Code::kInvalidArgument, "capacity_range: requires more than its limit");
  return size;
}

// What is made of that: whole units, at least `least`. Error kOutOfRange.
Outcome<uint64_t> fit(const Size& size, uint64_t least) {
  const uint64_t usual = least != 0 ? least : std::min(kVolumeBytesDefault, size.limit);
  uint64_t bytes = std::max({size.wanted != 0 ? size.wanted : usual, least, kVolumeBytesMin});
  bytes = (bytes + kVolumeBytesUnit - 1) / kVolumeBytesUnit * kVolumeBytesUnit;
  if (bytes > size.limit) {
    return refuse(Code::kOutOfRange, "capacity_range: {} bytes are too few: {} are the least in whole blocks",
                  size.limit, bytes);
  }
  return bytes;
}

bool is_formed(const Json& volume, uint64_t) {
  const Json& placed = condition_of(volume, "Placed");
  if (text_of(placed, "reason") == "NoRoom") return true;
  const std::string state = text_of(volume, "status.state");
  return !state.empty() && state != "creating";
}
bool has_no_room(const Json& volume) {
  return text_of(volume, "status.state") == "creating" && text_of(condition_of(volume, "Placed"), "reason") == "NoRoom";
}

// The node that the first choice of the orchestrator names.
std::string node_wanted(const wire::TopologyRequirement& requirement) {
  for (const wire::Topology& topology : requirement.preferred()) {
    const auto node = topology.segments().find(kTopologyNode);
    if (node != topology.segments().end() && control::check_name("node", node->second)) return node->second;
    break;
  }
  return {};
}

}  // namespace

void Controller::add_to(rpc::Service& service) {
  service.add("/csi.v1.Controller/ControllerGetCapabilities", *this, &Controller::capabilities);
  service.add("/csi.v1.Controller/CreateVolume", *this, &Controller::create_volume);
  service.add("/csi.v1.Controller/DeleteVolume", *this, &Controller::delete_volume);
  service.add("/csi.v1.Controller/ControllerPublishVolume", *this, &Controller::publish);
  service.add("/csi.v1.Controller/ControllerUnpublishVolume", *this, &Controller::unpublish);
  service.add("/csi.v1.Controller/ValidateVolumeCapabilities", *this, &Controller::validate);
  service.add("/csi.v1.Controller/ListVolumes", *this, &Controller::list_volumes);
  service.add("/csi.v1.Controller/ControllerGetVolume", *this, &Controller::get_volume);
  service.add("/csi.v1.Controller/GetCapacity", *this, &Controller::capacity);
  service.add("/csi.v1.Controller/ControllerExpandVolume", *this, &Controller::expand);
  service.add("/csi.v1.Controller/ControllerModifyVolume", *this, &Controller::modify);
  service.add("/csi.v1.Controller/CreateSnapshot", *this, &Controller::create_snapshot);
  service.add("/csi.v1.Controller/DeleteSnapshot", *this, &Controller::delete_snapshot);
  service.add("/csi.v1.Controller/ListSnapshots", *this, &Controller::list_snapshots);
  service.add("/csi.v1.Controller/GetSnapshot", *this, &Controller::get_snapshot);
  add_groups_to(service);
  if (options_.has_volume_health) add_health_to(service);
}

Controller::Answer<wire::ControllerGetCapabilitiesResponse> Controller::capabilities(
    wire::ControllerGetCapabilitiesRequest) {
  using Rpc = wire::ControllerServiceCapability::RPC;
  wire::ControllerGetCapabilitiesResponse reply;
  for (const auto type :
       {Rpc::CREATE_DELETE_VOLUME, Rpc::PUBLISH_UNPUBLISH_VOLUME, Rpc::LIST_VOLUMES, Rpc::GET_CAPACITY,
        Rpc::CREATE_DELETE_SNAPSHOT, Rpc::LIST_SNAPSHOTS, Rpc::CLONE_VOLUME, Rpc::PUBLISH_READONLY, Rpc::EXPAND_VOLUME,
        Rpc::LIST_VOLUMES_PUBLISHED_NODES, Rpc::VOLUME_CONDITION, Rpc::GET_VOLUME, Rpc::SINGLE_NODE_MULTI_WRITER,
        Rpc::MODIFY_VOLUME, Rpc::GET_SNAPSHOT}) {
    reply.add_capabilities()->mutable_rpc()->set_type(type);
  }
  if (options_.has_volume_health) {
    reply.add_capabilities()->mutable_rpc()->set_type(Rpc::GET_VOLUME_HEALTH);
    reply.add_capabilities()->mutable_rpc()->set_type(Rpc::LIST_VOLUME_HEALTH);
  }
  co_return reply;
}

// ---- What several calls do

Task<Outcome<Json>> Controller::find(std::string kind, std::string id) {
  const std::string_view one = std::string_view(kind).substr(0, kind.size() - 1);
  if (id.empty()) co_return refuse(Code::kInvalidArgument, "{}_id: is missing", one);
  if (!control::check_name("id", id)) co_return refuse(Code::kNotFound, "there is no {} {}", one, id);
  FL_CO_TRY(Json found, co_await cluster_.get(kind, id));
  if (is_deleting(found)) co_return refuse(Code::kNotFound, "{} {} is being deleted", one, id);
  co_return found;
}

Task<Outcome<Json>> Controller::settle(std::string kind, std::string name, bool (*is_done)(const Json&, uint64_t),
                                       uint64_t goal) {
  const Instant deadline = home_.now() + options_.settle_limit;
  for (Duration pause = kLookFirst;; pause = std::min(pause * 2, kLookLast)) {
    FL_CO_TRY(Json document, co_await cluster_.get(kind, name));
    if (is_done(document, goal)) co_return document;
    if (home_.now() >= deadline) {
      const std::string why = complaint_of(document);
      co_return try_again(fmt::format("{}/{} is not ready yet{}{}", kind, name, why.empty() ? "" : ": ", why));
    }
    (void)co_await sleep(home_, pause);
  }
}

Task<Outcome<void>> Controller::remove(std::string kind, std::string name) {
  FL_CO_TRY_VOID(co_await cluster_.remove(kind, name));
  const Outcome<Json> left = co_await settle(kind, name, [](const Json&, uint64_t) { return false; }, 0);
  if (left.error().error.code == Code::kNotFound) co_return Outcome<void>();
  co_return std::unexpected(left.error());
}

// ---- Create and delete

Task<Outcome<void>> Controller::find_source(NewVolume& plan) {
  if (!plan.source_volume.empty()) {
    FL_CO_TRY(const Json volume, co_await find("volumes", plan.source_volume));
    plan.source_bytes = number_of(volume, "spec.size_bytes");
    plan.snapshot = clone_snapshot_name(plan.name);
    Json snapshot = {{"name", plan.snapshot}, {"spec", {{"volume", plan.source_volume}}}};
    snapshot["labels"] = {{kLabelOrigin, kOrigin}, {kLabelCloneFor, plan.name}};
    FL_CO_TRY_VOID(fit(plan.size, plan.source_bytes));
    FL_CO_TRY_VOID(co_await cluster_.create("snapshots", std::move(snapshot)));
    const auto is_ready = [](const Json& each, uint64_t) { return text_of(each, "status.state") == "ready"; };
    FL_CO_TRY(const Json taken, co_await settle("snapshots", plan.snapshot, is_ready, 0));
    plan.source_bytes = std::max(plan.source_bytes, number_of(taken, "status.size_bytes"));
  } else if (!plan.snapshot.empty()) {
    FL_CO_TRY(const Json snapshot, co_await find("snapshots", plan.snapshot));
    if (text_of(snapshot, "status.state") != "ready" || is_unsettled(snapshot)) {
      co_return try_again(fmt::format("snapshot {} is not taken yet", plan.snapshot));
    }
    plan.source_bytes = number_of(snapshot, "status.size_bytes");
  }
  co_return Outcome<void>();
}

namespace {

uint64_t least_bytes_for(const wire::CreateVolumeRequest& request, const VolumeParameters& parameters) {
  const auto told = parameters.context.find(kContextFsType);
  uint64_t least = 0;
  for (const wire::VolumeCapability& capability : request.volume_capabilities()) {
    if (!capability.has_mount()) continue;
    const std::string& fs_type = capability.mount().fs_type();
    if (!fs_type.empty()) {
      least = std::max(least, least_bytes_of(fs_type));
    } else if (told != parameters.context.end()) {
      least = std::max(least, least_bytes_of(told->second));
    }
  }
  return least;
}

Outcome<NewVolume> plan_of(const wire::CreateVolumeRequest& request) {
  NewVolume plan;
  FL_TRY(plan.name, resource_name(request.name()));
  FL_TRY_VOID(check_uses(request.volume_capabilities()));
  FL_TRY(plan.size, size_of(request.capacity_range()));
  FL_TRY(plan.parameters, parse_parameters(texts_of(request.parameters())));
  const uint64_t least = least_bytes_for(request, plan.parameters);
  if (plan.size.wanted != 0 || plan.size.limit < least) plan.size.wanted = std::max(plan.size.wanted, least);
  FL_TRY(plan.changed, parse_mutable_parameters(texts_of(request.mutable_parameters())));
  plan.preferred_node = node_wanted(request.accessibility_requirements());
  if (!request.has_volume_content_source()) return plan;
  const wire::VolumeContentSource& source = request.volume_content_source();
  plan.snapshot = source.snapshot().snapshot_id();
  plan.source_volume = source.volume().volume_id();
  if (plan.snapshot.empty() && plan.source_volume.empty()) {
    return refuse(Code::kInvalidArgument, "volume_content_source: expected a snapshot_id or a volume_id");
  }
  return plan;
}

void put_into(Json& spec, const MutableParameters& changing) {
  if (changing.replicas) spec["replicas"] = *changing.replicas;
  if (changing.snapshot_limit) spec["snapshot_limit"] = *changing.snapshot_limit;
  if (changing.resync_share) spec["resync_share"] = *changing.resync_share;
}

Json document_of(const NewVolume& plan, uint64_t size_bytes) {
  const VolumeParameters& parameters = plan.parameters;
  Json spec = {{"size_bytes", size_bytes}, {"allowed_hosts", {kNobody}}};
  put_into(spec, parameters.changing);
  put_into(spec, plan.changed);
  if (parameters.is_thin) spec["thin"] = *parameters.is_thin;
  if (!parameters.spread_over.empty()) spec["topology"]["spread_over"] = parameters.spread_over;
  if (!parameters.affinity.empty()) spec["topology"]["affinity"] = parameters.affinity;
  if (!parameters.anti_affinity.empty()) spec["topology"]["anti_affinity"] = parameters.anti_affinity;
  if (!parameters.group.empty()) spec["topology"]["group"] = parameters.group;
  if (!plan.preferred_node.empty()) spec["preferred_node"] = plan.preferred_node;
  if (!plan.snapshot.empty()) spec["source"] = plan.snapshot;
  Json labels = {{kLabelOrigin, kOrigin}};
  if (!plan.source_volume.empty()) labels[kLabelSourceVolume] = plan.source_volume;
  for (const auto& [key, value] : parameters.context) labels[kLabelContext + key] = label_value(value).value();
  // A name that is too long for a label is left out: half of one would be another's.
  const std::pair<const char*, const std::string&> about[] = {
      {control::kLabelClaim, parameters.claim},
      {control::kLabelClaimNamespace, parameters.claim_namespace},
      {control::kLabelPersistentVolume, parameters.persistent_volume}};
  for (const auto& [key, value] : about) {
    if (control::check_name("claim", value)) labels[key] = value;
  }
  return {{"name", plan.name}, {"labels", std::move(labels)}, {"spec", std::move(spec)}};
}

// Whether what is there may be what is asked for. Error kAlreadyExists.
Outcome<void> check_compatible(const NewVolume& plan, const Json& volume) {
  const auto differs = [&](const char* what) {
    return refuse(Code::kAlreadyExists, "there is a volume {} already, {}", plan.name, what);
  };
  const Json& labels = field(volume, "labels");
  if (labels.value(kLabelOrigin, "") != kOrigin) return differs("which was not made by this plugin");
  const uint64_t bytes = number_of(volume, "spec.size_bytes");
  if (bytes < plan.size.wanted || bytes > plan.size.limit) return differs("of another size");
  if (labels.value(kLabelSourceVolume, "") != plan.source_volume) return differs("made of another source");
  const std::string snapshot = plan.source_volume.empty() ? plan.snapshot : clone_snapshot_name(plan.name);
  if (text_of(volume, "spec.source") != snapshot) return differs("made of another source");
  const Json& is_thin = field(volume, "spec.thin");
  if (plan.parameters.is_thin && is_thin.is_boolean() && is_thin.get<bool>() != *plan.parameters.is_thin) {
    return differs("with another value of thin");
  }
  if (!plan.parameters.group.empty() && text_of(volume, "spec.topology.group") != plan.parameters.group) {
    return differs("of another group");
  }
  return {};
}

}  // namespace

Task<Outcome<Json>> Controller::make(NewVolume& plan) {
  const Outcome<Json> there = co_await cluster_.get("volumes", plan.name);
  if (there) {
    if (is_deleting(*there)) co_return try_again(fmt::format("volume {} is being deleted", plan.name));
    FL_CO_TRY_VOID(check_compatible(plan, *there));
  } else if (there.error().error.code != Code::kNotFound) {
    co_return there;
  } else {
    FL_CO_TRY_VOID(co_await find_source(plan));
    FL_CO_TRY(const uint64_t bytes, fit(plan.size, plan.source_bytes));
    FL_CO_TRY_VOID(co_await cluster_.create("volumes", document_of(plan, bytes)));
  }
  FL_CO_TRY(Json volume, co_await settle("volumes", plan.name, is_formed, 0));
  if (has_no_room(volume)) {
    // Else it would take room elsewhere later, when the orchestrator has chosen another place.
    (void)co_await cluster_.remove("volumes", plan.name);
    co_return refuse(Code::kResourceExhausted, "{}", text_of(condition_of(volume, "Placed"), "message"));
  }
  co_return volume;
}

Controller::Answer<wire::CreateVolumeResponse> Controller::create_volume(wire::CreateVolumeRequest request) {
  FL_CO_TRY(NewVolume plan, plan_of(request));
  const auto turn = busy_.begin("volumes/" + plan.name);
  if (!turn) co_return try_again(fmt::format("volume {} is being worked on already", plan.name));
  FL_CO_TRY(const Json volume, co_await make(plan));
  if (!plan.source_volume.empty()) FL_CO_TRY_VOID(co_await remove("snapshots", clone_snapshot_name(plan.name)));
  wire::CreateVolumeResponse reply;
  fill(volume, *reply.mutable_volume());
  co_return reply;
}

Task<Outcome<void>> Controller::drop_clone_snapshots(std::string volume) {
  FL_CO_TRY(const Json snapshots, co_await cluster_.list("snapshots", {.volume = volume}));
  std::vector<std::string> names;
  for (const Json& snapshot : field(snapshots, "items")) {
    if (field(snapshot, "labels").contains(kLabelCloneFor)) names.push_back(text_of(snapshot, "name"));
  }
  for (const std::string& name : names) FL_CO_TRY_VOID(co_await remove("snapshots", name));
  co_return Outcome<void>();
}

Controller::Answer<wire::DeleteVolumeResponse> Controller::delete_volume(wire::DeleteVolumeRequest request) {
  const std::string& id = request.volume_id();
  if (id.empty()) co_return refuse(Code::kInvalidArgument, "volume_id: is missing");
  const auto turn = busy_.begin("volumes/" + id);
  if (!turn) co_return try_again(fmt::format("volume {} is being worked on already", id));
  // What it was cloned through may be left of an attempt that nobody repeated.
  if (control::check_name("id", id)) FL_CO_TRY_VOID(co_await cluster_.remove("snapshots", clone_snapshot_name(id)));
  const Outcome<Json> volume = co_await find("volumes", id);
  if (volume) {
    const std::vector<std::string> hosts = published_hosts(*volume);
    if (!hosts.empty()) co_return refuse(Code::kBusy, "volume {} is published to {}: unpublish it first", id, hosts[0]);
    FL_CO_TRY_VOID(co_await drop_clone_snapshots(id));
  } else if (volume.error().error.code != Code::kNotFound) {
    co_return std::unexpected(volume.error());
  }
  if (control::check_name("id", id)) FL_CO_TRY_VOID(co_await remove("volumes", id));
  co_return wire::DeleteVolumeResponse();
}

// ---- Grow and change

namespace {

bool has_size(const Json& volume, uint64_t bytes) { return number_of(volume, "status.size_bytes") >= bytes; }

}  // namespace

Controller::Answer<wire::ControllerExpandVolumeResponse> Controller::expand(
    wire::ControllerExpandVolumeRequest request) {
  const std::string& id = request.volume_id();
  if (!id.empty() && !request.has_capacity_range()) {
    co_return refuse(Code::kInvalidArgument, "capacity_range: is missing");
  }
  FL_CO_TRY(const Size size, size_of(request.capacity_range()));
  const auto turn = busy_.begin("volumes/" + id);
  if (!turn) co_return try_again(fmt::format("volume {} is being worked on already", id));
  FL_CO_TRY(const Json volume, co_await find("volumes", id));
  uint64_t bytes = number_of(volume, "spec.size_bytes");
  if (bytes < size.wanted) {
    FL_CO_TRY(bytes, fit(size, bytes));
    FL_CO_TRY_VOID(co_await cluster_.update("volumes", id, {{"spec", {{"size_bytes", bytes}}}}, 0));
  } else if (bytes > size.limit) {
    co_return refuse(Code::kOutOfRange, "volume {} has {} bytes already, and does not shrink", id, bytes);
  }
  FL_CO_TRY_VOID(co_await settle("volumes", id, has_size, bytes));
  wire::ControllerExpandVolumeResponse reply;
  reply.set_capacity_bytes(static_cast<int64_t>(bytes));
  reply.set_node_expansion_required(!request.volume_capability().has_block());
  co_return reply;
}

Controller::Answer<wire::ControllerModifyVolumeResponse> Controller::modify(
    wire::ControllerModifyVolumeRequest request) {
  const std::string& id = request.volume_id();
  const auto turn = busy_.begin("volumes/" + id);
  if (!turn) co_return try_again(fmt::format("volume {} is being worked on already", id));
  FL_CO_TRY_VOID(co_await find("volumes", id));
  FL_CO_TRY(const MutableParameters changing, parse_mutable_parameters(texts_of(request.mutable_parameters())));
  Json spec = Json::object();
  put_into(spec, changing);
  if (!spec.empty()) {
    FL_CO_TRY_VOID(co_await cluster_.update("volumes", id, {{"spec", std::move(spec)}}, 0));
  }
  co_return wire::ControllerModifyVolumeResponse();
}

}  // namespace fairlead::csi
