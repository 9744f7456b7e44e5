// What the pool's benchmarks need beside `fairlead bench`: pools that are prepared, a pool with a map of a TiB and no
// data, and measurements of import and of snapshots. One JSON object on standard output.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "async/scope.h"
#include "base/histogram.h"
#include "base/log.h"
#include "base/xoshiro.h"
#include "block/disk.h"
#include "block/memory.h"
#include "io/runtime.h"
#include "measure.h"
#include "pool/pool.h"

namespace fairlead::bench {
namespace {

constexpr const char* kReplica = "bench";
constexpr size_t kBlock = 4096;
constexpr std::string_view kMemory = "memory:";

struct Options {
  std::string path;  // or memory:SIZE
  uint64_t size = 4 * kGiB;
  uint64_t extent = kMiB;
  uint64_t unit = 0;  // the default
  bool fill = false;
  bool snapshot = false;
  uint32_t count = 1000;
  uint32_t depth = 32;
  uint32_t gap_ms = 5;
  int cpu = 0;
};

// Passes everything on but writes of the bytes that it was told, which it drops.
class MetadataOnlyDevice final : public BlockDevice {
 public:
  MetadataOnlyDevice(std::unique_ptr<BlockDevice> inner, std::span<const std::byte> data)
      : BlockDevice(inner->geometry()), inner_(std::move(inner)), data_(data) {}

 private:
  void execute(IoRequest& request) override {
    if (request.op != IoOp::kWrite || !has_data(request)) return inner_->submit(request);
    request.complete({});
  }
  // Copied units have edges around it.
  bool has_data(const IoRequest& request) const {
    return std::ranges::any_of(request.buffers, [&](const iovec& piece) {
      const auto* const begin = static_cast<const std::byte*>(piece.iov_base);
      return begin >= data_.data() && begin < data_.data() + data_.size();
    });
  }

  const std::unique_ptr<BlockDevice> inner_;
  const std::span<const std::byte> data_;
};

class MetadataOnlySource final : public BlockSource {
 public:
  MetadataOnlySource(std::shared_ptr<BlockSource> inner, std::span<const std::byte> data)
      : inner_(std::move(inner)), data_(data) {}
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    FL_TRY(std::unique_ptr<BlockDevice> device, inner_->open(shard));
    return std::make_unique<MetadataOnlyDevice>(std::move(device), data_);
  }

 private:
  const std::shared_ptr<BlockSource> inner_;  // shared as all sources are
  const std::span<const std::byte> data_;
};

// The kernel rounds what it counts by processor: this asks for the exact figure.
uint64_t resident_bytes() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  std::string word;
  while (rollup >> word) {
    uint64_t kib = 0;
    if (word == "Rss:" && rollup >> kib) return kib * kKiB;
  }
  fail("read the resident memory", 0);
}

template <typename T>
T value_of(const char* what, Result<T> result) {
  if (result) return std::move(*result);
  fail(fmt::format("{}: {}", what, to_string(result.error())).c_str(), 0);
}
void expect(const char* what, const Result<void>& result) {
  if (!result) fail(fmt::format("{}: {}", what, to_string(result.error())).c_str(), 0);
}

std::shared_ptr<BlockSource> open_source(Shard& shard, const std::string& path) {
  if (!path.starts_with(kMemory)) return value_of("open the disk", open_disk_source(shard, {.path = path}));
  const uint64_t size = value_of("read the size", parse_size(std::string_view(path).substr(kMemory.size())));
  return value_of("take the memory", make_memory_source({.size_bytes = size}));
}

std::vector<pool::PoolDisk> one_disk(const Options& options, std::shared_ptr<BlockSource> source) {
  std::vector<pool::PoolDisk> disks;
  disks.push_back({options.path, std::move(source)});
  return disks;
}

Task<std::unique_ptr<pool::Pool>> import(Shard& shard, const Options& options, std::shared_ptr<BlockSource> source) {
  auto imported = co_await pool::Pool::import(std::vector<Shard*>(1, &shard), one_disk(options, std::move(source)), {});
  if (!imported) fail(fmt::format("import: {}", imported.error().detail).c_str(), 0);
  co_return std::move(*imported);
}

