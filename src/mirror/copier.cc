#include "mirror/copier.h"

#include <algorithm>

#include "async/scope.h"
#include "io/aligned_bytes.h"

namespace fairlead::mirror {
namespace {

// What is zero in pieces of this size costs no data, and no room where it is copied to.
constexpr uint64_t kZeroPieceBytes = 64 * kKiB;

bool is_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

// Locks a range for as long as it lives, together with the writes of hosts.
class RangeLock {
 public:
  RangeLock(Sides& sides, ByteRange range) : sides_(sides), range_(range) {}
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;
  ~RangeLock() {
    if (is_locked_) sides_.unlock(range_);
  }
  Task<bool> lock(CancelSource& ending) {
    is_locked_ = co_await sides_.lock(range_, ending);
    co_return is_locked_;
  }

 private:
  Sides& sides_;
  const ByteRange range_;
  bool is_locked_ = false;
};

}  // namespace

Copier::Copier(Shard& home, Sides& sides) : home_(home), sides_(sides) {}

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

Task<Copier::Outcome> Copier::copy(ByteRange range, Device source, std::vector<Device> sinks, CancelSource& ending) {
  Outcome outcome{.read = {}, .writes = std::vector<Result<void>>(sinks.size())};
  RangeLock lock(sides_, range);
  if (!co_await lock.lock(ending)) {
    outcome.read = fail(Code::kCancelled);
    co_return outcome;
  }
  const size_t length = range.end - range.begin;
  const AlignedBytes memory = make_aligned_bytes(length);
  iovec buffer{memory.get(), length};
  outcome.read = co_await block_read(home_.reactor, *source, ByteOffset(range.begin), {&buffer, 1});
  if (!outcome.read) co_return outcome;
  Scope writing(home_.reactor);
  for (size_t i = 0; i < sinks.size(); ++i) {
    writing.spawn(write_one(range, {memory.get(), length}, *sinks[i], outcome.writes[i]));
  }
  co_await writing.close();
  co_return outcome;
}

}  // namespace fairlead::mirror
