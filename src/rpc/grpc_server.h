// GrpcServer: a Service that other processes can call by gRPC, over TCP, with mutual TLS when there are files for it,
// or over a socket of this machine. One shard; gRPC has threads of its own, which SIGINT and SIGTERM never reach.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "async/reactor.h"
#include "async/task.h"
#include "async/time.h"
#include "rpc/service.h"
#include "rpc/tls_files.h"

namespace fairlead::rpc {

// A method's error goes out as gRPC's code of it, with its words as the message and its name in the trailer
// "fairlead-code". Requests and replies of more than 64 MiB are refused (kResourceExhausted). A method runs to its end,
// whether or not its caller is still there.
class GrpcServer {
 public:
  struct Options {
    std::string address;               // IP:PORT, [IPv6]:PORT; port 0: any. Or unix:///PATH, a socket in a folder
    std::optional<TlsFiles> tls = {};  // without: in the clear
    std::string name = "rpc";          // of what is served, for the log
    Duration grace = std::chrono::seconds(2);
  };

  // `service` is borrowed until stop() has returned.
  GrpcServer(Reactor& home, const Service& service, Options options);
  ~GrpcServer();  // Requires: it was not started, or stop() has returned.
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  // Listens; returns the port, 0 of unix:///PATH. Once, or again after stop(). A socket that is left at PATH makes way,
  // whoever may listen there; stop() removes it. Blocks for some milliseconds. Errors: those of
  // check_tls_files(); kBusy (somebody has the address), kInvalidArgument (it is none, or not of this machine),
  // kNotFound (no folder of PATH), kPermissionDenied, kIo.
  Outcome<uint16_t> start();

  // Takes no more calls, lets those under way end for `grace`, then cuts their callers off; returns when the last
  // method has ended. No effect when it does not run. Requires: it is not stopping already.
  Task<void> stop();

 private:
  class State;

  Reactor& home_;
  const Service& service_;
  const Options options_;
  std::unique_ptr<State> state_;  // while it runs
};

}  // namespace fairlead::rpc
