#include "csi/node.h"

#include <algorithm>
#include <api/csi/v1/csi.pb.h>
#include <charconv>
#include <fmt/format.h>
#include <optional>
#include <utility>

#include "base/log.h"
#include "control/rest_client.h"
#include "csi/documents.h"
#include "csi/names.h"
#include "csi/parameters.h"

namespace fairlead::csi {
namespace {

using control::text_of;

constexpr const char* kFsTypeDefault = "ext4";
constexpr Duration kLookFirst = std::chrono::milliseconds(5);
constexpr Duration kLookLast = std::chrono::milliseconds(200);

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

std::vector<std::string> split(std::string_view text, char by) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(by), text.size());
    if (end != 0) parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

uint32_t count_of(const std::string& text) {
  uint32_t count = 0;
  std::from_chars(text.data(), text.data() + text.size(), count);
  return count;
}

template <typename Map>
std::string text_at(const Map& map, const char* key) {
  const auto found = map.find(key);
  return found == map.end() ? "" : found->second;
}

template <typename Request>
Outcome<void> check_given(const Request& request, const std::string& path, const char* path_name) {
  if (request.volume_id().empty()) return refuse(Code::kInvalidArgument, "volume_id: is missing");
  if (path.empty()) return refuse(Code::kInvalidArgument, "{}: is missing", path_name);
  return {};
}

std::unexpected<Problem> busy_with(const std::string& volume) {
  return try_again(fmt::format("volume {} is being worked on already", volume));
}
std::unexpected<Problem> not_here(const std::string& volume) {
  return refuse(Code::kNotFound, "volume {} is not staged on this machine", volume);
}

// Of a raw device: as much as any of its pods may do.
Access access_of(const NodeRecord& record) {
  const auto may_only_read = [](const auto& target) { return target.second.starts_with("ro."); };
  return std::ranges::all_of(record.targets, may_only_read) ? Access::kReadOnly : Access::kReadWrite;
}

}  // namespace

struct Node::Staging {
  std::string volume = {};
  NodeRecord record = {};
  bool is_read_only = false;
  std::vector<std::string> addresses = {};
  std::vector<std::string> mount_options = {};
  std::vector<std::string> format_options = {};
  Instant part_begun = {};
  std::string took = {};  // "connect 12 ms, device 3 ms"

  void end_part(const char* name, Instant now) {
    const auto span = std::chrono::duration_cast<std::chrono::milliseconds>(now - std::exchange(part_begun, now));
    took += fmt::format("{}{} {} ms", took.empty() ? "" : ", ", name, span.count());
  }
};

Node::Node(Reactor& home, Machine& machine, ClusterApi& cluster, NodeRecords& records, NodeOptions options)
    : home_(home),
      machine_(machine),
      cluster_(cluster),
      records_(records),
      options_(std::move(options)),
      freezer_(home, machine, cluster, records, {.host_nqn = options_.host_nqn, .limit = options_.freeze_limit}),
      followed_(home) {}

void Node::add_to(rpc::Service& service) {
  service.add("/csi.v1.Node/NodeStageVolume", *this, &Node::stage);
  service.add("/csi.v1.Node/NodeUnstageVolume", *this, &Node::unstage);
  service.add("/csi.v1.Node/NodePublishVolume", *this, &Node::publish);
  service.add("/csi.v1.Node/NodeUnpublishVolume", *this, &Node::unpublish);
  service.add("/csi.v1.Node/NodeGetVolumeStats", *this, &Node::stats);
  service.add("/csi.v1.Node/NodeExpandVolume", *this, &Node::expand);
  service.add("/csi.v1.Node/NodeGetCapabilities", *this, &Node::capabilities);
  service.add("/csi.v1.Node/NodeGetInfo", *this, &Node::info);
  if (options_.has_volume_health) add_health_to(service);
}

// ---- Stage

