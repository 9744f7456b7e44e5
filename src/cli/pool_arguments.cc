#include "cli/pool_arguments.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "base/units.h"

namespace fairlead::cli {
namespace {

constexpr uint64_t kBlockBytes = 4096;  // sizes of files and replicas are multiples of it: any host can use them

// A size of whole blocks, not 0.
std::expected<uint64_t, Complaint> parse_blocks(std::string_view option, std::string_view text) {
  const std::string argument = fmt::format("{} {}", option, text);
  const Result<uint64_t> parsed = parse_size(text);
  if (!parsed) return complain_about(argument, parsed.error());
  if (*parsed == 0 || *parsed % kBlockBytes != 0) {
    return std::unexpected(fmt::format("{}: must be a multiple of 4 KiB, and not 0", argument));
  }
  return *parsed;
}

std::expected<void, Complaint> check_name(std::string_view name) {
  if (pool::is_valid_name(name)) return {};
  return std::unexpected(
      fmt::format("{}: a name has 1 to {} letters, digits, '.', '_' and '-', and does not begin with '.' or '-'", name,
                  pool::kNameBytesMax));
}

std::vector<OpenDisk> disks_of(const std::vector<std::string>& paths, Access access,
                               std::optional<uint64_t> size = std::nullopt) {
  std::vector<OpenDisk> disks;
  for (const std::string& path : paths) disks.push_back({.path = path, .access = access, .size_bytes = size});
  return disks;
}

std::expected<pool::Label, Complaint> parse_label(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return std::unexpected(fmt::format("--label {}: expected KEY=VALUE", text));
  }
  if (equals > pool::kLabelBytesMax || text.size() - equals - 1 > pool::kLabelBytesMax) {
    return std::unexpected(
        fmt::format("--label {}: key and value have at most {} bytes each", text, pool::kLabelBytesMax));
  }
  return pool::Label{std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

std::expected<uint32_t, Complaint> parse_extent(const std::string& text) {
  if (text.empty()) return pool::kExtentBytesDefault;
  const Result<uint64_t> parsed = parse_size(text);
  if (!parsed) return complain_about(fmt::format("--extent {}", text), parsed.error());
  if (!is_power_of_two(*parsed) || *parsed < pool::kExtentBytesMin || *parsed > pool::kExtentBytesMax) {
    return std::unexpected(fmt::format("--extent {}: must be a power of two from {} to {}", text,
                                       format_size(pool::kExtentBytesMin), format_size(pool::kExtentBytesMax)));
  }
  return static_cast<uint32_t>(*parsed);
}

// 0: the default. Whether the disks' blocks fit is found where they are open.
std::expected<uint32_t, Complaint> parse_unit(const std::string& text, uint32_t extent) {
  if (text.empty()) return 0;
  const Result<uint64_t> parsed = parse_size(text);
  if (!parsed) return complain_about(fmt::format("--unit {}", text), parsed.error());
  const uint64_t least = std::max<uint64_t>(uint64_t{512}, extent / pool::kUnitsMax);
  if (!is_power_of_two(*parsed) || *parsed < least || *parsed > extent) {
    return std::unexpected(fmt::format("--unit {}: must be a power of two from {} to {} in extents of {}", text,
                                       format_size(least), format_size(extent), format_size(extent)));
  }
  return static_cast<uint32_t>(*parsed);
}

// Whether the command looks only. A pool that is imported is written to, so `show` is not one of them.
bool reads_only(PoolAction action) {
  return action == PoolAction::kList || action == PoolAction::kInspect || action == PoolAction::kCheck ||
         action == PoolAction::kAccept;
}

std::expected<void, Complaint> check_labels(const ObjectArguments& arguments, ObjectPlan& plan) {
  for (const std::string& text : arguments.labels) {
    auto label = parse_label(text);
    if (!label) return std::unexpected(label.error());
    if (std::ranges::find(plan.labels, label->key, &pool::Label::key) != plan.labels.end()) {
      return std::unexpected(fmt::format("--label {}: {} is given twice", text, label->key));
    }
    plan.labels.push_back(std::move(*label));
  }
  std::ranges::sort(plan.labels, {}, &pool::Label::key);
  if (arguments.volume_id.empty()) return {};
  const Result<Uuid> id = parse_uuid(arguments.volume_id);
  if (!id) return complain_about(fmt::format("--volume-id {}", arguments.volume_id), id.error());
  plan.volume_id = *id;
  return {};
}

std::expected<void, Complaint> check_object_size(const ObjectArguments& arguments, ObjectPlan& plan) {
  const bool is_resize = arguments.action == ObjectAction::kResizeReplica;
  if (arguments.action == ObjectAction::kCreateReplica && arguments.size.empty() && arguments.origin.empty()) {
    return std::unexpected("give --size SIZE, or --from SNAPSHOT");
  }
  if (arguments.thick && !arguments.origin.empty()) {
    return std::unexpected("--thick: what is made from a snapshot is thin");
  }
  if (arguments.size.empty() && !is_resize) return {};
  const auto size = parse_blocks(is_resize ? "SIZE" : "--size", arguments.size);
  if (!size) return std::unexpected(size.error());
  plan.size_bytes = *size;
  return {};
}

}  // namespace

std::string_view command_name(PoolAction action) {
  constexpr std::array<std::string_view, 8> kNames = {
      "offline pool create",  "offline pool destroy", "offline pool list", "offline pool show",
      "offline pool inspect", "offline pool check",   "offline pool grow", "offline pool accept"};
  return kNames.at(static_cast<size_t>(action));
}

std::string_view command_name(ObjectAction action) {
  constexpr std::array<std::string_view, 9> kNames = {
      "offline replica create",  "offline replica resize",  "offline replica set",
      "offline replica delete",  "offline replica list",    "offline replica checksum",
      "offline snapshot create", "offline snapshot delete", "offline snapshot list"};
  return kNames.at(static_cast<size_t>(action));
}

std::expected<PoolPlan, Complaint> check(const PoolArguments& arguments) {
  PoolPlan plan;
  plan.action = arguments.action;
  plan.force = arguments.force;
  plan.state_directory = arguments.state_directory;
  plan.json = arguments.json;
  if (arguments.disks.empty()) return std::unexpected("give the pool's disks: files, partitions or block devices");
  std::optional<uint64_t> size;
  if (!arguments.size.empty()) {
    const auto parsed = parse_blocks("--size", arguments.size);
    if (!parsed) return std::unexpected(parsed.error());
    size = *parsed;
  }
  const Access access = reads_only(arguments.action) ? Access::kReadOnly : Access::kReadWrite;
  const bool is_create = arguments.action == PoolAction::kCreate;
  plan.disks = disks_of(arguments.disks, access, is_create ? size : std::nullopt);
  plan.add = disks_of(arguments.add, Access::kReadWrite, size);
  if (arguments.action == PoolAction::kGrow && size && arguments.add.empty()) {
    return std::unexpected("--size: is for files that --add makes");
  }
  if (!is_create) return plan;
  if (const auto name = check_name(arguments.name); !name) return std::unexpected(name.error());
  const auto extent = parse_extent(arguments.extent);
  if (!extent) return std::unexpected(extent.error());
  const auto unit = parse_unit(arguments.unit, *extent);
  if (!unit) return std::unexpected(unit.error());
  plan.create.name = arguments.name;
  plan.create.extent_bytes = *extent;
  plan.create.unit_bytes = *unit;
  plan.create.blank = arguments.force ? pool::Blank::kNotRequired : pool::Blank::kRequired;
  return plan;
}

std::expected<ObjectPlan, Complaint> check(const ObjectArguments& arguments) {
  ObjectPlan plan;
  plan.action = arguments.action;
  plan.name = arguments.name;
  plan.origin = arguments.origin;
  plan.is_thick = arguments.thick;
  plan.shrink = arguments.lose_data ? pool::Pool::Shrink::kLoseData : pool::Pool::Shrink::kRefuse;
  plan.json = arguments.json;
  if (arguments.pool.empty()) return std::unexpected("give the pool's disks: --pool DISK[,DISK…]");
  plan.disks = disks_of(arguments.pool, Access::kReadWrite);
  const bool makes_one =
      arguments.action == ObjectAction::kCreateReplica || arguments.action == ObjectAction::kCreateSnapshot;
  if (makes_one) {
    if (const auto name = check_name(arguments.name); !name) return std::unexpected(name.error());
  }
  if (const auto size = check_object_size(arguments, plan); !size) return std::unexpected(size.error());
  if (const auto labels = check_labels(arguments, plan); !labels) return std::unexpected(labels.error());
  if (arguments.action == ObjectAction::kSetReplica && plan.labels.empty() && !plan.volume_id) {
    return std::unexpected("give --label KEY=VALUE or --volume-id UUID");
  }
  return plan;
}

}  // namespace fairlead::cli
