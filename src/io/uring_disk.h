// Storage by io_uring: block devices, partitions and files. See disk.h for the contracts.
#pragma once

#include "io/boot_id.h"
#include "io/buffer_pool.h"
#include "io/disk.h"
#include "io/disk_signature.h"
#include "io/uring_ring.h"

namespace fairlead {

class UringStorage final : public Storage {
 public:
  UringStorage(UringRing& ring, BufferPool& buffers) : ring_(ring), buffers_(buffers) {}

  // See open_disk_file().
  Result<std::shared_ptr<DiskFile>> open(const OpenDisk& options) override;
  Result<std::unique_ptr<Disk>> attach(std::shared_ptr<DiskFile> file) override;
  std::string signature(const std::string& path) const override { return signature_of(path); }
  Uuid boot_id() const override { return kernel_boot_id(); }

 private:
  UringRing& ring_;
  BufferPool& buffers_;
};

}  // namespace fairlead
