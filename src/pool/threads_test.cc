// A pool on the real runtime, with a thread for each shard: what simulation cannot show, above all to the thread
// sanitizer, is that shards may read maps while the home shard changes them.
#include <gtest/gtest.h>
#include <random>

#include "async/call.h"
#include "block/memory.h"
#include "io/runtime.h"
#include "pool/pool.h"

namespace fairlead::pool {
namespace {

constexpr uint32_t kBlock = 512;
constexpr uint64_t kReplicaBytes = 8 * kMiB;
constexpr size_t kWorkers = 2;

// Writes and reads single blocks of its own: every second one, so that both workers share each unit and each extent.
class Worker {
 public:
  Worker(Shard& shard, std::shared_ptr<BlockSource> source, size_t number)
      : shard_(shard),
        source_(std::move(source)),
        number_(number),
        random_(number),
        versions_(kReplicaBytes / kBlock) {}

  Task<void> run(int rounds) {
    auto device = source_->open(shard_);
    EXPECT_TRUE(device.has_value());
    for (int round = 0; device && round < rounds; ++round) {
      const uint64_t block = random_() % (versions_.size() / kWorkers) * kWorkers + number_;
      const uint64_t choice = random_() % 16;
      Result<void> done;
      if (choice < 7) {
        done = co_await write(**device, block);
      } else if (choice == 7) {
        done = co_await block_flush(shard_.reactor, **device);
      } else {
        done = co_await read(**device, block);
      }
      EXPECT_TRUE(done.has_value()) << (done ? "" : to_string(done.error()));
    }
    for (uint64_t block = number_; device && block < versions_.size(); block += kWorkers) {
      EXPECT_TRUE(co_await read(**device, block));
    }
  }

 private:
  std::byte fill(uint64_t block) const {
    return versions_[block] == 0 ? std::byte{0} : static_cast<std::byte>(block * 31 + versions_[block] * 7 + 1);
  }
  Task<Result<void>> write(BlockDevice& device, uint64_t block) {
    ++versions_[block];
    std::vector<std::byte> bytes(kBlock, fill(block));
    iovec piece{bytes.data(), bytes.size()};
    co_return co_await block_write(shard_.reactor, device, ByteOffset(block * kBlock), {&piece, 1});
  }
  Task<Result<void>> read(BlockDevice& device, uint64_t block) {
    std::vector<std::byte> bytes(kBlock, std::byte{0xee});
    iovec piece{bytes.data(), bytes.size()};
    const Result<void> outcome = co_await block_read(shard_.reactor, device, ByteOffset(block * kBlock), {&piece, 1});
    if (outcome) EXPECT_EQ(bytes, std::vector<std::byte>(kBlock, fill(block))) << "block " << block;
    co_return outcome;
  }

  Shard& shard_;
  std::shared_ptr<BlockSource> source_;
  const size_t number_;
  std::mt19937_64 random_;
  std::vector<uint32_t> versions_;
};

class ThreadsTest : public ::testing::Test {
 protected:
  Task<void> run();
  Task<void> work_on(size_t shard, std::shared_ptr<BlockSource> source, size_t& running) {
    Worker worker(runtime_.shard(shard), std::move(source), shard - 1);
    co_await call_on(home().reactor, runtime_.shard(shard).reactor, worker.run(1000));
    --running;
  }
  Shard& home() { return runtime_.shard(0); }

  Runtime runtime_{RuntimeOptions{.shards = kWorkers + 1, .pinning = Pinning::kNone}};
};

Task<void> ThreadsTest::run() {
  const auto memory = make_memory_source({.size_bytes = 64 * kMiB, .logical_block = kBlock});
  EXPECT_TRUE(memory.has_value());
  const std::vector<PoolDisk> disks = {{"memory", *memory}};
  const auto created = co_await Pool::create(
      home(), disks, {.name = "tank", .extent_bytes = kExtentBytesMin, .journal_bytes = kJournalBytesMin});
  EXPECT_TRUE(created.has_value());
  std::vector<Shard*> shards;
  for (size_t i = 0; i < runtime_.shard_count(); ++i) shards.push_back(&runtime_.shard(i));
  // A cache of one page: pages come and go all the time.
  auto pool = co_await Pool::import(shards, disks, {.cache_bytes = 1});
  EXPECT_TRUE(pool.has_value());
  if (!pool) co_return;
  EXPECT_TRUE((co_await (*pool)->create_replica({.name = "db", .size_bytes = kReplicaBytes})).has_value());
  const auto source = co_await (*pool)->source("db");
  EXPECT_TRUE(source.has_value());
  Scope scope(home().reactor);
  size_t running = kWorkers;
  for (size_t worker = 1; worker <= kWorkers; ++worker) scope.spawn(work_on(worker, *source, running));
  int i = 0;
  while (running > 0) {
    const std::string name = "s" + std::to_string(i);
    EXPECT_TRUE((co_await (*pool)->snapshot("db", name)).has_value());
    EXPECT_TRUE(co_await (*pool)->checkpoint());
    if (i % 2 == 0)
      EXPECT_TRUE(co_await (*pool)->resize("db", kReplicaBytes + uint64_t(i + 1) * kMiB, Pool::Shrink::kRefuse));
    if (i >= 2) EXPECT_TRUE(co_await (*pool)->remove("s" + std::to_string(i - 2)));
    (void)co_await sleep(home().reactor, std::chrono::milliseconds(5));
    ++i;
  }
  co_await scope.close();
  EXPECT_TRUE(co_await (*pool)->settle());
  EXPECT_TRUE(co_await (*pool)->close());
  pool->reset();
}

TEST_F(ThreadsTest, ShardsReadMapsWhileTheyChange) {
  ASSERT_TRUE(runtime_.start());
  runtime_.run_on(0, run());
  runtime_.stop();
}

}  // namespace
}  // namespace fairlead::pool
