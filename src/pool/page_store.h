// PageStore: where map pages are stored. Each page is in two extents, on two disks where there are two. Addresses are
// those of LeafRef. Lives on the pool's home shard.
#pragma once

#include <optional>
#include <vector>

#include "pool/allocator.h"
#include "pool/layout.h"

namespace fairlead::pool {

class PageStore {
 public:
  PageStore(Allocator& allocator, uint32_t pages_per_extent)
      : allocator_(allocator), pages_per_extent_(pages_per_extent) {}

  // As a directory has it. Requires: nothing taken yet; the places are in use.
  void restore(std::vector<PageExtent> extents);
  // False: taken already, or in no page extent.
  bool mark_used(uint32_t address);

  // A free page, from a new pair of extents when there is none. None: the pool has no extents left.
  std::optional<uint32_t> take(const Layout& layout);
  // Requires: taken.
  void release(uint32_t address);
  // Takes out the extents that hold no page. They are the caller's, still in use: a directory on the disk names them
  // until one is there that does not.
  std::vector<Place> drop_empty();

  struct Where {
    Place place;
    uint32_t offset = 0;  // bytes in the extent
  };
  Where locate(uint32_t address, size_t copy) const {
    return {extents_[address / pages_per_extent_].places[copy],
            address % pages_per_extent_ * static_cast<uint32_t>(kMapPageBytes)};
  }
  const std::vector<PageExtent>& extents() const { return extents_; }
  uint64_t free_pages() const { return free_; }
  uint64_t used_pages() const { return used_; }

 private:
  Allocator& allocator_;
  const uint32_t pages_per_extent_;
  std::vector<PageExtent> extents_;
  std::vector<std::vector<bool>> taken_;
  std::vector<uint32_t> counts_;
  uint64_t free_ = 0;
  uint64_t used_ = 0;
};

}  // namespace fairlead::pool
