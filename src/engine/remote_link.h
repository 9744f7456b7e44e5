// RemoteLink: the way of a target to a replica on another engine, over NVMe/TCP: a host::Subsystem that resends
// nothing. Lives on the home shard, but for the devices, which are of the shard that opened them.
//
// A connection is the controller's: when it is lost calls end with kConnectionLost or kUnreachable, and devices go on
// with the next one, where the replica refuses them until it was prepared there.
//
// Life-cycle: make, start(), stop(), destroy. Devices get no more requests once stop() is called, and die before this.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <vector>

#include "async/cancel.h"
#include "async/scope.h"
#include "host/subsystem.h"
#include "mirror/link.h"

namespace fairlead::engine {

class RemoteLink;

// The links of an engine, by where they connect to. Home shard.
using Neighbours = std::map<SocketAddress, std::vector<RemoteLink*>>;  // in the order of their making

struct RemoteLinkOptions {
  mirror::ReplicaId replica;
  SocketAddress address;
  // Others are as they are there; nqn, addresses and on_loss are the link's own.
  host::SubsystemOptions host = {};
  // A call that has no answer then ends with kTimedOut: it may still be executed. Longer than a replica may take to be
  // prepared: the lease that it gave, and I/O that it lets end.
  Duration call_limit = std::chrono::seconds(5);
  // Shared with other links, borrowed for life: when one connects, those to the same address that wait to try again do
  // so soon. May be null.
  Neighbours* neighbours = nullptr;
};

class RemoteLink final : public mirror::ReplicaLink {
 public:
  // `shards`: the home shard first; borrowed for life. Requires: host::check() is fine with the options.
  RemoteLink(std::vector<Shard*> shards, RemoteLinkOptions options);
  ~RemoteLink() override;  // Requires: stop() returned, or start() was never called.
  RemoteLink(const RemoteLink&) = delete;
  RemoteLink& operator=(const RemoteLink&) = delete;

  // Connects in the background, again and again: less and less often, up to reconnect_max.
  void start();
  // Ends the connection, calls and I/O. Idempotent.
  Task<void> stop() override;

  const mirror::ReplicaId& replica() const override { return options_.replica; }
  bool is_local() const override { return false; }
  uint64_t connection() const override;
  bool is_away() const override;
  Event& changed() override { return changed_; }
  void drop() override;
  Task<Result<mirror::Reply>> call(mirror::Request request) override;
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override;
  Task<Result<std::unique_ptr<BlockDevice>>> open_snapshot(Uuid snapshot) override;

 private:
  // A call, for as long as anyone has to do with it.
  struct Call {
    std::optional<Result<std::vector<std::byte>>> answer;
  };
  host::SubsystemOptions subsystem_options() const;
  Task<void> run();
  Task<bool> connect();
  void find_source();
  void tell_neighbours();
  void retry();
  Task<void> ask(uint64_t connection, std::vector<std::byte> request, std::shared_ptr<Call> call);

  const std::vector<Shard*> shards_;
  const RemoteLinkOptions options_;
  Reactor& reactor_;
  Random& random_;
  std::unique_ptr<host::Subsystem> subsystem_;  // null: the next attempt is later
  // Found on the first connection, then never another: devices of all connections are the same.
  std::shared_ptr<BlockSource> source_;  // shared with nobody; the type of Subsystem::source()
  std::atomic<bool> has_source_{false};  // of shards that open devices
  CancelSource stopping_;
  std::unique_ptr<CancelSource> waiting_;  // for the next attempt; null: it does not
  uint64_t told_ = 0;                      // the connection that neighbours know of
  Event changed_;
  Event moved_;  // a call has its answer
  Scope scope_;
  bool is_started_ = false;
  bool has_failed_ = false;  // the first attempt, or all so far
};

}  // namespace fairlead::engine
