#include <algorithm>
#include <charconv>
#include <fmt/format.h>

#include "base/units.h"
#include "block/spec.h"
#include "cli/engine.h"
#include "cli/version.h"
#include "pool/format.h"

namespace fairlead::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kCopiesMax = 1024;          // each has an extent in memory
constexpr uint16_t kControllerIdMax = 0xffef;  // NVMe over fabrics: those above mean something else

std::expected<engine::ControllerIds, Complaint> parse_controller_ids(std::string_view text) {
  engine::ControllerIds ids;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, ids.first);
  const bool has_first = first.ec == std::errc{} && first.ptr != end && *first.ptr == '-';
  const auto last = has_first ? std::from_chars(first.ptr + 1, end, ids.last) : first;
  if (!has_first || last.ec != std::errc{} || last.ptr != end || ids.first == 0 || ids.last < ids.first ||
      ids.last > kControllerIdMax) {
    return std::unexpected(
        fmt::format("--controller-ids {}: expected FIRST-LAST, from 1 to {}", text, kControllerIdMax));
  }
  return ids;
}

std::expected<void, Complaint> check_pool(const EngineArguments& arguments, EnginePlan& plan) {
  constexpr std::string_view kMemory = "memory:";
  constexpr std::string_view kResident = "resident-memory:";
  for (const std::string& path : arguments.pool) {
    const bool is_resident = path.starts_with(kResident);
    if (!is_resident && !path.starts_with(kMemory)) {
      plan.pool.push_back({.path = path});
      continue;
    }
    const Result<uint64_t> size = parse_size(std::string_view(path).substr((is_resident ? kResident : kMemory).size()));
    if (!size) return complain_about(fmt::format("--pool {}", path), size.error());
    if (arguments.pool.size() > 1) return std::unexpected(fmt::format("--pool {}: is a pool by itself", path));
    using Backing = MemoryOptions::Backing;
    plan.memory = {.size_bytes = *size, .backing = is_resident ? Backing::kResident : Backing::kSparse};
  }
  if (arguments.limit.empty()) return {};
  const Result<LimiterOptions> limits = parse_limits(arguments.limit);
  if (!limits) return complain_about(fmt::format("--limit {}", arguments.limit), limits.error());
  plan.limits = *limits;
  return {};
}

