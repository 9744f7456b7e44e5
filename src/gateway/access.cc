#include "gateway/access.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "io/address.h"

namespace fairlead::gateway {
namespace {

constexpr size_t kTokenBytesMin = 16;

std::string_view take_word(std::string_view& line) {
  const size_t begin = line.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return line = {};
  const size_t end = std::min(line.find_first_of(" \t\r", begin), line.size());
  const std::string_view word = line.substr(begin, end - begin);
  line.remove_prefix(end);
  return word;
}

std::optional<Role> role_named(std::string_view name) {
  if (name == "admin") return Role::kAdmin;
  if (name == "host") return Role::kHost;
  if (name == "viewer") return Role::kViewer;
  return std::nullopt;
}

bool is_answer_of_host(const HttpRequest& request) {
  constexpr std::string_view kBegin = "/v1/volumes/";
  constexpr std::string_view kEnd = "/frozen";
  return request.method == "POST" && request.path.size() > kBegin.size() + kEnd.size() &&
         request.path.starts_with(kBegin) && request.path.ends_with(kEnd);
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_this_machine(std::string_view host) {
  std::string name;
  for (const char c : host) name += lower(c);
  const size_t colon = name.rfind(':');
  if (name.substr(0, colon) == "localhost") return true;
  const Result<SocketAddress> address = parse_socket_address(name, 1);
  if (!address) return false;
  if (address->family == AddressFamily::kIpv4) return address->ip[0] == 127;
  SocketAddress loopback{.family = AddressFamily::kIpv6};
  loopback.ip[15] = 1;
  return address->ip == loopback.ip;
}

// The origin's host and port, as a Host header has them.
std::string_view host_of(std::string_view origin) {
  const size_t scheme = origin.find("://");
  return scheme == std::string_view::npos ? origin : origin.substr(scheme + 3);
}

}  // namespace

Tokens::Digest Tokens::digest_of(std::string_view token) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

Outcome<Tokens> Tokens::parse(std::string_view text) {
  Tokens tokens;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string_view token = take_word(line);
    if (token.empty() || token.starts_with('#')) continue;
    const std::optional<Role> role = role_named(take_word(line));
    if (!role || !take_word(line).empty()) {
      return problem(Code::kInvalidArgument,
                     fmt::format("line {}: expected a token and its role, which is admin, host or viewer", number));
    }
    if (token.size() < kTokenBytesMin) {
      return problem(Code::kInvalidArgument, fmt::format("line {}: the token is too easy to guess: take {} characters "
                                                         "at least, drawn by chance",
                                                         number, kTokenBytesMin));
    }
    tokens.entries_.push_back({.digest = digest_of(token), .role = *role});
  }
  if (tokens.entries_.empty()) return problem(Code::kInvalidArgument, "there is no token: nobody could ask");
  return tokens;
}

std::optional<Role> Tokens::role_of(std::string_view token) const {
  const Digest digest = digest_of(token);
  std::optional<Role> role;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) role = entry.role;
  }
  return role;
}

std::optional<HttpResponse> Access::refuse_token(const HttpRequest& request) const {
  if (request.path == "/livez" || request.path == "/readyz") return {};
  constexpr std::string_view kScheme = "bearer ";
  const std::string_view given = request.header("authorization");
  bool is_bearer = given.size() > kScheme.size();
  for (size_t i = 0; is_bearer && i < kScheme.size(); ++i) is_bearer = lower(given[i]) == kScheme[i];
  const std::optional<Role> role = is_bearer ? tokens_->role_of(given.substr(kScheme.size())) : std::nullopt;
  if (!role) {
    HttpResponse response = problem_response(
        401, Code::kPermissionDenied,
        given.empty() ? "a token is needed: send the header 'Authorization: Bearer TOKEN'" : "the token is not known");
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }
  if (*role == Role::kAdmin || request.method == "GET" || request.method == "HEAD") return {};
  if (*role == Role::kHost && is_answer_of_host(request)) return {};
  return problem_response(
      403, Code::kPermissionDenied,
      *role == Role::kHost ? "the token's role is host, which only answers for volumes that it has: use one of an admin"
                           : "the token's role is viewer, which changes nothing: use one of an admin");
}

std::optional<HttpResponse> Access::refuse(const HttpRequest& request) const {
  const std::string_view host = request.header("host");
  const std::string_view origin = request.header("origin");
  if (!origin.empty() && host_of(origin) != host) {
    return problem_response(403, Code::kPermissionDenied,
                            fmt::format("a page of {} asks, which is another site: that is refused", origin));
  }
  if (tokens_) return refuse_token(request);
  if (is_this_machine(host)) return {};
  return problem_response(421, Code::kPermissionDenied,
                          fmt::format("the request is for host '{}'; without tokens only localhost is answered: ask "
                                      "for http://127.0.0.1",
                                      host));
}

}  // namespace fairlead::gateway
