#include "tests/support/nvme_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"

namespace fairlead::testing {

namespace {

constexpr uint32_t kDataPduMax = 1U << 30;
constexpr size_t kReceiveBytes = 64 * 1024;

nvme::PduLimits host_limits(const QueueOptions& options) {
  return {.direction = nvme::Direction::kControllerToHost,
          .phase = nvme::Phase::kConnecting,
          .data_alignment = options.data_alignment,
          .data_pdu_max = kDataPduMax};
}

}  // namespace

NvmeConnection::NvmeConnection(Shard& shard)
    : shard_(shard),
      scope_(shard.reactor),
      decoder_(host_limits({})),
      outgoing_changed_(shard.reactor),
      incoming_changed_(shard.reactor) {}

NvmeConnection::~NvmeConnection() { FL_CHECK(scope_.running() == 0); }

Task<Result<void>> NvmeConnection::open_stream(SocketAddress address) {
  FL_CO_TRY(stream_, co_await shard_.network.connect(address, kConnectTimeout));
  scope_.spawn(send_loop());
  scope_.spawn(receive_loop());
  co_return Result<void>();
}

Task<Result<void>> NvmeConnection::open(SocketAddress address, QueueOptions options) {
  options_ = std::move(options);
  decoder_ = nvme::PduDecoder(host_limits(options_));
  FL_CO_TRY_VOID(co_await open_stream(address));
  std::array<std::byte, nvme::kPduHeaderMax> header;
  const nvme::IcReqParameters parameters{.header_digest = options_.header_digest,
                                         .data_digest = options_.data_digest,
                                         .data_alignment = options_.data_alignment};
  const uint32_t length = nvme::build_ic_req(header, parameters);
  send_raw({header.begin(), header.begin() + length});
  while (!connected_ && !lost_) co_await incoming_changed_.wait();
  if (lost_) co_return fail(Code::kConnectionLost, "ICReq");
  co_return Result<void>();
}

Task<Result<Completion>> NvmeConnection::connect() {
  nvme::ConnectCommand command;
  command.qid = options_.qid;
  command.sqsize = static_cast<uint16_t>(options_.entries - 1);
  command.cattr = options_.disable_sq_flow_control ? nvme::kConnectDisableSqFlowControl : uint8_t{0};
  command.kato = options_.keep_alive_ms;
  command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kConnect);
  nvme::ConnectData data;
  std::ranges::copy(options_.host_id, data.host_id);
  data.cntlid = options_.controller_id;
  nvme::write_zero_terminated(data.subnqn, options_.subsystem_nqn);
  nvme::write_zero_terminated(data.hostnqn, options_.host_nqn);
  // Named: an Awaiter must not outlive a temporary in one expression.
  const CommandData command_data{.out = std::as_bytes(std::span(&data, 1))};
  Result<Completion> completion = co_await submit(nvme::to_submission_entry(command), command_data);
  if (completion && completion->ok() && options_.qid == 0) {
    options_.controller_id = static_cast<uint16_t>(completion->result);
  }
  co_return completion;
}

Task<Result<void>> NvmeConnection::open_and_connect(SocketAddress address, QueueOptions options) {
  FL_CO_TRY_VOID(co_await open(address, std::move(options)));
  FL_CO_TRY(const Completion completion, co_await connect());
  if (!completion.ok()) co_return fail(Code::kProtocol, "Connect");
  co_return Result<void>();
}

Task<void> NvmeConnection::close() {
  cut();
  co_await scope_.close();
}

void NvmeConnection::cut() {
  if (stream_) stream_->shutdown();
  lose();
}

void NvmeConnection::lose() {
  lost_ = true;
  outgoing_changed_.release_waiters();
  incoming_changed_.release_waiters();
  for (auto& [cid, command] : commands_) command->done.set();
}

Task<void> NvmeConnection::wait_closed() {
  while (!lost_) co_await incoming_changed_.wait();
}

void NvmeConnection::pause_reading(bool paused) {
  paused_ = paused;
  incoming_changed_.release_waiters();
}

void NvmeConnection::send_raw(std::vector<std::byte> bytes) {
  if (bytes.empty()) return;
  unsent_bytes_ += bytes.size();
  outgoing_.push_back(std::move(bytes));
  outgoing_changed_.release_waiters();
}

