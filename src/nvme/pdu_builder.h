// Headers of outgoing PDUs, digest and padding included (NVMe TCP Transport 1.0 section 3.6).
//
// Each function fills the front of `out`, a buffer of its caller, and returns how many bytes it used. The caller sends
// those, then the data, then, if format.data_digest, four bytes of put_digest(). No allocation, no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nvme/command.h"
#include "nvme/pdu.h"
#include "nvme/pdu_decoder.h"

namespace fairlead::nvme {

// What was negotiated, from the sender's side.
struct PduFormat {
  bool header_digest = false;
  bool data_digest = false;
  uint8_t data_alignment = 0;  // the receiver's HPDA (controller sends) or CPDA (host sends)
};

using PduBuffer = std::span<std::byte, kPduHeaderMax>;

// The digest of data as it goes over the wire.
void put_digest(uint32_t crc, std::span<std::byte, kDigestSize> out);

// Controller to host.
struct IcRespParameters {
  bool header_digest = false;
  bool data_digest = false;
  uint8_t data_alignment = 0;  // CPDA
  uint32_t max_h2c_data = 0;   // Requires: >= kMaxH2cDataMin, a multiple of 4
};
uint32_t build_ic_resp(PduBuffer out, const IcRespParameters& parameters);
uint32_t build_capsule_resp(PduBuffer out, const PduFormat& format, const CompletionEntry& completion);
struct DataParameters {
  uint16_t cccid = 0;
  uint16_t ttag = 0;    // H2CData only
  uint32_t offset = 0;  // bytes from the start of the command's data
  uint32_t length = 0;  // bytes in this PDU. Requires: not 0
  bool last = false;
  bool success = false;  // C2HData only: no CapsuleResp follows. Requires: last
};
uint32_t build_c2h_data(PduBuffer out, const PduFormat& format, const DataParameters& parameters);
struct R2tParameters {
  uint16_t cccid = 0;
  uint16_t ttag = 0;
  uint32_t offset = 0;
  uint32_t length = 0;  // Requires: not 0
};
uint32_t build_r2t(PduBuffer out, const PduFormat& format, const R2tParameters& parameters);

// Host to controller.
struct IcReqParameters {
  bool header_digest = false;
  bool data_digest = false;
  uint8_t data_alignment = 0;  // HPDA
  uint32_t max_r2t = 1;        // outstanding R2Ts a command, real number. Requires: not 0
};
uint32_t build_ic_req(PduBuffer out, const IcReqParameters& parameters);
// in_capsule_length: bytes of data that follow, 0 for none.
uint32_t build_capsule_cmd(PduBuffer out, const PduFormat& format, const SubmissionEntry& command,
                           uint32_t in_capsule_length);
uint32_t build_h2c_data(PduBuffer out, const PduFormat& format, const DataParameters& parameters);

// Both. `offending`: as much of the header complained of as was received (the first 128 bytes are sent back).
// `direction`: who sends, so C2HTermReq for kControllerToHost.
using TermReqBuffer = std::span<std::byte, kTermReqSizeMax>;
uint32_t build_term_req(TermReqBuffer out, Direction direction, const PduViolation& violation,
                        std::span<const std::byte> offending);

}  // namespace fairlead::nvme
