#include "nvme/text.h"

namespace fairlead::nvme {
namespace {

std::string_view admin_name(uint8_t opcode) noexcept {
  switch (static_cast<AdminOpcode>(opcode)) {
    case AdminOpcode::kDeleteIoSubmissionQueue:
      return "delete_io_submission_queue";
    case AdminOpcode::kCreateIoSubmissionQueue:
      return "create_io_submission_queue";
    case AdminOpcode::kGetLogPage:
      return "get_log_page";
    case AdminOpcode::kDeleteIoCompletionQueue:
      return "delete_io_completion_queue";
    case AdminOpcode::kCreateIoCompletionQueue:
      return "create_io_completion_queue";
    case AdminOpcode::kIdentify:
      return "identify";
    case AdminOpcode::kAbort:
      return "abort";
    case AdminOpcode::kSetFeatures:
      return "set_features";
    case AdminOpcode::kGetFeatures:
      return "get_features";
    case AdminOpcode::kAsyncEventRequest:
      return "async_event_request";
    case AdminOpcode::kNamespaceManagement:
      return "namespace_management";
    case AdminOpcode::kFirmwareCommit:
      return "firmware_commit";
    case AdminOpcode::kFirmwareDownload:
      return "firmware_download";
    case AdminOpcode::kDeviceSelfTest:
      return "device_self_test";
    case AdminOpcode::kNamespaceAttachment:
      return "namespace_attachment";
    case AdminOpcode::kKeepAlive:
      return "keep_alive";
    case AdminOpcode::kDirectiveSend:
      return "directive_send";
    case AdminOpcode::kDirectiveReceive:
      return "directive_receive";
    case AdminOpcode::kFabrics:
      return "fabrics";
    case AdminOpcode::kFormatNvm:
      return "format_nvm";
    case AdminOpcode::kSecuritySend:
      return "security_send";
    case AdminOpcode::kSecurityReceive:
      return "security_receive";
    case AdminOpcode::kSanitize:
      return "sanitize";
    case AdminOpcode::kGetLbaStatus:
      return "get_lba_status";
    case AdminOpcode::kReplicationSend:
      return "replication_send";
    case AdminOpcode::kReplicationReceive:
      return "replication_receive";
  }
  return "unknown";
}

std::string_view nvm_name(uint8_t opcode) noexcept {
  switch (static_cast<NvmOpcode>(opcode)) {
    case NvmOpcode::kFlush:
      return "flush";
    case NvmOpcode::kWrite:
      return "write";
    case NvmOpcode::kRead:
      return "read";
    case NvmOpcode::kWriteUncorrectable:
      return "write_uncorrectable";
    case NvmOpcode::kCompare:
      return "compare";
    case NvmOpcode::kWriteZeroes:
      return "write_zeroes";
    case NvmOpcode::kDatasetManagement:
      return "dataset_management";
    case NvmOpcode::kVerify:
      return "verify";
    case NvmOpcode::kReservationRegister:
      return "reservation_register";
    case NvmOpcode::kReservationReport:
      return "reservation_report";
    case NvmOpcode::kReservationAcquire:
      return "reservation_acquire";
    case NvmOpcode::kReservationRelease:
      return "reservation_release";
    case NvmOpcode::kCopy:
      return "copy";
    case NvmOpcode::kFabrics:
      return "fabrics";
  }
  return "unknown";
}

}  // namespace

std::string_view opcode_name(QueueKind queue, uint8_t opcode) noexcept {
  return queue == QueueKind::kAdmin ? admin_name(opcode) : nvm_name(opcode);
}

std::string_view fabrics_name(FabricsType type) noexcept {
  switch (type) {
    case FabricsType::kPropertySet:
      return "property_set";
    case FabricsType::kConnect:
      return "connect";
    case FabricsType::kPropertyGet:
      return "property_get";
    case FabricsType::kAuthenticationSend:
      return "authentication_send";
    case FabricsType::kAuthenticationReceive:
      return "authentication_receive";
    case FabricsType::kDisconnect:
      return "disconnect";
  }
  return "unknown";
}

std::string_view command_name(QueueKind queue, const SubmissionEntry& command) noexcept {
  return command.is_fabrics() ? fabrics_name(command.fabrics_type()) : opcode_name(queue, command.opcode);
}

}  // namespace fairlead::nvme
