#include "engine/requests.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/units.h"
#include "pool/format.h"

namespace fairlead::engine {
namespace {

constexpr uint64_t kSizeUnit = 4096;
constexpr uint64_t kSizeMax = uint64_t{1} << 56;
constexpr uint64_t kLimitMsDefault = 30'000;
constexpr uint64_t kLimitMsMax = 600'000;
constexpr int kHostsMax = 256;

std::unexpected<Problem> invalid(std::string sentence) { return problem(Code::kInvalidArgument, std::move(sentence)); }

Outcome<mirror::MemberSet> parse_members(const google::protobuf::RepeatedPtrField<std::string>& texts) {
  mirror::MemberSet members;
  for (const std::string& text : texts) {
    FL_TRY(const Uuid id, parse_id("a member", text));
    if (members.has(id)) return invalid(fmt::format("member {} is named twice", text));
    if (members.is_full()) return invalid(fmt::format("a volume has at most {} members", mirror::kMembersMax));
    members.add(id);
  }
  return members;
}

Outcome<ReplicaPlace> parse_place(const v1::ReplicaPlace& place) {
  ReplicaPlace parsed;
  FL_TRY(parsed.replica, parse_id("a replica", place.replica()));
  if (place.address().empty()) return parsed;
  const Result<SocketAddress> address = parse_socket_address(place.address(), 0);
  if (!address || address->port == 0) {
    return invalid(fmt::format("the address \"{}\" of replica {} is none: give ADDR:PORT, in numbers", place.address(),
                               place.replica()));
  }
  parsed.address = *address;
  return parsed;
}

}  // namespace

Outcome<Uuid> parse_id(std::string_view what, const std::string& text) {
  const Result<Uuid> id = parse_uuid(text);
  if (!id || id->is_nil()) {
    return invalid(
        fmt::format("\"{}\" is no id of {}: give a UUID, as xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", text, what));
  }
  return *id;
}

Outcome<void> check_size(std::string_view what, uint64_t size_bytes) {
  if (size_bytes != 0 && size_bytes % kSizeUnit == 0 && size_bytes <= kSizeMax) return {};
  return invalid(
      fmt::format("{} cannot have {} bytes: give a multiple of 4 KiB, from 4 KiB to 64 PiB", what, size_bytes));
}

Outcome<Duration> parse_limit(uint64_t limit_ms) {
  if (limit_ms > kLimitMsMax) return invalid(fmt::format("limit_ms is {}: give at most {}", limit_ms, kLimitMsMax));
  return std::chrono::milliseconds(limit_ms == 0 ? kLimitMsDefault : limit_ms);
}

Outcome<void> check_pool_name(const std::string& name) {
  if (pool::is_valid_name(name)) return {};
  return invalid(
      fmt::format("\"{}\" is no name of a pool: give 1 to {} letters, digits, '.', '_' or '-', with a letter or "
                  "digit first",
                  name, pool::kNameBytesMax));
}

Outcome<std::vector<std::string>> parse_paths(const google::protobuf::RepeatedPtrField<std::string>& disks) {
  std::vector<std::string> paths;
  if (static_cast<size_t>(disks.size()) > pool::kDisksMax) {
    return invalid(fmt::format("a pool has at most {} disks", pool::kDisksMax));
  }
  for (const std::string& path : disks) {
    if (path.empty() || path[0] != '/' || path.find('\0') != std::string::npos) {
      return invalid(fmt::format("disk \"{}\": give an absolute path", path));
    }
    if (std::ranges::find(paths, path) != paths.end()) return invalid(fmt::format("disk {} is named twice", path));
    paths.push_back(path);
  }
  return paths;
}

Outcome<void> check_file_size(uint64_t size_bytes) {
  if (size_bytes % kSizeUnit == 0) return {};
  return invalid(fmt::format("file_size_bytes is {}: give a multiple of 4 KiB", size_bytes));
}

Outcome<std::map<std::string, std::string>> parse_labels(
    const google::protobuf::Map<std::string, std::string>& labels) {
  if (labels.size() > pool::kLabelsMax) return invalid(fmt::format("a pool has at most {} labels", pool::kLabelsMax));
  std::map<std::string, std::string> parsed;
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > pool::kLabelBytesMax || value.size() > pool::kLabelBytesMax) {
      return invalid(
          fmt::format("label \"{}\": a key has 1 to {} bytes, a value at most as many", key, pool::kLabelBytesMax));
    }
    parsed.emplace(key, value);
  }
  return parsed;
}

Outcome<NewReplica> parse(const v1::CreateReplicaRequest& request) {
  NewReplica replica;
  FL_TRY(replica.id, parse_id("a replica", request.id()));
  FL_TRY(replica.volume, parse_id("a volume", request.volume()));
  FL_TRY(replica.members, parse_members(request.members()));
  replica.name = to_string(replica.id);
  replica.pool = request.pool();
  replica.is_thick = request.is_thick();
  replica.size_bytes = request.size_bytes();
  for (const auto& [key, value] : request.annotations()) replica.annotations.emplace(key, value);
  if (!replica.members.empty() && !replica.members.has(replica.id)) {
    return invalid(fmt::format("replica {} is not among the members that its volume begins with", replica.name));
  }
  if (const Result<void> good = check(replica.annotations); !good) return invalid(good.error().what);
  if (request.origin_snapshot().empty() != request.origin_replica().empty()) {
    return invalid("a clone names both: origin_replica and origin_snapshot");
  }
  if (request.origin_snapshot().empty()) {
    FL_TRY_VOID(check_size("a replica", request.size_bytes()));
    return replica;
  }
  SnapshotPlace origin;
  FL_TRY(origin.replica, parse_id("the origin's replica", request.origin_replica()));
  FL_TRY(origin.snapshot, parse_id("the origin's snapshot", request.origin_snapshot()));
  replica.clone_of = origin;
  if (replica.members.empty()) return invalid("a clone is one of the members that its volume begins with: name them");
  if (replica.is_thick) return invalid("a clone is thin: leave is_thick away");
  return replica;
}

Outcome<NewVolume> parse(const v1::OpenVolumeRequest& request) {
  NewVolume volume;
  FL_TRY(volume.id, parse_id("a volume", request.id()));
  FL_TRY_VOID(check_size("a volume", request.size_bytes()));
  volume.size_bytes = request.size_bytes();
  if (request.places().empty() || static_cast<size_t>(request.places().size()) > mirror::kMembersMax) {
    return invalid(fmt::format("volume {} has {} replicas: give the places of 1 to {}", request.id(),
                               request.places().size(), mirror::kMembersMax));
  }
  for (const v1::ReplicaPlace& each : request.places()) {
    FL_TRY(const ReplicaPlace place, parse_place(each));
    volume.replicas.push_back(place);
  }
  if (request.allowed_hosts().size() > kHostsMax) {
    return invalid(fmt::format("a volume has at most {} allowed hosts", kHostsMax));
  }
  if (request.resync_share() > 100) {
    return invalid(fmt::format("a share of {} percent is more than all", request.resync_share()));
  }
  volume.resync_share = request.resync_share();
  volume.allowed_hosts.assign(request.allowed_hosts().begin(), request.allowed_hosts().end());
  return volume;
}

}  // namespace fairlead::engine
