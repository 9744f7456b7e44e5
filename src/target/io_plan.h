// IoPlan: what an NVM command asks of a device, decoded and checked against the namespace. Plain values.
#pragma once

#include <cstdint>

#include "base/units.h"
#include "io/request.h"
#include "nvme/command.h"

namespace fairlead::target {

// Room behind a command's data for what it reads to compare or verify, in pieces.
inline constexpr uint32_t kScratchBytes = 64 * 1024;

// The most that a fused compare-and-write moves (ACWU). Its two commands hold memory while they wait for each other:
// both must fit into what a connection always gets.
inline constexpr uint32_t kFusedBytesMax = 64 * 1024;

// Which way a command's data goes, and how much.
struct DataNeed {
  nvme::DataTransfer direction = nvme::DataTransfer::kNone;
  uint32_t length = 0;   // bytes
  uint32_t scratch = 0;  // bytes more in the same buffer, behind the data
  uint32_t total() const { return length + scratch; }
};

struct BlockRange {
  ByteOffset offset;
  uint64_t length = 0;  // bytes
};

struct IoPlan {
  DataNeed need;
  BlockRange range;
  bool forced = false;  // forced unit access
  ZeroMode zero_mode = ZeroMode::kKeepAllocated;
  uint32_t dsm_ranges = 0;
  bool deallocate = false;
};

}  // namespace fairlead::target
