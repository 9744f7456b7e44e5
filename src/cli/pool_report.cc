#include "cli/pool_report.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <map>
#include <nlohmann/json.hpp>

#include "base/units.h"

namespace fairlead::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string_view kind_name(pool::ObjectKind kind) {
  return kind == pool::ObjectKind::kSnapshot ? "snapshot" : "replica";
}

// The columns of a table, as wide as what they hold. The first line is the head.
std::string to_columns(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    std::string row;
    for (size_t i = 0; i < line.size(); ++i) row += fmt::format("{:<{}}  ", line[i], widths[i]);
    text += row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string labels_of(const pool::ObjectState& state) {
  std::vector<std::string> labels;
  for (const pool::Label& label : state.labels) labels.push_back(to_text(label));
  return fmt::format("{}", fmt::join(labels, " "));
}

std::string origin_of(const ObjectLine& line) {
  if (line.info.state.origin.is_nil()) return "-";
  return line.origin.empty() ? "(deleted)" : line.origin;
}

Json to_json_value(const ObjectLine& line) {
  const pool::ObjectState& state = line.info.state;
  Json labels = Json::object();
  for (const pool::Label& label : state.labels) labels[label.key] = label.value;
  Json json = {{"name", state.name},
               {"id", to_string(state.id)},
               {"kind", kind_name(state.kind)},
               {"size_bytes", state.size_bytes},
               {"used_bytes", line.info.used_bytes},
               {"unique_bytes", nullptr},
               {"thick", state.is_thick},
               {"origin", state.origin.is_nil() ? Json() : Json(to_string(state.origin))},
               {"volume_id", state.volume_id.is_nil() ? Json() : Json(to_string(state.volume_id))},
               {"created_ms", state.created_ms},
               {"open_devices", line.info.open_devices},
               {"labels", labels}};
  if (line.unique_bytes) json["unique_bytes"] = *line.unique_bytes;
  return json;
}

Json statistics_value(const pool::PoolStatistics& statistics) {
  return {{"capacity_bytes", statistics.capacity_bytes},   {"used_bytes", statistics.used_bytes},
          {"free_bytes", statistics.free_bytes},           {"reserved_bytes", statistics.reserved_bytes},
          {"releasing_bytes", statistics.releasing_bytes}, {"metadata_bytes", statistics.metadata_bytes},
          {"cache_bytes", statistics.cache_bytes},         {"journal_used_bytes", statistics.journal_used_bytes},
          {"checkpoints", statistics.checkpoints},         {"repaired_copies", statistics.repaired_copies},
          {"bad_superblocks", statistics.bad_superblocks}};
}

Json objects_value(const std::vector<ObjectLine>& objects) {
  Json array = Json::array();
  for (const ObjectLine& line : objects) array.push_back(to_json_value(line));
  return array;
}

std::string state_of(const pool::Superblock& superblock) {
  if (superblock.is_destroyed) return "destroyed";
  return superblock.is_exported ? "exported" : "in use, or not closed in order";
}

using Pools = std::map<Uuid, std::vector<const DiskLine*>>;

Pools by_pool(const std::vector<DiskLine>& disks) {
  Pools pools;
  for (const DiskLine& disk : disks) {
    if (disk.superblock) pools[disk.superblock->pool_id].push_back(&disk);
  }
  return pools;
}

const pool::Superblock& newest_of(const std::vector<const DiskLine*>& disks) {
  return *(*std::ranges::max_element(disks, {}, [](const DiskLine* disk) {
            return disk->superblock->generation;
          }))->superblock;
}

uint64_t extents_of(const pool::Superblock& superblock) {
  uint64_t extents = 0;
  for (const pool::Segment& segment : superblock.segments) extents += segment.count;
  return extents;
}

}  // namespace

std::string about(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  if (const std::string exact = format_size(bytes); exact.size() <= 8) return exact;
  size_t unit = 0;
  auto value = static_cast<double>(bytes);
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, kUnits.at(unit));
}

std::string to_text(const pool::Label& label) {
  std::string text = label.key + "=" + label.value;
  std::ranges::replace_if(text, [](char byte) { return (byte >= 0 && byte < ' ') || byte == '\x7f'; }, '?');
  return text;
}

// ---- Objects

