// Rebalance: which replicas would be better off in another pool, when pools are filled very differently. A plain
// function of what is known; the same input gives the same answer.
//
// Invariants:
//   - A move obeys the volume's topology as placement does, and takes no replica off the volume's preferred node.
//   - The pool that a replica moves to stays emptier than the one that it comes from: nothing ever moves back, unless
//     pools fill differently meanwhile.
//   - A pool takes part in one move at a time.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "control/placement.h"
#include "control/resources.h"

namespace fairlead::control {

struct RebalanceFacts {
  struct AtRest {
    const Volume* volume = nullptr;            // whole, and nothing of it is on the move
    std::map<Uuid, uint64_t> used_bytes = {};  // of its replicas
    std::map<std::string, size_t> group_load = {};
  };
  std::vector<PoolCandidate> pools;         // all
  std::vector<AtRest> volumes;              // what may be moved
  std::set<std::string> busy_pools = {};    // something moves there, or has moved a moment ago
  std::set<std::string> uneven_pools = {};  // as the last plan had it
};

struct Move {
  std::string volume;
  Uuid replica;
  std::string from;
  std::string to;
  double from_fullness = 0;
  double to_fullness = 0;
};

struct RebalancePlan {
  // Fuller than another by much: from kUnevenFrom on until it is less than kEvenBelow.
  std::set<std::string> uneven_pools;
  std::vector<Move> moves;  // those that may begin now
};

inline constexpr double kUnevenFrom = 0.2;  // of a pool's capacity
inline constexpr double kEvenBelow = 0.1;

RebalancePlan plan_rebalance(const RebalanceFacts& facts);

}  // namespace fairlead::control
