// Request: one NVMe command from its arrival to its response. Lives on its connection's shard, made by its transport
// and used again and again, so that steady I/O allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/intrusive_list.h"
#include "block/zeroes.h"
#include "io/buffer_pool.h"
#include "io/request.h"
#include "nvme/command.h"
#include "nvme/status.h"
#include "nvme/validate.h"
#include "target/io_plan.h"
#include "target/namespace.h"

namespace fairlead::target {

class Namespace;
class Queue;
struct Request;

struct RequestIo : IoRequest {
  Request* owner = nullptr;
};
struct RequestGate : GatedWrite {
  using GatedWrite::GatedWrite;
  Request* owner = nullptr;
};
// Where a request is. A command takes them in this order, and skips what it does not need.
enum class Stage : uint8_t {
  kFree,
  kArrived,
  kNeedsBuffer,  // waits for the pool; Abort can take it back
  kNeedsData,    // the host's data is on its way
  kHeld,         // waits for its fused partner, or for an event; Abort can take it back
  kExecuting,
  kResponding,
  kLeftBehind,  // answered; a medium has its buffers still
};

struct Request : ListNode<Request> {
  Request(Queue& on_queue, uint16_t slot_index);

  Queue& queue;
  const uint16_t slot;
  Stage stage = Stage::kFree;
  nvme::SubmissionEntry command;
  nvme::DataPointer pointer;  // where the host has its data, or wants it
  DataNeed need;
  Buffer data;  // `need.total()` bytes
  // Instead of it: the data of a write where the transport received it. Good only until execute() returns, see
  // Queue::takes_in_place().
  std::span<const std::byte> in_place;

  // The response.
  nvme::Status status;
  uint64_t result = 0;  // dw0 and dw1 of the completion entry

  // What prepare() found out about an I/O command; it holds while the subsystem's version is the same. 0: nothing.
  uint64_t planned_version = 0;
  Namespace* planned_for = nullptr;
  IoPlan plan;

  // While a command executes on a namespace.
  Namespace* nspace = nullptr;
  Namespace* left_behind_in =
      nullptr;  // it is answered, or soon will be, and a medium of that one has its buffers still
  RequestIo io;
  RequestGate gate;
  iovec io_buffer{};
  Request* partner = nullptr;   // of a fused pair
  bool partner_failed = false;  // it ended before this one could run
  std::span<std::byte> data_bytes() const { return data.bytes(need.length); }
  // What the host gets of a command that gives data.
  std::span<const std::byte> answer() const { return io.says_zeroes ? zeroes(need.length) : data_bytes(); }
};

}  // namespace fairlead::target
