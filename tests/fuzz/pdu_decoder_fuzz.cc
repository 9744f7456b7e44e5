// Any bytes as a stream of PDUs, in any negotiated state, and what the PDUs carry through the validation of commands.
//
// Input: byte 0: bit 0 controller to host, bit 1 ready, bit 2 header digest, bit 3 data digest, bit 4 mend the header
// digests (so that the fuzzer gets past them); byte 1: data alignment; the rest is the stream.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/crc32c.h"
#include "nvme/nqn.h"
#include "nvme/pdu_builder.h"
#include "nvme/pdu_decoder.h"
#include "nvme/validate.h"

namespace fairlead::nvme {
namespace {

constexpr uint32_t kInCapsuleMax = 8192;
constexpr uint32_t kDataPduMax = 65536;

void check_violation(const PduDecoder& decoder, const PduViolation& violation, std::span<const std::byte> received) {
  FL_CHECK(violation.reason != nullptr && violation.reason[0] != '\0');
  if (violation.error == FatalError::kInvalidHeaderField) FL_CHECK(violation.info < kPduHeaderMax);
  std::array<std::byte, kTermReqSizeMax> out{};
  const bool to_controller = decoder.limits().direction == Direction::kHostToController;
  const auto answer = to_controller ? Direction::kControllerToHost : Direction::kHostToController;
  const uint32_t length = build_term_req(out, answer, violation, received);
  // The other side must be able to read the complaint.
  PduLimits peer = decoder.limits();
  peer.direction = answer;
  const PduDecoder other(peer);
  const auto header = other.header_length(std::span(out).first<sizeof(PduHeader)>());
  FL_CHECK(header.has_value());
  const auto pdu = other.decode(std::span(out).first(*header));
  FL_CHECK(pdu.has_value() && pdu->total_length == length);
}

void check_command(const SubmissionEntry& command, std::span<const std::byte> data) {
  (void)check_flags(command);
  const auto capsule = static_cast<uint32_t>(data.size());
  const auto pointer = decode_data_pointer(command, capsule);
  uint32_t length = 0;
  if (pointer) {
    length = pointer->length;
    if (pointer->place == DataPlace::kInCapsule) {
      FL_CHECK(uint64_t{pointer->offset} + pointer->length <= data.size());
      data = data.subspan(pointer->offset, pointer->length);
    }
    FL_CHECK((pointer->place == DataPlace::kNone) == (length == 0));
  }
  NamespaceLimits limits;
  limits.blocks = 1 << 20;
  limits.max_transfer_bytes = 1 << 20;
  const auto inside = [&](const NvmRange& range) {
    FL_CHECK(range.first.value <= limits.blocks && range.blocks <= limits.blocks - range.first.value);
  };
  if (const auto transfer = decode_transfer(command, limits, length)) {
    inside(transfer->range);
    FL_CHECK(transfer->bytes == length && length <= limits.max_transfer_bytes);
  }
  if (const auto range = decode_verify(command, limits)) inside(*range);
  if (const auto zeroes = decode_write_zeroes(command, limits)) inside(zeroes->range);
  if (const auto dsm = decode_dataset_management(command, data.size())) {
    for (uint32_t i = 0; i < dsm->ranges; ++i) {
      if (const auto range = decode_dsm_range(data, i, limits.blocks)) inside(*range);
    }
  }
  if (const auto log = decode_get_log_page(command, length)) FL_CHECK(log->length <= length && log->length != 0);
  (void)decode_identify(command, length);
  (void)decode_get_features(command);
  (void)decode_set_features(command);
  (void)decode_property_get(command);
  (void)decode_property_set(command);
  (void)check_disconnect(command);
  if (const auto connect = decode_connect(command, data)) {
    FL_CHECK(connect->queue_entries >= 2 && connect->queue_entries <= 65536);
    FL_CHECK(is_acceptable_nqn(connect->host_nqn) && is_acceptable_nqn(connect->subsystem_nqn));
    (void)validate_nqn(connect->subsystem_nqn);
  }
}

void check_decoded(const PduDecoder& decoder, const DecodedPdu& pdu) {
  const uint64_t parts =
      uint64_t{pdu.header_length} + pdu.padding + pdu.data_length + (pdu.has_data_digest ? uint64_t{kDigestSize} : 0);
  FL_CHECK(parts == pdu.total_length);
  FL_CHECK(pdu.header_length <= 128 && pdu.padding <= 255);
  const PduLimits& limits = decoder.limits();
  switch (pdu.type) {
    case PduType::kCapsuleCmd:
      FL_CHECK(pdu.data_length <= limits.in_capsule_max);
      break;
    case PduType::kH2cData:
    case PduType::kC2hData:
      FL_CHECK(pdu.data_length != 0 && pdu.data_length <= limits.data_pdu_max);
      FL_CHECK(pdu.as<H2cDataPdu>().datal == pdu.data_length);
      break;
    case PduType::kH2cTermReq:
    case PduType::kC2hTermReq:
      FL_CHECK(pdu.data_length <= kTermReqDataMax);
      break;
    default:
      FL_CHECK(pdu.data_length == 0 && pdu.padding == 0 && !pdu.has_data_digest);
  }
  if (pdu.type == PduType::kH2cData) {
    const DataTransferState state{0, 0, 1 << 20};
    const auto view = pdu.as<H2cDataPdu>();
    if (!check_h2c_data(view, state)) FL_CHECK(view.datao == 0 && view.datal <= state.end_offset);
  }
}

// One PDU from the front of `stream`: its length, 0 when the stream ends or the connection would.
size_t take_pdu(const PduDecoder& decoder, std::span<std::byte> stream, bool mend) {
  if (stream.size() < sizeof(PduHeader)) return 0;
  const auto length = decoder.header_length(stream.first<sizeof(PduHeader)>());
  if (!length) {
    check_violation(decoder, length.error(), stream.first(sizeof(PduHeader)));
    return 0;
  }
  FL_CHECK(*length >= sizeof(TermReqPdu) && *length <= 128);
  if (stream.size() < *length) return 0;
  const auto header = stream.first(*length);
  const auto hlen = static_cast<size_t>(header[offsetof(PduHeader, hlen)]);
  if (mend && hlen < header.size()) put_digest(crc32c(header.first(hlen)), header.subspan(hlen).first<kDigestSize>());
  const auto pdu = decoder.decode(header);
  if (!pdu) {
    check_violation(decoder, pdu.error(), header);
    return 0;
  }
  check_decoded(decoder, *pdu);
  if (pdu->type == PduType::kCapsuleCmd) {
    const size_t start = pdu->header_length + pdu->padding;
    if (stream.size() < start + pdu->data_length) return 0;
    check_command(pdu->as<CapsuleCmdPdu>().command, stream.subspan(start, pdu->data_length));
  }
  return std::min<size_t>(pdu->total_length, stream.size());
}

void run(std::span<const std::byte> input) {
  if (input.size() < 2) return;
  const auto settings = static_cast<uint8_t>(input[0]);
  PduLimits limits;
  limits.direction = (settings & 1) != 0 ? Direction::kControllerToHost : Direction::kHostToController;
  limits.phase = (settings & 2) != 0 ? Phase::kReady : Phase::kConnecting;
  limits.header_digest = (settings & 4) != 0;
  limits.data_digest = (settings & 8) != 0;
  limits.data_alignment = static_cast<uint8_t>(input[1]) & kDataAlignmentMax;
  limits.in_capsule_max = kInCapsuleMax;
  limits.data_pdu_max = kDataPduMax;
  const PduDecoder decoder(limits);
  std::vector<std::byte> bytes(input.begin() + 2, input.end());
  std::span<std::byte> stream(bytes);
  while (const size_t used = take_pdu(decoder, stream, (settings & 16) != 0)) stream = stream.subspan(used);
}

}  // namespace
}  // namespace fairlead::nvme

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fairlead::nvme::run(std::as_bytes(std::span(data, size)));
  return 0;
}
