// GroupCuts: snapshots of several volumes at one moment. Hosts of all volumes are held, each at its own target; when
// all are, the snapshots are taken, and hosts go on. One that fails leaves none: what was taken is deleted, and it is
// tried anew, under other ids, so that whatever has a snapshot's id was cut in the attempt that succeeded. One shard,
// of the process that leads. docs/internals/control.md tells why this is one moment.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/scope.h"
#include "control/cluster.h"
#include "control/engines.h"
#include "control/events.h"

namespace fairlead::control {

class GroupCuts {
 public:
  // Borrowed for life.
  GroupCuts(Shard& home, Cluster& cluster, Engines& engines, Events& events)
      : home_(home), cluster_(cluster), engines_(engines), events_(events), changed_(home.reactor) {}

  // To the end of the leadership.
  Task<void> run(CancelSource& ruling);
  // There is something to do.
  void look() { changed_.release_waiters(); }
  // Why the last attempt failed, for people; empty: none has.
  std::string why(const std::string& group) const;

 private:
  // A snapshot of the group, and where its volume is served.
  struct Part {
    std::string snapshot;  // by name
    Uuid id;
    std::string volume;
    Uuid volume_id;
    std::string node;
  };
  struct Work {
    bool is_busy = false;
    Duration gap{};
    Instant again_at;
    std::string why;
  };
  void begin_attempts(Scope& scope, CancelSource& ruling);
  Task<void> see_to(std::string group, CancelSource& ruling);
  Task<Outcome<void>> advance(std::string group);
  Outcome<std::vector<Part>> parts_of(const std::string& group) const;
  Task<Outcome<void>> clear(std::string group, std::vector<Part> parts);
  Task<Outcome<void>> cut(std::string group, std::vector<Part> parts);
  enum class Call : uint8_t { kHold, kTake, kDelete };
  Task<Outcome<void>> call_all(Call call, const std::vector<Part>& parts);
  Task<void> call_one(Call call, Part part, Outcome<void>& done);
  template <typename Change>
  Task<Outcome<void>> change_all(std::string group, Change change);

  Shard& home_;
  Cluster& cluster_;
  Engines& engines_;
  Events& events_;
  Event changed_;
  std::map<std::string, Work> works_;  // by group
};

}  // namespace fairlead::control
