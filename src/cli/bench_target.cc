#include "cli/bench_target.h"

#include <algorithm>
#include <fmt/format.h>

#include "async/call.h"
#include "base/check.h"
#include "block/disk.h"
#include "block/memory.h"
#include "block/null.h"
#include "host/queue.h"

namespace fairlead::cli {

BenchSources::BenchSources(Runtime& runtime, const BenchPlan& plan)
    : runtime_(runtime), home_(runtime.shard(0)), plan_(plan) {}

BenchSources::~BenchSources() {
  for (const Remote& remote : remotes_) FL_CHECK(remote.subsystem == nullptr);
  FL_CHECK(pool_ == nullptr);
}

Task<std::expected<BenchSources::Sources, Complaint>> BenchSources::open() {
  if (const auto* const target = std::get_if<FabricTarget>(&plan_.target)) co_return co_await open_remote(*target);
  if (const auto* const target = std::get_if<PoolTarget>(&plan_.target)) co_return co_await open_pool(*target);
  Result<std::shared_ptr<BlockSource>> source = open_local();
  if (!source) co_return std::unexpected(to_string(source.error()));
  if (plan_.limits) *source = make_limiter_source(std::move(*source), *plan_.limits);
  co_return std::vector(plan_.load.queues, *source);
}

Result<std::shared_ptr<BlockSource>> BenchSources::open_local() const {
  if (const auto* const disk = std::get_if<OpenDisk>(&plan_.target)) return open_disk_source(home_, *disk);
  if (const auto* const memory = std::get_if<MemoryTarget>(&plan_.target)) {
    return make_memory_source({.size_bytes = memory->size_bytes, .logical_block = plan_.logical_block});
  }
  const auto& null = std::get<NullTarget>(plan_.target);
  return make_null_source({.size_bytes = null.size_bytes, .logical_block = plan_.logical_block});
}

Task<std::expected<BenchSources::Sources, Complaint>> BenchSources::open_pool(const PoolTarget& target) {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < runtime_.shard_count(); ++i) shards.push_back(&runtime_.shard(i));
  std::vector<pool::PoolDisk> disks;
  for (const OpenDisk& disk : target.disks) {
    Result<std::shared_ptr<BlockSource>> opened = open_disk_source(home_, disk);
    if (!opened) co_return std::unexpected(fmt::format("{} {}", disk.path, to_string(opened.error())));
    disks.push_back({disk.path, std::move(*opened)});
  }
  auto imported = co_await pool::Pool::import(std::move(shards), std::move(disks), {});
  if (!imported) {
    const Problem& problem = imported.error();
    co_return std::unexpected(fmt::format("{} {}", problem.detail, to_string(problem.error)));
  }
  pool_ = std::move(*imported);
  const Result<std::shared_ptr<BlockSource>> source = co_await pool_->source(target.object);
  if (!source) co_return std::unexpected(to_string(source.error()));
  co_return std::vector(plan_.load.queues, *source);
}

Task<std::expected<BenchSources::Sources, Complaint>> BenchSources::open_remote(const FabricTarget& target) {
  Sources sources;
  remotes_.resize(plan_.load.queues);
  for (uint32_t i = 0; i < plan_.load.queues; ++i) {
    Remote& remote = remotes_[i];
    remote.shard = &runtime_.shard(i % runtime_.shard_count());
    host::SubsystemOptions options = target.subsystem;
    options.queue_depth = static_cast<uint16_t>(std::min<uint32_t>(plan_.load.depth_of(i), host::Queue::kDepthMax));
    auto source = co_await call_on(home_.reactor, remote.shard->reactor, connect(remote, options, target.nsid));
    if (!source) co_return std::unexpected(to_string(source.error()));
    sources.push_back(std::move(*source));
  }
  for (const host::ControllerStatus& path : remotes_.front().paths) {
    if (path.state == host::ControllerState::kLive) continue;
    remarks_.push_back(fmt::format("the path by {} {}", fairlead::to_string(path.address), to_string(path.last_error)));
  }
  co_return sources;
}

Task<Result<std::shared_ptr<BlockSource>>> BenchSources::connect(Remote& remote, host::SubsystemOptions options,
                                                                 uint32_t nsid) {
  remote.subsystem = std::make_unique<host::Subsystem>(std::vector{remote.shard}, std::move(options));
  host::Subsystem& subsystem = *remote.subsystem;
  FL_CO_TRY_VOID(co_await subsystem.start());
  // The first path is there; what is measured is all of them, so the others have their chance.
  const auto is_tried = [](const host::ControllerStatus& path) { return path.attempts > 0; };
  remote.paths = subsystem.controllers();
  while (!std::ranges::all_of(remote.paths, is_tried)) {
    co_await subsystem.changed().wait();
    remote.paths = subsystem.controllers();
  }
  co_return subsystem.source(nsid);
}

Task<void> BenchSources::disconnect(Remote& remote) {
  if (remote.subsystem == nullptr) co_return;
  co_await remote.subsystem->stop();
  remote.subsystem.reset();
}

Task<std::expected<void, Complaint>> BenchSources::close() {
  for (Remote& remote : remotes_) {
    if (remote.shard != nullptr) co_await call_on(home_.reactor, remote.shard->reactor, disconnect(remote));
  }
  if (pool_ == nullptr) co_return std::expected<void, Complaint>{};
  const Result<void> closed = co_await pool_->close();
  pool_.reset();
  if (!closed) co_return std::unexpected(fmt::format("the pool could not be closed: {}", to_string(closed.error())));
  co_return std::expected<void, Complaint>{};
}

}  // namespace fairlead::cli
