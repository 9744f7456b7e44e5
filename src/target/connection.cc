#include "target/connection.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "base/log.h"
#include "target/connection_slot.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::FatalError;
using nvme::PduType;
using nvme::PduViolation;
using nvme::StatusCode;

namespace {

constexpr auto kRefusalTimeout = std::chrono::seconds(1);
constexpr auto kDrainTimeout = std::chrono::seconds(3);
// From this size on data is received straight into the request's buffer, not by way of the reader.
constexpr size_t kDirectMin = 4096;

nvme::PduLimits limits_before_connect(const TargetOptions& options) {
  return {.direction = nvme::Direction::kHostToController,
          .phase = nvme::Phase::kConnecting,
          .in_capsule_max = std::max(options.in_capsule_bytes, nvme::kAdminInCapsuleData),
          .data_pdu_max = 4096U << options.transfer_shift};
}

}  // namespace

Connection::Connection(ShardTarget& shard_target, std::unique_ptr<Stream> stream, uint64_t id, PortIndex port)
    : shard_target_(shard_target),
      reactor_(shard_target.reactor()),
      stream_(std::move(stream)),
      id_(id),
      reader_(*stream_),
      sender_(
          reactor_, *stream_, [](void* self) { static_cast<Connection*>(self)->on_sender_idle(); }, this),
      decoder_(limits_before_connect(shard_target.options())),
      queue_(shard_target, *this, port),
      changed_(reactor_) {}

Connection::~Connection() { reactor_.disarm(deadline_); }

Task<void> Connection::run() {
  reactor_.arm(deadline_, std::chrono::milliseconds(shard_target_.options().handshake_timeout_ms));
  const char* const reason = co_await receive_loop();
  close(reason);
  reactor_.disarm(deadline_);
  sender_.stop();
  reclaim();
  while (free_.size() < slots_.size() || !sender_.is_idle()) {
    co_await changed_.wait();
    reclaim();
  }
  co_await queue_.close();
}

void Connection::close(const char* reason) {
  if (std::exchange(closing_, true)) return;
  if (!draining_) close_reason_ = reason;
  stream_->shutdown();
  changed_.release_waiters();
}

void Connection::close_gently(const char* reason) {
  if (closing_ || std::exchange(draining_, true)) return;
  close_reason_ = reason;
  reactor_.arm(deadline_, kDrainTimeout);
  finish_draining();
}

void Connection::on_sender_idle() {
  changed_.release_waiters();
  if (sender_.has_failed()) close("the host closed the connection");
  if (draining_) finish_draining();
}

void Connection::on_deadline() {
  if (draining_ || refusing_) return close(close_reason_);
  if (!queue_.is_connected()) close("the host did not connect in time");
}

// Ends with the reason, in a few words for people.
Task<const char*> Connection::receive_loop() {
  constexpr const char* kGone = "the host closed the connection";
  constexpr const char* kBroke = "the host broke the protocol";
  budget_ = shard_target_.options().turn_budget;
  while (true) {
    switch (take_pdus()) {
      case Pause::kNeedsBytes:
        if (!co_await reader_.fill(bytes_wanted_)) co_return kGone;
        break;
      case Pause::kNeedsSlot:
        co_await changed_.wait();
        break;
      case Pause::kNeedsData:
        if (!co_await receive_data(incoming_)) co_return kGone;
        if (closing_) co_return close_reason_;
        end_pdu(incoming_);
        if (spend_budget()) co_await yield(reactor_);
        break;
      case Pause::kYields:
        co_await yield(reactor_);
        break;
      case Pause::kViolation: {
        const auto bytes = reader_.bytes().first(bytes_wanted_);
        co_await refuse(violation_, {bytes.begin(), bytes.end()});
        co_return kBroke;
      }
      case Pause::kEnds:
        co_return closing_ ? close_reason_ : "the host terminated the connection";
    }
  }
}

// Handles the PDUs that are there, without a coroutine: nothing is left of them when it returns.
Connection::Pause Connection::take_pdus() {
  while (true) {
    if (closing_) return Pause::kEnds;
    if (draining_) reader_.consume(reader_.available());
    bytes_wanted_ = sizeof(nvme::PduHeader);
    if (reader_.available() < bytes_wanted_) return Pause::kNeedsBytes;
    const auto header_length = decoder_.header_length(reader_.bytes().first<sizeof(nvme::PduHeader)>());
    if (!header_length) return note_violation(header_length.error());
    bytes_wanted_ = *header_length;
    if (reader_.available() < bytes_wanted_) return Pause::kNeedsBytes;
    // A command needs a slot; a host that reads its answers always finds one.
    if (!has_slot()) return Pause::kNeedsSlot;
    const auto pdu = decoder_.decode(reader_.bytes().first(bytes_wanted_));
    if (!pdu) return note_violation(pdu.error());
    if (const auto violation = begin_pdu(*pdu)) return note_violation(*violation);
    if (pdu->type == PduType::kH2cTermReq) return Pause::kEnds;
    reader_.consume(bytes_wanted_);
    if (!take_data(incoming_)) return Pause::kNeedsData;
    end_pdu(incoming_);
    if (spend_budget()) return Pause::kYields;
  }
}

