#include "pool/superblocks.h"

#include <algorithm>

#include "base/log.h"
#include "io/aligned_bytes.h"

namespace fairlead::pool {
namespace {

constexpr int kReadTries = 3;

Task<Result<void>> read_page(Reactor& reactor, BlockDevice& device, uint64_t offset, std::byte* page) {
  iovec piece{page, kPageBytes};
  Result<void> read;
  // What cannot be read now may be what counts: not given up too early.
  for (int left = kReadTries; left > 0; --left) {
    read = co_await block_read(reactor, device, ByteOffset(offset), {&piece, 1});
    if (read) break;
  }
  co_return read;
}

Task<Result<void>> erase_page(Reactor& reactor, BlockDevice& device, uint64_t offset) {
  co_return co_await block_write_zeroes(reactor, device, ByteOffset(offset), kPageBytes, ZeroMode::kKeepAllocated);
}

}  // namespace

Task<Result<FoundSuperblock>> SuperblockPlaces::read(Reactor& reactor, BlockDevice& device) {
  std::optional<Superblock> newest;
  SuperblockPlaces places;
  Error error{Code::kNotFound, 0, "no pool is on it"};
  const AlignedBytes memory = make_aligned_bytes(kPageBytes);
  for (size_t place = 0; place < kPlaces; ++place) {
    if (device.geometry().size_bytes < offset_of(place) + kPageBytes) break;
    const Result<void> read = co_await read_page(reactor, device, offset_of(place), memory.get());
    Result<Superblock> found = read
                                   ? decode_superblock(std::span<const std::byte, kPageBytes>(memory.get(), kPageBytes))
                                   : std::unexpected(read.error());
    const bool is_blank = !found && found.error().code == Code::kNotFound;
    if (place == kSpare) places.is_spare_blank_ = is_blank;
    if (!found) {
      if (!is_blank) error = found.error();
      continue;
    }
    places.whole_[place] = found->generation;
    if (!newest || newest->generation < found->generation) newest = std::move(*found);
  }
  if (!newest) co_return std::unexpected(error);
  co_return FoundSuperblock{.newest = std::move(*newest), .places = places};
}

Task<Result<void>> SuperblockPlaces::erase(Reactor& reactor, BlockDevice& device) {
  for (size_t place = 0; place < kPlaces; ++place) {
    FL_CO_TRY_VOID(co_await erase_page(reactor, device, offset_of(place)));
  }
  co_return co_await block_flush(reactor, device);
}

Task<Result<void>> SuperblockPlaces::store_first(Reactor& reactor, BlockDevice& device, const Superblock& superblock) {
  const std::optional<size_t> kept = newest();
  if (kept && whole_[*kept] == superblock.generation) co_return Result<void>();
  Result<void> outcome;
  for (size_t place = 0; place < kPlaces; ++place) {
    if (place == kept) continue;
    outcome = co_await store(reactor, device, place, superblock);
    if (outcome) break;
  }
  co_return outcome;
}

Task<void> SuperblockPlaces::store_rest(Reactor& reactor, BlockDevice& device, const Superblock& superblock) {
  for (size_t place = 0; place < kSpare; ++place) {
    if (whole_[place] != superblock.generation) (void)co_await store(reactor, device, place, superblock);
  }
  if (std::ranges::count(whole_, superblock.generation) < 2 && whole_[kSpare] != superblock.generation) {
    (void)co_await store(reactor, device, kSpare, superblock);
  } else if (bad() == 0 && !is_spare_blank_) {
    whole_[kSpare].reset();
    is_spare_blank_ = (co_await erase_page(reactor, device, kSpareSuperblockOffset)).has_value();
  }
}

bool SuperblockPlaces::is_complete(uint64_t generation) const {
  return is_spare_blank_ && std::ranges::count(whole_, generation) == kSpare;
}

size_t SuperblockPlaces::bad() const { return static_cast<size_t>(!whole_[0]) + static_cast<size_t>(!whole_[1]); }

// Of several the second regular one, so that the first is written first; rather not the spare.
std::optional<size_t> SuperblockPlaces::newest() const {
  std::optional<size_t> found;
  for (const size_t place : {kSpare, size_t{0}, size_t{1}}) {
    if (whole_[place] && (!found || *whole_[place] >= *whole_[*found])) found = place;
  }
  return found;
}

// What was whole until now gets a second chance: the failure may have been one of the moment.
Task<Result<void>> SuperblockPlaces::store(Reactor& reactor, BlockDevice& device, size_t place,
                                           const Superblock& superblock) {
  const bool was_whole = whole_[place].has_value();
  Result<void> outcome = co_await try_store(reactor, device, place, superblock);
  if (!outcome && was_whole) outcome = co_await try_store(reactor, device, place, superblock);
  if (!outcome) {
    log_warn("pool.superblock_lost", {{"pool", superblock.name},
                                      {"disk", superblock.disk_index},
                                      {"offset", offset_of(place)},
                                      {"error", to_string(outcome.error())}});
  }
  co_return outcome;
}

Task<Result<void>> SuperblockPlaces::try_store(Reactor& reactor, BlockDevice& device, size_t place,
                                               const Superblock& superblock) {
  const bool is_suspect = !whole_[place];
  whole_[place].reset();
  if (place == kSpare) is_spare_blank_ = false;
  const Page page = encode(superblock);
  const AlignedBytes memory = make_aligned_bytes(kPageBytes);
  std::ranges::copy(page, memory.get());
  iovec piece{memory.get(), kPageBytes};
  FL_CO_TRY_VOID(co_await block_write(reactor, device, ByteOffset(offset_of(place)), {&piece, 1}));
  if (is_suspect) {
    FL_CO_TRY_VOID(co_await read_page(reactor, device, offset_of(place), memory.get()));
    if (!std::ranges::equal(page, std::span(memory.get(), kPageBytes))) {
      co_return fail(Code::kIo, "what was written does not read back");
    }
  }
  FL_CO_TRY_VOID(co_await block_flush(reactor, device));
  whole_[place] = superblock.generation;
  co_return Result<void>();
}

}  // namespace fairlead::pool
