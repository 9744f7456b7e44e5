// JournalReader: the batches of a journal, one after the other, as import and the checker read them. Lives on one
// shard.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "pool/journal.h"

namespace fairlead::pool {

struct JournalBatch {
  BatchHeader header;
  std::vector<Record> records;
  JournalMark after;
};

class JournalReader {
 public:
  // All batches of the incarnation from the mark on.
  JournalReader(Reactor& reactor, const JournalAreas& areas, const JournalMark& start, uint64_t incarnation);

  // The next one, from whichever copy is whole; none at the end, be it that of the journal or a batch that was torn.
  // Errors: kIo; kCorrupt: a batch is whole and its records make no sense, or it is bad and a later one says that it
  // was on stable storage.
  Task<Result<std::optional<JournalBatch>>> next();

  // Batches of which one copy was bad.
  uint64_t damaged_copies() const { return damaged_copies_; }

 private:
  // A piece of one copy's area in memory.
  class Window {
   public:
    Window(Reactor& reactor, BlockDevice& device, uint64_t offset, uint64_t area_bytes)
        : reactor_(reactor), device_(device), offset_(offset), area_bytes_(area_bytes) {}
    // The bytes from `position` to the end of the window: at least a whole batch, or up to the area's end, or to a page
    // that cannot be read. Valid until the next call.
    Task<std::span<const std::byte>> at(uint64_t position);
    // Of what at() returned: it ends before the batch that it begins with.
    bool cuts_off(std::span<const std::byte> bytes) const;

   private:
    Task<Result<void>> read(uint64_t within, uint64_t length);

    Reactor& reactor_;
    BlockDevice& device_;
    const uint64_t offset_;
    const uint64_t area_bytes_;
    AlignedBytes memory_;
    uint64_t begin_ = 0;
    uint64_t length_ = 0;
    bool is_cut_off_ = false;
  };

  Result<OpenedBatch> open(std::span<const std::byte> bytes) const;
  Task<Result<std::optional<JournalBatch>>> read_at(uint64_t position);
  Task<Result<void>> check_nothing_is_missing();

  const JournalAreas areas_;
  const uint64_t incarnation_;
  JournalMark at_;
  std::array<std::optional<Window>, kCopies> windows_;
  uint64_t damaged_copies_ = 0;
};

}  // namespace fairlead::pool
