#include "host/admin.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "async/cancel.h"
#include "base/log.h"
#include "nvme/validate.h"

namespace fairlead::host {

using nvme::AdminOpcode;
using nvme::Property;

namespace {

constexpr uint32_t kLogPiece = 4096;
constexpr uint32_t kAnaGroupsMax = 1024;
constexpr int kReadAttempts = 5;  // of a log that changes while it is read
constexpr auto kStatusPoll = std::chrono::milliseconds(10);
constexpr int kShutdownPolls = 20;

nvme::SubmissionEntry make_entry(AdminOpcode opcode) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(opcode);
  return entry;
}

nvme::PropertyCommand make_property(nvme::FabricsType type, Property property) {
  nvme::PropertyCommand command;
  command.prefix.fctype = static_cast<uint8_t>(type);
  command.attrib = property == Property::kCapabilities ? 1 : 0;
  command.offset = static_cast<uint32_t>(property);
  return command;
}

template <typename T>
std::span<std::byte> bytes_of(T& structure) {
  return std::as_writable_bytes(std::span(&structure, 1));
}

}  // namespace

Task<Result<Answer>> Admin::run(nvme::SubmissionEntry entry, CommandData data, const char* what) {
  Execute execute(reactor_, queue_, entry, data);
  FL_CO_TRY(const Answer answer, co_await execute);
  if (!answer.status.ok()) co_return std::unexpected(nvme::error_from_status(answer.status, what));
  co_return answer;
}

Task<Result<uint64_t>> Admin::get(Property property) {
  const auto command = make_property(nvme::FabricsType::kPropertyGet, property);
  FL_CO_TRY(const Answer answer, co_await run(nvme::to_submission_entry(command), CommandData::none(), "Property Get"));
  co_return answer.result;
}

Task<Result<void>> Admin::set(Property property, uint64_t value) {
  auto command = make_property(nvme::FabricsType::kPropertySet, property);
  command.value = value;
  FL_CO_TRY_VOID(co_await run(nvme::to_submission_entry(command), CommandData::none(), "Property Set"));
  co_return Result<void>();
}

Task<Result<void>> Admin::enable(uint64_t capabilities) {
  const auto wanted = nvme::ControllerConfiguration::enabled(nvme::CommandSetSelect::kNvm);
  FL_CO_TRY_VOID(co_await set(Property::kConfiguration, wanted.raw));
  const uint32_t timeout_ms = std::max(nvme::decode_capabilities(capabilities).ready_timeout_ms, 500U);
  const Instant limit = reactor_.now() + std::chrono::milliseconds(timeout_ms);
  while (true) {
    FL_CO_TRY(const uint64_t raw, co_await get(Property::kStatus));
    const nvme::ControllerStatus status{static_cast<uint32_t>(raw)};
    if (status.fatal()) co_return fail(Code::kIo, "the controller reports a fatal status");
    if (status.ready()) co_return Result<void>();
    if (reactor_.now() >= limit) co_return fail(Code::kTimedOut, "the controller does not become ready");
    (void)co_await sleep(reactor_, kStatusPoll);
  }
}

Task<void> Admin::shut_down() {
  const auto enabled = nvme::ControllerConfiguration::enabled(nvme::CommandSetSelect::kNvm);
  if (!co_await set(Property::kConfiguration, enabled.with_shutdown(nvme::ShutdownNotice::kNormal).raw)) co_return;
  for (int i = 0; i < kShutdownPolls; ++i) {
    const Result<uint64_t> raw = co_await get(Property::kStatus);
    if (!raw) co_return;
    const nvme::ControllerStatus status{static_cast<uint32_t>(*raw)};
    if (status.shutdown() == nvme::ShutdownStatus::kComplete) co_return;
    (void)co_await sleep(reactor_, kStatusPoll);
  }
}

Task<Result<void>> Admin::identify(nvme::Cns cns, uint32_t nsid, std::span<std::byte> out) {
  FL_CHECK(out.size() == nvme::kIdentifySize);
  nvme::SubmissionEntry entry = make_entry(AdminOpcode::kIdentify);
  entry.nsid = nsid;
  entry.cdw10 = static_cast<uint32_t>(cns);
  FL_CO_TRY_VOID(co_await run(entry, CommandData::from_controller(out), "Identify"));
  co_return Result<void>();
}

