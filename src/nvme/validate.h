// Commands that come off the wire, taken apart and checked: the only place that reads the fields of a SubmissionEntry.
// Each function gives a plain structure or the Status to complete the command with. No state, no I/O; any thread.
// Sections: NVMe base 2.0 3.3.3 (entry), 4.1.2 (SGL), 5 (admin), 6 (Fabrics); NVM command set 1.0 3.2.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string_view>

#include "base/units.h"
#include "nvme/command.h"
#include "nvme/features.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/properties.h"
#include "nvme/status.h"

namespace fairlead::nvme {

// What holds for every command over fabrics: PSDT is 01b, FUSE not reserved. kInvalidField.
Status check_flags(const SubmissionEntry& command);

// Where a command's data travels.
enum class DataPlace : uint8_t { kNone, kInCapsule, kTransport };
struct DataPointer {
  DataPlace place = DataPlace::kNone;
  uint32_t offset = 0;  // kInCapsule: from the start of the capsule's data
  uint32_t length = 0;  // bytes
  friend constexpr bool operator==(const DataPointer&, const DataPointer&) = default;
};
// capsule_data_length: bytes of data that came in the capsule. A length of 0 gives kNone. Errors: kSglTypeInvalid;
// kSglOffsetInvalid and kDataSglLengthInvalid: the data lies outside the capsule.
// A descriptor that uses the transport although the capsule brought data is fine: that data is ignored.
StatusOr<DataPointer> decode_data_pointer(const SubmissionEntry& command, uint32_t capsule_data_length);

// What the range checks need to know of a namespace and its controller.
struct NamespaceLimits {
  uint64_t blocks = 0;              // capacity
  uint8_t block_shift = 9;          // 9 to 16
  uint64_t max_transfer_bytes = 0;  // MDTS in bytes, 0: no limit
  uint32_t max_zero_blocks = 0;     // WZSL in blocks, 0: no limit
};
struct NvmRange {
  Lba first{};
  uint32_t blocks = 0;
  friend constexpr bool operator==(const NvmRange&, const NvmRange&) = default;
};
// kLbaOutOfRange unless the range lies within `capacity` blocks. Cannot overflow.
Status check_range(const NvmRange& range, uint64_t capacity);

// Read, Write, Compare.
struct NvmTransfer {
  NvmRange range;
  uint64_t bytes = 0;
  bool fua = false;
  friend constexpr bool operator==(const NvmTransfer&, const NvmTransfer&) = default;
};
// data_length: of the data pointer, must be the range's size (kDataSglLengthInvalid). Above MDTS: kInvalidField.
StatusOr<NvmTransfer> decode_transfer(const SubmissionEntry& command, const NamespaceLimits& limits,
                                      uint64_t data_length);

// Verify. Above MDTS (VSL is 0, so that limit holds): kInvalidField.
StatusOr<NvmRange> decode_verify(const SubmissionEntry& command, const NamespaceLimits& limits);

struct NvmWriteZeroes {
  NvmRange range;
  bool deallocate = false;
  bool fua = false;
};
StatusOr<NvmWriteZeroes> decode_write_zeroes(const SubmissionEntry& command, const NamespaceLimits& limits);

struct DatasetManagement {
  uint32_t ranges = 0;  // 1 to kDsmRangesMax
  bool deallocate = false;
};
// data_length: at least the ranges; hosts may send the whole 4 KiB for fewer. Else kDataSglLengthInvalid.
StatusOr<DatasetManagement> decode_dataset_management(const SubmissionEntry& command, uint64_t data_length);
// Range number `index` of the data. Requires: index < ranges (so it lies within the data, checked). kLbaOutOfRange.
// A range of 0 blocks is legal and asks for nothing.
StatusOr<NvmRange> decode_dsm_range(std::span<const std::byte> data, uint32_t index, uint64_t capacity);

// Fused compare-and-write: a Compare then a Write, the same namespace and range. kInvalidField.
Status check_fused_pair(const SubmissionEntry& first, const SubmissionEntry& second);

// Admin commands.
struct IdentifyRequest {
  Cns cns = Cns::kController;
  uint16_t controller_id = 0;
  uint32_t nsid = 0;
  CommandSet command_set = CommandSet::kNvm;
};
// Every CNS is passed on; whether it is supported is the controller's to say. data_length of 4096: the wire's buffer
// may be shorter or longer; kDataSglLengthInvalid when 0.
StatusOr<IdentifyRequest> decode_identify(const SubmissionEntry& command, uint64_t data_length);

struct LogPageRequest {
  LogPage page = LogPage::kErrorInformation;
  uint8_t specific = 0;       // log specific parameter
  bool retain_event = false;  // RAE: leave the asynchronous event masked
  uint16_t specific_id = 0;   // log specific identifier
  uint64_t offset = 0;        // bytes, a multiple of 4
  uint32_t length = 0;        // bytes, at most data_length
  uint32_t nsid = 0;
};
// data_length shorter than what the command asks for: kDataSglLengthInvalid. Above 4 GiB, an offset that is no multiple
// of 4 or counts entries (offset type 1): kInvalidField.
StatusOr<LogPageRequest> decode_get_log_page(const SubmissionEntry& command, uint64_t data_length);

struct GetFeaturesRequest {
  Feature feature = Feature::kArbitration;
  FeatureSelect select = FeatureSelect::kCurrent;
  uint32_t nsid = 0;
  uint32_t value = 0;  // cdw11
};
// A reserved selection: kInvalidField.
StatusOr<GetFeaturesRequest> decode_get_features(const SubmissionEntry& command);
struct SetFeaturesRequest {
  Feature feature = Feature::kArbitration;
  bool save = false;
  uint32_t nsid = 0;
  uint32_t value = 0;  // cdw11
};
SetFeaturesRequest decode_set_features(const SubmissionEntry& command);

struct AbortRequest {
  uint16_t sqid = 0;
  uint16_t cid = 0;
};
AbortRequest decode_abort(const SubmissionEntry& command);

// Vendor specific: replication control (docs/internals/target.md).
struct ReplicationSend {
  uint32_t nsid = 0;
  uint32_t bytes = 0;  // 1 to kReplicationSendBytesMax
};
// data_length: the request, of the size said above; else kDataSglLengthInvalid. No namespace in particular:
// kInvalidNamespaceOrFormat. A reserved field that is not 0: kInvalidField.
StatusOr<ReplicationSend> decode_replication_send(const SubmissionEntry& command, uint64_t data_length);
struct ReplicationReceive {
  uint32_t nsid = 0;
  uint32_t call = 0;
  uint32_t room = 0;  // bytes for the answer, 1 to kReplicationReceiveBytesMax
};
// Likewise.
StatusOr<ReplicationReceive> decode_replication_receive(const SubmissionEntry& command, uint64_t data_length);

// What the completion of a Send says in its dwords 0 and 1.
struct ReplicationSent {
  uint32_t call = 0;   // to fetch the answer by; 0: it is empty, and there is nothing to fetch
  uint32_t bytes = 0;  // of the answer, at most kReplicationReceiveBytesMax
  friend constexpr bool operator==(const ReplicationSent&, const ReplicationSent&) = default;
};
constexpr uint64_t encode_replication_sent(const ReplicationSent& sent) {
  return sent.call | (uint64_t{sent.bytes} << 32);
}
// For the host side. None: the controller says what cannot be.
std::optional<ReplicationSent> decode_replication_sent(uint64_t result);

// Fabrics commands.
struct PropertyAccess {
  Property property = Property::kCapabilities;
  uint64_t value = 0;  // set only; the upper half is 0 for properties of 4 bytes
};
// Unknown property, size that is not the property's, set of one that is read only: kInvalidField.
StatusOr<PropertyAccess> decode_property_get(const SubmissionEntry& command);
StatusOr<PropertyAccess> decode_property_set(const SubmissionEntry& command);

// Disconnect: a record format other than 0 is kConnectIncompatibleFormat.
Status check_disconnect(const SubmissionEntry& command);

struct ConnectRequest {
  uint16_t qid = 0;
  uint32_t queue_entries = 0;  // real number, 2 to 65536
  uint16_t controller_id = 0;  // admin queue: kDynamicControllerId; else the controller's
  bool disable_sq_flow_control = false;
  uint32_t keep_alive_ms = 0;  // 0: none
  std::array<uint8_t, 16> host_id{};
  std::string_view subsystem_nqn;  // borrows from the data given
  std::string_view host_nqn;       // borrows from the data given
};
// dw0 of the completion says which field (connect_invalid_field()).
struct ConnectError {
  Status status;
  uint32_t dw0 = 0;
};
// Checks what the command alone can tell: record format, queue size, length of the data, names (is_acceptable_nqn()),
// controller ID (dynamic controllers only). Whether subsystem, host, controller and queue exist is the target's.
std::expected<ConnectRequest, ConnectError> decode_connect(const SubmissionEntry& command,
                                                           std::span<const std::byte> data);

}  // namespace fairlead::nvme
