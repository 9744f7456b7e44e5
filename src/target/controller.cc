#include "target/controller.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "target/queue.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::AdminOpcode;
using nvme::DataTransfer;
using nvme::StatusCode;

Controller::Controller(ShardTarget& shard_target, Queue& admin_queue, std::shared_ptr<Association> association,
                       Subsystem* subsystem, uint32_t keep_alive_ms)
    : shard_target_(shard_target),
      admin_queue_(admin_queue),
      association_(std::move(association)),
      subsystem_(subsystem),
      scope_(shard_target.reactor()),
      keep_alive_timer_(*this) {
  shard_target_.add(*this);
  set_keep_alive(is_discovery() && keep_alive_ms == 0 ? shard_target_.options().discovery_keep_alive_ms
                                                      : keep_alive_ms);
}

Controller::~Controller() {
  shard_target_.reactor().disarm(keep_alive_timer_);
  shard_target_.remove(*this);
}

Task<void> Controller::close() {
  shard_target_.reactor().disarm(keep_alive_timer_);
  keep_alive_ms_ = 0;
  release_events();
  co_await release_sends();
  co_await scope_.close();
}

nvme::StatusOr<DataNeed> Controller::prepare(const nvme::SubmissionEntry& command, uint32_t data_length) const {
  if (!status_.ready()) return nvme::reject(StatusCode::kCommandSequenceError);
  if (command.fuse() != nvme::Fuse::kNone) return nvme::reject(StatusCode::kInvalidField);
  switch (static_cast<AdminOpcode>(command.opcode)) {
    case AdminOpcode::kIdentify: {
      const auto wanted = nvme::decode_identify(command, data_length);
      if (!wanted) return std::unexpected(wanted.error());
      return DataNeed{DataTransfer::kControllerToHost, std::min<uint32_t>(nvme::kIdentifySize, data_length)};
    }
    case AdminOpcode::kGetLogPage:
      return prepare_log_page(command, data_length);
    case AdminOpcode::kSetFeatures:
    case AdminOpcode::kGetFeatures:
      return prepare_feature(command);
    case AdminOpcode::kAbort:
      if (is_discovery()) return nvme::reject(StatusCode::kInvalidOpcode);
      return DataNeed{};
    case AdminOpcode::kAsyncEventRequest:
    case AdminOpcode::kKeepAlive:
      return DataNeed{};
    case AdminOpcode::kReplicationSend:
    case AdminOpcode::kReplicationReceive:
      return prepare_control(command, data_length);
    default:
      return nvme::reject(StatusCode::kInvalidOpcode);
  }
}

void Controller::execute(Request& request) {
  association_->note_traffic();
  switch (static_cast<AdminOpcode>(request.command.opcode)) {
    case AdminOpcode::kIdentify:
      return admin_queue_.complete(request, identify(request));
    case AdminOpcode::kGetLogPage:
      return get_log_page(request);
    case AdminOpcode::kSetFeatures:
    case AdminOpcode::kGetFeatures: {
      const bool set = static_cast<AdminOpcode>(request.command.opcode) == AdminOpcode::kSetFeatures;
      const auto outcome = set ? set_feature(nvme::decode_set_features(request.command)) : get_feature(request);
      return admin_queue_.complete(request, outcome ? nvme::kOk : outcome.error(), outcome.value_or(0));
    }
    case AdminOpcode::kAbort:
      return scope_.spawn(abort(request));
    case AdminOpcode::kAsyncEventRequest:
      return request_event(request);
    case AdminOpcode::kKeepAlive:
      return admin_queue_.complete(request, nvme::kOk);
    case AdminOpcode::kReplicationSend:
      return begin_send(request);
    case AdminOpcode::kReplicationReceive:
      return scope_.spawn(receive(request));
    default:
      FL_UNREACHABLE("prepare() lets no other admin command through");
  }
}

// Abort is best effort: what runs on a device ends by itself, what waits is taken back. Bit 0 of the result: not
// aborted.
Task<void> Controller::abort(Request& request) {
  const auto [sqid, cid] = nvme::decode_abort(request.command);
  bool aborted = false;
  if (sqid == 0) {
    aborted = co_await shard_target_.abort(association_->admin_connection, cid);
  } else {
    aborted = co_await shard_target_.at_home(shard_target_.directory().abort(association_->key(), sqid, cid));
  }
  admin_queue_.complete(request, nvme::kOk, aborted ? 0 : 1);
}

