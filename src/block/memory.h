// A device in memory: shared by all shards, gone when its last user is.
#pragma once

#include <memory>

#include "block/block_device.h"

namespace fairlead {

struct MemoryOptions {
  uint64_t size_bytes = 0;
  uint32_t logical_block = 4096;  // bytes; 512 or 4096
  // kSparse takes memory page by page as it is written; discard, and write zeroes that may deallocate, give it back and
  // read as zeroes. kResident takes all of it when it is made and keeps it, so that no request waits for the kernel to
  // clear pages: discard does nothing.
  enum class Backing : uint8_t { kSparse, kResident };
  Backing backing = Backing::kSparse;
};

// Completes inside submit(). No volatile cache: flush has nothing to do. Commands in flight together on the
// same bytes, from one shard or several, leave or see a mixture of theirs, as NVMe allows. Thread-safe to open. Errors:
// kInvalidArgument, kResourceExhausted (no address space for it; for kResident, no memory).
Result<std::shared_ptr<BlockSource>> make_memory_source(MemoryOptions options);

}  // namespace fairlead
