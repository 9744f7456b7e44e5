// Prng: the one source of chance in a simulation. The same seed gives the same numbers on every machine; no std
// distribution, whose results differ between libraries.
#pragma once

#include <bit>
#include <cstdint>

#include "base/xoshiro.h"
#include "io/clock.h"

namespace fairlead::sim {

// Order-sensitive: mixes `value` into `hash`.
constexpr uint64_t mix_hash(uint64_t hash, uint64_t value) {
  hash = (std::rotl(hash, 23) + value) * 0x9fb21c651e98df25U;
  return hash ^ (hash >> 29);
}
uint64_t hash_bytes(std::span<const std::byte> bytes) noexcept;

class Prng final : public Random {
 public:
  explicit Prng(uint64_t seed) : generator_(seed) {}

  uint64_t next() override { return generator_.next(); }

  // In [low, high]. Requires: low <= high, and not the whole range of 64 bits.
  uint64_t between(uint64_t low, uint64_t high) {
    FL_CHECK(low <= high);
    return low + below(high - low + 1);
  }
  Duration between(Duration low, Duration high) {
    return Duration(
        static_cast<int64_t>(between(static_cast<uint64_t>(low.count()), static_cast<uint64_t>(high.count()))));
  }
  // In [low, high], each power of two as likely as any other: small numbers are not rare. Requires: 0 < low <= high.
  uint64_t skewed(uint64_t low, uint64_t high) {
    const auto bits = static_cast<uint64_t>(std::bit_width(high) - std::bit_width(low));
    const uint64_t top = below(bits + 1);
    const uint64_t to = top == bits ? high : (uint64_t{1} << (static_cast<uint64_t>(std::bit_width(low)) + top)) - 1;
    const uint64_t from = top == 0 ? low : uint64_t{1} << (static_cast<uint64_t>(std::bit_width(low)) + top - 1);
    return between(from, to);
  }
  // True `ppm` times in a million. Draws nothing for 0.
  bool chance(uint32_t ppm) { return ppm != 0 && below(1'000'000) < ppm; }
  bool coin() { return (next() >> 63) != 0; }

  // A generator of its own: what one part draws does not shift what another gets.
  Prng fork() { return Prng(next()); }

 private:
  Xoshiro generator_;
};

}  // namespace fairlead::sim
