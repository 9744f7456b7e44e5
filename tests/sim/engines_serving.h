// A target that somebody started on an engine, with its links, its devices and those who use them.
#pragma once

#include "engines_node.h"

namespace fairlead::sim_test {

struct EngineNode::Serving {
  Serving(EngineVolume& v, Reactor& reactor, uint64_t s) : volume(v), seed(s), ending(reactor) {}

  EngineVolume& volume;
  const uint64_t seed;
  std::unique_ptr<mirror::Witness> witness;
  std::vector<engine::LocalLink*> local;  // the target's
  std::vector<engine::RemoteLink*> remote;
  std::unique_ptr<mirror::VolumeTarget> target;
  std::vector<std::unique_ptr<BlockDevice>> devices;  // by shard
  size_t users = 0;                                   // tasks that use devices or the target
  bool is_ending = false;
  bool is_gone = false;  // the target is to be watched no more
  Event ending;
};

}  // namespace fairlead::sim_test
