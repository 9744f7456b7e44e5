// What a volume is told to do while it is served. Plain values.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/uuid.h"

namespace fairlead::mirror {

// Done one after the other by the reign that serves then; one that ends half-way leaves the job to the next, so that
// each may be done twice, with the same outcome.
struct VolumeJob {
  enum class Kind : uint8_t { kSnapshot, kDeleteSnapshot, kGrow };
  Kind kind = Kind::kSnapshot;
  Uuid snapshot;
  uint64_t size_bytes = 0;
  std::optional<Result<void>> outcome = {};  // none: not yet
};
// shared_ptr: whoever gave it waits for its outcome, or no longer.
using VolumeJobs = std::deque<std::shared_ptr<VolumeJob>>;

}  // namespace fairlead::mirror
