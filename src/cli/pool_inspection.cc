#include <algorithm>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <map>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "cli/pool_report.h"

namespace fairlead::cli {
namespace {

using Json = nlohmann::ordered_json;
using pool::CheckReport;

std::string when(uint64_t wall_ms) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(wall_ms / 1000)));
}

std::string_view kind_name(pool::ObjectKind kind) {
  return kind == pool::ObjectKind::kSnapshot ? "snapshot" : "replica";
}

std::string object_name(const CheckReport& report, const Uuid& id) {
  const auto found = std::ranges::find(report.objects, id, &pool::ObjectState::id);
  return found == report.objects.end() ? to_string(id) : fmt::format("{} {}", kind_name(found->kind), found->name);
}

std::string name_of(const CheckReport& report) { return report.superblock ? report.superblock->name : "(not known)"; }

// Damage first.
std::vector<const pool::Finding*> sorted_findings(const CheckReport& report) {
  std::vector<const pool::Finding*> findings;
  for (const auto severity : {pool::Severity::kDamage, pool::Severity::kRepair, pool::Severity::kOddity}) {
    for (const pool::Finding& finding : report.findings) {
      if (finding.severity == severity) findings.push_back(&finding);
    }
  }
  return findings;
}

std::string findings_text(const CheckReport& report) {
  std::string text;
  for (const pool::Finding* const finding : sorted_findings(report)) {
    text += fmt::format("{}: {}\n", severity_name(finding->severity), finding->text);
  }
  if (report.findings_left_out > 0) text += fmt::format("… and {} more\n", report.findings_left_out);
  return text;
}

// Empty when it is not known.
std::string summary_text(const CheckReport& report) {
  if (!report.is_state_known) return {};
  const pool::ExtentCounts& extents = report.extents;
  return fmt::format("objects {}; extents in use {} of {}: data {}, map pages {}, directory {}; journal batches {}\n",
                     report.objects.size(), extents.total - extents.free(), extents.total, extents.data, extents.pages,
                     extents.directory, report.journal.batches);
}

void add_disk(std::string& text, const pool::CheckedDisk& disk) {
  text += fmt::format("disk {}  {}, {}\n", disk.index ? fmt::to_string(*disk.index) : "?", disk.path,
                      format_size(disk.size_bytes));
  for (const pool::SuperblockCopy& copy : disk.copies) {
    text += fmt::format("  superblock at {}: ", copy.offset);
    if (!copy.superblock) {
      text += to_string(copy.error) + "\n";
      continue;
    }
    const pool::Superblock& superblock = *copy.superblock;
    text += fmt::format("generation {}, incarnation {:016x}{}{}\n", superblock.generation, superblock.incarnation,
                        superblock.is_exported ? ", exported" : "", superblock.is_destroyed ? ", destroyed" : "");
  }
}

void add_superblock(std::string& text, const CheckReport& report) {
  const pool::Superblock& superblock = *report.superblock;
  text += fmt::format(
      "  id {}, made {}\n  extents of {}, units of {}; logical blocks of {} B\n  last imported under boot {}\n",
      to_string(superblock.pool_id), when(superblock.created_ms), format_size(superblock.extent_bytes),
      format_size(superblock.unit_bytes), superblock.logical_block, to_string(superblock.boot_id));
}

