// Any bytes as a message of replication control, or as what a replica keeps of itself or of a snapshot. What decodes
// must encode to the same bytes again.
//
// Input: byte 0 picks the decoder: 0 request, 1 reply, 2 state, 3 snapshot.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "mirror/control.h"

namespace fairlead::mirror {
namespace {

template <typename T>
void check(const Result<T>& decoded, std::span<const std::byte> input, Code refused_with) {
  if (decoded) {
    FL_CHECK(std::ranges::equal(encode(*decoded), input));  // one encoding each
    return;
  }
  FL_CHECK(decoded.error().code == refused_with);
  FL_CHECK(decoded.error().what[0] != '\0');
}

void run(std::span<const std::byte> input) {
  if (input.empty()) return;
  const std::span<const std::byte> rest = input.subspan(1);
  switch (static_cast<uint8_t>(input[0]) % 4) {
    case 0:
      return check(decode_request(rest), rest, Code::kProtocol);
    case 1:
      return check(decode_reply(rest), rest, Code::kProtocol);
    case 2:
      return check(decode_replica_state(rest), rest, Code::kCorrupt);
    default:
      return check(decode_snapshot(rest), rest, Code::kCorrupt);
  }
}

}  // namespace
}  // namespace fairlead::mirror

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fairlead::mirror::run(std::as_bytes(std::span(data, size)));
  return 0;
}
