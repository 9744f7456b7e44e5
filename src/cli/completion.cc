#include "cli/completion.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fmt/format.h>

namespace fairlead::cli {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* const option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// Calls visit(path, command) for each command, and each command of it: path is "pool" or "pool-check".
template <typename Visit>
void for_each_command(const CLI::App& app, Visit visit) {
  for (const CLI::App* const command : commands_of(app)) {
    visit(command->get_name(), *command);
    for (const CLI::App* const inner : commands_of(*command)) {
      visit(command->get_name() + "-" + inner->get_name(), *inner);
    }
  }
}

std::string names_of(const std::vector<const CLI::App*>& commands) {
  std::string names;
  for (const CLI::App* const command : commands) names += command->get_name() + " ";
  return names;
}

std::string bash(const CLI::App& app) {
  std::string cases;
  std::string families;
  for (const CLI::App* const command : commands_of(app)) {
    if (commands_of(*command).empty()) continue;
    families += fmt::format("{}{}", families.empty() ? "" : "|", command->get_name());
  }
  for_each_command(app, [&](const std::string& path, const CLI::App& command) {
    cases += fmt::format("    {}) words='{}{}' ;;\n", path, names_of(commands_of(command)),
                         fmt::join(options_of(command), " "));
  });
  return fmt::format(
      "# bash completion of {0}: source <({0} completion bash)\n"
      "_{0}() {{\n"
      "  local current=${{COMP_WORDS[COMP_CWORD]}} words='' command=${{COMP_WORDS[1]}} family=''\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W '{1}{2}' -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case $command in {4}) family=yes ;; esac\n"
      "  if [ -n \"$family\" ] && [ \"$COMP_CWORD\" -gt 2 ]; then command+=-${{COMP_WORDS[2]}}; family=''; fi\n"
      "  case $command in\n{3}  esac\n"
      "  case $family$current in yes*|-*) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;; esac\n"
      "}}\n"
      "complete -o default -F _{0} {0}\n",
      app.get_name(), names_of(commands_of(app)), fmt::join(options_of(app), " "), cases,
      families.empty() ? "''" : families);
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

std::string fish(const CLI::App& app) {
  std::string script = fmt::format("# fish completion of {0}: {0} completion fish | source\n", app.get_name());
  for (const CLI::App* const command : commands_of(app)) {
    script += fmt::format("complete -c {} -n __fish_use_subcommand -a {} -d '{}'\n", app.get_name(),
                          command->get_name(), quoted(command->get_description()));
    const std::string seen = fmt::format("__fish_seen_subcommand_from {}", command->get_name());
    const std::vector<const CLI::App*> inner = commands_of(*command);
    if (inner.empty()) script += fish_options(app, *command, seen);
    std::string names = names_of(inner);
    if (!names.empty()) names.pop_back();
    for (const CLI::App* const one : inner) {
      script += fmt::format("complete -c {} -n '{}; and not __fish_seen_subcommand_from {}' -a {} -d '{}'\n",
                            app.get_name(), seen, names, one->get_name(), quoted(one->get_description()));
      script += fish_options(app, *one, fmt::format("{}; and __fish_seen_subcommand_from {}", seen, one->get_name()));
    }
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
