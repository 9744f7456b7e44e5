// Association: what the queues of one controller share across shards. Made by the Directory when the admin queue
// connects.
#pragma once

#include <array>
#include <atomic>
#include <compare>
#include <cstdint>
#include <string>

#include "target/subsystem.h"

namespace fairlead::target {

using HostId = std::array<uint8_t, 16>;

// Controllers are numbered by subsystem (NVMe base 2.0 section 3.1): those of different ones may have the same number.
struct ControllerKey {
  std::string subsystem_nqn;
  uint16_t controller_id = 0;
  friend auto operator<=>(const ControllerKey&, const ControllerKey&) = default;
};

// shared_ptr: the admin queue, each I/O queue and the directory live on different shards, and any may be the last.
// Plain members never change; atomics may be used from any shard, relaxed: each stands for itself.
struct Association {
  uint16_t controller_id = 0;
  CallerId caller = kNobody;  // of fenced namespaces; unlike the controller id it is never used again
  std::string subsystem_nqn;
  std::string host_nqn;
  HostId host_id{};
  PortIndex port = 0;
  ShardId admin_shard;
  uint64_t admin_connection = 0;

  std::atomic<bool> ready{false};             // CSTS.RDY: I/O queues may connect and work
  std::atomic<bool> active{false};            // there was traffic since the keep-alive timer last looked
  std::atomic<bool> write_cache{true};        // the Volatile Write Cache feature
  std::atomic<uint16_t> io_queues{0};         // granted by the Number of Queues feature
  std::atomic<uint16_t> connected_queues{0};  // I/O queues that the directory knows

  ControllerKey key() const { return {subsystem_nqn, controller_id}; }
  void note_traffic() {
    // Look first: the line stays shared among the shards' caches.
    if (!active.load(std::memory_order_relaxed)) active.store(true, std::memory_order_relaxed);
  }
};

}  // namespace fairlead::target
