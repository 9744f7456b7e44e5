// Snapshots of volumes, as their targets are asked for them, and as their replicas have them. See engines_node.h.
#include <algorithm>

#include "engines_serving.h"

namespace fairlead::sim_test {

// To the volume's target here. Error kNotFound: it has gone.
Task<Result<void>> EngineNode::tell(const EngineVolume& volume, mirror::VolumeJob job, Duration limit) {
  const bool is_deletion = job.kind == mirror::VolumeJob::Kind::kDeleteSnapshot;
  for (const auto& each : std::vector(servings_)) {
    if (&each->volume != &volume || each->target == nullptr || each->is_ending) continue;
    ++each->users;
    const Result<void> done = is_deletion ? co_await each->target->delete_snapshot(job.snapshot, limit)
                                          : co_await each->target->take_snapshot(job.snapshot, limit);
    --each->users;
    co_return done;
  }
  const auto shown = std::ranges::find(shown_, &volume, [](const auto& each) { return &each->volume; });
  if (shown == shown_.end()) co_return fail(Code::kNotFound);
  Shown& at = **shown;
  ++at.users;
  const Result<void> done = is_deletion ? co_await at.shown->delete_snapshot(job.snapshot, limit)
                                        : co_await at.shown->take_snapshot(job.snapshot, limit);
  --at.users;
  co_return done;
}

Task<void> EngineNode::take_snapshot(EngineVolume& volume, EngineVolume::Taken& taken, Duration limit) {
  if (!is_ready_) co_return;
  ++users_;
  const uint64_t began = volume.clock.begin_read();
  if (co_await tell(volume, {.kind = mirror::VolumeJob::Kind::kSnapshot, .snapshot = taken.id}, limit)) {
    taken.holds = volume.history.frozen(began);
    ++engines_.counts.snapshots;
  }
  volume.clock.end_read(began);
  --users_;
}

Task<void> EngineNode::delete_snapshot(EngineVolume& volume, Uuid id, Duration limit, bool* is_done) {
  if (!is_ready_) co_return;
  ++users_;
  if (co_await tell(volume, {.kind = mirror::VolumeJob::Kind::kDeleteSnapshot, .snapshot = id}, limit)) {
    ++engines_.counts.deletions;
    if (is_done != nullptr) *is_done = true;
  }
  --users_;
}

Task<void> EngineNode::read_snapshots(EngineVolume& volume, std::vector<FoundSnapshot>* out, bool* is_done) {
  ++users_;
  for (const mirror::Snapshot& snapshot : find(volume)->replica->store().snapshots()) {
    const auto kept = find(volume)->replica->store().find_snapshot(snapshot.id);
    FL_CHECK(kept.has_value());
    out->push_back({snapshot.id, co_await read_object(to_string(kept->object), snapshot.size_bytes)});
  }
  --users_;
  *is_done = true;
}

}  // namespace fairlead::sim_test
