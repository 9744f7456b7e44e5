#include "cli/pool_disks.h"

#include <fmt/format.h>

#include "block/disk.h"
#include "cli/disk_signature.h"

namespace fairlead::cli {

std::expected<std::vector<pool::PoolDisk>, Complaint> open_disks(Shard& shard, const std::vector<OpenDisk>& disks) {
  std::vector<pool::PoolDisk> opened;
  for (const OpenDisk& disk : disks) {
    Result<std::shared_ptr<BlockSource>> source = open_disk_source(shard, disk);
    if (source) {
      opened.push_back({disk.path, std::move(*source)});
      continue;
    }
    const char* const hint = source.error().code == Code::kBusy
                                 ? "; a pool that is served takes commands there: fairlead serve --commands"
                                 : "";
    return std::unexpected(fmt::format("{} {}{}", disk.path, to_string(source.error()), hint));
  }
  return opened;
}

std::string what_is_on(const std::vector<OpenDisk>& disks) {
  for (const OpenDisk& disk : disks) {
    if (const std::string signature = signature_of(disk.path); !signature.empty()) {
      return fmt::format("{} holds {}", disk.path, signature);
    }
  }
  return {};
}

std::string to_text(const pool::Problem& problem) {
  const Error& error = problem.error;
  if (problem.detail.empty()) return to_string(error);
  if (error.os_errno != 0 || *error.what == '\0') return fmt::format("{} {}", problem.detail, to_string(error));
  return fmt::format("{}: {}", problem.detail, error.what);
}

Task<std::expected<std::unique_ptr<pool::Pool>, Complaint>> import_pool(std::vector<Shard*> shards,
                                                                        std::vector<OpenDisk> disks) {
  auto opened = open_disks(*shards.front(), disks);
  if (!opened) co_return std::unexpected(opened.error());
  auto imported = co_await pool::Pool::import(std::move(shards), std::move(*opened), {});
  if (!imported) co_return std::unexpected(to_text(imported.error()));
  co_return std::move(*imported);
}

}  // namespace fairlead::cli
