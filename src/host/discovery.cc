#include "host/discovery.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <deque>
#include <set>

#include "base/log.h"
#include "host/admin.h"
#include "nvme/nqn.h"

namespace fairlead::host {
namespace {

constexpr int kReadAttempts = 5;  // of a log that changes while it is read

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; });
}

template <typename T>
std::span<std::byte> bytes_of(std::vector<T>& list) {
  return std::as_writable_bytes(std::span(list));
}

Task<Result<nvme::DiscoveryHeader>> read_header(Admin& admin) {
  std::vector<nvme::DiscoveryHeader> header(1);
  FL_CO_TRY_VOID(co_await admin.read_log({.page = nvme::LogPage::kDiscovery}, bytes_of(header)));
  co_return header.front();
}

// The generation says whether all pieces are of one log.
Task<Result<std::vector<nvme::DiscoveryEntry>>> read_entries(Admin& admin) {
  for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
    FL_CO_TRY(const nvme::DiscoveryHeader before, co_await read_header(admin));
    if (before.record_format != 0) co_return fail(Code::kNotSupported, "an unknown format of the discovery log");
    if (before.records > kDiscoveryEntriesMax) co_return fail(Code::kResourceExhausted, "a discovery log too long");
    std::vector<nvme::DiscoveryEntry> entries(before.records);
    FL_CO_TRY_VOID(co_await admin.read_log({.page = nvme::LogPage::kDiscovery, .offset = sizeof(nvme::DiscoveryHeader)},
                                           bytes_of(entries)));
    FL_CO_TRY(const nvme::DiscoveryHeader after, co_await read_header(admin));
    if (after.generation == before.generation) co_return entries;
  }
  co_return fail(Code::kBusy, "the discovery log changes too quickly to be read");
}

Task<Result<std::vector<nvme::DiscoveryEntry>>> ask(Shard& shard, Queue& queue) {
  FL_CO_TRY_VOID(co_await queue.connect());
  Admin admin(shard.reactor, queue);
  FL_CO_TRY_VOID(co_await admin.bring_up());
  auto entries = co_await read_entries(admin);
  if (entries) co_await admin.shut_down();
  co_return entries;
}

Task<Result<std::vector<nvme::DiscoveryEntry>>> ask_at(Shard& shard, SocketAddress address, DiscoveryOptions options) {
  QueueOptions queue_options;
  queue_options.address = address;
  queue_options.subsystem_nqn = nvme::kDiscoveryNqn;
  queue_options.host_nqn = options.identity.nqn;
  queue_options.host_id = options.identity.id.bytes;
  queue_options.connect_timeout = options.timeout;
  queue_options.command_timeout = options.timeout;
  queue_options.abort_timeout = options.timeout;
  Queue queue(shard, std::move(queue_options));
  auto entries = co_await ask(shard, queue);
  queue.close("the question was answered");
  co_await queue.closed();
  co_return entries;
}

}  // namespace

std::optional<SocketAddress> DiscoveredSubsystem::socket_address() const {
  if (transport != nvme::TransportType::kTcp) return std::nullopt;
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(service.data(), service.data() + service.size(), port);
  if (error != std::errc() || end != service.data() + service.size() || port == 0) return std::nullopt;
  Result<SocketAddress> parsed = parse_socket_address(address, port);
  if (!parsed || parsed->port != port) return std::nullopt;
  return *parsed;
}

Result<DiscoveredSubsystem> read_discovery_entry(const nvme::DiscoveryEntry& entry) {
  const std::optional<std::string_view> nqn = nvme::read_zero_terminated(entry.subnqn);
  if (!nqn || !nvme::is_acceptable_nqn(*nqn)) return fail(Code::kProtocol, "a discovery entry without a proper NQN");
  DiscoveredSubsystem found;
  found.type = static_cast<nvme::SubsystemType>(entry.subtype);
  found.transport = static_cast<nvme::TransportType>(entry.trtype);
  found.family = static_cast<nvme::AddressFamily>(entry.adrfam);
  found.nqn = *nqn;
  found.address = nvme::read_space_padded(entry.traddr);
  found.service = nvme::read_space_padded(entry.trsvcid);
  if (!is_printable(found.address) || !is_printable(found.service)) {
    return fail(Code::kProtocol, "a discovery entry whose address is no text");
  }
  found.port_id = entry.portid;
  found.controller_id = entry.cntlid;
  found.requires_secure_channel = (entry.treq & 0x3) == static_cast<uint8_t>(nvme::SecureChannel::kRequired);
  return found;
}

Task<Result<Discovery>> discover(Shard& shard, SocketAddress address, DiscoveryOptions options) {
  Discovery discovery;
  std::deque<SocketAddress> to_ask{address};
  std::set<SocketAddress> known{address};
  while (!to_ask.empty()) {
    const SocketAddress at = to_ask.front();
    to_ask.pop_front();
    const auto entries = co_await ask_at(shard, at, options);
    if (!entries) {
      if (at == address) co_return std::unexpected(entries.error());
      discovery.failures.push_back({at, entries.error()});
      continue;
    }
    for (const nvme::DiscoveryEntry& entry : *entries) {
      Result<DiscoveredSubsystem> found = read_discovery_entry(entry);
      if (!found) {
        log_warn("host.discovery_entry", {{"address", to_string(at)}, {"error", to_string(found.error())}});
        continue;
      }
      found->learned_from = at;
      const std::optional<SocketAddress> next = found->socket_address();
      const bool leads_on = found->type == nvme::SubsystemType::kReferral && next && options.follow_referrals;
      if (leads_on && known.size() <= kReferralsMax && known.insert(*next).second) to_ask.push_back(*next);
      discovery.found.push_back(std::move(*found));
    }
  }
  co_return discovery;
}

}  // namespace fairlead::host
