// A plain NVMe/TCP host for tests, on the seams of src/io: it does what it is told, the wrong things too.
//
// NvmeConnection is one queue. Lives on one shard. Life-cycle: make, open(), connect(), any commands in any number at a
// time, close(), destroy. Whoever awaits sets time limits by himself. After the connection is lost every command in
// flight, and every later one, ends with kConnectionLost.
// NvmeHost is a controller: an admin queue and I/O queues, all on one shard.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "io/shard.h"
#include "nvme/command.h"
#include "nvme/features.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/nqn.h"
#include "nvme/pdu.h"
#include "nvme/pdu_builder.h"
#include "nvme/pdu_decoder.h"
#include "nvme/properties.h"
#include "nvme/status.h"

namespace fairlead::testing {

inline constexpr const char* kTestHostNqn = "nqn.2024-01.example.fairlead:host";

struct QueueOptions {
  std::string host_nqn = kTestHostNqn;
  std::string subsystem_nqn = std::string(nvme::kDiscoveryNqn);
  std::array<uint8_t, 16> host_id{1, 2, 3, 4};
  uint16_t qid = 0;
  uint16_t controller_id = nvme::kDynamicControllerId;
  uint16_t entries = 32;  // of the submission queue
  uint32_t keep_alive_ms = 0;
  bool header_digest = false;
  bool data_digest = false;
  uint8_t data_alignment = 0;  // HPDA
  bool disable_sq_flow_control = false;
  uint32_t in_capsule_max = 8192;  // larger writes wait for an R2T; 0: all do
  uint32_t h2c_pdu_max = 1 << 20;  // cuts H2CData smaller than the target would take them
};

struct Completion {
  nvme::Status status;
  uint64_t result = 0;
  uint16_t sqhd = 0;
  bool in_data = false;  // there was no CapsuleResp: the data carried SUCCESS
  bool ok() const { return status.ok(); }
};

// What the target said before it closed.
struct Termination {
  nvme::FatalError error{};
  uint32_t info = 0;
  std::vector<std::byte> offending;
};

// Data of a command, borrowed until its completion. At most one direction.
struct CommandData {
  std::span<const std::byte> out = {};
  std::span<std::byte> in = {};
  bool keep_sgl = false;  // the entry's descriptor stands as it is; `capsule` travels with the command
  std::span<const std::byte> capsule = {};
};

struct LogOptions {
  uint64_t offset = 0;
  uint32_t nsid = 0;
  uint8_t specific = 0;
  bool retain_event = false;
};
struct IoOptions {
  bool fua = false;
  bool deallocate = false;  // write_zeroes()
};

enum class Damage : uint8_t { kNone, kHeaderDigest, kDataDigest };

class NvmeConnection {
 public:
  explicit NvmeConnection(Shard& shard);
  ~NvmeConnection();  // Requires: close() ended, or open() was never called.
  NvmeConnection(const NvmeConnection&) = delete;
  NvmeConnection& operator=(const NvmeConnection&) = delete;

  // TCP alone: for send_raw() and wait_closed().
  Task<Result<void>> open_stream(SocketAddress address);
  // TCP, ICReq and ICResp.
  Task<Result<void>> open(SocketAddress address, QueueOptions options);
  // Fabrics Connect. On success an admin queue knows its controller_id().
  Task<Result<Completion>> connect();
  // Both; a Connect that the target refuses is kProtocol.
  Task<Result<void>> open_and_connect(SocketAddress address, QueueOptions options);
  // Ends the stream and waits for everything here to end.
  Task<void> close();

  // Sends the command, with its CID filled in; ends with its completion.
  Task<Result<Completion>> submit(nvme::SubmissionEntry entry, CommandData data);
  // The CID that the next submit() will use.
  uint16_t next_cid() const { return next_cid_; }
  // The next submit() uses this CID, though it be in use (then without an answer of its own: see orphans()).
  void set_next_cid(uint16_t cid) { next_cid_ = cid; }

  // Fabrics and admin commands. A status other than success is in the Completion.
  Task<Result<Completion>> property_get(nvme::Property property);
  Task<Result<Completion>> property_set(nvme::Property property, uint64_t value);
  // Sets CC.EN and reads CSTS until RDY.
  Task<Result<Completion>> enable();
  Task<Result<Completion>> disconnect();
  Task<Result<Completion>> identify(nvme::Cns cns, uint32_t nsid, std::span<std::byte> out,
                                    nvme::CommandSet set = nvme::CommandSet::kNvm, uint16_t controller_id = 0);
  Task<Result<Completion>> set_features(nvme::Feature feature, uint32_t value, uint32_t nsid = 0);
  Task<Result<Completion>> get_features(nvme::Feature feature, std::span<std::byte> out = {},
                                        nvme::FeatureSelect select = nvme::FeatureSelect::kCurrent);
  Task<Result<Completion>> get_log_page(nvme::LogPage page, std::span<std::byte> out, LogOptions options = {});
  Task<Result<Completion>> async_event();
  Task<Result<Completion>> abort(uint16_t qid, uint16_t cid);
  Task<Result<Completion>> keep_alive();

