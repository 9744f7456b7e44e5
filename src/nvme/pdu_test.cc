// Decoder and builders of PDUs: tables where each field is off by one, golden bytes, and random round trips.
#include <cstdlib>
#include <gtest/gtest.h>
#include <random>

#include "base/crc32c.h"
#include "nvme/pdu_builder.h"
#include "nvme/pdu_decoder.h"
#include "nvme/status.h"

namespace fairlead::nvme {
namespace {

using Bytes = std::vector<std::byte>;

Bytes bytes_from(std::initializer_list<int> values) {
  Bytes bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

// The two steps of a receiver. `bytes` holds at least the header.
std::expected<DecodedPdu, PduViolation> decode(const PduDecoder& decoder, std::span<const std::byte> bytes) {
  const auto length = decoder.header_length(bytes.first<8>());
  if (!length) return std::unexpected(length.error());
  EXPECT_LE(*length, bytes.size());
  return decoder.decode(bytes.first(*length));
}

PduLimits limits_for(Direction direction, bool header_digest, bool data_digest, uint8_t alignment = 0) {
  PduLimits limits;
  limits.direction = direction;
  limits.phase = Phase::kReady;
  limits.header_digest = header_digest;
  limits.data_digest = data_digest;
  limits.data_alignment = alignment;
  limits.in_capsule_max = 8192;
  limits.data_pdu_max = 128 * 1024;
  return limits;
}

constexpr auto kToController = Direction::kHostToController;
constexpr auto kToHost = Direction::kControllerToHost;

// One valid PDU of each type; what follows changes one thing at a time.
struct Sample {
  PduType type;
  Direction direction;
  Phase phase;
  Bytes header;  // with header digest where the type may have one
};

Sample sample_of(PduType type, bool header_digest, bool data_digest) {
  std::array<std::byte, kTermReqSizeMax> buffer{};
  const PduBuffer out = std::span(buffer).first<kPduHeaderMax>();
  const PduFormat format{header_digest, data_digest, 0};
  const PduViolation violation{FatalError::kPduSequence, 0, ""};
  const DataParameters data{.cccid = 1, .ttag = 2, .offset = 4096, .length = 4096, .last = true};
  uint32_t length = 0;
  switch (type) {
    case PduType::kIcReq:
      length = build_ic_req(out, {.header_digest = header_digest});
      return {type, kToController, Phase::kConnecting, Bytes(buffer.begin(), buffer.begin() + length)};
    case PduType::kIcResp:
      length = build_ic_resp(out, {.max_h2c_data = 4096});
      return {type, kToHost, Phase::kConnecting, Bytes(buffer.begin(), buffer.begin() + length)};
    case PduType::kH2cTermReq:
      length = build_term_req(buffer, kToController, violation, std::array<std::byte, 8>{});
      return {type, kToController, Phase::kReady, Bytes(buffer.begin(), buffer.begin() + length)};
    case PduType::kC2hTermReq:
      length = build_term_req(buffer, kToHost, violation, std::array<std::byte, 8>{});
      return {type, kToHost, Phase::kReady, Bytes(buffer.begin(), buffer.begin() + length)};
    case PduType::kCapsuleCmd:
      length = build_capsule_cmd(out, format, SubmissionEntry{}, 512);
      return {type, kToController, Phase::kReady, Bytes(buffer.begin(), buffer.begin() + length)};
    case PduType::kCapsuleResp:
      length = build_capsule_resp(out, format, CompletionEntry{});
      return {type, kToHost, Phase::kReady, Bytes(buffer.begin(), buffer.begin() + length)};
    case PduType::kH2cData:
      length = build_h2c_data(out, format, data);
      return {type, kToController, Phase::kReady, Bytes(buffer.begin(), buffer.begin() + length)};
    case PduType::kC2hData:
      length = build_c2h_data(out, format, data);
      return {type, kToHost, Phase::kReady, Bytes(buffer.begin(), buffer.begin() + length)};
    case PduType::kR2t:
      length = build_r2t(out, format, {.cccid = 1, .ttag = 2, .offset = 0, .length = 4096});
      return {type, kToHost, Phase::kReady, Bytes(buffer.begin(), buffer.begin() + length)};
  }
  ADD_FAILURE();
  return {};
}

constexpr PduType kTypes[] = {PduType::kIcReq,      PduType::kIcResp,     PduType::kH2cTermReq,
                              PduType::kC2hTermReq, PduType::kCapsuleCmd, PduType::kCapsuleResp,
                              PduType::kH2cData,    PduType::kC2hData,    PduType::kR2t};

class EachType : public testing::TestWithParam<std::tuple<PduType, bool, bool>> {
 protected:
  EachType()
      : sample_(sample_of(std::get<0>(GetParam()), std::get<1>(GetParam()), std::get<2>(GetParam()))),
        limits_(limits_for(sample_.direction, std::get<1>(GetParam()), std::get<2>(GetParam()))) {
    limits_.phase = sample_.phase;
  }

  // Sets one byte of the common header and expects the violation there.
  void expect_refused(size_t offset, int value, FatalError error, uint32_t info) const {
    Bytes bytes = sample_.header;
    bytes[offset] = static_cast<std::byte>(value);
    expect_violation(limits_, bytes, error, info);
  }
  static void expect_violation(const PduLimits& limits, const Bytes& bytes, FatalError error, uint32_t info) {
    const auto pdu = decode(PduDecoder(limits), bytes);
    ASSERT_FALSE(pdu);
    EXPECT_EQ(pdu.error().error, error) << pdu.error().reason;
    EXPECT_EQ(pdu.error().info, info) << pdu.error().reason;
  }
  int byte(size_t offset) const { return static_cast<int>(sample_.header[offset]); }
  bool has_digest() const { return (byte(1) & kPduHeaderDigest) != 0; }
  bool has_data() const { return byte(3) != 0; }

  Sample sample_;
  PduLimits limits_;
};

INSTANTIATE_TEST_SUITE_P(Pdu, EachType, testing::Combine(testing::ValuesIn(kTypes), testing::Bool(), testing::Bool()),
                         [](const auto& info) {
                           return fmt::format("{}_hdgst{}_ddgst{}", pdu_name(std::get<0>(info.param)),
                                              int{std::get<1>(info.param)}, int{std::get<2>(info.param)});
                         });

TEST_P(EachType, IsAccepted) {
  const auto pdu = decode(PduDecoder(limits_), sample_.header);
  ASSERT_TRUE(pdu) << pdu.error().reason;
  EXPECT_EQ(pdu->type, sample_.type);
  EXPECT_EQ(pdu->header_length + pdu->padding + pdu->data_length + (pdu->has_data_digest ? 4 : 0), pdu->total_length);
}

TEST_P(EachType, OtherDirection) {
  limits_.direction = sample_.direction == kToHost ? kToController : kToHost;
  expect_violation(limits_, sample_.header, FatalError::kInvalidHeaderField, 0);
}

TEST_P(EachType, OtherPhase) {
  limits_.phase = sample_.phase == Phase::kReady ? Phase::kConnecting : Phase::kReady;
  if (sample_.type == PduType::kH2cTermReq || sample_.type == PduType::kC2hTermReq) {
    EXPECT_TRUE(decode(PduDecoder(limits_), sample_.header));
  } else {
    expect_violation(limits_, sample_.header, FatalError::kPduSequence, 0);
  }
}

TEST_P(EachType, UnknownType) {
  for (const int type : {0x08, 0x0a, 0x0b, 0x10, 0x80, 0xff}) {
    expect_refused(0, type, FatalError::kInvalidHeaderField, 0);
  }
}

TEST_P(EachType, EachOtherHlen) {
  for (int hlen = 0; hlen < 256; ++hlen) {
    if (hlen != byte(2)) expect_refused(2, hlen, FatalError::kInvalidHeaderField, 2);
  }
}

TEST_P(EachType, EachOtherFlag) {
  for (int bit = 0; bit < 8; ++bit) {
    const int flag = 1 << bit;
    const bool is_last = sample_.type == PduType::kH2cData || sample_.type == PduType::kC2hData;
    if (flag == kPduLast && is_last) continue;                               // a matter of the transfer's state
    if (flag == kPduSuccess && sample_.type == PduType::kC2hData) continue;  // stands beside LAST_PDU here
    SCOPED_TRACE(bit);
    expect_refused(1, byte(1) ^ flag, FatalError::kInvalidHeaderField, 1);
  }
  if (sample_.type == PduType::kC2hData) {  // SUCCESS without LAST_PDU
    expect_refused(1, (byte(1) & ~kPduLast) | kPduSuccess, FatalError::kInvalidHeaderField, 1);
  }
}

TEST_P(EachType, Pdo) {
  if (!has_data()) return;
  const int pdo = byte(3);
  for (int other = 0; other < pdo; ++other) expect_refused(3, other, FatalError::kInvalidHeaderField, 3);
  for (int other = pdo + 1; other < pdo + 4; ++other) expect_refused(3, other, FatalError::kInvalidHeaderField, 3);
}

TEST_P(EachType, Plen) {
  const auto with_plen = [&](uint32_t plen) {
    Bytes bytes = sample_.header;
    const Le32 wire = plen;
    std::memcpy(bytes.data() + 4, &wire, 4);
    return bytes;
  };
  const uint32_t start = static_cast<uint32_t>(byte(2)) + (has_digest() ? 4 : 0);
  for (uint32_t plen = 0; plen < start; ++plen) {
    expect_violation(limits_, with_plen(plen), FatalError::kInvalidHeaderField, 4);
  }
  const bool term = sample_.type == PduType::kH2cTermReq || sample_.type == PduType::kC2hTermReq;
  if (term) {
    EXPECT_TRUE(decode(PduDecoder(limits_), with_plen(24)));
    EXPECT_TRUE(decode(PduDecoder(limits_), with_plen(152)));
    expect_violation(limits_, with_plen(153), FatalError::kInvalidHeaderField, 4);
  } else if (!has_data()) {
    expect_violation(limits_, with_plen(start + 1), FatalError::kInvalidHeaderField, 4);
    expect_violation(limits_, with_plen(UINT32_MAX), FatalError::kInvalidHeaderField, 4);
  } else {
    const bool capsule = sample_.type == PduType::kCapsuleCmd;
    const uint32_t overhead = start + ((byte(1) & kPduDataDigest) != 0 ? 4U : 0U);
    const uint32_t data_max = capsule ? limits_.in_capsule_max : limits_.data_pdu_max;
    const bool to_host = sample_.direction == kToHost;
    const auto error = to_host ? FatalError::kInvalidHeaderField : FatalError::kDataTransferLimitExceeded;
    const auto first8 = [](const Bytes& bytes) { return std::span(bytes).first<8>(); };
    EXPECT_TRUE(PduDecoder(limits_).header_length(first8(with_plen(overhead + 1))));
    EXPECT_TRUE(PduDecoder(limits_).header_length(first8(with_plen(overhead + data_max))));
    expect_violation(limits_, with_plen(overhead + data_max + 1), error, to_host ? 4 : 0);
    expect_violation(limits_, with_plen(UINT32_MAX), error, to_host ? 4 : 0);
    if (!capsule) expect_violation(limits_, with_plen(start), FatalError::kInvalidHeaderField, 4);
    if (overhead != start) expect_violation(limits_, with_plen(overhead), FatalError::kInvalidHeaderField, 4);
  }
}

TEST_P(EachType, EachBitUnderTheHeaderDigest) {
  if (!has_digest()) return;
  const PduDecoder decoder(limits_);
  for (size_t bit = 64; bit < sample_.header.size() * 8; ++bit) {  // the first eight bytes have their own tests
    Bytes bytes = sample_.header;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    const size_t digest_at = static_cast<size_t>(byte(2));
    Le32 received;
    std::memcpy(static_cast<void*>(&received), bytes.data() + digest_at, 4);
    expect_violation(limits_, bytes, FatalError::kHeaderDigest, received);
  }
}

TEST_P(EachType, DigestSettingsOfTheOtherKind) {
  const bool digests = (byte(1) & (kPduHeaderDigest | kPduDataDigest)) != 0;
  limits_.header_digest = !limits_.header_digest;
  const bool may_have_digest = sample_.type >= PduType::kCapsuleCmd;
  if (may_have_digest) {
    expect_violation(limits_, sample_.header, FatalError::kInvalidHeaderField, 1);
  } else {
    EXPECT_FALSE(digests);
    EXPECT_TRUE(decode(PduDecoder(limits_), sample_.header));
  }
}

TEST(PduDecoderTest, FieldsBehindTheCommonHeader) {
  struct Case {
    PduType type;
    size_t offset;
    uint32_t value;
    size_t width;
    FatalError error;
    uint32_t info;
  };
  const Case table[] = {
      {PduType::kIcReq, 8, 1, 2, FatalError::kUnsupportedParameter, 8},
      {PduType::kIcReq, 8, 0x100, 2, FatalError::kUnsupportedParameter, 8},
      {PduType::kIcReq, 10, 32, 1, FatalError::kInvalidHeaderField, 10},
      {PduType::kIcReq, 10, 255, 1, FatalError::kInvalidHeaderField, 10},
      {PduType::kIcResp, 8, 1, 2, FatalError::kUnsupportedParameter, 8},
      {PduType::kIcResp, 10, 32, 1, FatalError::kInvalidHeaderField, 10},
      {PduType::kIcResp, 12, 4092, 4, FatalError::kInvalidHeaderField, 12},
      {PduType::kIcResp, 12, 4098, 4, FatalError::kInvalidHeaderField, 12},
      {PduType::kIcResp, 12, 0, 4, FatalError::kInvalidHeaderField, 12},
      {PduType::kH2cData, 16, 4095, 4, FatalError::kInvalidHeaderField, 16},
      {PduType::kH2cData, 16, 4097, 4, FatalError::kInvalidHeaderField, 16},
      {PduType::kH2cData, 16, 0, 4, FatalError::kInvalidHeaderField, 16},
      {PduType::kH2cData, 12, UINT32_MAX - 4095, 4, FatalError::kDataOutOfRange, 0},
      {PduType::kC2hData, 16, 4095, 4, FatalError::kInvalidHeaderField, 16},
      {PduType::kC2hData, 16, 4097, 4, FatalError::kInvalidHeaderField, 16},
      {PduType::kC2hData, 12, UINT32_MAX, 4, FatalError::kDataOutOfRange, 0},
      {PduType::kR2t, 16, 0, 4, FatalError::kInvalidHeaderField, 16},
      {PduType::kR2t, 12, UINT32_MAX - 4095, 4, FatalError::kDataOutOfRange, 0},
  };
  for (const Case& c : table) {
    SCOPED_TRACE(fmt::format("{} byte {} = {}", pdu_name(c.type), c.offset, c.value));
    Sample sample = sample_of(c.type, false, false);
    const Le32 wire = c.value;
    std::memcpy(sample.header.data() + c.offset, &wire, c.width);
    PduLimits limits = limits_for(sample.direction, false, false);
    limits.phase = sample.phase;
    const auto pdu = decode(PduDecoder(limits), sample.header);
    ASSERT_FALSE(pdu);
    EXPECT_EQ(pdu.error().error, c.error);
    EXPECT_EQ(pdu.error().info, c.info);
  }
}

TEST(PduDecoderTest, ReservedFieldsAreNotLookedAt) {
  for (const PduType type : {PduType::kIcReq, PduType::kR2t, PduType::kCapsuleResp}) {
    Sample sample = sample_of(type, false, false);
    sample.header[3] = std::byte{0x55};  // PDO of a PDU without data
    if (type == PduType::kIcReq) sample.header[127] = std::byte{1};
    PduLimits limits = limits_for(sample.direction, false, false);
    limits.phase = sample.phase;
    EXPECT_TRUE(decode(PduDecoder(limits), sample.header)) << pdu_name(type);
  }
}

TEST(PduDecoderTest, MorePaddingThanNeededIsSkipped) {
  Sample sample = sample_of(PduType::kH2cData, false, false);
  sample.header[3] = std::byte{24 + 12};
  const Le32 plen = 24 + 12 + 4096;
  std::memcpy(sample.header.data() + 4, &plen, 4);
  const auto pdu = decode(PduDecoder(limits_for(kToController, false, false)), sample.header);
  ASSERT_TRUE(pdu);
  EXPECT_EQ(pdu->padding, 12U);
  EXPECT_EQ(pdu->data_length, 4096U);
}

TEST(PduDecoderTest, NoInCapsuleDataAllowed) {
  PduLimits limits = limits_for(kToController, false, false);
  limits.in_capsule_max = 0;
  const Sample sample = sample_of(PduType::kCapsuleCmd, false, false);
  const auto pdu = decode(PduDecoder(limits), sample.header);
  ASSERT_FALSE(pdu);
  EXPECT_EQ(pdu.error().error, FatalError::kDataTransferLimitExceeded);
}

TEST(PduDecoderTest, CallersMistakesAbort) {
  const Sample sample = sample_of(PduType::kR2t, false, false);
  const PduDecoder decoder(limits_for(kToHost, false, false));
  EXPECT_DEATH((void)decoder.decode(std::span(sample.header).first(23)), "bytes.size");
  PduLimits limits;
  limits.data_alignment = 32;
  EXPECT_DEATH(PduDecoder{limits}, "data_alignment");
}

TEST(PduDecoderTest, TransferOrder) {
  const DataTransferState state{.cccid = 7, .next_offset = 4096, .end_offset = 12288};
  struct Case {
    uint16_t cccid;
    uint32_t offset;
    uint32_t length;
    bool last;
    std::optional<FatalError> error;
  };
  const Case table[] = {
      {7, 4096, 4096, false, std::nullopt},
      {7, 4096, 8192, true, std::nullopt},
      {7, 4096, 1, false, std::nullopt},
      {8, 4096, 4096, false, FatalError::kInvalidHeaderField},
      {7, 4095, 4096, false, FatalError::kDataOutOfRange},
      {7, 4097, 4096, false, FatalError::kDataOutOfRange},
      {7, 0, 4096, false, FatalError::kDataOutOfRange},
      {7, 4096, 8193, true, FatalError::kDataOutOfRange},
      {7, 4096, UINT32_MAX - 4096, true, FatalError::kDataOutOfRange},
      {7, 4096, 8192, false, FatalError::kInvalidHeaderField},
      {7, 4096, 4096, true, FatalError::kInvalidHeaderField},
  };
  for (const Case& c : table) {
    SCOPED_TRACE(fmt::format("cccid {} {}+{} last {}", c.cccid, c.offset, c.length, c.last));
    H2cDataPdu up;
    C2hDataPdu down;
    up.header.flags = down.header.flags = c.last ? kPduLast : 0;
    up.cccid = down.cccid = c.cccid;
    up.datao = down.datao = c.offset;
    up.datal = down.datal = c.length;
    const auto up_result = check_h2c_data(up, state);
    const auto down_result = check_c2h_data(down, state);
    EXPECT_EQ(up_result ? std::optional(up_result->error) : std::nullopt, c.error);
    EXPECT_EQ(down_result ? std::optional(down_result->error) : std::nullopt, c.error);
  }
  R2tPdu r2t;
  r2t.cccid = 7;
  r2t.r2to = 4096;
  r2t.r2tl = 8192;
  EXPECT_FALSE(check_r2t(r2t, state));
  r2t.r2tl = 8193;
  EXPECT_TRUE(check_r2t(r2t, state));
  r2t.r2tl = 4096;
  r2t.r2to = 8192;
  EXPECT_TRUE(check_r2t(r2t, state));
}

TEST(PduGoldenTest, CapsuleResp) {
  std::array<std::byte, kPduHeaderMax> out;
  CompletionEntry completion;
  completion.dw0 = 0x11223344;
  completion.sqhd = 5;
  completion.cid = 0x0102;
  completion.status = to_status_field(permanent(StatusCode::kInvalidField));
  const uint32_t length = build_capsule_resp(out, PduFormat{}, completion);
  EXPECT_EQ(Bytes(out.begin(), out.begin() + length),
            bytes_from({0x05, 0x00, 24, 0, 24, 0, 0, 0, 0x44, 0x33, 0x22, 0x11,
                        0,    0,    0,  0, 5,  0, 0, 0, 0x02, 0x01, 0x04, 0x80}));
}

TEST(PduGoldenTest, R2tWithDigest) {
  std::array<std::byte, kPduHeaderMax> out;
  const R2tParameters r2t{.cccid = 0x0a0b, .ttag = 0x0c0d, .offset = 0x2000, .length = 0x10000};
  const uint32_t length = build_r2t(out, PduFormat{.header_digest = true}, r2t);
  ASSERT_EQ(length, 28U);
  EXPECT_EQ(Bytes(out.begin(), out.begin() + 24), bytes_from({0x09, 0x01, 24, 0, 28, 0, 0, 0, 0x0b, 0x0a, 0x0d, 0x0c,
                                                              0,    0x20, 0,  0, 0,  0, 1, 0, 0,    0,    0,    0}));
  // The digest bit by bit, by the polynomial and not by our crc32c.
  uint32_t crc = 0xffffffff;
  for (size_t i = 0; i < 24; ++i) {
    crc ^= static_cast<uint32_t>(out[i]);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  crc = ~crc;
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(static_cast<uint32_t>(out[24 + i]), (crc >> (8 * i)) & 0xff);
}

TEST(PduGoldenTest, C2hDataWithDigestsAndPadding) {
  std::array<std::byte, kPduHeaderMax> out;
  out.fill(std::byte{0xee});
  const PduFormat format{.header_digest = true, .data_digest = true, .data_alignment = 15};  // 64 bytes
  const DataParameters data{.cccid = 3, .offset = 512, .length = 512, .last = true, .success = true};
  const uint32_t length = build_c2h_data(out, format, data);
  ASSERT_EQ(length, 64U);
  EXPECT_EQ(Bytes(out.begin(), out.begin() + 24),  // PLEN 64 + 512 + 4
            bytes_from({0x07, 0x0f, 24, 64, 0x44, 0x02, 0, 0, 3, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(Bytes(out.begin() + 28, out.begin() + 64), Bytes(36, std::byte{0}));
  EXPECT_EQ(out[64], std::byte{0xee});
}

TEST(PduGoldenTest, IcReqAndIcResp) {
  std::array<std::byte, kPduHeaderMax> out;
  ASSERT_EQ(build_ic_req(out, {.header_digest = true, .data_digest = true, .data_alignment = 3, .max_r2t = 4}), 128U);
  EXPECT_EQ(Bytes(out.begin(), out.begin() + 16), bytes_from({0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 3, 3, 3, 0, 0, 0}));
  ASSERT_EQ(build_ic_resp(out, {.data_digest = true, .max_h2c_data = 0x20000}), 128U);
  EXPECT_EQ(Bytes(out.begin(), out.begin() + 16), bytes_from({1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0}));
  EXPECT_EQ(Bytes(out.begin() + 16, out.begin() + 128), Bytes(112, std::byte{0}));
}

TEST(PduGoldenTest, TermReqReturnsTheHeaderComplainedOf) {
  std::array<std::byte, kTermReqSizeMax> out;
  const PduViolation violation{FatalError::kInvalidHeaderField, 0x01020304, ""};
  const Bytes offending = bytes_from({0x04, 0x80, 72, 0, 72, 0, 0, 0});
  ASSERT_EQ(build_term_req(out, kToHost, violation, offending), 32U);
  EXPECT_EQ(Bytes(out.begin(), out.begin() + 32),
            bytes_from({0x03, 0, 24, 0, 32, 0, 0, 0, 1,    0,    4,  3, 2,  1, 0, 0,
                        0,    0, 0,  0, 0,  0, 0, 0, 0x04, 0x80, 72, 0, 72, 0, 0, 0}));
  EXPECT_EQ(build_term_req(out, kToHost, violation, Bytes(500)), 152U);
  EXPECT_EQ(build_term_req(out, kToController, violation, {}), 24U);
  EXPECT_EQ(out[0], std::byte{0x02});
}

TEST(PduGoldenTest, DataDigest) {
  std::array<std::byte, 4> digest;
  put_digest(0xe3069283, digest);
  EXPECT_EQ(Bytes(digest.begin(), digest.end()), bytes_from({0x83, 0x92, 0x06, 0xe3}));
  EXPECT_TRUE(data_digest_matches(0xe3069283, digest));
  EXPECT_FALSE(data_digest_matches(0xe3069282, digest));
}

// Random parameters through builder and decoder.
class RoundTrip : public testing::Test {
 protected:
  static uint64_t seed() {
    const char* given = std::getenv("FAIRLEAD_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  }
  void SetUp() override {
    seed_ = seed();
    random_.seed(seed_);
    RecordProperty("seed", std::to_string(seed_));
  }
  uint32_t below(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }
  bool coin() { return below(2) == 1; }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
};

TEST_F(RoundTrip, DataPdus) {
  SCOPED_TRACE(fmt::format("repeat with FAIRLEAD_TEST_SEED={}", seed_));
  for (int round = 0; round < 20'000; ++round) {
    const PduFormat format{coin(), coin(), static_cast<uint8_t>(below(32))};
    const bool up = coin();
    DataParameters data;
    data.cccid = static_cast<uint16_t>(below(0x10000));
    data.ttag = static_cast<uint16_t>(below(0x10000));
    data.length = 1 + below(128 * 1024);
    data.offset = below(UINT32_MAX - data.length);
    data.last = coin();
    data.success = !up && data.last && coin();
    std::array<std::byte, kPduHeaderMax> out;
    const uint32_t sent = up ? build_h2c_data(out, format, data) : build_c2h_data(out, format, data);
    const PduDecoder decoder(
        limits_for(up ? kToController : kToHost, format.header_digest, format.data_digest, format.data_alignment));
    const auto pdu = decode(decoder, out);
    ASSERT_TRUE(pdu) << pdu.error().reason;
    EXPECT_EQ(pdu->header_length + pdu->padding, sent);
    EXPECT_EQ(sent % ((format.data_alignment + 1U) * 4), 0U);
    EXPECT_EQ(pdu->data_length, data.length);
    EXPECT_EQ(pdu->has_data_digest, format.data_digest);
    EXPECT_EQ(pdu->total_length, sent + data.length + (format.data_digest ? 4 : 0));
    EXPECT_EQ(pdu->has_flag(kPduLast), data.last);
    EXPECT_EQ(pdu->has_flag(kPduSuccess), data.success);
    const auto view = pdu->as<H2cDataPdu>();
    EXPECT_EQ(view.cccid, data.cccid);
    EXPECT_EQ(view.ttag, up ? data.ttag : 0);
    EXPECT_EQ(view.datao, data.offset);
    EXPECT_EQ(view.datal, data.length);
  }
}

TEST_F(RoundTrip, CapsulesAndR2t) {
  SCOPED_TRACE(fmt::format("repeat with FAIRLEAD_TEST_SEED={}", seed_));
  for (int round = 0; round < 20'000; ++round) {
    const PduFormat format{coin(), coin(), static_cast<uint8_t>(below(32))};
    const auto limits = [&](Direction direction) {
      return limits_for(direction, format.header_digest, format.data_digest, format.data_alignment);
    };
    std::array<std::byte, kPduHeaderMax> out;
    SubmissionEntry command;
    for (auto& byte : std::as_writable_bytes(std::span(&command, 1))) byte = static_cast<std::byte>(random_());
    const uint32_t data_length = coin() ? 0 : 1 + below(8192);
    const uint32_t sent = build_capsule_cmd(out, format, command, data_length);
    const auto capsule = decode(PduDecoder(limits(kToController)), out);
    ASSERT_TRUE(capsule) << capsule.error().reason;
    EXPECT_EQ(capsule->header_length + capsule->padding, sent);
    EXPECT_EQ(capsule->data_length, data_length);
    EXPECT_EQ(capsule->has_data_digest, format.data_digest && data_length != 0);
    const auto view = capsule->as<CapsuleCmdPdu>();
    EXPECT_EQ(std::memcmp(&view.command, &command, sizeof(command)), 0);

    const R2tParameters r2t{.cccid = command.cid, .ttag = 7, .offset = below(1 << 30), .length = 1 + below(1 << 30)};
    EXPECT_EQ(build_r2t(out, format, r2t), format.header_digest ? 28U : 24U);
    const auto decoded = decode(PduDecoder(limits(kToHost)), out);
    ASSERT_TRUE(decoded) << decoded.error().reason;
    EXPECT_EQ(decoded->as<R2tPdu>().r2to, r2t.offset);
    EXPECT_EQ(decoded->as<R2tPdu>().r2tl, r2t.length);
    EXPECT_EQ(decoded->data_length, 0U);
  }
}

}  // namespace
}  // namespace fairlead::nvme
