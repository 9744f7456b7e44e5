// UnitSet: which units of an extent. A value; any thread.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace fairlead::pool {

inline constexpr size_t kUnitsMax = 256;  // of an extent; how many it has is the layout's affair

// Units beyond those that an extent has are in a set of all, and nobody asks for them.
class UnitSet {
 public:
  static constexpr size_t kWords = kUnitsMax / 64;

  constexpr UnitSet() = default;
  constexpr explicit UnitSet(const std::array<uint64_t, kWords>& words) : words_(words) {}
  static constexpr UnitSet all() { return range(0, kUnitsMax); }
  // Units [first, end). Requires: first <= end <= kUnitsMax.
  static constexpr UnitSet range(size_t first, size_t end) {
    UnitSet set;
    for (size_t word = 0; word < kWords; ++word) set.words_[word] = below(end, word) & ~below(first, word);
    return set;
  }

  constexpr bool has(size_t unit) const { return (words_[unit / 64] >> unit % 64 & 1) != 0; }
  constexpr bool any() const { return *this != UnitSet(); }
  constexpr bool is_all() const { return *this == all(); }
  constexpr bool contains(const UnitSet& other) const { return !(other - *this).any(); }

  // The first unit from `from` on that is in the set, or that is not. kUnitsMax: none.
  constexpr size_t next(size_t from) const { return find(from, 0); }
  constexpr size_t next_missing(size_t from) const { return find(from, ~uint64_t{0}); }

  // For byte codecs.
  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    for (auto& word : self.words_) io.field(word);
  }
  friend constexpr UnitSet operator|(const UnitSet& a, const UnitSet& b) {
    UnitSet set;
    for (size_t word = 0; word < kWords; ++word) set.words_[word] = a.words_[word] | b.words_[word];
    return set;
  }
  friend constexpr UnitSet operator&(const UnitSet& a, const UnitSet& b) {
    UnitSet set;
    for (size_t word = 0; word < kWords; ++word) set.words_[word] = a.words_[word] & b.words_[word];
    return set;
  }
  // What is in the one and not in the other.
  friend constexpr UnitSet operator-(const UnitSet& a, const UnitSet& b) {
    UnitSet set;
    for (size_t word = 0; word < kWords; ++word) set.words_[word] = a.words_[word] & ~b.words_[word];
    return set;
  }
  constexpr UnitSet& operator|=(const UnitSet& other) { return *this = *this | other; }
  constexpr UnitSet& operator-=(const UnitSet& other) { return *this = *this - other; }
  friend constexpr bool operator==(const UnitSet&, const UnitSet&) = default;

  constexpr const std::array<uint64_t, kWords>& words() const { return words_; }

 private:
  // The bits of units below `end` in a word.
  static constexpr uint64_t below(size_t end, size_t word) {
    const size_t first = word * 64;
    if (end <= first) return 0;
    return end - first >= 64 ? ~uint64_t{0} : (uint64_t{1} << (end - first)) - 1;
  }
  constexpr size_t find(size_t from, uint64_t flip) const {
    for (size_t word = from / 64; word < kWords; ++word) {
      uint64_t bits = words_[word] ^ flip;
      if (word == from / 64) bits &= ~uint64_t{0} << from % 64;
      if (bits != 0) return word * 64 + static_cast<size_t>(std::countr_zero(bits));
    }
    return kUnitsMax;
  }

  std::array<uint64_t, kWords> words_{};
};

// Calls visit(first, end) for each run of units in the set, below `count`.
template <typename Visit>
void for_each_run(const UnitSet& set, size_t count, Visit visit) {
  for (size_t first = set.next(0); first < count;) {
    const size_t end = set.next_missing(first) < count ? set.next_missing(first) : count;
    visit(static_cast<uint32_t>(first), static_cast<uint32_t>(end));
    first = set.next(end);
  }
}

}  // namespace fairlead::pool
