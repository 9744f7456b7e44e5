// The Fabrics commands of a queue: Connect, Property Get and Set, Disconnect. NVMe base 2.0 section 6.
#include <cstring>
#include <utility>

#include "nvme/nqn.h"
#include "target/queue.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::StatusCode;

namespace {

using nvme::ConnectFieldIn;

// Refuses a Connect for the value of one field; the host is told which in dw0.
Queue::ConnectResult invalid(ConnectFieldIn where, size_t offset) {
  return {nvme::permanent(StatusCode::kConnectInvalidParameters),
          nvme::connect_invalid_field(where, static_cast<uint16_t>(offset))};
}
// There may be one later.
Queue::ConnectResult absent() {
  Queue::ConnectResult result = invalid(ConnectFieldIn::kData, offsetof(nvme::ConnectData, subnqn));
  result.status.do_not_retry = false;
  return result;
}
Queue::ConnectResult refused(StatusCode code) { return {nvme::permanent(code), 0}; }

}  // namespace

nvme::StatusOr<DataNeed> Queue::prepare_fabrics(const nvme::SubmissionEntry& command, uint32_t data_length) const {
  switch (command.fabrics_type()) {
    case nvme::FabricsType::kConnect:
      if (is_connected() || connecting_) return nvme::reject(StatusCode::kCommandSequenceError);
      if (data_length != sizeof(nvme::ConnectData)) return nvme::reject(StatusCode::kDataSglLengthInvalid);
      return DataNeed{nvme::DataTransfer::kHostToController, data_length};
    case nvme::FabricsType::kPropertyGet:
    case nvme::FabricsType::kPropertySet:
      if (!is_connected()) return nvme::reject(StatusCode::kCommandSequenceError);
      if (!is_admin()) return nvme::reject(StatusCode::kInvalidOpcode);
      return DataNeed{};
    case nvme::FabricsType::kDisconnect:
      if (!is_connected()) return nvme::reject(StatusCode::kCommandSequenceError);
      if (is_admin()) return nvme::reject(StatusCode::kInvalidQueueType);
      return DataNeed{};
    default:
      return nvme::reject(StatusCode::kInvalidOpcode);
  }
}

void Queue::execute_fabrics(Request& request) {
  switch (request.command.fabrics_type()) {
    case nvme::FabricsType::kConnect:
      if (std::exchange(connecting_, true)) {
        return complete(request, nvme::permanent(StatusCode::kCommandSequenceError));
      }
      return scope_.spawn(connect(request));
    case nvme::FabricsType::kPropertyGet:
    case nvme::FabricsType::kPropertySet: {
      const bool is_get = request.command.fabrics_type() == nvme::FabricsType::kPropertyGet;
      const auto access =
          is_get ? nvme::decode_property_get(request.command) : nvme::decode_property_set(request.command);
      if (!access) return complete(request, access.error());
      if (is_get) return complete(request, nvme::kOk, controller_->get_property(access->property));
      controller_->set_property(*access);
      return complete(request, nvme::kOk);
    }
    case nvme::FabricsType::kDisconnect: {
      const nvme::Status status = nvme::check_disconnect(request.command);
      complete(request, status);
      if (status.ok()) transport_.close_gently("the host disconnected a queue");
      return;
    }
    default:
      FL_UNREACHABLE("prepare() lets no other Fabrics command through");
  }
}

Task<void> Queue::connect(Request& request) {
  ConnectResult outcome;
  const auto wanted = nvme::decode_connect(request.command, request.data_bytes());
  if (!wanted) {
    outcome = {wanted.error().status, wanted.error().dw0};
  } else {
    outcome = co_await check_and_connect(*wanted);
  }
  connecting_ = false;
  if (outcome.status.ok()) {
    entries_ = static_cast<uint16_t>(wanted->queue_entries);
    flow_control_disabled_ = wanted->disable_sq_flow_control;
    qid_ = wanted->qid;
  }
  complete(request, outcome.status, outcome.result);
}

// The names in `wanted` borrow from the request's data, which stays until the request is complete.
Task<Queue::ConnectResult> Queue::check_and_connect(nvme::ConnectRequest wanted) {
  if (wanted.queue_entries > shard_target_.options().queue_entries_max) {
    co_return invalid(ConnectFieldIn::kCommand, offsetof(nvme::ConnectCommand, sqsize));
  }
  const bool discovery = wanted.subsystem_nqn == nvme::kDiscoveryNqn;
  const Subsystem* const subsystem = shard_target_.find_subsystem(wanted.subsystem_nqn);
  Directory& directory = shard_target_.directory();
  if (!discovery && subsystem == nullptr) {
    const bool may_come = co_await shard_target_.at_home(directory.may_come(std::string(wanted.subsystem_nqn)));
    if (may_come) co_return absent();
    co_return invalid(ConnectFieldIn::kData, offsetof(nvme::ConnectData, subnqn));
  }
  if (!discovery && !subsystem->allows(wanted.host_nqn)) co_return refused(StatusCode::kConnectInvalidHost);
  const Directory::QueuePlace place{shard_target_.shard().id, transport_.id()};
  const std::string subsystem_nqn(wanted.subsystem_nqn);
  const std::string host_nqn(wanted.host_nqn);
  nvme::StatusOr<std::shared_ptr<Association>> association;
  if (wanted.qid == 0) {
    Directory::Create create{subsystem_nqn, host_nqn, wanted.host_id, port_, place, discovery};
    association = co_await shard_target_.at_home(directory.create(std::move(create)));
  } else {
    Directory::Attach attach{wanted.controller_id, wanted.qid, subsystem_nqn, host_nqn, wanted.host_id, port_, place};
    association = co_await shard_target_.at_home(directory.attach(std::move(attach)));
  }
  if (!association && association.error().code == StatusCode::kConnectInvalidParameters) {
    co_return invalid(ConnectFieldIn::kData, offsetof(nvme::ConnectData, cntlid));
  }
  if (!association && association.error().code == StatusCode::kInvalidQueueId) {
    co_return invalid(ConnectFieldIn::kCommand, offsetof(nvme::ConnectCommand, qid));
  }
  if (!association) co_return ConnectResult{association.error(), 0};
  association_ = std::move(*association);
  attached_qid_ = wanted.qid;
  is_owner_ = wanted.qid == 0;
  // The subsystem may have been removed meanwhile, or be another host's: close() takes back what the directory gave.
  subsystem_ = shard_target_.find_subsystem(subsystem_nqn);
  if (!discovery && (subsystem_ == nullptr || !subsystem_->allows(host_nqn))) {
    transport_.close(subsystem_ == nullptr ? "the subsystem was removed" : "the host may use the subsystem no more");
    co_return subsystem_ == nullptr ? absent() : refused(StatusCode::kConnectInvalidHost);
  }
  if (wanted.qid == 0) {
    controller_ = std::make_unique<Controller>(shard_target_, *this, association_, subsystem_, wanted.keep_alive_ms);
  }
  co_return ConnectResult{nvme::kOk, wanted.qid == 0 ? association_->controller_id : 0U};
}

}  // namespace fairlead::target
