#include "base/error.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <system_error>

#include "base/check.h"

namespace fairlead {
namespace {

// NVMe status codes: generic (type 0), media (type 2) and path (type 3), NVMe base 2.0 figures 95, 99 and 100.
constexpr std::array<CodeInfo, kCodeCount> kTable = {{
    {Code::kInvalidArgument, "invalid_argument", "is not valid", 0x0002, 3, false},
    {Code::kNotFound, "not_found", "does not exist", 0x000b, 5, false},
    {Code::kAlreadyExists, "already_exists", "exists already", 0x0002, 6, false},
    {Code::kPermissionDenied, "permission_denied", "is refused: permission denied", 0x0286, 7, false},
    {Code::kIsDirectory, "is_directory", "is a directory", 0x0002, 3, false},
    {Code::kNotSupported, "not_supported", "is not supported", 0x0001, 12, false},
    {Code::kBusy, "busy", "is in use", 0x0082, 9, true},
    {Code::kReadOnly, "read_only", "is read-only", 0x0020, 9, false},
    {Code::kOutOfRange, "out_of_range", "is beyond the end", 0x0080, 11, false},
    {Code::kNoSpace, "no_space", "has no room left", 0x0081, 8, false},
    {Code::kResourceExhausted, "resource_exhausted", "would pass a limit", 0x0022, 8, true},
    {Code::kIo, "io", "failed: input/output error", 0x0006, 15, false},
    {Code::kCorrupt, "corrupt", "is corrupt", 0x0281, 15, false},
    {Code::kProtocol, "protocol", "broke the protocol", 0x0006, 13, false},
    {Code::kConnectionLost, "connection_lost", "lost its connection", 0x0022, 14, true},
    {Code::kUnreachable, "unreachable", "cannot be reached", 0x0022, 14, true},
    {Code::kTimedOut, "timed_out", "timed out", 0x0022, 4, true},
    {Code::kCancelled, "cancelled", "was cancelled", 0x0007, 1, true},
    {Code::kShuttingDown, "shutting_down", "is shutting down", 0x0022, 14, true},
    {Code::kMiscompare, "miscompare", "differs from what was expected", 0x0285, 10, false},
    {Code::kFenced, "fenced", "is refused: another target has the volume", 0x0300, 9, false},
    {Code::kInternal, "internal", "failed by a defect of Fairlead", 0x0006, 13, false},
}};

constexpr bool error_table_is_complete() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<size_t>(kTable[i].code) != i) return false;
  }
  return true;
}
static_assert(error_table_is_complete());

Code code_from_errno(int os_errno) noexcept {
  switch (os_errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return Code::kNotFound;
    case EEXIST:
      return Code::kAlreadyExists;
    case EACCES:
    case EPERM:
      return Code::kPermissionDenied;
    case EISDIR:
      return Code::kIsDirectory;
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOTTY:
      return Code::kNotSupported;
    case EBUSY:
    case EADDRINUSE:
    case EWOULDBLOCK:
      return Code::kBusy;
    case EROFS:
      return Code::kReadOnly;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Code::kNoSpace;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
      return Code::kResourceExhausted;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case ELOOP:
      return Code::kInvalidArgument;
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
    case ENOTCONN:
    case ESHUTDOWN:
      return Code::kConnectionLost;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EADDRNOTAVAIL:
      return Code::kUnreachable;
    case ETIMEDOUT:
    case ETIME:
      return Code::kTimedOut;
    case ECANCELED:
      return Code::kCancelled;
    case EBADMSG:
    case EILSEQ:
      return Code::kCorrupt;
    default:
      return Code::kIo;
  }
}

}  // namespace

const CodeInfo& code_info(Code code) noexcept {
  const auto index = static_cast<size_t>(code);
  FL_CHECK(index < kTable.size());
  return kTable[index];
}

std::optional<Code> code_from_name(std::string_view name) noexcept {
  const auto found = std::ranges::find(kTable, name, &CodeInfo::name);
  if (found == kTable.end()) return std::nullopt;
  return found->code;
}

Error error_from_errno(int os_errno, const char* what) noexcept {
  return Error{code_from_errno(os_errno), os_errno, what};
}

std::string to_string(const Error& error) {
  std::string text(code_info(error.code).text);
  const bool has_what = error.what[0] != '\0';
  if (has_what) text += fmt::format(" ({}", error.what);
  if (error.os_errno != 0) {
    text += fmt::format("{}{}", has_what ? ": " : " (", std::generic_category().message(error.os_errno));
  }
  if (has_what || error.os_errno != 0) text += ")";
  return text;
}

}  // namespace fairlead
