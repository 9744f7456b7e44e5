#include "cli/cluster_arguments.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

#include "base/units.h"
#include "control/resources.h"
#include "host/options.h"

namespace fairlead::cli {

using control::percent_encoded;
using control::server_url;
namespace {

constexpr std::array<std::string_view, 6> kKinds = {"nodes",    "pools",     "volumes",
                                                    "replicas", "snapshots", "snapshot-groups"};
constexpr const char* kServerDefault = "http://127.0.0.1:7400";
constexpr Duration kChangeLimit = std::chrono::minutes(2);
constexpr Duration kNamesLimit = std::chrono::milliseconds(500);

template <typename... Arguments>
std::unexpected<Complaint> complain(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return std::unexpected(fmt::format(format, std::forward<Arguments>(arguments)...));
}

std::string_view verb_name(ClusterVerb verb) {
  constexpr std::array<std::string_view, 24> kNames = {"list",     "show",  "create",  "set",      "delete", "cordon",
                                                       "uncordon", "drain", "undrain", "evacuate", "resize", "scale",
                                                       "move",     "clone", "attach",  "detach",   "force",  "list",
                                                       "status",   "why",   "wait",    "top",      "names",  "recover"};
  return kNames.at(static_cast<size_t>(verb));
}

std::expected<Output, Complaint> parse_output(std::string_view text) {
  constexpr std::array<std::string_view, 5> kNames = {"table", "wide", "json", "yaml", "name"};
  const auto found = std::ranges::find(kNames, text);
  if (found == kNames.end()) return complain("-o {}: expected table, wide, json, yaml or name", text);
  return static_cast<Output>(found - kNames.begin());
}

std::expected<Duration, Complaint> parse_limit(const std::string& text) {
  constexpr std::array<std::pair<std::string_view, int64_t>, 4> kUnits = {
      {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::string_view unit = std::string_view(text).substr(digits);
  const auto found = std::ranges::find(kUnits, unit, &std::pair<std::string_view, int64_t>::first);
  if (digits == 0 || digits > 6 || found == kUnits.end()) {
    return complain("--timeout {}: expected a time such as 500ms, 30s, 5m or 2h", text);
  }
  return std::chrono::milliseconds(std::stoll(text.substr(0, digits)) * found->second);
}

std::expected<uint64_t, Complaint> parse_bytes(std::string_view option, const std::string& text) {
  const Result<uint64_t> size = parse_size(text);
  if (!size) return complain_about(fmt::format("{} {}", option, text), size.error());
  if (*size == 0 || *size % control::kVolumeBytesUnit != 0) {
    return complain("{} {}: must be a multiple of 4 KiB, and not 0", option, text);
  }
  return *size;
}

// "k=v" each; `removes`: one without a value becomes null, which takes the label away.
std::expected<Json, Complaint> parse_labels(std::string_view option, const std::vector<std::string>& texts,
                                            bool removes) {
  Json labels = Json::object();
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) return complain("{} {}: expected KEY=VALUE", option, text);
    const std::string value = text.substr(equals + 1);
    labels[text.substr(0, equals)] = removes && value.empty() ? Json() : Json(value);
  }
  return labels;
}

std::expected<ServerOptions, Complaint> parse_servers(const ClusterArguments& arguments,
                                                      const std::string& by_environment) {
  std::vector<std::string> texts = arguments.servers;
  if (texts.empty() && !by_environment.empty()) texts.push_back(by_environment);
  if (texts.empty()) texts.emplace_back(kServerDefault);
  ServerOptions options;
  for (const std::string& text : texts) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      const auto url = server_url(std::string_view(text).substr(begin, end - begin));
      if (!url) return complain("--server {}", to_string(url.error()));
      options.urls.push_back(*url);
      begin = end + 1;
    }
  }
  options.ca_file = arguments.ca_file;
  if (!arguments.ca_file.empty() && !std::filesystem::exists(arguments.ca_file)) {
    return complain("--ca {}: there is no such file", arguments.ca_file);
  }
  if (arguments.token_file.empty()) return options;
  std::ifstream file(arguments.token_file);
  if (!file || !(file >> options.token)) return complain("--token-file {}: no token can be read", arguments.token_file);
  return options;
}

