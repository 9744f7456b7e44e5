#include "io/line_input.h"

#include <array>
#include <cerrno>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include "base/check.h"

namespace fairlead {

LineInput::~LineInput() { FL_CHECK(waiting_ == nullptr); }

Task<Result<std::optional<std::string>>> LineInput::next() {
  FL_CHECK(waiting_ == nullptr);
  while (!is_closed_) {
    if (std::optional<std::string> line = take_line()) co_return line;
    if (is_at_end_) co_return pending_.empty() ? std::nullopt : std::optional(std::exchange(pending_, {}));
    if (pending_.size() > kLineBytesMax) co_return fail(Code::kResourceExhausted, "a line is too long");
    UringWait wait(shard_.shard().reactor);
    io_uring_prep_poll_add(shard_.ring().prepare(&wait), descriptor_, POLLIN);
    waiting_ = &wait;
    const int ready = co_await wait;
    waiting_ = nullptr;
    if (is_closed_) break;
    if (ready < 0 && ready != -EINTR) co_return fail_errno(-ready, "wait for a line");
    // What is there, without waiting: the poll said that it is.
    std::array<char, 4096> bytes;
    const ssize_t count = ::read(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR && errno != EAGAIN) co_return fail_errno(errno, "read a line");
    if (count == 0) is_at_end_ = true;
    if (count > 0) pending_.append(bytes.data(), static_cast<size_t>(count));
  }
  co_return fail(Code::kCancelled, "read a line");
}

std::optional<std::string> LineInput::take_line() {
  const size_t newline = pending_.find('\n');
  if (newline == std::string::npos) return std::nullopt;
  std::string line = pending_.substr(0, newline);
  pending_.erase(0, newline + 1);
  return line;
}

void LineInput::close() {
  if (is_closed_) return;
  is_closed_ = true;
  if (waiting_ != nullptr) shard_.ring().cancel(*waiting_);
}

}  // namespace fairlead
