// Fuzzes the host against a controller whose every answer may be false: a whole subsystem with reconnects, a single
// queue, or discovery, in a calm or chopped simulated world. No input may crash the host, leak, hang it, make it send a
// PDU that is none, or write beside a command's buffers. Every command ends once; a read that succeeds has all of its
// bytes; everything ends in bounded virtual time; and when the controller behaves at last, the host gets on with it.
//
// An input is bytes of options, then one action for each PDU that the host sends (see Liar::act). A script that has
// ended answers properly.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/units.h"
#include "host/discovery.h"
#include "host/queue.h"
#include "host/subsystem.h"
#include "nvme/nqn.h"
#include "nvme/properties.h"
#include "sim/world.h"
#include "tests/support/scripted_controller.h"

namespace fairlead::fuzz {
namespace {

using Bytes = std::vector<std::byte>;
using testing::ControllerNature;
using testing::ScriptedCommand;
using testing::ScriptedController;
using testing::ScriptedLink;

constexpr Duration kRunMax = std::chrono::seconds(3000);
constexpr size_t kGuard = 64;
constexpr std::byte kUntouched{0xa5};  // no controller ever sends it
constexpr std::byte kMedium{0x11};
constexpr std::byte kWritten{0x22};
constexpr std::byte kDrawn{0x33};

class Script {
 public:
  explicit Script(std::span<const uint8_t> bytes) : left_(bytes) {}
  bool is_empty() const { return left_.empty(); }
  void end() { left_ = {}; }
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
    const auto taken = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(taken.size());
    Bytes out(taken.size());
    std::ranges::transform(taken, out.begin(),
                           [](uint8_t each) { return std::byte{each} == kUntouched ? ~kUntouched : std::byte{each}; });
    return out;
  }

 private:
  std::span<const uint8_t> left_;
};

// ---- The controller

class Liar final : public testing::ControllerScript {
 public:
  Liar(Script& script, ScriptedController& controller) : script_(script), controller_(controller) {}

  bool on_ic_req(ScriptedLink& link, const nvme::IcReqPdu& /*request*/) override {
    if (script_.is_empty()) return false;
    const uint8_t what = script_.byte();
    if (what % 4 != 3) return act_on_greeting(link, what);
    const uint8_t more = script_.byte();
    link.greet({.header_digest = (more & 1) != 0,
                .data_digest = (more & 2) != 0,
                .data_alignment = static_cast<uint8_t>((more >> 3) % (nvme::kDataAlignmentMax + 1U)),
                .max_h2c_data = (more & 4) != 0 ? 4096U : 1U << 20});
    return true;
  }
  bool on_command(ScriptedLink& link, const ScriptedCommand& command) override { return act(link, &command); }
  bool on_data(ScriptedLink& link, const nvme::H2cDataPdu& pdu) override {
    last_cid_ = pdu.cccid;
    return act(link, nullptr);
  }

 private:
  bool act_on_greeting(ScriptedLink& link, uint8_t what) {
    if (what < 0xc0) return false;
    link.expect_any_data();
    if (what < 0xe0) {
      link.send_raw(script_.bytes(script_.byte()));
    } else if (what < 0xf0) {
      link.cut();
    }
    return true;
  }

  // `command`: null when what came was data.
  bool act(ScriptedLink& link, const ScriptedCommand* command) {
    if (command != nullptr) last_cid_ = command->cid();
    if (script_.is_empty()) return false;
    const uint8_t what = script_.byte();
    link.expect_any_data();  // an R2T of the script's, or bytes that make one, ask for data that the link knows nothing
                             // of
    switch (what % 16) {
      case 1:
        return hold(link, command);
      case 2:
        release();
        return false;
      case 3:
        link.complete(draw_cid(), nvme::from_status_field(script_.u16()), script_.u32());
        return (what & 0x80) == 0;
      case 4:
        link.complete(last_cid_, nvme::kOk, script_.u32() | (uint64_t{script_.u32()} << 32));
        return true;
      case 5:
        send_data(link);
        return (what & 0x80) == 0;
      case 6:
        send_r2t(link);
        return (what & 0x80) == 0;
      case 7:
        link.send_raw(script_.bytes(script_.byte()));
        return (what & 0x80) == 0;
      case 8:
        link.send_header(script_.bytes(script_.byte() % 129U));
        return (what & 0x80) == 0;
      case 9: {
        const size_t offset = script_.u16() % 4096U;
        link.overlay_next(offset, script_.bytes(script_.byte() % 64U));
        return false;
      }
      default:
        return act_on_connection(link, what);
    }
  }

