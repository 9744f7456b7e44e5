#include "host/options.h"

#include "host/queue.h"
#include "nvme/nqn.h"

namespace fairlead::host {

HostIdentity identity_from_id(const Uuid& id) { return {nvme::nqn_from_uuid(id), id}; }

Result<void> check(const SubsystemOptions& options) {
  if (!nvme::is_acceptable_nqn(options.nqn)) return fail(Code::kInvalidArgument, "the NQN of the subsystem");
  if (!nvme::is_acceptable_nqn(options.identity.nqn)) return fail(Code::kInvalidArgument, "the NQN of the host");
  if (options.addresses.empty()) return fail(Code::kInvalidArgument, "no address to connect to");
  if (options.addresses.size() > kPathsMax) return fail(Code::kInvalidArgument, "more than 32 paths");
  if (options.on_loss == OnLoss::kFail && options.addresses.size() > 1) {
    return fail(Code::kInvalidArgument, "more than one path, though commands may go by one connection only");
  }
  if (options.queue_depth < 1 || options.queue_depth > Queue::kDepthMax) {
    return fail(Code::kInvalidArgument, "the queue depth is not from 1 to 1024");
  }
  constexpr Duration kShortest = std::chrono::milliseconds(1);
  for (const Duration each : {options.keep_alive, options.connect_timeout, options.admin_timeout,
                              options.command_timeout, options.abort_timeout, options.reconnect_min}) {
    if (each < kShortest) return fail(Code::kInvalidArgument, "a time limit is below 1 ms");
  }
  if (options.keep_alive > std::chrono::hours(1)) return fail(Code::kInvalidArgument, "a keep-alive above an hour");
  if (options.reconnect_max < options.reconnect_min) {
    return fail(Code::kInvalidArgument, "the longest wait before reconnecting is below the shortest");
  }
  return {};
}

}  // namespace fairlead::host
