// Changes while hosts are connected and I/O runs: namespaces and subsystems come and go, ANA states change, the target
// stops.
#include <fmt/format.h>

#include "block/disk.h"
#include "block/faulty.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using target::AnaState;

// Counts its open devices: one a shard, none after removal.
class CountedSource final : public BlockSource {
 public:
  explicit CountedSource(std::shared_ptr<BlockSource> inner) : inner_(std::move(inner)) {}
  ~CountedSource() override = default;
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    if (shard.id.value == fails_on) return fail(Code::kBusy, "open");
    FL_TRY(std::unique_ptr<BlockDevice> device, inner_->open(shard));
    return std::make_unique<Device>(std::move(device), count_);
  }
  int open_devices() const { return *count_; }
  uint32_t fails_on = ~0U;

 private:
  struct Device final : BlockDevice {
    Device(std::unique_ptr<BlockDevice> device, std::shared_ptr<int> devices)
        : BlockDevice(device->geometry()), inner(std::move(device)), count(std::move(devices)) {
      ++*count;
    }
    ~Device() override { --*count; }
    void execute(IoRequest& request) override { inner->submit(request); }
    std::unique_ptr<BlockDevice> inner;
    std::shared_ptr<int> count;  // outlives the source
  };
  std::shared_ptr<BlockSource> inner_;
  const std::shared_ptr<int> count_ = std::make_shared<int>(0);
};

std::shared_ptr<CountedSource> counted_memory(uint64_t bytes, uint32_t block, std::vector<FaultRule> rules = {}) {
  auto memory = make_memory_source({.size_bytes = bytes, .logical_block = block});
  FL_CHECK(memory.has_value());
  return std::make_shared<CountedSource>(make_faulty_source(std::move(*memory), std::move(rules)));
}

FaultRule slow_device(Duration delay) {
  FaultRule rule;
  rule.delay = delay;
  return rule;
}

struct Tally {
  uint64_t good = 0;
  std::map<StatusCode, uint64_t> others;
  uint64_t other(StatusCode code) const {
    const auto at = others.find(code);
    return at == others.end() ? 0 : at->second;
  }
};

// Every kind of command in turn, until told to stop or the connection is lost.
Task<void> hammer(NvmeConnection& io, uint32_t nsid, Tally& tally, const bool& stop) {
  std::vector<std::byte> data(16 * kKiB);
  const std::span<std::byte> block = std::span(data).first(4096);
  uint64_t round = 0;
  while (!stop && !io.is_lost()) {
    Result<Completion> done = fail(Code::kInternal);
    switch (++round % 7) {
      case 0:
        done = co_await io.write(nsid, 0, 4, data);
        break;
      case 1:
        done = co_await io.flush(nsid);
        break;
      case 2:
        done = co_await io.compare(nsid, 5, 1, block);
        break;
      case 3:
        done = co_await io.write_zeroes(nsid, 0, 8);
        break;
      case 4: {
        nvme::DsmRange range;
        range.blocks = 4;
        done = co_await io.deallocate(nsid, {range});
        break;
      }
      case 5: {
        const auto both = co_await io.compare_and_write(nsid, 10, 1, block, block);
        done = both ? Result<Completion>(both->compare) : std::unexpected(both.error());
        if (both && both->compare.ok()) EXPECT_TRUE(both->write.ok());
        break;
      }
      default:
        done = co_await io.read(nsid, 0, 4, data);
    }
    if (succeeded(done)) {
      ++tally.good;
    } else {
      ++tally.others[code_of(done)];
    }
    std::ranges::fill(data, std::byte{0});
  }
}

