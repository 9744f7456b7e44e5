// Shard: what code that runs on one core may use of the world. All by reference, made by the runtime or the simulator.
#pragma once

#include "async/reactor.h"
#include "base/units.h"
#include "io/buffer_pool.h"
#include "io/clock.h"
#include "io/disk.h"
#include "io/network.h"

namespace fairlead {

// Lives as long as the runtime that made it. Everything in it belongs to the shard's thread, but for reactor.send().
struct Shard {
  ShardId id;
  Reactor& reactor;
  Clock& clock;
  Random& random;
  Storage& storage;
  Network& network;
  BufferPool& buffers;
};

}  // namespace fairlead
