#include "cli/bench_load.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/units.h"

namespace fairlead::cli {

std::expected<std::vector<BenchRegion>, Complaint> lay_out(const BenchLoad& load, const BlockGeometry& geometry) {
  const uint64_t block = load.block_bytes;
  if (load.writes() && geometry.read_only) return std::unexpected("the target is read-only: use --rw randread or read");
  if (!is_aligned(block, geometry.logical_block)) {
    return std::unexpected(fmt::format("--bs {}: the target's blocks have {}, use a multiple of it", format_size(block),
                                       format_size(geometry.logical_block)));
  }
  if (!is_aligned(load.offset, geometry.logical_block)) {
    return std::unexpected(fmt::format("--offset {}: the target's blocks have {}, use a multiple of it",
                                       format_size(load.offset), format_size(geometry.logical_block)));
  }
  if (load.offset >= geometry.size_bytes) {
    return std::unexpected(
        fmt::format("--offset {}: the target has {} only", format_size(load.offset), format_size(geometry.size_bytes)));
  }
  const uint64_t room = geometry.size_bytes - load.offset;
  if (load.size > room) {
    return std::unexpected(fmt::format("--size {}: the target has {} only{}", format_size(load.size), format_size(room),
                                       load.offset > 0 ? " behind --offset" : ""));
  }
  const bool verify = load.verify == BenchVerify::kOn;
  uint64_t blocks = (load.size > 0 ? load.size : room) / block;
  if (verify) blocks = std::min(blocks, kVerifiedBlocksMax);
  const bool shared = load.order == BenchOrder::kRandom && !verify;
  const uint64_t each = shared ? blocks : blocks / load.queues;
  // With verification no two writes to one block are under way together, so there must be others to write to.
  const uint64_t needed = verify ? load.depth_of(0) : 1;
  if (each < needed) {
    return std::unexpected(fmt::format("the range of {} is too small: {} of {} are needed for each queue",
                                       format_size(blocks * block), needed, format_size(block)));
  }
  std::vector<BenchRegion> regions;
  for (uint32_t queue = 0; queue < load.queues; ++queue) {
    regions.push_back({.offset = load.offset + (shared ? 0 : queue * each * block), .blocks = each});
  }
  return regions;
}

void BenchSide::merge(const BenchSide& other) {
  errors += other.errors;
  latency.merge(other.latency);
}

}  // namespace fairlead::cli
