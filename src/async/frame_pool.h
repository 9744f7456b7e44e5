// Memory for coroutine frames: free lists by size class, one set a thread, so that a steady state allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fairlead {

// Any thread; a frame may be freed on another thread than the one that made it (it joins that thread's lists).
// Under the address sanitizer every frame comes from the heap, so that use after free is seen.
void* allocate_frame(size_t size);
void free_frame(void* frame, size_t size) noexcept;

// How often this thread had to ask the heap for a frame since it began. A test holds it still under steady load.
uint64_t frame_heap_allocations() noexcept;

}  // namespace fairlead
