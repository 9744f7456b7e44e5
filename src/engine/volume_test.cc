// A volume on three engines: each has a replica in a pool on a simulated disk, one has the target, which reaches its
// own replica in the same process and the others over NVMe/TCP.
#include <gtest/gtest.h>

#include "async/cancel.h"
#include "engine/test_bed.h"
#include "mirror/volume_target.h"
#include "sim/prng.h"
#include "tests/support/memory_witness.h"

namespace fairlead::engine {
namespace {

using mirror::TargetStatus;
using mirror::VolumeTarget;
using std::chrono::milliseconds;
using std::chrono::seconds;
using State = TargetStatus::State;

constexpr uint64_t kBlocks = kReplicaBytes / kBlock;
constexpr uint64_t kExtentBlocks = mirror::kExtentBytes / kBlock;

// What hosts know: the version of each block that was acknowledged last, and the newest that was sent. 0: never
// written.
struct Ledger {
  std::vector<uint8_t> acknowledged = std::vector<uint8_t>(kBlocks);
  std::vector<uint8_t> tried = std::vector<uint8_t>(kBlocks);
  uint64_t writes = 0;
  uint64_t errors = 0;
};

std::vector<std::byte> block_bytes(uint64_t block, uint8_t version) {
  return version == 0 ? std::vector<std::byte>(kBlock) : pattern(kBlock, static_cast<uint8_t>(block * 31 + version));
}

// A target of the volume, on an engine.
class Volume {
 public:
  Volume(EngineBed& bed, size_t engine, Duration stall_limit = seconds(5))
      : bed_(bed),
        engine_(*bed.engines[engine]),
        use_(engine_),
        witness_(engine_.reactor()),
        stall_limit_(stall_limit) {}

  Task<void> start() {
    std::vector<std::unique_ptr<mirror::ReplicaLink>> links;
    for (size_t i = 0; i < bed_.engines.size(); ++i) {
      if (bed_.engines[i].get() == &engine_) {
        auto link = std::make_unique<LocalLink>(engine_.replica());
        link->start();
        local_ = link.get();
        links.push_back(std::move(link));
      } else {
        RemoteLinkOptions options = bed_.link_options(i);
        options.host.identity = host::identity_from_id(test_uuid(50));
        auto link = std::make_unique<RemoteLink>(engine_.shards(), options);
        link->start();
        remote_.push_back(link.get());
        links.push_back(std::move(link));
      }
    }
    mirror::MirrorOptions options;
    options.volume = test_volume();
    options.size_bytes = kReplicaBytes;
    options.logical_block = 512;
    options.checkpoint_interval = seconds(1);
    options.retry_max = seconds(2);
    options.stall_limit = stall_limit_;
    target_ = std::make_unique<VolumeTarget>(engine_.shards(), std::move(links), witness_, options);
    co_await target_->start();
    for (Shard* const shard : engine_.shards()) {
      devices_.push_back(co_await call_on(engine_.reactor(), shard->reactor, open(target_->source(), *shard)));
    }
  }
  Task<void> stop_serving() { return target_->stop_serving(); }
  Task<void> stop() {
    for (size_t i = 0; i < devices_.size(); ++i) {
      co_await call_on(engine_.reactor(), engine_.shards()[i]->reactor, destroy_on(devices_[i]));
    }
    co_await target_->stop();
    for (RemoteLink* const link : remote_) co_await link->stop();
    co_await local_->stop();
    target_.reset();
  }

  Reactor& reactor() { return engine_.reactor(); }
  TargetStatus status() const { return target_->status(); }
  VolumeTarget& target() { return *target_; }
  BlockDevice& device() { return *devices_.front(); }
  // The most that any replica had to copy while has_members() waited.
  uint64_t most_to_copy() const { return most_to_copy_; }
  Task<bool> has_members(size_t count, Duration limit = seconds(60)) {
    const Instant end = reactor().now() + limit;
    while (reactor().now() < end) {
      const TargetStatus now = status();
      for (const mirror::ReplicaStatus& replica : now.replicas) {
        most_to_copy_ = std::max(most_to_copy_, replica.to_copy_bytes);
      }
      const bool is_level = now.unlevel_bytes == 0;
      if (now.state == State::kServing && now.record.members.size() == count && now.record.is_settled() && is_level) {
        co_return true;
      }
      if (now.state == State::kStopped || !engine_.is_ready()) break;
      (void)co_await sleep(reactor(), milliseconds(1));
    }
    ADD_FAILURE() << status().why << ", " << to_string(status().record);
    co_return false;
  }

