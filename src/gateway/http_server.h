// HttpServer: answers HTTP/1.1 requests by a handler on a shard. Its threads read and write; each holds one client at a
// time, and nothing waits for a client longer than the options say. SIGINT and SIGTERM never reach them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "async/reactor.h"
#include "async/task.h"
#include "async/time.h"
#include "gateway/access.h"
#include "gateway/connection.h"
#include "gateway/http.h"

namespace fairlead::gateway {

struct HttpServerOptions {
  std::string address;                                     // IP:PORT, [IPv6]:PORT; port 0: any
  std::optional<ServerCertificate> certificate = {};       // without: in the clear
  Duration certificate_age_max = std::chrono::minutes(1);  // then its files are read again
  Access access{std::nullopt};                             // by whom
  size_t threads = 32;                                     // clients that are served at once
  size_t feeds_max = 16;                                   // of these, that watch
  size_t head_bytes_max = 32 * 1024;                       // of a request, without its body
  size_t body_bytes_max = 1024 * 1024;
  Duration receive_limit = std::chrono::seconds(10);  // for a whole request
  Duration idle_limit = std::chrono::seconds(5);      // for the next one on a connection
  Duration answer_limit = std::chrono::seconds(30);   // for the handler
  Duration send_limit = std::chrono::seconds(5);  // for an answer or a piece of a feed, and one more for each 64 KiB
};

// Lives on home's shard.
class HttpServer {
 public:
  // `handler` is borrowed until stop() has returned. Its feeds are made, used and destroyed on home.
  HttpServer(Reactor& home, HttpHandler& handler, HttpServerOptions options);
  ~HttpServer();  // Requires: it was not started, or stop() has returned.
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Listens; returns the port. Once. Blocks for some milliseconds. Errors: those of make_tls_context() and
  // Listener::open().
  Outcome<uint16_t> start();

  // Takes no more requests; returns when those that were taken have been answered, and every feed had its last piece.
  // No effect when it does not run.
  Task<void> stop();

 private:
  class State;

  Reactor& home_;
  HttpHandler& handler_;
  const HttpServerOptions options_;
  std::unique_ptr<State> state_;  // while it runs
};

}  // namespace fairlead::gateway
