#include "plan.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/units.h"
#include "sim/prng.h"

namespace fairlead::sim_test {

using sim::Prng;

void make_bearable(sim::SimSettings& settings) {
  sim::NetworkSettings& network = settings.network;
  const bool single_bytes = network.chop == sim::Chop::kSingleBytes;
  // A window's worth of bytes takes a round trip.
  if (network.window_min < 16 * kKiB) {
    network.latency_min = std::min(network.latency_min, Duration(5'000));
    network.latency_max = std::min(network.latency_max, Duration(50'000));
  }
  network.window_min = std::max<uint32_t>(network.window_min, single_bytes ? 512 : 128);
  network.window_max = std::max(network.window_max, network.window_min);
  if (single_bytes) settings.turn_cost_ns_max = std::min(settings.turn_cost_ns_max, 500U);
  settings.disk.slow_max = std::min<Duration>(settings.disk.slow_max, std::chrono::seconds(2));
}

VolumePlan draw_volume(Prng& random) {
  VolumePlan volume;
  volume.block_bytes = random.coin() ? 512 : 4096;
  volume.blocks = random.skewed(8, 256);
  volume.volatile_cache = !random.one_in(4);
  volume.discard_reads = static_cast<sim::DiscardReads>(random.below(3));
  volume.can_discard = !random.one_in(4);
  volume.can_write_zeroes = !random.one_in(4);
  return volume;
}

sim::DiskRates draw_rates(Prng& random) {
  sim::DiskRates rates;
  const auto rate = [&random](uint64_t high) { return static_cast<uint32_t>(random.skewed(100, high)); };
  if (random.one_in(3)) rates.read_error_ppm = rate(5'000);
  if (random.one_in(3)) rates.transient_read_error_ppm = rate(20'000);
  if (random.one_in(3)) rates.write_error_ppm = rate(20'000);
  if (random.one_in(3)) rates.flush_error_ppm = rate(100'000);
  if (random.coin()) rates.slow_ppm = rate(10'000);
  return rates;
}

namespace {

constexpr std::array<std::string_view, 11> kScenarioNames = {"chaos", "calm",  "power",  "host",    "hasty",  "broken",
                                                             "pool",  "lying", "mirror", "engines", "control"};

ClientPlan draw_client(Prng& random, size_t targets) {
  ClientPlan client;
  client.target = random.below(targets);
  client.queues = static_cast<uint16_t>(random.between(1, 3));
  client.workers = static_cast<uint16_t>(random.skewed(1, 8));
  client.keep_alive_ms = static_cast<uint32_t>(random.skewed(500, 8'000));
  client.patience_ms = static_cast<uint32_t>(random.skewed(1'000, 16'000));
  client.header_digest = random.coin();
  client.data_digest = random.coin();
  client.disable_flow_control = random.coin();
  client.write_cache = !random.one_in(6);
  client.in_capsule_max = random.coin() ? 8192 : random.coin() ? 0 : 4096;
  return client;
}

ChaosPlan draw_chaos(Prng& random, Scenario scenario) {
  ChaosPlan chaos;
  chaos.actions = static_cast<uint32_t>(random.between(3, 10));
  chaos.power_loss = scenario == Scenario::kPower || random.coin();
  chaos.kills = random.coin();
  if (scenario == Scenario::kPower) return chaos;
  chaos.partitions = random.coin();
  chaos.resets = random.coin();
  chaos.restarts = random.one_in(3);
  chaos.client_loss = random.one_in(3);
  chaos.namespace_changes = random.coin();
  chaos.ana_changes = random.coin();
  chaos.resizes = random.coin();
  chaos.no_room = random.one_in(4);
  chaos.disk = draw_rates(random);
  return chaos;
}

// Where each few bytes are a turn of their own there is less to move.
void make_small(Plan& plan, uint32_t blocks_max, uint32_t commands_max) {
  plan.blocks_max = std::min(plan.blocks_max, blocks_max);
  plan.blocks_large = std::min(plan.blocks_large, 2 * blocks_max);
  plan.commands = std::min(plan.commands, commands_max);
  plan.rounds = std::min(plan.rounds, 2U);
  for (ClientPlan& client : plan.clients) {
    client.queues = std::min<uint16_t>(client.queues, 2);
    client.workers = std::min<uint16_t>(client.workers, 2);
  }
  for (TargetPlan& target : plan.targets) {
    for (VolumePlan& volume : target.volumes) {
      volume.block_bytes = 512;
      volume.blocks = std::min<uint64_t>(volume.blocks, 32);
    }
  }
}

void calm_down(Plan& plan) {
  plan.settings.network.reset_ppm = 0;
  plan.settings.network.accept_exhausted_ppm = 0;
  plan.chaos = ChaosPlan{};
  plan.chaos.actions = 0;
  plan.hostile = false;
}

}  // namespace

std::optional<Scenario> parse_scenario(std::string_view name) {
  const auto at = std::ranges::find(kScenarioNames, name);
  if (at == kScenarioNames.end()) return std::nullopt;
  return static_cast<Scenario>(at - kScenarioNames.begin());
}

std::string_view scenario_name(Scenario scenario) { return kScenarioNames[static_cast<size_t>(scenario)]; }

Plan draw_plan(uint64_t seed, Scenario scenario) {
  if (scenario == Scenario::kHost || scenario == Scenario::kHasty) return draw_host_plan(seed, scenario);
  Prng random(sim::mix_hash(0x706c616eU, seed));
  Plan plan;
  plan.settings = sim::SimSettings::drawn(seed);
  make_bearable(plan.settings);
  plan.targets.resize(random.one_in(4) ? 2 : 1);
  for (TargetPlan& target : plan.targets) {
    target.shards = random.between(1, 3);
    const uint64_t volumes = random.between(1, 3);
    for (uint64_t i = 0; i < volumes; ++i) target.volumes.push_back(draw_volume(random));
  }
  const uint64_t clients = random.between(1, 4);
  for (uint64_t i = 0; i < clients; ++i) plan.clients.push_back(draw_client(random, plan.targets.size()));
  plan.chaos = draw_chaos(random, scenario);
  plan.hostile = random.coin();
  plan.rounds = static_cast<uint32_t>(random.between(1, 3));
  plan.commands = static_cast<uint32_t>(random.skewed(8, 64));
  plan.blocks_max = static_cast<uint32_t>(random.skewed(1, 16));
  if (plan.settings.network.chop == sim::Chop::kSingleBytes) make_small(plan, 1, 10);
  if (plan.settings.network.window_min < 4 * kKiB) make_small(plan, 4, 32);
  if (scenario == Scenario::kCalm || scenario == Scenario::kBroken) calm_down(plan);
  if (scenario == Scenario::kBroken) {
    plan.chaos.disk.lost_write_ppm = 50'000;
    plan.commands = 64;
  }
  return plan;
}

namespace {

std::string to_string(const HostPlan& host) {
  return fmt::format(
      " host={}x{} paths={} depth={} digests={}{} keep_alive={} connect={} admin={} command={}+{} reconnect={}..{} "
      "no_path={} quiesce={}",
      host.shards, host.workers, fmt::join(host.paths, ","), host.queue_depth, int{host.header_digest},
      int{host.data_digest}, host.keep_alive_ms, host.connect_timeout_ms, host.admin_timeout_ms,
      host.command_timeout_ms, host.abort_timeout_ms, host.reconnect_min_ms, host.reconnect_max_ms,
      host.no_path_timeout_ms, host.quiesce_ms);
}

}  // namespace

std::string to_string(const Plan& plan) {
  std::string text = fmt::format("rounds={} commands={} blocks_max={} hostile={} targets=", plan.rounds, plan.commands,
                                 plan.blocks_max, plan.hostile);
  for (const TargetPlan& target : plan.targets) {
    text += fmt::format("{}/{}x{}/mdts{}/icd{}/qe{}:", target.shards, target.engines, target.listeners,
                        target.transfer_shift, target.in_capsule_bytes, target.queue_entries_max);
    for (const VolumePlan& volume : target.volumes) {
      text += fmt::format("{}x{}{},", volume.blocks, volume.block_bytes, volume.volatile_cache ? "v" : "");
    }
  }
  text += " clients=";
  for (const ClientPlan& client : plan.clients) {
    text += fmt::format("{}:{}x{},", client.target, client.queues, client.workers);
  }
  for (const HostPlan& host : plan.hosts) text += to_string(host);
  const ChaosPlan& chaos = plan.chaos;
  text += " chaos=";
  const std::array<std::pair<bool, std::string_view>, 14> kinds = {{{chaos.partitions, "partitions"},
                                                                    {chaos.resets, "resets"},
                                                                    {chaos.power_loss, "power_loss"},
                                                                    {chaos.kills, "kills"},
                                                                    {chaos.restarts, "restarts"},
                                                                    {chaos.client_loss, "client_loss"},
                                                                    {chaos.namespace_changes, "namespaces"},
                                                                    {chaos.ana_changes, "ana"},
                                                                    {chaos.resizes, "resizes"},
                                                                    {chaos.no_room, "no_room"},
                                                                    {chaos.links, "links"},
                                                                    {chaos.engines, "engines"},
                                                                    {chaos.stalls, "stalls"},
                                                                    {chaos.host_restarts, "host_restarts"}}};
  for (const auto& [on, name] : kinds) {
    if (on) text += fmt::format("{},", name);
  }
  return text;
}

}  // namespace fairlead::sim_test
