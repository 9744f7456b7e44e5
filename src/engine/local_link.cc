#include "engine/local_link.h"

#include <utility>

#include "base/check.h"

namespace fairlead::engine {

LocalLink::LocalLink(Replica& replica)
    : replica_(replica),
      changed_(replica.home().reactor),
      moved_(replica.home().reactor),
      scope_(replica.home().reactor) {}

LocalLink::~LocalLink() { FL_CHECK(connection() == 0 && scope_.running() == 0); }

void LocalLink::start() { set_connection(replica_.connect(*this)); }

Task<void> LocalLink::stop() {
  const mirror::CallerId last = connection();
  set_connection(0);
  if (last != 0) co_await replica_.disconnect(last);
  co_await scope_.close();
}

void LocalLink::set_connection(mirror::CallerId caller) {
  connection_.store(caller, std::memory_order_release);
  moved_.release_waiters();
  changed_.release_waiters();
}

void LocalLink::drop() {
  const mirror::CallerId last = connection();
  if (last == 0) return;
  scope_.spawn(replica_.disconnect(last));
  set_connection(replica_.connect(*this));
}

void LocalLink::lose() { set_connection(0); }

Task<Result<mirror::Reply>> LocalLink::call(mirror::Request request) {
  const mirror::CallerId caller = connection();
  if (caller == 0) co_return fail(Code::kUnreachable, "the replica is closed");
  // shared_ptr: whoever waits leaves when the connection is lost, the replica goes on.
  const auto call = std::make_shared<Call>();
  scope_.spawn(ask(caller, std::move(request), call));
  while (!call->reply && connection() == caller) co_await moved_.wait();
  if (!call->reply) co_return fail(Code::kConnectionLost, "the replica was let go");
  co_return *std::move(call->reply);
}

Task<void> LocalLink::ask(mirror::CallerId caller, mirror::Request request, std::shared_ptr<Call> call) {
  // Nothing is begun for a connection that is over.
  if (connection() == caller) call->reply = co_await replica_.keeper().handle(caller, std::move(request));
  moved_.release_waiters();
}

Result<std::unique_ptr<BlockDevice>> LocalLink::open(Shard& shard) {
  const mirror::CallerId caller = connection();
  if (caller == 0) return fail(Code::kUnreachable, "the replica is closed");
  return replica_.local_.open_device(shard, caller);
}

Task<Result<std::unique_ptr<BlockDevice>>> LocalLink::open_snapshot(Uuid snapshot) {
  if (connection() == 0) co_return fail(Code::kUnreachable, "the replica is closed");
  co_return replica_.open_snapshot(snapshot);
}

}  // namespace fairlead::engine
