// A device that keeps nothing: for measuring everything above it.
#pragma once

#include <memory>

#include "block/block_device.h"

namespace fairlead {

struct NullOptions {
  uint64_t size_bytes = 0;
  uint32_t logical_block = 4096;  // bytes; 512 or 4096
};

// Reads give zeroes, or say so where the owner allows it (never what the buffer held before: that may be another's
// data), all else does nothing. Completes inside submit(). Error: kInvalidArgument.
Result<std::shared_ptr<BlockSource>> make_null_source(NullOptions options);

}  // namespace fairlead