Task<void> removal_under_load(TargetBed& bed) {
  const auto opened = co_await bed.open_host(TargetBed::io_options(5));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  bool stop = false;
  Tally steady;
  Tally shaken;
  Scope scope(bed.reactor());
  for (size_t i = 0; i < host.io_queues(); ++i) {
    scope.spawn(hammer(host.io(i), 1, steady, stop));
    scope.spawn(hammer(host.io(i), 2, shaken, stop));
    scope.spawn(hammer(host.io(i), 2, shaken, stop));
  }
  auto source = counted_memory(1 * kMiB, 4096, {slow_device(std::chrono::microseconds(300))});
  for (int round = 0; round < 5; ++round) {
    co_await bed.add_source(kNqn, source, 2);
    EXPECT_EQ(source->open_devices(), static_cast<int>(bed.options.shards));
    co_await bed.sleep(milliseconds(30));
    const auto removed = co_await bed.at_target(bed.target().remove_namespace(kNqn, 2));
    EXPECT_TRUE(removed.has_value());
    EXPECT_EQ(source->open_devices(), 0);
    co_await bed.sleep(milliseconds(5));
  }
  stop = true;
  co_await scope.close();
  EXPECT_GT(shaken.good, 0U);
  EXPECT_GT(shaken.other(StatusCode::kInvalidNamespaceOrFormat), 0U);
  // The first of a pair whose second came too late says so.
  shaken.others.erase(StatusCode::kAbortedFailedFused);
  EXPECT_EQ(shaken.others.size(), 1U) << "that, and nothing else";
  EXPECT_GT(steady.good, 0U);
  EXPECT_TRUE(steady.others.empty());
  EXPECT_EQ((co_await bed.at_target(bed.target().remove_namespace(kNqn, 2))).error().code, Code::kNotFound);
}

TEST(Change, NamespacesComeAndGoUnderLoad) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    BedOptions options;
    options.seed = seed;
    options.shards = 1 + seed % 3;
    if (seed % 2 == 0) options.settings = rough_settings(sim::Chop::kRandom);
    TargetBed(options).run(removal_under_load);
  }
}

Task<void> subsystem_removal(TargetBed& bed) {
  const std::string nqn = "nqn.2024-01.example:passing";
  const auto bystander = co_await bed.open_host();
  CO_ASSERT_TRUE(bystander.has_value());
  for (int round = 0; round < 4; ++round) {
    co_await bed.add_subsystem({.nqn = nqn, .serial = "", .allowed_hosts = {}});
    auto source = counted_memory(1 * kMiB, 4096, {slow_device(std::chrono::microseconds(500))});
    co_await bed.add_source(nqn, source);
    HostOptions options = TargetBed::io_options(4);
    options.queue.subsystem_nqn = nqn;
    const auto opened = co_await bed.open_host(options);
    CO_ASSERT_TRUE(opened.has_value());
    NvmeHost& host = **opened;
    bool stop = false;
    Tally tally;
    Scope scope(bed.reactor());
    for (size_t i = 0; i < host.io_queues(); ++i) {
      for (int k = 0; k < 3; ++k) scope.spawn(hammer(host.io(i), 1, tally, stop));
    }
    co_await bed.sleep(milliseconds(20 + round));
    const auto removed = co_await bed.at_target(bed.target().remove_subsystem(nqn));
    EXPECT_TRUE(removed.has_value());
    EXPECT_EQ(source->open_devices(), 0);
    co_await scope.close();
    co_await host.admin().wait_closed();
    EXPECT_GT(tally.good, 0U);
    EXPECT_GT(tally.other(kLost), 0U);
    NvmeConnection& late = bed.make_connection();
    CO_ASSERT_TRUE((co_await late.open(bed.address, options.queue)).has_value());
    EXPECT_EQ(code_of(co_await late.connect()), StatusCode::kConnectInvalidParameters);
  }
  EXPECT_EQ((co_await bed.at_target(bed.target().remove_subsystem(nqn))).error().code, Code::kNotFound);
  std::vector<std::byte> block(4096);
  EXPECT_TRUE(succeeded(co_await (*bystander)->io().read(1, 0, 1, block)));
  co_await bed.sleep(milliseconds(50));
  EXPECT_EQ(bed.observed.disconnected.size(), 4U);
  EXPECT_EQ(bed.observed.reasons.front(), "the subsystem was removed");
}