// ---- Documents

// What of a volume's spec was given. `is_change`: labels without a value go.
std::expected<Json, Complaint> volume_spec(const ClusterArguments& arguments) {
  Json spec = Json::object();
  if (!arguments.size.empty()) {
    const auto size = parse_bytes("--size", arguments.size);
    if (!size) return std::unexpected(size.error());
    spec["size_bytes"] = *size;
  }
  if (arguments.replicas) {
    if (*arguments.replicas < 1 || *arguments.replicas > control::kReplicasMax) {
      return complain("--replicas {}: a volume has 1 to {}", *arguments.replicas, control::kReplicasMax);
    }
    spec["replicas"] = *arguments.replicas;
  }
  if (arguments.thick) spec["thin"] = false;
  if (!arguments.node.empty()) spec["preferred_node"] = arguments.node;
  if (!arguments.hosts.empty()) spec["allowed_hosts"] = arguments.hosts;
  if (arguments.snapshot_limit) spec["snapshot_limit"] = *arguments.snapshot_limit;
  if (arguments.resync_share) spec["resync_share"] = *arguments.resync_share;
  if (!arguments.source.empty()) spec["source"] = arguments.source;
  Json topology = Json::object();
  if (!arguments.spread_over.empty()) topology["spread_over"] = arguments.spread_over;
  if (!arguments.group.empty()) topology["group"] = arguments.group;
  const bool is_change = arguments.verb == ClusterVerb::kSet;
  for (const auto& [name, option, texts] : {std::tuple("affinity", "--affinity", &arguments.affinity),
                                            std::tuple("anti_affinity", "--anti-affinity", &arguments.anti_affinity)}) {
    if (texts->empty()) continue;
    const auto labels = parse_labels(option, *texts, is_change);
    if (!labels) return std::unexpected(labels.error());
    topology[name] = *labels;
  }
  if (!topology.empty()) spec["topology"] = topology;
  return spec;
}

std::expected<Json, Complaint> pool_spec(const ClusterArguments& arguments) {
  Json spec = {{"node", arguments.node}, {"disks", arguments.disks}};
  for (const std::string& disk : arguments.disks) {
    if (!disk.starts_with('/')) return complain("{}: expected a path on node {}, from / on", disk, arguments.node);
  }
  if (arguments.size.empty()) return spec;
  const auto size = parse_bytes("--size", arguments.size);
  if (!size) return std::unexpected(size.error());
  spec["file_size_bytes"] = *size;
  return spec;
}

std::expected<Json, Complaint> spec_of(const ClusterArguments& arguments) {
  if (arguments.kind == "volumes") return volume_spec(arguments);
  if (arguments.kind == "snapshots" && arguments.verb == ClusterVerb::kCreate) {
    return Json{{"volume", arguments.volume}};
  }
  if (arguments.kind == "snapshot-groups" && arguments.verb == ClusterVerb::kCreate) {
    return Json{{"volumes", arguments.volumes}};
  }
  if (arguments.kind == "pools" && arguments.verb == ClusterVerb::kCreate) return pool_spec(arguments);
  if (arguments.kind == "settings" && !arguments.rebalance.empty()) return Json{{"rebalance", arguments.rebalance}};
  return Json::object();
}

