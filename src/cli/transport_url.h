// nvme+tcp://ADDR[:PORT]/NQN[?ns=N]: a namespace of a subsystem, and an address where it can be reached.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "io/address.h"

namespace fairlead::cli {

inline constexpr uint16_t kNvmePort = 4420;  // IANA's for NVMe over fabrics

struct TransportUrl {
  SocketAddress address;
  std::string nqn;
  std::optional<uint32_t> nsid = std::nullopt;  // of the namespace; not given: the first, or all of them

  friend bool operator==(const TransportUrl&, const TransportUrl&) = default;
};

bool is_transport_url(std::string_view text);

// Requires: is_transport_url(). The address is IPv4, [IPv6] or localhost, which stands for 127.0.0.1. Error
// kInvalidArgument, which says which part is wrong: names are not looked up.
Result<TransportUrl> parse_transport_url(std::string_view text);

// "10.0.0.1:4420", "[::1]", "localhost:4420": parse_socket_address() and localhost.
Result<SocketAddress> parse_host_address(std::string_view text, uint16_t default_port);

std::string to_string(const TransportUrl& url);

}  // namespace fairlead::cli
