// Memory for I/O that is not taken from a shard's pool: aligned for every disk.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace fairlead {

inline constexpr size_t kIoAlignment = 4096;

struct AlignedDelete {
  void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t(kIoAlignment)); }
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;
inline AlignedBytes make_aligned_bytes(size_t bytes) {
  return AlignedBytes(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t(kIoAlignment))));
}

}  // namespace fairlead
