// The floor: what the same bytes cost over bare sockets. A read is 72 bytes there and 24 + SIZE back, a write 72 + SIZE
// there and 24 back, as in NVMe/TCP with data in capsules; nobody looks at any of them. Two processes, one on each
// processor: the child answers, the parent asks and measures.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <span>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "floor_sides.h"
#include "measure.h"

namespace fairlead::bench {
namespace {

constexpr size_t kCommand = 72;   // bytes of a command capsule
constexpr size_t kResponse = 24;  // of a response, or of the header before data

// Who asks sends no less than this part of the depth at once: else the batches, once small, stay so, for each answer to
// one operation makes one more, and a run is at half of what it could be.
constexpr size_t kGatherPart = 8;

struct Options {
  std::string op = "read";
  size_t block = 4096;
  size_t depth = 32;  // of all connections together
  size_t connections = 1;
  double seconds = 3;
  double warm_up = 0.2;
  std::vector<int> cpus = {0, 1};  // who answers, who asks
  std::string engine = "calls";    // the quicker one, by 5 to 25 %
  std::string target_engine = {};
  size_t batch_kib = 1024;
  size_t memory = 0;
  uint64_t spin_us = 50;
  uint64_t rate = 0;
  bool json = false;
};

void set_option(int socket, int level, int name, int value) {
  if (::setsockopt(socket, level, name, &value, sizeof value) != 0) fail("set an option of a socket", errno);
}

void prepare_socket(int socket) { set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1); }

// Pairs of connected sockets over loopback: first of who answers, second of who asks.
std::vector<std::pair<int, int>> connect_pairs(const Options& options) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (listener < 0 || ::bind(listener, generic, length) != 0 || ::listen(listener, 64) != 0 ||
      ::getsockname(listener, generic, &length) != 0) {
    fail("listen on loopback", errno);
  }
  std::vector<std::pair<int, int>> pairs;
  for (size_t i = 0; i < options.connections; ++i) {
    const int asking = ::socket(AF_INET, SOCK_STREAM, 0);
    if (asking < 0 || ::connect(asking, generic, length) != 0) fail("connect", errno);
    const int answering = ::accept(listener, nullptr, nullptr);
    if (answering < 0) fail("accept", errno);
    prepare_socket(answering);
    prepare_socket(asking);
    pairs.emplace_back(answering, asking);
  }
  ::close(listener);
  return pairs;
}

// Given out by the kernel before anything is measured.
std::span<std::byte> populate(size_t bytes) {
  if (bytes == 0) return {};
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("map memory", errno);
  (void)::madvise(memory, bytes, MADV_HUGEPAGE);
  if (::madvise(memory, bytes, MADV_POPULATE_WRITE) != 0) fail("populate memory", errno);
  return {static_cast<std::byte*>(memory), bytes};
}

Engine engine_of(const std::string& name) { return name == "ring" ? Engine::kRing : Engine::kCalls; }

Report measure(const Options& options, SideOptions side) {
  side.start_ns = now_ns() + static_cast<uint64_t>(options.warm_up * 1e9);
  side.end_ns = side.start_ns + static_cast<uint64_t>(options.seconds * 1e9);
  const Counted counted = run_side(engine_of(options.engine), side);
  if (counted.operations == 0) fail("move a single operation", 0);
  return {.operations = counted.operations,
          .bytes = counted.operations * options.block,
          .seconds = static_cast<double>(now_ns() - counted.began_ns) / 1e9,
          .cpu_seconds = cpu_seconds(0) - counted.cpu_seconds,
          .target_cpu_seconds = cpu_seconds(side.other) - counted.other_cpu_seconds,
          .latency_ns = counted.latency_ns};
}