void add_layout(std::string& text, const CheckReport& report) {
  const pool::Superblock& superblock = *report.superblock;
  text += "\nsegments\n";
  for (const pool::Segment& segment : superblock.segments) {
    text += fmt::format("  places {} to {}: disk {} from byte {} on\n", segment.first.value,
                        segment.first.value + segment.count - 1, segment.disk,
                        uint64_t{segment.disk_extent} * superblock.extent_bytes);
  }
  text += fmt::format("\njournal, {} each copy\n", format_size(superblock.journal_bytes));
  for (const pool::JournalArea& area : superblock.journal) {
    text += fmt::format("  disk {} from byte {} on\n", area.disk, area.offset);
  }
  text += fmt::format("  goes on at byte {} with batch {}, chain {:08x}\n", superblock.journal_position,
                      superblock.next_sequence.value, superblock.chain);
  text += fmt::format("  batches {}, records {}, dropped batches {}\n", report.journal.batches, report.journal.records,
                      report.journal.dropped);
  text += fmt::format("\ndirectory, {} B, CRC {:08x}\n", superblock.directory_bytes, superblock.directory_crc);
  for (const auto& copy : superblock.directory) {
    std::vector<uint32_t> places;
    for (const pool::Place place : copy) places.push_back(place.value);
    text += fmt::format("  places {}\n", fmt::join(places, ", "));
  }
}

// Each layer below its parent. Requires: what is in a circle, or has no parent that is there, is nobody's child here.
void add_layers(std::string& text, const CheckReport& report) {
  std::multimap<pool::LayerId, const pool::CheckedLayer*> children;
  for (const pool::CheckedLayer& layer : report.layers) children.emplace(layer.parent, &layer);
  std::vector<std::pair<const pool::CheckedLayer*, size_t>> waiting;  // and how deep: no recursion over chains
  const auto push_children = [&](pool::LayerId parent, size_t depth) {
    const auto [begin, end] = children.equal_range(parent);
    const size_t first = waiting.size();
    for (auto child = begin; child != end; ++child) waiting.emplace_back(child->second, depth);
    std::reverse(waiting.begin() + static_cast<std::ptrdiff_t>(first), waiting.end());
  };
  text += "\nlayers\n";
  push_children(pool::LayerId(0), 1);
  while (!waiting.empty()) {
    const auto [layer, depth] = waiting.back();
    waiting.pop_back();
    text += fmt::format("{:>{}}layer {}: {}; extents {}, entries {}\n", "", 2 * std::min<size_t>(depth, 40),
                        layer->id.value, layer->object ? object_name(report, *layer->object) : "of a deleted object",
                        layer->extents, layer->entries);
    push_children(layer->id, depth + 1);
  }
}

void add_objects(std::string& text, const CheckReport& report) {
  text += "\nobjects\n";
  for (const pool::ObjectState& object : report.objects) {
    text += fmt::format("  {} {} ({})\n", kind_name(object.kind), object.name, to_string(object.id));
    text += fmt::format("    {}{}, layer {}, made {}\n", format_size(object.size_bytes),
                        object.is_thick ? ", thick" : "", object.layer.value, when(object.created_ms));
    if (!object.origin.is_nil()) text += fmt::format("    from {}\n", object_name(report, object.origin));
    if (!object.volume_id.is_nil()) text += fmt::format("    of volume {}\n", to_string(object.volume_id));
    if (object.stamp.value != 0) text += fmt::format("    writes under stamp {}\n", object.stamp.value);
    for (const pool::Label& label : object.labels) text += fmt::format("    label {}\n", to_text(label));
    for (const pool::Property& property : object.properties) {
      text += fmt::format("    property {}: {} B\n", property.key, property.value.size());
    }
  }
}

void add_rest(std::string& text, const CheckReport& report) {
  text += fmt::format("\nstamps\n");
  for (const pool::StampRecord& stamp : report.stamps) {
    text += fmt::format("  {}: term {}, generation {}, writer {}, of {}\n", stamp.ordinal.value, stamp.stamp.term,
                        stamp.stamp.generation, to_string(stamp.stamp.writer), object_name(report, stamp.object));
  }
  text += fmt::format("\npage extents (map pages in use: {})\n", report.map_pages);
  for (size_t i = 0; i < report.page_extents.size(); ++i) {
    const auto& [first, second] = report.page_extents[i].places;
    if (first.value != 0) text += fmt::format("  {}: places {} and {}\n", i, first.value, second.value);
  }
}

