#include "floor_sides.h"

#include <algorithm>
#include <cerrno>
#include <liburing.h>
#include <memory>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

namespace fairlead::bench {
namespace {

constexpr int kLooksBetweenClocks = 32;

// One connection's place in the streams of both directions.
struct Connection {
  int socket = -1;
  size_t in_partial = 0;        // bytes of the operation that is being received
  size_t out_offset = 0;        // of the next byte to send, inside its operation
  size_t out_owed = 0;          // bytes
  size_t out_gathered = 0;      // operations that wait for more
  bool sending = false;         // the ring has a send of it
  std::vector<uint64_t> begun;  // when operations were asked; they end in that order
  size_t begun_first = 0;
};

// Without memory the bytes sent all come from the start of one buffer of whole operations, and those received all go
// to the start of one.
std::vector<std::byte> make_out_buffer(const SideOptions& options) {
  const size_t operations = options.batch_bytes / options.out + 2;
  return std::vector<std::byte>(operations * options.out, std::byte{0x5a});
}

// What both engines do with the bytes.
class Ledger {
 public:
  explicit Ledger(const SideOptions& options) : options_(options), out_(make_out_buffer(options)) {
    connections_.resize(options.sockets.size());
    const uint64_t now = now_ns();
    for (size_t i = 0; i < connections_.size(); ++i) {
      connections_[i].socket = options.sockets[i];
      connections_[i].out_owed = options.depth * options.out;
      connections_[i].begun.assign(options.depth, now);
    }
  }

  std::vector<Connection>& connections() { return connections_; }
  Counted& counted() { return counted_; }
  bool ended() const { return ended_; }
  // The other side closed a connection.
  void end() { ended_ = true; }

  void begin(Connection& connection, uint64_t now) { connection.begun[0] = now; }
  // Bytes came.
  void received(Connection& connection, size_t bytes) {
    const size_t total = connection.in_partial + bytes;
    const size_t operations = total / options_.in;
    connection.in_partial = total % options_.in;
    if (operations == 0) return;
    connection.out_gathered += operations;
    if (connection.out_gathered >= options_.gather) {
      connection.out_owed += connection.out_gathered * options_.out;
      connection.out_gathered = 0;
    }
    if (options_.end_ns == 0) return;
    const uint64_t now = now_ns();
    watch_clock(now);
    for (size_t i = 0; i < operations; ++i) {
      uint64_t& begun = connection.begun[connection.begun_first];
      if (counting_) counted_.latency_ns.record(now - begun);
      begun = now;
      connection.begun_first = connection.begun_first + 1 == options_.depth ? 0 : connection.begun_first + 1;
    }
    if (counting_) counted_.operations += operations;
  }

  std::span<std::byte> next_out(const Connection& connection) {
    const std::span<std::byte> from = options_.memory.empty() ? std::span(out_) : options_.memory;
    const std::span<std::byte> left = from.subspan(connection.out_offset);
    return left.first(std::min({connection.out_owed, options_.batch_bytes, left.size()}));
  }
  void sent(Connection& connection, size_t bytes) const {
    connection.out_owed -= bytes;
    connection.out_offset = (connection.out_offset + bytes) % std::max(options_.out, options_.memory.size());
  }

 private:
  void watch_clock(uint64_t now) {
    if (now >= options_.end_ns) ended_ = true;
    if (counting_ || now < options_.start_ns) return;
    counting_ = true;
    counted_.began_ns = now_ns();
    counted_.cpu_seconds = cpu_seconds(0);
    counted_.other_cpu_seconds = cpu_seconds(options_.other);
  }

  const SideOptions& options_;
  std::vector<Connection> connections_;
  std::vector<std::byte> out_;
  Counted counted_;
  bool counting_ = false;
  bool ended_ = false;
};

// --- recv(), send(), poll()

class Calls {
 public:
  Calls(const SideOptions& options, Ledger& ledger)
      : options_(options), ledger_(ledger), in_(options.batch_bytes), polled_(options.sockets.size()) {}

