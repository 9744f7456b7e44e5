#include "io/signals.h"

#include <cerrno>
#include <csignal>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/check.h"

namespace fairlead {

Result<std::unique_ptr<SignalWatch>> SignalWatch::open(UringShard& shard) {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  const int descriptor = ::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  if (descriptor < 0) return fail_errno(errno, "watch for signals");
  return std::unique_ptr<SignalWatch>(new SignalWatch(shard, descriptor));
}

SignalWatch::~SignalWatch() {
  FL_CHECK(waiting_ == nullptr);
  ::close(descriptor_);
}

Task<Result<int>> SignalWatch::next() {
  FL_CHECK(waiting_ == nullptr);
  signalfd_siginfo information{};
  while (!closed_) {
    UringWait wait(shard_.shard().reactor);
    io_uring_prep_poll_add(shard_.ring().prepare(&wait), descriptor_, POLLIN);
    waiting_ = &wait;
    const int result = co_await wait;
    waiting_ = nullptr;
    if (result < 0 && result != -EINTR && result != -ECANCELED) co_return fail_errno(-result, "watch for signals");
    // Never waits: a read in the ring would occupy a kernel thread before Linux 6.10.
    if (::read(descriptor_, &information, sizeof information) == static_cast<ssize_t>(sizeof information)) {
      co_return static_cast<int>(information.ssi_signo);
    }
  }
  co_return fail(Code::kCancelled, "watch for signals");
}

void SignalWatch::close() {
  if (closed_) return;
  closed_ = true;
  if (waiting_ != nullptr) shard_.ring().cancel(*waiting_);
}

}  // namespace fairlead
