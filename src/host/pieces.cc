#include "host/pieces.h"

#include "base/check.h"
#include "base/crc32c.h"
#include "nvme/pdu_builder.h"

namespace fairlead::host {

std::span<std::byte> first_part(std::span<const iovec> data, DataRange range) {
  uint64_t skip = range.offset;
  for (const iovec& piece : data) {
    if (skip < piece.iov_len) {
      return {static_cast<std::byte*>(piece.iov_base) + skip, std::min<uint64_t>(piece.iov_len - skip, range.length)};
    }
    skip -= piece.iov_len;
  }
  FL_UNREACHABLE("the range lies within the data");
}

uint32_t digest_of(std::span<const iovec> data, DataRange range) {
  Crc32c crc;
  for_each_part(data, range, [&](std::span<std::byte> part) { crc.update(part); });
  return crc.value();
}

void fill_item(SendItem& item, std::vector<iovec>& list, std::span<const std::byte> header, std::span<const iovec> data,
               DataRange range, std::array<std::byte, nvme::kDigestSize>* digest) {
  if (digest != nullptr) nvme::put_digest(digest_of(data, range), *digest);
  item.clear();
  if (data.size() + 2 <= SendItem::kPiecesMax) {
    item.add(header);
    for_each_part(data, range, [&](std::span<std::byte> part) { item.add(part); });
    if (digest != nullptr) item.add(*digest);
    return;
  }
  const auto add = [&](std::span<const std::byte> part) {
    list.push_back({const_cast<std::byte*>(part.data()), part.size()});
  };
  list.clear();
  add(header);
  for_each_part(data, range, add);
  if (digest != nullptr) add(*digest);
  item.list = list;
}

}  // namespace fairlead::host
