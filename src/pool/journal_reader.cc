#include "pool/journal_reader.h"

#include <algorithm>

namespace fairlead::pool {
namespace {

constexpr uint64_t kWindowBytes = 1 * kMiB;

// Up to which batch everything was on stable storage when this one went out. On disks without a cache each batch is so
// by itself, and those that were on their way with it may have been torn.
Sequence safe_with(const BatchHeader& header) {
  if (header.durable != header.sequence) return header.durable;
  return Sequence(header.sequence.value - std::min<uint64_t>(header.sequence.value, Journal::kFlyingMax));
}

}  // namespace

Task<Result<void>> JournalReader::Window::read(uint64_t within, uint64_t length) {
  iovec piece{memory_.get() + within, length};
  co_return co_await block_read(reactor_, device_, ByteOffset(offset_ + begin_ + within), {&piece, 1});
}

Task<std::span<const std::byte>> JournalReader::Window::at(uint64_t position) {
  const uint64_t wanted = std::min<uint64_t>(kBatchBytesMax, area_bytes_ - position);
  if (length_ == 0 || position < begin_ || position + wanted > begin_ + length_) {
    begin_ = position;
    length_ = std::min(kWindowBytes, area_bytes_ - position);
    is_cut_off_ = false;
    if (memory_ == nullptr) memory_ = make_aligned_bytes(kWindowBytes);
    if (!co_await read(0, length_)) {
      // The other copy may be bad elsewhere: each page counts.
      for (length_ = 0; length_ < wanted && !is_cut_off_;) {
        is_cut_off_ = !co_await read(length_, kPageBytes);
        if (!is_cut_off_) length_ += kPageBytes;
      }
    }
  }
  co_return std::span<const std::byte>(memory_.get() + (position - begin_), length_ - (position - begin_));
}

bool JournalReader::Window::cuts_off(std::span<const std::byte> bytes) const {
  return is_cut_off_ && (bytes.empty() || peek_batch_bytes(bytes.first<kPageBytes>()) > bytes.size());
}

JournalReader::JournalReader(Reactor& reactor, const JournalAreas& areas, const JournalMark& start,
                             uint64_t incarnation)
    : areas_(areas), incarnation_(incarnation), at_(start) {
  for (size_t copy = 0; copy < kCopies; ++copy) {
    windows_[copy].emplace(reactor, *areas.devices[copy], areas.offsets[copy], areas.bytes);
  }
}

Task<Result<std::optional<JournalBatch>>> JournalReader::next() {
  Result<std::optional<JournalBatch>> batch = co_await read_at(at_.position);
  if (batch && !*batch && at_.position != 0) batch = co_await read_at(0);  // it did not fit before the end
  if (batch && *batch) at_ = (*batch)->after;
  if (batch && !*batch) FL_CO_TRY_VOID(co_await check_nothing_is_missing());
  co_return batch;
}

Task<Result<std::optional<JournalBatch>>> JournalReader::read_at(uint64_t position) {
  std::optional<JournalBatch> found;
  if (position >= areas_.bytes) co_return found;
  size_t bad = 0;
  size_t unreadable = 0;
  for (auto& window : windows_) {
    const std::span<const std::byte> bytes = co_await window->at(position);
    const Result<OpenedBatch> batch = open(bytes);
    if (!batch) {
      ++bad;
      if (window->cuts_off(bytes)) ++unreadable;
    } else if (!found) {
      FL_CO_TRY(std::vector<Record> records, decode_records(batch->payload, batch->header.records));
      found = {.header = batch->header,
               .records = std::move(records),
               .after = {Sequence(at_.next.value + 1), position + batch_bytes(batch->payload.size()), batch->crc}};
    }
  }
  if (found && bad > 0) ++damaged_copies_;
  if (unreadable == kCopies) co_return fail(Code::kIo, "neither copy of the journal can be read");
  co_return found;
}

Result<OpenedBatch> JournalReader::open(std::span<const std::byte> bytes) const {
  FL_TRY(const OpenedBatch batch, open_batch(bytes));
  const BatchHeader& header = batch.header;
  if (header.incarnation != incarnation_ || header.sequence != at_.next || header.chain != at_.chain) {
    return fail(Code::kNotFound, "another batch");
  }
  return batch;
}

// Nothing of ours can follow a batch that was torn; when a later one says that it was safe, it was damaged since.
Task<Result<void>> JournalReader::check_nothing_is_missing() {
  for (auto& window : windows_) {
    for (uint64_t position = 0; position < areas_.bytes; position += kPageBytes) {
      const std::span<const std::byte> bytes = co_await window->at(position);
      if (bytes.size() < kPageBytes || peek_batch_bytes(bytes.first<kPageBytes>()) == 0) continue;
      const Result<OpenedBatch> batch = open_batch(bytes);
      if (batch && batch->header.incarnation == incarnation_ && batch->header.sequence > at_.next &&
          safe_with(batch->header) >= at_.next) {
        co_return fail(Code::kCorrupt, "a batch of the journal is damaged in both copies");
      }
    }
  }
  co_return Result<void>();
}

}  // namespace fairlead::pool
