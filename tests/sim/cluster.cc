#include "cluster.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "block/disk.h"
#include "block/memory.h"

namespace fairlead::sim_test {
namespace {

using sim::SimNode;

Task<Result<void>> attach_volume(Serving& serving, target::Target& target, std::string nqn, Volume& volume,
                                 Shard& shard) {
  std::shared_ptr<BlockSource>& source = serving.sources.at(volume.nsid - 1);
  if (source == nullptr) {
    FL_CO_TRY(source, open_disk_source(shard, {.path = volume.path}));
  }
  target::NamespaceOptions options;
  options.nsid = volume.nsid;
  options.source = source;
  options.ana_group = volume.ana_group;
  FL_CO_TRY([[maybe_unused]] const uint32_t nsid, co_await target.add_namespace(nqn, options));
  co_return Result<void>{};
}

Task<Result<void>> add_for_hostile(target::Target& target) {
  target::SubsystemOptions hostile;
  hostile.nqn = kHostileNqn;
  FL_CO_TRY_VOID(co_await target.add_subsystem(hostile));
  target::NamespaceOptions memory;
  FL_CO_TRY(memory.source, make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 4096}));
  FL_CO_TRY([[maybe_unused]] const uint32_t nsid, co_await target.add_namespace(std::string(kHostileNqn), memory));
  co_return Result<void>{};
}

Task<Result<void>> start_engine(TargetSite& site, const TargetPlan& plan, Serving& serving, size_t index) {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < site.node->shard_count(); ++i) shards.push_back(&site.node->shard(i));
  Shard& home = *shards.front();
  target::TargetOptions options;
  options.handshake_timeout_ms = 20'000;
  options.transfer_shift = plan.transfer_shift;
  options.in_capsule_bytes = plan.in_capsule_bytes;
  options.queue_entries_max = plan.queue_entries_max;
  options.controller_id_min = static_cast<uint16_t>(1 + 10'000 * index);
  options.controller_id_max = static_cast<uint16_t>(options.controller_id_min + 9'999);
  Engine& engine = serving.engines.at(index);
  engine.target = std::make_unique<target::Target>(std::move(shards), options);
  engine.ana.clear();
  target::SubsystemOptions subsystem;
  subsystem.nqn = site.nqn;
  FL_CO_TRY_VOID(co_await engine.target->add_subsystem(subsystem));
  engine.attached.assign(site.volumes.size(), false);
  engine.sizes.assign(site.volumes.size(), 0);
  for (const auto& volume : site.volumes) {
    if (!volume->is_at(index)) continue;
    FL_CO_TRY_VOID(co_await attach_volume(serving, *engine.target, site.nqn, *volume, home));
    engine.attached[volume->nsid - 1] = true;
  }
  FL_CO_TRY_VOID(co_await add_for_hostile(*engine.target));
  for (const SitePath& path : site.paths) {
    if (path.engine != index) continue;
    target::ListenerOptions listener;
    listener.bind = path.address;
    FL_CO_TRY([[maybe_unused]] const target::Target::Listening listening,
              co_await engine.target->start_listener(listener));
    engine.ana.push_back(kAllOptimized);
  }
  co_return Result<void>{};
}

Task<Result<void>> start(Cluster& cluster, TargetSite& site, Serving& serving) {
  const TargetPlan& plan = cluster.plan().targets[site.index];
  serving.sources.resize(site.volumes.size());
  serving.engines.resize(plan.engines);
  for (size_t i = 0; i < plan.engines; ++i) FL_CO_TRY_VOID(co_await start_engine(site, plan, serving, i));
  co_return Result<void>{};
}

Task<Result<void>> stop_engine(Cluster& cluster, Engine& engine) {
  if (engine.target == nullptr) co_return Result<void>{};
  const Result<void> stopped = co_await engine.target->stop();
  const size_t left = engine.target->controller_count();
  engine.target.reset();
  if (left != 0) cluster.fail(fmt::format("{} controllers were left when a target stopped", left));
  co_return stopped;
}

Task<void> serve(Cluster& cluster, TargetSite& site) {
  SimNode& node = *site.node;
  const uint64_t boot = node.boots();
  Reactor& reactor = node.shard(0).reactor;
  auto serving = std::make_unique<Serving>(reactor);
  Serving& mine = *serving;
  const Result<void> started = co_await start(cluster, site, mine);
  if (!started && !node.stopping(0).is_set()) cluster.fail("a target did not start: " + to_string(started.error()));
  if (started) {
    site.serving = std::move(serving);
    cluster.reconcile_soon(site);
  }
  co_await node.stopping(0).wait();
  if (started) serving = std::move(site.serving);
  co_await mine.changes.close();
  Result<void> stopped;
  for (Engine& engine : mine.engines) {
    const Result<void> each = co_await stop_engine(cluster, engine);
    if (!each) stopped = each;
  }
  cluster.world().mark(stopped ? "target stopped" : "target stopped without a flush", boot);
}

Task<void> see_size(Cluster& cluster, TargetSite& site, target::Target& target, Volume& volume) {
  const uint64_t size = volume.device->size_bytes();
  const Result<uint64_t> seen = co_await target.rescan_namespace(site.nqn, volume.nsid);
  if (!seen) co_return;  // stopping
  if (*seen < size && !site.node->stopping(0).is_set()) cluster.fail("a rescan did not see the new size");
  volume.blocks = std::max(volume.blocks, size / volume.plan.block_bytes);
}

// Makes one difference between what should be and what is smaller. False: there is none.
Task<bool> reconcile_step(Cluster& cluster, TargetSite& site, Serving& serving, size_t index) {
  Engine& engine = serving.engines[index];
  if (site.engine_wanted[index] != (engine.target != nullptr)) {
    if (engine.target != nullptr) {
      (void)co_await stop_engine(cluster, engine);
      co_return true;
    }
    const Result<void> started = co_await start_engine(site, cluster.plan().targets[site.index], serving, index);
    if (!started && !site.node->stopping(0).is_set()) cluster.fail("an engine: " + to_string(started.error()));
    co_return true;
  }
  if (engine.target == nullptr) co_return false;
  for (const auto& volume : site.volumes) {
    const size_t at = volume->nsid - 1;
    const bool wanted = volume->is_at(index);
    if (engine.attached[at] == wanted) continue;
    Result<void> done;
    if (wanted) {
      done = co_await attach_volume(serving, *engine.target, site.nqn, *volume, site.node->shard(0));
    } else {
      done = co_await engine.target->remove_namespace(site.nqn, volume->nsid);
    }
    if (!done && !site.node->stopping(0).is_set()) cluster.fail("attach or detach: " + to_string(done.error()));
    engine.attached[at] = wanted;
    engine.sizes[at] = 0;
    co_return true;
  }
  for (const auto& volume : site.volumes) {
    const uint64_t size = volume->device->size_bytes();
    uint64_t& told = engine.sizes[volume->nsid - 1];
    if (!engine.attached[volume->nsid - 1] || told == size) continue;
    told = size;
    co_await see_size(cluster, site, *engine.target, *volume);
    co_return true;
  }
  for (const SitePath& path : site.paths) {
    if (path.engine != index) continue;
    AnaStates& told = engine.ana.at(path.port);
    for (size_t i = 0; i < told.size(); ++i) {
      if (told[i] == path.ana[i]) continue;
      told[i] = path.ana[i];
      (void)co_await engine.target->set_ana_state(site.nqn, path.port, static_cast<uint32_t>(i + 1), told[i]);
      co_return true;
    }
  }
  co_return false;
}

Task<void> reconcile(Cluster& cluster, TargetSite& site, Serving& serving) {
  bool changed = true;
  while (changed && !site.node->stopping(0).is_set()) {
    changed = false;
    for (size_t i = 0; i < serving.engines.size(); ++i) {
      if (co_await reconcile_step(cluster, site, serving, i)) changed = true;
    }
  }
  serving.reconciling = false;
}

}  // namespace

