// The data path under random load from two shards, over replicas that fail in every way, in simulated worlds that
// differ with the seed: against an oracle.
#include <set>

#include "mirror/test_conductor.h"
#include "mirror/test_seed.h"

namespace fairlead::mirror {
namespace {

using test::BlockOracle;
using test::Conductor;
using test::kModelBlock;

constexpr uint64_t kBytes = 3 * kMiB;
constexpr uint64_t kBlocks = kBytes / kModelBlock;
constexpr size_t kShards = 2;
constexpr size_t kWorkers = 6;

// The history of all blocks.
struct History {
  std::vector<BlockOracle> blocks{kBlocks};
  BlockOracle::Moment now = 1;
  uint64_t ids = 0;
  size_t workers_left = kWorkers;
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t failed = 0;
};

class Worker {
 public:
  Worker(History& history, Conductor& conductor, Shard& shard, sim::Prng& random)
      : history_(history), conductor_(conductor), shard_(shard), random_(random) {}

  Task<void> run(int rounds) {
    device_ = *conductor_.source().open(shard_);
    for (int round = 0; round < rounds; ++round) {
      const uint64_t choice = random_.below(20);
      if (choice < 8) {
        co_await write(IoOp::kWrite);
      } else if (choice < 10) {
        co_await write(random_.below(2) == 0 ? IoOp::kWriteZeroes : IoOp::kDiscard);
      } else if (choice == 10) {
        // May fail when the volume was suspended.
        (void)co_await block_flush(shard_.reactor, *device_);
      } else {
        co_await read();
      }
      if (random_.below(4) == 0) {
        (void)co_await sleep(shard_.reactor, std::chrono::microseconds(random_.below(1000)));
      }
    }
    --history_.workers_left;
  }
  // Every block, once nothing goes wrong any more.
  Task<void> read_all() {
    for (uint64_t block = 0; block < kBlocks; block += 64) EXPECT_TRUE(co_await read(block, 64));
    device_.reset();
  }

 private:
  struct Span {
    uint64_t first;
    uint64_t count;
  };
  // Near the ends of words and extents.
  Span draw_span() {
    const uint64_t near = 64 * (1 + random_.below(kBlocks / 64 - 1));
    const bool is_long = random_.below(40) == 0;
    const uint64_t first = near - random_.below(is_long ? 64 : 6);
    return {first, std::min(kBlocks - first, 1 + random_.below(is_long ? 200 : 8))};
  }

  Task<void> write(IoOp op) {
    const Span span = draw_span();
    const uint64_t id = op == IoOp::kWrite ? ++history_.ids : 0;
    std::vector<std::byte> memory(span.count * kModelBlock);
    std::vector<size_t> indices;
    const BlockOracle::Moment began = ++history_.now;
    for (uint64_t i = 0; i < span.count; ++i) {
      test::fill_block(std::span(memory).subspan(i * kModelBlock, kModelBlock), id);
      indices.push_back(history_.blocks[span.first + i].begin_write(id, began));
    }
    const iovec piece{memory.data(), memory.size()};
    const Result<void> result = co_await BlockAwaiter(
        shard_.reactor, *device_,
        {.op = op, .offset = ByteOffset(span.first * kModelBlock), .length = memory.size(), .buffers = {&piece, 1}});
    const BlockOracle::Moment ended = ++history_.now;
    ++history_.writes;
    if (!result) ++history_.failed;
    for (uint64_t i = 0; i < span.count; ++i) {
      BlockOracle& block = history_.blocks[span.first + i];
      block.end_write(indices[i], ended, result.has_value());
      for (Slot slot = 0; result && slot < conductor_.replica_count(); ++slot) {
        if (!conductor_.owes(slot)) continue;
        const uint64_t held = test::block_id(conductor_.replica(slot).block(span.first + i));
        EXPECT_TRUE(block.may_hold(held, indices[i]))
            << "slot " << int{slot} << " holds " << held << " in block " << span.first + i << " after " << id;
      }
    }
  }

