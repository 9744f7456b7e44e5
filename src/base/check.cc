#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace fairlead {

void check_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "FATAL check.failed at=%s:%d condition=\"%s\"\n", file, line, condition);
  std::abort();
}

}  // namespace fairlead