Task<Result<uint16_t>> Admin::set_queue_count(uint16_t wanted) {
  nvme::SubmissionEntry entry = make_entry(AdminOpcode::kSetFeatures);
  entry.cdw10 = static_cast<uint32_t>(nvme::Feature::kNumberOfQueues);
  entry.cdw11 = nvme::encode_queue_counts({wanted, wanted});
  FL_CO_TRY(const Answer answer, co_await run(entry, CommandData::none(), "Set Features (number of queues)"));
  const nvme::QueueCounts counts = nvme::decode_queue_counts(static_cast<uint32_t>(answer.result));
  co_return static_cast<uint16_t>(std::min({counts.submission, counts.completion, uint32_t{wanted}}));
}

Task<Result<void>> Admin::set_async_events(uint32_t mask) {
  nvme::SubmissionEntry entry = make_entry(AdminOpcode::kSetFeatures);
  entry.cdw10 = static_cast<uint32_t>(nvme::Feature::kAsyncEvents);
  entry.cdw11 = mask;
  FL_CO_TRY_VOID(co_await run(entry, CommandData::none(), "Set Features (asynchronous events)"));
  co_return Result<void>();
}

Task<Result<void>> Admin::read_log(LogRequest request, std::span<std::byte> out) {
  while (!out.empty()) {
    const auto piece = std::min<size_t>(out.size(), kLogPiece);
    const auto dwords = static_cast<uint32_t>(piece / 4 - 1);
    nvme::SubmissionEntry entry = make_entry(AdminOpcode::kGetLogPage);
    entry.nsid = nvme::kBroadcastNamespace;
    entry.cdw10 = static_cast<uint32_t>(request.page) | (uint32_t{request.specific} << 8) |
                  (request.keep_event ? 1U << 15 : 0U) | (dwords << 16);
    entry.cdw12 = static_cast<uint32_t>(request.offset);
    entry.cdw13 = static_cast<uint32_t>(request.offset >> 32);
    FL_CO_TRY_VOID(co_await run(entry, CommandData::from_controller(out.first(piece)), "Get Log Page"));
    out = out.subspan(piece);
    request.offset += piece;
  }
  co_return Result<void>();
}

Task<Result<nvme::AsyncEvent>> Admin::next_event() {
  Execute execute(reactor_, queue_, make_entry(AdminOpcode::kAsyncEventRequest), CommandData::none());
  execute.without_deadline();
  FL_CO_TRY(const Answer answer, co_await execute);
  if (!answer.status.ok()) {
    co_return std::unexpected(nvme::error_from_status(answer.status, "Asynchronous Event Request"));
  }
  co_return nvme::AsyncEvent::from_dw0(static_cast<uint32_t>(answer.result));
}

Task<Result<void>> Admin::keep_alive() {
  FL_CO_TRY_VOID(co_await run(make_entry(AdminOpcode::kKeepAlive), CommandData::none(), "Keep Alive"));
  co_return Result<void>();
}

Task<void> Admin::abort(uint16_t qid, uint16_t cid) {
  nvme::SubmissionEntry entry = make_entry(AdminOpcode::kAbort);
  entry.cdw10 = uint32_t{qid} | (uint32_t{cid} << 16);
  (void)co_await run(entry, CommandData::none(), "Abort");
}

Task<Result<std::vector<std::byte>>> Admin::call(uint32_t nsid, std::span<const std::byte> request) {
  nvme::SubmissionEntry entry = make_entry(AdminOpcode::kReplicationSend);
  entry.nsid = nsid;
  FL_CO_TRY(const Answer answer, co_await run(entry, CommandData::to_controller(request), "Replication Send"));
  const auto sent = nvme::decode_replication_sent(answer.result);
  if (!sent) co_return fail(Code::kProtocol, "Replication Send: an answer that cannot be");
  std::vector<std::byte> bytes(sent->bytes);
  if (sent->call == 0) co_return bytes;
  entry = make_entry(AdminOpcode::kReplicationReceive);
  entry.nsid = nsid;
  entry.cdw10 = sent->call;
  FL_CO_TRY(const Answer received, co_await run(entry, CommandData::from_controller(bytes), "Replication Receive"));
  if (received.result != bytes.size())
    co_return fail(Code::kProtocol, "Replication Receive: an answer of another size");
  co_return bytes;
}