// Whether a host that asks for this subsystem may ask again; it is not there.
Task<bool> may_come_again(TargetBed& bed, std::string nqn) {
  QueueOptions queue = TargetBed::admin_options();
  queue.subsystem_nqn = std::move(nqn);
  NvmeConnection& connection = bed.make_connection();
  EXPECT_TRUE((co_await connection.open(bed.address, queue)).has_value());
  const auto refused = co_await connection.connect();
  EXPECT_EQ(code_of(refused), StatusCode::kConnectInvalidParameters);
  co_return refused && !refused->status.do_not_retry;
}

Task<void> removed_for_good(TargetBed& bed) {
  const std::string nqn = "nqn.2024-01.example:comes";
  EXPECT_TRUE(co_await may_come_again(bed, nqn));
  for (int round = 0; round < 2; ++round) {
    co_await bed.add_subsystem({.nqn = nqn, .serial = "", .allowed_hosts = {}});
    EXPECT_TRUE(co_await bed.at_target(bed.target().remove_subsystem(nqn)));
    EXPECT_FALSE(co_await may_come_again(bed, nqn));
  }
  // Only the last ones are remembered.
  for (int number = 0; number < 1024; ++number) {
    const std::string other = fmt::format("{}:{}", nqn, number);
    co_await bed.add_subsystem({.nqn = other, .serial = "", .allowed_hosts = {}});
    EXPECT_TRUE(co_await bed.at_target(bed.target().remove_subsystem(other)));
  }
  EXPECT_TRUE(co_await may_come_again(bed, nqn));
  EXPECT_FALSE(co_await may_come_again(bed, nqn + ":0"));
}
TEST(Change, HostsOfWhatWasRemovedAreToldToGiveUpAndOthersToComeAgain) {
  TargetBed({.target = {.when_absent = target::WhenAbsent::kComeAgain}}).run(removed_for_good);
}

// What goes because the target stops comes back when it is started again.
Task<void> removed_at_the_end(TargetBed& bed) {
  const std::string nqn = "nqn.2024-01.example:comes";
  co_await bed.add_subsystem({.nqn = nqn, .serial = "", .allowed_hosts = {}});
  QueueOptions queue = TargetBed::admin_options();
  queue.subsystem_nqn = nqn;
  NvmeConnection& early = bed.make_connection();
  CO_ASSERT_TRUE((co_await early.open(bed.address, queue)).has_value());
  co_await bed.at_target(bed.target().stop_accepting());
  NvmeConnection& late = bed.make_connection();
  EXPECT_FALSE((co_await late.open(bed.address, queue)).has_value());
  EXPECT_TRUE(co_await bed.at_target(bed.target().remove_subsystem(nqn)));
  const auto refused = co_await early.connect();
  EXPECT_EQ(code_of(refused), StatusCode::kConnectInvalidParameters);
  EXPECT_FALSE(refused && refused->status.do_not_retry);
}
TEST(Change, HostsOfATargetThatStopsMayComeAgain) {
  TargetBed({.target = {.when_absent = target::WhenAbsent::kComeAgain}}).run(removed_at_the_end);
}

TEST(Change, SubsystemsComeAndGoUnderLoad) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    BedOptions options;
    options.seed = seed;
    options.shards = 1 + seed % 3;
    if (seed % 2 == 0) options.settings = rough_settings(sim::Chop::kRandom);
    TargetBed(options).run(subsystem_removal);
  }
}

