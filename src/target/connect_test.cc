// Connect, properties, enabling, resetting, shutting down and disconnecting: NVMe base 2.0 sections 3.1.3 and 6.
#include "block/faulty.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::ConnectFieldIn;
using nvme::Property;
using nvme::ShutdownNotice;
using nvme::StatusCode;

constexpr uint32_t kEnable = nvme::ControllerConfiguration::enabled(nvme::CommandSetSelect::kNvm).raw;

uint32_t field_in_command(size_t offset) {
  return nvme::connect_invalid_field(ConnectFieldIn::kCommand, static_cast<uint16_t>(offset));
}
uint32_t field_in_data(size_t offset) {
  return nvme::connect_invalid_field(ConnectFieldIn::kData, static_cast<uint16_t>(offset));
}

struct RawConnect {
  nvme::ConnectCommand command;
  nvme::ConnectData data;
  uint32_t length = sizeof(nvme::ConnectData);
};
RawConnect good_connect() {
  RawConnect raw;
  raw.command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kConnect);
  raw.command.sqsize = 31;
  raw.data.cntlid = nvme::kDynamicControllerId;
  nvme::write_zero_terminated(raw.data.subnqn, kNqn);
  nvme::write_zero_terminated(raw.data.hostnqn, kTestHostNqn);
  return raw;
}
Task<Result<Completion>> send_connect(TargetBed& bed, const RawConnect& raw, NvmeConnection& connection) {
  FL_CO_TRY_VOID(co_await connection.open(bed.address, TargetBed::admin_options()));
  const CommandData data{.out = std::as_bytes(std::span(&raw.data, 1)).first(raw.length)};
  co_return co_await connection.submit(nvme::to_submission_entry(raw.command), data);
}

struct BadField {
  const char* name;
  void (*spoil)(RawConnect&);
  StatusCode status;
  uint32_t field;
};
const BadField kBadFields[] = {
    {"record format", [](RawConnect& raw) { raw.command.recfmt = 1; }, StatusCode::kConnectIncompatibleFormat, 0},
    {"queue size 0", [](RawConnect& raw) { raw.command.sqsize = 0; }, StatusCode::kConnectInvalidParameters,
     field_in_command(offsetof(nvme::ConnectCommand, sqsize))},
    {"queue size above MQES", [](RawConnect& raw) { raw.command.sqsize = 1024; }, StatusCode::kConnectInvalidParameters,
     field_in_command(offsetof(nvme::ConnectCommand, sqsize))},
    {"controller id", [](RawConnect& raw) { raw.data.cntlid = 1; }, StatusCode::kConnectInvalidParameters,
     field_in_data(offsetof(nvme::ConnectData, cntlid))},
    {"unknown subsystem",
     [](RawConnect& raw) { nvme::write_zero_terminated(raw.data.subnqn, "nqn.2024-01.example:none"); },
     StatusCode::kConnectInvalidParameters, field_in_data(offsetof(nvme::ConnectData, subnqn))},
    {"no subsystem", [](RawConnect& raw) { raw.data.subnqn[0] = 0; }, StatusCode::kConnectInvalidParameters,
     field_in_data(offsetof(nvme::ConnectData, subnqn))},
    {"endless subsystem", [](RawConnect& raw) { std::ranges::fill(raw.data.subnqn, 'a'); },
     StatusCode::kConnectInvalidParameters, field_in_data(offsetof(nvme::ConnectData, subnqn))},
    {"no host", [](RawConnect& raw) { raw.data.hostnqn[0] = 0; }, StatusCode::kConnectInvalidParameters,
     field_in_data(offsetof(nvme::ConnectData, hostnqn))},
    {"control character in the host", [](RawConnect& raw) { raw.data.hostnqn[3] = '\n'; },
     StatusCode::kConnectInvalidParameters, field_in_data(offsetof(nvme::ConnectData, hostnqn))},
    {"short data", [](RawConnect& raw) { raw.length = 512; }, StatusCode::kDataSglLengthInvalid, 0},
    {"no data", [](RawConnect& raw) { raw.length = 0; }, StatusCode::kDataSglLengthInvalid, 0},
};