  Task<bool> read() {
    const Span span = draw_span();
    return read(span.first, span.count);
  }
  Task<bool> read(uint64_t first, uint64_t count) {
    std::vector<std::byte> memory(count * kModelBlock, std::byte{0xee});
    const iovec piece{memory.data(), memory.size()};
    const BlockOracle::Moment began = ++history_.now;
    const Result<void> result =
        co_await block_read(shard_.reactor, *device_, ByteOffset(first * kModelBlock), {&piece, 1});
    const BlockOracle::Moment ended = ++history_.now;
    ++history_.reads;
    for (uint64_t i = 0; result && i < count; ++i) {
      const uint64_t id = test::block_id(std::span(memory).subspan(i * kModelBlock, kModelBlock));
      const char* const why = history_.blocks[first + i].may_read(id, began);
      if (why != nullptr) ADD_FAILURE() << why << ": block " << first + i << " reads " << id;
      history_.blocks[first + i].note_read(id, began, ended);
    }
    co_return result.has_value();
  }

  History& history_;
  Conductor& conductor_;
  Shard& shard_;
  sim::Prng& random_;
  std::unique_ptr<BlockDevice> device_;
};

struct Model {
  Model(sim::SimWorld& world, sim::SimNode& node, size_t replicas) : conductor(world, node, replicas, kBytes) {
    for (size_t i = 0; i < kWorkers; ++i) {
      workers.push_back(std::make_unique<Worker>(history, conductor, node.shard(i % kShards), world.random()));
    }
  }
  History history;
  Conductor conductor;
  std::vector<std::unique_ptr<Worker>> workers;
};

Task<void> drive(Model& model, sim::SimWorld& world, sim::SimNode& node, bool& is_done) {
  co_await model.conductor.start();
  for (size_t i = 0; i < kWorkers; ++i) world.spawn(node, i % kShards, model.workers[i]->run(120));
  while (model.history.workers_left > 0) (void)co_await sleep(node.shard(0).reactor, std::chrono::milliseconds(1));
  // All that is read now comes after all that was written.
  co_await model.conductor.heal();
  Reactor& home = node.shard(0).reactor;
  for (size_t i = 0; i < kWorkers; ++i) {
    co_await call_on(home, node.shard(i % kShards).reactor, model.workers[i]->read_all());
  }
  co_await model.conductor.stop();
  is_done = true;
}

void run_model(uint64_t seed, size_t replicas, Conductor::Counts& sum) {
  FL_TRACE_SEED(seed);
  sim::SimWorld world(seed);
  sim::SimNode& node = world.add_node("10.0.0.1", {.shards = kShards, .more_addresses = {}});
  Model model(world, node, replicas);
  bool is_done = false;
  world.spawn(node, 0, drive(model, world, node, is_done));
  ASSERT_EQ(world.run_until([&] { return is_done; }, std::chrono::seconds(600)), sim::RunResult::kDone)
      << world.report() << model.conductor.report() << "workers left: " << model.history.workers_left;
  EXPECT_EQ(world.violations(), 0U) << world.report();
  for (Slot slot = 1; slot < replicas; ++slot) {
    EXPECT_TRUE(model.conductor.replica(slot).content == model.conductor.replica(0).content) << "slot " << int{slot};
  }
  EXPECT_GT(model.history.reads, 0U);
  const Conductor::Counts& counts = model.conductor.counts();
  sum.failures += counts.failures;
  sum.drops += counts.drops;
  sum.renewals += counts.renewals;
  sum.returns += counts.returns;
  sum.suspensions += counts.suspensions;
  sum.repairs += counts.repairs;
}

TEST(SideModelTest, HoldsAgainstTheOracle) {
  constexpr uint64_t kSeeds = 24;
  const uint64_t first = test::draw_seed();
  Conductor::Counts sum;
  for (uint64_t i = 0; i < kSeeds && !HasFatalFailure() && !HasNonfatalFailure(); ++i) {
    run_model(first + i, 1 + (first + i) % 4, sum);
  }
  // Else it shows little.
  EXPECT_GT(sum.failures, 0U);
  EXPECT_GT(sum.drops, 0U);
  EXPECT_GT(sum.renewals, 0U);
  EXPECT_GT(sum.returns, 0U);
  EXPECT_GT(sum.suspensions, 0U);
  EXPECT_GT(sum.repairs, 0U);
}

}  // namespace
}  // namespace fairlead::mirror
