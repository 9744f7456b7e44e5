// The Disk seam: block devices, partitions and files, by io_uring or simulated.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/uuid.h"
#include "io/request.h"

namespace fairlead {

struct DiskGeometry {
  uint64_t size_bytes = 0;           // multiple of logical_block
  uint32_t logical_block = 512;      // bytes; offsets, lengths and memory of each request are multiples of it
  uint32_t physical_block = 512;     // bytes; smaller writes cost a read
  uint32_t optimal_io = 0;           // bytes; 0: not known
  uint32_t discard_granularity = 0;  // bytes; 0: cannot discard
  bool discard_zeroes = false;       // discarded blocks read as zeroes; false: perhaps as before
  bool volatile_cache = true;        // completed writes may be lost at power loss until a flush
  bool read_only = false;
};

enum class Access : uint8_t { kReadWrite, kReadOnly };

struct OpenDisk {
  std::string path;
  Access access = Access::kReadWrite;
  // For files: makes it when it is not there, and grows a smaller one. Error kInvalidArgument on a larger one and on a
  // block device of another size.
  std::optional<uint64_t> size_bytes = std::nullopt;
};

// A disk that was opened and claimed: no other process that asks as we do (and no mount) can have it while this lives.
// Thread-safe. shared_ptr: each shard that uses the disk holds it open.
class DiskFile {
 public:
  virtual ~DiskFile() = default;
  virtual DiskGeometry geometry() const = 0;
  // Asks the system again and returns the size in bytes, rounded down to logical blocks: files and devices grow.
  virtual Result<uint64_t> refresh_size() = 0;
};

// One shard's way to a DiskFile. Lives on that shard; drain it before it dies.
class Disk {
 public:
  virtual ~Disk() = default;
  // Requires: the range lies inside the size last returned by refresh_size(); aligned as the geometry says, memory too.
  // Errors: kIo, kNoSpace, kReadOnly, kNotSupported (discard, zeroes without kernel support).
  virtual void submit(IoRequest& request) = 0;
};

// Lives on one shard.
class Storage {
 public:
  virtual ~Storage() = default;
  // Blocks briefly: for start-up and administration, not for the I/O path.
  // Errors: kNotFound, kIsDirectory, kBusy (in use or mounted), kReadOnly, kPermissionDenied, kNotSupported (neither a
  // block device nor a regular file), kNoSpace, kInvalidArgument.
  virtual Result<std::shared_ptr<DiskFile>> open(const OpenDisk& options) = 0;
  // Requires: `file` was opened by a Storage of the same kind (on any shard).
  virtual Result<std::unique_ptr<Disk>> attach(std::shared_ptr<DiskFile> file) = 0;
  // What it holds, as far as its first bytes tell, whoever has it open: "an ext4 file system (label data)". Empty:
  // nothing that is known. Blocks briefly.
  virtual std::string signature(const std::string& path) const {
    (void)path;
    return {};
  }
  // Of this run of the kernel: what was written and not flushed survives the end of a process, but not of this. Never
  // nil, the same on all shards. Where it cannot be known each process has another, so that nothing seems to survive.
  virtual Uuid boot_id() const = 0;
};

}  // namespace fairlead
