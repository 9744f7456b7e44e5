// Xoshiro: the generator xoshiro256** of Blackman and Vigna. The same state gives the same numbers on every machine.
// Not for keys. A plain value; one thread.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace fairlead {

class Xoshiro {
 public:
  using State = std::array<uint64_t, 4>;

  // Requires: not all zero.
  constexpr explicit Xoshiro(const State& state) : state_(state) {}
  // Spreads a seed over the state by splitmix64.
  constexpr explicit Xoshiro(uint64_t seed) {
    for (uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15U;
      uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
      word = z ^ (z >> 31);
    }
  }

  constexpr uint64_t next() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

 private:
  State state_{};
};

}  // namespace fairlead
