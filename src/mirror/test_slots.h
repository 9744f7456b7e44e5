// For the tests of the data path: sides on a simulated node, over replicas whose every answer is the test's to give.
// The test acts between the turns of the world; run() lets the shards do what they have to do.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mirror/mirror_device.h"
#include "sim/world.h"

namespace fairlead::mirror::test {

// The bytes of a replica, and what is asked of it, on all shards.
class FakeReplica {
 public:
  explicit FakeReplica(uint64_t bytes) : content(bytes) {}

  // While it holds, requests wait here, in order, until the test ends them; else they are done inside submit().
  bool holds = false;
  std::vector<IoRequest*> held;
  std::optional<Code> fails;  // what is not held fails so, without effect
  std::vector<std::byte> content;
  std::vector<IoOp> asked;  // of all that ever came

  void take(IoRequest& request) {
    asked.push_back(request.op);
    if (holds) return held.push_back(&request);
    if (fails) return request.complete(fail(*fails));
    perform(request);
    request.complete({});
  }
  // Ends the one that is held at that place.
  void end(size_t index, Result<void> result = {}) {
    IoRequest& request = *held.at(index);
    held.erase(held.begin() + static_cast<ptrdiff_t>(index));
    if (result) perform(request);
    request.complete(result);
  }
  void end_all(Result<void> result = {}) {
    while (!held.empty()) end(0, result);
  }
  void perform(const IoRequest& request) {
    const std::span<std::byte> range = std::span(content).subspan(request.offset.value, request.length);
    if (request.op == IoOp::kWrite) copy_from_buffers(request.buffers, 0, range);
    if (request.op == IoOp::kRead) copy_to_buffers(request.buffers, 0, range);
    if (request.op == IoOp::kWriteZeroes) std::ranges::fill(range, std::byte{0});
    EXPECT_NE(request.op, IoOp::kDiscard) << "replicas would do as they like";
  }
};

class FakeDevice final : public BlockDevice {
 public:
  explicit FakeDevice(FakeReplica& replica, uint32_t block = 512)
      : BlockDevice({.size_bytes = replica.content.size(), .logical_block = block}), replica_(replica) {}
  Result<uint64_t> refresh_size() override { return geometry_.size_bytes = replica_.content.size(); }

 private:
  void execute(IoRequest& request) override { replica_.take(request); }
  FakeReplica& replica_;
};

// What a test asked of a mirror.
struct Asked : IoRequest {
  explicit Asked(uint64_t bytes, std::byte fill = std::byte{0}) : memory(bytes, fill), piece{memory.data(), bytes} {
    buffers = {&piece, 1};
    length = bytes;
    done = [](IoRequest& request) { ++static_cast<Asked&>(request).answers; };
    left_behind = [](IoRequest& request) { static_cast<Asked&>(request).early = request.result; };
  }
  bool is_answered() const {
    EXPECT_LE(answers, 1);
    return answers > 0;
  }
  bool is_done() const { return is_answered() && result.has_value(); }
  bool has_failed(Code code) const { return is_answered() && !result && result.error().code == code; }
  bool reads(std::byte fill) const {
    return is_done() && std::ranges::all_of(memory, [&](std::byte byte) { return byte == fill; });
  }
  int answers = 0;
  std::optional<Result<void>> early;  // the answer, while a medium has the memory still
  std::vector<std::byte> memory;
  iovec piece;
};

struct Observed final : SideObserver {
  struct Failure {
    Slot slot;
    uint64_t incarnation;
    Code code;
    friend bool operator==(const Failure&, const Failure&) = default;
  };
  void slot_failed(ShardId, Slot slot, uint64_t incarnation, Error error) override {
    failures.push_back({slot, incarnation, error.code});
  }
  void lease_wanted(ShardId) override { ++leases_wanted; }
  void level_wanted(ShardId, uint64_t extent) override { levels_wanted.push_back(extent); }
  void repair_wanted(ShardId, Slot slot, ByteRange range) override { repairs.emplace_back(slot, range); }
  void ranges_changed(ShardId) override { ++ranges_changes; }

  std::vector<Failure> failures;
  int leases_wanted = 0;
  std::vector<uint64_t> levels_wanted;
  std::vector<std::pair<Slot, ByteRange>> repairs;
  int ranges_changes = 0;
};

inline constexpr int64_t kForEver = std::numeric_limits<int64_t>::max();

class SideBed {
 public:
  static constexpr Duration kStallLimit = std::chrono::seconds(5);