  // I/O commands; `blocks` is a real number.
  Task<Result<Completion>> read(uint32_t nsid, uint64_t lba, uint32_t blocks, std::span<std::byte> out);
  Task<Result<Completion>> write(uint32_t nsid, uint64_t lba, uint32_t blocks, std::span<const std::byte> data,
                                 IoOptions options = {});
  Task<Result<Completion>> compare(uint32_t nsid, uint64_t lba, uint32_t blocks, std::span<const std::byte> data);
  Task<Result<Completion>> write_zeroes(uint32_t nsid, uint64_t lba, uint32_t blocks, IoOptions options = {});
  Task<Result<Completion>> verify(uint32_t nsid, uint64_t lba, uint32_t blocks);
  Task<Result<Completion>> flush(uint32_t nsid);
  Task<Result<Completion>> deallocate(uint32_t nsid, std::vector<nvme::DsmRange> ranges);
  struct FusedCompletion {
    Completion compare;
    Completion write;
  };
  Task<Result<FusedCompletion>> compare_and_write(uint32_t nsid, uint64_t lba, uint32_t blocks,
                                                  std::span<const std::byte> expected, std::span<const std::byte> data);

  // For hostile tests.
  void send_raw(std::vector<std::byte> bytes);
  void damage_next(Damage damage) { damage_ = damage; }
  // While paused nothing is read off the stream.
  void pause_reading(bool paused);
  // R2Ts are counted and kept, and not answered.
  void ignore_r2t(bool ignored) { ignores_r2t_ = ignored; }
  const nvme::R2tPdu& last_r2t() const { return last_r2t_; }
  // Ends the stream without waiting.
  void cut();
  // Returns when the target, or cut(), has ended the connection.
  Task<void> wait_closed();
  bool is_lost() const { return lost_; }
  const std::optional<Termination>& termination() const { return termination_; }
  // What the receiver did not like about the target's PDUs; a test that meets none expects an empty text.
  const std::string& complaint() const { return complaint_; }
  // Completions for commands that are not in flight.
  size_t orphans() const { return orphans_; }
  size_t in_flight() const { return commands_.size(); }
  uint64_t r2ts() const { return r2ts_; }
  // Given to send, and not taken by the stream yet.
  size_t unsent_bytes() const { return unsent_bytes_; }
  const nvme::IcRespPdu& ic_resp() const { return ic_resp_; }
  uint16_t controller_id() const { return options_.controller_id; }
  const QueueOptions& options() const { return options_; }
  Shard& shard() const { return shard_; }
  nvme::PduFormat format() const { return format_; }

 private:
  struct Command {
    explicit Command(Reactor& reactor) : done(reactor) {}
    CommandData data;
    uint32_t received = 0;
    Completion completion;
    bool answered = false;
    Event done;
  };

  void send_command(nvme::SubmissionEntry& entry, Command& command);
  void send_data(uint16_t cid, uint16_t ttag, std::span<const std::byte> data, uint32_t offset);
  std::vector<std::byte> join(std::span<const std::byte> header, std::span<const std::byte> data);
  Task<Result<Completion>> transfer(nvme::NvmOpcode opcode, uint32_t nsid, uint64_t lba, uint32_t blocks,
                                    CommandData data, uint32_t flags);
  Task<void> send_loop();
  Task<void> receive_loop();
  Task<bool> fill(size_t count);
  // False: the connection is of no more use.
  Task<bool> receive_pdu();
  bool handle(const nvme::DecodedPdu& pdu, std::span<const std::byte> data, bool damaged);
  bool handle_data(const nvme::C2hDataPdu& pdu, const nvme::DecodedPdu& decoded, std::span<const std::byte> data);
  bool handle_r2t(const nvme::R2tPdu& pdu);
  void handle_completion(const nvme::CompletionEntry& entry);
  bool complain(std::string text);
  void finish(uint16_t cid, const Completion& completion);
  void lose();

  Shard& shard_;
  Scope scope_;
  std::unique_ptr<Stream> stream_;
  QueueOptions options_;
  nvme::PduDecoder decoder_;
  nvme::PduFormat format_;
  nvme::IcRespPdu ic_resp_;
  std::map<uint16_t, Command*> commands_;
  uint16_t next_cid_ = 1;
  std::deque<std::vector<std::byte>> outgoing_;
  size_t unsent_bytes_ = 0;
  Event outgoing_changed_;
  Event incoming_changed_;  // ICResp came, reading goes on, the connection is lost
  std::vector<std::byte> received_;
  size_t consumed_ = 0;
  bool paused_ = false;
  bool ignores_r2t_ = false;
  nvme::R2tPdu last_r2t_;
  bool connected_ = false;  // ICResp came
  bool lost_ = false;
  Damage damage_ = Damage::kNone;
  std::optional<Termination> termination_;
  std::string complaint_;
  size_t orphans_ = 0;
  uint64_t r2ts_ = 0;
};

struct HostOptions {
  QueueOptions queue;  // of the admin queue; the I/O queues take all but qid and entries from it
  uint16_t io_queues = 1;
  uint16_t io_entries = 128;
};

class NvmeHost {
 public:
  explicit NvmeHost(Shard& shard) : shard_(shard) {}
  // Connects, enables, asks for the queues and connects them. Error kProtocol when the target refuses a step.
  Task<Result<void>> open(SocketAddress address, HostOptions options);
  Task<void> close();

  NvmeConnection& admin() { return *admin_; }
  NvmeConnection& io(size_t index = 0) { return *io_.at(index); }
  size_t io_queues() const { return io_.size(); }
  // The first complaint() of any of its queues.
  std::string complaint() const;

 private:
  Shard& shard_;
  std::unique_ptr<NvmeConnection> admin_;
  std::vector<std::unique_ptr<NvmeConnection>> io_;
};

}  // namespace fairlead::testing