Task<std::unique_ptr<pool::Pool>> create(Shard& shard, const Options& options, std::shared_ptr<BlockSource> source) {
  const auto created = co_await pool::Pool::create(shard, one_disk(options, source),
                                                   {.name = "bench",
                                                    .extent_bytes = static_cast<uint32_t>(options.extent),
                                                    .unit_bytes = static_cast<uint32_t>(options.unit),
                                                    .blank = pool::Blank::kNotRequired});
  if (!created) fail(fmt::format("create: {}", created.error().detail).c_str(), 0);
  auto pool = co_await import(shard, options, std::move(source));
  value_of("create a replica", co_await pool->create_replica({.name = kReplica, .size_bytes = options.size}));
  co_return pool;
}

Task<void> write_from(BlockDevice& device, Reactor& reactor, std::span<const iovec> data, uint64_t first,
                      uint64_t step) {
  for (uint64_t at = first; at < device.geometry().size_bytes; at += step) {
    expect("write", co_await block_write(reactor, device, ByteOffset(at), data));
  }
}

// Writes all of the replica once, a MiB at a time.
Task<void> fill(Shard& shard, pool::Pool& pool, std::span<std::byte> memory) {
  constexpr uint64_t kLanes = 8;
  const auto source = value_of("open the replica", co_await pool.source(kReplica));
  const auto device = value_of("open the replica", source->open(shard));
  const iovec data{memory.data(), kMiB};
  Scope lanes(shard.reactor);
  for (uint64_t lane = 0; lane < kLanes; ++lane) {
    lanes.spawn(write_from(*device, shard.reactor, {&data, 1}, lane * kMiB, kLanes * kMiB));
  }
  co_await lanes.close();
}

// A MiB, and not zeroes, which some device might notice.
class Noise {
 public:
  Noise() : memory_(static_cast<std::byte*>(std::aligned_alloc(kBlock, kMiB))) {
    if (memory_ == nullptr) fail("allocate memory", 0);
    Xoshiro generator(1);
    for (std::byte& byte : bytes()) byte = static_cast<std::byte>(generator.next() & 0xff);
  }
  ~Noise() { std::free(memory_); }
  Noise(const Noise&) = delete;
  Noise& operator=(const Noise&) = delete;
  std::span<std::byte> bytes() { return {memory_, kMiB}; }

 private:
  std::byte* const memory_;
};

// The pool writes what it always writes; only the data of the replica is dropped on its way to the disk, so that what
// is measured next does not begin on a disk that has just been written to.
Task<int> prepare(Runtime& runtime, const Options& options) {
  Shard& shard = runtime.shard(0);
  Noise noise;
  auto source = std::make_shared<MetadataOnlySource>(open_source(shard, options.path), noise.bytes());
  auto pool = co_await create(shard, options, std::move(source));
  if (options.fill) co_await fill(shard, *pool, noise.bytes());
  if (options.snapshot) value_of("snapshot", co_await pool->snapshot(kReplica, "before"));
  const pool::PoolStatistics statistics = pool->statistics();
  expect("close", co_await pool->close());
  fmt::print("{{\"used_bytes\":{},\"metadata_bytes\":{}}}\n", statistics.used_bytes, statistics.metadata_bytes);
  co_return 0;
}

// Import, and then one read in each page of the map, so that all that is to be kept of it is there.
Task<int> time_import(Runtime& runtime, const Options& options) {
  Shard& shard = runtime.shard(0);
  auto source = open_source(shard, options.path);
  const uint64_t before = resident_bytes();
  const uint64_t begun = now_ns();
  const double cpu = cpu_seconds(0);
  auto pool = co_await import(shard, options, std::move(source));
  const double seconds = static_cast<double>(now_ns() - begun) / 1e9;
  const double cpu_used = cpu_seconds(0) - cpu;
  const uint64_t imported = resident_bytes();
  {
    const auto replica = value_of("open the replica", co_await pool->source(kReplica));
    const auto device = value_of("open the replica", replica->open(shard));
    BufferAccount account;
    const Buffer memory = shard.buffers.try_allocate(account, kBlock);
    const iovec piece{memory.data(), kBlock};
    for (uint64_t at = 0; at < device->geometry().size_bytes; at += options.extent * pool::kEntriesPerPage) {
      expect("read", co_await block_read(shard.reactor, *device, ByteOffset(at), {&piece, 1}));
    }
  }
  const uint64_t read = resident_bytes();
  const pool::PoolStatistics statistics = pool->statistics();
  expect("close", co_await pool->close());
  fmt::print(
      "{{\"seconds\":{:.4f},\"cpu_seconds\":{:.4f},\"growth_bytes\":{},\"growth_after_reads_bytes\":{},"
      "\"cache_bytes\":{},\"used_bytes\":{}}}\n",
      seconds, cpu_used, imported - before, read - before, statistics.cache_bytes, statistics.used_bytes);
  co_return 0;
}