Json findings_value(const CheckReport& report) {
  Json findings = Json::array();
  for (const pool::Finding* const finding : sorted_findings(report)) {
    findings.push_back({{"severity", severity_name(finding->severity)}, {"text", finding->text}});
  }
  return findings;
}

Json extents_value(const pool::ExtentCounts& extents) {
  return {{"total", extents.total},
          {"free", extents.free()},
          {"data", extents.data},
          {"pages", extents.pages},
          {"directory", extents.directory}};
}

Json journal_value(const CheckReport& report) {
  const pool::Superblock& superblock = *report.superblock;
  Json areas = Json::array();
  for (const pool::JournalArea& area : superblock.journal)
    areas.push_back({{"disk", area.disk}, {"offset", area.offset}});
  return {{"areas", areas},
          {"bytes", superblock.journal_bytes},
          {"next_sequence", superblock.next_sequence.value},
          {"position", superblock.journal_position},
          {"chain", superblock.chain},
          {"batches", report.journal.batches},
          {"records", report.journal.records},
          {"dropped", report.journal.dropped},
          {"same_boot", report.journal.is_same_boot}};
}

Json disks_value(const CheckReport& report) {
  Json disks = Json::array();
  for (const pool::CheckedDisk& disk : report.disks) {
    Json copies = Json::array();
    for (const pool::SuperblockCopy& copy : disk.copies) {
      Json json = {{"offset", copy.offset}};
      if (copy.superblock) {
        json["generation"] = copy.superblock->generation;
        json["incarnation"] = fmt::format("{:016x}", copy.superblock->incarnation);
        json["boot_id"] = to_string(copy.superblock->boot_id);
        json["exported"] = copy.superblock->is_exported;
        json["destroyed"] = copy.superblock->is_destroyed;
      } else {
        json["error"] = to_string(copy.error);
      }
      copies.push_back(std::move(json));
    }
    disks.push_back({{"path", disk.path},
                     {"size_bytes", disk.size_bytes},
                     {"index", disk.index ? Json(*disk.index) : Json()},
                     {"superblocks", copies}});
  }
  return disks;
}

Json segments_value(const pool::Superblock& superblock) {
  Json segments = Json::array();
  for (const pool::Segment& segment : superblock.segments) {
    segments.push_back({{"first", segment.first.value},
                        {"count", segment.count},
                        {"disk", segment.disk},
                        {"offset", uint64_t{segment.disk_extent} * superblock.extent_bytes}});
  }
  return segments;
}

Json directory_value(const pool::Superblock& superblock) {
  Json copies = Json::array();
  for (const auto& copy : superblock.directory) {
    Json places = Json::array();
    for (const pool::Place place : copy) places.push_back(place.value);
    copies.push_back(std::move(places));
  }
  return {{"bytes", superblock.directory_bytes}, {"crc", superblock.directory_crc}, {"copies", copies}};
}

Json layers_value(const CheckReport& report) {
  Json layers = Json::array();
  for (const pool::CheckedLayer& layer : report.layers) {
    layers.push_back({{"id", layer.id.value},
                      {"parent", layer.parent.value},
                      {"object", layer.object ? Json(to_string(*layer.object)) : Json()},
                      {"extents", layer.extents},
                      {"entries", layer.entries}});
  }
  return layers;
}

Json object_value(const pool::ObjectState& object) {
  Json labels = Json::object();
  for (const pool::Label& label : object.labels) labels[label.key] = label.value;
  Json properties = Json::array();
  for (const pool::Property& property : object.properties) {
    properties.push_back({{"key", property.key}, {"bytes", property.value.size()}});
  }
  return {{"id", to_string(object.id)},
          {"name", object.name},
          {"kind", kind_name(object.kind)},
          {"thick", object.is_thick},
          {"layer", object.layer.value},
          {"size_bytes", object.size_bytes},
          {"created_ms", object.created_ms},
          {"origin", object.origin.is_nil() ? Json() : Json(to_string(object.origin))},
          {"volume_id", object.volume_id.is_nil() ? Json() : Json(to_string(object.volume_id))},
          {"stamp", object.stamp.value},
          {"labels", labels},
          {"properties", properties}};
}

