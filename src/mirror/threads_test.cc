// The data path on the real runtime, with a thread for each shard: what simulation cannot show, above all to the thread
// sanitizer, is that ranges exclude each other and that nobody who waits is forgotten.
#include <array>
#include <gtest/gtest.h>
#include <limits>
#include <random>

#include "async/call.h"
#include "async/scope.h"
#include "block/limiter.h"
#include "block/memory.h"
#include "io/runtime.h"
#include "mirror/mirror_device.h"

namespace fairlead::mirror {
namespace {

constexpr uint64_t kBlock = RangeTable::kBlockBytes;
constexpr size_t kShards = 3;
constexpr uint64_t kBytes = 4 * kMiB;

class ThreadsTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(runtime_.start()); }
  void TearDown() override { runtime_.stop(); }
  Shard& shard(size_t index) { return runtime_.shard(index); }
  Shard& home() { return shard(0); }

  // Runs work(index) on each shard, at the same time.
  template <typename Work>
  Task<void> on_all(Work work) {
    Scope scope(home().reactor);
    for (size_t i = 0; i < kShards; ++i) scope.spawn(call_on(home().reactor, shard(i).reactor, work(i)));
    co_await scope.close();
  }

  Runtime runtime_{RuntimeOptions{.shards = kShards, .pinning = Pinning::kNone}};
};

// ---- The table alone.

struct Guarded {
  static constexpr size_t kBlocks = 64 * 6;
  RangeTable table;
  std::array<uint64_t, kBlocks> counters{};  // each by the range that has it alone
};

Task<void> lock_and_count(Guarded& guarded, uint64_t seed, std::array<uint64_t, Guarded::kBlocks>& mine) {
  std::mt19937_64 random(seed);
  for (int round = 0; round < 20000; ++round) {
    const uint64_t begin = random() % Guarded::kBlocks;
    const uint64_t end = std::min<uint64_t>(Guarded::kBlocks, begin + 1 + random() % (round % 8 == 0 ? 200 : 6));
    const ByteRange range{begin * kBlock, end * kBlock};
    if (guarded.table.try_lock(range) != RangeTable::Outcome::kLocked) continue;
    for (uint64_t block = begin; block < end; ++block) {
      ++guarded.counters[block];
      ++mine[block];
    }
    guarded.table.unlock(range);
  }
  co_return;
}

TEST_F(ThreadsTest, RangesExcludeEachOther) {
  Guarded guarded;
  std::array<std::array<uint64_t, Guarded::kBlocks>, kShards> by_shard{};
  runtime_.run_on(0, on_all([&](size_t i) { return lock_and_count(guarded, i, by_shard[i]); }));
  uint64_t locked = 0;
  for (size_t block = 0; block < Guarded::kBlocks; ++block) {
    uint64_t sum = 0;
    for (const auto& mine : by_shard) sum += mine[block];
    EXPECT_EQ(guarded.counters[block], sum);
    locked += sum;
  }
  EXPECT_GT(locked, 0U);
  EXPECT_FALSE(guarded.table.is_locked({0, Guarded::kBlocks * kBlock}));
}

// ---- Sides.

// Tells all sides that ranges have changed, and fails the test by whatever else there may be.
class Relay final : public SideObserver {
 public:
  Relay(Shard& shard, std::vector<Shard*> shards, std::vector<MirrorSide*>& sides)
      : shard_(shard), shards_(std::move(shards)), sides_(sides), scope_(shard.reactor) {}
  void slot_failed(ShardId, Slot, uint64_t, Error error) override { ADD_FAILURE() << to_string(error); }
  void lease_wanted(ShardId) override { ADD_FAILURE(); }
  void level_wanted(ShardId, uint64_t) override { ADD_FAILURE(); }
  void repair_wanted(ShardId, Slot, ByteRange) override { ADD_FAILURE(); }
  void ranges_changed(ShardId) override {
    if (std::exchange(is_telling_, true)) return;
    scope_.spawn(tell());
  }
  Task<void> close() { return scope_.close(); }

 private:
  Task<void> tell() {
    is_telling_ = false;
    for (size_t i = 0; i < sides_.size(); ++i) {
      co_await call_on(shard_.reactor, shards_[i]->reactor, look(*sides_[i]));
    }
  }
  static Task<void> look(MirrorSide& side) {
    side.look_again();
    co_return;
  }
  Shard& shard_;
  const std::vector<Shard*> shards_;
  std::vector<MirrorSide*>& sides_;
  bool is_telling_ = false;
  Scope scope_;
};

struct OnShard {
  std::unique_ptr<Relay> relay;
  std::unique_ptr<MirrorSide> side;
};

