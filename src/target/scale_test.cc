// Many hosts, many queues, and hosts that are slow, silent or greedy: nobody pays for another.
#include "block/faulty.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kMany = 1000;

Task<void> connect_range(TargetBed& bed, int from, int to, std::vector<NvmeHost*>& hosts) {
  for (int i = from; i < to; ++i) {
    HostOptions options = TargetBed::io_options(i % 10 == 0 ? 1 : 0);
    options.queue.subsystem_nqn = "nqn.2024-01.example:s" + std::to_string(i);
    const auto opened = co_await bed.open_host(options);
    CO_ASSERT_TRUE(opened.has_value());
    hosts[static_cast<size_t>(i)] = *opened;
  }
}

Task<void> a_thousand(TargetBed& bed) {
  for (int i = 0; i < kMany; ++i) {
    const std::string nqn = "nqn.2024-01.example:s" + std::to_string(i);
    co_await bed.add_subsystem({.nqn = nqn, .serial = "", .allowed_hosts = {}});
    co_await bed.add_memory(nqn, 64 * kKiB, 4096);
  }
  std::vector<NvmeHost*> hosts(kMany);
  Scope scope(bed.reactor());
  for (int i = 0; i < kMany; i += 50) scope.spawn(connect_range(bed, i, i + 50, hosts));
  co_await scope.close();
  EXPECT_EQ(bed.target().controller_count(), 1000U);
  const auto data = pattern(4096, 1);
  for (int i = 0; i < kMany; ++i) {
    NvmeHost& host = *hosts[static_cast<size_t>(i)];
    EXPECT_TRUE(succeeded(co_await host.admin().keep_alive()));
    if (i % 10 == 0) EXPECT_TRUE(succeeded(co_await host.io().write(1, 0, 1, data)));
  }
  // The discovery log of them all, at once and in order.
  NvmeConnection& discovery = bed.make_connection();
  CO_ASSERT_TRUE((co_await discovery.open_and_connect(bed.address, {})).has_value());
  CO_ASSERT_OK(co_await discovery.enable());
  std::vector<std::byte> log(1024 * 1001);
  CO_ASSERT_OK(co_await discovery.get_log_page(nvme::LogPage::kDiscovery, log));
  nvme::DiscoveryHeader header;
  std::memcpy(static_cast<void*>(&header), log.data(), sizeof header);
  EXPECT_EQ(header.records, 1001U);
  EXPECT_TRUE((co_await bed.at_target(bed.target().remove_subsystem("nqn.2024-01.example:s500"))).has_value());
  co_await bed.sleep(milliseconds(100));
  EXPECT_EQ(bed.target().controller_count(), 1000U) << "one went, the discovery controller came";
}

TEST(Scale, AThousandConnectionsAndSubsystems) {
  BedOptions options;
  options.shards = 3;
  TargetBed(options).run(a_thousand);
}

Task<void> many_queues(TargetBed& bed) {
  const auto opened = co_await bed.open_host(TargetBed::io_options(128));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  CO_ASSERT_TRUE(host.io_queues() == 128);
  std::vector<std::vector<std::byte>> data;
  std::vector<std::optional<Result<Completion>>> done(128);
  for (uint64_t i = 0; i < 128; ++i) data.push_back(pattern(4096, i));
  Scope scope(bed.reactor());
  for (size_t i = 0; i < 128; ++i) scope.spawn(keep(host.io(i).write(1, i, 1, data[i]), done[i]));
  co_await scope.close();
  for (const auto& each : done) EXPECT_TRUE(succeeded(*each));
  for (size_t i = 0; i < 128; ++i) {
    EXPECT_TRUE(succeeded(co_await host.io(127 - i).compare(1, i, 1, data[i])));
  }
  CO_ASSERT_TRUE(bed.observed.connected.size() == 1);
  EXPECT_EQ(bed.observed.connected[0].io_queues, 128);
}

TEST(Scale, AHundredAndTwentyEightIoQueues) {
  for (size_t shards = 1; shards <= 3; ++shards) {
    BedOptions options;
    options.shards = shards;
    TargetBed(options).run(many_queues);
  }
}

uint64_t held_bytes(TargetBed& bed) { return bed.server.shard(0).buffers.statistics().held_bytes; }

Task<void> victim_io(TargetBed& bed, NvmeConnection& io, Duration& slowest) {
  const auto data = pattern(64 * kKiB, 4);
  std::vector<std::byte> back(data.size());
  for (uint64_t i = 0; i < 50; ++i) {
    const Instant start = bed.reactor().now();
    CO_ASSERT_OK(co_await io.write(1, 512 + i * 16, 16, data));
    CO_ASSERT_OK(co_await io.read(1, 512 + i * 16, 16, back));
    CO_ASSERT_TRUE(back == data);
    slowest = std::max(slowest, bed.reactor().now() - start);
  }
}

