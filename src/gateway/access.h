// Access: who may ask for what. Immutable, for any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/http.h"

namespace fairlead::gateway {

enum class Role : uint8_t {
  kViewer,  // looks
  kHost,    // and says of a volume that it froze its file system, when it is asked for that
  kAdmin,   // changes all
};

// Bearer tokens. They are kept as digests, and compared in a time that tells nothing.
class Tokens {
 public:
  // Lines "TOKEN ROLE", ROLE being admin, host or viewer; empty ones and those that begin with '#' count for nothing. Error
  // kInvalidArgument, which names the line and shows no token.
  static Outcome<Tokens> parse(std::string_view text);

  std::optional<Role> role_of(std::string_view token) const;

 private:
  using Digest = std::array<uint8_t, 32>;
  struct Entry {
    Digest digest;
    Role role;
  };
  static Digest digest_of(std::string_view token);

  std::vector<Entry> entries_;
};

// With tokens: every request needs one, but for /livez and /readyz. Without: for a server that only this machine
// reaches; every request is let in that names this machine as its host, as no page of another site can make a browser
// do. Neither takes requests that a page of another site sends.
class Access {
 public:
  explicit Access(std::optional<Tokens> tokens) : tokens_(std::move(tokens)) {}

  // By method, path and headers. None: it is let in.
  std::optional<HttpResponse> refuse(const HttpRequest& request) const;

 private:
  std::optional<HttpResponse> refuse_token(const HttpRequest& request) const;

  std::optional<Tokens> tokens_;
};

}  // namespace fairlead::gateway
