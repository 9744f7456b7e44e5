// The words of the replication protocol: terms, records, sessions, stamps. Plain values. docs/internals/replication.md
// says what each is for; section numbers below are that page's.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/check.h"
#include "base/uuid.h"

namespace fairlead::mirror {

// Of a replica: drawn when it is made, never used for another.
using ReplicaId = Uuid;

inline constexpr size_t kMembersMax = 8;
// What is copied, stamped and levelled as a whole. Each pool has extents of its own size; the target's are these.
inline constexpr uint64_t kExtentBytes = 1 << 20;

// Who may write. `number` is given out by the witness; should it ever be given out twice, the writers differ. Number 0
// is before all others.
struct Term {
  uint64_t number = 0;
  Uuid writer;  // drawn by the target for this term alone
  friend auto operator<=>(const Term&, const Term&) = default;
  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io.field(self.number);
    io.field(self.writer);
  }
};

// When an extent was written, and in which order records were made.
struct Stamp {
  Term term;
  uint64_t generation = 0;
  friend auto operator<=>(const Stamp&, const Stamp&) = default;
  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io.field(self.term);
    io.field(self.generation);
  }
};

// A snapshot of a volume, the same on each replica that has it: every write stamped with `cut`, or older, is in it, and
// no later one.
struct Snapshot {
  Uuid id;
  Stamp cut;
  uint64_t size_bytes = 0;  // of the volume then
  friend bool operator==(const Snapshot&, const Snapshot&) = default;
  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io.field(self.id);
    io.field(self.cut);
    io.field(self.size_bytes);
  }
};
inline constexpr size_t kSnapshotsMax = 500;  // of a volume

// A set of replicas, in ascending order; kMembersMax at most.
class MemberSet {
 public:
  constexpr MemberSet() = default;
  // Requires: no more than kMembersMax.
  MemberSet(std::initializer_list<ReplicaId> ids) {
    for (const ReplicaId& id : ids) add(id);
  }
  std::span<const ReplicaId> ids() const { return std::span(ids_).first(count_); }
  size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  bool has(const ReplicaId& id) const { return std::ranges::binary_search(ids(), id); }
  bool is_full() const { return count_ == kMembersMax; }
  // Requires: it has the id, or is not full.
  void add(const ReplicaId& id) {
    if (has(id)) return;
    FL_CHECK(!is_full());
    ids_[count_++] = id;
    std::ranges::sort(std::span(ids_).first(count_));
  }
  void remove(const ReplicaId& id) {
    const auto rest = std::ranges::remove(std::span(ids_).first(count_), id);
    count_ -= rest.size();
    for (ReplicaId& left : rest) left = {};
  }
  friend bool operator==(const MemberSet&, const MemberSet&) = default;

 private:
  std::array<ReplicaId, kMembersMax> ids_{};
  size_t count_ = 0;
};

// Who has every acknowledged write, by the target that says so. `prior`: the members of the record that this one
// replaces; equal when it is settled (rule 1).
struct Record {
  Stamp at;
  MemberSet members;
  MemberSet prior;
  // The last one that was taken; every member took it. What a replica has of later ones came to nothing (hole H16).
  Snapshot last_snapshot = {};
  bool is_settled() const { return members == prior; }
  friend bool operator==(const Record&, const Record&) = default;
};

// From one prepare to the next: what a replica does for its target it does in one (rule 0).
struct Session {
  Term term;
  uint64_t number = 0;  // one more each time
  Uuid boot_id;         // of the kernel that it was opened under
  friend bool operator==(const Session&, const Session&) = default;
};

// What a replica keeps on stable storage, changed as a whole.
struct ReplicaState {
  Term promise;
  Record record;
  Session session;
  Stamp note;            // every write stamped with this, or older, is on stable storage here, and on all members then
  bool is_cold = false;  // it lost writes that it had answered, with its disk's cache, and was not levelled since
  friend bool operator==(const ReplicaState&, const ReplicaState&) = default;
};

std::string to_string(const Term& term);
std::string to_string(const Stamp& stamp);
std::string to_string(const MemberSet& members);
std::string to_string(const Record& record);

}  // namespace fairlead::mirror