// Sending.

std::vector<std::byte> NvmeConnection::join(std::span<const std::byte> header, std::span<const std::byte> data) {
  std::vector<std::byte> pdu(header.begin(), header.end());
  pdu.insert(pdu.end(), data.begin(), data.end());
  if (format_.data_digest && !data.empty()) {
    std::array<std::byte, nvme::kDigestSize> digest;
    nvme::put_digest(crc32c(data), digest);
    pdu.insert(pdu.end(), digest.begin(), digest.end());
    if (damage_ == Damage::kDataDigest) {
      pdu.back() ^= std::byte{1};
      damage_ = Damage::kNone;
    }
  }
  if (damage_ == Damage::kHeaderDigest) {
    // The digest stands right behind the header proper, whose length is in its third byte.
    pdu[std::to_integer<size_t>(pdu[2])] ^= std::byte{1};
    damage_ = Damage::kNone;
  }
  return pdu;
}

void NvmeConnection::send_command(nvme::SubmissionEntry& entry, Command& command) {
  const CommandData& data = command.data;
  std::span<const std::byte> capsule = data.capsule;
  if (!data.keep_sgl) {
    // Connect comes with its data: the target has granted nothing yet.
    const uint32_t capsule_max = entry.is_fabrics() ? nvme::kAdminInCapsuleData : options_.in_capsule_max;
    if (!data.out.empty() && data.out.size() <= capsule_max) {
      entry.sgl = nvme::SglDescriptor::in_capsule(0, static_cast<uint32_t>(data.out.size()));
      capsule = data.out;
    } else if (!data.out.empty() || !data.in.empty()) {
      entry.sgl = nvme::SglDescriptor::transport(static_cast<uint32_t>(std::max(data.out.size(), data.in.size())));
    }
    entry.flags = static_cast<uint8_t>(entry.flags | nvme::kFlagsSgl);
  }
  std::array<std::byte, nvme::kPduHeaderMax> header;
  const uint32_t length = nvme::build_capsule_cmd(header, format_, entry, static_cast<uint32_t>(capsule.size()));
  send_raw(join(std::span(header).first(length), capsule));
}

void NvmeConnection::send_data(uint16_t cid, uint16_t ttag, std::span<const std::byte> data, uint32_t offset) {
  const size_t piece_max = std::min(ic_resp_.maxh2cdata.get(), options_.h2c_pdu_max);
  while (!data.empty()) {
    const std::span<const std::byte> piece = data.first(std::min(piece_max, data.size()));
    std::array<std::byte, nvme::kPduHeaderMax> header;
    const nvme::DataParameters parameters{.cccid = cid,
                                          .ttag = ttag,
                                          .offset = offset,
                                          .length = static_cast<uint32_t>(piece.size()),
                                          .last = piece.size() == data.size()};
    const uint32_t length = nvme::build_h2c_data(header, format_, parameters);
    send_raw(join(std::span(header).first(length), piece));
    data = data.subspan(piece.size());
    offset += static_cast<uint32_t>(piece.size());
  }
}

Task<void> NvmeConnection::send_loop() {
  while (!lost_) {
    if (outgoing_.empty()) {
      co_await outgoing_changed_.wait();
      continue;
    }
    // Out of the queue first: it grows while this waits.
    std::vector<std::byte> bytes = std::move(outgoing_.front());
    outgoing_.pop_front();
    size_t sent = 0;
    while (sent < bytes.size() && !lost_) {
      const iovec piece{bytes.data() + sent, bytes.size() - sent};
      const Result<size_t> result = co_await send(*stream_, {&piece, 1});
      // The receiver may still have something to read, such as a TermReq: losing the connection is its business.
      if (!result) co_return;
      sent += *result;
      unsent_bytes_ -= *result;
    }
  }
}

// Receiving.

