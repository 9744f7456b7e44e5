// The journal and its reader on simulated disks: what was appended is there, in order, once, whatever is cut off.
#include "pool/journal.h"

#include <gtest/gtest.h>
#include <map>
#include <set>

#include "async/scope.h"
#include "block/disk.h"
#include "pool/journal_reader.h"
#include "pool/test_samples.h"
#include "pool/test_seed.h"
#include "sim/world.h"

namespace fairlead::pool {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kAreaOffset = 64 * kKiB;
constexpr uint64_t kAreaBytes = kJournalBytesMin;
constexpr uint64_t kIncarnation = 1234;

#define CO_ASSERT_TRUE(...)                    \
  if (const bool fl_ok{__VA_ARGS__}; !fl_ok) { \
    ADD_FAILURE() << #__VA_ARGS__;             \
    co_return;                                 \
  }

Record numbered(uint32_t number) { return EntryRecord{LayerId(1), ExtentIndex(number), {Place(number + 1), {}, 1}}; }
uint32_t number_of(const Record& record) { return std::get<EntryRecord>(record).extent.value; }
// Records that fill a batch of `pages` pages, and no other record fits in.
std::vector<Record> large(uint32_t number, size_t pages) {
  const size_t count = (pages * kPageBytes - kBatchHeaderBytes) / kEntryRecordBytes;
  return std::vector<Record>(count, numbered(number));
}

// A node with the two disks of a journal.
struct Bed {
  explicit Bed(uint64_t seed = 1, const sim::SimSettings& settings = sim::SimSettings::calm(),
               sim::Cache cache = sim::Cache::kVolatile)
      : world(seed, settings), node(world.add_node("10.0.0.1")) {
    for (size_t i = 0; i < kCopies; ++i) {
      disks[i] = &world.create_disk(node, path(i), 1 * kMiB, {.cache = cache, .faults = {}});
    }
  }
  static std::string path(size_t copy) { return "/disk" + std::to_string(copy); }
  template <typename Test, typename... Arguments>
  void run(Test test, Arguments&... arguments) {
    bool done = false;
    world.spawn(node, 0, run_and_tell(test(*this, arguments...), done));
    ASSERT_EQ(world.run_until([&] { return done; }, seconds(600)), sim::RunResult::kDone) << world.report();
    EXPECT_EQ(world.unexplained_errors(), 0U) << world.report();
    EXPECT_EQ(world.violations(), 0U) << world.report();
  }
  Task<void> run_and_tell(Task<void> test, bool& done) {
    co_await std::move(test);
    done = true;
  }
  void fail_writes(size_t copy) {
    sim::DiskFaults faults;
    faults.elsewhere.write_error_ppm = 1'000'000;
    disks[copy]->set_faults(faults);
  }

  sim::SimWorld world;
  sim::SimNode& node;
  std::array<sim::SimDevice*, kCopies> disks{};
};

// The devices as one process has them open.
struct Opened {
  explicit Opened(Bed& bed) : shard(bed.node.shard(0)) {
    for (size_t i = 0; i < kCopies; ++i) {
      devices[i] = std::move(*(*open_disk_source(shard, {.path = Bed::path(i)}))->open(shard));
      areas.devices[i] = devices[i].get();
      areas.offsets[i] = kAreaOffset;
    }
    areas.bytes = kAreaBytes;
  }
  Shard& shard;
  std::array<std::unique_ptr<BlockDevice>, kCopies> devices;
  JournalAreas areas;
};

// Remembers what was applied, flushes, and notes what is asked of it.
class Sink final : public JournalSink {
 public:
  explicit Sink(Opened& opened) : wanted(opened.shard.reactor), gate(opened.shard.reactor), opened_(opened) {
    gate.set();
  }
  void apply(Sequence sequence, std::span<const Record> records) override {
    EXPECT_TRUE(applied.empty() || applied.rbegin()->first + 1 == sequence.value);
    applied[sequence.value].assign(records.begin(), records.end());
  }
  Task<Result<void>> flush_disks() override {
    ++flushes;
    while (!gate.is_set()) co_await gate.wait();
    if (fails_flushes || (fails_second_flushes && flushes % 2 == 0)) co_return fail(Code::kIo, "told to");
    for (const auto& device : opened_.devices) FL_CO_TRY_VOID(co_await block_flush(opened_.shard.reactor, *device));
    co_return Result<void>();
  }
  void want_checkpoint() override { wanted.set(); }

