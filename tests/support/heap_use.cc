#include "tests/support/heap_use.h"

#include <cstdlib>
#include <malloc.h>
#include <new>

#include "async/frame_pool.h"

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FAIRLEAD_TEST_SANITIZED 1
#endif

namespace {
thread_local uint64_t heap_allocations = 0;
thread_local int64_t heap_bytes = 0;

#ifndef FAIRLEAD_TEST_SANITIZED
void* count_and_allocate(size_t size) {
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  ++heap_allocations;
  heap_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  return memory;
}
void count_and_free(void* memory) {
  if (memory != nullptr) heap_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
#endif
}  // namespace

#ifndef FAIRLEAD_TEST_SANITIZED
void* operator new(size_t size) { return count_and_allocate(size); }
void* operator new[](size_t size) { return count_and_allocate(size); }
void operator delete(void* memory) noexcept { count_and_free(memory); }
void operator delete[](void* memory) noexcept { count_and_free(memory); }
void operator delete(void* memory, size_t) noexcept { count_and_free(memory); }
void operator delete[](void* memory, size_t) noexcept { count_and_free(memory); }
#endif

namespace fairlead::testing {

HeapUse heap_use() { return {heap_allocations, frame_heap_allocations(), heap_bytes}; }

bool can_count_heap() {
#ifdef FAIRLEAD_TEST_SANITIZED
  return false;
#else
  return true;
#endif
}

}  // namespace fairlead::testing
