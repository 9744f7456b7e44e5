// Asynchronous events, keep-alive and Abort: NVMe base 2.0 sections 5.1, 5.2 and 3.9.
#include "block/disk.h"
#include "block/faulty.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::AsyncEvent;
using nvme::Feature;
using nvme::LogPage;
using nvme::NoticeInfo;
using nvme::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr AsyncEvent kNamespaceEvent =
    AsyncEvent::notice(NoticeInfo::kNamespaceAttributeChanged, LogPage::kChangedNamespaces);
constexpr AsyncEvent kAnaEvent = AsyncEvent::notice(NoticeInfo::kAnaChange, LogPage::kAna);
constexpr uint32_t kAllEvents = nvme::kAsyncEventNamespaceAttribute | nvme::kAsyncEventAnaChange;

std::optional<AsyncEvent> event_of(const std::optional<Result<Completion>>& completion) {
  if (!completion || !succeeded(*completion)) return std::nullopt;
  return AsyncEvent::from_dw0(static_cast<uint32_t>((*completion)->result));
}

Task<std::vector<uint32_t>> changed_list(NvmeConnection& admin, bool retain = false) {
  nvme::ChangedNamespaces list;
  const auto got = co_await admin.get_log_page(LogPage::kChangedNamespaces, std::as_writable_bytes(std::span(&list, 1)),
                                               {.retain_event = retain});
  EXPECT_TRUE(succeeded(got));
  std::vector<uint32_t> changed;
  for (size_t i = 0; i < 1024 && list.nsid[i] != 0U; ++i) changed.push_back(list.nsid[i].get());
  co_return changed;
}

using Ids = std::vector<uint32_t>;

Task<void> namespace_events(TargetBed& bed) {
  sim::SimDevice& disk = bed.world.create_disk(bed.server, "/disk", 1 * kMiB);
  auto source = open_disk_source(bed.server.shard(0), {.path = "/disk"});
  CO_ASSERT_TRUE(source.has_value());
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  CO_ASSERT_OK(co_await admin.set_features(Feature::kAsyncEvents, kAllEvents));
  Scope scope(bed.reactor());
  std::optional<Result<Completion>> added;
  scope.spawn(keep(admin.async_event(), added));
  co_await bed.add_source(kNqn, std::move(*source), 4);
  co_await scope.close();
  EXPECT_EQ(event_of(added), kNamespaceEvent);
  // Masked until the log is read without RAE.
  std::optional<Result<Completion>> more;
  scope.spawn(keep(admin.async_event(), more));
  co_await bed.add_memory(kNqn, 1 * kMiB, 512, 6);
  EXPECT_EQ(co_await changed_list(admin, true), (Ids{4, 6}));
  co_await bed.add_memory(kNqn, 1 * kMiB, 512, 5);
  co_await bed.sleep(milliseconds(50));
  EXPECT_FALSE(more.has_value());
  EXPECT_EQ(co_await changed_list(admin), (Ids{4, 5, 6}));
  EXPECT_EQ(co_await changed_list(admin), Ids{});
  // Resized.
  disk.resize(2 * kMiB);
  const auto size = co_await bed.at_target(bed.target().rescan_namespace(kNqn, 4));
  EXPECT_EQ(size, 2 * kMiB);
  co_await scope.close();
  EXPECT_EQ(event_of(more), kNamespaceEvent);
  nvme::IdentifyNamespace id;
  CO_ASSERT_OK(co_await admin.identify(nvme::Cns::kNamespace, 4, std::as_writable_bytes(std::span(&id, 1))));
  EXPECT_EQ(id.nsze, 4096U);
  EXPECT_EQ(co_await changed_list(admin), Ids{4});
  // No change, no event. Then a removal while no request waits: told as soon as one comes.
  EXPECT_TRUE((co_await bed.at_target(bed.target().rescan_namespace(kNqn, 4))).has_value());
  EXPECT_TRUE((co_await bed.at_target(bed.target().remove_namespace(kNqn, 6))).has_value());
  EXPECT_EQ(event_of(co_await admin.async_event()), kNamespaceEvent);
  EXPECT_EQ(co_await changed_list(admin), Ids{6});
}

