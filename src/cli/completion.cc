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

std::string bash(const CLI::App& app) {
  std::string commands;
  std::string cases;
  for (const CLI::App* const command : commands_of(app)) {
    commands += command->get_name() + " ";
    cases += fmt::format("    {}) words='{}' ;;\n", command->get_name(), fmt::join(options_of(*command), " "));
  }
  return fmt::format(
      "# bash completion of {0}: source <({0} completion bash)\n"
      "_{0}() {{\n"
      "  local current=${{COMP_WORDS[COMP_CWORD]}} words=''\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W '{1}{2}' -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case ${{COMP_WORDS[1]}} in\n{3}  esac\n"
      "  case $current in -*) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;; esac\n"
      "}}\n"
      "complete -o default -F _{0} {0}\n",
      app.get_name(), commands, fmt::join(options_of(app), " "), cases);
}

std::string fish(const CLI::App& app) {
  std::string script = fmt::format("# fish completion of {0}: {0} completion fish | source\n", app.get_name());
  const auto quoted = [](std::string text) {
    text = text.substr(0, text.find('\n'));
    std::erase(text, '\'');
    return text;
  };
  for (const CLI::App* const command : commands_of(app)) {
    script += fmt::format("complete -c {} -n __fish_use_subcommand -a {} -d '{}'\n", app.get_name(),
                          command->get_name(), quoted(command->get_description()));
    for (const CLI::Option* const option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        script += fmt::format("complete -c {} -n '__fish_seen_subcommand_from {}' -l {} -d '{}'\n", app.get_name(),
                              command->get_name(), name, quoted(option->get_description()));
      }
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