Outcome<Node::Staging> Node::staging_of(const wire::NodeStageVolumeRequest& request) {
  FL_TRY_VOID(check_given(request, request.staging_target_path(), "staging_target_path"));
  if (!request.has_volume_capability()) return refuse(Code::kInvalidArgument, "volume_capability: is missing");
  if (!request.staging_target_path().starts_with('/')) {
    return refuse(Code::kInvalidArgument, "staging_target_path: expected an absolute path");
  }
  FL_TRY(const Use use, use_of(request.volume_capability()));
  Staging staging;
  staging.volume = request.volume_id();
  staging.is_read_only = use.is_read_only || text_at(request.publish_context(), "readonly") == "true";
  staging.record.nqn = text_at(request.publish_context(), "nqn");
  staging.record.staging_path = request.staging_target_path();
  staging.addresses = split(text_at(request.publish_context(), "paths"), ',');
  if (staging.record.nqn.empty() || staging.addresses.empty()) {
    return refuse(Code::kInvalidArgument, "publish_context: has no nqn and paths; is it of ControllerPublishVolume?");
  }
  staging.record.io_queues = count_of(text_at(request.volume_context(), kContextIoQueues));
  staging.record.io_timeout_seconds = count_of(text_at(request.volume_context(), kContextIoTimeout));
  if (use.is_block) return staging;
  const auto& mount = request.volume_capability().mount();
  std::string fs_type = mount.fs_type();
  if (fs_type.empty()) fs_type = text_at(request.volume_context(), kContextFsType);
  if (fs_type.empty()) fs_type = kFsTypeDefault;
  FL_TRY_VOID(check_fs_type(fs_type));
  staging.record.fs_type = fs_type;
  staging.mount_options.assign(mount.mount_flags().begin(), mount.mount_flags().end());
  if (staging.is_read_only) staging.mount_options.emplace_back("ro");
  // Two file systems of one origin, such as a volume and its clone, may be here at once.
  if (fs_type == "xfs") staging.mount_options.emplace_back("nouuid");
  staging.format_options = split(text_at(request.volume_context(), kContextFormatOptions), ' ');
  return staging;
}

Node::Answer<wire::NodeStageVolumeResponse> Node::stage(wire::NodeStageVolumeRequest request) {
  FL_CO_TRY(Staging staging, staging_of(request));
  const auto turn = co_await begin(staging.volume);
  if (!turn) co_return busy_with(staging.volume);
  const NodeRecord* const before = records_.find(staging.volume);
  if (before != nullptr && before->staging_path.empty()) {
    staging.record.is_formatting = before->is_formatting && before->nqn == staging.record.nqn;
  } else if (before != nullptr) {
    if (before->nqn != staging.record.nqn || before->fs_type != staging.record.fs_type ||
        before->staging_path != staging.record.staging_path) {
      co_return refuse(Code::kAlreadyExists, "volume {} is staged already, at {} and in another way", staging.volume,
                       before->staging_path);
    }
    staging.record = *before;
  }
  FL_CO_TRY_VOID(check_free(staging.record.staging_path, staging.volume));
  FL_CO_TRY_VOID(co_await bring(staging));
  log_info("csi.staged", {{"volume", staging.volume}, {"took", staging.took}});
  co_return wire::NodeStageVolumeResponse();
}

// What is mounted at a path that another volume has would be taken for this one.
Outcome<void> Node::check_free(const std::string& path, const std::string& volume) const {
  const std::string other = records_.other_at(path, volume);
  if (other.empty()) return {};
  return refuse(Code::kAlreadyExists, "volume {} is at {} already: volume {} needs a path of its own", other, path,
                volume);
}

