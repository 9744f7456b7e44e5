// What a pool has on each shard: its disks, opened there, and the epochs that tell when nothing on the shard uses any
// more what was taken out of the maps. Lives on that shard.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "async/event.h"
#include "async/task.h"
#include "block/block_device.h"
#include "pool/layout.h"
#include "pool/map.h"

namespace fairlead::pool {

// Who looks at maps, or has I/O under way to places that it read there, has entered. drain() returns when everyone has
// left who was inside when it was called; those who enter later see the maps as they are by then.
class Epochs {
 public:
  explicit Epochs(Reactor& reactor) : left_(reactor) {}
  uint8_t enter() {
    ++inside_[current_];
    return current_;
  }
  void leave(uint8_t epoch) {
    if (--inside_[epoch] == 0 && epoch != current_) left_.release_waiters();
  }
  // One at a time.
  Task<void> drain() {
    const uint8_t old = current_;
    current_ ^= 1;
    while (inside_[old] > 0) co_await left_.wait();
  }
  bool is_idle() const { return inside_[0] == 0 && inside_[1] == 0; }

 private:
  std::array<uint64_t, 2> inside_{};
  uint8_t current_ = 0;
  Event left_;
};

struct ShardSide {
  explicit ShardSide(Shard& s) : shard(s), epochs(s.reactor) {}
  BlockDevice& disk(uint16_t index) { return *disks[index]; }

  Shard& shard;
  Layout layout;
  std::vector<std::unique_ptr<BlockDevice>> disks;
  Epochs epochs;
};

// What one object has on each shard while a source of it is there. Lives on that shard; made, and told, by the home
// shard.
struct ObjectSide {
  ObjectSide(ShardSide& s, std::shared_ptr<View> v) : side(s), view(std::move(v)), writers_left(s.shard.reactor) {}

  ShardSide& side;
  std::shared_ptr<View> view;  // shared: its slots are the same on all shards; another one when the size changes
  uint64_t size_bytes = 0;
  StampOrdinal stamp;
  bool is_read_only = false;
  std::atomic<uint32_t> devices{0};  // open; changed on this shard only, counted by the home shard too
  // While the gate is closed no write starts: a snapshot is being taken.
  bool is_gate_closed = false;
  uint64_t writers = 0;
  Event writers_left;
  struct HeldBack {
    IoRequest* request = nullptr;
    BlockDevice* device = nullptr;
  };
  std::vector<HeldBack> held_back;
  void open_gate();         // and start what was held back
  bool is_removed = false;  // the object is gone: open no more
};

}  // namespace fairlead::pool
