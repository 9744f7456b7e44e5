#include "base/histogram.h"

#include <cmath>

#include "base/check.h"

namespace fairlead {

void Histogram::merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

void Histogram::clear() { *this = Histogram(); }

double Histogram::mean() const { return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_); }

uint64_t Histogram::middle_of(size_t bucket) {
  if (bucket < 2 * kPerPower) return bucket;
  const uint64_t shift = bucket / kPerPower - 1;
  const uint64_t first = (bucket - shift * kPerPower) << shift;
  return first + (uint64_t{1} << shift) / 2;
}

uint64_t Histogram::quantile(double part) const {
  FL_CHECK(part >= 0 && part <= 1);
  if (count_ == 0) return 0;
  const auto wanted = static_cast<uint64_t>(std::ceil(part * static_cast<double>(count_)));
  if (wanted <= 1) return min_;
  if (wanted >= count_) return max_;
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i];
    if (seen >= wanted) return std::clamp(middle_of(i), min_, max_);
  }
  return max_;
}

}  // namespace fairlead
