// RangeTable: which ranges of a volume are being written, by any shard. Shared by all shards of a target, without a
// lock: a bit for each block of 4 KiB in a table of words, each word taken by one atomic operation. Regions that share
// a word by their numbers seem to overlap; that costs a wait and is safe.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>

#include "base/units.h"

namespace fairlead::mirror {

// [begin, end), bytes.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool empty() const { return begin >= end; }
};

class RangeTable {
 public:
  static constexpr uint64_t kBlockBytes = 4 * kKiB;
  static constexpr uint64_t kWordBytes = 64 * kBlockBytes;
  static constexpr size_t kWords = 16 * 1024;
  // No longer range can be locked: it would meet itself in the table.
  static constexpr uint64_t kLockBytesMax = kWords / 2 * kWordBytes;

  RangeTable();

  // Any shard. False: something in it is locked, and nothing was changed. Requires: kLockBytesMax at most.
  bool try_lock(ByteRange range);
  // Any shard. Requires: locked by try_lock() of the same range.
  void unlock(ByteRange range);
  // Any shard. Whether something in it is locked now.
  bool is_locked(ByteRange range) const;

 private:
  std::unique_ptr<std::array<std::atomic<uint64_t>, kWords>> words_;
};

}  // namespace fairlead::mirror
