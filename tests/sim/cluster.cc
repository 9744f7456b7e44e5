#include "cluster.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "block/disk.h"
#include "block/memory.h"

namespace fairlead::sim_test {
namespace {

using sim::SimNode;

Task<Result<void>> attach_volume(Serving& serving, std::string nqn, Volume& volume, Shard& shard) {
  std::shared_ptr<BlockSource>& source = serving.sources.at(volume.nsid - 1);
  if (source == nullptr) {
    FL_CO_TRY(source, open_disk_source(shard, {.path = volume.path}));
  }
  target::NamespaceOptions options;
  options.nsid = volume.nsid;
  options.source = source;
  options.ana_group = volume.ana_group;
  FL_CO_TRY([[maybe_unused]] const uint32_t nsid, co_await serving.target->add_namespace(nqn, options));
  co_return Result<void>{};
}

Task<Result<void>> start(TargetSite& site, Serving& serving) {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < site.node->shard_count(); ++i) shards.push_back(&site.node->shard(i));
  Shard& home = *shards.front();
  target::TargetOptions options;
  options.handshake_timeout_ms = 20'000;
  serving.target = std::make_unique<target::Target>(std::move(shards), options);
  serving.sources.resize(site.volumes.size());
  target::SubsystemOptions subsystem;
  subsystem.nqn = site.nqn;
  FL_CO_TRY_VOID(co_await serving.target->add_subsystem(subsystem));
  serving.attached.resize(site.volumes.size());
  for (const auto& volume : site.volumes) {
    if (!volume->attached) continue;
    FL_CO_TRY_VOID(co_await attach_volume(serving, site.nqn, *volume, home));
    serving.attached[volume->nsid - 1] = true;
  }
  target::SubsystemOptions hostile;
  hostile.nqn = kHostileNqn;
  FL_CO_TRY_VOID(co_await serving.target->add_subsystem(hostile));
  target::NamespaceOptions memory;
  FL_CO_TRY(memory.source, make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 4096}));
  FL_CO_TRY([[maybe_unused]] const uint32_t nsid,
            co_await serving.target->add_namespace(std::string(kHostileNqn), memory));
  target::ListenerOptions listener;
  listener.bind = site.node->address(kPort);
  FL_CO_TRY([[maybe_unused]] const target::Target::Listening listening,
            co_await serving.target->start_listener(listener));
  co_return Result<void>{};
}

Task<void> serve(Cluster& cluster, TargetSite& site) {
  SimNode& node = *site.node;
  const uint64_t boot = node.boots();
  Reactor& reactor = node.shard(0).reactor;
  auto serving = std::make_unique<Serving>(reactor);
  Serving& mine = *serving;
  const Result<void> started = co_await start(site, mine);
  if (!started && !node.stopping(0).is_set()) cluster.fail("a target did not start: " + to_string(started.error()));
  if (started) {
    site.serving = std::move(serving);
    cluster.reconcile_soon(site);
  }
  co_await node.stopping(0).wait();
  if (started) serving = std::move(site.serving);
  co_await mine.changes.close();
  const Result<void> stopped = co_await mine.target->stop();
  const size_t left = mine.target->controller_count();
  mine.target.reset();
  if (left != 0) cluster.fail(fmt::format("{} controllers were left when a target stopped", left));
  cluster.world().mark(stopped ? "target stopped" : "target stopped without a flush", boot);
}

// Makes one difference between what should be and what is smaller. False: there is none.
Task<bool> reconcile_step(Cluster& cluster, TargetSite& site, Serving& serving) {
  for (const auto& volume : site.volumes) {
    const size_t index = volume->nsid - 1;
    if (serving.attached[index] == volume->attached) continue;
    const bool wanted = volume->attached;
    Result<void> done;
    if (wanted) {
      done = co_await attach_volume(serving, site.nqn, *volume, site.node->shard(0));
    } else {
      done = co_await serving.target->remove_namespace(site.nqn, volume->nsid);
    }
    if (!done && !site.node->stopping(0).is_set()) cluster.fail("attach or detach: " + to_string(done.error()));
    serving.attached[index] = wanted;
    co_return true;
  }
  for (size_t i = 0; i < site.ana.size(); ++i) {
    if (serving.ana[i] == site.ana[i]) continue;
    serving.ana[i] = site.ana[i];
    (void)co_await serving.target->set_ana_state(site.nqn, 0, static_cast<uint32_t>(i + 1), serving.ana[i]);
    co_return true;
  }
  co_return false;
}

Task<void> reconcile(Cluster& cluster, TargetSite& site, Serving& serving) {
  while (true) {
    const bool changed = co_await reconcile_step(cluster, site, serving);
    if (!changed || site.node->stopping(0).is_set()) break;
  }
  serving.reconciling = false;
}

Task<void> change_size(Cluster& cluster, TargetSite& site, Serving& serving, Volume& volume) {
  const uint64_t size = volume.device->size_bytes();
  const Result<uint64_t> seen = co_await serving.target->rescan_namespace(site.nqn, volume.nsid);
  if (!seen) co_return;  // detached, or stopping
  if (*seen < size && !site.node->stopping(0).is_set()) cluster.fail("a rescan did not see the new size");
  volume.blocks = std::max(volume.blocks, size / volume.plan.block_bytes);
}

}  // namespace

