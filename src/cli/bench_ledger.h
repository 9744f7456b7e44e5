// BenchLedger: what `fairlead bench --verify` wrote to which block, and whether a read gave it. Lives on one shard.
//
// Each logical block of what is written carries the seed of the run, its address, a generation (how often its block was
// written), bytes that follow from these three, and a CRC32C. A read must find the generation that was acknowledged
// last before it began, or a later one. Blocks that nobody wrote, or whose last write failed, may hold anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/bench_load.h"

namespace fairlead::cli {

class BenchLedger {
 public:
  struct Options {
    uint64_t seed = 0;
    BenchRegion region;
    uint32_t block_bytes = 0;
    uint32_t logical_block = 0;  // bytes: what a device reads or writes whole
  };
  explicit BenchLedger(const Options& options);

  // Fills `bytes`, one block, with its next generation. Requires: no write to the block is under way.
  void begin_write(uint64_t block, std::span<std::byte> bytes);
  void end_write(uint64_t block, const Result<void>& outcome);
  bool is_written_now(uint64_t block) const { return entries_[block].writing; }

  // What was known when a read began.
  struct Reading {
    uint64_t generation = 0;     // acknowledged; 0: not known
    uint64_t failed_writes = 0;  // of the whole ledger
  };
  Reading begin_read(uint64_t block) const;

  struct Verdict {
    enum class Kind : uint8_t { kGood, kUnknown, kBad } kind = Kind::kUnknown;
    std::string complaint;  // of kBad: offset, what was expected, what was found
  };
  Verdict end_read(uint64_t block, const Reading& reading, std::span<const std::byte> bytes) const;

  // The blocks that were written at least once, in the order of their first write.
  size_t written_count() const { return written_.size(); }
  uint64_t written(size_t index) const { return written_[index]; }

 private:
  struct Entry {
    uint64_t generation : 62 = 0;  // begun last
    uint64_t writing : 1 = 0;
    uint64_t unsure : 1 = 0;  // a write failed, and none has succeeded since
  };
  struct Expected {
    uint64_t address = 0;  // bytes
    uint64_t generation_min = 0;
    uint64_t generation_max = 0;
  };
  // Empty: what was expected. Undecided: torn, by a write that may have been under way.
  enum class Torn : uint8_t { kNo, kPerhaps };
  std::optional<std::string> find_fault(const Expected& expected, std::span<const std::byte> unit, Torn& torn) const;
  std::string describe_damage(const Expected& expected, std::span<const std::byte> unit) const;

  const Options options_;
  std::vector<Entry> entries_;  // by block
  std::vector<uint32_t> written_;
  uint64_t failed_writes_ = 0;
};

}  // namespace fairlead::cli
