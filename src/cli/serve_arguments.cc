#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <tuple>

#include "base/units.h"
#include "base/uuid.h"
#include "cli/serve.h"
#include "nvme/nqn.h"

namespace fairlead::cli {
namespace {

// A size of whole blocks.
std::expected<uint64_t, Complaint> parse_blocks(std::string_view option, std::string_view text) {
  const std::string argument = fmt::format("{} {}", option, text);
  const Result<uint64_t> parsed = parse_size(text);
  if (!parsed) return complain_about(argument, parsed.error());
  if (*parsed == 0 || *parsed % 4096 != 0) {
    return std::unexpected(fmt::format("{}: must be a multiple of 4 KiB, and not 0", argument));
  }
  return *parsed;
}

std::expected<void, Complaint> check_pool(const ServeArguments& arguments, ServePlan& plan) {
  if (arguments.pool.empty()) {
    if (!arguments.replicas.empty()) return std::unexpected("--replica: names one of a pool: give --pool DISK");
    if (arguments.commands) return std::unexpected("--commands: are about a pool: give --pool DISK");
    return {};
  }
  if (arguments.read_only) return std::unexpected("--read-only: is for files; of a pool serve a snapshot");
  for (const std::string& path : arguments.pool) plan.pool.push_back({.path = path});
  plan.replicas = arguments.replicas;
  plan.takes_commands = arguments.commands;
  return {};
}

// The same for this machine and path after each restart, and for no other: hosts take two subsystems of one name for
// two paths to the same data.
std::string derive_nqn(const std::string& what) {
  char* const resolved = ::realpath(what.c_str(), nullptr);
  const std::string path = resolved != nullptr ? resolved : what;
  std::free(resolved);
  return nvme::nqn_from_uuid(uuid_from_name(kFairleadNamespace, machine_name() + ":" + path));
}

// The name that was given, or one for what is served; empty for a pool, whose id is not known before it is open.
std::expected<std::string, Complaint> choose_nqn(const ServeArguments& arguments) {
  if (arguments.nqn.empty()) {
    if (!arguments.pool.empty() && arguments.paths.empty()) return std::string();
    return derive_nqn(arguments.paths.empty() ? "memory" : arguments.paths.front());
  }
  const auto valid = nvme::validate_nqn(arguments.nqn);
  if (!valid) return complain_about(fmt::format("--nqn {}", arguments.nqn), valid.error());
  return arguments.nqn;
}

}  // namespace

std::expected<ServePlan, Complaint> check(const ServeArguments& arguments) {
  ServePlan plan;
  if (arguments.paths.empty() && arguments.memory.empty() && arguments.null.empty() && arguments.pool.empty()) {
    return std::unexpected("give a PATH to serve, or --pool DISK, or --memory SIZE, or --null SIZE");
  }
  if (const auto pool = check_pool(arguments, plan); !pool) return std::unexpected(pool.error());
  std::optional<uint64_t> size;
  if (!arguments.size.empty()) {
    const auto parsed = parse_blocks("--size", arguments.size);
    if (!parsed) return std::unexpected(parsed.error());
    if (arguments.paths.empty()) return std::unexpected("--size: is for files; the size of memory goes to --memory");
    if (arguments.read_only) return std::unexpected("--size: makes or grows a file, which --read-only rules out");
    size = *parsed;
  }
  for (const std::string& path : arguments.paths) {
    const Access access = arguments.read_only ? Access::kReadOnly : Access::kReadWrite;
    plan.disks.push_back({.path = path, .access = access, .size_bytes = size});
  }
  for (const auto& [option, texts, bytes] : {std::tuple("--memory", &arguments.memory, &plan.memory_bytes),
                                             std::tuple("--null", &arguments.null, &plan.null_bytes)}) {
    for (const std::string& text : *texts) {
      const auto parsed = parse_blocks(option, text);
      if (!parsed) return std::unexpected(parsed.error());
      bytes->push_back(*parsed);
    }
  }
  const auto listeners = parse_listeners(arguments.listen);
  if (!listeners) return std::unexpected(listeners.error());
  plan.listeners = *listeners;
  const auto nqn = choose_nqn(arguments);
  if (!nqn) return std::unexpected(nqn.error());
  plan.subsystem.nqn = *nqn;
  for (const std::string& host : arguments.hosts) {
    if (const auto valid = nvme::validate_nqn(host); !valid)
      return complain_about(fmt::format("--host {}", host), valid.error());
  }
  plan.subsystem.allowed_hosts = arguments.hosts;
  const auto runtime = parse_runtime(arguments.shards, arguments.poll);
  if (!runtime) return std::unexpected(runtime.error());
  plan.runtime = *runtime;
  return plan;
}

}  // namespace fairlead::cli