std::expected<void, Complaint> plan_creation(const ClusterArguments& arguments, ClusterCommandPlan& plan) {
  if (arguments.kind == "volumes" && arguments.size.empty() && arguments.source.empty()) {
    return complain("give --size SIZE, or --source SNAPSHOT");
  }
  if (const auto named = control::check_name("NAME", plan.name); !named)
    return complain("{}", to_string(named.error()));
  const auto spec = spec_of(arguments);
  if (!spec) return std::unexpected(spec.error());
  const auto labels = parse_labels("--label", arguments.labels, false);
  if (!labels) return std::unexpected(labels.error());
  plan.change = {.method = RestMethod::kPost,
                 .path = "/v1/" + plan.kind,
                 .body = {{"name", plan.name}, {"labels", *labels}, {"spec", *spec}}};
  plan.copies_replica_count = arguments.kind == "volumes" && !arguments.source.empty() && !arguments.replicas;
  plan.goal = {.kind = Goal::Kind::kOnline};
  return {};
}

void plan_patch(ClusterCommandPlan& plan, Json spec, Goal goal) {
  plan.change = {.method = RestMethod::kPatch, .path = plan.path, .body = {{"spec", std::move(spec)}}};
  plan.goal = std::move(goal);
}

std::expected<void, Complaint> plan_set(const ClusterArguments& arguments, ClusterCommandPlan& plan) {
  const auto spec = spec_of(arguments);
  if (!spec) return std::unexpected(spec.error());
  const auto labels = parse_labels("--label", arguments.labels, true);
  if (!labels) return std::unexpected(labels.error());
  if (spec->empty() && labels->empty()) {
    return complain("give what is to change, such as {}",
                    arguments.kind == "settings" ? "--rebalance on" : "--label KEY=VALUE");
  }
  plan_patch(plan, *spec, {});
  if (arguments.kind != "settings") plan.change->body["labels"] = *labels;
  return {};
}

std::expected<void, Complaint> plan_resize(const ClusterArguments& arguments, ClusterCommandPlan& plan) {
  const auto size = parse_bytes("SIZE", arguments.size);
  if (!size) return std::unexpected(size.error());
  plan_patch(plan, {{"size_bytes", *size}}, {.kind = Goal::Kind::kSize, .number = *size});
  return {};
}

std::expected<void, Complaint> plan_scale(const ClusterArguments& arguments, ClusterCommandPlan& plan) {
  const auto spec = volume_spec(arguments);
  if (!spec) return std::unexpected(spec.error());
  plan_patch(plan, *spec, {.kind = Goal::Kind::kReplicas, .number = *arguments.replicas});
  return {};
}

std::expected<void, Complaint> plan_wait(const ClusterArguments& arguments, ClusterCommandPlan& plan) {
  const std::string& text = arguments.wait_for;
  if (text == "online" || text == "ready") {
    plan.goal = {.kind = Goal::Kind::kOnline};
  } else if (text == "gone") {
    plan.goal = {.kind = Goal::Kind::kGone};
  } else if (text == "available") {
    plan.goal = {.kind = Goal::Kind::kAvailable};
  } else if (text == "empty") {
    plan.goal = {.kind = Goal::Kind::kEmpty};
  } else {
    plan.goal = {.kind = Goal::Kind::kState, .text = text};
  }
  if (plan.goal.kind == Goal::Kind::kAvailable && plan.kind != "volumes") {
    return complain("--for available: this is for volumes");
  }
  if (plan.goal.kind == Goal::Kind::kEmpty && plan.kind != "nodes" && plan.kind != "pools") {
    return complain("--for empty: this is for nodes and pools");
  }
  return {};
}

