// For the tests of pools: a simulated node with disks, and what is done on them in a line each.
#pragma once

#include <algorithm>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/call.h"
#include "block/disk.h"
#include "pool/check.h"
#include "pool/pool.h"
#include "sim/world.h"

// As ASSERT_TRUE, in a coroutine that returns nothing.
#define CO_ASSERT_TRUE(...)                    \
  if (const bool fl_ok{__VA_ARGS__}; !fl_ok) { \
    ADD_FAILURE() << #__VA_ARGS__;             \
    co_return;                                 \
  }

namespace fairlead::pool {

inline constexpr uint64_t kTestExtent = 256 * kKiB;
inline constexpr uint64_t kTestUnit = kTestExtent / kUnitsMax;
inline constexpr uint64_t kTestUnits = kUnitsMax;  // of an extent

inline std::vector<std::byte> pattern(size_t bytes, uint8_t seed) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(seed + i / 512 * 7 + i % 251);
  return out;
}

inline Task<Result<void>> put(Reactor& reactor, BlockDevice& device, uint64_t offset, std::vector<std::byte> bytes) {
  iovec piece{bytes.data(), bytes.size()};
  co_return co_await block_write(reactor, device, ByteOffset(offset), {&piece, 1});
}
inline Task<std::vector<std::byte>> get(Reactor& reactor, BlockDevice& device, uint64_t offset, size_t length) {
  std::vector<std::byte> bytes(length, std::byte{0xee});
  iovec piece{bytes.data(), bytes.size()};
  const Result<void> read = co_await block_read(reactor, device, ByteOffset(offset), {&piece, 1});
  EXPECT_TRUE(read.has_value()) << (read ? "" : to_string(read.error()));
  co_return bytes;
}

// Cuts the power at the n-th write or flush that reaches any disk, counted from arm() on.
class CutAt final : public sim::DiskObserver {
 public:
  void arm(uint64_t count) {
    left_ = count + 1;
    is_cut_ = false;
  }
  bool is_cut() const { return is_cut_; }
  void submitted(const IoRequest& request) override {
    if (request.op == IoOp::kRead || left_ == 0 || --left_ > 0) return;
    is_cut_ = true;
  }
  void performed(const IoRequest&) override {}

 private:
  uint64_t left_ = 0;  // 0: not armed, or over
  bool is_cut_ = false;
};

struct BedOptions {
  size_t disks = 1;
  size_t shards = 2;
  uint64_t disk_bytes = 64 * kMiB;
  uint64_t seed = 1;
  sim::SimDiskOptions disk = {};
};

struct Bed {
  explicit Bed(size_t disks = 1) : Bed(BedOptions{.disks = disks}) {}
  explicit Bed(const BedOptions& options)
      : world(options.seed, sim::SimSettings::calm()),
        node(world.add_node("10.0.0.1", {.shards = options.shards, .more_addresses = {}})) {
    for (size_t i = 0; i < options.disks; ++i) add_disk(options.disk_bytes, options.disk);
  }
  void add_disk(uint64_t bytes = 64 * kMiB, const sim::SimDiskOptions& options = {}) {
    paths.push_back("/disk" + std::to_string(paths.size()));
    devices.push_back(&world.create_disk(node, paths.back(), bytes, options));
    devices.back()->set_observer(&cut);
  }

  // Runs a test, Task<void>(Bed&, …), to its end.
  template <typename Test, typename... Arguments>
  void run(Test test, Arguments&... arguments) {
    bool done = false;
    world.spawn(node, 0, run_and_tell(test(*this, arguments...), done));
    ASSERT_EQ(world.run_until([&] { return done; }, std::chrono::seconds(3600)), sim::RunResult::kDone)
        << world.report();
    EXPECT_EQ(world.unexplained_errors(), 0U) << world.report();
    EXPECT_EQ(world.violations(), 0U) << world.report();
  }
  // Runs one that says is_ready at some time, or is cut, ends the node there, and starts it again. True: it was cut.
  // The test ends itself when the node does: see until_the_end().
  template <typename Test, typename... Arguments>
  bool run_and_crash(sim::CrashKind kind, Test test, Arguments&... arguments) {
    is_ready = false;
    world.spawn(node, 0, test(*this, arguments...));
    EXPECT_EQ(world.run_until([&] { return is_ready || cut.is_cut(); }, std::chrono::seconds(3600)),
              sim::RunResult::kDone)
        << world.report();
    const bool was_cut = cut.is_cut();
    world.crash(node, kind);
    world.restart(node);
    cut = {};
    return was_cut;
  }
  Task<void> until_the_end() {
    is_ready = true;
    co_await node.stopping(0).wait();
  }

