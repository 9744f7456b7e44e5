// The fused compare-and-write: NVM command set 1.0 section 3.2, base 2.0 section 3.4.2.
#include "block/disk.h"
#include "block/faulty.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::Fuse;
using nvme::NvmOpcode;
using nvme::StatusCode;

struct Counter {
  uint64_t value = 0;
  uint64_t bytes[63] = {};
};
static_assert(sizeof(Counter) == 512);

constexpr int kIncrements = 12;

// Adds one, over and over, to a counter in block 1 by compare-and-write. A lost update would show in the sum.
Task<void> increment(NvmeConnection& io, uint32_t nsid, int& misses) {
  for (int done = 0; done < kIncrements;) {
    Counter before;
    CO_ASSERT_OK(co_await io.read(nsid, 1, 1, std::as_writable_bytes(std::span(&before, 1))));
    Counter after = before;
    ++after.value;
    const auto both = co_await io.compare_and_write(nsid, 1, 1, std::as_bytes(std::span(&before, 1)),
                                                    std::as_bytes(std::span(&after, 1)));
    CO_ASSERT_TRUE(both.has_value());
    if (both->compare.ok()) {
      CO_ASSERT_TRUE(both->write.ok());
      ++done;
      continue;
    }
    ++misses;
    EXPECT_EQ(both->compare.status.code, StatusCode::kCompareFailure);
    EXPECT_EQ(both->write.status.code, StatusCode::kAbortedFailedFused);
  }
}

// Writes the blocks around the counter, which must neither wait for ever nor be lost.
Task<void> write_around(NvmeConnection& io, uint32_t nsid, uint64_t lba, const bool& stop) {
  uint64_t round = 0;
  while (!stop) {
    const auto data = pattern(512, ++round);
    std::vector<std::byte> back(512);
    CO_ASSERT_OK(co_await io.write(nsid, lba, 1, data));
    CO_ASSERT_OK(co_await io.read(nsid, lba, 1, back));
    CO_ASSERT_TRUE(back == data);
  }
}

Task<void> increments(TargetBed& bed) {
  bed.world.create_disk(bed.server, "/disk", 1 * kMiB);
  auto source = open_disk_source(bed.server.shard(0), {.path = "/disk"});
  CO_ASSERT_TRUE(source.has_value());
  const uint32_t nsid = co_await bed.add_source(kNqn, std::move(*source));
  const auto first = co_await bed.open_host(TargetBed::io_options(4));
  const auto second = co_await bed.open_host(TargetBed::io_options(4));
  CO_ASSERT_TRUE(first.has_value() && second.has_value());
  int misses = 0;
  bool stop = false;
  Scope counting(bed.reactor());
  Scope writing(bed.reactor());
  for (size_t i = 0; i < 4; ++i) {
    counting.spawn(increment((*first)->io(i), nsid, misses));
    counting.spawn(increment((*second)->io(i), nsid, misses));
  }
  writing.spawn(write_around((*first)->io(0), nsid, 0, stop));
  writing.spawn(write_around((*second)->io(1), nsid, 2, stop));
  co_await counting.close();
  stop = true;
  co_await writing.close();
  Counter end;
  CO_ASSERT_OK(co_await (*first)->io().read(nsid, 1, 1, std::as_writable_bytes(std::span(&end, 1))));
  EXPECT_EQ(end.value, 8U * kIncrements);
  EXPECT_GT(misses, 0) << "they met";
}

TEST(Fused, NoIncrementIsLostAcrossShards) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    BedOptions options;
    options.seed = seed;
    options.shards = 1 + seed % 4;
    if (seed > 2) options.settings = rough_settings(seed % 2 == 0 ? sim::Chop::kRandom : sim::Chop::kWhole);
    TargetBed bed(options);
    bed.run(increments, std::chrono::seconds(3600));
    EXPECT_GE(bed.world.probe_count(Probe::kFusedPair), 8U * kIncrements);
  }
}

// A plain writer of the very blocks that fused pairs work on. The pairs write what they compared with, so the writer
// finds what it wrote, unless one of its writes came between a compare and its write.
Task<void> plain_writer(TargetBed& bed, NvmeConnection& io, uint32_t nsid, const bool& stop) {
  uint64_t round = 0;
  while (!stop) {
    Counter two[2];
    Counter back[2];
    two[0].value = two[1].value = ++round;
    CO_ASSERT_OK(co_await io.write(nsid, 1, 2, std::as_bytes(std::span(two))));
    if (round % 2 == 0) co_await bed.sleep(std::chrono::milliseconds(2));
    CO_ASSERT_OK(co_await io.read(nsid, 1, 2, std::as_writable_bytes(std::span(back))));
    CO_ASSERT_TRUE(std::memcmp(two, back, sizeof two) == 0);
  }
}

