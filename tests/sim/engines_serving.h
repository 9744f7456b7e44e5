// A target that somebody started on an engine, with its links, its devices and those who use them.
#pragma once

#include "engine/volume.h"
#include "engines_node.h"

namespace fairlead::sim_test {

struct EngineNode::Serving {
  Serving(EngineVolume& v, Reactor& reactor, uint64_t s) : volume(v), seed(s), ending(reactor) {}

  EngineVolume& volume;
  const uint64_t seed;
  std::unique_ptr<mirror::Witness> witness;
  std::unique_ptr<mirror::VolumeTarget> target;
  std::vector<std::unique_ptr<BlockDevice>> devices;  // by shard
  size_t users = 0;                                   // tasks that use devices or the target
  bool is_ending = false;
  bool is_gone = false;  // the target is to be watched no more
  Event ending;
};

// A volume that hosts have paths to here, whether its target is here or not.
struct EngineNode::Shown final : engine::LinkFactory {
  Shown(EngineNode& n, EngineVolume& v) : node(n), volume(v) {}
  std::vector<std::unique_ptr<mirror::ReplicaLink>> make() override { return node.make_links(volume); }

  EngineNode& node;
  EngineVolume& volume;
  std::unique_ptr<mirror::Witness> witness;
  std::unique_ptr<engine::Volume> shown;
  size_t users = 0;        // tasks that watch it, or end its target
  bool is_ending = false;  // its target
  bool is_gone = false;
};

}  // namespace fairlead::sim_test
