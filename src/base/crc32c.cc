#include "base/crc32c.h"

#include <climits>
#include <isa-l/crc.h>

#include "base/check.h"

namespace fairlead {

void Crc32c::update(std::span<const std::byte> bytes) noexcept {
  FL_CHECK(bytes.size() <= INT_MAX);
  if (bytes.empty()) return;
  // ISA-L's prototype lacks const; it only reads.
  auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
  state_ = crc32_iscsi(data, static_cast<int>(bytes.size()), state_);
}

}  // namespace fairlead
