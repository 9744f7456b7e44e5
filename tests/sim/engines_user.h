// EngineUser: what is asked of a volume by one worker, each answer checked. The same for who uses the devices of a
// target and for who comes over NVMe; the latter must see no error that the protocol does not allow. Lives on the
// shard of its device.
#pragma once

#include <string>

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

class EngineUser {
 public:
  // All borrowed. `who`: for people.
  EngineUser(Engines& engines, EngineVolume& volume, sim::SimNode& node, size_t shard, BlockDevice& device,
             std::string who);

  Task<void> do_one(sim::Prng& random);
  // Every block. A failure is the run's.
  Task<void> read_all();

 private:
  Reactor& reactor() { return node_.shard(shard_).reactor; }
  test::BlockRange draw_range(sim::Prng& random) const;
  void judge(std::string_view what, const Result<void>& result);
  Task<Result<void>> read(test::BlockRange range, size_t shift);
  Task<void> change(test::BlockRange range, sim::Prng& random);
  Task<Result<void>> write_data(test::BlockRange range, test::Content content, Durability durability, size_t shift);
  Task<void> flush();

  Engines& engines_;
  EngineVolume& volume_;
  sim::SimNode& node_;
  const size_t shard_;
  BlockDevice& device_;
  const std::string who_;
};

}  // namespace fairlead::sim_test
