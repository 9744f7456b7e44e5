// BufferPool: aligned memory for data on its way between a stream and a disk. Lives on one shard.
//
// Sizes are powers of two from 4 KiB to 2 MiB, cut from slabs of 2 MiB that are made on first use, kept, and told to
// the driver (which registers them with its ring). Memory is bounded and fair: each account (one a connection) always
// gets up to its reserve, so that nobody who holds buffers for ever can starve another; beyond it accounts share one
// budget. Who gets nothing waits in line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "async/reactor.h"
#include "base/intrusive_list.h"
#include "base/units.h"

namespace fairlead {

class BufferPool;
struct BufferSlab;

// What one connection holds. Outlives its buffers. One shard.
class BufferAccount {
 public:
  BufferAccount() = default;
  BufferAccount(const BufferAccount&) = delete;
  BufferAccount& operator=(const BufferAccount&) = delete;
  ~BufferAccount();
  uint64_t held_bytes() const { return held_; }

 private:
  friend class BufferPool;
  uint64_t held_ = 0;
};

// Owns a piece of the pool, aligned to 4 KiB. Its bytes are what the last owner left: fill before use.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer() { reset(); }

  void reset();
  explicit operator bool() const { return data_ != nullptr; }
  std::byte* data() const { return data_; }
  size_t capacity() const { return capacity_; }
  std::span<std::byte> bytes(size_t length) const;  // Requires: length <= capacity().

 private:
  friend class BufferPool;
  BufferPool* pool_ = nullptr;
  BufferAccount* account_ = nullptr;
  BufferSlab* slab_ = nullptr;
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
};

// Told of each slab, so that it can be registered with the kernel.
class SlabObserver {
 public:
  virtual ~SlabObserver() = default;
  virtual void slab_added(size_t index, std::span<std::byte> slab) = 0;
};

// Waits for a buffer: the pool fills `buffer` and posts it.
class BufferWaiter : public Runnable {
 public:
  using Runnable::Runnable;
  Buffer buffer;

 private:
  friend class BufferPool;
  struct Link : ListNode<Link> {
    BufferWaiter* waiter = nullptr;
  } link_;
  BufferAccount* account_ = nullptr;
  size_t capacity_ = 0;
};

class BufferPool {
 public:
  static constexpr size_t kSlabBytes = 2 * kMiB;
  static constexpr size_t kSizeMin = 4 * kKiB;
  static constexpr size_t kSizeMax = kSlabBytes;

  struct Options {
    uint64_t account_reserve = kSlabBytes;  // bytes; at least the largest single request
    uint64_t shared_max = 64 * kMiB;        // bytes beyond the reserves, all accounts together
    SlabObserver* observer = nullptr;       // borrowed for life
  };
  BufferPool(Reactor& reactor, Options options);
  ~BufferPool();  // Requires: all buffers are back, nobody waits.
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A buffer of at least `length` bytes (its capacity counts against the account), or an empty one: wait for it.
  // Requires: 0 < length <= kSizeMax.
  Buffer try_allocate(BufferAccount& account, size_t length);
  // Fills the waiter as soon as its turn comes, through the ready queue. First come, first served.
  void wait(BufferWaiter& waiter, BufferAccount& account, size_t length);
  // Takes a waiter out of the line. False: it was served already (posted or run).
  bool cancel(BufferWaiter& waiter);

  struct Statistics {
    uint64_t slabs = 0;
    uint64_t held_bytes = 0;
    uint64_t waits = 0;
  };
  Statistics statistics() const { return {slabs_.size(), held_, waits_}; }
  // The slab and the offset in it of memory that this pool owns; slab -1 for any other.
  struct Place {
    int slab = -1;
    size_t offset = 0;
  };
  Place find(const void* memory) const;

 private:
  friend class Buffer;
  static constexpr size_t kClasses = 10;  // 4 KiB << 0 … 4 KiB << 9
  using Slab = BufferSlab;
  static size_t class_of(size_t length);
  bool may_hold(const BufferAccount& account, size_t capacity) const;
  Buffer grant(BufferAccount& account, size_t capacity);
  void take_piece(Buffer& buffer, size_t size_class);
  Slab* empty_slab();
  void release(Buffer& buffer);
  void serve_waiters();

  Reactor& reactor_;
  Options options_;
  std::vector<std::unique_ptr<Slab>> slabs_;
  std::vector<std::pair<const std::byte*, size_t>> slab_index_;  // by address
  std::vector<Slab*> empty_;
  std::vector<std::vector<Slab*>> partial_;  // by class: slabs with room
  IntrusiveList<BufferWaiter::Link, BufferWaiter::Link> waiters_;
  uint64_t held_ = 0;
  uint64_t shared_held_ = 0;
  uint64_t waits_ = 0;
};

}  // namespace fairlead
