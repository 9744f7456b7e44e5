// The disks of a pool, as those open them who make, import or grow one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/problem.h"
#include "io/disk.h"
#include "io/shard.h"
#include "pool/pool.h"

namespace fairlead::engine {

// Opens and claims all of them. The problem names the disk.
Outcome<std::vector<pool::PoolDisk>> open_disks(Shard& shard, const std::vector<OpenDisk>& disks);

// "disk.img holds an ext4 file system (label data)" for the first that is known to hold anything.
std::string what_is_on(Shard& shard, const std::vector<OpenDisk>& disks);

}  // namespace fairlead::engine
