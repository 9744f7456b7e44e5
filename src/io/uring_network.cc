#include "io/uring_network.h"

#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/fault.h"

namespace fairlead {
namespace {

constexpr int kBacklog = 1024;

// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }

 private:
  int value_;
};

struct NativeAddress {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_storage);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

NativeAddress to_native(const SocketAddress& address) {
  NativeAddress native;
  if (address.family == AddressFamily::kIpv4) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(address.port);
    std::memcpy(&in.sin_addr, address.ip.data(), sizeof in.sin_addr);
    std::memcpy(&native.storage, &in, sizeof in);
    native.length = sizeof in;
  } else {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(address.port);
    in.sin6_scope_id = address.scope_id;
    std::memcpy(&in.sin6_addr, address.ip.data(), sizeof in.sin6_addr);
    std::memcpy(&native.storage, &in, sizeof in);
    native.length = sizeof in;
  }
  return native;
}

SocketAddress from_native(const NativeAddress& native) {
  SocketAddress address;
  if (native.storage.ss_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &native.storage, sizeof in);
    address.family = AddressFamily::kIpv4;
    address.port = ntohs(in.sin_port);
    std::memcpy(address.ip.data(), &in.sin_addr, sizeof in.sin_addr);
  } else {
    sockaddr_in6 in{};
    std::memcpy(&in, &native.storage, sizeof in);
    address.family = AddressFamily::kIpv6;
    address.port = ntohs(in.sin6_port);
    address.scope_id = in.sin6_scope_id;
    std::memcpy(address.ip.data(), &in.sin6_addr, sizeof in.sin6_addr);
  }
  return address;
}

enum class End : uint8_t { kLocal, kPeer };
Result<SocketAddress> address_of(int descriptor, End end) {
  NativeAddress native;
  const int result = end == End::kLocal ? ::getsockname(descriptor, native.get(), &native.length)
                                        : ::getpeername(descriptor, native.get(), &native.length);
  if (result != 0) return fail_errno(errno, "ask for the address of a socket");
  return from_native(native);
}

