// A target that is told what to do by lines on its standard input, for cases in which something changes at run time:
//
//   listen ADDR[:PORT] ADVERTISED    ok INDEX ADDR:PORT, the latter as advertised
//   subsystem NQN                    ok
//   add NQN NSID PATH                ok: a namespace on a file or device
//   rescan NQN NSID                  ok BYTES: has its file changed its size?
//   remove NQN NSID                  ok
//   ana NQN INDEX STATE              ok: optimized, non-optimized, inaccessible, persistent-loss or change
//
// Each line is answered by one, "ok …" or "error …", when what it asks for has been done. Hosts that come and go are
// announced between the answers, as `fairlead serve` does. The end of the input stops the target.
#include <charconv>
#include <cstdio>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/disk.h"
#include "io/runtime.h"
#include "target/target.h"

namespace fairlead {
namespace {

using Words = std::vector<std::string>;

// All hosts are seen the same way through a port: every namespace is in this group.
constexpr uint32_t kAnaGroup = 1;

void say(std::string_view line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

class Announcer final : public target::TargetObserver {
 public:
  void host_connected(const target::HostSession& session) override {
    say(fmt::format("host {} connected ({} I/O queues)", session.host_nqn, session.io_queues));
  }
  void host_disconnected(const target::HostSession& session, std::string_view reason) override {
    say(fmt::format("host {} disconnected: {}", session.host_nqn, reason));
  }
};

// From a number in decimal; nothing from anything else.
std::optional<uint32_t> parse_number(const std::string& text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<target::AnaState> parse_ana_state(std::string_view text) {
  using enum target::AnaState;
  if (text == "optimized") return kOptimized;
  if (text == "non-optimized") return kNonOptimized;
  if (text == "inaccessible") return kInaccessible;
  if (text == "persistent-loss") return kPersistentLoss;
  if (text == "change") return kChange;
  return std::nullopt;
}

Words split(std::string_view line) {
  Words words;
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    if (end > 0) words.emplace_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

// Lives on the first shard.
class SteeredTarget {
 public:
  explicit SteeredTarget(Runtime& runtime) : shard_(runtime.shard(0)), target_(all_shards(runtime), {}, &announcer_) {}

  Task<Result<void>> stop() { co_return co_await target_.stop(); }

  // Does what the words say; returns what to add to "ok".
  Task<Result<std::string>> obey(Words words) {
    const std::string& verb = words.front();
    if (words.size() == 3 && verb == "listen") co_return co_await listen(words[1], words[2]);
    if (words.size() == 2 && verb == "subsystem") co_return co_await add_subsystem(words[1]);
    if (words.size() == 4 && verb == "ana") co_return co_await set_ana_state(words[1], words[2], words[3]);
    const std::optional<uint32_t> nsid = words.size() < 3 ? std::nullopt : parse_number(words[2]);
    if (!nsid) co_return fail(Code::kInvalidArgument, "no such command, or not its arguments");
    if (words.size() == 4 && verb == "add") co_return co_await add_namespace(words[1], *nsid, words[3]);
    if (words.size() == 3 && verb == "remove") co_return done(co_await target_.remove_namespace(words[1], *nsid));
    if (words.size() == 3 && verb == "rescan") {
      const Result<uint64_t> size = co_await target_.rescan_namespace(words[1], *nsid);
      if (!size) co_return std::unexpected(size.error());
      co_return fmt::to_string(*size);
    }
    co_return fail(Code::kInvalidArgument, "no such command, or not its arguments");
  }

 private:
  static std::vector<Shard*> all_shards(Runtime& runtime) {
    std::vector<Shard*> shards;
    for (size_t i = 0; i < runtime.shard_count(); ++i) shards.push_back(&runtime.shard(i));
    return shards;
  }

  static Result<std::string> done(Result<void> result) {
    if (!result) return std::unexpected(result.error());
    return std::string();
  }

  Task<Result<std::string>> add_subsystem(std::string nqn) {
    target::SubsystemOptions options;
    options.nqn = std::move(nqn);
    co_return done(co_await target_.add_subsystem(std::move(options)));
  }

  Task<Result<std::string>> listen(std::string bind, std::string advertised) {
    const Result<SocketAddress> bind_address = parse_socket_address(bind, 0);
    const Result<SocketAddress> advertised_address = parse_socket_address(advertised, 0);
    if (!bind_address) co_return std::unexpected(bind_address.error());
    if (!advertised_address) co_return std::unexpected(advertised_address.error());
    const auto listening = co_await target_.start_listener({.bind = *bind_address, .advertise = *advertised_address});
    if (!listening) co_return std::unexpected(listening.error());
    co_return fmt::format("{} {}", listening->port, to_string(listening->advertised));
  }

  Task<Result<std::string>> add_namespace(std::string nqn, uint32_t nsid, std::string path) {
    Result<std::shared_ptr<BlockSource>> source = open_disk_source(shard_, {.path = path});
    if (!source) co_return std::unexpected(source.error());
    const auto added = co_await target_.add_namespace(nqn, {.nsid = nsid, .source = std::move(*source), .uuid = {}});
    if (!added) co_return std::unexpected(added.error());
    co_return fmt::to_string(*added);
  }

  Task<Result<std::string>> set_ana_state(std::string nqn, std::string port_text, std::string state_text) {
    const std::optional<uint32_t> port = parse_number(port_text);
    const std::optional<target::AnaState> state = parse_ana_state(state_text);
    if (!port || *port >= target::kListenersMax || !state) {
      co_return fail(Code::kInvalidArgument, "no such command, or not its arguments");
    }
    co_return done(co_await target_.set_ana_state(nqn, static_cast<target::PortIndex>(*port), kAnaGroup, *state));
  }

  Shard& shard_;
  Announcer announcer_;
  target::Target target_;
};

Task<void> start(Runtime& runtime, std::optional<SteeredTarget>& target) {
  target.emplace(runtime);
  co_return;
}

Task<void> obey_and_answer(SteeredTarget& target, Words words) {
  const Result<std::string> answer = co_await target.obey(std::move(words));
  say(answer ? fmt::format("ok {}", *answer) : fmt::format("error {}", to_string(answer.error())));
}

Task<void> stop(std::optional<SteeredTarget>& target, int& status) {
  const Result<void> stopped = co_await target->stop();
  if (!stopped) say(fmt::format("error {}", to_string(stopped.error())));
  status = stopped ? 0 : 1;
  target.reset();
  say("stopped");
}

int run() {
  Runtime runtime({.shards = 2, .signals = RuntimeOptions::Signals::kDefault});
  if (const Result<void> started = runtime.start(); !started) {
    say(fmt::format("error {}", to_string(started.error())));
    return 1;
  }
  std::optional<SteeredTarget> target;  // made and destroyed on its shard
  runtime.run_on(0, start(runtime, target));
  say("ready");
  int character = 0;
  std::string line;
  while ((character = std::getchar()) != EOF) {
    if (character != '\n') {
      line.push_back(static_cast<char>(character));
      continue;
    }
    if (Words words = split(line); !words.empty()) runtime.run_on(0, obey_and_answer(*target, std::move(words)));
    line.clear();
  }
  int status = 0;
  runtime.run_on(0, stop(target, status));
  runtime.stop();
  return status;
}

}  // namespace
}  // namespace fairlead

int main() { return fairlead::run(); }
