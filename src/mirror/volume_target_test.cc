// A volume's target with replicas in memory: take-over, faults, returns, levelling, leases, hand-over.
#include "mirror/volume_target.h"

#include <gtest/gtest.h>

#include "async/cancel.h"
#include "sim/world.h"
#include "tests/support/memory_link.h"
#include "tests/support/memory_witness.h"

namespace fairlead::mirror {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::MemoryLink;
using test::MemoryReplica;
using test::MemoryWitness;
using State = TargetStatus::State;
using Standing = Reign::Standing;

constexpr uint64_t kBytes = 8 * kMiB;
constexpr uint32_t kBlock = 4096;

Uuid uuid(uint8_t number) {
  Uuid id;
  id.bytes[15] = number;
  return id;
}
const Uuid kVolume = uuid(1);
ReplicaId replica_id(size_t index) { return uuid(static_cast<uint8_t>(10 + index)); }

// A target of the node, with links of its own.
struct Target {
  std::vector<MemoryLink*> links;
  std::unique_ptr<VolumeTarget> volume;
  std::unique_ptr<BlockDevice> device;
};

struct Bed {
  explicit Bed(size_t replicas, size_t shards = 2)
      : world(1, sim::SimSettings::calm()),
        node(world.add_node("10.0.0.1", {.shards = shards, .more_addresses = {}})),
        witness(node.shard(0).reactor) {
    Record first;
    first.at.term.number = 1;
    for (size_t i = 0; i < replicas; ++i) first.members.add(replica_id(i));
    first.prior = first.members;
    witness.set_record(kVolume, first);
    for (size_t i = 0; i < replicas; ++i) {
      this->replicas.push_back(
          std::make_unique<MemoryReplica>(home(), test::MemoryReplicaOptions{.volume = kVolume,
                                                                             .id = replica_id(i),
                                                                             .size_bytes = kBytes,
                                                                             .lease_max = milliseconds(500),
                                                                             .record = first}));
    }
  }

  Shard& home() { return node.shard(0); }
  Reactor& reactor() { return home().reactor; }

  MirrorOptions options() const {
    MirrorOptions options;
    options.volume = kVolume;
    options.size_bytes = kBytes;
    options.logical_block = kBlock;
    options.copy_share_percent = copy_share_percent;
    options.copies_in_flight = 1;
    return options;
  }
  Task<std::unique_ptr<Target>> start_target(size_t local = 0) {
    auto target = std::make_unique<Target>();
    std::vector<std::unique_ptr<ReplicaLink>> links;
    for (size_t i = 0; i < replicas.size(); ++i) {
      test::MemoryLinkOptions link;
      link.is_local = i == local;
      auto made = std::make_unique<MemoryLink>(*replicas[i], link);
      target->links.push_back(made.get());
      links.push_back(std::move(made));
    }
    std::vector<Shard*> shards;
    for (size_t i = 0; i < node.shard_count(); ++i) shards.push_back(&node.shard(i));
    target->volume = std::make_unique<VolumeTarget>(shards, std::move(links), witness, options());
    co_await target->volume->start();
    target->device = *target->volume->source()->open(home());
    co_return target;
  }
  Task<void> end_target(std::unique_ptr<Target> target) {
    target->device.reset();
    co_await target->volume->stop();
  }
  Task<bool> reaches(Target& target, State state, Duration limit = seconds(30)) {
    const Instant end = reactor().now() + limit;
    while (target.volume->status().state != state && reactor().now() < end) co_await sleep(reactor(), milliseconds(1));
    co_return target.volume->status().state == state;
  }
  Task<bool> has_members(Target& target, size_t count, Duration limit = seconds(30)) {
    const Instant end = reactor().now() + limit;
    while (reactor().now() < end) {
      const TargetStatus status = target.volume->status();
      if (status.state == State::kServing && status.record.members.size() == count && status.record.is_settled()) {
        co_return true;
      }
      co_await sleep(reactor(), milliseconds(1));
    }
    co_return false;
  }

