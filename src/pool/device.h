// The devices that a pool's replicas and snapshots are served by.
#pragma once

#include <memory>

#include "block/block_device.h"
#include "pool/core.h"

namespace fairlead::pool {

// Opens devices on the shards that the sides are of. The pool must outlive it and them.
std::shared_ptr<BlockSource> make_object_source(PoolCore& core, Object& object);

}  // namespace fairlead::pool