Task<void> deaf_hosts(TargetBed& bed) {
  // Hosts that ask for as much as they may and read nothing of it.
  Scope scope(bed.reactor());
  std::vector<std::vector<std::byte>> sinks(4 * 40);
  std::vector<std::optional<Result<Completion>>> done(sinks.size());
  std::vector<NvmeHost*> deaf;
  for (size_t i = 0; i < 4; ++i) {
    const auto opened = co_await bed.open_host();
    CO_ASSERT_TRUE(opened.has_value());
    deaf.push_back(*opened);
    (*opened)->io().pause_reading(true);
    for (size_t k = 0; k < 40; ++k) {
      const size_t n = i * 40 + k;
      sinks[n].resize(1 * kMiB);
      scope.spawn(keep((*opened)->io().read(1, 0, 256, sinks[n]), done[n]));
    }
  }
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  Duration slowest{};
  co_await victim_io(bed, (*opened)->io(), slowest);
  EXPECT_LE(slowest, milliseconds(20));
  const uint64_t bound = bed.options.settings.buffers_shared_max + 10 * 2 * BufferPool::kSlabBytes;
  EXPECT_LE(held_bytes(bed), bound);
  // They listen again: everything comes.
  for (NvmeHost* const host : deaf) host->io().pause_reading(false);
  co_await scope.close();
  for (const auto& each : done) EXPECT_TRUE(succeeded(*each));
  EXPECT_LE(held_bytes(bed), bound);
}

TEST(Fairness, HostsThatDoNotReadHoldUpThemselves) {
  for (const uint64_t shared : {uint64_t{0}, 8 * kMiB}) {
    BedOptions options;
    options.settings.buffers_shared_max = shared;
    TargetBed(options).run(deaf_hosts);
  }
}

Task<void> hosts_that_owe_data(TargetBed& bed) {
  // Every write waits for data that never comes.
  Scope scope(bed.reactor());
  const auto data = pattern(1 * kMiB, 1);
  std::vector<std::optional<Result<Completion>>> done(4 * 40);
  std::vector<NvmeHost*> owing;
  for (size_t i = 0; i < 4; ++i) {
    const auto opened = co_await bed.open_host();
    CO_ASSERT_TRUE(opened.has_value());
    owing.push_back(*opened);
    (*opened)->io().ignore_r2t(true);
    for (size_t k = 0; k < 40; ++k) scope.spawn(keep((*opened)->io().write(1, 0, 256, data), done[i * 40 + k]));
  }
  co_await bed.sleep(milliseconds(100));
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  Duration slowest{};
  co_await victim_io(bed, (*opened)->io(), slowest);
  EXPECT_LE(slowest, milliseconds(20));
  EXPECT_LE(held_bytes(bed), bed.options.settings.buffers_shared_max + 10 * 2 * BufferPool::kSlabBytes);
  for (NvmeHost* const host : owing) host->io().cut();
  co_await scope.close();
  co_await bed.sleep(milliseconds(100));
  EXPECT_EQ(held_bytes(bed), 0U) << "nothing is left behind";
}

TEST(Fairness, HostsThatOweDataHoldUpThemselves) {
  for (const uint64_t shared : {uint64_t{0}, 8 * kMiB}) {
    BedOptions options;
    options.settings.buffers_shared_max = shared;
    TargetBed(options).run(hosts_that_owe_data);
  }
}

// Keeps the queue full of small reads.
Task<void> flood(NvmeConnection& io, const bool& stop, uint64_t& count) {
  std::vector<std::byte> block(4096);
  while (!stop) {
    CO_ASSERT_OK(co_await io.read(1, count % 1024, 1, block));
    ++count;
  }
}

Task<void> greedy_host(TargetBed& bed) {
  const auto greedy = co_await bed.open_host(TargetBed::io_options(4));
  const auto modest = co_await bed.open_host();
  CO_ASSERT_TRUE(greedy.has_value() && modest.has_value());
  bool stop = false;
  uint64_t count = 0;
  Scope scope(bed.reactor());
  for (size_t i = 0; i < 4; ++i) {
    for (int k = 0; k < 100; ++k) scope.spawn(flood((*greedy)->io(i), stop, count));
  }
  Duration slowest{};
  co_await victim_io(bed, (*modest)->io(), slowest);
  stop = true;
  co_await scope.close();
  EXPECT_GT(count, 1000U);
  EXPECT_LE(slowest, milliseconds(40));
}