Connection::Pause Connection::note_violation(const PduViolation& violation) {
  violation_ = violation;
  return Pause::kViolation;
}

// True: others have their turn now.
bool Connection::spend_budget() {
  if (--budget_ > 0 && !fault(FaultPoint::kYieldEarly)) return false;
  probe(Probe::kReceiveBudgetSpent);
  budget_ = shard_target_.options().turn_budget;
  return true;
}

// Sets incoming_. A violation: the connection ends.
std::optional<PduViolation> Connection::begin_pdu(const nvme::DecodedPdu& pdu) {
  incoming_ = {};
  switch (pdu.type) {
    case PduType::kIcReq:
      accept_connection(pdu.as<nvme::IcReqPdu>());
      return std::nullopt;
    case PduType::kCapsuleCmd:
      return begin_command(pdu);
    case PduType::kH2cData:
      return begin_data(pdu);
    case PduType::kH2cTermReq: {
      const auto term = pdu.as<nvme::TermReqPdu>();
      log_warn("target.terminated_by_host", {{"fes", term.fes.get()}, {"fei", term.fei.get()}});
      return std::nullopt;
    }
    default:
      FL_UNREACHABLE("the decoder lets no other PDU through");
  }
}

void Connection::accept_connection(const nvme::IcReqPdu& request) {
  nvme::PduLimits limits = decoder_.limits();
  limits.phase = nvme::Phase::kReady;
  limits.header_digest = (request.dgst & nvme::kIcHeaderDigest) != 0;
  limits.data_digest = (request.dgst & nvme::kIcDataDigest) != 0;
  decoder_ = nvme::PduDecoder(limits);
  format_ = {limits.header_digest, limits.data_digest, request.hpda};
  const nvme::IcRespParameters parameters{.header_digest = limits.header_digest,
                                          .data_digest = limits.data_digest,
                                          .data_alignment = limits.data_alignment,
                                          .max_h2c_data = limits.data_pdu_max};
  const uint32_t length = nvme::build_ic_resp(std::span(notice_.bytes).first<nvme::kPduHeaderMax>(), parameters);
  notice_.clear();
  notice_.add(std::span(notice_.bytes).first(length));
  sender_.enqueue(notice_);
}

std::optional<PduViolation> Connection::begin_command(const nvme::DecodedPdu& pdu) {
  // Before Connect the queue's size is not known; one command at a time is all that a host may send then.
  if (outstanding_ >= queue_.entries()) {
    return PduViolation{FatalError::kPduSequence, 0, "more commands than the queue has entries"};
  }
  Slot& slot = *take_slot();
  slot.request.command = pdu.as<nvme::CapsuleCmdPdu>().command;
  ++commands_;
  const nvme::Status status = prepare(slot, pdu.data_length);
  Incoming& incoming = incoming_;
  incoming.slot = &slot;
  incoming.has_digest = pdu.has_data_digest;
  if (!status.ok()) {
    slot.request.status = status;
    slot.request.need = {};
    incoming.skip_before = pdu.padding + pdu.data_length;
  } else if (slot.request.need.direction == nvme::DataTransfer::kHostToController &&
             slot.request.pointer.place == nvme::DataPlace::kInCapsule) {
    incoming.in_capsule = true;
    incoming.skip_before = pdu.padding + slot.request.pointer.offset;
    incoming.length = slot.request.pointer.length;
    incoming.skip_after = pdu.data_length - slot.request.pointer.offset - slot.request.pointer.length;
    incoming.checks_digest = incoming.length == pdu.data_length;
  } else {
    incoming.skip_before = pdu.padding + pdu.data_length;
  }
  if (queue_.is_connected() && !queue_.is_admin()) queue_.arrived(slot.request);
  return std::nullopt;
}

std::optional<PduViolation> Connection::begin_data(const nvme::DecodedPdu& pdu) {
  const auto data = pdu.as<nvme::H2cDataPdu>();
  if (data.ttag >= slots_.size()) return nvme::unknown_ttag();
  Slot& slot = *slots_[data.ttag];
  if (slot.request.stage != Stage::kNeedsData) return nvme::unknown_ttag();
  const nvme::DataTransferState transfer{slot.request.command.cid, slot.received, slot.request.need.length};
  if (const auto violation = nvme::check_h2c_data(data, transfer)) return violation;
  incoming_ = {.slot = &slot,
               .skip_before = pdu.padding,
               .offset = slot.received,
               .length = pdu.data_length,
               .skip_after = 0,
               .has_digest = pdu.has_data_digest,
               .in_capsule = false,
               .checks_digest = true};
  return std::nullopt;
}

// Where the data goes in the request's buffer.
std::span<std::byte> Connection::received_data(const Incoming& incoming) {
  return incoming.slot->request.data.bytes(incoming.offset + incoming.length).subspan(incoming.offset);
}

