#include "sim/settings.h"

#include <fmt/format.h>

#include "sim/prng.h"

namespace fairlead::sim {
namespace {

NetworkSettings draw_network(Prng& random) {
  NetworkSettings network;
  network.latency_min = Duration(static_cast<int64_t>(random.skewed(1'000, 1'000'000)));
  network.latency_max = network.latency_min + Duration(static_cast<int64_t>(random.skewed(1'000, 5'000'000)));
  if (random.coin()) {
    network.spike_ppm = static_cast<uint32_t>(random.skewed(10, 10'000));
    network.spike_max = Duration(static_cast<int64_t>(random.skewed(1'000'000, 500'000'000)));
  }
  network.bytes_per_second = random.skewed(4 * kMiB, 8 * kGiB);
  network.window_min = static_cast<uint32_t>(random.skewed(1, 64 * kKiB));
  network.window_max = static_cast<uint32_t>(random.skewed(network.window_min, 4 * kMiB));
  const uint64_t chop = random.below(8);
  network.chop = chop == 0 ? Chop::kSingleBytes : chop < 6 ? Chop::kRandom : Chop::kWhole;
  if (random.coin()) network.reset_ppm = static_cast<uint32_t>(random.skewed(1, 1'000));
  if (random.one_in(4)) network.accept_exhausted_ppm = 100'000;
  return network;
}

DiskSettings draw_disk(Prng& random) {
  DiskSettings disk;
  disk.latency_min = Duration(static_cast<int64_t>(random.skewed(1'000, 200'000)));
  disk.latency_max = disk.latency_min + Duration(static_cast<int64_t>(random.skewed(1'000, 10'000'000)));
  disk.slow_max = Duration(static_cast<int64_t>(random.skewed(100'000'000, 5'000'000'000)));
  disk.queue_depth = static_cast<uint32_t>(random.skewed(1, 1024));
  if (random.coin()) disk.split_ppm = static_cast<uint32_t>(random.skewed(1'000, 500'000));
  return disk;
}

}  // namespace

SimSettings SimSettings::drawn(uint64_t seed) {
  Prng random(mix_hash(0x7365747469'6e6773U, seed));
  SimSettings settings;
  const uint64_t order = random.below(8);
  settings.order = order == 0 ? Order::kFifo : order < 3 ? Order::kMostlyFifo : Order::kRandom;
  settings.turn_cost_ns_max = static_cast<uint32_t>(random.skewed(100, 5'000));
  settings.mailbox_capacity = 2U << random.below(10);
  settings.buffers_shared_max = random.coin() ? 0 : random.skewed(4 * kKiB, 64 * kMiB);
  if (random.coin()) settings.clock_drift_ppm_max = 200;
  settings.network = draw_network(random);
  settings.disk = draw_disk(random);
  for (uint32_t& ppm : settings.fault_point_ppm) {
    if (random.coin()) ppm = static_cast<uint32_t>(random.skewed(100, 100'000));
  }
  return settings;
}

std::string to_string(const SimSettings& settings) {
  static constexpr std::array<std::string_view, 3> kOrders = {"fifo", "mostly_fifo", "random"};
  static constexpr std::array<std::string_view, 3> kChops = {"whole", "random", "single_bytes"};
  const NetworkSettings& network = settings.network;
  const DiskSettings& disk = settings.disk;
  std::string text = fmt::format(
      "order={} turn_ns={} mailbox={} buffers={} drift_ppm={} net_latency_us={}..{} net_spike_ppm={} net_bytes_s={} "
      "window={}..{} chop={} reset_ppm={} disk_latency_us={}..{} queue_depth={} split_ppm={} fault_points=",
      kOrders[static_cast<size_t>(settings.order)], settings.turn_cost_ns_max, settings.mailbox_capacity,
      settings.buffers_shared_max, settings.clock_drift_ppm_max, network.latency_min.count() / 1000,
      network.latency_max.count() / 1000, network.spike_ppm, network.bytes_per_second, network.window_min,
      network.window_max, kChops[static_cast<size_t>(network.chop)], network.reset_ppm, disk.latency_min.count() / 1000,
      disk.latency_max.count() / 1000, disk.queue_depth, disk.split_ppm);
  for (int point = 0; point < kFaultPointCount; ++point) {
    const uint32_t ppm = settings.fault_point_ppm[static_cast<size_t>(point)];
    if (ppm != 0) text += fmt::format("{}:{},", fault_point_name(static_cast<FaultPoint>(point)), ppm);
  }
  return text;
}

}  // namespace fairlead::sim
