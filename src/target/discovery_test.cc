// The discovery subsystem: its log, who sees what, and how hosts hear of changes.
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::LogPage;
using nvme::StatusCode;

struct DiscoveryLog {
  nvme::DiscoveryHeader header;
  std::vector<nvme::DiscoveryEntry> entries;
};

Task<Result<DiscoveryLog>> read_log(NvmeConnection& admin) {
  DiscoveryLog log;
  FL_CO_TRY(const Completion header,
            co_await admin.get_log_page(LogPage::kDiscovery, std::as_writable_bytes(std::span(&log.header, 1))));
  if (!header.ok()) co_return fail(Code::kProtocol, "discovery log header");
  if (log.header.records == 0U) co_return log;
  log.entries.resize(log.header.records.get());
  FL_CO_TRY(const Completion entries,
            co_await admin.get_log_page(LogPage::kDiscovery, std::as_writable_bytes(std::span(log.entries)),
                                        {.offset = sizeof log.header}));
  if (!entries.ok()) co_return fail(Code::kProtocol, "discovery log entries");
  co_return log;
}

Task<Result<NvmeConnection*>> open_discovery(TargetBed& bed, std::string host = kTestHostNqn) {
  NvmeConnection& admin = bed.make_connection();
  QueueOptions queue;
  queue.host_nqn = std::move(host);
  FL_CO_TRY_VOID(co_await admin.open_and_connect(bed.address, queue));
  FL_CO_TRY(const Completion enabled, co_await admin.enable());
  if (!enabled.ok()) co_return fail(Code::kProtocol, "enable");
  co_return &admin;
}

std::string text_of(std::span<const char> field) { return std::string(nvme::read_space_padded(field)); }

Task<void> lists_what_the_host_may_use(TargetBed& bed) {
  co_await bed.add_subsystem(
      {.nqn = "nqn.2024-01.example:b", .serial = "", .allowed_hosts = {"nqn.2024-01.example:x"}});
  const auto advertised = *parse_socket_address("[2001:db8::7]:9999", 0);
  const auto second = co_await bed.at_target(
      bed.target().start_listener({.bind = *parse_socket_address("[fd00::1]:0", 0), .advertise = advertised}));
  CO_ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->advertised, advertised);
  const auto admin = co_await open_discovery(bed);
  CO_ASSERT_TRUE(admin.has_value());
  const auto log = co_await read_log(**admin);
  CO_ASSERT_TRUE(log.has_value());
  EXPECT_EQ(log->header.record_format, 0U);
  CO_ASSERT_TRUE(log->entries.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    const nvme::DiscoveryEntry& entry = log->entries[i];
    EXPECT_EQ(entry.trtype, 3);
    EXPECT_EQ(entry.adrfam, i == 0 ? 1 : 2);
    EXPECT_EQ(entry.subtype, 2);
    EXPECT_EQ(entry.portid, i + 1);
    EXPECT_EQ(entry.cntlid, nvme::kDynamicControllerId);
    EXPECT_EQ(std::string(entry.subnqn), kNqn);
    EXPECT_EQ(text_of(entry.traddr), i == 0 ? "10.0.0.1" : "2001:db8::7");
    EXPECT_EQ(text_of(entry.trsvcid), i == 0 ? "4420" : "9999");
  }
  // The host on the list of the other subsystem sees both.
  const auto other = co_await open_discovery(bed, "nqn.2024-01.example:x");
  CO_ASSERT_TRUE(other.has_value());
  const auto longer = co_await read_log(**other);
  CO_ASSERT_TRUE(longer.has_value());
  EXPECT_EQ(longer->entries.size(), 4U);
  EXPECT_EQ(longer->header.generation, log->header.generation);
}

TEST(Discovery, ListsWhatTheHostMayUse) { run_in_worlds(lists_what_the_host_may_use); }

Task<void> wildcard_listener(TargetBed& bed) {
  const auto any = co_await bed.at_target(
      bed.target().start_listener({.bind = *parse_socket_address("0.0.0.0:5000", 0), .advertise = {}}));
  CO_ASSERT_TRUE(any.has_value());
  NvmeConnection& admin = bed.make_connection();
  SocketAddress to = bed.address;
  to.port = 5000;
  CO_ASSERT_TRUE((co_await admin.open_and_connect(to, {})).has_value());
  CO_ASSERT_OK(co_await admin.enable());
  const auto log = co_await read_log(admin);
  CO_ASSERT_TRUE(log.has_value() && log->entries.size() == 2);
  EXPECT_EQ(text_of(log->entries[1].traddr), "10.0.0.1");
  EXPECT_EQ(text_of(log->entries[1].trsvcid), "5000");
  // To a host that came by IPv6 a listener on every IPv4 address says nothing it could use.
  NvmeConnection& six = bed.make_connection();
  const auto listening = co_await bed.at_target(
      bed.target().start_listener({.bind = *parse_socket_address("[fd00::1]:0", 0), .advertise = {}}));
  CO_ASSERT_TRUE(listening.has_value());
  CO_ASSERT_TRUE((co_await six.open_and_connect(listening->bound, {})).has_value());
  CO_ASSERT_OK(co_await six.enable());
  const auto six_log = co_await read_log(six);
  CO_ASSERT_TRUE(six_log.has_value() && six_log->entries.size() == 2);
  EXPECT_EQ(text_of(six_log->entries[0].traddr), "10.0.0.1");
  EXPECT_EQ(text_of(six_log->entries[1].traddr), "fd00::1");
}

