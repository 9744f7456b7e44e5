// IoRequest: one read, write, flush, discard or write-zeroes, from whoever asks (a target, a pool, a test) through any
// number of BlockDevices down to a Disk. The owner keeps it in place from submit() until `done` is called.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <span>
#include <sys/uio.h>

#include "async/reactor.h"
#include "base/error.h"
#include "base/units.h"

namespace fairlead {

enum class IoOp : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

// Forced unit access: done only when the bytes are on stable storage.
enum class Durability : uint8_t { kVolatile, kForced };
// May write zeroes by giving room back (the bytes then read as zeroes).
enum class ZeroMode : uint8_t { kKeepAllocated, kMayDeallocate };

// What is asked for.
struct IoArguments {
  IoOp op = IoOp::kRead;
  ByteOffset offset = {};                         // multiple of the device's logical block
  uint64_t length = 0;                            // bytes, likewise; 0 for kFlush
  std::span<const iovec> buffers = {};            // kRead, kWrite: `length` bytes in sum; borrowed until done
  Durability durability = Durability::kVolatile;  // kWrite, kWriteZeroes
  ZeroMode zero_mode = ZeroMode::kKeepAllocated;  // kWriteZeroes
};

// Life-cycle: fill in, submit to one device, wait for `done`, use again. One shard.
//
// `done` is called exactly once, on the shard of the submission, possibly inside submit(); `result` is set before.
// `left_behind`, where it is set, is called at most once and before that, when whoever serves the request is done with
// it while some medium is not, and may never be: `result` is what became of it, the buffers stay borrowed until `done`,
// and what `done` brings is of no interest. Never inside submit().
// After an error a write's range holds old bytes, new bytes, or a mixture by logical block.
class IoRequest : public ListNode<IoRequest>, public IoArguments {
 public:
  using Done = void (*)(IoRequest&);

  Done done = nullptr;
  Done left_behind = nullptr;
  Result<void> result;
  // kRead: the owner sets both before submit(). Where it allows it, a device that knows the whole range to be zeroes
  // may say so in place of filling the buffers.
  bool may_say_zeroes = false;
  bool says_zeroes = false;

  IoArguments& arguments() { return *this; }
  const IoArguments& arguments() const { return *this; }

  void complete(Result<void> outcome) {
    result = outcome;
    done(*this);
  }
};

// Anything that takes IoRequests, a Disk or a BlockDevice: co_await IoAwaiter(device, request) submits and waits. The
// caller resumes through the ready queue.
template <typename Device>
class IoAwaiter : private IoRequest {
 public:
  IoAwaiter(Reactor& reactor, Device& device, const IoArguments& what) : reactor_(reactor), device_(device) {
    arguments() = what;
    done = [](IoRequest& request) {
      auto& self = static_cast<IoAwaiter&>(request);
      self.reactor_.post(self.resumption_);
    };
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> caller) {
    resumption_.handle = caller;
    device_.submit(*this);
  }
  Result<void> await_resume() const noexcept { return result; }

 private:
  Reactor& reactor_;
  Device& device_;
  Resumption resumption_;
};

// Moves `length` bytes between a scatter/gather list and flat memory, from `skip` bytes into the list on.
void copy_to_buffers(std::span<const iovec> buffers, size_t skip, std::span<const std::byte> from);
void copy_from_buffers(std::span<const iovec> buffers, size_t skip, std::span<std::byte> to);
size_t total_length(std::span<const iovec> buffers);

}  // namespace fairlead
