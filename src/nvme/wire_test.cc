// Layouts against bytes written out by hand from the specifications, status and property conversions, names.
#include <gtest/gtest.h>

#include "nvme/features.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/pdu.h"
#include "nvme/properties.h"
#include "nvme/status.h"
#include "nvme/text.h"

namespace fairlead::nvme {
namespace {

template <typename T>
std::vector<uint8_t> bytes_of(const T& value) {
  std::vector<uint8_t> bytes(sizeof(T));
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

TEST(WireTest, FreshStructuresAreAllZero) {
  const auto expect_zero = [](const auto& value) {
    EXPECT_EQ(bytes_of(value), std::vector<uint8_t>(sizeof(value), 0));
  };
  expect_zero(SubmissionEntry{});
  expect_zero(CompletionEntry{});
  expect_zero(ConnectData{});
  expect_zero(IdentifyController{});
  expect_zero(IdentifyNamespace{});
  expect_zero(IdentifyNvmNamespace{});
  expect_zero(IdentifyNvmController{});
  expect_zero(IdentifyIndependentNamespace{});
  expect_zero(ErrorInformation{});
  expect_zero(HealthInformation{});
  expect_zero(FirmwareSlots{});
  expect_zero(CommandEffects{});
  expect_zero(DiscoveryHeader{});
  expect_zero(DiscoveryEntry{});
  expect_zero(IcReqPdu{});
  expect_zero(IcRespPdu{});
}

TEST(WireTest, ReadCommandOfAHost) {
  // Read of 8 blocks at LBA 0x1122334455, CID 0x0203, NSID 1, 4 KiB by the transport.
  const uint8_t golden[64] = {0x02, 0x40, 0x03, 0x02, 0x01, 0, 0, 0,    0,    0,    0,    0,    0,    0, 0, 0,
                              0,    0,    0,    0,    0,    0, 0, 0,    0,    0,    0,    0,    0,    0, 0, 0,
                              0x00, 0x10, 0,    0,    0,    0, 0, 0x5a, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0, 0,
                              0x07, 0x00, 0,    0x40, 0,    0, 0, 0,    0,    0,    0,    0,    0,    0, 0, 0};
  SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(NvmOpcode::kRead);
  entry.flags = kFlagsSgl;
  entry.cid = 0x0203;
  entry.nsid = 1;
  entry.sgl = SglDescriptor::transport(4096);
  entry.set_slba(0x1122334455);
  entry.cdw12 = 7 | kRwFua;
  EXPECT_EQ(bytes_of(entry), std::vector<uint8_t>(golden, golden + 64));
  EXPECT_EQ(entry.slba(), 0x1122334455U);
  EXPECT_EQ(entry.data_pointer_kind(), DataPointerKind::kSglContiguousMetadata);
  EXPECT_EQ(entry.fuse(), Fuse::kNone);
}

TEST(WireTest, ConnectIsAnotherReadingOfTheEntry) {
  ConnectCommand connect;
  connect.prefix.fctype = static_cast<uint8_t>(FabricsType::kConnect);
  connect.prefix.cid = 9;
  connect.prefix.sgl = SglDescriptor::in_capsule(0, 1024);
  connect.qid = 3;
  connect.sqsize = 127;
  connect.kato = 5000;
  const SubmissionEntry entry = to_submission_entry(connect);
  EXPECT_TRUE(entry.is_fabrics());
  EXPECT_EQ(entry.fabrics_type(), FabricsType::kConnect);
  EXPECT_EQ(entry.cid, 9);
  EXPECT_EQ(entry.sgl.type(), SglType::kDataBlock);
  EXPECT_EQ(entry.sgl.subtype(), SglSubtype::kOffset);
  EXPECT_EQ(entry.cdw10, 0x00030000U);
  EXPECT_EQ(entry.cdw11, 127U);
  EXPECT_EQ(entry.cdw12, 5000U);
  EXPECT_EQ(fabrics_view<ConnectCommand>(entry).qid, 3);
}

TEST(WireTest, StatusField) {
  EXPECT_EQ(to_status_field(kOk), 0);
  EXPECT_EQ(to_status_field(transient(StatusCode::kInvalidField)), 0x0004);
  EXPECT_EQ(to_status_field(permanent(StatusCode::kInvalidField)), 0x8004);
  EXPECT_EQ(to_status_field(permanent(StatusCode::kConnectInvalidParameters)), 0x8304);
  EXPECT_EQ(to_status_field(transient(StatusCode::kAnaInaccessible)), 0x0604);
  EXPECT_EQ(to_status_field({StatusCode::kUnrecoveredReadError, true, true}), 0xc502);
  // Each field but phase and retry delay survives.
  for (uint32_t field = 0; field <= 0xffff; ++field) {
    const Status status = from_status_field(static_cast<uint16_t>(field));
    EXPECT_EQ(to_status_field(status), field & 0xcffe);
  }
}

TEST(WireTest, EachErrorHasANamedStatusAndRetriesOnlyWhereThatHelps) {
  for (int i = 0; i < kCodeCount; ++i) {
    const Error error{static_cast<Code>(i)};
    const Status status = status_from_error(error);
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status_name(status.code), "unknown") << code_info(error.code).name;
    const bool is_final = !code_info(error.code).retry_can_help && status.type() != StatusCodeType::kPath;
    EXPECT_EQ(status.do_not_retry, is_final) << code_info(error.code).name;
  }
}

TEST(WireTest, StatusBecomesTheClosestError) {
  const std::pair<StatusCode, Code> table[] = {
      {StatusCode::kLbaOutOfRange, Code::kOutOfRange},
      {StatusCode::kCompareFailure, Code::kMiscompare},
      {StatusCode::kNamespaceWriteProtected, Code::kReadOnly},
      {StatusCode::kFenced, Code::kFenced},
      {StatusCode::kCapacityExceeded, Code::kNoSpace},
      {StatusCode::kUnrecoveredReadError, Code::kCorrupt},
      {StatusCode::kAnaInaccessible, Code::kUnreachable},
      {StatusCode::kInternalPathError, Code::kUnreachable},
      {StatusCode::kTransientTransportError, Code::kConnectionLost},
      {static_cast<StatusCode>(0x7c1), Code::kIo},
  };
  for (const auto& [status, code] : table) {
    const Error error = error_from_status(transient(status), "read");
    EXPECT_EQ(error.code, code) << to_string(transient(status));
    EXPECT_STREQ(error.what, "read");
  }
}

TEST(WireTest, StatusText) {
  EXPECT_EQ(to_string(permanent(StatusCode::kLbaOutOfRange)), "lba_out_of_range (0x080, do not retry)");
  EXPECT_EQ(to_string(transient(static_cast<StatusCode>(0x7ff))), "unknown (0x7ff)");
  EXPECT_EQ(status_name(StatusCode::kSuccess), "success");
  EXPECT_EQ(status_name(StatusCode::kAbortedByHost), "aborted_by_host");
  EXPECT_EQ(status_name(StatusCode::kFenced), "fenced");
  EXPECT_EQ(permanent(StatusCode::kFenced).type(), StatusCodeType::kVendor);
  EXPECT_EQ(from_status_field(to_status_field(permanent(StatusCode::kFenced))), permanent(StatusCode::kFenced));
}

TEST(WireTest, CommandNames) {
  SubmissionEntry entry;
  entry.opcode = 0x02;
  EXPECT_EQ(command_name(QueueKind::kIo, entry), "read");
  EXPECT_EQ(command_name(QueueKind::kAdmin, entry), "get_log_page");
  entry.opcode = kFabricsOpcode;
  entry.nsid = 0x01;
  EXPECT_EQ(command_name(QueueKind::kIo, entry), "connect");
  entry.nsid = 0x77;
  EXPECT_EQ(command_name(QueueKind::kIo, entry), "unknown");
}

TEST(WireTest, CapabilitiesAsBits) {
  Capabilities cap;
  cap.max_queue_entries = 1024;
  cap.ready_timeout_ms = 15'000;
  cap.command_sets = true;
  cap.page_shift_max = 16;
  const uint64_t raw = encode_capabilities(cap);
  EXPECT_EQ(raw, 0x0040'0820'1e01'03ffU);
  EXPECT_EQ(decode_capabilities(raw), cap);
  cap.ready_timeout_ms = 10'000'000;
  EXPECT_EQ(decode_capabilities(encode_capabilities(cap)).ready_timeout_ms, 127'500U);
  cap.ready_timeout_ms = UINT32_MAX;
  EXPECT_EQ(decode_capabilities(encode_capabilities(cap)).ready_timeout_ms, 127'500U);
}

TEST(WireTest, ConfigurationAndStatusBits) {
  // What Linux writes: enable, 64- and 16-byte entries, 4 KiB pages, command set by vector.
  const ControllerConfiguration linux_cc{0x00460061};
  EXPECT_TRUE(linux_cc.enable());
  EXPECT_EQ(linux_cc.command_set(), CommandSetSelect::kAll);
  EXPECT_EQ(linux_cc.page_shift(), 12);
  EXPECT_EQ(linux_cc.io_submission_entry_shift(), 6);
  EXPECT_EQ(linux_cc.io_completion_entry_shift(), 4);
  EXPECT_EQ(linux_cc.shutdown(), ShutdownNotice::kNone);
  EXPECT_EQ(ControllerConfiguration::enabled(CommandSetSelect::kAll).raw, linux_cc.raw);
  EXPECT_EQ(linux_cc.with_shutdown(ShutdownNotice::kNormal).raw, 0x00464061U);
  ControllerStatus csts;
  csts.set_ready(true);
  csts.set_shutdown(ShutdownStatus::kComplete);
  EXPECT_EQ(csts.raw, 0x9U);
  csts.set_fatal(true);
  csts.set_ready(false);
  EXPECT_EQ(csts.raw, 0xaU);
}

TEST(WireTest, FeaturesAndEvents) {
  EXPECT_EQ(encode_queue_counts({64, 2}), 0x0001003fU);
  EXPECT_EQ(decode_queue_counts(0x0001003f), (QueueCounts{64, 2}));
  EXPECT_EQ(decode_queue_counts(0xffffffff), (QueueCounts{65536, 65536}));
  const AsyncEvent event = AsyncEvent::notice(NoticeInfo::kAnaChange, LogPage::kAna);
  EXPECT_EQ(event.to_dw0(), 0x000c0302U);
  EXPECT_EQ(AsyncEvent::from_dw0(0x000c0302), event);
  EXPECT_EQ(AsyncEvent::notice(NoticeInfo::kDiscoveryChange, LogPage::kDiscovery).to_dw0(), 0x0070f002U);
}

}  // namespace
}  // namespace fairlead::nvme
