// ControlHandler: what makes a namespace a replica: it answers the commands Replication Send and Replication Receive
// of hosts, and decides whose I/O the namespace takes. Implemented above this folder; all of it is called on the
// target's home shard.
//
// A namespace with a handler is fenced: it takes I/O only from the one association that Target::admit() let in, at
// first from none; the others' fails with StatusCode::kFenced. An association is one host, not one session: commands of
// it that are on their way when it is let in once more are taken as well. A host that begins anew either has no I/O
// under way or connects anew.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "async/task.h"

namespace fairlead::target {

// An association of a host with a controller, or somebody in this process (Target::new_caller()). A target uses none of
// them twice.
using CallerId = uint64_t;
inline constexpr CallerId kNobody = 0;

class ControlHandler {
 public:
  virtual ~ControlHandler() = default;

  // Answers a request of at most nvme::kReplicationSendBytesMax bytes with at most nvme::kReplicationReceiveBytesMax.
  // Hostile bytes. Several may run at a time, of several callers. It may call Target::fence() and Target::admit(), and
  // nothing else of the target. It runs to its end though the caller is gone, or its command aborted: then nobody is
  // told the answer.
  virtual Task<std::vector<std::byte>> call(CallerId caller, std::vector<std::byte> request) = 0;

  // The association has ended: nothing will come from it any more, but for I/O that its other queues are executing.
  // Told of each of the subsystem, whether it ever called or not; a call of its own may still run. Must not block.
  virtual void gone(CallerId caller) = 0;
};

}  // namespace fairlead::target
