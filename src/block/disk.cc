#include "block/disk.h"

#include <algorithm>
#include <array>

#include "block/slot_pool.h"
#include "block/zeroes.h"

namespace fairlead {
namespace {

constexpr uint64_t kBouncePiece = 256 * kKiB;    // several fit in an account's reserve
constexpr size_t kZeroBufferBytes = 256 * kKiB;  // written again and again; it is pinned as long
constexpr size_t kZeroBufferRepeats = 16;

class DiskDevice final : public BlockDevice {
 public:
  DiskDevice(Shard& shard, std::shared_ptr<DiskFile> file, std::unique_ptr<Disk> disk)
      : BlockDevice(file->geometry()), pool_(shard.buffers), file_(std::move(file)), disk_(std::move(disk)) {}

  Result<uint64_t> refresh_size() override {
    FL_TRY(const uint64_t size, file_->refresh_size());
    geometry_.size_bytes = size;
    return size;
  }

 private:
  // A request that becomes others: the slot is the one that the disk has at the moment.
  struct Slot : IoRequest {
    DiskDevice* device = nullptr;
    IoRequest* original = nullptr;
    uint64_t finished = 0;  // bytes of the original that are done
  };
  // A request in pieces, through a buffer of its own.
  struct Bounce : Slot {
    struct Waiter : BufferWaiter {
      Waiter() : BufferWaiter([](Runnable& self) { static_cast<Waiter&>(self).bounce->got_buffer(); }) {}
      Bounce* bounce = nullptr;
    };
    void got_buffer() {
      memory = std::move(waiter.buffer);
      device->next_bounce(*this);
    }
    Waiter waiter;
    Buffer memory;
    iovec piece{};
  };
  // A write of zeroes, as one try of the kernel's means or as writes.
  struct Zeroing : Slot {
    std::array<iovec, kZeroBufferRepeats> pieces{};
  };

  void execute(IoRequest& request) override;
  bool needs_bounce(const IoRequest& request) const;
  template <typename SlotType>
  static void start(SlotType& slot, IoRequest& original, DiskDevice& device);

  void start_bounce(IoRequest& request);
  void next_bounce(Bounce& bounce);
  void bounced(Bounce& bounce);
  void finish_bounce(Bounce& bounce, Result<void> outcome);

  void discard(IoRequest& request);
  void write_zeroes(IoRequest& request);
  void try_zeroes(Zeroing& zeroing);
  void next_zero_write(Zeroing& zeroing);
  void finish_zeroes(Zeroing& zeroing, Result<void> outcome);
  bool& zeroes_supported(ZeroMode mode) {
    return mode == ZeroMode::kMayDeallocate ? deallocating_zeroes_ : allocated_zeroes_;
  }

