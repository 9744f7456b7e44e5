// A pool's disks as commands use them: opened, claimed, imported, closed.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "async/task.h"
#include "cli/arguments.h"
#include "io/disk.h"
#include "io/shard.h"
#include "pool/pool.h"

namespace fairlead::cli {

// Opens and claims all of them. The complaint names the disk, and says whose it may be when it is in use.
std::expected<std::vector<pool::PoolDisk>, Complaint> open_disks(Shard& shard, const std::vector<OpenDisk>& disks);

// Imports the pool of these disks.
Task<std::expected<std::unique_ptr<pool::Pool>, Complaint>> import_pool(std::vector<Shard*> shards,
                                                                        std::vector<OpenDisk> disks);

}  // namespace fairlead::cli
