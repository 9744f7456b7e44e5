// Identify, features and log pages of an I/O controller: NVMe base 2.0 sections 5.15 to 5.17 and 5.27.
#include "base/uuid.h"
#include "block/faulty.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::Cns;
using nvme::Feature;
using nvme::LogPage;
using nvme::StatusCode;

template <typename T>
std::span<std::byte> bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

Task<void> controller_structure(TargetBed& bed) {
  const auto opened = co_await bed.open_host(TargetBed::io_options(1));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  nvme::IdentifyController id;
  CO_ASSERT_OK(co_await admin.identify(Cns::kController, 0, bytes_of(id)));
  EXPECT_EQ(std::string(id.subnqn), kNqn);
  EXPECT_EQ(std::string(nvme::read_space_padded(id.mn)), "Fairlead");
  EXPECT_EQ(nvme::read_space_padded(id.sn).size(), 16U);
  EXPECT_EQ(id.cntlid, admin.controller_id());
  EXPECT_EQ(id.ver, nvme::kVersion_2_0);
  EXPECT_EQ(id.cntrltype, static_cast<uint8_t>(nvme::ControllerType::kIo));
  EXPECT_EQ(4096U << id.mdts, 1 * kMiB);
  EXPECT_EQ(id.ioccsz, (64U + target::TargetOptions{}.in_capsule_bytes) / 16);
  EXPECT_EQ(id.iorcsz, 1U);
  EXPECT_EQ(id.icdoff, 0U);
  EXPECT_EQ(id.sqes, 0x66);
  EXPECT_EQ(id.cqes, 0x44);
  EXPECT_EQ(id.nn, 1024U);
  EXPECT_EQ(id.aerl, 3);
  EXPECT_EQ(id.maxcmd, 1024U);
  EXPECT_NE(id.kas, 0U);
  EXPECT_EQ(id.anagrpmax, 128U);
  EXPECT_NE(id.cmic & nvme::kCmicAnaReporting, 0);
  EXPECT_EQ(id.fuses, 1U);
  EXPECT_EQ(id.acwu, 15U) << "64 KiB of 4 KiB blocks";
  EXPECT_EQ(id.sgls.get() & 3, 1U);
  // A shorter buffer gets the front.
  std::vector<std::byte> front(512);
  CO_ASSERT_OK(co_await admin.identify(Cns::kController, 0, front));
  EXPECT_EQ(std::memcmp(front.data(), &id, front.size()), 0);
}

TEST(Identify, Controller) { run_in_worlds(controller_structure); }

Task<void> namespace_structures(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  nvme::IdentifyNamespace id;
  CO_ASSERT_OK(co_await admin.identify(Cns::kNamespace, 1, bytes_of(id)));
  EXPECT_EQ(id.nsze, 16 * kMiB / 4096);
  EXPECT_EQ(id.ncap, id.nsze.get());
  EXPECT_EQ(id.lbaf[0].lbads, 12);
  EXPECT_EQ(id.flbas, 0);
  EXPECT_EQ(id.nlbaf, 0);
  EXPECT_EQ(id.anagrpid, 1U);
  EXPECT_EQ(id.nmic, 1);
  EXPECT_EQ(id.nsattr, 0);
  EXPECT_EQ(id.dlfeat, nvme::kDlfeatReadsZeroes | nvme::kDlfeatWriteZeroesDeallocates) << "memory promises zeroes";
  nvme::IdentifyNamespace none;
  CO_ASSERT_OK(co_await admin.identify(Cns::kNamespace, 7, bytes_of(none)));
  EXPECT_EQ(none.nsze, 0U);
  for (const uint32_t nsid : {0U, 1025U, 0xfffffffeU}) {
    EXPECT_EQ(code_of(co_await admin.identify(Cns::kNamespace, nsid, bytes_of(none))),
              StatusCode::kInvalidNamespaceOrFormat);
  }
  nvme::IdentifyIndependentNamespace independent;
  std::vector<std::byte> page(4096);
  CO_ASSERT_OK(co_await admin.identify(Cns::kIndependentNamespace, 1, bytes_of(independent)));
  EXPECT_EQ(independent.nstat, nvme::kNstatReady);
  EXPECT_EQ(independent.anagrpid, 1U);
  EXPECT_EQ(code_of(co_await admin.identify(Cns::kIndependentNamespace, 2, page)),
            StatusCode::kInvalidNamespaceOrFormat);
  nvme::IdentifyNvmNamespace nvm;
  CO_ASSERT_OK(co_await admin.identify(Cns::kCommandSetNamespace, 1, bytes_of(nvm)));
  EXPECT_EQ(nvm.lbstm, 0U);
  nvme::IdentifyNvmController limits;
  CO_ASSERT_OK(co_await admin.identify(Cns::kCommandSetController, 0, bytes_of(limits)));
  EXPECT_EQ(limits.wzsl, 13);
  EXPECT_EQ(code_of(co_await admin.identify(Cns::kCommandSetNamespace, 1, page, nvme::CommandSet::kZoned)),
            StatusCode::kInvalidField);
  nvme::CommandSetVector sets;
  CO_ASSERT_OK(co_await admin.identify(Cns::kCommandSets, 0, bytes_of(sets), {}, 0xffff));
  EXPECT_EQ(sets.combination[0], 1U);
  EXPECT_EQ(sets.combination[1], 0U);
  for (const Cns cns : {Cns::kNvmSetList, Cns::kAllocatedNamespaces, Cns::kUuidList, static_cast<Cns>(0xee)}) {
    EXPECT_EQ(code_of(co_await admin.identify(cns, 0, page)), StatusCode::kInvalidField);
  }
}

