#include "cli/transport_url.h"

#include <charconv>
#include <fmt/format.h>

#include "base/check.h"
#include "nvme/nqn.h"

namespace fairlead::cli {
namespace {

constexpr std::string_view kScheme = "nvme+tcp://";

// "ns=2", the only parameter there is.
Result<uint32_t> parse_nsid(std::string_view query) {
  constexpr std::string_view kKey = "ns=";
  uint32_t nsid = 0;
  if (query.starts_with(kKey)) {
    query.remove_prefix(kKey.size());
    const auto [end, error] = std::from_chars(query.data(), query.data() + query.size(), nsid);
    // The last two numbers stand for no namespace and for all of them.
    if (error == std::errc{} && end == query.data() + query.size() && nsid > 0 && nsid < UINT32_MAX - 1) return nsid;
  }
  return fail(Code::kInvalidArgument, "behind '?' stands the number of a namespace, such as ns=1");
}

}  // namespace

bool is_transport_url(std::string_view text) { return text.starts_with(kScheme); }

Result<SocketAddress> parse_host_address(std::string_view text, uint16_t default_port) {
  constexpr std::string_view kLocal = "localhost";
  if (text == kLocal || text.starts_with("localhost:")) {
    return parse_socket_address("127.0.0.1" + std::string(text.substr(kLocal.size())), default_port);
  }
  return parse_socket_address(text, default_port);
}

Result<TransportUrl> parse_transport_url(std::string_view text) {
  FL_CHECK(is_transport_url(text));
  text.remove_prefix(kScheme.size());
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) {
    return fail(Code::kInvalidArgument, "behind the address stands the name of a subsystem: nvme+tcp://ADDR:PORT/NQN");
  }
  TransportUrl url;
  FL_TRY(url.address, parse_host_address(text.substr(0, slash), kNvmePort));
  std::string_view nqn = text.substr(slash + 1);
  if (const size_t query = nqn.rfind('?'); query != std::string_view::npos) {
    FL_TRY(url.nsid, parse_nsid(nqn.substr(query + 1)));
    nqn = nqn.substr(0, query);
  }
  // Other targets take names that the specification would not.
  if (!nvme::is_acceptable_nqn(nqn)) {
    return fail(Code::kInvalidArgument, "behind the address stands the name of a subsystem, 1 to 223 bytes of text");
  }
  url.nqn = nqn;
  return url;
}

std::string to_string(const TransportUrl& url) {
  const std::string query = url.nsid ? fmt::format("?ns={}", *url.nsid) : "";
  return fmt::format("{}{}/{}{}", kScheme, to_string(url.address), url.nqn, query);
}

}  // namespace fairlead::cli
