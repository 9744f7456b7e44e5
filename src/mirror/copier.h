// Copier: copies an extent from one replica to others while hosts go on: nobody else writes there meanwhile. Lives on
// the home shard.
#pragma once

#include <memory>
#include <vector>

#include "async/cancel.h"
#include "async/task.h"
#include "block/block_device.h"
#include "mirror/sides.h"

namespace fairlead::mirror {

class Copier {
 public:
  // Borrowed for life.
  Copier(Shard& home, Sides& sides);

  struct Outcome {
    Result<void> read;                 // of the source; after an error nothing was written
    std::vector<Result<void>> writes;  // by sink
  };
  // shared_ptr: a replica gets another device with each session, and what is under way at the old one goes on there.
  using Device = std::shared_ptr<BlockDevice>;
  // The bytes of `range`, the same on all when it is done. Waits for writes to it that are under way, as long as
  // `ending` is not cancelled: then the read is kCancelled.
  Task<Outcome> copy(ByteRange range, Device source, std::vector<Device> sinks, CancelSource& ending);

 private:
  Task<void> write_one(ByteRange range, std::span<const std::byte> bytes, BlockDevice& sink, Result<void>& outcome);
  Shard& home_;
  Sides& sides_;
};

}  // namespace fairlead::mirror