TEST(Identify, Namespaces) { run_in_worlds(namespace_structures); }

Task<void> descriptors(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  const Uuid uuid = *parse_uuid("12345678-1234-4234-8234-123456789abc");
  auto source = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 512});
  const auto added = co_await bed.at_target(
      bed.target().add_namespace(kNqn, {.nsid = 9, .source = std::move(*source), .uuid = uuid, .ana_group = 5}));
  CO_ASSERT_TRUE(added == 9U);
  std::vector<std::byte> page(4096);
  CO_ASSERT_OK(co_await admin.identify(Cns::kNamespaceDescriptors, 9, page));
  EXPECT_EQ(page[0], std::byte{2});
  EXPECT_EQ(page[1], std::byte{16});
  EXPECT_EQ(page[20], std::byte{3});
  EXPECT_EQ(page[21], std::byte{16});
  EXPECT_EQ(std::memcmp(&page[4], uuid.bytes.data(), 16), 0);
  EXPECT_EQ(std::memcmp(&page[24], uuid.bytes.data(), 16), 0);
  EXPECT_EQ(page[40], std::byte{4});
  EXPECT_EQ(page[44], std::byte{0});
  EXPECT_EQ(page[45], std::byte{0}) << "the end";
  nvme::IdentifyNamespace id;
  CO_ASSERT_OK(co_await admin.identify(Cns::kNamespace, 9, bytes_of(id)));
  EXPECT_EQ(id.lbaf[0].lbads, 9);
  EXPECT_EQ(id.anagrpid, 5U);
  EXPECT_EQ(std::memcmp(id.nguid, uuid.bytes.data(), 16), 0);
  EXPECT_EQ(code_of(co_await admin.identify(Cns::kNamespaceDescriptors, 2, page)),
            StatusCode::kInvalidNamespaceOrFormat);
  nvme::NamespaceList list;
  CO_ASSERT_OK(co_await admin.identify(Cns::kActiveNamespaces, 0, bytes_of(list)));
  EXPECT_EQ(list.nsid[0], 1U);
  EXPECT_EQ(list.nsid[1], 9U);
  EXPECT_EQ(list.nsid[2], 0U);
  CO_ASSERT_OK(co_await admin.identify(Cns::kCommandSetActiveNamespaces, 1, bytes_of(list)));
  EXPECT_EQ(list.nsid[0], 9U);
  EXPECT_EQ(list.nsid[1], 0U);
  EXPECT_EQ(code_of(co_await admin.identify(Cns::kActiveNamespaces, 0xffffffff, page)),
            StatusCode::kInvalidNamespaceOrFormat);
}

TEST(Identify, DescriptorsAndLists) { run_in_worlds(descriptors); }