  BufferPool& pool_;
  BufferAccount account_;
  std::shared_ptr<DiskFile> file_;  // shared by the shards that use the disk
  std::unique_ptr<Disk> disk_;
  SlotPool<Bounce> bounces_;
  SlotPool<Zeroing> zeroings_;
  SlotPool<Slot> discards_;
  // Until the disk says otherwise.
  bool deallocating_zeroes_ = true;
  bool allocated_zeroes_ = true;
  bool discard_supported_ = true;
};

void DiskDevice::execute(IoRequest& request) {
  switch (request.op) {
    case IoOp::kRead:
    case IoOp::kWrite:
      if (needs_bounce(request)) [[unlikely]] {
        start_bounce(request);
        return;
      }
      [[fallthrough]];
    case IoOp::kFlush:
      disk_->submit(request);
      return;
    case IoOp::kDiscard:
      discard(request);
      return;
    case IoOp::kWriteZeroes:
      write_zeroes(request);
      return;
  }
}

bool DiskDevice::needs_bounce(const IoRequest& request) const {
  uintptr_t bits = 0;
  for (const iovec& buffer : request.buffers) {
    if (buffer.iov_len == 0) return true;  // not every kernel path takes one
    bits |= reinterpret_cast<uintptr_t>(buffer.iov_base) | buffer.iov_len;
  }
  return !is_aligned(bits, geometry_.logical_block);
}

template <typename SlotType>
void DiskDevice::start(SlotType& slot, IoRequest& original, DiskDevice& device) {
  slot.device = &device;
  slot.original = &original;
  slot.finished = 0;
  slot.arguments() = original.arguments();
  slot.buffers = {};
}

void DiskDevice::start_bounce(IoRequest& request) {
  Bounce& bounce = bounces_.take();
  start(bounce, request, *this);
  bounce.waiter.bounce = &bounce;
  bounce.done = [](IoRequest& self) {
    auto& done = static_cast<Bounce&>(self);
    done.device->bounced(done);
  };
  const auto length = static_cast<size_t>(std::min(request.length, kBouncePiece));
  bounce.memory = pool_.try_allocate(account_, length);
  if (bounce.memory) {
    next_bounce(bounce);
  } else {
    pool_.wait(bounce.waiter, account_, length);
  }
}

void DiskDevice::next_bounce(Bounce& bounce) {
  const IoRequest& original = *bounce.original;
  const auto length = static_cast<size_t>(std::min(original.length - bounce.finished, kBouncePiece));
  if (original.op == IoOp::kWrite) {
    copy_from_buffers(original.buffers, bounce.finished, bounce.memory.bytes(length));
  }
  bounce.piece = {bounce.memory.data(), length};
  bounce.buffers = {&bounce.piece, 1};
  bounce.offset = ByteOffset(original.offset.value + bounce.finished);
  bounce.length = length;
  disk_->submit(bounce);
}

void DiskDevice::bounced(Bounce& bounce) {
  if (!bounce.result) {
    finish_bounce(bounce, bounce.result);
    return;
  }
  const IoRequest& original = *bounce.original;
  if (original.op == IoOp::kRead) {
    copy_to_buffers(original.buffers, bounce.finished, bounce.memory.bytes(bounce.length));
  }
  bounce.finished += bounce.length;
  if (bounce.finished == original.length) {
    finish_bounce(bounce, {});
  } else {
    next_bounce(bounce);
  }
}

void DiskDevice::finish_bounce(Bounce& bounce, Result<void> outcome) {
  IoRequest& original = *bounce.original;
  bounce.memory.reset();
  bounces_.give_back(bounce);
  original.complete(outcome);
}

void DiskDevice::discard(IoRequest& request) {
  if (geometry_.discard_granularity == 0 || !discard_supported_) {
    request.complete({});  // a hint that nobody can take
    return;
  }
  // The whole range, parts of a granule too: the kernel leaves alone, or zeroes, what it cannot give back.
  Slot& slot = discards_.take();
  start(slot, request, *this);
  slot.done = [](IoRequest& self) {
    auto& done = static_cast<Slot&>(self);
    DiskDevice& device = *done.device;
    IoRequest& original = *done.original;
    Result<void> outcome = done.result;
    device.discards_.give_back(done);
    if (!outcome && outcome.error().code == Code::kNotSupported) {
      device.discard_supported_ = false;
      outcome = {};
    }
    original.complete(outcome);
  };
  disk_->submit(slot);
}

void DiskDevice::write_zeroes(IoRequest& request) {
  Zeroing& zeroing = zeroings_.take();
  start(zeroing, request, *this);
  try_zeroes(zeroing);
}

// By the disk's own means, the mode asked for first; then without giving room back; then by writing.
void DiskDevice::try_zeroes(Zeroing& zeroing) {
  if (!zeroes_supported(zeroing.zero_mode)) zeroing.zero_mode = ZeroMode::kKeepAllocated;
  if (!zeroes_supported(zeroing.zero_mode)) {
    next_zero_write(zeroing);
    return;
  }
  zeroing.done = [](IoRequest& self) {
    auto& done = static_cast<Zeroing&>(self);
    DiskDevice& device = *done.device;
    if (done.result || done.result.error().code != Code::kNotSupported) {
      device.finish_zeroes(done, done.result);
      return;
    }
    device.zeroes_supported(done.zero_mode) = false;
    device.try_zeroes(done);
  };
  disk_->submit(zeroing);
}

void DiskDevice::next_zero_write(Zeroing& zeroing) {
  const IoRequest& original = *zeroing.original;
  if (zeroing.finished == original.length) {
    finish_zeroes(zeroing, {});
    return;
  }
  zeroing.op = IoOp::kWrite;
  zeroing.offset = ByteOffset(original.offset.value + zeroing.finished);
  zeroing.length = std::min<uint64_t>(original.length - zeroing.finished, kZeroBufferBytes * kZeroBufferRepeats);
  size_t count = 0;
  for (uint64_t left = zeroing.length; left > 0; ++count) {
    const size_t piece = std::min<uint64_t>(left, kZeroBufferBytes);
    zeroing.pieces[count] = {zeroes(piece).data(), piece};
    left -= piece;
  }
  zeroing.buffers = std::span(zeroing.pieces).first(count);
  zeroing.done = [](IoRequest& self) {
    auto& done = static_cast<Zeroing&>(self);
    if (!done.result) {
      done.device->finish_zeroes(done, done.result);
      return;
    }
    done.finished += done.length;
    done.device->next_zero_write(done);
  };
  disk_->submit(zeroing);
}

void DiskDevice::finish_zeroes(Zeroing& zeroing, Result<void> outcome) {
  IoRequest& original = *zeroing.original;
  zeroings_.give_back(zeroing);
  original.complete(outcome);
}

class DiskSource final : public BlockSource {
 public:
  explicit DiskSource(std::shared_ptr<DiskFile> file) : file_(std::move(file)) {}
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    FL_TRY_VOID(check_geometry(file_->geometry()));
    FL_TRY(std::unique_ptr<Disk> disk, shard.storage.attach(file_));
    return std::make_unique<DiskDevice>(shard, file_, std::move(disk));
  }

 private:
  const std::shared_ptr<DiskFile> file_;  // shared by the shards that use the disk
};

}  // namespace

std::shared_ptr<BlockSource> make_disk_source(std::shared_ptr<DiskFile> file) {
  return std::make_shared<DiskSource>(std::move(file));
}

Result<std::shared_ptr<BlockSource>> open_disk_source(Shard& shard, const OpenDisk& options) {
  FL_TRY(std::shared_ptr<DiskFile> file, shard.storage.open(options));
  return make_disk_source(std::move(file));
}

}  // namespace fairlead