TEST(Events, NamespacesAddedResizedRemoved) { run_in_worlds(namespace_events); }

Task<void> ana_events(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  const auto other = co_await bed.open_host();
  CO_ASSERT_TRUE(other.has_value());
  CO_ASSERT_OK(co_await admin.set_features(Feature::kAsyncEvents, kAllEvents));
  Scope scope(bed.reactor());
  std::optional<Result<Completion>> event;
  std::optional<Result<Completion>> unwanted;
  scope.spawn(keep(admin.async_event(), event));
  // Did not ask for events of any kind.
  scope.spawn(keep((*other)->admin().async_event(), unwanted));
  co_await bed.sleep(milliseconds(20));
  for (const auto state : {target::AnaState::kInaccessible, target::AnaState::kOptimized}) {
    EXPECT_TRUE((co_await bed.at_target(bed.target().set_ana_state(kNqn, 0, 1, state))).has_value());
  }
  co_await bed.sleep(milliseconds(50));
  EXPECT_EQ(event_of(event), kAnaEvent);
  EXPECT_FALSE(unwanted.has_value());
  std::vector<std::byte> log(64);
  CO_ASSERT_OK(co_await admin.get_log_page(LogPage::kAna, log));
  event.reset();
  scope.spawn(keep(admin.async_event(), event));
  EXPECT_TRUE((co_await bed.at_target(bed.target().set_ana_state(kNqn, 0, 1, target::AnaState::kChange))).has_value());
  co_await bed.sleep(milliseconds(50));
  EXPECT_EQ(event_of(event), kAnaEvent);
  (*other)->admin().cut();
  co_await scope.close();
  EXPECT_EQ(code_of(*unwanted), kLost);
}

TEST(Events, AnaChanges) { run_in_worlds(ana_events); }

Task<void> event_limit(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  Scope scope(bed.reactor());
  std::array<std::optional<Result<Completion>>, 4> waiting;
  for (auto& each : waiting) scope.spawn(keep(admin.async_event(), each));
  co_await bed.sleep(milliseconds(50));
  EXPECT_EQ(code_of(co_await admin.async_event()), StatusCode::kAsyncEventLimitExceeded);
  EXPECT_EQ(admin.in_flight(), 4U);
  // Waiting event requests take no part in anything else.
  EXPECT_TRUE(succeeded(co_await admin.keep_alive()));
  (*opened)->admin().cut();
  co_await scope.close();
}

TEST(Events, FourRequestsMayWait) { run_in_worlds(event_limit); }

// Reads the last block of a namespace, on one queue, the moment that the event says it is there.
Task<void> read_new_namespace(NvmeConnection& io, uint32_t nsid, uint64_t lba) {
  std::vector<std::byte> block(512);
  const auto read = co_await io.read(nsid, lba, 1, block);
  EXPECT_TRUE(succeeded(read)) << nsid << ' ' << lba << ' ' << nvme::status_name(code_of(read));
}

Task<void> rescan(TargetBed& bed, uint32_t nsid) {
  EXPECT_TRUE((co_await bed.at_target(bed.target().rescan_namespace(kNqn, nsid))).has_value());
}
Task<void> add(TargetBed& bed, uint32_t nsid) { co_await bed.add_memory(kNqn, 1 * kMiB, 512, nsid); }

Task<void> event_after_change(TargetBed& bed) {
  sim::SimDevice& disk = bed.world.create_disk(bed.server, "/disk", 1 * kMiB);
  auto source = open_disk_source(bed.server.shard(0), {.path = "/disk"});
  CO_ASSERT_TRUE(source.has_value());
  co_await bed.add_source(kNqn, std::move(*source), 2);
  const auto opened = co_await bed.open_host(TargetBed::io_options(6));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  CO_ASSERT_OK(co_await host.admin().set_features(Feature::kAsyncEvents, kAllEvents));
  for (uint32_t round = 0; round < 10; ++round) {
    const bool grows = round % 2 == 0;
    const uint32_t nsid = grows ? 2 : 10 + round;
    Scope scope(bed.reactor());
    std::optional<Result<Completion>> event;
    scope.spawn(keep(host.admin().async_event(), event));
    bool changed = false;
    if (grows) {
      disk.resize(disk.size_bytes() + 1 * kMiB);
    }
    const uint64_t last = (grows ? disk.size_bytes() : 1 * kMiB) / 512 - 1;
    Scope changing(bed.reactor());
    changing.spawn(note_end(grows ? rescan(bed, nsid) : add(bed, nsid), changed));
    co_await scope.close();
    EXPECT_EQ(event_of(event), kNamespaceEvent);
    for (size_t i = 0; i < host.io_queues(); ++i) scope.spawn(read_new_namespace(host.io(i), nsid, last));
    co_await scope.close();
    co_await changing.close();
    co_await changed_list(host.admin());
  }
}