uint64_t Controller::get_property(nvme::Property property) const {
  switch (property) {
    case nvme::Property::kCapabilities: {
      nvme::Capabilities capabilities;
      capabilities.max_queue_entries = shard_target_.options().queue_entries_max;
      capabilities.ready_timeout_ms = 15'000;
      capabilities.command_sets = !is_discovery();
      return nvme::encode_capabilities(capabilities);
    }
    case nvme::Property::kVersion:
      return nvme::kVersion_2_0;
    case nvme::Property::kConfiguration:
      return configuration_.raw;
    case nvme::Property::kStatus:
      return status_.raw;
    case nvme::Property::kSubsystemReset:
      return 0;
  }
  return 0;
}

void Controller::set_property(const nvme::PropertyAccess& access) {
  association_->note_traffic();
  // A subsystem reset is not supported, and CAP says so: the write has no effect.
  if (access.property != nvme::Property::kConfiguration) return;
  const nvme::ControllerConfiguration wanted{static_cast<uint32_t>(access.value)};
  const nvme::ControllerConfiguration before = std::exchange(configuration_, wanted);
  if (wanted.enable() && !before.enable()) enable(wanted);
  if (!wanted.enable() && before.enable()) {
    disable();
    forget_settings();
  }
  const bool shuts_down = wanted.shutdown() != nvme::ShutdownNotice::kNone;
  const bool did_shut_down = before.shutdown() != nvme::ShutdownNotice::kNone;
  if (shuts_down && !did_shut_down) {
    if (status_.ready() && wanted.enable()) disable();
    status_.set_shutdown(nvme::ShutdownStatus::kComplete);
  }
  if (!shuts_down && did_shut_down) status_.set_shutdown(nvme::ShutdownStatus::kNormal);
}

void Controller::enable(nvme::ControllerConfiguration wanted) {
  const bool nvm_sizes = wanted.io_submission_entry_shift() == 6 && wanted.io_completion_entry_shift() == 4;
  const bool command_set_ok = wanted.command_set() == nvme::CommandSetSelect::kNvm ||
                              (wanted.command_set() == nvme::CommandSetSelect::kAll && !is_discovery());
  if ((!nvm_sizes && !is_discovery()) || !command_set_ok || wanted.page_shift() != 12 || wanted.arbitration() != 0) {
    log_warn("target.controller_configuration_refused", {{"host", association_->host_nqn}, {"cc", wanted.raw}});
    status_.set_fatal(true);
    return;
  }
  status_.set_ready(true);
  association_->ready.store(true);
  restart_keep_alive();
}

void Controller::disable() {
  status_.set_ready(false);
  status_.set_fatal(false);
  association_->ready.store(false);
  release_events();
  // A controller reset deletes the I/O queues: over TCP their connections end.
  scope_.spawn(
      shard_target_.at_home(shard_target_.directory().close_queues(association_->key(), "the controller was reset")));
}

// A controller reset: what the host set is gone, what Connect said stays.
void Controller::forget_settings() {
  features_ = {};
  association_->write_cache.store(true);
  association_->io_queues.store(0);
  pending_ = {};
  masked_ = {};
  changed_namespaces_.clear();
}

// Rounds up to what the controller can measure. 0: none.
void Controller::set_keep_alive(uint32_t wanted_ms) {
  const uint64_t unit = shard_target_.options().keep_alive_min_ms;
  keep_alive_ms_ = static_cast<uint32_t>(std::min<uint64_t>((wanted_ms + unit - 1) / unit * unit, UINT32_MAX));
  restart_keep_alive();
}

void Controller::restart_keep_alive() {
  if (keep_alive_ms_ == 0) {
    shard_target_.reactor().disarm(keep_alive_timer_);
    return;
  }
  // At whole units, so that the controllers of a shard wake it together. So the first look may come early: that finds
  // the traffic which switched the timer on.
  const Duration unit = std::chrono::milliseconds(shard_target_.options().keep_alive_min_ms);
  const Instant due = shard_target_.reactor().now() + std::chrono::milliseconds(keep_alive_ms_);
  shard_target_.reactor().arm(keep_alive_timer_, due - Duration(due.ns % unit.count()));
}