Json stamps_value(const CheckReport& report) {
  Json stamps = Json::array();
  for (const pool::StampRecord& stamp : report.stamps) {
    stamps.push_back({{"ordinal", stamp.ordinal.value},
                      {"object", to_string(stamp.object)},
                      {"term", stamp.stamp.term},
                      {"generation", stamp.stamp.generation},
                      {"writer", to_string(stamp.stamp.writer)}});
  }
  return stamps;
}

Json page_extents_value(const CheckReport& report) {
  Json extents = Json::array();
  for (size_t i = 0; i < report.page_extents.size(); ++i) {
    const auto& [first, second] = report.page_extents[i].places;
    if (first.value != 0) extents.push_back({{"number", i}, {"places", {first.value, second.value}}});
  }
  return extents;
}

// Names and labels in a pool are any bytes: what is no UTF-8 must not end the program.
std::string dumped(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace

std::string check_to_text(const CheckReport& report) {
  std::string verdict = "clean";
  if (!report.is_clean()) {
    verdict = fmt::format("damage {}, repairs {}, oddities {}", report.count(pool::Severity::kDamage),
                          report.count(pool::Severity::kRepair), report.count(pool::Severity::kOddity));
  }
  return fmt::format("{}pool {}: {}\n{}", findings_text(report), name_of(report), verdict, summary_text(report));
}

std::string check_to_json(const CheckReport& report) {
  return dumped({{"pool", report.superblock ? Json(report.superblock->name) : Json()},
                 {"id", report.superblock ? Json(to_string(report.superblock->pool_id)) : Json()},
                 {"clean", report.is_clean()},
                 {"findings", findings_value(report)},
                 {"findings_left_out", report.findings_left_out},
                 {"objects", report.objects.size()},
                 {"extents", extents_value(report.extents)},
                 {"journal_batches", report.journal.batches}});
}

std::string inspection_to_text(const CheckReport& report) {
  std::string text = fmt::format("pool {}\n", name_of(report));
  if (report.superblock) add_superblock(text, report);
  text += "\n";
  for (const pool::CheckedDisk& disk : report.disks) add_disk(text, disk);
  if (report.superblock) add_layout(text, report);
  if (report.is_state_known) {
    add_layers(text, report);
    add_objects(text, report);
    add_rest(text, report);
    text += "\n" + summary_text(report);
  }
  if (!report.is_clean()) text += "\n" + findings_text(report);
  return text;
}

std::string inspection_to_json(const CheckReport& report) {
  if (!report.superblock) return dumped({{"disks", disks_value(report)}, {"findings", findings_value(report)}});
  const pool::Superblock& superblock = *report.superblock;
  Json objects = Json::array();
  for (const pool::ObjectState& object : report.objects) objects.push_back(object_value(object));
  return dumped({{"pool", superblock.name},
                 {"id", to_string(superblock.pool_id)},
                 {"created_ms", superblock.created_ms},
                 {"extent_bytes", superblock.extent_bytes},
                 {"unit_bytes", superblock.unit_bytes},
                 {"logical_block", superblock.logical_block},
                 {"disks", disks_value(report)},
                 {"segments", segments_value(superblock)},
                 {"journal", journal_value(report)},
                 {"directory", directory_value(superblock)},
                 {"layers", layers_value(report)},
                 {"objects", objects},
                 {"stamps", stamps_value(report)},
                 {"page_extents", page_extents_value(report)},
                 {"map_pages", report.map_pages},
                 {"extents", extents_value(report.extents)},
                 {"findings", findings_value(report)}});
}

}  // namespace fairlead::cli
