#include "control/resources.h"

#include <array>
#include <fmt/format.h>

#include "base/units.h"

namespace fairlead::control {
namespace {

constexpr size_t kNameMax = 63;
constexpr size_t kLabelsMax = 64;
constexpr size_t kLabelKeyMax = 253;
constexpr size_t kHostsMax = 256;
constexpr size_t kNqnMax = 223;  // NVMe base 2.0 section 4.5

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

template <typename... Arguments>
std::unexpected<Problem> invalid(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(Code::kInvalidArgument, fmt::format(format, std::forward<Arguments>(arguments)...));
}

bool is_label_text(std::string_view text, size_t max, std::string_view more) {
  if (text.size() > max) return false;
  return std::ranges::all_of(
      text, [&](char c) { return is_word(c) || (c >= 'A' && c <= 'Z') || more.find(c) != std::string_view::npos; });
}

Outcome<void> check_topology(const Topology& topology) {
  FL_TRY_VOID(check_labels(topology.affinity));
  FL_TRY_VOID(check_labels(topology.anti_affinity));
  for (const std::string& key : topology.spread_over) {
    if (key.empty() || !is_label_text(key, kLabelKeyMax, "-_./")) {
      return invalid("topology.spread_over: '{}' is no key of a label", key);
    }
  }
  for (const auto& [key, value] : topology.affinity) {
    const auto against = topology.anti_affinity.find(key);
    if (against != topology.anti_affinity.end() && against->second == value) {
      return invalid("topology: no node can have and not have the label {}={}", key, value);
    }
  }
  if (!topology.group.empty()) FL_TRY_VOID(check_name("topology.group", topology.group));
  return {};
}

}  // namespace

std::span<const std::string_view> names_of(PlacedReplica::Stage) {
  static constexpr std::array<std::string_view, 3> kNames = {"creating", "present", "leaving"};
  return kNames;
}

std::span<const std::string_view> names_of(Rebalance) {
  static constexpr std::array<std::string_view, 3> kNames = {"off", "suggest", "on"};
  return kNames;
}

Outcome<void> check_name(std::string_view what, std::string_view name) {
  const bool is_good = !name.empty() && name.size() <= kNameMax && is_word(name.front()) && is_word(name.back()) &&
                       std::ranges::all_of(name, [](char c) { return is_word(c) || c == '-' || c == '.'; });
  if (is_good) return {};
  return invalid("{} '{}': a name has 1 to {} of a-z, 0-9, '-' and '.', and begins and ends with a letter or digit",
                 what, name.substr(0, 80), kNameMax);
}

Outcome<void> check_labels(const Labels& labels) {
  if (labels.size() > kLabelsMax) return invalid("there are {} labels; {} are possible", labels.size(), kLabelsMax);
  for (const auto& [key, value] : labels) {
    if (key.empty() || !is_label_text(key, kLabelKeyMax, "-_./")) {
      return invalid("label '{}': a key has 1 to {} of letters, digits, '-', '_', '.' and '/'", key, kLabelKeyMax);
    }
    if (!is_label_text(value, kNameMax, "-_.")) {
      return invalid(
          "label {}: the value '{}' has more than {} characters, or others than letters, digits, '-', '_', '.'", key,
          value, kNameMax);
    }
  }
  return {};
}

Outcome<void> check(const VolumeSpec& spec) {
  if (spec.size_bytes < kVolumeBytesMin || spec.size_bytes % kVolumeBytesUnit != 0) {
    return invalid("size_bytes: {} is not a multiple of 4 KiB from 1 MiB on", spec.size_bytes);
  }
  if (spec.replicas < 1 || spec.replicas > kReplicasMax) {
    return invalid("replicas: a volume has 1 to {}, not {}", kReplicasMax, spec.replicas);
  }
  if (spec.snapshot_limit > kSnapshotLimitMax) {
    return invalid("snapshot_limit: {} is above {}", spec.snapshot_limit, kSnapshotLimitMax);
  }
  if (spec.resync_share > 100) return invalid("resync_share: {} percent is more than all", spec.resync_share);
  if (!spec.preferred_node.empty()) FL_TRY_VOID(check_name("preferred_node", spec.preferred_node));
  if (!spec.source.empty()) FL_TRY_VOID(check_name("source", spec.source));
  if (spec.allowed_hosts.size() > kHostsMax) {
    return invalid("allowed_hosts: {} are named; {} are possible", spec.allowed_hosts.size(), kHostsMax);
  }
  for (const std::string& host : spec.allowed_hosts) {
    if (!host.starts_with("nqn.") || host.size() > kNqnMax) {
      return invalid("allowed_hosts: '{}' is no NQN; a host's is in /etc/nvme/hostnqn", host);
    }
  }
  return check_topology(spec.topology);
}

Outcome<void> check(const PoolSpec& spec) {
  FL_TRY_VOID(check_name("node", spec.node));
  if (spec.disks.empty()) return invalid("disks: a pool has one disk at least");
  for (const std::string& disk : spec.disks) {
    if (!disk.starts_with('/')) return invalid("disks: '{}' is no absolute path", disk);
  }
  if (spec.file_size_bytes % kVolumeBytesUnit != 0) {
    return invalid("file_size_bytes: {} is no multiple of 4 KiB", spec.file_size_bytes);
  }
  return {};
}

Outcome<void> check_change(const VolumeSpec& from, const VolumeSpec& to) {
  FL_TRY_VOID(check(to));
  if (to.size_bytes < from.size_bytes) {
    return invalid("size_bytes: a volume does not shrink; it has {}", format_size(from.size_bytes));
  }
  if (to.source != from.source) return invalid("source: what a volume began as does not change");
  if (to.is_thin != from.is_thin) return invalid("thin: this does not change while the volume is there");
  return {};
}

std::string key_of(std::string_view kind, std::string_view name) { return fmt::format("{}/{}", kind, name); }

}  // namespace fairlead::control