TEST(Fairness, AGreedyHostLeavesTurnsToOthers) { TargetBed().run(greedy_host); }

Task<void> unread_answers(TargetBed& bed) {
  // A host that sends commands for ever and never reads: the target stops reading it instead of growing.
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  bed.tolerates_complaints = true;
  io.pause_reading(true);
  nvme::CapsuleCmdPdu flush;
  flush.header.type = static_cast<uint8_t>(nvme::PduType::kCapsuleCmd);
  flush.header.hlen = 72;
  flush.header.plen = 72;
  flush.command.flags = nvme::kFlagsSgl;
  flush.command.nsid = 1;
  const auto bytes = std::as_bytes(std::span(&flush, 1));
  std::vector<std::byte> many;
  for (int i = 0; i < 100'000; ++i) many.insert(many.end(), bytes.begin(), bytes.end());
  io.send_raw(many);
  co_await bed.sleep(seconds(5));
  EXPECT_FALSE(io.is_lost());
  EXPECT_GT(io.unsent_bytes(), many.size() / 2) << "held back by the target";
  Duration slowest{};
  const auto other = co_await bed.open_host();
  CO_ASSERT_TRUE(other.has_value());
  co_await victim_io(bed, (*other)->io(), slowest);
  EXPECT_LE(slowest, milliseconds(20));
  io.pause_reading(false);
  while (io.unsent_bytes() > 0) co_await bed.sleep(milliseconds(10));
  co_await bed.sleep(milliseconds(100));
  EXPECT_EQ(io.orphans(), 100'000U);
}

TEST(Fairness, AHostThatNeverReadsIsNotReadEither) { TargetBed().run(unread_answers); }

Task<void> slow_device(TargetBed& bed) {
  auto memory = make_memory_source({.size_bytes = 4 * kMiB, .logical_block = 4096});
  FaultRule rule;
  rule.delay = seconds(5);
  const uint32_t nsid = co_await bed.add_source(kNqn, make_faulty_source(std::move(*memory), {rule}));
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  Scope scope(bed.reactor());
  std::vector<std::byte> data(4096);
  std::array<std::optional<Result<Completion>>, 60> done;
  for (auto& each : done) scope.spawn(keep(io.write(nsid, 0, 1, data), each));
  co_await bed.sleep(milliseconds(50));
  Duration slowest{};
  co_await victim_io(bed, io, slowest);
  EXPECT_LE(slowest, milliseconds(20)) << "the same queue, another namespace";
  co_await scope.close();
  for (const auto& each : done) EXPECT_TRUE(succeeded(*each));
}

TEST(Fairness, ASlowDeviceHoldsUpItsOwnCommands) { TargetBed().run(slow_device); }

Task<void> comes_and_goes(TargetBed& bed) {
  // Resets at any moment: nothing leaks, nothing hangs.
  const auto data = pattern(1 * kMiB, 1);
  for (int i = 0; i < 20; ++i) {
    NvmeHost& host = bed.make_host();
    Scope scope(bed.reactor());
    if (!(co_await host.open(bed.address, TargetBed::io_options(3))).has_value()) continue;
    std::array<std::optional<Result<Completion>>, 12> done;
    for (size_t k = 0; k < done.size(); ++k) {
      scope.spawn(
          keep(host.io(k % 3).write(1, 0, k % 2 == 0 ? 256 : 1, std::span(data).first(k % 2 == 0 ? data.size() : 4096)),
               done[k]));
    }
    co_await bed.sleep(std::chrono::microseconds(100 + i * 140));
    if (i % 3 == 0) bed.world.network().reset_connections(bed.server.index());
    for (size_t k = 0; k < 3; ++k) host.io(k).cut();
    host.admin().cut();
    co_await scope.close();
  }
  co_await bed.sleep(seconds(1));
  EXPECT_EQ(bed.target().controller_count(), 0U);
  for (size_t i = 0; i < bed.options.shards; ++i) {
    EXPECT_EQ(bed.server.shard(i).buffers.statistics().held_bytes, 0U);
  }
}

TEST(Fairness, HostsThatGoInTheMiddleLeaveNothing) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    BedOptions options;
    options.seed = seed;
    options.shards = 1 + seed % 3;
    if (seed > 3) {
      options.settings = rough_settings(seed % 2 == 0 ? sim::Chop::kRandom : sim::Chop::kWhole);
      options.settings.network.window_min = 4096;
    }
    TargetBed(options).run(comes_and_goes);
  }
}

}  // namespace
}  // namespace fairlead::testing
