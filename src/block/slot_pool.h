// SlotPool: what a device must remember of each request under way. Grows to the most that were ever under way at once
// and keeps them: a steady state allocates nothing. Lives on one shard, in its device.
#pragma once

#include <memory>
#include <vector>

#include "base/check.h"

namespace fairlead {

template <typename Slot>
class SlotPool {
 public:
  SlotPool() = default;
  ~SlotPool() { FL_CHECK(free_.size() == all_.size()); }
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  // As its last user left it: set every member that matters.
  Slot& take() {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Slot>());
      free_.reserve(all_.capacity());
      return *all_.back();
    }
    Slot& slot = *free_.back();
    free_.pop_back();
    return slot;
  }
  void give_back(Slot& slot) { free_.push_back(&slot); }

  size_t size() const { return all_.size(); }
  size_t in_use() const { return all_.size() - free_.size(); }

 private:
  std::vector<std::unique_ptr<Slot>> all_;
  std::vector<Slot*> free_;
};

}  // namespace fairlead
