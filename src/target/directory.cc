#include "target/directory.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "async/call.h"
#include "base/check.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::StatusCode;

Directory::Directory(Reactor& home, const TargetOptions& options, TargetObserver* observer,
                     const std::vector<std::unique_ptr<ShardTarget>>& shards)
    : home_(home),
      options_(options),
      observer_(observer),
      shards_(shards),
      fenced_(home, shards),
      scope_(home),
      next_id_(options.controller_id_min) {}

Directory::~Directory() { FL_CHECK(controllers_.empty()); }

std::map<std::string, size_t> Directory::controllers_by_subsystem() const {
  std::map<std::string, size_t> counts;
  for (const auto& [key, entry] : controllers_) ++counts[key.subsystem_nqn];
  return counts;
}

size_t Directory::controllers_of(const std::string& subsystem_nqn) const {
  const auto first = controllers_.lower_bound({subsystem_nqn, 0});
  const auto last = controllers_.upper_bound({subsystem_nqn, UINT16_MAX});
  return static_cast<size_t>(std::distance(first, last));
}

// Round and round, so that an id is not soon used again. Requires: one is free.
uint16_t Directory::take_id(const std::string& subsystem_nqn) {
  const auto next = [this](uint16_t id) {
    return id == options_.controller_id_max ? options_.controller_id_min : static_cast<uint16_t>(id + 1);
  };
  while (controllers_.contains({subsystem_nqn, next_id_})) next_id_ = next(next_id_);
  return std::exchange(next_id_, next(next_id_));
}

HostSession Directory::session_of(const Entry& entry) const {
  return {entry.association->host_nqn, entry.association->subsystem_nqn, entry.association->controller_id,
          static_cast<uint16_t>(entry.queues.size())};
}

Task<nvme::StatusOr<std::shared_ptr<Association>>> Directory::create(Create wanted) {
  const size_t ids = size_t{options_.controller_id_max} - options_.controller_id_min + 1;
  if (controllers_of(wanted.subsystem_nqn) >= ids) {
    co_return std::unexpected(nvme::transient(StatusCode::kConnectControllerBusy));
  }
  auto association = std::make_shared<Association>();
  association->controller_id = take_id(wanted.subsystem_nqn);
  association->caller = fenced_.new_caller();
  association->subsystem_nqn = std::move(wanted.subsystem_nqn);
  association->host_nqn = std::move(wanted.host_nqn);
  association->host_id = wanted.host_id;
  association->port = wanted.port;
  association->admin_shard = wanted.place.shard;
  association->admin_connection = wanted.place.connection;
  controllers_[association->key()] = Entry{.association = association, .queues = {}, .discovery = wanted.discovery};
  co_return association;
}

void Directory::note_added(const std::string& subsystem_nqn) { std::erase(removed_, subsystem_nqn); }

void Directory::note_removed(const std::string& subsystem_nqn) {
  note_added(subsystem_nqn);
  removed_.push_back(subsystem_nqn);
  if (removed_.size() > kRemovedMax) removed_.pop_front();
}

Task<bool> Directory::may_come(std::string subsystem_nqn) {
  co_return options_.when_absent == WhenAbsent::kComeAgain&& std::ranges::find(removed_, subsystem_nqn) ==
      removed_.end();
}

Task<nvme::StatusOr<std::shared_ptr<Association>>> Directory::attach(Attach wanted) {
  const auto at = controllers_.find({wanted.subsystem_nqn, wanted.controller_id});
  if (at == controllers_.end()) co_return nvme::reject(StatusCode::kConnectInvalidParameters);
  Entry& entry = at->second;
  const Association& association = *entry.association;
  if (entry.discovery || association.port != wanted.port) {
    co_return nvme::reject(StatusCode::kConnectInvalidParameters);
  }
  if (association.host_nqn != wanted.host_nqn || association.host_id != wanted.host_id) {
    co_return nvme::reject(StatusCode::kConnectInvalidHost);
  }
  if (!association.ready.load()) co_return nvme::reject(StatusCode::kCommandSequenceError);
  if (wanted.qid > association.io_queues.load()) co_return nvme::reject(StatusCode::kInvalidQueueId);
  if (!entry.queues.emplace(wanted.qid, wanted.place).second) {
    co_return nvme::reject(StatusCode::kCommandSequenceError);
  }
  ++entry.association->connected_queues;
  if (observer_ != nullptr && !entry.announced && entry.queues.size() == association.io_queues.load()) {
    entry.announced = true;
    observer_->host_connected(session_of(entry));
  }
  co_return entry.association;
}

