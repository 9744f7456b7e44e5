#include "sim/node.h"

namespace fairlead::sim {
namespace {

constexpr int64_t kMillion = 1'000'000;

}  // namespace

Instant NodeClock::local(Instant world) const {
  const __int128 scaled = static_cast<__int128>(world.ns) * (kMillion + drift_ppm) / kMillion;
  return {offset_ns + static_cast<int64_t>(scaled)};
}

Instant NodeClock::world(Instant at) const {
  if (at.ns <= offset_ns) return {0};
  const __int128 numerator = static_cast<__int128>(at.ns - offset_ns) * kMillion;
  const int64_t denominator = kMillion + drift_ppm;
  return {static_cast<int64_t>((numerator + denominator - 1) / denominator)};
}

size_t SimShard::RandomOrder::pick(size_t count) {
  if (order == Order::kFifo) return 0;
  if (order == Order::kMostlyFifo && !random.one_in(16)) return 0;
  return random.below(count);
}

uint64_t SimShard::LocalClock::wall_ms() const {
  return clock.wall_offset_ms + static_cast<uint64_t>(reactor.now().ns - clock.offset_ns) / 1'000'000;
}

SimShard::SimShard(SimCore& core, DeviceTable& devices, SimFabric& fabric, const NodeClock& clock,
                   std::shared_ptr<const Boot> boot, ShardId id, Prng& random)
    : random_(random.fork()),
      order_(core.settings().order, random.fork()),
      reactor_({.mailbox_capacity = core.settings().mailbox_capacity, .waker = nullptr, .order = &order_}),
      clock_(reactor_, clock),
      storage_(devices, reactor_, boot),
      network_(fabric, reactor_, boot),
      buffers_(reactor_, {.shared_max = core.settings().buffers_shared_max}),
      shard_{id, reactor_, clock_, random_, storage_, network_, buffers_},
      stopping_(reactor_),
      scope_(reactor_) {
  reactor_.set_now(clock.local(core.now()));
}

SocketAddress SimNode::address(uint16_t port) const {
  SocketAddress address = addresses_.front();
  address.port = port;
  return address;
}

void SimNode::run_at_boot(Action<SimNode&> action) {
  at_boot_.push_back(std::move(action));
  if (is_up()) at_boot_.back()(*this);
}

}  // namespace fairlead::sim