Task<void> bad_fields(TargetBed& bed) {
  for (const BadField& bad : kBadFields) {
    RawConnect raw = good_connect();
    bad.spoil(raw);
    NvmeConnection& connection = bed.make_connection();
    const auto refused = co_await send_connect(bed, raw, connection);
    EXPECT_EQ(code_of(refused), bad.status) << bad.name;
    if (refused) {
      EXPECT_TRUE(refused->status.do_not_retry) << bad.name;
      EXPECT_EQ(refused->result, bad.field) << bad.name;
    }
    // The connection is still there for a better try.
    EXPECT_TRUE(succeeded(co_await connection.connect())) << bad.name;
    EXPECT_EQ(code_of(co_await connection.connect()), StatusCode::kCommandSequenceError) << bad.name;
  }
}

TEST(Connect, EachBadFieldIsNamed) { run_in_worlds(bad_fields); }

Task<void> access_list(TargetBed& bed) {
  const std::string nqn = "nqn.2024-01.example:guarded";
  co_await bed.add_subsystem({.nqn = nqn, .serial = "", .allowed_hosts = {"nqn.2024-01.example:friend"}});
  QueueOptions queue;
  queue.subsystem_nqn = nqn;
  NvmeConnection& stranger = bed.make_connection();
  CO_ASSERT_TRUE((co_await stranger.open(bed.address, queue)).has_value());
  const auto refused = co_await stranger.connect();
  EXPECT_EQ(code_of(refused), StatusCode::kConnectInvalidHost);
  EXPECT_TRUE(refused && refused->status.do_not_retry);
  queue.host_nqn = "nqn.2024-01.example:friend";
  NvmeConnection& known = bed.make_connection();
  EXPECT_TRUE((co_await known.open_and_connect(bed.address, queue)).has_value());
}

TEST(Connect, OnlyHostsOnTheListMay) { run_in_worlds(access_list); }

Task<Result<Completion>> connect_queue(TargetBed& bed, QueueOptions queue) {
  NvmeConnection& connection = bed.make_connection();
  FL_CO_TRY_VOID(co_await connection.open(bed.address, queue));
  co_return co_await connection.connect();
}

Task<void> io_queue_errors(TargetBed& bed) {
  NvmeConnection& admin = bed.make_connection();
  CO_ASSERT_TRUE((co_await admin.open_and_connect(bed.address, TargetBed::admin_options())).has_value());
  QueueOptions queue = admin.options();
  queue.qid = 1;
  // Not before the controller is enabled, nor without queues asked for.
  EXPECT_EQ(code_of(co_await connect_queue(bed, queue)), StatusCode::kCommandSequenceError);
  CO_ASSERT_OK(co_await admin.enable());
  CO_ASSERT_OK(co_await admin.set_features(nvme::Feature::kNumberOfQueues, nvme::encode_queue_counts({2, 2})));
  QueueOptions wrong = queue;
  wrong.qid = 3;
  const auto beyond = co_await connect_queue(bed, wrong);
  EXPECT_EQ(code_of(beyond), StatusCode::kConnectInvalidParameters);
  EXPECT_TRUE(beyond && beyond->result == field_in_command(offsetof(nvme::ConnectCommand, qid)));
  wrong = queue;
  wrong.controller_id = static_cast<uint16_t>(queue.controller_id + 1);
  const auto nobody = co_await connect_queue(bed, wrong);
  EXPECT_EQ(code_of(nobody), StatusCode::kConnectInvalidParameters);
  EXPECT_TRUE(nobody && nobody->result == field_in_data(offsetof(nvme::ConnectData, cntlid)));
  wrong = queue;
  wrong.host_nqn = "nqn.2024-01.example:other";
  EXPECT_EQ(code_of(co_await connect_queue(bed, wrong)), StatusCode::kConnectInvalidHost);
  wrong = queue;
  wrong.host_id[3] ^= 1;
  EXPECT_EQ(code_of(co_await connect_queue(bed, wrong)), StatusCode::kConnectInvalidHost);
  wrong = queue;
  wrong.subsystem_nqn = std::string(nvme::kDiscoveryNqn);
  EXPECT_EQ(code_of(co_await connect_queue(bed, wrong)), StatusCode::kConnectInvalidParameters);
  EXPECT_TRUE(bed.observed.connected.empty());
  EXPECT_TRUE(succeeded(co_await connect_queue(bed, queue)));
  EXPECT_EQ(code_of(co_await connect_queue(bed, queue)), StatusCode::kCommandSequenceError);
  queue.qid = 2;
  EXPECT_TRUE(succeeded(co_await connect_queue(bed, queue)));
  co_await bed.sleep(std::chrono::milliseconds(1));
  CO_ASSERT_TRUE(bed.observed.connected.size() == 1);
  EXPECT_EQ(bed.observed.connected[0].io_queues, 2);
  EXPECT_EQ(bed.observed.connected[0].host_nqn, kTestHostNqn);
  EXPECT_EQ(bed.observed.connected[0].subsystem_nqn, kNqn);
}

