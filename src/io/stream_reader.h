// StreamReader: bytes of a stream that have arrived and are not used yet. Lives on one shard.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

#include "async/task.h"
#include "base/check.h"
#include "io/network.h"

namespace fairlead {

class StreamReader {
 public:
  static constexpr size_t kCapacity = 64 * 1024;  // unless told: a dozen writes of 4 KiB in one system call
  // Who has just received so much directly is about to do so again: little more than the next header is read ahead
  // then, for what is read ahead has to be copied.
  static constexpr size_t kLarge = 32 * 1024;
  static constexpr size_t kAheadOfLarge = 512;

  explicit StreamReader(Stream& stream, size_t capacity = kCapacity)
      : stream_(stream),
        capacity_(capacity),
        memory_(std::make_unique_for_overwrite<std::byte[]>(capacity)),
        ahead_(capacity) {}

  size_t available() const { return end_ - begin_; }
  // They stay where they are, consumed or not, until the next fill.
  std::span<const std::byte> bytes() const { return {memory_.get() + begin_, available()}; }
  void consume(size_t count) {
    FL_CHECK(count <= available());
    begin_ += count;
  }

  // Waits until `count` bytes are there. False: the stream ended or failed first. Requires: count is at most the
  // capacity.
  Task<bool> fill(size_t count) {
    FL_CHECK(count <= capacity_);
    while (available() < count) {
      const iovec space = make_space(std::max(ahead_, count));
      ahead_ = capacity_;
      const Result<size_t> got = co_await receive(stream_, {&space, 1});
      if (!got || *got == 0) co_return false;
      end_ += *got;
    }
    co_return true;
  }

  // Receives into `direct` first, and what comes behind it into the reader. Returns the bytes that went into `direct`,
  // 0 at the end of the stream. Requires: nothing is available.
  Task<size_t> fill_direct(std::span<std::byte> direct) {
    FL_CHECK(available() == 0);
    ahead_ = direct.size() >= kLarge ? kAheadOfLarge : capacity_;
    const iovec pieces[2] = {{direct.data(), direct.size()}, make_space(ahead_)};
    const Result<size_t> got = co_await receive(stream_, pieces);
    if (!got) co_return 0;
    if (*got <= direct.size()) co_return *got;
    end_ += *got - direct.size();
    co_return direct.size();
  }

 private:
  iovec make_space(size_t length) {
    if (begin_ > 0) {
      std::memmove(memory_.get(), memory_.get() + begin_, available());
      end_ -= begin_;
      begin_ = 0;
    }
    return {memory_.get() + end_, std::min(length, capacity_ - end_)};
  }

  Stream& stream_;
  const size_t capacity_;
  std::unique_ptr<std::byte[]> memory_;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t ahead_;  // how much the next receive may take
};

}  // namespace fairlead