Task<Outcome<void>> Node::bring(Staging& staging) {
  staging.part_begun = home_.now();
  FL_CO_TRY_VOID(co_await machine_.check_host());
  FL_CO_TRY_VOID(co_await records_.put(staging.volume, staging.record));
  staging.end_part("record", home_.now());
  FL_CO_TRY_VOID(co_await connect(staging.record, staging.addresses));
  staging.end_part("connect", home_.now());
  FL_CO_TRY(const std::string device, co_await wait_for_device(staging.record.nqn));
  staging.end_part("device", home_.now());
  if (staging.record.io_timeout_seconds != 0) {
    FL_CO_TRY_VOID(co_await machine_.set_io_timeout(device, staging.record.io_timeout_seconds));
  }
  if (staging.record.fs_type.empty()) co_return Outcome<void>();
  FL_CO_TRY(const bool is_there, co_await is_mounted(staging.record.staging_path));
  if (is_there) co_return Outcome<void>();
  FL_CO_TRY_VOID(co_await prepare(staging, device));
  staging.end_part("check", home_.now());
  co_return co_await mount_staged(staging, device);
}

Task<Outcome<void>> Node::connect(NodeRecord record, std::vector<std::string> addresses) {
  FL_CO_TRY(const Attachment attachment, co_await machine_.find(record.nqn));
  size_t count = 0;
  size_t live = 0;
  Outcome<void> failure;
  for (const std::string& address : addresses) {
    const auto there = std::ranges::find(attachment.connections, address, &Connection::address);
    if (there != attachment.connections.end()) {
      ++count;
      live += there->is_live ? 1 : 0;
      continue;
    }
    const Outcome<void> connected =
        co_await machine_.connect({.nqn = record.nqn,
                                   .address = address,
                                   .host_nqn = options_.host_nqn,
                                   .host_id = options_.host_id,
                                   .io_queues = record.io_queues != 0 ? record.io_queues : options_.io_queues});
    if (connected) {
      ++count;
      ++live;
      log_info("csi.path_connected", {{"nqn", record.nqn}, {"address", address}});
    } else {
      failure = connected;
      log_warn("csi.path_failed", {{"nqn", record.nqn}, {"address", address}, {"why", to_string(connected.error())}});
    }
  }
  // A path to where nothing is any more is tried for ever; it goes when another one works.
  for (const Connection& connection : attachment.connections) {
    if (live == 0 || std::ranges::find(addresses, connection.address) != addresses.end()) continue;
    FL_CO_TRY_VOID(co_await machine_.disconnect(connection.controller));
    log_info("csi.path_disconnected", {{"nqn", record.nqn}, {"address", connection.address}});
  }
  if (count == 0) co_return failure;
  co_return Outcome<void>();
}

Task<Outcome<std::string>> Node::wait_for_device(std::string nqn) {
  const Instant deadline = home_.now() + options_.device_limit;
  for (Duration pause = kLookFirst;; pause = std::min(pause * 2, kLookLast)) {
    FL_CO_TRY(const Attachment attachment, co_await machine_.find(nqn));
    if (!attachment.device.empty()) co_return attachment.device;
    if (home_.now() >= deadline) {
      co_return refuse(Code::kTimedOut,
                       "{}: is connected and shows no device: 'fairlead why' tells whether it is served", nqn);
    }
    (void)co_await sleep(home_, pause);
  }
}