Task<void> names_survive(TargetBed& bed) {
  // Without a UUID of its own a namespace has one that is derived from names: the same in every life of the target.
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  nvme::IdentifyNamespace id;
  CO_ASSERT_OK(co_await (*opened)->admin().identify(Cns::kNamespace, 1, bytes_of(id)));
  const Uuid expected = uuid_from_name(kFairleadNamespace, std::string(kNqn) + "#1");
  EXPECT_EQ(std::memcmp(id.nguid, expected.bytes.data(), 16), 0);
}

TEST(Identify, NamesSurviveARestart) { TargetBed().run(names_survive); }

Task<void> features(TargetBed& bed) {
  const auto opened = co_await bed.open_host(TargetBed::io_options(0));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  struct Case {
    Feature feature;
    uint32_t set;
    uint64_t got;
  };
  const Case cases[] = {
      {Feature::kArbitration, 0x07, 0x07},
      {Feature::kPowerManagement, 0, 0},
      {Feature::kTemperatureThreshold, 350, 350},
      {Feature::kErrorRecovery, 5, 5},
      {Feature::kVolatileWriteCache, 0, 0},
      {Feature::kVolatileWriteCache, 1, 1},
      {Feature::kWriteAtomicity, 1, 1},
      {Feature::kAsyncEvents, 0x900, 0x900},
      {Feature::kKeepAlive, 1, 100},
      {Feature::kKeepAlive, 12'345, 12'400},
      {Feature::kKeepAlive, 0, 0},
  };
  for (const Case& each : cases) {
    EXPECT_TRUE(succeeded(co_await admin.set_features(each.feature, each.set)));
    const auto got = co_await admin.get_features(each.feature);
    EXPECT_TRUE(succeeded(got) && got->result == each.got) << static_cast<int>(each.feature) << ' ' << each.set;
  }
  const auto queues = co_await admin.set_features(Feature::kNumberOfQueues, nvme::encode_queue_counts({500, 70}));
  CO_ASSERT_OK(queues);
  EXPECT_EQ(nvme::decode_queue_counts(static_cast<uint32_t>(queues->result)), (nvme::QueueCounts{70, 70}));
  const auto many = co_await admin.set_features(Feature::kNumberOfQueues, nvme::encode_queue_counts({500, 700}));
  EXPECT_EQ(nvme::decode_queue_counts(static_cast<uint32_t>(many->result)), (nvme::QueueCounts{128, 128}));
  const auto known = co_await admin.get_features(Feature::kNumberOfQueues);
  EXPECT_EQ(known->result, many->result);
  EXPECT_EQ(code_of(co_await admin.set_features(Feature::kNumberOfQueues, 0xffff)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.set_features(Feature::kPowerManagement, 1)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.set_features(Feature::kTimestamp, 0)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.get_features(Feature::kTimestamp)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.set_features(Feature::kHostIdentifier, 1)), StatusCode::kCommandSequenceError);
  EXPECT_EQ(code_of(co_await admin.get_features(Feature::kArbitration, {}, nvme::FeatureSelect::kDefault)),
            StatusCode::kInvalidField);
  std::array<std::byte, 16> host_id;
  CO_ASSERT_OK(co_await admin.get_features(Feature::kHostIdentifier, host_id));
  EXPECT_EQ(std::memcmp(host_id.data(), admin.options().host_id.data(), 16), 0);
  nvme::SubmissionEntry save;
  save.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kSetFeatures);
  save.cdw10 = static_cast<uint32_t>(Feature::kArbitration) | nvme::kSetFeaturesSave;
  EXPECT_EQ(code_of(co_await admin.submit(save, {})), StatusCode::kFeatureNotSaveable);
  // With an I/O queue there their number is settled.
  QueueOptions queue = admin.options();
  queue.qid = 128;
  CO_ASSERT_TRUE((co_await bed.make_connection().open_and_connect(bed.address, queue)).has_value());
  EXPECT_EQ(code_of(co_await admin.set_features(Feature::kNumberOfQueues, 0)), StatusCode::kCommandSequenceError);
}

TEST(Features, AreSetAndRead) { run_in_worlds(features); }

