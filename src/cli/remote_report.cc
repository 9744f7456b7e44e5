#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "cli/remote.h"

namespace fairlead::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string_view type_name(nvme::SubsystemType type) {
  switch (type) {
    case nvme::SubsystemType::kReferral:
      return "referral";
    case nvme::SubsystemType::kNvm:
      return "subsystem";
    case nvme::SubsystemType::kCurrentDiscovery:
      return "discovery";
  }
  return "unknown";
}

std::string_view transport_name(nvme::TransportType type) {
  switch (type) {
    case nvme::TransportType::kRdma:
      return "rdma";
    case nvme::TransportType::kFibreChannel:
      return "fc";
    case nvme::TransportType::kTcp:
      return "tcp";
    case nvme::TransportType::kLoop:
      return "loop";
  }
  return "unknown";
}

// As a socket address where it is one.
std::string place_of(const host::DiscoveredSubsystem& found) {
  const std::optional<SocketAddress> address = found.socket_address();
  return address ? fairlead::to_string(*address) : fmt::format("{}:{}", found.address, found.service);
}

class Lines {
 public:
  void head(std::string_view text) { text_ += fmt::format("{}{}\n", text_.empty() ? "" : "\n", text); }
  void add(std::string_view label, std::string_view value) {
    if (!value.empty()) text_ += fmt::format("  {:<18} {}\n", label, value);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string size_or_empty(uint64_t bytes) { return bytes > 0 ? format_size(bytes) : ""; }

// "write_zeroes" as people write it.
std::string listed(const std::vector<std::string_view>& names) {
  std::string text = fmt::format("{}", fmt::join(names, ", "));
  std::ranges::replace(text, '_', ' ');
  return text;
}

void add_namespace(Lines& lines, const RemoteNamespace& found) {
  lines.head(fmt::format("namespace {}", found.nsid));
  lines.add("size", size_or_empty(found.size_bytes));
  lines.add("in use", found.used_bytes != found.size_bytes ? size_or_empty(found.used_bytes) : "all of it");
  std::vector<std::string> formats;
  for (const RemoteFormat& format : found.formats) {
    std::string text = format.block_bytes > 0 ? format_size(format.block_bytes) : "unknown";
    if (format.metadata_bytes > 0) text += fmt::format(" + {} B", format.metadata_bytes);
    formats.push_back(text + (format.in_use ? " (in use)" : ""));
  }
  lines.add("formats", fmt::format("{}", fmt::join(formats, ", ")));
  lines.add("UUID", found.uuid);
  lines.add("NGUID", found.nguid);
  lines.add("EUI-64", found.eui64);
  if (found.ana_group > 0) {
    lines.add("ANA group", found.ana ? fmt::format("{}, {}", found.ana_group, ana_state_name(*found.ana))
                                     : fmt::to_string(found.ana_group));
  }
  lines.add("traits", listed(found.traits));
  lines.add("writes in", size_or_empty(found.write_granularity_bytes));
  lines.add("optimal write", size_or_empty(found.optimal_write_bytes));
  lines.add("discards in", size_or_empty(found.discard_granularity_bytes));
  lines.add("not usable", found.unusable.value_or(""));
}

Json json_of(const RemoteNamespace& found) {
  const auto or_null = [](const auto& value, bool is_there) { return is_there ? Json(value) : Json(nullptr); };
  Json json;
  json["nsid"] = found.nsid;
  json["size_bytes"] = found.size_bytes;
  json["used_bytes"] = found.used_bytes;
  json["formats"] = Json::array();
  for (const RemoteFormat& format : found.formats) {
    json["formats"].push_back(
        {{"block_bytes", format.block_bytes}, {"metadata_bytes", format.metadata_bytes}, {"in_use", format.in_use}});
  }
  json["uuid"] = or_null(found.uuid, !found.uuid.empty());
  json["nguid"] = or_null(found.nguid, !found.nguid.empty());
  json["eui64"] = or_null(found.eui64, !found.eui64.empty());
  json["ana_group"] = or_null(found.ana_group, found.ana_group > 0);
  json["ana_state"] = found.ana ? Json(ana_state_name(*found.ana)) : Json(nullptr);
  json["traits"] = found.traits;
  json["write_granularity_bytes"] = or_null(found.write_granularity_bytes, found.write_granularity_bytes > 0);
  json["optimal_write_bytes"] = or_null(found.optimal_write_bytes, found.optimal_write_bytes > 0);
  json["discard_granularity_bytes"] = or_null(found.discard_granularity_bytes, found.discard_granularity_bytes > 0);
  json["unusable"] = or_null(found.unusable.value_or(""), found.unusable.has_value());
  return json;
}

}  // namespace

std::string to_text(const host::Discovery& discovery) {
  if (discovery.found.empty()) return "nothing that this host may use\n";
  size_t width = 0;
  for (const auto& found : discovery.found) width = std::max(width, place_of(found).size());
  std::string text = fmt::format("{:<10} {:<9} {:<{}} {}\n", "TYPE", "TRANSPORT", "ADDRESS", width, "NQN");
  for (const auto& found : discovery.found) {
    text += fmt::format("{:<10} {:<9} {:<{}} {}{}\n", type_name(found.type), transport_name(found.transport),
                        place_of(found), width, found.nqn, found.requires_secure_channel ? " (TLS required)" : "");
  }
  return text;
}

std::string to_json(const host::Discovery& discovery) {
  Json json;
  json["subsystems"] = Json::array();
  for (const auto& found : discovery.found) {
    json["subsystems"].push_back({{"type", type_name(found.type)},
                                  {"transport", transport_name(found.transport)},
                                  {"address", found.address},
                                  {"service", found.service},
                                  {"nqn", found.nqn},
                                  {"port_id", found.port_id},
                                  {"controller_id", found.controller_id},
                                  {"requires_secure_channel", found.requires_secure_channel},
                                  {"learned_from", fairlead::to_string(found.learned_from)}});
  }
  json["failures"] = Json::array();
  for (const auto& [address, error] : discovery.failures) {
    json["failures"].push_back({{"address", fairlead::to_string(address)}, {"error", to_string(error)}});
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string to_text(const RemoteController& controller) {
  Lines lines;
  lines.head(fmt::format("controller {} at {}", controller.id, fairlead::to_string(controller.address)));
  lines.add("subsystem", controller.subsystem_nqn);
  lines.add("type", controller.type);
  lines.add("model", controller.model);
  lines.add("serial number", controller.serial);
  lines.add("firmware", controller.firmware);
  lines.add("NVMe version", controller.version);
  lines.add("vendor", fmt::format("{:#06x}", controller.vendor));
  lines.add("largest transfer", controller.transfer_max > 0 ? format_size(controller.transfer_max) : "not limited");
  if (controller.io_queues > 0) {
    lines.add("in-capsule data", controller.in_capsule_max > 0 ? format_size(controller.in_capsule_max) : "none");
    lines.add("queues", fmt::format("{} of at most {} entries", controller.io_queues, controller.queue_entries_max));
    lines.add("namespaces", fmt::format("{} of at most {}", controller.namespaces.size(), controller.namespaces_max));
    lines.add("write cache", controller.has_volatile_cache ? "volatile, needs flushes" : "none");
  }
  lines.add("keep-alive", controller.keep_alive_unit_ms > 0
                              ? fmt::format("in steps of {} ms", controller.keep_alive_unit_ms)
                              : "none");
  lines.add("optional commands", listed(controller.commands));
  lines.add("events", listed(controller.events));
  std::vector<std::string> groups;
  for (const auto& [group, state] : controller.ana_groups) {
    groups.push_back(fmt::format("{} {}", group, ana_state_name(state)));
  }
  lines.add("ANA groups", fmt::format("{}", fmt::join(groups, ", ")));
  for (const RemoteNamespace& found : controller.namespaces) add_namespace(lines, found);
  return lines.text();
}

std::string to_json(const RemoteController& controller) {
  Json json;
  json["address"] = fairlead::to_string(controller.address);
  json["controller_id"] = controller.id;
  json["subsystem_nqn"] = controller.subsystem_nqn;
  json["type"] = controller.type;
  json["model"] = controller.model;
  json["serial"] = controller.serial;
  json["firmware"] = controller.firmware;
  json["version"] = controller.version;
  json["vendor"] = controller.vendor;
  json["transfer_bytes_max"] = controller.transfer_max > 0 ? Json(controller.transfer_max) : Json(nullptr);
  json["in_capsule_bytes_max"] = controller.in_capsule_max;
  json["io_queues"] = controller.io_queues;
  json["queue_entries_max"] = controller.queue_entries_max;
  json["namespaces_max"] = controller.namespaces_max;
  json["keep_alive_unit_ms"] = controller.keep_alive_unit_ms;
  json["volatile_cache"] = controller.has_volatile_cache;
  json["optional_commands"] = controller.commands;
  json["events"] = controller.events;
  json["ana_groups"] = Json::array();
  for (const auto& [group, state] : controller.ana_groups) {
    json["ana_groups"].push_back({{"group", group}, {"state", ana_state_name(state)}});
  }
  json["namespaces"] = Json::array();
  for (const RemoteNamespace& found : controller.namespaces) json["namespaces"].push_back(json_of(found));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace fairlead::cli
