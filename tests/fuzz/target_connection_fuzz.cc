// Fuzzes whole connections of a target: a script of what hosts send, and of what is done to the target meanwhile, in a
// calm simulated world. No input may crash it, leak, hang it, make it send a PDU that is none, break a contract of the
// seams, or keep a well-behaved host from being served afterwards.
//
// An input is bytes of options, then operations: a code, a byte that says on which connection and whether the world has
// time to react, then what the operation needs. A script that ends early reads zeroes.
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/units.h"
#include "block/faulty.h"
#include "block/memory.h"
#include "fuzz_host.h"
#include "nvme/nqn.h"
#include "nvme/properties.h"
#include "sim/world.h"
#include "target/target.h"

namespace fairlead::fuzz {
namespace {

using target::AnaState;

constexpr uint16_t kPort = 4420;
constexpr size_t kLinks = 4;
constexpr size_t kOperationsMax = 200;
constexpr Duration kReactionTime{20'000};
constexpr Duration kRunMax = std::chrono::seconds(600);
constexpr std::array<std::string_view, 5> kNames = {"nqn.2026-01.io.fairlead:a", "nqn.2026-01.io.fairlead:b",
                                                    nvme::kDiscoveryNqn, "nqn.2026-01.io.fairlead:absent",
                                                    "not a name"};
constexpr uint32_t kReplica = 3;  // namespace of the first subsystem, fenced
constexpr std::string_view kHealthyName = "nqn.2026-01.io.fairlead:healthy";

class Script {
 public:
  explicit Script(std::span<const uint8_t> bytes) : left_(bytes) {}
  bool is_empty() const { return left_.empty(); }
  uint8_t byte() {
    if (left_.empty()) return 0;
    const uint8_t value = left_.front();
    left_ = left_.subspan(1);
    return value;
  }
  uint16_t u16() {
    const uint16_t low = byte();
    return static_cast<uint16_t>(low | (byte() << 8));
  }
  uint32_t u32() {
    const uint32_t low = u16();
    return low | (uint32_t{u16()} << 16);
  }
  // Fewer when the script ends.
  Bytes bytes(size_t count) {
    const std::span<const std::byte> taken = std::as_bytes(left_.first(std::min(count, left_.size())));
    left_ = left_.subspan(taken.size());
    return {taken.begin(), taken.end()};
  }

 private:
  std::span<const uint8_t> left_;
};

// Does what a request's first byte says.
class Handler final : public target::ControlHandler {
 public:
  Handler(std::unique_ptr<target::Target>& target, Reactor& home) : target_(target), home_(home) {}
  Task<std::vector<std::byte>> call(target::CallerId caller, std::vector<std::byte> request) override {
    FL_CHECK(!request.empty() && request.size() <= nvme::kReplicationSendBytesMax && caller != target::kNobody);
    switch ((std::to_integer<uint8_t>(request[0]) >> 3) & 3) {
      case 0:
        if (co_await target_->fence(std::string(kNames[0]), kReplica)) {
          (void)co_await target_->admit(std::string(kNames[0]), kReplica, caller);
        }
        co_return request;
      case 1:
        (void)co_await sleep(home_, std::chrono::milliseconds(20));
        co_return request;
      case 2:
        co_return Bytes(nvme::kReplicationReceiveBytesMax);
      default:
        co_return Bytes();
    }
  }
  void gone(target::CallerId caller) override { FL_CHECK(caller != target::kNobody); }

 private:
  std::unique_ptr<target::Target>& target_;
  Reactor& home_;
};

// What one input drives: a world with a target node and a host node.
struct Run {
  Run(std::span<const uint8_t> input, uint8_t options);

  Script script;
  const uint8_t options;
  sim::SimWorld world;
  sim::SimNode& target_node;
  sim::SimNode& host_node;
  std::unique_ptr<target::Target> target;
  std::shared_ptr<Handler> handler;
  std::array<std::shared_ptr<BlockSource>, 5> sources;
  std::array<std::unique_ptr<FuzzLink>, kLinks> links;
  uint16_t next_cid = 0;
  size_t changes = 0;  // to the target, under way
  bool serving = false;
  bool done = false;
  bool stopped = false;
};

sim::SimSettings settings_of(uint8_t options) {
  sim::SimSettings settings = sim::SimSettings::calm();
  settings.network.latency_min = Duration(500);
  settings.network.latency_max = Duration(2'000);
  settings.buffers_shared_max = (options & 0x10) != 0 ? 0 : 4 * kMiB;
  if ((options & 0x20) != 0) settings.order = sim::Order::kRandom;
  if ((options & 0x40) != 0) settings.network.chop = sim::Chop::kRandom;
  if ((options & 0x80) != 0) settings.fault_point_ppm.fill(50'000);
  return settings;
}

sim::SimNodeOptions shards_of(uint8_t options) {
  sim::SimNodeOptions node;
  node.shards = (options & 0x08) != 0 ? 2 : 1;
  return node;
}

Run::Run(std::span<const uint8_t> input, uint8_t chosen)
    : script(input),
      options(chosen),
      world(1, settings_of(chosen)),
      target_node(world.add_node("10.0.0.1", shards_of(chosen))),
      host_node(world.add_node("10.0.0.2")) {}

std::shared_ptr<BlockSource> memory(uint64_t size_bytes, uint32_t logical_block) {
  Result<std::shared_ptr<BlockSource>> source = make_memory_source({size_bytes, logical_block});
  FL_CHECK(source.has_value());
  return std::move(*source);
}

// Slow, and failing now and then, so that commands are in flight when something happens to them.
std::shared_ptr<BlockSource> slow(std::shared_ptr<BlockSource> inner) {
  std::vector<FaultRule> rules(2);
  rules[0].operations = op_set(IoOp::kRead) | op_set(IoOp::kWrite);  // stop() must be able to flush
  rules[0].every = 5;
  rules[0].error = Code::kIo;
  rules[1].delay = std::chrono::microseconds(100);
  return make_faulty_source(std::move(inner), std::move(rules));
}

// ---- The target's node

Task<void> start_target(Run& run) {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < run.target_node.shard_count(); ++i) shards.push_back(&run.target_node.shard(i));
  target::TargetOptions options;
  options.queue_entries_max = 64;
  options.handshake_timeout_ms = 2'000;
  run.target = std::make_unique<target::Target>(std::move(shards), options);
  run.sources = {memory(4 * kMiB, 4096), slow(memory(1 * kMiB, 512)), slow(memory(2 * kMiB, 4096)),
                 memory(1 * kMiB, 4096), slow(memory(1 * kMiB, 4096))};
  for (const std::string_view name : {kNames[0], kNames[1], kHealthyName}) {
    target::SubsystemOptions subsystem;
    subsystem.nqn = name;
    FL_CHECK((co_await run.target->add_subsystem(subsystem)).has_value());
  }
  const std::array<std::string_view, 4> places = {kNames[0], kNames[0], kNames[1], kHealthyName};
  for (size_t i = 0; i < places.size(); ++i) {
    target::NamespaceOptions nspace;
    nspace.source = run.sources[i];
    FL_CHECK((co_await run.target->add_namespace(std::string(places[i]), nspace)).has_value());
  }
  run.handler = std::make_shared<Handler>(run.target, run.target_node.shard(0).reactor);
  target::NamespaceOptions replica;
  replica.nsid = kReplica;
  replica.source = run.sources[4];
  replica.control = run.handler;
  FL_CHECK((co_await run.target->add_namespace(std::string(kNames[0]), replica)).has_value());
  target::ListenerOptions listener;
  listener.bind = run.target_node.address(kPort);
  FL_CHECK((co_await run.target->start_listener(listener)).has_value());
  run.serving = true;
}

Task<void> stop_target(Run& run) {
  FL_CHECK((co_await run.target->stop()).has_value());
  FL_CHECK(run.target->controller_count() == 0);
  run.target.reset();
  run.stopped = true;
}

Task<void> change_target(Run& run, uint8_t what, uint8_t detail) {
  const std::string name(kNames[detail & 1]);
  const uint32_t nsid = 1U + ((detail >> 1) & 1);
  switch (what % 5) {
    case 0:
      (void)co_await run.target->remove_namespace(name, nsid);
      break;
    case 1: {
      target::NamespaceOptions nspace;
      nspace.nsid = nsid;
      nspace.source = run.sources[detail % 3];
      if ((detail & 0x40) != 0) nspace.control = run.handler;
      (void)co_await run.target->add_namespace(name, nspace);
      break;
    }
    case 2: {
      constexpr std::array<AnaState, 4> kStates = {AnaState::kOptimized, AnaState::kInaccessible, AnaState::kChange,
                                                   AnaState::kPersistentLoss};
      (void)co_await run.target->set_ana_state(name, 0, 1, kStates[(detail >> 2) & 3]);
      break;
    }
    case 3:
      (void)co_await run.target->rescan_namespace(name, nsid);
      break;
    case 4:
      if ((detail & 0x80) != 0) {
        (void)co_await run.target->remove_subsystem(name);
      } else {
        target::SubsystemOptions subsystem;
        subsystem.nqn = name;
        (void)co_await run.target->add_subsystem(subsystem);
      }
      break;
    default:
      break;
  }
  --run.changes;
}

// ---- The operations of a script

nvme::SglDescriptor draw_pointer(Script& script, uint32_t length, Bytes& capsule) {
  const uint8_t kind = script.byte();
  if ((kind & 1) != 0 && length <= 16 * 1024) {
    capsule.assign(length, std::byte{kind});
    return nvme::SglDescriptor::in_capsule((kind & 2) != 0 ? script.byte() : 0U, length);
  }
  nvme::SglDescriptor pointer = nvme::SglDescriptor::transport(length);
  if ((kind & 4) != 0) pointer.identifier = script.byte();
  return pointer;
}

void send_io(Run& run, FuzzLink& link) {
  constexpr std::array<nvme::NvmOpcode, 8> kOpcodes = {
      nvme::NvmOpcode::kRead,        nvme::NvmOpcode::kWrite,
      nvme::NvmOpcode::kFlush,       nvme::NvmOpcode::kCompare,
      nvme::NvmOpcode::kWriteZeroes, nvme::NvmOpcode::kVerify,
      nvme::NvmOpcode::kCompare,     nvme::NvmOpcode::kDatasetManagement};
  Script& script = run.script;
  const uint8_t what = script.byte();
  nvme::SubmissionEntry command;
  const nvme::NvmOpcode opcode = kOpcodes[what & 7];
  command.opcode = static_cast<uint8_t>(opcode);
  command.flags = static_cast<uint8_t>(nvme::kFlagsSgl | ((what >> 3) & 3));
  command.cid = run.next_cid++;
  const uint8_t where = script.byte();
  command.nsid = where == 0xff ? nvme::kBroadcastNamespace : 1U + (where & 1);
  if (where == 0xfe) command.nsid = kReplica;
  const uint32_t block = (where & 1) != 0 && (what & 0x80) == 0 ? 512 : 4096;
  const uint8_t blocks = (what & 0x40) != 0 ? script.byte() : uint8_t{0};
  command.set_slba(where >> 2);
  command.cdw12 = blocks | (uint32_t{script.byte()} << 24);
  uint32_t length = (uint32_t{blocks} + 1) * block;
  if (opcode == nvme::NvmOpcode::kDatasetManagement) {
    command.cdw10 = blocks;
    command.cdw11 = script.byte();
    length = (uint32_t{blocks} + 1) * 16;
  }
  const bool has_data = opcode == nvme::NvmOpcode::kRead || opcode == nvme::NvmOpcode::kWrite ||
                        opcode == nvme::NvmOpcode::kCompare || opcode == nvme::NvmOpcode::kDatasetManagement;
  Bytes capsule;
  command.sgl = draw_pointer(script, has_data ? length : 0, capsule);
  link.send_command(command, capsule);
}

void send_admin(Run& run, FuzzLink& link) {
  constexpr std::array<nvme::AdminOpcode, 8> kOpcodes = {
      nvme::AdminOpcode::kIdentify,    nvme::AdminOpcode::kGetLogPage,  nvme::AdminOpcode::kSetFeatures,
      nvme::AdminOpcode::kGetFeatures, nvme::AdminOpcode::kAbort,       nvme::AdminOpcode::kAsyncEventRequest,
      nvme::AdminOpcode::kKeepAlive,   nvme::AdminOpcode::kGetLbaStatus};
  Script& script = run.script;
  const uint8_t what = script.byte();
  nvme::SubmissionEntry command;
  command.opcode = static_cast<uint8_t>(kOpcodes[what & 7]);
  command.flags = nvme::kFlagsSgl;
  command.cid = run.next_cid++;
  command.nsid = (what & 0x10) != 0 ? nvme::kBroadcastNamespace : (what >> 5) & 3U;
  if ((what & 7) == 7 && command.nsid == kReplica) {
    const auto opcode = (what & 8) != 0 ? nvme::AdminOpcode::kReplicationReceive : nvme::AdminOpcode::kReplicationSend;
    command.opcode = static_cast<uint8_t>(opcode);
  }
  command.cdw10 = script.u32();
  command.cdw11 = script.u32();
  if ((what & 8) != 0) {
    command.cdw12 = script.u32();
    command.cdw13 = script.u32();
    command.cdw14 = script.u32();
  }
  Bytes capsule;
  command.sgl = draw_pointer(script, script.u16(), capsule);
  link.send_command(command, capsule);
}

void send_connect(Run& run, FuzzLink& link) {
  Script& script = run.script;
  const uint8_t what = script.byte();
  ConnectParameters parameters{.subsystem = kNames[(what & 7) % kNames.size()]};
  parameters.host_id = (what & 8) != 0 ? uint8_t{2} : uint8_t{1};
  parameters.disable_flow_control = (what & 0x10) != 0;
  parameters.keep_alive_ms = (what & 0x20) != 0 ? script.byte() * 10U : 0U;
  parameters.qid = (what & 0x40) != 0 ? script.byte() : uint8_t{0};
  parameters.queue_entries = static_cast<uint16_t>(script.byte() + 2);
  if (parameters.qid != 0) {
    const uint8_t id = script.byte();
    parameters.controller_id = id == 0 ? uint16_t{1} : id;
  }
  link.send_command(connect_command(run.next_cid++, parameters), connect_data(parameters));
}

// CC.EN and the number of queues: what a host does before it uses I/O queues.
void send_enable(Run& run, FuzzLink& link, uint8_t detail) {
  const auto configuration = nvme::ControllerConfiguration::enabled(nvme::CommandSetSelect::kNvm);
  link.send_command(property_set(run.next_cid++, static_cast<uint32_t>(nvme::Property::kConfiguration),
                                 (detail & 1) != 0 ? detail : configuration.raw),
                    {});
  nvme::SubmissionEntry queues;
  queues.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kSetFeatures);
  queues.flags = nvme::kFlagsSgl;
  queues.cid = run.next_cid++;
  queues.cdw10 = 7;
  queues.cdw11 = 0x0003'0003;
  link.send_command(queues, {});
  // Wants to hear of everything.
  nvme::SubmissionEntry events = queues;
  events.cid = run.next_cid++;
  events.cdw10 = 11;
  events.cdw11 = 0xffff'ffff;
  if ((detail & 2) != 0) link.send_command(events, {});
}

void send_host_data(Run& run, FuzzLink& link) {
  Script& script = run.script;
  const uint8_t what = script.byte();
  nvme::DataParameters parameters;
  uint32_t length = 0;
  if (link.last_r2t() && (what & 1) == 0) {
    const nvme::R2tPdu& r2t = *link.last_r2t();
    parameters = {.cccid = r2t.cccid, .ttag = r2t.ttag, .offset = r2t.r2to, .last = true};
    length = r2t.r2tl;
  } else {
    parameters = {.cccid = script.byte(), .ttag = script.byte(), .offset = script.u16(), .last = true};
    length = script.u16();
  }
  if ((what & 2) != 0) length = std::min<uint32_t>(length, script.u16());
  if ((what & 4) != 0) parameters.last = false;
  if ((what & 8) != 0) parameters.offset += script.u16();
  link.send_data(parameters, Bytes(std::min<uint32_t>(length, 1 << 20), std::byte{what}));
}

void send_any_command(Run& run, FuzzLink& link) {
  Bytes bytes = run.script.bytes(sizeof(nvme::SubmissionEntry));
  bytes.resize(sizeof(nvme::SubmissionEntry));
  nvme::SubmissionEntry command;
  std::memcpy(static_cast<void*>(&command), bytes.data(), bytes.size());
  link.send_command(command, Bytes(run.script.u16() % (20U * 1024), std::byte{0x5a}));
}

void send_property(Run& run, FuzzLink& link) {
  const uint8_t what = run.script.byte();
  if ((what & 1) != 0) {
    link.send_command(property_set(run.next_cid++, what >> 1, run.script.u32()), {});
  } else {
    link.send_command(property_get(run.next_cid++, what >> 2, (what & 2) != 0), {});
  }
}

Task<FuzzLink*> link_at(Run& run, size_t index) {
  std::unique_ptr<FuzzLink>& link = run.links[index];
  if (link == nullptr) {
    link = std::make_unique<FuzzLink>(run.host_node.shard(0));
    if (!co_await link->open(run.target_node.address(kPort))) {
      link.reset();
      co_return nullptr;
    }
  }
  co_return link.get();
}

Task<void> close_link(Run& run, size_t index) {
  if (run.links[index] == nullptr) co_return;
  co_await run.links[index]->close();
  run.links[index].reset();
}

void send_operation(Run& run, FuzzLink& link, uint8_t code) {
  Script& script = run.script;
  switch (code) {
    case 0:
      return link.send_ic_req({.header_digest = (run.options & 1) != 0,
                               .data_digest = (run.options & 2) != 0,
                               .data_alignment = (run.options & 4) != 0 ? uint8_t{7} : uint8_t{0}});
    case 1:
      return send_connect(run, link);
    case 2:
      return send_enable(run, link, script.byte());
    case 3:
      return send_io(run, link);
    case 4:
      return send_host_data(run, link);
    case 5:
      return send_admin(run, link);
    case 6:
      return send_any_command(run, link);
    case 7:
      return send_property(run, link);
    case 8:
      return link.send_raw(script.bytes(script.byte()));
    case 9:
      return link.send_header(script.bytes(script.byte() % 129U));
    case 10:
      return link.damage_next();
    case 11:
      return link.set_reading((script.byte() & 1) != 0);
    default:
      return;
  }
}

Task<void> play(Run& run) {
  Reactor& reactor = run.host_node.shard(0).reactor;
  for (size_t count = 0; count < kOperationsMax && !run.script.is_empty(); ++count) {
    const uint8_t code = run.script.byte() % 16;
    const uint8_t how = run.script.byte();
    const size_t index = how % kLinks;
    if (code < 12) {
      if (FuzzLink* const link = co_await link_at(run, index); link != nullptr) send_operation(run, *link, code);
    } else if (code == 12) {
      co_await close_link(run, index);
    } else if (code == 13) {
      ++run.changes;
      const uint8_t what = run.script.byte();
      run.world.spawn(run.target_node, 0, change_target(run, what, run.script.byte()));
    } else if (code == 14) {
      co_await sleep(reactor, std::chrono::milliseconds(run.script.byte() * 4));
    } else {
      run.world.network().reset_connections(run.host_node.index());
    }
    if ((how & 0x80) == 0) co_await sleep(reactor, kReactionTime);
  }
  for (size_t i = 0; i < kLinks; ++i) co_await close_link(run, i);
}

// ---- The well-behaved host

Task<FuzzLink::Answer> ask(FuzzLink& link, nvme::SubmissionEntry command, Bytes capsule) {
  link.send_command(command, capsule);
  std::optional<FuzzLink::Answer> answer = co_await link.answer(command.cid);
  FL_CHECK(answer.has_value());
  FL_CHECK(nvme::from_status_field(answer->completion.status).ok());
  co_return std::move(*answer);
}

Task<void> use_healthy(Run& run) {
  const SocketAddress address = run.target_node.address(kPort);
  FuzzLink admin(run.host_node.shard(0));
  FL_CHECK(co_await admin.open(address));
  admin.send_ic_req({.header_digest = true, .data_digest = true});
  ConnectParameters parameters{.subsystem = kHealthyName, .host_id = 9, .keep_alive_ms = 5'000};
  const FuzzLink::Answer connected = co_await ask(admin, connect_command(1, parameters), connect_data(parameters));
  const auto configuration = nvme::ControllerConfiguration::enabled(nvme::CommandSetSelect::kNvm);
  (void)co_await ask(admin, property_set(2, static_cast<uint32_t>(nvme::Property::kConfiguration), configuration.raw),
                     {});
  nvme::SubmissionEntry queues;
  queues.opcode = static_cast<uint8_t>(nvme::AdminOpcode::kSetFeatures);
  queues.flags = nvme::kFlagsSgl;
  queues.cid = 3;
  queues.cdw10 = 7;
  (void)co_await ask(admin, queues, {});

  FuzzLink io(run.host_node.shard(0));
  FL_CHECK(co_await io.open(address));
  io.send_ic_req({.header_digest = true, .data_digest = true});
  parameters.qid = 1;
  parameters.controller_id = static_cast<uint16_t>(connected.completion.dw0.get());
  (void)co_await ask(io, connect_command(1, parameters), connect_data(parameters));
  nvme::SubmissionEntry command;
  command.flags = nvme::kFlagsSgl;
  command.nsid = 1;
  command.set_slba(3);
  command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kWrite);
  command.cid = 2;
  command.sgl = nvme::SglDescriptor::in_capsule(0, 4096);
  const Bytes written(4096, std::byte{0xa7});
  (void)co_await ask(io, command, written);
  command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kRead);
  command.cid = 3;
  command.sgl = nvme::SglDescriptor::transport(4096);
  const FuzzLink::Answer read = co_await ask(io, command, {});
  FL_CHECK(read.data == written);
  co_await io.close();
  co_await admin.close();
}

Task<void> host(Run& run) {
  co_await play(run);
  co_await use_healthy(run);
  run.done = true;
}

void execute(std::span<const uint8_t> input) {
  if (input.empty()) return;
  Run run(input.subspan(1), input.front());
  run.world.spawn(run.target_node, 0, start_target(run));
  FL_CHECK(run.world.run_until([&] { return run.serving; }, kRunMax) == sim::RunResult::kDone);
  run.world.spawn(run.host_node, 0, host(run));
  FL_CHECK(run.world.run_until([&] { return run.done && run.changes == 0; }, kRunMax) == sim::RunResult::kDone);
  run.world.spawn(run.target_node, 0, stop_target(run));
  FL_CHECK(run.world.run_until([&] { return run.stopped; }, kRunMax) == sim::RunResult::kDone);
  FL_CHECK(run.world.violations() == 0 && run.world.unexplained_errors() == 0);
  // The sources are the test's; the devices on them went with the target.
  for (const auto& source : run.sources) FL_CHECK(source.use_count() == 1);
  FL_CHECK(run.handler.use_count() == 1);
}

}  // namespace
}  // namespace fairlead::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fairlead::fuzz::execute({data, size});
  return 0;
}