std::expected<void, Complaint> plan_change(const ClusterArguments& arguments, ClusterCommandPlan& plan) {
  const Goal empty = {.kind = Goal::Kind::kEmpty};
  switch (arguments.verb) {
    case ClusterVerb::kCreate:
    case ClusterVerb::kClone:
      return plan_creation(arguments, plan);
    case ClusterVerb::kSet:
      return plan_set(arguments, plan);
    case ClusterVerb::kResize:
      return plan_resize(arguments, plan);
    case ClusterVerb::kScale:
      return plan_scale(arguments, plan);
    case ClusterVerb::kWait:
      return plan_wait(arguments, plan);
    case ClusterVerb::kCordon:
      plan_patch(plan, {{"cordoned", true}}, {});
      break;
    case ClusterVerb::kUncordon:
      plan_patch(plan, {{"cordoned", false}, {"draining", false}}, {});
      break;
    case ClusterVerb::kDrain:
      plan_patch(plan, {{"draining", true}}, empty);
      break;
    case ClusterVerb::kUndrain:
      plan_patch(plan, {{"draining", false}}, {});
      break;
    case ClusterVerb::kEvacuate:
      plan_patch(plan, {{"evacuating", !arguments.cancel}}, arguments.cancel ? Goal{} : empty);
      break;
    case ClusterVerb::kMove:
      plan_patch(plan, {{"preferred_node", arguments.other}}, {.kind = Goal::Kind::kTarget, .text = arguments.other});
      break;
    case ClusterVerb::kDelete:
      plan.change = {.method = RestMethod::kDelete, .path = plan.path};
      plan.goal = {.kind = Goal::Kind::kGone};
      break;
    case ClusterVerb::kForce:
      if (!parse_uuid(arguments.trust)) return complain("--trust {}: expected the id of a replica", arguments.trust);
      plan.change = {.method = RestMethod::kPost, .path = plan.path + "/force", .body = {{"replica", arguments.trust}}};
      plan.goal = {.kind = Goal::Kind::kAvailable};
      break;
    case ClusterVerb::kAttach:
      plan.goal = {.kind = Goal::Kind::kAvailable};
      break;
    default:
      break;
  }
  return {};
}

// What takes as long as copying takes has no limit of its own.
std::optional<Duration> limit_of(ClusterVerb verb) {
  switch (verb) {
    case ClusterVerb::kDrain:
    case ClusterVerb::kEvacuate:
    case ClusterVerb::kScale:
    case ClusterVerb::kWait:
      return std::nullopt;
    default:
      return kChangeLimit;
  }
}

std::string list_path(const ClusterArguments& arguments) {
  std::string query;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) query += fmt::format("{}{}={}", query.empty() ? "?" : "&", name, percent_encoded(value));
  };
  for (const std::string& label : arguments.labels) add("label", label);
  add("volume", arguments.volume);
  add("node", arguments.node);
  return "/v1/" + arguments.kind + query;
}

// Sets kind, name and path.
std::expected<void, Complaint> name_it(const ClusterArguments& arguments, ClusterCommandPlan& plan) {
  plan.kind = arguments.kind;
  plan.name = arguments.verb == ClusterVerb::kClone ? arguments.other : arguments.name;
  if (arguments.verb == ClusterVerb::kWhy || arguments.verb == ClusterVerb::kWait) {
    const auto resource = parse_resource(arguments.name);
    if (!resource) return std::unexpected(resource.error());
    plan.kind = resource->kind;
    plan.name = resource->name;
  }
  // As -o name gives it.
  const std::string prefix = plan.kind.substr(0, std::max<size_t>(plan.kind.size(), 1) - 1) + "/";
  if (!plan.kind.empty() && plan.name.starts_with(prefix)) plan.name.erase(0, prefix.size());
  switch (arguments.verb) {
    case ClusterVerb::kList:
    case ClusterVerb::kNames:
      plan.path = list_path(arguments);
      break;
    case ClusterVerb::kEvents:
      plan.path = "/v1/events";
      break;
    case ClusterVerb::kRecover:
      plan.path = "/v1/recover";
      break;
    case ClusterVerb::kStatus:
    case ClusterVerb::kTop:
      plan.path = "/v1/overview";
      break;
    default:
      plan.path = fmt::format("/v1/{}", plan.kind);
      // Of settings there is one document.
      if (!plan.name.empty() || plan.kind != "settings") plan.path += "/" + percent_encoded(plan.name);
  }
  return {};
}

}  // namespace

// ---- Goals