struct Volume {
  std::array<std::shared_ptr<BlockSource>, 2> replicas;  // as the devices of the sides have them
  std::shared_ptr<MirrorShared> shared = std::make_shared<MirrorShared>(kBytes);
  std::array<OnShard, kShards> on_shards;
  std::vector<MirrorSide*> sides;
  std::shared_ptr<BlockSource> source;  // held by whoever opens devices
};

Task<void> make_side(Volume& volume, Shard& shard, std::vector<Shard*> shards, size_t index) {
  OnShard& here = volume.on_shards[index];
  here.relay = std::make_unique<Relay>(shard, std::move(shards), volume.sides);
  here.side = std::make_unique<MirrorSide>(shard, volume.shared, *here.relay, std::chrono::seconds(100));
  SideConfiguration configuration;
  configuration.is_held = false;
  for (Slot slot = 0; slot < volume.replicas.size(); ++slot) {
    here.side->attach(slot, *volume.replicas[slot]->open(shard));
    configuration.slots[slot] = {.use = SlotUse::kNeeded, .is_read = true, .incarnation = 1};
  }
  here.side->configure(configuration);
  co_return;
}

Task<void> end_side(OnShard& here) {
  here.side->configure({});
  for (Slot slot = 0; slot < 2; ++slot) co_await here.side->detach(slot);
  co_await here.relay->close();
  here.side.reset();
  here.relay.reset();
}

// Few blocks, over the ends of words and extents, so that everybody meets everybody.
Task<void> use_volume(Reactor& reactor, BlockDevice& device, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> memory(64 * kBlock, static_cast<std::byte>(seed));
  for (int round = 0; round < 700; ++round) {
    const uint64_t length = (1 + random() % (round % 16 == 0 ? 64 : 4)) * kBlock;
    const ByteOffset offset(kMiB - 32 * kBlock + random() % 16 * kBlock);
    iovec piece{memory.data(), length};
    Result<void> result;
    switch (random() % 5) {
      case 0:
        result = co_await block_read(reactor, device, offset, {&piece, 1});
        break;
      case 1:
        result = co_await block_write_zeroes(reactor, device, offset, length);
        break;
      default:
        result = co_await block_write(reactor, device, offset, {&piece, 1});
    }
    EXPECT_TRUE(result);
    if (round % 4 == 0) co_await yield(reactor);
  }
}

Task<void> use_side(Volume& volume, Shard& shard, size_t index) {
  const auto device = volume.source->open(shard);
  Scope scope(shard.reactor);
  for (uint64_t worker = 0; worker < 4; ++worker) {
    scope.spawn(use_volume(shard.reactor, **device, 1 + index * 10 + worker));
  }
  co_await scope.close();
}

Task<std::vector<std::byte>> bytes_of(Shard& shard, BlockSource& replica) {
  const auto device = replica.open(shard);
  std::vector<std::byte> bytes(kBytes);
  const iovec piece{bytes.data(), bytes.size()};
  EXPECT_TRUE(co_await block_read(shard.reactor, **device, ByteOffset(0), {&piece, 1}));
  co_return bytes;
}

TEST_F(ThreadsTest, SidesShareAVolume) {
  Volume volume;
  volume.shared->lease_until_ns = std::numeric_limits<int64_t>::max();
  // Slow enough that requests meet.
  constexpr LimiterOptions kSlow{.latency = std::chrono::microseconds(30), .jitter = std::chrono::microseconds(30)};
  for (auto& replica : volume.replicas) {
    replica = make_limiter_source(*make_memory_source({.size_bytes = kBytes}), kSlow);
  }
  std::vector<Shard*> shards;
  for (size_t i = 0; i < kShards; ++i) shards.push_back(&shard(i));
  runtime_.run_on(0, on_all([&](size_t i) { return make_side(volume, shard(i), shards, i); }));
  for (const OnShard& here : volume.on_shards) volume.sides.push_back(here.side.get());
  volume.source = make_mirror_source(volume.sides);
  runtime_.run_on(0, on_all([&](size_t i) { return use_side(volume, shard(i), i); }));
  runtime_.run_on(0, on_all([&](size_t i) { return end_side(volume.on_shards[i]); }));
  EXPECT_FALSE(volume.shared->has_waiters());
  EXPECT_FALSE(volume.shared->locks.is_locked({0, kBytes}));
  std::array<std::vector<std::byte>, 2> bytes;
  runtime_.run_on(0, [](Shard& home, Volume& of, auto& out) -> Task<void> {
    for (size_t i = 0; i < out.size(); ++i) out[i] = co_await bytes_of(home, *of.replicas[i]);
  }(home(), volume, bytes));
  EXPECT_TRUE(bytes[0] == bytes[1]);
}

}  // namespace
}  // namespace fairlead::mirror
