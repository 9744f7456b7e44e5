// For the tests of this folder: a shard driven by hand in virtual time, with disks in vectors, and a naive model that
// every device is held against. Not for other folders: they have the simulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "block/block_device.h"
#include "io/shard.h"

namespace fairlead::test {

struct VectorDiskOptions {
  DiskGeometry geometry;
  enum class Zeroes : uint8_t { kBoth, kKeepAllocatedOnly, kNone } zeroes = Zeroes::kBoth;
  enum class Discards : uint8_t { kZero, kNotSupported } discards = Discards::kZero;
};

class VectorDiskFile final : public DiskFile {
 public:
  explicit VectorDiskFile(const VectorDiskOptions& vector_options)
      : options(vector_options), bytes(options.geometry.size_bytes, std::byte{0}) {}
  DiskGeometry geometry() const override { return options.geometry; }
  Result<uint64_t> refresh_size() override { return options.geometry.size_bytes = bytes.size(); }

  VectorDiskOptions options;
  std::vector<std::byte> bytes;  // resize to grow
  uint64_t requests = 0;         // that reached the disk
  uint64_t refusals = 0;         // of them answered kNotSupported
};

// Completes from the ready queue, in an order drawn at random. Checks that each request keeps to Disk's contract.
class VectorDisk final : public Disk {
 public:
  VectorDisk(Reactor& reactor, std::shared_ptr<VectorDiskFile> file) : reactor_(reactor), file_(std::move(file)) {
    worker_.disk = this;
  }
  void submit(IoRequest& request) override;

 private:
  struct Worker : Runnable {
    Worker() : Runnable([](Runnable& self) { static_cast<Worker&>(self).disk->complete_one(); }) {}
    VectorDisk* disk = nullptr;
  };
  void complete_one();
  Result<void> execute(const IoRequest& request);

  Reactor& reactor_;
  std::shared_ptr<VectorDiskFile> file_;
  std::vector<IoRequest*> queue_;
  std::mt19937_64 random_{99};
  Worker worker_;
};

class VectorStorage final : public Storage {
 public:
  explicit VectorStorage(Reactor& reactor) : reactor_(reactor) {}
  Result<std::shared_ptr<DiskFile>> open(const OpenDisk& options) override;
  Result<std::unique_ptr<Disk>> attach(std::shared_ptr<DiskFile> file) override;
  Uuid boot_id() const override { return kFairleadNamespace; }  // never another: its disks lose nothing
  std::shared_ptr<VectorDiskFile> file;                         // what open() gives for the path "disk"

 private:
  Reactor& reactor_;
};

class NoNetwork final : public Network {
 public:
  Result<std::unique_ptr<Listener>> listen(const SocketAddress&) override { return fail(Code::kNotSupported); }
  Result<std::unique_ptr<Stream>> adopt(std::unique_ptr<Accepted>) override { return fail(Code::kNotSupported); }
  Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress, Duration) override {
    co_return fail(Code::kNotSupported);
  }
};

class VirtualClock final : public Clock {
 public:
  explicit VirtualClock(Reactor& reactor) : reactor_(reactor) {}
  Instant now() const override { return reactor_.now(); }
  uint64_t wall_ms() const override { return 0; }

 private:
  Reactor& reactor_;
};

class SeededRandom final : public Random {
 public:
  uint64_t next() override { return engine_(); }

 private:
  std::mt19937_64 engine_{7};
};

class World {
 public:
  explicit World(BufferPool::Options buffer_options = {})
      : clock(reactor), storage(reactor), buffers(reactor, buffer_options) {}

  void run_ready() {
    while (reactor.run_ready(64) > 0) {
    }
  }
  // Runs everything that happens up to `end`.
  void run_until(Instant end);
  // Until nothing is left to do.
  void run();
  // Submits and runs until it is done. Fails by a check when it never is.
  Result<void> perform(BlockDevice& device, const IoArguments& arguments);

  Reactor reactor{Reactor::Options{}};
  VirtualClock clock;
  SeededRandom random;
  VectorStorage storage;
  NoNetwork network;
  BufferPool buffers;
  Shard shard{ShardId(0), reactor, clock, random, storage, network, buffers};
};

std::unique_ptr<BlockDevice> open_or_die(BlockSource& source, Shard& shard);

enum class AfterDiscard : uint8_t { kZeroes, kOldBytes };

// Random operations, several at a time on ranges of their own, against an array of bytes: by gtest's expectations.
struct ModelOptions {
  uint64_t seed = 0;
  int rounds = 300;
  AfterDiscard after_discard = AfterDiscard::kZeroes;
  size_t memory_alignment = 4096;  // of the buffers
};
void hold_against_model(World& world, BlockDevice& device, const ModelOptions& options);

// A seed that differs from run to run; FAIRLEAD_TEST_SEED repeats one.
uint64_t draw_seed();

}  // namespace fairlead::test
