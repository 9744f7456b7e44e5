// For the tests of volume targets: replicas in memory, targets of a volume on one simulated node, and what is asked of
// them in a line each.
#pragma once

#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/cancel.h"
#include "mirror/volume_target.h"
#include "sim/world.h"
#include "tests/support/memory_link.h"
#include "tests/support/memory_witness.h"

namespace fairlead::mirror {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::MemoryLink;
using test::MemoryReplica;
using test::MemoryWitness;
using State = TargetStatus::State;
using Standing = Reign::Standing;

inline constexpr uint64_t kBytes = 8 * kMiB;
inline constexpr uint32_t kBlock = 4096;

inline Uuid uuid(uint8_t number) {
  Uuid id;
  id.bytes[15] = number;
  return id;
}
inline const Uuid kVolume = uuid(1);
inline ReplicaId replica_id(size_t index) { return uuid(static_cast<uint8_t>(10 + index)); }

// A target of the node, with links of its own.
struct TestTarget {
  std::vector<MemoryLink*> links;
  std::unique_ptr<VolumeTarget> volume;
  std::unique_ptr<BlockDevice> device;

  TargetStatus status() const { return volume->status(); }
};

struct VolumeBed {
  explicit VolumeBed(size_t replicas, size_t shards = 2)
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
    options.resync_share_percent = resync_share_percent;
    options.copies_in_flight = copies_in_flight;
    return options;
  }
  Task<std::unique_ptr<TestTarget>> start_target(size_t local = 0) {
    auto target = std::make_unique<TestTarget>();
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
  Task<void> end_target(std::unique_ptr<TestTarget> target) {
    target->device.reset();
    co_await target->volume->stop();
  }
  Task<bool> reaches(TestTarget& target, State state, Duration limit = seconds(30)) {
    const Instant end = reactor().now() + limit;
    while (target.volume->status().state != state && reactor().now() < end) co_await sleep(reactor(), milliseconds(1));
    co_return target.volume->status().state == state;
  }
  Task<bool> has_members(TestTarget& target, size_t count, Duration limit = seconds(30)) {
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

  // The replica comes back, and is being brought up to date.
  Task<bool> returns(TestTarget& target, size_t index, Duration limit = seconds(30)) {
    const Instant end = reactor().now() + limit;
    const auto is_returning = [&] { return target.status().replicas[index].standing == Standing::kReturning; };
    while (!is_returning() && reactor().now() < end) co_await sleep(reactor(), milliseconds(1));
    co_return is_returning();
  }
  // It stops, and each extent is written to without it: blocks 5 and 133 of each are 1.
  Task<void> miss_everything(TestTarget& target, size_t index) {
    co_await replicas[index]->stop();
    for (uint64_t block = 5; block < kBytes / kBlock; block += 128) EXPECT_TRUE(co_await write(target, block, 1));
    EXPECT_TRUE(co_await has_members(target, replicas.size() - 1));
  }

  static std::vector<std::byte> pattern(uint8_t value, size_t bytes = kBlock) {
    return std::vector<std::byte>(bytes, std::byte{value});
  }
  Task<Result<void>> write(TestTarget& target, uint64_t block, uint8_t value) {
    std::vector<std::byte> bytes = pattern(value);
    iovec piece{bytes.data(), bytes.size()};
    co_return co_await block_write(reactor(), *target.device, ByteOffset(block * kBlock), {&piece, 1});
  }
  Task<void> write_and_tell(TestTarget& target, uint64_t block, uint8_t value, bool& is_written) {
    is_written = (co_await write(target, block, value)).has_value();
  }
  // -1: an error.
  Task<int> read(TestTarget& target, uint64_t block) {
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

  // Runs the test on the home shard, to its end, then stops the replicas.
  template <typename Test>
  void run(Test test) {
    bool is_done = false;
    world.spawn(node, 0, live(std::move(test), is_done));
    ASSERT_EQ(world.run_until([&] { return is_done; }, seconds(3600)), sim::RunResult::kDone) << world.report();
    if (testing::Test::HasFailure()) std::cout << world.report();
  }
  // The same, with a target that serves all replicas.
  template <typename Test>
  void serve(Test test) {
    run([test](VolumeBed& bed) { return bed.with_target(test); });
  }

  uint32_t resync_share_percent = 50;
  size_t copies_in_flight = 1;
  sim::SimWorld world;
  sim::SimNode& node;
  MemoryWitness witness;
  std::vector<std::unique_ptr<MemoryReplica>> replicas;

 private:
  template <typename Test>
  Task<void> with_target(Test test) {
    auto target = co_await start_target();
    EXPECT_TRUE(co_await has_members(*target, replicas.size()));
    co_await test(*this, *target);
    co_await end_target(std::move(target));
  }
  template <typename Test>
  Task<void> live(Test test, bool& is_done) {
    co_await test(*this);
    for (const auto& replica : replicas) {
      EXPECT_EQ(replica->medium().unstamped + replica->misstamped(), 0U);
      if (replica->is_up()) co_await replica->stop();
    }
    is_done = true;
  }
};

}  // namespace fairlead::mirror