Task<Outcome<void>> Node::prepare(Staging& staging, std::string device) {
  FL_CO_TRY(const DeviceContent content, co_await machine_.look_into(device));
  staging.end_part("look", home_.now());
  NodeRecord& record = staging.record;
  using Kind = DeviceContent::Kind;
  if (content.kind == Kind::kFileSystem) {
    if (content.what != record.fs_type) {
      co_return refuse(Code::kBusy, "volume {} holds {}, and {} is asked for; it is left as it is", staging.volume,
                       content.what, record.fs_type);
    }
    if (record.is_formatting) {
      record.is_formatting = false;
      FL_CO_TRY_VOID(co_await records_.put(staging.volume, record));
    }
    if (staging.is_read_only) co_return Outcome<void>();
    co_return co_await machine_.repair(device, record.fs_type);
  }
  // What a mkfs that was killed has left is nobody's.
  if (content.kind == Kind::kOther && !record.is_formatting) {
    co_return refuse(Code::kBusy, "volume {} holds {}, and no file system; it is left as it is", staging.volume,
                     content.what);
  }
  if (staging.is_read_only) {
    co_return refuse(Code::kBusy, "volume {} is empty, and only to be read: there is nothing to mount", staging.volume);
  }
  record.is_formatting = true;
  FL_CO_TRY_VOID(co_await records_.put(staging.volume, record));
  FL_CO_TRY_VOID(co_await machine_.format(device, record.fs_type, staging.format_options));
  log_info("csi.formatted", {{"volume", staging.volume}, {"device", device}, {"fs_type", record.fs_type}});
  record.is_formatting = false;
  co_return co_await records_.put(staging.volume, record);
}

Task<Outcome<void>> Node::mount_staged(Staging& staging, std::string device) {
  const NodeRecord& record = staging.record;
  FL_CO_TRY_VOID(co_await machine_.make_folder(record.staging_path));
  FL_CO_TRY_VOID(co_await machine_.mount(
      {.source = device, .target = record.staging_path, .fs_type = record.fs_type, .options = staging.mount_options}));
  staging.end_part("mount", home_.now());
  // A volume that was made of a smaller one has the file system of that.
  if (staging.is_read_only) co_return Outcome<void>();
  const Outcome<void> grown = co_await machine_.grow(device, record.fs_type, record.staging_path);
  staging.end_part("grow", home_.now());
  if (grown) co_return grown;
  // Else the next call would find it mounted, and small.
  (void)co_await machine_.unmount(record.staging_path);
  co_return grown;
}

Task<Outcome<bool>> Node::is_mounted(std::string target) {
  FL_CO_TRY(const std::optional<Mounted> mounted, co_await machine_.mounted_at(std::move(target)));
  co_return mounted.has_value();
}

Task<Outcome<void>> Node::unmount_all(std::string target) {
  while (true) {
    FL_CO_TRY(const bool is_there, co_await is_mounted(target));
    if (!is_there) co_return Outcome<void>();
    FL_CO_TRY_VOID(co_await machine_.unmount(target));
  }
}

Node::Answer<wire::NodeUnstageVolumeResponse> Node::unstage(wire::NodeUnstageVolumeRequest request) {
  FL_CO_TRY_VOID(check_given(request, request.staging_target_path(), "staging_target_path"));
  const std::string& volume = request.volume_id();
  const auto turn = co_await begin(volume);
  if (!turn) co_return busy_with(volume);
  FL_CO_TRY_VOID(co_await unmount_all(request.staging_target_path()));
  const NodeRecord* const record = records_.find(volume);
  if (record == nullptr) co_return wire::NodeUnstageVolumeResponse();
  const std::string nqn = record->nqn;
  const bool is_formatting = record->is_formatting;
  FL_CO_TRY(const Attachment attachment, co_await machine_.find(nqn));
  FL_CO_TRY(const std::vector<Mounted> mounts, co_await machine_.mounts());
  for (const Mounted& mounted : mounts) {
    if (attachment.device.empty() || mounted.source != attachment.device) continue;
    co_return refuse(Code::kBusy, "volume {} is still mounted at {}: unpublish it first", volume, mounted.target);
  }
  for (const Connection& connection : attachment.connections) {
    FL_CO_TRY_VOID(co_await machine_.disconnect(connection.controller));
  }
  // Whoever comes next may find what a mkfs that was killed has left.
  NodeRecord left = {.nqn = nqn, .staging_path = "", .fs_type = "", .is_formatting = true};
  FL_CO_TRY_VOID(is_formatting ? co_await records_.put(volume, std::move(left)) : co_await records_.drop(volume));
  co_return wire::NodeUnstageVolumeResponse();
}