TEST(Connect, IoQueuesMustFitTheirController) { run_in_worlds(io_queue_errors); }

Task<void> order_of_commands(TargetBed& bed) {
  NvmeConnection& admin = bed.make_connection();
  CO_ASSERT_TRUE((co_await admin.open(bed.address, TargetBed::admin_options())).has_value());
  std::vector<std::byte> page(4096);
  EXPECT_EQ(code_of(co_await admin.property_get(Property::kCapabilities)), StatusCode::kCommandSequenceError);
  EXPECT_EQ(code_of(co_await admin.identify(nvme::Cns::kController, 0, page)), StatusCode::kCommandSequenceError);
  EXPECT_EQ(code_of(co_await admin.disconnect()), StatusCode::kCommandSequenceError);
  CO_ASSERT_OK(co_await admin.connect());
  // Connected, not enabled: properties only.
  EXPECT_EQ(code_of(co_await admin.identify(nvme::Cns::kController, 0, page)), StatusCode::kCommandSequenceError);
  EXPECT_EQ(code_of(co_await admin.async_event()), StatusCode::kCommandSequenceError);
  CO_ASSERT_OK(co_await admin.enable());
  EXPECT_TRUE(succeeded(co_await admin.identify(nvme::Cns::kController, 0, page)));
  EXPECT_EQ(code_of(co_await admin.disconnect()), StatusCode::kInvalidQueueType);
  nvme::SubmissionEntry unknown;
  unknown.opcode = 0xc0;
  EXPECT_EQ(code_of(co_await admin.submit(unknown, {})), StatusCode::kInvalidOpcode);
  nvme::DisconnectCommand fabrics;
  fabrics.prefix.fctype = 0x77;
  EXPECT_EQ(code_of(co_await admin.submit(nvme::to_submission_entry(fabrics), {})), StatusCode::kInvalidOpcode);
}

TEST(Connect, CommandsHaveTheirOrder) { run_in_worlds(order_of_commands); }

Task<void> properties(TargetBed& bed) {
  NvmeConnection& admin = bed.make_connection();
  CO_ASSERT_TRUE((co_await admin.open_and_connect(bed.address, TargetBed::admin_options())).has_value());
  const auto cap = co_await admin.property_get(Property::kCapabilities);
  CO_ASSERT_OK(cap);
  const nvme::Capabilities capabilities = nvme::decode_capabilities(cap->result);
  EXPECT_EQ(capabilities.max_queue_entries, 1024);
  EXPECT_TRUE(capabilities.nvm_command_set);
  EXPECT_TRUE(capabilities.contiguous_queues);
  EXPECT_FALSE(capabilities.subsystem_reset);
  EXPECT_EQ(capabilities.page_shift_min, 12);
  const auto version = co_await admin.property_get(Property::kVersion);
  EXPECT_TRUE(version && version->result == nvme::kVersion_2_0);
  const auto status = co_await admin.property_get(Property::kStatus);
  EXPECT_TRUE(status && status->result == 0);
  EXPECT_EQ(code_of(co_await admin.property_set(Property::kVersion, 1)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.property_set(Property::kStatus, 1)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.property_get(static_cast<Property>(0x30))), StatusCode::kInvalidField);
  nvme::PropertyCommand wrong_size;
  wrong_size.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kPropertyGet);
  wrong_size.attrib = 1;
  wrong_size.offset = static_cast<uint32_t>(Property::kVersion);
  EXPECT_EQ(code_of(co_await admin.submit(nvme::to_submission_entry(wrong_size), {})), StatusCode::kInvalidField);
}

TEST(Controller, PropertiesAreWhatTheyShould) { run_in_worlds(properties); }

