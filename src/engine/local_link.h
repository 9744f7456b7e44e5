// LocalLink: the way of a target to a replica in its own process. Lives on the home shard, but for the devices, which
// are of the shard that opened them.
//
// A connection is a number here. It is lost by drop() and when the replica closes; I/O that the pool has by then ends
// when the pool ends it. Devices are of the connection that there was when they were opened: afterwards their I/O fails
// with kFenced.
//
// Life-cycle: make, start(), stop(), destroy; the replica lives longer. Devices die before the replica.
#pragma once

#include <atomic>
#include <memory>

#include "async/scope.h"
#include "engine/replica.h"
#include "mirror/link.h"

namespace fairlead::engine {

class LocalLink final : public mirror::ReplicaLink {
 public:
  explicit LocalLink(Replica& replica);
  ~LocalLink() override;  // Requires: stop() returned, or start() was never called.
  LocalLink(const LocalLink&) = delete;
  LocalLink& operator=(const LocalLink&) = delete;

  void start();
  // Ends the connection; returns when nothing that was asked by this link is under way. Idempotent.
  Task<void> stop() override;

  const mirror::ReplicaId& replica() const override { return replica_.id(); }
  bool is_local() const override { return true; }
  bool is_away() const override { return connection() == 0; }
  uint64_t connection() const override { return connection_.load(std::memory_order_acquire); }
  Event& changed() override { return changed_; }
  void drop() override;
  Task<Result<mirror::Reply>> call(mirror::Request request) override;
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override;
  Task<Result<std::unique_ptr<BlockDevice>>> open_snapshot(Uuid snapshot) override;

 private:
  friend class Replica;
  // A call, for as long as anyone has to do with it.
  struct Call {
    std::optional<mirror::Reply> reply;
  };
  // The replica closes.
  void lose();
  void set_connection(mirror::CallerId caller);
  Task<void> ask(mirror::CallerId caller, mirror::Request request, std::shared_ptr<Call> call);

  Replica& replica_;
  std::atomic<mirror::CallerId> connection_{0};  // set on the home shard; read where devices are opened
  Event changed_;
  Event moved_;  // a call has its reply, or connection_ is another
  Scope scope_;
};

}  // namespace fairlead::engine