Task<bool> NvmeConnection::fill(size_t count) {
  while (received_.size() - consumed_ < count) {
    while (paused_ && !lost_) co_await incoming_changed_.wait();
    if (lost_) co_return false;
    if (consumed_ > 0) {
      received_.erase(received_.begin(), received_.begin() + static_cast<ptrdiff_t>(consumed_));
      consumed_ = 0;
    }
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

Task<void> NvmeConnection::receive_loop() {
  while (true) {
    const bool goes_on = co_await receive_pdu();
    if (!goes_on) break;
  }
  stream_->shutdown();
  lose();
}

Task<bool> NvmeConnection::receive_pdu() {
  if (!co_await fill(sizeof(nvme::PduHeader))) co_return false;
  const auto header_length =
      decoder_.header_length(std::span(received_).subspan(consumed_).first<sizeof(nvme::PduHeader)>());
  if (!header_length) co_return complain(header_length.error().reason);
  if (!co_await fill(*header_length)) co_return false;
  nvme::PduHeader common;
  std::memcpy(static_cast<void*>(&common), received_.data() + consumed_, sizeof(common));
  if (!co_await fill(common.plen.get())) co_return false;
  const std::span<const std::byte> bytes = std::span(received_).subspan(consumed_, common.plen.get());
  const auto pdu = decoder_.decode(bytes.first(*header_length));
  if (!pdu) co_return complain(pdu.error().reason);
  const auto data = bytes.subspan(pdu->header_length + pdu->padding, pdu->data_length);
  bool damaged = false;
  if (pdu->has_data_digest) {
    damaged = !nvme::data_digest_matches(crc32c(data), bytes.last<nvme::kDigestSize>());
  }
  const bool goes_on = handle(*pdu, data, damaged);
  consumed_ += common.plen.get();
  co_return goes_on;
}

bool NvmeConnection::complain(std::string text) {
  if (complaint_.empty()) complaint_ = std::move(text);
  return false;
}

bool NvmeConnection::handle(const nvme::DecodedPdu& pdu, std::span<const std::byte> data, bool damaged) {
  if (damaged) return complain("data digest");
  switch (pdu.type) {
    case nvme::PduType::kIcResp: {
      ic_resp_ = pdu.as<nvme::IcRespPdu>();
      nvme::PduLimits limits = decoder_.limits();
      limits.phase = nvme::Phase::kReady;
      limits.header_digest = (ic_resp_.dgst & nvme::kIcHeaderDigest) != 0;
      limits.data_digest = (ic_resp_.dgst & nvme::kIcDataDigest) != 0;
      decoder_ = nvme::PduDecoder(limits);
      format_ = {limits.header_digest, limits.data_digest, ic_resp_.cpda};
      connected_ = true;
      incoming_changed_.release_waiters();
      return true;
    }
    case nvme::PduType::kC2hData:
      return handle_data(pdu.as<nvme::C2hDataPdu>(), pdu, data);
    case nvme::PduType::kR2t:
      return handle_r2t(pdu.as<nvme::R2tPdu>());
    case nvme::PduType::kCapsuleResp:
      handle_completion(pdu.as<nvme::CapsuleRespPdu>().completion);
      return true;
    case nvme::PduType::kC2hTermReq: {
      const auto term = pdu.as<nvme::TermReqPdu>();
      termination_ =
          Termination{static_cast<nvme::FatalError>(term.fes.get()), term.fei.get(), {data.begin(), data.end()}};
      return false;
    }
    default:
      return complain("a PDU that is no controller's");
  }
}

bool NvmeConnection::handle_data(const nvme::C2hDataPdu& pdu, const nvme::DecodedPdu& decoded,
                                 std::span<const std::byte> data) {
  const auto found = commands_.find(pdu.cccid.get());
  if (found == commands_.end()) return complain("C2HData for no command");
  Command& command = *found->second;
  const nvme::DataTransferState state{pdu.cccid.get(), command.received, static_cast<uint32_t>(command.data.in.size())};
  if (const auto violation = nvme::check_c2h_data(pdu, state)) return complain(violation->reason);
  std::ranges::copy(data, command.data.in.begin() + command.received);
  command.received += static_cast<uint32_t>(data.size());
  if (decoded.has_flag(nvme::kPduSuccess)) finish(pdu.cccid.get(), Completion{.status = nvme::kOk, .in_data = true});
  return true;
}

bool NvmeConnection::handle_r2t(const nvme::R2tPdu& pdu) {
  const auto found = commands_.find(pdu.cccid.get());
  if (found == commands_.end()) return complain("R2T for no command");
  Command& command = *found->second;
  last_r2t_ = pdu;
  if (ignores_r2t_) {
    ++r2ts_;
    return true;
  }
  const uint64_t end = uint64_t{pdu.r2to.get()} + pdu.r2tl.get();
  if (end > command.data.out.size()) return complain("R2T outside the command's data");
  ++r2ts_;
  send_data(pdu.cccid.get(), pdu.ttag.get(), command.data.out.subspan(pdu.r2to.get(), pdu.r2tl.get()), pdu.r2to.get());
  return true;
}

void NvmeConnection::handle_completion(const nvme::CompletionEntry& entry) {
  const Completion completion{nvme::from_status_field(entry.status.get()), entry.result(), entry.sqhd.get(), false};
  finish(entry.cid.get(), completion);
}

void NvmeConnection::finish(uint16_t cid, const Completion& completion) {
  const auto found = commands_.find(cid);
  if (found == commands_.end()) {
    ++orphans_;
    return;
  }
  Command& command = *found->second;
  if (completion.ok() && command.received != command.data.in.size()) complain("success without all of the data");
  command.completion = completion;
  command.answered = true;
  commands_.erase(found);
  command.done.set();
}

// Commands.

Task<Result<Completion>> NvmeConnection::submit(nvme::SubmissionEntry entry, CommandData data) {
  if (lost_ || !connected_) co_return fail(Code::kConnectionLost, "submit");
  Command command(shard_.reactor);
  command.data = data;
  const uint16_t cid = next_cid_;
  entry.cid = cid;
  const bool duplicate = !commands_.try_emplace(cid, &command).second;
  do {
    ++next_cid_;
  } while (commands_.contains(next_cid_) || next_cid_ == 0xffff);
  send_command(entry, command);
  if (duplicate) co_return fail(Code::kAlreadyExists, "CID");
  co_await command.done.wait();
  if (command.answered) co_return command.completion;
  commands_.erase(cid);
  co_return fail(Code::kConnectionLost, "command");
}

Task<Result<Completion>> NvmeConnection::property_get(nvme::Property property) {
  nvme::PropertyCommand command;
  command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kPropertyGet);
  command.attrib = property == nvme::Property::kCapabilities ? 1 : 0;
  command.offset = static_cast<uint32_t>(property);
  return submit(nvme::to_submission_entry(command), {});
}

Task<Result<Completion>> NvmeConnection::property_set(nvme::Property property, uint64_t value) {
  nvme::PropertyCommand command;
  command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kPropertySet);
  command.attrib = property == nvme::Property::kCapabilities ? 1 : 0;
  command.offset = static_cast<uint32_t>(property);
  command.value = value;
  return submit(nvme::to_submission_entry(command), {});
}

