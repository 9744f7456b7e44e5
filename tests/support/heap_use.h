// Counts what the heap is used for, by thread: for tests of steady states. Whoever links this counts; under the
// sanitizers, which have a heap of their own, nothing is counted and can_count_heap() is false.
#pragma once

#include <cstdint>

namespace fairlead::testing {

struct HeapUse {
  uint64_t allocations = 0;  // by operator new
  uint64_t frames = 0;       // coroutine frames that came from the heap, not from a free list
  int64_t bytes = 0;         // in use
};

// Of the calling thread.
HeapUse heap_use();
bool can_count_heap();

}  // namespace fairlead::testing
