// After all that are needed have refused a write, for want of room for example, each may have done another part of it.
// They are made equal before the refusal is answered. Rare: takes memory, one at a time.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "io/aligned_bytes.h"
#include "mirror/side_operation.h"

namespace fairlead::mirror {
namespace {

constexpr uint64_t kPieceBytes = 64 * kKiB;
constexpr uint64_t kGrain = 4 * kKiB;  // what is compared, and looked at for zeroes

enum class Difference : uint8_t { kNone, kData, kZeroes };

Difference compare(std::span<const std::byte> right, std::span<const std::byte> other) {
  if (std::memcmp(right.data(), other.data(), right.size()) == 0) return Difference::kNone;
  return std::ranges::all_of(right, [](std::byte byte) { return byte == std::byte{0}; }) ? Difference::kZeroes
                                                                                         : Difference::kData;
}

}  // namespace

// co_await: one request to one slot, in the operation's place for it.
class MirrorSide::PartAwaiter {
 public:
  PartAwaiter(MirrorSide& side, Part& part) : side_(side), part_(part) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> caller) {
    resumption_.handle = caller;
    part_.operation->resumption = &resumption_;
    side_.submit_part(part_);
  }
  Result<void> await_resume() const noexcept {
    part_.operation->resumption = nullptr;
    return part_.result;
  }

 private:
  MirrorSide& side_;
  Part& part_;
  Resumption resumption_;
};

// `sent`: took part, as source or sink. `done`: is equal to the others in it.
std::optional<Slot> MirrorSide::choose_source(const Operation& operation) const {
  const SlotMask equal = needed_ & sendable_ & current(operation, operation.done);
  const SlotMask fresh = needed_ & sendable_ & static_cast<SlotMask>(~current(operation, operation.sent));
  const SlotMask from = equal != 0 ? equal : fresh;
  if (from == 0) return std::nullopt;
  return static_cast<Slot>(std::countr_zero(from));
}

MirrorSide::SlotMask MirrorSide::sinks(const Operation& operation) const {
  return sendable_ & static_cast<SlotMask>(~current(operation, operation.sent));
}

bool MirrorSide::can_equalise(const Operation& operation) const {
  return choose_source(operation).has_value() && sinks(operation) != 0;
}

Task<void> MirrorSide::equalise(Operation& operation) {
  {
    const Mutex::Guard guard = co_await equalising_.lock();
    while (!failing_ && can_equalise(operation)) {
      const Slot source = *choose_source(operation);
      if ((current(operation, operation.done) & bit(source)) == 0) {
        // Those that are equal are so to one that is not there: to be made equal to this one.
        operation.sent &= static_cast<SlotMask>(~operation.done);
        operation.done = 0;
      }
      const SlotMask to = sinks(operation) & static_cast<SlotMask>(~bit(source));
      co_await equalise_from(operation, source, to);
    }
  }
  decide_write(operation);
}

Task<void> MirrorSide::equalise_from(Operation& operation, Slot source, SlotMask to) {
  const auto begin_with = [&](Slot slot) {
    operation.sent |= bit(slot);
    operation.done |= bit(slot);
    operation.parts[slot].incarnation = configuration_.slots[slot].incarnation;
  };
  begin_with(source);
  if (to == 0) co_return;
  for_each_slot(to, begin_with);
  const AlignedBytes memory = make_aligned_bytes(2 * kPieceBytes);
  for (ByteRange piece = operation.range; piece.begin < operation.range.end; piece.begin = piece.end) {
    piece.end = std::min(operation.range.end, align_down(piece.begin, kPieceBytes) + kPieceBytes);
    const std::span<std::byte> right(memory.get(), piece.end - piece.begin);
    if (!co_await move_piece(operation, source, IoOp::kRead, piece, right)) {
      // None of the others is known to be equal to anything: another source is asked for.
      for_each_slot(to, [&](Slot slot) {
        if ((operation.done & bit(slot)) != 0) operation.sent &= static_cast<SlotMask>(~bit(slot));
      });
      operation.done &= static_cast<SlotMask>(~to);
      co_return;
    }
    for (Slot slot = 0; slot < kMembersMax; ++slot) {
      if ((to & operation.done & bit(slot)) == 0) continue;
      co_await equalise_piece(operation, slot, piece, right, {memory.get() + kPieceBytes, right.size()});
    }
  }
}

// Writes what differs, as much at once as is of one kind.
Task<void> MirrorSide::equalise_piece(Operation& operation, Slot sink, ByteRange piece, std::span<std::byte> right,
                                      std::span<std::byte> memory) {
  if (!co_await move_piece(operation, sink, IoOp::kRead, piece, memory)) co_return;
  const auto difference_at = [&](size_t at) {
    const size_t length = std::min<size_t>(kGrain, right.size() - at);
    return compare(right.subspan(at, length), memory.subspan(at, length));
  };
  for (size_t at = 0; at < right.size();) {
    const Difference difference = difference_at(at);
    size_t end = at + kGrain;
    while (end < right.size() && difference_at(end) == difference) end += kGrain;
    end = std::min(end, right.size());
    if (difference != Difference::kNone) {
      const IoOp op = difference == Difference::kZeroes ? IoOp::kWriteZeroes : IoOp::kWrite;
      const ByteRange run{piece.begin + at, piece.begin + end};
      if (!co_await move_piece(operation, sink, op, run, right.subspan(at, end - at))) co_return;
    }
    at = end;
  }
}

// False: the slot failed, or is not what it was; it is not `done` then.
Task<bool> MirrorSide::move_piece(Operation& operation, Slot slot, IoOp op, ByteRange piece,
                                  std::span<std::byte> memory) {
  if ((sendable_ & bit(slot)) != 0 && is_current(operation, slot)) {
    Part& part = operation.parts[slot];
    iovec buffer{memory.data(), memory.size()};
    part.arguments() = {.op = op,
                        .offset = ByteOffset(piece.begin),
                        .length = piece.end - piece.begin,
                        .buffers = {&buffer, 1},
                        .zero_mode = ZeroMode::kMayDeallocate};
    part.may_say_zeroes = part.says_zeroes = false;
    const Result<void> result = co_await PartAwaiter(*this, part);
    if (result) co_return true;
    observer_.slot_failed(shard_.id, slot, part.incarnation, result.error());
  }
  operation.done &= static_cast<SlotMask>(~bit(slot));
  co_return false;
}

}  // namespace fairlead::mirror
