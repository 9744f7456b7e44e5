// For side*.cc alone: what a side remembers of a request under way.
#pragma once

#include <array>
#include <optional>

#include "mirror/side.h"

namespace fairlead::mirror {

// What goes to one slot of an operation; at most one is under way at a time.
struct MirrorSide::Part : IoRequest, ListNode<MirrorSide::Part> {
  Operation* operation = nullptr;
  Slot slot = 0;
  uint64_t incarnation = 0;  // of the slot when it was sent
  Instant since;
  bool is_left_behind = false;
};

struct MirrorSide::Operation : ListNode<MirrorSide::Operation> {
  enum class Kind : uint8_t { kRead, kWrite, kZeroes, kFlush };

  Operation() {
    for (size_t i = 0; i < parts.size(); ++i) {
      parts[i].operation = this;
      parts[i].slot = static_cast<Slot>(i);
      parts[i].done = on_part;
    }
  }
  bool is_locking() const { return kind == Kind::kWrite || kind == Kind::kZeroes; }

  MirrorSide* side = nullptr;
  IoRequest* original = nullptr;  // null: answered, an orphan
  Kind kind = Kind::kRead;
  ByteRange range;             // of the piece that it is at
  uint64_t end = 0;            // kZeroes: of the last piece
  uint64_t configuration = 0;  // kRead: that `tried` is of; others: when the piece began
  // kRead: asked, and `refused` are those whose medium failed. Others: sent there, done there, refused there; each
  // holds for the incarnation in the part alone.
  SlotMask sent = 0;
  SlotMask done = 0;
  SlotMask refused = 0;
  uint32_t under_way = 0;    // parts; one more while they are being sent
  uint32_t left_behind = 0;  // parts that are waited for no more
  bool is_told = false;      // the original is answered, but for its buffers: `left_behind` parts have them
  bool is_over = false;      // given back when the last of those ends
  uint8_t parity = 0;        // of the drain that waits for it, when it has begun
  bool has_begun = false;
  bool waits_for_others = false;  // in waiting_
  bool asked_for_level = false;
  // All that were needed refused it. From then on `sent` and `done` say which are equal again.
  std::optional<Error> verdict;
  uint64_t taken_back = 0;           // kRead: MirrorShared's when it was sent
  RangeTable::Watch watch;           // kRead, in settling_
  Resumption* resumption = nullptr;  // of a PartAwaiter
  std::array<Part, kMembersMax> parts;
};

}  // namespace fairlead::mirror