Task<void> ana_states(TargetBed& bed) {
  const auto second = co_await bed.at_target(
      bed.target().start_listener({.bind = *parse_socket_address("[fd00::1]:0", 0), .advertise = {}}));
  CO_ASSERT_TRUE(second.has_value() && second->port == 1);
  const auto opened = co_await bed.open_host(TargetBed::io_options(3));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& other = bed.make_host();
  CO_ASSERT_TRUE((co_await other.open(second->bound, TargetBed::io_options(3))).has_value());
  struct Case {
    AnaState state;
    StatusCode status;
  };
  const Case cases[] = {{AnaState::kInaccessible, StatusCode::kAnaInaccessible},
                        {AnaState::kPersistentLoss, StatusCode::kAnaPersistentLoss},
                        {AnaState::kChange, StatusCode::kAnaTransition},
                        {AnaState::kNonOptimized, StatusCode::kSuccess},
                        {AnaState::kOptimized, StatusCode::kSuccess}};
  std::vector<std::byte> block(4096);
  for (const Case& each : cases) {
    EXPECT_TRUE((co_await bed.at_target(bed.target().set_ana_state(kNqn, 0, 1, each.state))).has_value());
    for (size_t i = 0; i < 3; ++i) {
      NvmeConnection& io = (*opened)->io(i);
      const auto read = co_await io.read(1, 0, 1, block);
      EXPECT_EQ(code_of(read), each.status);
      EXPECT_FALSE(read && read->status.do_not_retry);
      EXPECT_EQ(code_of(co_await io.write(1, 0, 1, block)), each.status);
      EXPECT_EQ(code_of(co_await io.flush(1)), each.status);
      EXPECT_EQ(code_of(co_await io.write_zeroes(1, 0, 1)), each.status);
      const auto both = co_await io.compare_and_write(1, 0, 1, block, block);
      CO_ASSERT_TRUE(both.has_value());
      EXPECT_EQ(both->write.ok(), each.status == StatusCode::kSuccess);
      EXPECT_TRUE(succeeded(co_await other.io(i).read(1, 0, 1, block))) << "the other port";
    }
    nvme::IdentifyNamespace id;
    EXPECT_TRUE(succeeded(
        co_await (*opened)->admin().identify(nvme::Cns::kNamespace, 1, std::as_writable_bytes(std::span(&id, 1)))));
    EXPECT_NE(id.nsze, 0U);
  }
}

TEST(Change, AnaStatesHoldForTheirPort) { run_in_worlds(ana_states); }

