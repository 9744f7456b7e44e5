// What a host is told when it connects to a subsystem. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "async/time.h"
#include "base/error.h"
#include "base/uuid.h"
#include "io/address.h"

namespace fairlead::host {

// Who we are: NQN and identifier go together (base 2.0 section 5.27.1.25).
struct HostIdentity {
  std::string nqn;
  Uuid id;
};
// The identity that an id stands for: "nqn.2014-08.org.nvmexpress:uuid:ID".
HostIdentity identity_from_id(const Uuid& id);

// What becomes of a connection's commands when it is lost.
enum class OnLoss : uint8_t {
  // They go out again, on another path or on the next connection, and I/O is held meanwhile.
  kResend,
  // They are never sent again: what is under way ends at once with kConnectionLost, and I/O fails with kUnreachable
  // until the next connection. Then the same devices work again. No fences (see `quiesce`): for controllers that
  // take nothing of a new connection until they were told so, which is when the old ones' is over. One path only.
  kFail,
};

struct SubsystemOptions {
  std::string nqn = {};
  std::vector<SocketAddress> addresses = {};  // one controller, so one path, each; at most kPathsMax
  HostIdentity identity = {};
  uint16_t queue_depth = 128;  // commands in flight for each I/O queue, 1 to 1024; less when the controller takes less
  bool header_digest = false;
  bool data_digest = false;
  Duration keep_alive = std::chrono::seconds(2);            // KATO; a controller that is silent so long is lost
  Duration connect_timeout = std::chrono::seconds(5);       // of each connection
  Duration admin_timeout = std::chrono::seconds(15);        // of an admin command: then the controller is lost
  Duration command_timeout = std::chrono::seconds(30);      // of an I/O command: then it is aborted,
  Duration abort_timeout = std::chrono::seconds(5);         // and after this much more the controller is lost
  Duration reconnect_min = std::chrono::milliseconds(100);  // wait before the second attempt; doubles, with jitter,
  Duration reconnect_max = std::chrono::seconds(5);         // up to this
  Duration no_path_timeout = std::chrono::seconds(30);      // I/O is held so long after the last path was lost
  // For so long after a connection was lost its controller may still execute what was sent (base 2.0 section 9.6: until
  // its keep-alive timer has ended it, and what it had begun by then has ended). Writes that overlap such a command
  // wait for it. None: twice keep_alive, for the timer may be traffic based.
  std::optional<Duration> quiesce = std::nullopt;
  OnLoss on_loss = OnLoss::kResend;
};

inline constexpr size_t kPathsMax = 32;

// Error kInvalidArgument: what is wrong, for people.
Result<void> check(const SubsystemOptions& options);

}  // namespace fairlead::host
