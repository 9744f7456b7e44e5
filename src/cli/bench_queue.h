// BenchQueue: keeps a device busy with the share of a load that one queue has, and measures. Lives on one shard.
//
// No allocation and no coroutine for a request: each is a slot with memory of its own that is submitted again as soon
// as it is done. One reading of the clock a request: where one ends, the next begins. So the time that a request waits
// for its turn inside a batch of completions counts for the batch's later ones, as it does for whoever waits for them.
//
// With a rate the load is open: each request has a moment at which it is due, and its latency counts from there,
// whether or not a slot was free. A device that stalls thus shows the wait of every request that was due meanwhile.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <sys/uio.h>
#include <vector>

#include "async/event.h"
#include "base/intrusive_list.h"
#include "base/xoshiro.h"
#include "block/block_device.h"
#include "cli/bench_ledger.h"
#include "cli/bench_load.h"
#include "io/buffer_pool.h"
#include "io/shard.h"

namespace fairlead::cli {

class BenchQueue {
 public:
  struct Options {
    BenchLoad load;
    uint32_t index = 0;  // of this queue
    BenchRegion region;
    uint64_t seed = 0;
  };
  // `device` and `shard` are borrowed for life.
  BenchQueue(Shard& shard, BlockDevice& device, const Options& options);
  ~BenchQueue();  // Requires: neither run() nor read_back() is under way, and not inside a request's `done`.
  BenchQueue(const BenchQueue&) = delete;
  BenchQueue& operator=(const BenchQueue&) = delete;

  // Takes the memory of all slots. Error kResourceExhausted.
  Result<void> prepare();

  // Once, after prepare(): puts the load onto the device from `start` on, until its runtime is over, stop() is called
  // or too many requests have failed; then waits for what is in flight.
  Task<void> run(Instant start);
  // Reads all blocks back that run() wrote. Nothing of it is in the latencies. No effect without verification.
  Task<void> read_back();
  // Ends what runs early, as soon as nothing is in flight any more: the load, whose blocks can still be read back;
  // after it, or when called again, read_back().
  void stop();

  struct Tally {
    BenchSide read;
    BenchSide write;
    uint64_t behind = 0;
    Duration longest_silence{};  // requests were in flight and none ended
    uint64_t read_back = 0;      // requests
    uint64_t verified = 0;
    uint64_t verify_errors = 0;
    std::vector<std::string> complaints;
    Instant ended;  // when run() had nothing in flight any more
  };
  const Tally& tally() const { return tally_; }
  uint32_t in_flight() const { return in_flight_; }

 private:
  struct Slot : IoRequest {
    BenchQueue* queue = nullptr;
    Buffer memory;
    iovec buffer{};
    Instant started;
    uint64_t block = 0;  // of the region
    BenchLedger::Reading reading;
  };
  struct Again : Runnable {
    Again() : Runnable([](Runnable& self) { static_cast<Again&>(self).queue->go_on(); }) {}
    BenchQueue* queue = nullptr;
  };
  struct Alarm : Timer {
    Alarm() : Timer([](Runnable& self) { static_cast<Alarm&>(self).queue->go_on(); }) {}
    BenchQueue* queue = nullptr;
  };
  enum class Phase : uint8_t { kLoad, kReadBack };

  void go_on();
  void pump();
  bool start_one();
  bool start_of_load();
  bool start_of_read_back();
  void submit(Slot& slot, IoOp op, uint64_t block, Instant started);
  void finished(Slot& slot);
  void count(const Slot& slot);
  void check(Slot& slot);
  void note(std::string complaint);
  void finish();

  IoOp next_op();
  uint64_t next_block(IoOp op);
  uint64_t next_writable_block();
  uint64_t any_block() { return below(options_.region.blocks); }
  uint64_t below(uint64_t bound);
  Instant due(uint64_t request) const;
  uint64_t due_before(Instant at) const;

  Shard& shard_;
  BlockDevice& device_;
  const Options options_;
  Xoshiro random_;
  std::unique_ptr<BenchLedger> ledger_;  // null without verification
  BufferAccount account_;
  std::unique_ptr<Slot[]> slots_;
  IntrusiveList<IoRequest> idle_;  // slots
  uint32_t in_flight_ = 0;

  Phase phase_ = Phase::kLoad;
  Instant start_;
  Instant deadline_;
  Instant now_;  // the last reading of the clock
  Instant silent_since_;
  uint64_t started_ = 0;  // requests of this phase
  uint64_t cursor_ = 0;   // block of sequential access
  bool pumping_ = false;
  bool over_ = true;  // start nothing more
  bool stopped_ = false;
  bool skips_read_back_ = false;
  Again again_;
  Alarm alarm_;
  Event ended_;
  Tally tally_;
};

}  // namespace fairlead::cli
