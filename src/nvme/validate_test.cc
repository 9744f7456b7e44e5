#include "nvme/validate.h"

#include <gtest/gtest.h>

#include "nvme/nqn.h"

namespace fairlead::nvme {
namespace {

constexpr uint64_t kTop = UINT64_MAX;

SubmissionEntry nvm(NvmOpcode opcode, uint64_t slba, uint32_t blocks) {
  SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(opcode);
  entry.flags = kFlagsSgl;
  entry.nsid = 1;
  entry.set_slba(slba);
  entry.cdw12 = blocks - 1;
  return entry;
}

template <typename T>
StatusCode code_of(const StatusOr<T>& result) {
  if (!result) EXPECT_TRUE(result.error().do_not_retry);
  return result ? StatusCode::kSuccess : result.error().code;
}

TEST(ValidateTest, Flags) {
  for (uint32_t flags = 0; flags < 256; ++flags) {
    SubmissionEntry entry;
    entry.flags = static_cast<uint8_t>(flags);
    const bool good = (flags >> 6) == 1 && (flags & 3) != 3;
    EXPECT_EQ(check_flags(entry), good ? kOk : permanent(StatusCode::kInvalidField)) << flags;
  }
}

TEST(ValidateTest, DataPointer) {
  struct Case {
    uint64_t address;
    uint32_t length;
    uint8_t identifier;
    uint32_t capsule;
    StatusCode code;
    DataPointer pointer;
  };
  const auto kGood = StatusCode::kSuccess;
  const Case table[] = {
      {0, 4096, 0x5a, 0, kGood, {DataPlace::kTransport, 0, 4096}},
      {0, UINT32_MAX, 0x5a, 0, kGood, {DataPlace::kTransport, 0, UINT32_MAX}},
      {kTop, 512, 0x5a, 8192, kGood, {DataPlace::kTransport, 0, 512}},
      {0, 0, 0x5a, 0, kGood, {}},
      {0, 0, 0x00, 0, kGood, {}},
      {0, 512, 0x00, 512, StatusCode::kSglTypeInvalid, {}},
      {0, 512, 0x50, 512, StatusCode::kSglTypeInvalid, {}},
      {0, 512, 0x5f, 512, StatusCode::kSglTypeInvalid, {}},
      {0, 512, 0x0a, 512, StatusCode::kSglTypeInvalid, {}},
      {0, 16, 0x21, 512, StatusCode::kSglTypeInvalid, {}},
      {0, 16, 0x31, 512, StatusCode::kSglTypeInvalid, {}},
      {0, 512, 0x40, 512, StatusCode::kSglTypeInvalid, {}},
      {0, 512, 0xff, 512, StatusCode::kSglTypeInvalid, {}},
      {0, 512, 0x01, 512, kGood, {DataPlace::kInCapsule, 0, 512}},
      {512, 512, 0x01, 1024, kGood, {DataPlace::kInCapsule, 512, 512}},
      {0, 513, 0x01, 512, StatusCode::kDataSglLengthInvalid, {}},
      {1, 512, 0x01, 512, StatusCode::kDataSglLengthInvalid, {}},
      {512, 1, 0x01, 512, StatusCode::kDataSglLengthInvalid, {}},
      {512, 0, 0x01, 512, kGood, {}},
      {513, 0, 0x01, 512, StatusCode::kSglOffsetInvalid, {}},
      {0x1'0000'0000, 16, 0x01, 512, StatusCode::kSglOffsetInvalid, {}},
      {kTop, 16, 0x01, 512, StatusCode::kSglOffsetInvalid, {}},
      {kTop - 15, 16, 0x01, UINT32_MAX, StatusCode::kSglOffsetInvalid, {}},
      {0, UINT32_MAX, 0x01, 0, StatusCode::kDataSglLengthInvalid, {}},
  };
  for (const Case& c : table) {
    SubmissionEntry entry;
    entry.sgl.address = c.address;
    entry.sgl.length = c.length;
    entry.sgl.identifier = c.identifier;
    const auto pointer = decode_data_pointer(entry, c.capsule);
    SCOPED_TRACE(
        fmt::format("address {:#x} length {} id {:#x} capsule {}", c.address, c.length, c.identifier, c.capsule));
    EXPECT_EQ(code_of(pointer), c.code);
    if (pointer) EXPECT_EQ(*pointer, c.pointer);
  }
}

TEST(ValidateTest, RangesNearEachEnd) {
  struct Case {
    uint64_t slba;
    uint32_t blocks;
    uint64_t capacity;
    bool good;
  };
  const Case table[] = {
      {0, 1, 1, true},           {0, 2, 1, false},          {1, 1, 1, false},
      {0, 1, 0, false},          {99, 1, 100, true},        {99, 2, 100, false},
      {100, 1, 100, false},      {101, 1, 100, false},      {kTop, 1, kTop, false},
      {kTop - 1, 1, kTop, true}, {kTop, 65536, 100, false}, {kTop - 65535, 65536, 100, false},
      {0, 65536, 65536, true},   {kTop, 2, kTop, false},    {kTop - 65534, 65536, kTop, false},
      {1, 65536, 65536, false},  {0, 65536, 65535, false},
  };
  for (const Case& c : table) {
    SCOPED_TRACE(fmt::format("{:#x}+{} of {:#x}", c.slba, c.blocks, c.capacity));
    NamespaceLimits limits;
    limits.blocks = c.capacity;
    const auto expected = c.good ? StatusCode::kSuccess : StatusCode::kLbaOutOfRange;
    const auto transfer = decode_transfer(nvm(NvmOpcode::kRead, c.slba, c.blocks), limits, uint64_t{c.blocks} << 9);
    EXPECT_EQ(code_of(transfer), expected);
    if (transfer) {
      EXPECT_EQ(transfer->range, (NvmRange{Lba(c.slba), c.blocks}));
      EXPECT_EQ(transfer->bytes, uint64_t{c.blocks} * 512);
    }
    EXPECT_EQ(code_of(decode_verify(nvm(NvmOpcode::kVerify, c.slba, c.blocks), limits)), expected);
    EXPECT_EQ(code_of(decode_write_zeroes(nvm(NvmOpcode::kWriteZeroes, c.slba, c.blocks), limits)), expected);
    EXPECT_EQ(check_range({Lba(c.slba), c.blocks}, c.capacity).code, expected);
  }
}

TEST(ValidateTest, TransferLengthsAndFlags) {
  NamespaceLimits limits;
  limits.blocks = 1'000'000;
  limits.block_shift = 12;
  limits.max_transfer_bytes = 1 << 20;
  EXPECT_EQ(code_of(decode_transfer(nvm(NvmOpcode::kWrite, 0, 256), limits, 1 << 20)), StatusCode::kSuccess);
  EXPECT_EQ(code_of(decode_transfer(nvm(NvmOpcode::kWrite, 0, 257), limits, 257 << 12)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(decode_verify(nvm(NvmOpcode::kVerify, 0, 256), limits)), StatusCode::kSuccess);
  EXPECT_EQ(code_of(decode_verify(nvm(NvmOpcode::kVerify, 0, 257), limits)), StatusCode::kInvalidField);
  for (const uint64_t length : {uint64_t{0}, uint64_t{4095}, uint64_t{4097}, uint64_t{8192}, uint64_t{UINT32_MAX}}) {
    EXPECT_EQ(code_of(decode_transfer(nvm(NvmOpcode::kRead, 0, 1), limits, length)), StatusCode::kDataSglLengthInvalid)
        << length;
  }
  // 65536 blocks of 64 KiB are 2^32 bytes: no length of 32 bits equals that.
  limits.max_transfer_bytes = 0;
  limits.block_shift = 16;
  EXPECT_EQ(code_of(decode_transfer(nvm(NvmOpcode::kRead, 0, 65536), limits, 0)), StatusCode::kDataSglLengthInvalid);

  SubmissionEntry fua = nvm(NvmOpcode::kWrite, 5, 1);
  EXPECT_FALSE(decode_transfer(fua, limits, 1 << 16)->fua);
  fua.cdw12 = fua.cdw12 | kRwFua;
  EXPECT_TRUE(decode_transfer(fua, limits, 1 << 16)->fua);

  limits.max_zero_blocks = 100;
  SubmissionEntry zeroes = nvm(NvmOpcode::kWriteZeroes, 5, 100);
  EXPECT_FALSE(decode_write_zeroes(zeroes, limits)->deallocate);
  zeroes.cdw12 = zeroes.cdw12 | kRwDeallocate;
  EXPECT_TRUE(decode_write_zeroes(zeroes, limits)->deallocate);
  EXPECT_EQ(code_of(decode_write_zeroes(nvm(NvmOpcode::kWriteZeroes, 5, 101), limits)), StatusCode::kInvalidField);
}

TEST(ValidateTest, DatasetManagement) {
  SubmissionEntry entry;
  entry.cdw10 = 2;  // three ranges
  entry.cdw11 = kDsmDeallocate;
  const std::pair<uint64_t, bool> lengths[] = {{0, false}, {47, false},  {48, true},
                                               {64, true}, {4096, true}, {4097, false}};
  for (const auto& [length, good] : lengths) {
    const auto dsm = decode_dataset_management(entry, length);
    EXPECT_EQ(code_of(dsm), good ? StatusCode::kSuccess : StatusCode::kDataSglLengthInvalid) << length;
    if (dsm) {
      EXPECT_EQ(dsm->ranges, 3U);
      EXPECT_TRUE(dsm->deallocate);
    }
  }
  entry.cdw10 = 0xffffffff;
  entry.cdw11 = 0x3;
  const auto dsm = decode_dataset_management(entry, 4096);
  ASSERT_TRUE(dsm);
  EXPECT_EQ(dsm->ranges, 256U);
  EXPECT_FALSE(dsm->deallocate);
}

TEST(ValidateTest, DsmRanges) {
  DsmRange ranges[4];
  ranges[0].slba = 10;
  ranges[0].blocks = 90;
  ranges[1].slba = 10;
  ranges[1].blocks = 91;
  ranges[2].slba = kTop;
  ranges[2].blocks = UINT32_MAX;
  ranges[3].slba = 100;
  ranges[3].blocks = 0;
  const auto data = std::as_bytes(std::span(ranges));
  EXPECT_EQ(*decode_dsm_range(data, 0, 100), (NvmRange{Lba(10), 90}));
  EXPECT_EQ(code_of(decode_dsm_range(data, 1, 100)), StatusCode::kLbaOutOfRange);
  EXPECT_EQ(code_of(decode_dsm_range(data, 2, kTop)), StatusCode::kLbaOutOfRange);
  EXPECT_EQ(*decode_dsm_range(data, 3, 100), (NvmRange{Lba(100), 0}));
  EXPECT_DEATH((void)decode_dsm_range(data, 4, 100), "index");
}

TEST(ValidateTest, FusedPair) {
  SubmissionEntry first = nvm(NvmOpcode::kCompare, 7, 8);
  SubmissionEntry second = nvm(NvmOpcode::kWrite, 7, 8);
  first.flags = kFlagsSgl | 1;
  second.flags = kFlagsSgl | 2;
  EXPECT_TRUE(check_fused_pair(first, second).ok());
  EXPECT_FALSE(check_fused_pair(second, first).ok());
  const auto refuse = [&](auto&& change) {
    SubmissionEntry other = second;
    change(other);
    EXPECT_EQ(check_fused_pair(first, other), permanent(StatusCode::kInvalidField));
  };
  refuse([](SubmissionEntry& e) { e.nsid = 2; });
  refuse([](SubmissionEntry& e) { e.set_slba(8); });
  refuse([](SubmissionEntry& e) { e.set_slba(7 | (uint64_t{1} << 32)); });
  refuse([](SubmissionEntry& e) { e.cdw12 = 6; });
  refuse([](SubmissionEntry& e) { e.flags = kFlagsSgl; });
  refuse([](SubmissionEntry& e) { e.opcode = static_cast<uint8_t>(NvmOpcode::kRead); });
}

TEST(ValidateTest, GetLogPage) {
  SubmissionEntry entry;
  entry.nsid = kBroadcastNamespace;
  entry.cdw10 = 0x03ff'810c;  // 1024 dwords, RAE, specific 1, ANA
  entry.cdw11 = 0x0042'0000;
  entry.cdw12 = 0x10;
  entry.cdw13 = 0x1;
  const auto request = decode_get_log_page(entry, 4096);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->page, LogPage::kAna);
  EXPECT_EQ(request->specific, 1);
  EXPECT_TRUE(request->retain_event);
  EXPECT_EQ(request->specific_id, 0x42);
  EXPECT_EQ(request->offset, 0x1'0000'0010U);
  EXPECT_EQ(request->length, 4096U);
  EXPECT_EQ(request->nsid, kBroadcastNamespace);
  EXPECT_EQ(code_of(decode_get_log_page(entry, 4095)), StatusCode::kDataSglLengthInvalid);
  entry.cdw12 = 0x12;
  EXPECT_EQ(code_of(decode_get_log_page(entry, 4096)), StatusCode::kInvalidField);
  entry.cdw12 = 0x10;
  entry.cdw14 = 1U << 23;
  EXPECT_EQ(code_of(decode_get_log_page(entry, 4096)), StatusCode::kInvalidField);
  entry.cdw14 = 0;
  entry.cdw10 = 0xffff'000c;
  entry.cdw11 = 0xffff;
  EXPECT_EQ(code_of(decode_get_log_page(entry, UINT64_MAX)), StatusCode::kInvalidField);
}

TEST(ValidateTest, OtherAdminCommands) {
  SubmissionEntry entry;
  entry.nsid = 7;
  entry.cdw10 = 0x1234'0006;
  entry.cdw11 = 0x0200'0000;
  const auto identify = decode_identify(entry, 4096);
  ASSERT_TRUE(identify);
  EXPECT_EQ(identify->cns, Cns::kCommandSetController);
  EXPECT_EQ(identify->controller_id, 0x1234);
  EXPECT_EQ(identify->command_set, CommandSet::kZoned);
  EXPECT_EQ(identify->nsid, 7U);
  EXPECT_EQ(code_of(decode_identify(entry, 0)), StatusCode::kDataSglLengthInvalid);

  const AbortRequest abort = decode_abort(entry);
  EXPECT_EQ(abort.sqid, 0x0006);
  EXPECT_EQ(abort.cid, 0x1234);

  entry.cdw10 = 0x8000'0307;
  EXPECT_EQ(decode_get_features(entry)->select, FeatureSelect::kSupported);
  EXPECT_EQ(decode_get_features(entry)->feature, Feature::kNumberOfQueues);
  EXPECT_TRUE(decode_set_features(entry).save);
  EXPECT_EQ(decode_set_features(entry).value, 0x0200'0000U);
  entry.cdw10 = 0x407;
  EXPECT_EQ(code_of(decode_get_features(entry)), StatusCode::kInvalidField);
  EXPECT_FALSE(decode_set_features(entry).save);
}

TEST(ValidateTest, ReplicationControl) {
  SubmissionEntry send;
  send.nsid = 3;
  for (const uint32_t bytes : {1U, 77U, 8192U}) {
    const auto decoded = decode_replication_send(send, bytes);
    ASSERT_TRUE(decoded) << bytes;
    EXPECT_EQ(decoded->nsid, 3U);
    EXPECT_EQ(decoded->bytes, bytes);
  }
  SubmissionEntry receive = send;
  receive.cdw10 = 0x8000'0001;
  for (const uint32_t room : {1U, 77U, 65536U}) {
    const auto decoded = decode_replication_receive(receive, room);
    ASSERT_TRUE(decoded) << room;
    EXPECT_EQ(decoded->nsid, 3U);
    EXPECT_EQ(decoded->call, 0x8000'0001U);
    EXPECT_EQ(decoded->room, room);
  }
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{8193}, uint64_t{1} << 32}) {
    EXPECT_EQ(code_of(decode_replication_send(send, bytes)), StatusCode::kDataSglLengthInvalid) << bytes;
  }
  for (const uint64_t room : {uint64_t{0}, uint64_t{65537}, (uint64_t{1} << 32) + 1}) {
    EXPECT_EQ(code_of(decode_replication_receive(receive, room)), StatusCode::kDataSglLengthInvalid) << room;
  }
  for (const uint32_t nsid : {0U, kBroadcastNamespace}) {
    send.nsid = receive.nsid = nsid;
    EXPECT_EQ(code_of(decode_replication_send(send, 1)), StatusCode::kInvalidNamespaceOrFormat);
    EXPECT_EQ(code_of(decode_replication_receive(receive, 1)), StatusCode::kInvalidNamespaceOrFormat);
  }
  send.nsid = receive.nsid = 3;
  for (const auto field :
       {&SubmissionEntry::cdw2, &SubmissionEntry::cdw3, &SubmissionEntry::cdw11, &SubmissionEntry::cdw12,
        &SubmissionEntry::cdw13, &SubmissionEntry::cdw14, &SubmissionEntry::cdw15}) {
    SubmissionEntry wrong = send;
    wrong.*field = 0x0100;
    EXPECT_EQ(code_of(decode_replication_send(wrong, 1)), StatusCode::kInvalidField);
    wrong = receive;
    wrong.*field = 0x0100;
    EXPECT_EQ(code_of(decode_replication_receive(wrong, 1)), StatusCode::kInvalidField);
  }
  EXPECT_EQ(code_of(decode_replication_send(receive, 1)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(decode_replication_receive(send, 1)), StatusCode::kInvalidField);
}

TEST(ValidateTest, ReplicationSent) {
  for (const ReplicationSent sent : {ReplicationSent{}, {1, 1}, {0xffff'ffff, 65536}}) {
    EXPECT_EQ(decode_replication_sent(encode_replication_sent(sent)), sent);
  }
  for (const ReplicationSent sent : {ReplicationSent{0, 1}, {1, 0}, {1, 65537}, {1, 0xffff'ffff}}) {
    EXPECT_FALSE(decode_replication_sent(encode_replication_sent(sent))) << sent.call << ' ' << sent.bytes;
  }
}

TEST(ValidateTest, Properties) {
  for (uint32_t offset = 0; offset < 0x100; ++offset) {
    for (uint8_t attribute = 0; attribute < 8; ++attribute) {
      PropertyCommand view;
      view.attrib = attribute;
      view.offset = offset;
      view.value = 0x1122334455667788;
      const SubmissionEntry entry = to_submission_entry(view);
      const bool four = offset == 0x8 || offset == 0x14 || offset == 0x1c || offset == 0x20;
      const bool known = (attribute == 1 && offset == 0) || (attribute == 0 && four);
      EXPECT_EQ(decode_property_get(entry).has_value(), known) << offset << " " << int{attribute};
      const auto set = decode_property_set(entry);
      EXPECT_EQ(set.has_value(), attribute == 0 && (offset == 0x14 || offset == 0x20)) << offset;
      if (set) EXPECT_EQ(set->value, 0x55667788U);
    }
  }
  PropertyCommand far;
  far.offset = 0xffffffff;
  EXPECT_EQ(code_of(decode_property_get(to_submission_entry(far))), StatusCode::kInvalidField);
}

struct Connect {
  ConnectCommand command;
  ConnectData data;

  Connect() {
    command.prefix.fctype = static_cast<uint8_t>(FabricsType::kConnect);
    command.sqsize = 31;
    command.kato = 5000;
    data.cntlid = kDynamicControllerId;
    data.host_id[15] = 9;
    write_zero_terminated(data.subnqn, "nqn.2024-12.example:disk");
    write_zero_terminated(data.hostnqn, "host");
  }
  std::expected<ConnectRequest, ConnectError> decode(size_t cut = 0) const {
    return decode_connect(to_submission_entry(command), std::as_bytes(std::span(&data, 1)).first(1024 - cut));
  }
};

TEST(ValidateTest, ConnectGood) {
  Connect connect;
  connect.command.cattr = kConnectDisableSqFlowControl;
  const auto request = connect.decode();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->queue_entries, 32U);
  EXPECT_EQ(request->keep_alive_ms, 5000U);
  EXPECT_EQ(request->controller_id, kDynamicControllerId);
  EXPECT_EQ(request->subsystem_nqn, "nqn.2024-12.example:disk");
  EXPECT_EQ(request->host_nqn, "host");
  EXPECT_EQ(request->host_id[15], 9);
  EXPECT_TRUE(request->disable_sq_flow_control);
  connect.command.qid = 4;
  connect.command.sqsize = 0xffff;
  connect.data.cntlid = 1;
  const auto io = connect.decode();
  ASSERT_TRUE(io);
  EXPECT_EQ(io->qid, 4);
  EXPECT_EQ(io->queue_entries, 65536U);
}

TEST(ValidateTest, ConnectBad) {
  const auto expect = [](const Connect& connect, StatusCode code, uint32_t dw0, size_t cut = 0) {
    const auto request = connect.decode(cut);
    ASSERT_FALSE(request);
    EXPECT_EQ(request.error().status, permanent(code));
    EXPECT_EQ(request.error().dw0, dw0);
  };
  const auto kParameters = StatusCode::kConnectInvalidParameters;
  const auto with = [](auto&& change) {
    Connect connect;
    change(connect);
    return connect;
  };
  expect(with([](Connect& c) { c.command.recfmt = 1; }), StatusCode::kConnectIncompatibleFormat, 0);
  expect(with([](Connect& c) { c.command.sqsize = 0; }), kParameters, 44);
  expect(with([](Connect& c) { std::ranges::fill(c.data.subnqn, 'x'); }), kParameters, 0x10100);
  expect(with([](Connect& c) { c.data.subnqn[0] = 0; }), kParameters, 0x10100);
  expect(with([](Connect& c) { c.data.subnqn[3] = '\n'; }), kParameters, 0x10100);
  expect(with([](Connect& c) { std::ranges::fill(c.data.hostnqn, 'x'); }), kParameters, 0x10200);
  expect(with([](Connect& c) { std::fill_n(c.data.hostnqn, 224, 'x'); }), kParameters, 0x10200);
  expect(with([](Connect& c) { c.data.cntlid = 1; }), kParameters, 0x10010);
  expect(with([](Connect& c) { c.command.qid = 1; }), kParameters, 0x10010);
  expect(Connect(), StatusCode::kDataSglLengthInvalid, 0, 1);
  expect(Connect(), StatusCode::kDataSglLengthInvalid, 0, 1024);
}

TEST(ValidateTest, Disconnect) {
  DisconnectCommand view;
  EXPECT_TRUE(check_disconnect(to_submission_entry(view)).ok());
  view.recfmt = 1;
  EXPECT_EQ(check_disconnect(to_submission_entry(view)).code, StatusCode::kConnectIncompatibleFormat);
}

}  // namespace
}  // namespace fairlead::nvme
