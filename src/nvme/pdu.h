// PDUs of NVMe/TCP: NVMe TCP Transport 1.0 section 3.6.
// Wire structures: alignment 1, little-endian. pdu_decoder.h validates them, pdu_builder.h fills them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/endian.h"
#include "nvme/command.h"

namespace fairlead::nvme {

enum class PduType : uint8_t {
  kIcReq = 0x00,
  kIcResp = 0x01,
  kH2cTermReq = 0x02,
  kC2hTermReq = 0x03,
  kCapsuleCmd = 0x04,
  kCapsuleResp = 0x05,
  kH2cData = 0x06,
  kC2hData = 0x07,
  kR2t = 0x09,
};

inline constexpr uint8_t kPduHeaderDigest = 0x1;  // HDGSTF
inline constexpr uint8_t kPduDataDigest = 0x2;    // DDGSTF
inline constexpr uint8_t kPduLast = 0x4;          // LAST_PDU: of H2CData and C2HData
inline constexpr uint8_t kPduSuccess = 0x8;       // SUCCESS: of C2HData, no response capsule follows

inline constexpr uint32_t kDigestSize = 4;
inline constexpr uint32_t kTermReqDataMax = 128;
inline constexpr uint32_t kTermReqSizeMax = 24 + kTermReqDataMax;
inline constexpr uint32_t kMaxH2cDataMin = 4096;       // the least that ICResp may grant
inline constexpr uint32_t kAdminInCapsuleData = 8192;  // what each controller takes on the admin queue
inline constexpr uint8_t kDataAlignmentMax = 31;       // HPDA and CPDA, 0's based dwords
// From the common header to the start of data (digest and padding included) nothing is longer: a CapsuleCmd with digest
// has 76 bytes, and an alignment of 72 puts its data at 144. Headers alone have at most 128.
inline constexpr uint32_t kPduHeaderMax = 144;

struct PduHeader {
  uint8_t type = 0;
  uint8_t flags = 0;
  uint8_t hlen = 0;  // without digest
  uint8_t pdo = 0;   // from the start of the PDU to its data, 0: no data
  Le32 plen;         // everything
};
static_assert(sizeof(PduHeader) == 8);

inline constexpr uint8_t kIcHeaderDigest = 0x1;
inline constexpr uint8_t kIcDataDigest = 0x2;
struct IcReqPdu {
  PduHeader header;
  Le16 pfv;
  uint8_t hpda = 0;  // host's data alignment, 0's based dwords
  uint8_t dgst = 0;
  Le32 maxr2t;  // 0's based
  uint8_t reserved16[112] = {};
};
static_assert(sizeof(IcReqPdu) == 128 && offsetof(IcReqPdu, maxr2t) == 12);

struct IcRespPdu {
  PduHeader header;
  Le16 pfv;
  uint8_t cpda = 0;  // controller's data alignment, 0's based dwords
  uint8_t dgst = 0;
  Le32 maxh2cdata;  // bytes
  uint8_t reserved16[112] = {};
};
static_assert(sizeof(IcRespPdu) == 128 && offsetof(IcRespPdu, maxh2cdata) == 12);

// Fatal error status of a TermReq.
enum class FatalError : uint16_t {
  kInvalidHeaderField = 1,  // FEI: byte offset of the field
  kPduSequence = 2,
  kHeaderDigest = 3,  // FEI: the digest received
  kDataOutOfRange = 4,
  kDataTransferLimitExceeded = 5,  // sent by a controller
  kR2tLimitExceeded = 5,           // sent by a host
  kUnsupportedParameter = 6,       // FEI: byte offset of the field
};
struct TermReqPdu {  // followed by up to kTermReqDataMax bytes of the header complained of
  PduHeader header;
  Le16 fes;
  Le32 fei;
  uint8_t reserved14[10] = {};
};
static_assert(sizeof(TermReqPdu) == 24 && offsetof(TermReqPdu, fei) == 10);

struct CapsuleCmdPdu {
  PduHeader header;
  SubmissionEntry command;
};
static_assert(sizeof(CapsuleCmdPdu) == 72);

struct CapsuleRespPdu {
  PduHeader header;
  CompletionEntry completion;
};
static_assert(sizeof(CapsuleRespPdu) == 24);

struct H2cDataPdu {
  PduHeader header;
  Le16 cccid;
  Le16 ttag;
  Le32 datao;
  Le32 datal;
  uint8_t reserved20[4] = {};
};
static_assert(sizeof(H2cDataPdu) == 24 && offsetof(H2cDataPdu, datal) == 16);

struct C2hDataPdu {
  PduHeader header;
  Le16 cccid;
  uint8_t reserved10[2] = {};
  Le32 datao;
  Le32 datal;
  uint8_t reserved20[4] = {};
};
static_assert(sizeof(C2hDataPdu) == 24 && offsetof(C2hDataPdu, datal) == 16);

struct R2tPdu {
  PduHeader header;
  Le16 cccid;
  Le16 ttag;
  Le32 r2to;
  Le32 r2tl;
  uint8_t reserved20[4] = {};
};
static_assert(sizeof(R2tPdu) == 24 && offsetof(R2tPdu, r2tl) == 16);

// "CapsuleCmd"; "unknown" for what is none.
constexpr std::string_view pdu_name(PduType type) {
  switch (type) {
    case PduType::kIcReq:
      return "ICReq";
    case PduType::kIcResp:
      return "ICResp";
    case PduType::kH2cTermReq:
      return "H2CTermReq";
    case PduType::kC2hTermReq:
      return "C2HTermReq";
    case PduType::kCapsuleCmd:
      return "CapsuleCmd";
    case PduType::kCapsuleResp:
      return "CapsuleResp";
    case PduType::kH2cData:
      return "H2CData";
    case PduType::kC2hData:
      return "C2HData";
    case PduType::kR2t:
      return "R2T";
  }
  return "unknown";
}

}  // namespace fairlead::nvme
