#include "mirror/shared.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace fairlead::mirror {
// Memory orders: sequentially consistent for the reason given in range_table.cc: clear() takes the place of an unlock.
// count_ is raised before a bit is set and lowered after it was cleared, so that 0 means that none is set.

ExtentBits::ExtentBits(uint64_t extents) : extents_(extents), words_((extents + 63) / 64) {}

void ExtentBits::reset(uint64_t extents) {
  extents_ = extents;
  words_ = std::vector<std::atomic<uint64_t>>((extents + 63) / 64);
  count_ = 0;
}

bool ExtentBits::test(uint64_t extent) const {
  return extent < extents_ && (words_[extent / 64].load() >> extent % 64 & 1) != 0;
}

void ExtentBits::set(uint64_t extent) {
  FL_CHECK(extent < extents_);
  const uint64_t bit = uint64_t{1} << extent % 64;
  count_.fetch_add(1);
  if ((words_[extent / 64].fetch_or(bit) & bit) != 0) count_.fetch_sub(1);
}

void ExtentBits::clear(uint64_t extent) {
  FL_CHECK(extent < extents_);
  const uint64_t bit = uint64_t{1} << extent % 64;
  if ((words_[extent / 64].fetch_and(~bit) & bit) != 0) count_.fetch_sub(1);
}

void ExtentBits::clear_all() {
  for (uint64_t at = next(0); at < extents_; at = next(at + 1)) clear(at);
}

uint64_t ExtentBits::find(uint64_t from, uint64_t end) const {
  end = std::min(end, extents_);
  while (from < end) {
    const uint64_t word = words_[from / 64].load() >> from % 64;
    if (word != 0) {
      const uint64_t found = from + static_cast<uint64_t>(std::countr_zero(word));
      return found < end ? found : extents_;
    }
    from = (from / 64 + 1) * 64;
  }
  return extents_;
}

uint64_t ExtentBits::next(uint64_t from) const { return find(from, extents_); }

uint64_t ExtentBits::next_not_in(const ExtentBits& other) const {
  for (size_t i = 0; i < words_.size(); ++i) {
    const uint64_t others = i < other.words_.size() ? other.words_[i].load() : 0;
    const uint64_t word = words_[i].load() & ~others;
    if (word != 0) return i * 64 + static_cast<uint64_t>(std::countr_zero(word));
  }
  return extents_;
}

uint64_t ExtentBits::next_in(ByteRange range) const {
  if (range.empty()) return extents_;
  return find(range.begin / kExtentBytes, (range.end - 1) / kExtentBytes + 1);
}

// Look first: the line stays shared among the shards' caches.
void MirrorShared::note_touched(ByteRange range) {
  const uint64_t end = std::min((range.end - 1) / kExtentBytes + 1, touched.extents());
  for (uint64_t at = range.begin / kExtentBytes; at < end; ++at) {
    if (!touched.test(at)) touched.set(at);
  }
}

MirrorShared::Returning::Returning(MirrorShared& of) : of_(of) {
  if (of_.returns.fetch_add(1) == 0) of_.touched.clear_all();
}

}  // namespace fairlead::mirror