// Random writes that never end, and what they had to wait for inside a window of time.
class BusyVolume {
 public:
  BusyVolume(Shard& shard, BlockDevice& device, std::span<std::byte> data, uint32_t depth)
      : shard_(shard), device_(device), piece_{data.data(), kBlock}, slots_(depth), idle_(shard.reactor) {
    for (Slot& slot : slots_) {
      slot.owner = this;
      slot.op = IoOp::kWrite;
      slot.length = kBlock;
      slot.buffers = {&piece_, 1};
      slot.done = [](IoRequest& request) {
        auto& done = static_cast<Slot&>(request);
        done.owner->finished(done);
      };
    }
  }

  void start() {
    for (Slot& slot : slots_) submit(slot);
  }
  Task<void> stop() {
    is_over_ = true;
    while (in_flight_ > 0) co_await idle_.wait();
    shard_.reactor.unpost(turn_);
    while (!again_.empty()) (void)again_.pop_front();
  }
  // From here to end_window(), whatever is under way belongs to the window.
  void begin_window() {
    longest_ns_ = 0;
    window_end_ns_ = ~uint64_t{0};
  }
  void end_window() { window_end_ns_ = now_ns(); }
  // Of a write that was under way inside the window and has ended by now.
  uint64_t longest_ns() const { return longest_ns_; }
  const Histogram& latency_ns() const { return latency_ns_; }

 private:
  struct Slot : IoRequest {
    BusyVolume* owner = nullptr;
    uint64_t begun_ns = 0;
  };
  void submit(Slot& slot) {
    ++in_flight_;
    slot.begun_ns = now_ns();
    slot.offset = ByteOffset(generator_.next() % (device_.geometry().size_bytes / kBlock) * kBlock);
    device_.submit(slot);
  }
  void finished(Slot& slot) {
    expect("write", slot.result);
    const uint64_t took = now_ns() - slot.begun_ns;
    latency_ns_.record(took);
    if (slot.begun_ns <= window_end_ns_) longest_ns_ = std::max(longest_ns_, took);
    --in_flight_;
    if (!is_over_) {
      // On a turn of its own: a device may be done inside submit().
      again_.push_back(slot);
      if (!turn_.is_linked()) shard_.reactor.post(turn_);
    } else if (in_flight_ == 0) {
      idle_.release_waiters();
    }
  }
  struct Turn : Runnable {
    explicit Turn(BusyVolume& v)
        : Runnable([](Runnable& self) { static_cast<Turn&>(self).volume.submit_again(); }), volume(v) {}
    BusyVolume& volume;
  };
  void submit_again() {
    for (size_t left = slots_.size(); left > 0 && !again_.empty() && !is_over_; --left) {
      submit(static_cast<Slot&>(again_.pop_front()));
    }
    if (!is_over_ && !again_.empty() && !turn_.is_linked()) {
      shard_.reactor.post(turn_);
    }
  }

  Shard& shard_;
  BlockDevice& device_;
  iovec piece_;
  std::vector<Slot> slots_;
  IntrusiveList<IoRequest> again_;
  Turn turn_{*this};
  Event idle_;
  Xoshiro generator_{1};
  Histogram latency_ns_;
  size_t in_flight_ = 0;
  bool is_over_ = false;
  uint64_t longest_ns_ = 0;
  uint64_t window_end_ns_ = 0;
};

std::string describe(const Histogram& each) {
  return fmt::format("{{\"p50\":{},\"p99\":{},\"p99_9\":{},\"max\":{}}}", each.quantile(0.5), each.quantile(0.99),
                     each.quantile(0.999), each.max());
}

