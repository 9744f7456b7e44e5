// The Network seam: TCP streams, by io_uring or simulated. A stream lives on one shard for life.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <sys/uio.h>

#include "async/reactor.h"
#include "async/task.h"
#include "base/error.h"
#include "io/address.h"

namespace fairlead {

// One receive or send under way. The stream sets `result` and posts it to the reactor; derive and give the function.
// The owner keeps it, the buffers and the array of them in place until then.
class StreamOp : public Runnable {
 public:
  using Runnable::Runnable;
  std::span<const iovec> buffers;
  Result<size_t> result = 0;  // bytes moved, at least 1 for a send; a receive of 0 is the end of the stream
};

// Requires of both: at most one receive and one send under way at a time; at most 1024 buffers, none of them empty.
// Errors: kConnectionLost, kCancelled after shutdown(), kIo.
class Stream {
 public:
  virtual ~Stream() = default;  // Requires: nothing under way.
  // Takes what is there, as soon as it is at least one byte.
  virtual void start_receive(StreamOp& op) = 0;
  // Sends at least one byte; may be short of all.
  virtual void start_send(StreamOp& op) = 0;
  // Ends both directions: what is under way ends soon, with an error or short. Idempotent.
  virtual void shutdown() = 0;
  virtual SocketAddress peer() const = 0;
  virtual SocketAddress local() const = 0;
};

// co_await receive(stream, buffers), co_await send(stream, buffers).
class StreamAwaiter : private StreamOp {
 public:
  enum class Direction : uint8_t { kReceive, kSend };
  StreamAwaiter(Stream& stream, Direction direction, std::span<const iovec> list)
      : StreamOp([](Runnable& self) { static_cast<StreamAwaiter&>(self).caller_.resume(); }),
        stream_(stream),
        direction_(direction) {
    buffers = list;
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> caller) {
    caller_ = caller;
    if (direction_ == Direction::kReceive) {
      stream_.start_receive(*this);
    } else {
      stream_.start_send(*this);
    }
  }
  Result<size_t> await_resume() const noexcept { return result; }

 private:
  Stream& stream_;
  Direction direction_;
  std::coroutine_handle<> caller_;
};
inline StreamAwaiter receive(Stream& stream, std::span<const iovec> buffers) {
  return {stream, StreamAwaiter::Direction::kReceive, buffers};
}
inline StreamAwaiter send(Stream& stream, std::span<const iovec> buffers) {
  return {stream, StreamAwaiter::Direction::kSend, buffers};
}

// A connection that was accepted and belongs to no shard yet. May cross threads.
class Accepted {
 public:
  virtual ~Accepted() = default;  // closes it, when nobody adopted it
};

// Lives on the shard that listens; close it and let accept() return before it dies.
class Listener {
 public:
  virtual ~Listener() = default;
  // One at a time. Errors: kCancelled after close(), kResourceExhausted (out of descriptors: wait, then go on).
  virtual Task<Result<std::unique_ptr<Accepted>>> accept() = 0;
  virtual void close() = 0;
  virtual SocketAddress address() const = 0;  // with the port that the system chose for port 0
};

inline constexpr Duration kConnectTimeout = std::chrono::seconds(10);  // for who has no reason to choose another

// Lives on one shard.
class Network {
 public:
  virtual ~Network() = default;
  // Errors: kBusy (address in use), kUnreachable (not an address of this machine), kPermissionDenied.
  virtual Result<std::unique_ptr<Listener>> listen(const SocketAddress& address) = 0;
  // Makes an accepted connection a stream of this shard.
  virtual Result<std::unique_ptr<Stream>> adopt(std::unique_ptr<Accepted> accepted) = 0;
  // Gives up after `timeout`. Errors: kUnreachable, kTimedOut.
  virtual Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress address, Duration timeout) = 0;
};

}  // namespace fairlead