Task<void> Directory::detach(ControllerKey controller, uint16_t qid, QueuePlace place) {
  const auto at = controllers_.find(controller);
  if (at == controllers_.end()) co_return;
  Entry& entry = at->second;
  const auto queue = entry.queues.find(qid);
  if (queue == entry.queues.end() || queue->second != place) co_return;
  entry.queues.erase(queue);
  --entry.association->connected_queues;
}

Task<void> Directory::close_connection(QueuePlace place, const char* reason) {
  ShardTarget& shard_target = *shards_[place.shard.value];
  co_await call_on(home_, shard_target.reactor(), shard_target.close_connection(place.connection, reason));
}

Task<void> Directory::close_queues(ControllerKey controller, const char* reason) {
  const auto at = controllers_.find(controller);
  if (at == controllers_.end()) co_return;
  const auto queues = std::exchange(at->second.queues, {});
  at->second.association->connected_queues.store(0);
  for (const auto& [qid, place] : queues) scope_.spawn(close_connection(place, reason));
}

Task<void> Directory::destroy(ControllerKey controller, const char* reason) {
  const auto at = controllers_.find(controller);
  FL_CHECK(at != controllers_.end());
  const Entry entry = std::move(at->second);
  controllers_.erase(at);
  if (!closing_) {
    for (const auto& [qid, place] : entry.queues) scope_.spawn(close_connection(place, reason));
  }
  fenced_.end(entry.association->caller, entry.association->subsystem_nqn);
  if (observer_ != nullptr && !entry.discovery) observer_->host_disconnected(session_of(entry), reason);
  co_return;
}

Task<bool> Directory::abort(ControllerKey controller, uint16_t qid, uint16_t cid) {
  const auto at = controllers_.find(controller);
  if (at == controllers_.end()) co_return false;
  const auto queue = at->second.queues.find(qid);
  if (queue == at->second.queues.end()) co_return false;
  const QueuePlace place = queue->second;
  ShardTarget& shard_target = *shards_[place.shard.value];
  co_return co_await call_on(home_, shard_target.reactor(), shard_target.abort(place.connection, cid));
}

Task<void> Directory::lock_range(std::string subsystem_nqn, uint32_t nsid, ByteOffset offset, uint64_t length) {
  RangeLock& lock = range_locks_.try_emplace({subsystem_nqn, nsid}, home_).first->second;
  ++lock.users;
  while (lock.held) co_await lock.freed.wait();
  lock.held = true;
  for (const auto& shard_target : shards_) {
    co_await call_on(home_, shard_target->reactor(), shard_target->lock_range(subsystem_nqn, nsid, offset, length));
  }
}

Task<void> Directory::unlock_range(std::string subsystem_nqn, uint32_t nsid) {
  for (const auto& shard_target : shards_) {
    co_await call_on(home_, shard_target->reactor(), shard_target->unlock_range(subsystem_nqn, nsid));
  }
  const auto at = range_locks_.find({subsystem_nqn, nsid});
  FL_CHECK(at != range_locks_.end() && at->second.held);
  at->second.held = false;
  at->second.freed.release_waiters();
  if (--at->second.users == 0) range_locks_.erase(at);
}

Task<IoCounters> Directory::counters_of(std::string subsystem_nqn) {
  IoCounters sum;
  for (const auto& shard_target : shards_) {
    sum += co_await call_on(home_, shard_target->reactor(), shard_target->counters_of(subsystem_nqn));
  }
  co_return sum;
}

Task<void> Directory::close() { co_await scope_.close(); }

}  // namespace fairlead::target