// Takes the data behind a header if all of it is there, and a buffer for it. False: receive_data() goes on.
bool Connection::take_data(const Incoming& incoming) {
  if (incoming.total() == 0) return true;
  Slot& slot = *incoming.slot;
  Request& request = slot.request;
  const bool is_there = reader_.available() >= incoming.total();
  if (is_there && incoming.in_capsule && queue_.takes_in_place(request)) {
    // What the reader gave away stays until it is filled again; execute() is over before that.
    request.in_place = reader_.bytes().subspan(incoming.skip_before, incoming.length);
    request.stage = Stage::kNeedsData;
  } else if (incoming.in_capsule) {
    slot.in_capsule = true;
    proceed(slot);
    if (!request.data) return false;
  }
  if (!is_there) return false;
  slot.in_capsule = false;
  reader_.consume(incoming.skip_before);
  if (incoming.length > 0 && request.in_place.empty()) {
    std::memcpy(received_data(incoming).data(), reader_.bytes().data(), incoming.length);
  }
  reader_.consume(incoming.length + incoming.skip_after);
  if (incoming.has_digest) take_digest(incoming);
  return true;
}

Task<bool> Connection::skip(uint32_t length) {
  while (length > 0) {
    if (reader_.available() == 0 && !co_await reader_.fill(1)) co_return false;
    const auto piece = static_cast<uint32_t>(std::min<size_t>(reader_.available(), length));
    reader_.consume(piece);
    length -= piece;
  }
  co_return true;
}

Task<bool> Connection::receive_data(const Incoming& incoming) {
  Slot& slot = *incoming.slot;
  if (incoming.in_capsule) {
    while (!slot.request.data && !closing_) co_await changed_.wait();
    slot.in_capsule = false;
    if (closing_) co_return false;
  }
  if (incoming.skip_before > 0 && !co_await skip(incoming.skip_before)) co_return false;
  if (incoming.length > 0) {
    std::span<std::byte> left = received_data(incoming);
    while (!left.empty()) {
      if (reader_.available() == 0 && left.size() >= kDirectMin) {
        const size_t got = co_await reader_.fill_direct(left);
        if (got == 0) co_return false;
        left = left.subspan(got);
        continue;
      }
      if (reader_.available() == 0 && !co_await reader_.fill(1)) co_return false;
      const size_t piece = std::min(reader_.available(), left.size());
      std::ranges::copy(reader_.bytes().first(piece), left.begin());
      reader_.consume(piece);
      left = left.subspan(piece);
    }
  }
  if (incoming.skip_after > 0 && !co_await skip(incoming.skip_after)) co_return false;
  if (!incoming.has_digest) co_return true;
  if (reader_.available() < nvme::kDigestSize && !co_await reader_.fill(nvme::kDigestSize)) co_return false;
  take_digest(incoming);
  co_return true;
}

// Requires: the digest is there.
void Connection::take_digest(const Incoming& incoming) {
  if (incoming.checks_digest) {
    Slot& slot = *incoming.slot;
    const std::span<const std::byte> data =
        slot.request.in_place.empty() ? received_data(incoming) : slot.request.in_place;
    if (!nvme::data_digest_matches(crc32c(data), reader_.bytes().first<nvme::kDigestSize>())) {
      probe(Probe::kDigestMismatch);
      slot.data_damaged = true;
    }
  }
  reader_.consume(nvme::kDigestSize);
}

void Connection::end_pdu(const Incoming& incoming) {
  if (incoming.slot == nullptr) return;
  Slot& slot = *incoming.slot;
  Request& request = slot.request;
  if (!request.status.ok()) {
    // prepare() refused it; whatever it brought along has gone by.
    queue_.complete(request, request.status);
    return;
  }
  if (request.stage == Stage::kArrived) return proceed(slot);
  slot.received += incoming.length;
  if (slot.received < request.need.length) return;
  if (slot.data_damaged) return queue_.complete(request, nvme::transient(StatusCode::kTransientTransportError));
  queue_.execute(request);
}

// Sends a C2HTermReq with the header complained of, then waits a little for the host to close, so that it can read it.
Task<void> Connection::refuse(PduViolation violation, std::vector<std::byte> header) {
  log_warn("target.protocol_violation",
           {{"peer", to_string(stream_->peer())}, {"error", violation.reason}, {"fei", violation.info}});
  reactor_.arm(deadline_, kRefusalTimeout);
  refusing_ = true;
  while (notice_.is_linked() && !closing_) co_await changed_.wait();
  if (closing_ || sender_.has_failed()) co_return;
  const uint32_t length = nvme::build_term_req(notice_.bytes, nvme::Direction::kControllerToHost, violation, header);
  notice_.clear();
  notice_.add(std::span(notice_.bytes).first(length));
  sender_.enqueue(notice_);
  while (co_await reader_.fill(1)) reader_.consume(reader_.available());
}

}  // namespace fairlead::target
