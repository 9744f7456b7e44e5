#include "gateway/connection.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "io/address.h"

namespace fairlead::gateway {
namespace {

constexpr int kBacklog = 128;
constexpr size_t kBufferBytes = 16 * 1024;
constexpr int64_t kBytesPerSecondMin = 64 * 1024;
constexpr size_t kLingerBytesMax = 8 << 20;

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

// The first of what OpenSSL has to say is the cause.
std::unexpected<Problem> problem_with(const std::string& path, const char* what) {
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  if (error != 0 && ERR_SYSTEM_ERROR(error)) {
    return problem_of(error_from_errno(static_cast<int>(ERR_GET_REASON(error)), "read the file"), path);
  }
  return problem(Code::kInvalidArgument, fmt::format("{} {}", path, what));
}

struct SystemAddress {
  sockaddr_storage storage = {};
  socklen_t size = 0;
};
SystemAddress to_system(const SocketAddress& address) {
  SystemAddress system;
  if (address.family == AddressFamily::kIpv4) {
    sockaddr_in ipv4 = {};
    ipv4.sin_family = AF_INET;
    ipv4.sin_port = htons(address.port);
    std::memcpy(&ipv4.sin_addr, address.ip.data(), sizeof(ipv4.sin_addr));
    std::memcpy(&system.storage, &ipv4, system.size = sizeof(ipv4));
  } else {
    sockaddr_in6 ipv6 = {};
    ipv6.sin6_family = AF_INET6;
    ipv6.sin6_port = htons(address.port);
    ipv6.sin6_scope_id = address.scope_id;
    std::memcpy(&ipv6.sin6_addr, address.ip.data(), sizeof(ipv6.sin6_addr));
    std::memcpy(&system.storage, &ipv6, system.size = sizeof(ipv6));
  }
  return system;
}

uint16_t port_of(int socket) {
  sockaddr_storage storage = {};
  socklen_t size = sizeof(storage);
  FL_CHECK(::getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &size) == 0);
  // The port is in the same place in both families.
  sockaddr_in ipv4 = {};
  std::memcpy(&ipv4, &storage, sizeof(ipv4));
  return ntohs(ipv4.sin_port);
}

}  // namespace

Outcome<TlsContext> make_tls_context(const ServerCertificate& files) {
  ERR_clear_error();
  TlsContext context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) return problem(Code::kInternal, "OpenSSL cannot be used");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  if (SSL_CTX_use_certificate_chain_file(context.get(), files.certificate.c_str()) != 1) {
    return problem_with(files.certificate, "holds no certificate in PEM form");
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return problem_with(files.key, fmt::format("holds no key in PEM form that fits {}", files.certificate).c_str());
  }
  return context;
}

SSL_CTX* TlsKeeper::context() {
  if (!files_ || (context_ != nullptr && now_ns() - made_ns_ < age_max_.count())) return context_.get();
  Outcome<TlsContext> made = make_tls_context(*files_);
  if (made) {
    context_ = std::move(*made);
  } else {
    log_warn("http.certificate", {{"error", to_string(made.error())}});
  }
  made_ns_ = now_ns();
  return context_.get();
}

// ---- Listener

