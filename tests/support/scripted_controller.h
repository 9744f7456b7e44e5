// ScriptedController: the controller's end of NVMe/TCP for tests of the host. By itself it answers properly, from a
// `ControllerNature` and a medium in memory; a `ControllerScript` deals with single PDUs in another way, with proper
// PDUs, false ones or raw bytes. Lives on one shard.
//
//   ScriptedController controller(shard, address, nature);
//   controller.set_script(&script);
//   co_await … controller.start() … co_await controller.stop();
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "io/shard.h"
#include "nvme/command.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/pdu_builder.h"
#include "nvme/pdu_decoder.h"
#include "nvme/status.h"

namespace fairlead::testing {

inline constexpr const char* kScriptedNqn = "nqn.2024-01.example.fairlead:scripted";

// What the controller says of itself. Tests change it before or while it runs.
struct ControllerNature {
  ControllerNature();  // a plain I/O controller with a namespace of 1 MiB in blocks of 4096 bytes

  nvme::IcRespParameters greeting{.max_h2c_data = 64 * 1024};
  uint64_t capabilities = 0;
  bool becomes_ready = true;
  uint32_t status_bits = 0;  // of CSTS, beside RDY and SHST
  uint16_t controller_id = 7;
  uint32_t queue_counts = 0x00ff'00ff;
  nvme::IdentifyController identify;
  struct Namespace {
    nvme::IdentifyNamespace identify;
    std::array<std::byte, nvme::kIdentifySize> descriptors{};
  };
  std::map<uint32_t, Namespace> namespaces;
  std::vector<std::byte> ana_log;
  std::vector<std::byte> discovery_log;

  void add_namespace(uint32_t nsid, uint64_t blocks);
  // ANA groups 1 to `count`, all optimized, and the controller says so.
  void set_ana_groups(uint32_t count, uint64_t change_count);
};

struct ScriptedCommand {
  nvme::SubmissionEntry entry;
  std::vector<std::byte> capsule;  // in-capsule data

  uint16_t cid() const { return entry.cid; }
  bool is(nvme::FabricsType type) const { return entry.is_fabrics() && entry.fabrics_type() == type; }
  bool is(nvme::AdminOpcode opcode) const { return entry.opcode == static_cast<uint8_t>(opcode); }
};

class ScriptedController;

// One connection. What is sent goes through an outbox, so nothing here ever waits for the host.
class ScriptedLink {
 public:
  ScriptedLink(ScriptedController& controller, Shard& shard, std::unique_ptr<Stream> stream);

  // ---- Proper PDUs, as far as their arguments are.
  void greet(const nvme::IcRespParameters& parameters);
  void complete(uint16_t cid, nvme::Status status = nvme::kOk, uint64_t result = 0);
  void send_data(const nvme::DataParameters& parameters, std::span<const std::byte> data);  // C2HData
  void send_r2t(const nvme::R2tParameters& parameters);
  void terminate(nvme::FatalError error);
  // ---- Anything.
  // From now on H2CData that fits no transfer of the link's own is no complaint: something else may have asked for it.
  void expect_any_data() { expects_any_data_ = true; }
  void send_raw(std::span<const std::byte> bytes);
  // `bytes` as one header, with a proper digest behind it if digests are on.
  void send_header(std::span<const std::byte> bytes);
  // One bit of the next proper PDU's digest is wrong.
  void damage_next_header() { damages_header_ = true; }
  void damage_next_data() { damages_data_ = true; }
  // The next data that a proper answer gives has these bytes at `offset`, as far as it goes.
  void overlay_next(size_t offset, std::vector<std::byte> bytes);
  // Sends no byte beyond that many, all in all, then ends the connection.
  void cut_after(uint64_t bytes) { cut_after_ = bytes; }
  // Stops and goes on reading what the host sends.
  void set_reading(bool on);
  // Ends the connection now, or once the outbox is empty.
  void cut();
  void close_behind_outbox();

  uint64_t sent() const { return sent_; }
  ScriptedController& controller() { return controller_; }
  bool is_admin() const { return qid_ == 0; }
  uint16_t qid() const { return qid_; }
  bool has_ended() const { return ended_; }
  bool is_gone() const { return stream_ == nullptr; }  // nothing of it is under way any more
  // What the host did that no host may: none.
  const std::string& complaint() const { return complaint_; }
  const std::optional<nvme::TermReqPdu>& termination() const { return termination_; }
  // Of each H2CData PDU.
  const std::vector<uint32_t>& data_lengths() const { return data_lengths_; }
  const nvme::PduFormat& format() const { return format_; }
  const std::vector<ScriptedCommand>& commands() const { return commands_; }
  // Released whenever something came or the connection ended.
  Event& changed() { return changed_; }