Task<Result<Completion>> NvmeConnection::enable() {
  const auto wanted = nvme::ControllerConfiguration::enabled(nvme::CommandSetSelect::kNvm);
  FL_CO_TRY(const Completion set, co_await property_set(nvme::Property::kConfiguration, wanted.raw));
  if (!set.ok()) co_return set;
  while (true) {
    FL_CO_TRY(const Completion got, co_await property_get(nvme::Property::kStatus));
    const nvme::ControllerStatus status{static_cast<uint32_t>(got.result)};
    if (!got.ok() || status.ready() || status.fatal()) co_return got;
  }
}

Task<Result<Completion>> NvmeConnection::disconnect() {
  nvme::DisconnectCommand command;
  command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kDisconnect);
  return submit(nvme::to_submission_entry(command), {});
}

Task<Result<Completion>> NvmeConnection::identify(nvme::Cns cns, uint32_t nsid, std::span<std::byte> out,
                                                  nvme::CommandSet set, uint16_t controller_id) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kIdentify);
  entry.nsid = nsid;
  entry.cdw10 = static_cast<uint32_t>(cns) | (uint32_t{controller_id} << 16);
  entry.cdw11 = static_cast<uint32_t>(set) << 24;
  return submit(entry, {.in = out});
}

Task<Result<Completion>> NvmeConnection::set_features(nvme::Feature feature, uint32_t value, uint32_t nsid) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kSetFeatures);
  entry.nsid = nsid;
  entry.cdw10 = static_cast<uint32_t>(feature);
  entry.cdw11 = value;
  return submit(entry, {});
}

