#include "cli/engine.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <unistd.h>

#include "async/scope.h"
#include "block/faulty.h"
#include "block/memory.h"
#include "cli/announcer.h"
#include "cli/engine_commands.h"
#include "cli/pool_disks.h"
#include "cli/process.h"
#include "cli/version.h"
#include "engine/control_witness.h"
#include "engine/management.h"
#include "engine/no_witness.h"
#include "engine/reporter.h"
#include "engine/state_directory.h"
#include "io/line_input.h"
#include "io/signals.h"
#include "rpc/grpc_channel.h"
#include "rpc/grpc_server.h"

namespace fairlead::cli {
namespace {

constexpr const char* kCommandName = "engine";

template <typename... Arguments>
void complain(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  complain_of(kCommandName, format, std::forward<Arguments>(arguments)...);
}

// What makes the engine a member of a cluster: what it keeps, who tells it what to do, and whom it tells. Lives on
// shard 0.
class Membership {
 public:
  Membership(Runtime& runtime, const ClusterPlan& plan) : home_(runtime.shard(0)), plan_(plan) {}

  // Before there is an engine: who the node is. The complaint says what is wrong.
  Task<std::expected<void, Complaint>> open() {
    if (plan_.tls) {
      const Outcome<void> good = rpc::check_tls_files(*plan_.tls);
      if (!good) co_return std::unexpected(to_string(good.error()));
    }
    if (!plan_.state_directory.empty()) {
      auto files = open_small_files(home_.reactor, plan_.state_directory);
      if (!files) co_return std::unexpected("--state-dir " + to_string(files.error()));
      files_ = std::move(*files);
      auto state = co_await engine::StateDirectory::open(home_, *files_);
      if (!state) co_return std::unexpected(to_string(state.error()));
      state_ = std::move(*state);
    }
    if (plan_.control.empty()) co_return std::expected<void, Complaint>();
    rpc::GrpcDialer dialer(home_.reactor, plan_.tls);
    control_ = std::make_unique<engine::ControlClient>(home_, dialer, plan_.control);
    witness_ = std::make_unique<engine::ControlWitness>(*control_);
    co_return std::expected<void, Complaint>();
  }
  // None: nobody has asked for one that stays.
  std::optional<Uuid> node() const { return state_ == nullptr ? std::nullopt : std::optional(state_->node()); }
  mirror::Witness& witness() { return witness_ != nullptr ? static_cast<mirror::Witness&>(*witness_) : no_witness_; }

  // Imports the pools that the node has, and takes orders. `data`: where hosts come in.
  Task<std::expected<void, Complaint>> start(std::vector<Shard*> shards, engine::Engine& engine, SocketAddress data) {
    if (!plan_.management) co_return std::expected<void, Complaint>();
    SocketAddress address = plan_.advertise.value_or(data);
    if (address.port == 0) address.port = data.port;
    management_ = std::make_unique<engine::Management>(std::move(shards), engine, *state_,
                                                       engine::ManagementOptions{.node = plan_.node,
                                                                                 .data_address = to_string(address),
                                                                                 .management_address = {},
                                                                                 .version = kVersion,
                                                                                 .labels = plan_.labels,
                                                                                 .create = {},
                                                                                 .import = {}});
    management_->add_to(service_);
    co_await management_->start();
    server_ = std::make_unique<rpc::GrpcServer>(
        home_.reactor, service_,
        rpc::GrpcServer::Options{.address = to_string(*plan_.management), .tls = plan_.tls, .name = "management"});
    const Outcome<uint16_t> port = server_->start();
    if (!port) co_return std::unexpected("--management " + to_string(port.error()));
    SocketAddress called = *plan_.management;
    called.port = *port;
    const bool is_any = std::ranges::all_of(called.ip, [](uint8_t byte) { return byte == 0; });
    if (is_any) called = {.family = address.family, .ip = address.ip, .scope_id = address.scope_id, .port = *port};
    management_->set_management_address(to_string(called));
    say("management on {}", to_string(called));
    if (control_ == nullptr) co_return std::expected<void, Complaint>();
    reporter_ = std::make_unique<engine::Reporter>(home_, *management_, *control_);
    reporter_->start();
    co_return std::expected<void, Complaint>();
  }
  // Before the engine ends. The control plane hears that it will.
  Task<void> stop() {
    if (management_ != nullptr) management_->begin_stop();
    if (server_ != nullptr) co_await server_->stop();
    if (management_ != nullptr) co_await management_->stop();
    if (reporter_ != nullptr) co_await reporter_->stop();
  }

 private:
  Shard& home_;
  const ClusterPlan& plan_;
  std::unique_ptr<SmallFiles> files_;
  std::unique_ptr<engine::StateDirectory> state_;
  std::unique_ptr<engine::ControlClient> control_;
  engine::NoWitness no_witness_;
  std::unique_ptr<engine::ControlWitness> witness_;
  rpc::Service service_;
  std::unique_ptr<engine::Management> management_;
  std::unique_ptr<rpc::GrpcServer> server_;
  std::unique_ptr<engine::Reporter> reporter_;
};

// Ends the process when its end takes too long: what it leaves behind is what a crash leaves.
struct Deadline : Timer {
  Deadline()
      : Timer([](Runnable&) {
          complain("not in order within --stop-limit: the rest is dropped");
          std::_Exit(1);
        }) {}
};

// One run of the command; lives on shard 0.
class Node {
 public:
  static constexpr const char* kCommand = kCommandName;

