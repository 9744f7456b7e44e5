// ControllerBed: a ScriptedController on one simulated machine and a host on another, for tests of src/host.
//
//   Task<void> reads(ControllerBed& bed) { bed.on_command([](ScriptedLink& link, const ScriptedCommand& c) { … }); … }
//   TEST(Queue, Reads) { ControllerBed().run(reads); }
//
// A body runs on the host's first shard. Afterwards the controller is stopped, and nothing may have been complained of.
#pragma once

#include <gtest/gtest.h>
#include <memory>
#include <utility>
#include <vector>

#include "host/options.h"
#include "host/queue.h"
#include "sim/action.h"
#include "sim/world.h"
#include "tests/support/scripted_controller.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {

class ControllerBed final : private ControllerScript {
 public:
  explicit ControllerBed(sim::SimSettings settings = sim::SimSettings::calm(), uint64_t seed = 1,
                         size_t client_shards = 1)
      : world(seed, settings),
        server(world.add_node("10.0.0.1")),
        client(world.add_node("10.0.0.2", {.shards = client_shards, .more_addresses = {}})),
        address(server.address(4420)),
        controller(server.shard(0), address) {
    controller.set_script(this);
    EXPECT_TRUE(controller.start());
  }
  ~ControllerBed() {
    finish(server, controller.stop(), std::chrono::seconds(600));
    if (!tolerates_complaints) EXPECT_EQ(controller.complaints(), "");
    EXPECT_EQ(world.violations(), 0U) << world.report();
    EXPECT_EQ(world.unexplained_errors(), 0U) << world.report();
  }
  ControllerBed(const ControllerBed&) = delete;
  ControllerBed& operator=(const ControllerBed&) = delete;

  template <typename Body>
  void run(Body body, Duration limit = std::chrono::seconds(600)) {
    finish(client, body(*this), limit);
  }

  // What the controller does instead: true from the function, when it has dealt with it.
  template <typename Function>
  void on_greeting(Function function) {
    greeting_ = [function](ScriptedLink& link, bool& done) mutable { done = function(link); };
  }
  template <typename Function>
  void on_command(Function function) {
    command_ = [function](ScriptedLink& link, const ScriptedCommand& command, bool& done) mutable {
      done = function(link, command);
    };
  }
  template <typename Function>
  void on_data(Function function) {
    data_ = [function](ScriptedLink& link, const nvme::H2cDataPdu& pdu, bool& done) mutable {
      done = function(link, pdu);
    };
  }

  Shard& shard() { return client.shard(0); }
  Reactor& reactor() { return client.shard(0).reactor; }
  Sleep sleep(Duration span) { return fairlead::sleep(reactor(), span); }
  ScriptedLink& last_link() { return *controller.links().back(); }
  host::QueueOptions queue_options(uint16_t qid = 1) const {
    host::QueueOptions options;
    options.address = address;
    options.subsystem_nqn = kScriptedNqn;
    options.host_nqn = host::identity_from_id(uuid_from_random(1, 2)).nqn;
    options.qid = qid;
    options.controller_id = qid == 0 ? nvme::kDynamicControllerId : controller.nature.controller_id;
    return options;
  }
  host::SubsystemOptions subsystem_options() const {
    host::SubsystemOptions options;
    options.nqn = kScriptedNqn;
    options.addresses = {address};
    options.identity = host::identity_from_id(uuid_from_random(1, 2));
    return options;
  }

  sim::SimWorld world;
  sim::SimNode& server;
  sim::SimNode& client;
  const SocketAddress address;
  ScriptedController controller;
  bool tolerates_complaints = false;

 private:
  bool on_ic_req(ScriptedLink& link, const nvme::IcReqPdu& /*request*/) override {
    bool done = false;
    if (greeting_) greeting_(link, done);
    return done;
  }
  bool on_command(ScriptedLink& link, const ScriptedCommand& command) override {
    bool done = false;
    if (command_) command_(link, command, done);
    return done;
  }
  bool on_data(ScriptedLink& link, const nvme::H2cDataPdu& pdu) override {
    bool done = false;
    if (data_) data_(link, pdu, done);
    return done;
  }
  void finish(sim::SimNode& node, Task<void> task, Duration limit) {
    bool ended = false;
    world.spawn(node, 0, note_end(std::move(task), ended));
    const sim::RunResult result = world.run_until([&] { return ended; }, limit);
    if (result == sim::RunResult::kDone) return;
    // What hangs refers to this object: there is no way on from here.
    ADD_FAILURE() << sim::run_result_name(result) << '\n' << world.report();
    FL_CHECK(result == sim::RunResult::kDone);
  }

  sim::Action<ScriptedLink&, bool&> greeting_;
  sim::Action<ScriptedLink&, const ScriptedCommand&, bool&> command_;
  sim::Action<ScriptedLink&, const nvme::H2cDataPdu&, bool&> data_;
};

// A command for a Queue, with memory on both sides of its data that nobody may touch.
struct GuardedCommand : host::Command {
  static constexpr size_t kGuard = 64;
  static constexpr std::byte kUntouched{0xa5};

  GuardedCommand(Reactor& reactor, nvme::NvmOpcode opcode, uint32_t bytes)
      : memory(bytes + 2 * kGuard, kUntouched), piece{memory.data() + kGuard, bytes}, ended(reactor) {
    entry.opcode = static_cast<uint8_t>(opcode);
    entry.nsid = 1;
    direction = bytes == 0 ? nvme::DataTransfer::kNone : nvme::data_transfer(entry.opcode);
    if (bytes > 0) data = {&piece, 1};
    length = bytes;
    done = [](host::Command& command) {
      auto& self = static_cast<GuardedCommand&>(command);
      ++self.endings;
      self.ended.set();
    };
  }

  std::span<const std::byte> bytes() const { return std::span(memory).subspan(kGuard, length); }
  bool is_ok() const { return outcome == host::Outcome::kAnswered && status.ok(); }
  bool guards_hold() const {
    const auto untouched = [](std::byte each) { return each == kUntouched; };
    return std::ranges::all_of(std::span(memory).first(kGuard), untouched) &&
           std::ranges::all_of(std::span(memory).last(kGuard), untouched);
  }

  std::vector<std::byte> memory;
  iovec piece;
  Event ended;
  int endings = 0;
};

}  // namespace fairlead::testing
