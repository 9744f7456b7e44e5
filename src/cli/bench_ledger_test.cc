#include "cli/bench_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fairlead::cli {
namespace {

using Kind = BenchLedger::Verdict::Kind;
using testing::AllOf;
using testing::HasSubstr;

constexpr uint32_t kBlock = 8192;
constexpr uint64_t kOffset = 1 << 20;
using Bytes = std::vector<std::byte>;

struct LedgerTest : testing::Test {
  Bytes write(uint64_t block) {
    Bytes bytes = begin_write(block);
    ledger.end_write(block, {});
    return bytes;
  }
  Bytes begin_write(uint64_t block) {
    Bytes bytes(kBlock);
    ledger.begin_write(block, bytes);
    return bytes;
  }
  BenchLedger::Verdict read(uint64_t block, const Bytes& bytes) {
    return ledger.end_read(block, ledger.begin_read(block), bytes);
  }
  void expect_bad(uint64_t block, const Bytes& bytes, const char* offset, const char* found) {
    const BenchLedger::Verdict verdict = read(block, bytes);
    EXPECT_EQ(verdict.kind, Kind::kBad);
    EXPECT_THAT(verdict.complaint, AllOf(HasSubstr(offset), HasSubstr("expected generation"), HasSubstr(found)));
  }
  BenchLedger ledger{
      {.seed = 7, .region = {.offset = kOffset, .blocks = 100}, .block_bytes = kBlock, .logical_block = 4096}};
};

TEST_F(LedgerTest, WhatWasWrittenIsGood) {
  EXPECT_EQ(read(3, Bytes(kBlock)).kind, Kind::kUnknown) << "nobody wrote it";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(read(3, write(3)).kind, Kind::kGood);
  EXPECT_EQ(ledger.written_count(), 1U);
  EXPECT_EQ(ledger.written(0), 3U);
}

TEST_F(LedgerTest, ComplaintsSayWhereAndWhat) {
  const Bytes older = write(3);
  const Bytes newer = write(3);
  const Bytes other = write(4);
  expect_bad(3, Bytes(kBlock), "offset 1073152", "zeroes");
  expect_bad(3, Bytes(kBlock, std::byte{0x55}), "offset 1073152", "never written here");
  expect_bad(3, older, "offset 1073152", "generation 1, which was overwritten");
  expect_bad(3, other, "offset 1073152", "block of offset 1081344, generation 1");
  Bytes damaged = newer;
  damaged[5000] ^= std::byte{0x10};
  expect_bad(3, damaged, "offset 1077248", "first at offset 1078152");
  // Half of a write: its first logical block is there, its second is not.
  Bytes torn = newer;
  std::copy(older.begin() + 4096, older.end(), torn.begin() + 4096);
  expect_bad(3, torn, "offset 1077248", "generation 1");
  BenchLedger another(
      {.seed = 8, .region = {.offset = kOffset, .blocks = 100}, .block_bytes = kBlock, .logical_block = 4096});
  Bytes foreign(kBlock);
  another.begin_write(3, foreign);
  expect_bad(3, foreign, "offset 1073152", "an earlier run");
}

TEST_F(LedgerTest, AConcurrentWriteMayOrMayNotBeSeen) {
  const Bytes first = write(3);
  const BenchLedger::Reading before = ledger.begin_read(3);
  const Bytes second = begin_write(3);
  Bytes mixed = first;
  std::copy(second.begin() + 4096, second.end(), mixed.begin() + 4096);
  for (const Bytes& bytes : {first, second, mixed}) EXPECT_EQ(ledger.end_read(3, before, bytes).kind, Kind::kGood);
  const BenchLedger::Reading during = ledger.begin_read(3);
  ledger.end_write(3, {});
  EXPECT_EQ(ledger.end_read(3, before, first).kind, Kind::kGood) << "it began before the write was acknowledged";
  EXPECT_EQ(ledger.end_read(3, during, first).kind, Kind::kGood);
  EXPECT_EQ(read(3, first).kind, Kind::kBad) << "it began afterwards";
  // Within a logical block a mixture proves nothing while there is a write, and everything when there is none.
  std::copy(first.begin() + 100, first.begin() + 4096, mixed.begin() + 100);
  mixed[50] ^= std::byte{1};
  EXPECT_EQ(ledger.end_read(3, during, mixed).kind, Kind::kUnknown);
  EXPECT_EQ(read(3, mixed).kind, Kind::kBad);
}

TEST_F(LedgerTest, AFailedWriteLeavesTheBlockUnknownUntilTheNext) {
  write(3);
  write(4);
  const BenchLedger::Reading before = ledger.begin_read(3);
  begin_write(3);
  ledger.end_write(3, fail(Code::kIo));
  EXPECT_EQ(ledger.end_read(3, before, Bytes(kBlock)).kind, Kind::kUnknown);
  EXPECT_EQ(read(3, Bytes(kBlock)).kind, Kind::kUnknown);
  EXPECT_EQ(read(4, Bytes(kBlock)).kind, Kind::kBad);
  const Bytes last = write(3);
  EXPECT_EQ(read(3, last).kind, Kind::kGood);
  EXPECT_EQ(read(3, Bytes(kBlock)).kind, Kind::kBad);
}

}  // namespace
}  // namespace fairlead::cli
