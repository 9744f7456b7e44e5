// FencedNamespaces: the namespaces with a ControlHandler: whose I/O each of them takes, and the calls of hosts that are
// under way (docs/internals/target.md). Lives on the home shard, owned by the Directory; the other shards reach it by
// call_on().
//
// It takes no part in the target's turns of change: a handler may fence its namespace in the middle of a call, which
// whoever removes that namespace waits for.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "base/error.h"
#include "nvme/validate.h"
#include "target/control_handler.h"

namespace fairlead::target {

class ShardTarget;

class FencedNamespaces {
 public:
  // Of one association.
  static constexpr uint32_t kCallsMax = 8;  // under way
  static constexpr size_t kAnswersMax = 4;  // not fetched yet

  // `shards` is borrowed for life, and filled before the first namespace is added.
  FencedNamespaces(Reactor& home, const std::vector<std::unique_ptr<ShardTarget>>& shards);
  ~FencedNamespaces();  // Requires: close() returned, or nothing was added.

  CallerId new_caller() { return ++last_caller_; }

  // Every shard has the namespace, and lets nobody through.
  void add(const std::string& nqn, uint32_t nsid, std::shared_ptr<ControlHandler> handler);
  // No more calls and changes of it; returns when those under way have ended. Afterwards every shard may drop it. Does
  // nothing for a namespace that is not fenced. Both: one at a time.
  Task<void> remove(std::string nqn, uint32_t nsid);
  Task<void> remove_all_of(std::string nqn);
  // Of every subsystem.
  Task<void> close();

  // See Target.
  Task<Result<void>> fence(std::string nqn, uint32_t nsid);
  Task<Result<void>> admit(std::string nqn, uint32_t nsid, CallerId caller);

  // Replication Send: makes the call, waits for its answer and keeps that. Statuses: those of the command.
  struct Send {
    CallerId caller = kNobody;
    std::string nqn;
    uint32_t nsid = 0;
    std::vector<std::byte> request;
  };
  Task<nvme::StatusOr<nvme::ReplicationSent>> send(Send command);
  // Replication Receive: hands the answer out, once. An answer that is larger than `room` bytes stays.
  struct Receive {
    CallerId caller = kNobody;
    uint32_t nsid = 0;
    uint32_t call = 0;
    uint32_t room = 0;
  };
  Task<nvme::StatusOr<std::vector<std::byte>>> receive(Receive command);

  // The association ends: nobody waits for its calls any more, which go on, and none begins.
  Task<void> release(CallerId caller);
  // It has ended: handlers are told. Requires: no send() of it is under way.
  void end(CallerId caller, std::string_view nqn);

 private:
  using Key = std::pair<std::string, uint32_t>;
  struct Entry {
    Entry(Reactor& home, std::shared_ptr<ControlHandler> with) : handler(std::move(with)), changed(home) {}
    const std::shared_ptr<ControlHandler> handler;
    CallerId admitted = kNobody;
    bool is_changing = false;  // fence() or admit() runs; others wait in line
    bool is_leaving = false;
    uint32_t users = 0;  // calls and changes under way: until then the entry stays
    Event changed;
  };
  struct Answer {
    uint32_t nsid = 0;
    std::vector<std::byte> bytes;
  };
  struct Account {
    explicit Account(Reactor& home) : changed(home) {}
    bool is_released = false;
    uint32_t calls = 0;  // that run, or whose answer waits for room
    uint32_t last_call = 0;
    std::map<uint32_t, Answer> answers;  // by call
    Event changed;
  };
  struct Call {
    bool has_ended = false;
    nvme::ReplicationSent sent;
  };

  Entry* find(const Key& key) const;
  void leave(Entry& entry);
  Task<void> begin_change(Entry& entry);
  void end_change(Entry& entry);
  Task<void> set_caller(const Key& key, CallerId caller);
  Task<void> remove_entry(Key key);
  Account& account_of(CallerId caller);
  Task<void> run(Entry& entry, std::shared_ptr<Account> account, std::shared_ptr<Call> call, Send command);

  Reactor& home_;
  const std::vector<std::unique_ptr<ShardTarget>>& shards_;
  Scope scope_;
  std::map<Key, std::unique_ptr<Entry>> entries_;
  // shared_ptr: calls outlive the association that made them, and its waiting commands.
  std::map<CallerId, std::shared_ptr<Account>> accounts_;
  CallerId last_caller_ = kNobody;
};

}  // namespace fairlead::target
