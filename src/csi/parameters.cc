#include "csi/parameters.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <string_view>

#include "base/units.h"
#include "csi/names.h"

namespace fairlead::csi {
namespace {

constexpr uint32_t kReplicasMax = 7;
constexpr uint32_t kSnapshotsMax = 500;
constexpr uint32_t kIoQueuesMax = 128;
constexpr uint32_t kIoTimeoutSecondsMax = 3600;
constexpr const char* kKnown =
    "replicas, thin, fsType, formatOptions, spreadOver, affinity, antiAffinity, group, snapshotLimit, resyncShare, "
    "ioQueues and ioTimeout";

template <typename... Arguments>
std::unexpected<Problem> refuse(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(Code::kInvalidArgument, fmt::format(format, std::forward<Arguments>(arguments)...));
}

struct Bounds {
  uint32_t min;
  uint32_t max;
};
Outcome<uint32_t> parse_count(const std::string& key, const std::string& text, Bounds bounds) {
  uint32_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size() || value < bounds.min || value > bounds.max) {
    return refuse("{}: expected a number from {} to {}, not '{}'", key, bounds.min, bounds.max, text);
  }
  return value;
}

Outcome<bool> parse_truth(const std::string& key, const std::string& text) {
  if (text == "true" || text == "yes") return true;
  if (text == "false" || text == "no") return false;
  return refuse("{}: expected true or false, not '{}'", key, text);
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\r").find(text.front()) != std::string_view::npos) text.remove_prefix(1);
  while (!text.empty() && std::string_view(" \t\r").find(text.back()) != std::string_view::npos) text.remove_suffix(1);
  return text;
}

// Parted by commas, or one a line.
std::vector<std::string> parse_list(std::string_view text) {
  std::vector<std::string> all;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of(",\n"), text.size());
    const std::string_view one = trimmed(text.substr(0, end));
    if (!one.empty()) all.emplace_back(one);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return all;
}

// "zone=a,rack=b", or as others write it, "zone: a" a line.
Outcome<Texts> parse_labels(const std::string& key, std::string_view text) {
  Texts labels;
  for (const std::string& one : parse_list(text)) {
    const size_t mark = one.find_first_of("=:");
    const std::string name(trimmed(std::string_view(one).substr(0, mark)));
    if (mark == std::string::npos || name.empty()) return refuse("{}: expected LABEL=VALUE, not '{}'", key, one);
    labels[name] = trimmed(std::string_view(one).substr(mark + 1));
  }
  return labels;
}

// Claims of one StatefulSet are called alike but for the number at the end.
std::string set_of(std::string_view claim) {
  const size_t dash = claim.rfind('-');
  const bool has_number = dash != std::string_view::npos && dash + 1 < claim.size() &&
                          std::ranges::all_of(claim.substr(dash + 1), [](char c) { return c >= '0' && c <= '9'; });
  return std::string(has_number ? claim.substr(0, dash) : claim);
}

// True: it was one of these.
Outcome<bool> take_mutable(const std::string& key, const std::string& value, MutableParameters& into) {
  if (key == "replicas" || key == "repl") {
    FL_TRY(into.replicas, parse_count(key, value, {1, kReplicasMax}));
  } else if (key == "snapshotLimit" || key == "maxSnapshots") {
    FL_TRY(into.snapshot_limit, parse_count(key, value, {0, kSnapshotsMax}));
  } else if (key == "resyncShare") {
    FL_TRY(into.resync_share, parse_count(key, value, {0, 100}));
  } else {
    return false;
  }
  return true;
}

Outcome<bool> take_placement(const std::string& key, const std::string& value, VolumeParameters& into) {
  if (key == "spreadOver" || key == "nodeSpreadTopologyKey") {
    into.spread_over = parse_list(value);
  } else if (key == "affinity" || key == "nodeAffinityTopologyLabel") {
    FL_TRY(into.affinity, parse_labels(key, value));
  } else if (key == "antiAffinity") {
    FL_TRY(into.anti_affinity, parse_labels(key, value));
  } else if (key == "group") {
    FL_TRY(into.group, resource_name(value));
  } else if (key == "thin") {
    FL_TRY(into.is_thin, parse_truth(key, value));
  } else {
    return false;
  }
  return true;
}

