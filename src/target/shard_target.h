// ShardTarget: one shard's side of a target: its view of the subsystems and listeners, its connections and controllers.
// Lives on one shard. Target makes every change on each shard in turn, so that serving a command asks nobody else.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/call.h"
#include "async/scope.h"
#include "io/shard.h"
#include "target/controller.h"
#include "target/directory.h"
#include "target/options.h"
#include "target/subsystem.h"

namespace fairlead::target {

class Connection;

// What discovery says of a listener.
struct Port {
  SocketAddress advertised;
};

class ShardTarget {
 public:
  // `options` and `directory` are borrowed for life.
  ShardTarget(Shard& shard, Reactor& home, const TargetOptions& options, Directory& directory);
  ~ShardTarget();

  Shard& shard() const { return shard_; }
  Reactor& reactor() const { return shard_.reactor; }
  const TargetOptions& options() const { return options_; }
  uint32_t transfer_bytes_max() const { return 4096U << options_.transfer_shift; }
  Directory& directory() const { return directory_; }
  // Runs a task of the directory on the home shard.
  template <typename T>
  Task<T> at_home(Task<T> task) {
    return call_on(reactor(), home_, std::move(task));
  }

  Subsystem* find_subsystem(std::string_view nqn) const;
  template <typename Step>
  void for_each_subsystem(Step step) const {
    for (const auto& [nqn, subsystem] : subsystems_) step(*subsystem);
  }
  const std::vector<Port>& ports() const { return ports_; }
  uint64_t discovery_generation() const { return discovery_generation_; }

  // Changes, called on this shard by Target.
  Task<void> add_port(Port port);
  Task<Result<void>> add_subsystem(SubsystemOptions options);
  Task<void> remove_subsystem(std::string nqn);
  Task<void> set_allowed_hosts(std::string nqn, std::vector<std::string> hosts);
  Task<Result<void>> add_namespace(std::string nqn, NamespaceIdentity identity, std::shared_ptr<BlockSource> source);
  Task<void> remove_namespace(std::string nqn, uint32_t nsid);
  struct Rescanned {
    uint64_t size_bytes = 0;
    bool changed = false;
  };
  // Looks whether its device changed its size.
  Task<Result<Rescanned>> rescan_namespace(std::string nqn, uint32_t nsid);
  // Tells the hosts of a subsystem of a change. A change that lets a host do more is told when every shard has made it:
  // the host may follow at once, on any of its queues.
  Task<void> announce(std::string nqn, Notice notice, uint32_t nsid);
  Task<void> set_ana_state(std::string nqn, PortIndex port, uint32_t group, AnaState state);
  Task<IoCounters> counters_of(std::string nqn);
  Task<void> lock_range(std::string nqn, uint32_t nsid, ByteOffset offset, uint64_t length);
  Task<void> unlock_range(std::string nqn, uint32_t nsid);
  // Whose I/O a fenced namespace takes here from now on.
  Task<void> set_caller(std::string nqn, uint32_t nsid, CallerId caller);
  // Returns when nothing is under way on a namespace. Requires: it is not removed meanwhile.
  Task<void> drain_namespace(std::string nqn, uint32_t nsid);
  // Flushes every device here.
  Task<Result<void>> flush_all();
  // Drops every subsystem and closes its devices, here where they live. Requires: no connections.
  Task<void> remove_everything();

  // Serves a connection until it ends. After close() it is dropped.
  Task<void> serve(std::unique_ptr<Accepted> accepted, PortIndex port);
  Task<void> close_connection(uint64_t id, const char* reason);
  Task<bool> abort(uint64_t connection, uint16_t cid);
  // Takes no more connections and no more commands; those under way are answered before their connections end.
  Task<void> begin_close(const char* reason);
  // Waits until all connections are gone. Requires: begin_close().
  Task<void> close();
  size_t connection_count() const { return connections_.size(); }

  void add(Controller& controller) { controllers_.push_back(controller); }
  void remove(Controller& controller) { controllers_.remove(controller); }

 private:
  void raise(std::string_view nqn, Notice notice, uint32_t nsid = 0);
  void raise_discovery_change();
  Task<void> run_connection(Connection& connection);

  Shard& shard_;
  Reactor& home_;
  const TargetOptions& options_;
  Directory& directory_;
  std::map<std::string, std::unique_ptr<Subsystem>, std::less<>> subsystems_;
  std::map<std::pair<std::string, uint32_t>, Namespace*> locked_;  // outlive their removal until they are unlocked
  std::vector<Port> ports_;
  uint64_t discovery_generation_ = 1;
  std::map<uint64_t, std::unique_ptr<Connection>> connections_;
  uint64_t next_connection_ = 1;
  Event connection_ended_;
  bool closed_ = false;
  IntrusiveList<Controller> controllers_;
  Scope scope_;
};

}  // namespace fairlead::target
