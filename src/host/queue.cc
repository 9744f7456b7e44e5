#include "host/queue.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "host/execute.h"
#include "host/pieces.h"
#include "host/queue_slot.h"
#include "nvme/nqn.h"

namespace fairlead::host {

using nvme::DataTransfer;

namespace {

// What a deep queue reads arrives in large pieces; only what is used of it is ever resident.
constexpr size_t kReaderBytes = 256 * kKiB;
constexpr uint32_t kC2hDataMax = 1U << 30;  // a command's own length bounds it closer

nvme::PduLimits limits_before_connect() {
  return {
      .direction = nvme::Direction::kControllerToHost, .phase = nvme::Phase::kConnecting, .data_pdu_max = kC2hDataMax};
}

// For people: which of what they gave is wrong.
Error connect_error(const Answer& answer) {
  using nvme::ConnectFieldIn;
  const auto field = static_cast<uint32_t>(answer.result);
  if (answer.status.code == nvme::StatusCode::kConnectInvalidParameters &&
      field == connect_invalid_field(ConnectFieldIn::kData, offsetof(nvme::ConnectData, subnqn))) {
    return {Code::kNotFound, 0, "Connect: no such subsystem there"};
  }
  if (answer.status.code == nvme::StatusCode::kConnectInvalidHost) {
    return nvme::error_from_status(answer.status, "Connect: the subsystem does not allow this host");
  }
  return nvme::error_from_status(answer.status, "Connect");
}

}  // namespace

Queue::Queue(Shard& shard, QueueOptions options)
    : shard_(shard),
      reactor_(shard.reactor),
      options_(std::move(options)),
      scope_(shard.reactor),
      decoder_(limits_before_connect()),
      changed_(shard.reactor),
      attention_(shard.reactor) {
  FL_CHECK(options_.depth >= 1 && options_.depth <= kDepthMax);
}

Queue::~Queue() { reactor_.disarm(alarm_); }

// Connecting.

Task<Result<void>> Queue::connect() {
  FL_CHECK(state_ == State::kNew);
  state_ = State::kConnecting;
  const Instant begin = reactor_.now();
  Result<std::unique_ptr<Stream>> stream = co_await shard_.network.connect(options_.address, options_.connect_timeout);
  if (!stream || state_ == State::kClosing) {
    if (stream) (*stream)->shutdown();
    state_ = State::kLost;
    if (!stream) reason_ = "no connection could be made";
    attention_.set();
    drop_all();
    if (!stream) co_return std::unexpected(stream.error());
    co_return lost_error();
  }
  stream_ = std::move(*stream);
  reader_ = std::make_unique<StreamReader>(*stream_, kReaderBytes);
  sender_ = std::make_unique<StreamSender>(
      reactor_, *stream_, [](void* self) { static_cast<Queue*>(self)->on_sender_idle(); }, this);
  slots_ = std::make_unique<Slot[]>(options_.depth);
  free_.reserve(options_.depth);
  for (uint16_t i = options_.depth; i-- > 0;) {
    slots_[i].queue = this;
    slots_[i].index = i;
    free_.push_back(i);
  }
  expired_.reserve(options_.depth);
  reactor_.arm(alarm_, begin + options_.connect_timeout);
  scope_.spawn(run());
  const Result<void> done = co_await handshake();
  if (!done) {
    close("the controller refused the connection");
    co_await closed();
    co_return done;
  }
  reactor_.disarm(alarm_);
  state_ = State::kLive;
  pump();
  co_return Result<void>();
}

Task<Result<void>> Queue::handshake() {
  const nvme::IcReqParameters parameters{.header_digest = options_.header_digest, .data_digest = options_.data_digest};
  const uint32_t length = nvme::build_ic_req(std::span(notice_.bytes).first<nvme::kPduHeaderMax>(), parameters);
  notice_.clear();
  notice_.add(std::span(notice_.bytes).first(length));
  sender_->enqueue(notice_);
  while (!initialized_ && state_ == State::kConnecting) co_await changed_.wait();
  if (state_ != State::kConnecting) co_return lost_error();
  if (format_.header_digest != options_.header_digest || format_.data_digest != options_.data_digest) {
    co_return fail(Code::kNotSupported, "the controller does not do the digests that were asked for");
  }
  FL_CO_TRY_VOID(co_await fabrics_connect());
  // What came right behind the answer may have ended the queue before this went on.
  while (refusing_ && state_ == State::kConnecting) co_await changed_.wait();
  if (state_ != State::kConnecting) co_return lost_error();
  co_return Result<void>();
}

// Base 2.0 section 6.3.
Task<Result<void>> Queue::fabrics_connect() {
  nvme::ConnectCommand command;
  command.prefix.fctype = static_cast<uint8_t>(nvme::FabricsType::kConnect);
  command.qid = options_.qid;
  command.sqsize = options_.depth;  // 0's based: one entry more than commands, so the queue is never full
  command.cattr = nvme::kConnectDisableSqFlowControl;
  const auto keep_alive = std::chrono::ceil<std::chrono::milliseconds>(options_.keep_alive);
  command.kato = static_cast<uint32_t>(keep_alive.count());
  nvme::ConnectData data;
  std::ranges::copy(options_.host_id, data.host_id);
  data.cntlid = options_.controller_id;
  nvme::write_zero_terminated(data.subnqn, options_.subsystem_nqn);
  nvme::write_zero_terminated(data.hostnqn, options_.host_nqn);
  Execute connect(reactor_, *this, nvme::to_submission_entry(command),
                  CommandData::to_controller(std::as_bytes(std::span(&data, 1))));
  connect.without_deadline();  // connect_timeout covers it
  const Result<Answer> answer = co_await connect;
  if (!answer) co_return lost_error();
  if (!answer->status.ok()) co_return std::unexpected(connect_error(*answer));
  if ((answer->result & nvme::kConnectAuthenticationRequired) != 0) {
    co_return fail(Code::kPermissionDenied, "the controller demands authentication");
  }
  if (options_.qid == 0) options_.controller_id = static_cast<uint16_t>(answer->result);
  co_return Result<void>();
}

Result<void> Queue::lost_error() const { return fail(lost_code_, reason_); }

void Queue::close(const char* reason) {
  if (state_ == State::kClosing || state_ == State::kLost) return;
  reason_ = reason;
  state_ = state_ == State::kNew ? State::kLost : State::kClosing;
  if (stream_) stream_->shutdown();
  changed_.release_waiters();
}

// Commands.

void Queue::submit(Command& command) {
  if (state_ == State::kClosing || state_ == State::kLost) {
    command.outcome = Outcome::kNotSent;
    return command.done(command);
  }
  // While connecting only Connect itself goes out. Who ends a command and submits it again stands in line with others.
  const bool may_start = state_ == State::kLive ? waiting_.empty() : initialized_ && command.entry.is_fabrics();
  if (!may_start || free_.empty() || refusing_ || sender_->has_failed()) {
    waiting_.push_back(command);
    return;
  }
  Slot& slot = slots_[free_.back()];
  free_.pop_back();
  start(command, slot);
}

void Queue::pump() {
  while (!waiting_.empty() && !free_.empty() && is_live() && !sender_->has_failed()) {
    Slot& slot = slots_[free_.back()];
    free_.pop_back();
    start(waiting_.pop_front(), slot);
  }
}

void Queue::start(Command& command, Slot& slot) {
  ++in_flight_;
  sender_->set_batch_min(in_flight_ / 8);
  slot.command = &command;
  slot.cid = static_cast<uint16_t>(slot.index | (uint32_t{++slot.generation} << kCidIndexBits));
  slot.answered = slot.expired = slot.in_capsule = slot.data_damaged = slot.has_next_r2t = false;
  slot.received = slot.sent = slot.requested = 0;
  command.entry.cid = slot.cid;
  prepare_data(command, slot);
  sender_->enqueue(slot.capsule);
  if (!command.has_deadline) return;
  slot.submitted = reactor_.now();
  in_order_.push_back(slot);
  if (!alarm_.is_armed() && !alarm_.is_linked()) reactor_.arm(alarm_, slot.submitted + options_.command_timeout);
}

void Queue::prepare_data(Command& command, Slot& slot) {
  nvme::SubmissionEntry& entry = command.entry;
  entry.flags = static_cast<uint8_t>((entry.flags & 0x3) | nvme::kFlagsSgl);
  const bool sends = command.direction == DataTransfer::kHostToController;
  // Fabrics commands have that much room whatever the controller says of its I/O commands: Connect brings its data.
  const uint32_t capsule_max = entry.is_fabrics() ? nvme::kAdminInCapsuleData : options_.in_capsule_max;
  slot.in_capsule = sends && command.length <= capsule_max;
  if (slot.in_capsule) {
    entry.sgl = nvme::SglDescriptor::in_capsule(0, command.length);
  } else {
    entry.sgl = nvme::SglDescriptor::transport(command.length);  // without data: a length of 0
  }
  const uint32_t length = nvme::build_capsule_cmd(slot.header, format_, entry, slot.in_capsule ? command.length : 0);
  const auto header = std::span<const std::byte>(slot.header).first(length);
  slot.capsule.clear();
  if (!slot.in_capsule) {
    slot.capsule.add(header);
  } else {
    const DataRange all{0, command.length};
    fill_item(slot.capsule, slot.list, header, command.data, all, format_.data_digest ? &slot.digest : nullptr);
    slot.sent = command.length;
  }
}

// The next piece of what an R2T asked for.
void Queue::send_data(Slot& slot) {
  const Command& command = *slot.command;
  const uint32_t piece = std::min(slot.requested - slot.sent, h2c_data_max_);
  const nvme::DataParameters parameters{.cccid = slot.cid,
                                        .ttag = slot.ttag,
                                        .offset = slot.sent,
                                        .length = piece,
                                        .last = slot.sent + piece == slot.requested};
  const uint32_t length = nvme::build_h2c_data(slot.data_header, format_, parameters);
  const DataRange range{slot.sent, piece};
  fill_item(slot.data, slot.list, std::span(slot.data_header).first(length), command.data, range,
            format_.data_digest ? &slot.digest : nullptr);
  slot.sent += piece;
  sender_->enqueue(slot.data);
}

void Queue::on_command_sent(SendItem& item) {
  Slot& slot = static_cast<Slot::Item&>(item).slot;
  if (slot.answered) slot.queue->finish(slot);
}

void Queue::on_data_sent(SendItem& item) {
  Slot& slot = static_cast<Slot::Item&>(item).slot;
  Queue& queue = *slot.queue;
  if (slot.answered) return queue.finish(slot);
  if (queue.state_ != State::kLive || queue.sender_->has_failed()) return;
  if (slot.sent == slot.requested && std::exchange(slot.has_next_r2t, false)) {
    slot.requested = slot.next_requested;
    slot.ttag = slot.next_ttag;
  }
  if (slot.sent < slot.requested) queue.send_data(slot);
}

// The command was answered: it ends as soon as the sender holds none of its memory.
void Queue::finish(Slot& slot) {
  slot.answered = true;
  if (slot.capsule.is_linked() || slot.data.is_linked()) return;
  Command& command = *slot.command;
  conclude(slot);
  release(slot);
  command.done(command);
  pump();
}

// What the controller said of the command, now that all of it is known.
void Queue::conclude(Slot& slot) {
  Command& command = *slot.command;
  command.outcome = Outcome::kAnswered;
  if (slot.data_damaged && command.status.ok()) {
    command.status = nvme::transient(nvme::StatusCode::kTransientTransportError);
  }
}

void Queue::release(Slot& slot) {
  slot.command = nullptr;
  if (slot.is_linked()) in_order_.remove(slot);
  free_.push_back(slot.index);
  --in_flight_;
}

// The stream moves nothing any more: whoever waits learns it.
void Queue::drop_all() {
  reactor_.disarm(alarm_);
  for (uint16_t i = 0; slots_ && i < options_.depth; ++i) {
    Slot& slot = slots_[i];
    if (slot.command == nullptr) continue;
    FL_CHECK(!slot.capsule.is_linked() && !slot.data.is_linked());
    Command& command = *slot.command;
    if (slot.answered) {
      conclude(slot);
    } else {
      command.outcome = slot.capsule.started ? Outcome::kLost : Outcome::kNotSent;
    }
    release(slot);
    command.done(command);
  }
  while (!waiting_.empty()) {
    Command& command = waiting_.pop_front();
    command.outcome = Outcome::kNotSent;
    command.done(command);
  }
}

void Queue::on_sender_idle() {
  changed_.release_waiters();
  if (sender_->has_failed()) close("the controller closed the connection");
}

// Time limits.

void Queue::on_timer() {
  if (refusing_) return close("the controller broke the protocol");
  if (state_ == State::kConnecting) {
    lost_code_ = Code::kTimedOut;
    return close("the controller did not answer in time");
  }
  const Instant now = reactor_.now();
  for (Slot& slot : in_order_) {
    const Instant limit = slot.submitted + options_.command_timeout;
    if (now < limit) break;
    if (now >= limit + options_.abort_timeout) {
      lost_code_ = Code::kTimedOut;
      log_warn("host.command_timed_out", {{"address", to_string(options_.address)}, {"qid", options_.qid}});
      return close("a command was not answered in time");
    }
    if (std::exchange(slot.expired, true)) continue;
    expired_.push_back(slot.cid);
    attention_.set();
  }
  arm_timer();
}

void Queue::arm_timer() {
  if (in_order_.empty()) return;
  Instant next = in_order_.front().submitted + options_.command_timeout;
  if (!in_order_.front().expired) return reactor_.arm(alarm_, next);
  next = next + options_.abort_timeout;
  for (Slot& slot : in_order_) {
    if (slot.expired) continue;
    next = std::min(next, slot.submitted + options_.command_timeout);
    break;
  }
  reactor_.arm(alarm_, next);
}

bool Queue::take_expired(uint16_t& cid) {
  if (expired_.empty()) return false;
  cid = expired_.back();
  expired_.pop_back();
  return true;
}

}  // namespace fairlead::host
