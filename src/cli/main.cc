// The fairlead command: reads the command line, and leaves the work to the command's own file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fmt/format.h>

#include "cli/completion.h"
#include "cli/serve.h"
#include "cli/version.h"

namespace {

constexpr int kExitUsage = 2;

using fairlead::cli::ServeArguments;

void define_serve(CLI::App& serve, ServeArguments& arguments) {
  serve.add_option("PATH", arguments.paths, "Files or block devices; each becomes a namespace, in this order");
  serve.add_option("--listen", arguments.listen,
                   "ADDR[:PORT][,advertise=ADDR[:PORT]]: where to listen, IPv4 or [IPv6]; may be given several times. "
                   "Port 0 lets the system choose; what is advertised is told to hosts instead (NAT, VMs). "
                   "Default: 127.0.0.1:4420, this machine only; 0.0.0.0 is every IPv4 address");
  serve.add_option("--nqn", arguments.nqn,
                   "Name of the subsystem. Default: derived from this machine and the first PATH");
  serve.add_option("--size", arguments.size, "Makes files that are not there, sparse, and grows smaller ones: 10GiB");
  serve.add_option("--memory", arguments.memory, "Adds a namespace in memory of this size; may be given several times");
  serve.add_option("--null", arguments.null,
                   "Adds a namespace of this size that keeps nothing and reads as zeroes, for measuring");
  serve.add_flag("--read-only", arguments.read_only, "Refuses writes");
  serve.add_option("--host", arguments.hosts,
                   "NQN of a host that may connect; may be given several times. Default: any");
  serve.add_option("--shards", arguments.shards, "Threads that serve I/O. Default: one for each processor")
      ->check(CLI::PositiveNumber);
  serve
      .add_option("--poll", arguments.poll,
                  "auto: look for work for 50 us after the last, then sleep; always: never sleep; never: sleep at once")
      ->capture_default_str();
  serve.footer(
      "Sizes take KiB, MiB, GiB, TiB. SIGINT and SIGTERM drain and flush.\n"
      "Example: fairlead serve disk.img --size 10GiB --listen 0.0.0.0");
  for (CLI::Option* const option : serve.get_options()) {
    // One value for each time an option is given, so that PATHs may stand behind it.
    if (!option->get_lnames().empty() && option->get_items_expected_max() > 1) option->allow_extra_args(false);
  }
}

int run_serve(const ServeArguments& arguments) {
  const auto plan = fairlead::cli::check(arguments);
  if (!plan) {
    fmt::print(stderr, "fairlead serve: {}\nTry 'fairlead serve --help'.\n", plan.error());
    return kExitUsage;
  }
  return fairlead::cli::serve(*plan);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Fairlead: block storage over NVMe-oF", "fairlead");
  app.set_version_flag("--version", fmt::format("fairlead {}", fairlead::cli::kVersion));
  app.require_subcommand(0, 1);
  ServeArguments serve_arguments;
  CLI::App& serve = *app.add_subcommand("serve", "Export files, devices or memory as NVMe-oF namespaces");
  define_serve(serve, serve_arguments);
  std::string shell;
  CLI::App& completion = *app.add_subcommand("completion", "Print a completion script for bash, zsh or fish");
  completion.add_option("SHELL", shell, "bash, zsh or fish")->required();

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (app.get_subcommands().empty()) {
    fmt::print(stderr, "{}", app.help());
    return kExitUsage;
  }
  if (serve.parsed()) return run_serve(serve_arguments);
  const auto script = fairlead::cli::completion_script(app, shell);
  if (!script) {
    fmt::print(stderr, "fairlead completion: {}\n", script.error());
    return kExitUsage;
  }
  std::fputs(script->c_str(), stdout);
  return 0;
}
