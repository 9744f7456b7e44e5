#include "pool/journal.h"

#include <algorithm>
#include <cstring>

#include "base/fault.h"
#include "base/log.h"

namespace fairlead::pool {
namespace {

// Left for the batches of sync(). Without new records there are never more than two of them.
constexpr uint64_t kBarrierReserve = 16 * kPageBytes;

}  // namespace

struct Journal::Waiter : Resumption {
  std::optional<Error> error;
};

// One copy of a batch on its way.
struct Journal::Part : IoRequest {
  Journal* journal = nullptr;
  Batch* batch = nullptr;
  size_t copy = 0;
  iovec piece{};
};

// What goes out at once. Used again and again.
struct Journal::Batch {
  AlignedBytes memory = make_aligned_bytes(kBatchBytesMax);
  size_t payload = 0;
  std::vector<Record> records;
  std::vector<Waiter*> waiters;
  // On its way.
  std::array<Part, kCopies> parts;
  size_t parts_left = 0;
  JournalMark after;

  void reset() {
    payload = 0;
    records.clear();
    waiters.clear();
  }
  bool fits(size_t bytes) const { return kBatchHeaderBytes + payload + bytes <= kBatchBytesMax; }
};

Journal::Journal(Reactor& reactor, JournalSink& sink, const Options& options)
    : reactor_(reactor),
      sink_(sink),
      areas_(options.areas),
      incarnation_(options.incarnation),
      cache_(options.cache),
      next_(options.start.next),
      chain_(options.start.chain),
      mark_(options.start),
      applied_(options.start.next.value - 1),
      content_(applied_),
      flushed_(options.durable),
      durable_(options.durable),
      head_(options.start.position),
      tail_(options.tail.position),
      synced_(reactor),
      idle_(reactor) {
  if (head_ < tail_ || (head_ == tail_ && options.start.next != options.tail.next)) head_ += areas_.bytes;
}

Journal::~Journal() {
  FL_CHECK(pending_.empty() && flying_.empty() && barrier_ == nullptr && rounds_begun_ == rounds_ended_);
  if (writer_.is_linked()) reactor_.unpost(writer_);
}

Journal::Batch& Journal::open_batch_for(size_t payload) {
  if (!pending_.empty() && pending_.back()->fits(payload)) return *pending_.back();
  if (spare_.empty()) spare_.push_back(std::make_unique<Batch>());
  pending_.push_back(std::move(spare_.back()));
  spare_.pop_back();
  return *pending_.back();
}

Task<Result<void>> Journal::write(std::vector<Record> records) {
  if (failure_) co_return std::unexpected(*failure_);
  if (is_closed_) co_return fail(Code::kShuttingDown);
  encoded_.clear();
  for (const Record& record : records) append_record(encoded_, record);
  FL_CHECK(kBatchHeaderBytes + encoded_.size() <= kBatchBytesMax);
  Batch& batch = open_batch_for(encoded_.size());
  std::memcpy(batch.memory.get() + kBatchHeaderBytes + batch.payload, encoded_.data(), encoded_.size());
  batch.payload += encoded_.size();
  std::ranges::move(records, std::back_inserter(batch.records));
  kick();

  struct Wait : Waiter {
    explicit Wait(Batch& b) : batch(b) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> caller) {
      handle = caller;
      batch.waiters.push_back(this);
    }
    void await_resume() const noexcept {}
    Batch& batch;
  };
  Wait wait(batch);
  co_await wait;
  if (wait.error) co_return std::unexpected(*wait.error);
  co_return Result<void>();
}

// The write starts on a turn of its own: what else is ready to append goes along.
void Journal::kick() {
  if (flying_.size() < kFlyingMax && !writer_.is_linked()) reactor_.post(writer_);
}

void Journal::start_write() {
  while (flying_.size() < kFlyingMax && !failure_) {
    if (barrier_ != nullptr) {
      if (!has_room(batch_bytes(0), true)) return;  // rounds that failed have used the reserve up
      flying_.push_back(std::move(barrier_));
    } else if (!pending_.empty() && has_room(batch_bytes(pending_.front()->payload), false)) {
      flying_.push_back(std::move(pending_.front()));
      pending_.pop_front();
    } else {
      return;
    }
    submit(*flying_.back());
  }
}

// Steps over the end of the area when the batch does not fit before it.
bool Journal::has_room(uint64_t bytes, bool is_barrier) {
  const uint64_t position = head_ % areas_.bytes;
  const uint64_t hole = position + bytes > areas_.bytes ? areas_.bytes - position : 0;
  const uint64_t used = head_ - tail_ + hole + bytes;
  if (used > areas_.bytes - (is_barrier ? 0 : kBarrierReserve)) {
    sink_.want_checkpoint();
    return false;
  }
  if (used > areas_.bytes / 2) sink_.want_checkpoint();
  if (hole > 0 || (head_ > 0 && position == 0)) probe(Probe::kJournalWrapped);
  head_ += hole;
  return true;
}

