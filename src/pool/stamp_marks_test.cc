#include "pool/stamp_marks.h"

#include <gtest/gtest.h>
#include <thread>
#include <vector>

namespace fairlead::pool {
namespace {

TEST(StampMarksTest, AnEntryIsDurableWithItsOwnBatch) {
  StampMarks marks;
  EXPECT_TRUE(marks.is_durable(3, Sequence(0)));
  marks.add(3, Sequence(10), Sequence(5));
  EXPECT_FALSE(marks.is_durable(3, Sequence(9)));
  EXPECT_TRUE(marks.is_durable(3, Sequence(10)));
  EXPECT_TRUE(marks.is_durable(4, Sequence(0))) << "another entry";
  EXPECT_FALSE(marks.is_all_durable(Sequence(9)));
  EXPECT_TRUE(marks.is_all_durable(Sequence(10)));
}

TEST(StampMarksTest, EntriesThatComeOneAfterTheOtherDoNotWaitForTheLast) {
  StampMarks marks;
  // The disk is three batches behind.
  for (uint64_t batch = 1; batch <= 200; ++batch) {
    const Sequence durable(batch < 4 ? 0 : batch - 4);
    marks.add(batch, Sequence(batch), durable);
    EXPECT_FALSE(marks.is_durable(batch, Sequence(batch - 1)));
    if (batch > 20) EXPECT_TRUE(marks.is_durable(batch - 20, durable)) << batch;
  }
}

TEST(StampMarksTest, AnEntryThatIsStampedAgainWaitsAgain) {
  StampMarks marks;
  marks.add(7, Sequence(1), Sequence(0));
  marks.add(8, Sequence(2), Sequence(1));
  marks.add(7, Sequence(3), Sequence(2));
  EXPECT_FALSE(marks.is_durable(7, Sequence(2)));
  EXPECT_TRUE(marks.is_durable(7, Sequence(3)));
}

// An answer is never yes too early, while entries move from one set to the other.
TEST(StampMarksTest, ReadersNeverTakeAStampForDurableTooEarly) {
  constexpr uint64_t kBatches = 300'000;
  constexpr size_t kEntries = 200;
  StampMarks marks;
  std::array<std::atomic<uint64_t>, kEntries> batch_of{};  // as entries show it
  std::atomic<uint64_t> durable{0};
  std::atomic<uint64_t> wrong{0};
  std::atomic<bool> is_over{false};
  const auto read = [&] {
    for (size_t i = 0; !is_over.load(std::memory_order_acquire); i = (i + 7) % kEntries) {
      const uint64_t shown = batch_of[i].load(std::memory_order_acquire);
      const uint64_t upto = durable.load(std::memory_order_acquire);
      if (shown <= upto || !marks.is_durable(i, Sequence(upto))) continue;
      // It may have become durable since.
      if (shown > durable.load(std::memory_order_acquire)) wrong.fetch_add(1, std::memory_order_relaxed);
    }
  };
  std::vector<std::thread> readers;
  readers.emplace_back(read);
  readers.emplace_back(read);
  for (uint64_t batch = 1; batch <= kBatches; ++batch) {
    const size_t index = batch * 13 % kEntries;
    marks.add(index, Sequence(batch), Sequence(durable.load(std::memory_order_relaxed)));
    batch_of[index].store(batch, std::memory_order_release);
    if (batch % 5 == 0) durable.store(batch - 3, std::memory_order_release);
  }
  is_over.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0U);
}

}  // namespace
}  // namespace fairlead::pool
