#include "nvme/pdu_builder.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"

namespace fairlead::nvme {
namespace {

// A PDU that may carry digests and data: fills in the common header, appends digest and padding.
// Returns the bytes used: everything before the data.
template <typename Pdu>
uint32_t finish(PduBuffer out, const PduFormat& format, PduType type, uint8_t flags, Pdu& pdu, uint32_t data_length) {
  static_assert(sizeof(Pdu) + kDigestSize <= kPduHeaderMax);
  FL_CHECK(format.data_alignment <= kDataAlignmentMax);
  const uint32_t alignment = (format.data_alignment + 1U) * 4;
  uint32_t used = sizeof(Pdu) + (format.header_digest ? kDigestSize : 0);
  pdu.header.type = static_cast<uint8_t>(type);
  pdu.header.flags = static_cast<uint8_t>(flags | (format.header_digest ? kPduHeaderDigest : 0));
  pdu.header.hlen = sizeof(Pdu);
  pdu.header.plen = used;
  uint32_t padding = 0;
  if (data_length != 0) {
    padding = (alignment - used % alignment) % alignment;
    FL_CHECK(used + padding <= kPduHeaderMax && data_length <= UINT32_MAX - kPduHeaderMax - kDigestSize);
    pdu.header.pdo = static_cast<uint8_t>(used + padding);
    if (format.data_digest) pdu.header.flags |= kPduDataDigest;
    pdu.header.plen = used + padding + data_length + (format.data_digest ? kDigestSize : 0);
  }
  std::memcpy(out.data(), &pdu, sizeof(Pdu));
  if (format.header_digest) {
    put_digest(crc32c(out.template first<sizeof(Pdu)>()), out.template subspan<sizeof(Pdu), kDigestSize>());
  }
  std::memset(out.data() + used, 0, padding);
  used += padding;
  return used;
}

}  // namespace

void put_digest(uint32_t crc, std::span<std::byte, kDigestSize> out) {
  const Le32 wire = crc;
  std::memcpy(out.data(), &wire, sizeof(wire));
}

uint32_t build_ic_resp(PduBuffer out, const IcRespParameters& parameters) {
  FL_CHECK(parameters.data_alignment <= kDataAlignmentMax);
  FL_CHECK(parameters.max_h2c_data >= kMaxH2cDataMin && parameters.max_h2c_data % 4 == 0);
  IcRespPdu pdu;
  pdu.header.type = static_cast<uint8_t>(PduType::kIcResp);
  pdu.header.hlen = sizeof(pdu);
  pdu.header.plen = sizeof(pdu);
  pdu.cpda = parameters.data_alignment;
  pdu.dgst = static_cast<uint8_t>((parameters.header_digest ? kIcHeaderDigest : 0) |
                                  (parameters.data_digest ? kIcDataDigest : 0));
  pdu.maxh2cdata = parameters.max_h2c_data;
  std::memcpy(out.data(), &pdu, sizeof(pdu));
  return sizeof(pdu);
}

uint32_t build_ic_req(PduBuffer out, const IcReqParameters& parameters) {
  FL_CHECK(parameters.data_alignment <= kDataAlignmentMax && parameters.max_r2t != 0);
  IcReqPdu pdu;
  pdu.header.type = static_cast<uint8_t>(PduType::kIcReq);
  pdu.header.hlen = sizeof(pdu);
  pdu.header.plen = sizeof(pdu);
  pdu.hpda = parameters.data_alignment;
  pdu.dgst = static_cast<uint8_t>((parameters.header_digest ? kIcHeaderDigest : 0) |
                                  (parameters.data_digest ? kIcDataDigest : 0));
  pdu.maxr2t = parameters.max_r2t - 1;
  std::memcpy(out.data(), &pdu, sizeof(pdu));
  return sizeof(pdu);
}

uint32_t build_capsule_resp(PduBuffer out, const PduFormat& format, const CompletionEntry& completion) {
  CapsuleRespPdu pdu;
  pdu.completion = completion;
  return finish(out, format, PduType::kCapsuleResp, 0, pdu, 0);
}

uint32_t build_capsule_cmd(PduBuffer out, const PduFormat& format, const SubmissionEntry& command,
                           uint32_t in_capsule_length) {
  CapsuleCmdPdu pdu;
  pdu.command = command;
  return finish(out, format, PduType::kCapsuleCmd, 0, pdu, in_capsule_length);
}

uint32_t build_c2h_data(PduBuffer out, const PduFormat& format, const DataParameters& parameters) {
  FL_CHECK(parameters.length != 0 && (!parameters.success || parameters.last));
  C2hDataPdu pdu;
  pdu.cccid = parameters.cccid;
  pdu.datao = parameters.offset;
  pdu.datal = parameters.length;
  const auto flags = static_cast<uint8_t>((parameters.last ? kPduLast : 0) | (parameters.success ? kPduSuccess : 0));
  return finish(out, format, PduType::kC2hData, flags, pdu, parameters.length);
}

uint32_t build_h2c_data(PduBuffer out, const PduFormat& format, const DataParameters& parameters) {
  FL_CHECK(parameters.length != 0 && !parameters.success);
  H2cDataPdu pdu;
  pdu.cccid = parameters.cccid;
  pdu.ttag = parameters.ttag;
  pdu.datao = parameters.offset;
  pdu.datal = parameters.length;
  return finish(out, format, PduType::kH2cData, parameters.last ? kPduLast : uint8_t{0}, pdu, parameters.length);
}

uint32_t build_r2t(PduBuffer out, const PduFormat& format, const R2tParameters& parameters) {
  FL_CHECK(parameters.length != 0);
  R2tPdu pdu;
  pdu.cccid = parameters.cccid;
  pdu.ttag = parameters.ttag;
  pdu.r2to = parameters.offset;
  pdu.r2tl = parameters.length;
  return finish(out, format, PduType::kR2t, 0, pdu, 0);
}

uint32_t build_term_req(TermReqBuffer out, Direction direction, const PduViolation& violation,
                        std::span<const std::byte> offending) {
  const bool from_controller = direction == Direction::kControllerToHost;
  const size_t returned = std::min<size_t>(offending.size(), kTermReqDataMax);
  TermReqPdu pdu;
  pdu.header.type = static_cast<uint8_t>(from_controller ? PduType::kC2hTermReq : PduType::kH2cTermReq);
  pdu.header.hlen = sizeof(pdu);
  pdu.header.plen = static_cast<uint32_t>(sizeof(pdu) + returned);
  pdu.fes = static_cast<uint16_t>(violation.error);
  pdu.fei = violation.info;
  std::memcpy(out.data(), &pdu, sizeof(pdu));
  if (returned != 0) std::memcpy(out.data() + sizeof(pdu), offending.data(), returned);
  return static_cast<uint32_t>(sizeof(pdu) + returned);
}

}  // namespace fairlead::nvme
