// UringShard: one core's ring, reactor, clock, randomness, buffers, storage and network, and the loop that drives them.
//
// Made, run and destroyed on one thread; request_stop() and what Reactor::send() uses are for any thread. Idle, it
// sleeps in the kernel until a completion, the next timer or mail from another thread: nothing wakes it in between.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/xoshiro.h"
#include "io/buffer_pool.h"
#include "io/clock.h"
#include "io/crowding.h"
#include "io/shard.h"
#include "io/uring_disk.h"
#include "io/uring_network.h"
#include "io/uring_ring.h"

namespace fairlead {

class UringClock final : public Clock {
 public:
  Instant now() const override;
  uint64_t wall_ms() const override;
};

// Seeded by the kernel: not for keys.
class UringRandom final : public Random {
 public:
  UringRandom();
  uint64_t next() override { return generator_.next(); }

 private:
  Xoshiro generator_;
};

// Whether a shard with nothing to do looks on for a while before it sleeps.
enum class PollMode : uint8_t {
  kAuto,    // for `spin` after the last work, while nobody else wants the processor
  kAlways,  // never sleeps: the lowest latency, a whole core
  kNever,   // sleeps at once: the least power
};

class UringShard final : private Waker, private SlabObserver {
 public:
  struct Options {
    ShardId id;
    PollMode poll = PollMode::kAuto;
    Duration spin = std::chrono::microseconds(50);
    size_t mailbox_capacity = 1024;  // power of two
    uint64_t buffers_account_reserve = BufferPool::kSlabBytes;
    uint64_t buffers_shared_max = 64 * kMiB;
    UringRing::Options ring;
  };
  // Errors: as UringRing::create().
  static Result<std::unique_ptr<UringShard>> create(const Options& options);
  ~UringShard() override;  // Requires: no operation, timer, buffer or ready work is left.
  UringShard(const UringShard&) = delete;
  UringShard& operator=(const UringShard&) = delete;

  Shard& shard() { return shard_; }
  UringRing& ring() { return *ring_; }

  // Runs the loop until request_stop() was called and nothing is ready any more.
  void run();
  // Any thread; idempotent.
  void request_stop();

  struct Statistics {
    uint64_t turns = 0;   // of the loop
    uint64_t sleeps = 0;  // in the kernel
    uint64_t spins = 0;   // times it looked on instead
  };
  const Statistics& statistics() const { return statistics_; }

 private:
  UringShard(const Options& options, std::unique_ptr<UringRing> ring, int wake_descriptor);

  void wake() noexcept override;
  void slab_added(size_t index, std::span<std::byte> slab) override;

  // Arms the read of the eventfd that other threads write to.
  struct WakeOp : UringOp {
    explicit WakeOp(UringShard& owner) : UringOp(on_complete), shard(owner) {}
    static void on_complete(UringOp& op, int result, uint32_t flags);
    UringShard& shard;
    uint64_t count = 0;
  };
  void arm_wake();
  void turn();
  bool may_spin(Instant now) const;
  void spin(Instant now);
  void sleep();
  bool must_look() const;
  void drain();

  const Options options_;
  const std::unique_ptr<UringRing> ring_;
  const int wake_descriptor_;
  UringClock clock_;
  UringRandom random_;
  Reactor reactor_;
  BufferPool buffers_;
  UringStorage storage_;
  AwakeReceives receives_;
  UringNetwork network_;
  Shard shard_;
  WakeOp wake_op_{*this};
  Statistics statistics_;
  std::optional<RunDelay> run_delay_;  // while it runs
  Crowding crowding_;
  Instant spin_until_;   // starts in the past: who did nothing yet sleeps
  bool worked_ = false;  // on the last turn
  bool closing_ = false;
  alignas(64) std::atomic<bool> sleeping_{false};
  std::atomic<bool> stop_{false};
};

}  // namespace fairlead
