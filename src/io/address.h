// IPv4 and IPv6 socket addresses, as text and as bytes.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace fairlead {

enum class AddressFamily : uint8_t { kIpv4, kIpv6 };

struct SocketAddress {
  AddressFamily family = AddressFamily::kIpv4;
  std::array<uint8_t, 16> ip{};  // network order; IPv4 uses the first four bytes
  uint32_t scope_id = 0;         // interface of an IPv6 link-local address
  uint16_t port = 0;

  friend auto operator<=>(const SocketAddress&, const SocketAddress&) = default;
  std::string ip_text() const;  // "10.0.0.1", "fe80::1"
};

// "10.0.0.1:4420" or "[fe80::1]:4420"
std::string to_string(const SocketAddress& address);

// From "10.0.0.1:4420", "[::1]:4420", and without the port, which then is `default_port`: "10.0.0.1", "::1", "[::1]".
// Error kInvalidArgument: names are not looked up.
Result<SocketAddress> parse_socket_address(std::string_view text, uint16_t default_port);

}  // namespace fairlead