std::string objects_to_text(const std::vector<ObjectLine>& objects) {
  std::vector<std::vector<std::string>> lines = {{"NAME", "KIND", "SIZE", "USED", "UNIQUE", "FROM", "LABELS"}};
  for (const ObjectLine& line : objects) {
    const pool::ObjectState& state = line.info.state;
    lines.push_back({state.name, std::string(kind_name(state.kind)) + (state.is_thick ? ", thick" : ""),
                     about(state.size_bytes), about(line.info.used_bytes),
                     line.unique_bytes ? about(*line.unique_bytes) : "?", origin_of(line), labels_of(state)});
  }
  return to_columns(lines);
}

std::string objects_to_json(const std::vector<ObjectLine>& objects) {
  return objects_value(objects).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string statistics_to_json(const pool::PoolStatistics& statistics) { return statistics_value(statistics).dump(); }

std::string served_to_json(const std::vector<ServedLine>& objects) {
  Json array = Json::array();
  for (const ServedLine& line : objects) {
    Json object = to_json_value(line.object);
    object["nsid"] = line.nsid == 0 ? Json() : Json(line.nsid);
    array.push_back(std::move(object));
  }
  return array.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// ---- A pool

std::string to_text(const PoolView& view) {
  const pool::PoolStatistics& statistics = view.statistics;
  std::string text = fmt::format("pool {} ({})\n", view.name, to_string(view.id));
  const auto add = [&](std::string_view label, std::string_view value) {
    text += fmt::format("  {:<10} {}\n", label, value);
  };
  add("disks", fmt::format("{}", fmt::join(view.disks, ", ")));
  add("capacity", about(statistics.capacity_bytes));
  add("used",
      fmt::format("{}, of that {} by metadata", about(statistics.used_bytes), about(statistics.metadata_bytes)));
  add("free", about(statistics.free_bytes));
  add("reserved", about(statistics.reserved_bytes));
  if (statistics.releasing_bytes > 0) add("releasing", about(statistics.releasing_bytes));
  if (statistics.bad_superblocks > 0) {
    add("degraded", fmt::format("{} copies of superblocks cannot be written", statistics.bad_superblocks));
  }
  if (statistics.repaired_copies > 0) add("repaired", fmt::format("{} copies of metadata", statistics.repaired_copies));
  return text + "\n" + (view.objects.empty() ? "no replicas\n" : objects_to_text(view.objects));
}

std::string to_json(const PoolView& view) {
  const Json json = {{"name", view.name},
                     {"id", to_string(view.id)},
                     {"disks", view.disks},
                     {"statistics", statistics_value(view.statistics)},
                     {"objects", objects_value(view.objects)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

// ---- Disks

std::string to_text(const std::vector<DiskLine>& disks) {
  std::vector<std::vector<std::string>> lines = {{"POOL", "SIZE", "EXTENT", "DISKS", "STATE"}};
  std::string details;
  for (const auto& [id, members] : by_pool(disks)) {
    const pool::Superblock& newest = newest_of(members);
    std::vector<std::string> paths;
    for (const DiskLine* const disk : members) paths.push_back(disk->path);
    std::string state = state_of(newest);
    if (members.size() < newest.disks.size()) {
      state += fmt::format("; {} of its {} disks not given", newest.disks.size() - members.size(), newest.disks.size());
    }
    lines.push_back({newest.name, about(extents_of(newest) * newest.extent_bytes), about(newest.extent_bytes),
                     fmt::format("{}", fmt::join(paths, ",")), state});
  }
  for (const DiskLine& disk : disks) {
    if (!disk.superblock) details += fmt::format("{}: {}\n", disk.path, disk.trouble);
  }
  return (lines.size() > 1 ? to_columns(lines) : "") + details;
}

std::string to_json(const std::vector<DiskLine>& disks) {
  Json pools = Json::array();
  for (const auto& [id, members] : by_pool(disks)) {
    const pool::Superblock& newest = newest_of(members);
    Json paths = Json::array();
    for (const DiskLine* const disk : members) paths.push_back(disk->path);
    pools.push_back({{"name", newest.name},
                     {"id", to_string(newest.pool_id)},
                     {"size_bytes", extents_of(newest) * newest.extent_bytes},
                     {"extent_bytes", newest.extent_bytes},
                     {"disks", paths},
                     {"disks_total", newest.disks.size()},
                     {"exported", newest.is_exported}});
  }
  Json others = Json::array();
  for (const DiskLine& disk : disks) {
    if (!disk.superblock) others.push_back({{"path", disk.path}, {"trouble", disk.trouble}});
  }
  return Json{{"pools", pools}, {"others", others}}.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace fairlead::cli