  Shard& shard(size_t index = 0) { return node.shard(index); }
  Reactor& reactor() { return shard().reactor; }
  Task<std::vector<PoolDisk>> disks(std::vector<std::string> of) {
    std::vector<PoolDisk> list;
    for (const std::string& path : of) {
      auto source = open_disk_source(shard(), {.path = path});
      EXPECT_TRUE(source.has_value()) << path;
      if (source) list.push_back({path, *source});
    }
    co_return list;
  }
  Task<Outcome<void>> create(std::vector<std::string> of = {}, std::string name = "tank",
                             Blank blank = Blank::kRequired) {
    CreateOptions options = {.name = name,
                             .extent_bytes = kTestExtent,
                             .unit_bytes = kTestUnit,
                             .journal_bytes = kJournalBytesMin,
                             .blank = blank};
    co_return co_await Pool::create(shard(), co_await disks(of.empty() ? paths : of), options);
  }
  Task<Outcome<std::unique_ptr<Pool>>> import(ImportOptions options = {}, std::vector<std::string> of = {}) {
    std::vector<Shard*> shards;
    for (size_t i = 0; i < node.shard_count(); ++i) shards.push_back(&node.shard(i));
    co_return co_await Pool::import(shards, co_await disks(of.empty() ? paths : of), options);
  }
  // With an error the test fails, and the result is null.
  Task<std::unique_ptr<Pool>> must_import(ImportOptions options = {}) {
    auto pool = co_await import(options);
    EXPECT_TRUE(pool.has_value()) << (pool ? "" : to_string(pool.error().error) + ": " + pool.error().detail);
    co_return pool ? std::move(*pool) : nullptr;
  }
  // The error of an import that fails; the test fails when it does not.
  Task<Problem> refused_import(std::vector<std::string> of) {
    auto pool = co_await import({}, of);
    EXPECT_FALSE(pool.has_value());
    if (!pool) co_return pool.error();
    EXPECT_TRUE(co_await (*pool)->close());
    co_return Problem{};
  }
  Task<std::unique_ptr<BlockDevice>> must_open(Pool& pool, std::string name) {
    const auto source = co_await pool.source(name);
    EXPECT_TRUE(source.has_value()) << name;
    if (!source) co_return nullptr;
    auto device = (*source)->open(shard());
    EXPECT_TRUE(device.has_value()) << name;
    co_return device ? std::move(*device) : nullptr;
  }
  Task<void> expect_clean() {
    auto report = co_await check_pool(shard(), co_await disks(paths), shard().storage.boot_id());
    EXPECT_TRUE(report.has_value());
    if (!report) co_return;
    for (const Finding& finding : report->findings) {
      ADD_FAILURE() << severity_name(finding.severity) << ": " << finding.text;
    }
  }

  // A disk's bytes, to be put back later. While no process has it open.
  std::vector<std::byte> image(size_t disk) const {
    std::vector<std::byte> bytes(devices[disk]->size_bytes());
    devices[disk]->peek(0, bytes);
    return bytes;
  }
  Task<void> put_image(size_t disk, std::vector<std::byte> bytes, uint64_t offset = 0) {
    auto device = (*open_disk_source(shard(), {.path = paths[disk]}).value()).open(shard());
    EXPECT_TRUE(co_await put(reactor(), **device, offset, std::move(bytes)));
    EXPECT_TRUE(co_await block_flush(reactor(), **device));
  }

  static Task<void> run_and_tell(Task<void> test, bool& done) {
    co_await std::move(test);
    done = true;
  }

  CutAt cut;  // before the world, which looks at it to its end
  sim::SimWorld world;
  sim::SimNode& node;
  std::vector<std::string> paths;
  std::vector<sim::SimDevice*> devices;
  bool is_ready = false;
};

}  // namespace fairlead::pool
