#include "base/problem.h"

#include <fmt/format.h>

namespace fairlead {

std::string to_string(const Problem& problem) {
  const Error& error = problem.error;
  if (problem.is_sentence) return problem.detail;
  if (problem.detail.empty()) return to_string(error);
  if (error.os_errno != 0 || *error.what == '\0') return fmt::format("{} {}", problem.detail, to_string(error));
  return fmt::format("{}: {}", problem.detail, error.what);
}

}  // namespace fairlead
