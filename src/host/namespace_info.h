// What identify data says of namespaces and controllers, validated. Plain values; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/uuid.h"
#include "block/block_device.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"

namespace fairlead::host {

// A namespace is the same on another path when all of these are (base 2.0 section 4.5.1; zero: not given).
struct NamespaceIdentity {
  uint32_t nsid = 0;
  Uuid uuid;
  std::array<uint8_t, 16> nguid{};
  std::array<uint8_t, 8> eui64{};
  friend bool operator==(const NamespaceIdentity&, const NamespaceIdentity&) = default;
};

struct NamespaceInfo {
  NamespaceIdentity identity;
  BlockGeometry geometry;
  uint32_t ana_group = 0;  // 0: none
};

struct ControllerInfo {
  uint16_t controller_id = 0;
  std::string serial;
  std::string model;
  std::string firmware;
  std::string subsystem_nqn;
  uint32_t version = 0;             // VS
  uint32_t transfer_max = 0;        // bytes a command (MDTS; our own limit when it has none)
  uint32_t in_capsule_max = 0;      // bytes of data with an I/O command
  uint16_t queue_entries_max = 0;   // CAP.MQES, real number
  uint16_t io_queues = 0;           // granted
  uint32_t keep_alive_unit_ms = 0;  // KAS; 0: it does no keep-alive
  uint32_t ana_groups_max = 0;
  uint64_t zeroes_max = 0;      // bytes of a Write Zeroes; 0: not supported
  uint64_t deallocate_max = 0;  // bytes of a range of Dataset Management; 0: not supported
  bool has_compare = false;
  bool has_ana = false;
  bool has_stable_ana_groups = false;
  bool has_volatile_cache = false;
  bool is_discovery = false;
  uint32_t async_events = 0;  // OAES
};

inline constexpr uint32_t kTransferMax = 1U << 20;  // bytes; ours, when the controller has no limit or a larger one

// What a fabrics host must know before it uses a controller. Errors: kNotSupported with the reason (no SGLs, in-capsule
// data at an offset, an administrative controller …), kProtocol: values that cannot be.
Result<ControllerInfo> read_controller(const nvme::IdentifyController& data, uint64_t capabilities);

// Errors: kNotSupported: metadata, or blocks of another size than 512 and 4096 bytes; kProtocol.
Result<NamespaceInfo> read_namespace(uint32_t nsid, const nvme::IdentifyNamespace& data,
                                     std::span<const std::byte, nvme::kIdentifySize> descriptors,
                                     const ControllerInfo& controller);

// The groups of an ANA log that was asked for without namespaces. Error kProtocol.
using AnaStates = std::map<uint32_t, nvme::AnaState>;
Result<AnaStates> read_ana_groups(std::span<const std::byte> log);

}  // namespace fairlead::host
