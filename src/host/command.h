// Command: one NVMe command on its way through a Queue. Lives on the queue's shard.
#pragma once

#include <coroutine>
#include <cstdint>
#include <span>
#include <sys/uio.h>

#include "base/intrusive_list.h"
#include "nvme/command.h"
#include "nvme/status.h"

namespace fairlead::host {

// How a command ended.
enum class Outcome : uint8_t {
  kAnswered,  // `status` and `result` are what the controller said
  kNotSent,   // the queue was lost before any of it went out: nobody will execute it
  kLost,      // the queue was lost: it may have been executed, or may yet be
};

// Life-cycle: fill in, submit to one queue, wait for `done`, use again. Whoever submits keeps it and its data in place.
// `done` is called exactly once, possibly inside Queue::submit() when the queue is lost already, and may submit again.
struct Command : ListNode<Command> {
  using Done = void (*)(Command&);

  nvme::SubmissionEntry entry;  // all but CID, PSDT and the SGL, which the queue fills in
  nvme::DataTransfer direction = nvme::DataTransfer::kNone;
  std::span<const iovec> data;  // none of it empty; `length` bytes in sum
  uint32_t length = 0;
  bool has_deadline = true;  // false: it may take for ever (Asynchronous Event Request)
  Done done = nullptr;

  Outcome outcome = Outcome::kNotSent;
  nvme::Status status;
  uint64_t result = 0;
};

}  // namespace fairlead::host
