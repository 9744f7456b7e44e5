// SuperblockPlaces: where one disk of a pool keeps its superblock, and what is known of each place.
//
// A write that fails, and one that a crash cuts off, may leave any part of a page. So:
//  1. The newest copy that is known to be whole and on stable storage is never written over. The next one goes to
//     another place first.
//  2. A place whose write failed, or whose copy was not whole when it was read, is suspect: what is written there
//     counts when it has been read back.
//  3. Where one of the two regular places cannot be written the spare one is. It is blank again as soon as both are
//     whole: what is old there must never count.
//
// A value, on the pool's home shard; one task at a time.
#pragma once

#include <array>
#include <optional>

#include "async/task.h"
#include "block/block_device.h"
#include "pool/format.h"

namespace fairlead::pool {

struct FoundSuperblock;

class SuperblockPlaces {
 public:
  // Of a disk whose superblocks were erased.
  SuperblockPlaces() = default;

  // Error kNotFound: the disk has none.
  static Task<Result<FoundSuperblock>> read(Reactor& reactor, BlockDevice& device);
  static Task<Result<void>> erase(Reactor& reactor, BlockDevice& device);

  // Both take everything that was read, or written, before as being on stable storage. The superblock is there at least
  // once when the first returns without an error, on stable storage, and in no more than one place that was known to
  // hold another. With an error it may be there or not; what was there is.
  Task<Result<void>> store_first(Reactor& reactor, BlockDevice& device, const Superblock& superblock);
  // To all regular places; where that fails, to one more at least if it can. Failures are logged.
  // Requires: store_first() returned without an error for it.
  Task<void> store_rest(Reactor& reactor, BlockDevice& device, const Superblock& superblock);

  // No store of this generation is left half done: its copies are in both regular places, and nothing is in the spare.
  bool is_complete(uint64_t generation) const;
  // Regular places without a copy that is known to be whole.
  size_t bad() const;

 private:
  static constexpr size_t kSpare = kSuperblockOffsets.size();
  static constexpr size_t kPlaces = kSpare + 1;
  static constexpr uint64_t offset_of(size_t place) {
    return place == kSpare ? kSpareSuperblockOffset : kSuperblockOffsets[place];
  }
  std::optional<size_t> newest() const;
  Task<Result<void>> store(Reactor& reactor, BlockDevice& device, size_t place, const Superblock& superblock);
  Task<Result<void>> try_store(Reactor& reactor, BlockDevice& device, size_t place, const Superblock& superblock);

  std::array<std::optional<uint64_t>, kPlaces> whole_;  // the generation of the copy there; none: blank or suspect
  bool is_spare_blank_ = true;
};

struct FoundSuperblock {
  Superblock newest;  // that is whole
  SuperblockPlaces places;
};

}  // namespace fairlead::pool
