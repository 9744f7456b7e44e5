// Reads, writes and flushes of a mirror take nothing from the heap once they are warm, conflicts included: this binary
// counts its use.
#include <array>
#include <gtest/gtest.h>
#include <limits>

#include "async/event.h"
#include "block/memory.h"
#include "io/runtime.h"
#include "mirror/mirror_device.h"
#include "tests/support/heap_use.h"

namespace fairlead::mirror {
namespace {

using fairlead::testing::can_count_heap;
using fairlead::testing::heap_use;
using fairlead::testing::HeapUse;

constexpr uint64_t kSize = 4 * kMiB;
constexpr size_t kDepth = 16;

// Answers in a turn of its own, so that requests meet.
class LaterDevice final : public BlockDevice {
 public:
  LaterDevice(Reactor& reactor, std::unique_ptr<BlockDevice> inner)
      : BlockDevice(inner->geometry()), reactor_(reactor), inner_(std::move(inner)) {
    turn_.device = this;
  }

 private:
  struct Turn : Runnable {
    Turn() : Runnable([](Runnable& self) { static_cast<Turn&>(self).device->pass_on(); }) {}
    LaterDevice* device = nullptr;
  };
  void execute(IoRequest& request) override {
    waiting_.push_back(request);
    if (!turn_.is_linked()) reactor_.post(turn_);
  }
  void pass_on() {
    IntrusiveList<IoRequest> ready;
    while (!waiting_.empty()) ready.push_back(waiting_.pop_front());
    while (!ready.empty()) inner_->submit(ready.pop_front());
  }
  Reactor& reactor_;
  std::unique_ptr<BlockDevice> inner_;
  IntrusiveList<IoRequest> waiting_;
  Turn turn_;
};

struct NoObserver final : SideObserver {
  void slot_failed(ShardId, Slot, uint64_t, Error error) override { ADD_FAILURE() << to_string(error); }
  void lease_wanted(ShardId) override { ADD_FAILURE(); }
  void level_wanted(ShardId, uint64_t) override { ADD_FAILURE(); }
  void repair_wanted(ShardId, Slot, ByteRange) override { ADD_FAILURE(); }
  void ranges_changed(ShardId) override { ADD_FAILURE() << "there is one shard"; }
};

// One request in flight, again and again.
struct Looping : IoRequest {
  struct Turn : Runnable {
    Turn() : Runnable([](Runnable& self) { static_cast<Turn&>(self).owner->next(); }) {}
    Looping* owner = nullptr;
  };
  Looping() {
    turn.owner = this;
    buffers = {&piece, 1};
    done = [](IoRequest& request) {
      auto& self = static_cast<Looping&>(request);
      FL_CHECK(self.result.has_value());
      self.reactor->post(self.turn);
    };
  }
  void next() {
    if (left == 0) return ended->set();
    --left;
    ++round;
    constexpr std::array kOps = {IoOp::kWrite, IoOp::kRead, IoOp::kWrite, IoOp::kWriteZeroes, IoOp::kFlush};
    op = kOps[round % kOps.size()];
    piece = {memory->data(), memory->size()};
    length = op == IoOp::kFlush ? 0 : memory->size();
    offset = ByteOffset(op == IoOp::kFlush ? 0 : round * 7 % 32 * 4096);
    device->submit(*this);
  }
  BlockDevice* device = nullptr;
  Reactor* reactor = nullptr;
  Event* ended = nullptr;
  std::vector<std::byte>* memory = nullptr;
  Turn turn;
  iovec piece{};
  uint64_t round = 0;
  uint64_t left = 0;
};

Task<HeapUse> run_load(Reactor& reactor, std::array<Looping, kDepth>& requests) {
  const HeapUse before = heap_use();
  for (Looping& request : requests) {
    request.left = 500;
    request.ended->reset();
    reactor.post(request.turn);
  }
  for (Looping& request : requests) co_await request.ended->wait();
  const HeapUse after = heap_use();
  co_return HeapUse{.allocations = after.allocations - before.allocations, .frames = after.frames - before.frames};
}

Task<void> steady_state(Shard& shard) {
  NoObserver observer;
  const auto shared = std::make_shared<MirrorShared>(kSize);
  shared->lease_until_ns = std::numeric_limits<int64_t>::max();
  MirrorSide side(shard, shared, observer, std::chrono::seconds(100));
  SideConfiguration configuration;
  configuration.is_held = false;
  for (Slot slot = 0; slot < 3; ++slot) {
    const auto memory = make_memory_source({.size_bytes = kSize});
    side.attach(slot, std::make_unique<LaterDevice>(shard.reactor, *(*memory)->open(shard)));
    configuration.slots[slot] = {.use = SlotUse::kNeeded, .is_read = true, .incarnation = 1};
  }
  side.configure(configuration);
  {
    const auto device = make_mirror_source({&side})->open(shard);
    std::vector<std::byte> memory(2 * 4096);
    std::vector<std::unique_ptr<Event>> events;
    std::array<Looping, kDepth> requests;
    for (Looping& request : requests) {
      events.push_back(std::make_unique<Event>(shard.reactor));
      request.device = device->get();
      request.reactor = &shard.reactor;
      request.ended = events.back().get();
      request.memory = &memory;
      request.round = events.size() * 13;
    }
    HeapUse use = co_await run_load(shard.reactor, requests);
    EXPECT_GT(use.allocations, 0U) << "nothing is counted";
    for (int round = 0; round < 5 && use.allocations + use.frames > 0; ++round) {
      use = co_await run_load(shard.reactor, requests);
    }
    EXPECT_EQ(use.allocations, 0U);
    EXPECT_EQ(use.frames, 0U);
  }
  side.configure({});
  for (Slot slot = 0; slot < 3; ++slot) co_await side.detach(slot);
}

TEST(SteadyTest, NothingIsAllocated) {
  if (!can_count_heap()) GTEST_SKIP() << "the sanitizers have a heap of their own";
  Runtime runtime({.shards = 1});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, steady_state(runtime.shard(0)));
}

}  // namespace
}  // namespace fairlead::mirror
