// FuzzHost: the host's end of NVMe/TCP connections, for the fuzzer of whole target connections. It can speak properly,
// and it can send anything. Lives on one shard of a simulated node; one thread.
//
// What the target sends is decoded and checked as long as the host has kept to the protocol's framing: a target must
// never send a PDU that the decoder refuses.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "io/shard.h"
#include "io/stream_reader.h"
#include "nvme/command.h"
#include "nvme/pdu_builder.h"
#include "nvme/pdu_decoder.h"

namespace fairlead::fuzz {

using Bytes = std::vector<std::byte>;

// One connection. Everything that is sent goes through an outbox, so that a target which does not read holds up nobody.
class FuzzLink {
 public:
  explicit FuzzLink(Shard& shard);
  ~FuzzLink();

  // Connects the stream and starts to read. False: refused.
  Task<bool> open(SocketAddress address);
  // Ends both directions and waits until nothing is under way.
  Task<void> close();
  bool is_open() const { return stream_ != nullptr && !closing_; }

  // ---- Well-formed PDUs.
  struct Handshake {
    bool header_digest = false;
    bool data_digest = false;
    uint8_t data_alignment = 0;
  };
  void send_ic_req(const Handshake& wanted);
  // `capsule`: in-capsule data.
  void send_command(const nvme::SubmissionEntry& command, std::span<const std::byte> capsule);
  void send_data(const nvme::DataParameters& parameters, std::span<const std::byte> data);
  // ---- Anything.
  void send_raw(std::span<const std::byte> bytes);
  // `bytes` as one header, with a proper digest behind it if digests are on.
  void send_header(std::span<const std::byte> bytes);
  // One bit of the digests of the next well-formed PDU is wrong.
  void damage_next() { damage_next_ = true; }
  // Stops and goes on reading what the target sends.
  void set_reading(bool on);

  // ---- What the target said.
  struct Answer {
    nvme::CompletionEntry completion;
    Bytes data;
  };
  // Waits for the completion of a command. Empty: the connection ended first.
  Task<std::optional<Answer>> answer(uint16_t cid);
  const std::optional<nvme::R2tPdu>& last_r2t() const { return last_r2t_; }
  std::optional<uint64_t> last_result() const { return last_result_; }

 private:
  Task<void> send_loop();
  Task<void> receive_loop();
  Task<bool> receive_pdu(StreamReader& reader);
  Task<bool> take_data(StreamReader& reader, const nvme::DecodedPdu& pdu, Bytes& out);
  void on_pdu(const nvme::DecodedPdu& pdu, Bytes data);
  void put(std::span<const std::byte> bytes);
  void put_digest_of(std::span<const std::byte> bytes);

  Shard& shard_;
  std::unique_ptr<Stream> stream_;
  Scope scope_;
  Event changed_;
  nvme::PduDecoder decoder_;
  nvme::PduFormat format_;
  bool checks_ = true;  // the framing is as agreed: what comes in is decoded
  bool greeted_ = false;
  bool closing_ = false;
  bool ended_ = false;
  bool reading_ = true;
  bool damage_next_ = false;
  Bytes outbox_;
  std::map<uint16_t, Answer> answers_;     // by command, newest
  std::map<uint16_t, Bytes> transferred_;  // data of commands that are not complete yet
  std::optional<nvme::R2tPdu> last_r2t_;
  std::optional<uint64_t> last_result_;
};

// The commands that a host needs to get anywhere.
struct ConnectParameters {
  std::string_view subsystem;
  std::string_view host = "nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427";
  uint8_t host_id = 1;
  uint16_t qid = 0;
  uint16_t queue_entries = 32;
  uint16_t controller_id = nvme::kDynamicControllerId;
  uint32_t keep_alive_ms = 0;
  bool disable_flow_control = false;
};
nvme::SubmissionEntry connect_command(uint16_t cid, const ConnectParameters& parameters);
Bytes connect_data(const ConnectParameters& parameters);
nvme::SubmissionEntry property_set(uint16_t cid, uint32_t offset, uint64_t value);
nvme::SubmissionEntry property_get(uint16_t cid, uint32_t offset, bool eight_bytes);

}  // namespace fairlead::fuzz