  // All that was applied, in order.
  std::vector<uint32_t> numbers() const {
    std::vector<uint32_t> all;
    for (const auto& [sequence, records] : applied) {
      for (const Record& record : records) all.push_back(number_of(record));
    }
    return all;
  }

  std::map<uint64_t, std::vector<Record>> applied;
  int flushes = 0;
  bool fails_flushes = false;
  bool fails_second_flushes = false;
  Event wanted;
  Event gate;  // closed: flushes wait

 private:
  Opened& opened_;
};

// One life of a journal.
struct Life {
  explicit Life(Bed& bed, Journal::Cache cache = Journal::Cache::kVolatile, const JournalMark& mark = {},
                uint64_t incarnation = kIncarnation)
      : opened(bed),
        sink(opened),
        journal(opened.shard.reactor, sink,
                {.areas = opened.areas,
                 .tail = mark,
                 .start = mark,
                 .durable = Sequence(mark.next.value - 1),
                 .incarnation = incarnation,
                 .cache = cache}),
        scope(opened.shard.reactor) {}
  Reactor& reactor() { return opened.shard.reactor; }
  Task<void> end() {
    co_await journal.close();
    co_await scope.close();
  }

  Opened opened;
  Sink sink;
  Journal journal;
  Scope scope;
  bool is_ending = false;
};

struct ReadBack {
  std::vector<JournalBatch> batches;
  std::optional<Error> error;
  uint64_t damaged = 0;

