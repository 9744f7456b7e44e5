// Network by io_uring: TCP over IPv4 and IPv6. See network.h for the contracts.
//
// Data goes straight between the socket and the caller's buffers. Sockets are not registered files: before Linux 6.10 a
// receive that waits for hours would keep every file that was taken out of the table after it began.
#pragma once

#include "io/network.h"
#include "io/uring_ring.h"

namespace fairlead {

// A receive that found nothing yet. See AwakeReceives.
class AwakeReceive : public ListNode<AwakeReceive> {
 public:
  // Asks the socket once more. True: it has ended.
  virtual bool try_again() = 0;
  // Leaves the waiting to the kernel.
  virtual void hand_over() = 0;

 protected:
  ~AwakeReceive() = default;
};

// While a shard is awake it asks its sockets itself, which is quicker than to be told by the kernel: no wait is armed
// and none is woken. That pays for a few sockets only; all others, and everything before the shard sleeps, goes to the
// ring. Lives on one shard.
class AwakeReceives {
 public:
  static constexpr size_t kMax = 4;

  bool has_room() const { return count_ < kMax; }
  void add(AwakeReceive& receive) {
    waiting_.push_back(receive);
    ++count_;
  }
  void remove(AwakeReceive& receive) {
    waiting_.remove(receive);
    --count_;
  }
  bool empty() const { return count_ == 0; }
  // Asks each once. True: one has ended, and its owner was posted.
  bool try_all();
  // Hands all of them over to the ring.
  void hand_over();

 private:
  IntrusiveList<AwakeReceive> waiting_;
  size_t count_ = 0;
};

class UringNetwork final : public Network {
 public:
  // `receives`: null when the shard never stays awake.
  UringNetwork(UringRing& ring, Reactor& reactor, AwakeReceives* receives)
      : ring_(ring), reactor_(reactor), receives_(receives) {}

  // Connections that nobody accepts wait in the kernel's backlog of 1024.
  Result<std::unique_ptr<Listener>> listen(const SocketAddress& address) override;
  Result<std::unique_ptr<Stream>> adopt(std::unique_ptr<Accepted> accepted) override;
  Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress address, Duration timeout) override;

 private:
  UringRing& ring_;
  Reactor& reactor_;
  AwakeReceives* const receives_;
};

}  // namespace fairlead
