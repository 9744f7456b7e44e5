#include "engine/pool_disks.h"

#include <fmt/format.h>

#include "block/disk.h"

namespace fairlead::engine {

Outcome<std::vector<pool::PoolDisk>> open_disks(Shard& shard, const std::vector<OpenDisk>& disks) {
  std::vector<pool::PoolDisk> opened;
  for (const OpenDisk& disk : disks) {
    Result<std::shared_ptr<BlockSource>> source = open_disk_source(shard, disk);
    if (!source) return problem(source.error().code, fmt::format("{} {}", disk.path, to_string(source.error())));
    opened.push_back({disk.path, std::move(*source)});
  }
  return opened;
}

std::string what_is_on(Shard& shard, const std::vector<OpenDisk>& disks) {
  for (const OpenDisk& disk : disks) {
    if (const std::string signature = shard.storage.signature(disk.path); !signature.empty()) {
      return fmt::format("{} holds {}", disk.path, signature);
    }
  }
  return {};
}

}  // namespace fairlead::engine