  Task<Result<void>> write(uint64_t block, Ledger& ledger, size_t shard = 0) {
    const uint8_t version = ++ledger.tried[block];
    Reactor& there = engine_.shards()[shard]->reactor;
    const Result<void> written =
        co_await call_on(reactor(), there, put(there, *devices_[shard], block * kBlock, block_bytes(block, version)));
    if (written) ledger.acknowledged[block] = std::max(ledger.acknowledged[block], version);
    ++(written ? ledger.writes : ledger.errors);
    co_return written;
  }
  // Random blocks until it is told to end, or something fails. Workers have blocks of their own.
  Task<void> work(uint64_t worker, uint64_t workers, Ledger& ledger, const bool& is_ending) {
    sim::Prng random(worker + 1);
    while (!is_ending) {
      const uint64_t block = random.below(kBlocks / workers) * workers + worker;
      if (ledger.tried[block] == 255) continue;
      if (!co_await write(block, ledger, worker % devices_.size())) co_return;
      (void)co_await sleep(reactor(), Duration(static_cast<int64_t>(random.below(20'000'000))));
    }
  }
  // Every block is as it was acknowledged last, or sent since.
  Task<void> verify(const Ledger& ledger) {
    for (uint64_t first = 0; first < kBlocks; first += kExtentBlocks) {
      const auto read = co_await get(reactor(), device(), first * kBlock, kExtentBlocks * kBlock);
      CO_ASSERT_TRUE(read.has_value());
      for (uint64_t block = first; block < first + kExtentBlocks; ++block) {
        const auto bytes = std::span(*read).subspan((block - first) * kBlock, kBlock);
        bool is_good = false;
        for (int version = ledger.acknowledged[block]; version <= ledger.tried[block] && !is_good; ++version) {
          is_good = std::ranges::equal(bytes, block_bytes(block, static_cast<uint8_t>(version)));
        }
        EXPECT_TRUE(is_good) << "block " << block << ", acknowledged " << int{ledger.acknowledged[block]};
        if (!is_good) co_return;
      }
    }
  }

 private:
  static Task<std::unique_ptr<BlockDevice>> open(std::shared_ptr<BlockSource> source, Shard& shard) {
    auto device = source->open(shard);
    EXPECT_TRUE(device.has_value());
    co_return std::move(*device);
  }