// ---- Publish

Task<Outcome<std::string>> Node::device_of(std::string volume) {
  const NodeRecord* const record = records_.find(volume);
  if (record == nullptr || record->staging_path.empty()) co_return not_here(volume);
  FL_CO_TRY(const Attachment attachment, co_await machine_.find(record->nqn));
  if (attachment.device.empty()) co_return not_here(volume);
  co_return attachment.device;
}

Node::Answer<wire::NodePublishVolumeResponse> Node::publish(wire::NodePublishVolumeRequest request) {
  FL_CO_TRY_VOID(check_given(request, request.target_path(), "target_path"));
  if (!request.has_volume_capability()) co_return refuse(Code::kInvalidArgument, "volume_capability: is missing");
  FL_CO_TRY(Use use, use_of(request.volume_capability()));
  use.is_read_only = use.is_read_only || request.readonly() || text_at(request.publish_context(), "readonly") == "true";
  const std::string& volume = request.volume_id();
  const std::string& target = request.target_path();
  const auto turn = co_await begin(volume);
  if (!turn) co_return busy_with(volume);
  FL_CO_TRY(const std::string device, co_await device_of(volume));
  NodeRecord record = *records_.find(volume);
  if (record.fs_type.empty() != use.is_block) {
    co_return refuse(Code::kInvalidArgument, "volume_capability: volume {} was staged in another way", volume);
  }
  const std::string how = to_text(use);
  const bool is_single = use.mode == wire::VolumeCapability::AccessMode::SINGLE_NODE_SINGLE_WRITER;
  for (const auto& [other, other_how] : record.targets) {
    if (other == target && other_how != how) {
      co_return refuse(Code::kAlreadyExists, "volume {} is published at {} already, in another way", volume, target);
    }
    if (other != target && is_single) {
      co_return refuse(Code::kBusy, "volume {} is for one pod at a time, and is published at {}", volume, other);
    }
  }
  if (!use.is_block) {
    FL_CO_TRY(const bool is_staged, co_await is_mounted(record.staging_path));
    if (!is_staged)
      co_return refuse(Code::kBusy, "volume {} is not mounted at {}: stage it", volume, record.staging_path);
  }
  FL_CO_TRY_VOID(check_free(target, volume));
  record.targets[target] = how;
  FL_CO_TRY_VOID(co_await records_.put(volume, record));
  if (use.is_block) FL_CO_TRY_VOID(co_await machine_.set_access(device, access_of(record)));
  FL_CO_TRY(const std::optional<Mounted> there, co_await machine_.mounted_at(target));
  if (there && (there->is_read_only || !use.is_read_only)) co_return wire::NodePublishVolumeResponse();
  // Read-only is a step of its own.
  if (there) FL_CO_TRY_VOID(co_await unmount_all(target));
  FL_CO_TRY_VOID(use.is_block ? co_await machine_.make_file(target) : co_await machine_.make_folder(target));
  FL_CO_TRY_VOID(co_await machine_.bind(use.is_block ? device : record.staging_path, target,
                                        use.is_read_only ? Access::kReadOnly : Access::kReadWrite));
  co_return wire::NodePublishVolumeResponse();
}

Node::Answer<wire::NodeUnpublishVolumeResponse> Node::unpublish(wire::NodeUnpublishVolumeRequest request) {
  FL_CO_TRY_VOID(check_given(request, request.target_path(), "target_path"));
  const std::string& volume = request.volume_id();
  const auto turn = co_await begin(volume);
  if (!turn) co_return busy_with(volume);
  FL_CO_TRY_VOID(co_await unmount_all(request.target_path()));
  FL_CO_TRY_VOID(co_await machine_.remove(request.target_path()));
  if (const NodeRecord* const found = records_.find(volume)) {
    NodeRecord record = *found;
    record.targets.erase(request.target_path());
    if (record.fs_type.empty() && !record.targets.empty()) {
      FL_CO_TRY(const Attachment attachment, co_await machine_.find(record.nqn));
      if (!attachment.device.empty())
        FL_CO_TRY_VOID(co_await machine_.set_access(attachment.device, access_of(record)));
    }
    FL_CO_TRY_VOID(co_await records_.put(volume, std::move(record)));
  }
  co_return wire::NodeUnpublishVolumeResponse();
}

