#include "nvme/pdu_decoder.h"

#include <array>

#include "base/check.h"
#include "base/crc32c.h"

namespace fairlead::nvme {
namespace {

constexpr uint32_t kTypeOffset = offsetof(PduHeader, type);
constexpr uint32_t kFlagsOffset = offsetof(PduHeader, flags);
constexpr uint32_t kHlenOffset = offsetof(PduHeader, hlen);
constexpr uint32_t kPdoOffset = offsetof(PduHeader, pdo);
constexpr uint32_t kPlenOffset = offsetof(PduHeader, plen);

enum class DataRule : uint8_t {
  kNone,       // the PDU is its header
  kOptional,   // CapsuleCmd
  kRequired,   // H2CData, C2HData
  kOffending,  // TermReq: up to 128 bytes straight after the header
};

// One row a type: what the specification fixes.
struct PduRule {
  bool known = false;
  Direction direction = Direction::kHostToController;
  uint8_t hlen = 0;
  uint8_t flags = 0;  // allowed
  DataRule data = DataRule::kNone;
};

constexpr auto kRules = [] {
  constexpr auto kToController = Direction::kHostToController;
  constexpr auto kToHost = Direction::kControllerToHost;
  constexpr uint8_t kBothDigests = kPduHeaderDigest | kPduDataDigest;
  std::array<PduRule, 10> rules{};
  const auto set = [&rules](PduType type, const PduRule& rule) { rules[static_cast<size_t>(type)] = rule; };
  set(PduType::kIcReq, {true, kToController, sizeof(IcReqPdu), 0, DataRule::kNone});
  set(PduType::kIcResp, {true, kToHost, sizeof(IcRespPdu), 0, DataRule::kNone});
  set(PduType::kH2cTermReq, {true, kToController, sizeof(TermReqPdu), 0, DataRule::kOffending});
  set(PduType::kC2hTermReq, {true, kToHost, sizeof(TermReqPdu), 0, DataRule::kOffending});
  set(PduType::kCapsuleCmd, {true, kToController, sizeof(CapsuleCmdPdu), kBothDigests, DataRule::kOptional});
  set(PduType::kCapsuleResp, {true, kToHost, sizeof(CapsuleRespPdu), kPduHeaderDigest, DataRule::kNone});
  set(PduType::kH2cData, {true, kToController, sizeof(H2cDataPdu), kBothDigests | kPduLast, DataRule::kRequired});
  set(PduType::kC2hData,
      {true, kToHost, sizeof(C2hDataPdu), kBothDigests | kPduLast | kPduSuccess, DataRule::kRequired});
  set(PduType::kR2t, {true, kToHost, sizeof(R2tPdu), kPduHeaderDigest, DataRule::kNone});
  return rules;
}();

const PduRule& rule_of(PduType type) {
  static constexpr PduRule kUnknown{};
  const auto index = static_cast<size_t>(type);
  return index < kRules.size() ? kRules[index] : kUnknown;
}

PduViolation bad_field(uint32_t offset, const char* reason) {
  return {FatalError::kInvalidHeaderField, offset, reason};
}

bool is_data_pdu(PduType type) { return type == PduType::kH2cData || type == PduType::kC2hData; }

uint32_t load_le32(const std::byte* bytes) {
  Le32 value;
  std::memcpy(static_cast<void*>(&value), bytes, sizeof(value));
  return value;
}

// Order, bounds and LAST_PDU of a piece; datao and datal stand at the same place in both data PDUs.
std::optional<PduViolation> check_piece(uint8_t flags, uint32_t offset, uint32_t length,
                                        const DataTransferState& state) {
  if (offset != state.next_offset) {
    return PduViolation{FatalError::kDataOutOfRange, 0, "the data does not continue the transfer"};
  }
  if (offset > state.end_offset || length > state.end_offset - offset) {
    return PduViolation{FatalError::kDataOutOfRange, 0, "the data passes the end of the transfer"};
  }
  const bool reaches_end = length == state.end_offset - offset;
  if (((flags & kPduLast) != 0) != reaches_end) {
    return bad_field(kFlagsOffset, "LAST_PDU stands on another piece than the last");
  }
  return std::nullopt;
}

}  // namespace

PduDecoder::PduDecoder(const PduLimits& limits) : limits_(limits) {
  FL_CHECK(limits.data_alignment <= kDataAlignmentMax);
  // So that no sum of lengths below can overflow 32 bits.
  FL_CHECK(limits.in_capsule_max < (1U << 31) && limits.data_pdu_max < (1U << 31));
}

std::optional<PduViolation> PduDecoder::check_place(PduType type) const {
  const PduRule& rule = rule_of(type);
  if (!rule.known) return bad_field(kTypeOffset, "unknown PDU type");
  if (rule.direction != limits_.direction) return bad_field(kTypeOffset, "a PDU type of the other direction");
  if (rule.data == DataRule::kOffending) return std::nullopt;  // giving up is allowed at any time
  const bool opens = type == PduType::kIcReq || type == PduType::kIcResp;
  if (opens != (limits_.phase == Phase::kConnecting)) {
    return PduViolation{FatalError::kPduSequence, 0,
                        opens ? "the connection is initialized already" : "the connection is not initialized yet"};
  }
  return std::nullopt;
}

// PDO and PLEN, for the flags already checked. Guarantees: header and digest <= PDO <= PLEN wherever there is data.
std::optional<PduViolation> PduDecoder::check_lengths(const PduHeader& header) const {
  const auto type = static_cast<PduType>(header.type);
  const PduRule& rule = rule_of(type);
  const uint32_t digest = (header.flags & kPduHeaderDigest) != 0 ? kDigestSize : 0;
  const uint32_t start = header.hlen + digest;
  const uint32_t length = header.plen;
  if (length < start) return bad_field(kPlenOffset, "PLEN is shorter than the header");
  if (rule.data == DataRule::kOffending) {
    if (length <= kTermReqSizeMax) return std::nullopt;
    return bad_field(kPlenOffset, "PLEN of a termination request is above 152");
  }
  const bool has_data = length > start;
  if (rule.data == DataRule::kNone) {
    return has_data ? std::optional(bad_field(kPlenOffset, "PLEN is longer than a PDU without data")) : std::nullopt;
  }
  const bool has_data_digest = (header.flags & kPduDataDigest) != 0;
  if (!has_data) {
    if (rule.data == DataRule::kRequired) return bad_field(kPlenOffset, "PLEN leaves no room for data");
    if (has_data_digest) return bad_field(kFlagsOffset, "a data digest without data");
    return std::nullopt;
  }
  if (has_data_digest != limits_.data_digest) {
    return bad_field(kFlagsOffset, "the data digest differs from what was negotiated");
  }
  const uint32_t alignment = (limits_.data_alignment + 1U) * 4;
  if (header.pdo < start) return bad_field(kPdoOffset, "PDO lies within the header");
  if (header.pdo % alignment != 0) return bad_field(kPdoOffset, "PDO is not aligned as negotiated");
  const uint32_t overhead = header.pdo + (has_data_digest ? kDigestSize : 0);
  if (length <= overhead) return bad_field(kPlenOffset, "PLEN leaves no room for data");
  const uint32_t data_max = type == PduType::kCapsuleCmd ? limits_.in_capsule_max : limits_.data_pdu_max;
  if (length - overhead > data_max) {
    // "Data transfer limit exceeded" exists only for what a controller sends.
    if (limits_.direction == Direction::kControllerToHost) return bad_field(kPlenOffset, "the data is too long");
    return PduViolation{FatalError::kDataTransferLimitExceeded, 0, "the data is longer than the controller takes"};
  }
  return std::nullopt;
}

std::expected<uint32_t, PduViolation> PduDecoder::header_length(
    std::span<const std::byte, sizeof(PduHeader)> first) const {
  PduHeader header;
  std::memcpy(static_cast<void*>(&header), first.data(), sizeof(header));
  const auto type = static_cast<PduType>(header.type);
  if (const auto violation = check_place(type)) [[unlikely]]
    return std::unexpected(*violation);
  const PduRule& rule = rule_of(type);
  if (header.hlen != rule.hlen) [[unlikely]] {
    return std::unexpected(bad_field(kHlenOffset, "HLEN is not the length of this type's header"));
  }
  if ((header.flags & ~rule.flags) != 0) [[unlikely]] {
    return std::unexpected(bad_field(kFlagsOffset, "a flag that this type does not have"));
  }
  const bool may_have_digest = (rule.flags & kPduHeaderDigest) != 0;
  const bool has_digest = (header.flags & kPduHeaderDigest) != 0;
  if (may_have_digest && has_digest != limits_.header_digest) [[unlikely]] {
    return std::unexpected(bad_field(kFlagsOffset, "the header digest differs from what was negotiated"));
  }
  if ((header.flags & kPduSuccess) != 0 && (header.flags & kPduLast) == 0) [[unlikely]] {
    return std::unexpected(bad_field(kFlagsOffset, "SUCCESS without LAST_PDU"));
  }
  if (const auto violation = check_lengths(header)) [[unlikely]]
    return std::unexpected(*violation);
  return header.hlen + (has_digest ? kDigestSize : 0U);
}

// The fields behind the common header.
std::optional<PduViolation> PduDecoder::check_fields(const DecodedPdu& pdu) const {
  if (pdu.type == PduType::kIcReq) {
    const auto request = pdu.as<IcReqPdu>();
    if (request.pfv != 0) {
      return PduViolation{FatalError::kUnsupportedParameter, offsetof(IcReqPdu, pfv), "unknown PDU format version"};
    }
    if (request.hpda > kDataAlignmentMax) return bad_field(offsetof(IcReqPdu, hpda), "HPDA is above 31");
  } else if (pdu.type == PduType::kIcResp) {
    const auto response = pdu.as<IcRespPdu>();
    if (response.pfv != 0) {
      return PduViolation{FatalError::kUnsupportedParameter, offsetof(IcRespPdu, pfv), "unknown PDU format version"};
    }
    if (response.cpda > kDataAlignmentMax) return bad_field(offsetof(IcRespPdu, cpda), "CPDA is above 31");
    if (response.maxh2cdata < kMaxH2cDataMin || response.maxh2cdata % 4 != 0) {
      return bad_field(offsetof(IcRespPdu, maxh2cdata), "MAXH2CDATA is below 4096 or no multiple of 4");
    }
  } else if (is_data_pdu(pdu.type)) {
    static_assert(offsetof(H2cDataPdu, datal) == offsetof(C2hDataPdu, datal));
    const auto data = pdu.as<H2cDataPdu>();
    if (data.datal != pdu.data_length) {
      return bad_field(offsetof(H2cDataPdu, datal), "DATAL differs from the data that PLEN leaves room for");
    }
    if (data.datao > UINT32_MAX - data.datal) {
      return PduViolation{FatalError::kDataOutOfRange, 0, "DATAO + DATAL is above 2^32"};
    }
  } else if (pdu.type == PduType::kR2t) {
    const auto r2t = pdu.as<R2tPdu>();
    if (r2t.r2tl == 0) return bad_field(offsetof(R2tPdu, r2tl), "R2TL is 0");
    if (r2t.r2to > UINT32_MAX - r2t.r2tl) {
      return PduViolation{FatalError::kDataOutOfRange, 0, "R2TO + R2TL is above 2^32"};
    }
  }
  return std::nullopt;
}

std::expected<DecodedPdu, PduViolation> PduDecoder::decode(std::span<const std::byte> bytes) const {
  FL_CHECK(bytes.size() >= sizeof(PduHeader));
  PduHeader header;
  std::memcpy(static_cast<void*>(&header), bytes.data(), sizeof(header));
  const PduRule& rule = rule_of(static_cast<PduType>(header.type));
  const bool has_digest = (header.flags & kPduHeaderDigest) != 0;
  // Not what the wire says, but what header_length() has answered: a caller that skipped it is at fault.
  FL_CHECK(rule.known && header.hlen == rule.hlen);
  FL_CHECK(bytes.size() == header.hlen + (has_digest ? kDigestSize : 0U));

  if (has_digest) {
    const uint32_t received = load_le32(bytes.data() + header.hlen);
    if (crc32c(bytes.first(header.hlen)) != received) [[unlikely]] {
      return std::unexpected(PduViolation{FatalError::kHeaderDigest, received, "the header digest is wrong"});
    }
  }
  DecodedPdu pdu;
  pdu.type = static_cast<PduType>(header.type);
  pdu.flags = header.flags;
  pdu.header = bytes.data();
  pdu.header_length = static_cast<uint32_t>(bytes.size());
  pdu.total_length = header.plen;
  const uint32_t behind = pdu.total_length - pdu.header_length;
  if (rule.data == DataRule::kOffending) {
    pdu.data_length = behind;
  } else if (behind != 0) {
    pdu.has_data_digest = (header.flags & kPduDataDigest) != 0;
    pdu.padding = header.pdo - pdu.header_length;
    pdu.data_length = behind - pdu.padding - (pdu.has_data_digest ? kDigestSize : 0U);
  }
  if (const auto violation = check_fields(pdu)) [[unlikely]]
    return std::unexpected(*violation);
  return pdu;
}

std::optional<PduViolation> check_h2c_data(const H2cDataPdu& pdu, const DataTransferState& state) {
  if (pdu.cccid != state.cccid) return unknown_cccid();
  return check_piece(pdu.header.flags, pdu.datao, pdu.datal, state);
}

std::optional<PduViolation> check_c2h_data(const C2hDataPdu& pdu, const DataTransferState& state) {
  if (pdu.cccid != state.cccid) return unknown_cccid();
  return check_piece(pdu.header.flags, pdu.datao, pdu.datal, state);
}

std::optional<PduViolation> check_r2t(const R2tPdu& pdu, const DataTransferState& state) {
  if (pdu.cccid != state.cccid) return unknown_cccid();
  if (pdu.r2to != state.next_offset || pdu.r2to > state.end_offset || pdu.r2tl > state.end_offset - pdu.r2to) {
    return PduViolation{FatalError::kDataOutOfRange, 0, "the controller asks for data that the command does not have"};
  }
  return std::nullopt;
}

bool data_digest_matches(uint32_t crc, std::span<const std::byte, kDigestSize> digest) {
  return load_le32(digest.data()) == crc;
}

}  // namespace fairlead::nvme