Task<nvme::ControllerStatus> read_status(NvmeConnection& admin) {
  const auto got = co_await admin.property_get(Property::kStatus);
  EXPECT_TRUE(succeeded(got));
  co_return nvme::ControllerStatus{got ? static_cast<uint32_t>(got->result) : 0};
}

Task<void> refuses_configurations(TargetBed& bed) {
  NvmeConnection& admin = bed.make_connection();
  CO_ASSERT_TRUE((co_await admin.open_and_connect(bed.address, TargetBed::admin_options())).has_value());
  const uint32_t bad[] = {
      1,                                       // entry sizes of 1 byte
      (kEnable & ~(0xfU << 16)) | (7U << 16),  // 128-byte submissions
      kEnable | (1U << 7),                     // 8 KiB pages
      kEnable | (1U << 11),                    // weighted arbitration
      kEnable | (3U << 4),                     // a reserved command set
  };
  for (const uint32_t raw : bad) {
    CO_ASSERT_OK(co_await admin.property_set(Property::kConfiguration, raw));
    const auto status = co_await read_status(admin);
    EXPECT_TRUE(status.fatal()) << raw;
    EXPECT_FALSE(status.ready()) << raw;
    // A reset heals it.
    CO_ASSERT_OK(co_await admin.property_set(Property::kConfiguration, 0));
    const auto reset = co_await read_status(admin);
    EXPECT_FALSE(reset.fatal()) << raw;
    CO_ASSERT_OK(co_await admin.property_set(Property::kConfiguration, kEnable));
    EXPECT_TRUE((co_await read_status(admin)).ready()) << raw;
    CO_ASSERT_OK(co_await admin.property_set(Property::kConfiguration, 0));
    EXPECT_FALSE((co_await read_status(admin)).ready()) << raw;
  }
}

TEST(Controller, RefusesConfigurationsAndHealsByReset) { run_in_worlds(refuses_configurations); }

Task<void> reset_with_queues(TargetBed& bed) {
  auto memory = make_memory_source({.size_bytes = 64 * kKiB, .logical_block = 4096});
  FaultRule delay;
  delay.delay = std::chrono::milliseconds(50);
  co_await bed.add_source(kNqn, make_faulty_source(std::move(*memory), {delay}), 2);
  const auto opened = co_await bed.open_host(TargetBed::io_options(3));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  NvmeConnection& admin = host.admin();
  CO_ASSERT_OK(co_await admin.set_features(nvme::Feature::kAsyncEvents, nvme::kAsyncEventNamespaceAttribute));
  CO_ASSERT_OK(co_await admin.set_features(nvme::Feature::kVolatileWriteCache, 0));
  CO_ASSERT_OK(co_await admin.set_features(nvme::Feature::kTemperatureThreshold, 400));
  std::array<NvmeConnection*, 3> queues = {&host.io(0), &host.io(1), &host.io(2)};
  for (int round = 0; round < 3; ++round) {
    Scope scope(bed.reactor());
    std::optional<Result<Completion>> event;
    scope.spawn(keep(admin.async_event(), event));
    co_await bed.sleep(std::chrono::milliseconds(1));
    // What runs on a device holds an old queue up while the new one connects.
    std::array<std::optional<Result<Completion>>, 3> reads;
    std::vector<std::byte> slow(4096);
    for (size_t i = 0; i < 3; ++i) scope.spawn(keep(queues[i]->read(2, 0, 1, slow), reads[i]));
    co_await bed.sleep(std::chrono::milliseconds(1));
    CO_ASSERT_OK(co_await admin.property_set(Property::kConfiguration, kEnable & ~1U));
    // The event request is given back, whose queues end.
    co_await scope.close();
    EXPECT_EQ(code_of(*event), StatusCode::kAbortRequested);
    // At once, without waiting for the old connections to be gone, as a quick host does.
    CO_ASSERT_OK(co_await admin.property_set(Property::kConfiguration, kEnable));
    EXPECT_TRUE((co_await read_status(admin)).ready());
    // Features are as new.
    const auto events = co_await admin.get_features(nvme::Feature::kAsyncEvents);
    EXPECT_TRUE(events && events->result == 0);
    const auto cache = co_await admin.get_features(nvme::Feature::kVolatileWriteCache);
    EXPECT_TRUE(cache && cache->result == 1);
    const auto temperature = co_await admin.get_features(nvme::Feature::kTemperatureThreshold);
    EXPECT_TRUE(temperature && temperature->result == 0);
    CO_ASSERT_OK(co_await admin.set_features(nvme::Feature::kNumberOfQueues, nvme::encode_queue_counts({3, 3})));
    for (uint16_t qid = 1; qid <= 3; ++qid) {
      QueueOptions queue = admin.options();
      queue.qid = qid;
      NvmeConnection& io = bed.make_connection();
      CO_ASSERT_TRUE((co_await io.open_and_connect(bed.address, queue)).has_value());
      queues[qid - 1U] = &io;
      std::vector<std::byte> block(4096);
      EXPECT_TRUE(succeeded(co_await io.read(1, 0, 1, block)));
    }
    // The old queues went without taking the numbers of the new ones along.
    co_await bed.sleep(std::chrono::milliseconds(100));
    for (uint16_t qid = 1; qid <= 3; ++qid) {
      QueueOptions queue = admin.options();
      queue.qid = qid;
      EXPECT_EQ(code_of(co_await connect_queue(bed, queue)), StatusCode::kCommandSequenceError);
    }
  }
  for (size_t i = 0; i < 3; ++i) co_await host.io(i).wait_closed();
}