  EngineBed& bed_;
  TestEngine& engine_;
  TestEngine::Use use_;
  test::MemoryWitness witness_;
  const Duration stall_limit_;
  LocalLink* local_ = nullptr;
  std::vector<RemoteLink*> remote_;
  std::unique_ptr<VolumeTarget> target_;
  std::vector<std::unique_ptr<BlockDevice>> devices_;
  uint64_t most_to_copy_ = 0;
};

// The bytes of an object of the pool, the replica for example, past keepers and targets.
Task<std::vector<std::byte>> bytes_of(TestEngine& engine, std::string name) {
  const auto source = co_await engine.pool().source(std::move(name));
  EXPECT_TRUE(source.has_value());
  auto device = (*source)->open(engine.home());
  EXPECT_TRUE(device.has_value());
  std::vector<std::byte> all;
  for (uint64_t at = 0; at < kReplicaBytes; at += kMiB) {
    const auto read = co_await get(engine.reactor(), **device, at, kMiB);
    EXPECT_TRUE(read.has_value());
    if (!read) break;
    all.insert(all.end(), read->begin(), read->end());
  }
  co_return all;
}
Task<void> keep_bytes(EngineBed& bed, size_t& engine, std::vector<std::byte>& out) {
  out = co_await bytes_of(*bed.engines[engine], bed.engines[engine]->name());
}
void expect_identical(EngineBed& bed, const Ledger* ledger = nullptr) {
  std::vector<std::vector<std::byte>> all(bed.engines.size());
  for (size_t i = 0; i < all.size(); ++i) bed.run_at(i, keep_bytes, i, all[i]);
  EXPECT_EQ(all[0].size(), kReplicaBytes);
  for (size_t i = 1; i < all.size(); ++i) EXPECT_TRUE(all[i] == all[0]) << "replica " << i;
  if (ledger == nullptr) return;
  for (uint64_t block = 0; block < kBlocks; ++block) {
    if (ledger->acknowledged[block] != ledger->tried[block]) continue;
    EXPECT_TRUE(std::ranges::equal(std::span(all[0]).subspan(block * kBlock, kBlock),
                                   block_bytes(block, ledger->acknowledged[block])))
        << block;
  }
}

Task<void> await_life(EngineBed& bed, Reactor& reactor, size_t engine) {
  while (!bed.engines[engine]->is_ready()) (void)co_await sleep(reactor, milliseconds(1));
}

// ---- Only what it missed

Task<void> loses_one(EngineBed& bed, Ledger& ledger, sim::CrashKind& kind) {
  Volume volume(bed, 0);
  co_await volume.start();
  CO_ASSERT_TRUE(co_await volume.has_members(3));
  for (uint64_t block = 0; block < kBlocks; block += 16) EXPECT_TRUE(co_await volume.write(block, ledger));
  EXPECT_TRUE(co_await block_flush(volume.reactor(), volume.device()));
  co_await volume.verify(ledger);
  (void)co_await sleep(volume.reactor(), seconds(4));  // a checkpoint is made, and noted
  bed.crash(2, kind);
  EXPECT_TRUE(co_await volume.write(3, ledger));
  EXPECT_TRUE(co_await volume.write(9 * kExtentBlocks + 5, ledger));
  EXPECT_TRUE(co_await block_write_zeroes(volume.reactor(), volume.device(), ByteOffset(11 * mirror::kExtentBytes),
                                          mirror::kExtentBytes));
  for (uint64_t block = 11 * kExtentBlocks; block < 12 * kExtentBlocks; ++block) {
    ledger.acknowledged[block] = ledger.tried[block] = 0;
  }
  CO_ASSERT_TRUE(co_await volume.has_members(2));
  EXPECT_TRUE(volume.status().is_degraded);
  co_await volume.verify(ledger);
  (void)co_await sleep(volume.reactor(), seconds(10));
  EXPECT_TRUE(co_await volume.write(9 * kExtentBlocks + 6, ledger));
  bed.world.restart(bed.engines[2]->node());
  CO_ASSERT_TRUE(co_await volume.has_members(3));
  EXPECT_FALSE(volume.status().is_degraded);
  EXPECT_EQ(volume.status().why, "");
  // Of 16 MiB.
  EXPECT_EQ(volume.most_to_copy(), 3 * mirror::kExtentBytes);
  co_await volume.verify(ledger);
  EXPECT_EQ(ledger.errors, 0U);
  co_await volume.stop();
}
class VolumeLosesOneTest : public testing::TestWithParam<sim::CrashKind> {};
TEST_P(VolumeLosesOneTest, OnlyWhatItMissedIsCopied) {
  EngineBed bed({.engines = 3});
  Ledger ledger;
  sim::CrashKind kind = GetParam();
  bed.run_at(0, loses_one, ledger, kind);
  expect_identical(bed, &ledger);
}
INSTANTIATE_TEST_SUITE_P(Crashes, VolumeLosesOneTest,
                         testing::Values(sim::CrashKind::kProcessKilled, sim::CrashKind::kPowerLost));

// ---- Snapshots

std::string snapshot_name(const TestEngine& engine, const Uuid& snapshot) {
  return to_string(snapshot) + "-" + engine.name().substr(0, 8);
}

// Two are taken while a replica is away, and it gets both by the network.
Task<void> takes_snapshots(EngineBed& bed, Ledger& ledger) {
  Volume volume(bed, 0);
  co_await volume.start();
  CO_ASSERT_TRUE(co_await volume.has_members(3));
  for (uint64_t block = 0; block < kBlocks; block += 8) EXPECT_TRUE(co_await volume.write(block, ledger));
  EXPECT_TRUE(co_await volume.target().take_snapshot(test_uuid(31), seconds(10)));
  bed.crash(2, sim::CrashKind::kPowerLost);
  for (uint64_t number = 32; number < 34; ++number) {
    EXPECT_TRUE(co_await volume.write(number * 8, ledger));
    EXPECT_TRUE(co_await volume.write(number * 8 + 1, ledger));
    EXPECT_TRUE(co_await volume.target().take_snapshot(test_uuid(static_cast<uint8_t>(number)), seconds(10)));
  }
  EXPECT_TRUE(co_await volume.write(5, ledger));
  bed.world.restart(bed.engines[2]->node());
  CO_ASSERT_TRUE(co_await volume.has_members(3));
  EXPECT_EQ(volume.most_to_copy(), 3 * mirror::kExtentBytes) << "one extent of each snapshot, and one written since";
  EXPECT_EQ(volume.status().snapshots.size(), 3U);
  // The first is deleted where it was taken, and where it was not read from either.
  EXPECT_TRUE(co_await volume.target().delete_snapshot(test_uuid(31), seconds(10)));
  EXPECT_TRUE(co_await volume.target().delete_snapshot(test_uuid(33), seconds(10))) << "it was shown";
  EXPECT_EQ(volume.status().snapshots.size(), 1U);
  co_await volume.verify(ledger);
  co_await volume.stop();
}
struct Found {
  std::vector<std::byte> bytes;
  size_t objects = 0;
};
Task<void> find_snapshot(EngineBed& bed, size_t& engine, Found& found) {
  TestEngine& at = *bed.engines[engine];
  found.objects = at.pool().list().size();
  found.bytes = co_await bytes_of(at, snapshot_name(at, test_uuid(32)));
}
TEST(VolumeTest, AReplicaGetsTheSnapshotsThatItMissed) {
  EngineBed bed({.engines = 3});
  Ledger ledger;
  bed.run_at(0, takes_snapshots, ledger);
  expect_identical(bed, &ledger);
  Found found[3];
  for (size_t i = 0; i < 3; ++i) {
    bed.run_at(i, find_snapshot, i, found[i]);
    EXPECT_EQ(found[i].objects, 2U) << "the replica and one snapshot";
    EXPECT_TRUE(found[i].bytes == found[0].bytes) << i;
  }
  const auto at = [&](uint64_t block) { return std::span(found[0].bytes).subspan(block * kBlock, kBlock); };
  EXPECT_TRUE(std::ranges::equal(at(32 * 8), block_bytes(32 * 8, 2)));
  EXPECT_TRUE(std::ranges::equal(at(33 * 8), block_bytes(33 * 8, 1)));
  EXPECT_TRUE(std::ranges::equal(at(5), block_bytes(5, 0)));
}

// ---- A disk here that hangs

// A write as a target's: answered early when the disk keeps its buffer.
struct HostsWrite : IoRequest {
  HostsWrite(uint64_t block, Ledger& of) : bytes(block_bytes(block, ++of.tried[block])), ledger(of) {
    op = IoOp::kWrite;
    offset = ByteOffset(block * kBlock);
    length = kBlock;
    buffers = {&piece, 1};
    done = [](IoRequest& io) {
      static_cast<HostsWrite&>(io).is_done = true;
      static_cast<HostsWrite&>(io).answer();
    };
    left_behind = [](IoRequest& io) { static_cast<HostsWrite&>(io).answer(); };
  }
  void answer() {
    if (std::exchange(is_answered, true)) return;
    EXPECT_TRUE(result.has_value());
    ledger.acknowledged[offset.value / kBlock] = ledger.tried[offset.value / kBlock];
  }
  std::vector<std::byte> bytes;
  iovec piece{bytes.data(), bytes.size()};
  Ledger& ledger;
  bool is_answered = false;
  bool is_done = false;
};

Task<void> has_a_disk_that_hangs(EngineBed& bed, Ledger& ledger) {
  Volume volume(bed, 0);
  co_await volume.start();
  CO_ASSERT_TRUE(co_await volume.has_members(3));
  for (uint64_t block = 0; block < kBlocks; block += 16) EXPECT_TRUE(co_await volume.write(block, ledger));
  bed.world.find_disk(bed.engines[0]->node(), "/disk")->hang(seconds(60));
  HostsWrite caught(3, ledger);
  volume.device().submit(caught);
  CO_ASSERT_TRUE(co_await volume.has_members(2, seconds(8)));
  EXPECT_TRUE(caught.is_answered);
  EXPECT_FALSE(caught.is_done) << "the disk has its buffer";
  EXPECT_TRUE(co_await volume.write(3, ledger)) << "its range is free";
  EXPECT_TRUE(co_await volume.write(9 * kExtentBlocks + 5, ledger));
  EXPECT_TRUE(co_await volume.target().take_snapshot(test_uuid(31), seconds(5))) << "nothing is waited for";
  co_await volume.verify(ledger);
  // It may end as target, too, long before the disk goes on; what is left waits for that alone.
  const Instant now = volume.reactor().now();
  co_await volume.stop_serving();
  EXPECT_LT(volume.reactor().now(), now + seconds(2));
  EXPECT_TRUE(co_await volume.target().has_left_behind());
  EXPECT_FALSE(caught.is_done);
  co_await volume.stop();
  EXPECT_TRUE(caught.is_done);
}
Task<void> comes_back(EngineBed& bed, Ledger& ledger) {
  Volume volume(bed, 1);
  co_await volume.start();
  CO_ASSERT_TRUE(co_await volume.has_members(3));
  co_await volume.verify(ledger);
  co_await volume.stop();
}
TEST(VolumeTest, ADiskHereThatHangsHoldsNobody) {
  EngineBed bed({.engines = 3});
  Ledger ledger;
  bed.run_at(0, has_a_disk_that_hangs, ledger);
  bed.run_at(1, comes_back, ledger);
  expect_identical(bed, &ledger);
}

// On the engine of the first replica; afterwards both hold what was acknowledged.
void run_with_two_replicas(Task<void> (*story)(EngineBed& bed, Ledger& ledger)) {
  EngineBed bed({.engines = 2});
  Ledger ledger;
  bed.run_at(0, story, ledger);
  expect_identical(bed, &ledger);
}

// Both members fail, so nobody can be left out: the volume is taken over anew as soon as its disk goes on.
Task<void> has_two_that_fail(EngineBed& bed, Ledger& ledger) {
  Volume volume(bed, 0);
  co_await volume.start();
  CO_ASSERT_TRUE(co_await volume.has_members(2));
  EXPECT_TRUE(co_await volume.write(1, ledger));
  const uint64_t before = volume.status().record.at.term.number;
  bed.world.find_disk(bed.engines[0]->node(), "/disk")->hang(seconds(20));
  HostsWrite caught(2, ledger);
  volume.device().submit(caught);
  bed.crash(1, sim::CrashKind::kProcessKilled);
  (void)co_await sleep(volume.reactor(), milliseconds(500));
  bed.world.restart(bed.engines[1]->node());
  CO_ASSERT_TRUE(co_await volume.has_members(2));
  EXPECT_GT(volume.status().record.at.term.number, before);
  EXPECT_TRUE(caught.is_answered);
  EXPECT_TRUE(co_await volume.write(3, ledger));
  co_await volume.verify(ledger);
  co_await volume.stop();
}
TEST(VolumeTest, ADiskHereThatHangsIsTakenAgainWhenItGoesOn) { run_with_two_replicas(has_two_that_fail); }

// The only member that is left is a slow one: who gave it up would ask for everything anew, for ever.
Task<void> has_a_slow_way_to_all(EngineBed& bed, Ledger& ledger) {
  Volume volume(bed, 0, seconds(1));
  co_await volume.start();
  CO_ASSERT_TRUE(co_await volume.has_members(2));
  bed.world.find_disk(bed.engines[0]->node(), "/disk")->hang(seconds(60));
  EXPECT_TRUE(co_await volume.write(1, ledger));
  CO_ASSERT_TRUE(co_await volume.has_members(1));
  const mirror::Stamp before = volume.status().record.at;
  const Instant began = volume.reactor().now();
  bed.world.find_disk(bed.engines[1]->node(), "/disk")->hang(milliseconds(3500));  // calls to it end after 5 s
  EXPECT_TRUE(co_await volume.write(2, ledger));
  EXPECT_GT(volume.reactor().now(), began + seconds(3));
  EXPECT_EQ(volume.status().record.at, before) << "nothing was taken over, nobody left out";
  // As soon as another has everything it is as any.
  CO_ASSERT_TRUE(co_await volume.has_members(2));
  bed.world.find_disk(bed.engines[1]->node(), "/disk")->hang(seconds(30));
  const Instant since = volume.reactor().now();
  EXPECT_TRUE(co_await volume.write(3, ledger));
  EXPECT_LT(volume.reactor().now(), since + seconds(3));
  CO_ASSERT_TRUE(co_await volume.has_members(2));
  co_await volume.verify(ledger);
  co_await volume.stop();
}
TEST(VolumeTest, ASlowReplicaIsBetterThanNone) { run_with_two_replicas(has_a_slow_way_to_all); }

// ---- Under load

struct Rounds {
  Ledger ledger;
  sim::CrashKind kind = sim::CrashKind::kPowerLost;
};
Task<void> loses_each_in_turn(EngineBed& bed, Rounds& rounds) {
  Volume volume(bed, 0);
  co_await volume.start();
  CO_ASSERT_TRUE(co_await volume.has_members(3));
  Scope scope(volume.reactor());
  bool is_ending = false;
  for (uint64_t worker = 0; worker < 8; ++worker) scope.spawn(volume.work(worker, 8, rounds.ledger, is_ending));
  for (const size_t engine : {size_t{2}, size_t{1}, size_t{2}}) {
    (void)co_await sleep(volume.reactor(), milliseconds(700));
    bed.crash(engine, rounds.kind);
    EXPECT_TRUE(co_await volume.has_members(2));
    (void)co_await sleep(volume.reactor(), milliseconds(700));
    const uint64_t before = rounds.ledger.writes;
    (void)co_await sleep(volume.reactor(), milliseconds(300));
    EXPECT_GT(rounds.ledger.writes, before) << "it goes on without";
    bed.world.restart(bed.engines[engine]->node());
    EXPECT_TRUE(co_await volume.has_members(3));
  }
  is_ending = true;
  co_await scope.close();
  EXPECT_EQ(rounds.ledger.errors, 0U);
  co_await volume.verify(rounds.ledger);
  co_await volume.stop();
}
TEST(VolumeTest, LosesAndFindsReplicasUnderLoad) {
  for (uint64_t seed = 1; seed <= 2 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    sim::SimSettings settings = sim::SimSettings::calm();
    settings.order = sim::Order::kRandom;
    settings.disk.split_ppm = 200'000;
    EngineBed bed({.engines = 3, .seed = seed, .settings = settings});
    Rounds rounds{.ledger = {}, .kind = seed % 2 == 0 ? sim::CrashKind::kProcessKilled : sim::CrashKind::kPowerLost};
    bed.run_at(0, loses_each_in_turn, rounds);
    expect_identical(bed, &rounds.ledger);
  }
}

// ---- The target's own node

// Until its node dies.
Task<void> serves_until_the_end(EngineBed& bed, Ledger& ledger, bool& is_loaded) {
  Volume volume(bed, 0);
  co_await volume.start();
  if (co_await volume.has_members(3)) {
    Scope scope(volume.reactor());
    const bool is_ending = false;
    for (uint64_t worker = 0; worker < 8; ++worker) scope.spawn(volume.work(worker, 8, ledger, is_ending));
    (void)co_await sleep(volume.reactor(), milliseconds(2500));
    is_loaded = true;
    co_await bed.engines[0]->node().stopping(0).wait();
    // What waits for members ends with an error.
    co_await volume.stop_serving();
    co_await scope.close();
  }
  co_await volume.stop();
}
Task<void> takes_over(EngineBed& bed, Ledger& ledger) {
  Volume volume(bed, 1);
  co_await volume.start();
  CO_ASSERT_TRUE(co_await volume.has_members(2));
  co_await volume.verify(ledger);
  Ledger later = ledger;
  later.tried = later.acknowledged;  // what is there now stays
  for (uint64_t block = 0; block < kBlocks; ++block) {
    const auto read = co_await get(volume.reactor(), volume.device(), block * kBlock, kBlock);
    CO_ASSERT_TRUE(read.has_value());
    for (int version = ledger.acknowledged[block]; version <= ledger.tried[block]; ++version) {
      if (*read == block_bytes(block, static_cast<uint8_t>(version))) {
        later.acknowledged[block] = later.tried[block] = static_cast<uint8_t>(version);
      }
    }
  }
  bed.world.restart(bed.engines[0]->node());
  co_await await_life(bed, volume.reactor(), 0);
  EXPECT_TRUE(co_await volume.write(77, later));
  CO_ASSERT_TRUE(co_await volume.has_members(3));
  co_await volume.verify(later);
  co_await volume.stop();
  ledger = later;
}
TEST(VolumeTest, AnotherEngineTakesOverWhenTheTargetsDies) {
  for (uint64_t seed = 1; seed <= 2 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    EngineBed bed({.engines = 3, .seed = seed});
    Ledger ledger;
    bool is_loaded = false;
    bed.world.spawn(bed.engines[0]->node(), 0, serves_until_the_end(bed, ledger, is_loaded));
    ASSERT_EQ(bed.world.run_until([&] { return is_loaded; }, seconds(60)), sim::RunResult::kDone) << bed.world.report();
    bed.crash(0, seed % 2 == 0 ? sim::CrashKind::kProcessKilled : sim::CrashKind::kPowerLost);
    EXPECT_GT(ledger.writes, 50U);
    bed.run_at(1, takes_over, ledger);
    expect_identical(bed, &ledger);
  }
}

}  // namespace
}  // namespace fairlead::engine
