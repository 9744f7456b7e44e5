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
  bool overlaps(const ByteRange& other) const { return begin < other.end && other.begin < end; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

class RangeTable {
 public:
  static constexpr uint64_t kBlockBytes = 4 * kKiB;
  static constexpr uint64_t kWordBytes = 64 * kBlockBytes;
  static constexpr size_t kWords = 16 * 1024;
  // No longer range can be locked: it would meet itself in the table.
  static constexpr uint64_t kLockBytesMax = kWords / 2 * kWordBytes;

  enum class Outcome : uint8_t {
    kLocked,
    kBusy,        // something in it is locked, and nothing was changed
    kRolledBack,  // the same, but part of it was locked for a moment: to those who wait, that was an unlock
  };

  RangeTable();

  // Any shard. Requires: not empty, kLockBytesMax at most.
  Outcome try_lock(ByteRange range);
  // Any shard. Requires: locked by try_lock() of the same range.
  void unlock(ByteRange range);
  // Any shard. Keeps others from beginning anew in regions of kClaimBytes that the range touches, so that whoever wants
  // the whole of it gets it once what is locked there has been unlocked: who locks looks at is_claimed() first.
  // disclaim() is to those who wait what an unlock is. A claim may seem to touch more than it does, as locks do.
  static constexpr uint64_t kClaimBytes = kMiB;
  void claim(ByteRange range);
  void disclaim(ByteRange range);
  bool is_claimed(ByteRange range) const;
  // Any shard. Whether something in it is locked now. A range that is longer than the table is looked at as a whole.
  bool is_locked(ByteRange range) const;

  // To wait until each block of a range was free once since the watch was made, though never all at one time: begin
  // with {.left = range}, look after each unlock. One user.
  struct Watch {
    ByteRange left;                  // before it all were seen free
    uint64_t locked = ~uint64_t{0};  // blocks of its first word that were locked whenever it was looked at
  };
  bool was_free(Watch& watch) const;

 private:
  static constexpr size_t kClaimRegions = kWords * kWordBytes / kClaimBytes;
  template <typename Visit>
  static void for_each_region(ByteRange range, Visit visit);

  std::unique_ptr<std::array<std::atomic<uint64_t>, kWords>> words_;
  std::atomic<uint32_t> claims_{0};  // 0: none of those below, and it costs no more than this look
  std::unique_ptr<std::array<std::atomic<uint16_t>, kClaimRegions>> claims_on_;  // by region
};

}  // namespace fairlead::mirror
