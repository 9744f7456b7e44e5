#include "pool/page_store.h"

#include <algorithm>

namespace fairlead::pool {

void PageStore::restore(std::vector<PageExtent> extents) {
  extents_ = std::move(extents);
  taken_.assign(extents_.size(), {});
  counts_.assign(extents_.size(), 0);
  for (size_t i = 0; i < extents_.size(); ++i) {
    if (extents_[i].places[0].value == 0) continue;
    taken_[i].assign(pages_per_extent_, false);
    free_ += pages_per_extent_;
  }
}

bool PageStore::mark_used(uint32_t address) {
  const size_t extent = address / pages_per_extent_;
  if (extent >= extents_.size() || taken_[extent].empty() || taken_[extent][address % pages_per_extent_]) return false;
  taken_[extent][address % pages_per_extent_] = true;
  ++counts_[extent];
  --free_;
  ++used_;
  return true;
}

std::optional<uint32_t> PageStore::take(const Layout& layout) {
  if (free_ == 0) {
    const std::optional<Place> first = allocator_.take();
    if (!first) return std::nullopt;
    const std::optional<Place> second = allocator_.take_apart_from(layout.locate(*first).disk);
    if (!second) {
      allocator_.release(*first);
      return std::nullopt;
    }
    auto slot = std::ranges::find_if(taken_, [](const auto& pages) { return pages.empty(); });
    if (slot == taken_.end()) {
      extents_.emplace_back();
      counts_.push_back(0);
      slot = taken_.insert(taken_.end(), std::vector<bool>());
    }
    slot->assign(pages_per_extent_, false);
    extents_[static_cast<size_t>(slot - taken_.begin())].places = {*first, *second};
    free_ += pages_per_extent_;
  }
  for (size_t extent = 0; extent < extents_.size(); ++extent) {
    if (taken_[extent].empty() || counts_[extent] == pages_per_extent_) continue;
    const auto page = std::ranges::find(taken_[extent], false);
    const auto address =
        static_cast<uint32_t>(extent * pages_per_extent_ + static_cast<size_t>(page - taken_[extent].begin()));
    FL_CHECK(mark_used(address));
    return address;
  }
  FL_UNREACHABLE("a free page is counted and is nowhere");
}

void PageStore::release(uint32_t address) {
  const size_t extent = address / pages_per_extent_;
  FL_CHECK(taken_[extent][address % pages_per_extent_]);
  taken_[extent][address % pages_per_extent_] = false;
  ++free_;
  --used_;
  --counts_[extent];
}

std::vector<Place> PageStore::drop_empty() {
  std::vector<Place> places;
  for (size_t extent = 0; extent < extents_.size(); ++extent) {
    if (taken_[extent].empty() || counts_[extent] > 0) continue;
    places.insert(places.end(), extents_[extent].places.begin(), extents_[extent].places.end());
    extents_[extent] = {};
    taken_[extent].clear();
    free_ -= pages_per_extent_;
  }
  return places;
}

}  // namespace fairlead::pool
