// Histogram: how often which value was seen, such as latencies in nanoseconds. Fixed memory, recording in constant time
// without allocation. A plain value; one thread, merge what several threads have recorded.
//
// Log-linear: values below 128 each have a bucket of their own, each power of two above is cut into 128 buckets. So a
// quantile is off by at most one part in 256; minimum, maximum, sum and count are exact.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fairlead {

class Histogram {
 public:
  Histogram() : buckets_(kBuckets) {}

  void record(uint64_t value) {
    ++buckets_[bucket_of(value)];
    ++count_;
    sum_ += value;
    min_ = std::min(min_, value);
    max_ = std::max(max_, value);
  }
  void merge(const Histogram& other);
  void clear();

  uint64_t count() const { return count_; }
  uint64_t sum() const { return sum_; }  // wraps at 2^64
  // 0 when nothing was recorded; likewise mean() and quantile().
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  uint64_t max() const { return max_; }
  double mean() const;

  // The smallest value that at least this part of all values does not exceed: 0.99 for the 99th percentile; 0 is the
  // minimum, 1 the maximum. Requires: from 0 to 1.
  uint64_t quantile(double part) const;

 private:
  static constexpr unsigned kLinearBits = 7;
  static constexpr uint64_t kPerPower = uint64_t{1} << kLinearBits;
  static constexpr size_t kBuckets = (64 - kLinearBits + 1) * kPerPower;

  // Values with the same leading bits share a bucket; `shift` bits of them are not looked at.
  static constexpr size_t bucket_of(uint64_t value) {
    const auto leading = static_cast<size_t>(std::countl_zero(value | (2 * kPerPower - 1)));
    const size_t shift = 64 - kLinearBits - 1 - leading;
    return shift * kPerPower + (value >> shift);
  }
  static uint64_t middle_of(size_t bucket);

  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
};

}  // namespace fairlead