Cluster::Cluster(sim::SimWorld& world, const Plan& plan) : world_(world), plan_(plan) {
  for (size_t i = 0; i < plan.targets.size(); ++i) add_target(i, plan.targets[i]);
  for (size_t i = 0; i < plan.clients.size(); ++i) {
    client_nodes_.push_back(&world.add_node(fmt::format("10.0.1.{}", i + 1)));
  }
  hostile_node_ = &world.add_node("10.0.2.1");
}

Cluster::~Cluster() = default;

void Cluster::add_target(size_t index, const TargetPlan& plan) {
  targets_.push_back(std::make_unique<TargetSite>());
  TargetSite& site = *targets_.back();
  site.index = index;
  site.nqn = fmt::format("nqn.2026-01.io.fairlead:target{}", index);
  sim::SimNodeOptions options;
  options.shards = plan.shards;
  site.node = &world_.add_node(fmt::format("10.0.0.{}", index + 1), options);
  for (const VolumePlan& each : plan.volumes) {
    site.volumes.push_back(std::make_unique<Volume>());
    Volume& volume = *site.volumes.back();
    volume.index = static_cast<uint32_t>(index * 16 + site.volumes.size());
    volume.nsid = static_cast<uint32_t>(site.volumes.size());
    volume.path = fmt::format("/disk{}", volume.nsid);
    volume.plan = each;
    volume.blocks = each.blocks;
    volume.ana_group = 1 + volume.nsid % 2;
    volume.checker = std::make_unique<Checker>(volume.index, each.block_bytes, each.blocks);
    sim::SimDiskOptions disk;
    disk.logical_block = disk.physical_block = each.block_bytes;
    disk.discard_granularity = each.can_discard ? 4096 : 0;
    disk.write_zeroes_supported = each.can_write_zeroes;
    disk.cache = each.volatile_cache ? sim::Cache::kVolatile : sim::Cache::kNone;
    disk.discard_reads = each.discard_reads;
    volume.device = &world_.create_disk(*site.node, volume.path, each.size_bytes(), disk);
  }
  site.node->run_at_boot([this, &site](SimNode& node) { world_.spawn(node, 0, serve(*this, site)); });
}

void Cluster::fail(std::string what) {
  if (!failure_.empty()) return;
  world_.mark("FAILURE " + what);
  failure_ = std::move(what);
}

void Cluster::crash(TargetSite& site, sim::CrashKind kind) {
  // What the program does to its end has no effect: of this the checkers must know nothing.
  ++site.epoch;
  for (const auto& volume : site.volumes) {
    volume->checker->target_died(kind == sim::CrashKind::kPowerLost);
    if (kind == sim::CrashKind::kPowerLost) volume->counted.clear();
  }
  world_.crash(*site.node, kind);
}

void Cluster::restart(TargetSite& site) {
  // At boot the size of a disk is seen anyhow.
  for (const auto& volume : site.volumes) {
    if (volume->attached) volume->blocks = volume->checker->blocks();
  }
  world_.restart(*site.node);
}

bool Cluster::all_serving() const {
  for (const auto& site : targets_) {
    if (site->serving == nullptr) return false;
  }
  return true;
}

bool Cluster::is_quiet() const {
  if (world_.network().connection_count() != 0) return false;
  for (const auto& site : targets_) {
    if (site->serving == nullptr || site->serving->changes.running() != 0) return false;
    if (site->serving->target->controller_count() != 0) return false;
    for (const auto& volume : site->volumes) {
      if (volume->device->in_flight() != 0) return false;
    }
  }
  return true;
}

void Cluster::settled() {
  for (const auto& site : targets_) {
    for (const auto& volume : site->volumes) volume->checker->settled();
  }
}

void Cluster::reconcile_soon(TargetSite& site) {
  if (site.serving == nullptr || std::exchange(site.serving->reconciling, true)) return;
  site.serving->changes.spawn(reconcile(*this, site, *site.serving));
}

void Cluster::detach(TargetSite& site, Volume& volume) {
  volume.attached = false;
  reconcile_soon(site);
}

void Cluster::attach(TargetSite& site, Volume& volume) {
  volume.attached = true;
  reconcile_soon(site);
}

void Cluster::grow(TargetSite& site, Volume& volume) {
  if (site.serving == nullptr || !volume.attached) return;
  const uint64_t blocks = volume.checker->blocks() + 1 + world_.random().below(64);
  volume.checker->grow(blocks);
  volume.device->resize(blocks * volume.plan.block_bytes);
  site.serving->changes.spawn(change_size(*this, site, *site.serving, volume));
}

void Cluster::set_ana(TargetSite& site, uint32_t group, target::AnaState state) {
  site.ana.at(group - 1) = state;
  reconcile_soon(site);
}

void Cluster::restore(TargetSite& site) {
  for (const auto& volume : site.volumes) {
    volume->device->set_room(~uint64_t{0});
    attach(site, *volume);
  }
  for (const uint32_t group : {1U, 2U}) set_ana(site, group, target::AnaState::kOptimized);
}

}  // namespace fairlead::sim_test
