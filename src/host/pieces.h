// Parts of a scatter/gather list, for PDUs. No state.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <sys/uio.h>
#include <vector>

#include "io/stream_sender.h"
#include "nvme/pdu.h"

namespace fairlead::host {

// Some of the bytes of a scatter/gather list.
struct DataRange {
  uint64_t offset = 0;
  uint32_t length = 0;
};

// Calls visit(std::span<std::byte>) for each contiguous part of the range. Requires: the range lies within the list.
template <typename Visitor>
void for_each_part(std::span<const iovec> data, DataRange range, Visitor visit) {
  uint64_t skip = range.offset;
  uint64_t left = range.length;
  for (const iovec& piece : data) {
    if (left == 0) return;
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    const uint64_t length = std::min<uint64_t>(piece.iov_len - skip, left);
    visit(std::span(static_cast<std::byte*>(piece.iov_base) + skip, length));
    left -= length;
    skip = 0;
  }
  FL_CHECK(left == 0);
}

// The contiguous part that starts at range.offset.
std::span<std::byte> first_part(std::span<const iovec> data, DataRange range);

uint32_t digest_of(std::span<const iovec> data, DataRange range);

// Makes `item` a PDU: header, the range of data, its digest when `digest` is given. `list` is used when the item has no
// room for all parts. Everything is borrowed until the item is sent.
void fill_item(SendItem& item, std::vector<iovec>& list, std::span<const std::byte> header, std::span<const iovec> data,
               DataRange range, std::array<std::byte, nvme::kDigestSize>* digest);

}  // namespace fairlead::host