Task<Result<Completion>> NvmeConnection::get_features(nvme::Feature feature, std::span<std::byte> out,
                                                      nvme::FeatureSelect select) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kGetFeatures);
  entry.cdw10 = static_cast<uint32_t>(feature) | (static_cast<uint32_t>(select) << 8);
  if (feature == nvme::Feature::kHostIdentifier) entry.cdw11 = nvme::kHostIdentifierExtended;
  return submit(entry, {.in = out});
}

Task<Result<Completion>> NvmeConnection::get_log_page(nvme::LogPage page, std::span<std::byte> out,
                                                      LogOptions options) {
  const auto dwords = static_cast<uint32_t>(out.size() / 4 - 1);
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kGetLogPage);
  entry.nsid = options.nsid;
  entry.cdw10 = static_cast<uint32_t>(page) | (uint32_t{options.specific} << 8) |
                (options.retain_event ? 1U << 15 : 0U) | ((dwords & 0xffff) << 16);
  entry.cdw11 = dwords >> 16;
  entry.cdw12 = static_cast<uint32_t>(options.offset);
  entry.cdw13 = static_cast<uint32_t>(options.offset >> 32);
  return submit(entry, {.in = out});
}

Task<Result<Completion>> NvmeConnection::async_event() {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kAsyncEventRequest);
  return submit(entry, {});
}

Task<Result<Completion>> NvmeConnection::abort(uint16_t qid, uint16_t cid) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kAbort);
  entry.cdw10 = uint32_t{qid} | (uint32_t{cid} << 16);
  return submit(entry, {});
}

Task<Result<Completion>> NvmeConnection::keep_alive() {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kKeepAlive);
  return submit(entry, {});
}

Task<Result<Completion>> NvmeConnection::transfer(nvme::NvmOpcode opcode, uint32_t nsid, uint64_t lba, uint32_t blocks,
                                                  CommandData data, uint32_t flags) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(opcode);
  entry.nsid = nsid;
  entry.set_slba(lba);
  entry.cdw12 = ((blocks - 1) & nvme::kRwBlocksMask) | flags;
  return submit(entry, data);
}

Task<Result<Completion>> NvmeConnection::read(uint32_t nsid, uint64_t lba, uint32_t blocks, std::span<std::byte> out) {
  return transfer(nvme::NvmOpcode::kRead, nsid, lba, blocks, {.in = out}, 0);
}

Task<Result<Completion>> NvmeConnection::write(uint32_t nsid, uint64_t lba, uint32_t blocks,
                                               std::span<const std::byte> data, IoOptions options) {
  return transfer(nvme::NvmOpcode::kWrite, nsid, lba, blocks, {.out = data}, options.fua ? nvme::kRwFua : 0);
}

Task<Result<Completion>> NvmeConnection::compare(uint32_t nsid, uint64_t lba, uint32_t blocks,
                                                 std::span<const std::byte> data) {
  return transfer(nvme::NvmOpcode::kCompare, nsid, lba, blocks, {.out = data}, 0);
}

Task<Result<Completion>> NvmeConnection::write_zeroes(uint32_t nsid, uint64_t lba, uint32_t blocks, IoOptions options) {
  const uint32_t flags = (options.fua ? nvme::kRwFua : 0) | (options.deallocate ? nvme::kRwDeallocate : 0);
  return transfer(nvme::NvmOpcode::kWriteZeroes, nsid, lba, blocks, {}, flags);
}

Task<Result<Completion>> NvmeConnection::verify(uint32_t nsid, uint64_t lba, uint32_t blocks) {
  return transfer(nvme::NvmOpcode::kVerify, nsid, lba, blocks, {}, 0);
}

Task<Result<Completion>> NvmeConnection::flush(uint32_t nsid) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kFlush);
  entry.nsid = nsid;
  return submit(entry, {});
}