TEST(Controller, AResetEndsIoQueuesAndStartsAnew) { run_in_worlds(reset_with_queues); }

Task<void> shutdown(TargetBed& bed) {
  for (const ShutdownNotice notice : {ShutdownNotice::kNormal, ShutdownNotice::kAbrupt}) {
    const auto opened = co_await bed.open_host(TargetBed::io_options(2));
    CO_ASSERT_TRUE(opened.has_value());
    NvmeConnection& admin = (*opened)->admin();
    const auto wanted = nvme::ControllerConfiguration{kEnable}.with_shutdown(notice);
    CO_ASSERT_OK(co_await admin.property_set(Property::kConfiguration, wanted.raw));
    const auto status = co_await read_status(admin);
    EXPECT_EQ(status.shutdown(), nvme::ShutdownStatus::kComplete);
    co_await (*opened)->io(0).wait_closed();
    co_await (*opened)->io(1).wait_closed();
    // Resetting and enabling it again is the way back.
    CO_ASSERT_OK(co_await admin.property_set(Property::kConfiguration, 0));
    CO_ASSERT_OK(co_await admin.enable());
    const auto again = co_await read_status(admin);
    EXPECT_EQ(again.shutdown(), nvme::ShutdownStatus::kNormal);
    EXPECT_TRUE(again.ready());
  }
}

TEST(Controller, ShutsDown) { run_in_worlds(shutdown); }

Task<void> disconnect_queue(TargetBed& bed) {
  const auto opened = co_await bed.open_host(TargetBed::io_options(2));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  EXPECT_TRUE(succeeded(co_await host.io(0).disconnect()));
  co_await host.io(0).wait_closed();
  // The other queue, and the number for a new one, are there.
  std::vector<std::byte> block(4096);
  EXPECT_TRUE(succeeded(co_await host.io(1).read(1, 0, 1, block)));
  co_await bed.sleep(std::chrono::milliseconds(100));
  NvmeConnection& again = bed.make_connection();
  EXPECT_TRUE((co_await again.open_and_connect(bed.address, host.io(0).options())).has_value());
  nvme::DisconnectCommand wrong;
  wrong.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kDisconnect);
  wrong.recfmt = 9;
  EXPECT_EQ(code_of(co_await again.submit(nvme::to_submission_entry(wrong), {})),
            StatusCode::kConnectIncompatibleFormat);
  EXPECT_TRUE(succeeded(co_await again.read(1, 0, 1, block)));
}

TEST(Controller, AnIoQueueDisconnects) { run_in_worlds(disconnect_queue); }

Task<void> goes_with_its_admin_queue(TargetBed& bed) {
  const auto opened = co_await bed.open_host(TargetBed::io_options(3));
  CO_ASSERT_TRUE(opened.has_value());
  co_await bed.sleep(std::chrono::milliseconds(10));
  EXPECT_EQ(bed.target().controller_count(), 1U);
  (*opened)->admin().cut();
  for (size_t i = 0; i < 3; ++i) co_await (*opened)->io(i).wait_closed();
  co_await bed.sleep(std::chrono::milliseconds(100));
  EXPECT_EQ(bed.target().controller_count(), 0U);
  CO_ASSERT_TRUE(bed.observed.disconnected.size() == 1);
  EXPECT_EQ(bed.observed.reasons[0], "the host closed the connection");
}

