// Connection: bytes of one HTTP client, in the clear or by TLS, each step with a time limit. Lives on one thread, which
// it blocks.
#pragma once

#include <memory>
#include <openssl/ssl.h>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "async/time.h"
#include "base/problem.h"

namespace fairlead::gateway {

// Paths of PEM files.
struct ServerCertificate {
  std::string certificate;  // its own first, then what links it to a CA, if anything
  std::string key;
};

struct FreeTls {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using TlsContext = std::unique_ptr<SSL_CTX, FreeTls>;

// Blocks for as long as files take to read. Errors: what the system says of a file, kInvalidArgument.
Outcome<TlsContext> make_tls_context(const ServerCertificate& files);

// The context of one thread: made of the files again when it is older than `age_max`; while they are no good the old
// one serves on.
class TlsKeeper {
 public:
  TlsKeeper(std::optional<ServerCertificate> files, Duration age_max) : files_(std::move(files)), age_max_(age_max) {}
  // Null: without files. Valid until the next call.
  SSL_CTX* context();

 private:
  const std::optional<ServerCertificate> files_;
  const Duration age_max_;
  TlsContext context_;
  int64_t made_ns_ = 0;
};

// A socket that listens, and tells by itself when it has been shut down.
class Listener {
 public:
  // `address`: "IP:PORT". Errors: kInvalidArgument, kBusy (somebody has it), kPermissionDenied, kIo.
  static Outcome<std::unique_ptr<Listener>> open(const std::string& address);
  ~Listener();  // Requires: nobody waits in accept().
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  uint16_t port() const { return port_; }
  int descriptor() const { return descriptor_; }
  // From any thread. Waits for the next; -1: shut down.
  int accept() const;
  // From any thread: ends all accept(), and what connections wait for that serve nobody now.
  void shut_down() const;
  bool is_shut_down() const;

 private:
  explicit Listener(int descriptor) : descriptor_(descriptor) {}
  const int descriptor_;
  uint16_t port_ = 0;
};

class Connection {
 public:
  // Takes the socket over. The rest is borrowed for life; `tls` may be null.
  Connection(int socket, const Listener& listener, SSL_CTX* tls, Duration send_limit);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Of TLS. False: it came to nothing.
  bool open(Duration limit);
  // False: within `limit` the client sent nothing, or it or the listener is gone.
  bool wait_for_request(Duration limit);
  // What is read from now on has to be there by then.
  void limit_reading(Duration limit);

  // 1 or more bytes; 0: the client sends no more; -1: too late, or it is gone.
  long read(std::span<char> into);
  // All of it, at 64 KiB a second at least.
  bool write(std::string_view bytes);
  bool is_gone() const;
  // Lets the client read what was written although it is still sending.
  void linger(Duration limit);

 private:
  bool wait(short events, int64_t until_ns, bool heeds_listener) const;
  long receive(std::span<char> into);

  const int socket_;
  const Listener& listener_;
  const Duration send_limit_;
  std::unique_ptr<SSL, FreeTls> ssl_;
  int64_t read_until_ns_ = 0;
  bool is_broken_ = false;
  std::vector<char> buffer_;  // what was received and not read
  size_t buffer_begin_ = 0;
  size_t buffer_end_ = 0;
};

}  // namespace fairlead::gateway