  Sequence durable() const {
    Sequence newest;
    for (const JournalBatch& batch : batches) newest = std::max(newest, batch.header.durable);
    return newest;
  }
  // Bytes from the area's start.
  uint64_t position(size_t index) const {
    return batches[index].after.position - batch_bytes(batches[index].header.payload_bytes);
  }
};
Task<ReadBack> read_back(Opened& opened, JournalMark mark, uint64_t incarnation = kIncarnation) {
  ReadBack read;
  JournalReader reader(opened.shard.reactor, opened.areas, mark, incarnation);
  while (true) {
    Result<std::optional<JournalBatch>> batch = co_await reader.next();
    if (!batch) read.error = batch.error();
    if (!batch || !*batch) break;
    read.batches.push_back(std::move(**batch));
  }
  read.damaged = reader.damaged_copies();
  co_return read;
}
void expect_same(const ReadBack& read, const std::map<uint64_t, std::vector<Record>>& applied) {
  EXPECT_FALSE(read.error) << to_string(*read.error);
  ASSERT_EQ(read.batches.size(), applied.size());
  size_t i = 0;
  for (const auto& [sequence, records] : applied) {
    EXPECT_EQ(read.batches[i].header.sequence.value, sequence);
    EXPECT_EQ(read.batches[i].records, records) << sequence;
    ++i;
  }
}

Task<void> write_some(Life& life, uint32_t first, uint32_t count, int& left) {
  for (uint32_t i = 0; i < count; ++i) EXPECT_TRUE(co_await life.journal.write({numbered(first + i)}));
  --left;
}
Task<void> write_one(Life& life, std::vector<Record> records, std::optional<Result<void>>& outcome) {
  outcome = co_await life.journal.write(std::move(records));
}
Task<void> sync_one(Life& life, std::optional<Result<void>>& outcome) { outcome = co_await life.journal.sync(); }
// What is ready, and what that makes ready.
Task<void> let_others_run(Life& life) { (void)co_await sleep(life.reactor(), milliseconds(50)); }

Task<void> group_commit(Bed& bed) {
  Life life(bed);
  constexpr int kWriters = 200;
  constexpr uint32_t kEach = 5;
  int left = kWriters;
  for (uint32_t i = 0; i < kWriters; ++i) life.scope.spawn(write_some(life, i * kEach, kEach, left));
  co_await life.scope.close();
  EXPECT_EQ(left, 0);
  EXPECT_LE(life.sink.applied.size(), 3 * kEach);
  auto numbers = life.sink.numbers();
  std::ranges::sort(numbers);
  EXPECT_EQ(numbers.size(), kWriters * kEach);
  EXPECT_EQ(std::set(numbers.begin(), numbers.end()).size(), kWriters * kEach);
  co_await life.end();
  expect_same(co_await read_back(life.opened, {}), life.sink.applied);
}
TEST(JournalTest, ManyWritersShareABatch) { Bed().run(group_commit); }

Task<void> whole_writes(Bed& bed) {
  Life life(bed);
  std::vector<std::vector<Record>> sets;
  std::vector<std::optional<Result<void>>> outcomes(100);
  for (uint32_t i = 0; i < 100; ++i) sets.push_back(std::vector<Record>(1 + i * 37 % 700, numbered(i)));
  for (uint32_t i = 0; i < 100; ++i) life.scope.spawn(write_one(life, sets[i], outcomes[i]));
  // Room as it is used: this is about batches.
  while (life.scope.running() > 0) {
    life.journal.release(life.journal.mark());
    co_await let_others_run(life);
  }
  std::map<uint32_t, uint64_t> batch_of;
  std::map<uint32_t, size_t> count_of;
  for (const auto& [sequence, records] : life.sink.applied) {
    for (const Record& record : records) {
      const uint32_t number = number_of(record);
      EXPECT_EQ(batch_of.try_emplace(number, sequence).first->second, sequence) << number << " is in two batches";
      ++count_of[number];
    }
  }
  for (uint32_t i = 0; i < 100; ++i) {
    EXPECT_TRUE(outcomes[i] && *outcomes[i]);
    EXPECT_EQ(count_of[i], sets[i].size());
  }
  co_await life.end();
}
TEST(JournalTest, WhatIsWrittenTogetherIsInOneBatch) { Bed().run(whole_writes); }

Task<void> full(Bed& bed) {
  Life life(bed);
  std::array<std::optional<Result<void>>, 20> outcomes;
  for (uint32_t i = 0; i < outcomes.size(); ++i) life.scope.spawn(write_one(life, large(i, 16), outcomes[i]));
  co_await let_others_run(life);
  const auto ended = [&] { return std::ranges::count_if(outcomes, [](const auto& each) { return each.has_value(); }); };
  // All but the reserve is full, and it says so. What is left is enough for sync(), more than once.
  EXPECT_EQ(ended(), 7);
  EXPECT_TRUE(life.sink.wanted.is_set());
  EXPECT_EQ(life.journal.used_bytes(), kAreaBytes - kBatchBytesMax);
  for (int i = 0; i < 3; ++i) {
    std::optional<Result<void>> synced;
    life.scope.spawn(sync_one(life, synced));
    co_await let_others_run(life);
    EXPECT_TRUE(synced && *synced);
  }
  EXPECT_FALSE(life.journal.is_dirty());
  EXPECT_EQ(life.journal.durable(), Sequence(7));
  EXPECT_EQ(ended(), 7);
  // As checkpoints come the others follow, in order.
  for (int i = 0; i < 3 && ended() < 20; ++i) {
    const long before = ended();
    life.journal.release(life.journal.mark());
    co_await let_others_run(life);
    EXPECT_GT(ended(), before);
  }
  EXPECT_EQ(ended(), 20);
  for (const auto& outcome : outcomes) EXPECT_TRUE(outcome && *outcome);
  EXPECT_TRUE(std::ranges::is_sorted(life.sink.numbers()));
  co_await life.end();
}
TEST(JournalTest, AFullJournalWaitsForRoom) {
  Bed bed;
  bed.run(full);
  EXPECT_GT(bed.world.probe_count(Probe::kJournalWrapped), 0U);
}

Task<void> close_while_full(Bed& bed) {
  Life life(bed);
  std::array<std::optional<Result<void>>, 9> outcomes;
  for (uint32_t i = 0; i < outcomes.size(); ++i) life.scope.spawn(write_one(life, large(i, 16), outcomes[i]));
  co_await let_others_run(life);
  life.scope.spawn(life.journal.close());
  co_await let_others_run(life);
  EXPECT_FALSE(outcomes.back());
  EXPECT_EQ((co_await life.journal.write({numbered(1)})).error().code, Code::kShuttingDown);
  life.journal.release(life.journal.mark());
  co_await life.scope.close();
  for (const auto& outcome : outcomes) EXPECT_TRUE(outcome && *outcome);
}
TEST(JournalTest, CloseWritesWhatWasAppendedBefore) { Bed().run(close_while_full); }

Task<void> wraps(Bed& bed) {
  Life life(bed);
  JournalMark released;
  Sequence last_released;
  for (uint32_t i = 0; i < 300; ++i) {
    // 1 to 9 pages, so that holes of all sizes are left at the end.
    EXPECT_TRUE(co_await life.journal.write(large(i, 1 + i * 5 % 9)));
    if (life.journal.used_bytes() < kAreaBytes / 2) continue;
    released = life.journal.mark();
    last_released = life.journal.applied();
    life.journal.release(released);
    EXPECT_EQ(life.journal.used_bytes(), 0U);
  }
  co_await life.end();
  auto kept = life.sink.applied;
  kept.erase(kept.begin(), kept.upper_bound(last_released.value));
  EXPECT_FALSE(kept.empty());
  expect_same(co_await read_back(life.opened, released), kept);
  // Of another incarnation, or behind another batch, there is nothing.
  EXPECT_TRUE((co_await read_back(life.opened, released, kIncarnation + 1)).batches.empty());
  JournalMark other = released;
  other.chain ^= 1;
  EXPECT_TRUE((co_await read_back(life.opened, other)).batches.empty());
}
TEST(JournalTest, GoesRoundAndRound) {
  Bed bed;
  bed.run(wraps);
  EXPECT_GT(bed.world.probe_count(Probe::kJournalWrapped), 3U);
}

Task<void> sync_rounds(Bed& bed) {
  Life life(bed);
  EXPECT_TRUE(co_await life.journal.sync());  // data alone: one flush, no batch
  EXPECT_EQ(life.sink.flushes, 1);
  EXPECT_TRUE(life.sink.applied.empty());
  EXPECT_TRUE(co_await life.journal.write({numbered(1)}));
  EXPECT_TRUE(life.journal.is_dirty());
  life.sink.gate.reset();
  std::array<std::optional<Result<void>>, 3> synced;
  life.scope.spawn(sync_one(life, synced[0]));
  co_await let_others_run(life);
  // While the first is on its way: what comes now it does not cover.
  EXPECT_TRUE(co_await life.journal.write({numbered(2)}));
  life.scope.spawn(sync_one(life, synced[1]));
  life.scope.spawn(sync_one(life, synced[2]));
  co_await let_others_run(life);
  EXPECT_EQ(life.sink.flushes, 2);
  EXPECT_FALSE(synced[0] || synced[1] || synced[2]);
  life.sink.gate.set();
  while (!synced[0]) (void)co_await sleep(life.reactor(), Duration(1000));
  EXPECT_EQ(life.journal.durable(), Sequence(1));
  EXPECT_FALSE(synced[1] || synced[2]);
  co_await life.scope.close();
  EXPECT_TRUE(*synced[0] && *synced[1] && *synced[2]);
  EXPECT_GE(life.journal.durable(), Sequence(2));
  EXPECT_FALSE(life.journal.is_dirty());
  EXPECT_EQ(life.sink.flushes, 1 + 2 + 2);      // both later ones shared a round
  EXPECT_EQ(life.sink.applied.size(), 2U + 2);  // with the two batches that tell
  co_await life.end();
}
TEST(JournalTest, SyncCoversWhatWasThereWhenItBegan) { Bed().run(sync_rounds); }

Task<void> failed_round(Bed& bed) {
  Life life(bed);
  EXPECT_TRUE(co_await life.journal.write({numbered(1)}));
  life.sink.gate.reset();
  life.sink.fails_flushes = true;
  std::array<std::optional<Result<void>>, 4> synced;
  for (auto& each : synced) life.scope.spawn(sync_one(life, each));
  co_await let_others_run(life);
  life.sink.gate.set();
  co_await life.scope.close();
  for (const auto& each : synced) EXPECT_TRUE(each && !*each);
  EXPECT_EQ(life.journal.durable(), Sequence(0));
  EXPECT_TRUE(life.journal.is_dirty());
  life.sink.fails_flushes = false;
  EXPECT_TRUE(co_await life.journal.sync());
  EXPECT_EQ(life.journal.durable(), Sequence(1));
  co_await life.end();
}
TEST(JournalTest, WhoSharesARoundThatFailsIsNotToldThatAllIsWell) { Bed().run(failed_round); }

Task<void> failed_rounds_when_full(Bed& bed) {
  Life life(bed);
  std::array<std::optional<Result<void>>, 9> outcomes;
  for (uint32_t i = 0; i < outcomes.size(); ++i) life.scope.spawn(write_one(life, large(i, 16), outcomes[i]));
  co_await let_others_run(life);
  // Each round writes its batch and then fails: the reserve is used up.
  life.sink.fails_second_flushes = true;
  std::array<std::optional<Result<void>>, 20> synced;
  for (auto& each : synced) {
    life.scope.spawn(sync_one(life, each));
    co_await let_others_run(life);
  }
  EXPECT_TRUE(synced.front() && !*synced.front());
  EXPECT_FALSE(synced.back());
  life.sink.fails_second_flushes = false;
  life.journal.release(life.journal.mark());
  co_await life.scope.close();
  EXPECT_TRUE(*outcomes.back());
  EXPECT_TRUE(*synced.back());
  co_await life.end();
}
TEST(JournalTest, RoundsThatFailMayUseUpTheReserve) { Bed().run(failed_rounds_when_full); }

Task<void> no_cache(Bed& bed) {
  Life life(bed, Journal::Cache::kNone);
  EXPECT_TRUE(co_await life.journal.write({numbered(1)}));
  EXPECT_FALSE(life.journal.is_dirty());
  EXPECT_EQ(life.journal.durable(), Sequence(1));
  EXPECT_TRUE(co_await life.journal.sync());
  EXPECT_EQ(life.sink.applied.size(), 1U);
  co_await life.end();
  EXPECT_EQ((co_await read_back(life.opened, {})).durable(), Sequence(1));
}
TEST(JournalTest, WithoutAVolatileCacheABatchIsSafeAtOnce) { Bed(1, {}, sim::Cache::kNone).run(no_cache); }

Task<void> one_copy_lost(Bed& bed) {
  Life life(bed);
  for (uint32_t i = 0; i < 10; ++i) EXPECT_TRUE(co_await life.journal.write({numbered(i)}));
  bed.fail_writes(1);
  for (uint32_t i = 10; i < 20; ++i) EXPECT_TRUE(co_await life.journal.write({numbered(i)}));
  EXPECT_EQ(life.journal.copies(), 1U);
  EXPECT_FALSE(life.journal.failure());
  EXPECT_TRUE(co_await life.journal.sync());
  co_await life.end();
  expect_same(co_await read_back(life.opened, {}), life.sink.applied);
}
TEST(JournalTest, GoesOnWithOneCopy) { Bed().run(one_copy_lost); }

Task<void> both_copies_lost(Bed& bed) {
  Life life(bed);
  EXPECT_TRUE(co_await life.journal.write({numbered(0)}));
  life.sink.gate.reset();
  std::array<std::optional<Result<void>>, 2> synced;
  std::array<std::optional<Result<void>>, 12> written;
  life.scope.spawn(sync_one(life, synced[0]));
  co_await let_others_run(life);
  bed.fail_writes(0);
  bed.fail_writes(1);
  for (uint32_t i = 0; i < written.size(); ++i) life.scope.spawn(write_one(life, large(i, 16), written[i]));
  life.scope.spawn(sync_one(life, synced[1]));
  co_await let_others_run(life);
  for (const auto& each : written) EXPECT_TRUE(each && each->error().code == Code::kIo);
  life.sink.gate.set();
  co_await let_others_run(life);
  for (const auto& each : synced) EXPECT_TRUE(each && each->error().code == Code::kIo);
  EXPECT_EQ((co_await life.journal.write({numbered(9)})).error().code, Code::kIo);
  EXPECT_EQ(life.sink.applied.size(), 1U);
  co_await life.end();
}
TEST(JournalTest, WithoutACopyEveryoneGetsTheErrorAndNothingHangs) { Bed().run(both_copies_lost); }

Task<void> ended_from_outside(Bed& bed) {
  Life life(bed);
  std::array<std::optional<Result<void>>, 12> written;
  for (uint32_t i = 0; i < written.size(); ++i) life.scope.spawn(write_one(life, large(i, 16), written[i]));
  std::optional<Result<void>> synced;
  life.scope.spawn(sync_one(life, synced));
  co_await let_others_run(life);  // the journal is full
  life.journal.end_with({Code::kIo, 0, "told to"});
  co_await life.scope.close();
  EXPECT_TRUE(written.front()->has_value());
  EXPECT_EQ(written.back()->error().code, Code::kIo);
  co_await life.end();
}
TEST(JournalTest, CanBeEnded) {
  Bed bed;
  bed.world.allow_error("pool.journal_failed");
  bed.run(ended_from_outside);
}

// Forty batches that fill a sector at least; up to the twentieth they are known to be safe.
Task<void> forty_batches(Bed& bed, Life& life) {
  for (uint32_t i = 1; i <= 40; ++i) {
    EXPECT_TRUE(co_await life.journal.write(std::vector<Record>(20, numbered(i))));
    if (i == 20) EXPECT_TRUE(co_await life.journal.sync());
  }
  co_await life.end();
  EXPECT_EQ(life.sink.applied.size(), 41U);
  for (sim::SimDevice* const disk : bed.disks) EXPECT_FALSE(disk->is_damaged(0, 1 * kMiB));
}
enum class Harm : uint8_t { kRot, kUnreadable };
// Of the batch with that number: its first sector.
void harm(Bed& bed, size_t copy, uint64_t batch, Harm how) {
  const uint64_t offset = kAreaOffset + (batch - 1) * kPageBytes;
  how == Harm::kRot ? bed.disks[copy]->rot(offset, 512) : bed.disks[copy]->make_unreadable(offset, 512);
}

template <Harm kHow>
Task<void> damaged_copies(Bed& bed) {
  Life life(bed);
  co_await forty_batches(bed, life);
  harm(bed, 0, 5, kHow);
  harm(bed, 1, 6, kHow);
  harm(bed, 0, 30, kHow);
  harm(bed, 1, 41, kHow);
  const ReadBack read = co_await read_back(life.opened, {});
  expect_same(read, life.sink.applied);
  EXPECT_EQ(read.damaged, 4U);
}
TEST(JournalReaderTest, EachBatchFromWhicheverCopyIsWhole) {
  Bed().run(damaged_copies<Harm::kRot>);
  Bed().run(damaged_copies<Harm::kUnreadable>);
}

template <Harm kHow>
Task<void> damaged_twice(Bed& bed) {
  Life life(bed);
  co_await forty_batches(bed, life);
  harm(bed, 0, 5, kHow);
  harm(bed, 1, 5, Harm::kRot);
  const ReadBack read = co_await read_back(life.opened, {});
  EXPECT_TRUE(read.error && read.error->code == Code::kCorrupt);
  EXPECT_EQ(read.batches.size(), 4U);
}
TEST(JournalReaderTest, ASafeBatchThatIsBadInBothCopiesIsAnError) {
  Bed().run(damaged_twice<Harm::kRot>);
  Bed().run(damaged_twice<Harm::kUnreadable>);
}

Task<void> unreadable_twice(Bed& bed) {
  Life life(bed);
  co_await forty_batches(bed, life);
  harm(bed, 0, 41, Harm::kUnreadable);
  harm(bed, 1, 41, Harm::kUnreadable);
  // Nobody knows what is there: it may have been safe.
  const ReadBack read = co_await read_back(life.opened, {});
  EXPECT_TRUE(read.error && read.error->code == Code::kIo);
  EXPECT_EQ(read.batches.size(), 40U);
}
TEST(JournalReaderTest, WhereNoCopyCanBeReadItSaysSo) { Bed().run(unreadable_twice); }

Task<void> torn_tail(Bed& bed) {
  Life life(bed);
  co_await forty_batches(bed, life);
  for (const uint64_t last : {41U, 40U, 30U, 22U}) {
    // None of these is known to be safe: a power cut may have left them so.
    harm(bed, 0, last, Harm::kRot);
    harm(bed, 1, last, Harm::kRot);
    auto expected = life.sink.applied;
    expected.erase(expected.lower_bound(last), expected.end());
    expect_same(co_await read_back(life.opened, {}), expected);
  }
}
TEST(JournalReaderTest, EndsAtATornBatch) { Bed().run(torn_tail); }

// Lives that end by power cuts and kills at any moment, each read back and gone on from.
struct Story {
  JournalMark mark;  // where the last checkpoint ends
  uint64_t incarnation = kIncarnation;
  Journal::Cache cache = Journal::Cache::kVolatile;
  std::map<uint64_t, std::vector<Record>> applied;  // since the mark
  std::set<uint32_t> submitted;
  Sequence newest;   // applied
  Sequence durable;  // that a sync covered, or every batch
  uint32_t next_number = 0;
  uint64_t writes = 0;
};

Task<void> keep_writing(Life& life, Story& story, sim::Prng random) {
  while (true) {
    const uint32_t number = story.next_number++;
    story.submitted.insert(number);
    const size_t count = random.below(8) == 0 ? random.between(300, 2000) : random.between(1, 20);
    if (!co_await life.journal.write(std::vector<Record>(count, numbered(number)))) co_return;
    ++story.writes;
    if (random.below(8) != 0) continue;
    const Sequence before = life.journal.applied();
    if (!co_await life.journal.sync()) co_return;
    story.durable = std::max(story.durable, before);
  }
}
Task<void> keep_checkpointing(Life& life, Story& story) {
  while (true) {
    co_await life.sink.wanted.wait();
    life.sink.wanted.reset();
    (void)co_await sleep(life.reactor(), milliseconds(1));
    if (life.is_ending) co_return;
    story.mark = life.journal.mark();
    life.journal.release(story.mark);
  }
}
Task<void> live(Bed& bed, Story& story) {
  Life life(bed, story.cache, story.mark, story.incarnation);
  const uint64_t writers = bed.world.random().between(1, 6);
  for (uint64_t i = 0; i < writers; ++i) {
    life.scope.spawn(keep_writing(life, story, sim::Prng(bed.world.random().next())));
  }
  Scope checkpoints(life.reactor());
  checkpoints.spawn(keep_checkpointing(life, story));
  co_await life.scope.close();
  story.durable = std::max(story.durable, life.journal.durable());
  story.newest = life.journal.applied();
  story.applied = life.sink.applied;
  life.is_ending = true;
  life.sink.wanted.set();
  co_await checkpoints.close();
  co_await life.journal.close();
}

void check(const Story& story, const ReadBack& read, sim::CrashKind kind) {
  EXPECT_FALSE(read.error) << to_string(*read.error);
  const Sequence last(story.mark.next.value - 1 + read.batches.size());
  const Sequence safe = kind == sim::CrashKind::kProcessKilled ? story.newest : story.durable;
  EXPECT_GE(last, safe);
  EXPECT_GE(std::max(read.durable(), Sequence(story.mark.next.value - 1)), story.durable);
  EXPECT_LE(read.durable(), last);
  EXPECT_LE(last.value, story.newest.value + Journal::kFlyingMax);  // those were on their way
  for (size_t i = 0; i < read.batches.size(); ++i) {
    const uint64_t sequence = story.mark.next.value + i;
    ASSERT_EQ(read.batches[i].header.sequence.value, sequence);
    if (sequence <= story.newest.value) {
      ASSERT_EQ(read.batches[i].records, story.applied.at(sequence)) << sequence;
      continue;
    }
    for (const Record& record : read.batches[i].records) ASSERT_TRUE(story.submitted.contains(number_of(record)));
  }
}

Task<void> read_after_crash(Bed& bed, const Story& story, ReadBack& read) {
  Opened opened(bed);
  read = co_await read_back(opened, story.mark, story.incarnation);
}

void tell(uint64_t seed) {
  FL_TRACE_SEED(seed);
  sim::Prng random(seed);
  const auto cache = random.below(4) == 0 ? sim::Cache::kNone : sim::Cache::kVolatile;
  sim::SimSettings settings;
  settings.order = sim::Order::kRandom;
  settings.disk.split_ppm = 300'000;
  Bed bed(seed, settings, cache);
  Story story;
  story.cache = cache == sim::Cache::kNone ? Journal::Cache::kNone : Journal::Cache::kVolatile;
  for (int life = 0; life < 4 && !testing::Test::HasFailure(); ++life) {
    const uint64_t end = story.writes + random.below(life == 0 ? 40 : 400);
    bed.world.spawn(bed.node, 0, live(bed, story));
    ASSERT_EQ(bed.world.run_until([&] { return story.writes >= end; }, seconds(600)), sim::RunResult::kDone);
    for (uint64_t steps = random.below(60); steps > 0; --steps) bed.world.step();
    const auto kind = random.below(3) == 0 ? sim::CrashKind::kProcessKilled : sim::CrashKind::kPowerLost;
    bed.world.crash(bed.node, kind);
    bed.world.restart(bed.node);
    ReadBack read;
    bed.run(read_after_crash, story, read);
    check(story, read, kind);
    story.mark = {Sequence(story.mark.next.value + read.batches.size()), 0, 0};
    story.incarnation = random.next();
    story.durable = {};
  }
}
TEST(JournalCrashTest, WhatWasSafeIsThereInOrder) {
  const uint64_t first = draw_seed();
  for (uint64_t seed = first; seed < first + 15 && !testing::Test::HasFailure(); ++seed) tell(seed);
}

}  // namespace
}  // namespace fairlead::pool
