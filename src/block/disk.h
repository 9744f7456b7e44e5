// A disk of the system, a block device, partition or file, as a BlockDevice.
#pragma once

#include <memory>

#include "block/block_device.h"
#include "io/disk.h"
#include "io/shard.h"

namespace fairlead {

// Passes requests on to a Disk that each shard attaches for itself. What the disk cannot do is found out on the first
// try and remembered: zeroes are then written, discard does nothing. Buffers that are not aligned to logical blocks go
// through aligned memory of the shard's buffer pool in pieces. Thread-safe to open.
// Errors of open(): those of Storage::attach(), kInvalidArgument (a geometry that check_geometry() refuses).
std::shared_ptr<BlockSource> make_disk_source(std::shared_ptr<DiskFile> file);

// Opens it through the shard's Storage. Errors: those of Storage::open().
Result<std::shared_ptr<BlockSource>> open_disk_source(Shard& shard, const OpenDisk& options);

}  // namespace fairlead
