// What a volume is told to do while it is served. Plain values.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "async/time.h"
#include "base/error.h"
#include "base/uuid.h"

namespace fairlead::mirror {

// Where a snapshot is that is to be of one moment with those of other volumes.
enum class CutGate : uint8_t {
  kNone,     // it is of one volume
  kClosed,   // hosts are not held yet
  kHeld,     // they are, and nothing is under way: whoever gave the job has the word, for `hold` at most
  kOpen,     // it may be taken
  kGivenUp,  // hosts go on
};

// Done one after the other by the reign that serves then; one that ends half-way leaves the job to the next, so that
// each may be done twice, with the same outcome.
struct VolumeJob {
  enum class Kind : uint8_t { kSnapshot, kDeleteSnapshot, kGrow };
  Kind kind = Kind::kSnapshot;
  Uuid snapshot;
  uint64_t size_bytes = 0;
  CutGate gate = CutGate::kNone;
  Duration hold{};                           // how long hosts wait at most when nobody says a word
  std::optional<Result<void>> outcome = {};  // none: not yet
};
// shared_ptr: whoever gave it waits for its outcome, or no longer.
using VolumeJobs = std::deque<std::shared_ptr<VolumeJob>>;

}  // namespace fairlead::mirror
