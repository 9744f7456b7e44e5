// What all shards of a volume's target share. Atomics, no lock. shared_ptr: each shard's side, and each device, keeps
// it alive.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "async/time.h"
#include "mirror/range_table.h"
#include "mirror/types.h"

namespace fairlead::mirror {

// Extents of kExtentBytes, one bit each. Any shard.
class ExtentBits {
 public:
  explicit ExtentBits(uint64_t extents);
  uint64_t extents() const { return extents_; }
  bool test(uint64_t extent) const;
  // Whether any of the extents that the range touches is set.
  bool any(ByteRange range) const;
  void set(uint64_t extent);
  void clear(uint64_t extent);
  uint64_t count() const { return count_.load(std::memory_order_acquire); }
  // The first that is set at or after that; extents(): none.
  uint64_t next(uint64_t from) const;

 private:
  uint64_t extents_;
  std::vector<std::atomic<uint64_t>> words_;
  std::atomic<uint64_t> count_{0};
};

struct MirrorShared {
  explicit MirrorShared(uint64_t bytes) : size_bytes(bytes), unlevel((bytes + kExtentBytes - 1) / kExtentBytes) {}

  const uint64_t size_bytes;
  RangeTable locks;
  // Extents in which members may differ: nobody reads them, or writes there, until they were copied (rule 1).
  ExtentBits unlevel;
  // Reads begin before this instant only (rule 6); nanoseconds of the monotonic clock.
  std::atomic<int64_t> lease_until_ns{0};
};

}  // namespace fairlead::mirror
