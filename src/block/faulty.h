// A device that fails and dawdles by rule, around another: for tests and benchmarks.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>  // lint: allow(lock) see FaultySource::Shared
#include <optional>
#include <string_view>
#include <vector>

#include "async/time.h"
#include "block/block_device.h"

namespace fairlead {

// A set of operations.
using IoOpSet = uint8_t;
constexpr IoOpSet op_set(IoOp op) { return static_cast<IoOpSet>(1U << static_cast<unsigned>(op)); }
inline constexpr IoOpSet kEveryOp = op_set(IoOp::kRead) | op_set(IoOp::kWrite) | op_set(IoOp::kFlush) |
                                    op_set(IoOp::kDiscard) | op_set(IoOp::kWriteZeroes);

// A request matches when its operation is in the set and it touches the range. Of those that match every Nth may fire,
// and does by the given probability, until it has fired `count` times. A request that meets `error` never reaches the
// device below.
struct FaultRule {
  IoOpSet operations = kEveryOp;
  ByteOffset from{0};  // bytes [from, to); a flush matches rules for the whole device only
  ByteOffset to{std::numeric_limits<uint64_t>::max()};
  uint64_t every = 1;      // 3: the third that matches, the sixth, …; at least 1
  double probability = 1;  // from 0 to 1
  uint64_t seed = 0;       // of the probability
  uint64_t count = std::numeric_limits<uint64_t>::max();
  std::optional<Code> error;
  Duration delay{};  // before the error, or before the device below gets the request
};

// "write:error=io,range=1MiB-2MiB,every=3"; several with ";" between them. Operations: read, write, flush, discard,
// zeroes, any, or some of them with "+". Options: error (a code's name), delay (5ms), range (either end may be missing:
// "1MiB-"), every, probability, seed, count. Error kInvalidArgument: not of that form, or a rule that has neither error
// nor delay.
Result<std::vector<FaultRule>> parse_fault_rules(std::string_view text);

// The first rule that fires decides; those behind it neither see nor count the request. Each shard's device counts for
// itself. Thread-safe.
class FaultySource final : public BlockSource {
 public:
  FaultySource(std::shared_ptr<BlockSource> inner, std::vector<FaultRule> rules);
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override;

  // From any thread. Each shard's device starts over with these rules on its next request; what they delay already
  // stays delayed.
  void set_rules(std::vector<FaultRule> rules);
  // How often any rule fired, on all shards.
  uint64_t fired() const { return shared_->fired.load(std::memory_order_relaxed); }

 private:
  friend class FaultyDevice;
  struct Shared {
    std::atomic<uint64_t> fired{0};
    std::atomic<uint64_t> version{0};  // of `rules`; tells devices to look, so that the I/O path takes no lock
    std::mutex mutex;  // lint: allow(lock) rules change from any thread, rarely; the I/O path only loads `version`
    std::vector<FaultRule> rules;
  };
  const std::shared_ptr<BlockSource> inner_;  // shared with whoever made it
  const std::shared_ptr<Shared> shared_;      // each shard's device keeps it alive
};

std::shared_ptr<FaultySource> make_faulty_source(std::shared_ptr<BlockSource> inner, std::vector<FaultRule> rules);

}  // namespace fairlead
