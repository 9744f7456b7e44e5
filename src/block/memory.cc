#include "block/memory.h"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include "block/inline_completion.h"

namespace fairlead {
namespace {

#if __has_feature(thread_sanitizer)
// Hosts may have overlapping commands in flight on several shards; as on any disk each byte is then one of theirs, and
// nothing of ours is decided by the bytes. A lock would buy nothing but its cost. So the thread sanitizer is told to
// look away from these bytes, and from these only: its memcpy and memset report whatever the caller's attribute says,
// hence the loops of pieces that the compiler puts in place, and may not turn into those calls.
__attribute__((no_sanitize("thread"), no_builtin("memcpy", "memset"))) void copy_bytes(std::byte* to,
                                                                                       const std::byte* from,
                                                                                       size_t length) {
  constexpr size_t kPiece = 64;
  for (; length >= kPiece; length -= kPiece, to += kPiece, from += kPiece) __builtin_memcpy_inline(to, from, kPiece);
  for (; length > 0; --length) __builtin_memcpy_inline(to++, from++, 1);
}
__attribute__((no_sanitize("thread"), no_builtin("memcpy", "memset"))) void zero_bytes(std::byte* to, size_t length) {
  constexpr size_t kPiece = 64;
  for (; length >= kPiece; length -= kPiece, to += kPiece) __builtin_memset_inline(to, 0, kPiece);
  for (; length > 0; --length) __builtin_memset_inline(to++, 0, 1);
}
#else
void copy_bytes(std::byte* to, const std::byte* from, size_t length) {
  if (length > 0) std::memcpy(to, from, length);  // an empty piece may have a null pointer
}
void zero_bytes(std::byte* to, size_t length) { std::memset(to, 0, length); }
#endif

using Backing = MemoryOptions::Backing;

// The bytes: anonymous memory of the whole size, of which the kernel backs what was touched. Thread-safe as said above.
class MemoryRegion {
 public:
  MemoryRegion(std::byte* start, size_t size, Backing backing)
      : start_(start), size_(size), page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))), backing_(backing) {}
  ~MemoryRegion() { munmap(start_, size_); }
  MemoryRegion(const MemoryRegion&) = delete;
  MemoryRegion& operator=(const MemoryRegion&) = delete;

  void read(uint64_t offset, std::span<const iovec> buffers) const {
    for (const iovec& buffer : buffers) {
      copy_bytes(static_cast<std::byte*>(buffer.iov_base), start_ + offset, buffer.iov_len);
      offset += buffer.iov_len;
    }
  }
  void write(uint64_t offset, std::span<const iovec> buffers) {
    for (const iovec& buffer : buffers) {
      copy_bytes(start_ + offset, static_cast<const std::byte*>(buffer.iov_base), buffer.iov_len);
      offset += buffer.iov_len;
    }
  }
  void zero(uint64_t offset, uint64_t length) { zero_bytes(start_ + offset, length); }

  // What nobody wants any more.
  void discard(uint64_t offset, uint64_t length) {
    if (backing_ == Backing::kSparse) release(offset, length);
  }
  void zero_and_release(uint64_t offset, uint64_t length) {
    if (backing_ == Backing::kSparse) return release(offset, length);
    zero(offset, length);
  }

 private:
  // Zeroes by giving back the whole pages in the range.
  void release(uint64_t offset, uint64_t length) {
    const uint64_t end = offset + length;
    const uint64_t first = align_up(offset, page_);
    const uint64_t last = align_down(end, page_);
    if (first >= last || madvise(start_ + first, last - first, MADV_DONTNEED) != 0) {
      zero(offset, length);  // less than a page, or memory that is locked
      return;
    }
    zero(offset, first - offset);
    zero(last, end - last);
  }

  std::byte* const start_;
  const size_t size_;
  const size_t page_;
  const Backing backing_;
};

class MemoryDevice final : public BlockDevice {
 public:
  MemoryDevice(Shard& shard, const BlockGeometry& geometry, std::shared_ptr<MemoryRegion> region)
      : BlockDevice(geometry), region_(std::move(region)), completion_(shard.reactor) {
    takes_writes_at_once_ = true;
  }

 private:
  void execute(IoRequest& request) override {
    const uint64_t offset = request.offset.value;
    switch (request.op) {
      case IoOp::kRead:
        region_->read(offset, request.buffers);
        break;
      case IoOp::kWrite:
        region_->write(offset, request.buffers);
        break;
      case IoOp::kFlush:
        break;
      case IoOp::kDiscard:
        region_->discard(offset, request.length);
        break;
      case IoOp::kWriteZeroes:
        if (request.zero_mode == ZeroMode::kMayDeallocate) {
          region_->zero_and_release(offset, request.length);
        } else {
          region_->zero(offset, request.length);
        }
        break;
    }
    completion_.complete(request);
  }

  std::shared_ptr<MemoryRegion> region_;  // shared: every shard's device reaches the same bytes
  InlineCompletion completion_;
};

class MemorySource final : public BlockSource {
 public:
  MemorySource(const BlockGeometry& geometry, std::shared_ptr<MemoryRegion> region)
      : geometry_(geometry), region_(std::move(region)) {}
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    return std::make_unique<MemoryDevice>(shard, geometry_, region_);
  }

 private:
  const BlockGeometry geometry_;
  const std::shared_ptr<MemoryRegion> region_;
};

}  // namespace

Result<std::shared_ptr<BlockSource>> make_memory_source(MemoryOptions options) {
  const auto page = static_cast<uint32_t>(sysconf(_SC_PAGESIZE));
  const BlockGeometry geometry = {.size_bytes = options.size_bytes,
                                  .logical_block = options.logical_block,
                                  .physical_block = options.logical_block,
                                  .optimal_io = 0,
                                  .discard_granularity = std::max(page, options.logical_block),
                                  .discard_zeroes = options.backing == Backing::kSparse,
                                  .volatile_cache = false,
                                  .read_only = false};
  FL_TRY_VOID(check_geometry(geometry));
  void* const start =
      mmap(nullptr, options.size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return fail(Code::kResourceExhausted, "reserve address space");
  // Scattered blocks otherwise cost a walk of the page tables each, more than the copy of a block.
  (void)madvise(start, options.size_bytes, MADV_HUGEPAGE);
  auto region = std::make_shared<MemoryRegion>(static_cast<std::byte*>(start), options.size_bytes, options.backing);
  if (options.backing == Backing::kResident && madvise(start, options.size_bytes, MADV_POPULATE_WRITE) != 0) {
    return fail(Code::kResourceExhausted, "take memory");
  }
  return std::make_shared<MemorySource>(geometry, std::move(region));
}

}  // namespace fairlead
