#include "cli/bench_target.h"

#include "block/disk.h"
#include "block/memory.h"
#include "block/null.h"

namespace fairlead::cli {

Task<std::expected<std::vector<std::shared_ptr<BlockSource>>, Complaint>> BenchSources::open() {
  Result<std::shared_ptr<BlockSource>> source = fail(Code::kNotSupported);
  if (const auto* const disk = std::get_if<OpenDisk>(&plan_.target)) {
    source = open_disk_source(home_, *disk);
  } else if (const auto* const memory = std::get_if<MemoryTarget>(&plan_.target)) {
    source = make_memory_source({.size_bytes = memory->size_bytes, .logical_block = plan_.logical_block});
  } else if (const auto* const null = std::get_if<NullTarget>(&plan_.target)) {
    source = make_null_source({.size_bytes = null->size_bytes, .logical_block = plan_.logical_block});
  }
  if (!source) co_return std::unexpected(to_string(source.error()));
  co_return std::vector(plan_.load.queues, *source);
}

}  // namespace fairlead::cli