  Node(Runtime& runtime, const EnginePlan& plan)
      : runtime_(runtime),
        plan_(plan),
        membership_(runtime, plan.cluster),
        commanding_(runtime.shard(0).reactor),
        input_(runtime.uring_shard(0), STDIN_FILENO) {}

  Task<int> run(SignalWatch& signals) {
    const bool is_up = co_await start();
    Reactor& reactor = runtime_.shard(0).reactor;
    Deadline deadline;
    if (is_up) {
      EngineCommands commands(*engine_, faulty_);
      say("ready");
      tell_service_manager_that(kCommand, "READY=1");
      if (plan_.takes_commands) commanding_.spawn(take_commands(kCommand, input_, signals, commands));
      (void)co_await signals.next();
      say("stopping: giving up volumes, draining and flushing");
      tell_service_manager_that(kCommand, "STOPPING=1");
      reactor.arm(deadline, plan_.stop_limit);
      input_.close();
      co_await commanding_.close();
    }
    bool is_clean = true;
    co_await membership_.stop();
    if (engine_ != nullptr) {
      const Result<void> stopped = co_await engine_->stop();
      is_clean = stopped.has_value();
      if (!stopped) complain("{} at the end", to_string(stopped.error()));
    }
    reactor.disarm(deadline);
    if (is_up) say("stopped");
    co_return is_up&& is_clean ? 0 : 1;
  }

 private:
  Task<std::expected<std::unique_ptr<pool::Pool>, Complaint>> open_pool(std::vector<Shard*> shards) {
    auto disks = plan_.memory ? open_memory(*plan_.memory) : open_disks(*shards.front(), plan_.pool);
    if (!disks) co_return std::unexpected(disks.error());
    if (plan_.memory) {
      const auto created = co_await pool::Pool::create(*shards.front(), *disks, {.name = "memory"});
      if (!created) co_return std::unexpected(to_string(created.error()));
    }
    for (pool::PoolDisk& disk : *disks) {
      if (plan_.limits) disk.source = make_limiter_source(std::move(disk.source), *plan_.limits);
      if (!plan_.has_faulty_disks) continue;
      faulty_.push_back(make_faulty_source(std::move(disk.source), {}));
      disk.source = faulty_.back();
    }
    auto imported = co_await pool::Pool::import(std::move(shards), std::move(*disks), {});
    if (!imported) co_return std::unexpected(to_string(imported.error()));
    co_return std::move(*imported);
  }
  static std::expected<std::vector<pool::PoolDisk>, Complaint> open_memory(const MemoryOptions& options) {
    Result<std::shared_ptr<BlockSource>> source = make_memory_source(options);
    if (!source) return complain_about("--pool memory", source.error());
    return std::vector{pool::PoolDisk{.path = "memory", .source = std::move(*source)}};
  }

  Task<bool> start() {
    const std::vector<Shard*> shards = all_shards(runtime_);
    if (const auto opened = co_await membership_.open(); !opened) {
      complain("{}", opened.error());
      co_return false;
    }
    std::unique_ptr<pool::Pool> pool;
    if (plan_.memory || !plan_.pool.empty()) {
      auto opened = co_await open_pool(shards);
      if (!opened) {
        complain("{}", opened.error());
        co_return false;
      }
      pool = std::move(*opened);
    }
    // Without a state directory there is a pool: check() has seen to that.
    const Uuid node = membership_.node() ? *membership_.node() : pool->id();
    engine_ = std::make_unique<engine::Engine>(shards, node, membership_.witness(), plan_.engine, &announcer_);
    const Result<void> added = pool == nullptr ? Result<void>() : co_await engine_->add_pool(std::move(pool));
    if (!added) {
      complain("{}", to_string(added.error()));
      co_return false;
    }
    tell_replicas();
    const std::optional<SocketAddress> data = co_await listen();
    if (!data) co_return false;
    if (const auto started = co_await membership_.start(shards, *engine_, *data); !started) {
      complain("{}", started.error());
      co_return false;
    }
    co_return true;
  }

  void tell_replicas() {
    for (const engine::ReplicaInfo& replica : engine_->replicas()) {
      if (replica.trouble) {
        complain("replica {} is not offered: {}", replica.name, to_string(*replica.trouble));
      } else {
        say("replica {} {} of volume {}", replica.name, to_string(replica.id), to_string(replica.volume));
      }
    }
  }

  // The first address that is advertised. None: what is wrong was said.
  Task<std::optional<SocketAddress>> listen() {
    std::optional<SocketAddress> first;
    for (const target::ListenerOptions& listener : plan_.listeners) {
      const auto listening = co_await engine_->listen(listener);
      if (!listening) {
        complain("--listen {} {}", to_string(listener.bind), to_string(listening.error()));
        co_return std::nullopt;
      }
      say_listening(*listening);
      if (!first) first = listening->advertised;
    }
    co_return first;
  }

  Runtime& runtime_;
  const EnginePlan& plan_;
  Announcer announcer_;
  Membership membership_;
  std::vector<std::shared_ptr<FaultySource>> faulty_;  // the pool's disks, shared with it, if they are to fail
  Scope commanding_;
  LineInput input_;
  std::unique_ptr<engine::Engine> engine_;
};

}  // namespace

int run_engine(const EnginePlan& plan) { return start_process<Node>(plan); }

}  // namespace fairlead::cli
