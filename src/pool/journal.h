// Journal: every change of a pool's metadata, in group commit. What happened together while two batches were on their
// way goes out with the next. Two copies, each in an area of its own; one is enough.
//
// Lives on the pool's home shard. Life-cycle: made at import from where the last checkpoint ends; close() waits for
// what is on its way.
//
// Invariants:
//  1. A record changes memory (JournalSink::apply) only after its batch was written, in the order of the batches.
//  2. On disks with a volatile cache, batches up to durable() survive a power cut together with all data written before
//     their records were appended. Later ones may survive or not: import() drops them after a power cut.
//  3. Room for the batches of sync() is always left, so that a checkpoint, which needs them, can make room for others.
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "async/event.h"
#include "async/task.h"
#include "block/block_device.h"
#include "io/aligned_bytes.h"
#include "pool/format.h"

namespace fairlead::pool {

struct JournalAreas {
  std::array<BlockDevice*, kCopies> devices{};  // borrowed for life
  std::array<uint64_t, kCopies> offsets{};      // bytes
  uint64_t bytes = 0;                           // of each
};

// Between two batches.
struct JournalMark {
  Sequence next{1};       // number of the batch that follows
  uint64_t position = 0;  // bytes from the area's start
  uint32_t chain = 0;
};

class JournalSink {
 public:
  // The records hold from now on. Synchronous; before whoever waits for them goes on.
  virtual void apply(Sequence sequence, std::span<const Record> records) = 0;
  // Puts everything that was written to any disk of the pool on stable storage.
  virtual Task<Result<void>> flush_disks() = 0;
  // Half of the room is used, or all.
  virtual void want_checkpoint() = 0;

 protected:
  ~JournalSink() = default;
};

// Memory for a batch, as disks like it.

class Journal {
 public:
  // Batches under way. The second spares a writer the rest of the first one's time; more would make batches smaller and
  // disks busier.
  static constexpr size_t kFlyingMax = 2;

  enum class Cache : uint8_t { kNone, kVolatile };
  struct Options {
    JournalAreas areas;
    JournalMark tail;   // where the checkpoint ends
    JournalMark start;  // behind the last batch that is there
    Sequence durable;   // what is known to be on stable storage
    uint64_t incarnation = 0;
    Cache cache = Cache::kVolatile;
  };
  Journal(Reactor& reactor, JournalSink& sink, const Options& options);
  ~Journal();  // Requires: closed, or nothing under way.
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Appends the records, all to one batch, and waits until they are applied. Errors: kIo (neither copy could be
  // written; the journal then takes nothing more), kShuttingDown (closed). Requires: the records fit into a batch.
  Task<Result<void>> write(std::vector<Record> records);

  // Puts on stable storage what is applied, and all data whose writes have ended. Whoever waits meanwhile shares the
  // next round; where that fails, each tries itself.
  Task<Result<void>> sync();
  // For who only wants batches that are applied by now to be durable(): waits for the round under way, whatever becomes
  // of it, or does one. To be repeated until they are.
  Task<Result<void>> sync_more();
  // Whether anything applied is not on stable storage by now.
  bool is_dirty() const { return durable_ < content_; }
  Sequence applied() const { return applied_; }
  Sequence durable() const { return durable_; }

  // Where the journal stands behind the last batch applied.
  JournalMark mark() const { return mark_; }
  // A checkpoint that ends there is on stable storage: the room before it is free.
  void release(const JournalMark& mark);

  const std::optional<Error>& failure() const { return failure_; }
  // Takes nothing more, from now on.
  void end_with(const Error& error);
  // How many copies are still written.
  size_t copies() const { return static_cast<size_t>(std::ranges::count(is_lost_, false)); }
  uint64_t used_bytes() const { return head_ - tail_; }

  // Refuses more; what was appended is still written.
  Task<void> close();

 private:
  struct Batch;
  struct Waiter;
  struct Part;
  struct Writer : Runnable {
    explicit Writer(Journal& j)
        : Runnable([](Runnable& self) { static_cast<Writer&>(self).journal.start_write(); }), journal(j) {}
    Journal& journal;
  };

  Batch& open_batch_for(size_t payload);
  void kick();
  void start_write();
  bool has_room(uint64_t position_bytes, bool is_barrier);
  void submit(Batch& batch);
  void part_done(Part& part);
  void complete();
  void finish(std::unique_ptr<Batch> batch);
  void fail_waiting();
  Task<Result<void>> sync_round();
  Task<Result<void>> write_barrier();

  Reactor& reactor_;
  JournalSink& sink_;
  const JournalAreas areas_;
  const uint64_t incarnation_;
  const Cache cache_;

  std::deque<std::unique_ptr<Batch>> pending_;
  std::deque<std::unique_ptr<Batch>> flying_;  // in order; the first is applied first, whichever is written first
  std::vector<std::unique_ptr<Batch>> spare_;
  std::unique_ptr<Batch> barrier_;  // waits for the writer, before all pending ones
  std::vector<std::byte> encoded_;  // scratch
  Writer writer_{*this};
  std::array<bool, kCopies> is_lost_{};

  Sequence next_;       // of the next batch that goes out
  uint32_t chain_ = 0;  // what that continues
  JournalMark mark_;    // behind the last batch applied
  Sequence applied_;
  Sequence content_;  // the last one applied that has records: what sync() is for
  Sequence flushed_;  // on stable storage, which the next batch tells whoever reads it after a power cut
  Sequence durable_;  // and such a batch is too
  // Bytes since ever, holes at the end of the area included: positions are these, modulo the area.
  uint64_t head_ = 0;
  uint64_t tail_ = 0;
  uint64_t rounds_begun_ = 0;  // of sync(); at most one is under way
  uint64_t rounds_ended_ = 0;
  uint64_t last_good_round_ = 0;
  Event synced_;
  Event idle_;
  bool is_closed_ = false;
  std::optional<Error> failure_;
};

}  // namespace fairlead::pool
