// GrpcDialer: channels that are carried by gRPC over TCP, with mutual TLS when there are files for it. One shard; gRPC
// has threads of its own, which SIGINT and SIGTERM never reach.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "async/reactor.h"
#include "rpc/channel.h"
#include "rpc/tls_files.h"

namespace fairlead::rpc {

// Its channels may outlive it. Each has a connection of its own, made by the first call and kept; when it cannot be
// made, calls fail at once until the next try, 0.1 to 1 s later. A peer that answers nothing for 20 s has lost its
// connection.
//
// Errors beside those of Channel: kResourceExhausted (a request or a reply of more than 64 MiB).
class GrpcDialer final : public Dialer {
 public:
  // Without `tls`: in the clear. Files are not looked at here (check_tls_files() does): while they are no good, nothing
  // can be reached.
  GrpcDialer(Reactor& home, const std::optional<TlsFiles>& tls);
  ~GrpcDialer() override;

  // "HOST:PORT" with a DNS name, an IPv4 address, or an IPv6 address in brackets.
  std::unique_ptr<Channel> dial(std::string address) override;

 private:
  struct Credentials;

  Reactor& home_;
  std::unique_ptr<Credentials> credentials_;
};

}  // namespace fairlead::rpc