Task<Result<ControllerInfo>> Admin::bring_up() {
  FL_CO_TRY(const uint64_t capabilities, co_await get(Property::kCapabilities));
  FL_CO_TRY_VOID(co_await enable(capabilities));
  auto data = std::make_unique<nvme::IdentifyController>();
  FL_CO_TRY_VOID(co_await identify(nvme::Cns::kController, 0, bytes_of(*data)));
  FL_CO_TRY(const ControllerInfo info, read_controller(*data, capabilities));
  if (info.controller_id != queue_.controller_id()) {
    co_return fail(Code::kProtocol, "the controller has another identifier than Connect gave");
  }
  co_return info;
}

Task<Result<std::vector<uint32_t>>> Admin::active_namespaces() {
  std::vector<uint32_t> found;
  auto list = std::make_unique<nvme::NamespaceList>();
  while (true) {
    const uint32_t after = found.empty() ? 0 : found.back();
    FL_CO_TRY_VOID(co_await identify(nvme::Cns::kActiveNamespaces, after, bytes_of(*list)));
    for (const Le32& nsid : list->nsid) {
      if (nsid == 0) co_return found;
      if (nsid <= (found.empty() ? 0 : found.back()) || nsid >= nvme::kBroadcastNamespace - 1) {
        co_return fail(Code::kProtocol, "a namespace list that does not ascend");
      }
      if (found.size() == kNamespacesMax) co_return fail(Code::kResourceExhausted, "more than 4096 namespaces");
      found.push_back(nsid);
    }
  }
}

Task<Result<NamespaceInfo>> Admin::read_one(uint32_t nsid, const ControllerInfo& controller) {
  auto data = std::make_unique<nvme::IdentifyNamespace>();
  FL_CO_TRY_VOID(co_await identify(nvme::Cns::kNamespace, nsid, bytes_of(*data)));
  auto descriptors = std::make_unique<std::array<std::byte, nvme::kIdentifySize>>();
  FL_CO_TRY_VOID(co_await identify(nvme::Cns::kNamespaceDescriptors, nsid, *descriptors));
  co_return read_namespace(nsid, *data, *descriptors, controller);
}

Task<Result<std::vector<NamespaceInfo>>> Admin::namespaces(const ControllerInfo& controller) {
  FL_CO_TRY(const std::vector<uint32_t> nsids, co_await active_namespaces());
  std::vector<NamespaceInfo> found;
  for (const uint32_t nsid : nsids) {
    const Result<NamespaceInfo> info = co_await read_one(nsid, controller);
    if (info) {
      found.push_back(*info);
    } else if (queue_.is_lost() || info.error().code == Code::kConnectionLost) {
      co_return std::unexpected(info.error());
    } else {
      log_warn("host.namespace_unusable",
               {{"nqn", controller.subsystem_nqn}, {"nsid", nsid}, {"error", to_string(info.error())}});
    }
  }
  co_return found;
}

// Base 2.0 section 5.16.1.13, groups only. A log that takes several commands may change between them; its header counts
// the changes: before and after one reading they must agree.
Task<Result<AnaStates>> Admin::ana_states(const ControllerInfo& controller) {
  LogRequest request{.page = nvme::LogPage::kAna, .specific = nvme::kAnaLogGroupsOnly};
  const uint32_t groups_max = std::min(controller.ana_groups_max, kAnaGroupsMax);
  std::vector<std::byte> log(sizeof(nvme::AnaHeader));
  for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
    FL_CO_TRY_VOID(co_await read_log(request, log));
    nvme::AnaHeader header;
    std::memcpy(static_cast<void*>(&header), log.data(), sizeof header);
    if (header.groups > groups_max) co_return fail(Code::kProtocol, "more ANA groups than the controller has");
    const size_t needed = sizeof header + header.groups * sizeof(nvme::AnaGroupDescriptor);
    if (log.size() != needed) {
      log.resize(needed);
      continue;
    }
    if (needed <= kLogPiece) co_return read_ana_groups(log);
    nvme::AnaHeader after;
    FL_CO_TRY_VOID(co_await read_log(request, bytes_of(after)));
    if (after.change_count == header.change_count) co_return read_ana_groups(log);
  }
  co_return fail(Code::kBusy, "the ANA log changes too quickly to be read");
}

}  // namespace fairlead::host
