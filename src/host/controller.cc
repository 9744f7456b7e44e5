#include "host/controller.h"

#include <algorithm>
#include <utility>

#include "async/call.h"
#include "base/check.h"
#include "base/log.h"

namespace fairlead::host {

using nvme::AnaState;

namespace {

constexpr uint16_t kAdminDepth = 31;
constexpr uint32_t kCallsMax = 4;  // what a target keeps of answers that were not fetched yet
constexpr int kKeepAliveSteps = 16;
constexpr auto kPatience = std::chrono::seconds(2);
// A path that says no though its ANA log says yes changes its mind soon, and is not to be asked all the time.
constexpr auto kSuspectDelay = std::chrono::milliseconds(20);

// Coroutines, so that they can be called on other shards.
Task<void> publish_on(ShardPaths& side, size_t path, std::vector<NamespaceView> namespaces) {
  side.publish(path, namespaces);
  co_return;
}
Task<void> fence_on(ShardPaths& side, std::vector<Fence> fences) {
  side.fence(fences);
  co_return;
}
Task<void> resume_on(ShardPaths& side, size_t path) {
  side.resume(path);
  co_return;
}

PathState path_state(AnaState state) {
  switch (state) {
    case AnaState::kOptimized:
      return PathState::kOptimized;
    case AnaState::kNonOptimized:
      return PathState::kNonOptimized;
    case AnaState::kInaccessible:
    case AnaState::kPersistentLoss:
    case AnaState::kChange:
      return PathState::kUnusable;
  }
  FL_UNREACHABLE("ANA states are checked when they are read");
}

}  // namespace

std::string_view state_name(ControllerState state) {
  switch (state) {
    case ControllerState::kConnecting:
      return "connecting";
    case ControllerState::kLive:
      return "live";
    case ControllerState::kWaiting:
      return "waiting to reconnect";
    case ControllerState::kStopped:
      return "stopped";
  }
  FL_UNREACHABLE("a ControllerState");
}

Controller::Controller(Shard& home, const SubsystemOptions& options, size_t path, std::vector<ShardPaths*> sides,
                       Event& changed)
    : home_(home),
      reactor_(home.reactor),
      options_(options),
      path_(path),
      sides_(std::move(sides)),
      changed_(changed),
      scope_(home.reactor),
      wake_(home.reactor),
      call_ended_(home.reactor) {
  status_.address = options.addresses[path];
}

void Controller::become(ControllerState state) {
  status_.state = state;
  changed_.release_waiters();
}

Task<void> Controller::run() {
  Duration delay{};
  while (!stopping_.is_cancelled()) {
    become(ControllerState::kConnecting);
    const Instant begin = reactor_.now();
    const Result<void> connected = co_await connect();
    ++status_.attempts;
    if (connected) {
      ++status_.connects;
      log_info("host.connected", {{"address", to_string(status_.address)}, {"nqn", options_.nqn}});
      become(ControllerState::kLive);
      co_await serve();
    } else {
      status_.last_error = connected.error();
    }
    if (!stopping_.is_cancelled()) {
      log_warn(
          connected ? "host.lost" : "host.connect_failed",
          {{"address", to_string(status_.address)}, {"nqn", options_.nqn}, {"error", to_string(status_.last_error)}});
    }
    become(ControllerState::kWaiting);
    co_await disconnect();
    // Who was there for a while is tried again at once; who is not there, or comes and goes, less and less often.
    const bool lived = connected && reactor_.now() - begin >= options_.reconnect_max;
    delay = lived ? Duration{} : std::clamp(delay * 2, options_.reconnect_min, options_.reconnect_max);
    const Duration jitter(static_cast<int64_t>(home_.random.below(static_cast<uint64_t>(delay.count()) / 4 + 1)));
    co_await wait_to_retry(delay - jitter);
    if (std::exchange(waiting_, nullptr) != nullptr) delay = {};
  }
  reactor_.disarm(patience_);
  become(ControllerState::kStopped);
}

// Told to retry it leaves `waiting_` to the caller.
Task<void> Controller::wait_to_retry(Duration span) {
  if (stopping_.is_cancelled()) co_return;
  const Instant soon = reactor_.now() + std::min(span, options_.reconnect_min);
  waiting_ = std::make_unique<CancelSource>();
  if (co_await sleep(reactor_, span, *waiting_)) {
    waiting_.reset();
  } else if (reactor_.now() < soon) {
    (void)co_await sleep(reactor_, soon - reactor_.now(), stopping_);
  }
}

void Controller::retry() {
  if (waiting_ != nullptr) waiting_->cancel();
}

void Controller::stop() {
  if (stopping_.is_cancelled() || status_.state == ControllerState::kStopped) return;
  stopping_.cancel();
  retry();
  wake_.release_waiters();
  if (status_.state == ControllerState::kConnecting) return cut_short("the host stops");
  reactor_.arm(patience_, kPatience);
}

void Controller::cut_short(const char* reason) {
  if (admin_queue_) admin_queue_->close(reason);
}

// Connecting.

QueueOptions Controller::queue_options(uint16_t qid, const ControllerInfo* info) const {
  QueueOptions queue;
  queue.address = status_.address;
  queue.subsystem_nqn = options_.nqn;
  queue.host_nqn = options_.identity.nqn;
  queue.host_id = options_.identity.id.bytes;
  queue.qid = qid;
  queue.header_digest = options_.header_digest;
  queue.data_digest = options_.data_digest;
  queue.connect_timeout = options_.connect_timeout;
  if (info == nullptr) {
    queue.depth = kAdminDepth;
    queue.keep_alive = options_.keep_alive;
    queue.command_timeout = options_.admin_timeout;
    return queue;
  }
  queue.controller_id = info->controller_id;
  queue.depth = static_cast<uint16_t>(std::clamp<uint32_t>(info->queue_entries_max - 1U, 1, options_.queue_depth));
  queue.in_capsule_max = info->in_capsule_max;
  queue.command_timeout = options_.command_timeout;
  queue.abort_timeout = options_.abort_timeout;
  return queue;
}

Task<Result<void>> Controller::connect() {
  is_lost_ = must_scan_ = must_read_ana_ = is_suspect_ = false;
  aborts_.clear();
  ending_ = std::make_unique<CancelSource>();
  admin_queue_ = std::make_unique<Queue>(home_, queue_options(0, nullptr));
  admin_ = std::make_unique<Admin>(reactor_, *admin_queue_);
  FL_CO_TRY_VOID(co_await admin_queue_->connect());
  FL_CO_TRY(ControllerInfo info, co_await admin_->bring_up());
  scope_.spawn(keep_alive_loop());  // from here on the controller's timer runs, however long the rest takes
  if (info.is_discovery) co_return fail(Code::kNotSupported, "a discovery controller has no namespaces");
  if (info.subsystem_nqn != options_.nqn) co_return fail(Code::kProtocol, "a controller of another subsystem");
  FL_CO_TRY(info.io_queues, co_await admin_->set_queue_count(static_cast<uint16_t>(sides_.size())));
  if (info.io_queues < sides_.size()) {
    co_return fail(Code::kResourceExhausted, "the controller has fewer I/O queues than we have shards");
  }
  const uint32_t events = info.async_events & (nvme::kAsyncEventNamespaceAttribute | nvme::kAsyncEventAnaChange);
  FL_CO_TRY_VOID(co_await admin_->set_async_events(events));
  status_.info = info;
  FL_CO_TRY_VOID(co_await scan());
  FL_CO_TRY_VOID(co_await connect_io_queues(info));
  co_await publish();
  scope_.spawn(event_loop());
  scope_.spawn(watch_admin());
  for (size_t i = 0; i < sides_.size(); ++i) scope_.spawn(watch_shard(i));
  co_return Result<void>();
}

Task<Result<void>> Controller::connect_io_queues(const ControllerInfo& info) {
  for (size_t i = 0; i < sides_.size(); ++i) {
    if (stopping_.is_cancelled()) co_return fail(Code::kShuttingDown);
    ShardPaths& side = *sides_[i];
    const auto qid = static_cast<uint16_t>(i + 1);
    FL_CO_TRY_VOID(
        co_await call_on(reactor_, side.shard().reactor, side.connect(path_, queue_options(qid, &info), info)));
  }
  co_return Result<void>();
}

// What the controller has and which of it is accessible.
Task<Result<void>> Controller::scan() {
  const Instant asked = reactor_.now();
  FL_CO_TRY(const std::vector<NamespaceInfo> found, co_await admin_->namespaces(status_.info));
  namespaces_.clear();
  for (const NamespaceInfo& info : found) namespaces_.push_back({info, asked, PathState::kOptimized});
  if (status_.info.has_ana) FL_CO_TRY_VOID(co_await read_ana());
  co_return Result<void>();
}

Task<Result<void>> Controller::read_ana() {
  FL_CO_TRY(const AnaStates states, co_await admin_->ana_states(status_.info));
  apply_ana(states);
  co_return Result<void>();
}

void Controller::apply_ana(const AnaStates& states) {
  for (NamespaceView& view : namespaces_) {
    const auto found = states.find(view.info.ana_group);
    view.state = found == states.end() ? PathState::kUnusable : path_state(found->second);
  }
}

Task<void> Controller::publish() {
  for (ShardPaths* const side : sides_) {
    co_await call_on(reactor_, side->shard().reactor, publish_on(*side, path_, namespaces_));
  }
  status_.namespaces = namespaces_;
  changed_.release_waiters();
}

// Serving.

Task<void> Controller::serve() {
  while (!is_lost_ && !stopping_.is_cancelled()) {
    Result<void> done;
    if (std::exchange(must_scan_, false)) {
      // Reading the page of an event is what lets the next one come.
      std::vector<std::byte> changed(sizeof(nvme::ChangedNamespaces));
      done = co_await admin_->read_log({.page = nvme::LogPage::kChangedNamespaces}, changed);
      if (done) done = co_await scan();
      if (done) co_await publish();
    } else if (std::exchange(must_read_ana_, false)) {
      if (std::exchange(is_suspect_, false)) (void)co_await sleep(reactor_, kSuspectDelay, stopping_);
      done = status_.info.has_stable_ana_groups ? co_await read_ana() : co_await scan();
      if (done) co_await publish();
    } else if (!aborts_.empty()) {
      const Abort abort = aborts_.back();
      aborts_.pop_back();
      co_await admin_->abort(abort.qid, abort.cid);
    } else {
      co_await wake_.wait();
    }
    if (!done) lose(done.error().code, done.error().what);
  }
}

void Controller::lose(Code code, const char* reason) {
  if (std::exchange(is_lost_, true)) return;
  status_.last_error = {code, 0, reason};
  cut_short(reason);  // who waits for an answer, to scan or to connect, waits no longer
  // serve() may be waiting for an answer that never comes.
  admin_queue_->close(reason);
  wake_.release_waiters();
  changed_.release_waiters();
}

void Controller::drop(const char* reason) {
  if (is_live()) lose(Code::kConnectionLost, reason);
}

Task<Result<std::vector<std::byte>>> Controller::call(uint32_t nsid, std::vector<std::byte> request) {
  FL_CHECK(!request.empty() && request.size() <= nvme::kReplicationSendBytesMax);
  if (!is_live()) co_return fail(Code::kUnreachable, "no controller is connected");
  // Until the count falls disconnect() waits, so the connection is this one still, though it may be lost.
  ++calls_;
  while (calls_sent_ == kCallsMax && is_live()) co_await call_ended_.wait();
  Result<std::vector<std::byte>> answer = fail(Code::kConnectionLost, "the path is lost");
  if (is_live()) {
    ++calls_sent_;
    answer = co_await admin_->call(nsid, request);
    --calls_sent_;
  }
  --calls_;
  call_ended_.release_waiters();
  co_return answer;
}

// Half of KATO apart, so that one may come late. Base 2.0 section 3.9. At whole steps, so that many controllers wake
// the shard, and the other side's, together.
Task<void> Controller::keep_alive_loop() {
  const Duration step = options_.keep_alive / (2 * kKeepAliveSteps);
  while (true) {
    const Duration half = options_.keep_alive / 2;
    if (!co_await sleep(reactor_, half - Duration((reactor_.now() + half).ns % step.count()), *ending_)) co_return;
    reactor_.arm(silence_, options_.keep_alive);
    const Result<void> answer = co_await admin_->keep_alive();
    reactor_.disarm(silence_);
    if (!answer) co_return lose(answer.error().code, answer.error().what);
  }
}

Task<void> Controller::event_loop() {
  while (true) {
    const Result<nvme::AsyncEvent> event = co_await admin_->next_event();
    if (!event) co_return;  // the queue is lost, or the controller does no events: it is asked no more
    if (event->type != nvme::AsyncEventType::kNotice) continue;
    switch (static_cast<nvme::NoticeInfo>(event->info)) {
      case nvme::NoticeInfo::kNamespaceAttributeChanged:
        must_scan_ = true;
        break;
      case nvme::NoticeInfo::kAnaChange:
        must_read_ana_ = true;
        break;
      default:
        break;
    }
    wake_.release_waiters();
  }
}

Task<void> Controller::watch_admin() {
  uint16_t cid = 0;
  while (!admin_queue_->is_lost()) {
    if (admin_queue_->take_expired(cid)) co_return lose(Code::kTimedOut, "an admin command was not answered in time");
    admin_queue_->attention().reset();
    co_await admin_queue_->attention().wait();
  }
  lose(Code::kConnectionLost, admin_queue_->reason());
}

Task<void> Controller::watch_shard(size_t index) {
  ShardPaths& side = *sides_[index];
  while (true) {
    const ShardPaths::Event event = co_await call_on(reactor_, side.shard().reactor, side.next_event(path_));
    switch (event.kind) {
      case ShardPaths::Event::Kind::kLost:
        co_return lose(Code::kConnectionLost, event.reason);
      case ShardPaths::Event::Kind::kExpired:
        aborts_.push_back({static_cast<uint16_t>(index + 1), event.cid});
        break;
      case ShardPaths::Event::Kind::kSuspect:
        must_read_ana_ = is_suspect_ = true;
        break;
    }
    wake_.release_waiters();
  }
}

// Ending.

// A controller whose timer is traffic based looks every keep-alive time-out, which it rounds up, and ends when it saw
// nothing between two looks.
Duration Controller::quiesce() const {
  if (options_.quiesce) return *options_.quiesce;
  const std::chrono::milliseconds unit(std::max(status_.info.keep_alive_unit_ms, 1U));
  return 2 * ((options_.keep_alive + unit - Duration(1)) / unit * unit);
}

Task<void> Controller::disconnect() {
  const bool in_order = stopping_.is_cancelled() && !is_lost_ && admin_queue_->is_live();
  ending_->cancel();
  reactor_.disarm(silence_);
  const char* const reason = in_order ? "the host disconnects" : "the path is lost";
  std::vector<Fence> fences;
  for (ShardPaths* const side : sides_) {
    const std::vector<Fence> open = co_await call_on(reactor_, side->shard().reactor, side->disconnect(path_, reason));
    fences.insert(fences.end(), open.begin(), open.end());
  }
  if (in_order) co_await admin_->shut_down();
  admin_queue_->close(reason);
  co_await admin_queue_->closed();
  co_await scope_.close();
  while (calls_ > 0) co_await call_ended_.wait();
  admin_.reset();
  admin_queue_.reset();
  const Instant until = reactor_.now() + quiesce();
  for (Fence& fence : fences) fence.until = until;
  for (ShardPaths* const side : sides_) {
    co_await call_on(reactor_, side->shard().reactor, fence_on(*side, fences));
  }
  for (ShardPaths* const side : sides_) {
    co_await call_on(reactor_, side->shard().reactor, resume_on(*side, path_));
  }
}

}  // namespace fairlead::host