int run(const Options& options) {
  const size_t there = kCommand + (options.op == "write" ? options.block : 0);
  const size_t back = kResponse + (options.op == "read" ? options.block : 0);
  const std::string& target_engine = options.target_engine.empty() ? options.engine : options.target_engine;
  SideOptions side{
      .batch_bytes = options.batch_kib * 1024, .spin_ns = options.spin_us * 1000, .sockets = {}, .memory = {}};
  const auto pairs = connect_pairs(options);
  const pid_t parent = ::getpid();
  int ready[2];
  if (::pipe(ready) != 0) fail("make a pipe", errno);
  const pid_t child = ::fork();
  if (child < 0) fail("fork", errno);
  for (const auto& [answering, asking] : pairs) {
    side.sockets.push_back(child == 0 ? answering : asking);
    ::close(child == 0 ? asking : answering);
  }
  if (child == 0) {
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) return 1;
    pin_to(options.cpus[0]);
    side.in = there;
    side.out = back;
    side.memory = populate(options.memory);
    ::close(ready[0]);
    ::close(ready[1]);
    (void)run_side(engine_of(target_engine), side);
    return 0;
  }
  pin_to(options.cpus[1]);
  side.in = back;
  side.out = there;
  side.interval_ns = options.rate == 0 ? 0 : 1'000'000'000 / options.rate;
  side.depth = options.depth / options.connections;
  side.gather = std::max<size_t>(1, side.depth / kGatherPart);
  side.other = child;
  side.memory = populate(options.memory);
  ::close(ready[1]);
  char byte = 0;
  (void)!::read(ready[0], &byte, 1);  // returns when the other side has closed its end too
  const Report report = measure(options, side);
  for (const int socket : side.sockets) ::close(socket);
  int status = 0;
  ::waitpid(child, &status, 0);
  fmt::print("{}\n", options.json ? to_json(report) : to_text(report));
  return 0;
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  fairlead::bench::Options options;
  CLI::App app("The same bytes as NVMe/TCP over bare sockets, as quickly as can be", "floor");
  app.add_option("--op", options.op, "read or write")->check(CLI::IsMember({"read", "write"}));
  app.add_option("--bs", options.block, "Bytes of each operation: 4096, 128k")->transform(CLI::AsSizeValue(false));
  app.add_option("--qd", options.depth, "Operations in flight, of all connections together")
      ->check(CLI::PositiveNumber);
  app.add_option("--connections", options.connections)->check(CLI::Range(1, 64));
  app.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber);
  app.add_option("--warm-up", options.warm_up, "Seconds before anything is counted")->capture_default_str();
  app.add_option("--cpus", options.cpus, "ANSWERING,ASKING: the processors; -1 leaves a side free")
      ->delimiter(',')
      ->expected(2);
  app.add_option("--engine", options.engine, "calls: recv(), send(), poll(); or ring: io_uring")
      ->check(CLI::IsMember({"calls", "ring"}))
      ->capture_default_str();
  app.add_option("--target-engine", options.target_engine, "The same for who answers, if it shall be another")
      ->check(CLI::IsMember({"calls", "ring"}));
  app.add_option("--batch-kib", options.batch_kib, "The most that one receive or send takes")
      ->check(CLI::Range(4, 4096))
      ->capture_default_str();
  app.add_option("--memory", options.memory,
                 "Bytes that data is sent from and received into, in turn: 1g. 0: few, in caches")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--spin-us", options.spin_us, "How long to look for work before sleeping")->capture_default_str();
  app.add_option("--rate", options.rate,
                 "Operations a second, one at a time, so that who answers sleeps before each; 0: as many as can be");
  app.add_flag("--json", options.json);
  CLI11_PARSE(app, argc, argv);
  if (options.depth % options.connections != 0) {
    fmt::print(stderr, "--qd: must be a multiple of --connections\n");
    return 2;
  }
  if (options.memory != 0 && (options.engine == "ring" || options.target_engine == "ring")) {
    fmt::print(stderr, "--memory: needs --engine calls\n");
    return 2;
  }
  if (options.rate != 0 && (options.depth != 1 || options.rate > 10'000)) {
    fmt::print(stderr, "--rate: needs --qd 1, and is at most 10000\n");
    return 2;
  }
  return fairlead::bench::run(options);
}
