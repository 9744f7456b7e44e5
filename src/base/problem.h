// Problem: an error together with what only its place knows: names, paths, what another process said.
#pragma once

#include <expected>
#include <string>
#include <utility>

#include "base/error.h"

namespace fairlead {

struct Problem {
  Error error = {};
  std::string detail = {};   // for people: what it is about; may be empty
  bool is_sentence = false;  // `detail` says it all
};
template <typename T>
using Outcome = std::expected<T, Problem>;

// "volume db: is not valid" and the like are to_string()'s; this one is said as it stands: what was wrong, what to do.
inline std::unexpected<Problem> problem(Code code, std::string sentence) {
  return std::unexpected(Problem{.error = {.code = code}, .detail = std::move(sentence), .is_sentence = true});
}
inline std::unexpected<Problem> problem_of(Error error, std::string about = "") {
  return std::unexpected(Problem{.error = error, .detail = std::move(about), .is_sentence = false});
}

std::string to_string(const Problem& problem);

}  // namespace fairlead