std::expected<void, Complaint> check_times(const EngineArguments& arguments, mirror::MirrorOptions& mirror) {
  const auto lease = parse_span("--lease", arguments.lease, {milliseconds(10), seconds(60), "10ms to 60s"});
  if (!lease) return std::unexpected(lease.error());
  mirror.lease = *lease;
  const auto checkpoint = parse_span("--checkpoint-interval", arguments.checkpoint_interval,
                                     {milliseconds(100), seconds(86'400), "100ms to 86400s"});
  if (!checkpoint) return std::unexpected(checkpoint.error());
  mirror.checkpoint_interval = *checkpoint;
  const auto stall =
      parse_span("--stall-limit", arguments.stall_limit, {milliseconds(100), seconds(600), "100ms to 600s"});
  if (!stall) return std::unexpected(stall.error());
  mirror.stall_limit = *stall;
  return {};
}

std::expected<SocketAddress, Complaint> parse_address(std::string_view option, const std::string& text) {
  const Result<SocketAddress> address = parse_socket_address(text, 0);
  if (!address) return complain_about(fmt::format("{} {}", option, text), address.error());
  return *address;
}

bool is_of_this_machine(const SocketAddress& address) {
  if (address.family == AddressFamily::kIpv4) return address.ip[0] == 127;
  return address.ip_text() == "::1";
}

bool is_any(const SocketAddress& address) {
  return std::ranges::all_of(address.ip, [](uint8_t byte) { return byte == 0; });
}

std::expected<void, Complaint> check_labels(const std::vector<std::string>& texts, ClusterPlan& plan) {
  for (const std::string& text : texts) {
    const size_t at = text.find('=');
    if (at == std::string::npos || at == 0) return std::unexpected(fmt::format("--label {}: expected KEY=VALUE", text));
    if (!plan.labels.emplace(text.substr(0, at), text.substr(at + 1)).second) {
      return std::unexpected(fmt::format("--label {}: its key is given twice", text));
    }
  }
  return {};
}

std::expected<void, Complaint> check_tls(const EngineArguments& arguments, ClusterPlan& plan) {
  const bool has_any = !arguments.tls_ca.empty() || !arguments.tls_certificate.empty() || !arguments.tls_key.empty();
  if (!has_any) return {};
  if (arguments.tls_ca.empty() || arguments.tls_certificate.empty() || arguments.tls_key.empty()) {
    return std::unexpected("TLS needs all three: --tls-ca, --tls-certificate and --tls-key");
  }
  plan.tls = rpc::TlsFiles{.ca = arguments.tls_ca, .certificate = arguments.tls_certificate, .key = arguments.tls_key};
  return {};
}

std::expected<void, Complaint> check_addresses(const EngineArguments& arguments, ClusterPlan& plan) {
  bool is_far = false;
  for (const std::string& text : arguments.control) {
    const auto address = parse_address("--control", text);
    if (!address) return std::unexpected(address.error());
    if (address->port == 0) return std::unexpected(fmt::format("--control {}: expected ADDR:PORT", text));
    is_far |= !is_of_this_machine(*address);
    plan.control.push_back(to_string(*address));
  }
  if (!arguments.management.empty()) {
    const auto address = parse_address("--management", arguments.management);
    if (!address) return std::unexpected(address.error());
    is_far |= !is_of_this_machine(*address);
    plan.management = *address;
  }
  if (!arguments.advertise.empty()) {
    const auto address = parse_address("--advertise", arguments.advertise);
    if (!address) return std::unexpected(address.error());
    plan.advertise = *address;
  }
  if (is_far && !plan.tls && !arguments.insecure) {
    return std::unexpected(
        "beyond this machine --control and --management need TLS: give --tls-ca, --tls-certificate and --tls-key, or "
        "--insecure");
  }
  return {};
}

std::expected<void, Complaint> check_cluster(const EngineArguments& arguments, ClusterPlan& plan) {
  plan.node = arguments.node.empty() ? host_name() : arguments.node;
  if (!pool::is_valid_name(plan.node)) {
    return std::unexpected(fmt::format(
        "--node {}: expected 1 to 63 letters, digits, '.', '_' or '-', with a letter or digit first", plan.node));
  }
  plan.state_directory = arguments.state_dir;
  if (const auto labels = check_labels(arguments.labels, plan); !labels) return labels;
  if (const auto tls = check_tls(arguments, plan); !tls) return tls;
  if (const auto addresses = check_addresses(arguments, plan); !addresses) return addresses;
  if (!plan.control.empty() && !plan.management) {
    return std::unexpected("--control needs --management ADDR:PORT: where the control plane calls back");
  }
  if (plan.management && plan.state_directory.empty()) {
    return std::unexpected("--management needs --state-dir DIR: what it is told must be known after a restart");
  }
  return {};
}

}  // namespace

std::expected<EnginePlan, Complaint> check(const EngineArguments& arguments) {
  EnginePlan plan;
  if (const auto cluster = check_cluster(arguments, plan.cluster); !cluster) return std::unexpected(cluster.error());
  if (arguments.pool.empty() && !plan.cluster.management) {
    return std::unexpected("give the pool's disks: --pool DISK[,DISK…], or --management for a control plane");
  }
  const auto stop_limit = parse_span("--stop-limit", arguments.stop_limit, {seconds(1), seconds(3600), "1s to 3600s"});
  if (!stop_limit) return std::unexpected(stop_limit.error());
  plan.stop_limit = *stop_limit;
  if (const auto pool = check_pool(arguments, plan); !pool) return std::unexpected(pool.error());
  const auto listeners = parse_listeners(arguments.listen);
  if (!listeners) return std::unexpected(listeners.error());
  plan.listeners = *listeners;
  const target::ListenerOptions& data = plan.listeners.front();
  if (plan.cluster.management && !plan.cluster.advertise && !data.advertise && is_any(data.bind)) {
    return std::unexpected(
        fmt::format("--listen {} is every address of this machine: say by --advertise ADDR which one others are to use",
                    to_string(data.bind)));
  }
  plan.takes_commands = arguments.commands;
  plan.has_faulty_disks = arguments.faulty;
  if (const auto times = check_times(arguments, plan.engine.mirror); !times) return std::unexpected(times.error());
  if (arguments.resync_share < 1 || arguments.resync_share > 100) {
    return std::unexpected(fmt::format("--resync-share {}: expected 1 to 100 percent", arguments.resync_share));
  }
  plan.engine.mirror.resync_share_percent = arguments.resync_share;
  if (arguments.copies < 1 || arguments.copies > kCopiesMax) {
    return std::unexpected(fmt::format("--copies {}: expected 1 to {}", arguments.copies, kCopiesMax));
  }
  plan.engine.copies_max = arguments.copies;
  if (!arguments.controller_ids.empty()) {
    const auto ids = parse_controller_ids(arguments.controller_ids);
    if (!ids) return std::unexpected(ids.error());
    plan.engine.controller_ids = *ids;
  }
  plan.engine.target.firmware = kVersion;
  const auto runtime = parse_runtime(arguments.shards, arguments.poll);
  if (!runtime) return std::unexpected(runtime.error());
  plan.runtime = *runtime;
  return plan;
}

}  // namespace fairlead::cli
