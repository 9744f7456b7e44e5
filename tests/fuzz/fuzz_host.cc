#include "fuzz_host.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"

namespace fairlead::fuzz {
namespace {

constexpr size_t kOutboxMax = 4 << 20;

nvme::PduLimits host_limits(nvme::Phase phase, const nvme::PduFormat& format) {
  return {.direction = nvme::Direction::kControllerToHost,
          .phase = phase,
          .header_digest = format.header_digest,
          .data_digest = format.data_digest,
          .data_alignment = format.data_alignment,
          .in_capsule_max = 0,
          .data_pdu_max = 4 << 20};
}

void put_name(std::span<char> field, std::string_view name) {
  std::ranges::copy(name.substr(0, field.size()), field.begin());
}

}  // namespace

FuzzLink::FuzzLink(Shard& shard)
    : shard_(shard),
      scope_(shard.reactor),
      changed_(shard.reactor),
      decoder_(host_limits(nvme::Phase::kConnecting, {})) {}

FuzzLink::~FuzzLink() { FL_CHECK(scope_.running() == 0); }

Task<bool> FuzzLink::open(SocketAddress address) {
  Result<std::unique_ptr<Stream>> stream = co_await shard_.network.connect(address, kConnectTimeout);
  if (!stream) co_return false;
  stream_ = std::move(*stream);
  scope_.spawn(send_loop());
  scope_.spawn(receive_loop());
  co_return true;
}

Task<void> FuzzLink::close() {
  closing_ = true;
  if (stream_ != nullptr) stream_->shutdown();
  changed_.release_waiters();
  co_await scope_.close();
  stream_.reset();
}

void FuzzLink::set_reading(bool on) {
  reading_ = on;
  changed_.release_waiters();
}

// ---- Sending

void FuzzLink::put(std::span<const std::byte> bytes) {
  if (outbox_.size() + bytes.size() > kOutboxMax) return;
  outbox_.insert(outbox_.end(), bytes.begin(), bytes.end());
  changed_.release_waiters();
}

void FuzzLink::put_digest_of(std::span<const std::byte> bytes) {
  std::array<std::byte, nvme::kDigestSize> digest;
  nvme::put_digest(crc32c(bytes), digest);
  put(digest);
}

void FuzzLink::send_raw(std::span<const std::byte> bytes) {
  if (!greeted_) checks_ = false;
  put(bytes);
}

void FuzzLink::send_header(std::span<const std::byte> bytes) {
  send_raw(bytes);
  if (format_.header_digest) put_digest_of(bytes);
}

void FuzzLink::send_ic_req(const Handshake& wanted) {
  std::array<std::byte, nvme::kPduHeaderMax> header;
  const uint32_t length = nvme::build_ic_req(header, {.header_digest = wanted.header_digest,
                                                      .data_digest = wanted.data_digest,
                                                      .data_alignment = wanted.data_alignment});
  put(std::span(header).first(length));
  if (std::exchange(greeted_, true)) return;
  // Both sides use the same: the target asks for no alignment of its own.
  format_ = {wanted.header_digest, wanted.data_digest, 0};
  decoder_ = nvme::PduDecoder(
      host_limits(nvme::Phase::kConnecting, {format_.header_digest, format_.data_digest, wanted.data_alignment}));
}

void FuzzLink::send_command(const nvme::SubmissionEntry& command, std::span<const std::byte> capsule) {
  if (!greeted_) checks_ = false;
  std::array<std::byte, nvme::kPduHeaderMax> header;
  const uint32_t length = nvme::build_capsule_cmd(header, format_, command, static_cast<uint32_t>(capsule.size()));
  const bool damage = std::exchange(damage_next_, false);
  if (damage && format_.header_digest) header[sizeof(nvme::CapsuleCmdPdu)] ^= std::byte{1};
  put(std::span(header).first(length));
  if (capsule.empty()) return;
  put(capsule);
  if (!format_.data_digest) return;
  put_digest_of(capsule);
  if (damage && !outbox_.empty()) outbox_.back() ^= std::byte{1};
}

void FuzzLink::send_data(const nvme::DataParameters& parameters, std::span<const std::byte> data) {
  if (data.empty()) return;
  if (!greeted_) checks_ = false;
  std::array<std::byte, nvme::kPduHeaderMax> header;
  nvme::DataParameters with_length = parameters;
  with_length.length = static_cast<uint32_t>(data.size());
  put(std::span(header).first(nvme::build_h2c_data(header, format_, with_length)));
  put(data);
  if (!format_.data_digest) return;
  put_digest_of(data);
  if (std::exchange(damage_next_, false) && !outbox_.empty()) outbox_.back() ^= std::byte{1};
}

Task<void> FuzzLink::send_loop() {
  while (!closing_ && !ended_) {
    if (outbox_.empty()) {
      co_await changed_.wait();
      continue;
    }
    const Bytes batch = std::exchange(outbox_, {});
    size_t sent = 0;
    while (sent < batch.size()) {
      const iovec piece{const_cast<std::byte*>(batch.data()) + sent, batch.size() - sent};
      const Result<size_t> done = co_await fairlead::send(*stream_, {&piece, 1});
      if (!done) co_return;
      sent += *done;
    }
  }
}

// ---- Receiving

Task<void> FuzzLink::receive_loop() {
  StreamReader reader(*stream_);
  while (true) {
    while (!reading_ && !closing_) co_await changed_.wait();
    if (checks_) {
      if (!co_await receive_pdu(reader)) break;
    } else {
      if (!co_await reader.fill(1)) break;
      reader.consume(reader.available());
    }
  }
  ended_ = true;
  changed_.release_waiters();
}

Task<bool> FuzzLink::receive_pdu(StreamReader& reader) {
  if (!co_await reader.fill(sizeof(nvme::PduHeader))) co_return false;
  if (!checks_) co_return true;
  const auto header_length = decoder_.header_length(reader.bytes().first<sizeof(nvme::PduHeader)>());
  FL_CHECK(header_length.has_value());
  if (!co_await reader.fill(*header_length)) co_return false;
  Bytes header(reader.bytes().begin(), reader.bytes().begin() + static_cast<ptrdiff_t>(*header_length));
  reader.consume(*header_length);
  const auto pdu = decoder_.decode(header);
  FL_CHECK(pdu.has_value());
  Bytes data;
  if (!co_await take_data(reader, *pdu, data)) co_return false;
  on_pdu(*pdu, std::move(data));
  co_return true;
}

Task<bool> FuzzLink::take_data(StreamReader& reader, const nvme::DecodedPdu& pdu, Bytes& out) {
  const size_t behind = pdu.total_length - pdu.header_length;
  while (out.size() < behind) {
    if (!co_await reader.fill(1)) co_return false;
    const size_t piece = std::min(reader.available(), behind - out.size());
    out.insert(out.end(), reader.bytes().begin(), reader.bytes().begin() + static_cast<ptrdiff_t>(piece));
    reader.consume(piece);
  }
  if (pdu.has_data_digest) {
    const std::span<const std::byte> data = std::span(out).subspan(pdu.padding, pdu.data_length);
    FL_CHECK(nvme::data_digest_matches(crc32c(data), std::span(out).last<nvme::kDigestSize>()));
  }
  if (pdu.data_length > 0) {
    out.erase(out.begin(), out.begin() + static_cast<ptrdiff_t>(pdu.padding));
    out.resize(pdu.data_length);
  }
  co_return true;
}

void FuzzLink::on_pdu(const nvme::DecodedPdu& pdu, Bytes data) {
  switch (pdu.type) {
    case nvme::PduType::kIcResp: {
      nvme::PduLimits limits = decoder_.limits();
      limits.phase = nvme::Phase::kReady;
      decoder_ = nvme::PduDecoder(limits);
      break;
    }
    case nvme::PduType::kR2t:
      last_r2t_ = pdu.as<nvme::R2tPdu>();
      break;
    case nvme::PduType::kC2hData: {
      const uint16_t cid = pdu.as<nvme::C2hDataPdu>().cccid;
      if (pdu.has_flag(nvme::kPduSuccess)) {
        nvme::CompletionEntry completion;
        completion.cid = cid;
        answers_[cid] = {completion, std::move(data)};
      } else {
        transferred_[cid] = std::move(data);
      }
      break;
    }
    case nvme::PduType::kCapsuleResp: {
      const nvme::CompletionEntry completion = pdu.as<nvme::CapsuleRespPdu>().completion;
      last_result_ = completion.result();
      answers_[completion.cid] = {completion, std::exchange(transferred_[completion.cid], {})};
      break;
    }
    default:
      break;
  }
  changed_.release_waiters();
}

Task<std::optional<FuzzLink::Answer>> FuzzLink::answer(uint16_t cid) {
  while (true) {
    if (const auto at = answers_.find(cid); at != answers_.end()) {
      std::optional<Answer> found = std::move(at->second);
      answers_.erase(at);
      co_return found;
    }
    if (ended_ || closing_) co_return std::nullopt;
    co_await changed_.wait();
  }
}

// ---- Commands

nvme::SubmissionEntry connect_command(uint16_t cid, const ConnectParameters& parameters) {
  nvme::ConnectCommand command;
  command.prefix.cid = cid;
  command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kConnect);
  command.prefix.sgl = nvme::SglDescriptor::in_capsule(0, sizeof(nvme::ConnectData));
  command.qid = parameters.qid;
  command.sqsize = static_cast<uint16_t>(parameters.queue_entries - 1);
  command.cattr = parameters.disable_flow_control ? nvme::kConnectDisableSqFlowControl : uint8_t{0};
  command.kato = parameters.keep_alive_ms;
  return nvme::to_submission_entry(command);
}

Bytes connect_data(const ConnectParameters& parameters) {
  nvme::ConnectData data;
  data.host_id[0] = parameters.host_id;
  data.cntlid = parameters.controller_id;
  put_name(data.subnqn, parameters.subsystem);
  put_name(data.hostnqn, parameters.host);
  Bytes bytes(sizeof data);
  std::memcpy(bytes.data(), &data, sizeof data);
  return bytes;
}

nvme::SubmissionEntry property_set(uint16_t cid, uint32_t offset, uint64_t value) {
  nvme::PropertyCommand command;
  command.prefix.cid = cid;
  command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kPropertySet);
  command.offset = offset;
  command.value = value;
  return nvme::to_submission_entry(command);
}

nvme::SubmissionEntry property_get(uint16_t cid, uint32_t offset, bool eight_bytes) {
  nvme::PropertyCommand command;
  command.prefix.cid = cid;
  command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kPropertyGet);
  command.attrib = eight_bytes ? 1 : 0;
  command.offset = offset;
  return nvme::to_submission_entry(command);
}

}  // namespace fairlead::fuzz
