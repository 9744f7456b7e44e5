// Target: an NVMe/TCP target. Serves any number of subsystems on any number of listeners, over all shards that it is
// given.
//
// Lives on the home shard, the first: every call is made there. Changes may be made while hosts are connected; each is
// complete when its task ends, on every shard, and hosts that asked for it have been sent the event. One change runs at
// a time: others wait in line.
//
// Life-cycle: make, start_listener() and add_…() in any order, stop(), destroy. Requires: stop() ended before the end.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/event.h"
#include "async/scope.h"
#include "base/error.h"
#include "io/shard.h"
#include "target/directory.h"
#include "target/options.h"
#include "target/shard_target.h"

namespace fairlead::target {

class Target {
 public:
  // `shards` and `observer` (may be null) are borrowed for life. Requires: at least one shard; the caller is on the
  // first.
  Target(std::vector<Shard*> shards, TargetOptions options, TargetObserver* observer = nullptr);
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // Errors: kInvalidArgument (names the field), kAlreadyExists.
  Task<Result<void>> add_subsystem(SubsystemOptions options);
  // Ends the connections of its hosts. Error kNotFound.
  Task<Result<void>> remove_subsystem(std::string nqn);

  // Who may use it from now on (none: every host); the connections of those that may no longer end. Errors: kNotFound,
  // kInvalidArgument (no NQN).
  Task<Result<void>> set_allowed_hosts(std::string nqn, std::vector<std::string> hosts);

  // Returns the namespace id. Errors: kNotFound (no such subsystem), kAlreadyExists (the id is taken),
  // kInvalidArgument, kResourceExhausted (no id is free), and what opening the source gives.
  Task<Result<uint32_t>> add_namespace(std::string nqn, NamespaceOptions options);
  // Waits for commands under way; its source is closed when this ends. Error kNotFound.
  Task<Result<void>> remove_namespace(std::string nqn, uint32_t nsid);
  // Looks whether the source changed its size; hosts are told if so. Returns the size in bytes. Error kNotFound.
  Task<Result<uint64_t>> rescan_namespace(std::string nqn, uint32_t nsid);

  // How hosts that come through that port see the namespaces of that group. Errors: kNotFound, kInvalidArgument.
  Task<Result<void>> set_ana_state(std::string nqn, PortIndex port, uint32_t group, AnaState state);

  // Of namespaces with a ControlHandler; these neither wait for other changes nor keep them waiting. Error of both:
  // kNotFound (no such namespace, or one without a handler, or it is being removed).
  //
  // Refuses everyone from now on; returns when all I/O that was let through has ended, on every shard.
  Task<Result<void>> fence(std::string nqn, uint32_t nsid);
  // Takes the I/O of this caller from now on. Error kBusy: another one is let in; fence it off first.
  Task<Result<void>> admit(std::string nqn, uint32_t nsid, CallerId caller);
  // A number for somebody in this process who is let in by other ways than a connection.
  CallerId new_caller();

  struct Listening {
    PortIndex port = 0;
    SocketAddress bound;
    SocketAddress advertised;
  };
  // Errors: kBusy (address in use), kUnreachable, kPermissionDenied, kResourceExhausted (kListenersMax).
  Task<Result<Listening>> start_listener(ListenerOptions options);

  // Accepts nobody new; everything else goes on, but subsystems that are removed from now on do not count as gone for
  // good (see WhenAbsent). Idempotent. Requires: start_listener() is not called any more.
  Task<void> stop_accepting();
  // The same, and lets commands under way end, closes connections, flushes every namespace. Idempotent.
  Task<Result<void>> stop();

  size_t controller_count() const { return directory_.controller_count(); }
  // By subsystem: those that have any.
  std::map<std::string, size_t> controllers_by_subsystem() const { return directory_.controllers_by_subsystem(); }

 private:
  // The right to change things: one task at a time has it.
  Task<void> take_turn();
  void end_turn();
  Task<void> announce(std::string nqn, Notice notice, uint32_t nsid = 0);
  Task<Result<void>> remove_subsystem_now(std::string nqn);
  Task<Result<uint32_t>> add_namespace_now(std::string nqn, NamespaceOptions options);
  Task<void> accept_loop(Listener& listener, PortIndex port);
  Task<void> serve(std::unique_ptr<Accepted> accepted, ShardTarget& shard_target, PortIndex port);
  Reactor& home() const { return shards_.front()->reactor; }
  Subsystem* find(const std::string& nqn) const { return shard_targets_.front()->find_subsystem(nqn); }

  std::vector<Shard*> shards_;
  TargetOptions options_;
  std::vector<std::unique_ptr<ShardTarget>> shard_targets_;
  Directory directory_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  CancelSource stopping_;
  Scope accepting_;
  Scope serving_;
  bool changing_ = false;
  Event turn_ended_;
  size_t next_shard_ = 0;
  uint32_t connections_ = 0;
};

}  // namespace fairlead::target
