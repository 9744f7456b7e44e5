// Freezer: keeps file systems of this machine still while snapshots are taken of their volumes, as the volumes' labels
// ask for (control/freeze.h). Lives on one shard.
//
// It lasts `limit` at most, whatever else happens: a control plane that is silent, an asker that is gone. That
// something is frozen is on record before it is, so that the next process thaws what one that was killed has left; what
// was thawed before it was asked to be is not said to have been still. While a volume is kept still it is busy: calls
// for it are to be repeated.
#pragma once

#include <map>
#include <set>
#include <string>

#include "async/cancel.h"
#include "async/reactor.h"
#include "async/scope.h"
#include "async/task.h"
#include "async/time.h"
#include "csi/busy.h"
#include "csi/cluster_api.h"
#include "csi/machine.h"
#include "csi/node_records.h"

namespace fairlead::csi {

struct FreezerOptions {
  std::string host_nqn;
  Duration limit = std::chrono::seconds(10);
};

class Freezer {
 public:
  // All but `options` is borrowed for life.
  Freezer(Reactor& home, Machine& machine, ClusterApi& cluster, NodeRecords& records, FreezerOptions options);

  // Begins what the volume's document asks for. With its turn, which is kept as long as that lasts.
  void look(const std::string& volume, const Json& document, Busy::Turn turn);
  // What an earlier process froze. With the volume's turn. Error: it could not be thawed; then nothing is to be done
  // with its file system yet.
  Task<Outcome<void>> thaw_left(std::string volume);
  // Thaws all, without waiting for who asked.
  void stop() { stopping_.cancel(); }
  // After stop().
  Task<void> close() { return scope_.close(); }

 private:
  struct Hold {
    std::string request;
    bool is_released = false;  // the asker has what it wants
    bool is_lost = false;      // nobody waits any more
  };

  Task<void> hold(std::string volume, std::string request, Busy::Turn given);
  Task<Outcome<void>> freeze(std::string volume, std::string request);
  // Tells that it is frozen, and watches what is asked next.
  Task<void> attend(std::string volume, std::string request);
  // None: it is not this request's any more.
  Hold* find(const std::string& volume, const std::string& request);

  Reactor& home_;
  Machine& machine_;
  ClusterApi& cluster_;
  NodeRecords& records_;
  const FreezerOptions options_;
  std::map<std::string, Hold> holds_;           // by volume
  std::map<std::string, std::string> handled_;  // the last request of each volume: each is for once
  Scope scope_;
  CancelSource stopping_;
};

}  // namespace fairlead::csi
