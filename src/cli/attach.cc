#include "cli/attach.h"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cluster_report.h"
#include "io/address.h"

namespace fairlead::cli {
namespace {

constexpr uint16_t kNvmePortDefault = 4420;

bool is_plain(std::string_view word) {
  return !word.empty() && std::ranges::all_of(word, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-_./:=+,@%").find(c) != std::string_view::npos;
  });
}

}  // namespace

Outcome<std::vector<CommandLine>> attach_commands(const Json& volume) {
  std::vector<Json> paths;
  for (const Json& path : field(volume, "status.paths")) {
    if (!parse_socket_address(text_of(path, "address"), kNvmePortDefault)) continue;
    paths.insert(text_of(path, "state") == "serving" ? paths.begin() : paths.end(), path);
  }
  const std::string name = text_of(volume, "name");
  if (paths.empty()) {
    return problem(Code::kBusy,
                   fmt::format("no node serves volume {0} now: 'fairlead why volume/{0}' tells why", name));
  }
  std::vector<CommandLine> commands;
  for (const Json& path : paths) {
    const SocketAddress address = *parse_socket_address(text_of(path, "address"), kNvmePortDefault);
    // A path that is lost is tried for ever, each second: the node comes back, and the host need not be told. The
    // keep-alive is as long as the control plane waits for an engine that is silent (--lost-after): by then another
    // serves, and nothing is gained by waiting for the old one.
    commands.push_back({"nvme", "connect", "--transport=tcp", "--traddr=" + address.ip_text(),
                        fmt::format("--trsvcid={}", address.port), "--nqn=" + text_of(volume, "status.nqn"),
                        "--ctrl-loss-tmo=-1", "--reconnect-delay=1", "--keep-alive-tmo=2"});
  }
  return commands;
}

CommandLine detach_command(const Json& volume) {
  return {"nvme", "disconnect", "--nqn=" + text_of(volume, "status.nqn")};
}

std::string shell_line(const CommandLine& command) {
  std::string line;
  for (const std::string& word : command) {
    std::string quoted = word;
    if (!is_plain(word)) {
      quoted = "'";
      for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
      quoted += "'";
    }
    line += (line.empty() ? "" : " ") + quoted;
  }
  return line;
}

Outcome<int> execute(const CommandLine& command) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_t child = 0;
  if (const int error = posix_spawnp(&child, words[0], nullptr, nullptr, words.data(), environ); error != 0) {
    const bool is_missing = error == ENOENT;
    return problem(is_missing ? Code::kNotFound : Code::kIo,
                   fmt::format("{} cannot be run{}", command.front(),
                               is_missing ? ": it is not installed (nvme comes with the package nvme-cli)" : ""));
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace fairlead::cli
