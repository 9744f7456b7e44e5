// Queue: one queue of a controller, on an NVMe/TCP connection of its own (NVMe TCP Transport 1.0; base 2.0
// section 6.3). Lives on one shard.
//
// Life-cycle: make, connect(), submit() any number of commands, close(), closed(), destroy. A queue that was lost (by
// the peer, by a violation of the protocol, by a command that took too long) stays lost: make another. All its memory
// is made by connect(); what does not fit into its depth waits in line, in its commands' own memory.
//
// The controller's bytes are hostile: headers pass nvme::PduDecoder, tags are looked up in the slots and carry a
// generation, data must come in order and in full, success without it is a violation. A violation is answered with an
// H2CTermReq and ends the connection.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "host/command.h"
#include "host/pieces.h"
#include "io/shard.h"
#include "io/stream_reader.h"
#include "io/stream_sender.h"
#include "nvme/pdu_builder.h"
#include "nvme/pdu_decoder.h"

namespace fairlead::host {

struct QueueOptions {
  SocketAddress address;
  std::string subsystem_nqn;
  std::string host_nqn;
  std::array<uint8_t, 16> host_id{};
  uint16_t qid = 0;
  uint16_t controller_id = nvme::kDynamicControllerId;  // I/O queues: what Connect gave the admin queue
  uint16_t depth = 31;                                  // commands in flight, 1 to kDepthMax; SQSIZE is one entry more
  Duration keep_alive{};                                // KATO, admin queue; 0: none
  uint32_t in_capsule_max = nvme::kAdminInCapsuleData;  // bytes; larger data waits for an R2T
  bool header_digest = false;
  bool data_digest = false;
  Duration connect_timeout = std::chrono::seconds(5);   // TCP, ICReq and Connect together
  Duration command_timeout = std::chrono::seconds(30);  // then the observer is told, once
  Duration abort_timeout = std::chrono::seconds(5);     // more; then the queue is lost
};

class Queue {
 public:
  static constexpr uint16_t kDepthMax = 1024;

  Queue(Shard& shard, QueueOptions options);
  ~Queue();  // Requires: closed() returned, or connect() was never called.
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // TCP, ICReq, ICResp, Connect. On error the queue is lost. Errors: kUnreachable, kTimedOut, kConnectionLost,
  // kProtocol, kNotSupported (digests refused), and what error_from_status() makes of a Connect that was refused.
  Task<Result<void>> connect();

  // Requires: connect() was called; a command that is not submitted already.
  void submit(Command& command);

  // Ends the connection; every command ends soon. Idempotent. `reason` is a literal.
  void close(const char* reason);
  // Returns when the queue is lost and every command has ended.
  Task<void> closed() { return scope_.close(); }

  bool is_live() const { return state_ == State::kLive && !refusing_; }
  bool is_lost() const { return state_ == State::kLost; }
  uint32_t in_flight() const { return in_flight_; }
  uint16_t controller_id() const { return options_.controller_id; }
  const QueueOptions& options() const { return options_; }
  // Why it was lost, in a few words for people.
  const char* reason() const { return reason_; }
  // Set when something happened that is_lost() or take_expired() tells.
  Event& attention() { return attention_; }
  // A command that has passed its time limit: the CID to abort. Each is told once.
  bool take_expired(uint16_t& cid);

 private:
  enum class State : uint8_t { kNew, kConnecting, kLive, kClosing, kLost };
  struct Slot;
  // Where the data of a PDU goes.
  struct Incoming {
    Slot* slot = nullptr;
    uint32_t skip = 0;  // padding
    DataRange range;    // of the command's data
    uint32_t taken = 0;
    bool has_digest = false;
    bool ends_command = false;  // the data carried SUCCESS

    DataRange rest() const { return {range.offset + taken, range.length - taken}; }
  };
  using Begun = std::expected<Incoming, nvme::PduViolation>;

  // queue.cc
  Task<Result<void>> handshake();
  Task<Result<void>> fabrics_connect();
  void start(Command& command, Slot& slot);
  void prepare_data(Command& command, Slot& slot);
  void pump();
  void finish(Slot& slot);
  void conclude(Slot& slot);
  void release(Slot& slot);
  void complete(Command& command);
  void drop_all();
  void on_timer();
  void arm_timer();
  static void on_command_sent(SendItem& item);
  static void on_data_sent(SendItem& item);
  void on_sender_idle();
  void send_data(Slot& slot);
  Result<void> lost_error() const;

  // queue_receive.cc
  Task<void> run();
  Task<const char*> receive_loop();
  Task<bool> receive_data(Incoming& incoming);
  bool take_available(Incoming& incoming);
  Begun begin_pdu(const nvme::DecodedPdu& pdu);
  Begun begin_c2h_data(const nvme::DecodedPdu& pdu);
  std::expected<void, nvme::PduViolation> accept_ic_resp(const nvme::IcRespPdu& response);
  std::expected<void, nvme::PduViolation> on_response(const nvme::CompletionEntry& completion);
  std::expected<void, nvme::PduViolation> on_r2t(const nvme::R2tPdu& r2t);
  void end_pdu(const Incoming& incoming);
  Slot* find(uint16_t cid);
  Task<void> refuse(nvme::PduViolation violation, std::vector<std::byte> header);

  struct Alarm : Timer {
    explicit Alarm(Queue& q) : Timer([](Runnable& self) { static_cast<Alarm&>(self).queue.on_timer(); }), queue(q) {}
    Queue& queue;
  };
  struct Notice : SendItem {
    Notice() : SendItem([](SendItem&) {}) {}
    std::array<std::byte, nvme::kTermReqSizeMax> bytes;
  };

  Shard& shard_;
  Reactor& reactor_;
  QueueOptions options_;
  Scope scope_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<StreamReader> reader_;
  std::unique_ptr<StreamSender> sender_;
  nvme::PduDecoder decoder_;
  nvme::PduFormat format_;
  uint32_t h2c_data_max_ = 0;

  std::unique_ptr<Slot[]> slots_;
  std::vector<uint16_t> free_;      // indices; the last one freed goes first
  IntrusiveList<Slot> in_order_;    // in flight and with a deadline, oldest first
  IntrusiveList<Command> waiting_;  // for a slot
  uint32_t in_flight_ = 0;
  std::vector<uint16_t> expired_;

  State state_ = State::kNew;
  bool initialized_ = false;  // ICResp came
  bool refusing_ = false;     // the controller broke the protocol: it is told, then the connection ends
  const char* reason_ = "";
  Code lost_code_ = Code::kConnectionLost;
  Event changed_;  // ICResp came, the sender is idle, the queue closes
  Event attention_;
  Alarm alarm_{*this};
  Notice notice_;  // ICReq, then perhaps a TermReq
};

}  // namespace fairlead::host
