// The commands `node`, `pool`, `volume`, `snapshot`, `replica`, `event`, `status`, `why`, `wait` and `top`: clients of
// a cluster's REST API.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/cluster_arguments.h"

namespace CLI {
class App;
}

namespace fairlead::cli {

class Kubectl;

class ClusterCommands {
 public:
  // Adds them to `app`, which must outlive this.
  explicit ClusterCommands(CLI::App& app);
  ~ClusterCommands();
  ClusterCommands(const ClusterCommands&) = delete;
  ClusterCommands& operator=(const ClusterCommands&) = delete;

  // Runs the one that was given and returns its exit code; none: another command was given. Where no server is named,
  // `kubectl` finds it, if there is one. Requires: parsed.
  std::optional<int> run(Kubectl* kubectl) const;

 private:
  struct Command {
    CLI::App* app = nullptr;
    ClusterArguments arguments;
  };
  enum class Waits : uint8_t { kNo, kYes };
  Command& add(CLI::App& parent, const char* word, std::string_view kind, ClusterVerb verb, const char* description);
  // With an option -o, or those of what waits for its result.
  Command& add_reader(CLI::App& parent, const char* word, std::string_view kind, ClusterVerb verb,
                      const char* description);
  Command& add_change(CLI::App& parent, const char* word, std::string_view kind, ClusterVerb verb,
                      const char* description, Waits waits = Waits::kYes);
  // list, show, set, delete.
  void add_common(CLI::App& parent, std::string_view kind);
  void add_nodes(CLI::App& app);
  void add_pools(CLI::App& app);
  void add_volumes(CLI::App& app);
  void add_volume_changes(CLI::App& volume);
  void add_snapshots(CLI::App& app);
  void add_settings(CLI::App& app);
  void add_others(CLI::App& app);

  static Outcome<void> find_server(Kubectl& kubectl, ClusterArguments& arguments);

  std::vector<std::unique_ptr<Command>> commands_;
};

// What the exit codes of all commands mean: `fairlead help exit-codes`.
extern const char* const kExitCodesText;

}  // namespace fairlead::cli