// Snapshots of a volume under load, and in turns with them windows of the same length without one: on a disk that is
// slow by itself at times only the difference says something.
Task<int> time_snapshots(Runtime& runtime, const Options& options) {
  Shard& shard = runtime.shard(0);
  Noise noise;
  auto disk = open_source(shard, options.path);
  // Without the data: to take memory for it takes longer than all the rest.
  if (options.path.starts_with(kMemory)) disk = std::make_shared<MetadataOnlySource>(std::move(disk), noise.bytes());
  auto pool = co_await create(shard, options, std::move(disk));
  co_await fill(shard, *pool, noise.bytes());
  Histogram took;
  Histogram pause;
  Histogram without;
  {
    const auto source = value_of("open the replica", co_await pool->source(kReplica));
    const auto device = value_of("open the replica", source->open(shard));
    BusyVolume volume(shard, *device, noise.bytes(), options.depth);
    volume.start();
    const Duration gap = std::chrono::milliseconds(options.gap_ms);
    CancelSource never;
    for (uint32_t i = 0; i < options.count; ++i) {
      volume.begin_window();
      const uint64_t begun = now_ns();
      value_of("snapshot", co_await pool->snapshot(kReplica, fmt::format("s{}", i)));
      const uint64_t length = now_ns() - begun;
      took.record(length);
      volume.end_window();
      (void)co_await sleep(shard.reactor, gap, never);
      pause.record(volume.longest_ns());
      volume.begin_window();
      (void)co_await sleep(shard.reactor, Duration(static_cast<int64_t>(length)), never);
      volume.end_window();
      (void)co_await sleep(shard.reactor, gap, never);
      without.record(volume.longest_ns());
    }
    co_await volume.stop();
    fmt::print("{{\"snapshot_ns\":{},\"longest_write_ns\":{},\"longest_write_without_ns\":{},\"write_ns\":{},",
               describe(took), describe(pause), describe(without), describe(volume.latency_ns()));
  }
  const pool::PoolStatistics statistics = pool->statistics();
  fmt::print("\"used_bytes\":{},\"cache_bytes\":{}}}\n", statistics.used_bytes, statistics.cache_bytes);
  expect("close", co_await pool->close());
  co_return 0;
}

using Command = Task<int> (*)(Runtime&, const Options&);

int run(const Options& options, Command command) {
  set_log_level(LogLevel::kError);
  RuntimeOptions settings;
  settings.processors = {options.cpu};
  settings.signals = RuntimeOptions::Signals::kDefault;
  Runtime runtime(settings);
  expect("start", runtime.start());
  return runtime.run(command(runtime, options));
}

CLI::App& add(CLI::App& app, Options& options, const char* name, const char* what) {
  CLI::App& command = *app.add_subcommand(name, what);
  command.add_option("PATH", options.path, "A file or device, which is overwritten; or memory:SIZE")->required();
  command.add_option("--cpu", options.cpu, "The processor to run on")->capture_default_str();
  return command;
}

void add_pool_options(CLI::App& command, Options& options) {
  command.add_option("--size", options.size, "Of the replica")->transform(CLI::AsSizeValue(false));
  command.add_option("--extent", options.extent, "Bytes of an extent")->transform(CLI::AsSizeValue(false));
  command.add_option("--unit", options.unit, "Bytes of a unit")->transform(CLI::AsSizeValue(false));
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  using namespace fairlead::bench;
  Options options;
  CLI::App app("What the pool's benchmarks need beside fairlead bench", "pool_tool");
  app.require_subcommand(1);
  CLI::App& preparing = add(app, options, "prepare", "Make a pool with a replica called bench");
  add_pool_options(preparing, options);
  preparing.add_flag("--map", options.fill, "Map all of it, onto whatever the disk holds");
  preparing.add_flag("--snapshot", options.snapshot, "Then take a snapshot");
  CLI::App& importing = add(app, options, "import", "Measure how long an import takes and what it keeps in memory");
  importing.add_option("--extent", options.extent, "As it was made with")->transform(CLI::AsSizeValue(false));
  CLI::App& snapshots = add(app, options, "snapshots", "Measure snapshots of a volume that is written to");
  add_pool_options(snapshots, options);
  snapshots.add_option("--count", options.count, "Snapshots")->capture_default_str();
  snapshots.add_option("--qd", options.depth, "Writes in flight")->capture_default_str();
  snapshots.add_option("--gap", options.gap_ms, "Milliseconds between two")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (preparing.parsed()) return run(options, prepare);
  return run(options, importing.parsed() ? time_import : time_snapshots);
}
