// CRC32C (Castagnoli), as NVMe/TCP digests and iSCSI use it; the instructions are chosen at run time by ISA-L.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace fairlead {

// A CRC over bytes that come in pieces. value() of the bytes "123456789" is 0xe3069283.
class Crc32c {
 public:
  void update(std::span<const std::byte> bytes) noexcept;
  uint32_t value() const noexcept { return ~state_; }

 private:
  uint32_t state_ = 0xffffffff;
};

inline uint32_t crc32c(std::span<const std::byte> bytes) noexcept {
  Crc32c crc;
  crc.update(bytes);
  return crc.value();
}

}  // namespace fairlead
