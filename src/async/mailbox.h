// Mailbox: a bounded queue of pointers, many producers on any thread, one consumer; no lock.
//
// Each cell carries a sequence number that says whose turn it is: equal to the position when free to write, position +
// 1 when filled. (The bounded queue of D. Vyukov.)
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "base/check.h"
#include "base/units.h"

namespace fairlead {

template <typename T>
class Mailbox {
 public:
  // Requires: capacity is a power of two, at least 2: in a ring of one, "filled" and "free for the next turn" are the
  // same number.
  explicit Mailbox(size_t capacity) : mask_(capacity - 1), cells_(std::make_unique<Cell[]>(capacity)) {
    FL_CHECK(is_power_of_two(capacity) && capacity >= 2);
    for (size_t i = 0; i < capacity; ++i) cells_[i].sequence.store(i, std::memory_order_relaxed);
  }

  // Any thread. False: full.
  bool try_push(T& item) {
    size_t position = tail_.load(std::memory_order_relaxed);
    while (true) {
      Cell& cell = cells_[position & mask_];
      const size_t sequence = cell.sequence.load(std::memory_order_acquire);
      if (sequence == position) {
        if (tail_.compare_exchange_weak(position, position + 1, std::memory_order_relaxed)) {
          cell.item = &item;
          cell.sequence.store(position + 1, std::memory_order_release);
          return true;
        }
      } else if (sequence < position) {
        return false;
      } else {
        position = tail_.load(std::memory_order_relaxed);
      }
    }
  }

  // The consumer's thread. Null: empty.
  T* try_pop() {
    Cell& cell = cells_[head_ & mask_];
    if (cell.sequence.load(std::memory_order_acquire) != head_ + 1) return nullptr;
    T* const item = cell.item;
    cell.sequence.store(head_ + mask_ + 1, std::memory_order_release);
    ++head_;
    return item;
  }

  // The consumer's thread.
  bool empty() const { return cells_[head_ & mask_].sequence.load(std::memory_order_acquire) != head_ + 1; }

 private:
  struct Cell {
    std::atomic<size_t> sequence;
    T* item = nullptr;
  };
  const size_t mask_;
  std::unique_ptr<Cell[]> cells_;
  alignas(64) std::atomic<size_t> tail_{0};
  alignas(64) size_t head_ = 0;
};

}  // namespace fairlead
