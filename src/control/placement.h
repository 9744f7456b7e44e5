// Placement: which pools get the replicas of a volume. Plain functions of what is known; the same input gives the same
// answer.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "control/resources.h"

namespace fairlead::control {

struct PoolCandidate {
  std::string name;
  std::string node;
  Labels node_labels;
  uint64_t capacity_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t promised_bytes = 0;  // sizes of what it has, thin or not
  std::string excluded;         // why it takes nothing new, "node b is cordoned"; empty: it does
};

struct PlacementRequest {
  const VolumeSpec& spec;
  size_t count = 1;
  std::vector<std::string> nodes_taken = {};      // these have a replica of the volume already
  std::vector<std::string> nodes_leaving = {};    // and these one that is to go: what it is spread over is free again
  std::map<std::string, size_t> group_load = {};  // replicas of other volumes of its group, by node
  std::vector<std::string> pools_only = {};       // empty: all
};

// Why nothing of the volume may be on a node with these labels, "has no label zone"; empty: it may.
std::string why_not_there(const Topology& topology, const Labels& node_labels);
// What no two replicas of it may have in common: "zone=a" for each label that they are spread over.
std::vector<std::string> spread_values(const Topology& topology, const Labels& node_labels);

// How full a pool is, by what was promised of it or what is taken, whichever is more: 1 is full, thin ones go above.
double fullness_of(const PoolCandidate& pool);

// The names of `count` pools, the best first: never two on a node; labels as the topology says; first the preferred
// node, then where its group has least, then what has promised least of its capacity. Error kNoSpace: says for each
// node why not.
Outcome<std::vector<std::string>> place(const std::vector<PoolCandidate>& pools, const PlacementRequest& request);

// Where a volume begins. When only some pools will do, as for a clone, whose snapshot is not everywhere: as many of
// these as there can be, at least one; then the rest find room elsewhere, and are to be added and copied to. Errors as
// place().
Outcome<std::vector<std::string>> place_beginning(const std::vector<PoolCandidate>& pools, PlacementRequest request);

}  // namespace fairlead::control
