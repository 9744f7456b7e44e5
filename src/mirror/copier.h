// Copier: copies a range from one replica to others while hosts go on: nobody else writes there meanwhile. Lives on
// the home shard.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "async/cancel.h"
#include "async/task.h"
#include "base/units.h"
#include "block/block_device.h"
#include "io/aligned_bytes.h"
#include "mirror/sides.h"

namespace fairlead::mirror {

class Copier {
 public:
  // A range is copied piece by piece: each is little enough for hosts not to wait long behind it, and for a slow way
  // not to be taken for one that stalls.
  static constexpr uint64_t kPieceBytes = 128 * kKiB;
  static constexpr uint64_t kPieceBytesMin = 4 * kKiB;
  // Requires: kPieceBytes at most.
  static ByteRange first_piece(ByteRange range, uint64_t bytes) {
    return {range.begin, std::min(range.end, range.begin + bytes)};
  }
  // Memory for one piece, of one worker.
  static AlignedBytes make_memory() { return make_aligned_bytes(kPieceBytes); }

  // Borrowed for life.
  Copier(Shard& home, Sides& sides) : home_(home), sides_(sides) {}

  // Keeps the writes of hosts, and other copies, out of a range for as long as it lives. Who may be copied from is to
  // be found out while it is locked: until then a member may leave, and a write be answered without it.
  class Lock {
   public:
    Lock(Copier& copier, ByteRange range) : sides_(copier.sides_), range_(range) {}
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    ~Lock() {
      if (is_locked_) sides_.unlock(range_);
    }
    // Errors: kBusy (a write there has not ended yet), kCancelled.
    Task<Result<void>> take(CancelSource& ending);

   private:
    Sides& sides_;
    const ByteRange range_;
    bool is_locked_ = false;
  };

  // shared_ptr: a replica gets another device with each session, and what is under way at the old one goes on there.
  using Device = std::shared_ptr<BlockDevice>;
  // Requires of both: nobody else writes there, for the range is locked, or the source never changes and the sinks are
  // written to by nobody else; the bytes are of its length.
  Task<Result<void>> read(ByteRange range, std::span<std::byte> bytes, Device source);
  // By sink.
  Task<std::vector<Result<void>>> write(ByteRange range, std::span<const std::byte> bytes, std::vector<Device> sinks);

 private:
  Task<void> write_one(ByteRange range, std::span<const std::byte> bytes, BlockDevice& sink, Result<void>& outcome);
  Shard& home_;
  Sides& sides_;
};

}  // namespace fairlead::mirror
