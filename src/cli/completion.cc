#include "cli/completion.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace fairlead::cli {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  // Those of no group are for scripts.
  return app.get_subcommands([](const CLI::App* command) { return !command->get_group().empty(); });
}

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* const option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// Calls visit(path, command) for each command, and each command of it: path is "pool" or "offline-pool-check".
template <typename Visit>
void for_each_command(const CLI::App& app, const std::string& parent, const Visit& visit) {
  for (const CLI::App* const command : commands_of(app)) {
    const std::string path = parent + (parent.empty() ? "" : "-") + command->get_name();
    visit(path, *command);
    for_each_command(*command, path, visit);
  }
}

std::string names_of(const std::vector<const CLI::App*>& commands) {
  std::string names;
  for (const CLI::App* const command : commands) names += command->get_name() + " ";
  return names;
}

// What a cluster is asked for to complete an argument, by the argument's name: "NODE" and "--node" are nodes' names.
// Empty: nothing.
std::string kind_of(std::string name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kKinds = {
      {{"NODE", "nodes"},
       {"POOL", "pools"},
       {"VOLUME", "volumes"},
       {"SNAPSHOT", "snapshots"},
       {"SNAPSHOT-GROUP", "snapshot-groups"},
       {"RESOURCE", "resources"}}};
  const auto found = std::ranges::find(kKinds, name, &std::pair<std::string_view, std::string_view>::first);
  return found == kKinds.end() ? "-" : std::string(found->second);
}

// Of the arguments without a name, in their order; none of them can be completed: empty. Only commands that speak to a
// cluster have an option --server.
std::string kinds_of(const CLI::App& command) {
  std::string kinds;
  if (command.get_option_no_throw("--server") == nullptr) return kinds;
  for (const CLI::Option* const option : command.get_options()) {
    if (option->get_positional()) kinds += (kinds.empty() ? "" : " ") + kind_of(option->get_name(true));
  }
  return kinds;
}

// Words that are no command and begin with no dash are arguments; values of options are counted as well, so that a name
// behind one may go uncompleted.
constexpr const char* kBashFunction = R"sh(
_@() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} word i
  local command='' given=0 words kinds server
  local -a list
  COMPREPLY=()
  _@_command ''
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if [[ $word != -* && $given == 0 && " $words " == *" $word "* ]]; then
      command+=${command:+-}$word
      _@_command "$command"
    elif [[ $word != -* ]]; then
      given=$((given + 1))
    fi
  done
  list=($kinds)
  case $previous in
    --node) [[ -n $server ]] && list=(nodes) given=0 ;;
    --volume) [[ -n $server ]] && list=(volumes) given=0 ;;
    --source) [[ -n $server ]] && list=(snapshots) given=0 ;;
  esac
  if [[ $current == -* || $words == [a-z]* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  elif [[ -n ${list[given]:-} && ${list[given]} != - ]]; then
    COMPREPLY=($(compgen -W "$(@ names "${list[given]}" 2>/dev/null)" -- "$current"))
  fi
}
complete -o default -F _@ @
)sh";

std::string bash(const CLI::App& app) {
  std::string cases =
      fmt::format("    '') words='{}{}' ;;\n", names_of(commands_of(app)), fmt::join(options_of(app), " "));
  for_each_command(app, "", [&](const std::string& path, const CLI::App& command) {
    const bool asks = command.get_option_no_throw("--server") != nullptr;
    cases += fmt::format("    {}) words='{}{}'{}{} ;;\n", path, names_of(commands_of(command)),
                         fmt::join(options_of(command), " "), asks ? " server=yes" : "",
                         asks ? fmt::format(" kinds='{}'", kinds_of(command)) : "");
  });
  std::string function = kBashFunction;
  for (size_t at = function.find('@'); at != std::string::npos; at = function.find('@', at + 1)) {
    // ${list[@]} is not used in it.
    function.replace(at, 1, app.get_name());
  }
  return fmt::format(
             "# bash completion of {0}: source <({0} completion bash)\n"
             "_{0}_command() {{\n"
             "  words='' kinds='' server=''\n"
             "  case $1 in\n{1}  esac\n"
             "}}\n",
             app.get_name(), cases) +
         function.substr(1);
}

std::string quoted(std::string text) {
  text = text.substr(0, text.find('\n'));
  std::erase(text, '\'');
  return text;
}

std::string fish_options(const CLI::App& app, const CLI::App& command, std::string_view condition) {
  std::string script;
  for (const CLI::Option* const option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      script += fmt::format("complete -c {} -n '{}' -l {} -d '{}'\n", app.get_name(), condition, name,
                            quoted(option->get_description()));
    }
  }
  return script;
}

// The commands of a command, and theirs; `seen`: the condition that it was given.
std::string fish_commands(const CLI::App& app, const CLI::App& command, const std::string& seen) {
  const std::vector<const CLI::App*> inner = commands_of(command);
  if (inner.empty()) {
    std::string script = fish_options(app, command, seen);
    const std::string kinds = kinds_of(command);
    const std::string first = kinds.substr(0, kinds.find(' '));
    if (!first.empty() && first != "-") {
      script +=
          fmt::format("complete -c {0} -n '{1}' -f -a '({0} names {2} 2>/dev/null)'\n", app.get_name(), seen, first);
    }
    return script;
  }
  std::string names = names_of(inner);
  names.pop_back();
  std::string script;
  for (const CLI::App* const one : inner) {
    script += fmt::format("complete -c {} -n '{}; and not __fish_seen_subcommand_from {}' -a {} -d '{}'\n",
                          app.get_name(), seen, names, one->get_name(), quoted(one->get_description()));
    script += fish_commands(app, *one, fmt::format("{}; and __fish_seen_subcommand_from {}", seen, one->get_name()));
  }
  return script;
}

std::string fish(const CLI::App& app) {
  std::string script = fmt::format("# fish completion of {0}: {0} completion fish | source\n", app.get_name());
  for (const CLI::App* const command : commands_of(app)) {
    script += fmt::format("complete -c {} -n __fish_use_subcommand -a {} -d '{}'\n", app.get_name(),
                          command->get_name(), quoted(command->get_description()));
    script += fish_commands(app, *command, fmt::format("__fish_seen_subcommand_from {}", command->get_name()));
  }
  return script;
}

}  // namespace

std::expected<std::string, std::string> completion_script(const CLI::App& app, std::string_view shell) {
  if (shell == "bash") return bash(app);
  // zsh reads bash's completions.
  if (shell == "zsh") return "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n" + bash(app);
  if (shell == "fish") return fish(app);
  return std::unexpected(fmt::format("{}: expected bash, zsh or fish", shell));
}

}  // namespace fairlead::cli