Outcome<bool> take_context(const std::string& key, const std::string& value, VolumeParameters& into) {
  std::string kept = value;
  std::string name = key;
  if (key == kContextFsType || key == "fstype" || key == "csi.storage.k8s.io/fstype") {
    FL_TRY_VOID(check_fs_type(value));
    name = kContextFsType;
  } else if (key == kContextIoQueues) {
    FL_TRY(const uint32_t queues, parse_count(key, value, {1, kIoQueuesMax}));
    kept = fmt::format("{}", queues);
  } else if (key == kContextIoTimeout) {
    FL_TRY(const uint32_t seconds, parse_count(key, value, {1, kIoTimeoutSecondsMax}));
    kept = fmt::format("{}", seconds);
  } else if (key != kContextFormatOptions) {
    return false;
  }
  if (const auto fits = label_value(kept); !fits) return refuse("{}: {}", key, to_string(fits.error()));
  into.context[name] = kept;
  return true;
}

}  // namespace

Outcome<void> check_fs_type(const std::string& fs_type) {
  if (fs_type == "ext4" || fs_type == "xfs" || fs_type == "btrfs") return {};
  return refuse("fsType: expected ext4, xfs or btrfs, not '{}'", fs_type);
}

uint64_t least_bytes_of(const std::string& fs_type) {
  if (fs_type == "xfs") return 300 * kMiB;
  return fs_type == "btrfs" ? 256 * kMiB : 0;
}

Outcome<VolumeParameters> parse_parameters(const Texts& parameters) {
  VolumeParameters parsed;
  bool keeps_set_apart = false;
  for (const auto& [key, value] : parameters) {
    FL_TRY(bool is_taken, take_mutable(key, value, parsed.changing));
    if (!is_taken) {
      FL_TRY(is_taken, take_placement(key, value, parsed));
    }
    if (!is_taken) {
      FL_TRY(is_taken, take_context(key, value, parsed));
    }
    if (is_taken) continue;
    if (key == "stsAffinityGroup") {
      FL_TRY(keeps_set_apart, parse_truth(key, value));
    } else if (key == "protocol") {
      if (value != "nvmf") return refuse("protocol: expected nvmf, the only one, not '{}'", value);
    } else if (key == "csi.storage.k8s.io/pvc/name") {
      parsed.claim = value;
    } else if (key == "csi.storage.k8s.io/pvc/namespace") {
      parsed.claim_namespace = value;
    } else if (key == "csi.storage.k8s.io/pv/name") {
      parsed.persistent_volume = value;
    } else if (!key.starts_with("csi.storage.k8s.io/")) {
      return refuse("parameter {}: is not known; known are {}", key, kKnown);
    }
  }
  if (!keeps_set_apart) return parsed;
  if (parsed.claim.empty()) {
    return refuse(
        "stsAffinityGroup: the claim's name is not told; the external-provisioner needs --extra-create-metadata");
  }
  FL_TRY(parsed.group, resource_name(fmt::format("{}.{}", parsed.claim_namespace, set_of(parsed.claim))));
  return parsed;
}

Outcome<MutableParameters> parse_mutable_parameters(const Texts& parameters) {
  MutableParameters parsed;
  for (const auto& [key, value] : parameters) {
    FL_TRY(const bool is_taken, take_mutable(key, value, parsed));
    if (!is_taken) return refuse("parameter {}: cannot be changed; replicas, snapshotLimit and resyncShare can", key);
  }
  return parsed;
}

Outcome<Quiesce> parse_snapshot_parameters(const Texts& parameters) {
  Quiesce quiesce = Quiesce::kNone;
  for (const auto& [key, value] : parameters) {
    if (key.starts_with("csi.storage.k8s.io/")) continue;
    if (key != "quiesceFs") return refuse("parameter {}: is not known; snapshots take quiesceFs", key);
    if (value != "freeze" && value != "none") return refuse("quiesceFs: expected freeze or none, not '{}'", value);
    quiesce = value == "freeze" ? Quiesce::kFreeze : Quiesce::kNone;
  }
  return quiesce;
}

Outcome<void> check_group_parameters(const Texts& parameters) {
  for (const auto& [key, value] : parameters) {
    if (!key.starts_with("csi.storage.k8s.io/")) return refuse("parameter {}: is not known; groups take none", key);
  }
  return {};
}

}  // namespace fairlead::csi
