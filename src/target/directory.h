// Directory: the controllers of a target and which connections serve their queues. Lives on the home shard (shard 0);
// the others reach it by call_on().
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "async/scope.h"
#include "nvme/status.h"
#include "target/association.h"
#include "target/fenced_namespaces.h"
#include "target/options.h"

namespace fairlead::target {

class ShardTarget;

// A host, as an observer is told of it.
struct HostSession {
  std::string host_nqn;
  std::string subsystem_nqn;
  uint16_t controller_id = 0;
  uint16_t io_queues = 0;
};

// Told of hosts that come and go; not of discovery. Called on the home shard; must not block.
class TargetObserver {
 public:
  virtual ~TargetObserver() = default;
  // All I/O queues that the host asked for are connected.
  virtual void host_connected(const HostSession& session) = 0;
  // `reason` is a few words for people. Also called for a host that never got to host_connected().
  virtual void host_disconnected(const HostSession& session, std::string_view reason) = 0;
};

class Directory {
 public:
  struct QueuePlace {
    ShardId shard;
    uint64_t connection = 0;
    friend bool operator==(const QueuePlace&, const QueuePlace&) = default;
  };
  struct Create {
    std::string subsystem_nqn;
    std::string host_nqn;
    HostId host_id{};
    PortIndex port = 0;
    QueuePlace place;
    bool discovery = false;
  };
  struct Attach {
    uint16_t controller_id = 0;
    uint16_t qid = 0;
    std::string subsystem_nqn;
    std::string host_nqn;
    HostId host_id{};
    PortIndex port = 0;
    QueuePlace place;
  };

  // `observer` may be null. Both are borrowed for life; `shards` is filled before the first call.
  Directory(Reactor& home, const TargetOptions& options, TargetObserver* observer,
            const std::vector<std::unique_ptr<ShardTarget>>& shards);
  ~Directory();

  // All of these run on the home shard. Statuses are those of Connect, NVMe base 2.0 section 6.3.
  Task<nvme::StatusOr<std::shared_ptr<Association>>> create(Create wanted);
  Task<nvme::StatusOr<std::shared_ptr<Association>>> attach(Attach wanted);
  // `place`: whose queue that is; another may have its number since a controller reset.
  Task<void> detach(ControllerKey controller, uint16_t qid, QueuePlace place);
  // Forgets a controller and closes the connections of its I/O queues.
  Task<void> destroy(ControllerKey controller, const char* reason);
  // Closes the connections of its I/O queues, but keeps it (a controller reset). Their numbers are free at once.
  Task<void> close_queues(ControllerKey controller, const char* reason);
  // Whether a waiting command of that queue was taken back.
  Task<bool> abort(ControllerKey controller, uint16_t qid, uint16_t cid);

  // Keeps writes of every shard out of a range of a namespace. One lock a namespace: others wait in line.
  Task<void> lock_range(std::string subsystem_nqn, uint32_t nsid, ByteOffset offset, uint64_t length);
  Task<void> unlock_range(std::string subsystem_nqn, uint32_t nsid);

  // Subsystems that were removed: the last kRemovedMax of them, without those that were added again.
  void note_added(const std::string& subsystem_nqn);
  void note_removed(const std::string& subsystem_nqn);
  // Whether a host that is refused because the subsystem is not there may ask again.
  Task<bool> may_come(std::string subsystem_nqn);

  FencedNamespaces& fenced() { return fenced_; }

  // The I/O of a subsystem on all shards.
  Task<IoCounters> counters_of(std::string subsystem_nqn);
  size_t controller_count() const { return controllers_.size(); }
  std::map<std::string, size_t> controllers_by_subsystem() const;
  // From now on a controller that goes leaves the connections of its I/O queues alone: their shards are closing them,
  // and answer what runs first.
  void begin_close() { closing_ = true; }
  // Waits for what it has under way.
  Task<void> close();

 private:
  struct Entry {
    std::shared_ptr<Association> association;
    std::map<uint16_t, QueuePlace> queues;  // by qid, I/O queues only
    bool discovery = false;
    bool announced = false;
  };
  HostSession session_of(const Entry& entry) const;
  size_t controllers_of(const std::string& subsystem_nqn) const;
  uint16_t take_id(const std::string& subsystem_nqn);
  Task<void> close_connection(QueuePlace place, const char* reason);

  Reactor& home_;
  const TargetOptions& options_;
  TargetObserver* observer_;
  const std::vector<std::unique_ptr<ShardTarget>>& shards_;
  FencedNamespaces fenced_;
  Scope scope_;
  std::map<ControllerKey, Entry> controllers_;
  uint16_t next_id_;
  bool closing_ = false;
  struct RangeLock {
    explicit RangeLock(Reactor& reactor) : freed(reactor) {}
    bool held = false;
    size_t users = 0;
    Event freed;
  };
  std::map<std::pair<std::string, uint32_t>, RangeLock> range_locks_;
  static constexpr size_t kRemovedMax = 1024;
  std::deque<std::string> removed_;  // oldest first
};

}  // namespace fairlead::target
