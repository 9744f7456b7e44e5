#include "tests/support/scripted_controller.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "nvme/features.h"
#include "nvme/nqn.h"
#include "nvme/properties.h"

namespace fairlead::testing {

using nvme::AdminOpcode;
using nvme::FabricsType;
using nvme::NvmOpcode;
using nvme::StatusCode;

namespace {

constexpr uint32_t kBlockShift = 12;
constexpr uint32_t kDataMax = 1U << 21;
constexpr size_t kReceiveBytes = 64 * 1024;
constexpr size_t kOutboxMax = 8 << 20;
constexpr size_t kCommandsKept = 4096;

nvme::PduLimits controller_limits() {
  return {.direction = nvme::Direction::kHostToController,
          .phase = nvme::Phase::kConnecting,
          .in_capsule_max = kDataMax,
          .data_pdu_max = kDataMax};
}

template <typename T>
std::span<const std::byte> bytes_of(const T& structure) {
  return std::as_bytes(std::span(&structure, 1));
}

}  // namespace

// ---- ControllerNature

ControllerNature::ControllerNature() {
  capabilities = nvme::encode_capabilities({.max_queue_entries = 128, .ready_timeout_ms = 1000});
  identify.cntlid = controller_id;
  identify.cntrltype = static_cast<uint8_t>(nvme::ControllerType::kIo);
  identify.ver = nvme::kVersion_2_0;
  identify.mdts = 5;
  identify.kas = 10;
  identify.sgls = nvme::kSglsSupported;
  identify.ioccsz = (64 + 8192) / 16;
  identify.iorcsz = 1;
  identify.oncs = nvme::kOncsCompare | nvme::kOncsWriteZeroes | nvme::kOncsDatasetManagement;
  nvme::write_zero_terminated(identify.subnqn, kScriptedNqn);
  nvme::write_space_padded(identify.sn, "S1");
  nvme::write_space_padded(identify.mn, "scripted");
  nvme::write_space_padded(identify.fr, "1");
  add_namespace(1, 256);
}

void ControllerNature::add_namespace(uint32_t nsid, uint64_t blocks) {
  Namespace& added = namespaces[nsid];
  added.identify.nsze = added.identify.ncap = blocks;
  added.identify.lbaf[0].lbads = kBlockShift;
  const nvme::NamespaceIdDescriptor head{.type = static_cast<uint8_t>(nvme::NamespaceIdType::kUuid), .length = 16};
  std::memcpy(added.descriptors.data(), &head, sizeof head);
  added.descriptors[sizeof head] = static_cast<std::byte>(nsid);
  added.descriptors[sizeof head + 15] = std::byte{1};
}

void ControllerNature::set_ana_groups(uint32_t count, uint64_t change_count) {
  identify.cmic |= nvme::kCmicAnaReporting;
  identify.anacap = nvme::kAnacapOptimized | nvme::kAnacapGroupIdStable;
  identify.anagrpmax = identify.nanagrpid = count;
  nvme::AnaHeader header;
  header.change_count = change_count;
  header.groups = static_cast<uint16_t>(count);
  ana_log.assign(bytes_of(header).begin(), bytes_of(header).end());
  for (uint32_t i = 1; i <= count; ++i) {
    nvme::AnaGroupDescriptor group;
    group.group = i;
    group.change_count = change_count;
    group.state = static_cast<uint8_t>(nvme::AnaState::kOptimized);
    ana_log.insert(ana_log.end(), bytes_of(group).begin(), bytes_of(group).end());
  }
  for (auto& [nsid, each] : namespaces) each.identify.anagrpid = 1;
}

// ---- ScriptedLink: sending

ScriptedLink::ScriptedLink(ScriptedController& controller, Shard& shard, std::unique_ptr<Stream> stream)
    : controller_(controller),
      shard_(shard),
      stream_(std::move(stream)),
      scope_(shard.reactor),
      changed_(shard.reactor),
      decoder_(controller_limits()) {}

void ScriptedLink::put(std::span<const std::byte> bytes) {
  if (closing_ || outbox_.size() + bytes.size() > kOutboxMax) return;
  outbox_.insert(outbox_.end(), bytes.begin(), bytes.end());
  changed_.release_waiters();
}

void ScriptedLink::put_digest_of(std::span<const std::byte> bytes, bool& damages) {
  std::array<std::byte, nvme::kDigestSize> digest;
  nvme::put_digest(crc32c(bytes), digest);
  if (std::exchange(damages, false)) digest[0] ^= std::byte{1};
  put(digest);
}

void ScriptedLink::send_raw(std::span<const std::byte> bytes) {
  if (!greeted_) checks_ = false;
  put(bytes);
}

void ScriptedLink::send_header(std::span<const std::byte> bytes) {
  send_raw(bytes);
  bool undamaged = false;
  if (format_.header_digest) put_digest_of(bytes, undamaged);
}

void ScriptedLink::greet(const nvme::IcRespParameters& parameters) {
  std::array<std::byte, nvme::kPduHeaderMax> header;
  put(std::span(header).first(nvme::build_ic_resp(header, parameters)));
  if (std::exchange(greeted_, true)) return;
  format_ = {parameters.header_digest, parameters.data_digest, format_.data_alignment};
  nvme::PduLimits limits = decoder_.limits();
  limits.phase = nvme::Phase::kReady;
  limits.header_digest = parameters.header_digest;
  limits.data_digest = parameters.data_digest;
  limits.data_alignment = parameters.data_alignment;
  limits.data_pdu_max = std::min(parameters.max_h2c_data, kDataMax);
  decoder_ = nvme::PduDecoder(limits);
}

void ScriptedLink::complete(uint16_t cid, nvme::Status status, uint64_t result) {
  transfers_.erase(cid);
  nvme::CompletionEntry completion;
  completion.cid = cid;
  completion.status = nvme::to_status_field(status);
  completion.set_result(result);
  std::array<std::byte, nvme::kPduHeaderMax> header;
  const uint32_t length = nvme::build_capsule_resp(header, format_, completion);
  if (std::exchange(damages_header_, false)) header[length - 1] ^= std::byte{1};
  put(std::span(header).first(length));
}

void ScriptedLink::send_data(const nvme::DataParameters& parameters, std::span<const std::byte> data) {
  if (data.empty()) return;
  nvme::DataParameters with_length = parameters;
  with_length.length = static_cast<uint32_t>(data.size());
  std::array<std::byte, nvme::kPduHeaderMax> header;
  const uint32_t length = nvme::build_c2h_data(header, format_, with_length);
  if (std::exchange(damages_header_, false)) header[sizeof(nvme::C2hDataPdu)] ^= std::byte{1};
  put(std::span(header).first(length));
  put(data);
  if (format_.data_digest) put_digest_of(data, damages_data_);
}

void ScriptedLink::send_r2t(const nvme::R2tParameters& parameters) {
  std::array<std::byte, nvme::kPduHeaderMax> header;
  put(std::span(header).first(nvme::build_r2t(header, format_, parameters)));
}

void ScriptedLink::terminate(nvme::FatalError error) {
  std::array<std::byte, nvme::kTermReqSizeMax> bytes;
  const nvme::PduViolation violation{error, 0, ""};
  put(std::span(bytes).first(nvme::build_term_req(bytes, nvme::Direction::kControllerToHost, violation, {})));
}

void ScriptedLink::overlay_next(size_t offset, std::vector<std::byte> bytes) {
  overlay_at_ = offset;
  overlay_ = std::move(bytes);
}

void ScriptedLink::set_reading(bool on) {
  reading_ = on;
  changed_.release_waiters();
}

void ScriptedLink::cut() {
  closing_ = true;
  outbox_.clear();
  if (stream_ != nullptr) stream_->shutdown();
  changed_.release_waiters();
}

void ScriptedLink::close_behind_outbox() {
  closes_behind_ = true;
  changed_.release_waiters();
}

Task<void> ScriptedLink::send_loop() {
  while (!closing_ && !ended_) {
    if (outbox_.empty() && closes_behind_) co_return cut();
    if (outbox_.empty()) {
      co_await changed_.wait();
      continue;
    }
    const std::vector<std::byte> batch = std::exchange(outbox_, {});
    size_t done = 0;
    while (done < batch.size() && !closing_) {
      const uint64_t room = cut_after_ - std::min(cut_after_, sent_);
      if (room == 0) co_return cut();
      const iovec piece{const_cast<std::byte*>(batch.data()) + done, std::min<uint64_t>(batch.size() - done, room)};
      const Result<size_t> result = co_await send(*stream_, {&piece, 1});
      if (!result) co_return;
      done += *result;
      sent_ += *result;
    }
    if (sent_ >= cut_after_) co_return cut();
  }
}

// ---- ScriptedLink: receiving

Task<void> ScriptedLink::run() {
  scope_.spawn(send_loop());
  if (controller_.script_ != nullptr) controller_.script_->on_accept(*this);
  co_await receive_loop();
  stream_->shutdown();
  ended_ = true;
  changed_.release_waiters();
  co_await scope_.close();
  std::erase_if(controller_.event_requests_, [this](const auto& each) { return each.first == this; });
  stream_.reset();
}

Task<void> ScriptedLink::receive_loop() {
  while (true) {
    while (!reading_ && !closing_) co_await changed_.wait();
    if (checks_) {
      const bool goes_on = co_await receive_pdu();
      if (!goes_on) co_return;
    } else {
      consumed_ = received_.size();
      if (!co_await fill(1)) co_return;
    }
    changed_.release_waiters();
  }
}

Task<bool> ScriptedLink::fill(size_t count) {
  while (received_.size() - consumed_ < count) {
    received_.erase(received_.begin(), received_.begin() + static_cast<ptrdiff_t>(consumed_));
    consumed_ = 0;
    const size_t used = received_.size();
    const size_t room = std::max(kReceiveBytes, count - used);
    received_.resize(used + room);
    const iovec space{received_.data() + used, room};
    const Result<size_t> got = co_await receive(*stream_, {&space, 1});
    received_.resize(used + (got ? *got : 0));
    if (!got || *got == 0) co_return false;
  }
  co_return true;
}

bool ScriptedLink::complain(std::string text) {
  if (complaint_.empty()) complaint_ = std::move(text);
  return false;
}

Task<bool> ScriptedLink::receive_pdu() {
  if (!co_await fill(sizeof(nvme::PduHeader))) co_return false;
  if (!checks_) co_return true;
  const auto header_length =
      decoder_.header_length(std::span(received_).subspan(consumed_).first<sizeof(nvme::PduHeader)>());
  if (!header_length) co_return complain(header_length.error().reason);
  nvme::PduHeader common;
  std::memcpy(static_cast<void*>(&common), received_.data() + consumed_, sizeof common);
  if (!co_await fill(common.plen.get())) co_return false;
  const auto bytes = std::span<const std::byte>(received_).subspan(consumed_, common.plen.get());
  const auto pdu = decoder_.decode(bytes.first(*header_length));
  if (!pdu) co_return complain(pdu.error().reason);
  const auto data = bytes.subspan(pdu->header_length + pdu->padding, pdu->data_length);
  if (pdu->has_data_digest && !nvme::data_digest_matches(crc32c(data), bytes.last<nvme::kDigestSize>())) {
    co_return complain("a wrong data digest");
  }
  const bool goes_on = handle(*pdu, data);
  consumed_ += common.plen.get();
  co_return goes_on;
}

bool ScriptedLink::handle(const nvme::DecodedPdu& pdu, std::span<const std::byte> data) {
  ControllerScript* const script = controller_.script_;
  switch (pdu.type) {
    case nvme::PduType::kIcReq: {
      const auto request = pdu.as<nvme::IcReqPdu>();
      format_.data_alignment = request.hpda;
      if (script != nullptr && script->on_ic_req(*this, request)) return true;
      nvme::IcRespParameters greeting = controller_.nature.greeting;
      greeting.header_digest = (request.dgst & nvme::kIcHeaderDigest) != 0;
      greeting.data_digest = (request.dgst & nvme::kIcDataDigest) != 0;
      greet(greeting);
      return true;
    }
    case nvme::PduType::kCapsuleCmd: {
      const ScriptedCommand command{pdu.as<nvme::CapsuleCmdPdu>().command, {data.begin(), data.end()}};
      if (commands_.size() < kCommandsKept) commands_.push_back(command);
      if (command.is(FabricsType::kConnect)) {
        qid_ = nvme::fabrics_view<nvme::ConnectCommand>(command.entry).qid;
      }
      if (script != nullptr && script->on_command(*this, command)) return true;
      answer(command);
      return true;
    }
    case nvme::PduType::kH2cData:
      return handle_data(pdu.as<nvme::H2cDataPdu>(), data);
    case nvme::PduType::kH2cTermReq:
      termination_ = pdu.as<nvme::TermReqPdu>();
      return false;
    default:
      return complain("a PDU that is no host's");
  }
}

bool ScriptedLink::handle_data(const nvme::H2cDataPdu& pdu, std::span<const std::byte> data) {
  data_lengths_.push_back(static_cast<uint32_t>(data.size()));
  if (const auto found = transfers_.find(pdu.cccid); found != transfers_.end()) {
    Transfer& transfer = found->second;
    const nvme::DataTransferState state{pdu.cccid, transfer.received, transfer.asked};
    if (const auto wrong = nvme::check_h2c_data(pdu, state)) {
      return expects_any_data_ || complain(wrong->reason);
    }
    std::ranges::copy(data, transfer.data.begin() + transfer.received);
    transfer.received += static_cast<uint32_t>(data.size());
  }
  if (controller_.script_ != nullptr && controller_.script_->on_data(*this, pdu)) return true;
  const auto found = transfers_.find(pdu.cccid);  // unless the script has ended the command
  if (found == transfers_.end() || found->second.received < found->second.data.size()) return true;
  ScriptedCommand command = std::move(found->second.command);
  command.capsule = std::move(found->second.data);
  transfers_.erase(found);
  answer(command);
  return true;
}

// ---- ScriptedLink: proper answers

void ScriptedLink::answer(const ScriptedCommand& command) {
  if (command.entry.is_fabrics()) return answer_fabrics(command);
  return is_admin() ? answer_admin(command) : answer_io(command);
}

void ScriptedLink::answer_fabrics(const ScriptedCommand& command) {
  const ControllerNature& nature = controller_.nature;
  const auto property = nvme::fabrics_view<nvme::PropertyCommand>(command.entry);
  switch (command.entry.fabrics_type()) {
    case FabricsType::kConnect:
      if (command.capsule.size() != sizeof(nvme::ConnectData)) {
        return complete(command.cid(), nvme::permanent(StatusCode::kDataSglLengthInvalid));
      }
      return complete(command.cid(), nvme::kOk, nature.controller_id);
    case FabricsType::kPropertySet: {
      const nvme::ControllerConfiguration configuration{static_cast<uint32_t>(property.value)};
      enabled_ = configuration.enable();
      shut_down_ = configuration.shutdown() != nvme::ShutdownNotice::kNone;
      return complete(command.cid());
    }
    case FabricsType::kPropertyGet: {
      if (property.offset == static_cast<uint32_t>(nvme::Property::kCapabilities)) {
        return complete(command.cid(), nvme::kOk, nature.capabilities);
      }
      nvme::ControllerStatus status{nature.status_bits};
      if (enabled_ && nature.becomes_ready) status.set_ready(true);
      if (shut_down_) status.set_shutdown(nvme::ShutdownStatus::kComplete);
      return complete(command.cid(), nvme::kOk, status.raw);
    }
    default:
      return complete(command.cid(), nvme::permanent(StatusCode::kInvalidOpcode));
  }
}

void ScriptedLink::answer_admin(const ScriptedCommand& command) {
  switch (static_cast<AdminOpcode>(command.entry.opcode)) {
    case AdminOpcode::kIdentify:
      return answer_identify(command);
    case AdminOpcode::kGetLogPage:
      return answer_log(command);
    case AdminOpcode::kSetFeatures: {
      const bool counts = (command.entry.cdw10 & 0xff) == static_cast<uint32_t>(nvme::Feature::kNumberOfQueues);
      return complete(command.cid(), nvme::kOk, counts ? controller_.nature.queue_counts : 0);
    }
    case AdminOpcode::kAsyncEventRequest:
      controller_.event_requests_.emplace_back(this, command.cid());
      return;
    case AdminOpcode::kAbort:
    case AdminOpcode::kKeepAlive:
      return complete(command.cid(), nvme::kOk, 1);
    default:
      return complete(command.cid(), nvme::permanent(StatusCode::kInvalidOpcode));
  }
}

void ScriptedLink::answer_identify(const ScriptedCommand& command) {
  const ControllerNature& nature = controller_.nature;
  const uint32_t nsid = command.entry.nsid;
  const auto found = nature.namespaces.find(nsid);
  switch (static_cast<nvme::Cns>(command.entry.cdw10 & 0xff)) {
    case nvme::Cns::kController:
      return give(command, bytes_of(nature.identify));
    case nvme::Cns::kActiveNamespaces: {
      nvme::NamespaceList list;
      size_t count = 0;
      for (auto each = nature.namespaces.upper_bound(nsid); each != nature.namespaces.end(); ++each) {
        if (count == std::size(list.nsid)) break;
        list.nsid[count++] = each->first;
      }
      return give(command, bytes_of(list));
    }
    case nvme::Cns::kNamespace:
      if (found == nature.namespaces.end()) break;
      return give(command, bytes_of(found->second.identify));
    case nvme::Cns::kNamespaceDescriptors:
      if (found == nature.namespaces.end()) break;
      return give(command, found->second.descriptors);
    default:
      break;
  }
  complete(command.cid(), nvme::permanent(StatusCode::kInvalidNamespaceOrFormat));
}

void ScriptedLink::answer_log(const ScriptedCommand& command) {
  std::vector<std::byte> page(command.entry.sgl.length % kDataMax);
  const uint64_t offset = command.entry.cdw12 | (uint64_t{command.entry.cdw13} << 32);
  const auto copy = [&](const std::vector<std::byte>& log) {
    if (offset >= log.size()) return;
    const auto part = std::span(log).subspan(offset);
    std::ranges::copy(part.first(std::min(part.size(), page.size())), page.begin());
  };
  const auto which = static_cast<nvme::LogPage>(command.entry.cdw10 & 0xff);
  if (which == nvme::LogPage::kAna) copy(controller_.nature.ana_log);
  if (which == nvme::LogPage::kDiscovery) copy(controller_.nature.discovery_log);
  give(command, page);
}

void ScriptedLink::answer_io(const ScriptedCommand& command) {
  const uint32_t length = command.entry.sgl.length;
  const uint64_t offset = command.entry.slba() << kBlockShift;
  std::vector<std::byte>& medium = controller_.medium;
  const bool fits = offset <= medium.size() && length <= medium.size() - offset;
  switch (static_cast<NvmOpcode>(command.entry.opcode)) {
    case NvmOpcode::kRead:
      if (!fits) return complete(command.cid(), nvme::permanent(StatusCode::kLbaOutOfRange));
      return give(command, std::span(medium).subspan(offset, length));
    case NvmOpcode::kWrite:
    case NvmOpcode::kCompare:
    case NvmOpcode::kDatasetManagement: {
      if (command.capsule.empty() && length > 0 && length <= kDataMax) {
        transfers_[command.cid()] = {command, std::vector<std::byte>(length), 0, length};
        return send_r2t({.cccid = command.cid(), .ttag = command.cid(), .offset = 0, .length = length});
      }
      const bool writes = command.entry.opcode == static_cast<uint8_t>(NvmOpcode::kWrite);
      if (writes && fits && command.capsule.size() == length) {
        std::ranges::copy(command.capsule, medium.begin() + static_cast<ptrdiff_t>(offset));
      }
      return complete(command.cid());
    }
    default:
      return complete(command.cid());
  }
}

void ScriptedLink::give(const ScriptedCommand& command, std::span<const std::byte> data) {
  const auto part = data.first(std::min<size_t>(data.size(), command.entry.sgl.length));
  std::vector<std::byte> asked(part.begin(), part.end());
  const std::vector<std::byte> overlay = std::exchange(overlay_, {});
  for (size_t i = 0; i < overlay.size() && overlay_at_ + i < asked.size(); ++i) asked[overlay_at_ + i] = overlay[i];
  send_data({.cccid = command.cid(), .last = true}, asked);
  complete(command.cid());
}

// ---- ScriptedController

ScriptedController::ScriptedController(Shard& shard, SocketAddress address, ControllerNature chosen)
    : nature(std::move(chosen)), medium(1 << 20), shard_(shard), address_(address), scope_(shard.reactor) {}

ScriptedController::~ScriptedController() { FL_CHECK(scope_.running() == 0); }

Result<void> ScriptedController::start() {
  FL_TRY(listener_, shard_.network.listen(address_));
  scope_.spawn(accept_loop());
  return {};
}

Task<void> ScriptedController::stop() {
  if (listener_) listener_->close();
  for (const auto& link : links_) {
    if (!link->has_ended()) link->cut();
  }
  co_await scope_.close();
}

Task<void> ScriptedController::accept_loop() {
  while (true) {
    Result<std::unique_ptr<Accepted>> accepted = co_await listener_->accept();
    if (!accepted && accepted.error().code == Code::kResourceExhausted) continue;
    if (!accepted) co_return;
    Result<std::unique_ptr<Stream>> stream = shard_.network.adopt(std::move(*accepted));
    if (!stream) continue;
    ++accepted_;
    forget_ended();
    links_.push_back(std::make_unique<ScriptedLink>(*this, shard_, std::move(*stream)));
    scope_.spawn(links_.back()->run());
  }
}

void ScriptedController::forget_ended() {
  while (links_.size() > kKept && links_.front()->is_gone()) {
    if (old_complaints_.empty()) old_complaints_ = links_.front()->complaint();
    links_.erase(links_.begin());
  }
}

bool ScriptedController::tell(nvme::AsyncEvent event) {
  if (event_requests_.empty()) return false;
  const auto [link, cid] = event_requests_.front();
  event_requests_.erase(event_requests_.begin());
  link->complete(cid, nvme::kOk, event.to_dw0());
  return true;
}

std::string ScriptedController::complaints() const {
  std::string all = old_complaints_;
  for (const auto& link : links_) all += link->complaint();
  return all;
}

}  // namespace fairlead::testing
