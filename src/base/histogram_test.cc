#include "base/histogram.h"

#include <cmath>
#include <gtest/gtest.h>
#include <random>

namespace fairlead {
namespace {

// What the histogram promises, from all the values.
uint64_t exact_quantile(const std::vector<uint64_t>& sorted, double part) {
  const auto wanted = static_cast<size_t>(std::ceil(part * static_cast<double>(sorted.size())));
  return sorted[std::max<size_t>(wanted, 1) - 1];
}

void expect_like_sorted(const Histogram& histogram, std::vector<uint64_t> samples) {
  std::ranges::sort(samples);
  EXPECT_EQ(histogram.count(), samples.size());
  EXPECT_EQ(histogram.min(), samples.front());
  EXPECT_EQ(histogram.max(), samples.back());
  for (const double part : {0.0, 0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
    const auto exact = static_cast<double>(exact_quantile(samples, part));
    EXPECT_NEAR(static_cast<double>(histogram.quantile(part)), exact, exact / 256) << part;
  }
}

TEST(HistogramTest, EmptyIsAllZeroes) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.min(), 0U);
  EXPECT_EQ(histogram.max(), 0U);
  EXPECT_EQ(histogram.mean(), 0);
  EXPECT_EQ(histogram.quantile(0.5), 0U);
}

TEST(HistogramTest, OneValueIsEveryQuantile) {
  for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{127}, uint64_t{128}, uint64_t{255}, uint64_t{256},
                               uint64_t{1'000'003}, UINT64_MAX}) {
    Histogram histogram;
    histogram.record(value);
    for (const double part : {0.0, 0.5, 1.0}) EXPECT_EQ(histogram.quantile(part), value);
  }
}

TEST(HistogramTest, SmallValuesAreExact) {
  Histogram histogram;
  for (uint64_t value = 0; value < 256; ++value) histogram.record(value);
  for (uint64_t rank = 1; rank <= 256; ++rank) EXPECT_EQ(histogram.quantile(static_cast<double>(rank) / 256), rank - 1);
  EXPECT_EQ(histogram.mean(), 127.5);
}

// Each boundary between buckets, of every power of two.
TEST(HistogramTest, BoundariesStayWithinTheError) {
  for (unsigned bit = 0; bit < 64; ++bit) {
    const uint64_t power = uint64_t{1} << bit;
    std::vector<uint64_t> samples;
    for (const uint64_t value : {power - 1, power, power + 1, power + power / 128, power + (power - 1)}) {
      samples.push_back(value);
    }
    Histogram histogram;
    for (const uint64_t value : samples) histogram.record(value);
    expect_like_sorted(histogram, samples);
  }
}

TEST(HistogramTest, AgreesWithSortedSamplesOfManyShapes) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> latencies(10, 1.5);
  for (int round = 0; round < 20; ++round) {
    std::vector<uint64_t> samples(1 + random() % 20'000);
    for (uint64_t& sample : samples) {
      switch (round % 3) {
        case 0:
          sample = static_cast<uint64_t>(latencies(random));
          break;
        case 1:
          sample = random() >> (random() % 64);
          break;
        default:
          sample = 80'000 + random() % 100;
      }
    }
    Histogram histogram;
    for (const uint64_t sample : samples) histogram.record(sample);
    expect_like_sorted(histogram, samples);
  }
}

TEST(HistogramTest, MergedIsAsIfRecordedTogether) {
  Histogram both;
  Histogram one;
  Histogram other;
  for (uint64_t value = 1; value < 100'000; value += 7) {
    both.record(value);
    (value % 2 == 0 ? one : other).record(value);
  }
  one.merge(other);
  one.merge(Histogram());
  EXPECT_EQ(one.count(), both.count());
  EXPECT_EQ(one.sum(), both.sum());
  EXPECT_EQ(one.min(), both.min());
  EXPECT_EQ(one.max(), both.max());
  for (const double part : {0.1, 0.5, 0.999}) EXPECT_EQ(one.quantile(part), both.quantile(part));
  one.clear();
  EXPECT_EQ(one.count(), 0U);
  EXPECT_EQ(one.quantile(1), 0U);
}

}  // namespace
}  // namespace fairlead
