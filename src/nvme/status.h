// Status of an NVMe command (NVMe base 2.0 section 3.3.3.2.1): codes, the field of the completion entry, names.
// Plain values without state; every function may be called from any thread.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "base/error.h"

namespace fairlead::nvme {

// (Status Code Type << 8) | Status Code. Values above 0x180 mean one thing to an I/O command and another to a Fabrics
// command, hence the twins.
enum class StatusCode : uint16_t {
  // Type 0: generic.
  kSuccess = 0x000,
  kInvalidOpcode = 0x001,
  kInvalidField = 0x002,
  kCommandIdConflict = 0x003,
  kDataTransferError = 0x004,
  kAbortedPowerLoss = 0x005,
  kInternalError = 0x006,
  kAbortRequested = 0x007,
  kAbortedQueueDeleted = 0x008,
  kAbortedFailedFused = 0x009,
  kAbortedMissingFused = 0x00a,
  kInvalidNamespaceOrFormat = 0x00b,
  kCommandSequenceError = 0x00c,
  kInvalidSglSegment = 0x00d,
  kInvalidSglCount = 0x00e,
  kDataSglLengthInvalid = 0x00f,
  kMetadataSglLengthInvalid = 0x010,
  kSglTypeInvalid = 0x011,
  kAtomicWriteUnitExceeded = 0x014,
  kOperationDenied = 0x015,
  kSglOffsetInvalid = 0x016,
  kHostIdInconsistentFormat = 0x018,
  kKeepAliveExpired = 0x019,
  kKeepAliveInvalid = 0x01a,
  kAbortedPreempt = 0x01b,
  kSanitizeFailed = 0x01c,
  kSanitizeInProgress = 0x01d,
  kSglGranularityInvalid = 0x01e,
  kNamespaceWriteProtected = 0x020,
  kCommandInterrupted = 0x021,
  kTransientTransportError = 0x022,
  kProhibitedByLockdown = 0x023,
  kMediaNotReady = 0x024,
  kLbaOutOfRange = 0x080,
  kCapacityExceeded = 0x081,
  kNamespaceNotReady = 0x082,
  kReservationConflict = 0x083,
  kFormatInProgress = 0x084,

  // Type 1: specific to the command.
  kCompletionQueueInvalid = 0x100,
  kInvalidQueueId = 0x101,
  kInvalidQueueSize = 0x102,
  kAbortLimitExceeded = 0x103,
  kAsyncEventLimitExceeded = 0x105,
  kInvalidFirmwareSlot = 0x106,
  kInvalidFirmwareImage = 0x107,
  kInvalidInterruptVector = 0x108,
  kInvalidLogPage = 0x109,
  kInvalidFormat = 0x10a,
  kInvalidQueueDeletion = 0x10c,
  kFeatureNotSaveable = 0x10d,
  kFeatureNotChangeable = 0x10e,
  kFeatureNotNamespaceSpecific = 0x10f,
  kOverlappingRange = 0x114,
  kNamespaceInsufficientCapacity = 0x115,
  kNamespaceIdUnavailable = 0x116,
  kNamespaceAlreadyAttached = 0x118,
  kNamespaceIsPrivate = 0x119,
  kNamespaceNotAttached = 0x11a,
  kThinProvisioningNotSupported = 0x11b,
  kControllerListInvalid = 0x11c,
  kInvalidControllerId = 0x11f,
  kAnaGroupIdInvalid = 0x124,
  kAnaAttachFailed = 0x125,
  kCommandSetNotSupported = 0x129,
  kCommandSetNotEnabled = 0x12a,
  kCommandSetCombinationRejected = 0x12b,
  kInvalidCommandSet = 0x12c,
  // Type 1 of NVM commands.
  kConflictingAttributes = 0x180,
  kInvalidProtectionInfo = 0x181,
  kWriteToReadOnlyRange = 0x182,
  kCommandSizeLimitExceeded = 0x183,
  // Type 1 of Fabrics commands.
  kConnectIncompatibleFormat = 0x180,
  kConnectControllerBusy = 0x181,
  kConnectInvalidParameters = 0x182,
  kConnectRestartDiscovery = 0x183,
  kConnectInvalidHost = 0x184,
  kInvalidQueueType = 0x185,
  kDiscoverRestart = 0x190,
  kAuthenticationRequired = 0x191,

  // Type 2: media and data integrity.
  kWriteFault = 0x280,
  kUnrecoveredReadError = 0x281,
  kGuardCheckError = 0x282,
  kApplicationTagCheckError = 0x283,
  kReferenceTagCheckError = 0x284,
  kCompareFailure = 0x285,
  kAccessDenied = 0x286,
  kDeallocatedBlock = 0x287,

  // Type 3: path related.
  kInternalPathError = 0x300,
  kAnaPersistentLoss = 0x301,
  kAnaInaccessible = 0x302,
  kAnaTransition = 0x303,
  kControllerPathingError = 0x360,
  kHostPathingError = 0x370,
  kAbortedByHost = 0x371,

  // Type 7: vendor specific.
  kFenced = 0x7c0,  // the namespace takes I/O of another association only; always with DNR
};

enum class StatusCodeType : uint8_t { kGeneric = 0, kCommandSpecific = 1, kMedia = 2, kPath = 3, kVendor = 7 };

struct Status {
  StatusCode code = StatusCode::kSuccess;
  bool do_not_retry = false;  // DNR: the same command would fail again
  bool more = false;          // M: the error information log has more

  constexpr bool ok() const { return code == StatusCode::kSuccess; }
  constexpr StatusCodeType type() const {
    return static_cast<StatusCodeType>((static_cast<uint16_t>(code) >> 8) & 0x7);
  }
  friend constexpr bool operator==(const Status&, const Status&) = default;
};
inline constexpr Status kOk{};

// A value, or the status with which the command is to be completed.
template <typename T>
using StatusOr = std::expected<T, Status>;

// A retry cannot help: DNR is set.
constexpr Status permanent(StatusCode code) { return Status{code, true, false}; }
// The host may try again.
constexpr Status transient(StatusCode code) { return Status{code, false, false}; }
constexpr std::unexpected<Status> reject(StatusCode code) { return std::unexpected(permanent(code)); }

// The status field of a completion entry: bits 8:1 code, 11:9 type, 14 more, 15 do not retry. Bit 0 is the phase,
// always 0 over fabrics; the command retry delay (13:12) is 0.
constexpr uint16_t to_status_field(Status status) {
  return static_cast<uint16_t>(((static_cast<uint16_t>(status.code) & 0x7ffU) << 1) | (status.more ? 0x4000U : 0U) |
                               (status.do_not_retry ? 0x8000U : 0U));
}
// The reverse; ignores phase and retry delay. Codes that StatusCode does not name are kept.
constexpr Status from_status_field(uint16_t field) {
  return Status{static_cast<StatusCode>((field >> 1) & 0x7ffU), (field & 0x8000U) != 0, (field & 0x4000U) != 0};
}

// The status for an operating error, by the table of base/error.h; DNR unless the table says that a retry can help, and
// never of a path error: hosts do not even try another path then.
Status status_from_error(const Error& error) noexcept;
// The reverse, for the host side: the closest Code. Requires: !status.ok(). `what` lives for ever.
Error error_from_status(Status status, const char* what) noexcept;

// "lba_out_of_range"; twins (see StatusCode) share a name that tells both; "unknown" for what has no name.
std::string_view status_name(StatusCode code) noexcept;
// "lba_out_of_range (0x080, do not retry)", for logs.
std::string to_string(const Status& status);

}  // namespace fairlead::nvme
