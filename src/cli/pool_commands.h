// The commands `offline pool`, `offline replica` and `offline snapshot`: what works on disks without a cluster.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cli/pool_arguments.h"

namespace CLI {
class App;
}

namespace fairlead::cli {

class PoolCommands {
 public:
  // Adds them to `app`, which must outlive this.
  explicit PoolCommands(CLI::App& app);
  ~PoolCommands();
  PoolCommands(const PoolCommands&) = delete;
  PoolCommands& operator=(const PoolCommands&) = delete;

  // Runs the one that was given and returns its exit code; none: another command was given. Requires: parsed.
  std::optional<int> run() const;

 private:
  template <typename Arguments>
  struct Command {
    CLI::App* app = nullptr;
    Arguments arguments;
  };
  Command<PoolArguments>& add(CLI::App& parent, PoolAction action, const char* description);
  Command<ObjectArguments>& add(CLI::App& parent, ObjectAction action, const char* description);
  void add_pool_commands(CLI::App& app);
  void add_replica_commands(CLI::App& app);
  void add_snapshot_commands(CLI::App& app);

  std::vector<std::unique_ptr<Command<PoolArguments>>> pool_;
  std::vector<std::unique_ptr<Command<ObjectArguments>>> objects_;
};

}  // namespace fairlead::cli