  static std::vector<std::byte> pattern(uint8_t value, size_t bytes = kBlock) {
    return std::vector<std::byte>(bytes, std::byte{value});
  }
  Task<Result<void>> write(Target& target, uint64_t block, uint8_t value) {
    std::vector<std::byte> bytes = pattern(value);
    iovec piece{bytes.data(), bytes.size()};
    co_return co_await block_write(reactor(), *target.device, ByteOffset(block * kBlock), {&piece, 1});
  }
  Task<void> write_and_tell(Target& target, uint64_t block, uint8_t value, bool& is_written) {
    is_written = (co_await write(target, block, value)).has_value();
  }
  // -1: an error.
  Task<int> read(Target& target, uint64_t block) {
    std::vector<std::byte> bytes(kBlock);
    iovec piece{bytes.data(), bytes.size()};
    if (!co_await block_read(reactor(), *target.device, ByteOffset(block * kBlock), {&piece, 1})) co_return -1;
    co_return std::to_integer<int>(bytes[17]);
  }
  int on_replica(size_t index, uint64_t block) {
    std::vector<std::byte> bytes(kBlock);
    replicas[index]->medium().read(block * kBlock, bytes);
    return std::to_integer<int>(bytes[17]);
  }

  template <typename Test>
  void run(Test test) {
    bool is_done = false;
    world.spawn(node, 0, live(test, is_done));
    ASSERT_EQ(world.run_until([&] { return is_done; }, seconds(3600)), sim::RunResult::kDone) << world.report();
    if (testing::Test::HasFailure()) std::cout << world.report();
  }
  template <typename Test>
  Task<void> live(Test test, bool& is_done) {
    co_await test(*this);
    for (const auto& replica : replicas) {
      if (replica->is_up()) co_await replica->stop();
    }
    is_done = true;
  }

  uint32_t copy_share_percent = 50;
  sim::SimWorld world;
  sim::SimNode& node;
  MemoryWitness witness;
  std::vector<std::unique_ptr<MemoryReplica>> replicas;
};

TEST(VolumeTargetTest, ServesAndMirrors) {
  Bed bed(3);
  bed.run([](Bed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 3));
    EXPECT_TRUE(co_await bed.write(*target, 5, 42));
    EXPECT_EQ(co_await bed.read(*target, 5), 42);
    EXPECT_TRUE(co_await block_flush(bed.reactor(), *target->device));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 5), 42);
    co_await bed.end_target(std::move(target));
    for (const auto& replica : bed.replicas) EXPECT_EQ(replica->medium().unstamped + replica->misstamped(), 0U);
  });
}

TEST(VolumeTargetTest, GoesOnWithoutAReplicaAndCopiesOnlyWhatItMissed) {
  Bed bed(3);
  bed.run([](Bed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 3));
    for (uint64_t block = 0; block < 1024; block += 256) EXPECT_TRUE(co_await bed.write(*target, block, 1));
    co_await sleep(bed.reactor(), seconds(25));  // long enough for a checkpoint
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(*target, 300, 2));
    EXPECT_TRUE(co_await bed.has_members(*target, 2));
    EXPECT_TRUE(target->volume->status().is_degraded);
    EXPECT_EQ(bed.on_replica(2, 300), 0);
    const uint64_t before = bed.replicas[2]->count(IoOp::kWrite) + bed.replicas[2]->count(IoOp::kWriteZeroes);
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(*target, 3));
    EXPECT_EQ(bed.on_replica(2, 300), 2);
    EXPECT_EQ(bed.on_replica(2, 256), 1);
    const uint64_t after = bed.replicas[2]->count(IoOp::kWrite) + bed.replicas[2]->count(IoOp::kWriteZeroes);
    EXPECT_GT(after, before);
    EXPECT_LE(after - before, 4U);  // one extent, in pieces of data and of zeroes
    EXPECT_TRUE(target->volume->status().why.empty()) << target->volume->status().why;
    co_await bed.end_target(std::move(target));
    for (const auto& replica : bed.replicas) EXPECT_EQ(replica->medium().unstamped + replica->misstamped(), 0U);
  });
}

