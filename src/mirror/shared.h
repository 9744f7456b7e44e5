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

// Extents of kExtentBytes, one bit each. Any shard. What lies beyond the last one is not set.
class ExtentBits {
 public:
  explicit ExtentBits(uint64_t extents);
  // As if it had been made so, none set. Requires: nobody else looks at it now.
  void reset(uint64_t extents);
  uint64_t extents() const { return extents_; }
  bool test(uint64_t extent) const;
  // Whether any of the extents that the range touches is set.
  bool any(ByteRange range) const { return count() > 0 && next_in(range) < extents_; }
  // The first of the extents that the range touches that is set; extents(): none.
  uint64_t next_in(ByteRange range) const;
  // Requires: below extents().
  void set(uint64_t extent);
  void clear(uint64_t extent);
  void clear_all();
  uint64_t count() const { return count_.load(); }
  // The first that is set at or after that; extents(): none.
  uint64_t next(uint64_t from) const;
  // The first that is set here and not there; extents(): none.
  uint64_t next_not_in(const ExtentBits& other) const;

 private:
  uint64_t find(uint64_t from, uint64_t end) const;
  uint64_t extents_;
  std::vector<std::atomic<uint64_t>> words_;
  std::atomic<uint64_t> count_{0};  // of the bits that are set, or are about to be
};

struct MirrorShared {
  explicit MirrorShared(uint64_t bytes, uint32_t block = 4096)
      : logical_block(block),
        size_bytes(bytes),
        unlevel((bytes + kExtentBytes - 1) / kExtentBytes),
        touched(unlevel.extents()) {}

  const uint32_t logical_block;      // bytes; 512 or 4096
  std::atomic<uint64_t> size_bytes;  // of the volume; may grow: devices see it by refresh_size()
  uint64_t extents() const { return (size_bytes.load() + kExtentBytes - 1) / kExtentBytes; }
  RangeTable locks;
  // Extents in which members may differ: nobody reads them, or writes there, until they were copied (rule 1).
  ExtentBits unlevel;
  // Reads begin before this instant only (rule 6); nanoseconds of the monotonic clock. The largest: for ever, which
  // spares each read a look at the clock.
  std::atomic<int64_t> lease_until_ns{0};

  // Writes that ended with an error after some slot had done part of them: what was read since they began may be gone
  // again, and is read anew. Raised before the range is unlocked.
  std::atomic<uint64_t> taken_back{0};

  // Who waits for a range to be unlocked, or an extent to be level, counts itself, and looks once more before it waits:
  // see range_table.cc. A side does so by itself; a copier has to.
  void begin_waiting() { waiters.fetch_add(1); }
  void end_waiting() { waiters.fetch_sub(1); }
  // After an unlock, a RangeTable::Outcome::kRolledBack, or unlevel.clear(): whether all sides are to look again, and
  // whoever else waits.
  bool has_waiters() const { return waiters.load() > 0; }

  std::atomic<uint32_t> waiters{0};

  // Extents that hosts have written to while replicas return: these are copied last. A hint: noted while there are
  // returns, and sometimes missed.
  ExtentBits touched;
  void note_touched(ByteRange range);
  // What brings a replica back holds one of these meanwhile.
  class Returning {
   public:
    explicit Returning(MirrorShared& of);
    ~Returning() { of_.returns.fetch_sub(1); }
    Returning(const Returning&) = delete;
    Returning& operator=(const Returning&) = delete;

   private:
    MirrorShared& of_;
  };
  std::atomic<uint32_t> returns{0};

  // Something was written (zeroes, discards likewise) since it was last made false: whoever writes looks, and sets it
  // when it is not.
  std::atomic<bool> has_written{false};
  // The same for anything that a host asked for.
  std::atomic<bool> has_io{false};
};

}  // namespace fairlead::mirror