  void run() {
    uint64_t idle_since = 0;
    while (!ledger_.ended()) {
      bool moved = false;
      for (int look = 0; look < kLooksBetweenClocks && !moved; ++look) {
        for (Connection& connection : ledger_.connections()) moved |= serve(connection);
      }
      if (moved) {
        idle_since = 0;
        continue;
      }
      const uint64_t now = now_ns();
      if (idle_since == 0) idle_since = now;
      if (now - idle_since >= options_.spin_ns) sleep();
    }
  }

  // One operation at a time, each at its time. This side never sleeps, so that only the other's sleep is in the
  // latency.
  void run_paced() {
    Connection& connection = ledger_.connections()[0];
    uint64_t next = now_ns();
    while (!ledger_.ended()) {
      next = std::max(next + options_.interval_ns, now_ns());
      while (now_ns() < next) {
      }
      ledger_.begin(connection, now_ns());
      while (!ledger_.ended() && connection.out_owed > 0) send(connection);
      while (!ledger_.ended() && connection.out_owed == 0) receive(connection);
    }
  }

 private:
  // Whether anything was there.
  bool receive(Connection& connection) {
    const std::span<std::byte> to = options_.memory.empty() ? in_ : options_.memory.subspan(in_offset_);
    const size_t length = std::min(to.size(), options_.batch_bytes);
    const ssize_t got = ::recv(connection.socket, to.data(), length, MSG_DONTWAIT);
    if (got > 0) {
      if (!options_.memory.empty()) in_offset_ = (in_offset_ + static_cast<size_t>(got)) % options_.memory.size();
      ledger_.received(connection, static_cast<size_t>(got));
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      ledger_.end();
    } else {
      return false;
    }
    return true;
  }
  // Whether anything was sent.
  bool send(Connection& connection) {
    const std::span<std::byte> bytes = ledger_.next_out(connection);
    const ssize_t put = ::send(connection.socket, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put > 0) {
      ledger_.sent(connection, static_cast<size_t>(put));
      return true;
    }
    if (errno != EAGAIN && errno != EINTR) ledger_.end();
    return false;
  }
  bool serve(Connection& connection) {
    const bool received = receive(connection);
    return (connection.out_owed > 0 && send(connection)) || received;
  }

  void sleep() {
    for (size_t i = 0; i < polled_.size(); ++i) {
      const Connection& connection = ledger_.connections()[i];
      polled_[i] = {connection.socket, static_cast<short>(connection.out_owed > 0 ? POLLIN | POLLOUT : POLLIN), 0};
    }
    (void)::poll(polled_.data(), polled_.size(), -1);
  }

