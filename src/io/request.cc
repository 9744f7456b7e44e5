#include "io/request.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace fairlead {
namespace {

// Calls step(piece of the list, offset in the flat memory) for each piece that [skip, skip + length) covers.
template <typename Step>
void for_each_piece(std::span<const iovec> buffers, size_t skip, size_t length, Step step) {
  size_t at = 0;
  for (const iovec& buffer : buffers) {
    if (at == length) return;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const size_t piece = std::min(buffer.iov_len - skip, length - at);
    step(std::span(static_cast<std::byte*>(buffer.iov_base) + skip, piece), at);
    at += piece;
    skip = 0;
  }
  FL_CHECK(at == length);
}

}  // namespace

void copy_to_buffers(std::span<const iovec> buffers, size_t skip, std::span<const std::byte> from) {
  for_each_piece(buffers, skip, from.size(), [&](std::span<std::byte> piece, size_t at) {
    std::memcpy(piece.data(), from.data() + at, piece.size());
  });
}

void copy_from_buffers(std::span<const iovec> buffers, size_t skip, std::span<std::byte> to) {
  for_each_piece(buffers, skip, to.size(), [&](std::span<std::byte> piece, size_t at) {
    std::memcpy(to.data() + at, piece.data(), piece.size());
  });
}

size_t total_length(std::span<const iovec> buffers) {
  size_t sum = 0;
  for (const iovec& buffer : buffers) sum += buffer.iov_len;
  return sum;
}

}  // namespace fairlead
