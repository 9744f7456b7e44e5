// Checks for programmer errors: on in every build, they log and abort.
// Never for bytes that came off a wire or a disk: those are validated and give an Error.
#pragma once

namespace fairlead {

// Logs one line naming the condition and its place, then aborts.
[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace fairlead

#define FL_CHECK(condition)                                     \
  do {                                                          \
    if (!(condition)) [[unlikely]]                              \
      ::fairlead::check_failed(#condition, __FILE__, __LINE__); \
  } while (false)

#define FL_UNREACHABLE(reason) ::fairlead::check_failed("unreachable: " reason, __FILE__, __LINE__)