// Reads a log in pieces of a size that fits none of its parts.
Task<Result<std::vector<std::byte>>> read_in_pieces(NvmeConnection& admin, LogPage page, size_t length) {
  std::vector<std::byte> whole(length);
  for (size_t at = 0; at < length;) {
    const size_t piece = std::min<size_t>(length - at, 52);
    FL_CO_TRY(const Completion got,
              co_await admin.get_log_page(page, std::span(whole).subspan(at, piece), {.offset = at}));
    if (!got.ok()) co_return fail(Code::kProtocol, "log page");
    at += piece;
  }
  co_return whole;
}

Task<void> log_pages(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  nvme::SupportedLogPages supported;
  CO_ASSERT_OK(co_await admin.get_log_page(LogPage::kSupportedPages, bytes_of(supported)));
  const LogPage pages[] = {
      LogPage::kSupportedPages,    LogPage::kErrorInformation, LogPage::kHealth, LogPage::kFirmwareSlot,
      LogPage::kChangedNamespaces, LogPage::kCommandEffects,   LogPage::kAna};
  std::vector<std::byte> dword(4);
  for (uint32_t i = 0; i < 256; ++i) {
    const bool expected = std::ranges::find(pages, static_cast<LogPage>(i)) != std::end(pages);
    EXPECT_EQ(supported.page[i].get() & 1, expected ? 1U : 0U) << i;
    const auto got = co_await admin.get_log_page(static_cast<LogPage>(i), dword);
    EXPECT_EQ(code_of(got), expected ? StatusCode::kSuccess : StatusCode::kInvalidLogPage) << i;
  }
  nvme::FirmwareSlots firmware;
  CO_ASSERT_OK(co_await admin.get_log_page(LogPage::kFirmwareSlot, bytes_of(firmware)));
  EXPECT_EQ(firmware.active, 1);
  EXPECT_EQ(firmware.revision[0][0], '0');
  nvme::CommandEffects effects;
  CO_ASSERT_OK(co_await admin.get_log_page(LogPage::kCommandEffects, bytes_of(effects)));
  EXPECT_EQ(effects.io[1], nvme::kEffectSupported | nvme::kEffectBlockContentChange);
  EXPECT_EQ(effects.io[2], nvme::kEffectSupported);
  EXPECT_EQ(effects.io[0x0d], 0U);
  EXPECT_EQ(effects.admin[6], nvme::kEffectSupported);
  const auto pieces = co_await read_in_pieces(admin, LogPage::kCommandEffects, sizeof effects);
  CO_ASSERT_TRUE(pieces.has_value());
  EXPECT_EQ(std::memcmp(pieces->data(), &effects, sizeof effects), 0);
  // Zeroes behind the end, an error from an offset beyond it.
  std::vector<std::byte> tail(64, std::byte{0xee});
  CO_ASSERT_OK(co_await admin.get_log_page(LogPage::kFirmwareSlot, tail, {.offset = 512}));
  EXPECT_EQ(tail, std::vector<std::byte>(64));
  EXPECT_EQ(code_of(co_await admin.get_log_page(LogPage::kFirmwareSlot, tail, {.offset = 516})),
            StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await admin.get_log_page(LogPage::kFirmwareSlot, tail, {.offset = 2})),
            StatusCode::kInvalidField);
}

TEST(Logs, EachPageAndItsWindows) { run_in_worlds(log_pages); }

Task<void> error_log(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  std::vector<nvme::ErrorInformation> log(64);
  const auto out = std::as_writable_bytes(std::span(log));
  CO_ASSERT_OK(co_await admin.get_log_page(LogPage::kErrorInformation, out));
  EXPECT_EQ(log[0].error_count, 0U);
  std::vector<std::byte> page(4096);
  uint16_t last_cid = 0;
  for (uint32_t i = 1; i <= 70; ++i) {
    last_cid = admin.next_cid();
    EXPECT_FALSE(succeeded(co_await admin.identify(Cns::kNamespaceDescriptors, 100 + i, page)));
  }
  CO_ASSERT_OK(co_await admin.get_log_page(LogPage::kErrorInformation, out));
  for (uint32_t i = 0; i < 64; ++i) {
    EXPECT_EQ(log[i].error_count, 70U - i);
    EXPECT_EQ(log[i].nsid, 170U - i);
    EXPECT_EQ(nvme::from_status_field(log[i].status_field.get()).code, StatusCode::kInvalidNamespaceOrFormat);
  }
  EXPECT_EQ(log[0].cid, last_cid);
  nvme::HealthInformation health;
  CO_ASSERT_OK(co_await admin.get_log_page(LogPage::kHealth, bytes_of(health), {.nsid = 0xffffffff}));
  EXPECT_EQ(health.error_log_entries.low, 70U);
}