  explicit SideBed(size_t replica_count, size_t shards = 1, uint64_t bytes = 4 * kMiB)
      : world(1, sim::SimSettings::calm()),
        node(world.add_node("10.0.0.1", {.shards = shards, .more_addresses = {}})),
        shared(std::make_shared<MirrorShared>(bytes, 512)) {
    shared->lease_until_ns = kForEver;
    std::vector<MirrorSide*> all;
    for (size_t i = 0; i < shards; ++i) {
      observed.push_back(std::make_unique<Observed>());
      sides.push_back(std::make_unique<MirrorSide>(node.shard(i), shared, *observed.back(), kStallLimit));
      all.push_back(sides.back().get());
    }
    source = make_mirror_source(all);
    for (size_t i = 0; i < shards; ++i) devices.push_back(*source->open(node.shard(i)));
    for (size_t i = 0; i < replica_count; ++i) {
      replicas.push_back(std::make_unique<FakeReplica>(bytes));
      attach(static_cast<Slot>(i));
      use(static_cast<Slot>(i), SlotUse::kNeeded, true);
    }
    configuration.is_held = false;
    configure();
  }
  ~SideBed() {
    for (const auto& replica : replicas) {
      replica->holds = false;
      replica->end_all();
    }
    run();
    fail_waiting(Code::kShuttingDown);
    configuration = {};
    configure();
    for (Slot slot = 0; slot < replicas.size(); ++slot) detach(slot);
    run();
    for (const auto& request : asked) EXPECT_TRUE(request->is_answered());
    EXPECT_EQ(shared->waiters.load(), 0U);
    devices.clear();
    sides.clear();
  }
  SideBed(const SideBed&) = delete;
  SideBed& operator=(const SideBed&) = delete;

  void run(Duration span = std::chrono::milliseconds(1)) { world.run_for(span); }

  // Changes of the configuration, for configure() to bring into force on all shards.
  SlotConfiguration& slot(Slot slot) { return configuration.slots[slot]; }
  void use(Slot which, SlotUse use, bool is_read = false) {
    slot(which).use = use;
    slot(which).is_read = is_read;
  }
  void configure() {
    for (const auto& side : sides) side->configure(configuration);
  }
  // On all shards, with another incarnation.
  void attach(Slot which) {
    for (const auto& side : sides) side->attach(which, std::make_unique<FakeDevice>(*replicas.at(which)));
    slot(which).incarnation = ++incarnations;
    slot(which).is_broken = false;
  }
  void detach(Slot which) {
    for (size_t i = 0; i < sides.size(); ++i) world.spawn(node, i, sides[i]->detach(which));
    run();
  }
  // The device goes and comes back as another incarnation, to be configured. Meanwhile the slot is in use as before.
  void replace(Slot which) {
    slot(which).is_broken = true;
    configure();
    detach(which);
    attach(which);
  }
  void fail_waiting(Code code) {
    for (const auto& side : sides) side->fail_waiting(Error{code, 0, ""});
  }
  void look_again() {
    for (const auto& side : sides) side->look_again();
    run();
  }
  void drain(bool& is_done, size_t shard = 0) { world.spawn(node, shard, note_end(sides[shard]->drain(), is_done)); }
  template <typename T>
  static Task<void> note_end(Task<T> task, bool& is_done) {
    (void)co_await std::move(task);
    is_done = true;
  }

  // Requests, submitted here and now.
  Asked& ask(IoOp op, uint64_t offset, uint64_t length, std::byte fill = std::byte{0}, size_t shard = 0) {
    const bool moves_data = op == IoOp::kRead || op == IoOp::kWrite;
    Asked& request = *asked.emplace_back(std::make_unique<Asked>(moves_data ? length : 0, fill));
    request.op = op;
    request.offset = ByteOffset(offset);
    request.length = length;
    devices[shard]->submit(request);
    return request;
  }
  Asked& write(uint64_t offset, uint64_t length, std::byte fill, size_t shard = 0) {
    return ask(IoOp::kWrite, offset, length, fill, shard);
  }
  Asked& read(uint64_t offset, uint64_t length, size_t shard = 0) {
    return ask(IoOp::kRead, offset, length, std::byte{0xee}, shard);
  }
  void hold(bool holds = true) {
    for (const auto& replica : replicas) replica->holds = holds;
  }
  bool are_equal(Slot a, Slot b) const { return replicas[a]->content == replicas[b]->content; }

  sim::SimWorld world;
  sim::SimNode& node;
  std::vector<std::unique_ptr<FakeReplica>> replicas;  // by slot
  std::shared_ptr<MirrorShared> shared;                // as the sides have it
  std::vector<std::unique_ptr<Observed>> observed;     // by shard
  std::vector<std::unique_ptr<MirrorSide>> sides;
  std::shared_ptr<BlockSource> source;
  std::vector<std::unique_ptr<BlockDevice>> devices;
  std::deque<std::unique_ptr<Asked>> asked;
  SideConfiguration configuration;
  uint64_t incarnations = 0;
};

}  // namespace fairlead::mirror::test
