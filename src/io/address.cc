#include "io/address.h"

#include <arpa/inet.h>
#include <charconv>
#include <cstring>
#include <fmt/format.h>

namespace fairlead {
namespace {

constexpr const char* kForm = "an address is IP, IPv4:PORT or [IPv6]:PORT";

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size()) {
    return fail(Code::kInvalidArgument, "a port is a number from 0 to 65535");
  }
  return port;
}

}  // namespace

std::string SocketAddress::ip_text() const {
  char text[INET6_ADDRSTRLEN];
  inet_ntop(family == AddressFamily::kIpv4 ? AF_INET : AF_INET6, ip.data(), text, sizeof text);
  return text;
}

std::string to_string(const SocketAddress& address) {
  if (address.family == AddressFamily::kIpv4) return fmt::format("{}:{}", address.ip_text(), address.port);
  return fmt::format("[{}]:{}", address.ip_text(), address.port);
}

Result<SocketAddress> parse_socket_address(std::string_view text, uint16_t default_port) {
  std::string_view host = text;
  std::string_view port_text;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return fail(Code::kInvalidArgument, kForm);
    host = text.substr(1, close - 1);
    const std::string_view rest = text.substr(close + 1);
    if (!rest.empty() && (!rest.starts_with(':') || rest.size() == 1)) return fail(Code::kInvalidArgument, kForm);
    if (!rest.empty()) port_text = rest.substr(1);
  } else if (const size_t colon = text.find(':'); colon != std::string_view::npos && colon == text.rfind(':')) {
    host = text.substr(0, colon);
    port_text = text.substr(colon + 1);
    if (port_text.empty()) return fail(Code::kInvalidArgument, kForm);
  }
  SocketAddress address;
  address.port = default_port;
  if (!port_text.empty()) {
    FL_TRY(address.port, parse_port(port_text));
  }
  const std::string host_text(host);
  if (inet_pton(AF_INET, host_text.c_str(), address.ip.data()) == 1) {
    address.family = AddressFamily::kIpv4;
    return address;
  }
  if (inet_pton(AF_INET6, host_text.c_str(), address.ip.data()) == 1) {
    address.family = AddressFamily::kIpv6;
    return address;
  }
  return fail(Code::kInvalidArgument, kForm);
}

}  // namespace fairlead