TEST(VolumeTargetTest, AnotherTargetTakesOverAndTheFirstIsSuperseded) {
  Bed bed(3);
  bed.run([](Bed& bed) -> Task<void> {
    auto first = co_await bed.start_target(0);
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    EXPECT_TRUE(co_await bed.write(*first, 7, 7));
    auto second = co_await bed.start_target(1);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_EQ(co_await bed.read(*second, 7), 7);
    EXPECT_FALSE(co_await bed.write(*first, 7, 8));
    EXPECT_TRUE(co_await bed.reaches(*first, State::kSuperseded));
    EXPECT_EQ(co_await bed.read(*first, 7), -1);
    EXPECT_EQ(co_await bed.read(*second, 7), 7);
    EXPECT_TRUE(co_await bed.write(*second, 7, 9));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 7), 9);
    co_await bed.end_target(std::move(first));
    co_await bed.end_target(std::move(second));
  });
}

TEST(VolumeTargetTest, WithoutAMajorityItWaitsAndSaysForWhom) {
  Bed bed(3);
  bed.run([](Bed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 3));
    co_await bed.replicas[1]->stop();
    co_await bed.replicas[2]->stop();
    Scope writing(bed.reactor());
    bool is_written = false;
    writing.spawn(bed.write_and_tell(*target, 3, 3, is_written));
    EXPECT_TRUE(co_await bed.reaches(*target, State::kSuspended));
    co_await sleep(bed.reactor(), seconds(60));
    EXPECT_FALSE(is_written);
    EXPECT_FALSE(target->volume->status().why.empty());
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.has_members(*target, 2));
    co_await writing.close();
    EXPECT_TRUE(is_written);
    bed.replicas[1]->start();
    EXPECT_TRUE(co_await bed.has_members(*target, 3, seconds(200)));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 3), 3);
    co_await bed.end_target(std::move(target));
  });
}

TEST(VolumeTargetTest, OfTwoOneGoesOnWithTheWitness) {
  Bed bed(2);
  bed.run([](Bed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 2));
    co_await bed.replicas[1]->stop();
    EXPECT_TRUE(co_await bed.write(*target, 1, 1));
    EXPECT_TRUE(co_await bed.has_members(*target, 1));
    EXPECT_EQ(bed.witness.vote(kVolume).record.members, MemberSet({replica_id(0)}));
    EXPECT_EQ(co_await bed.read(*target, 1), 1);
    bed.replicas[1]->start();
    EXPECT_TRUE(co_await bed.has_members(*target, 2));
    EXPECT_EQ(bed.on_replica(1, 1), 1);
    co_await bed.end_target(std::move(target));
  });
}

TEST(VolumeTargetTest, WhatTheOnlyReplicaMissedIsSentAgainWhenItIsBack) {
  Bed bed(1);
  bed.run([](Bed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 1));
    EXPECT_TRUE(co_await bed.write(*target, 1, 1));
    target->links[0]->set_reachable(false);
    Scope writing(bed.reactor());
    bool is_written = false;
    writing.spawn(bed.write_and_tell(*target, 2, 2, is_written));
    co_await sleep(bed.reactor(), seconds(20));
    EXPECT_FALSE(is_written);
    target->links[0]->set_reachable(true);
    co_await writing.close();
    EXPECT_TRUE(is_written);
    EXPECT_EQ(co_await bed.read(*target, 2), 2);
    EXPECT_EQ(co_await bed.read(*target, 1), 1);
    co_await bed.end_target(std::move(target));
  });
}

