// SimNode: a machine of the simulated world, with one or more shards. Its disks and addresses are for ever; its shards
// are made at each boot and destroyed at each crash or stop.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/event.h"
#include "async/scope.h"
#include "io/shard.h"
#include "sim/action.h"
#include "sim/core.h"
#include "sim/disk.h"
#include "sim/network.h"

namespace fairlead::sim {

class SimWorld;

// A node's clock against the world's: another origin at each boot, and running fast or slow.
struct NodeClock {
  int64_t offset_ns = 0;
  int64_t drift_ppm = 0;
  uint64_t wall_offset_ms = 0;

  Instant local(Instant world) const;
  // The first world time at which local() is not before `at`.
  Instant world(Instant at) const;
};

struct SimNodeOptions {
  size_t shards = 1;
  std::vector<std::string> more_addresses;  // IPs beside the first
};

// One shard of one boot: the seams, and what the world runs on it.
class SimShard {
 public:
  SimShard(SimCore& core, DeviceTable& devices, SimFabric& fabric, const NodeClock& clock,
           std::shared_ptr<const Boot> boot, ShardId id, Prng& random);
  SimShard(const SimShard&) = delete;
  SimShard& operator=(const SimShard&) = delete;

  Shard& shard() { return shard_; }
  Reactor& reactor() { return reactor_; }
  Scope& scope() { return scope_; }
  Event& stopping() { return stopping_; }
  CancelSource& cancel() { return cancel_; }
  // World time; its reactor has no turn before.
  Instant stalled_until() const { return stalled_until_; }
  void stall(Instant until) { stalled_until_ = until; }
  uint64_t peek_random() const { return Prng(random_).next() ^ Prng(order_.random).next(); }

 private:
  struct RandomOrder final : ReadyOrder {
    RandomOrder(Order o, Prng r) : order(o), random(r) {}
    size_t pick(size_t count) override;
    Order order;
    Prng random;
  };
  struct LocalClock final : Clock {
    LocalClock(const Reactor& r, const NodeClock& c) : reactor(r), clock(c) {}
    Instant now() const override { return reactor.now(); }
    uint64_t wall_ms() const override;
    const Reactor& reactor;
    const NodeClock& clock;
  };

  Prng random_;
  RandomOrder order_;
  Reactor reactor_;
  LocalClock clock_;
  SimStorage storage_;
  SimNetwork network_;
  BufferPool buffers_;
  Shard shard_;
  Event stopping_;
  CancelSource cancel_;
  Scope scope_;
  Instant stalled_until_;
};

class SimNode {
 public:
  SimNode(const SimNode&) = delete;
  SimNode& operator=(const SimNode&) = delete;

  uint32_t index() const { return index_; }
  bool is_up() const { return !shards_.empty() && boot_->alive; }
  uint64_t boots() const { return boots_; }
  // The node's first address with that port.
  SocketAddress address(uint16_t port) const;

  // Requires of all below: the node is up (or ends just now); `index` is below shard_count(). Borrowed until the node
  // crashes or stops.
  size_t shard_count() const { return options_.shards; }
  Shard& shard(size_t index) { return at(index).shard(); }
  // Set when the node is to end, by crash or by stop: programs wait for it and then end everything that they started.
  Event& stopping(size_t index) { return at(index).stopping(); }
  // Cancelled at the same moment, for sleeps.
  CancelSource& cancel(size_t index) { return at(index).cancel(); }

  // Called now, when the node is up, and at each boot from then on: spawns the node's program.
  void run_at_boot(Action<SimNode&> action);

 private:
  friend class SimWorld;
  SimNode(uint32_t index, SimNodeOptions options, std::vector<SocketAddress> addresses)
      : index_(index), options_(std::move(options)), addresses_(std::move(addresses)) {}
  SimShard& at(size_t index) {
    FL_CHECK(index < shards_.size());
    return *shards_[index];
  }

  const uint32_t index_;
  const SimNodeOptions options_;
  const std::vector<SocketAddress> addresses_;
  uint64_t boots_ = 0;
  uint64_t power_losses_ = 0;
  NodeClock clock_;
  std::shared_ptr<Boot> boot_;
  std::vector<std::unique_ptr<SimShard>> shards_;  // empty: down
  std::vector<Action<SimNode&>> at_boot_;
};

}  // namespace fairlead::sim