// ---- Look and grow

Node::Answer<wire::NodeGetVolumeStatsResponse> Node::stats(wire::NodeGetVolumeStatsRequest request) {
  FL_CO_TRY_VOID(check_given(request, request.volume_path(), "volume_path"));
  const std::string& volume = request.volume_id();
  FL_CO_TRY(const std::string device, co_await device_of(volume));
  const NodeRecord record = *records_.find(volume);
  if (request.volume_path() != record.staging_path && !record.targets.contains(request.volume_path())) {
    co_return refuse(Code::kNotFound, "volume {} is not at {}", volume, request.volume_path());
  }
  wire::NodeGetVolumeStatsResponse reply;
  if (record.fs_type.empty()) {
    FL_CO_TRY(const uint64_t bytes, co_await machine_.size_of(device));
    reply.add_usage()->set_total(static_cast<int64_t>(bytes));
    reply.mutable_usage(0)->set_unit(wire::VolumeUsage::BYTES);
    co_return reply;
  }
  FL_CO_TRY(const Usage usage, co_await machine_.usage(request.volume_path()));
  wire::VolumeUsage& bytes = *reply.add_usage();
  bytes.set_unit(wire::VolumeUsage::BYTES);
  bytes.set_total(static_cast<int64_t>(usage.total_bytes));
  bytes.set_used(static_cast<int64_t>(usage.used_bytes));
  bytes.set_available(static_cast<int64_t>(usage.available_bytes));
  wire::VolumeUsage& inodes = *reply.add_usage();
  inodes.set_unit(wire::VolumeUsage::INODES);
  inodes.set_total(static_cast<int64_t>(usage.total_inodes));
  inodes.set_used(static_cast<int64_t>(usage.used_inodes));
  inodes.set_available(static_cast<int64_t>(usage.available_inodes));
  co_return reply;
}

Node::Answer<wire::NodeExpandVolumeResponse> Node::expand(wire::NodeExpandVolumeRequest request) {
  FL_CO_TRY_VOID(check_given(request, request.volume_path(), "volume_path"));
  const std::string& volume = request.volume_id();
  const auto turn = co_await begin(volume);
  if (!turn) co_return busy_with(volume);
  FL_CO_TRY(const std::string device, co_await device_of(volume));
  const NodeRecord record = *records_.find(volume);
  const auto wanted = static_cast<uint64_t>(std::max<int64_t>(request.capacity_range().required_bytes(), 0));
  const Instant deadline = home_.now() + options_.device_limit;
  uint64_t bytes = 0;
  for (Duration pause = kLookFirst;; pause = std::min(pause * 2, kLookLast)) {
    FL_CO_TRY(bytes, co_await machine_.size_of(device));
    if (bytes >= wanted) break;
    if (home_.now() >= deadline) co_return try_again(fmt::format("{} has {} bytes still", device, bytes));
    (void)co_await sleep(home_, pause);
  }
  if (!record.fs_type.empty()) {
    FL_CO_TRY(const bool is_staged, co_await is_mounted(record.staging_path));
    if (!is_staged) co_return refuse(Code::kBusy, "volume {} is not mounted at {}", volume, record.staging_path);
    FL_CO_TRY_VOID(co_await machine_.grow(device, record.fs_type, record.staging_path));
  }
  wire::NodeExpandVolumeResponse reply;
  reply.set_capacity_bytes(static_cast<int64_t>(bytes));
  co_return reply;
}

