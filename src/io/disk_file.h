// NativeDiskFile: an open file or block device, claimed, with what is known of it. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "io/disk.h"

namespace fairlead {

// How a request reaches the medium; a disk that has no way for one step is not asked again.
enum class DiskStep : uint8_t {
  kTransfer,        // read or write
  kDiscardCommand,  // BLOCK_URING_CMD_DISCARD: block devices, Linux 6.12 or newer
  kDiscardRange,    // fallocate(PUNCH_HOLE | KEEP_SIZE | NO_HIDE_STALE): block devices, before that
  kPunchHole,       // fallocate(PUNCH_HOLE | KEEP_SIZE): gives room back, reads as zeroes
  kZeroRange,       // fallocate(ZERO_RANGE | KEEP_SIZE): keeps the room, reads as zeroes
  kSync,            // fdatasync
};
inline constexpr int kDiskStepCount = static_cast<int>(DiskStep::kSync) + 1;

enum class DiskKind : uint8_t { kFile, kBlockDevice };

class NativeDiskFile final : public DiskFile {
 public:
  // Takes over `descriptor`.
  NativeDiskFile(int descriptor, DiskKind kind, const DiskGeometry& geometry);
  ~NativeDiskFile() override;
  NativeDiskFile(const NativeDiskFile&) = delete;
  NativeDiskFile& operator=(const NativeDiskFile&) = delete;

  DiskGeometry geometry() const override;
  Result<uint64_t> refresh_size() override;

  int descriptor() const { return descriptor_; }
  DiskKind kind() const { return kind_; }
  bool is_missing(DiskStep step) const { return missing_[static_cast<size_t>(step)].load(std::memory_order_relaxed); }
  void note_missing(DiskStep step) { missing_[static_cast<size_t>(step)].store(true, std::memory_order_relaxed); }
  // Another open file of the same thing, that carries no claim; negative when there is none.
  int open_again() const;

 private:
  const int descriptor_;
  const DiskKind kind_;
  const DiskGeometry geometry_;  // but for the size
  std::atomic<uint64_t> size_bytes_;
  std::atomic<bool> missing_[kDiskStepCount] = {};
};

// Opens, claims and measures. Direct I/O, or buffered with a warning in the log where the file system has none: then
// too a flush brings everything to stable storage. A block device is claimed by O_EXCL for both accesses; a file by a
// lock on the whole of it (F_OFD_SETLK: shared for read-only), which also keeps out virtual machines that lock their
// images. Errors: as Storage::open(); an empty file or device is kInvalidArgument.
Result<std::shared_ptr<NativeDiskFile>> open_disk_file(const OpenDisk& options);

}  // namespace fairlead
