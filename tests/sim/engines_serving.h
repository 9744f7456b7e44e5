// A target that somebody started on an engine, with its links, its devices and those who use them.
#pragma once

#include "engines_node.h"

namespace fairlead::sim_test {

// Memory whose place does not depend on what the heap was used for before: whether a request needs a bounce buffer has
// to be the same each time. `shift` bytes behind a page.
class PlacedBytes {
 public:
  PlacedBytes(uint64_t count, size_t shift) : memory_(count + kPage + shift) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    bytes_ = std::span(memory_).subspan((kPage - address % kPage) % kPage + shift, count);
  }
  std::span<std::byte> bytes() { return bytes_; }

 private:
  static constexpr size_t kPage = 4096;
  std::vector<std::byte> memory_;
  std::span<std::byte> bytes_;
};

struct EngineNode::Serving {
  Serving(EngineVolume& v, Reactor& reactor, uint64_t s) : volume(v), seed(s), ending(reactor) {}

  EngineVolume& volume;
  const uint64_t seed;
  std::unique_ptr<mirror::Witness> witness;
  std::vector<engine::LocalLink*> local;  // the target's
  std::vector<engine::RemoteLink*> remote;
  std::unique_ptr<mirror::VolumeTarget> target;
  std::vector<std::unique_ptr<BlockDevice>> devices;  // by shard
  size_t users = 0;                                   // tasks that use devices or the target
  bool is_ending = false;
  bool is_gone = false;  // the target is to be watched no more
  Event ending;
};

}  // namespace fairlead::sim_test