TEST(VolumeTargetTest, AfterAnEndInOrderNothingIsToBeLevelled) {
  Bed bed(3);
  bed.run([](Bed& bed) -> Task<void> {
    auto first = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    for (uint64_t block = 0; block < 2048; block += 100) EXPECT_TRUE(co_await bed.write(*first, block, 5));
    EXPECT_EQ(co_await bed.read(*first, 100), 5);  // so there are leases
    const Instant before = bed.reactor().now();
    co_await bed.end_target(std::move(first));
    auto second = co_await bed.start_target(2);
    const uint64_t writes = bed.replicas[0]->count(IoOp::kWrite);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    EXPECT_LT(bed.reactor().now() - before, milliseconds(100));  // no lease was waited for
    EXPECT_EQ(co_await bed.read(*second, 200), 5);
    EXPECT_EQ(bed.replicas[0]->count(IoOp::kWrite), writes);
    co_await bed.end_target(std::move(second));
  });
}

TEST(VolumeTargetTest, WhatWasNotAcknowledgedIsLevelledBeforeItIsRead) {
  Bed bed(3);
  bed.run([](Bed& bed) -> Task<void> {
    auto first = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*first, 3));
    EXPECT_TRUE(co_await bed.write(*first, 9, 1));
    // It reaches one of three, and its target is gone.
    bed.replicas[1]->hold(IoOp::kWrite);
    bed.replicas[2]->hold(IoOp::kWrite);
    Scope writing(bed.reactor());
    bool is_written = false;
    writing.spawn(bed.write_and_tell(*first, 9, 2, is_written));
    while (bed.replicas[1]->held() + bed.replicas[2]->held() < 2) co_await sleep(bed.reactor(), milliseconds(1));
    EXPECT_EQ(bed.on_replica(0, 9), 2);
    for (MemoryLink* const link : first->links) link->set_reachable(false);
    co_await bed.replicas[1]->stop();
    co_await bed.replicas[2]->stop();
    bed.replicas[1]->start();
    bed.replicas[2]->start();
    auto second = co_await bed.start_target(1);
    EXPECT_TRUE(co_await bed.has_members(*second, 3));
    const int seen = co_await bed.read(*second, 9);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bed.on_replica(i, 9), seen);
    for (MemoryLink* const link : first->links) link->set_reachable(true);
    EXPECT_TRUE(co_await bed.reaches(*first, State::kSuperseded));
    co_await writing.close();
    EXPECT_FALSE(is_written);
    co_await bed.end_target(std::move(first));
    EXPECT_EQ(co_await bed.read(*second, 9), seen);
    co_await bed.end_target(std::move(second));
  });
}

TEST(VolumeTargetTest, APersonMayTrustOneReplica) {
  Bed bed(3);
  bed.run([](Bed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 3));
    EXPECT_TRUE(co_await bed.write(*target, 4, 1));
    co_await bed.replicas[2]->stop();
    EXPECT_TRUE(co_await bed.write(*target, 4, 2));
    EXPECT_TRUE(co_await bed.has_members(*target, 2));
    co_await bed.replicas[0]->stop();
    co_await bed.replicas[1]->stop();
    bed.replicas[2]->start();
    EXPECT_TRUE(co_await bed.reaches(*target, State::kSuspended));
    co_await sleep(bed.reactor(), seconds(30));
    EXPECT_EQ(target->volume->status().state, State::kSuspended);
    EXPECT_EQ(target->volume->force(uuid(77)).error().code, Code::kNotFound);
    EXPECT_TRUE(target->volume->force(replica_id(2)));
    EXPECT_TRUE(co_await bed.has_members(*target, 1));
    EXPECT_EQ(co_await bed.read(*target, 4), 1);  // what the others had is lost
    EXPECT_TRUE(co_await bed.write(*target, 900, 3));
    bed.replicas[0]->start();
    bed.replicas[1]->start();
    EXPECT_TRUE(co_await bed.has_members(*target, 3, seconds(300)));
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(bed.on_replica(i, 4), 1);
      EXPECT_EQ(bed.on_replica(i, 900), 3);
    }
    co_await bed.end_target(std::move(target));
  });
}

