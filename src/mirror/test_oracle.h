// What reads of a mirrored volume may return, whatever becomes of its replicas: the oracle of the model test. Each
// block carries the number of the write that wrote it, 0 for zeroes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>
#include <span>
#include <vector>

namespace fairlead::mirror::test {

// Rules, of one block, with moments from begin to end as the asker sees them:
//   1. No read returns what a write that was answered with success before the read began had surely replaced.
//   2. No read returns what had ended before another read began that saw something else, and that ended before this
//      one began.
class BlockOracle {
 public:
  using Moment = uint64_t;
  static constexpr Moment kNever = std::numeric_limits<Moment>::max();
  struct Write {
    uint64_t id = 0;  // what the block holds then
    Moment begin = 0;
    Moment end = kNever;
    bool is_done = false;  // with success
  };

  BlockOracle() { writes_.push_back({.id = 0, .begin = 0, .end = 0, .is_done = true}); }

  size_t begin_write(uint64_t id, Moment now) {
    writes_.push_back({.id = id, .begin = now});
    return writes_.size() - 1;
  }
  void end_write(size_t index, Moment now, bool is_done) {
    writes_[index].end = now;
    writes_[index].is_done = is_done;
  }
  // Null: it may; else why not.
  const char* may_read(uint64_t id, Moment began) const {
    const char* why = "nobody wrote that";
    for (const Write& write : writes_) {
      if (write.id != id) continue;
      why = refuse(write, began);
      if (why == nullptr) return nullptr;
    }
    return why;
  }
  void note_read(uint64_t id, Moment began, Moment ended) { reads_.push_back({id, began, ended}); }
  // Whether a replica that holds this may lack the write, when it is answered.
  bool may_hold(uint64_t id, size_t answered) const {
    return std::ranges::any_of(
        writes_, [&](const Write& write) { return write.id == id && write.end >= writes_[answered].begin; });
  }

 private:
  struct Read {
    uint64_t id;
    Moment began;
    Moment ended;
  };
  const char* refuse(const Write& write, Moment began) const {
    for (const Write& later : writes_) {
      if (later.is_done && write.end < later.begin && later.end < began) return "an acknowledged write is gone";
    }
    for (const Read& read : reads_) {
      if (read.id != write.id && write.end < read.began && read.ended < began) return "a read goes backwards";
    }
    return nullptr;
  }
  std::vector<Write> writes_;
  std::vector<Read> reads_;
};

inline uint64_t block_id(std::span<const std::byte> block) {
  uint64_t id = 0;
  std::memcpy(&id, block.data(), sizeof id);
  return id;
}
inline void fill_block(std::span<std::byte> block, uint64_t id) {
  std::ranges::fill(block, static_cast<std::byte>(id));
  std::memcpy(block.data(), &id, sizeof id);
}

}  // namespace fairlead::mirror::test
