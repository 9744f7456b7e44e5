// Network by io_uring: TCP over IPv4 and IPv6. See network.h for the contracts.
//
// Data goes straight between the socket and the caller's buffers. Sockets are not registered files: before Linux 6.10 a
// receive that waits for hours would keep every file that was taken out of the table after it began.
#pragma once

#include "io/network.h"
#include "io/uring_ring.h"

namespace fairlead {

class UringNetwork final : public Network {
 public:
  UringNetwork(UringRing& ring, Reactor& reactor) : ring_(ring), reactor_(reactor) {}

  // Connections that nobody accepts wait in the kernel's backlog of 1024.
  Result<std::unique_ptr<Listener>> listen(const SocketAddress& address) override;
  Result<std::unique_ptr<Stream>> adopt(std::unique_ptr<Accepted> accepted) override;
  Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress address, Duration timeout) override;

 private:
  UringRing& ring_;
  Reactor& reactor_;
};

}  // namespace fairlead
