#include "cli/remote.h"

#include <cstdio>
#include <fmt/format.h>

#include "base/log.h"
#include "cli/transport_url.h"
#include "io/runtime.h"

namespace fairlead::cli {
namespace {

template <typename T>
struct Asked {
  Result<T> answer = fail(Code::kInternal);
};

template <typename T>
Task<void> keep(Task<Result<T>> task, Asked<T>& asked) {
  asked.answer = co_await std::move(task);
}

// Runs what `make_task(shard)` returns on a shard of its own.
template <typename T, typename MakeTask>
Result<T> ask(MakeTask make_task) {
  set_log_level(LogLevel::kError);  // what fails is told once, by the command
  Runtime runtime({.poll = PollMode::kNever, .pinning = Pinning::kNone, .signals = RuntimeOptions::Signals::kDefault});
  FL_TRY_VOID(runtime.start());
  Asked<T> asked;
  runtime.run_on(0, keep<T>(make_task(runtime.shard(0)), asked));
  runtime.stop();
  return std::move(asked.answer);
}

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace

std::expected<DiscoverPlan, Complaint> check(const DiscoverArguments& arguments) {
  DiscoverPlan plan;
  const Result<SocketAddress> address = parse_host_address(arguments.address, kNvmePort);
  if (!address) return complain_about(arguments.address, address.error());
  if (address->port == 0) return std::unexpected(fmt::format("{}: port 0 is none", arguments.address));
  plan.address = *address;
  const auto identity = host_identity(arguments.host);
  if (!identity) return std::unexpected(identity.error());
  plan.identity = *identity;
  plan.json = arguments.json;
  return plan;
}

int discover(const DiscoverPlan& plan) {
  const auto discovery = ask<host::Discovery>(
      [&](Shard& shard) { return host::discover(shard, plan.address, {.identity = plan.identity}); });
  if (!discovery) {
    fmt::print(stderr, "fairlead discover: {} {}\n", fairlead::to_string(plan.address), to_string(discovery.error()));
    return 1;
  }
  print(plan.json ? to_json(*discovery) : to_text(*discovery));
  for (const auto& [address, error] : discovery->failures) {
    fmt::print(stderr, "fairlead discover: {}, to which the target refers, {}\n", fairlead::to_string(address),
               to_string(error));
  }
  return 0;
}

std::expected<IdentifyPlan, Complaint> check(const IdentifyArguments& arguments) {
  if (!is_transport_url(arguments.target)) {
    return std::unexpected(
        fmt::format("{}: expected nvme+tcp://ADDR[:PORT]/NQN[?ns=N], see fairlead discover", arguments.target));
  }
  const Result<TransportUrl> url = parse_transport_url(arguments.target);
  if (!url) return complain_about(arguments.target, url.error());
  IdentifyPlan plan;
  plan.name = arguments.target;
  plan.question.address = url->address;
  plan.question.nqn = url->nqn;
  plan.question.nsid = url->nsid;
  const auto identity = host_identity(arguments.host);
  if (!identity) return std::unexpected(identity.error());
  plan.question.identity = *identity;
  plan.question.header_digest = arguments.hdgst;
  plan.question.data_digest = arguments.ddgst;
  plan.json = arguments.json;
  return plan;
}

int identify(const IdentifyPlan& plan) {
  const auto controller = ask<RemoteController>([&](Shard& shard) { return describe_remote(shard, plan.question); });
  if (!controller) {
    fmt::print(stderr, "fairlead identify: {} {}\n", plan.name, to_string(controller.error()));
    return 1;
  }
  print(plan.json ? to_json(*controller) : to_text(*controller));
  return 0;
}

}  // namespace fairlead::cli