TEST(Controller, GoesWithItsAdminQueue) { run_in_worlds(goes_with_its_admin_queue); }

Task<void> handshake_timeout(TargetBed& bed) {
  const Instant start = bed.reactor().now();
  NvmeConnection& silent = bed.make_connection();
  CO_ASSERT_TRUE((co_await silent.open_stream(bed.address)).has_value());
  NvmeConnection& half = bed.make_connection();
  CO_ASSERT_TRUE((co_await half.open(bed.address, TargetBed::admin_options())).has_value());
  NvmeConnection& whole = bed.make_connection();
  CO_ASSERT_TRUE((co_await whole.open_and_connect(bed.address, TargetBed::admin_options())).has_value());
  co_await silent.wait_closed();
  co_await half.wait_closed();
  EXPECT_GE(bed.reactor().now() - start, std::chrono::seconds(29));
  EXPECT_LE(bed.reactor().now() - start, std::chrono::seconds(31));
  EXPECT_TRUE(succeeded(co_await whole.enable()));
}

TEST(Connect, AHostHasThirtySecondsForIt) { run_in_worlds(handshake_timeout); }

Task<void> too_many_connections(TargetBed& bed) {
  std::vector<NvmeConnection*> open;
  for (int i = 0; i < 8; ++i) {
    open.push_back(&bed.make_connection());
    CO_ASSERT_TRUE((co_await open.back()->open_and_connect(bed.address, TargetBed::admin_options())).has_value());
  }
  NvmeConnection& ninth = bed.make_connection();
  EXPECT_FALSE((co_await ninth.open(bed.address, TargetBed::admin_options())).has_value());
  open[3]->cut();
  co_await bed.sleep(std::chrono::milliseconds(100));
  NvmeConnection& tenth = bed.make_connection();
  EXPECT_TRUE((co_await tenth.open_and_connect(bed.address, TargetBed::admin_options())).has_value());
}

TEST(Connect, NoMoreThanTheLimit) {
  BedOptions options;
  options.target.connections_max = 8;
  run_in_worlds(too_many_connections, options);
}

Task<void> controller_ids(TargetBed& bed) {
  std::vector<NvmeConnection*> admins;
  for (uint16_t id = 10; id <= 13; ++id) {
    admins.push_back(&bed.make_connection());
    CO_ASSERT_TRUE((co_await admins.back()->open_and_connect(bed.address, TargetBed::admin_options())).has_value());
    EXPECT_EQ(admins.back()->controller_id(), id);
  }
  NvmeConnection& fifth = bed.make_connection();
  CO_ASSERT_TRUE((co_await fifth.open(bed.address, TargetBed::admin_options())).has_value());
  const auto refused = co_await fifth.connect();
  EXPECT_EQ(code_of(refused), StatusCode::kConnectControllerBusy);
  EXPECT_FALSE(refused && refused->status.do_not_retry);
  const std::string other = "nqn.2024-01.example:other";
  co_await bed.add_subsystem({.nqn = other, .serial = "", .allowed_hosts = {}});
  QueueOptions elsewhere = TargetBed::admin_options();
  elsewhere.subsystem_nqn = other;
  NvmeConnection& apart = bed.make_connection();
  CO_ASSERT_TRUE((co_await apart.open_and_connect(bed.address, elsewhere)).has_value());
  EXPECT_EQ(apart.controller_id(), 10) << "each subsystem has the range to itself";
  admins[2]->cut();
  co_await bed.sleep(std::chrono::milliseconds(100));
  CO_ASSERT_OK(co_await fifth.connect());
  EXPECT_EQ(fifth.controller_id(), 12);
}

TEST(Connect, ControllerIdsComeFromTheirRange) {
  BedOptions options;
  options.target.controller_id_min = 10;
  options.target.controller_id_max = 13;
  run_in_worlds(controller_ids, options);
}

}  // namespace
}  // namespace fairlead::testing
