#include "cli/engine.h"

#include <fmt/format.h>
#include <unistd.h>

#include "async/scope.h"
#include "block/faulty.h"
#include "block/memory.h"
#include "cli/announcer.h"
#include "cli/engine_commands.h"
#include "cli/pool_disks.h"
#include "cli/process.h"
#include "engine/no_witness.h"
#include "io/line_input.h"
#include "io/signals.h"

namespace fairlead::cli {
namespace {

constexpr const char* kCommandName = "engine";

template <typename... Arguments>
void complain(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  complain_of(kCommandName, format, std::forward<Arguments>(arguments)...);
}

// One run of the command; lives on shard 0.
class Node {
 public:
  static constexpr const char* kCommand = kCommandName;

  Node(Runtime& runtime, const EnginePlan& plan)
      : runtime_(runtime),
        plan_(plan),
        commanding_(runtime.shard(0).reactor),
        input_(runtime.uring_shard(0), STDIN_FILENO) {}

  Task<int> run(SignalWatch& signals) {
    const bool is_up = co_await start();
    if (is_up) {
      EngineCommands commands(*engine_, faulty_);
      say("ready");
      if (plan_.takes_commands) commanding_.spawn(take_commands(kCommand, input_, signals, commands));
      (void)co_await signals.next();
      say("stopping: giving up volumes, draining and flushing");
      input_.close();
      co_await commanding_.close();
    }
    bool is_clean = true;
    if (engine_ != nullptr) {
      const Result<void> stopped = co_await engine_->stop();
      is_clean = stopped.has_value();
      if (!stopped) complain("{} at the end", to_string(stopped.error()));
    }
    if (is_up) say("stopped");
    co_return is_up&& is_clean ? 0 : 1;
  }

 private:
  Task<std::expected<std::unique_ptr<pool::Pool>, Complaint>> open_pool(std::vector<Shard*> shards) {
    auto disks = plan_.memory ? open_memory(*plan_.memory) : open_disks(*shards.front(), plan_.pool);
    if (!disks) co_return std::unexpected(disks.error());
    if (plan_.memory) {
      const auto created = co_await pool::Pool::create(*shards.front(), *disks, {.name = "memory"});
      if (!created) co_return std::unexpected(to_text(created.error()));
    }
    for (pool::PoolDisk& disk : *disks) {
      if (plan_.limits) disk.source = make_limiter_source(std::move(disk.source), *plan_.limits);
      if (!plan_.has_faulty_disks) continue;
      faulty_.push_back(make_faulty_source(std::move(disk.source), {}));
      disk.source = faulty_.back();
    }
    auto imported = co_await pool::Pool::import(std::move(shards), std::move(*disks), {});
    if (!imported) co_return std::unexpected(to_text(imported.error()));
    co_return std::move(*imported);
  }
  static std::expected<std::vector<pool::PoolDisk>, Complaint> open_memory(const MemoryOptions& options) {
    Result<std::shared_ptr<BlockSource>> source = make_memory_source(options);
    if (!source) return complain_about("--pool memory", source.error());
    return std::vector{pool::PoolDisk{.path = "memory", .source = std::move(*source)}};
  }

  Task<bool> start() {
    const std::vector<Shard*> shards = all_shards(runtime_);
    auto pool = co_await open_pool(shards);
    if (!pool) {
      complain("{}", pool.error());
      co_return false;
    }
    engine_ = std::make_unique<engine::Engine>(shards, std::move(*pool), witness_, plan_.engine, &announcer_);
    co_await engine_->start();
    for (const engine::ReplicaInfo& replica : engine_->replicas()) {
      if (replica.trouble) {
        complain("replica {} is not offered: {}", replica.name, to_string(*replica.trouble));
      } else {
        say("replica {} {} of volume {}", replica.name, to_string(replica.id), to_string(replica.volume));
      }
    }
    for (const target::ListenerOptions& listener : plan_.listeners) {
      const auto listening = co_await engine_->listen(listener);
      if (!listening) {
        complain("--listen {} {}", to_string(listener.bind), to_string(listening.error()));
        co_return false;
      }
      say_listening(*listening);
    }
    co_return true;
  }

  Runtime& runtime_;
  const EnginePlan& plan_;
  Announcer announcer_;
  engine::NoWitness witness_;
  std::vector<std::shared_ptr<FaultySource>> faulty_;  // the pool's disks, shared with it, if they are to fail
  Scope commanding_;
  LineInput input_;
  std::unique_ptr<engine::Engine> engine_;
};

}  // namespace

int run_engine(const EnginePlan& plan) { return start_process<Node>(plan); }

}  // namespace fairlead::cli
