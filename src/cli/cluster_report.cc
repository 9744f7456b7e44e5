#include "cli/cluster_report.h"

#include <algorithm>
#include <chrono>
#include <fmt/chrono.h>
#include <fmt/format.h>

#include "cli/pool_report.h"
#include "cli/yaml.h"

namespace fairlead::cli {
namespace {

constexpr size_t kBarColumns = 24;

Colour colour_of(std::string_view state) {
  for (const std::string_view good : {"ready", "online", "member", "serving"}) {
    if (state.starts_with(good)) return Colour::kGood;
  }
  for (const std::string_view bad : {"lost", "unavailable", "failed", "suspended", "away"}) {
    if (state.starts_with(bad)) return Colour::kBad;
  }
  return Colour::kWarning;
}

Cell state_cell(const std::string& state) { return {.text = state, .colour = colour_of(state)}; }

std::string size_text(const Json& json, std::string_view path) {
  return field(json, path).is_number() ? about(number_of(json, path)) : "";
}

std::string age_of(const Json& json, std::string_view path, const Look& look) {
  const uint64_t since = number_of(json, path);
  if (since == 0) return "";
  return age_text(look.now_ms > since ? look.now_ms - since : 0);
}

std::string labels_text(const Json& labels) {
  std::string text;
  for (const auto& [key, value] : labels.items()) {
    text += (text.empty() ? "" : ",") + key + "=" + (value.is_string() ? value.get<std::string>() : value.dump());
  }
  return text;
}

std::string joined(const Json& list) {
  std::string text;
  for (const Json& each : list) {
    text += (text.empty() ? "" : ",") + (each.is_string() ? each.get<std::string>() : each.dump());
  }
  return text;
}

std::string percent_text(double share) { return fmt::format("{} %", static_cast<int>(share * 100)); }

std::string used_text(const Json& pool) {
  const uint64_t capacity = number_of(pool, "status.capacity_bytes");
  if (capacity == 0) return "";
  const uint64_t used = number_of(pool, "status.used_bytes");
  return fmt::format("{} ({})", about(used), percent_text(static_cast<double>(used) / static_cast<double>(capacity)));
}

double share_of(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : std::min(1.0, static_cast<double>(part) / static_cast<double>(whole));
}

// "degraded, resync 43 %"
std::string volume_state(const Json& volume) {
  const Resync resync = resync_of(volume);
  std::string text = text_of(volume, "status.state");
  if (resync.replicas > 0) text += ", resync " + percent_text(share_of(resync.copied_bytes, resync.to_copy_bytes));
  return text;
}

// "2/3": in step, and wanted.
std::string replicas_text(const Json& volume) {
  const Json& replicas = field(volume, "status.replicas");
  const auto members =
      std::ranges::count_if(replicas, [](const Json& each) { return text_of(each, "state") == "member"; });
  return fmt::format("{}/{}", members, number_of(volume, "spec.replicas"));
}

std::string replica_state(const Json& replica) {
  std::string text = text_of(replica, "state");
  if (text == "resyncing") {
    text += " " + percent_text(share_of(number_of(replica, "copied_bytes"), number_of(replica, "to_copy_bytes")));
  }
  return text;
}

// ---- Rows

Row head_of(std::string_view kind, bool is_wide) {
  Row head;
  const auto add = [&](std::initializer_list<const char*> names) {
    for (const char* const name : names) head.push_back({.text = name});
  };
  if (kind == "nodes") {
    add({"NAME", "STATE", "TARGETS", "REPLICAS", "ADDRESS", "VERSION", "AGE"});
    if (is_wide) add({"MANAGEMENT", "LABELS", "WHY"});
  } else if (kind == "pools") {
    add({"NAME", "NODE", "STATE", "CAPACITY", "USED", "FREE", "REPLICAS", "AGE"});
    if (is_wide) add({"PROMISED", "DISKS", "LABELS", "WHY"});
  } else if (kind == "volumes") {
    add({"NAME", "STATE", "SIZE", "REPLICAS", "TARGET", "SNAPSHOTS", "AGE"});
    if (is_wide) add({"THIN", "SOURCE", "NQN", "LABELS"});
  } else if (kind == "snapshots") {
    add({"NAME", "VOLUME", "STATE", "SIZE", "TAKEN"});
    if (is_wide) add({"LABELS"});
  } else if (kind == "snapshot-groups") {
    add({"NAME", "VOLUMES", "STATE", "TAKEN"});
    if (is_wide) add({"LABELS", "WHY"});
  } else {
    add({"VOLUME", "NODE", "POOL", "STATE", "ALLOCATED", "ID"});
    if (is_wide) add({"ERROR"});
  }
  return head;
}

Row row_of(std::string_view kind, const Json& one, const Look& look) {
  const bool is_wide = look.output == Output::kWide;
  const std::string state = text_of(one, "status.state");
  const std::string age = age_of(one, "created_ms", look);
  const std::string labels = labels_text(field(one, "labels"));
  Row row;
  const auto add = [&](std::initializer_list<std::string> texts) {
    for (const std::string& text : texts) row.push_back({.text = text});
  };
  if (kind == "nodes") {
    row = {{.text = text_of(one, "name")}, state_cell(state)};
    add({fmt::to_string(number_of(one, "status.targets")), fmt::to_string(number_of(one, "status.replicas")),
         text_of(one, "status.data_address"), text_of(one, "status.version"), age});
    if (is_wide) add({text_of(one, "status.management_address"), labels, text_of(one, "status.why")});
  } else if (kind == "pools") {
    row = {{.text = text_of(one, "name")}, {.text = text_of(one, "spec.node")}, state_cell(state)};
    add({size_text(one, "status.capacity_bytes"), used_text(one), size_text(one, "status.free_bytes"),
         fmt::to_string(number_of(one, "status.replicas")), age});
    if (is_wide) {
      add({size_text(one, "status.promised_bytes"), joined(field(one, "spec.disks")), labels,
           text_of(one, "status.why")});
    }
  } else if (kind == "volumes") {
    row = {{.text = text_of(one, "name")}, state_cell(volume_state(one))};
    add({size_text(one, "spec.size_bytes"), replicas_text(one), text_of(one, "status.target"),
         fmt::to_string(number_of(one, "status.snapshots")), age});
    if (is_wide) {
      add({truth_of(one, "spec.thin") ? "yes" : "no", text_of(one, "spec.source"), text_of(one, "status.nqn"), labels});
    }
  } else if (kind == "snapshots") {
    row = {{.text = text_of(one, "name")}, {.text = text_of(one, "spec.volume")}, state_cell(state)};
    add({size_text(one, "status.size_bytes"), age_of(one, "status.taken_ms", look)});
    if (is_wide) add({labels});
  } else if (kind == "snapshot-groups") {
    row = {{.text = text_of(one, "name")}, {.text = joined(field(one, "spec.volumes"))}, state_cell(state)};
    add({age_of(one, "status.taken_ms", look)});
    if (is_wide) add({labels, text_of(one, "status.why")});
  } else {
    add({text_of(one, "volume"), text_of(one, "node"), text_of(one, "pool")});
    row.push_back(state_cell(replica_state(one)));
    add({size_text(one, "allocated_bytes"), text_of(one, "id")});
    if (is_wide) add({text_of(one, "error")});
  }
  return row;
}

TableStyle style_of(const Look& look) {
  return {.has_colours = look.has_colours, .width_max = look.output == Output::kWide ? 0 : kScreenColumns};
}

std::string table_of(std::string_view kind, const std::vector<Json>& documents, const Look& look, bool has_head) {
  std::vector<Row> rows = {head_of(kind, look.output == Output::kWide)};
  for (const Json& each : documents) rows.push_back(row_of(kind, each, look));
  TableStyle style = style_of(look);
  style.has_head = has_head;
  return to_table(rows, style);
}

std::string json_text(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

// ---- One resource

class Sheet {
 public:
  explicit Sheet(const Look& look) : look_(look) {}
  void add(std::string_view label, std::string_view value, Colour colour = Colour::kNone) {
    if (value.empty()) return;
    const std::string clean = printable(value);
    text_ += fmt::format("{:<14}{}\n", label, look_.has_colours ? painted(clean, colour) : clean);
  }
  void head(std::string_view text) { text_ += fmt::format("\n{}\n", text); }
  void table(const std::vector<Row>& rows) { text_ += to_table(rows, style_of(look_)); }
  const std::string& text() const { return text_; }

 private:
  const Look& look_;
  std::string text_;
};

void add_volume(Sheet& sheet, const Json& volume, const Look& look) {
  sheet.add("size", size_text(volume, "spec.size_bytes") + (truth_of(volume, "spec.thin") ? ", thin" : ", thick"));
  sheet.add("replicas", replicas_text(volume) + " in step");
  sheet.add("target", text_of(volume, "status.target"));
  sheet.add("source", text_of(volume, "spec.source"));
  sheet.add("spread over", joined(field(volume, "spec.topology.spread_over")));
  sheet.add("affinity", labels_text(field(volume, "spec.topology.affinity")));
  sheet.add("anti-affinity", labels_text(field(volume, "spec.topology.anti_affinity")));
  sheet.add("group", text_of(volume, "spec.topology.group"));
  sheet.add("preferred node", text_of(volume, "spec.preferred_node"));
  sheet.add("allowed hosts", joined(field(volume, "spec.allowed_hosts")));
  sheet.add("snapshots", fmt::format("{} of at most {}", number_of(volume, "status.snapshots"),
                                     number_of(volume, "spec.snapshot_limit")));
  const uint64_t share = number_of(volume, "spec.resync_share");
  sheet.add("resync share", share == 0 ? std::string() : fmt::format("{} %", share));
  sheet.add("NQN", text_of(volume, "status.nqn"));
  std::vector<Row> conditions = {{{"CONDITION"}, {"MET"}, {"SINCE"}, {"REASON"}, {"MESSAGE"}}};
  for (const Json& each : field(volume, "status.conditions")) {
    const bool is_met = truth_of(each, "met");
    conditions.push_back({{text_of(each, "type")},
                          {is_met ? "yes" : "no", is_met ? Colour::kGood : Colour::kWarning},
                          {age_of(each, "since_ms", look)},
                          {text_of(each, "reason")},
                          {text_of(each, "message")}});
  }
  sheet.head("Conditions");
  sheet.table(conditions);
  std::vector<Row> replicas = {{{"NODE"}, {"POOL"}, {"STATE"}, {"ALLOCATED"}, {"ID"}}};
  for (const Json& each : field(volume, "status.replicas")) {
    replicas.push_back({{text_of(each, "node")},
                        {text_of(each, "pool")},
                        state_cell(replica_state(each)),
                        {size_text(each, "allocated_bytes")},
                        {text_of(each, "id")}});
  }
  sheet.head("Replicas");
  sheet.table(replicas);
  std::vector<Row> paths = {{{"NODE"}, {"ADDRESS"}, {"STATE"}, {"CONTROLLERS"}}};
  for (const Json& each : field(volume, "status.paths")) {
    paths.push_back({{text_of(each, "node")},
                     {text_of(each, "address")},
                     state_cell(text_of(each, "state")),
                     {fmt::to_string(number_of(each, "controllers"))}});
  }
  sheet.head("Paths");
  sheet.table(paths);
}

void add_other(Sheet& sheet, const Json& one, const Look& look) {
  sheet.add("node", text_of(one, "spec.node"));
  sheet.add("volume", text_of(one, "spec.volume"));
  sheet.add("disks", joined(field(one, "spec.disks")));
  sheet.add("capacity", size_text(one, "status.capacity_bytes"));
  sheet.add("used", used_text(one));
  sheet.add("free", size_text(one, "status.free_bytes"));
  sheet.add("promised", size_text(one, "status.promised_bytes"));
  if (truth_of(one, "spec.evacuating")) sheet.add("evacuating", "yes");
  sheet.add("suggestion", text_of(one, "status.suggestion"));
  sheet.add("rebalance", text_of(one, "spec.rebalance"));
  if (field(one, "status.targets").is_number()) sheet.add("targets", fmt::to_string(number_of(one, "status.targets")));
  if (field(one, "status.replicas").is_number()) {
    sheet.add("replicas", fmt::to_string(number_of(one, "status.replicas")));
  }
  sheet.add("address", text_of(one, "status.data_address"));
  sheet.add("management", text_of(one, "status.management_address"));
  sheet.add("version", text_of(one, "status.version"));
  sheet.add("size", size_text(one, "status.size_bytes"));
  sheet.add("taken", age_of(one, "status.taken_ms", look));
}

std::string sheet_of(std::string_view kind, const Json& one, const Look& look) {
  Sheet sheet(look);
  const std::string state = text_of(one, "status.state");
  sheet.add("name", text_of(one, "name"));
  sheet.add("state", kind == "volumes" ? volume_state(one) : state, colour_of(state));
  sheet.add("why", text_of(one, "status.why"));
  sheet.add("id", text_of(one, "id"));
  sheet.add("revision", fmt::to_string(number_of(one, "revision")));
  sheet.add("age", age_of(one, "created_ms", look));
  sheet.add("labels", labels_text(field(one, "labels")));
  if (kind == "volumes") {
    add_volume(sheet, one, look);
  } else {
    add_other(sheet, one, look);
  }
  return sheet.text();
}

}  // namespace

// ---- Fields

bool truth_of(const Json& json, std::string_view path) {
  const Json& found = field(json, path);
  return found.is_boolean() && found.get<bool>();
}

std::string resource_name(std::string_view kind, const Json& document) {
  if (kind == "settings") return "settings";
  return fmt::format("{}/{}", kind.substr(0, kind.size() - 1), text_of(document, kind == "replicas" ? "id" : "name"));
}

// ---- Lists and single ones

std::string render_list(std::string_view kind, const std::vector<Json>& documents, const Look& look) {
  switch (look.output) {
    case Output::kJson:
      return json_text(Json(documents));
    case Output::kYaml:
      return to_yaml(documents.empty() ? Json::array() : Json(documents));
    case Output::kName: {
      std::string text;
      for (const Json& each : documents) text += resource_name(kind, each) + "\n";
      return text;
    }
    default:
      return documents.empty() ? fmt::format("there are no {}\n", kind) : table_of(kind, documents, look, true);
  }
}

std::string render_rows(std::string_view kind, const std::vector<Json>& documents, const Look& look) {
  if (look.output == Output::kTable || look.output == Output::kWide) return table_of(kind, documents, look, false);
  std::string text;
  for (const Json& each : documents) text += render_one(kind, each, look);
  return text;
}

std::string render_one(std::string_view kind, const Json& document, const Look& look) {
  switch (look.output) {
    case Output::kJson:
      return json_text(document);
    case Output::kYaml:
      return to_yaml(document);
    case Output::kName:
      return resource_name(kind, document) + "\n";
    default:
      return kind == "replicas" ? table_of(kind, {document}, look, true) : sheet_of(kind, document, look);
  }
}

// ---- Spans

std::string age_text(uint64_t span_ms) {
  const uint64_t seconds = span_ms / 1000;
  if (seconds < 120) return fmt::format("{}s", seconds);
  if (seconds < 2 * 3600) return fmt::format("{}m", seconds / 60);
  if (seconds < 48 * 3600) return fmt::format("{}h", seconds / 3600);
  return fmt::format("{}d", seconds / 86400);
}

std::string span_text(uint64_t span_ms) {
  const uint64_t seconds = (span_ms + 999) / 1000;
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  return fmt::format("{}h{:02}m", seconds / 3600, seconds / 60 % 60);
}

// ---- Progress

Resync resync_of(const Json& volume) {
  Resync resync;
  for (const Json& each : field(volume, "status.replicas")) {
    if (text_of(each, "state") != "resyncing") continue;
    ++resync.replicas;
    resync.copied_bytes += number_of(each, "copied_bytes");
    resync.to_copy_bytes += number_of(each, "to_copy_bytes");
    resync.bytes_per_second += number_of(each, "copy_bytes_per_second");
    if (const uint64_t eta = number_of(each, "eta_ms"); eta > 0)
      resync.eta_ms = std::max(resync.eta_ms.value_or(0), eta);
  }
  return resync;
}

std::string render_bar(const Progress& progress) {
  std::string tail;
  if (progress.share) {
    const double share = std::clamp(*progress.share, 0.0, 1.0);
    const auto full = static_cast<size_t>(share * kBarColumns);
    tail += fmt::format("  [{}{}] {:>3} %", std::string(full, '='), std::string(kBarColumns - full, ' '),
                        static_cast<int>(share * 100));
  }
  if (progress.eta_ms) tail += fmt::format("  {} left", span_text(*progress.eta_ms));
  std::string line = to_table({{{.text = progress.text}}}, {.width_max = kScreenColumns - tail.size()});
  line.pop_back();
  return line + tail;
}

// ---- Everything at once

std::string render_status(const Json& overview, const Look& look) {
  if (look.output == Output::kJson) return json_text(overview);
  if (look.output == Output::kYaml) return to_yaml(overview);
  const bool is_well = truth_of(overview, "well");
  const Json& problems = field(overview, "problems");
  const std::string verdict =
      is_well ? "All is well."
              : fmt::format("{} {} not well.", problems.size(), problems.size() == 1 ? "thing is" : "things are");
  std::string text = (look.has_colours ? painted(verdict, is_well ? Colour::kGood : Colour::kBad) : verdict) + "\n\n";
  std::vector<Row> rows = {{{"WHAT"}, {"TOTAL"}, {"WELL"}}};
  for (const char* const kind : {"nodes", "pools", "volumes", "snapshots"}) {
    const Json& counts = field(overview, kind);
    const uint64_t total = number_of(counts, "total");
    uint64_t well = 0;
    for (const auto& [name, value] : counts.items()) {
      if (name != "total" && value.is_number_unsigned()) well = value.get<uint64_t>();
    }
    rows.push_back(
        {{kind}, {fmt::to_string(total)}, {fmt::to_string(well), well == total ? Colour::kGood : Colour::kBad}});
  }
  text += to_table(rows, style_of(look));
  if (!is_well) {
    text += "\n";
    for (const Json& each : problems) {
      const std::string resource = text_of(each, "resource");
      const std::string state = printable(text_of(each, "state"));
      text += fmt::format("{} is {}\n    {}\n", printable(resource),
                          look.has_colours ? painted(state, colour_of(state)) : state, printable(text_of(each, "why")));
    }
    text += "\n'fairlead why RESOURCE' tells more.\n";
  }
  return text;
}

std::string render_why(const Json& why, const Look& look) {
  if (look.output == Output::kJson) return json_text(why);
  if (look.output == Output::kYaml) return to_yaml(why);
  std::string text;
  for (const Json& line : field(why, "lines")) {
    if (line.is_string()) text += printable(line.get<std::string>()) + "\n";
  }
  return text;
}

std::string render_events(const std::vector<Json>& events, const Look& look) {
  if (look.output == Output::kJson) {
    std::string lines;
    for (const Json& each : events) lines += each.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    return lines;
  }
  if (look.output == Output::kYaml) return to_yaml(events.empty() ? Json::array() : Json(events));
  std::string text;
  for (const Json& each : events) {
    const std::chrono::sys_time<std::chrono::milliseconds> at{std::chrono::milliseconds(number_of(each, "at_ms"))};
    const std::string reason = printable(text_of(each, "reason"));
    const bool is_warning = text_of(each, "severity") == "warning";
    text += fmt::format("{:%Y-%m-%dT%H:%M:%S}Z  {:<24}  {}  {}\n", std::chrono::floor<std::chrono::seconds>(at),
                        printable(text_of(each, "resource")),
                        look.has_colours && is_warning ? painted(reason, Colour::kWarning) : reason,
                        printable(text_of(each, "message")));
  }
  return text;
}

std::string render_top(const TopView& view, const Look& look) {
  std::vector<Row> nodes = {{{"NODE"}, {"STATE"}, {"TARGETS"}, {"REPLICAS"}, {"POOLS"}, {"USED"}, {"CAPACITY"}}};
  for (const Json& node : view.nodes) {
    const std::string name = text_of(node, "name");
    uint64_t pools = 0;
    uint64_t used = 0;
    uint64_t capacity = 0;
    for (const Json& pool : view.pools) {
      if (text_of(pool, "spec.node") != name) continue;
      ++pools;
      used += number_of(pool, "status.used_bytes");
      capacity += number_of(pool, "status.capacity_bytes");
    }
    nodes.push_back({{name},
                     state_cell(text_of(node, "status.state")),
                     {fmt::to_string(number_of(node, "status.targets"))},
                     {fmt::to_string(number_of(node, "status.replicas"))},
                     {fmt::to_string(pools)},
                     {fmt::format("{} ({})", about(used), percent_text(share_of(used, capacity)))},
                     {about(capacity)}});
  }
  std::vector<Row> volumes = {{{"VOLUME"}, {"STATE"}, {"SIZE"}, {"REPLICAS"}, {"TARGET"}, {"COPYING"}, {"LEFT"}}};
  for (const Json& volume : view.volumes) {
    const Resync resync = resync_of(volume);
    volumes.push_back({{text_of(volume, "name")},
                       state_cell(volume_state(volume)),
                       {size_text(volume, "spec.size_bytes")},
                       {replicas_text(volume)},
                       {text_of(volume, "status.target")},
                       {resync.replicas > 0 ? about(resync.bytes_per_second) + "/s" : ""},
                       {resync.eta_ms ? span_text(*resync.eta_ms) : ""}});
  }
  return to_table(nodes, style_of(look)) + "\n" + to_table(volumes, style_of(look));
}

}  // namespace fairlead::cli