  bool act_on_connection(ScriptedLink& link, uint8_t what) {
    switch (what % 16) {
      case 10:
        (what & 0x80) != 0 ? link.damage_next_header() : link.damage_next_data();
        return false;
      case 11:
        link.cut_after(link.sent() + script_.byte());
        return false;
      case 12:
        (what & 0x80) != 0 ? link.cut() : link.close_behind_outbox();
        return false;
      case 13:
        link.terminate(static_cast<nvme::FatalError>(script_.byte()));
        return (what & 0x80) == 0;
      case 14:
        if ((what & 0x80) != 0) link.set_reading(false);
        return (what & 0x40) == 0;
      case 15:
        change();
        return false;
      default:
        return false;
    }
  }

  // What the controller is, and who is told of it.
  void change() {
    const uint8_t what = script_.byte();
    ControllerNature& nature = controller_.nature;
    switch (what % 8) {
      case 0:
        nature.add_namespace(1 + script_.byte() % 4U, script_.u16());
        break;
      case 1:
        nature.namespaces.erase(1 + script_.byte() % 4U);
        break;
      case 2: {
        nature.set_ana_groups(script_.byte(), script_.byte());
        const size_t at = script_.u16();
        const uint8_t value = script_.byte();
        if (at < nature.ana_log.size()) nature.ana_log[at] = std::byte{value};
        break;
      }
      case 3:
        nature.queue_counts = script_.u32();
        break;
      case 4:
        nature.status_bits = script_.byte();
        nature.becomes_ready = (what & 0x80) != 0;
        break;
      case 5:
        nature.capabilities = script_.u32() | (uint64_t{script_.u32()} << 32);
        break;
      case 6:
        nature.controller_id = script_.u16();
        break;
      default:
        nature.discovery_log = script_.bytes(script_.u16() % 4096U);
        break;
    }
    if ((what & 0x40) != 0) (void)controller_.tell(nvme::AsyncEvent::from_dw0(script_.u32()));
    if ((what & 0x20) != 0) {
      (void)controller_.tell(
          nvme::AsyncEvent::notice(nvme::NoticeInfo::kNamespaceAttributeChanged, nvme::LogPage::kChangedNamespaces));
    }
  }

  uint16_t draw_cid() { return (script_.byte() & 1) != 0 ? script_.u16() : last_cid_; }
  void send_data(ScriptedLink& link) {
    const uint8_t flags = script_.byte();
    const nvme::DataParameters parameters{.cccid = (flags & 4) != 0 ? script_.u16() : last_cid_,
                                          .offset = (flags & 8) != 0 ? script_.u32() : 0U,
                                          .last = (flags & 1) != 0,
                                          .success = (flags & 3) == 3};
    const size_t length = (flags & 16) != 0 ? script_.u16() : 4096U;
    link.send_data(parameters, Bytes(length, kDrawn));
  }
  void send_r2t(ScriptedLink& link) {
    const uint8_t flags = script_.byte();
    const uint32_t offset = (flags & 2) != 0 ? script_.u32() : 0U;
    const uint32_t length = (flags & 4) != 0 ? script_.u32() : script_.u16();
    link.send_r2t({.cccid = (flags & 1) != 0 ? script_.u16() : last_cid_,
                   .ttag = script_.byte(),
                   .offset = offset,
                   .length = std::max(length, 1U)});
  }

  bool hold(ScriptedLink& link, const ScriptedCommand* command) {
    if (command != nullptr) held_.emplace_back(&link, *command);
    return true;
  }
  // The newest first.
  void release() {
    while (!held_.empty()) {
      const auto [link, command] = std::move(held_.back());
      held_.pop_back();
      const auto is_there = [&](const auto& each) { return each.get() == link && !each->has_ended(); };
      if (std::ranges::any_of(controller_.links(), is_there)) link->answer(command);
    }
  }

  Script& script_;
  ScriptedController& controller_;
  std::vector<std::pair<ScriptedLink*, ScriptedCommand>> held_;
  uint16_t last_cid_ = 0;
};

// ---- The run

struct Options {
  explicit Options(Script& script) : world(script.byte()), nature(script.byte()) {}
  bool header_digest() const { return (world & 1) != 0; }
  bool data_digest() const { return (world & 2) != 0; }
  bool two_paths() const { return (world & 4) != 0 && mode() == 0; }
  // 0: a subsystem, 1: one with a single connection at a time, and with calls, 2: a queue, 3: discovery
  uint8_t mode() const { return (nature >> 6) & 3; }