  const SideOptions& options_;
  Ledger& ledger_;
  std::vector<std::byte> in_;
  size_t in_offset_ = 0;  // in the memory
  std::vector<pollfd> polled_;
};

// --- io_uring

class Ring {
 public:
  Ring(const SideOptions& options, Ledger& ledger) : options_(options), ledger_(ledger) {
    io_uring_params parameters{};
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                       IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL;
    parameters.cq_entries = 4096;
    if (const int result = io_uring_queue_init_params(256, &ring_, &parameters); result < 0)
      fail("set up io_uring", -result);
    (void)io_uring_register_ring_fd(&ring_);
    provide_buffers();
  }
  ~Ring() { io_uring_queue_exit(&ring_); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  void run() {
    for (size_t i = 0; i < ledger_.connections().size(); ++i) {
      arm_receive(i);
      send(i);
    }
    uint64_t idle_since = 0;
    while (!ledger_.ended()) {
      submit();
      if (reap() > 0) {
        idle_since = 0;
        continue;
      }
      if (spin(idle_since)) continue;
      io_uring_submit_and_wait(&ring_, 1);
    }
  }

 private:
  static constexpr unsigned kBuffers = 8;
  static constexpr int kGroup = 0;
  enum class Kind : uint8_t { kReceive = 0, kSend = 1 };

  void provide_buffers() {
    void* const memory =
        ::mmap(nullptr, kBuffers * sizeof(io_uring_buf), PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    if (memory == MAP_FAILED) fail("map memory", errno);
    buffers_ = static_cast<io_uring_buf_ring*>(memory);
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<uintptr_t>(buffers_);
    registration.ring_entries = kBuffers;
    registration.bgid = kGroup;
    if (const int result = io_uring_register_buf_ring(&ring_, &registration, 0); result < 0)
      fail("register buffers", -result);
    io_uring_buf_ring_init(buffers_);
    in_.resize(kBuffers * options_.batch_bytes);
    for (unsigned i = 0; i < kBuffers; ++i) give_back(i);
  }
  void give_back(unsigned index) {
    io_uring_buf_ring_add(buffers_, in_.data() + index * options_.batch_bytes,
                          static_cast<unsigned>(options_.batch_bytes), static_cast<uint16_t>(index),
                          io_uring_buf_ring_mask(kBuffers), 0);
    io_uring_buf_ring_advance(buffers_, 1);
  }

  io_uring_sqe* prepare(size_t connection, Kind kind) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) fail("prepare more than the ring holds", 0);
    io_uring_sqe_set_data64(entry, connection << 1 | static_cast<uint64_t>(kind));
    return entry;
  }
  void arm_receive(size_t index) {
    io_uring_sqe* const entry = prepare(index, Kind::kReceive);
    io_uring_prep_recv_multishot(entry, ledger_.connections()[index].socket, nullptr, 0, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = kGroup;
  }
  void send(size_t index) {
    Connection& connection = ledger_.connections()[index];
    if (connection.sending || connection.out_owed == 0) return;
    connection.sending = true;
    io_uring_sqe* const entry = prepare(index, Kind::kSend);
    const std::span<std::byte> bytes = ledger_.next_out(connection);
    io_uring_prep_send(entry, connection.socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_WAITALL);
  }

  bool has_events() const {
    return io_uring_cq_ready(&ring_) != 0 ||
           (IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
  }
  void submit() {
    if (io_uring_sq_ready(&ring_) == 0 && !has_events()) return;
    (void)io_uring_submit_and_get_events(&ring_);
  }

  // Looks until there is something; false when it has done so for long enough.
  bool spin(uint64_t& idle_since) const {
    const uint64_t begun = now_ns();
    if (idle_since == 0) idle_since = begun;
    do {
      for (int look = 0; look < kLooksBetweenClocks; ++look) {
        if (has_events()) return true;
      }
    } while (now_ns() - idle_since < options_.spin_ns);
    return false;
  }

  size_t reap() {
    size_t count = 0;
    unsigned head = 0;
    io_uring_cqe* entry = nullptr;
    io_uring_for_each_cqe(&ring_, head, entry) {
      ++count;
      const uint64_t data = io_uring_cqe_get_data64(entry);
      complete(data >> 1, static_cast<Kind>(data & 1), entry->res, entry->flags);
    }
    io_uring_cq_advance(&ring_, static_cast<unsigned>(count));
    if (count > 0) {
      for (size_t i = 0; i < ledger_.connections().size(); ++i) send(i);
    }
    return count;
  }

  void complete(size_t index, Kind kind, int result, uint32_t flags) {
    Connection& connection = ledger_.connections()[index];
    if (kind == Kind::kSend) {
      connection.sending = false;
      if (result <= 0) return ledger_.end();
      return ledger_.sent(connection, static_cast<size_t>(result));
    }
    if (result > 0) {
      ledger_.received(connection, static_cast<size_t>(result));
    } else if (result != -ENOBUFS) {
      return ledger_.end();
    }
    if ((flags & IORING_CQE_F_BUFFER) != 0) give_back(flags >> IORING_CQE_BUFFER_SHIFT);
    if ((flags & IORING_CQE_F_MORE) == 0) arm_receive(index);
  }

  const SideOptions& options_;
  Ledger& ledger_;
  io_uring ring_{};
  io_uring_buf_ring* buffers_ = nullptr;
  std::vector<std::byte> in_;
};

}  // namespace

Counted run_side(Engine engine, const SideOptions& options) {
  const auto ledger = std::make_unique<Ledger>(options);
  if (options.interval_ns != 0) {
    Calls(options, *ledger).run_paced();
    return std::move(ledger->counted());
  }
  switch (engine) {
    case Engine::kCalls:
      Calls(options, *ledger).run();
      break;
    case Engine::kRing:
      Ring(options, *ledger).run();
      break;
  }
  return std::move(ledger->counted());
}

}  // namespace fairlead::bench
