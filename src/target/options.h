// What a target is told: plain values, checked by Target when they are given. Immutable once they are in use.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/uuid.h"
#include "block/block_device.h"
#include "io/address.h"
#include "nvme/log_page.h"
#include "target/control_handler.h"

namespace fairlead::target {

using nvme::AnaState;

inline constexpr uint32_t kNamespacesMax = 1024;  // of one subsystem; namespace ids are 1 to this
inline constexpr uint32_t kAnaGroupsMax = 128;    // group ids are 1 to this
inline constexpr size_t kListenersMax = 64;

// What a host is told that asks for a subsystem which is not there.
enum class WhenAbsent : uint8_t {
  kGiveUp,  // not to ask again (DNR)
  // To ask again, unless it was removed: for targets whose subsystems come by and by, as after a restart. Linux gives a
  // path up for good when it is told not to ask again, however long it may try.
  kComeAgain,
};

struct TargetOptions {
  uint16_t queue_entries_max = 1024;       // of one submission queue; a power of two is not needed
  uint16_t io_queues_max = 128;            // of one controller
  uint32_t connections_max = 4096;         // of the target; more are closed as they come
  uint32_t in_capsule_bytes = 128 * 1024;  // of an I/O queue's capsule; multiple of 16
  uint8_t transfer_shift = 8;      // MDTS: 4 KiB << this is the largest transfer; 1 (0 is no limit) to 8 (1 MiB)
  uint16_t controller_id_min = 1;  // engines that serve one subsystem together use ranges apart
  uint16_t controller_id_max = 0xffef;
  uint32_t keep_alive_min_ms = 100;            // KATO is rounded up to a multiple of this
  uint32_t handshake_timeout_ms = 30'000;      // from accept to Connect
  uint32_t discovery_keep_alive_ms = 120'000;  // for discovery controllers without a keep-alive of their own
  uint32_t turn_budget = 32;                   // PDUs that one connection may handle before others have their turn
  std::string firmware = "0";                  // at most 8 characters; identifies the build to hosts
  WhenAbsent when_absent = WhenAbsent::kGiveUp;
};

struct ListenerOptions {
  SocketAddress bind;                      // port 0: the system chooses
  std::optional<SocketAddress> advertise;  // what discovery tells hosts; port 0: the port that was bound
};

struct SubsystemOptions {
  std::string nqn;
  std::string serial;                      // 1 to 20 printable ASCII characters; empty: derived from the NQN
  std::string model = "Fairlead";          // at most 40 characters
  std::vector<std::string> allowed_hosts;  // host NQNs; empty: every host
};

struct NamespaceOptions {
  uint32_t nsid = 0;  // 0: the lowest that is free
  std::shared_ptr<BlockSource> source;
  Uuid uuid;  // nil: derived from the subsystem's NQN and the namespace id
  uint32_t ana_group = 1;
  // The namespace is a replica: fenced, with replication control. Let go when it has been removed. shared_ptr: a call
  // may be under way meanwhile.
  std::shared_ptr<ControlHandler> control = nullptr;
};

}  // namespace fairlead::target