Task<void> wrong_changes(TargetBed& bed) {
  target::Target& target = bed.target();
  const auto code = [](const auto& result) { return result ? Code::kInternal : result.error().code; };
  EXPECT_EQ(code(co_await bed.at_target(target.add_subsystem({.nqn = kNqn, .serial = "", .allowed_hosts = {}}))),
            Code::kAlreadyExists);
  const std::string bad_names[] = {"", "nqn.2024", std::string(nvme::kDiscoveryNqn), "nqn.2024-01.example:\n",
                                   "nqn.2024-01.example:" + std::string(250, 'x')};
  for (const std::string& nqn : bad_names) {
    EXPECT_EQ(code(co_await bed.at_target(target.add_subsystem({.nqn = nqn, .serial = "", .allowed_hosts = {}}))),
              Code::kInvalidArgument)
        << nqn;
  }
  const std::string nqn = "nqn.2024-01.example:x";
  target::SubsystemOptions serial{.nqn = nqn, .serial = std::string(21, 'S'), .allowed_hosts = {}};
  EXPECT_EQ(code(co_await bed.at_target(target.add_subsystem(serial))), Code::kInvalidArgument);
  target::SubsystemOptions model{.nqn = nqn, .serial = "", .model = "", .allowed_hosts = {}};
  EXPECT_EQ(code(co_await bed.at_target(target.add_subsystem(model))), Code::kInvalidArgument);
  target::SubsystemOptions hosts{.nqn = nqn, .serial = "", .allowed_hosts = {"anybody"}};
  EXPECT_EQ(code(co_await bed.at_target(target.add_subsystem(hosts))), Code::kInvalidArgument);
  auto source = counted_memory(1 * kMiB, 4096);
  const auto add = [&](std::string name, uint32_t nsid, uint32_t group) {
    return bed.at_target(
        target.add_namespace(std::move(name), {.nsid = nsid, .source = source, .uuid = {}, .ana_group = group}));
  };
  EXPECT_EQ(code(co_await add(nqn, 0, 1)), Code::kNotFound);
  EXPECT_EQ(code(co_await add(kNqn, 1, 1)), Code::kAlreadyExists);
  EXPECT_EQ(code(co_await add(kNqn, 1025, 1)), Code::kInvalidArgument);
  EXPECT_EQ(code(co_await add(kNqn, 2, 0)), Code::kInvalidArgument);
  EXPECT_EQ(code(co_await add(kNqn, 2, 129)), Code::kInvalidArgument);
  // A source that the last shard cannot open is on none.
  source->fails_on = static_cast<uint32_t>(bed.options.shards - 1);
  EXPECT_EQ(code(co_await add(kNqn, 2, 1)), Code::kBusy);
  EXPECT_EQ(source->open_devices(), 0);
  source->fails_on = ~0U;
  EXPECT_EQ(co_await add(kNqn, 0, 1), 2U);
  EXPECT_EQ(code(co_await bed.at_target(target.rescan_namespace(kNqn, 77))), Code::kNotFound);
  EXPECT_EQ(code(co_await bed.at_target(target.rescan_namespace(nqn, 1))), Code::kNotFound);
  const auto set = [&](std::string name, uint16_t port, uint32_t group, uint8_t state) {
    return bed.at_target(target.set_ana_state(std::move(name), port, group, static_cast<AnaState>(state)));
  };
  EXPECT_EQ(code(co_await set(nqn, 0, 1, 1)), Code::kNotFound);
  EXPECT_EQ(code(co_await set(kNqn, 1, 1, 1)), Code::kInvalidArgument);
  EXPECT_EQ(code(co_await set(kNqn, 0, 0, 1)), Code::kInvalidArgument);
  EXPECT_EQ(code(co_await set(kNqn, 0, 129, 1)), Code::kInvalidArgument);
  EXPECT_EQ(code(co_await set(kNqn, 0, 1, 9)), Code::kInvalidArgument);
  EXPECT_EQ(code(co_await bed.at_target(target.start_listener({.bind = bed.address, .advertise = {}}))), Code::kBusy);
  EXPECT_EQ(code(co_await bed.at_target(
                target.start_listener({.bind = *parse_socket_address("10.9.9.9:1", 0), .advertise = {}}))),
            Code::kUnreachable);
}

TEST(Change, WhatMakesNoSenseIsRefused) { run_in_worlds(wrong_changes); }

Task<void> all_namespaces(TargetBed& bed) {
  for (uint32_t nsid = 2; nsid <= target::kNamespacesMax; ++nsid) {
    EXPECT_EQ(co_await bed.add_memory(kNqn, 4096, 512), nsid);
  }
  auto memory = make_memory_source({.size_bytes = 4096, .logical_block = 512});
  const auto full =
      co_await bed.at_target(bed.target().add_namespace(kNqn, {.source = std::move(*memory), .uuid = {}}));
  EXPECT_EQ(full.error().code, Code::kResourceExhausted);
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  nvme::NamespaceList list;
  CO_ASSERT_OK(co_await (*opened)->admin().identify(nvme::Cns::kActiveNamespaces, 0,
                                                    std::as_writable_bytes(std::span(&list, 1))));
  for (uint32_t i = 0; i < 1024; ++i) EXPECT_EQ(list.nsid[i], i + 1);
  std::vector<std::byte> block(512);
  EXPECT_TRUE(succeeded(co_await (*opened)->io().read(1024, 7, 1, block)));
}

TEST(Change, AThousandNamespaces) { TargetBed().run(all_namespaces); }

