#include "mirror/range_table.h"

#include <algorithm>

#include "base/check.h"

namespace fairlead::mirror {
// Memory orders. All operations are sequentially consistent, for the sake of who waits:
//
//   who waits:    counts itself as a waiter (MirrorShared::begin_waiting)    then looks at the word
//   who unlocks:  clears the bits in the word                                then looks at the count
//
// In their one order either the look at the word comes after the clearing, and finds it free, or the count was there
// before the look at it, and who waits is told. (With less both could look first; on x86 the loads cost nothing more.)
// And who locks sees everything that happened before the unlock, as its read-modify-write acquires what that released.
//
// A read that was answered by a medium looks at the words afterwards. A write's bits were set before it was sent to
// any medium; what the read saw of it came by the way of that medium, which orders the two (the kernel's barriers on
// both sides of a submission, or a message from another machine).
namespace {

// The words of a range in the order in which everybody takes them: ascending by their place in the table. So of those
// who meet in several words the one that got furthest is refused by none of the others.
class Words {
 public:
  explicit Words(ByteRange range)
      : first_block_(range.begin / RangeTable::kBlockBytes),
        last_block_((range.end - 1) / RangeTable::kBlockBytes),
        first_(first_block_ / 64),
        count_(last_block_ / 64 - first_ + 1) {
    const uint64_t to_end = RangeTable::kWords - first_ % RangeTable::kWords;
    wrapped_ = count_ > to_end ? count_ - to_end : 0;
  }
  size_t count() const { return count_; }
  struct Word {
    size_t index;
    uint64_t mask;
  };
  Word operator[](size_t i) const {
    // What is beyond the end of the table is at its start, and comes first.
    const uint64_t word = i < wrapped_ ? first_ + (count_ - wrapped_) + i : first_ + (i - wrapped_);
    uint64_t mask = ~uint64_t{0};
    if (word == first_) mask &= ~uint64_t{0} << first_block_ % 64;
    if (word == first_ + count_ - 1) mask &= ~uint64_t{0} >> (63 - last_block_ % 64);
    return {word % RangeTable::kWords, mask};
  }

 private:
  uint64_t first_block_;
  uint64_t last_block_;
  uint64_t first_;
  uint64_t count_;
  uint64_t wrapped_ = 0;
};

}  // namespace

RangeTable::RangeTable()
    : words_(std::make_unique<std::array<std::atomic<uint64_t>, kWords>>()),
      claims_on_(std::make_unique<std::array<std::atomic<uint16_t>, kClaimRegions>>()) {}

RangeTable::Outcome RangeTable::try_lock(ByteRange range) {
  FL_CHECK(!range.empty() && range.end - range.begin <= kLockBytesMax);
  const Words words(range);
  // A look first: who waits for a range looks often, and should not hold up others by what it takes and gives back.
  if (words.count() > 1 && is_locked(range)) return Outcome::kBusy;
  for (size_t i = 0; i < words.count(); ++i) {
    const auto [index, mask] = words[i];
    std::atomic<uint64_t>& word = (*words_)[index];
    uint64_t seen = word.load();
    bool taken = false;
    while ((seen & mask) == 0 && !taken) taken = word.compare_exchange_weak(seen, seen | mask);
    if (taken) continue;
    for (size_t back = 0; back < i; ++back) (*words_)[words[back].index].fetch_and(~words[back].mask);
    return i == 0 ? Outcome::kBusy : Outcome::kRolledBack;
  }
  return Outcome::kLocked;
}

void RangeTable::unlock(ByteRange range) {
  const Words words(range);
  for (size_t i = 0; i < words.count(); ++i) {
    const auto [index, mask] = words[i];
    const uint64_t before = (*words_)[index].fetch_and(~mask);
    FL_CHECK((before & mask) == mask);
  }
}

bool RangeTable::is_locked(ByteRange range) const {
  if (range.empty()) return false;
  const Words words(range);
  if (words.count() > kWords) {
    return std::ranges::any_of(*words_, [](const std::atomic<uint64_t>& word) { return word.load() != 0; });
  }
  for (size_t i = 0; i < words.count(); ++i) {
    const auto [index, mask] = words[i];
    if (((*words_)[index].load() & mask) != 0) return true;
  }
  return false;
}

template <typename Visit>
void RangeTable::for_each_region(ByteRange range, Visit visit) {
  FL_CHECK(!range.empty());
  const uint64_t first = range.begin / kClaimBytes;
  const uint64_t count = std::min<uint64_t>((range.end - 1) / kClaimBytes + 1 - first, kClaimRegions);
  for (uint64_t i = 0; i < count; ++i) visit((first + i) % kClaimRegions);
}

// A claim is a courtesy: locks alone keep writes apart, so nothing hangs on who sees it how soon.
void RangeTable::claim(ByteRange range) {
  for_each_region(range, [this](size_t region) { (*claims_on_)[region].fetch_add(1); });
  claims_.fetch_add(1);
}

void RangeTable::disclaim(ByteRange range) {
  for_each_region(range, [this](size_t region) { FL_CHECK((*claims_on_)[region].fetch_sub(1) > 0); });
  claims_.fetch_sub(1);
}

bool RangeTable::is_claimed(ByteRange range) const {
  if (claims_.load() == 0) [[likely]]
    return false;
  bool is_any = false;
  for_each_region(range, [&](size_t region) { is_any |= (*claims_on_)[region].load() > 0; });
  return is_any;
}

bool RangeTable::was_free(Watch& watch) const {
  while (!watch.left.empty()) {
    const uint64_t word_end = align_down(watch.left.begin, kWordBytes) + kWordBytes;
    const auto [index, mask] = Words({watch.left.begin, std::min(watch.left.end, word_end)})[0];
    const uint64_t locked = (*words_)[index].load() & mask & watch.locked;
    if (locked != 0) {
      watch.locked = locked;
      return false;
    }
    watch.left.begin = word_end;
    watch.locked = ~uint64_t{0};
  }
  return true;
}

}  // namespace fairlead::mirror
