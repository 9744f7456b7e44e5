// The receiving half of Queue: every byte of the controller passes here.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "base/log.h"
#include "host/pieces.h"
#include "host/queue_slot.h"

namespace fairlead::host {

using nvme::DataTransfer;
using nvme::FatalError;
using nvme::PduType;
using nvme::PduViolation;

namespace {

constexpr auto kRefusalTimeout = std::chrono::seconds(1);
constexpr uint32_t kTurnBudget = 256;  // PDUs before others on the shard have their turn
// From this size on data is received straight into the command's buffers, not by way of the reader.
constexpr size_t kDirectMin = 4096;
constexpr const char* kGone = "the controller closed the connection";
constexpr const char* kBroken = "the controller broke the protocol";
constexpr uint32_t kCompletionCidOffset =
    offsetof(nvme::CapsuleRespPdu, completion) + offsetof(nvme::CompletionEntry, cid);

std::unexpected<PduViolation> violation(uint32_t offset, const char* reason) {
  return std::unexpected(PduViolation{FatalError::kInvalidHeaderField, offset, reason});
}

}  // namespace

Task<void> Queue::run() {
  const char* const reason = co_await receive_loop();
  close(reason);
  sender_->stop();
  while (!sender_->is_idle()) co_await changed_.wait();
  drop_all();
  state_ = State::kLost;
  attention_.set();
  changed_.release_waiters();
}

Task<const char*> Queue::receive_loop() {
  uint32_t budget = kTurnBudget;
  while (true) {
    if (reader_->available() < sizeof(nvme::PduHeader) && !co_await reader_->fill(sizeof(nvme::PduHeader)))
      co_return kGone;
    if (state_ == State::kClosing) co_return reason_;
    const auto header_length = decoder_.header_length(reader_->bytes().first<sizeof(nvme::PduHeader)>());
    if (!header_length) {
      const auto bytes = reader_->bytes().first(sizeof(nvme::PduHeader));
      co_await refuse(header_length.error(), {bytes.begin(), bytes.end()});
      co_return kBroken;
    }
    if (reader_->available() < *header_length && !co_await reader_->fill(*header_length)) co_return kGone;
    const std::span<const std::byte> header = reader_->bytes().first(*header_length);
    const auto pdu = decoder_.decode(header);
    const Begun begun = pdu ? begin_pdu(*pdu) : Begun(std::unexpected(pdu.error()));
    if (!begun) {
      co_await refuse(begun.error(), {header.begin(), header.end()});
      co_return kBroken;
    }
    if (pdu->type == PduType::kC2hTermReq) co_return "the controller terminated the connection";
    reader_->consume(*header_length);
    Incoming incoming = *begun;
    if (!take_available(incoming) && !co_await receive_data(incoming)) co_return kGone;
    if (state_ == State::kClosing) co_return reason_;
    end_pdu(incoming);
    if (--budget == 0 || fault(FaultPoint::kYieldEarly)) {
      budget = kTurnBudget;
      co_await yield(reactor_);
    }
  }
}

Queue::Begun Queue::begin_pdu(const nvme::DecodedPdu& pdu) {
  switch (pdu.type) {
    case PduType::kIcResp:
      if (const auto accepted = accept_ic_resp(pdu.as<nvme::IcRespPdu>()); !accepted) {
        return std::unexpected(accepted.error());
      }
      return Incoming{};
    case PduType::kCapsuleResp:
      if (const auto taken = on_response(pdu.as<nvme::CapsuleRespPdu>().completion); !taken) {
        return std::unexpected(taken.error());
      }
      return Incoming{};
    case PduType::kC2hData:
      return begin_c2h_data(pdu);
    case PduType::kR2t:
      if (const auto taken = on_r2t(pdu.as<nvme::R2tPdu>()); !taken) return std::unexpected(taken.error());
      return Incoming{};
    case PduType::kC2hTermReq: {
      const auto term = pdu.as<nvme::TermReqPdu>();
      log_warn("host.terminated_by_controller", {{"address", to_string(options_.address)},
                                                 {"qid", options_.qid},
                                                 {"fes", term.fes.get()},
                                                 {"fei", term.fei.get()}});
      return Incoming{};
    }
    default:
      FL_UNREACHABLE("the decoder lets no other PDU through");
  }
}

std::expected<void, PduViolation> Queue::accept_ic_resp(const nvme::IcRespPdu& response) {
  const bool header_digest = (response.dgst & nvme::kIcHeaderDigest) != 0;
  const bool data_digest = (response.dgst & nvme::kIcDataDigest) != 0;
  if ((header_digest && !options_.header_digest) || (data_digest && !options_.data_digest)) {
    return violation(offsetof(nvme::IcRespPdu, dgst), "the controller enables a digest that nobody asked for");
  }
  nvme::PduLimits limits = decoder_.limits();
  limits.phase = nvme::Phase::kReady;
  limits.header_digest = header_digest;
  limits.data_digest = data_digest;
  decoder_ = nvme::PduDecoder(limits);
  format_ = {header_digest, data_digest, response.cpda};
  h2c_data_max_ = response.maxh2cdata;
  initialized_ = true;
  changed_.release_waiters();
  return {};
}

// The command in flight that has this CID; null: none. One that waits to be sent cannot be known to the controller.
Queue::Slot* Queue::find(uint16_t cid) {
  const uint32_t index = cid & ((1U << kCidIndexBits) - 1);
  if (index >= options_.depth) return nullptr;
  Slot& slot = slots_[index];
  const bool is_in_flight = slot.command != nullptr && slot.capsule.started && !slot.answered;
  return is_in_flight && slot.cid == cid ? &slot : nullptr;
}

std::expected<void, PduViolation> Queue::on_response(const nvme::CompletionEntry& completion) {
  Slot* const slot = find(completion.cid);
  if (slot == nullptr) return violation(kCompletionCidOffset, "no command has this identifier");
  Command& command = *slot->command;
  const nvme::Status status = nvme::from_status_field(completion.status);
  const uint32_t moved = command.direction == DataTransfer::kControllerToHost ? slot->received : slot->sent;
  if (status.ok() && command.direction != DataTransfer::kNone && moved != command.length) {
    return violation(kCompletionCidOffset, "a command succeeds without all of its data");
  }
  const bool has_asked = command.direction == DataTransfer::kHostToController && !slot->in_capsule;
  if (status.ok() && has_asked && !slot->data.started) {
    return violation(kCompletionCidOffset, "a command succeeds before its data was sent");
  }
  command.status = status;
  command.result = completion.result();
  finish(*slot);
  return {};
}

Queue::Begun Queue::begin_c2h_data(const nvme::DecodedPdu& pdu) {
  const auto data = pdu.as<nvme::C2hDataPdu>();
  Slot* const slot = find(data.cccid);
  if (slot == nullptr) return std::unexpected(nvme::unknown_cccid());
  const bool reads = slot->command->direction == DataTransfer::kControllerToHost;
  const nvme::DataTransferState transfer{slot->cid, slot->received, reads ? slot->command->length : 0};
  if (const auto wrong = nvme::check_c2h_data(data, transfer)) return std::unexpected(*wrong);
  slot->received += pdu.data_length;
  return Incoming{.slot = slot,
                  .skip = pdu.padding,
                  .range = {data.datao, pdu.data_length},
                  .has_digest = pdu.has_data_digest,
                  .ends_command = pdu.has_flag(nvme::kPduSuccess)};
}

std::expected<void, PduViolation> Queue::on_r2t(const nvme::R2tPdu& r2t) {
  Slot* const slot = find(r2t.cccid);
  if (slot == nullptr) return std::unexpected(nvme::unknown_cccid());
  const bool waits = slot->command->direction == DataTransfer::kHostToController && !slot->in_capsule;
  const nvme::DataTransferState transfer{slot->cid, slot->requested, waits ? slot->command->length : 0};
  if (const auto wrong = nvme::check_r2t(r2t, transfer)) return std::unexpected(*wrong);
  if (slot->sent < slot->requested || slot->has_next_r2t) {
    return std::unexpected(
        PduViolation{FatalError::kR2tLimitExceeded, 0, "a second R2T before the first had its data"});
  }
  if (slot->data.is_linked()) {
    slot->has_next_r2t = true;
    slot->next_requested = r2t.r2to + r2t.r2tl;
    slot->next_ttag = r2t.ttag;
    return {};
  }
  slot->requested = r2t.r2to + r2t.r2tl;
  slot->ttag = r2t.ttag;
  if (state_ != State::kClosing && !sender_->has_failed()) send_data(*slot);
  return {};
}

// Takes what has arrived of a PDU's data. True: all of it, digest included.
bool Queue::take_available(Incoming& incoming) {
  const size_t skipped = std::min<size_t>(incoming.skip, reader_->available());
  reader_->consume(skipped);
  incoming.skip -= static_cast<uint32_t>(skipped);
  while (incoming.taken < incoming.range.length && reader_->available() > 0) {
    const std::span<std::byte> part = first_part(incoming.slot->command->data, incoming.rest());
    const size_t length = std::min(reader_->available(), part.size());
    std::ranges::copy(reader_->bytes().first(length), part.begin());
    reader_->consume(length);
    incoming.taken += static_cast<uint32_t>(length);
  }
  if (incoming.skip > 0 || incoming.taken < incoming.range.length) return false;
  if (!incoming.has_digest) return true;
  if (reader_->available() < nvme::kDigestSize) return false;
  const uint32_t crc = digest_of(incoming.slot->command->data, incoming.range);
  if (!nvme::data_digest_matches(crc, reader_->bytes().first<nvme::kDigestSize>())) {
    probe(Probe::kDigestMismatch);
    incoming.slot->data_damaged = true;
  }
  reader_->consume(nvme::kDigestSize);
  return true;
}

// False: the stream ended first.
Task<bool> Queue::receive_data(Incoming& incoming) {
  do {
    if (incoming.skip > 0 || incoming.taken == incoming.range.length) {
      // The rest of the padding, or of the digest.
      if (!co_await reader_->fill(reader_->available() + 1)) co_return false;
      continue;
    }
    const std::span<std::byte> part = first_part(incoming.slot->command->data, incoming.rest());
    if (part.size() >= kDirectMin) {
      const size_t got = co_await reader_->fill_direct(part);
      if (got == 0) co_return false;
      incoming.taken += static_cast<uint32_t>(got);
    } else if (!co_await reader_->fill(1)) {
      co_return false;
    }
  } while (!take_available(incoming));
  co_return true;
}

void Queue::end_pdu(const Incoming& incoming) {
  if (!incoming.ends_command) return;
  incoming.slot->command->status = nvme::kOk;
  incoming.slot->command->result = 0;
  finish(*incoming.slot);
}

// Sends an H2CTermReq with the header complained of, behind what is under way, and gives it a little time to go out.
Task<void> Queue::refuse(PduViolation complaint, std::vector<std::byte> header) {
  lost_code_ = Code::kProtocol;
  refusing_ = true;
  log_warn("host.protocol_violation", {{"address", to_string(options_.address)},
                                       {"qid", options_.qid},
                                       {"error", complaint.reason},
                                       {"fei", complaint.info}});
  if (state_ == State::kClosing || sender_->has_failed()) co_return;
  while (notice_.is_linked() && state_ != State::kClosing) co_await changed_.wait();
  if (state_ == State::kClosing || sender_->has_failed()) co_return;
  const uint32_t length = nvme::build_term_req(notice_.bytes, nvme::Direction::kHostToController, complaint, header);
  notice_.clear();
  notice_.add(std::span(notice_.bytes).first(length));
  sender_->enqueue(notice_);
  reactor_.arm(alarm_, kRefusalTimeout);
  while (!sender_->is_idle() && state_ != State::kClosing) co_await changed_.wait();
}

}  // namespace fairlead::host