TEST(Discovery, AListenerOnEveryAddressIsToldAsTheOneTheHostCameBy) { TargetBed().run(wildcard_listener); }

Task<void> tells_of_changes(TargetBed& bed) {
  const auto opened = co_await open_discovery(bed);
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = **opened;
  CO_ASSERT_OK(co_await admin.set_features(nvme::Feature::kAsyncEvents, nvme::kAsyncEventDiscoveryChange));
  const auto before = co_await read_log(admin);
  CO_ASSERT_TRUE(before.has_value());
  Scope scope(bed.reactor());
  std::optional<Result<Completion>> event;
  scope.spawn(keep(admin.async_event(), event));
  co_await bed.sleep(std::chrono::milliseconds(50));
  EXPECT_FALSE(event.has_value());
  co_await bed.add_subsystem({.nqn = "nqn.2024-01.example:new", .serial = "", .allowed_hosts = {}});
  co_await scope.close();
  CO_ASSERT_OK(*event);
  const auto told = nvme::AsyncEvent::from_dw0(static_cast<uint32_t>((*event)->result));
  EXPECT_EQ(told, nvme::AsyncEvent::notice(nvme::NoticeInfo::kDiscoveryChange, LogPage::kDiscovery));
  // Masked until the log is read: the removal is not told, but it shows.
  std::optional<Result<Completion>> second;
  scope.spawn(keep(admin.async_event(), second));
  const auto removed = co_await bed.at_target(bed.target().remove_subsystem("nqn.2024-01.example:new"));
  EXPECT_TRUE(removed.has_value());
  co_await bed.sleep(std::chrono::milliseconds(50));
  EXPECT_FALSE(second.has_value());
  const auto after = co_await read_log(admin);
  CO_ASSERT_TRUE(after.has_value());
  EXPECT_EQ(after->header.generation.get(), before->header.generation.get() + 2);
  EXPECT_EQ(after->entries.size(), before->entries.size());
  co_await bed.add_subsystem({.nqn = "nqn.2024-01.example:again", .serial = "", .allowed_hosts = {}});
  co_await scope.close();
  EXPECT_TRUE(succeeded(*second));
}

TEST(Discovery, TellsOfChangesOnce) { run_in_worlds(tells_of_changes); }

Task<void> is_small(TargetBed& bed) {
  const auto opened = co_await open_discovery(bed);
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = **opened;
  nvme::IdentifyController id;
  const auto out = std::as_writable_bytes(std::span(&id, 1));
  CO_ASSERT_OK(co_await admin.identify(nvme::Cns::kController, 0, out));
  EXPECT_EQ(id.cntrltype, static_cast<uint8_t>(nvme::ControllerType::kDiscovery));
  EXPECT_EQ(std::string(id.subnqn), nvme::kDiscoveryNqn);
  EXPECT_EQ(id.oaes, nvme::kOaesDiscoveryChange);
  EXPECT_EQ(code_of(co_await admin.identify(nvme::Cns::kNamespace, 1, out)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.get_log_page(LogPage::kAna, out)), StatusCode::kInvalidLogPage);
  EXPECT_EQ(code_of(co_await admin.set_features(nvme::Feature::kNumberOfQueues, 0)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.abort(0, 1)), StatusCode::kInvalidOpcode);
  EXPECT_EQ(code_of(co_await admin.get_log_page(LogPage::kDiscovery, out, {.offset = 1 << 20})),
            StatusCode::kInvalidField);
  EXPECT_TRUE(succeeded(co_await admin.keep_alive()));
  // It has no I/O queues.
  NvmeConnection& io = bed.make_connection();
  QueueOptions queue;
  queue.qid = 1;
  queue.controller_id = admin.controller_id();
  CO_ASSERT_TRUE((co_await io.open(bed.address, queue)).has_value());
  EXPECT_EQ(code_of(co_await io.connect()), StatusCode::kConnectInvalidParameters);
  EXPECT_TRUE(bed.observed.connected.empty());
}

TEST(Discovery, ServesNothingElse) { TargetBed().run(is_small); }

Task<void> idle_host(TargetBed& bed) {
  const auto opened = co_await open_discovery(bed);
  CO_ASSERT_TRUE(opened.has_value());
  const Instant start = bed.reactor().now();
  co_await (*opened)->wait_closed();
  // A discovery controller without a keep-alive of its own goes after two minutes of silence.
  const auto waited = bed.reactor().now() - start;
  EXPECT_GE(waited, std::chrono::seconds(110));
  EXPECT_LE(waited, std::chrono::seconds(250));
}

TEST(Discovery, AnIdleHostIsLetGo) { TargetBed().run(idle_host); }

}  // namespace
}  // namespace fairlead::testing
