#include "cli/bench_queue.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/check.h"
#include "base/endian.h"

namespace fairlead::cli {
namespace {

constexpr int kStartsAtOnce = 64;     // then timers, signals and other queues have a turn
constexpr uint64_t kErrorsMax = 100;  // a queue: who fails every request at once is not worth a longer look
constexpr size_t kComplaintsMax = 5;  // a queue
constexpr uint64_t kNsPerSecond = 1'000'000'000;

}  // namespace

BenchQueue::BenchQueue(Shard& shard, BlockDevice& device, const Options& options)
    : shard_(shard), device_(device), options_(options), random_(options.seed), ended_(shard.reactor) {
  FL_CHECK(options_.region.blocks > 0);
  again_.queue = this;
  alarm_.queue = this;
  cursor_ = 0;
  if (options_.load.verify == BenchVerify::kOn) {
    ledger_ = std::make_unique<BenchLedger>(BenchLedger::Options{.seed = options_.seed,
                                                                 .region = options_.region,
                                                                 .block_bytes = options_.load.block_bytes,
                                                                 .logical_block = device.geometry().logical_block});
  }
}

BenchQueue::~BenchQueue() {
  FL_CHECK(in_flight_ == 0 && !again_.is_linked());
  while (!idle_.empty()) (void)idle_.pop_front();
}

Result<void> BenchQueue::prepare() {
  const uint32_t depth = options_.load.depth_of(options_.index);
  slots_ = std::make_unique<Slot[]>(depth);
  for (Slot& slot : std::span(slots_.get(), depth)) {
    slot.queue = this;
    slot.memory = shard_.buffers.try_allocate(account_, options_.load.block_bytes);
    if (!slot.memory) return fail(Code::kResourceExhausted, "memory for the requests");
    slot.buffer = {slot.memory.data(), options_.load.block_bytes};
    slot.length = options_.load.block_bytes;
    slot.buffers = {&slot.buffer, 1};
    slot.done = [](IoRequest& request) {
      auto& done = static_cast<Slot&>(request);
      done.queue->finished(done);
    };
    // Not zeroes, and not the same twice: some devices would find a short cut.
    for (size_t at = 0; at < options_.load.block_bytes; at += sizeof(Le64)) {
      const Le64 word(random_.next());
      std::memcpy(slot.memory.data() + at, &word, sizeof word);
    }
    idle_.push_back(slot);
  }
  return {};
}

Task<void> BenchQueue::run(Instant start) {
  phase_ = Phase::kLoad;
  start_ = start;
  deadline_ = start + options_.load.runtime;
  over_ = stopped_;
  go_on();
  co_await ended_.wait();
  tally_.ended = now_;
  if (options_.load.rate > 0) {
    const uint64_t due = due_before(std::min(now_, deadline_));
    tally_.behind = due > started_ ? due - started_ : 0;
  }
}

Task<void> BenchQueue::read_back() {
  if (ledger_ == nullptr || skips_read_back_) co_return;
  phase_ = Phase::kReadBack;
  started_ = 0;
  ended_.reset();
  over_ = false;
  go_on();
  co_await ended_.wait();
}

void BenchQueue::stop() {
  skips_read_back_ = stopped_ || phase_ == Phase::kReadBack;
  stopped_ = true;
  now_ = shard_.clock.now();
  finish();
}

// Starts nothing more.
void BenchQueue::finish() {
  over_ = true;
  shard_.reactor.disarm(alarm_);
  shard_.reactor.unpost(again_);
  if (in_flight_ == 0) ended_.set();
}

// From the reactor: some time has passed since the clock was read.
void BenchQueue::go_on() {
  now_ = shard_.clock.now();
  pump();
}

void BenchQueue::pump() {
  if (pumping_) return;  // a device that is done inside submit(): the loop below goes on
  pumping_ = true;
  int budget = kStartsAtOnce;
  while (budget > 0 && !over_ && !idle_.empty() && start_one()) --budget;
  pumping_ = false;
  if (over_) {
    finish();
  } else if (budget == 0 && !idle_.empty() && !again_.is_linked()) {
    shard_.reactor.post(again_);
  }
}

// False: not now, or nothing is left to do.
bool BenchQueue::start_one() { return phase_ == Phase::kLoad ? start_of_load() : start_of_read_back(); }

bool BenchQueue::start_of_load() {
  if (now_ >= deadline_ || tally_.read.errors + tally_.write.errors + tally_.verify_errors >= kErrorsMax) {
    over_ = true;
    return false;
  }
  Instant started = now_;
  if (options_.load.rate > 0) {
    started = due(started_);
    if (started > now_ || started >= deadline_) {
      shard_.reactor.arm(alarm_, std::min(started, deadline_));
      return false;
    }
  }
  const IoOp op = next_op();
  auto& slot = static_cast<Slot&>(idle_.pop_front());
  submit(slot, op, next_block(op), started);
  return true;
}

bool BenchQueue::start_of_read_back() {
  if (started_ == ledger_->written_count() || tally_.verify_errors >= kErrorsMax) {
    over_ = true;
    return false;
  }
  submit(static_cast<Slot&>(idle_.pop_front()), IoOp::kRead, ledger_->written(started_), now_);
  return true;
}

void BenchQueue::submit(Slot& slot, IoOp op, uint64_t block, Instant started) {
  slot.op = op;
  slot.block = block;
  slot.offset = ByteOffset(options_.region.offset + block * options_.load.block_bytes);
  slot.started = started;
  if (ledger_ != nullptr) {
    if (op == IoOp::kWrite) {
      ledger_->begin_write(block, slot.memory.bytes(options_.load.block_bytes));
    } else {
      slot.reading = ledger_->begin_read(block);
    }
    // Making and checking blocks takes time that is not the device's.
    now_ = shard_.clock.now();
    if (options_.load.rate == 0) slot.started = now_;
  }
  ++started_;
  if (in_flight_++ == 0) silent_since_ = now_;
  device_.submit(slot);
}

void BenchQueue::finished(Slot& slot) {
  now_ = shard_.clock.now();
  if (phase_ == Phase::kLoad) {
    count(slot);
  } else {
    ++tally_.read_back;
    if (!slot.result) ++tally_.verify_errors;
  }
  if (!slot.result) {
    note(fmt::format("{} of {} bytes at offset {}: {}", slot.op == IoOp::kRead ? "read" : "write", slot.length,
                     slot.offset.value, to_string(slot.result.error())));
  }
  if (ledger_ != nullptr) check(slot);
  --in_flight_;
  idle_.push_back(slot);
  pump();
}

void BenchQueue::count(const Slot& slot) {
  tally_.longest_silence = std::max(tally_.longest_silence, now_ - silent_since_);
  silent_since_ = now_;
  BenchSide& side = slot.op == IoOp::kRead ? tally_.read : tally_.write;
  if (slot.result) [[likely]] {
    side.latency.record(static_cast<uint64_t>(std::max<int64_t>((now_ - slot.started).count(), 0)));
  } else {
    ++side.errors;
  }
}

void BenchQueue::check(Slot& slot) {
  if (slot.op == IoOp::kWrite) {
    ledger_->end_write(slot.block, slot.result);
    return;
  }
  if (!slot.result) return;
  BenchLedger::Verdict verdict =
      ledger_->end_read(slot.block, slot.reading, slot.memory.bytes(options_.load.block_bytes));
  if (verdict.kind == BenchLedger::Verdict::Kind::kUnknown) return;
  ++tally_.verified;
  if (verdict.kind == BenchLedger::Verdict::Kind::kGood) return;
  ++tally_.verify_errors;
  note(std::move(verdict.complaint));
}

void BenchQueue::note(std::string complaint) {
  if (tally_.complaints.size() < kComplaintsMax) tally_.complaints.push_back(std::move(complaint));
}

IoOp BenchQueue::next_op() {
  const uint32_t reads = options_.load.read_percent;
  if (reads == 100) return IoOp::kRead;
  if (reads == 0) return IoOp::kWrite;
  return below(100) < reads ? IoOp::kRead : IoOp::kWrite;
}

uint64_t BenchQueue::next_block(IoOp op) {
  if (ledger_ != nullptr && op == IoOp::kWrite) return next_writable_block();
  // What nobody has written cannot be checked.
  if (ledger_ != nullptr && ledger_->written_count() > 0) return ledger_->written(below(ledger_->written_count()));
  if (options_.load.order == BenchOrder::kRandom) return any_block();
  const uint64_t block = cursor_;
  cursor_ = cursor_ + 1 == options_.region.blocks ? 0 : cursor_ + 1;
  return block;
}

// Two writes to one block at a time would leave it to the device which one stays. The region has more blocks than the
// queue has slots, so one is free.
uint64_t BenchQueue::next_writable_block() {
  if (options_.load.order == BenchOrder::kRandom) cursor_ = any_block();
  while (ledger_->is_written_now(cursor_)) cursor_ = cursor_ + 1 == options_.region.blocks ? 0 : cursor_ + 1;
  const uint64_t block = cursor_;
  cursor_ = cursor_ + 1 == options_.region.blocks ? 0 : cursor_ + 1;
  return block;
}

uint64_t BenchQueue::below(uint64_t bound) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(random_.next()) * bound) >> 64);
}

// The queues take turns: request n of queue i is number n * queues + i of all, and all are evenly spaced.
Instant BenchQueue::due(uint64_t request) const {
  const auto number = static_cast<unsigned __int128>(request) * options_.load.queues + options_.index;
  return start_ + Duration(static_cast<int64_t>(number * kNsPerSecond / options_.load.rate));
}

// How many of this queue's requests are due before `at`.
uint64_t BenchQueue::due_before(Instant at) const {
  if (at <= start_) return 0;
  const auto span = static_cast<unsigned __int128>((at - start_).count());
  const auto all = static_cast<uint64_t>((span * options_.load.rate + kNsPerSecond - 1) / kNsPerSecond);
  if (all <= options_.index) return 0;
  return (all - options_.index + options_.load.queues - 1) / options_.load.queues;
}

}  // namespace fairlead::cli