bool is_met(const Goal& goal, const Json& document) {
  if (goal.kind == Goal::Kind::kNothing) return true;
  if (goal.kind == Goal::Kind::kGone) return document.is_null();
  if (document.is_null()) return false;
  const std::string state = text_of(document, "status.state");
  const bool is_online = state == "online" || state == "ready";
  const bool is_available = is_online || state == "degraded";
  const Json& replicas = field(document, "status.replicas");
  switch (goal.kind) {
    case Goal::Kind::kState:
      return state == goal.text || text_of(document, "state") == goal.text;
    case Goal::Kind::kOnline:
      return is_online;
    case Goal::Kind::kAvailable:
      return is_available;
    case Goal::Kind::kEmpty:
      return number_of(document, "status.targets") == 0 && number_of(document, "status.replicas") == 0;
    case Goal::Kind::kSize:
      return number_of(document, "status.size_bytes") >= goal.number;
    case Goal::Kind::kReplicas:
      return is_online && replicas.size() == goal.number;
    default:
      return is_available && text_of(document, "status.target") == goal.text;
  }
}

std::string to_text(const Goal& goal) {
  switch (goal.kind) {
    case Goal::Kind::kNothing:
      return "is changed";
    case Goal::Kind::kState:
      return "is " + goal.text;
    case Goal::Kind::kOnline:
      return "is online";
    case Goal::Kind::kAvailable:
      return "is available";
    case Goal::Kind::kGone:
      return "is gone";
    case Goal::Kind::kEmpty:
      return "is empty";
    case Goal::Kind::kSize:
      return "has " + format_size(goal.number);
    case Goal::Kind::kReplicas:
      return fmt::format("has {} replica{}", goal.number, goal.number == 1 ? "" : "s");
    default:
      return "is served by " + goal.text;
  }
}

// ---- Plans

std::expected<ResourceName, Complaint> parse_resource(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash != std::string_view::npos && slash + 1 < text.size()) {
    std::string kind(text.substr(0, slash));
    if (!kind.ends_with('s')) kind += 's';
    if (std::ranges::find(kKinds, kind) != kKinds.end()) return ResourceName{kind, std::string(text.substr(slash + 1))};
  }
  return complain("{}: expected node/NAME, pool/NAME, volume/NAME, snapshot/NAME, snapshot-group/NAME or replica/ID",
                  text);
}

std::string command_name(const ClusterArguments& arguments) {
  std::string verb(verb_name(arguments.verb));
  if (arguments.verb == ClusterVerb::kEvents) return "event " + verb;
  if (arguments.kind.empty() || arguments.verb == ClusterVerb::kNames) return verb;
  if (arguments.kind == "settings") return "settings " + verb;
  return arguments.kind.substr(0, arguments.kind.size() - 1) + " " + verb;
}

std::expected<ClusterCommandPlan, Complaint> check(const ClusterArguments& arguments,
                                                   const std::string& server_by_environment) {
  ClusterCommandPlan plan;
  plan.verb = arguments.verb;
  plan.watch = arguments.watch;
  plan.execute = arguments.execute;
  const auto output = parse_output(arguments.output);
  if (!output) return std::unexpected(output.error());
  plan.output = *output;
  auto servers = parse_servers(arguments, server_by_environment);
  if (!servers) return std::unexpected(servers.error());
  plan.servers = std::move(*servers);
  if (const auto named = name_it(arguments, plan); !named) return std::unexpected(named.error());
  if (const auto changed = plan_change(arguments, plan); !changed) return std::unexpected(changed.error());
  if (plan.change) plan.change->revision = arguments.revision;
  if (arguments.no_wait) plan.goal = {};
  plan.limit = plan.watch || plan.verb == ClusterVerb::kTop ? std::nullopt : limit_of(plan.verb);
  if (!arguments.timeout.empty()) {
    const auto limit = parse_limit(arguments.timeout);
    if (!limit) return std::unexpected(limit.error());
    plan.limit = *limit;
  }
  if (plan.verb == ClusterVerb::kNames) {
    plan.servers.connect_limit = kNamesLimit;
    plan.servers.answer_limit = kNamesLimit;
  }
  return plan;
}

}  // namespace fairlead::cli
