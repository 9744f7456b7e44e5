#include "mirror/copier.h"

#include <algorithm>

#include "async/scope.h"

namespace fairlead::mirror {
namespace {

// What is zero in pieces of this size costs no data, and no room where it is copied to.
constexpr uint64_t kZeroPieceBytes = 64 * kKiB;

bool is_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

// For writes that are under way to end. One that is parked may take for ever, and nobody should wait for it with what
// others could use.
constexpr Duration kLockPatience = std::chrono::seconds(1);

}  // namespace

Task<Result<void>> Copier::Lock::take(CancelSource& ending) {
  const Result<void> locked = co_await sides_.lock(range_, kLockPatience, ending);
  is_locked_ = locked.has_value();
  co_return locked;
}

Task<void> Copier::write_one(ByteRange range, std::span<const std::byte> bytes, BlockDevice& sink,
                             Result<void>& outcome) {
  for (uint64_t begin = range.begin; begin < range.end && outcome;) {
    // One request for as much as is of one kind.
    const auto piece = [&](uint64_t at) {
      return bytes.subspan(at - range.begin, std::min(kZeroPieceBytes, range.end - at));
    };
    const bool zeroes = is_zero(piece(begin));
    uint64_t end = begin + piece(begin).size();
    while (end < range.end && is_zero(piece(end)) == zeroes) end += piece(end).size();
    if (zeroes) {
      outcome = co_await block_write_zeroes(home_.reactor, sink, ByteOffset(begin), end - begin);
    } else {
      iovec buffer{const_cast<std::byte*>(bytes.data() + (begin - range.begin)), end - begin};
      outcome = co_await block_write(home_.reactor, sink, ByteOffset(begin), {&buffer, 1});
    }
    begin = end;
  }
}

Task<Result<void>> Copier::read(ByteRange range, std::span<std::byte> bytes, Device source) {
  iovec buffer{bytes.data(), bytes.size()};
  co_return co_await block_read(home_.reactor, *source, ByteOffset(range.begin), {&buffer, 1});
}

Task<std::vector<Result<void>>> Copier::write(ByteRange range, std::span<const std::byte> bytes,
                                              std::vector<Device> sinks) {
  std::vector<Result<void>> outcomes(sinks.size());
  Scope writing(home_.reactor);
  for (size_t i = 0; i < sinks.size(); ++i) writing.spawn(write_one(range, bytes, *sinks[i], outcomes[i]));
  co_await writing.close();
  co_return outcomes;
}

}  // namespace fairlead::mirror