TEST(Events, ComeWhenTheChangeIsOnEveryShard) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    BedOptions options;
    options.seed = seed;
    options.shards = 3;
    options.settings = rough_settings(sim::Chop::kWhole);
    options.settings.network.latency_min = options.settings.network.latency_max = Duration(100);
    options.settings.network.spike_ppm = 0;
    // Word from shard to shard is slow, hosts are quick.
    options.settings.fault_point_ppm[static_cast<size_t>(FaultPoint::kMailboxFull)] = 950'000;
    SCOPED_TRACE(seed);
    TargetBed(options).run(event_after_change);
  }
}

Task<void> keep_alive_expires(TargetBed& bed) {
  HostOptions options = TargetBed::io_options(2);
  options.queue.keep_alive_ms = 5'000;
  const auto opened = co_await bed.open_host(options);
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  const Instant start = bed.reactor().now();
  co_await host.admin().wait_closed();
  const auto lasted = bed.reactor().now() - start;
  EXPECT_GE(lasted, milliseconds(4'900));
  EXPECT_LE(lasted, milliseconds(10'500));
  for (size_t i = 0; i < 2; ++i) co_await host.io(i).wait_closed();
  co_await bed.sleep(milliseconds(100));
  EXPECT_EQ(bed.target().controller_count(), 0U);
  CO_ASSERT_TRUE(bed.observed.reasons.size() == 1);
  EXPECT_EQ(bed.observed.reasons[0], "its keep-alive expired");
}

TEST(KeepAlive, ExpiresWithoutTraffic) { run_in_worlds(keep_alive_expires); }

Task<void> keep_alive_holds(TargetBed& bed) {
  HostOptions options = TargetBed::io_options(2);
  options.queue.keep_alive_ms = 2'000;
  const auto opened = co_await bed.open_host(options);
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  std::vector<std::byte> block(4096);
  for (int i = 0; i < 20; ++i) {
    co_await bed.sleep(milliseconds(1'500));
    // By turns the command itself, and traffic of an I/O queue on another shard.
    if (i % 2 == 0) {
      CO_ASSERT_OK(co_await host.admin().keep_alive());
    } else {
      CO_ASSERT_OK(co_await host.io(1).read(1, 0, 1, block));
    }
  }
  for (int i = 0; i < 20; ++i) {
    co_await bed.sleep(milliseconds(1'500));
    CO_ASSERT_OK(co_await host.io(1).read(1, 0, 1, block));
  }
  // Switched off, nothing expires any more.
  CO_ASSERT_OK(co_await host.admin().set_features(Feature::kKeepAlive, 0));
  co_await bed.sleep(seconds(3'600));
  EXPECT_TRUE(succeeded(co_await host.admin().keep_alive()));
  // Switched on again.
  CO_ASSERT_OK(co_await host.admin().set_features(Feature::kKeepAlive, 1'000));
  co_await bed.sleep(seconds(3));
  EXPECT_TRUE(host.admin().is_lost());
}

TEST(KeepAlive, TrafficOfAnyQueueHoldsIt) {
  for (size_t shards = 1; shards <= 3; ++shards) {
    BedOptions options;
    options.shards = shards;
    TargetBed bed(options);
    bed.run(keep_alive_holds, seconds(10'000));
  }
}

Task<void> short_keep_alive(TargetBed& bed) {
  // 1 ms is rounded up to what the controller can measure, so that the host has the time to live.
  HostOptions options = TargetBed::io_options(1);
  options.queue.keep_alive_ms = 1;
  const auto opened = co_await bed.open_host(options);
  CO_ASSERT_TRUE(opened.has_value());
  const auto got = co_await (*opened)->admin().get_features(Feature::kKeepAlive);
  EXPECT_TRUE(got && got->result == 100);
  co_await bed.sleep(milliseconds(90));
  EXPECT_TRUE(succeeded(co_await (*opened)->admin().keep_alive()));
}

TEST(KeepAlive, IsRoundedUp) { TargetBed().run(short_keep_alive); }

Task<void> abort_event(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  Scope scope(bed.reactor());
  std::optional<Result<Completion>> event;
  const uint16_t cid = admin.next_cid();
  scope.spawn(keep(admin.async_event(), event));
  co_await bed.sleep(milliseconds(50));
  const auto aborted = co_await admin.abort(0, cid);
  EXPECT_TRUE(succeeded(aborted) && aborted->result == 0);
  co_await scope.close();
  EXPECT_EQ(code_of(*event), StatusCode::kAbortRequested);
  const auto again = co_await admin.abort(0, cid);
  EXPECT_TRUE(succeeded(again) && again->result == 1);
  const auto nobody = co_await admin.abort(77, 1);
  EXPECT_TRUE(succeeded(nobody) && nobody->result == 1);
  const auto itself = co_await admin.abort(0, admin.next_cid());
  EXPECT_TRUE(succeeded(itself) && itself->result == 1);
}

TEST(Abort, TakesBackEventRequests) { run_in_worlds(abort_event); }

Task<void> abort_running(TargetBed& bed) {
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 4096});
  FaultRule slow;
  slow.delay = seconds(2);
  const uint32_t nsid = co_await bed.add_source(kNqn, make_faulty_source(std::move(*memory), {slow}));
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  Scope scope(bed.reactor());
  std::vector<std::byte> block(4096);
  std::optional<Result<Completion>> read;
  const uint16_t cid = host.io().next_cid();
  scope.spawn(keep(host.io().read(nsid, 0, 1, block), read));
  co_await bed.sleep(milliseconds(50));
  const auto aborted = co_await host.admin().abort(1, cid);
  EXPECT_TRUE(succeeded(aborted) && aborted->result == 1);
  co_await scope.close();
  EXPECT_TRUE(succeeded(*read));
}

TEST(Abort, LetsWhatRunsEnd) { run_in_worlds(abort_running); }

Task<void> abort_waiting(TargetBed& bed) {
  // Two reads hold the connection's whole account on a slow device; the third waits for memory.
  auto memory = make_memory_source({.size_bytes = 4 * kMiB, .logical_block = 4096});
  FaultRule slow;
  slow.delay = seconds(2);
  const uint32_t nsid = co_await bed.add_source(kNqn, make_faulty_source(std::move(*memory), {slow}));
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  Scope scope(bed.reactor());
  std::array<std::vector<std::byte>, 3> data;
  std::array<std::optional<Result<Completion>>, 3> reads;
  uint16_t cid = 0;
  for (size_t i = 0; i < 3; ++i) {
    data[i].resize(1 * kMiB);
    scope.spawn(keep(host.io().read(nsid, 0, 256, data[i]), reads[i]));
    co_await bed.sleep(milliseconds(20));
    cid = static_cast<uint16_t>(host.io().next_cid() - 1);
  }
  const auto aborted = co_await host.admin().abort(1, cid);
  EXPECT_TRUE(succeeded(aborted) && aborted->result == 0);
  co_await bed.sleep(milliseconds(100));
  CO_ASSERT_TRUE(reads[2].has_value());
  EXPECT_EQ(code_of(*reads[2]), StatusCode::kAbortRequested);
  EXPECT_FALSE(reads[0].has_value());
  co_await scope.close();
  EXPECT_TRUE(succeeded(*reads[0]) && succeeded(*reads[1]));
}

TEST(Abort, TakesBackWhatWaitsForMemory) {
  BedOptions options;
  options.settings.buffers_shared_max = 0;
  options.shards = 2;
  TargetBed bed(options);
  bed.run(abort_waiting);
  EXPECT_EQ(bed.world.probe_count(Probe::kAbortedWaiting), 1U);
}

}  // namespace
}  // namespace fairlead::testing