Task<void> stop_task(TargetBed& bed, bool& stopped) {
  EXPECT_TRUE((co_await bed.at_target(bed.target().stop())).has_value());
  stopped = true;
}

Task<void> stop_drains(TargetBed& bed) {
  sim::SimDevice& disk = bed.world.create_disk(bed.server, "/disk", 1 * kMiB);
  auto inner = open_disk_source(bed.server.shard(0), {.path = "/disk"});
  CO_ASSERT_TRUE(inner.has_value());
  FaultRule slow = slow_device(milliseconds(700));
  slow.operations = op_set(IoOp::kWrite);
  const uint32_t nsid = co_await bed.add_source(kNqn, make_faulty_source(std::move(*inner), {slow}));
  const auto opened = co_await bed.open_host(TargetBed::io_options(3));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  const auto data = pattern(512, 1);
  std::array<std::optional<Result<Completion>>, 30> writes;
  std::optional<Result<Completion>> event;
  Scope scope(bed.reactor());
  for (size_t i = 0; i < writes.size(); ++i) scope.spawn(keep(host.io(i % 3).write(nsid, i, 1, data), writes[i]));
  scope.spawn(keep(host.admin().async_event(), event));
  co_await bed.sleep(milliseconds(300));
  const Instant start = bed.reactor().now();
  bool stopped = false;
  scope.spawn(stop_task(bed, stopped));
  co_await scope.close();
  EXPECT_TRUE(stopped);
  EXPECT_LE(bed.reactor().now() - start, seconds(4));
  std::vector<std::byte> stable(512);
  for (size_t i = 0; i < writes.size(); ++i) {
    EXPECT_TRUE(succeeded(*writes[i])) << "what ran was answered";
    disk.peek_stable(i * 512, stable);
    EXPECT_EQ(stable, data) << "and flushed";
  }
  EXPECT_EQ(code_of(*event), kLost);
  EXPECT_TRUE(host.admin().is_lost());
  EXPECT_FALSE((co_await bed.make_connection().open_stream(bed.address)).has_value());
  EXPECT_EQ(bed.observed.reasons.at(0), "the target stops");
  EXPECT_TRUE((co_await bed.at_target(bed.target().stop())).has_value()) << "again does nothing";
}

TEST(Change, StoppingAnswersWhatRunsAndFlushes) {
  for (size_t shards = 1; shards <= 3; ++shards) {
    BedOptions options;
    options.shards = shards;
    TargetBed(options).run(stop_drains);
  }
}

Task<void> keeps_connecting(TargetBed& bed, const bool& stop) {
  while (!stop) {
    NvmeConnection& admin = bed.make_connection();
    const auto opened = co_await admin.open_and_connect(bed.address, TargetBed::admin_options());
    if (opened) co_await admin.enable();
    co_await bed.sleep(std::chrono::microseconds(20));
  }
}

Task<void> stop_among_connects(TargetBed& bed) {
  bool stop = false;
  Scope scope(bed.reactor());
  for (int i = 0; i < 30; ++i) scope.spawn(keeps_connecting(bed, stop));
  co_await bed.sleep(milliseconds(5 + bed.options.seed));
  const Instant start = bed.reactor().now();
  EXPECT_TRUE((co_await bed.at_target(bed.target().stop())).has_value());
  EXPECT_LE(bed.reactor().now() - start, seconds(4)) << "nobody slips in behind it";
  stop = true;
  co_await scope.close();
}

TEST(Change, StoppingAmongHostsThatConnect) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    BedOptions options;
    options.seed = seed;
    options.shards = 1 + seed % 3;
    options.settings = rough_settings(sim::Chop::kWhole);
    options.settings.fault_point_ppm[static_cast<size_t>(FaultPoint::kMailboxFull)] = seed % 2 == 0 ? 900'000 : 0;
    TargetBed(options).run(stop_among_connects);
  }
}

}  // namespace
}  // namespace fairlead::testing
