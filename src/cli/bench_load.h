// What `fairlead bench` does to a device, and what came of it. Plain values.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "async/time.h"
#include "base/histogram.h"
#include "block/block_device.h"
#include "cli/arguments.h"

namespace fairlead::cli {

enum class BenchOrder : uint8_t { kRandom, kSequential };
enum class BenchVerify : uint8_t { kOff, kOn };

struct BenchLoad {
  BenchOrder order = BenchOrder::kRandom;
  uint32_t read_percent = 100;
  uint32_t block_bytes = 4096;
  uint32_t depth = 32;  // requests in flight, over all queues
  uint32_t queues = 1;
  Duration runtime = std::chrono::seconds(10);
  uint64_t rate = 0;  // requests a second, over all queues; 0: as many as the device takes
  BenchVerify verify = BenchVerify::kOff;
  uint64_t offset = 0;  // bytes: where the range starts that is used
  uint64_t size = 0;    // bytes of that range; 0: up to the end of the device

  bool reads() const { return read_percent > 0; }
  bool writes() const { return read_percent < 100; }
  // The share of queue `index` in `depth`.
  uint32_t depth_of(uint32_t index) const { return depth / queues + (index < depth % queues ? 1 : 0); }
};

// With verification a table of 8 bytes a block says what was written last; more blocks than this are not used.
inline constexpr uint64_t kVerifiedBlocksMax = 8 << 20;

// The blocks, of BenchLoad::block_bytes each, that one queue reads and writes.
struct BenchRegion {
  uint64_t offset = 0;  // bytes
  uint64_t blocks = 0;

  friend bool operator==(const BenchRegion&, const BenchRegion&) = default;
};

// The regions of all queues: the same for each at random; a part of its own each for sequential access (queues would
// read what another has just brought into a cache) and for verification (one table says what a block holds).
std::expected<std::vector<BenchRegion>, Complaint> lay_out(const BenchLoad& load, const BlockGeometry& geometry);

// Of the reads or of the writes.
struct BenchSide {
  uint64_t errors = 0;  // requests that failed; not in `latency`
  Histogram latency;    // nanoseconds
  void merge(const BenchSide& other);
};

struct BenchOutcome {
  uint32_t block_bytes = 0;
  Duration elapsed{};
  BenchSide read;
  BenchSide write;
  uint64_t behind = 0;         // requests that were due by --rate and never sent
  Duration longest_silence{};  // of any queue: it had requests in flight and none ended
  uint64_t verified = 0;       // reads that were checked, and could be
  uint64_t verify_errors = 0;
  std::vector<std::string> complaints;  // the first errors, for people
  std::optional<uint64_t> bench_cpu_ns;
  std::optional<uint64_t> target_cpu_ns;

  uint64_t operations() const { return read.latency.count() + write.latency.count(); }
  uint64_t errors() const { return read.errors + write.errors; }
};

}  // namespace fairlead::cli
