#include "engine/replica.h"

#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "engine/local_link.h"

namespace fairlead::engine {

std::string replica_nqn(const mirror::ReplicaId& id) { return "nqn.2026-01.io.fairlead:replica:" + to_string(id); }

// Both ways at once: a caller comes by one of them.
class Replica::Gate final : public mirror::ReplicaGate {
 public:
  explicit Gate(Replica& replica) : replica_(replica) {}

  Task<void> close() override {
    co_await replica_.local_.close();
    // kNotFound: the namespace has gone, or is going; who takes it off waits for what is under way there.
    if (replica_.target_ != nullptr) (void)co_await replica_.target_->fence(replica_.nqn_, kReplicaNsid);
  }
  Task<void> open(mirror::CallerId caller) override {
    if (replica_.links_.contains(caller)) {
      co_await replica_.local_.open(caller);
    } else if (replica_.target_ != nullptr) {
      (void)co_await replica_.target_->admit(replica_.nqn_, kReplicaNsid, caller);
    }
  }
  Task<Result<void>> show(Uuid snapshot) override { return replica_.show_snapshot(snapshot); }
  Task<void> hide(Uuid snapshot) override { return replica_.hide_snapshot(snapshot); }
  Task<void> tell_size() override {
    if (replica_.target_ != nullptr) (void)co_await replica_.target_->rescan_namespace(replica_.nqn_, kReplicaNsid);
  }

 private:
  Replica& replica_;
};

// What hosts ask for.
class Replica::Handler final : public target::ControlHandler {
 public:
  explicit Handler(Replica& replica) : replica_(replica) {}

  Task<std::vector<std::byte>> call(target::CallerId caller, std::vector<std::byte> bytes) override {
    Result<mirror::Request> request = mirror::decode_request(bytes);
    if (!request) {
      log_warn("replica.bad_request", {{"replica", to_string(replica_.id_)}, {"error", to_string(request.error())}});
      co_return mirror::encode(mirror::Reply(mirror::Failed{Code::kProtocol}));
    }
    if (replica_.is_closing_) co_return mirror::encode(mirror::Reply(mirror::Failed{Code::kShuttingDown}));
    co_return mirror::encode(co_await replica_.keeper_->handle(caller, *std::move(request)));
  }
  void gone(target::CallerId caller) override { replica_.scope_.spawn(replica_.forget(caller)); }

 private:
  Replica& replica_;
};

Task<Result<std::unique_ptr<Replica>>> Replica::open(std::vector<Shard*> shards, pool::Pool& pool,
                                                     target::Target* target, ReplicaOptions options) {
  FL_CO_TRY(auto store, PoolReplicaStore::open(*shards.front(), pool, options.id));
  const std::string name = to_string(options.id);
  FL_CO_TRY(const pool::ObjectInfo info, pool.find(name));
  FL_CO_TRY(auto source, co_await pool.source(name));
  std::unique_ptr<Replica> replica(
      new Replica(std::move(shards), pool, target, std::move(source), std::move(store), info.state.volume_id, options));
  if (options.changes != nullptr) replica->scope_.spawn(replica->tell(*options.changes));
  if (const Result<void> attached = co_await replica->attach(); !attached) {
    co_await replica->close();
    co_return std::unexpected(attached.error());
  }
  co_return replica;
}

Replica::Replica(std::vector<Shard*> shards, pool::Pool& pool, target::Target* target,
                 std::shared_ptr<BlockSource> source, std::unique_ptr<PoolReplicaStore> store, Uuid volume,
                 const ReplicaOptions& options)
    : shards_(std::move(shards)),
      pool_(pool),
      target_(target),
      id_(options.id),
      volume_(volume),
      nqn_(replica_nqn(options.id)),
      source_(std::move(source)),
      store_(std::move(store)),
      local_(shards_, source_),
      gate_(std::make_unique<Gate>(*this)),
      scope_(home().reactor) {
  const mirror::KeeperOptions of_keeper = {.volume = volume_, .replica = id_, .lease_max = options.lease_max};
  keeper_ = std::make_unique<mirror::Keeper>(home(), *store_, *gate_, of_keeper);
}

Replica::~Replica() { FL_CHECK(is_closed_ && links_.empty()); }

Task<void> Replica::tell(Changes& changes) {
  while (!is_closing_) {
    co_await keeper_->changed().wait();
    changes.tell();
  }
}

Task<Result<void>> Replica::attach() {
  if (target_ == nullptr) co_return Result<void>();
  FL_CO_TRY_VOID(co_await target_->add_subsystem({.nqn = nqn_, .serial = "", .allowed_hosts = {}}));
  target::NamespaceOptions options{
      .nsid = kReplicaNsid, .source = source_, .uuid = id_, .control = std::make_shared<Handler>(*this)};
  FL_CO_TRY(const uint32_t nsid, co_await target_->add_namespace(nqn_, std::move(options)));
  FL_CHECK(nsid == kReplicaNsid);
  co_return Result<void>();
}

Task<Result<void>> Replica::show_snapshot(Uuid id) {
  if (shown_.contains(id)) co_return Result<void>();
  FL_CO_TRY(const PoolReplicaStore::Kept kept, store_->find_snapshot(id));
  FL_CO_TRY(auto source, co_await pool_.source(to_string(kept.object)));
  Shown shown{.source = std::move(source), .nsid = 0};
  if (target_ != nullptr) {
    target::NamespaceOptions options{.nsid = 0, .source = shown.source, .uuid = id, .control = nullptr};
    FL_CO_TRY(shown.nsid, co_await target_->add_namespace(nqn_, std::move(options)));
  }
  shown_.emplace(id, std::move(shown));
  co_return Result<void>();
}

Task<void> Replica::hide_snapshot(Uuid id) {
  const auto found = shown_.find(id);
  if (found == shown_.end()) co_return;
  const Shown shown = std::move(found->second);
  shown_.erase(found);
  if (target_ != nullptr) (void)co_await target_->remove_namespace(nqn_, shown.nsid);
}

Result<std::unique_ptr<BlockDevice>> Replica::open_snapshot(const Uuid& id) {
  const auto found = shown_.find(id);
  if (found == shown_.end()) return fail(Code::kUnreachable, "the snapshot is not shown");
  return found->second.source->open(home());
}

// Errors: what was not there.
Task<void> Replica::detach() {
  while (!shown_.empty()) co_await hide_snapshot(shown_.begin()->first);
  if (target_ == nullptr) co_return;
  (void)co_await target_->remove_namespace(nqn_, kReplicaNsid);
  (void)co_await target_->remove_subsystem(nqn_);
}

Task<void> Replica::close() {
  is_closing_ = true;
  for (const auto& [caller, link] : std::exchange(links_, {})) link->lose();
  co_await keeper_->close();
  co_await detach();
  co_await scope_.close();
  is_closed_ = true;
}

Task<void> Replica::forget(mirror::CallerId caller) {
  if (!is_closing_) co_await keeper_->forget(caller);
}

mirror::CallerId Replica::connect(LocalLink& link) {
  if (is_closing_) return 0;
  const mirror::CallerId caller = target_ == nullptr ? ++last_caller_ : target_->new_caller();
  links_.emplace(caller, &link);
  return caller;
}

Task<void> Replica::disconnect(mirror::CallerId caller) {
  links_.erase(caller);
  co_await forget(caller);
}

}  // namespace fairlead::engine
