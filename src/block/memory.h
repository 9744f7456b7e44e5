// A device in memory: sparse, shared by all shards, gone when its last user is.
#pragma once

#include <memory>

#include "block/block_device.h"

namespace fairlead {

struct MemoryOptions {
  uint64_t size_bytes = 0;
  uint32_t logical_block = 4096;  // bytes; 512 or 4096
};

// Takes memory page by page as it is written; discard, and write zeroes that may deallocate, give it back and read as
// zeroes. Completes inside submit(). No volatile cache: flush has nothing to do. Commands in flight together on the
// same bytes, from one shard or several, leave or see a mixture of theirs, as NVMe allows. Thread-safe to open. Errors:
// kInvalidArgument, kResourceExhausted (no address space for it).
Result<std::shared_ptr<BlockSource>> make_memory_source(MemoryOptions options);

}  // namespace fairlead