void Journal::submit(Batch& batch) {
  const size_t bytes = batch_bytes(batch.payload);
  const std::span<std::byte> memory(batch.memory.get(), bytes);
  chain_ = seal_batch(memory, {.incarnation = incarnation_,
                               .sequence = next_,
                               .chain = chain_,
                               .durable = cache_ == Cache::kNone ? next_ : flushed_,
                               .records = static_cast<uint32_t>(batch.records.size()),
                               .payload_bytes = static_cast<uint32_t>(batch.payload)});
  const uint64_t position = head_ % areas_.bytes;
  head_ += bytes;
  next_ = Sequence(next_.value + 1);
  batch.after = {next_, head_ % areas_.bytes, chain_};
  batch.parts_left = copies();
  for (size_t copy = 0; copy < kCopies; ++copy) {
    if (is_lost_[copy]) continue;
    Part& part = batch.parts[copy];
    part.journal = this;
    part.batch = &batch;
    part.copy = copy;
    part.op = IoOp::kWrite;
    part.offset = ByteOffset(areas_.offsets[copy] + position);
    part.length = bytes;
    part.piece = {memory.data(), bytes};
    part.buffers = {&part.piece, 1};
    part.done = [](IoRequest& request) {
      auto& done = static_cast<Part&>(request);
      done.journal->part_done(done);
    };
    areas_.devices[copy]->submit(part);
  }
}

void Journal::part_done(Part& part) {
  if (!part.result && !is_lost_[part.copy]) {
    is_lost_[part.copy] = true;
    log_warn("pool.journal_copy_lost", {{"copy", part.copy}, {"error", to_string(part.result.error())}});
    if (copies() == 0) failure_ = part.result.error();
  }
  if (--part.batch->parts_left == 0) complete();
}

void Journal::complete() {
  while (!flying_.empty() && flying_.front()->parts_left == 0) {
    std::unique_ptr<Batch> batch = std::move(flying_.front());
    flying_.pop_front();
    finish(std::move(batch));
  }
  if (failure_) {
    if (flying_.empty()) fail_waiting();
  } else if (barrier_ != nullptr || !pending_.empty()) {
    kick();
  } else if (flying_.empty()) {
    idle_.release_waiters();
  }
}

void Journal::finish(std::unique_ptr<Batch> batch) {
  if (!failure_) {
    mark_ = batch->after;
    applied_ = Sequence(mark_.next.value - 1);
    if (!batch->records.empty()) content_ = applied_;
    if (cache_ == Cache::kNone) durable_ = applied_;
    sink_.apply(applied_, batch->records);
  }
  for (Waiter* const waiter : batch->waiters) {
    waiter->error = failure_;
    reactor_.post(*waiter);
  }
  batch->reset();
  if (spare_.size() <= kFlyingMax) spare_.push_back(std::move(batch));
}

void Journal::end_with(const Error& error) {
  failure_ = error;
  if (flying_.empty()) fail_waiting();
}

void Journal::fail_waiting() {
  const Error& error = *failure_;
  log_error("pool.journal_failed", {{"error", to_string(error)}});
  if (barrier_ != nullptr) pending_.push_back(std::move(barrier_));
  while (!pending_.empty()) {
    for (Waiter* const waiter : pending_.front()->waiters) {
      waiter->error = error;
      reactor_.post(*waiter);
    }
    pending_.pop_front();
  }
  idle_.release_waiters();
}

void Journal::release(const JournalMark& mark) {
  // The mark lies at most one turn of the area behind the head.
  uint64_t behind = (head_ % areas_.bytes + areas_.bytes - mark.position % areas_.bytes) % areas_.bytes;
  if (behind == 0 && mark.next != next_) behind = areas_.bytes;
  tail_ = head_ - behind;
  if (!pending_.empty() || barrier_ != nullptr) kick();
}

Task<Result<void>> Journal::write_barrier() {
  if (failure_) co_return std::unexpected(*failure_);
  auto batch = std::make_unique<Batch>();
  Waiter waiter;
  struct Wait {
    Waiter& waiter;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> caller) const { waiter.handle = caller; }
    void await_resume() const noexcept {}
  };
  batch->waiters.push_back(&waiter);
  barrier_ = std::move(batch);
  kick();
  co_await Wait{waiter};
  if (waiter.error) co_return std::unexpected(*waiter.error);
  co_return Result<void>();
}

Task<Result<void>> Journal::sync() {
  if (!is_dirty()) co_return co_await sink_.flush_disks();
  // A round that began before does not cover what was written since.
  const uint64_t wanted = rounds_begun_ + 1;
  while (last_good_round_ < wanted) FL_CO_TRY_VOID(co_await sync_more());
  co_return Result<void>();
}

Task<Result<void>> Journal::sync_more() {
  if (failure_) co_return std::unexpected(*failure_);
  if (rounds_begun_ > rounds_ended_) {
    co_await synced_.wait();
    co_return Result<void>();
  }
  ++rounds_begun_;
  const Result<void> outcome = co_await sync_round();
  ++rounds_ended_;
  if (outcome) last_good_round_ = rounds_ended_;
  synced_.release_waiters();
  idle_.release_waiters();
  co_return outcome;
}

Task<Result<void>> Journal::sync_round() {
  const Sequence upto = applied_;
  FL_CO_TRY_VOID(co_await sink_.flush_disks());
  // The batch that says so, and then whatever stands before it in the journal and came after the first flush.
  flushed_ = upto;
  FL_CO_TRY_VOID(co_await write_barrier());
  FL_CO_TRY_VOID(co_await sink_.flush_disks());
  durable_ = upto;
  co_return Result<void>();
}

Task<void> Journal::close() {
  is_closed_ = true;
  while (!flying_.empty() || barrier_ != nullptr || rounds_begun_ > rounds_ended_ || (!pending_.empty() && !failure_)) {
    co_await idle_.wait();
  }
}

}  // namespace fairlead::pool
