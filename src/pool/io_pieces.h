// Pieces of scatter/gather lists.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <sys/uio.h>
#include <vector>

namespace fairlead::pool {

// Appends bytes [skip, skip + length) of a list to another. Requires: they are there.
inline void slice_buffers(std::span<const iovec> buffers, uint64_t skip, uint64_t length, std::vector<iovec>& out) {
  for (const iovec& buffer : buffers) {
    if (length == 0) return;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const size_t taken = std::min<uint64_t>(buffer.iov_len - skip, length);
    out.push_back({static_cast<std::byte*>(buffer.iov_base) + skip, taken});
    length -= taken;
    skip = 0;
  }
}

}  // namespace fairlead::pool
