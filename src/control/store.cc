#include "control/store.h"

#include <fmt/format.h>
#include <set>

namespace fairlead::control {

Outcome<void> check(const std::vector<Write>& writes) {
  if (writes.empty() || writes.size() > kWritesMax) {
    return problem(Code::kInvalidArgument,
                   fmt::format("a transaction has 1 to {} writes, not {}", kWritesMax, writes.size()));
  }
  std::set<std::string_view> seen;
  size_t bytes = 0;
  for (const Write& write : writes) {
    if (write.key.empty() || write.key.size() > kKeyBytesMax) {
      return problem(Code::kInvalidArgument,
                     fmt::format("a key has 1 to {} bytes, not {}", kKeyBytesMax, write.key.size()));
    }
    bytes += write.key.size() + (write.value ? write.value->size() : 0);
    if (!seen.insert(write.key).second) {
      return problem(Code::kInvalidArgument, fmt::format("{} is written twice in one transaction", write.key));
    }
    if (write.value && write.value->size() > kValueBytesMax) {
      return problem(Code::kInvalidArgument, fmt::format("{} has {} bytes; a value has {} at most", write.key,
                                                         write.value->size(), kValueBytesMax));
    }
  }
  if (bytes > kTransactionBytesMax) {
    return problem(Code::kInvalidArgument,
                   fmt::format("a transaction has {} bytes at most, not {}", kTransactionBytesMax, bytes));
  }
  return {};
}

std::string end_of_prefix(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (!prefix.empty()) ++prefix.back();
  return prefix;
}

}  // namespace fairlead::control
