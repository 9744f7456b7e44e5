#include "block/zeroes.h"

#include <array>

#include "base/check.h"

namespace fairlead {
namespace {

// In the part of the program that takes no room in its file, and none in memory until it is written to.
alignas(4096) constinit std::array<std::byte, kZeroesMax> memory{};

}  // namespace

std::span<std::byte> zeroes(size_t length) {
  FL_CHECK(length <= kZeroesMax);
  return {memory.data(), length};
}

}  // namespace fairlead
