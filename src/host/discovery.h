// Discovery: what the discovery controllers at some addresses know (base 2.0 sections 3.1.2.3, 5.16.1.23). Lives on one
// shard; connects for each question and disconnects after it.
#pragma once

#include <string>
#include <vector>

#include "host/options.h"
#include "io/shard.h"
#include "nvme/log_page.h"

namespace fairlead::host {

struct DiscoveredSubsystem {
  nvme::SubsystemType type = nvme::SubsystemType::kNvm;
  nvme::TransportType transport = nvme::TransportType::kTcp;
  nvme::AddressFamily family = nvme::AddressFamily::kUnspecified;
  std::string nqn;
  std::string address;  // as the controller writes it: for TCP an IP address
  std::string service;  // for TCP a port
  uint16_t port_id = 0;
  uint16_t controller_id = 0;
  bool requires_secure_channel = false;
  SocketAddress learned_from;  // the discovery controller that said so

  // Where to connect; none for another transport than TCP, or an address that is none.
  std::optional<SocketAddress> socket_address() const;
};

struct DiscoveryOptions {
  HostIdentity identity;
  Duration timeout = std::chrono::seconds(5);  // of connecting, and of each command
  bool follow_referrals = true;                // to at most kReferralsMax other discovery controllers
};
inline constexpr size_t kReferralsMax = 32;
inline constexpr size_t kDiscoveryEntriesMax = 4096;  // of one controller

struct Discovery {
  std::vector<DiscoveredSubsystem> found;
  struct Failure {
    SocketAddress address;
    Error error;
  };
  std::vector<Failure> failures;  // of referrals; the first controller's failure is the result
};

// Errors: as Queue::connect(); kProtocol, kBusy (its log changes all the time), kResourceExhausted (too long).
Task<Result<Discovery>> discover(Shard& shard, SocketAddress address, DiscoveryOptions options);

// An entry of the log, validated. Error kProtocol.
Result<DiscoveredSubsystem> read_discovery_entry(const nvme::DiscoveryEntry& entry);

}  // namespace fairlead::host