TEST(VolumeTargetTest, AnErrorOfTheOnlyMediumIsTheHosts) {
  Bed bed(1);
  bed.run([](Bed& bed) -> Task<void> {
    auto target = co_await bed.start_target();
    EXPECT_TRUE(co_await bed.has_members(*target, 1));
    EXPECT_TRUE(co_await bed.write(*target, 1, 1));
    for (const IoOp op : {IoOp::kRead, IoOp::kWrite}) bed.replicas[0]->set_error(op, Code::kIo);
    const auto written = co_await bed.write(*target, 1, 2);
    EXPECT_FALSE(written);
    if (!written) EXPECT_EQ(written.error().code, Code::kIo);
    EXPECT_EQ(co_await bed.read(*target, 1), -1);
    for (const IoOp op : {IoOp::kRead, IoOp::kWrite}) bed.replicas[0]->set_error(op, std::nullopt);
    EXPECT_TRUE(co_await bed.write(*target, 1, 3));
    EXPECT_EQ(co_await bed.read(*target, 1), 3);
    co_await bed.end_target(std::move(target));
  });
}

// Virtual time that a replica needs to come back, which missed every extent.
Duration time_to_return(uint32_t share, bool is_busy) {
  Bed bed(3);
  bed.copy_share_percent = share;
  struct Run {
    static Task<void> ask(Bed& bed, Target& target, bool& is_ending) {
      while (!is_ending) EXPECT_EQ(co_await bed.read(target, 5), 1);
    }
    static Task<void> main(Bed& bed, bool is_busy, Duration& taken) {
      auto target = co_await bed.start_target();
      EXPECT_TRUE(co_await bed.has_members(*target, 3));
      co_await bed.replicas[2]->stop();
      for (uint64_t block = 5; block < kBytes / kBlock; block += 128)
        EXPECT_TRUE(co_await bed.write(*target, block, 1));
      EXPECT_TRUE(co_await bed.has_members(*target, 2));
      for (const auto& replica : bed.replicas) replica->set_delay(milliseconds(1));
      Scope asking(bed.reactor());
      bool is_ending = false;
      if (is_busy) asking.spawn(ask(bed, *target, is_ending));
      bed.replicas[2]->start();
      while (target->volume->status().replicas[2].standing != Standing::kReturning) {
        co_await sleep(bed.reactor(), milliseconds(1));
      }
      const Instant began = bed.reactor().now();
      EXPECT_TRUE(co_await bed.has_members(*target, 3));
      taken = bed.reactor().now() - began;
      is_ending = true;
      co_await asking.close();
      co_await bed.end_target(std::move(target));
    }
  };
  Duration taken{};
  bool is_done = false;
  struct Live {
    static Task<void> run(Bed& bed, bool is_busy, Duration& taken, bool& is_done) {
      co_await Run::main(bed, is_busy, taken);
      for (const auto& replica : bed.replicas) co_await replica->stop();
      is_done = true;
    }
  };
  bed.world.spawn(bed.node, 0, Live::run(bed, is_busy, taken, is_done));
  EXPECT_EQ(bed.world.run_until([&] { return is_done; }, seconds(3600)), sim::RunResult::kDone) << bed.world.report();
  return taken;
}

TEST(VolumeTargetTest, CopiesTakeTheirShareWhileHostsAsk) {
  const Duration quiet = time_to_return(10, false);
  EXPECT_GT(quiet, milliseconds(20));
  EXPECT_GT(time_to_return(10, true), 5 * quiet);
  EXPECT_LT(time_to_return(100, true), 2 * quiet);
}

}  // namespace
}  // namespace fairlead::mirror
