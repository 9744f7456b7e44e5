#include "nvme/status.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "base/check.h"

namespace fairlead::nvme {
namespace {

struct NamedStatus {
  StatusCode code;
  std::string_view name;
};

// Ascending, for the binary search; each code once.
constexpr auto kNames = std::to_array<NamedStatus>({
    {StatusCode::kSuccess, "success"},
    {StatusCode::kInvalidOpcode, "invalid_opcode"},
    {StatusCode::kInvalidField, "invalid_field"},
    {StatusCode::kCommandIdConflict, "command_id_conflict"},
    {StatusCode::kDataTransferError, "data_transfer_error"},
    {StatusCode::kAbortedPowerLoss, "aborted_power_loss"},
    {StatusCode::kInternalError, "internal_error"},
    {StatusCode::kAbortRequested, "abort_requested"},
    {StatusCode::kAbortedQueueDeleted, "aborted_queue_deleted"},
    {StatusCode::kAbortedFailedFused, "aborted_failed_fused"},
    {StatusCode::kAbortedMissingFused, "aborted_missing_fused"},
    {StatusCode::kInvalidNamespaceOrFormat, "invalid_namespace_or_format"},
    {StatusCode::kCommandSequenceError, "command_sequence_error"},
    {StatusCode::kInvalidSglSegment, "invalid_sgl_segment"},
    {StatusCode::kInvalidSglCount, "invalid_sgl_count"},
    {StatusCode::kDataSglLengthInvalid, "data_sgl_length_invalid"},
    {StatusCode::kMetadataSglLengthInvalid, "metadata_sgl_length_invalid"},
    {StatusCode::kSglTypeInvalid, "sgl_type_invalid"},
    {StatusCode::kAtomicWriteUnitExceeded, "atomic_write_unit_exceeded"},
    {StatusCode::kOperationDenied, "operation_denied"},
    {StatusCode::kSglOffsetInvalid, "sgl_offset_invalid"},
    {StatusCode::kHostIdInconsistentFormat, "host_id_inconsistent_format"},
    {StatusCode::kKeepAliveExpired, "keep_alive_expired"},
    {StatusCode::kKeepAliveInvalid, "keep_alive_invalid"},
    {StatusCode::kAbortedPreempt, "aborted_preempt"},
    {StatusCode::kSanitizeFailed, "sanitize_failed"},
    {StatusCode::kSanitizeInProgress, "sanitize_in_progress"},
    {StatusCode::kSglGranularityInvalid, "sgl_granularity_invalid"},
    {StatusCode::kNamespaceWriteProtected, "namespace_write_protected"},
    {StatusCode::kCommandInterrupted, "command_interrupted"},
    {StatusCode::kTransientTransportError, "transient_transport_error"},
    {StatusCode::kProhibitedByLockdown, "prohibited_by_lockdown"},
    {StatusCode::kMediaNotReady, "media_not_ready"},
    {StatusCode::kLbaOutOfRange, "lba_out_of_range"},
    {StatusCode::kCapacityExceeded, "capacity_exceeded"},
    {StatusCode::kNamespaceNotReady, "namespace_not_ready"},
    {StatusCode::kReservationConflict, "reservation_conflict"},
    {StatusCode::kFormatInProgress, "format_in_progress"},
    {StatusCode::kCompletionQueueInvalid, "completion_queue_invalid"},
    {StatusCode::kInvalidQueueId, "invalid_queue_id"},
    {StatusCode::kInvalidQueueSize, "invalid_queue_size"},
    {StatusCode::kAbortLimitExceeded, "abort_limit_exceeded"},
    {StatusCode::kAsyncEventLimitExceeded, "async_event_limit_exceeded"},
    {StatusCode::kInvalidFirmwareSlot, "invalid_firmware_slot"},
    {StatusCode::kInvalidFirmwareImage, "invalid_firmware_image"},
    {StatusCode::kInvalidInterruptVector, "invalid_interrupt_vector"},
    {StatusCode::kInvalidLogPage, "invalid_log_page"},
    {StatusCode::kInvalidFormat, "invalid_format"},
    {StatusCode::kInvalidQueueDeletion, "invalid_queue_deletion"},
    {StatusCode::kFeatureNotSaveable, "feature_not_saveable"},
    {StatusCode::kFeatureNotChangeable, "feature_not_changeable"},
    {StatusCode::kFeatureNotNamespaceSpecific, "feature_not_namespace_specific"},
    {StatusCode::kOverlappingRange, "overlapping_range"},
    {StatusCode::kNamespaceInsufficientCapacity, "namespace_insufficient_capacity"},
    {StatusCode::kNamespaceIdUnavailable, "namespace_id_unavailable"},
    {StatusCode::kNamespaceAlreadyAttached, "namespace_already_attached"},
    {StatusCode::kNamespaceIsPrivate, "namespace_is_private"},
    {StatusCode::kNamespaceNotAttached, "namespace_not_attached"},
    {StatusCode::kThinProvisioningNotSupported, "thin_provisioning_not_supported"},
    {StatusCode::kControllerListInvalid, "controller_list_invalid"},
    {StatusCode::kInvalidControllerId, "invalid_controller_id"},
    {StatusCode::kAnaGroupIdInvalid, "ana_group_id_invalid"},
    {StatusCode::kAnaAttachFailed, "ana_attach_failed"},
    {StatusCode::kCommandSetNotSupported, "command_set_not_supported"},
    {StatusCode::kCommandSetNotEnabled, "command_set_not_enabled"},
    {StatusCode::kCommandSetCombinationRejected, "command_set_combination_rejected"},
    {StatusCode::kInvalidCommandSet, "invalid_command_set"},
    {StatusCode::kConnectIncompatibleFormat, "connect_incompatible_format/conflicting_attributes"},
    {StatusCode::kConnectControllerBusy, "connect_controller_busy/invalid_protection_info"},
    {StatusCode::kConnectInvalidParameters, "connect_invalid_parameters/write_to_read_only_range"},
    {StatusCode::kConnectRestartDiscovery, "connect_restart_discovery/command_size_limit_exceeded"},
    {StatusCode::kConnectInvalidHost, "connect_invalid_host"},
    {StatusCode::kInvalidQueueType, "invalid_queue_type"},
    {StatusCode::kDiscoverRestart, "discover_restart"},
    {StatusCode::kAuthenticationRequired, "authentication_required"},
    {StatusCode::kWriteFault, "write_fault"},
    {StatusCode::kUnrecoveredReadError, "unrecovered_read_error"},
    {StatusCode::kGuardCheckError, "guard_check_error"},
    {StatusCode::kApplicationTagCheckError, "application_tag_check_error"},
    {StatusCode::kReferenceTagCheckError, "reference_tag_check_error"},
    {StatusCode::kCompareFailure, "compare_failure"},
    {StatusCode::kAccessDenied, "access_denied"},
    {StatusCode::kDeallocatedBlock, "deallocated_block"},
    {StatusCode::kInternalPathError, "internal_path_error"},
    {StatusCode::kAnaPersistentLoss, "ana_persistent_loss"},
    {StatusCode::kAnaInaccessible, "ana_inaccessible"},
    {StatusCode::kAnaTransition, "ana_transition"},
    {StatusCode::kControllerPathingError, "controller_pathing_error"},
    {StatusCode::kHostPathingError, "host_pathing_error"},
    {StatusCode::kAbortedByHost, "aborted_by_host"},
    {StatusCode::kFenced, "fenced"},
});
static_assert(std::ranges::adjacent_find(kNames, std::ranges::greater_equal{}, &NamedStatus::code) == kNames.end());

Code code_from_status(StatusCode code) noexcept {
  switch (code) {
    case StatusCode::kInvalidOpcode:
      return Code::kNotSupported;
    case StatusCode::kInvalidField:
      return Code::kInvalidArgument;
    case StatusCode::kInvalidNamespaceOrFormat:
      return Code::kNotFound;
    case StatusCode::kAbortRequested:
    case StatusCode::kAbortedQueueDeleted:
    case StatusCode::kAbortedByHost:
      return Code::kCancelled;
    case StatusCode::kNamespaceWriteProtected:
      return Code::kReadOnly;
    case StatusCode::kLbaOutOfRange:
      return Code::kOutOfRange;
    case StatusCode::kCapacityExceeded:
      return Code::kNoSpace;
    case StatusCode::kNamespaceNotReady:
    case StatusCode::kConnectControllerBusy:
      return Code::kBusy;
    case StatusCode::kReservationConflict:
    case StatusCode::kAccessDenied:
    case StatusCode::kConnectInvalidHost:
    case StatusCode::kAuthenticationRequired:
    case StatusCode::kOperationDenied:
      return Code::kPermissionDenied;
    case StatusCode::kConnectInvalidParameters:
      return Code::kInvalidArgument;
    case StatusCode::kUnrecoveredReadError:
      return Code::kCorrupt;
    case StatusCode::kCompareFailure:
      return Code::kMiscompare;
    case StatusCode::kKeepAliveExpired:
      return Code::kTimedOut;
    case StatusCode::kFenced:
      return Code::kFenced;
    default:
      break;
  }
  const Status status{code, false, false};
  if (status.type() == StatusCodeType::kPath) return Code::kUnreachable;
  return code == StatusCode::kTransientTransportError ? Code::kConnectionLost : Code::kIo;
}

}  // namespace

Status status_from_error(const Error& error) noexcept {
  const CodeInfo& info = code_info(error.code);
  Status status = transient(static_cast<StatusCode>(info.nvme_status));
  status.do_not_retry = !info.retry_can_help && status.type() != StatusCodeType::kPath;
  return status;
}

Error error_from_status(Status status, const char* what) noexcept {
  FL_CHECK(!status.ok());
  return Error{code_from_status(status.code), 0, what};
}

std::string_view status_name(StatusCode code) noexcept {
  const auto* found = std::ranges::lower_bound(kNames, code, {}, &NamedStatus::code);
  return found != kNames.end() && found->code == code ? found->name : "unknown";
}

std::string to_string(const Status& status) {
  return fmt::format("{} (0x{:03x}{}{})", status_name(status.code), static_cast<uint16_t>(status.code),
                     status.do_not_retry ? ", do not retry" : "", status.more ? ", more" : "");
}

}  // namespace fairlead::nvme