Task<void> fused_writer(NvmeConnection& io, uint32_t nsid, int& wins) {
  for (int i = 0; i < 40; ++i) {
    Counter before[2];
    CO_ASSERT_OK(co_await io.read(nsid, 1, 2, std::as_writable_bytes(std::span(before))));
    Counter after[2] = {before[0], before[1]};
    const auto both =
        co_await io.compare_and_write(nsid, 1, 2, std::as_bytes(std::span(before)), std::as_bytes(std::span(after)));
    CO_ASSERT_TRUE(both.has_value());
    wins += both->compare.ok() ? 1 : 0;
  }
}

Task<void> against_plain_writes(TargetBed& bed) {
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 512});
  FaultRule slow;
  slow.operations = op_set(IoOp::kRead) | op_set(IoOp::kWrite);
  slow.probability = 0.5;
  slow.delay = std::chrono::microseconds(300);
  const uint32_t nsid = co_await bed.add_source(kNqn, make_faulty_source(std::move(*memory), {slow}));
  const auto host = co_await bed.open_host(TargetBed::io_options(4));
  CO_ASSERT_TRUE(host.has_value());
  bool stop = false;
  int wins = 0;
  Scope writing(bed.reactor());
  Scope fusing(bed.reactor());
  writing.spawn(plain_writer(bed, (*host)->io(0), nsid, stop));
  fusing.spawn(fused_writer((*host)->io(1), nsid, wins));
  fusing.spawn(fused_writer((*host)->io(2), nsid, wins));
  fusing.spawn(fused_writer((*host)->io(3), nsid, wins));
  co_await fusing.close();
  stop = true;
  co_await writing.close();
  EXPECT_GT(wins, 0);
}

TEST(Fused, PlainWritesWaitForTheRange) {
  uint64_t conflicts = 0;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    BedOptions options;
    options.seed = seed;
    options.shards = seed;
    TargetBed bed(options);
    bed.run(against_plain_writes);
    conflicts += bed.world.probe_count(Probe::kRangeConflict);
  }
  EXPECT_GT(conflicts, 0U);
}

nvme::SubmissionEntry fused(NvmOpcode opcode, Fuse fuse, uint64_t lba = 0, uint32_t blocks = 1) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(opcode);
  entry.flags = static_cast<uint8_t>(fuse);
  entry.nsid = 1;
  entry.set_slba(lba);
  entry.cdw12 = blocks - 1;
  return entry;
}

using Completed = std::optional<Result<Completion>>;

Task<void> lone_halves(TargetBed& bed) {
  const auto host = co_await bed.open_host();
  CO_ASSERT_TRUE(host.has_value());
  NvmeConnection& io = (*host)->io();
  const std::vector<std::byte> zeroes(4096);
  const auto data = pattern(8192, 1);
  const std::span<const std::byte> one(data.data(), 4096);
  // A second without a first.
  EXPECT_EQ(code_of(co_await io.submit(fused(NvmOpcode::kWrite, Fuse::kSecond), {.out = one})),
            StatusCode::kAbortedMissingFused);
  // A first that is followed by something else.
  for (const bool waits : {true, false}) {
    Scope scope(bed.reactor());
    Completed first;
    scope.spawn(keep(io.submit(fused(NvmOpcode::kCompare, Fuse::kFirst), {.out = zeroes}), first));
    Completed read;
    std::vector<std::byte> block(4096);
    // By then the first waits for its partner, or is just on its way.
    if (waits) co_await bed.sleep(std::chrono::milliseconds(50));
    while (io.in_flight() == 0) co_await yield(bed.reactor());
    scope.spawn(keep(io.read(1, 0, 1, block), read));
    co_await scope.close();
    EXPECT_EQ(code_of(*first), StatusCode::kAbortedMissingFused);
    EXPECT_TRUE(succeeded(*read));
  }
  // Two firsts, then a second: the pair is the last two.
  {
    Scope scope(bed.reactor());
    std::array<Completed, 3> done;
    scope.spawn(keep(io.submit(fused(NvmOpcode::kCompare, Fuse::kFirst), {.out = zeroes}), done[0]));
    co_await bed.sleep(std::chrono::milliseconds(50));
    scope.spawn(keep(io.submit(fused(NvmOpcode::kCompare, Fuse::kFirst), {.out = zeroes}), done[1]));
    co_await bed.sleep(std::chrono::milliseconds(50));
    scope.spawn(keep(io.submit(fused(NvmOpcode::kWrite, Fuse::kSecond), {.out = one}), done[2]));
    co_await scope.close();
    EXPECT_EQ(code_of(*done[0]), StatusCode::kAbortedMissingFused);
    EXPECT_TRUE(succeeded(*done[1]));
    EXPECT_TRUE(succeeded(*done[2]));
  }
}

TEST(Fused, HalvesThatAreAlone) { run_in_worlds(lone_halves); }