Outcome<std::unique_ptr<Listener>> Listener::open(const std::string& address) {
  const Result<SocketAddress> parsed = parse_socket_address(address, 0);
  if (!parsed) return problem_of(parsed.error(), address);
  const SystemAddress system = to_system(*parsed);
  const int descriptor = ::socket(system.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return problem_of(error_from_errno(errno, "make a socket"), address);
  std::unique_ptr<Listener> listener(new Listener(descriptor));
  const int on = 1;
  FL_CHECK(::setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
  if (::bind(descriptor, reinterpret_cast<const sockaddr*>(&system.storage), system.size) != 0 ||
      ::listen(descriptor, kBacklog) != 0) {
    Error error = error_from_errno(errno, "listen");
    if (error.os_errno == EADDRNOTAVAIL) error.code = Code::kInvalidArgument;
    return problem_of(error, address);
  }
  listener->port_ = port_of(descriptor);
  return listener;
}

Listener::~Listener() { ::close(descriptor_); }

int Listener::accept() const {
  while (true) {
    const int socket = ::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket >= 0) return socket;
    if (is_shut_down()) return -1;
    // Whatever else it is (no descriptors left, a client that left again) passes.
    if (errno != ECONNABORTED && errno != EINTR) {
      pollfd shut = {.fd = descriptor_, .events = 0, .revents = 0};
      ::poll(&shut, 1, 50);
    }
  }
}

void Listener::shut_down() const { ::shutdown(descriptor_, SHUT_RDWR); }

bool Listener::is_shut_down() const {
  // What listens has no more to say of itself than that it was shut down.
  pollfd shut = {.fd = descriptor_, .events = 0, .revents = 0};
  return ::poll(&shut, 1, 0) == 1;
}

// ---- Connection

Connection::Connection(int socket, const Listener& listener, SSL_CTX* tls, Duration send_limit)
    : socket_(socket), listener_(listener), send_limit_(send_limit), buffer_(kBufferBytes) {
  const int on = 1;
  ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (tls == nullptr) return;
  ssl_.reset(SSL_new(tls));
  is_broken_ = ssl_ == nullptr || SSL_set_fd(ssl_.get(), socket_) != 1;
}

Connection::~Connection() {
  if (ssl_ != nullptr && !is_broken_) SSL_shutdown(ssl_.get());
  ssl_.reset();
  ::close(socket_);
}

// False: too late, or the listener was shut down.
bool Connection::wait(short events, int64_t until_ns, bool heeds_listener) const {
  while (true) {
    const int64_t left_ms = (until_ns - now_ns() + 999'999) / 1'000'000;
    if (left_ms <= 0) return false;
    pollfd polled[] = {{.fd = socket_, .events = events, .revents = 0},
                       {.fd = listener_.descriptor(), .events = 0, .revents = 0}};
    const int count = ::poll(polled, heeds_listener ? 2 : 1, static_cast<int>(std::min<int64_t>(left_ms, 60'000)));
    if (count < 0 && errno != EINTR) return false;
    if (count <= 0) continue;
    return polled[0].revents != 0 && polled[1].revents == 0;
  }
}

bool Connection::open(Duration limit) {
  if (is_broken_) return false;
  if (ssl_ == nullptr) return true;
  const int64_t until = now_ns() + limit.count();
  while (true) {
    ERR_clear_error();
    const int done = SSL_accept(ssl_.get());
    if (done == 1) return true;
    const int error = SSL_get_error(ssl_.get(), done);
    const bool goes_on = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
    if (!goes_on || !wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, until, true)) {
      is_broken_ = true;
      return false;
    }
  }
}

bool Connection::wait_for_request(Duration limit) {
  if (is_broken_) return false;
  if (buffer_begin_ < buffer_end_ || (ssl_ != nullptr && SSL_pending(ssl_.get()) > 0)) return true;
  return wait(POLLIN, now_ns() + limit.count(), true);
}

void Connection::limit_reading(Duration limit) { read_until_ns_ = now_ns() + limit.count(); }

// What the system or TLS gives now; waits until it gives something.
long Connection::receive(std::span<char> into) {
  while (!is_broken_) {
    short events = POLLIN;
    if (ssl_ == nullptr) {
      const ssize_t count = ::recv(socket_, into.data(), into.size(), 0);
      if (count >= 0) return count;
      if (errno != EAGAIN && errno != EINTR) break;
    } else {
      ERR_clear_error();
      const int count = SSL_read(ssl_.get(), into.data(), static_cast<int>(into.size()));
      if (count > 0) return count;
      const int error = SSL_get_error(ssl_.get(), count);
      if (error == SSL_ERROR_ZERO_RETURN) return 0;
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) break;
      if (error == SSL_ERROR_WANT_WRITE) events = POLLOUT;
    }
    if (!wait(events, read_until_ns_, true)) break;
  }
  is_broken_ = true;
  return -1;
}

long Connection::read(std::span<char> into) {
  if (buffer_begin_ == buffer_end_) {
    const long count = receive(buffer_);
    if (count <= 0) return count;
    buffer_begin_ = 0;
    buffer_end_ = static_cast<size_t>(count);
  }
  const size_t count = std::min(into.size(), buffer_end_ - buffer_begin_);
  std::memcpy(into.data(), buffer_.data() + buffer_begin_, count);
  buffer_begin_ += count;
  return static_cast<long>(count);
}

bool Connection::write(std::string_view bytes) {
  const int64_t until = now_ns() + send_limit_.count() +
                        static_cast<int64_t>(bytes.size()) * std::chrono::nanoseconds(std::chrono::seconds(1)).count() /
                            kBytesPerSecondMin;
  while (!bytes.empty() && !is_broken_) {
    short events = POLLOUT;
    if (ssl_ == nullptr) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count >= 0) {
        bytes.remove_prefix(static_cast<size_t>(count));
        continue;
      }
      is_broken_ = errno != EAGAIN && errno != EINTR;
    } else {
      ERR_clear_error();
      const int count = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(std::min<size_t>(bytes.size(), 1 << 20)));
      if (count > 0) {
        bytes.remove_prefix(static_cast<size_t>(count));
        continue;
      }
      const int error = SSL_get_error(ssl_.get(), count);
      is_broken_ = error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
      if (error == SSL_ERROR_WANT_READ) events = POLLIN;
    }
    if (!is_broken_) is_broken_ = !wait(events, until, false);
  }
  return bytes.empty() && !is_broken_;
}

bool Connection::is_gone() const {
  pollfd polled = {.fd = socket_, .events = POLLRDHUP, .revents = 0};
  return is_broken_ || ::poll(&polled, 1, 0) != 0;
}

void Connection::linger(Duration limit) {
  if (ssl_ != nullptr && !is_broken_) SSL_shutdown(ssl_.get());
  is_broken_ = true;
  if (::shutdown(socket_, SHUT_WR) != 0) return;
  const int64_t until = now_ns() + limit.count();
  for (size_t total = 0; total < kLingerBytesMax && wait(POLLIN, until, true);) {
    const ssize_t count = ::recv(socket_, buffer_.data(), buffer_.size(), 0);
    if (count <= 0 && errno != EAGAIN) return;
    if (count == 0) return;
    total += count < 0 ? 0 : static_cast<size_t>(count);
  }
}

}  // namespace fairlead::gateway
