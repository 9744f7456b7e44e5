// BlockDevice: what a target serves and a pool is built on. One object a shard; lives on that shard.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/error.h"
#include "io/disk.h"
#include "io/request.h"
#include "io/shard.h"

namespace fairlead {

using BlockGeometry = DiskGeometry;

// What every device keeps to: a logical block of 512 or 4096 bytes, a size that is a multiple of it and not 0. Error
// kInvalidArgument.
Result<void> check_geometry(const BlockGeometry& geometry);

// What a device refuses at once: see BlockDevice::submit().
Result<void> check_request(const IoRequest& request, const BlockGeometry& geometry);

class BlockDevice {
 public:
  // Requires: nothing under way, and not inside a request's `done`.
  virtual ~BlockDevice() = default;
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;

  // Stable but for size_bytes, which may grow.
  const BlockGeometry& geometry() const { return geometry_; }

  // Checks the request, then does it; see IoRequest for its life-cycle. Works for every device: discard and write
  // zeroes find another way where the medium has none (discard then does nothing: it is a hint). The memory of the
  // buffers needs no alignment, though it is quicker when it has that of a logical block. A length of 0 does nothing,
  // successfully. Errors: kOutOfRange, kInvalidArgument (not aligned to logical blocks; buffers that do not sum up; a
  // flush with a length), kReadOnly, and what the medium says: kIo, kNoSpace, kCorrupt.
  void submit(IoRequest& request);

  // Whether the buffers of a write are done with when submit() returns, even if `done` comes later: they may then be
  // memory that the caller has for that long only.
  bool takes_writes_at_once() const { return takes_writes_at_once_; }

  // Looks whether the medium has grown (or shrunk) and returns its size in bytes, as geometry() says from then on.
  virtual Result<uint64_t> refresh_size() { return geometry_.size_bytes; }

 protected:
  explicit BlockDevice(const BlockGeometry& geometry) : geometry_(geometry) {}
  // Requires: the request was checked and, but for a flush, is not empty.
  virtual void execute(IoRequest& request) = 0;
  BlockGeometry geometry_;
  bool takes_writes_at_once_ = false;
};

using BlockAwaiter = IoAwaiter<BlockDevice>;

// co_await block_read(…) and so on: the whole range, errors as submit() has them. `buffers` and what it points to are
// borrowed until then.
inline BlockAwaiter block_read(Reactor& reactor, BlockDevice& device, ByteOffset offset,
                               std::span<const iovec> buffers) {
  return {reactor, device, {.op = IoOp::kRead, .offset = offset, .length = total_length(buffers), .buffers = buffers}};
}
inline BlockAwaiter block_write(Reactor& reactor, BlockDevice& device, ByteOffset offset,
                                std::span<const iovec> buffers, Durability durability = Durability::kVolatile) {
  return {reactor,
          device,
          {.op = IoOp::kWrite,
           .offset = offset,
           .length = total_length(buffers),
           .buffers = buffers,
           .durability = durability}};
}
inline BlockAwaiter block_flush(Reactor& reactor, BlockDevice& device) {
  return {reactor, device, {.op = IoOp::kFlush}};
}
inline BlockAwaiter block_discard(Reactor& reactor, BlockDevice& device, ByteOffset offset, uint64_t length) {
  return {reactor, device, {.op = IoOp::kDiscard, .offset = offset, .length = length}};
}
inline BlockAwaiter block_write_zeroes(Reactor& reactor, BlockDevice& device, ByteOffset offset, uint64_t length,
                                       ZeroMode mode = ZeroMode::kMayDeallocate) {
  return {reactor, device, {.op = IoOp::kWriteZeroes, .offset = offset, .length = length, .zero_mode = mode}};
}

// A device that several shards can open: made once, thread-safe, then opened on each shard that serves it. shared_ptr:
// each shard's device keeps what they share alive.
class BlockSource {
 public:
  virtual ~BlockSource() = default;
  // On the shard's thread.
  virtual Result<std::unique_ptr<BlockDevice>> open(Shard& shard) = 0;
};

}  // namespace fairlead
