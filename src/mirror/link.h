// The seams of a target: how it reaches a replica, and the witness. The engine implements both (over NVMe-oF, or in the
// same process; over the control plane's API), tests do with memory.
#pragma once

#include <memory>
#include <optional>

#include "async/event.h"
#include "async/task.h"
#include "block/block_device.h"
#include "mirror/control.h"

namespace fairlead::mirror {

// One replica of a volume, wherever it is. Lives on the home shard, but for the devices.
//
// A link connects by itself, again and again. Calls and devices are of one connection: when it is lost, calls and I/O
// under way end soon with an error, and so do later ones until the next connection; a replica lets nothing through that
// was not prepared on the connection that it comes by.
class ReplicaLink {
 public:
  virtual ~ReplicaLink() = default;
  virtual const ReplicaId& replica() const = 0;
  virtual bool is_local() const = 0;  // in this process: read from it first

  // Number of the connection, another one for each; 0: there is none now.
  virtual uint64_t connection() const = 0;
  // The last attempt to connect failed: it is not worth a moment's wait.
  virtual bool is_away() const = 0;
  // Released whenever connection() or is_away() is another.
  virtual Event& changed() = 0;
  // Ends the connection, and what is under way. It connects anew.
  virtual void drop() = 0;

  // Ends it for good. Idempotent. Requires: no device of it is left; what is called, ends.
  virtual Task<void> stop() = 0;

  // Errors: kConnectionLost, kTimedOut, kUnreachable (perhaps done, perhaps not: rule 7), kProtocol.
  virtual Task<Result<Reply>> call(Request request) = 0;

  // Way of a shard to the replica's data, on its thread. Error kUnreachable: no connection. Its I/O fails with kFenced
  // where it is not let through.
  virtual Result<std::unique_ptr<BlockDevice>> open(Shard& shard) = 0;
  // Way of the home shard to a snapshot that the replica shows, read-only; its I/O is never refused. Errors:
  // kUnreachable, kTimedOut (nothing of it was seen here).
  virtual Task<Result<std::unique_ptr<BlockDevice>>> open_snapshot(Uuid snapshot) = 0;
};

// What the witness answers to a prepare.
struct WitnessAnswer {
  Term promise;           // the one asked for, or a higher one: refused
  Record record;          // none yet: Record{}
  bool abstains = false;  // rebuilt, and no target in force has written since: its answer counts for nothing (hole H12)
};

// Home shard. Errors of all: kUnreachable, kTimedOut (perhaps done).
class Witness {
 public:
  virtual ~Witness() = default;
  // A number that nobody was given before. One that was rebuilt from nothing takes numbers above all that it can have
  // given out: the upper half is the epoch of its store.
  virtual Task<Result<uint64_t>> next_term(Uuid volume) = 0;
  virtual Task<Result<WitnessAnswer>> prepare(Uuid volume, Term term) = 0;
  // Kept on stable storage, unless a higher term than the record's was promised. One that abstains goes on to, until a
  // target whose term it gave out since it was rebuilt tells it of a record that is in force without it; before that
  // its vote counts for nothing. (An older target may think that it is in force, and be wrong.)
  enum class Standing : uint8_t { kProposed, kInForce };
  virtual Task<Result<WitnessAnswer>> keep(Uuid volume, Record record, Standing standing) = 0;
};

}  // namespace fairlead::mirror
