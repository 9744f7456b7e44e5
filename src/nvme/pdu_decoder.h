// The one place where PDU headers that come off the wire are checked (NVMe TCP Transport 1.0 section 3.6).
//
// A connection receives a PDU in three steps:
//   1. eight bytes: decoder.header_length(first) tells how many bytes the header has, its digest included;
//   2. that many bytes: decoder.decode(header) checks everything that the header alone can tell and gives a DecodedPdu;
//   3. skip `padding` bytes, take `data_length` bytes, then, if has_data_digest, four bytes of CRC32C of the data.
// A PduViolation ends the connection: send build_term_req() with the bytes of the header received so far, then close.
//
// What needs the connection's state stays with the connection: look the tag up, then check_h2c_data()/check_c2h_data().
// Reserved fields are not looked at (base 2.0 section 1.4 leaves that to the recipient), reserved flags are refused,
// because a flag may change the framing.
//
// No state but the limits, no I/O, no allocation. One decoder a connection, on the connection's shard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <optional>
#include <span>

#include "nvme/pdu.h"

namespace fairlead::nvme {

enum class Direction : uint8_t { kHostToController, kControllerToHost };
enum class Phase : uint8_t { kConnecting, kReady };  // before and after the ICReq (ICResp) was received

// What was negotiated, from the receiver's side.
struct PduLimits {
  Direction direction = Direction::kHostToController;
  Phase phase = Phase::kConnecting;
  bool header_digest = false;
  bool data_digest = false;
  uint8_t data_alignment = 0;   // the receiver's CPDA (controller) or HPDA (host), 0 to kDataAlignmentMax
  uint32_t in_capsule_max = 0;  // bytes of data in a CapsuleCmd
  uint32_t data_pdu_max = 0;    // bytes of data in a H2CData (MAXH2CDATA) or a C2HData (the host's own limit)
};

// What to put into a TermReq; `reason` is a literal, for the log.
struct PduViolation {
  FatalError error = FatalError::kInvalidHeaderField;
  uint32_t info = 0;  // FEI
  const char* reason = "";
};

// A header that has passed. Borrows the bytes given to decode() for as long as it is used.
struct DecodedPdu {
  PduType type = PduType::kIcReq;
  uint8_t flags = 0;
  bool has_data_digest = false;
  uint32_t header_length = 0;  // bytes consumed so far: header and digest
  uint32_t padding = 0;        // bytes to skip before the data
  uint32_t data_length = 0;    // bytes of data, without digest
  uint32_t total_length = 0;   // PLEN == header_length + padding + data_length + (has_data_digest ? 4 : 0)
  const std::byte* header = nullptr;

  bool has_flag(uint8_t flag) const { return (flags & flag) != 0; }
  // The header as its structure. Requires: View is the structure of `type`.
  template <typename View>
  View as() const {
    View view;
    std::memcpy(static_cast<void*>(&view), header, sizeof(View));
    return view;
  }
};

class PduDecoder {
 public:
  // Requires: limits.data_alignment <= kDataAlignmentMax; data_pdu_max and in_capsule_max below 2 GiB.
  explicit PduDecoder(const PduLimits& limits);

  const PduLimits& limits() const { return limits_; }

  // The length of header and header digest: 24 to 128. Checks type, phase, HLEN, flags, PDO, PLEN.
  std::expected<uint32_t, PduViolation> header_length(std::span<const std::byte, sizeof(PduHeader)> first) const;

  // Requires: header_length() accepted these very bytes and gave header.size() (checked).
  // Checks the header digest and the fields behind the common header.
  std::expected<DecodedPdu, PduViolation> decode(std::span<const std::byte> header) const;

 private:
  std::optional<PduViolation> check_place(PduType type) const;
  std::optional<PduViolation> check_lengths(const PduHeader& header) const;
  std::optional<PduViolation> check_fields(const DecodedPdu& pdu) const;

  PduLimits limits_;
};

// A transfer that data PDUs move piece by piece, in order and without gaps.
struct DataTransferState {
  uint16_t cccid = 0;        // of the command
  uint32_t next_offset = 0;  // where the next piece must start
  uint32_t end_offset = 0;   // H2CData: end of what the R2T asked for; C2HData: length of the command's data
};
// None when the piece continues the transfer; LAST_PDU must stand on the piece that reaches the end, and only there.
// For an unknown tag or command use unknown_ttag() and unknown_cccid().
std::optional<PduViolation> check_h2c_data(const H2cDataPdu& pdu, const DataTransferState& state);
std::optional<PduViolation> check_c2h_data(const C2hDataPdu& pdu, const DataTransferState& state);
constexpr PduViolation unknown_ttag() {
  return {FatalError::kInvalidHeaderField, offsetof(H2cDataPdu, ttag), "no transfer has this tag"};
}
constexpr PduViolation unknown_cccid() {
  return {FatalError::kInvalidHeaderField, offsetof(H2cDataPdu, cccid), "no command has this identifier"};
}
// For the host: an R2T outside its command's data, or more of them than ICReq allowed.
std::optional<PduViolation> check_r2t(const R2tPdu& pdu, const DataTransferState& state);

// CRC32C of `data` against the four bytes that follow it on the wire.
bool data_digest_matches(uint32_t crc, std::span<const std::byte, kDigestSize> digest);

}  // namespace fairlead::nvme