// Blocking for the kernel's sake: io_uring then waits by itself instead of returning EAGAIN.
Result<Descriptor> make_socket(AddressFamily family) {
  Descriptor socket(::socket(family == AddressFamily::kIpv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return fail_errno(errno, "make a socket");
  return socket;
}

Result<void> set_option(const Descriptor& socket, int level, int option) {
  const int on = 1;
  if (::setsockopt(socket.get(), level, option, &on, sizeof on) != 0) return fail_errno(errno, "set up a socket");
  return {};
}

bool is_out_of_resources(int os_errno) {
  return os_errno == EMFILE || os_errno == ENFILE || os_errno == ENOBUFS || os_errno == ENOMEM;
}

class UringAccepted final : public Accepted {
 public:
  explicit UringAccepted(Descriptor socket) : socket(std::move(socket)) {}
  Descriptor socket;
};

class UringListener final : public Listener {
 public:
  UringListener(UringRing& ring, Reactor& reactor, Descriptor socket, const SocketAddress& address)
      : ring_(ring), reactor_(reactor), socket_(std::move(socket)), address_(address) {}
  ~UringListener() override { FL_CHECK(waiting_ == nullptr); }

  // One accept at a time, armed only while somebody waits: a burst waits in the kernel's bounded backlog, not here.
  Task<Result<std::unique_ptr<Accepted>>> accept() override {
    FL_CHECK(waiting_ == nullptr);
    while (!closed_) {
      UringWait wait(reactor_);
      io_uring_prep_accept(ring_.prepare(&wait), socket_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      waiting_ = &wait;
      const int result = co_await wait;
      waiting_ = nullptr;
      if (result >= 0) {
        Descriptor accepted(result);
        if (closed_) break;
        co_return std::make_unique<UringAccepted>(std::move(accepted));
      }
      if (is_out_of_resources(-result)) co_return fail_errno(-result, "accept a connection");
      // Anything else concerns one connection that did not come to be (accept(2)), or close() ends it.
    }
    co_return fail(Code::kCancelled, "accept a connection");
  }

  void close() override {
    if (std::exchange(closed_, true)) return;
    ::shutdown(socket_.get(), SHUT_RDWR);  // frees the port now
    if (waiting_ != nullptr) ring_.cancel(*waiting_);
  }

  SocketAddress address() const override { return address_; }

 private:
  UringRing& ring_;
  Reactor& reactor_;
  const Descriptor socket_;
  const SocketAddress address_;
  UringOp* waiting_ = nullptr;
  bool closed_ = false;
};

struct Ends {
  SocketAddress peer;
  SocketAddress local;
};

class UringStream final : public Stream {
 public:
  UringStream(UringRing& ring, Reactor& reactor, AwakeReceives* receives, Descriptor socket, const Ends& ends)
      : ring_(ring), reactor_(reactor), receives_(receives), socket_(std::move(socket)), ends_(ends) {}
  ~UringStream() override {
    FL_CHECK(receive_.user == nullptr && send_.user == nullptr && behind_sends_.receive == nullptr);
  }

  // Behind the sends of this turn: while those go out more may arrive, and the receive ends at once where it would
  // have had to wait.
  void start_receive(StreamOp& op) override {
    FL_CHECK(behind_sends_.receive == nullptr);
    behind_sends_.receive = &op;
    reactor_.post(behind_sends_);
  }
  void start_send(StreamOp& op) override { start(send_, op); }

  void shutdown() override {
    if (std::exchange(is_shut_down_, true)) return;
    // Ends what waits in the socket; the cancellations catch what the ring has not handed to the socket yet.
    ::shutdown(socket_.get(), SHUT_RDWR);
    if (receive_.is_linked()) {
      receives_->remove(receive_);
      finish(receive_, -ECANCELED);
    } else if (receive_.user != nullptr) {
      ring_.cancel(receive_);
    }
    if (send_.user != nullptr) ring_.cancel(send_);
  }

  SocketAddress peer() const override { return ends_.peer; }
  SocketAddress local() const override { return ends_.local; }

 private:
  enum class Direction : uint8_t { kReceive, kSend };
  struct Half final : UringOp, AwakeReceive {
    Half(UringStream& owner, Direction way) : UringOp(on_complete), stream(owner), direction(way) {}
    static void on_complete(UringOp& op, int result, uint32_t) {
      auto& half = static_cast<Half&>(op);
      half.stream.finish(half, result);
    }
    bool try_again() override {
      const int result = stream.try_now(*this);
      if (result == -EAGAIN) return false;
      stream.receives_->remove(*this);
      stream.finish(*this, result);
      return true;
    }
    void hand_over() override {
      stream.receives_->remove(*this);
      stream.submit(*this);
    }
    UringStream& stream;
    const Direction direction;
    StreamOp* user = nullptr;
    msghdr message{};
  };

  struct BehindSends : Runnable {
    explicit BehindSends(UringStream& owner)
        : Runnable([](Runnable& self) {
            auto& behind = static_cast<BehindSends&>(self);
            behind.stream.start(behind.stream.receive_, *std::exchange(behind.receive, nullptr));
          }),
          stream(owner) {}
    UringStream& stream;
    StreamOp* receive = nullptr;
  };

  void start(Half& half, StreamOp& op) {
    FL_CHECK(half.user == nullptr && !op.buffers.empty() && op.buffers.size() <= IOV_MAX);
    if (is_shut_down_) {
      op.result = fail(Code::kCancelled);
      reactor_.post(op);
      return;
    }
    half.user = &op;
    // Most often it can be done at once, by one plain call; the ring is there to wait.
    const int result = try_now(half);
    if (result != -EAGAIN) return finish(half, result);
    if (half.direction == Direction::kReceive && receives_ != nullptr && receives_->has_room()) {
      receives_->add(half);
    } else {
      submit(half);
    }
  }

  bool is_cut(const Half& half) const {
    return fault(half.direction == Direction::kSend ? FaultPoint::kShortSend : FaultPoint::kShortReceive);
  }

  // What the call returns, or a negative errno; -EAGAIN: it would have to wait.
  int try_now(Half& half) {
    const std::span<const iovec> buffers = half.user->buffers;
    iovec one{buffers.front().iov_base, 1};
    msghdr message{};
    message.msg_iov = is_cut(half) ? &one : const_cast<iovec*>(buffers.data());
    message.msg_iovlen = message.msg_iov == &one ? 1 : buffers.size();
    ssize_t result = 0;
    do {
      result = half.direction == Direction::kSend ? ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL)
                                                  : ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : static_cast<int>(result);
  }

  void submit(Half& half) {
    const std::span<const iovec> buffers = half.user->buffers;
    io_uring_sqe* const entry = ring_.prepare(&half);
    const bool is_send = half.direction == Direction::kSend;
    // A send may go on in the kernel until all is out: fewer turns than short sends.
    const unsigned flags = is_send ? MSG_NOSIGNAL | MSG_WAITALL : 0;
    const bool is_short = is_cut(half);
    if (buffers.size() == 1 || is_short) {
      const size_t length = is_short ? 1 : buffers.front().iov_len;
      io_uring_prep_rw(is_send ? IORING_OP_SEND : IORING_OP_RECV, entry, socket_.get(), buffers.front().iov_base,
                       static_cast<unsigned>(std::min<size_t>(length, 1U << 30)), 0);
    } else {
      half.message.msg_iov = const_cast<iovec*>(buffers.data());  // the interface of sendmsg(2); it is not written to
      half.message.msg_iovlen = buffers.size();
      io_uring_prep_rw(is_send ? IORING_OP_SENDMSG : IORING_OP_RECVMSG, entry, socket_.get(), &half.message, 1, 0);
    }
    entry->msg_flags = flags;
  }

  void finish(Half& half, int result) {
    if ((result == -EINTR || result == -EAGAIN) && !is_shut_down_) return submit(half);
    StreamOp& op = *std::exchange(half.user, nullptr);
    op.result = outcome(half.direction, result);
    reactor_.post(op);
  }

  Result<size_t> outcome(Direction direction, int result) const {
    if (result > 0) return static_cast<size_t>(result);
    if (is_shut_down_ || result == -ECANCELED) return fail(Code::kCancelled);
    const char* const what = direction == Direction::kReceive ? "receive" : "send";
    switch (-result) {
      case 0:
        if (direction == Direction::kReceive) return 0;
        return fail(Code::kConnectionLost, what);
      case ECONNRESET:
      case EPIPE:
      case ECONNABORTED:
      case ENOTCONN:
      case ESHUTDOWN:
      case ETIMEDOUT:
      case EHOSTUNREACH:
      case ENETUNREACH:
      case ENETDOWN:
        return std::unexpected(Error{Code::kConnectionLost, -result, what});
      default:
        return std::unexpected(Error{Code::kIo, -result, what});
    }
  }

  UringRing& ring_;
  Reactor& reactor_;
  AwakeReceives* const receives_;
  const Descriptor socket_;
  const Ends ends_;
  Half receive_{*this, Direction::kReceive};
  Half send_{*this, Direction::kSend};
  BehindSends behind_sends_{*this};
  bool is_shut_down_ = false;
};

Result<std::unique_ptr<Stream>> make_stream(UringRing& ring, Reactor& reactor, AwakeReceives* receives,
                                            Descriptor socket) {
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const Result<SocketAddress> peer = address_of(socket.get(), End::kPeer);
  const Result<SocketAddress> local = address_of(socket.get(), End::kLocal);
  if (!peer || !local) return fail(Code::kConnectionLost, "the peer left before it was served");
  return std::make_unique<UringStream>(ring, reactor, receives, std::move(socket), Ends{*peer, *local});
}

// Takes back an operation when its time is over.
struct TimeLimit : Timer {
  TimeLimit(UringRing& r, UringOp& o)
      : Timer([](Runnable& self) {
          auto& limit = static_cast<TimeLimit&>(self);
          limit.ring.cancel(limit.op);
        }),
        ring(r),
        op(o) {}
  UringRing& ring;
  UringOp& op;
};

Error explain_connect_failure(int os_errno) {
  if (os_errno == ETIMEDOUT || os_errno == ECANCELED) return {Code::kTimedOut, os_errno, "connect"};
  if (is_out_of_resources(os_errno)) return {Code::kResourceExhausted, os_errno, "connect"};
  return {Code::kUnreachable, os_errno, "connect"};
}

}  // namespace

bool AwakeReceives::try_all() {
  bool any = false;
  for (size_t left = count_; left > 0; --left) {
    AwakeReceive& receive = waiting_.pop_front();
    waiting_.push_back(receive);
    any = receive.try_again() || any;
  }
  return any;
}

void AwakeReceives::hand_over() {
  while (!waiting_.empty()) waiting_.front().hand_over();
}

Result<std::unique_ptr<Listener>> UringNetwork::listen(const SocketAddress& address) {
  FL_TRY(Descriptor socket, make_socket(address.family));
  FL_TRY_VOID(set_option(socket, SOL_SOCKET, SO_REUSEADDR));
  // 0.0.0.0 and [::] side by side.
  if (address.family == AddressFamily::kIpv6) FL_TRY_VOID(set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY));
  NativeAddress native = to_native(address);
  if (::bind(socket.get(), native.get(), native.length) != 0) return fail_errno(errno, "bind the address");
  if (::listen(socket.get(), kBacklog) != 0) return fail_errno(errno, "listen");
  FL_TRY(const SocketAddress bound, address_of(socket.get(), End::kLocal));
  return std::make_unique<UringListener>(ring_, reactor_, std::move(socket), bound);
}

Result<std::unique_ptr<Stream>> UringNetwork::adopt(std::unique_ptr<Accepted> accepted) {
  auto* const ours = dynamic_cast<UringAccepted*>(accepted.get());
  FL_CHECK(ours != nullptr);
  return make_stream(ring_, reactor_, receives_, std::move(ours->socket));
}

Task<Result<std::unique_ptr<Stream>>> UringNetwork::connect(SocketAddress address, Duration timeout) {
  FL_CO_TRY(Descriptor socket, make_socket(address.family));
  NativeAddress native = to_native(address);
  UringWait wait(reactor_);
  io_uring_prep_connect(ring_.prepare(&wait), socket.get(), native.get(), native.length);
  TimeLimit limit(ring_, wait);
  reactor_.arm(limit, timeout);
  const int result = co_await wait;
  reactor_.disarm(limit);
  reactor_.unpost(limit);  // it may have fired on this very turn
  if (result < 0) co_return std::unexpected(explain_connect_failure(-result));
  co_return make_stream(ring_, reactor_, receives_, std::move(socket));
}

}  // namespace fairlead
