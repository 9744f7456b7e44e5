// Error and Result: how operating errors travel. One table (error.cc) maps each code to its text, its NVMe
// status, its gRPC code and whether a retry can help.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

namespace fairlead {

// Keep in the order of the table in error.cc; its self-check is error_table_is_complete().
enum class Code : uint8_t {
  kInvalidArgument,    // the caller's input is wrong
  kNotFound,           // the named thing does not exist
  kAlreadyExists,      // a thing of that name exists
  kPermissionDenied,   // the operating system or an access list refuses
  kIsDirectory,        // a path names a directory
  kNotSupported,       // the thing exists and cannot do this
  kBusy,               // in use by another process, or mounted
  kReadOnly,           // the medium refuses writes
  kOutOfRange,         // beyond the end of the device
  kNoSpace,            // the medium is full
  kResourceExhausted,  // a limit of ours is reached
  kIo,                 // the medium failed
  kCorrupt,            // bytes from a disk or a wire fail their check
  kProtocol,           // the peer broke the protocol
  kConnectionLost,     // the peer went away
  kUnreachable,        // no connection could be made
  kTimedOut,           // a time limit passed
  kCancelled,          // the caller took the request back
  kShuttingDown,       // the service ends
  kMiscompare,         // Compare found other bytes
  kFenced,             // another target has the volume, or this one another session
  kInternal,           // a defect of ours
};
inline constexpr int kCodeCount = static_cast<int>(Code::kInternal) + 1;

// What the table says of a code.
struct CodeInfo {
  Code code;
  std::string_view name;  // stable, for logs and JSON: "not_found"
  std::string_view text;  // for people: "does not exist"
  uint16_t nvme_status;   // (status code type << 8) | status code, NVMe base 2.0 section 3.3.3.2.1
  uint8_t grpc_code;      // google.rpc.Code
  bool retry_can_help;
};
const CodeInfo& code_info(Code code) noexcept;
// The code of that name ("not_found"), as another process said it; none: there is no such name here.
std::optional<Code> code_from_name(std::string_view name) noexcept;

// Small and trivially copyable. `what` points to a string that lives for ever (a literal): which step failed or what to
// do. Names (paths, arguments) are added by the edge that knows them.
struct Error {
  Code code = Code::kInternal;
  int os_errno = 0;  // 0: none
  const char* what = "";

  friend bool operator==(const Error& a, const Error& b) noexcept { return a.code == b.code; }
};

template <typename T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Code code, const char* what = "") noexcept {
  return std::unexpected(Error{code, 0, what});
}

// The Error for an errno value; `what` names the step that failed.
Error error_from_errno(int os_errno, const char* what) noexcept;
inline std::unexpected<Error> fail_errno(int os_errno, const char* what) noexcept {
  return std::unexpected(error_from_errno(os_errno, what));
}

// "is in use (claim the file: Device or resource busy)"
std::string to_string(const Error& error);

}  // namespace fairlead

// Evaluates a Result; returns its error from the enclosing function, else yields its value into `declaration`.
#define FL_CONCAT_INNER(a, b) a##b
#define FL_CONCAT(a, b) FL_CONCAT_INNER(a, b)
#define FL_TRY_IMPL(temporary, return_keyword, declaration, ...) \
  auto temporary = (__VA_ARGS__);                                \
  if (!temporary) [[unlikely]]                                   \
    return_keyword std::unexpected(temporary.error());           \
  declaration = std::move(*temporary)
#define FL_TRY(declaration, ...) FL_TRY_IMPL(FL_CONCAT(fl_try_, __LINE__), return, declaration, __VA_ARGS__)
#define FL_CO_TRY(declaration, ...) FL_TRY_IMPL(FL_CONCAT(fl_try_, __LINE__), co_return, declaration, __VA_ARGS__)
// The same for Result<void>.
#define FL_TRY_VOID_IMPL(temporary, return_keyword, ...)       \
  if (auto temporary = (__VA_ARGS__); !temporary) [[unlikely]] \
  return_keyword std::unexpected(temporary.error())
#define FL_TRY_VOID(...) FL_TRY_VOID_IMPL(FL_CONCAT(fl_try_, __LINE__), return, __VA_ARGS__)
#define FL_CO_TRY_VOID(...) FL_TRY_VOID_IMPL(FL_CONCAT(fl_try_, __LINE__), co_return, __VA_ARGS__)