Task<void> wrong_halves(TargetBed& bed) {
  const auto host = co_await bed.open_host();
  CO_ASSERT_TRUE(host.has_value());
  NvmeConnection& io = (*host)->io();
  const std::vector<std::byte> zeroes(4096);
  const auto data = pattern(4096, 1);
  const std::span<const std::byte> one(data);
  struct Case {
    nvme::SubmissionEntry first;
    nvme::SubmissionEntry second;
    StatusCode first_status;
    StatusCode second_status;
  };
  const Case cases[] = {
      {fused(NvmOpcode::kCompare, Fuse::kFirst, 0), fused(NvmOpcode::kWrite, Fuse::kSecond, 1),
       StatusCode::kInvalidField, StatusCode::kAbortedFailedFused},
      {fused(NvmOpcode::kWrite, Fuse::kFirst), fused(NvmOpcode::kCompare, Fuse::kSecond), StatusCode::kInvalidField,
       StatusCode::kAbortedFailedFused},
      {fused(NvmOpcode::kCompare, Fuse::kFirst, ~uint64_t{0}), fused(NvmOpcode::kWrite, Fuse::kSecond),
       StatusCode::kLbaOutOfRange, StatusCode::kAbortedFailedFused},
      {fused(NvmOpcode::kCompare, Fuse::kFirst), fused(NvmOpcode::kWrite, Fuse::kSecond, ~uint64_t{0}),
       StatusCode::kAbortedFailedFused, StatusCode::kLbaOutOfRange},
  };
  for (const Case& each : cases) {
    Scope scope(bed.reactor());
    Completed first;
    Completed second;
    scope.spawn(keep(io.submit(each.first, {.out = one}), first));
    co_await bed.sleep(std::chrono::milliseconds(50));
    scope.spawn(keep(io.submit(each.second, {.out = one}), second));
    co_await scope.close();
    EXPECT_EQ(code_of(*first), each.first_status);
    EXPECT_EQ(code_of(*second), each.second_status);
  }
  const auto both = co_await io.compare_and_write(1, 0, 1, zeroes, one);
  CO_ASSERT_TRUE(both.has_value());
  EXPECT_TRUE(both->compare.ok() && both->write.ok());
}

TEST(Fused, HalvesThatDoNotFit) { run_in_worlds(wrong_halves); }

Task<void> size_limit(TargetBed& bed) {
  const auto host = co_await bed.open_host();
  CO_ASSERT_TRUE(host.has_value());
  NvmeConnection& io = (*host)->io();
  const std::vector<std::byte> zeroes(1 * kMiB);
  for (const uint32_t blocks : {16U, 17U, 256U}) {
    const std::span<const std::byte> part(zeroes.data(), uint64_t{blocks} * 4096);
    const auto both = co_await io.compare_and_write(1, 0, blocks, part, part);
    CO_ASSERT_TRUE(both.has_value());
    EXPECT_EQ(both->compare.status.code, blocks == 16 ? StatusCode::kSuccess : StatusCode::kAtomicWriteUnitExceeded);
    EXPECT_EQ(both->write.ok(), blocks == 16) << blocks;
  }
}

TEST(Fused, UpTo64Kib) {
  BedOptions options;
  options.settings.buffers_shared_max = 0;
  TargetBed(options).run(size_limit);
}

Task<void> ignore(Task<Result<NvmeConnection::FusedCompletion>> task) { co_await std::move(task); }

Task<void> lost_in_the_middle(TargetBed& bed) {
  // Hosts that go while their pairs run, or while half a pair waits: ranges are unlocked, everything comes back.
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 4096});
  FaultRule slow;
  slow.delay = std::chrono::milliseconds(20);
  const uint32_t nsid = co_await bed.add_source(kNqn, make_faulty_source(std::move(*memory), {slow}));
  const std::vector<std::byte> zeroes(4096);
  const auto survivor = co_await bed.open_host();
  CO_ASSERT_TRUE(survivor.has_value());
  for (int i = 0; i < 10; ++i) {
    const auto host = co_await bed.open_host(TargetBed::io_options(2));
    CO_ASSERT_TRUE(host.has_value());
    Scope scope(bed.reactor());
    std::optional<Result<Completion>> half;
    bool ended = false;
    scope.spawn(note_end(ignore((*host)->io(0).compare_and_write(nsid, 0, 1, zeroes, zeroes)), ended));
    scope.spawn(keep((*host)->io(1).submit(fused(NvmOpcode::kCompare, Fuse::kFirst), {.out = zeroes}), half));
    co_await bed.sleep(std::chrono::milliseconds(i * 3));
    (*host)->admin().cut();
    (*host)->io(0).cut();
    (*host)->io(1).cut();
    co_await scope.close();
    EXPECT_TRUE(succeeded(co_await (*survivor)->io().write(nsid, 0, 1, zeroes)));
    const auto both = co_await (*survivor)->io().compare_and_write(nsid, 0, 1, zeroes, zeroes);
    EXPECT_TRUE(both && both->write.ok());
  }
}

TEST(Fused, AHostGoesInTheMiddle) { run_in_worlds(lost_in_the_middle); }

}  // namespace
}  // namespace fairlead::testing