// Any command since the last look counts: the target says in CTRATT that its keep-alive is traffic based.
void Controller::on_keep_alive_timer() {
  if (association_->active.exchange(false)) return restart_keep_alive();
  probe(Probe::kKeepAliveExpired);
  status_.set_fatal(true);
  log_info(
      "target.keep_alive_expired",
      {{"host", association_->host_nqn}, {"controller", association_->controller_id}, {"after_ms", keep_alive_ms_}});
  admin_queue_.transport().close("its keep-alive expired");
}

void Controller::request_event(Request& request) {
  if (event_request_count_ == kAsyncEventsMax) {
    return admin_queue_.complete(request, nvme::permanent(StatusCode::kAsyncEventLimitExceeded));
  }
  request.stage = Stage::kHeld;
  event_requests_.push_back(request);
  ++event_request_count_;
  for (size_t i = 0; i < kNoticeCount; ++i) {
    if (pending_[i] && deliver(static_cast<Notice>(i))) pending_[i] = false;
  }
}

bool Controller::deliver(Notice notice) {
  if (event_requests_.empty()) return false;
  nvme::AsyncEvent event;
  switch (notice) {
    case Notice::kNamespaceChanged:
      event = nvme::AsyncEvent::notice(nvme::NoticeInfo::kNamespaceAttributeChanged, nvme::LogPage::kChangedNamespaces);
      break;
    case Notice::kAnaChanged:
      event = nvme::AsyncEvent::notice(nvme::NoticeInfo::kAnaChange, nvme::LogPage::kAna);
      break;
    case Notice::kDiscoveryChanged:
      event = nvme::AsyncEvent::notice(nvme::NoticeInfo::kDiscoveryChange, nvme::LogPage::kDiscovery);
      break;
  }
  Request& request = event_requests_.pop_front();
  --event_request_count_;
  masked_[static_cast<size_t>(notice)] = true;
  admin_queue_.complete(request, nvme::kOk, event.to_dw0());
  return true;
}

void Controller::raise(Notice notice, uint32_t nsid) {
  static constexpr std::array<uint32_t, kNoticeCount> kEnableBit = {
      nvme::kAsyncEventNamespaceAttribute, nvme::kAsyncEventAnaChange, nvme::kAsyncEventDiscoveryChange};
  if (notice == Notice::kNamespaceChanged) changed_namespaces_.insert(nsid);
  const auto index = static_cast<size_t>(notice);
  if ((features_.event_configuration & kEnableBit[index]) == 0 || masked_[index]) return;
  if (!deliver(notice)) pending_[index] = true;
}

void Controller::acknowledge(Notice notice) {
  masked_[static_cast<size_t>(notice)] = false;
  pending_[static_cast<size_t>(notice)] = false;
  if (notice == Notice::kNamespaceChanged) changed_namespaces_.clear();
}

bool Controller::try_abort(Request& request, StatusCode code) {
  for (auto at = sends_.begin(); at != sends_.end(); ++at) {
    if (at->second != &request) continue;
    sends_.erase(at);
    admin_queue_.complete(request, nvme::transient(code));
    return true;
  }
  const bool waits = request.stage == Stage::kHeld &&
                     static_cast<AdminOpcode>(request.command.opcode) == AdminOpcode::kAsyncEventRequest;
  if (!waits) return false;
  event_requests_.remove(request);
  --event_request_count_;
  admin_queue_.complete(request, nvme::transient(code));
  return true;
}

void Controller::release_events() {
  while (!event_requests_.empty()) try_abort(event_requests_.front(), StatusCode::kAbortRequested);
}

void Controller::note_error(const Request& request) {
  nvme::ErrorInformation entry;
  entry.error_count = ++error_count_;
  entry.sqid = admin_queue_.qid();
  entry.cid = request.command.cid;
  entry.status_field = nvme::to_status_field(request.status);
  entry.parameter_location = 0xffff;  // not said
  entry.nsid = request.command.is_fabrics() ? 0 : request.command.nsid.get();
  entry.trtype = static_cast<uint8_t>(nvme::TransportType::kTcp);
  if (errors_.size() < kErrorLogMax) {
    errors_.push_back(entry);
  } else {
    errors_[(error_count_ - 1) % kErrorLogMax] = entry;
  }
}

}  // namespace fairlead::target
