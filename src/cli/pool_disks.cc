#include "cli/pool_disks.h"

#include "engine/pool_disks.h"

namespace fairlead::cli {

std::expected<std::vector<pool::PoolDisk>, Complaint> open_disks(Shard& shard, const std::vector<OpenDisk>& disks) {
  auto opened = engine::open_disks(shard, disks);
  if (opened) return std::move(*opened);
  const char* const hint = opened.error().error.code == Code::kBusy
                               ? "; a pool that is served takes commands there: fairlead serve --commands"
                               : "";
  return std::unexpected(to_string(opened.error()) + hint);
}

Task<std::expected<std::unique_ptr<pool::Pool>, Complaint>> import_pool(std::vector<Shard*> shards,
                                                                        std::vector<OpenDisk> disks) {
  auto opened = open_disks(*shards.front(), disks);
  if (!opened) co_return std::unexpected(opened.error());
  auto imported = co_await pool::Pool::import(std::move(shards), std::move(*opened), {});
  if (!imported) co_return std::unexpected(to_string(imported.error()));
  co_return std::move(*imported);
}

}  // namespace fairlead::cli