TEST(Logs, ErrorsNewestFirst) { run_in_worlds(error_log); }

Task<void> health_log(TargetBed& bed) {
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 4096});
  FaultRule broken;
  broken.operations = op_set(IoOp::kRead);
  broken.from = ByteOffset(512 * kKiB);
  broken.error = Code::kIo;
  const uint32_t nsid = co_await bed.add_source(kNqn, make_faulty_source(std::move(*memory), {broken}));
  const auto opened = co_await bed.open_host(TargetBed::io_options(3));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  std::vector<std::byte> data(256 * kKiB);
  for (size_t i = 0; i < 3; ++i) {
    CO_ASSERT_OK(co_await host.io(i).write(nsid, 0, 64, data));
    CO_ASSERT_OK(co_await host.io(i).read(nsid, 0, 64, data));
    CO_ASSERT_OK(co_await host.io(i).read(1, 0, 64, data));
    EXPECT_EQ(code_of(co_await host.io(i).read(nsid, 128, 1, std::span(data).first(4096))), StatusCode::kInternalError);
  }
  nvme::HealthInformation health;
  CO_ASSERT_OK(co_await host.admin().get_log_page(LogPage::kHealth, bytes_of(health)));
  EXPECT_EQ(health.critical_warning, 0);
  EXPECT_EQ(health.host_write_commands.low, 3U);
  EXPECT_EQ(health.host_read_commands.low, 9U);
  EXPECT_EQ(health.data_units_written.low, 2U);  // 768 KiB in thousands of 512 bytes, rounded up
  EXPECT_EQ(health.data_units_read.low, 4U);
  EXPECT_EQ(health.media_errors.low, 3U);
}

TEST(Logs, HealthSumsUpAllShards) {
  BedOptions options;
  options.shards = 3;
  TargetBed(options).run(health_log);
}

Task<void> ana_log(TargetBed& bed) {
  auto source = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 4096});
  const auto added = co_await bed.at_target(
      bed.target().add_namespace(kNqn, {.nsid = 3, .source = std::move(*source), .uuid = {}, .ana_group = 7}));
  CO_ASSERT_TRUE(added.has_value());
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  const auto set = co_await bed.at_target(bed.target().set_ana_state(kNqn, 0, 7, target::AnaState::kNonOptimized));
  CO_ASSERT_TRUE(set.has_value());
  struct {
    nvme::AnaHeader header;
    nvme::AnaGroupDescriptor one;
    Le32 one_nsid;
    nvme::AnaGroupDescriptor seven;
    Le32 seven_nsid;
  } log;
  static_assert(sizeof log == 16 + 36 + 36);
  CO_ASSERT_OK(co_await (*opened)->admin().get_log_page(LogPage::kAna, bytes_of(log)));
  EXPECT_EQ(log.header.groups, 2U);
  EXPECT_EQ(log.header.change_count, 1U);
  EXPECT_EQ(log.one.group, 1U);
  EXPECT_EQ(log.one.namespaces, 1U);
  EXPECT_EQ(log.one.state, 1);
  EXPECT_EQ(log.one_nsid, 1U);
  EXPECT_EQ(log.seven.group, 7U);
  EXPECT_EQ(log.seven.state, 2);
  EXPECT_EQ(log.seven_nsid, 3U);
  struct {
    nvme::AnaHeader header;
    nvme::AnaGroupDescriptor group[2];
  } groups;
  CO_ASSERT_OK(
      co_await (*opened)->admin().get_log_page(LogPage::kAna, bytes_of(groups), {.specific = nvme::kAnaLogGroupsOnly}));
  EXPECT_EQ(groups.group[1].group, 7U);
  EXPECT_EQ(groups.group[1].namespaces, 0U);
}

TEST(Logs, AnaGroups) { run_in_worlds(ana_log); }

}  // namespace
}  // namespace fairlead::testing