Cluster::Cluster(sim::SimWorld& world, const Plan& plan) : world_(world), plan_(plan) {
  for (size_t i = 0; i < plan.targets.size(); ++i) add_target(i, plan.targets[i]);
  for (size_t i = 0; i < plan.clients.size(); ++i) {
    client_nodes_.push_back(&world.add_node(fmt::format("10.0.1.{}", i + 1)));
  }
  for (size_t i = 0; i < plan.hosts.size(); ++i) {
    sim::SimNodeOptions options;
    options.shards = plan.hosts[i].shards;
    host_nodes_.push_back(&world.add_node(fmt::format("10.0.3.{}", i + 1), options));
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
  site.engine_wanted.assign(plan.engines, true);
  for (size_t engine = 0; engine < plan.engines; ++engine) {
    for (size_t port = 0; port < plan.listeners; ++port) {
      const SocketAddress address = site.node->address(static_cast<uint16_t>(kPort + 10 * engine + port));
      site.paths.push_back({engine, static_cast<target::PortIndex>(port), address, kAllOptimized});
    }
  }
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
    for (const Engine& engine : site->serving->engines) {
      if (engine.target != nullptr && engine.target->controller_count() != 0) return false;
    }
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
  reconcile_soon(site);
}

void Cluster::set_ana(TargetSite& site, uint32_t group, target::AnaState state, size_t path) {
  site.paths.at(path).ana.at(group - 1) = state;
  reconcile_soon(site);
}

void Cluster::restore(TargetSite& site) {
  for (const auto& volume : site.volumes) {
    volume->device->set_room(~uint64_t{0});
    volume->hidden = 0;
    volume->attached = true;
  }
  for (SitePath& path : site.paths) path.ana = kAllOptimized;
  site.engine_wanted.assign(site.engine_wanted.size(), true);
  reconcile_soon(site);
}

}  // namespace fairlead::sim_test
