// What the runs of hosts of src/host are made of.
#include <algorithm>

#include "base/units.h"
#include "plan.h"

namespace fairlead::sim_test {
namespace {

using sim::Prng;

uint32_t milliseconds_of(Duration span) {
  return static_cast<uint32_t>(std::chrono::ceil<std::chrono::milliseconds>(span).count());
}

// How long the target may still execute what a connection brought that its host has given up: its keep-alive timer
// looks for traffic twice (it is traffic based), may be late by a stall, and what the disk has begun takes its time.
uint32_t honest_quiesce_ms(const HostPlan& host, const Plan& plan) {
  const uint32_t keep_alive = (host.keep_alive_ms + 99) / 100 * 100;
  const sim::DiskSettings& disk = plan.settings.disk;
  const bool is_slow = plan.chaos.disk.slow_ppm > 0;
  const uint32_t disk_ms = milliseconds_of(disk.latency_max) + (is_slow ? milliseconds_of(disk.slow_max) : 0);
  return 2 * keep_alive + 2 * kStallMaxMs + 6 * disk_ms + 100;
}

HostPlan draw_host(Prng& random, const Plan& plan) {
  const TargetPlan& target = plan.targets.front();
  HostPlan host;
  host.shards = random.between(1, 3);
  host.workers = static_cast<uint16_t>(random.skewed(1, 6));
  host.queue_depth = static_cast<uint16_t>(random.skewed(1, 64));
  host.header_digest = random.coin();
  host.data_digest = random.coin();
  host.keep_alive_ms = static_cast<uint32_t>(random.skewed(200, 5'000));
  host.connect_timeout_ms = static_cast<uint32_t>(random.skewed(300, 4'000));
  host.admin_timeout_ms = static_cast<uint32_t>(random.skewed(1'000, 8'000));
  host.command_timeout_ms = static_cast<uint32_t>(random.skewed(200, 10'000));
  host.abort_timeout_ms = static_cast<uint32_t>(random.skewed(100, 2'000));
  host.reconnect_min_ms = static_cast<uint32_t>(random.skewed(1, 200));
  host.reconnect_max_ms = host.reconnect_min_ms + static_cast<uint32_t>(random.skewed(1, 2'000));
  host.no_path_timeout_ms = random.coin() ? kPatientMs : static_cast<uint32_t>(random.skewed(20, 3'000));
  // Where a few bytes are a round trip, and now and then a late one, shorter limits would let nobody in.
  const bool is_slow = plan.settings.network.window_min < 16 * kKiB;
  if (is_slow || plan.chaos.actions == 0) {
    host.keep_alive_ms = std::max(host.keep_alive_ms, 3'000U);
    host.connect_timeout_ms = std::max(host.connect_timeout_ms, 6'000U);
    host.admin_timeout_ms = std::max(host.admin_timeout_ms, 6'000U);
    host.command_timeout_ms = std::max(host.command_timeout_ms, 3'000U);
  }
  const size_t paths = target.engines * target.listeners;
  for (size_t path = 0; path < paths; ++path) {
    if (host.paths.empty() ? path + 1 == paths || random.coin() : !random.one_in(4)) host.paths.push_back(path);
  }
  host.quiesce_ms = honest_quiesce_ms(host, plan);
  return host;
}

TargetPlan draw_target(Prng& random) {
  TargetPlan target;
  target.shards = random.between(1, 3);
  target.engines = random.one_in(3) ? 2 : 1;
  target.listeners = random.between(1, target.engines == 2 ? 2 : 3);
  target.transfer_shift = static_cast<uint8_t>(random.coin() ? 8 : random.between(1, 3));
  target.in_capsule_bytes = random.one_in(4) ? 0 : static_cast<uint32_t>(512 << random.below(6));
  target.queue_entries_max = static_cast<uint16_t>(random.coin() ? 1024 : 32 + random.below(8));
  const uint64_t volumes = random.between(1, 2);
  for (uint64_t i = 0; i < volumes; ++i) {
    target.volumes.push_back(draw_volume(random));
    // Few enough that requests meet what was there before.
    target.volumes.back().blocks = random.skewed(24, 160);
  }
  return target;
}

ChaosPlan draw_host_chaos(Prng& random) {
  ChaosPlan chaos;
  if (random.one_in(12)) {
    chaos.actions = 0;
    return chaos;
  }
  chaos.actions = static_cast<uint32_t>(random.between(3, 10));
  chaos.links = random.below(4) != 0;
  chaos.partitions = random.coin();
  chaos.resets = random.coin();
  chaos.power_loss = random.one_in(3);
  chaos.kills = random.one_in(3);
  chaos.restarts = random.one_in(3);
  chaos.engines = random.one_in(3);
  chaos.namespace_changes = random.one_in(3);
  chaos.ana_changes = random.coin();
  chaos.resizes = random.one_in(3);
  chaos.stalls = random.one_in(3);
  chaos.host_restarts = random.one_in(3);
  chaos.disk = draw_rates(random);
  return chaos;
}

void make_small(Plan& plan, uint32_t blocks_max, uint32_t commands_max) {
  plan.blocks_max = std::min(plan.blocks_max, blocks_max);
  plan.blocks_large = std::min(plan.blocks_large, 2 * blocks_max);
  plan.commands = std::min(plan.commands, commands_max);
  plan.rounds = 1;
  for (HostPlan& host : plan.hosts) {
    host.shards = std::min<size_t>(host.shards, 2);
    host.workers = std::min<uint16_t>(host.workers, 2);
  }
  for (VolumePlan& volume : plan.targets.front().volumes) {
    volume.block_bytes = 512;
    volume.blocks = std::min<uint64_t>(volume.blocks, 32);
  }
}

// Writes that a target takes its time for, and connections that are lost meanwhile.
void make_late(Plan& plan) {
  plan.settings.disk.slow_max = std::chrono::milliseconds(1'000);
  plan.chaos = ChaosPlan{};
  plan.chaos.actions = 12;
  plan.chaos.links = plan.chaos.resets = true;
  plan.chaos.disk.slow_ppm = 100'000;
  for (VolumePlan& volume : plan.targets.front().volumes) volume.blocks = 24;
}

}  // namespace

Plan draw_host_plan(uint64_t seed, Scenario scenario) {
  Prng random(sim::mix_hash(0x686f7374U, seed));
  Plan plan;
  plan.settings = sim::SimSettings::drawn(sim::mix_hash(0x68736574U, seed));
  make_bearable(plan.settings);
  plan.settings.disk.slow_max = std::min<Duration>(plan.settings.disk.slow_max, std::chrono::milliseconds(1'000));
  plan.targets.push_back(draw_target(random));
  plan.chaos = draw_host_chaos(random);
  const bool is_late = scenario == Scenario::kHasty || random.one_in(5);
  if (is_late) make_late(plan);
  if (plan.chaos.actions == 0) {
    plan.settings.network.reset_ppm = 0;
    plan.settings.network.accept_exhausted_ppm = 0;
  }
  const uint64_t hosts = random.skewed(1, 3);
  for (uint64_t i = 0; i < hosts; ++i) plan.hosts.push_back(draw_host(random, plan));
  plan.rounds = static_cast<uint32_t>(random.between(1, 2));
  plan.commands = static_cast<uint32_t>(random.skewed(40, 600));
  if (is_late) plan.commands = std::max(plan.commands, 200U);
  plan.blocks_max = static_cast<uint32_t>(random.skewed(1, 12));
  if (plan.settings.network.chop == sim::Chop::kSingleBytes) make_small(plan, 1, 40);
  if (plan.settings.network.window_min < 4 * kKiB) make_small(plan, 4, 100);
  if (scenario == Scenario::kHasty) {
    for (HostPlan& host : plan.hosts) host.quiesce_ms = 0;
  }
  return plan;
}

}  // namespace fairlead::sim_test
