#include "async/frame_pool.h"

#include <array>
#include <new>

namespace fairlead {
namespace {

constexpr size_t kClassBytes = 64;
constexpr size_t kClasses = 64;  // frames of up to 4 KiB are kept; larger ones are rare and go to the heap

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kPooled = false;
#else
constexpr bool kPooled = true;
#endif
#else
constexpr bool kPooled = true;
#endif

struct FreeFrame {
  FreeFrame* next;
};

class FramePool {
 public:
  ~FramePool() {
    for (FreeFrame*& list : lists_) {
      while (list != nullptr) {
        FreeFrame* const next = list->next;
        ::operator delete(list);
        list = next;
      }
    }
  }

  void* allocate(size_t size) {
    const size_t index = (size + kClassBytes - 1) / kClassBytes;
    if (kPooled && index < kClasses) {
      if (FreeFrame* const frame = lists_[index]; frame != nullptr) {
        lists_[index] = frame->next;
        return frame;
      }
    }
    ++heap_allocations;
    return ::operator new(index * kClassBytes);
  }

  void free(void* memory, size_t size) noexcept {
    const size_t index = (size + kClassBytes - 1) / kClassBytes;
    if (!kPooled || index >= kClasses) {
      ::operator delete(memory);
      return;
    }
    auto* const frame = ::new (memory) FreeFrame{lists_[index]};
    lists_[index] = frame;
  }

  uint64_t heap_allocations = 0;

 private:
  std::array<FreeFrame*, kClasses> lists_{};
};

thread_local FramePool pool;

}  // namespace

void* allocate_frame(size_t size) { return pool.allocate(size); }
void free_frame(void* frame, size_t size) noexcept { pool.free(frame, size); }
uint64_t frame_heap_allocations() noexcept { return pool.heap_allocations; }

}  // namespace fairlead