Node::Answer<wire::NodeGetCapabilitiesResponse> Node::capabilities(wire::NodeGetCapabilitiesRequest) {
  using Rpc = wire::NodeServiceCapability::RPC;
  wire::NodeGetCapabilitiesResponse reply;
  for (const auto type :
       {Rpc::STAGE_UNSTAGE_VOLUME, Rpc::GET_VOLUME_STATS, Rpc::EXPAND_VOLUME, Rpc::SINGLE_NODE_MULTI_WRITER}) {
    reply.add_capabilities()->mutable_rpc()->set_type(type);
  }
  if (options_.has_volume_health) {
    reply.add_capabilities()->mutable_rpc()->set_type(Rpc::GET_VOLUME_HEALTH);
    reply.add_capabilities()->mutable_rpc()->set_type(Rpc::GET_STORAGE_HEALTH);
  }
  co_return reply;
}

Node::Answer<wire::NodeGetInfoResponse> Node::info(wire::NodeGetInfoRequest) {
  wire::NodeGetInfoResponse reply;
  reply.set_node_id(options_.host_nqn);
  reply.set_max_volumes_per_node(static_cast<int64_t>(options_.volumes_max));
  auto& segments = *reply.mutable_accessible_topology()->mutable_segments();
  for (const auto& [key, value] : options_.topology) segments[key] = value;
  segments[kTopologyNode] = options_.node;
  co_return reply;
}

// ---- Follow

Task<void> Node::run() {
  do {
    // Whether or not the control plane can be asked.
    for (const std::string& volume : records_.volumes()) {
      const NodeRecord* const record = records_.find(volume);
      if (record != nullptr && record->is_frozen) (void)co_await begin(volume);
    }
    co_await follow();
  } while (co_await sleep(home_, options_.follow_interval, stopping_));
  co_await freezer_.close();
}

Task<void> Node::follow() {
  for (const std::string& volume : records_.volumes()) {
    if (stopping_.is_cancelled()) co_return;
    co_await follow_one(volume);
    following_.clear();
    followed_.release_waiters();
  }
}

Task<std::optional<Busy::Turn>> Node::begin(std::string volume) {
  while (following_ == volume) co_await followed_.wait();
  auto turn = busy_.begin(volume);
  if (!turn) co_return std::nullopt;
  const Outcome<void> thawed = co_await freezer_.thaw_left(volume);
  if (thawed) co_return std::move(turn);
  log_error("csi.thaw_failed", {{"volume", volume}, {"why", to_string(thawed.error())}});
  co_return std::nullopt;
}

Task<void> Node::follow_one(std::string volume) {
  const Outcome<Json> document = co_await cluster_.get("volumes", volume);
  auto turn = busy_.begin(volume);
  const NodeRecord* const found = records_.find(volume);
  if (!turn || found == nullptr) co_return;
  following_ = volume;
  if (!document && document.error().error.code == Code::kNotFound && found->staging_path.empty()) {
    (void)co_await records_.drop(volume);
    co_return;
  }
  // Without the control plane things stay as they are.
  if (!document || text_of(*document, "status.nqn") != found->nqn) co_return;
  const NodeRecord record = *found;
  const std::vector<std::string> addresses = path_addresses(*document);
  if (addresses.empty()) co_return;
  const Outcome<Attachment> attachment = co_await machine_.find(record.nqn);
  // One that is not connected at all is being staged, or was never.
  if (!attachment || attachment->connections.empty()) co_return;
  Outcome<void> followed = co_await connect(record, addresses);
  if (followed && record.io_timeout_seconds != 0 && !attachment->device.empty()) {
    followed = co_await machine_.set_io_timeout(attachment->device, record.io_timeout_seconds);
  }
  if (!followed) log_warn("csi.follow_failed", {{"volume", volume}, {"why", to_string(followed.error())}});
  freezer_.look(volume, *document, std::move(*turn));
}

}  // namespace fairlead::csi
