// What a remote controller says of itself and of its namespaces, asked for by an admin queue. Plain values; texts are
// printable ASCII whatever the controller wrote.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "host/namespace_info.h"
#include "host/options.h"
#include "io/shard.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/properties.h"

namespace fairlead::cli {

struct RemoteFormat {
  uint64_t block_bytes = 0;  // 0: one that cannot be
  uint32_t metadata_bytes = 0;
  bool in_use = false;
};

struct RemoteNamespace {
  uint32_t nsid = 0;
  uint64_t size_bytes = 0;
  uint64_t used_bytes = 0;
  std::vector<RemoteFormat> formats;
  std::string uuid;   // these three: empty when not given
  std::string nguid;  // hexadecimal
  std::string eui64;
  uint32_t ana_group = 0;                // 0: none
  std::optional<nvme::AnaState> ana;     // of its group
  std::vector<std::string_view> traits;  // "thin", "shared", …
  std::optional<std::string> unusable;   // why Fairlead cannot use it
  uint64_t write_granularity_bytes = 0;  // preferred; 0: not given
  uint64_t optimal_write_bytes = 0;      // 0: not given
  uint64_t discard_granularity_bytes = 0;
};

struct RemoteController {
  SocketAddress address;
  uint16_t id = 0;
  std::string type;  // "I/O", "discovery"
  std::string subsystem_nqn;
  std::string model;
  std::string serial;
  std::string firmware;
  std::string version;        // "2.0"
  uint16_t vendor = 0;        // PCI's number
  uint64_t transfer_max = 0;  // MDTS, bytes; 0: no limit
  uint32_t in_capsule_max = 0;
  uint32_t namespaces_max = 0;
  uint32_t io_queues = 0;  // that it grants
  uint32_t queue_entries_max = 0;
  uint32_t keep_alive_unit_ms = 0;  // 0: no keep-alive
  bool has_volatile_cache = false;
  std::vector<std::string_view> commands;  // optional ones that it has: "compare", …
  std::vector<std::string_view> events;    // asynchronous ones: "ana_change", …
  bool has_ana = false;
  std::map<uint32_t, nvme::AnaState> ana_groups;
  std::vector<RemoteNamespace> namespaces;
};

std::string_view ana_state_name(nvme::AnaState state);

struct RemoteQuestion {
  SocketAddress address;
  std::string nqn;
  std::optional<uint32_t> nsid;  // not given: all, at most kRemoteNamespacesMax
  host::HostIdentity identity;
  bool header_digest = false;
  bool data_digest = false;
  Duration timeout = std::chrono::seconds(5);  // of connecting, and of each command
};
inline constexpr size_t kRemoteNamespacesMax = 1024;

// Connects an admin queue, asks and disconnects. Errors: as host::Queue::connect() and host::Admin; kNotFound: no such
// namespace.
Task<Result<RemoteController>> describe_remote(Shard& shard, RemoteQuestion question);

// Readings of the raw structures.
RemoteController read_remote(const nvme::IdentifyController& data, uint64_t capabilities);
RemoteNamespace read_remote_namespace(uint32_t nsid, const nvme::IdentifyNamespace& data);

}  // namespace fairlead::cli