Task<Result<Completion>> NvmeConnection::deallocate(uint32_t nsid, std::vector<nvme::DsmRange> ranges) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kDatasetManagement);
  entry.nsid = nsid;
  entry.cdw10 = static_cast<uint32_t>(ranges.size() - 1);
  entry.cdw11 = nvme::kDsmDeallocate;
  const CommandData data{.out = std::as_bytes(std::span(ranges))};
  co_return co_await submit(entry, data);
}

Task<Result<NvmeConnection::FusedCompletion>> NvmeConnection::compare_and_write(uint32_t nsid, uint64_t lba,
                                                                                uint32_t blocks,
                                                                                std::span<const std::byte> expected,
                                                                                std::span<const std::byte> data) {
  nvme::SubmissionEntry entry;
  entry.nsid = nsid;
  entry.set_slba(lba);
  entry.cdw12 = (blocks - 1) & nvme::kRwBlocksMask;
  nvme::SubmissionEntry second = entry;
  entry.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kCompare);
  entry.flags = static_cast<uint8_t>(nvme::Fuse::kFirst);
  second.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kWrite);
  second.flags = static_cast<uint8_t>(nvme::Fuse::kSecond);
  // The two stand side by side in the queue: both are sent before anything else of this connection may run.
  if (lost_ || !connected_) co_return fail(Code::kConnectionLost, "submit");
  Command commands[2] = {Command(shard_.reactor), Command(shard_.reactor)};
  commands[0].data.out = expected;
  commands[1].data.out = data;
  uint16_t cids[2];
  nvme::SubmissionEntry* entries[2] = {&entry, &second};
  for (size_t i = 0; i < 2; ++i) {
    cids[i] = next_cid_;
    entries[i]->cid = cids[i];
    commands_.emplace(cids[i], &commands[i]);
    do {
      ++next_cid_;
    } while (commands_.contains(next_cid_) || next_cid_ == 0xffff);
    send_command(*entries[i], commands[i]);
  }
  co_await commands[0].done.wait();
  co_await commands[1].done.wait();
  for (size_t i = 0; i < 2; ++i) {
    if (!commands[i].answered) commands_.erase(cids[i]);
  }
  if (!commands[0].answered || !commands[1].answered) co_return fail(Code::kConnectionLost, "command");
  co_return FusedCompletion{commands[0].completion, commands[1].completion};
}

// NvmeHost.

Task<Result<void>> NvmeHost::open(SocketAddress address, HostOptions options) {
  admin_ = std::make_unique<NvmeConnection>(shard_);
  FL_CO_TRY_VOID(co_await admin_->open_and_connect(address, options.queue));
  FL_CO_TRY(const Completion enabled, co_await admin_->enable());
  if (!nvme::ControllerStatus{static_cast<uint32_t>(enabled.result)}.ready()) co_return fail(Code::kProtocol, "enable");
  if (options.io_queues == 0) co_return Result<void>();
  const uint32_t wanted = nvme::encode_queue_counts({options.io_queues, options.io_queues});
  FL_CO_TRY(const Completion queues, co_await admin_->set_features(nvme::Feature::kNumberOfQueues, wanted));
  if (!queues.ok()) co_return fail(Code::kProtocol, "number of queues");
  const uint32_t granted = nvme::decode_queue_counts(static_cast<uint32_t>(queues.result)).submission;
  for (uint16_t i = 0; i < std::min<uint32_t>(options.io_queues, granted); ++i) {
    QueueOptions queue = options.queue;
    queue.qid = static_cast<uint16_t>(i + 1);
    queue.controller_id = admin_->controller_id();
    queue.entries = options.io_entries;
    queue.keep_alive_ms = 0;
    io_.push_back(std::make_unique<NvmeConnection>(shard_));
    FL_CO_TRY_VOID(co_await io_.back()->open_and_connect(address, queue));
  }
  co_return Result<void>();
}

std::string NvmeHost::complaint() const {
  if (admin_ && !admin_->complaint().empty()) return admin_->complaint();
  for (const auto& queue : io_) {
    if (!queue->complaint().empty()) return queue->complaint();
  }
  return "";
}

Task<void> NvmeHost::close() {
  for (const auto& queue : io_) co_await queue->close();
  if (admin_) co_await admin_->close();
}

}  // namespace fairlead::testing
