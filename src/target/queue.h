// Queue: one NVMe queue pair of one connection, transport left out: checks commands, executes them, completes them.
// Lives on its connection's shard and inside it.
//
// The transport calls prepare(), brings the data, calls execute(), and is called back by QueueTransport::respond().
#pragma once

#include <cstdint>
#include <memory>

#include "async/scope.h"
#include "io/shard.h"
#include "nvme/validate.h"
#include "target/association.h"
#include "target/controller.h"
#include "target/io_plan.h"
#include "target/request.h"

namespace fairlead::target {

class ShardTarget;

// What a transport does for its queue. One shard.
class QueueTransport {
 public:
  virtual ~QueueTransport() = default;
  // Sends the data (on success, of commands that give any) and the completion, then frees the request.
  virtual void respond(Request& request) = 0;
  // What was left behind when it was answered (Request::left_behind_in) is no more.
  virtual void take_back(Request& request) = 0;
  // Ends the connection now. `reason` lives for ever.
  virtual void close(const char* reason) = 0;
  // Takes no more commands, answers those that run, then closes.
  virtual void close_gently(const char* reason) = 0;
  virtual uint64_t id() const = 0;
  // Our own address, as the host reached it.
  virtual SocketAddress local_address() const = 0;
  // Why the connection ends, in a few words for people; lives for ever.
  virtual const char* close_reason() const = 0;
};

class Queue {
 public:
  static constexpr uint16_t kNotConnected = 0xffff;
  // How a Connect ends: its status and the completion's dw0.
  struct ConnectResult {
    nvme::Status status;
    uint64_t result = 0;
  };

  Queue(ShardTarget& shard_target, QueueTransport& transport, PortIndex port);
  ~Queue();

  // Checks a command and finds out which data it moves. Holds nothing of what it looked up: execute() looks again when
  // something has changed meanwhile. Requires: request.command and request.pointer are set.
  nvme::Status prepare(Request& request) const;
  // Whether execute() will be done with the command's data when it returns, so that the data needs no buffer: a plain
  // write to a device that takes it at once. Requires: prepare() agreed, just now.
  bool takes_in_place(const Request& request) const;
  // Tells the queue of each I/O command in the order of arrival, whatever prepare() said: fused pairs form here.
  void arrived(Request& request) {
    if (fused_first_ != nullptr || fused_first_failed_ || request.command.fuse() != nvme::Fuse::kNone) [[unlikely]]
      pair_up(request);
  }
  // Requires: prepare() agreed and the host's data has arrived. Calls complete(), now or later.
  void execute(Request& request);
  void complete(Request& request, nvme::Status status, uint64_t result = 0);
  // Completes a request that only waits (stage kHeld, or a write at a locked range). False: it runs; let it.
  bool try_abort(Request& request, nvme::StatusCode code);

  // After this nothing calls the transport. Requires: all requests are free, or wait in this queue (they are given
  // back by respond()).
  Task<void> close();

  bool is_connected() const { return qid_ != kNotConnected; }
  uint16_t qid() const { return qid_; }
  bool is_admin() const { return qid_ == 0; }
  uint16_t entries() const { return entries_; }  // submission queue size
  bool flow_control_disabled() const { return flow_control_disabled_; }
  ShardTarget& shard_target() const { return shard_target_; }
  QueueTransport& transport() const { return transport_; }
  Controller* controller() const { return controller_.get(); }  // of an admin queue
  Association* association() const { return association_.get(); }
  const Subsystem* subsystem() const { return subsystem_; }
  PortIndex port() const { return port_; }

 private:
  // fabrics.cc
  nvme::StatusOr<DataNeed> prepare_fabrics(const nvme::SubmissionEntry& command, uint32_t data_length) const;
  void execute_fabrics(Request& request);
  Task<void> connect(Request& request);
  Task<ConnectResult> check_and_connect(nvme::ConnectRequest wanted);

  // io_commands.cc
  nvme::Status prepare_io(Request& request) const;
  nvme::StatusOr<Namespace*> find_namespace(uint32_t nsid) const;
  // Sets request.plan and what belongs to it, unless what is there still holds. Requires: an I/O command other than a
  // Flush of all namespaces.
  nvme::Status plan(Request& request) const;
  nvme::Status plan_for(const Namespace& nspace, Request& request) const;
  nvme::Status plan_transfer(const nvme::NamespaceLimits& limits, Request& request) const;
  nvme::NamespaceLimits limits_of(const Namespace& nspace) const;
  void execute_io(Request& request);
  void submit_transfer(Request& request);
  void submit_write_zeroes(Request& request);
  void enter_gate(Request& request);
  Durability durability(bool forced) const;
  static void on_io_done(IoRequest& io);
  static void on_left_behind(IoRequest& io);

  // multi_step.cc
  Task<void> flush_all(Request& request);
  Task<void> deallocate(Request& request, uint32_t ranges);
  Task<void> compare(Request& request, BlockRange range);
  Task<void> verify(Request& request, BlockRange range);
  void pair_up(Request& request);
  void part(Request& request);
  void execute_fused(Request& request);
  Task<void> compare_and_write(Request& first, Request& second, IoPlan plan);
  Task<Result<bool>> compare_blocks(Request& request, BlockRange range);

  ShardTarget& shard_target_;
  QueueTransport& transport_;
  PortIndex port_;
  Scope scope_;
  uint16_t qid_ = kNotConnected;
  uint16_t attached_qid_ = 0;  // as the directory knows it, from before the Connect is answered
  bool is_owner_ = false;      // the directory knows this queue as its controller's admin queue
  uint16_t entries_ = 1;
  bool flow_control_disabled_ = false;
  bool connecting_ = false;
  std::shared_ptr<Association> association_;
  Subsystem* subsystem_ = nullptr;  // null: a discovery controller's
  std::unique_ptr<Controller> controller_;
  Request* fused_first_ = nullptr;   // the last command, if a second may follow it
  bool fused_first_failed_ = false;  // the last command was a first and has ended: a second that follows fails
};

}  // namespace fairlead::target
