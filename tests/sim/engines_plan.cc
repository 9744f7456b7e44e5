#include "engines_plan.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <numeric>

#include "base/units.h"
#include "mirror/types.h"
#include "pool/format.h"

namespace fairlead::sim_test {
namespace {

using sim::Prng;
using std::chrono::milliseconds;
using std::chrono::seconds;

Duration draw_ms(Prng& random, uint64_t low, uint64_t high) { return milliseconds(random.skewed(low, high)); }

// Where a copy of an extent takes longer than a replica may be silent nothing ever heals.
void make_bearable_for_engines(sim::SimSettings& settings) {
  make_bearable(settings);
  sim::NetworkSettings& network = settings.network;
  if (network.chop == sim::Chop::kSingleBytes) network.chop = sim::Chop::kRandom;
  network.latency_max = std::min<Duration>(network.latency_max, milliseconds(2));
  network.latency_min = std::min(network.latency_min, network.latency_max);
  network.window_min = std::max<uint32_t>(network.window_min, 64 * kKiB);
  network.window_max = std::max(network.window_max, network.window_min);
  network.bytes_per_second = std::max<uint64_t>(network.bytes_per_second, 64 * kMiB);
  network.reset_ppm = std::min(network.reset_ppm, 100U);
  settings.disk.latency_max = std::min<Duration>(settings.disk.latency_max, milliseconds(1));
  settings.disk.latency_min = std::min(settings.disk.latency_min, settings.disk.latency_max);
}

EnginePlan draw_engine(Prng& random) {
  EnginePlan engine;
  engine.shards = random.between(1, 2);
  const size_t disks = random.between(1, 2);
  for (size_t i = 0; i < disks; ++i) {
    sim::SimDiskOptions disk = sim::SimDiskOptions::drawn(random);
    disk.logical_block = i == 0 ? disk.logical_block : engine.disks.front().logical_block;
    disk.physical_block = std::max(disk.physical_block, disk.logical_block);
    engine.disks.push_back(disk);
  }
  engine.listeners = random.one_in(3) ? 2 : 1;
  engine.target.transfer_shift = static_cast<uint8_t>(random.between(2, 8));
  engine.target.in_capsule_bytes = random.coin() ? 128 * kKiB : static_cast<uint32_t>(random.below(3) * 4 * kKiB);
  engine.target.queue_entries_max = static_cast<uint16_t>(random.skewed(64, 1024));
  return engine;
}

EngineVolumePlan draw_engine_volume(Prng& random, size_t engines, const Uuid& id) {
  EngineVolumePlan volume;
  std::vector<size_t> all(engines);
  std::iota(all.begin(), all.end(), 0);
  const size_t replicas = random.one_in(8) ? 1 : random.between(2, std::min<size_t>(4, engines));
  for (size_t i = 0; i < replicas; ++i) {
    const size_t at = random.below(all.size());
    volume.engines.push_back(all[at]);
    all.erase(all.begin() + static_cast<ptrdiff_t>(at));
  }
  volume.workers = random.skewed(1, 6);
  volume.unit_max = random.skewed(1, 128);
  volume.requests = random.skewed(100, 3000);
  volume.has_host = random.below(3) != 0;
  volume.host_shards = random.between(1, 2);
  mirror::MirrorOptions& options = volume.options;
  options.volume = id;
  options.size_bytes = random.skewed(1, 6) * mirror::kExtentBytes - (random.coin() ? 0 : 3 * kEngineUnit);
  options.logical_block = kEngineUnit;
  options.checkpoint_interval = draw_ms(random, 20, 10'000);
  options.stall_limit = draw_ms(random, 500, 5'000);
  options.grace = milliseconds(random.below(300));
  options.retry_max = draw_ms(random, 200, 10'000);
  options.renew_delay = draw_ms(random, 10, 6'000);
  options.copies_in_flight = random.between(1, 4);
  volume.blocks = options.size_bytes / kEngineBlock;
  return volume;
}

void draw_host(Prng& random, EnginesPlan& plan) {
  host::SubsystemOptions& host = plan.host;
  host.queue_depth = static_cast<uint16_t>(random.skewed(1, 128));
  host.header_digest = random.coin();
  host.data_digest = random.coin();
  host.keep_alive = draw_ms(random, 300, 5'000);
  host.connect_timeout = draw_ms(random, 300, 3'000);
  host.admin_timeout = draw_ms(random, 2'000, 10'000);
  host.command_timeout = draw_ms(random, 1'000, 10'000);
  host.abort_timeout = draw_ms(random, 200, 2'000);
  host.reconnect_min = draw_ms(random, 10, 200);
  host.reconnect_max = host.reconnect_min + draw_ms(random, 1, 3'000);
  plan.call_limit = draw_ms(random, 1'500, 6'000);
  plan.witness_delay_max = Duration(static_cast<int64_t>(random.skewed(1'000, 100'000'000)));
  plan.witness_limit = draw_ms(random, 300, 3'000);
}

// Hosts wait for ever for a path; half of them do for a command too.
void draw_user(Prng& random, EnginesPlan& plan) {
  host::SubsystemOptions& user = plan.user;
  user.queue_depth = static_cast<uint16_t>(random.skewed(1, 32));
  user.header_digest = random.coin();
  user.data_digest = random.coin();
  user.keep_alive = draw_ms(random, 300, 5'000);
  user.connect_timeout = draw_ms(random, 300, 3'000);
  user.admin_timeout = draw_ms(random, 2'000, 10'000);
  user.command_timeout = random.coin() ? kPatience : draw_ms(random, 1'000, 10'000);
  user.abort_timeout = draw_ms(random, 200, 2'000);
  user.reconnect_min = draw_ms(random, 10, 200);
  user.reconnect_max = user.reconnect_min + draw_ms(random, 1, 3'000);
  user.no_path_timeout = kPatience;
  // A kernel waits for nothing that a connection left behind. Nobody can then help what waits unread on a shard that
  // stands still, when others of the same target go on: it must not be given up for that alone.
  user.quiesce = Duration{};
  if (random.coin()) {
    user.keep_alive += kEngineStallMax + seconds(1);
    user.admin_timeout += kEngineStallMax;
    user.command_timeout = kPatience;
    return;
  }
  // It ends with its keep-alive timer; a shard that stalls, or a slow disk, is later still.
  user.quiesce = 2 * user.keep_alive + 2 * kEngineStallMax + 6 * plan.settings.disk.slow_max + milliseconds(100);
}

}  // namespace

EnginesPlan draw_engines_plan(uint64_t seed) {
  Prng random(sim::mix_hash(0x656e67696e6573U, seed));
  EnginesPlan plan;
  plan.settings = sim::SimSettings::drawn(seed);
  make_bearable_for_engines(plan.settings);
  const size_t engines = random.between(3, 7);
  for (size_t i = 0; i < engines; ++i) plan.engines.push_back(draw_engine(random));
  const size_t volumes = random.between(1, 3);
  uint64_t bytes = 0;
  for (size_t i = 0; i < volumes; ++i) {
    plan.volumes.push_back(draw_engine_volume(random, engines, uuid_from_random(seed, 1 + i)));
    bytes += plan.volumes.back().options.size_bytes;
  }
  plan.pool_extent_bytes = static_cast<uint32_t>(256 * kKiB) << random.below(3);
  plan.disk_bytes = align_up(32 * kMiB + 2 * bytes, uint64_t{1 * kMiB});
  plan.cache_bytes = random.coin() ? 64 * kKiB : 0;
  plan.sync_interval = Duration(static_cast<int64_t>(random.skewed(1'000'000, 1'000'000'000)));
  draw_host(random, plan);
  draw_user(random, plan);
  if (random.coin()) plan.disk.slow_ppm = static_cast<uint32_t>(random.skewed(100, 3'000));
  if (random.one_in(3)) plan.disk.transient_read_error_ppm = static_cast<uint32_t>(random.skewed(100, 5'000));
  if (random.coin()) {
    plan.sick = random.below(engines);
    plan.sickness = plan.disk;
    if (random.coin()) plan.sickness.write_error_ppm = static_cast<uint32_t>(random.skewed(5'000, 500'000));
    if (random.coin()) plan.sickness.flush_error_ppm = static_cast<uint32_t>(random.skewed(20'000, 500'000));
    plan.sickness.transient_read_error_ppm = static_cast<uint32_t>(random.skewed(100, 20'000));
  }
  plan.trouble_every = Duration(static_cast<int64_t>(random.skewed(60'000'000, 6'000'000'000)));
  plan.troubles = random.skewed(6, 50);
  // Every other seed has no snapshots: each bounds what a take-over compares, and so hides what that may do wrong.
  if (seed % 2 == 1) plan.kinds_of_trouble = 28;
  return plan;
}

std::string to_string(const EnginesPlan& plan) {
  std::string text = fmt::format(
      "extent={} cache={} sync_us={} depth={} digests={}{} keep_alive={} connect={} admin={} command={}+{} "
      "reconnect={}..{} call={} witness_us={} witness_limit={} slow_ppm={} read_ppm={} troubles={} every_us={} "
      "user_depth={} user_keep_alive={} user_command={} quiesce={} sick={}/w{}/f{} engines=",
      plan.pool_extent_bytes, plan.cache_bytes, plan.sync_interval.count() / 1000, plan.host.queue_depth,
      int{plan.host.header_digest}, int{plan.host.data_digest}, plan.host.keep_alive.count() / 1'000'000,
      plan.host.connect_timeout.count() / 1'000'000, plan.host.admin_timeout.count() / 1'000'000,
      plan.host.command_timeout.count() / 1'000'000, plan.host.abort_timeout.count() / 1'000'000,
      plan.host.reconnect_min.count() / 1'000'000, plan.host.reconnect_max.count() / 1'000'000,
      plan.call_limit.count() / 1'000'000, plan.witness_delay_max.count() / 1000,
      plan.witness_limit.count() / 1'000'000, plan.disk.slow_ppm, plan.disk.transient_read_error_ppm, plan.troubles,
      plan.trouble_every.count() / 1000, plan.user.queue_depth, plan.user.keep_alive.count() / 1'000'000,
      plan.user.command_timeout.count() / 1'000'000, plan.user.quiesce->count() / 1'000'000,
      plan.sick ? static_cast<int>(*plan.sick) : -1, plan.sickness.write_error_ppm, plan.sickness.flush_error_ppm);
  for (const EnginePlan& engine : plan.engines) {
    text +=
        fmt::format("{}/{}x{}{}/mdts{}/icd{}/qe{},", engine.shards, engine.disks.size(),
                    engine.disks.front().logical_block, engine.disks.front().cache == sim::Cache::kVolatile ? "v" : "",
                    engine.target.transfer_shift, engine.target.in_capsule_bytes, engine.target.queue_entries_max);
  }
  text += " volumes=";
  for (const EngineVolumePlan& volume : plan.volumes) {
    const mirror::MirrorOptions& options = volume.options;
    text += fmt::format("[{}]/{}/{}KiB/{}w/{}r/stall{}/checkpoint{}/retry{}/renew{},", fmt::join(volume.engines, " "),
                        volume.has_host ? "host" : "direct", options.size_bytes / kKiB, volume.workers, volume.requests,
                        options.stall_limit.count() / 1'000'000, options.checkpoint_interval.count() / 1'000'000,
                        options.retry_max.count() / 1'000'000, options.renew_delay.count() / 1'000'000);
  }
  return text;
}

}  // namespace fairlead::sim_test
