// What a target asks of a replica, and what it answers: the messages of replication control, and their encoding, which
// is also that of what a replica keeps of itself and of its snapshots. Hostile until decoded. Plain values.
#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "base/error.h"
#include "mirror/types.h"

namespace fairlead::mirror {

inline constexpr size_t kRequestBytesMax = 4096;
inline constexpr size_t kReplyBytesMax = 64 * 1024;
inline constexpr size_t kRangesMax = 4000;  // of a reply

// ---- Requests. All but Prepare are executed only in the session that they name (rule 0), else the answer is Fenced.

// Promise the term, refuse whoever came before, let end what they asked for, wait out the leases that they were given,
// open a session for the caller's connection (rules 1 and 4). The term that is promised already, by the same writer,
// opens another session.
struct PrepareRequest {
  Term term;
};
// Keep the record (rules 1, 3, 4). Its term is the session's.
struct RecordRequest {
  Record record;
};
// Writes are stamped with this from now on. On stable storage when answered (rule 5).
struct GenerationRequest {
  uint64_t generation = 0;
};
// The checkpoint note (rule 5). The target has had everything flushed.
struct NoteRequest {
  Stamp note;
};
// Every extent is as the source has it: no longer cold (rule 1).
struct LevelledRequest {};
// Answer no prepare of another term for `lease` from when this came (rule 6). 0 gives back every lease of the session:
// reads have stopped, and no other request for one is under way.
struct LeaseRequest {
  uint64_t lease_ns = 0;
};
// What changed: extents of kExtentBytes that were written or unmapped under a stamp above `since`, of all that are
// mapped when there is none; with `base`, those in which what is asked may differ from that snapshot, and `since` says
// nothing. From `offset` on, in bytes, ascending; go on from Ranges::next.
struct ChangedRequest {
  std::optional<Stamp> since;
  uint64_t offset = 0;
  Uuid base = {};  // nil: none
  Uuid of = {};    // a snapshot; nil: the replica as it is now
};
// Stamp these extents with the session's generation: their bytes were copied (rule 1).
struct StampRequest {
  std::vector<uint64_t> extents;  // numbers of kExtentBytes each; kStampsMax at most
};
inline constexpr size_t kStampsMax = 400;
// Take the snapshot: what was written until now. On stable storage when answered, with all that is in it. The replica
// has none with a later cut. One that it has already: done.
struct SnapshotRequest {
  Snapshot snapshot;
};
// Also where there is none: done.
struct DeleteSnapshotRequest {
  Uuid id;
};
struct SnapshotsRequest {};
// Let it be read by whoever has a connection, until it is deleted.
struct ShowSnapshotRequest {
  Uuid id;
};
// Never smaller.
struct GrowRequest {
  uint64_t size_bytes = 0;
};

// Their places here, and in Reply, are their numbers on the wire: append only.
using RequestBody = std::variant<PrepareRequest, RecordRequest, GenerationRequest, NoteRequest, LevelledRequest,
                                 LeaseRequest, ChangedRequest, StampRequest, SnapshotRequest, DeleteSnapshotRequest,
                                 SnapshotsRequest, ShowSnapshotRequest, GrowRequest>;
struct Request {
  Uuid volume;
  ReplicaId replica;
  Term term;             // of the session; Prepare has it in its body
  uint64_t session = 0;  // its number
  RequestBody body;
};

// ---- Replies.

struct Done {};
// Another term was promised, or another session is open.
struct Fenced {
  Term promise;
};
struct Prepared {
  Record record;
  Stamp newest;  // no stamp, note or record that it knows of is above
  Stamp note;
  bool is_cold = false;
  Session session;
  uint64_t size_bytes = 0;
  Snapshot last_snapshot = {};  // of those that it has; none: Snapshot{}
};
struct ByteSpan {
  uint64_t begin = 0;
  uint64_t end = 0;
  friend bool operator==(const ByteSpan&, const ByteSpan&) = default;
};
struct Ranges {
  std::vector<ByteSpan> ranges;  // ascending, none empty, none over another; kRangesMax at most
  uint64_t next = 0;             // where to go on, behind all of them; 0: that was all
};
struct Failed {
  Code code = Code::kInternal;
};
struct Snapshots {
  std::vector<Snapshot> list;  // by cut, ascending; kSnapshotsMax at most
};
using Reply = std::variant<Done, Fenced, Prepared, Ranges, Failed, Snapshots>;

// Requires: the limits above hold.
std::vector<std::byte> encode(const Request& request);
std::vector<std::byte> encode(const Reply& reply);
std::vector<std::byte> encode(const ReplicaState& state);
std::vector<std::byte> encode(const Snapshot& snapshot);
// All or error kProtocol (a message) or kCorrupt (what is kept): unknown version or kind, too short or too long, sets
// that are not ascending or too large, ranges that are not, a reserved byte that is not zero.
Result<Request> decode_request(std::span<const std::byte> bytes);
Result<Reply> decode_reply(std::span<const std::byte> bytes);
Result<ReplicaState> decode_replica_state(std::span<const std::byte> bytes);
Result<Snapshot> decode_snapshot(std::span<const std::byte> bytes);

}  // namespace fairlead::mirror
