#include "target/shard_target.h"

#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "target/connection.h"

namespace fairlead::target {

ShardTarget::ShardTarget(Shard& shard, Reactor& home, const TargetOptions& options, Directory& directory)
    : shard_(shard),
      home_(home),
      options_(options),
      directory_(directory),
      connection_ended_(shard.reactor),
      scope_(shard.reactor) {}

ShardTarget::~ShardTarget() { FL_CHECK(connections_.empty() && subsystems_.empty()); }

Subsystem* ShardTarget::find_subsystem(std::string_view nqn) const {
  const auto at = subsystems_.find(nqn);
  return at == subsystems_.end() ? nullptr : at->second.get();
}

void ShardTarget::raise(std::string_view nqn, Notice notice, uint32_t nsid) {
  for (Controller& controller : controllers_) {
    if (!controller.is_discovery() && controller.association().subsystem_nqn == nqn) controller.raise(notice, nsid);
  }
}

void ShardTarget::raise_discovery_change() {
  ++discovery_generation_;
  for (Controller& controller : controllers_) {
    if (controller.is_discovery()) controller.raise(Notice::kDiscoveryChanged);
  }
}

Task<void> ShardTarget::add_port(Port port) {
  ports_.push_back(port);
  raise_discovery_change();
  co_return;
}

Task<Result<void>> ShardTarget::add_subsystem(SubsystemOptions options) {
  const std::string nqn = options.nqn;
  if (!subsystems_.try_emplace(nqn, std::make_unique<Subsystem>(std::move(options))).second) {
    co_return fail(Code::kAlreadyExists, "add a subsystem");
  }
  raise_discovery_change();
  co_return Result<void>{};
}

Task<void> ShardTarget::remove_subsystem(std::string nqn) {
  const auto at = subsystems_.find(nqn);
  FL_CHECK(at != subsystems_.end());
  // Connections hold the subsystem: none may be left before it goes. New ones do not find it.
  const std::unique_ptr<Subsystem> removed = std::move(at->second);
  subsystems_.erase(at);
  raise_discovery_change();
  while (true) {
    bool any = false;
    for (const auto& [id, connection] : connections_) {
      if (!connection->uses(*removed)) continue;
      any = true;
      connection->close("the subsystem was removed");
    }
    if (!any) break;
    co_await connection_ended_.wait();
  }
  // A fused command of another shard may hold a range here.
  std::vector<Namespace*> namespaces;
  removed->for_each_namespace([&](Namespace& nspace) { namespaces.push_back(&nspace); });
  for (Namespace* const nspace : namespaces) co_await nspace->drain();
}

Task<void> ShardTarget::set_allowed_hosts(std::string nqn, std::vector<std::string> hosts) {
  Subsystem& subsystem = *find_subsystem(nqn);
  subsystem.set_allowed_hosts(std::move(hosts));
  for (const auto& [id, connection] : connections_) {
    const std::string* const host = connection->host_of(subsystem);
    if (host != nullptr && !subsystem.allows(*host)) connection->close("the host may use the subsystem no more");
  }
  co_return;
}

Task<Result<void>> ShardTarget::add_namespace(std::string nqn, NamespaceIdentity identity,
                                              std::shared_ptr<BlockSource> source) {
  Subsystem* const subsystem = find_subsystem(nqn);
  if (subsystem == nullptr) co_return fail(Code::kNotFound, "add a namespace to a subsystem");
  FL_CO_TRY(std::unique_ptr<BlockDevice> device, source->open(shard_));
  subsystem->add(std::make_unique<Namespace>(reactor(), identity, std::move(device)));
  co_return Result<void>{};
}

Task<void> ShardTarget::remove_namespace(std::string nqn, uint32_t nsid) {
  Subsystem* const subsystem = find_subsystem(nqn);
  if (subsystem == nullptr || subsystem->find(nsid) == nullptr) co_return;
  const std::unique_ptr<Namespace> removed = subsystem->remove(nsid);
  raise(nqn, Notice::kNamespaceChanged, nsid);
  co_await removed->drain();
}

Task<Result<ShardTarget::Rescanned>> ShardTarget::rescan_namespace(std::string nqn, uint32_t nsid) {
  Subsystem* const subsystem = find_subsystem(nqn);
  Namespace* const nspace = subsystem == nullptr ? nullptr : subsystem->find(nsid);
  if (nspace == nullptr) co_return fail(Code::kNotFound, "rescan a namespace");
  const uint64_t before = nspace->blocks();
  FL_CO_TRY(const uint64_t size, nspace->device().refresh_size());
  subsystem->note_resized();
  co_return Rescanned{size, nspace->blocks() != before};
}

Task<void> ShardTarget::announce(std::string nqn, Notice notice, uint32_t nsid) {
  raise(nqn, notice, nsid);
  co_return;
}

Task<void> ShardTarget::set_ana_state(std::string nqn, PortIndex port, uint32_t group, AnaState state) {
  Subsystem* const subsystem = find_subsystem(nqn);
  if (subsystem == nullptr) co_return;
  subsystem->set_ana_state(port, group, state);
}

Task<IoCounters> ShardTarget::counters_of(std::string nqn) {
  IoCounters sum;
  if (const Subsystem* const subsystem = find_subsystem(nqn); subsystem != nullptr) {
    subsystem->for_each_namespace([&](Namespace& nspace) { sum += nspace.counters(); });
  }
  co_return sum;
}

Task<void> ShardTarget::lock_range(std::string nqn, uint32_t nsid, ByteOffset offset, uint64_t length) {
  Subsystem* const subsystem = find_subsystem(nqn);
  Namespace* const nspace = subsystem == nullptr ? nullptr : subsystem->find(nsid);
  if (nspace == nullptr) co_return;
  FL_CHECK(locked_.emplace(std::pair(nqn, nsid), nspace).second);
  nspace->begin_command();
  co_await nspace->gate().lock(offset, length);
}

Task<void> ShardTarget::unlock_range(std::string nqn, uint32_t nsid) {
  const auto at = locked_.find(std::pair(nqn, nsid));
  if (at == locked_.end()) co_return;
  Namespace& nspace = *at->second;
  locked_.erase(at);
  nspace.gate().unlock();
  nspace.end_command();
}

Task<void> ShardTarget::set_caller(std::string nqn, uint32_t nsid, CallerId caller) {
  find_subsystem(nqn)->find(nsid)->admit(caller);
  co_return;
}

Task<void> ShardTarget::drain_namespace(std::string nqn, uint32_t nsid) {
  co_await find_subsystem(nqn)->find(nsid)->drain();
}

Task<Result<void>> ShardTarget::flush_all() {
  Result<void> outcome;
  std::vector<std::pair<std::string, uint32_t>> all;
  for (const auto& [nqn, subsystem] : subsystems_) {
    subsystem->for_each_namespace([&](Namespace& nspace) { all.emplace_back(nqn, nspace.identity().nsid); });
  }
  for (const auto& [nqn, nsid] : all) {
    Subsystem* const subsystem = find_subsystem(nqn);
    Namespace* const nspace = subsystem == nullptr ? nullptr : subsystem->find(nsid);
    if (nspace == nullptr || nspace->device().geometry().read_only) continue;
    nspace->begin_command();
    const Result<void> flushed = co_await block_flush(reactor(), nspace->device());
    nspace->end_command();
    if (!flushed) outcome = flushed;
  }
  co_return outcome;
}

Task<void> ShardTarget::remove_everything() {
  FL_CHECK(connections_.empty());
  subsystems_.clear();
  co_return;
}

Task<void> ShardTarget::serve(std::unique_ptr<Accepted> accepted, PortIndex port) {
  if (closed_) co_return;
  Result<std::unique_ptr<Stream>> stream = shard_.network.adopt(std::move(accepted));
  if (!stream) {
    log_warn("target.connection_refused", {{"error", to_string(stream.error())}});
    co_return;
  }
  const uint64_t id = next_connection_++;
  auto connection = std::make_unique<Connection>(*this, std::move(*stream), id, port);
  Connection& reference = *connection;
  connections_.emplace(id, std::move(connection));
  co_await reference.run();
  connections_.erase(id);
  connection_ended_.release_waiters();
}

Task<void> ShardTarget::close_connection(uint64_t id, const char* reason) {
  if (const auto at = connections_.find(id); at != connections_.end()) at->second->close(reason);
  co_return;
}

Task<bool> ShardTarget::abort(uint64_t connection, uint16_t cid) {
  const auto at = connections_.find(connection);
  co_return at != connections_.end() && at->second->abort(cid);
}

Task<void> ShardTarget::begin_close(const char* reason) {
  closed_ = true;
  for (const auto& [id, connection] : connections_) connection->close_gently(reason);
  co_return;
}

Task<void> ShardTarget::close() {
  FL_CHECK(closed_);
  while (!connections_.empty()) co_await connection_ended_.wait();
  co_await scope_.close();
}

}  // namespace fairlead::target
