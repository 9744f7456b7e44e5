#include "engine/remote_link.h"

#include <algorithm>
#include <utility>

#include "async/alarm.h"
#include "base/check.h"
#include "base/log.h"
#include "engine/replica.h"

namespace fairlead::engine {
namespace {

// What a link may say of a call that has no reply.
Error link_error(const Error& error) {
  switch (error.code) {
    case Code::kConnectionLost:
    case Code::kTimedOut:
    case Code::kUnreachable:
    case Code::kProtocol:
      return error;
    default:
      return {.code = Code::kUnreachable, .os_errno = error.os_errno, .what = error.what};
  }
}

}  // namespace

RemoteLink::RemoteLink(std::vector<Shard*> shards, RemoteLinkOptions options)
    : shards_(std::move(shards)),
      options_(std::move(options)),
      reactor_(shards_.front()->reactor),
      random_(shards_.front()->random),
      changed_(reactor_),
      moved_(reactor_),
      scope_(reactor_) {
  FL_CHECK(host::check(subsystem_options()).has_value());
}

RemoteLink::~RemoteLink() { FL_CHECK(!is_started_ || (stopping_.is_cancelled() && scope_.running() == 0)); }

host::SubsystemOptions RemoteLink::subsystem_options() const {
  host::SubsystemOptions host = options_.host;
  host.nqn = replica_nqn(options_.replica);
  host.addresses = {options_.address};
  host.on_loss = host::OnLoss::kFail;
  return host;
}

void RemoteLink::start() {
  FL_CHECK(!std::exchange(is_started_, true));
  if (options_.neighbours != nullptr) (*options_.neighbours)[options_.address].push_back(this);
  scope_.spawn(run());
}

Task<void> RemoteLink::stop() {
  if (!is_started_) co_return;
  if (options_.neighbours != nullptr) std::erase((*options_.neighbours)[options_.address], this);
  stopping_.cancel();
  if (waiting_ != nullptr) waiting_->cancel();
  if (subsystem_ != nullptr) co_await subsystem_->stop();
  changed_.release_waiters();
  co_await scope_.close();
}

// Until it is stopped. The subsystem connects again by itself once it was connected; until then we do, as it would.
Task<void> RemoteLink::run() {
  Duration delay{};
  while (!stopping_.is_cancelled() && !co_await connect()) {
    delay = std::clamp(delay * 2, options_.host.reconnect_min, options_.host.reconnect_max);
    const Duration jitter(static_cast<int64_t>(random_.below(static_cast<uint64_t>(delay.count()) / 4 + 1)));
    if (stopping_.is_cancelled()) break;
    const Instant soon = reactor_.now() + options_.host.reconnect_min;
    waiting_ = std::make_unique<CancelSource>();
    const bool is_over = (co_await sleep(reactor_, delay - jitter, *waiting_)).has_value();
    waiting_.reset();
    if (is_over) continue;
    // Told to hurry: soon, and if that fails soon again.
    delay = {};
    if (reactor_.now() < soon) (void)co_await sleep(reactor_, soon - reactor_.now(), stopping_);
  }
  while (!stopping_.is_cancelled()) {
    find_source();
    tell_neighbours();
    changed_.release_waiters();
    moved_.release_waiters();
    co_await subsystem_->changed().wait();
  }
}

Task<bool> RemoteLink::connect() {
  subsystem_ = std::make_unique<host::Subsystem>(shards_, subsystem_options());
  has_failed_ = !co_await subsystem_->start();
  if (!has_failed_) co_return true;
  changed_.release_waiters();
  if (!stopping_.is_cancelled()) subsystem_.reset();
  co_return false;
}

void RemoteLink::tell_neighbours() {
  const uint64_t now = subsystem_->connection(0);
  if (options_.neighbours == nullptr || std::exchange(told_, now) == now || now == 0) return;
  for (RemoteLink* const each : options_.neighbours->at(options_.address)) {
    if (each != this) each->retry();
  }
}

void RemoteLink::retry() {
  if (waiting_ != nullptr) waiting_->cancel();
  if (subsystem_ != nullptr) subsystem_->retry();
}

void RemoteLink::find_source() {
  if (source_ != nullptr || subsystem_->connection(0) == 0) return;
  Result<std::shared_ptr<BlockSource>> source = subsystem_->source(kReplicaNsid);
  if (!source) return;  // the namespace comes a little later, or never
  source_ = std::move(*source);
  has_source_.store(true, std::memory_order_release);
}

bool RemoteLink::is_away() const {
  if (connection() != 0) return false;
  return has_failed_ ||
         (subsystem_ != nullptr && subsystem_->controllers().front().state == host::ControllerState::kWaiting);
}
uint64_t RemoteLink::connection() const {
  return source_ == nullptr || stopping_.is_cancelled() ? 0 : subsystem_->connection(0);
}

void RemoteLink::drop() {
  if (connection() != 0) subsystem_->drop(0, "the target let the replica go");
}

Task<Result<mirror::Reply>> RemoteLink::call(mirror::Request request) {
  const uint64_t number = connection();
  if (number == 0) co_return fail(Code::kUnreachable, "no connection to the replica");
  // shared_ptr: whoever waits leaves when the time is over, the command goes on.
  const auto call = std::make_shared<Call>();
  scope_.spawn(ask(number, mirror::encode(request), call));
  const Instant until = reactor_.now() + options_.call_limit;
  const Alarm alarm(reactor_, moved_, until);
  while (!call->answer && reactor_.now() < until) co_await moved_.wait();
  if (!call->answer) co_return fail(Code::kTimedOut, "the replica does not answer");
  if (!*call->answer) co_return std::unexpected(link_error(call->answer->error()));
  co_return mirror::decode_reply(**call->answer);
}

Task<void> RemoteLink::ask(uint64_t number, std::vector<std::byte> request, std::shared_ptr<Call> call) {
  // A call belongs to the connection that it was begun on.
  if (connection() == number) {
    call->answer = co_await subsystem_->call(kReplicaNsid, std::move(request));
  } else {
    call->answer = fail(Code::kConnectionLost, "the connection to the replica was lost");
  }
  moved_.release_waiters();
}

Result<std::unique_ptr<BlockDevice>> RemoteLink::open(Shard& shard) {
  if (!has_source_.load(std::memory_order_acquire)) return fail(Code::kUnreachable, "no connection to the replica");
  return source_->open(shard);
}

// The controller tells of the namespace that was added, and it is asked for, a little after the call was answered.
Task<Result<std::unique_ptr<BlockDevice>>> RemoteLink::open_snapshot(Uuid snapshot) {
  const uint64_t number = connection();
  const Instant until = reactor_.now() + options_.call_limit;
  const Alarm alarm(reactor_, moved_, until);
  std::shared_ptr<BlockSource> found;
  while (number != 0 && connection() == number && reactor_.now() < until) {
    for (const host::NamespaceInfo& shown : subsystem_->namespaces()) {
      if (shown.identity.uuid != snapshot || shown.identity.nsid == kReplicaNsid) continue;
      Result<std::shared_ptr<BlockSource>> source = subsystem_->source(shown.identity.nsid);
      if (source) found = std::move(*source);
    }
    if (found != nullptr) break;
    co_await moved_.wait();
  }
  if (connection() != number || number == 0) co_return fail(Code::kUnreachable, "no connection to the replica");
  if (found == nullptr) co_return fail(Code::kTimedOut, "the replica does not show the snapshot");
  co_return found->open(*shards_.front());
}

}  // namespace fairlead::engine