  uint8_t world;
  uint8_t nature;
};

sim::SimSettings settings_of(const Options& options) {
  sim::SimSettings settings = sim::SimSettings::calm();
  settings.network.latency_min = Duration(500);
  settings.network.latency_max = Duration(2'000);
  if ((options.world & 0x10) != 0) settings.order = sim::Order::kRandom;
  if ((options.world & 0x20) != 0) settings.network.chop = sim::Chop::kRandom;
  if ((options.world & 0x40) != 0) settings.fault_point_ppm.fill(50'000);
  if ((options.world & 0x80) != 0) settings.network.window_min = settings.network.window_max = 512;
  return settings;
}

ControllerNature nature_of(const Options& options) {
  ControllerNature nature;
  if ((options.nature & 1) != 0) nature.set_ana_groups(2, 1);
  if ((options.nature & 2) != 0) nature.add_namespace(2, 16);
  if ((options.nature & 4) != 0) nature.identify.ioccsz = 4;
  if ((options.nature & 8) != 0) nature.greeting.max_h2c_data = 4096;
  if ((options.nature & 16) != 0) nature.greeting.data_alignment = 31;
  if ((options.nature & 32) != 0) nature.identify.mdts = 1;
  if (options.mode() == 3) {
    nature.identify.cntrltype = static_cast<uint8_t>(nvme::ControllerType::kDiscovery);
    nature.discovery_log.resize(3 * sizeof(nvme::DiscoveryHeader));
    nature.discovery_log[offsetof(nvme::DiscoveryHeader, records)] = std::byte{2};
  }
  return nature;
}

struct Run {
  explicit Run(std::span<const uint8_t> input)
      : script(input),
        options(script),
        world(1, settings_of(options)),
        controller_node(world.add_node("10.0.0.1")),
        host_node(world.add_node("10.0.0.2", {.shards = (options.world & 8) != 0 ? 2U : 1U, .more_addresses = {}})),
        controller(controller_node.shard(0), controller_node.address(4420), nature_of(options)),
        liar(script, controller) {
    std::ranges::fill(controller.medium, kMedium);
    controller.set_script(&liar);
    FL_CHECK(controller.start().has_value());
  }

  Reactor& reactor() { return host_node.shard(0).reactor; }
  host::HostIdentity identity() const { return host::identity_from_id(uuid_from_random(1, 2)); }

  Script script;
  const Options options;
  sim::SimWorld world;
  sim::SimNode& controller_node;
  sim::SimNode& host_node;
  ScriptedController controller;
  Liar liar;
  bool done = false;
};

// Memory of a command, with some on both sides that nobody may touch.
struct Guarded {
  Guarded(size_t length, std::byte value) : bytes(length + 2 * kGuard, kUntouched) { std::ranges::fill(data(), value); }
  std::span<std::byte> data() { return std::span(bytes).subspan(kGuard, bytes.size() - 2 * kGuard); }
  // In two pieces, so that PDUs meet their border.
  std::array<iovec, 2> pieces() {
    const size_t first = data().size() / 3;
    return {iovec{data().data(), first}, iovec{data().data() + first, data().size() - first}};
  }
  void check() const {
    FL_CHECK(std::ranges::all_of(std::span(bytes).first(kGuard), [](std::byte b) { return b == kUntouched; }));
    FL_CHECK(std::ranges::all_of(std::span(bytes).last(kGuard), [](std::byte b) { return b == kUntouched; }));
  }
  void check_full() { FL_CHECK(std::ranges::find(data(), kUntouched) == data().end()); }

  Bytes bytes;
};

// ---- One queue

struct QueueCommand : host::Command {
  QueueCommand(Reactor& reactor, nvme::NvmOpcode opcode, uint32_t bytes)
      : memory(bytes, opcode == nvme::NvmOpcode::kRead ? kUntouched : kWritten),
        pieces(memory.pieces()),
        ended(reactor) {
    entry.opcode = static_cast<uint8_t>(opcode);
    entry.nsid = 1;
    length = bytes;
    if (bytes > 0) {
      data = pieces;
      direction = nvme::data_transfer(entry.opcode);
    }
    done = [](host::Command& command) {
      auto& self = static_cast<QueueCommand&>(command);
      FL_CHECK(!self.ended.is_set());
      self.memory.check();
      const bool is_ok = self.outcome == host::Outcome::kAnswered && self.status.ok();
      if (is_ok && self.direction == nvme::DataTransfer::kControllerToHost) self.memory.check_full();
      self.ended.set();
    };
  }

  Guarded memory;
  std::array<iovec, 2> pieces;
  Event ended;
};

Task<void> use_queue(Run& run) {
  host::QueueOptions options;
  options.address = run.controller_node.address(4420);
  options.subsystem_nqn = testing::kScriptedNqn;
  options.host_nqn = run.identity().nqn;
  options.qid = 1;
  options.controller_id = 7;
  options.depth = (run.options.nature & 32) != 0 ? 3 : 16;
  options.in_capsule_max = (run.options.nature & 4) != 0 ? 0 : 8192;
  options.header_digest = run.options.header_digest();
  options.data_digest = run.options.data_digest();
  options.command_timeout = std::chrono::seconds(2);
  options.abort_timeout = std::chrono::seconds(1);
  host::Queue queue(run.host_node.shard(0), options);
  (void)co_await queue.connect();
  std::vector<std::unique_ptr<QueueCommand>> commands;
  for (int wave = 0; wave < 4; ++wave) {
    const std::pair<nvme::NvmOpcode, uint32_t> kKinds[] = {
        {nvme::NvmOpcode::kRead, 4096},   {nvme::NvmOpcode::kWrite, 4096}, {nvme::NvmOpcode::kRead, 12288},
        {nvme::NvmOpcode::kWrite, 20480}, {nvme::NvmOpcode::kFlush, 0},    {nvme::NvmOpcode::kCompare, 40960}};
    for (const auto& [opcode, length] : kKinds) {
      commands.push_back(std::make_unique<QueueCommand>(run.reactor(), opcode, length));
      queue.submit(*commands.back());
    }
    co_await commands[commands.size() - 3]->ended.wait();
  }
  const Instant begin = run.reactor().now();
  for (const auto& command : commands) co_await command->ended.wait();
  FL_CHECK(run.reactor().now() - begin < std::chrono::seconds(60));
  queue.close("the run is over");
  co_await queue.closed();
  for (const auto& command : commands) command->memory.check();
}

// ---- A subsystem

host::SubsystemOptions subsystem_options(const Run& run) {
  host::SubsystemOptions options;
  options.nqn = testing::kScriptedNqn;
  options.addresses.assign(run.options.two_paths() ? 2 : 1, run.controller_node.address(4420));
  options.identity = run.identity();
  options.queue_depth = 8;
  options.header_digest = run.options.header_digest();
  options.data_digest = run.options.data_digest();
  options.keep_alive = std::chrono::seconds(2);
  options.connect_timeout = std::chrono::seconds(1);
  options.admin_timeout = std::chrono::seconds(2);
  options.command_timeout = std::chrono::seconds(3);
  options.abort_timeout = std::chrono::seconds(1);
  options.reconnect_min = std::chrono::milliseconds(10);
  options.reconnect_max = std::chrono::milliseconds(500);
  options.no_path_timeout = std::chrono::seconds(5);
  if (run.options.mode() == 1) options.on_loss = host::OnLoss::kFail;
  return options;
}

std::vector<Shard*> host_shards(Run& run) {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < run.host_node.shard_count(); ++i) shards.push_back(&run.host_node.shard(i));
  return shards;
}

Task<void> read_once(Run& run, BlockDevice& device, uint64_t offset, size_t length) {
  Guarded memory(length, kUntouched);
  const auto pieces = memory.pieces();
  const Result<void> done = co_await block_read(run.reactor(), device, ByteOffset{offset}, pieces);
  memory.check();
  if (done) memory.check_full();
}
Task<void> write_once(Run& run, BlockDevice& device, uint64_t offset, size_t length) {
  Guarded memory(length, kWritten);
  const auto pieces = memory.pieces();
  (void)co_await block_write(run.reactor(), device, ByteOffset{offset}, pieces, Durability::kForced);
  memory.check();
}
Task<void> rest_once(Run& run, BlockDevice& device) {
  (void)co_await block_flush(run.reactor(), device);
  (void)co_await block_discard(run.reactor(), device, ByteOffset{0}, 8192);
  (void)co_await block_write_zeroes(run.reactor(), device, ByteOffset{0}, 8192);
}

Task<void> call_once(host::Subsystem& subsystem, size_t length) {
  const auto answer = co_await subsystem.call(1, Bytes(length, kWritten));
  FL_CHECK(!answer || answer->size() <= nvme::kReplicationReceiveBytesMax);
}

Task<void> use_device(Run& run, host::Subsystem& subsystem, BlockDevice& device) {
  for (int wave = 0; wave < 3; ++wave) {
    Scope scope(run.reactor());
    scope.spawn(read_once(run, device, 0, 4096));
    scope.spawn(write_once(run, device, 4096, 4096));
    scope.spawn(read_once(run, device, 0, 65536));
    scope.spawn(write_once(run, device, 0, 20480));
    scope.spawn(rest_once(run, device));
    for (int i = 0; i < 6 && run.options.mode() == 1; ++i) {
      scope.spawn(call_once(subsystem, i == 0 ? nvme::kReplicationSendBytesMax : 16));
    }
    co_await scope.close();
  }
}

// The namespace 1 as the healthy controller has it.
host::NamespaceIdentity own_identity(const Run& run) {
  const ControllerNature nature = nature_of(run.options);
  const ControllerNature::Namespace& own = nature.namespaces.at(1);
  const Result<host::ControllerInfo> controller = host::read_controller(nature.identify, nature.capabilities);
  FL_CHECK(controller.has_value());
  return host::read_namespace(1, own.identify, own.descriptors, *controller)->identity;
}

// From now on the controller is what it should be.
void heal(Run& run) {
  run.script.end();
  run.controller.nature = nature_of(run.options);
  for (const auto& link : run.controller.links()) {
    if (!link->has_ended()) link->cut();
  }
}

Task<void> use_healed(Run& run, BlockDevice& device) {
  const Instant begin = run.reactor().now();
  Result<void> done = fail(Code::kUnreachable);
  Guarded memory(4096, kUntouched);
  const auto pieces = memory.pieces();
  // A namespace that was gone comes back, a time of waiting may have passed: asks until it is so.
  while (!done) {
    FL_CHECK(run.reactor().now() - begin < std::chrono::seconds(200));
    co_await sleep(run.reactor(), std::chrono::milliseconds(100));
    done = co_await block_read(run.reactor(), device, ByteOffset{0}, pieces);
  }
  memory.check_full();
}

Task<void> use_subsystem(Run& run) {
  auto subsystem = std::make_unique<host::Subsystem>(host_shards(run), subsystem_options(run));
  Result<void> started = co_await subsystem->start();
  if (!started) {
    heal(run);
    subsystem = std::make_unique<host::Subsystem>(host_shards(run), subsystem_options(run));
    started = co_await subsystem->start();
    FL_CHECK(started.has_value());
  }
  for (const host::NamespaceInfo& info : subsystem->namespaces()) {
    Result<std::shared_ptr<BlockSource>> source = subsystem->source(info.identity.nsid);
    if (!source) continue;  // gone meanwhile
    Result<std::unique_ptr<BlockDevice>> device = (*source)->open(run.host_node.shard(0));
    FL_CHECK(device.has_value());
    co_await use_device(run, *subsystem, **device);
    const bool is_its_own = info.identity.nsid == 1 && info.identity == own_identity(run);
    if (!is_its_own) continue;
    heal(run);
    co_await use_healed(run, **device);
  }
  const Instant begin = run.reactor().now();
  co_await subsystem->stop();
  FL_CHECK(run.reactor().now() - begin < std::chrono::seconds(30));
}

// ---- Discovery

Task<void> use_discovery(Run& run) {
  host::DiscoveryOptions options;
  options.identity = run.identity();
  options.timeout = std::chrono::seconds(2);
  (void)co_await host::discover(run.host_node.shard(0), run.controller_node.address(4420), options);
}

Task<void> host_body(Run& run) {
  if (run.options.mode() == 2) {
    co_await use_queue(run);
  } else if (run.options.mode() == 3) {
    co_await use_discovery(run);
  } else {
    co_await use_subsystem(run);
  }
  run.done = true;
}

Task<void> stop_controller(Run& run) {
  co_await run.controller.stop();
  run.done = true;
}

void execute(std::span<const uint8_t> input) {
  if (input.size() < 2) return;
  Run run(input);
  run.world.spawn(run.host_node, 0, host_body(run));
  FL_CHECK(run.world.run_until([&] { return run.done; }, kRunMax) == sim::RunResult::kDone);
  FL_CHECK(run.controller.complaints().empty());
  run.done = false;
  run.world.spawn(run.controller_node, 0, stop_controller(run));
  FL_CHECK(run.world.run_until([&] { return run.done; }, kRunMax) == sim::RunResult::kDone);
  FL_CHECK(run.world.violations() == 0 && run.world.unexplained_errors() == 0);
}

}  // namespace
}  // namespace fairlead::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fairlead::fuzz::execute({data, size});
  return 0;
}