  // ---- For the controller.
  Task<void> run();
  // What a proper controller does.
  void answer(const ScriptedCommand& command);

 private:
  struct Transfer {
    ScriptedCommand command;
    std::vector<std::byte> data;
    uint32_t received = 0;
    uint32_t asked = 0;
  };

  Task<void> send_loop();
  Task<void> receive_loop();
  Task<bool> fill(size_t count);
  Task<bool> receive_pdu();
  bool handle(const nvme::DecodedPdu& pdu, std::span<const std::byte> data);
  bool handle_data(const nvme::H2cDataPdu& pdu, std::span<const std::byte> data);
  bool complain(std::string text);
  void answer_fabrics(const ScriptedCommand& command);
  void answer_admin(const ScriptedCommand& command);
  void answer_identify(const ScriptedCommand& command);
  void answer_log(const ScriptedCommand& command);
  void answer_io(const ScriptedCommand& command);
  void give(const ScriptedCommand& command, std::span<const std::byte> data);
  void put(std::span<const std::byte> bytes);
  void put_digest_of(std::span<const std::byte> bytes, bool& damages);

  ScriptedController& controller_;
  Shard& shard_;
  std::unique_ptr<Stream> stream_;
  Scope scope_;
  Event changed_;
  nvme::PduDecoder decoder_;
  nvme::PduFormat format_;
  std::vector<std::byte> received_;
  size_t consumed_ = 0;
  std::vector<std::byte> outbox_;
  uint64_t sent_ = 0;
  uint64_t cut_after_ = UINT64_MAX;
  uint16_t qid_ = 0;
  bool greeted_ = false;
  bool checks_ = true;  // the host knows the framing: what comes is decoded
  bool reading_ = true;
  bool closing_ = false;
  bool closes_behind_ = false;
  bool ended_ = false;
  bool damages_header_ = false;
  bool damages_data_ = false;
  bool enabled_ = false;
  bool shut_down_ = false;
  size_t overlay_at_ = 0;
  std::vector<std::byte> overlay_;
  std::string complaint_;
  std::optional<nvme::TermReqPdu> termination_;
  bool expects_any_data_ = false;
  std::map<uint16_t, Transfer> transfers_;  // by CID
  std::vector<uint32_t> data_lengths_;
  std::vector<ScriptedCommand> commands_;
};

// Each returns true when it has dealt with what came; false: the controller answers properly.
class ControllerScript {
 public:
  virtual ~ControllerScript() = default;
  virtual void on_accept(ScriptedLink& /*link*/) {}
  virtual bool on_ic_req(ScriptedLink& /*link*/, const nvme::IcReqPdu& /*request*/) { return false; }
  virtual bool on_command(ScriptedLink& /*link*/, const ScriptedCommand& /*command*/) { return false; }
  // After the data was taken, and when it is not the last of the command.
  virtual bool on_data(ScriptedLink& /*link*/, const nvme::H2cDataPdu& /*pdu*/) { return false; }
};

class ScriptedController {
 public:
  ScriptedController(Shard& shard, SocketAddress address, ControllerNature nature = {});
  ~ScriptedController();  // Requires: stop() returned, or start() was never called.
  ScriptedController(const ScriptedController&) = delete;
  ScriptedController& operator=(const ScriptedController&) = delete;

  Result<void> start();
  Task<void> stop();
  // Borrowed; null: none.
  void set_script(ControllerScript* script) { script_ = script; }
  ControllerScript* script() const { return script_; }

  ControllerNature nature;
  std::vector<std::byte> medium;  // of every namespace
  // Connections in the order they came; those that ended stay until kKept newer ones came.
  static constexpr size_t kKept = 64;
  const std::vector<std::unique_ptr<ScriptedLink>>& links() const { return links_; }
  uint64_t accepted() const { return accepted_; }
  // The asynchronous event requests that wait; answers one.
  bool tell(nvme::AsyncEvent event);
  // All that any connection complained of, also those that are gone.
  std::string complaints() const;

 private:
  friend class ScriptedLink;
  Task<void> accept_loop();
  void forget_ended();

  Shard& shard_;
  const SocketAddress address_;
  ControllerScript* script_ = nullptr;
  std::unique_ptr<Listener> listener_;
  Scope scope_;
  std::vector<std::unique_ptr<ScriptedLink>> links_;
  std::vector<std::pair<ScriptedLink*, uint16_t>> event_requests_;
  std::string old_complaints_;
  uint64_t accepted_ = 0;
};

}  // namespace fairlead::testing
